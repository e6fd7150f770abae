"""The tables about colours changed at random: what was found in each area, and which try was chosen."""

from __future__ import annotations

import itertools

import pandas as pd

from reproduction.experiments.recolouring import CHANGES
from reproduction.pages import recolouring
from reproduction.profiles import get_profile
from reproduction.settings import AS_IT_IS

AREAS = get_profile("japan-cpu").retrieval.areas[:2]


def rows(found: dict[tuple[str, str], tuple[float, ...]]) -> pd.DataFrame:
    """Recalls of whole runs (method, change): in both areas turned, then redrawn."""
    asked = list(itertools.product(recolouring.QUERIES, AREAS))
    return pd.DataFrame([
        {"method": method, "change": change, "area": area.name, "query": query, "recall": recall,
         "low": recall - 0.02, "high": recall + 0.02}
        for (method, change), recalls in found.items()
        for (query, area), recall in zip(asked, recalls, strict=True)
    ])  # fmt: skip


def test_what_is_gained_is_said_from_the_least_to_the_most() -> None:
    table = rows({
        ("gps_selm", AS_IT_IS.name): (0.50, 0.40, 0.10, 0.20), ("gps_selm", CHANGES[1].name): (0.45, 0.50, 0.40, 0.80),
        ("moco_v2", AS_IT_IS.name): (0.30, 0.30, 0.30, 0.30),
    })  # fmt: skip
    first, second, shown = (part.text for part in recolouring.found_again(table, AREAS))
    assert "turned −5 to +10 points; redrawn +30 to +60 points" in first and CHANGES[1].name in first
    assert "the colours as they are did best" in second
    assert (
        "45 % (43–47)" in shown and "80 % (78–82)" in shown and shown.count("<tr") == 7
    )  # a head; 2 × (method, 2 areas)


def test_the_chosen_try_of_each_method_is_marked() -> None:
    table = pd.DataFrame([
        {"method": "moco_v2", "change": change.name, "price": 1.0 - 0.1 * i, "recall": 0.1 * i, "redrawn": 0.2 * i,
         "collapse": "", "seed": 0, "processor_seconds": 1.0, "teacher_entropy": 1.0}
        for i, change in enumerate(CHANGES)
    ])  # fmt: skip
    shown = recolouring.tries(table).text
    assert shown.count(" *<") == 1 and f"{CHANGES[-1].name} *" in shown

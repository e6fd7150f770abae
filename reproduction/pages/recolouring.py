"""What colours changed at random in pretraining are worth, as tables: places found again, and the tries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from reproduction.experiments import recolouring
from reproduction.pages.html import Html, fixed, prose, simple_table
from reproduction.report import records
from reproduction.settings import AS_IT_IS, Area
from reproduction.titles import title_of

TURNED = "d0"  # the query of Figure 5 that is turned and zoomed, at the place itself
QUERIES = {TURNED: "turned", recolouring.REDRAWN: "redrawn"}


def found_again(rows: pd.DataFrame, areas: Sequence[Area]) -> list[Html]:
    """A sentence a method, and the share of places found in the top 1 % in each area, turned and zoomed, and redrawn
    without fills: a column for each whole run.

    rows: `reproduction.experiments.recolouring.chapter`'s.
    """
    at = {(row.method, row.change, row.area, row.query): row for row in records(rows)}
    runs = list(dict.fromkeys((row.method, row.change) for row in records(rows)))
    asked = [(area, query) for area in areas if area.name in set(rows["area"]) for query in QUERIES]
    body = [
        [f"{area.title}, {QUERIES[query]}", *(_share(at[method, change, area.name, query]) for method, change in runs)]
        for area, query in asked
    ]
    said = []
    for method in dict.fromkeys(method for method, _ in runs):
        changes = [change for name, change in runs if name == method and change != AS_IT_IS.name]
        if not changes:
            said.append(f"**{title_of(method)}**: in the validation regions the colours as they are did best.")
            continue
        words = []
        for query in QUERIES:
            gains = [
                100
                * (at[method, changes[0], area.name, query].recall - at[method, AS_IT_IS.name, area.name, query].recall)
                for area, asked_with in asked
                if asked_with == query
            ]
            words.append(f"{QUERIES[query]} {_signed(min(gains))} to {_signed(max(gains))} points")
        against = f"against the colours as they are, in {len(asked) // len(QUERIES)} areas"
        said.append(f"**{title_of(method)}**, {changes[0]}, {against}: {'; '.join(words)}.")
    head = ["", *(f"{title_of(method)}, {change}" for method, change in runs)]
    return [*map(prose, said), simple_table(head, {"": body}, "Share of places found in the top 1 %")]


def tries(rows: pd.DataFrame) -> Html:
    """Every try with what it was judged by; the chosen one of each method is marked."""
    sections = {
        title_of(str(method)): [
            [
                f"{row.change}{' *' if row.chosen else ''}",
                fixed(row.price, 3),
                _percent(row.recall),
                _percent(row.redrawn),
            ]
            for row in records(part)
        ]
        for method, part in recolouring.ranked(rows).groupby("method", sort=False)
    }
    head = ["colours (* chosen)", "price error", "found, turned", "found, redrawn"]
    return simple_table(head, sections, "In the validation regions")


def _share(row: Any) -> str:
    return f"{_percent(row.recall)} ({100 * row.low:.0f}–{100 * row.high:.0f})"


def _signed(points: float) -> str:
    return f"{points:+.0f}".replace("-", "−")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"

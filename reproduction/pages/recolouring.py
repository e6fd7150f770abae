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
    """A sentence a method, and a table: the share of places found in the top 1 % in each area, turned and zoomed, and
    redrawn without fills, with the colours as they are and with the chosen change.

    rows: `reproduction.experiments.recolouring.chapter`'s.
    """
    at = {(row.method, row.change, row.area, row.query): row for row in records(rows)}
    asked = [area for area in areas if area.name in set(rows["area"])]
    said, sections = [], {}
    for method, part in rows.groupby("method", sort=False):
        changes = [AS_IT_IS.name, *(change for change in part["change"].unique() if change != AS_IT_IS.name)][:2]
        runs = [(query, change) for query in QUERIES for change in changes]
        title = title_of(str(method))
        shares = [[area.title, *(_share(at[method, run, area.name, query]) for query, run in runs)] for area in asked]
        if len(changes) == 1:
            said.append(f"**{title}**: in the validation regions the colours as they are did best.")
            sections[f"{title}: the colours as they are"] = [[row[0], row[1], "–", row[2], "–"] for row in shares]
            continue
        sections[f"{title}: {changes[1]}"] = shares
        words = []
        for query in QUERIES:
            before, after = ([at[method, change, area.name, query].recall for area in asked] for change in changes)
            gains = [100 * (new - old) for old, new in zip(before, after, strict=True)]
            words.append(f"{QUERIES[query]} {_signed(min(gains))} to {_signed(max(gains))} points")
        against = f"against the colours as they are, in {len(asked)} areas"
        said.append(f"**{title}**, {changes[1]}, {against}: {'; '.join(words)}.")
    head = ["", *(f"{query}, {colours}" for query in QUERIES.values() for colours in ("as it is", "changed"))]
    return [*map(prose, said), simple_table(head, sections, "Share of places found in the top 1 %")]


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

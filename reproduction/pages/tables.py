"""Tables of the book: a run beside the paper, land price in practice, and where numbers come from."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from reproduction.pages.html import (
    CSS,
    DEMO,
    METRIC_NAMES,
    PLUMBING_CHECKS,
    PROFILE_WORDS,
    Html,
    html_table,
    metric_number,
    tag,
    td,
)
from reproduction.pages.more_context import split_title
from reproduction.report import HIGHER_IS_BETTER, PERCENT, SETTINGS, records
from selm.errors import InputError

_Key = tuple[str, str, int, str]  # setting, method, epochs, metric


class _Column:
    """One run of a comparison: its cells, what all of them share, and which is best."""

    def __init__(self, name: str, rows: Iterable[Any], metrics: Sequence[str]):
        self.name, self.metrics = name, metrics
        self.cells: dict[_Key, Any] = {(r.setting, r.method, int(r.epochs), r.metric): r for r in rows if r.n}
        present = list(self.cells.values())
        self.profile = present[0].profile if present else ""
        self.plumbing_check = self.profile in PLUMBING_CHECKS
        counts = [cell.n for cell in present]
        self.n = max(set(counts), key=counts.count) if counts else 0
        statuses = {cell.status for cell in present}
        self.status = next(iter(statuses)) if len(statuses) == 1 else ""
        ours = {key[:3]: cell.mean for key, cell in self.cells.items() if key[3] == metrics[0]}
        choose = max if HIGHER_IS_BETTER[metrics[0]] else min
        self.best = choose(ours, key=ours.__getitem__) if ours and not self.plumbing_check else None

    def head(self, span: int) -> str:
        words = PROFILE_WORDS.get(self.profile, self.profile)
        lines = [html.escape(self.name) + (f"<br><small>{html.escape(words)}</small>" if words else "")]
        if self.n:
            lines.append(f"<small>n = {self.n}</small>")
        if not self.cells:
            lines.append(tag("not run"))
        elif self.plumbing_check:
            lines.append(f"<small>{DEMO}</small>")
        elif self.status:
            lines.append(tag(self.status))
        return f'<th class="group edge" colspan="{span}">{"<br>".join(lines)}</th>'

    def cell(self, setting: str, method: str, epochs: int, *kinds: str, span: int = 1) -> str:
        """mean ± sd of each metric, and below it what the heading does not say for all."""
        found: list[Any] = [self.cells.get((setting, method, epochs, metric)) for metric in self.metrics]
        if None in found:
            return td("–", *kinds, span=span)
        pairs = list(zip(found, self.metrics, strict=True))
        numbers = [
            metric_number(cell.mean, metric)
            + (f"<small> ± {metric_number(cell.sd, metric)}</small>" if math.isfinite(cell.sd) else "")
            for cell, metric in pairs
        ]
        below = [f"n = {found[0].n}"] if found[0].n != self.n else []
        if not self.plumbing_check:
            if all(math.isfinite(cell.delta) for cell in found):
                below.append("Δ " + " / ".join(metric_number(cell.delta, metric, sign=True) for cell, metric in pairs))
            if not self.status:
                below += [tag(word) for word in dict.fromkeys(cell.status for cell in found) if word]
        text = " / ".join(numbers) + (f"<br><small>{' · '.join(below)}</small>" if below else "")
        best = "best" if (setting, method, epochs) == self.best else ""
        return td(text, *kinds, best, span=span)


def comparison_table(comparison: pd.DataFrame, *, caption: str = "", paper_split: str = "on a random split") -> Html:
    """`reproduction.report.compare`'s table for a page: a column of the paper, then one of each run, epochs side by
    side.

    A cell is mean ± sd over trials, with the difference to the paper (Δ) and the status; a number of trials or a
    status that a whole column shares stands in its heading. Profiles that only check the plumbing are headed so and
    carry neither Δ nor verdict. The best number of each run is bold.
    """
    if not len(comparison):
        raise InputError("nothing to compare: the table has no rows")
    metrics = [metric for metric in HIGHER_IS_BETTER if metric in set(comparison["metric"])]
    runs = [
        _Column(str(name), records(rows), metrics) for name, rows in comparison.groupby("run", sort=False, dropna=False)
    ]
    epochs = sorted({int(e) for e in comparison["epochs"] if e > 0}) or [0]
    span = len(epochs)
    printed: dict[_Key, float] = {}
    titles: dict[tuple[str, str], str] = {}
    for row in records(comparison):
        printed[row.setting, row.method, int(row.epochs), row.metric] = row.paper
        titles[row.setting, row.method] = row.title
    measured = " / ".join(METRIC_NAMES[m] for m in metrics) + (", %" if metrics[0] in PERCENT else "")
    facts = [paper_split] if "blocks" in set(comparison["split"]) else []
    if "top1" in metrics:
        facts.append("frozen or fine-tuned: not stated")
    steps = "".join(
        f'<th class="{"edge" if e == epochs[0] else ""}">{e or ""}</th>' for _ in range(1 + len(runs)) for e in epochs
    )
    head = (
        f'<tr><th rowspan="2">{measured}<br><small>after … epochs</small></th>'
        f'<th class="group edge" colspan="{span}">paper{"".join(f"<br><small>{fact}</small>" for fact in facts)}</th>'
        f"{''.join(run.head(span) for run in runs)}</tr>"
        f"<tr>{steps}</tr>"
    )
    body, section = "", ""
    for (setting, method), title in titles.items():
        if setting != section:
            name = html.escape(SETTINGS.get(setting, setting))
            body += f'<tr class="section"><td colspan="{1 + span * (1 + len(runs))}">{name}</td></tr>'
            section = setting
        by_epochs = any((setting, method, e, metrics[0]) in printed for e in epochs)
        body += f"<tr><td>{html.escape(title)}</td>"
        for run in (None, *runs):
            for e in epochs if by_epochs else (0,):
                kinds = ("edge" if e in (0, epochs[0]) else "", "" if by_epochs else "wide")
                width = 1 if by_epochs else span
                if run is not None:
                    body += run.cell(setting, method, e, *kinds, span=width)
                else:
                    body += td(_printed(printed, setting, method, e, metrics), *kinds, span=width)
        body += "</tr>"
    return Html(html_table(caption, head, body))


def _printed(printed: Mapping[_Key, float], setting: str, method: str, epochs: int, metrics: Sequence[str]) -> str:
    values = [printed.get((setting, method, epochs, metric), math.nan) for metric in metrics]
    if not all(map(math.isfinite, values)):
        return "–"
    return " / ".join(f"{value:.2f}" for value in values)  # as printed


def provenance_footer(results: pd.DataFrame | Iterable[pd.DataFrame | None], *, command: str | None = None) -> Html:
    """Where the numbers of a table come from: of each profile its commits, data, device and dates, and the one command.

    command: by default ``python -m reproduction table N --profile PROFILE`` (``figure N``, ``chapter NAME``) for the
    experiments.
    """
    parts = [results] if isinstance(results, pd.DataFrame) else [part for part in results if part is not None]
    text = ""
    for part in parts:
        for profile, rows in part.groupby("profile", sort=False):
            facts = [f"<strong>{html.escape(str(profile))}</strong>"]
            for name, column in (("commit", "commit"), ("data", "data"), ("on", "device"), ("date", "date")):
                facts.append(f"{name} {_listed(rows[column])}")
            if runs := len(set(rows["run_id"].dropna()) - {""}):
                facts.append(f"run ids: {runs}")
            if rows["stand_in"].fillna(False).astype(bool).any():
                photographs = profile not in PLUMBING_CHECKS and set(rows["experiment"]) <= _WITH_PHOTOGRAPHS
                what = "photographs are stand-ins" if photographs else "labels are stand-ins computed from the map"
                facts.append(what)
            names = sorted({str(name) for name in rows["experiment"]})
            verbs = [re.sub(r"^(table|figure)(?=\d)", r"\1 ", name) for name in names]
            verbs = [verb if " " in verb else f"chapter {verb}" for verb in verbs]
            again = command or " && ".join(f"python -m reproduction {verb} --profile {profile}" for verb in verbs)
            text += f'<p class="selm-foot">{" · ".join(facts)}<br>again: <code>{html.escape(again)}</code></p>'
    return Html(CSS + text)


_WITH_PHOTOGRAPHS = {"table3", "table4", "figure4"}


def _listed(column: pd.Series[Any], most: int = 3) -> str:
    values = sorted({str(value) for value in column.dropna()} - {""})
    shown = ", ".join(values[:most]) + (f" and {len(values) - most} more" if len(values) > most else "")
    return html.escape(shown) or "unknown"


def practice_table(rows: pd.DataFrame, region: str) -> Html:
    """What a practitioner asks: the table of `reproduction.pages.findings.practice`, of a region."""
    caption = f"{region}, {split_title(rows['split'].iloc[0])}"
    head = "<tr><th></th><th>made of</th><th>MSE</th></tr>"
    body = ""
    for row in records(rows):
        error = f"{metric_number(row.mean, 'mse')}<small> ± {metric_number(row.sd, 'mse')}</small>"
        plain = row.kind == "no embedding"
        kind = f"{row.kind}, with coordinates" if plain and row.coordinates else row.kind
        body += f"<tr><td>{html.escape(row.title)}</td>" + td(kind, "" if plain else "best") + td(error) + "</tr>"
    return Html(html_table(caption, head, body))

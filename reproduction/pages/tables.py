"""The tables of the book as HTML: no scripts, no fonts, nothing from the network, and the page's own colours."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reproduction.report import HIGHER_IS_BETTER, PERCENT, SETTINGS, paper_table, records
from reproduction.titles import title_of
from selm.errors import InputError

PLUMBING_CHECKS = ("smoke", "demo")  # profiles that show that everything runs: their numbers carry no verdict
_UNITS = {"mse": "MSE", "top1": "top-1", "top5": "top-5", "ap50": "AP50"}
_LINE = "1px solid rgba(128,128,128,.5)"
# One rule a line; colours are inherited, so that tables read on light and dark themes and on paper.
_RULES = f"""
.selm-scroll {{overflow-x: auto; margin: 1em 0}}
table.selm {{border-collapse: collapse; font-size: .82em; line-height: 1.25; width: auto; margin: 0}}
table.selm {{font-variant-numeric: tabular-nums}}
table.selm caption {{caption-side: top; text-align: left; font-weight: 600; padding-bottom: .4em; color: inherit}}
table.selm th, table.selm td {{border: 0; padding: .22em .5em; text-align: right; vertical-align: baseline}}
table.selm th, table.selm td {{background: none; color: inherit; white-space: nowrap}}
table.selm th:first-child, table.selm td:first-child {{text-align: left}}
table.selm thead tr:last-child th {{border-bottom: {_LINE}}}
table.selm thead th {{font-weight: 600; vertical-align: bottom}}
table.selm thead th.group {{text-align: center}}
table.selm .edge {{border-left: {_LINE}}}
table.selm tbody tr {{background: none}}
table.selm tr.section td {{font-weight: 600; text-align: left; padding-top: .8em; border-bottom: {_LINE}}}
table.selm small {{opacity: .78; font-size: .84em; font-weight: 400}}
table.selm .none {{opacity: .5}}
table.selm .best {{font-weight: 700}}
table.selm .wide {{text-align: center}}
table.selm td.words {{text-align: left; white-space: normal; min-width: 9em}}
.selm-tag {{display: inline-block; border: 1px solid currentColor; border-radius: .7em; padding: 0 .5em}}
.selm-tag {{font-size: .8em; font-weight: 400; white-space: nowrap}}
.selm-agree {{color: #1b7837}}
.selm-against {{color: #b35806}}
html[data-theme=dark] .selm-agree {{color: #7fd08f}}
html[data-theme=dark] .selm-against {{color: #f5a65b}}
.selm-foot {{font-size: .8em; opacity: .85; line-height: 1.4; margin: .4em 0 1em}}
.selm-foot code {{white-space: normal}}
"""
_CSS = f"<style>{_RULES}</style>"
_TONES = {"match": "selm-agree", "holds": "selm-agree", "differs": "selm-against", "reversed": "selm-against"}

_Key = tuple[str, str, int, str]  # setting, method, epochs, metric


@dataclass(frozen=True)
class Html:
    """A piece of HTML that notebooks show as it is."""

    text: str

    def _repr_html_(self) -> str:
        return self.text

    def __repr__(self) -> str:  # notebooks keep this beside the HTML: not all of it twice
        return f"<{len(self.text):,} characters of HTML>"


def _tag(word: str) -> str:
    return f'<span class="selm-tag {_TONES.get(word, "")}">{html.escape(word)}</span>'


def _number(value: float, metric: str, sign: bool = False) -> str:
    digits = 3 if metric == "mse" else 1
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return text.replace("-", "−")


def _td(text: str, *kinds: str, span: int = 1) -> str:
    names = " ".join(kind for kind in (*kinds, "none" if text == "–" else "") if kind)
    return f'<td class="{names}"' + (f' colspan="{span}">' if span > 1 else ">") + f"{text}</td>"


def _wrap(caption: str, head: str, body: str) -> str:
    title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return (
        f'{_CSS}<div class="selm-scroll"><table class="selm">{title}'
        f"<thead>{head}</thead><tbody>{body}</tbody></table></div>"
    )


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
        lines = [html.escape(self.name) + (f" <small>({html.escape(self.profile)})</small>" if self.profile else "")]
        if self.n:
            lines.append(f"<small>n = {self.n}</small>")
        if not self.cells:
            lines.append(_tag("not run"))
        elif self.plumbing_check:
            lines.append("<small>plumbing check: it runs, no result</small>")
        elif self.status:
            lines.append(_tag(self.status))
        return f'<th class="group edge" colspan="{span}">{"<br>".join(lines)}</th>'

    def cell(self, setting: str, method: str, epochs: int, *kinds: str, span: int = 1) -> str:
        """mean ± sd of each metric, and below it what the heading does not say for all."""
        found: list[Any] = [self.cells.get((setting, method, epochs, metric)) for metric in self.metrics]
        if None in found:
            return _td("–", *kinds, span=span)
        pairs = list(zip(found, self.metrics, strict=True))
        numbers = [
            _number(cell.mean, metric)
            + (f"<small> ± {_number(cell.sd, metric)}</small>" if math.isfinite(cell.sd) else "")
            for cell, metric in pairs
        ]
        below = [f"n = {found[0].n}"] if found[0].n != self.n else []
        if not self.plumbing_check:
            if all(math.isfinite(cell.delta) for cell in found):
                below.append("Δ " + " / ".join(_number(cell.delta, metric, sign=True) for cell, metric in pairs))
            if not self.status:
                below += [_tag(word) for word in dict.fromkeys(cell.status for cell in found) if word]
        text = " / ".join(numbers) + (f"<br><small>{' · '.join(below)}</small>" if below else "")
        best = "best" if (setting, method, epochs) == self.best else ""
        return _td(text, *kinds, best, span=span)


def comparison_table(comparison: pd.DataFrame, *, caption: str = "") -> Html:
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
    measured = " / ".join(_UNITS[m] for m in metrics) + (", %" if metrics[0] in PERCENT else "")
    facts = ["on a random split"] if "blocks" in set(comparison["split"]) else []
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
                    body += _td(_printed(printed, setting, method, e, metrics), *kinds, span=width)
        body += "</tr>"
    return Html(_wrap(caption, head, body))


def _printed(printed: Mapping[_Key, float], setting: str, method: str, epochs: int, metrics: Sequence[str]) -> str:
    values = [printed.get((setting, method, epochs, metric), math.nan) for metric in metrics]
    if not all(map(math.isfinite, values)):
        return "–"
    return " / ".join(f"{value:.2f}" for value in values)  # as printed


def claims_table(claims: pd.DataFrame, *, caption: str = "") -> Html:
    """Ranking claims for a page: the table of `reproduction.experiments.claims`, of one metric.

    A claim between two rows of the paper is the paper's, others are ours. Profiles that only check the plumbing show
    no verdict.
    """
    metric = str(claims["metric"].iloc[0])
    plumbing_check = bool(claims["profile"].isin(PLUMBING_CHECKS).any())
    scale = 100.0 if metric in PERCENT else 1.0
    unit = _UNITS[metric] + (", points" if metric in PERCENT else "")
    in_paper = {str(method) for number in (1, 2) for method in paper_table(number)["method"]}
    columns = ("claim", "whose", f"gain ({unit})", "interval", "p, Holm", "runs", "")
    head = "<tr>" + "".join(f"<th>{column}</th>" for column in columns) + "</tr>"
    body = ""
    for row in records(claims):
        body += f"<tr><td>{html.escape(title_of(row.a))} beats {html.escape(title_of(row.b))}</td>"
        body += _td("paper" if {row.a, row.b} <= in_paper else "ours")
        if row.verdict == "not run":
            body += 4 * _td("–") + _td(_tag(row.verdict)) + "</tr>"
            continue
        gain, low, high = (_number(scale * value, metric, sign=True) for value in (row.gain, row.low, row.high))
        body += _td(gain) + _td(f"{low} to {high}")
        body += _td(f"{row.p_holm:.3f}" if row.p_holm >= 0.001 else "&lt; 0.001")
        body += _td(f"{row.seeds_a} / {row.seeds_b}") + _td("" if plumbing_check else _tag(row.verdict)) + "</tr>"
    run = claims[claims["verdict"] != "not run"]
    basis = ""
    if len(run):
        blocks, points = sorted(set(run["n_blocks"].astype(int))), sorted(set(run["n_points"].astype(int)))
        basis = (
            f'<p class="selm-foot">Paired bootstrap over {_span(blocks)} spatial blocks with {_span(points)} points; '
            f"{_correction(claims)}; conditional on the pretraining runs counted under <em>runs</em> "
            "(of the first / of the second)." + (" Plumbing check: no verdict." if plumbing_check else "") + "</p>"
        )
    return Html(_wrap(caption, head, body) + basis)


def _span(values: Sequence[int]) -> str:
    return str(values[0]) if values[0] == values[-1] else f"{values[0]} to {values[-1]}"


def _correction(claims: pd.DataFrame) -> str:
    """How a family of claims was corrected, in words."""
    level = float(claims["interval_level"].dropna().iloc[0])
    return (
        f"Holm's correction at 5 %, two-sided, for all {int(claims['n_family'].iloc[0])} claims, run or not. Intervals "
        f"are at the level of its last step, {100 * level:.4g} %, so that one leaves 0 out exactly where there is a "
        "verdict"
    )


_SHORT = {"frozen": "frozen", "finetune": "fine-tuned", "unstated": ""}


def paper_claims_table(verdicts: pd.DataFrame, *, caption: str = "") -> Html:
    """The paper's claims on one of its tables or figures: a row a pair, a column a column of the paper's table.

    verdicts: rows of `reproduction.experiments.claim_verdicts` with one `where`. A cell: verdict, our gain (positive:
    as claimed) with its interval, and below it the paper's. Profiles that only check the plumbing show no verdict.
    """
    if verdicts["where"].nunique() != 1:
        raise InputError("claims of one table or figure at a time: a family is corrected together")
    plumbing_check = bool(verdicts["profile"].isin(PLUMBING_CHECKS).any())
    where = str(verdicts["where"].iloc[0])
    printed = printed_values(where)
    rows: dict[tuple[str, str], dict[tuple[str, str, str, int], Any]] = {}
    columns: dict[tuple[str, str, str, int], None] = {}
    for claim in records(verdicts):
        epochs = 0 if pd.isna(claim.epochs) else int(claim.epochs)
        column = (str(claim.target), str(claim.metric), str(claim.setting), epochs)
        columns.setdefault(column)
        rows.setdefault((str(claim.a), str(claim.b)), {})[column] = claim
    names = {name: name.replace("-", " ") if where == "figure5" else title_of(name) for pair in rows for name in pair}
    head = "<tr><th>claim</th>"
    for target, metric, setting, epochs in columns:
        facts = [_SHORT.get(setting, setting), f"{epochs} epoch{'s' if epochs > 1 else ''}" if epochs else ""]
        facts += [target] if len({column[0] for column in columns}) > 1 else []
        head += f"<th>{_UNITS.get(metric, 'recall')}<br><small>{', '.join(fact for fact in facts if fact)}</small></th>"
    head += "</tr>"
    body = ""
    for (a, b), cells in rows.items():
        body += f"<tr><td>{html.escape(names[a])} <small>beats</small> {html.escape(names[b])}</td>"
        for column in columns:
            body += _claim_cell(cells.get(column), printed, plumbing_check)
        body += "</tr>"
    run = verdicts[verdicts["verdict"] != "not run"]
    foot = ""
    if len(run):
        blocks, points = sorted(set(run["n_blocks"].astype(int))), sorted(set(run["n_points"].astype(int)))
        foot = (
            f'<p class="selm-foot">Gain: positive where it is as claimed; below it the paper\'s. Bootstrap over '
            f"{_span(blocks)} spatial blocks with {_span(points)} points; {_correction(verdicts)}.</p>"
        )
    reasons = sorted({str(reason) for reason in verdicts["reason"].dropna()} - {""})
    if reasons:
        foot += f'<p class="selm-foot">Not run: {html.escape("; ".join(reasons))}.</p>'
    return Html(_wrap(caption, head, body) + foot)


def _claim_cell(claim: Any, printed: Mapping[tuple[str, str, int, str, str], float], plumbing_check: bool) -> str:
    if claim is None:
        return _td("")
    metric = "top1" if claim.metric == "recall1" else str(claim.metric)
    epochs = 0 if pd.isna(claim.epochs) else int(claim.epochs)
    a, b = (printed.get((row, claim.setting, epochs, metric, claim.target), math.nan) for row in (claim.a, claim.b))
    theirs = a - b if HIGHER_IS_BETTER[metric] else b - a
    below = f"<br><small>paper {theirs:+.2f}</small>".replace("-", "−") if math.isfinite(theirs) else ""
    if claim.verdict == "not run":
        return _td(_tag("not run") + below)
    scale = 100.0 if metric in PERCENT else 1.0
    gain, low, high = (_number(scale * value, metric, sign=True) for value in (claim.gain, claim.low, claim.high))
    tag = "" if plumbing_check else _tag(str(claim.verdict)) + "<br>"
    return _td(f"{tag}{gain} <small>({low} to {high})</small>{below}")


def printed_values(where: str) -> dict[tuple[str, str, int, str, str], float]:
    """(method, setting, epochs, metric, target of the claims) → the paper's number, of one of its tables."""
    if not where.startswith("table"):
        return {}
    targets = {"Hokkaido": "l01", "NAIP": "naip", "OSM": "osm", "xView": "xview"}
    out: dict[tuple[str, str, int, str, str], float] = {}
    for row in records(paper_table(int(where.removeprefix("table")))):
        epochs = 0 if pd.isna(row.epochs) else int(row.epochs)
        settings = ("frozen", "finetune", "unstated") if row.setting == "unstated" else (str(row.setting),)
        for setting in settings:
            target = targets.get(row.dataset, "area_type")
            out[str(row.method), setting, epochs, str(row.metric), target] = float(row.value)
    return out


def provenance_footer(results: pd.DataFrame | Iterable[pd.DataFrame | None], *, command: str | None = None) -> Html:
    """Where the numbers of a table come from: of each profile its commits, data, device and dates, and the one command.

    command: by default ``selm table N --profile PROFILE`` (``figure N``, ``chapter NAME``) for the experiments.
    """
    parts = [results] if isinstance(results, pd.DataFrame) else [part for part in results if part is not None]
    text = ""
    for part in parts:
        for profile, rows in part.groupby("profile", sort=False):
            facts = [f"<strong>{html.escape(str(profile))}</strong>"]
            for name, column in (("commit", "commit"), ("data", "data"), ("on", "device"), ("date", "date")):
                facts.append(f"{name} {_listed(rows[column])}")
            facts.append(f"run ids: {rows['run_id'].nunique()}")
            if rows["stand_in"].astype(bool).any():
                photographs = profile not in PLUMBING_CHECKS and set(rows["experiment"]) <= _WITH_PHOTOGRAPHS
                what = "photographs are stand-ins" if photographs else "labels are stand-ins computed from the map"
                facts.append(what)
            names = sorted({str(name) for name in rows["experiment"]})
            verbs = [re.sub(r"^(table|figure)(?=\d)", r"\1 ", name) for name in names]
            verbs = [verb if " " in verb else f"chapter {verb}" for verb in verbs]
            again = command or " && ".join(f"selm {verb} --profile {profile}" for verb in verbs)
            text += f'<p class="selm-foot">{" · ".join(facts)}<br>again: <code>{html.escape(again)}</code></p>'
    return Html(_CSS + text)


_WITH_PHOTOGRAPHS = {"table3", "table4", "figure4"}


def _listed(column: pd.Series[Any], most: int = 3) -> str:
    values = sorted({str(value) for value in column.dropna()} - {""})
    shown = ", ".join(values[:most]) + (f" and {len(values) - most} more" if len(values) > most else "")
    return html.escape(shown) or "unknown"


def findings_table(findings: pd.DataFrame, *, caption: str = "") -> Html:
    """The page "What we found": the table of `reproduction.pages.findings.summary`."""
    head = (
        "<tr><th>the paper's claim</th><th>verdict</th><th>holds</th><th>undecided</th><th>reversed</th>"
        "<th>not run</th><th>gain: ours</th><th>the paper's</th></tr>"
    )
    body, section = "", ""
    for row in records(findings):
        if row.section != section:
            body += f'<tr class="section"><td colspan="8">{html.escape(row.section)}</td></tr>'
            section = row.section
        body += f'<tr><td class="words">{html.escape(row.claim)}</td>' + _td(_tag(row.verdict))
        body += "".join(_td(str(n) if n else "–") for n in (row.holds, row.undecided, row.reversed, row.not_run))
        for gain in (row.gain, row.paper):  # on two lines: both columns must fit on the page
            body += _td(html.escape(gain).replace(" to ", " to<br>") or "–")
        body += "</tr>"
    return Html(_wrap(caption, head, body))


def practice_table(rows: pd.DataFrame, *, caption: str = "") -> Html:
    """What a practitioner asks: the table of `reproduction.pages.findings.practice`."""
    head = "<tr><th></th><th>made of</th><th>MSE</th></tr>"
    body = ""
    for row in records(rows):
        error = f"{_number(row.mean, 'mse')}<small> ± {_number(row.sd, 'mse')}</small>"
        best = "" if row.kind == "no embedding" else "best"
        body += f"<tr><td>{html.escape(row.title)}</td>" + _td(row.kind, best) + _td(error) + "</tr>"
    return Html(_wrap(caption, head, body))

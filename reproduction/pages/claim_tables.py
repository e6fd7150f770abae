"""Tables of claims: which method beats which, the paper's and ours, with gains and verdicts."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from reproduction.experiments.row_claims import NO_ROW
from reproduction.pages.html import METRIC_NAMES, PLUMBING_CHECKS, Html, html_table, metric_number, tag, td
from reproduction.report import HIGHER_IS_BETTER, PERCENT, paper_table, records
from reproduction.titles import title_of
from selm.errors import InputError


def ranking_claims_table(claims: pd.DataFrame, *, caption: str = "") -> Html:
    """Ranking claims for a page: the table of `reproduction.experiments.claims`, of one metric.

    A claim between two rows of the paper is the paper's, others are ours. Profiles that only check the plumbing show
    no verdict.
    """
    metric = str(claims["metric"].iloc[0])
    plumbing_check = bool(claims["profile"].isin(PLUMBING_CHECKS).any())
    scale = 100.0 if metric in PERCENT else 1.0
    unit = METRIC_NAMES[metric] + (", points" if metric in PERCENT else "")
    in_paper = {str(method) for table in (1, 2) for method in paper_table(table)["method"]}
    columns = ("claim", "whose", f"gain ({unit})", "interval", "p, Holm", "runs", "")
    head = "<tr>" + "".join(f"<th>{column}</th>" for column in columns) + "</tr>"
    body = ""
    for row in records(claims):
        body += f"<tr><td>{html.escape(title_of(row.a))} beats {html.escape(title_of(row.b))}</td>"
        body += td("paper" if {row.a, row.b} <= in_paper else "ours")
        if row.verdict == "not run":
            body += 4 * td("–") + td(tag(row.verdict)) + "</tr>"
            continue
        gain, low, high = (metric_number(scale * value, metric, sign=True) for value in (row.gain, row.low, row.high))
        body += td(gain)
        if pd.isna(row.low):  # its scores were not kept
            body += 2 * td("–")
        else:
            body += td(f"{low} to {high}") + td(f"{row.p_holm:.3f}" if row.p_holm >= 0.001 else "&lt; 0.001")
        body += td(f"{row.seeds_a} / {row.seeds_b}") + td("" if plumbing_check else tag(row.verdict)) + "</tr>"
    run = claims[claims["low"].notna()]
    basis = ""
    if len(run):
        blocks, points = sorted(set(run["n_blocks"].astype(int))), sorted(set(run["n_points"].astype(int)))
        basis = (
            f'<p class="selm-foot">Paired bootstrap over {_span(blocks)} spatial blocks with {_span(points)} points; '
            f"{correction_note(claims)}; conditional on the pretraining runs counted under <em>runs</em> "
            "(of the first / of the second)." + (" Plumbing check: no verdict." if plumbing_check else "") + "</p>"
        )
    return Html(html_table(caption, head, body) + basis)


def _span(values: Sequence[int]) -> str:
    return str(values[0]) if values[0] == values[-1] else f"{values[0]} to {values[-1]}"


def correction_note(claims: pd.DataFrame) -> str:
    """How families of claims were corrected, in words."""
    level = sorted(set(claims["interval_level"].dropna()))
    sizes = sorted(set(claims["n_family"].astype(int)))
    levels = " to ".join(f"{100 * one:.4g}" for one in dict.fromkeys((level[0], level[-1])))
    family = f"all {sizes[0]} claims" if len(sizes) == 1 else f"the {_span(sizes)} claims of a column"
    margin = ""
    if "margin" in claims and claims["margin"].notna().any():
        width = float(claims["margin"].dropna().iloc[0])
        metric = str(claims["metric"].iloc[0])
        said = f"{width:g} of MSE" if metric == "mse" else f"{100 * width:g} point" + ("" if width == 0.01 else "s")
        margin = f"; <em>equivalent</em>: the whole interval lies within ± {said}"
    return (
        f"Holm's correction at 5 %, two-sided, for {family}, run or not. Intervals are at the level of its last step, "
        f"{levels} %, so that one leaves 0 out exactly where the verdict is <em>better</em> or <em>worse</em>{margin}"
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
        said = ", ".join(fact for fact in facts if fact)
        head += f"<th>{METRIC_NAMES.get(metric, 'recall')}<br><small>{said}</small></th>"
    head += "</tr>"
    body = ""
    for (a, b), cells in rows.items():
        body += f"<tr><td>{html.escape(names[a])} <small>beats</small> {html.escape(names[b])}</td>"
        for column in columns:
            body += _claim_cell(cells.get(column), printed, plumbing_check)
        body += "</tr>"
    run = verdicts[verdicts["low"].notna()]
    foot = ""
    if len(run):
        blocks, points = sorted(set(run["n_blocks"].astype(int))), sorted(set(run["n_points"].astype(int)))
        foot = (
            f'<p class="selm-foot">Gain: positive where it is as claimed; below it the paper\'s. Bootstrap over '
            f"{_span(blocks)} spatial blocks with {_span(points)} points; {correction_note(verdicts)}.</p>"
        )
    reasons = sorted({str(reason) for reason in verdicts["reason"].dropna()} - {""})
    lacking = [reason.removeprefix(NO_ROW).split(" and ") for reason in reasons if reason.startswith(NO_ROW)]
    if lacking:
        rows_ = ", ".join(dict.fromkeys(title_of(method) for methods in lacking for method in methods))
        reasons = [f"{NO_ROW}{rows_} in this column", *(one for one in reasons if not one.startswith(NO_ROW))]
    if reasons:
        foot += f'<p class="selm-foot">Not run, or without an interval: {html.escape("; ".join(reasons))}.</p>'
    return Html(html_table(caption, head, body) + foot)


def _claim_cell(claim: Any, printed: Mapping[tuple[str, str, int, str, str], float], plumbing_check: bool) -> str:
    if claim is None:
        return td("")
    metric = "top1" if claim.metric == "recall1" else str(claim.metric)
    epochs = 0 if pd.isna(claim.epochs) else int(claim.epochs)
    a, b = (printed.get((row, claim.setting, epochs, metric, claim.target), math.nan) for row in (claim.a, claim.b))
    theirs = a - b if HIGHER_IS_BETTER[metric] else b - a
    below = f"<br><small>paper {theirs:+.2f}</small>".replace("-", "−") if math.isfinite(theirs) else ""
    return gain_cell(claim, below, verdict=not plumbing_check)


def gain_cell(claim: Any, below: str = "", *, verdict: bool = True) -> str:
    """One claim as a cell: its verdict, the gain with its interval, and what stands below."""
    if claim.verdict == "not run":
        return td(tag("not run") + below)
    word = tag(str(claim.verdict)) + "<br>" if verdict else ""
    gain, _, interval = gain_text(claim).partition(" (")
    return td(f"{word}{gain}{f' <small>({interval}</small>' if interval else ''}{below}")


def gain_text(claim: Any, *, interval: bool = True) -> str:
    """A gain with its interval in words: "+0.103 (+0.026 to +0.164)"; points for accuracies."""
    metric = "top1" if claim.metric == "recall1" else str(claim.metric)
    scale = 100.0 if metric in PERCENT else 1.0
    gain, low, high = (metric_number(scale * value, metric, sign=True) for value in (claim.gain, claim.low, claim.high))
    return f"{gain} ({low} to {high})" if interval and not pd.isna(claim.low) else gain


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


def findings_table(findings: pd.DataFrame, *, caption: str = "") -> Html:
    """The page "What we found": the table of `reproduction.pages.findings.verdicts_by_group`."""
    head = (
        "<tr><th>the paper's claim</th><th>verdict</th><th>better</th><th>equivalent</th><th>undecided</th>"
        "<th>worse</th><th>not run</th><th>gain: ours</th><th>the paper's</th></tr>"
    )
    body, section = "", ""
    for row in records(findings):
        if row.section != section:
            body += f'<tr class="section"><td colspan="9">{html.escape(row.section)}</td></tr>'
            section = row.section
        body += f'<tr><td class="words">{html.escape(row.claim)}</td>' + td(tag(row.verdict))
        body += "".join(
            td(str(n) if n else "–") for n in (row.better, row.equivalent, row.undecided, row.worse, row.not_run)
        )
        for gain in (row.gain, row.paper):  # on two lines: both columns must fit on the page
            body += td(html.escape(gain).replace(" to ", " to<br>") or "–")
        body += "</tr>"
    return Html(html_table(caption, head, body))

"""The page "What does an embedding know?": verdicts on a reader's questions, and errors by distance and by target.

Read from what is published of `reproduction.experiments.knowledge` and `reproduction.experiments.verdicts`. Rows may be
missing, and regions: what is pooled is named.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from reproduction.experiments.knowledge import CLOSED, METRICS, OTHER_REGIONS, PRACTITIONERS, TARGETS
from reproduction.experiments.verdicts import BESIDE, BUFFERS, COLUMNS, KINDS, scores_of
from reproduction.pages import published
from reproduction.pages.claim_tables import gain_cell, gain_text
from reproduction.pages.html import PROFILE_WORDS, Html, html_table, metric_number, picture, prose, simple_table, td
from reproduction.pages.result_figures import VERDICTS, verdict_grid
from reproduction.pages.result_page import short_rows
from reproduction.pages.style import METRIC_LABELS, kind_of
from reproduction.report import HIGHER_IS_BETTER, PERCENT, records
from reproduction.titles import COMPACT, PEERS, RECOMMENDED, row_title, title_of

HEADLINE = max(BUFFERS)  # km: the buffer of the answer and of the figure
WORDS = {
    "price": "land price", "density": "population density", "area_type": "area type", "zone": "zone",
    "land_cover": "land cover",
}  # fmt: skip
METRIC = {target: METRICS[kind][0] for target, kind in TARGETS.items()}
_SECTIONS = {"paper": "The paper", "explains": "What explains the gain", "practice": "In practice"}
# What the answer compares GPS-SELM with: its two sentences.
_ANSWER = (
    (("random-init", "no pretraining"), ("dino", "DINO")),
    (("self-supervision", "the geographic losses alone, without self-supervision"),
     ("more-colours", "the colours of zooms 17-14, which need no encoder")),
)  # fmt: skip


# -- verdicts ----------------------------------------------------------------------------------------------------------


def asked(profile: str, km: float = HEADLINE, setting: str = CLOSED) -> pd.DataFrame:
    """The published verdicts at one buffer, each target by its first metric; no rows where there are none."""
    table = published.results("verdicts", profile) if profile else None
    if table is None:
        return pd.DataFrame(columns=list(COLUMNS))
    first = table["metric"] == table["target"].map(METRIC)
    return table[first & (table["buffer_km"] == km) & (table["setting"] == setting)].reset_index(drop=True)


def pooled_regions(profile: str, km: float = HEADLINE) -> str:
    """The regions that land price's verdicts pool, in words; "" where there are none."""
    blocks = published.results("knowledge-blocks", profile) if len(asked(profile, km)) else None
    if blocks is None:
        return ""
    own = blocks[(blocks["buffer_km"] == km) & (blocks["target"] == "price") & (blocks["method"] == "gps_selm")]
    return joined([region_title(region) for region in sorted(set(own["region"].astype(str)))])


def counts(questions: pd.DataFrame) -> str:
    """How many questions have which verdict, as a sentence."""
    of = questions["verdict"].value_counts()
    tested = len(questions) - int(of.get("not run", 0))
    parts = ", ".join(f"{int(of.get(word, 0))} {word}" for word in ("better", "equivalent", "worse", "undecided"))
    where = joined([WORDS[target] for target in WORDS if target in set(questions["target"])])
    return f"Of {len(questions)} questions on {where} {tested} could be tested: **{parts}**."


def by_verdict(questions: pd.DataFrame, question: str) -> str:
    """One question's verdicts, each with its targets: "**better** for land price and **undecided** for zone"; "" where
    it was not tested."""
    of = questions[(questions["question"] == question) & (questions["verdict"] != "not run")]
    groups = {word: [WORDS[str(t)] for t in of.loc[of["verdict"] == word, "target"]] for word in VERDICTS}
    return joined([f"**{word}** for {joined(names)}" for word, names in groups.items() if names])


def joined(names: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def answer(profile: str, km: float = HEADLINE) -> Html:
    """The answer in two sentences, by the verdicts."""
    questions = asked(profile, km)
    sentences: list[str] = []
    for against in _ANSWER:
        found = [(name, words) for question, name in against if (words := by_verdict(questions, question))]
        parts = [f"against {name}, {words}" for name, words in found]
        if parts:
            sentences.append("; ".join(parts).replace(", **", f", {'it' if sentences else 'GPS-SELM'} is **", 1))
    if not sentences:
        return prose("No verdict on these questions has been published yet.", "selm-answer")
    sentences[0] += f" ({PROFILE_WORDS.get(profile, profile)}; {km:g} km and more from what the probe has learned from)"
    return prose(" ".join(f"{one[:1].upper()}{one[1:]}." for one in sentences), "selm-answer")


def what_explains(profile: str, km: float = HEADLINE) -> str:
    """Whether self-supervision adds to the geographic losses, in every target with its interval; "" for no verdict."""
    questions = asked(profile, km)
    some = questions[(questions["question"] == "self-supervision") & (questions["verdict"] != "not run")]
    units = {"mse": " of MSE"}
    parts = [
        f"{WORDS[str(row.target)]} {gain_text(row)}{units.get(str(row.metric), ' points')}, **{row.verdict}**"
        for row in records(some)
    ]
    return f"What self-supervision adds to the geographic losses alone: {'; '.join(parts)}." if parts else ""


def grid(questions: pd.DataFrame) -> dict[str, dict[str, dict[str, Any]]]:
    """Heading of a kind of question → its text → target → its row of verdicts, in the order of `KINDS`; questions that
    were not asked are left out."""
    out: dict[str, dict[str, dict[str, Any]]] = {}
    for kind, of_kind in KINDS.items():
        for question in of_kind:
            rows = {str(row.target): row for row in records(questions[questions["question"] == question.id])}
            if rows:
                out.setdefault(_SECTIONS[kind], {})[question.text] = rows
    return out


def _scale(metric: str) -> float:
    return 100.0 if metric in PERCENT else 1.0


def question_picture(profile: str, km: float = HEADLINE) -> Html:
    """The questions as a picture; nothing where there is no verdict."""
    questions = asked(profile, km)
    if not len(questions):
        return Html("")
    tested = records(questions[questions["verdict"] != "not run"])
    said = [f"{WORDS[str(row.target)]}: {row.text} {row.verdict}, {gain_text(row)}" for row in tested]
    margins = dict.fromkeys(_margin(str(row.metric), row.margin) for row in records(questions))
    caption = (
        f"**The questions, {km:g} km and more from what the probe has learned from.** To the right: the first one is "
        "better. Bars: intervals, corrected for the questions of a section. Better (green dot) and worse (orange "
        f"square) leave out 0; equivalent (blue diamond) lies within the grey band of {joined(list(margins))}. Pale: "
        f"rows that are not computed yet ({(questions['verdict'] == 'not run').sum()} questions)."
    )
    figure = verdict_grid(grid(questions), WORDS)
    return picture(figure, caption, f"Verdicts, a line a question. {'; '.join(said)}.")


def _margin(metric: str, margin: float) -> str:
    points = f"± {100 * margin:g} point" + ("" if margin == 0.01 else "s")
    return f"± {margin:g} of MSE" if metric == "mse" else points


def question_table(questions: pd.DataFrame, caption: str = "") -> Html:
    """The same as a table: a column a target."""
    targets = [target for target in WORDS if target in set(questions["target"])]
    lines = {
        heading: {html.escape(text): [rows.get(target) for target in targets] for text, rows in of.items()}
        for heading, of in grid(questions).items()
    }
    return _gains([WORDS[target] for target in targets], lines, caption)


def explains_table(profile: str) -> Html:
    """What explains the gain: a section a question, a row a target, a column a buffer."""
    by_km = {f"{km:g} km": table for km in BUFFERS if len(table := asked(profile, km))}
    of_km = [grid(table).get(_SECTIONS["explains"], {}) for table in by_km.values()]
    lines = {
        question.text: {
            word: found for target, word in WORDS.items()
            if any(found := [of.get(question.text, {}).get(target) for of in of_km])
        }
        for question in KINDS["explains"]
    }  # fmt: skip
    return _gains(list(by_km), lines)


def _gains(columns: Sequence[str], lines: Mapping[str, Mapping[str, Sequence[Any]]], caption: str = "") -> Html:
    """Rows of verdicts under headings; None is an empty cell."""
    head = "<tr>" + "".join(f"<th>{name}</th>" for name in ("", *columns)) + "</tr>"
    body = ""
    for heading, rows in lines.items():
        body += f'<tr class="section"><td colspan="{1 + len(columns)}">{html.escape(heading)}</td></tr>'
        for name, cells in rows.items():
            body += (
                f"<tr><td>{name}</td>" + "".join(td("–") if one is None else gain_cell(one) for one in cells) + "</tr>"
            )
    return Html(html_table(caption, head, body))


# -- what is behind ----------------------------------------------------------------------------------------------------


def regions_of(blocks: pd.DataFrame, a: str, b: str, setting: str = CLOSED) -> list[str]:
    """The regions that two rows are compared in, by the scores by block of one target, metric and buffer."""
    first, second = (set(scores_of(blocks, method, setting)["region"].astype(str)) for method in (a, b))
    return sorted(first & second)


def behind(profile: str, km: float = HEADLINE) -> list[Html]:
    """How many points, blocks, regions and pretraining runs are behind the verdicts: a line, and for each target a row
    for all questions that have the same, with the regions that they pool."""
    questions, blocks = asked(profile, km), published.results("knowledge-blocks", profile)
    run = questions[questions["verdict"] != "not run"]
    if blocks is None or not len(run):
        return [prose("Nothing is published yet.")]
    blocks = blocks[blocks["buffer_km"] == km]
    sections: dict[str, dict[tuple[str, ...], list[str]]] = {}
    for row in records(run):
        own = blocks[(blocks["target"] == row.target) & (blocks["metric"] == row.metric)]
        facts = (joined([region_title(one) for one in regions_of(own, row.a, row.b)]), f"{row.n_points:,.0f}",
                 f"{row.n_blocks:.0f}", f"{row.seeds_a} / {row.seeds_b}")  # fmt: skip
        sections.setdefault(WORDS[str(row.target)], {}).setdefault(facts, []).append(html.escape(row.text))
    lacking = {name for reason in questions["reason"].dropna() if reason.startswith("no row of ")
               for name in reason.removeprefix("no row of ").split(" and ")}  # fmt: skip
    waiting = f" Not computed yet: {joined([title_of(name) for name in sorted(lacking)])}." if lacking else ""
    runs = pd.concat([run["seeds_a"], run["seeds_b"]])
    text = (
        f"{_span(run['n_points'])} points in {_span(run['n_blocks'])} spatial blocks; regions: "
        f"{_span(run['n_regions'])}; pretraining runs of a row: {_span(runs)}. A question pools the regions in which "
        f"both of its rows were tested. With one run, how far runs differ is not in the interval.{waiting}"
    )
    rows = {
        target: [["all" if len(of) == 1 else "<br>".join(names), *facts] for facts, names in of.items()]
        for target, of in sections.items()
    }
    return [prose(text), simple_table(["questions", "regions", "points", "blocks", "runs"], rows)]


def region_title(region: str) -> str:
    """A region's name as a reader writes it."""
    return region.replace("-", " ").title()


def _span(values: pd.Series[Any]) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


# -- errors ------------------------------------------------------------------------------------------------------------


def by_region(rows: pd.DataFrame, target: str) -> pd.DataFrame:
    """Errors (accuracies in percent) of a target: method, split, region, value (mean over trials, then over pretraining
    runs) and points; an embedding with the coordinates beside it is a method of its own."""
    metric = METRIC[target]
    keep = (rows["target"] == target) & (rows["metric"] == metric)
    own = rows[keep & rows["setting"].isin([CLOSED, PRACTITIONERS, OTHER_REGIONS, BESIDE])]
    own = own.assign(method=own["method"].where(own["setting"] != BESIDE, own["method"] + "+coordinates"))
    keys = ["method", "split", "region", "buffer_km"]
    of_run = (
        own.groupby([*keys, "seed"], sort=False).agg(value=("value", "mean"), points=("n_test", "max")).reset_index()
    )
    out = of_run.groupby(keys, sort=False).agg(value=("value", "mean"), points=("points", "max")).reset_index()
    return out.assign(value=out["value"] * _scale(metric))


def columns_of(rows: pd.DataFrame) -> list[str]:
    """The splits in the order of a table: buffers from near to far, then other regions."""
    order = rows[["split", "buffer_km"]].drop_duplicates()
    return list(order.assign(far=order["buffer_km"] == 0).sort_values(["far", "buffer_km"])["split"])


def column_title(split: str) -> str:
    return "other regions" if split == "regions" else split.removeprefix("blocks, ")


def errors(rows: pd.DataFrame, target: str) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """A row a method, a column a split (best first by the widest buffer), and the regions that each column pools.

    A column pools the regions that GPS-SELM was tested in; a method that lacks one of them has NaN there, so that all
    numbers of a column are of the same points.
    """
    table, columns, pooled = by_region(rows, target), {}, {}
    for split in columns_of(table):
        value, points = (
            table[table["split"] == split].pivot(index="method", columns="region", values=name)
            for name in ("value", "points")
        )
        lead = list(value.index).index("gps_selm") if "gps_selm" in value.index else 0
        tested = value.notna().to_numpy()[lead]
        weight = points.to_numpy()[lead, tested]
        columns[split] = pd.Series(value.to_numpy()[:, tested] @ weight / weight.sum(), index=value.index)
        pooled[split] = [str(region) for region in value.columns[tested]]
    wide = pd.DataFrame(columns).rename_axis("method").reset_index()
    if not columns:
        return wide.reindex(columns=["method", "kind", "title"]), pooled
    widest = [split for split in columns if split != "regions"][-1:] or list(columns)
    wide = wide.sort_values(widest, ascending=not HIGHER_IS_BETTER[METRIC[target]], kind="stable", ignore_index=True)
    wide["kind"] = wide["method"].map(kind_of)
    wide["title"] = [row_title(str(method), METRIC[target]) for method in wide["method"]]
    return wide, pooled


def error_table(rows: pd.DataFrame, target: str, *, short: bool = True) -> Html:
    """Errors of a target: at most eight rows (`short`) or all, a column a split; a line below names what is pooled."""
    table, pooled = errors(rows, target)
    splits, metric = list(pooled), METRIC[target]
    if not len(table):
        return prose("Not run.")
    shown = short_rows(table.dropna(subset=[split for split in splits if split != "regions"][-1:])) if short else table
    body = []
    for row in shown.to_dict("records"):
        name = html.escape(str(row["title"]))
        name = f"<strong>{name}</strong>" if row["kind"] == "own" else name
        body.append([name, *(_number(row[split], metric) for split in splits)])
    better = "more" if HIGHER_IS_BETTER[metric] else "less"
    caption = f"{WORDS[target][:1].upper()}{WORDS[target][1:]}: {METRIC_LABELS[metric]}; {better} is better"
    places = {column_title(split): joined([region_title(one) for one in regions]) for split, regions in pooled.items()}
    same = len(set(places.values())) == 1
    said = next(iter(places.values())) if same else "; ".join(f"{split}: {names}" for split, names in places.items())
    lines = simple_table(["", *map(column_title, splits)], {"": body}, caption)
    gaps = " –: not tested in all of these; Region by region has what there is." if "–" in lines.text else ""
    return Html(lines.text + f'<p class="selm-foot">Tested in {html.escape(said)}.{gaps}</p>')


def _number(value: float, metric: str) -> str:
    return metric_number(value, metric) if np.isfinite(value) else "–"


# Rows that a table of the recommended embedding has beside it: what else a reader could take.
BESIDE_RECOMMENDED = (
    COMPACT, RECOMMENDED, "gps_selm", "dino", *PEERS, "histogram_17_14", "histogram_17_14+coordinates",
    "knn_coordinates", "prior",
)  # fmt: skip


def recommended_table(rows: pd.DataFrame, *, rotated: bool = False) -> Html:
    """Errors of the recommended embedding and of what could be taken in its place: a section a target, a column a
    split, the best of a column in bold; nothing where it has no rows.

    In the region where all of its numbers are asked, too; `rotated`: in those where it is an encoder of their own.
    """
    ours = rows[rows["method"].isin([RECOMMENDED, COMPACT])]
    whole = set(ours.loc[ours["method"] == RECOMMENDED, "region"].astype(str))
    regions = sorted(name for name in set(ours["region"].astype(str)) if (name in whole) != rotated)
    own, sections = rows[rows["region"].isin(regions) & rows["method"].isin(BESIDE_RECOMMENDED)], {}
    if not regions:
        return Html("")
    splits = columns_of(own)
    for target in dict.fromkeys(ours.loc[ours["region"].isin(regions), "target"]):
        table, metric = errors(own, str(target))[0].set_index("method"), METRIC[str(target)]
        up = HIGHER_IS_BETTER[metric]
        named = [name for name in BESIDE_RECOMMENDED if name in table.index]
        lines = []
        for name in named:
            cells = []
            for split in splits:
                column = table[split] if split in table else pd.Series(np.nan, index=table.index)
                value, best = float(column[name]), float(column.max() if up else column.min())
                text = _number(value, metric)
                cells.append(f"<strong>{text}</strong>" if value == best else text)
            lines.append([html.escape(row_title(name, metric)), *cells])
        sections[f"{WORDS[str(target)]}: {METRIC_LABELS[metric]}; {'more' if up else 'less'} is better"] = lines
    where = joined([region_title(region) for region in regions])
    return simple_table(
        ["", *map(column_title, splits)], sections, f"{where}, by the distance from what is learned from"
    )


def region_table(rows: pd.DataFrame, target: str, km: float = HEADLINE) -> Html:
    """Errors of a target at one buffer, a column a region."""
    table = by_region(rows, target)
    table = table[table["buffer_km"] == km]
    if not len(table):
        return prose(f"{WORDS[target][:1].upper()}{WORDS[target][1:]}, {km:g} km: not run.")
    wide, metric = table.pivot(index="method", columns="region", values="value"), METRIC[target]
    body = [
        [html.escape(row_title(str(method), metric)), *(_number(value, metric) for value in wide.loc[method])]
        for method in dict.fromkeys(table["method"])
    ]
    caption = f"{WORDS[target][:1].upper()}{WORDS[target][1:]}, {km:g} km: {METRIC_LABELS[metric]}"
    return simple_table(["", *(region_title(str(region)) for region in wide)], {"": body}, caption)

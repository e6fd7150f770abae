"""A results page: the answer in two sentences, one picture, a short table, and the numbers to take along.

Every table and figure of the paper becomes a `Result`: rows with a mean and an interval, told apart by what they need.
All that a page says and shows is computed from it.
"""

from __future__ import annotations

import base64
import html
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from reproduction.pages import published
from reproduction.pages.html import CSS, PLUMBING_CHECKS, PROFILE_WORDS, Html, fixed, picture, prose, simple_table, tag
from reproduction.pages.style import (
    LOOKS,
    METRIC_LABELS,
    SPLIT_LABELS,
    WIDTH,
    kind_of,
    label_lines,
    look,
    text_ink,
    use_style,
)
from reproduction.report import HIGHER_IS_BETTER, PERCENT, paper_table, records, summarise
from reproduction.titles import row_title, title_of
from selm.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMES = {"own": "GPS-SELM", "variant": "its variants", "rival": "DINO", "method": "other methods",
          "baseline": "no pretraining"}  # fmt: skip
_TITLE = 34  # characters of a line: more would leave no room for the dots on a phone
_COMPARED = ("gps_selm", "dino", "random_init")  # rows that a short table always has


@dataclass(frozen=True)
class Result:
    """A question's rows and how they are read.

    rows: `method title kind mean low high sd n paper verdict`, the best first; NaN or "" for what is not known.
        `verdict` is that of GPS-SELM against the row.
    constant: what an answer without looking gets, called `constant_title`.
    """

    rows: pd.DataFrame
    task: str
    measure: str
    digits: int
    higher: bool
    bars: str
    profile: str
    unit: str = ""
    constant: float = np.nan
    constant_title: str = "the mean predictor"
    printed: str = "the paper's number, on its own data and split"

    def number(self, value: float) -> str:
        """A number of this result as text."""
        return fixed(value, self.digits) + (self.unit if np.isfinite(value) else "")

    def row(self, method: str) -> Any:
        """The row of a method, None where it is not there."""
        found = self.rows[self.rows["method"] == method]
        return next(records(found)) if len(found) else None


_TASKS = {
    ("table1", "l01"): "land price", ("table2", "area_type"): "area type (70 zones)",
    ("table3", "osm_no_fills"): "land cover without fills", ("table3", "osm"): "land cover in full style",
    ("table3", "uc_merced"): "UC Merced photographs", ("table3", "eurosat"): "EuroSAT photographs",
    ("table4", "aerial_cars"): "vehicles in drone photographs",
}  # fmt: skip
_PLACES = {"table1": " at official points of Hokkaido", "table2": " at official points in cells set aside",
           "table3": "", "table4": ""}  # fmt: skip
# The paper's column that stands beside ours: data set and setting. It has nothing under spatial blocks.
_PRINTED = {"table1": ("Hokkaido", "frozen"), "table2": ("MLIT area type, 70 classes", "unstated"),
            "table3": ("OSM", "unstated"), "table4": ("xView", "finetune")}  # fmt: skip


def of_table(
    name: str, results: pd.DataFrame, target: str, *, split: str = "blocks", metric: str = "",
    verdicts: Mapping[str, str] | None = None, blocks: pd.DataFrame | None = None,
) -> Result:  # fmt: skip
    """Tables 1 to 4: the ridge probe on frozen features (Table 4: the trained detector) beside what needs no embedding.

    verdicts: method → that of GPS-SELM against it.  blocks: scores by spatial block, for the intervals; else ± sd.
    Raises InputError where there is no such row.
    """
    metric = metric or {"table1": "mse", "table4": "ap50"}.get(name, "top1")
    settings = ["finetune"] if name == "table4" else ["frozen-closed", "practitioner"]
    keep = (results["target"] == target) & (results["split"] == split) & (results["metric"] == metric)
    table = summarise(results[keep & results["setting"].isin(settings)])
    if not len(table):
        raise InputError(f"{name}: no rows of {target}, {split}, {metric}")
    live = str(table["profile"].iloc[0]) not in PROFILE_WORDS or str(table["profile"].iloc[0]) in PLUMBING_CHECKS
    stand_in = "a stand-in for " if live and bool(table["stand_in"].any()) else ""
    table["low"], table["high"] = table["mean"] - table["sd"], table["mean"] + table["sd"]
    bars = f"± one standard deviation over {int(table['n'].max())} draws of folds"
    if blocks is not None and split == "blocks":
        scale = 100.0 if metric in PERCENT else 1.0
        found = [_interval(blocks, row, scale) for row in records(table)]
        if all(one is not None for one in found):
            table["low"], table["high"] = (list(ends) for ends in zip(*(one for one in found if one), strict=True))
            bars = "95 % intervals, bootstrap over spatial blocks"
    table["title"] = [row_title(str(method), metric) for method in table["method"]]
    printed = _printed(name, metric) if not live else {}
    table["paper"] = [printed.get(str(method), np.nan) for method in table["method"]]
    table["verdict"] = [(verdicts or {}).get(str(method), "") for method in table["method"]]
    constant = table.loc[table["method"] == "prior", "mean"]
    split_of_paper = ", a random one" if name in ("table1", "table2") else ""
    return _result(
        table, HIGHER_IS_BETTER[metric], printed=f"the paper's number, on its own data and split{split_of_paper}",
        task=stand_in + _TASKS.get((name, target), target.replace("_", " ")) + ("" if live else _PLACES[name])
        + f", {SPLIT_LABELS.get(split, split)}",
        measure=METRIC_LABELS[metric].removesuffix(", %"), digits=3 if metric == "mse" else 1, bars=bars,
        unit=" %" if metric in PERCENT else "",
        constant=float(constant.iloc[0]) if len(constant) else np.nan,
        constant_title="the mean predictor" if metric == "mse" else "naming the most frequent class",
    )  # fmt: skip


def of_scores(
    results: pd.DataFrame, value: str, titles: Mapping[str, str], *, task: str, measure: str, digits: int = 1,
    scale: float = 100.0, unit: str = " %", constant: float = np.nan, constant_title: str = "chance",
) -> Result:  # fmt: skip
    """Figures 2 to 5: one number a row, in the column `value`: its mean over trials and seeds, the widest `low high`
    where there are such columns, else ± sd."""
    groups = results.groupby("method", sort=False)
    table = groups[value].agg(mean="mean", sd="std", n="count").reset_index()
    table[["mean", "sd"]] *= scale
    if "low" in results:
        table["low"], table["high"] = (scale * groups["low"].min()).values, (scale * groups["high"].max()).values
    else:
        table["low"], table["high"] = table["mean"] - table["sd"], table["mean"] + table["sd"]
    table = table.assign(
        title=table["method"].map(titles), paper=np.nan, verdict="", profile=results["profile"].iloc[0]
    )
    bars = "95 % intervals" if "low" in results else "± one standard deviation over trials and seeds"
    return _result(table, True, task=task, measure=measure, digits=digits, unit=unit, bars=bars, constant=constant,
                   constant_title=constant_title)  # fmt: skip


def _result(table: pd.DataFrame, higher: bool, **facts: Any) -> Result:
    table = table.assign(kind=table["method"].map(kind_of)).sort_values("mean", ascending=not higher, kind="stable")
    columns = ["method", "title", "kind", "mean", "low", "high", "sd", "n", "paper", "verdict"]
    return Result(table[columns].reset_index(drop=True), higher=higher, profile=str(table["profile"].iloc[0]), **facts)


def _printed(name: str, metric: str) -> dict[str, float]:
    """The paper's numbers after its last epoch, frozen where it says so."""
    dataset, setting = _PRINTED[name]
    table = paper_table(int(name.removeprefix("table")))
    table = table[(table["metric"] == metric) & (table["setting"] == setting) & (table["dataset"] == dataset)]
    last = table[table["epochs"].isna() | (table["epochs"] == table["epochs"].max())]
    return {str(row.method): float(row.value) for row in records(last)}


def _interval(blocks: pd.DataFrame, row: Any, scale: float) -> tuple[float, float] | None:
    """95 % of a row's mean over draws of its blocks and pretraining runs; None where its scores are not kept."""
    from selm.probes.claims import gain

    keys = ("target", "metric", "setting", "method", "epochs")
    own = blocks[np.logical_and.reduce([blocks[key] == getattr(row, key) for key in keys])]
    if not len(own):
        return None
    nothing = own[own["seed"] == own["seed"].iloc[0]].assign(score=0.0)  # the mean is how far it is from nothing
    low, high = gain(own, nothing, higher_is_better=True, n_boot=2_000).interval(0.05)
    return scale * low, scale * high


def published_table(
    name: str, target: str, *, split: str = "blocks", metric: str = "", profile: str = ""
) -> Result | None:
    """`of_table` from the best published rows (or those of `profile`), with their verdicts, or None."""
    profile = profile or published.profile_with(name) or ""
    rows = published.results(name, profile) if profile else None
    if rows is None or not ((rows["target"] == target) & (rows["split"] == split)).any():
        return None
    verdicts = published_verdicts(name, profile) if split == "blocks" else None
    blocks = published.results(f"{name}-blocks", profile)
    return of_table(name, rows, target, split=split, metric=metric, verdicts=verdicts, blocks=blocks)


def published_verdicts(name: str, profile: str) -> dict[str, str]:
    """Method → the published verdict of GPS-SELM against it: by our own questions, else by the paper's last claim."""
    out: dict[str, str] = {}
    for file in ("claims", f"claims-{name}"):
        claims = published.results(file, profile)
        if claims is None:
            continue
        if file == "claims":
            claims = claims[(claims["where"] == name) & (claims["setting"] != "finetune")]
        asked = claims[(claims["a"] == "gps_selm") & ~claims["metric"].isin(["top5"])]
        out.update({str(b): str(verdict) for b, verdict in zip(asked["b"], asked["verdict"], strict=True)})
    return out


def answer(result: Result | None, beside: Sequence[str] = ()) -> Html:
    """The answer in two sentences: against DINO, the rows `beside`, and the best that needs no pretraining."""
    if result is None:
        return prose("No reference run of this question has been published yet.", "selm-answer")
    own, dino = result.row("gps_selm"), result.row("dino")
    if own is None:
        return prose("The reference run has no row of GPS-SELM by this probe yet.", "selm-answer")
    scale = PROFILE_WORDS.get(result.profile, result.profile)
    article = "an" if result.measure[0] in "AEIOaeio" else "a"
    first = f"GPS-SELM reaches {article} {result.measure} of **{result.number(own.mean)}** ({result.task}; {scale})"
    if np.isfinite(result.constant):
        first += f"; {result.constant_title} gives {result.number(result.constant)}"
    if np.isfinite(own.paper):
        first += f", and the paper prints {result.number(own.paper)} on its own data and split"
    plain = result.rows[result.rows["kind"] == "baseline"]
    against = [("DINO", dino, "")] if dino is not None else []
    against += [(row.title, row, "") for name in beside if (row := result.row(name)) is not None]
    against += [("the best row without pretraining", row, f"{row.title}: ") for row in records(plain.head(1))]
    parts = []
    for name, row, which in against:
        word = row.verdict or ("ahead" if (own.mean > row.mean) == result.higher else "behind")
        note = "" if row.verdict else " (not tested)"
        parts.append(f"against {name} ({which}{result.number(row.mean)}) it is **{word}**{note}")
    second = "; ".join(parts)
    said = f"{first}. {second[:1].upper()}{second[1:]}."
    return prose(re.sub(r"(?<=\d) (?=%|points)", "\N{NO-BREAK SPACE}", said), "selm-answer")


def dot_plot(result: Result, note: str = "") -> Html:
    """All rows, the best on top, with their intervals; the paper's values hollow, rows without pretraining shaded, the
    constant answer as a line."""
    figure = dots(result)
    order = "higher is better" if result.higher else "lower is better"
    caption = (
        f"**{result.task[:1].upper()}{result.task[1:]}.** {result.measure[:1].upper()}{result.measure[1:]} ({order}); "
    )
    caption = caption.removesuffix("; ") + (f"; bars: {result.bars}." if result.rows["low"].notna().any() else ".")
    if (result.rows["kind"] == "baseline").any():
        caption += " Shaded: rows that need no pretraining."
    if result.rows["paper"].notna().any():
        caption += f" Hollow: {result.printed}."
    if np.isfinite(result.constant):
        caption += f" Dotted line: {result.constant_title}."
    shown = "; ".join(f"{row.title} {result.number(row.mean)}" for row in records(result.rows))
    return picture(figure, f"{caption} {note}".strip(), f"Dot plot, best first: {shown}.", profile=result.profile)


def dots(result: Result) -> Figure:
    """The figure of `dot_plot`."""
    import matplotlib.pyplot as plt

    use_style()
    rows = result.rows[result.rows["kind"] != "constant"].reset_index(drop=True)
    titles = [textwrap.fill(title, _TITLE) for title in rows["title"]]
    lines = max((title.count("\n") + 1 for title in titles), default=1)
    figure, axis = plt.subplots(figsize=(WIDTH, 0.75 + (0.09 + 0.13 * lines) * len(rows)))
    for y, row in enumerate(records(rows)):
        ink = look(row.method)
        if row.kind == "baseline":
            axis.axhspan(y - 0.5, y + 0.5, color="#f0ead6", linewidth=0, zorder=0)
        if np.isfinite(row.low):
            axis.plot([row.low, row.high], [y, y], color=ink.colour, linewidth=ink.width, zorder=3)
        axis.plot(row.mean, y, ink.marker, color=ink.colour, markersize=ink.size, zorder=4)
        if np.isfinite(row.paper):
            axis.plot(row.paper, y, "o", color=ink.colour, markerfacecolor="white", markersize=5.5, zorder=4)
        axis.annotate(result.number(row.mean), (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=7.5,
                      color=text_ink(row.method), annotation_clip=False)  # fmt: skip
    axis.set_yticks(range(len(rows)), titles)
    for label, row in zip(axis.get_yticklabels(), records(rows), strict=True):
        label.set_color(text_ink(row.method))
        label.set_fontweight("bold" if row.kind == "own" else "normal")
    if np.isfinite(result.constant):
        axis.axvline(result.constant, color="0.3", linestyle=LOOKS["constant"].dash, linewidth=1.2, zorder=1)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", color="0.9", linewidth=0.6, zorder=0)
    axis.set_xlabel(f"{result.measure}{',' + result.unit if result.unit else ''}")
    return figure


def short_rows(rows: pd.DataFrame, most: int = 8) -> pd.DataFrame:
    """The rows that matter, of rows with `method kind`, the best first: GPS-SELM, DINO, random weights, the best other
    method, variant and row without pretraining, the best of coordinates alone, and the constant answer."""
    chosen = set(_COMPARED) | {"prior"}
    for kind in ("variant", "method", "baseline"):
        chosen |= set(rows.loc[rows["kind"] == kind, "method"].head(1))
    chosen |= set(rows.loc[rows["method"].isin(["knn_coordinates", "trees_coordinates"]), "method"].head(1))
    return rows[rows["method"].isin(sorted(chosen))].head(most)


def short(result: Result) -> Result:
    """A result with the rows of its short table only."""
    return replace(result, rows=short_rows(result.rows).reset_index(drop=True))


def short_table(result: Result) -> Html:
    """At most eight rows: the verdict of GPS-SELM against each, its number, the paper's."""
    printed = bool(result.rows["paper"].notna().any())
    judged = bool((result.rows["verdict"] != "").any())
    body = []
    for row in records(short_rows(result.rows)):
        name = f"<strong>{html.escape(row.title)}</strong>" if row.kind == "own" else html.escape(row.title)
        bar = f"<small> ± {fixed((row.high - row.low) / 2, result.digits)}</small>" if np.isfinite(row.low) else ""
        cells = [name]
        cells += [tag(row.verdict) if row.verdict else "–"] if judged else []
        cells += [result.number(row.mean) + bar]
        cells += [result.number(row.paper)] if printed else []
        body.append([*cells, f"{int(row.n)}"])
    head = [
        "row",
        *(["GPS-SELM is, against it"] if judged else []),
        result.measure,
        *(["paper"] if printed else []),
        "n",
    ]
    bars = "half of a 95 % interval" if result.bars.startswith("95 %") else "a standard deviation"
    return simple_table(head, {"": body}, f"{result.task[:1].upper()}{result.task[1:]} (±: {bars})")


def download(result: Result, name: str) -> Html:
    """All rows of a result as a CSV file to keep, inside the page."""
    return csv_link(result.rows.drop(columns="kind"), name, result.profile)


def csv_link(rows: pd.DataFrame, name: str, profile: str) -> Html:
    """A table as a CSV file to keep, inside the page, and where all is that it comes from."""
    data = base64.b64encode(rows.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode()).decode()
    where = f"data/results/{profile}/"
    trials = "" if profile in PLUMBING_CHECKS else f" Every trial: <code>{html.escape(where)}</code> of the code."
    return Html(
        f'{CSS}<p class="selm-foot"><a download="{html.escape(name)}.csv" href="data:text/csv;base64,{data}">'
        f"These {len(rows)} rows as CSV</a>.{trials}</p>"
    )


def whole(result: Result | None, name: str, note: str = "", beside: Sequence[str] = ()) -> list[Html]:
    """Answer, figure, table and download of a page, in order."""
    if result is None:
        return [answer(None)]
    return [answer(result, beside), dot_plot(result, note), short_table(result), download(result, name)]


def learning_curves(results: pd.DataFrame, target: str, *, split: str = "blocks", metric: str = "mse") -> Html:
    """Error or accuracy against epochs of training: a panel for frozen features and one for whole encoders."""
    import matplotlib.pyplot as plt

    use_style()
    keep = (results["target"] == target) & (results["split"] == split) & (results["metric"] == metric)
    table = summarise(results[keep & results["setting"].isin(["frozen", "finetune"]) & (results["epochs"] > 0)])
    table = table[~table["method"].isin(["raw_gps"])]  # never normalised: it would set the scale
    if not len(table):
        raise InputError(f"learning curves: no rows of {target}, {split}, {metric}")
    figure, axes = plt.subplots(2, 1, figsize=(WIDTH, 6.4), sharex=True)
    for axis, (setting, title) in zip(axes, (("frozen", "linear layer"), ("finetune", "trained whole")), strict=True):
        ends, methods = {}, {}
        for method, line in table[table["setting"] == setting].groupby("method", sort=False):
            line = line.sort_values("epochs")
            axis.plot(line["epochs"], line["mean"], **look(str(method)).line())
            name = title_of(str(method))
            ends[name], methods[name] = float(line["mean"].iloc[-1]), str(method)
        axis.set_title(title, loc="left")
        axis.set_ylabel(METRIC_LABELS[metric])
        axis.grid(axis="y", color="0.9", linewidth=0.6)
        axis.set_xticks(sorted(set(table["epochs"])))
        if ends:
            label_lines(axis, ends, methods)
    axes[1].set_xlabel("epochs of the probe")
    profile = str(table["profile"].iloc[0])
    words = PROFILE_WORDS.get(profile, profile)
    return picture(figure, f"**By epochs**, {SPLIT_LABELS[split]} ({words}).",
                   f"Lines of {METRIC_LABELS[metric]} by epochs, {len(set(table['method']))} methods, frozen above, "
                   "trained whole below.", profile=profile)  # fmt: skip


def error_map(name: str, target: str, metric: str, methods: Mapping[str, str]) -> Html:
    """Where it errs, by the published scores: a map a method (name → title), a square a spatial block in the colour of
    its mean score."""
    from reproduction.profiles import get_profile

    profile = published.profile_with(f"{name}-blocks")
    blocks = published.results(f"{name}-blocks", profile) if profile else None
    if blocks is not None:
        keep = (blocks["target"] == target) & (blocks["metric"] == metric) & (blocks["epochs"] == 0)
        keep &= blocks["setting"].isin(["frozen-closed", "practitioner"]) & blocks["method"].isin(list(methods))
        blocks = blocks[keep]
    if profile is None or blocks is None or not len(blocks):
        return prose("A map of the errors needs the scores by block, which are not published with this run.")
    side = get_profile(profile).maps.cell_degrees
    measure = METRIC_LABELS[metric] if metric == "mse" else "share right"
    said = f"{measure[:1].upper()}{measure[1:]} by block of {side:g}°; a square grows with its number of places."
    return picture(
        error_squares(blocks, side, methods, measure), f"**Where it errs.** {said}",
        f"Maps of {len(methods)} rows with {blocks['block'].nunique()} squares, coloured by {measure}.",
    )  # fmt: skip


def error_squares(blocks: pd.DataFrame, cell_degrees: float, methods: Mapping[str, str], measure: str) -> Figure:
    """The figure of `error_map`: rows of a ``NAME-blocks.csv`` of one target and metric."""
    import math

    import matplotlib.pyplot as plt

    use_style()
    shown = [method for method in methods if method in set(blocks["method"])]
    means = blocks.groupby(["method", "block"]).agg(score=("score", "mean"), points=("points", "mean")).reset_index()
    corner = means["block"].str.split("_", expand=True).astype(float)
    means["lat"], means["lon"] = corner[0] + cell_degrees / 2, corner[1] + cell_degrees / 2
    low, high = means["score"].quantile([0.02, 0.95])
    figure, axes = plt.subplots(1, len(shown), figsize=(WIDTH, 0.9 + 2.6 * min(1.0, 2 / len(shown))), squeeze=False,
                                sharex=True, sharey=True)  # fmt: skip
    for axis, method in zip(axes[0], shown, strict=True):
        part = means[means["method"] == method]
        size = 10 + 90 * np.sqrt(part["points"] / means["points"].max())
        dots_ = axis.scatter(part["lon"], part["lat"], s=size, c=part["score"], marker="s", cmap="cividis", vmin=low,
                             vmax=high, linewidths=0.3, edgecolors="0.3")  # fmt: skip
        axis.set_aspect(1 / math.cos(math.radians(float(means["lat"].mean()))))
        axis.set_title(methods[method], loc="left")
        axis.set_xlabel("longitude")
    axes[0, 0].set_ylabel("latitude")
    figure.colorbar(dots_, ax=list(axes[0]), shrink=0.8, label=f"{measure}, mean of the block")
    return figure

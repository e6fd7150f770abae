"""Figures of results: accuracy by size of the training set, which claims hold, and the questions of a page."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reproduction.pages.html import metric_number
from reproduction.pages.style import COLOURS, METRIC_LABELS, WIDTH, label_lines, look, row_label, use_style
from reproduction.report import PERCENT, records
from selm.errors import InputError

# Colour and mark of each verdict.
VERDICTS = {"better": (COLOURS[2], "o"), "worse": (COLOURS[1], "s"), "equivalent": (COLOURS[0], "D"),
            "undecided": ("#6b6b6b", "o"), "not run": ("#6b6b6b", "x")}  # fmt: skip
_FAINT = {"better": "#d7efe6", "worse": "#f9e0d0", "equivalent": "#d6e7f4", "undecided": "white", "not run": "#f6f6f6"}
_EPOCHS = ("o", "s", "^")  # marks of the first, second and last number of epochs


def sample_size_curves(results: pd.DataFrame) -> Figure:
    """Figure 4: top-1 accuracy against the size of the training set, a line a method with a band of ± sd over trials.

    results: rows of `reproduction.experiments.figure4_sample_size.figure4`, of one profile and data set; several
    pretraining seeds of a method are averaged, and their spread is part of its band.
    """
    use_style()
    rows = results[results["metric"] == "top1"]
    if not len(rows):
        raise InputError("sample sizes: no rows with the metric 'top1'")
    table = rows.assign(size=sizes_of(rows), value=100 * rows["value"])
    figure, axis = plt.subplots(figsize=(WIDTH, 4.2))
    ends, methods = {}, {}
    for method in dict.fromkeys(table["method"]):
        line = table[table["method"] == method].groupby("size")["value"].agg(["mean", "std"])
        name, ink = row_label(method), look(method)
        axis.plot(line.index, line["mean"], label=name, **ink.line())
        if ink.width > 2:
            spread = line["std"].fillna(0.0)
            axis.fill_between(line.index.to_numpy(), line["mean"] - spread, line["mean"] + spread,
                              color=ink.colour, alpha=0.15, linewidth=0)  # fmt: skip
        ends[name], methods[name] = float(line["mean"].iloc[-1]), method
    sizes = sorted(set(table["size"]))
    axis.set_xscale("log")
    axis.set_xticks(sizes, [f"{n:,}" for n in sizes])
    axis.minorticks_off()
    axis.set(xlabel="images to train on", ylabel=METRIC_LABELS["top1"])
    axis.grid(axis="y", color="0.9", linewidth=0.6)
    label_lines(axis, ends, methods)
    return figure


def sizes_of(rows: pd.DataFrame) -> pd.Series[int]:
    """The number of images to train on of each row of Figure 4."""
    return rows["target"].str.rsplit("/", n=1).str[1].astype(int)


def claims_forest(verdicts: pd.DataFrame, *, scale: float = 1.0, unit: str = "") -> Figure:
    """Gains of claims with their intervals: a line a pair, a panel a setting, a mark a number of epochs.

    verdicts: claims of one table and metric with a `title` each; untested ones are left out, and a claim without
    scores has no interval. What lies far outside is drawn at the edge, with its number.
    """
    use_style()
    rows = verdicts[verdicts["gain"].notna()]
    if not len(rows):
        raise InputError("forest: no claim has been tested")
    titles, settings = list(dict.fromkeys(rows["title"])), list(dict.fromkeys(rows["setting"]))
    epochs = sorted(rows["epochs"].dropna().unique())
    height = 1.0 + 0.11 * len(titles) * max(2, len(epochs))
    figure, axes = plt.subplots(1, len(settings), figsize=(WIDTH, height), squeeze=False, sharey=True, sharex=True)
    values = scale * rows["gain"]
    reach = max(float(np.quantile(np.abs(values), 0.9)) * 1.6, 1e-9)
    for axis, setting in zip(axes[0], settings, strict=True):
        for row in records(rows[rows["setting"] == setting]):
            step = epochs.index(row.epochs) if len(epochs) > 1 else 0
            y = titles.index(row.title) + 0.26 * (step - (len(epochs) - 1) / 2 if len(epochs) > 1 else 0)
            colour, mark = VERDICTS[str(row.verdict)][0], _EPOCHS[step % len(_EPOCHS)]
            gain = scale * row.gain
            if abs(gain) > reach:
                end = float(np.sign(gain)) * reach
                axis.plot(end, y, ">" if gain > 0 else "<", color=colour, markersize=5)
                axis.annotate(f"{gain:+.3g}".replace("-", "−"), (end, y), xytext=(-7 if gain > 0 else 7, 0),
                              textcoords="offset points", fontsize=6.5, va="center", color=colour,
                              ha="right" if gain > 0 else "left")  # fmt: skip
                continue
            if np.isfinite(row.low):
                ends = np.clip([scale * row.low, scale * row.high], -reach, reach)
                axis.plot(ends, [y, y], color=colour, linewidth=1.2)
            axis.plot(gain, y, mark, color=colour, markersize=4)
        axis.axvline(0, color="0.3", linewidth=0.9)
        axis.grid(axis="x", color="0.92", linewidth=0.6)
        axis.set_title({"frozen": "frozen", "finetune": "fine-tuned"}.get(setting, ""), loc="left")
        axis.set_xlim(-1.1 * reach, 1.1 * reach)
        axis.set_xlabel(f"gain{', ' + unit if unit else ''} (right: as claimed)")
    axes[0, 0].set_yticks(range(len(titles)), titles, fontsize=7)
    axes[0, 0].set_ylim(len(titles) - 0.5, -0.5)
    present = [name for name in VERDICTS if name in set(rows["verdict"])]
    handles = [plt.Line2D([], [], color=VERDICTS[name][0], marker="o", linewidth=1.4, markersize=4) for name in present]
    if len(epochs) > 1:
        handles += [plt.Line2D([], [], color="0.3", marker=_EPOCHS[i % 3], linewidth=0) for i in range(len(epochs))]
        present += [f"{int(one)} epoch{'s' if one > 1 else ''}" for one in epochs]
    figure.legend(handles, present, loc="outside lower center", ncols=len(present))
    return figure


def scorecard(questions: pd.DataFrame) -> Figure:
    """One line a question: its gain in per cent of what it is compared with, the interval, the paper's gain (hollow)
    and the verdict.

    questions: `section question gain low high paper verdict`, as `reproduction.pages.findings.scorecard` makes them.
    """
    use_style()
    figure, axis = plt.subplots(figsize=(WIDTH, 0.9 + 0.27 * (len(questions) + questions["section"].nunique())))
    y, ticks, names = 0, [], []
    reach = max(60.0, float(np.nanquantile(np.abs(questions[["gain", "low", "high"]].to_numpy()), 0.95)))
    for section, rows in questions.groupby("section", sort=False):
        axis.annotate(str(section), (-0.01, y), xycoords=("axes fraction", "data"), ha="right", va="center", fontsize=8,
                      fontweight="bold", annotation_clip=False)  # fmt: skip
        y += 1
        for row in records(rows):
            colour, mark = VERDICTS[str(row.verdict)]
            if np.isfinite(row.low):
                axis.plot(np.clip([row.low, row.high], -reach, reach), [y, y], color=colour, linewidth=1.8)
            if np.isfinite(row.paper):
                axis.plot(np.clip(row.paper, -reach, reach), y, "o", color="0.35", markerfacecolor="white",
                          markersize=5)  # fmt: skip
            if np.isfinite(row.gain):
                axis.plot(np.clip(row.gain, -reach, reach), y, mark, color=colour, markersize=6)
            number = f"{row.gain:+.0f} % ".replace("-", "−") if np.isfinite(row.gain) else ""
            axis.annotate(f"{number}{row.verdict}", (1.01, y), xycoords=("axes fraction", "data"), va="center",
                          fontsize=7.5, color=colour, fontweight="bold", annotation_clip=False)  # fmt: skip
            ticks.append(y)
            names.append(str(row.question))
            y += 1
    axis.axvline(0, color="0.3", linewidth=0.9)
    axis.grid(axis="x", color="0.92", linewidth=0.6)
    axis.set_yticks(ticks, names)
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(y - 0.4, -0.6)
    axis.set_xlim(-1.05 * reach, 1.05 * reach)
    axis.set_xlabel("gain, % (less error or more accuracy: to the right)")
    return figure


def short_question(text: str) -> str:
    """A question in the words of a figure."""
    return text.replace("Does GPS-SELM beat", "better than")


def verdict_grid(
    sections: Mapping[str, Mapping[str, Mapping[str, Any]]], targets: Mapping[str, str], *, beside: int = 36
) -> Figure:
    """A row a question, a panel a target: the gain with its interval in the colour of its verdict, and in grey the
    margin within which a difference does not matter.

    sections: heading → question → target → its row of `reproduction.experiments.verdicts`.  targets: name → title; one
    without rows has a narrow, empty panel.  beside: characters of a line of a question. Accuracies are in points.
    """
    use_style()
    cells = [(target, row) for rows in sections.values() for of in rows.values() for target, row in of.items()]
    metric_of = {target: str(row.metric) for target, row in cells}
    by_metric = {metric: [row for _, row in cells if row.metric == metric] for metric in metric_of.values()}
    reach = {metric: _reach(rows) for metric, rows in by_metric.items()}
    height = 0.8 + 0.3 * sum(len(rows) + 1 for rows in sections.values())
    figure, axes = plt.subplots(1, len(targets), figsize=(WIDTH, height), sharey=True,
                                width_ratios=[1.0 if target in metric_of else 0.5 for target in targets])  # fmt: skip
    ticks: dict[float, str] = {}
    for heading, rows in sections.items():
        y = max(ticks, default=-1.0) + 1.0
        axes[0].annotate(heading, (-0.03, y + 0.1), xycoords=("axes fraction", "data"), ha="right", va="center",
                         fontsize=8, fontweight="bold", annotation_clip=False)  # fmt: skip
        for line, (text, by_target) in enumerate(rows.items(), start=1):
            ticks[y + line] = textwrap.fill(short_question(text), beside)
            for axis, target in zip(axes, targets, strict=True):
                if target in by_target:
                    _verdict_cell(axis, y + line, by_target[target], reach[metric_of[target]])
    for axis, (target, title) in zip(axes, targets.items(), strict=True):
        axis.set_title(title[:1].upper() + title[1:].replace(" ", "\n"), loc="left", fontweight="bold", fontsize=8)
        axis.tick_params(axis="y", length=0)
        axis.spines["left"].set_visible(False)
        if target in metric_of:
            unit = "points" if metric_of[target] in PERCENT else "MSE"
            axis.set_xlim(-1.12 * reach[metric_of[target]], 1.12 * reach[metric_of[target]])
            axis.set_xlabel(f"gain, {unit}", fontsize=7)
            axis.tick_params(axis="x", labelsize=7)
        else:
            axis.text(0.5, 0.5, "not asked at this distance", transform=axis.transAxes, rotation=90, ha="center",
                      va="center", color="0.45", fontsize=8)  # fmt: skip
            axis.tick_params(axis="x", length=0, labelbottom=False)
            axis.spines["bottom"].set_visible(False)
    axes[0].set_yticks(list(ticks), list(ticks.values()), fontsize=7)
    axes[0].set_ylim(max(ticks, default=0.0) + 0.6, -0.4)
    return figure


def _reach(rows: Sequence[Any]) -> float:
    """How far a panel goes: nine ends of intervals of ten lie in it, the others are cut at its edge."""
    ends = [abs(end) for row in rows for end in (row.low, row.high) if np.isfinite(end)]
    return (100.0 if rows[0].metric in PERCENT else 1.0) * (float(np.quantile(ends, 0.9)) if ends else 1.0)


def _verdict_cell(axis: Axes, y: float, row: Any, reach: float) -> None:
    """One question on one target: what is found, in words, and below it its interval."""
    verdict, scale = str(row.verdict), 100.0 if row.metric in PERCENT else 1.0
    colour, mark = VERDICTS[verdict]
    axis.axhspan(y - 0.46, y + 0.46, color=_FAINT[verdict], linewidth=0, zorder=0)
    if verdict == "not run":
        axis.annotate(verdict, (0.5, y), xycoords=("axes fraction", "data"), ha="center", va="center", fontsize=6.5,
                      color="0.55")  # fmt: skip
        return
    gain, low, high = (scale * value for value in (row.gain, row.low, row.high))
    axis.annotate(f"{metric_number(gain, row.metric, sign=True)} {verdict}", (0.5, y - 0.2), ha="center", va="center",
                  xycoords=("axes fraction", "data"), fontsize=6.5, color="0.15", fontweight="bold")  # fmt: skip
    line, margin = y + 0.2, scale * row.margin
    axis.fill_between([-margin, margin], line - 0.2, line + 0.2, color="0.78", linewidth=0, zorder=1)
    axis.plot([0, 0], [line - 0.2, line + 0.2], color="0.3", linewidth=0.9, zorder=2)
    axis.plot(np.clip([low, high], -reach, reach), [line, line], color=colour, linewidth=1.6, zorder=3)
    for value, inside in ((low, ""), (high, ""), (gain, mark)):
        shape = inside if abs(value) <= reach else "<" if value < 0 else ">"
        axis.plot(np.clip(value, -reach, reach), line, shape, color=colour, markersize=4, zorder=4)

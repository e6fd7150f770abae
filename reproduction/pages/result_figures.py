"""Figures of results: how well each method does, by split and by size of the training set, and which claims hold."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from reproduction.pages.style import COLOURS, DASHES, MARKERS, METRIC_LABELS, SPLIT_LABELS, WIDTH, row_label, use_style
from reproduction.report import HIGHER_IS_BETTER, PERCENT, records, summarise
from selm.errors import InputError


def performance_bars(
    results: pd.DataFrame,
    *,
    metric: str,
) -> Figure:
    """Mean ± sd of each method (a dot and its spread), one colour and marker a group: split and setting.

    results: tidy rows of one experiment and target; of methods with several epochs the last is shown.
    """
    use_style()
    table = summarise(results[results["metric"] == metric])
    if not len(table):
        raise InputError(f"performance bars: no rows with the metric '{metric}'")
    last = table.groupby(["method", "setting", "split"])["epochs"].transform("max")
    table = table[table["epochs"] == last]
    order = list(dict.fromkeys(table["method"]))
    groups = list(dict.fromkeys(zip(table["split"], table["setting"], strict=True)))
    figure, axis = plt.subplots(figsize=(WIDTH, 0.9 + 0.3 * len(order)))
    step = 0.62 / max(len(groups), 1)
    for g, (split, setting) in enumerate(groups):
        rows = table[(table["split"] == split) & (table["setting"] == setting)]
        where = np.array([order.index(method) for method in rows["method"]]) + (g - (len(groups) - 1) / 2) * step
        label = f"{SPLIT_LABELS.get(split, split)}, {setting}"
        axis.errorbar(
            rows["mean"], where, xerr=rows["sd"].fillna(0.0), fmt=MARKERS[g % len(MARKERS)], markersize=4,
            color=COLOURS[g % len(COLOURS)], elinewidth=1.2, capsize=2, label=label,
        )  # fmt: skip
    axis.set_yticks(range(len(order)), [row_label(method) for method in order])
    axis.set_ylim(len(order) - 0.4, -0.6)
    axis.grid(axis="x", color="0.9", linewidth=0.6)
    axis.set_xlabel(f"{METRIC_LABELS[metric]} ({'higher' if HIGHER_IS_BETTER[metric] else 'lower'} is better)")
    figure.legend(loc="outside lower center", ncols=min(3, len(groups)))
    return figure


def heat_strip(values: pd.DataFrame, *, metric: str, title: str = "") -> Figure:
    """A table as a heat map, rows × columns, numbers written in; the darker the better. NaN cells stay empty."""
    use_style()
    if not values.size:
        raise InputError("heat strip: an empty table")
    digits = ".1f" if metric in PERCENT else ".2f"
    better_is_dark = HIGHER_IS_BETTER[metric]
    figure, axis = plt.subplots(figsize=(min(WIDTH, 2.6 + 0.75 * values.shape[1]), 0.7 + 0.28 * len(values)))
    sns.heatmap(
        values.astype(float), annot=True, fmt=digits, cmap="Blues" if better_is_dark else "Blues_r", cbar=False,
        linewidths=1, linecolor="white", ax=axis, annot_kws={"fontsize": 8}, robust=True,
    )  # fmt: skip
    axis.set(xlabel=values.columns.name or "", ylabel="")
    axis.xaxis.tick_top()
    axis.xaxis.set_label_position("top")
    axis.tick_params(length=0)
    plt.setp(axis.get_yticklabels(), rotation=0)
    if title:
        axis.set_title(title, loc="left", pad=18)
    return figure


def sample_size_curves(results: pd.DataFrame) -> Figure:
    """Figure 4: top-1 accuracy against the size of the training set, a line a method with a band of ± sd over trials.

    results: rows of `reproduction.experiments.figure4_sample_size.figure4`, of one profile and data set; several
    pretraining seeds of a method are averaged, and their spread is part of its band.
    """
    use_style()
    rows = results[results["metric"] == "top1"]
    if not len(rows):
        raise InputError("sample sizes: no rows with the metric 'top1'")
    size = rows["target"].str.rsplit("/", n=1).str[1].astype(int)
    table = rows.assign(size=size, value=100 * rows["value"])
    order = list(dict.fromkeys(table["method"]))
    figure, axis = plt.subplots(figsize=(WIDTH, 3.8))
    for i, method in enumerate(order):
        line = table[table["method"] == method].groupby("size")["value"].agg(["mean", "std"])
        practitioner = (table.loc[table["method"] == method, "setting"] == "practitioner").all()
        colour = "0.35" if practitioner else COLOURS[i % len(COLOURS)]
        axis.plot(
            line.index, line["mean"], color=colour, marker=MARKERS[i % len(MARKERS)],
            markersize=3.5, linewidth=1.2, linestyle=DASHES[i % len(DASHES)], label=row_label(method),
        )  # fmt: skip
        spread = line["std"].fillna(0.0)
        axis.fill_between(line.index.to_numpy(), line["mean"] - spread, line["mean"] + spread,
                          color=colour, alpha=0.12, linewidth=0)  # fmt: skip
    sizes = sorted(set(table["size"]))
    axis.set_xscale("log")
    axis.set_xticks(sizes, [f"{n:,}" for n in sizes])
    axis.minorticks_off()
    axis.set(xlabel="images to train on", ylabel=METRIC_LABELS["top1"])
    axis.grid(axis="y", color="0.9", linewidth=0.6)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def claims_forest(rows: pd.DataFrame, *, scale: float = 1.0, unit: str = "") -> Figure:
    """Gains of claims with their intervals, one line a claim: `title gain low high verdict`, in the order given.

    A claim without scores has no interval: its gain alone is shown.
    """
    use_style()
    if not len(rows):
        raise InputError("forest: no claim has been tested")
    colour = {"better": COLOURS[2], "worse": COLOURS[1], "equivalent": COLOURS[0], "undecided": "0.45"}
    figure, axis = plt.subplots(figsize=(WIDTH, 0.75 + 0.2 * len(rows)))
    for y, row in enumerate(records(rows)):
        ink = colour[str(row.verdict)]
        axis.plot([scale * row.low, scale * row.high], [y, y], color=ink, linewidth=1.4)
        axis.plot(scale * row.gain, y, MARKERS[list(colour).index(str(row.verdict))], color=ink, markersize=4)
    axis.axvline(0, color="0.3", linewidth=0.9)
    axis.set_yticks(range(len(rows)), rows["title"])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.grid(axis="x", color="0.92", linewidth=0.6)
    axis.set_xlabel(f"gain{', ' + unit if unit else ''} (right of 0: as claimed)")
    handles = [
        plt.Line2D([], [], color=colour[name], marker=MARKERS[i], linewidth=1.4, markersize=4)
        for i, name in enumerate(colour)
    ]
    figure.legend(handles, list(colour), loc="outside lower center", ncols=4)
    return figure

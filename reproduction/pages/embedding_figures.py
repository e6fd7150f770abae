"""Figures of embeddings: what lies together (Figure 2) or between (Figure 3), what is found again (Figure 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from reproduction.experiments.representations import BESIDE_COLOURS, plain
from reproduction.experiments.representations import title as title_of_representation
from reproduction.pages.html import Html, simple_table
from reproduction.pages.style import COLOURS, DASHES, MARKERS, WIDTH, kind_of, label_lines, look, use_style
from reproduction.report import records
from selm.errors import InputError


def purity_above_chance(rows: pd.DataFrame, labels: Mapping[str, str], titles: Mapping[str, str]) -> Figure:
    """Neighbour purity above chance of each representation (mean over seeds, the widest interval), a panel a label.

    rows: `reproduction.experiments.figure2_tsne.figure2`'s, of one profile.  labels, titles: names of labels and of
    representations.
    """
    use_style()
    shown = [label for label in labels if label in set(rows["label"])]
    if not shown:
        raise InputError("purity: no label was scored")
    first = rows[(rows["label"] == shown[0]) & (rows["space"] == "embedding")].groupby("method")["excess"].mean()
    order = [str(method) for method in first.sort_values(ascending=False).index if method in titles]
    figure, axes = plt.subplots(1, len(shown), figsize=(WIDTH, 0.8 + 0.24 * len(order)), squeeze=False, sharey=True)
    for axis, label in zip(axes.flat, shown, strict=True):
        for s, (space, name) in enumerate((("embedding", "in the embedding"), ("tsne", "in the picture"))):
            part = rows[(rows["label"] == label) & (rows["space"] == space)].groupby("method")
            mean, low, high = part["excess"].mean(), part["low"].min(), part["high"].max()
            there = [method for method in order if method in mean.index]
            y = np.array([order.index(method) for method in there]) + 0.22 * (s - 0.5)
            centre = 100 * mean[there].to_numpy()
            bars = np.abs(np.stack([100 * low[there].to_numpy(), 100 * high[there].to_numpy()]) - centre)
            axis.errorbar(
                centre, y, xerr=bars, fmt=MARKERS[s], color=COLOURS[s], markersize=3.5, elinewidth=1, label=name
            )  # fmt: skip
        chance = 100 * float(rows.loc[rows["label"] == label, "chance"].mean())
        axis.axvline(0, color="0.4", linewidth=0.9)
        for row, method in enumerate(order):
            if kind_of(method) == "baseline":
                axis.axhspan(row - 0.5, row + 0.5, color="#f0ead6", linewidth=0, zorder=0)
        axis.set_title(f"{labels[label]}\nchance {chance:.0f} %", loc="left")
        axis.grid(axis="x", color="0.92", linewidth=0.6)
    axes[0, 0].set_yticks(range(len(order)), [titles[method] for method in order])
    for tick, method in zip(axes[0, 0].get_yticklabels(), order, strict=True):
        tick.set_fontweight("bold" if kind_of(method) == "own" else "normal")
    axes[0, 0].set_ylim(len(order) - 0.5, -0.5)
    figure.supxlabel("share of neighbours with the same label above chance, points", fontsize=8)
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper right", ncols=2)
    return figure


def maps_on_a_plane(flat: ArrayLike, rows: ArrayLike, images: ArrayLike, codes: ArrayLike, names: Sequence[str],
                    title: str = "", attribution: str = "") -> Figure:  # fmt: skip
    """Points (N, 2) coloured by class, and over them the map images of some: the print of Figure 2.

    rows: which points the images uint8 (n, h, w, 3) belong to.  codes: int (N,) into `names`, -1 for unknown (grey).
    """
    import seaborn as sns  # most of a second: not for the other figures

    use_style()
    xy, code, pictures = np.asarray(flat, float), np.asarray(codes), np.asarray(images)
    figure, axis = plt.subplots(figsize=(WIDTH, 0.95 * WIDTH))
    axis.set_axis_off()
    axis.set_aspect("equal")
    present = [c for c in range(len(names)) if (code == c).any()]
    colours = [*sns.color_palette("colorblind", 10), *sns.color_palette("dark", 10)][: len(present)]
    for c, colour in [(-1, "0.8"), *zip(present, colours, strict=False)]:
        inside = code == c
        if inside.any():
            name = names[c] if c >= 0 else "unknown"
            axis.scatter(xy[inside, 0], xy[inside, 1], s=9, color=colour, linewidths=0, label=name)
    side = 0.055 * float(np.ptp(xy, axis=0).max() or 1.0)
    for row, picture in zip(np.asarray(rows), pictures, strict=True):
        x, y = xy[row]
        c = int(code[row])
        axis.imshow(picture, extent=(x - side / 2, x + side / 2, y - side / 2, y + side / 2), zorder=3)
        edge = colours[present.index(c)] if c >= 0 else "0.6"
        axis.add_patch(
            plt.Rectangle((x - side / 2, y - side / 2), side, side, fill=False, edgecolor=edge, linewidth=1.2, zorder=4)
        )
    margin = side * 0.7
    axis.set_xlim(xy[:, 0].min() - margin, xy[:, 0].max() + margin)
    axis.set_ylim(xy[:, 1].min() - margin, xy[:, 1].max() + margin)
    axis.set_title(title, loc="left")
    figure.legend(loc="outside lower center", ncols=5, markerscale=2)
    if attribution:
        figure.text(0.995, 0.002, attribution, fontsize=6, color="0.4", ha="right", va="bottom")
    return figure


def interpolation_strip(table: pd.DataFrame, images: ArrayLike, title: str = "", attribution: str = "") -> Figure:
    """Figure 3: one way from a field to a city. A column a step, a row a neighbour; the endpoints outside, framed.

    table: the rows of one pair and method (`reproduction.experiments.figure3_interpolation.ways`).  images: uint8 (n,
    h, w, 3), which `image` numbers.
    """
    use_style()
    pictures = np.asarray(images)
    steps, shown = int(table["step"].max()) + 1, int(table["rank"].max())
    columns = steps + 2
    side = WIDTH / (columns + 0.3)
    figure, axes = plt.subplots(shown, columns, figsize=(WIDTH, side * shown + 0.55), squeeze=False)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_frame_on(False)
    for row in records(table):
        ends = row.rank == 0
        column = (0 if row.step == 0 else columns - 1) if ends else row.step + 1
        axis = axes[(shown - 1) // 2 if ends else row.rank - 1, column]
        axis.imshow(pictures[row.image], interpolation="nearest")
        axis.set_frame_on(True)
        for spine in axis.spines.values():
            spine.set(visible=True, color=COLOURS[1] if ends else "0.7", linewidth=1.8 if ends else 0.5)
    for step in range(steps):
        axes[0, step + 1].set_title(f"{step / (steps - 1):.2f}", fontsize=7)
    for column, name in ((0, "from"), (columns - 1, "to")):
        axes[(shown - 1) // 2, column].set_title(name, fontsize=7)
    figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    if attribution:
        figure.supxlabel(attribution, fontsize=6, color="0.4", x=0.995, ha="right")
    return figure


def recall_curves(
    rows: pd.DataFrame, areas: Mapping[str, str], lines: Mapping[str, str], *, by: str = "method"
) -> Figure:
    """Figure 5: top-k % recall against k, a panel an area; the lines are named at their top-1 % recall.

    rows: `reproduction.experiments.figure5_recall.figure5`'s, of one profile; of each line mean over seeds, with the
    widest interval of GPS-SELM shaded.  areas: name → title.  lines: value of the column `by` → title.
    """
    use_style()
    shown = [area for area in areas if area in set(rows["area"])]
    if not shown:
        raise InputError("recall curves: no area was searched")
    figure, axes = plt.subplots(len(shown), 1, figsize=(WIDTH, 0.4 + 2.9 * len(shown)), squeeze=False, sharex=True)
    for axis, area in zip(axes.flat, shown, strict=True):
        part = rows[rows["area"] == area]
        starts, methods = {}, {}
        for i, (key, title) in enumerate(lines.items()):
            line = part[part[by] == key].groupby("share")
            if not len(line):
                continue
            mean, low, high = 100 * line["recall"].mean(), 100 * line["low"].min(), 100 * line["high"].max()
            method = key if by == "method" else str(part["method"].iloc[0])
            ink = look(method).line() if by == "method" else {"color": COLOURS[i], "linestyle": DASHES[i]}
            axis.plot(mean.index, mean, label=title, **ink)
            if by != "method" or look(method).width > 2:
                axis.fill_between(mean.index, low, high, color=ink["color"], alpha=0.12, linewidth=0)
            top = f" {mean.loc[1.0]:.0f} %" if 1.0 in mean.index else ""
            starts[f"{title}{top}"], methods[f"{title}{top}"] = float(mean.iloc[0]), method
        facts = part.iloc[0]
        axis.set_title(f"{areas[area]}: {int(facts['gallery']):,} places, {facts['spacing_m']:.0f} m apart", loc="left")
        axis.set_xscale("log")
        axis.set_ylim(0, 101)
        axis.set_xlim(part["share"].max(), part["share"].min())  # the hardest question on the right, beside the names
        axis.xaxis.set_major_formatter("{x:g}")
        axis.grid(axis="y", color="0.92", linewidth=0.6)
        if by == "method":
            label_lines(axis, starts, methods)
        else:
            axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=7)
    figure.supxlabel("k, % of the gallery", fontsize=8)
    figure.supylabel("top-k % recall, %", fontsize=8)
    return figure


def shifted_table(rows: pd.DataFrame, areas: Mapping[str, str]) -> Html:
    """Top-1 % recall (%) of the colours and of encoders beside them, by how far the picture was shifted; bold where it
    is ahead of the colours alone. Nothing where no encoder was asked so.

    rows, areas: as of `recall_curves`; queries that turn and zoom (``d0``, ``d25``, … for metres) are shown.
    """
    there = (str(name).removeprefix("d") for name in rows["query"].unique())
    asked = [f"d{metres}" for metres in sorted(int(name) for name in there if name.isdigit())]
    some = rows[(rows["share"] == 1) & rows["query"].isin(asked)]
    mean = some.groupby(["area", "method", "query"])["recall"].mean().mul(100).unstack()
    parts = {}
    for area, title in areas.items():
        if area not in mean.index:
            continue
        of_area = pd.DataFrame(mean.loc[area])
        beside = of_area[of_area.index.str.endswith(BESIDE_COLOURS)].sort_values(asked[-1], ascending=False)
        if not len(beside) or "histogram" not in of_area.index:
            continue
        colours = of_area.loc["histogram"]
        body = [["the colours alone", *(f"{colours[name]:.0f}" for name in asked)]]
        for method, row in beside.iterrows():
            cells = [f"<b>{row[name]:.0f}</b>" if row[name] > colours[name] else f"{row[name]:.0f}" for name in asked]
            body.append([f"{title_of_representation(plain(str(method)))} and colours", *cells])
        parts[title] = body
    if not parts:
        return Html("")
    caption = "Top-1 % recall, %, of pictures that are turned, zoomed and shifted by so much; features whitened; bold: "
    caption += "ahead of the colours alone"
    return simple_table(["", *(f"{name.removeprefix('d')} m" for name in asked)], parts, caption)

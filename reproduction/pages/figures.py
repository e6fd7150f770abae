"""Figures of the book, in one style: readable in print and for the colour-blind; each takes data, returns a Figure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import FuncFormatter, ScalarFormatter
from numpy.typing import ArrayLike

from reproduction.report import HIGHER_IS_BETTER, PERCENT, records, summarise
from reproduction.titles import title_of
from selm.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 7.0  # inches: a text column of the book
# Okabe and Ito's palette, told apart with any colour vision, darkest first; in print the markers and dashes tell too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (7, 2)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LOSSES = {
    "loss": "total loss",
    "cl": "distillation (eq. 4)",
    "price": "land price (eq. 5)",
    "density": "density class (eq. 6)",
    "coordinates": "coordinates (eq. 7)",
    "rec": "reconstruction (eq. 9)",
    "rec_outer": "reconstruction, outside the view",
    "clust": "clustering (eq. 12)",
    "teacher_entropy": "entropy of the teacher",
    "mean_teacher_entropy": "entropy of its mean",
    "feature_spread": "spread of the features",
}
_UNITS = {
    "mse": "mean squared error",
    "top1": "top-1 accuracy, %",
    "top5": "top-5 accuracy, %",
    "ap50": "AP50, %",
    "r2": "r²",
}


def use_style() -> None:
    """Set the book's style for all figures that follow."""
    sns.set_theme(
        context="paper",
        style="ticks",
        palette=list(COLOURS),
        rc={
            "figure.dpi": 110,
            "savefig.dpi": 160,
            "figure.constrained_layout.use": True,
            "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure on every machine
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 9,
            "axes.labelsize": 8,
            "xtick.labelsize": 8,
            "ytick.labelsize": 8,
            "legend.fontsize": 8,
            "legend.frameon": False,
            "figure.facecolor": "white",  # also on a dark page: the ink is dark
            "svg.hashsalt": "selm",  # the same bytes for the same figure
        },
    )


def training_curves(
    runs: Mapping[str, str | Path | pd.DataFrame],
    *,
    out_dim: int | None = None,
    columns: Sequence[str] | None = None,
    n_columns: int = 3,
) -> Figure:
    """Every loss of some pretrainings against the steps, with what tells of collapse.

    runs: name → run directory (its ``metrics.csv``) or the table itself: `step` and a column a loss, each the mean
        since the row before.
    out_dim: K; ln K is drawn where a loss or entropy at that height means that nothing is learnt.
    columns: which panels (default: all that any run has).
    """
    use_style()
    curves = {name: run if isinstance(run, pd.DataFrame) else _metrics(Path(run)) for name, run in runs.items()}
    if not curves:
        raise InputError("training curves: no runs given")
    known = [column for column in _LOSSES if any(column in curve for curve in curves.values())]
    shown = list(columns) if columns is not None else known
    for column in shown:
        if column not in known:
            raise InputError(f"training curves: no run has the column '{column}' (there are: {', '.join(known)})")
    n_columns = min(n_columns, len(shown))
    n_rows = -(-len(shown) // n_columns)
    figure, axes = plt.subplots(n_rows, n_columns, figsize=(WIDTH, 1.75 * n_rows + 0.35), squeeze=False)
    handles: dict[str, Any] = {}
    for axis, column in zip(axes.flat, shown, strict=False):
        for i, (name, curve) in enumerate(curves.items()):
            if column in curve and curve[column].notna().any():
                (handles[name],) = axis.plot(
                    curve["step"], curve[column], color=COLOURS[i % len(COLOURS)],
                    linestyle=_DASHES[i % len(_DASHES)], linewidth=1.2, label=name,
                )  # fmt: skip
        if out_dim and column in ("cl", "teacher_entropy", "mean_teacher_entropy"):
            axis.axhline(math.log(out_dim), color="0.5", linewidth=0.8)
            axis.annotate(
                "ln K", (1, math.log(out_dim)), xycoords=("axes fraction", "data"), xytext=(2, 0),
                textcoords="offset points", va="center", fontsize=7, color="0.4",
            )  # fmt: skip
        axis.set_title(_LOSSES.get(column, column), loc="left")
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    for axis in axes[-1]:
        axis.set_xlabel("step")
    figure.legend(handles.values(), [_title(name) for name in handles], loc="outside lower center", ncols=3)
    return figure


def _metrics(folder: Path) -> pd.DataFrame:
    file = folder / "metrics.csv" if folder.is_dir() else folder
    if not file.exists():
        raise InputError(f"{file}: no training curve here")
    return pd.read_csv(file)


def _title(method: str) -> str:
    """A row's title where it is one, else the name as it is."""
    try:
        return title_of(method)
    except InputError:
        return method


def entropy_histogram(entropy: Mapping[str, ArrayLike], *, threshold: float | None = None) -> Figure:
    """Histograms of image entropy in bits, one outline a group, with the filter's threshold and what passes it."""
    use_style()
    groups = {name: np.asarray(values, dtype=np.float64) for name, values in entropy.items()}
    groups = {name: values[np.isfinite(values)] for name, values in groups.items()}
    if not any(map(len, groups.values())):
        raise InputError("entropy histogram: no values given")
    figure, axis = plt.subplots(figsize=(WIDTH, 2.6))
    bins = np.linspace(0, max(max(values.max(), 1.0) for values in groups.values() if len(values)) * 1.02, 50)
    for i, (name, values) in enumerate(groups.items()):
        kept = f", {100 * np.mean(values >= threshold):.0f} % kept" if threshold is not None and len(values) else ""
        axis.hist(
            values, bins.tolist(), weights=np.full(len(values), 100 / max(len(values), 1)), histtype="step",
            linewidth=1.3, color=COLOURS[i % len(COLOURS)], linestyle=_DASHES[i % len(_DASHES)], label=f"{name}{kept}",
        )  # fmt: skip
    if threshold is not None:
        axis.axvline(threshold, color="0.35", linewidth=0.9)
        axis.annotate(
            f"threshold {threshold:g}", (threshold, 1), xycoords=("data", "axes fraction"), xytext=(3, -2),
            textcoords="offset points", va="top", fontsize=7, color="0.35",
        )  # fmt: skip
    axis.set(xlabel="entropy of the image, bits", ylabel="share of images, %")
    axis.legend()
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


def predicted_against_true(
    truth: ArrayLike, predictions: Mapping[str, ArrayLike], *, label: str = "standardised log price"
) -> Figure:
    """One panel a row: out-of-fold prediction against truth, with the line of perfect prediction and the error."""
    use_style()
    y = np.asarray(truth, dtype=np.float64)
    if not predictions:
        raise InputError("predicted against true: no predictions given")
    n_columns = min(3, len(predictions))
    n_rows = -(-len(predictions) // n_columns)
    side = WIDTH / n_columns
    figure, axes = plt.subplots(
        n_rows, n_columns, figsize=(WIDTH, side * n_rows), squeeze=False, sharex=True, sharey=True
    )
    finite = y[np.isfinite(y)]
    low, high = float(finite.min()), float(finite.max())
    for axis, (name, values) in zip(axes.flat, predictions.items(), strict=False):
        p = np.asarray(values, dtype=np.float64)
        both = np.isfinite(y) & np.isfinite(p)
        axis.plot([low, high], [low, high], color="0.6", linewidth=0.8, zorder=1)
        axis.scatter(
            y[both], p[both], s=5, color=COLOURS[0], alpha=0.35, linewidths=0, rasterized=True, zorder=2
        )  # fmt: skip
        axis.set_title(f"{_title(name)}: MSE {np.square(y[both] - p[both]).mean():.2f}", loc="left")
    for axis in axes.flat[len(predictions) :]:
        axis.set_axis_off()
    figure.supxlabel(f"true {label}", fontsize=8)
    figure.supylabel(f"predicted {label}", fontsize=8)
    return figure


def performance_bars(
    results: pd.DataFrame,
    *,
    metric: str,
    paper: Mapping[str, float] | None = None,
    methods: Sequence[str] | None = None,
) -> Figure:
    """Mean ± sd of each method (a dot and its spread), one colour and marker a group: split and setting.

    results: tidy rows of one experiment and target; of methods with several epochs the last is shown.
    paper: method → the paper's number, drawn as a bar across.
    """
    use_style()
    table = summarise(results[results["metric"] == metric])
    if not len(table):
        raise InputError(f"performance bars: no rows with the metric '{metric}'")
    last = table.groupby(["method", "setting", "split"])["epochs"].transform("max")
    table = table[table["epochs"] == last]
    order = list(dict.fromkeys(methods if methods is not None else table["method"]))
    table = table[table["method"].isin(order)]
    groups = list(dict.fromkeys(zip(table["split"], table["setting"], strict=True)))
    figure, axis = plt.subplots(figsize=(WIDTH, 0.9 + 0.3 * len(order)))
    step = 0.62 / max(len(groups), 1)
    for g, (split, setting) in enumerate(groups):
        rows = table[(table["split"] == split) & (table["setting"] == setting)]
        where = np.array([order.index(method) for method in rows["method"]]) + (g - (len(groups) - 1) / 2) * step
        axis.errorbar(
            rows["mean"], where, xerr=rows["sd"].fillna(0.0), fmt=_MARKERS[g % len(_MARKERS)], markersize=4,
            color=COLOURS[g % len(COLOURS)], elinewidth=1.2, capsize=2, label=f"{_SPLITS.get(split, split)}, {setting}",
        )  # fmt: skip
    for method, value in (paper or {}).items():
        if method in order:
            i = order.index(method)
            axis.plot([value, value], [i - 0.4, i + 0.4], color="0.45", linewidth=1.4, label="paper", zorder=0)
    axis.set_yticks(range(len(order)), [_title(method) for method in order])
    axis.set_ylim(len(order) - 0.4, -0.6)
    axis.grid(axis="x", color="0.9", linewidth=0.6)
    axis.set_xlabel(f"{_UNITS[metric]} ({'higher' if HIGHER_IS_BETTER[metric] else 'lower'} is better)")
    handles, labels = axis.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=min(3, len(unique)))
    return figure


_SPLITS = {"random": "random folds", "blocks": "spatial blocks"}


def surroundings(results: pd.DataFrame, *, practitioner: Mapping[str, float] | None = None) -> Figure:
    """Error against the zooms that an embedding is made of: a row a split, without and beside the coordinates.

    results: rows of `reproduction.beyond.more_context.experiment`.  practitioner: split → the error of the best row
    without an embedding, drawn as a line across.
    """
    use_style()
    table = summarise(results)
    named = table["setting"].str.extract(r"^zooms ([\d-]+)(, coordinates)?$")  # asides are left out
    table = table.assign(zooms=named[0], beside=named[1].notna()).dropna(subset="zooms")
    splits_, methods = list(dict.fromkeys(table["split"])), list(dict.fromkeys(table["method"]))
    zooms = sorted(table["zooms"].unique(), key=lambda text: text.count("-"))
    height = 1.2 + 2.4 * len(splits_) + 0.1 * len(methods)  # the legend has a line for two of them
    figure, axes = plt.subplots(len(splits_), 2, figsize=(WIDTH, height), sharey="row", sharex=True, squeeze=False)
    for (split, beside), axis in zip(itertools.product(splits_, (False, True)), axes.flat, strict=True):
        for m, method in enumerate(methods):
            rows = table[(table["split"] == split) & (table["method"] == method) & (table["beside"] == beside)]
            at = [zooms.index(one) for one in rows["zooms"]]
            rows = rows.assign(at=at).sort_values("at")  # a row may be seen at some of the zooms only
            again = m // len(COLOURS)  # more rows than colours: those that share one differ in marker and dashes
            axis.errorbar(
                rows["at"], rows["mean"], yerr=rows["sd"].fillna(0.0), color=COLOURS[m % len(COLOURS)],
                linestyle=_DASHES[again], marker=_MARKERS[(m + again) % len(_MARKERS)], markersize=4, capsize=2,
                label=_title(method),
            )  # fmt: skip
        if practitioner and split in practitioner:
            axis.axhline(
                practitioner[split], color="0.45", linestyle=":", linewidth=1.2,
                label="best of Table 1 without an embedding",
            )  # fmt: skip
        axis.set_yscale("log")  # what the last zooms add is small beside what the first ones lack
        low, high = table.loc[table["split"] == split, "mean"].agg(["min", "max"])
        axis.set_ylim(0.85 * low, 1.2 * high)  # bars of the worst rows may leave the picture
        axis.yaxis.set_major_formatter(ScalarFormatter())
        axis.yaxis.set_minor_formatter(FuncFormatter(lambda tick, _: f"{tick:g}" if f"{tick:g}"[-1] in "235" else ""))
        axis.set_xticks(range(len(zooms)), [text if text.count("-") == 0 else f"17-{text[-2:]}" for text in zooms])
        axis.set_title(f"{_SPLITS.get(split, split)}, {'beside' if beside else 'without'} the coordinates")
        axis.grid(axis="y", which="both", color="0.9", linewidth=0.6)
    for axis in axes[-1]:
        axis.set_xlabel("zooms in the embedding")
    for axis in axes[:, 0]:
        axis.set_ylabel(f"{_UNITS['mse']} (lower is better)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def error_map(
    lat: ArrayLike, lon: ArrayLike, errors: ArrayLike, folds: ArrayLike | None = None, *, label: str = "squared error"
) -> Figure:
    """Where a probe errs: each point coloured by its out-of-fold error, and beside it the error of each fold.

    folds: the fold of each point in one draw; with it, a second panel maps the folds and a third gives their means.
    """
    use_style()
    y, x, e = (np.asarray(values, dtype=np.float64) for values in (lat, lon, errors))
    known = np.isfinite(e)
    if not known.any():
        raise InputError("error map: no point has an error")
    panels = 1 if folds is None else 3
    ratios = [1.0] if folds is None else [1.0, 1.0, 0.7]
    figure, axes = plt.subplots(
        1, panels, figsize=(WIDTH if panels > 1 else 4.2, 2.9), squeeze=False, width_ratios=ratios
    )
    bound = float(np.quantile(e[known], 0.95)) or 1.0
    order = np.argsort(e[known])
    drawn = axes[0, 0].scatter(
        x[known][order], y[known][order], c=e[known][order], s=7, cmap="cividis_r", vmin=0, vmax=bound, linewidths=0,
        rasterized=True,
    )  # fmt: skip
    figure.colorbar(drawn, ax=axes[0, 0], orientation="horizontal", shrink=0.8, label=label, extend="max")
    axes[0, 0].set_title("error of each point", loc="left")
    if folds is not None:
        f = np.asarray(folds)
        colours = sns.color_palette("colorblind", 10)
        numbers = [int(number) for number in np.unique(f[known]) if number >= 0]
        for i, number in enumerate(numbers):
            inside = f == number
            axes[0, 1].scatter(
                x[inside], y[inside], s=7, color=colours[i % 10], marker=_MARKERS[i % len(_MARKERS)], linewidths=0,
                rasterized=True,
            )  # fmt: skip
        axes[0, 1].set_title("folds", loc="left")
        axes[0, 1].set_yticklabels([])
        means = [float(e[known & (f == number)].mean()) for number in numbers]
        bars = axes[0, 2].barh(range(len(numbers)), means, color=[colours[i % 10] for i in range(len(numbers))])
        counts = [int((known & (f == number)).sum()) for number in numbers]
        axes[0, 2].bar_label(bars, [f" {count}" for count in counts], fontsize=7, color="0.4")
        axes[0, 2].axvline(float(e[known].mean()), color="0.3", linewidth=0.9, zorder=0)
        axes[0, 2].set_yticks(range(len(numbers)), [str(number) for number in numbers])
        axes[0, 2].invert_yaxis()
        axes[0, 2].set(xlabel=f"mean {label}", ylabel="fold")
        axes[0, 2].set_title("by fold, with points", loc="left")
    for axis in axes[0, : min(2, panels)]:
        axis.set_aspect(1 / math.cos(math.radians(float(np.mean(y)))))  # degrees in their true proportion here
        axis.set_xlabel("longitude")
    axes[0, 0].set_ylabel("latitude")
    return figure


def sweep(table: pd.DataFrame) -> Figure:
    """What each try gains over its method as it is, a panel a method; the band is how far runs differ by seed alone.

    table: `reproduction.experiments.ablations.summary`'s.
    """
    use_style()
    methods = list(dict.fromkeys(table["method"]))
    most = int(table.groupby("method").size().max())
    figure, axes = plt.subplots(1, len(methods), figsize=(WIDTH, 0.9 + 0.19 * most), squeeze=False, sharex=True)
    for m, (axis, method) in enumerate(zip(axes[0], methods, strict=True)):
        part = table[table["method"] == method].sort_values("gain", ascending=False, kind="stable")
        chance = float(part["chance"].iloc[0])
        if math.isfinite(chance):
            axis.axvspan(-chance, chance, color="0.9", zorder=0)
        axis.axvline(0, color="0.4", linewidth=0.9, zorder=1)
        fallen = part["collapse"].astype(bool).to_numpy()
        at = np.arange(len(part))
        for chosen, filled in ((~fallen, COLOURS[m]), (fallen, "white")):
            axis.scatter(part["gain"][chosen], at[chosen], s=18, color=filled, edgecolors=COLOURS[m], zorder=2)
        axis.set_yticks(at, part["variant"], fontsize=7)
        axis.set_ylim(len(part) - 0.5, -0.5)
        axis.set_title(_title(method), loc="left")
        axis.grid(axis="x", color="0.92", linewidth=0.6)
    figure.supxlabel("gain in mean squared error (right: better)", fontsize=8)
    return figure


# -- Figures 2, 3 and 5 ------------------------------------------------------------------------------------------------


def purity(rows: pd.DataFrame, labels: Mapping[str, str], titles: Mapping[str, str]) -> Figure:
    """Neighbour purity above chance of each representation (mean over seeds, the widest interval), a panel a label.

    rows: `reproduction.experiments.figure2_tsne.figure2`'s, of one profile.  labels, titles: names of labels and of
    representations.
    """
    use_style()
    shown = [label for label in labels if label in set(rows["label"])]
    if not shown:
        raise InputError("purity: no label was scored")
    order = [method for method in titles if method in set(rows["method"])]
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
                centre, y, xerr=bars, fmt=_MARKERS[s], color=COLOURS[s], markersize=3.5, elinewidth=1, label=name
            )  # fmt: skip
        chance = 100 * float(rows.loc[rows["label"] == label, "chance"].mean())
        axis.axvline(0, color="0.4", linewidth=0.9)
        axis.set_title(f"{labels[label]}\nchance {chance:.0f} %", loc="left")
        axis.grid(axis="x", color="0.92", linewidth=0.6)
    axes[0, 0].set_yticks(range(len(order)), [titles[method] for method in order])
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


def ways(table: pd.DataFrame, images: ArrayLike, title: str = "", attribution: str = "") -> Figure:
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
    """Figure 5: top-k % recall against k, a panel an area; the top-1 % recall of each line in its legend.

    rows: `reproduction.experiments.figure5_recall.figure5`'s, of one profile; of each line mean over seeds, with the
    widest interval
        shaded.  areas: name → title.  lines: value of the column `by` → title.
    """
    use_style()
    shown = [area for area in areas if area in set(rows["area"])]
    if not shown:
        raise InputError("recall curves: no area was searched")
    n_columns = min(2, len(shown))
    n_rows = -(-len(shown) // n_columns)
    figure, axes = plt.subplots(n_rows, n_columns, figsize=(WIDTH, 3.1 * n_rows), squeeze=False, sharex=True)
    for axis, area in zip(axes.flat, shown, strict=False):
        part = rows[rows["area"] == area]
        for i, (key, title) in enumerate(lines.items()):
            line = part[part[by] == key].groupby("share")
            if not len(line):
                continue
            mean, low, high = 100 * line["recall"].mean(), 100 * line["low"].min(), 100 * line["high"].max()
            colour, dash = COLOURS[i % len(COLOURS)], _DASHES[i % len(_DASHES)]
            top = f"{mean.loc[1.0]:.1f} %" if 1.0 in mean.index else "–"
            axis.plot(mean.index, mean, color=colour, linestyle=dash, linewidth=1.2, label=f"{title} ({top})")
            axis.fill_between(mean.index, low, high, color=colour, alpha=0.12, linewidth=0)
        facts = part.iloc[0]
        axis.set_title(f"{areas[area]}: {int(facts['gallery']):,} places, {facts['spacing_m']:.0f} m apart", loc="left")
        axis.set_xscale("log")
        axis.set_ylim(0, 101)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.legend(fontsize=6, loc="best")
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    figure.supxlabel("k, % of the gallery", fontsize=8)
    figure.supylabel("top-k % recall, %", fontsize=8)
    return figure


def forest(rows: pd.DataFrame, *, scale: float = 1.0, unit: str = "") -> Figure:
    """Gains of claims with their intervals, one line a claim: `title gain low high verdict`, in the order given."""
    use_style()
    if not len(rows):
        raise InputError("forest: no claim has been tested")
    colour = {"holds": COLOURS[2], "reversed": COLOURS[1], "undecided": "0.45"}
    figure, axis = plt.subplots(figsize=(WIDTH, 0.75 + 0.2 * len(rows)))
    for y, row in enumerate(records(rows)):
        ink = colour[str(row.verdict)]
        axis.plot([scale * row.low, scale * row.high], [y, y], color=ink, linewidth=1.4)
        axis.plot(scale * row.gain, y, _MARKERS[list(colour).index(str(row.verdict))], color=ink, markersize=4)
    axis.axvline(0, color="0.3", linewidth=0.9)
    axis.set_yticks(range(len(rows)), rows["title"])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.grid(axis="x", color="0.92", linewidth=0.6)
    axis.set_xlabel(f"gain{', ' + unit if unit else ''} (right of 0: as claimed)")
    handles = [
        plt.Line2D([], [], color=colour[name], marker=_MARKERS[i], linewidth=1.4, markersize=4)
        for i, name in enumerate(colour)
    ]
    figure.legend(handles, list(colour), loc="outside lower center", ncols=3)
    return figure


def sample_size_curves(results: pd.DataFrame, *, metric: str = "top1", methods: Sequence[str] | None = None) -> Figure:
    """Figure 4: performance against the size of the training set, a line a method with a band of ± sd over trials.

    results: rows of `reproduction.experiments.figure4_sample_size.figure4`, of one profile and data set; several
    pretraining seeds of a
        method are averaged, and their spread is part of its band.
    """
    use_style()
    rows = results[results["metric"] == metric]
    if not len(rows):
        raise InputError(f"sample sizes: no rows with the metric '{metric}'")
    size = rows["target"].str.rsplit("/", n=1).str[1].astype(int)
    table = rows.assign(size=size, value=rows["value"] * (100.0 if metric in PERCENT else 1.0))
    order = [
        m for m in (methods if methods is not None else dict.fromkeys(table["method"])) if m in set(table["method"])
    ]
    figure, axis = plt.subplots(figsize=(WIDTH, 3.8))
    for i, method in enumerate(order):
        line = table[table["method"] == method].groupby("size")["value"].agg(["mean", "std"])
        colour, practitioner = (
            COLOURS[i % len(COLOURS)],
            (table.loc[table["method"] == method, "setting"] == "practitioner").all(),
        )
        axis.plot(
            line.index, line["mean"], color="0.35" if practitioner else colour, marker=_MARKERS[i % len(_MARKERS)],
            markersize=3.5, linewidth=1.2, linestyle=_DASHES[i % len(_DASHES)], label=_title(method),
        )  # fmt: skip
        spread = line["std"].fillna(0.0)
        axis.fill_between(line.index.to_numpy(), line["mean"] - spread, line["mean"] + spread,
                          color="0.35" if practitioner else colour, alpha=0.12, linewidth=0)  # fmt: skip
    sizes = sorted(set(table["size"]))
    axis.set_xscale("log")
    axis.set_xticks(sizes, [f"{n:,}" for n in sizes])
    axis.minorticks_off()
    axis.set(xlabel="images to train on", ylabel=_UNITS[metric])
    axis.grid(axis="y", color="0.9", linewidth=0.6)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def detections(
    images: ArrayLike, truth: Sequence[ArrayLike], found: Sequence[tuple[ArrayLike, ArrayLike]], *,
    min_score: float = 0.5, columns: int = 3, captions: Sequence[str] = (), attribution: str = "",
) -> Figure:  # fmt: skip
    """Images (N, h, w, 3) with their true boxes (thin, dashed) and the ones found with at least `min_score` (solid).

    truth: boxes (n, 4) of each image, x0 y0 x1 y1 in pixels.  found: (boxes, scores) of each.
    attribution: whose images they are, written below.
    """
    use_style()
    pictures = np.asarray(images)
    rows = -(-len(pictures) // columns)
    side = WIDTH / columns
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, (side + 0.2) * rows), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for i, (axis, image) in enumerate(zip(axes.flat, pictures, strict=False)):
        axis.imshow(image)
        boxes, scores = (np.asarray(part) for part in found[i])
        for x0, y0, x1, y1 in np.asarray(truth[i]).reshape(-1, 4):
            axis.add_patch(plt.Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color="black", linewidth=1.6))
            axis.add_patch(
                plt.Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color="white", linewidth=0.7, linestyle="--")
            )
        for x0, y0, x1, y1 in boxes.reshape(-1, 4)[scores >= min_score]:
            axis.add_patch(plt.Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color=COLOURS[1], linewidth=1.4))
        if captions:
            axis.set_title(captions[i], loc="left", fontsize=8)
    if attribution:
        figure.supxlabel(attribution, fontsize=6, color="0.4", x=0.995, ha="right")
    return figure


def split_map(
    pretraining: pd.DataFrame, held_out: pd.DataFrame, cells: pd.DataFrame, cell_degrees: float, attribution: str
) -> Figure:
    """A place as it is cut: its cells by what they are for, and the places that are looked at.

    `pretraining` and `held_out` have `lat lon`, the latter `split` too; `cells` is a fold table with `cell`, `region`,
    `set_aside` and `draw_0` (-1 in cells that are pretrained on); `attribution` is written below.
    """
    use_style()
    figure, axis = plt.subplots(figsize=(WIDTH, 5.2))
    kinds = {
        "pretraining": ((cells["draw_0"] < 0), COLOURS[0]),
        "set aside (Table 2)": ((cells["set_aside"] == 1), COLOURS[4]),
        "test (Table 1)": ((cells["draw_0"] >= 0) & (cells["set_aside"] == 0), COLOURS[1]),
    }
    for name, (chosen, colour) in kinds.items():
        corners = cells.loc[chosen, "cell"].str.split("_", expand=True).astype(float).to_numpy()
        for south, west in corners:
            axis.add_patch(
                plt.Rectangle((west, south), cell_degrees, cell_degrees, facecolor=colour, alpha=0.22, linewidth=0)
            )
        axis.scatter([], [], s=40, marker="s", color=colour, alpha=0.4, label=name)
    axis.scatter(pretraining["lon"], pretraining["lat"], s=2, color=COLOURS[0], linewidths=0, rasterized=True)
    for split, colour in (("set-aside", COLOURS[4]), ("test", COLOURS[1])):
        rows = held_out[held_out["split"] == split]
        axis.scatter(rows["lon"], rows["lat"], s=2, color=colour, linewidths=0, rasterized=True)
    axis.set_aspect(1 / math.cos(math.radians(float(pretraining["lat"].mean()))))
    axis.set(xlabel="longitude", ylabel="latitude")
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    axis.text(1.0, -0.12, attribution, transform=axis.transAxes, ha="right", fontsize=7, color="0.4")
    return figure

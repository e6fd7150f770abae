"""The style of the book's figures: one look a method, the same in all of them, readable in print and for the
colour-blind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from reproduction.titles import COMPACT, RECOMMENDED, WHITENED, title_of
from selm.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 7.0  # inches: a text column of the book
# Okabe and Ito's palette, told apart with any colour vision, for what is no method; markers and dashes tell too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (7, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
METRIC_LABELS = {
    "mse": "mean squared error",
    "top1": "top-1 accuracy, %",
    "top5": "top-5 accuracy, %",
    "ap50": "AP50, %",
    "r2": "r²",
}
SPLIT_LABELS = {"random": "random folds", "blocks": "spatial blocks", "scenes": "scenes held out"}


@dataclass(frozen=True)
class Look:
    """How a kind of row is drawn: lines, marks and the ink of its name."""

    colour: str
    dash: Any = "-"
    marker: str = "o"
    width: float = 1.1
    size: float = 4.5

    def line(self) -> dict[str, Any]:
        """For `Axes.plot`."""
        return {"color": self.colour, "linestyle": self.dash, "linewidth": self.width, "zorder": 2 + self.width}


# The paper's method is strong, our variants of it blue, other methods grey, what needs no pretraining dashed.
LOOKS: Mapping[str, Look] = {
    "own": Look("#D55E00", width=2.6, size=7.0),
    "variant": Look("#0072B2", marker="^"),
    "rival": Look("#5F5F5F", marker="s", width=1.7),  # DINO: what GPS-SELM builds on
    "method": Look("#A6A6A6", marker="s"),
    "baseline": Look("#111111", dash=(0, (4, 2)), marker="D"),
    "constant": Look("#111111", dash=(0, (1, 1.5)), marker="|"),
}
_VARIANTS = ("gps_selm", "geo_only", "multi_zoom", COMPACT, RECOMMENDED)
_BASELINES = ("random_init", "raw_gps", "knn_", "trees_", "colours", "histogram", "pixels")


def kind_of(method: str) -> str:
    """Which of `LOOKS` a row has: GPS-SELM in full, a variant of it, DINO, another method, a baseline or the mean."""
    name = method.removesuffix(WHITENED).removesuffix("+colours")
    if name in ("gps_selm", "dino", "prior"):
        return {"gps_selm": "own", "dino": "rival", "prior": "constant"}[name]
    if name.startswith(_BASELINES):
        return "baseline"
    return "variant" if name.startswith(_VARIANTS) else "method"


def look(method: str) -> Look:
    """How a row is drawn."""
    return LOOKS[kind_of(method)]


def text_ink(method: str) -> str:
    """The colour of a row's name: that of its marks, but never pale."""
    return "#555555" if kind_of(method) == "method" else look(method).colour


def use_style() -> None:
    """Set the book's style for all figures that follow: seaborn's "ticks" for a paper, with the book's colours.

    Written out, for seaborn brings scipy.stats along: most of a second on every page.
    """
    import matplotlib as mpl
    from cycler import cycler

    ticks: dict[Any, Any] = {
        f"{axis}tick.{name}": value
        for axis in "xy"
        for name, value in {
            "color": ".15", "labelsize": 8, "major.size": 4.8, "major.width": 1.0, "minor.size": 3.2,
            "minor.width": 0.8,
        }.items()
    }  # fmt: skip
    mpl.rcParams.update(
        ticks
        | {
            "axes.axisbelow": True,
            "axes.edgecolor": ".15",
            "axes.labelcolor": ".15",
            "axes.labelsize": 8,
            "axes.linewidth": 1.0,
            "axes.prop_cycle": cycler("color", COLOURS),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 9,
            "figure.constrained_layout.use": True,
            "figure.dpi": 110,
            "figure.facecolor": "white",  # also on a dark page: the ink is dark
            "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure on every machine
            "font.size": 9.6,
            "grid.color": ".8",
            "legend.fontsize": 8,
            "legend.frameon": False,
            "legend.title_fontsize": 9.6,
            "lines.linewidth": 1.2,
            "lines.markersize": 4.8,
            "lines.solid_capstyle": "round",
            "patch.edgecolor": "w",
            "patch.force_edgecolor": True,
            "patch.linewidth": 0.8,
            "savefig.dpi": 144,
            "svg.hashsalt": "selm",  # the same bytes for the same figure
            "text.color": ".15",
        }
    )


def label_lines(axis: Axes, ends: Mapping[str, float], methods: Mapping[str, str], *, fontsize: float = 7) -> None:
    """Write the names of lines at their right ends, in their ink, moved apart where they would overlap.

    ends: name → y of its last point, in data.  methods: name → the row whose look it has.
    The axis must have its final limits.
    """
    figure = axis.get_figure(root=True)
    assert figure is not None
    height = axis.get_position().height * float(figure.get_figheight()) * 72  # points
    step = 1.25 * fontsize / height
    names = sorted(ends, key=ends.__getitem__)
    to_share = axis.transData + axis.transAxes.inverted()
    at = [float(to_share.transform((0.0, ends[name]))[1]) if axis.get_xscale() == "linear" else
          float(to_share.transform((axis.get_xlim()[1], ends[name]))[1]) for name in names]  # fmt: skip
    for name, true, y in zip(names, at, spaced(at, step), strict=True):
        ink = look(methods[name])
        axis.annotate(
            name, (1.0, true), xycoords="axes fraction", xytext=(1.04, y), textcoords="axes fraction", va="center",
            fontsize=fontsize, color=text_ink(methods[name]), fontweight="bold" if ink is LOOKS["own"] else "normal",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": ink.colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0,
                        "relpos": (0, 0.5)},
        )  # fmt: skip


def spaced(values: list[float], step: float) -> list[float]:
    """Ascending numbers moved as little as needed (least squares) so that neighbours are `step` apart or more."""
    from sklearn.isotonic import isotonic_regression

    shift = step * np.arange(len(values))
    return [float(y) for y in np.asarray(isotonic_regression(np.asarray(values) - shift)) + shift]


def row_label(method: str) -> str:
    """A row's title where it is one, else the name as it is."""
    try:
        return title_of(method)
    except InputError:
        return method

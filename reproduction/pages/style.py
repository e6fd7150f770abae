"""The style of the book's figures: readable in print and for the colour-blind."""

from __future__ import annotations

import seaborn as sns

from reproduction.titles import title_of
from selm.errors import InputError

WIDTH = 7.0  # inches: a text column of the book
# Okabe and Ito's palette, told apart with any colour vision, darkest first; in print the markers and dashes tell too.
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
SPLIT_LABELS = {"random": "random folds", "blocks": "spatial blocks"}


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


def row_label(method: str) -> str:
    """A row's title where it is one, else the name as it is."""
    try:
        return title_of(method)
    except InputError:
        return method

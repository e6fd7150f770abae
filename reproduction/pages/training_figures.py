"""Figures of pretraining: its losses, and what the tries of a sweep gain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reproduction.experiments.ablations import AS_IT_IS
from reproduction.pages.html import Html, prose
from reproduction.pages.style import DASHES, WIDTH, kind_of, look, row_label, use_style
from selm.errors import InputError

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


def training_curves(
    runs: Mapping[str, pd.DataFrame],
    *,
    out_dim: int | None = None,
) -> Figure:
    """Every loss of some pretrainings against the steps, with what tells of collapse.

    runs: name → its training curve: `step` and a column a loss, each the mean since the row before.
    out_dim: K; ln K is drawn where a loss or entropy at that height means that nothing is learnt.
    """
    use_style()
    if not runs:
        raise InputError("training curves: no runs given")
    shown = [column for column in _LOSSES if any(column in curve for curve in runs.values())]
    n_columns = min(3, len(shown))
    n_rows = -(-len(shown) // n_columns)
    figure, axes = plt.subplots(n_rows, n_columns, figsize=(WIDTH, 1.75 * n_rows + 0.35), squeeze=False)
    handles: dict[str, Any] = {}
    for axis, column in zip(axes.flat, shown, strict=False):
        for i, (name, curve) in enumerate(runs.items()):
            if column in curve and curve[column].notna().any():
                ink = {
                    **look(name).line(),
                    "linestyle": "-" if kind_of(name) == "own" else DASHES[1 + i % (len(DASHES) - 1)],
                }
                (handles[name],) = axis.plot(curve["step"], curve[column], label=name, **ink)
        if out_dim and column in ("cl", "teacher_entropy", "mean_teacher_entropy"):
            axis.axhline(math.log(out_dim), color="0.5", linewidth=0.8)
            axis.annotate(
                "ln K", (1, math.log(out_dim)), xycoords=("axes fraction", "data"), xytext=(2, 0),
                textcoords="offset points", va="center", fontsize=7, color="0.4",
            )  # fmt: skip
        axis.set_title(_LOSSES[column], loc="left")
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    for axis in axes[-1]:
        axis.set_xlabel("step")
    figure.legend(handles.values(), [row_label(name) for name in handles], loc="outside lower center", ncols=3)
    return figure


def ablation_answer(table: pd.DataFrame, tuned: pd.DataFrame | None) -> Html:
    """In words: how many tries gain more than seeds do, the best of them, and what it gives in the test region.

    table: `reproduction.experiments.ablations.summary`'s.  tuned: the best tries, `method variant value`.
    """
    said, gained = [], False
    for method in sorted(table["method"].unique(), key=lambda name: kind_of(str(name)) != "own"):
        part = table[table["method"] == method]
        tries = part[part["variant"] != AS_IT_IS.name].sort_values("gain", ascending=False)
        better = tries[tries["gain"] > float(part["chance"].iloc[0])]
        words = f"{row_label(str(method))}: {len(better)} of {len(tries)} tries gain more than another seed does"
        if len(better):
            gained = True
            best = str(better["variant"].iloc[0])
            words += f", most of all **{best}** (error down by {better['gain'].iloc[0]:.3f} in the validation regions)"
            own = tuned[tuned["method"] == method] if tuned is not None else table.iloc[:0].assign(value=0.0)
            score = own.groupby("variant")["value"].mean().to_dict()
            if {best, AS_IT_IS.name} <= set(score):
                words += f"; in the test region it reaches **{score[best]:.3f}**, "
                words += f"the method as it is {score[AS_IT_IS.name]:.3f}"
        said.append(words + ".")
    return prose(f"{'Yes, in part' if gained else 'No'}. {' '.join(said)}", "selm-answer")


def ablation_gains(table: pd.DataFrame) -> Figure:
    """What each try gains over its method as it is, a panel a method; the band is how far runs differ by seed alone.

    table: `reproduction.experiments.ablations.summary`'s.
    """
    use_style()
    methods = list(dict.fromkeys(table["method"]))
    most = int(table.groupby("method").size().max())
    figure, axes = plt.subplots(1, len(methods), figsize=(WIDTH, 0.9 + 0.19 * most), squeeze=False, sharex=True)
    for axis, method in zip(axes[0], methods, strict=True):
        part = table[table["method"] == method].sort_values("gain", ascending=False, kind="stable")
        chance = float(part["chance"].iloc[0])
        if math.isfinite(chance):
            axis.axvspan(-chance, chance, color="0.9", zorder=0)
        axis.axvline(0, color="0.4", linewidth=0.9, zorder=1)
        fallen = part["collapse"].astype(bool).to_numpy()
        at = np.arange(len(part))
        ink = look(str(method)).colour
        for chosen, filled in ((~fallen, ink), (fallen, "white")):
            axis.scatter(part["gain"][chosen], at[chosen], s=18, color=filled, edgecolors=ink, zorder=2)
        axis.set_yticks(at, part["variant"], fontsize=7)
        axis.set_ylim(len(part) - 0.5, -0.5)
        axis.set_title(row_label(method), loc="right")  # to the left there is room: the names of the tries
        axis.grid(axis="x", color="0.92", linewidth=0.6)
    figure.supxlabel("gain in mean squared error (right: better)", fontsize=8)
    return figure

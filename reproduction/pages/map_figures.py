"""Figures of maps: how much their images show, and how a place is cut."""

from __future__ import annotations

import math
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from reproduction.pages.style import COLOURS, DASHES, WIDTH, use_style
from selm.errors import InputError


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
            linewidth=1.3, color=COLOURS[i % len(COLOURS)], linestyle=DASHES[i % len(DASHES)], label=f"{name}{kept}",
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

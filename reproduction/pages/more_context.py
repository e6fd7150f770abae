"""The page on more context: which zooms the validation regions chose, what they add, and the error by zoom."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from reproduction.report import summarise
from reproduction.titles import LAST_STAGE, ONE_ORIENTATION

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPLITS = ("random", "blocks")  # those of Table 1; wider buffers are named in the split


def chosen_zooms(rows: pd.DataFrame) -> pd.DataFrame:
    """Of the rows of the chapter on more context, those of each row's best number of zooms in the validation regions.

    With the coordinates and without are two choices, and so is each wider buffer. Rows that chose nothing (trees as
    they come) are kept; asides (one orientation, the last stage) are left out.
    """
    rows = rows[~rows["setting"].str.contains(f"{ONE_ORIENTATION}|{LAST_STAGE}")]
    beside = rows["setting"].str.endswith("coordinates")
    wider = rows["split"].where(~rows["split"].isin(SPLITS), "")
    best = rows.groupby([rows["method"], beside, wider])["validation"].transform("min")
    return rows[rows["validation"].isna() | (rows["validation"] == best)]


def by_buffer(rows: pd.DataFrame) -> pd.DataFrame:
    """The chapter on more context under blocks, a row for each encoder, with the coordinates or without: its error at
    the zooms that were chosen under each buffer; best first under the widest.

    Columns: method, coordinates (bool), a column a buffer by its split ("blocks", "blocks, 5 km", …; mean squared
    error, NaN where it has no row), zooms (those chosen under the widest buffer that it has).
    """
    some = chosen_zooms(rows[rows["split"] != "random"])
    table = summarise(some)
    table["coordinates"] = table["setting"].str.endswith("coordinates")
    splits = sorted(table["split"].unique(), key=lambda split: _km(split))
    wide = table.pivot(index=["method", "coordinates"], columns="split", values="mean")[splits]
    last = table.sort_values("split", key=lambda column: column.map(_km)).groupby(["method", "coordinates"])["setting"]
    wide["zooms"] = last.last().map(zooms_title)
    order = [*reversed(splits), "method"]
    return wide.reset_index().sort_values(order, ignore_index=True).rename_axis(columns=None)


def _km(split: str) -> float:
    """The buffer of a split that names one, 0 for others."""
    return float(split.removeprefix("blocks, ").removesuffix(" km")) if "," in split else 0.0


def zooms_title(setting: str) -> str:
    """ "zooms 17-16-15-14, coordinates" → "zooms 17-14"."""
    return re.sub(r"(\d+)(?:-\d+)*-(\d+)", r"\1-\2", setting.removesuffix(", coordinates"))


def what_it_adds(rows: pd.DataFrame, aside: str) -> pd.DataFrame:
    """For the chapter on more context: its rows at all zooms beside their `aside` (of `reproduction.titles`), which
    lacks what they have.

    Columns: method, coordinates (bool), split, without, with (mean squared errors); a row where both are there.
    """
    table = summarise(rows[rows["validation"].notna()])
    table["coordinates"] = table["setting"].str.endswith("coordinates")
    table["seen"] = np.where(table["setting"].str.contains(aside), "without", "with")
    table["setting"] = table["setting"].str.replace(aside, "")
    keys = ["method", "coordinates", "split", "setting"]
    table["order"] = table["method"].map({name: place for place, name in enumerate(dict.fromkeys(rows["method"]))})
    wide = table.pivot(index=["order", *keys], columns="seen", values="mean").reindex(columns=["without", "with"])
    wide = wide.dropna().reset_index().sort_values(["coordinates", "order", "split"], ascending=[True, True, False])
    return wide[["method", "coordinates", "split", "without", "with"]].rename_axis(columns=None).reset_index(drop=True)


def wider_context(rows: pd.DataFrame) -> pd.DataFrame:
    """The chapter on more context, a row for each encoder, with the coordinates or without, at its `chosen_zooms`.

    Columns: method, coordinates (bool), zooms, validation (mean squared error there), random and blocks ("mean ± sd").
    """
    some = chosen_zooms(rows[rows["split"].isin(SPLITS)])
    table = summarise(some)
    table["text"] = [f"{mean:.3f} ± {sd:.3f}" for mean, sd in zip(table["mean"], table["sd"], strict=True)]
    wide = table.pivot(index=["method", "setting"], columns="split", values="text").reset_index()
    validation = some.groupby(["method", "setting"])["validation"].first()
    out = wide.assign(
        validation=[validation[key] for key in zip(wide["method"], wide["setting"], strict=True)],
        coordinates=wide["setting"].str.endswith("coordinates"),
        zooms=wide["setting"].map(zooms_title),
    )
    order = out["method"].map({name: place for place, name in enumerate(dict.fromkeys(rows["method"]))})
    out = out.assign(order=order).sort_values(["coordinates", "order"]).reset_index(drop=True)
    splits = [name for name in SPLITS if name in out]
    return out[["method", "coordinates", "zooms", "validation", *splits]]


def error_by_zoom(results: pd.DataFrame, *, practitioner: Mapping[str, float] | None = None) -> Figure:
    """Error against the zooms that an embedding is made of: a row a split, without and beside the coordinates.

    results: rows of `reproduction.beyond.more_context.experiment`.  practitioner: split → the error of the best row
    without an embedding, drawn as a line across.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, ScalarFormatter

    from reproduction.pages.style import (
        MARKERS,
        METRIC_LABELS,
        SPLIT_LABELS,
        WIDTH,
        look,
        row_label,
        use_style,
    )

    use_style()
    table = summarise(results[results["split"].isin(SPLITS)])
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
            axis.errorbar(
                rows["at"], rows["mean"], yerr=rows["sd"].fillna(0.0), marker=MARKERS[m % len(MARKERS)], markersize=4,
                markerfacecolor=None if m < len(MARKERS) else "white",
                capsize=2, label=row_label(method), **look(method).line(),
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
        axis.set_title(f"{SPLIT_LABELS.get(split, split)}, {'beside' if beside else 'without'} the coordinates")
        axis.grid(axis="y", which="both", color="0.9", linewidth=0.6)
    for axis in axes[-1]:
        axis.set_xlabel("zooms in the embedding")
    for axis in axes[:, 0]:
        axis.set_ylabel(f"{METRIC_LABELS['mse']} (lower is better)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure

"""Tables and figures of the page on semivariogram negatives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from reproduction.pages.html import Html, fixed, profile_heading, prose, simple_table, spread
from reproduction.report import records

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from reproduction.beyond.semivariogram.variogram import Fit

NAMES = {
    "plain": "every other place a negative",
    "weighted": "weighted by the semivariogram",
    "geographic": "chosen: neighbours on the ground",
    "sample4geo": "chosen: neighbours, then look-alikes (Sample4Geo)",
}


def fit_of(row: Any) -> Fit:
    """A row of ``semivariogram-fits.csv`` as a fit."""
    from reproduction.beyond.semivariogram.variogram import Fit

    return Fit(str(row.model), float(row.nugget), float(row.partial_sill), float(row.range_km), float(row.r2))


def _model(row: Any) -> str:
    return str(row.model).replace("gaussian", "Gaussian")


def variogram_figure(bins: pd.DataFrame, fits: pd.DataFrame) -> Figure:
    """The empirical semivariogram (dots as large as their pairs are many) and the fitted models with their ranges."""
    import matplotlib.pyplot as plt
    import torch

    from reproduction.pages.style import COLOURS, DASHES, WIDTH, use_style

    use_style()
    figure, axis = plt.subplots(figsize=(WIDTH, 3.0))
    size = 6 + 40 * np.sqrt(bins["pairs"] / bins["pairs"].max())
    axis.scatter(bins["distance_km"], bins["gamma"], s=size, color="0.55", linewidths=0, label="measured", zorder=3)
    line = torch.linspace(1e-3, float(bins["distance_km"].max()), 400)
    for i, row in enumerate(records(fits)):
        curve = fit_of(row).expected(line)
        axis.plot(line, curve, color=COLOURS[i], linestyle=DASHES[i], linewidth=1.4,
                  label=f"{_model(row)}: range {row.range_km:.3g} km, R² {row.r2:.2f}")  # fmt: skip
        if row.range_km < float(line[-1]):
            axis.axvline(row.range_km, color=COLOURS[i], linestyle=":", linewidth=0.8)
    axis.set(xlabel="distance, km", ylabel="1 − cosine of the embeddings", ylim=(0, 1.08 * float(bins["gamma"].max())))
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def fits_table(fits: pd.DataFrame) -> Html:
    """The fitted models, and which share of a batch's pairs each calls hard or false negatives."""
    rows = [
        [_model(row), *(fixed(v, 3) for v in (row.nugget, row.sill)), fixed(row.range_km, 2),
            fixed(row.r2, 3),
         fixed(100 * row.hard, 1), fixed(100 * row.false, 2)]
        for row in records(fits)
    ]  # fmt: skip
    head = ["model", "nugget", "sill", "range, km", "R²", "hard negatives, %", "false negatives, %"]
    return simple_table(head, {"": rows}, f"Fitted semivariograms ({profile_heading(str(fits['profile'].iloc[0]))})")


def answer(fits: pd.DataFrame, found: pd.DataFrame) -> Html:
    """In words: how far images of places are alike, and what weighing or choosing negatives changes."""
    best = next(records(fits.sort_values("r2", ascending=False).head(1)))
    words = (
        f"Images are more alike than elsewhere up to **{best.range_km:.0f} km**, but even next neighbours differ by "
        f"{fixed(100 * best.nugget / best.sill, 0)} % of what distant ones do. "
    )
    distances = sorted(found.loc[found["quantity"] == "accuracy", "at"].unique())
    at = float(distances[len(distances) // 2])
    rows = found[(found["quantity"] == "accuracy") & (found["at"] == at)]
    plain = rows.loc[rows["negatives"] == "plain", "value"]
    parts = []
    for name in (n for n in NAMES if n != "plain" and (rows["negatives"] == n).any()):
        values = rows.loc[rows["negatives"] == name, "value"]
        apart, error = values.mean() - plain.mean(), _error(values, plain)
        word = "no clear difference" if not abs(apart) > 2 * error else "better" if apart > 0 else "worse"
        parts.append(f"{NAMES[name]}, {fixed(100 * values.mean(), 1)} % (**{word}**)")
    words += f"Within {at:g} km of their place are found {fixed(100 * plain.mean(), 1)} % of images with plain "
    words += f"negatives; {'; '.join(parts)} ({profile_heading(str(found['profile'].iloc[0]))})."
    return prose(words, "selm-answer")


def _error(values: pd.Series[float], plain: pd.Series[float]) -> float:
    """Standard error of a difference of two means over seeds."""
    return float(np.sqrt(values.var() / max(len(values), 1) + plain.var() / max(len(plain), 1)))


def differences(found: pd.DataFrame) -> Html:
    """In words: which ways to weigh or choose negatives differ from none, and how, by the spread over seeds."""
    from scipy.stats import t

    said, asked = [], 0
    for (quantity, at), rows in found.groupby(["quantity", "at"]):
        plain = rows.loc[rows["negatives"] == "plain", "value"]
        scale, what = (100, f"within {at:g} km, %") if quantity == "accuracy" else (1, "median, km")
        for name in (n for n in NAMES if n != "plain"):
            values = rows.loc[rows["negatives"] == name, "value"]
            asked += len(values) > 1
            if abs(values.mean() - plain.mean()) > 2 * _error(values, plain):
                pair = f"{fixed(scale * values.mean(), 1)} against {fixed(scale * plain.mean(), 1)}"
                said.append(f"{NAMES[name]}: **{pair}** ({what})")
    chance = asked * 2 * float(t.sf(2, max(2 * found["seed"].nunique() - 2, 1)))
    rule = "by more than two standard errors over the seeds"
    basis = f"Of {asked} comparisons chance alone would give some {fixed(chance, 1)}."
    if not said:
        return prose(f"No way to weigh or choose negatives differs from plain ones {rule}. {basis}")
    return prose(f"Against plain negatives, these differ {rule}: {'; '.join(said)}. {basis}")


def weights_table(found: pd.DataFrame) -> Html:
    """Accuracy at several distances, by how negatives are weighed or chosen, mean ± sd over seeds."""
    distances = sorted(found.loc[found["quantity"] == "accuracy", "at"].unique())
    rows = []
    for negatives, title in NAMES.items():
        mine = found[found["negatives"] == negatives]
        if not len(mine):
            continue
        cells = [spread(mine.loc[(mine["quantity"] == "accuracy") & (mine["at"] == km), "value"], 1, 100)
                 for km in distances]  # fmt: skip
        rows.append([title, *cells, spread(mine.loc[mine["quantity"] == "median_km", "value"], 2)])
    head = ["share of images within, %", *(f"{km:g} km" for km in distances), "median, km"]
    seeds, n = found["seed"].nunique(), int(found["n"].iloc[0])
    caption = f"{n} images, {seeds} seeds each ({profile_heading(str(found['profile'].iloc[0]))})"
    return simple_table(head, {"": rows}, caption)

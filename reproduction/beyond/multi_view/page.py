"""Tables, figures and the answer of the page on several views."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pandas as pd

from reproduction.pages.claim_tables import correction_note
from reproduction.pages.html import PLUMBING_CHECKS, Html, fixed, profile_heading, prose, simple_table, spread, tag
from reproduction.report import records

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPLITS = {"random": "random folds", "blocks": "spatial blocks", "unseen": "in a region without known prices"}


def answer(rows: pd.DataFrame, claims: pd.DataFrame) -> Html:
    """In words: the embedding against coordinates in each model, with verdicts, and the row with the least error."""
    from reproduction.beyond.multi_view.experiment import FEATURES, MODELS

    mean = rows.groupby(["split", "model", "features"])["value"].mean()
    verdict = {(c.split, c.a, c.b): str(c.verdict) for c in records(claims)}
    said = []
    for split, where in (("blocks", "Under spatial blocks"), ("unseen", "In a region without known prices")):
        parts = []
        for model in (m for m in MODELS if (split, m, "views") in mean):
            ours, plain = mean[split, model, "views"], mean[split, model, "coordinates"]
            word = verdict.get((split, f"views, {model}", f"coordinates, {model}"), "not tested")
            parts.append(f"**{word}** with {MODELS[model]} ({fixed(ours, 3)} against {fixed(plain, 3)})")
        least = mean[split]
        model, name = least.idxmin()
        best = f"The least error there, {fixed(float(least.min()), 3)}, "
        best += f"is that of {FEATURES[name]} with {MODELS[model]}."
        said.append(f"{where} the embedding from both views is, against coordinates, {', '.join(parts)}. {best}")
    measure = f"(Mean squared error of the log price; {profile_heading(str(rows['profile'].iloc[0]))}.)"
    return prose(f"{' '.join(said)} {measure}", "selm-answer")


def models_table(rows: pd.DataFrame, splits: Iterable[str] = tuple(SPLITS)) -> Html:
    """Mean squared errors: what a model is given, by model and way to split, mean ± sd over fold draws."""
    from reproduction.beyond.multi_view.experiment import FEATURES, MODELS

    fitted = [model for model in MODELS if (rows["model"] == model).any()]
    sections: dict[str, list[list[str]]] = {}
    for split in splits:
        title = SPLITS[split]
        sections[title] = []
        for name, said in FEATURES.items():
            mine = rows[(rows["split"] == split) & (rows["features"] == name)]
            if len(mine):
                cells = [spread(mine.loc[mine["model"] == model, "value"], 3) for model in fitted]
                sections[title].append([html.escape(said), str(int(mine["dim"].iloc[0])), *cells])
    profile = str(rows["profile"].iloc[0])
    caption = f"Standardised log price, MSE, {int(rows['trial'].nunique())} fold draws ({profile_heading(profile)})"
    made = simple_table(["given", "numbers", *(MODELS[model] for model in fitted)], sections, caption)
    if "gam" in fitted:
        return made
    absent = "The GAM is left out: pyGAM is not installed here (<code>pip install '.[gam]'</code>)."
    return Html(f'{made.text}<p class="selm-foot">{absent}</p>')


def claims_table(claims: pd.DataFrame) -> Html:
    """Is the embedding from both views ahead of each of the others? Verdicts, none for profiles that check plumbing."""
    from reproduction.beyond.multi_view.experiment import FEATURES, MODELS

    plumbing_check = str(claims["profile"].iloc[0]) in PLUMBING_CHECKS
    sections: dict[str, list[list[str]]] = {}
    for row in records(claims):
        other, model = str(row.b).rsplit(", ", 1)
        p = f"{row.p_holm:.3f}" if row.p_holm >= 0.001 else "&lt; 0.001"
        gain, low, high = (fixed(float(v), 3) for v in (row.gain, row.low, row.high))
        words = html.escape(f"{MODELS[model]}: ahead of {FEATURES[other]}")
        verdict = "" if plumbing_check else tag(str(row.verdict))
        sections.setdefault(SPLITS[row.split], []).append([words, gain, f"{low} to {high}", p, verdict])
    caption = f"Both views against the others ({profile_heading(str(claims['profile'].iloc[0]))})"
    made = simple_table(["claim", "gain, MSE", "interval", "p, Holm", ""], sections, caption)
    note = (
        f'<p class="selm-foot">Paired bootstrap over {int(claims["n_blocks"].max())} blocks; '
        f"{correction_note(claims)}; conditional on one training each.</p>"
    )
    return Html(made.text + note)


def effects_figure(found: pd.DataFrame) -> Figure:
    """Maps of the middle of the test region: the official prices, and the price that each model gives every place of a
    grid, all in the same colours."""
    import matplotlib.pyplot as plt

    from reproduction.beyond.multi_view.experiment import FEATURES, MODELS
    from reproduction.pages.style import WIDTH, use_style

    use_style()
    columns = ["official", *(str(column) for column in found if ", " in str(column))]
    low, high = found["official"].quantile([0.02, 0.98])
    across = 2
    down = math.ceil(len(columns) / across)
    figure, axes = plt.subplots(
        down, across, figsize=(WIDTH, 2.9 * down), sharex=True, sharey=True, layout="constrained", squeeze=False
    )
    shown: Any = None
    for axis, column in zip(axes.flat, columns, strict=False):
        at = found[found[column].notna()]
        same: dict[str, Any] = {"vmin": low, "vmax": high, "cmap": "viridis", "rasterized": True}
        if column == "official":
            shown = axis.scatter(at["lon"], at["lat"], c=at[column], s=6, linewidths=0, **same)
        else:
            grid = at.pivot(index="lat", columns="lon", values=column)
            shown = axis.pcolormesh(grid.columns, grid.index, grid.to_numpy(), shading="nearest", **same)
        name, _, model = column.rpartition(", ")
        axis.set_title(f"{MODELS[model]}: {FEATURES[name]}" if name else "official points", fontsize=8)
        axis.set_aspect(1 / math.cos(math.radians(float(found["lat"].mean()))))
    for axis in axes.flat[len(columns) :]:
        axis.set_visible(False)
    if shown is not None:
        figure.colorbar(shown, ax=axes, shrink=0.6, label="standardised log price")
    return figure

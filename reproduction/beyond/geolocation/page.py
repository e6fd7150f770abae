"""Tables and figures on finding where an image was taken."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

import pandas as pd

from reproduction.pages.html import Html, fixed, profile_heading, simple_table, stack

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _way(name: str) -> str:
    from reproduction.beyond.geolocation.experiment import WAYS
    from reproduction.beyond.location_encoders.experiment import POSITIONS

    return WAYS[name] if name in WAYS else f"location encoder: {POSITIONS[name]}"


def distance_accuracy_table(found: pd.DataFrame) -> Html:
    """Accuracy within distances and the median distance of every way of finding an image."""
    rows_ = found[found["quantity"] == "accuracy"]
    distances = sorted(rows_["at"].unique())
    rows = []
    for way in dict.fromkeys(found["way"]):
        mine = found[found["way"] == way]
        hits = [float(mine.loc[(mine["quantity"] == "accuracy") & (mine["at"] == km), "value"].iloc[0]) * 100
                for km in distances]  # fmt: skip
        median = float(mine.loc[mine["quantity"] == "median_km", "value"].iloc[0])
        rows.append([html.escape(_way(way)), *(fixed(hit, 1) for hit in hits), fixed(median, 2 if median < 10 else 0)])
    profile = str(found["profile"].iloc[0])
    return simple_table(
        ["share of images within, %", *(f"{km:g} km" for km in distances), "median, km"], {"": rows},
        f"{int(found['n'].iloc[0])} images, {int(found['cells'].iloc[0])} geocells ({profile_heading(profile)})",
    )  # fmt: skip


def recall_by_area_figure(found: pd.DataFrame) -> Figure:
    """Recall against the area searched, best guess first, on a logarithmic axis."""
    import matplotlib.pyplot as plt

    from reproduction.pages.style import COLOURS, DASHES, WIDTH, use_style

    use_style()
    figure, axis = plt.subplots(figsize=(WIDTH, 3.8))
    rows = found[found["quantity"] == "recall"]
    for i, (way, curve) in enumerate(rows.groupby("way", sort=False)):
        axis.plot(curve["at"], 100 * curve["value"], color=COLOURS[i % 8], linestyle=DASHES[i % 8], linewidth=1.3,
                  label=_way(str(way)))  # fmt: skip
    nothing = rows.groupby("at")["value"].max() == 0  # areas below the smallest cell
    left = float(nothing.index[nothing].max()) if nothing.any() else float(rows["at"].min())
    right = float(rows["at"].max())
    axis.set(xscale="log", xlabel="area searched, km²", ylabel="images found, %", ylim=(0, 100), xlim=(left, right))
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def levels_table(found: pd.DataFrame) -> Html:
    """Shares of images found in their prefecture, municipality and cell; below, within distances, and the median."""
    from reproduction.beyond.geolocation.hierarchies import LEVELS, WAYS

    distances = sorted(found.loc[found["quantity"] == "accuracy", "at"].unique())

    def share(mine: pd.DataFrame, quantity: str, at: float = 0.0) -> str:
        return fixed(100 * float(mine.loc[(mine["quantity"] == quantity) & (mine["at"] == at), "value"].iloc[0]), 1)

    by_level, by_distance = [], []
    for way, title in WAYS.items():
        mine = found[found["way"] == way]
        median = float(mine.loc[mine["quantity"] == "median_km", "value"].iloc[0])
        cells = int(mine.loc[mine["quantity"] == "cell", "regions"].iloc[0])
        levels = [share(mine, level) for level in LEVELS]
        levels[-1] += f"<small> of {cells}</small>"
        within = [share(mine, "accuracy", km) for km in distances]
        by_level.append([html.escape(title), *levels])
        by_distance.append([html.escape(title), *within, fixed(median, 2 if median < 10 else 0)])
    profile = str(found["profile"].iloc[0])
    count = [int(found.loc[found["quantity"] == level, "regions"].iloc[0]) for level in LEVELS[:2]]
    n = int(found["n"].iloc[0])
    made = simple_table(
        ["images found in their own, %", *LEVELS], {"": by_level},
        f"{n} images, {count[0]} prefectures, {count[1]} municipalities ({profile_heading(profile)})",
    )  # fmt: skip
    head = ["share of images within, %", *(f"{km:g} km" for km in distances), "median, km"]
    made = stack(made, simple_table(head, {"": by_distance}))
    note = f"The standard error of a share is at most {50 / n**0.5:.1f} points; the same images are asked of every way."
    return Html(f'{made.text}<p class="selm-foot">{note}</p>')

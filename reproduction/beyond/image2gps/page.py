"""Tables and figures of the page on Image2GPS."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from reproduction.pages.html import Html, fixed, profile_heading, prose, simple_table, spread
from reproduction.pages.published import other_paper
from reproduction.pages.result_page import Result
from reproduction.report import records
from selm.errors import InputError

if TYPE_CHECKING:
    import folium
    from matplotlib.figure import Figure

    from selm.maps.atlas import Atlas


def _start(results: pd.DataFrame) -> str:
    starts = sorted({str(start) for start in results["start"].dropna()} - {"", "nan"})
    return "random initial weights" if starts == ["random"] else f"initial weights: {', '.join(starts)}"


def _backbone(name: str) -> str:
    return name.replace("efficientnet_b", "EfficientNet-B")


def result(backbones: pd.DataFrame, retrieval: pd.DataFrame) -> Result:
    """The average distance of test images by way, the least first, beside the source's numbers."""
    from reproduction.beyond.image2gps.experiment import RECIPES

    printed = other_paper("img2gps-table2").set_index("backbone")["test_ahd_m"]
    ways = []
    plain = backbones[(backbones["pooling"] == "average") & (backbones["loss"] == "mse")]
    for name, group in plain.groupby("backbone", sort=False):
        ways.append((f"regression, {_backbone(str(name))}", group["test_ahd_m"], float(printed.get(str(name), np.nan))))
    for (recipe, k), group in retrieval[retrieval["recipe"] != "mean"].groupby(["recipe", "k"], sort=False):
        ways.append((f"k-NN ({k}), {RECIPES[str(recipe)]}", group["test_ahd_m"], np.nan))
    rows = pd.DataFrame(
        [
            {"method": title, "title": title, "kind": "method", "mean": values.mean(), "low": np.nan, "high": np.nan,
             "sd": values.std(), "n": len(values), "paper": paper, "verdict": ""}
            for title, values, paper in ways
        ]
    )  # fmt: skip
    return Result(
        rows.sort_values("mean", kind="stable").reset_index(drop=True),
        task="where an image was taken, test images of other places", measure="average distance, m", digits=1,
        higher=False, bars="none, one training each", profile=str(backbones["profile"].iloc[0]),
        constant=float(retrieval.loc[retrieval["recipe"] == "mean", "test_ahd_m"].mean()),
        constant_title="the mean coordinate", printed="the source's number, for its photographs and pretrained weights",
    )  # fmt: skip


def answer(found: Result) -> Html:
    """In words: the best way, beside naming the mean coordinate and the source's number."""
    best = next(records(found.rows.head(1)))
    source = other_paper("img2gps-table3").set_index("recipe")["val_ahd_m"]
    gains = [1 - best.mean / found.constant, 1 - float(source.drop("mean").min()) / float(source["mean"])]
    ours, theirs = (fixed(100 * gain, 0) for gain in gains)
    words = f"The best way ({best.title}) is **{fixed(best.mean, 0)} m** off on average; naming the mean coordinate "
    words += (
        f"of all is {fixed(found.constant, 0)} m off. That is {ours} % better, where the source prints {theirs} %. "
    )
    words += f"Here networks start from random weights, on map images ({profile_heading(found.profile)})."
    return prose(words, "selm-answer")


def backbones_table(results: pd.DataFrame | None) -> Html:
    """The source's Table 2 beside a run: backbones, then the smallest with attention pooling and the distance loss."""
    paper = other_paper("img2gps-table2").set_index("backbone")
    head = ["backbone", "parameters", "train loss", "val loss", "val AHD, m", "test AHD, m"]
    ours: dict[str, list[list[str]]] = {}
    source = [
        [_backbone(name), f"{row.parameters_millions:.2f} M", *(fixed(v, 4) for v in (row.train_loss, row.val_loss)),
         *(fixed(v, 2) for v in (row.val_ahd_m, row.test_ahd_m))]
        for name, row in ((str(name), row) for name, row in paper.iterrows())
    ]  # fmt: skip
    if results is not None:
        rows = []
        for (backbone, pooling, loss), group in results.groupby(["backbone", "pooling", "loss"], sort=False):
            extra: list[str] = []
            if (pooling, loss) != ("average", "mse"):
                extra = [str(pooling) if loss == "mse" else "distance as loss"]
            rows.append(
                [", ".join([_backbone(str(backbone)), *extra]), f"{group['parameters'].iloc[0] / 1e6:.2f} M",
                 spread(group["train_loss"], 3), spread(group["val_loss"], 3), spread(group["val_ahd_m"], 1),
                 spread(group["test_ahd_m"], 1)]
            )  # fmt: skip
        ours[f"{_described(results)}, {_start(results)}"] = rows
    return simple_table(head, {"the source, as printed: photographs, pretrained": source, **ours}, "Backbones")


def retrieval_table(results: pd.DataFrame | None) -> Html:
    """The source's Table 3 beside a run: k-NN retrieval."""
    from reproduction.beyond.image2gps.experiment import RECIPES

    paper = other_paper("img2gps-table3")
    names = {**RECIPES, "mean": "mean coordinate"}
    source = [[f"{names[row.recipe]}", str(row.k or "–"), fixed(row.val_ahd_m, 2), "–"] for row in records(paper)]
    sections: dict[str, Sequence[Sequence[str]]] = {"the source, as printed: photographs, pretrained": source}
    if results is not None:
        rows = [
            [str(names[str(recipe)]), str(k or "–"), spread(group["val_ahd_m"], 1), spread(group["test_ahd_m"], 1)]
            for (recipe, k), group in results.groupby(["recipe", "k"], sort=False)
        ]
        sections[f"{_described(results)}, {_start(results)}"] = rows
    return simple_table(["features", "k", "val AHD, m", "test AHD, m"], sections, "k-NN retrieval")


def training_size_table(results: pd.DataFrame | None) -> Html:
    """The source's Table 4 beside a run: the number of training images."""
    paper = other_paper("img2gps-table4")
    head = ["training images", "train loss", "val loss", "val AHD, m", "test AHD, m"]
    source = [
        [f"{row.n_training:,}", fixed(row.train_loss, 4), fixed(row.val_loss, 4), fixed(row.val_ahd_m, 2),
         fixed(row.test_ahd_m, 2)]
        for row in records(paper)
    ]  # fmt: skip
    sections: dict[str, Sequence[Sequence[str]]] = {"the source, as printed: photographs, pretrained": source}
    if results is not None:
        sections[f"{_described(results)}, {_start(results)}"] = [
            [f"{n:,}", spread(group["train_loss"], 3), spread(group["val_loss"], 3), spread(group["val_ahd_m"], 1),
             spread(group["test_ahd_m"], 1)]
            for n, group in results.groupby("n_training", sort=True)
        ]  # fmt: skip
    return simple_table(head, sections, "Number of training images, EfficientNet-B0")


def _described(results: pd.DataFrame) -> str:
    what = "map images as stand-in" if bool(results["stand_in"].iloc[0]) else "photographs"
    return f"{profile_heading(str(results['profile'].iloc[0]))} ({what})"


def loss_curves(curves: pd.DataFrame) -> Figure:
    """Training (dashed) and validation loss by epoch, and the validation distance, of every network."""
    import matplotlib.pyplot as plt

    from reproduction.pages.style import COLOURS, WIDTH, use_style

    use_style()
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.7))
    for i, ((backbone, pooling), curve) in enumerate(curves.groupby(["backbone", "pooling"], sort=False)):
        name = _backbone(str(backbone)) + (", attention" if pooling == "attention" else "")
        axes[0].plot(curve["epoch"], curve["train_loss"], color=COLOURS[i], linestyle="--", linewidth=1.0)
        axes[0].plot(curve["epoch"], curve["val_loss"], color=COLOURS[i], linewidth=1.3, label=name)
        axes[1].plot(curve["epoch"], curve["val_ahd_m"], color=COLOURS[i], linewidth=1.3)
    axes[0].set(xlabel="epoch", ylabel="loss (dashed: training)")
    axes[1].set(xlabel="epoch", ylabel="validation AHD, m")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def error_lines(predictions: pd.DataFrame) -> Figure:
    """True (dots) and predicted (crosses) coordinates joined by error lines, one panel a way; the source's figure 4."""
    import matplotlib.pyplot as plt

    from reproduction.pages.style import COLOURS, WIDTH, use_style

    use_style()
    ways = list(dict.fromkeys(predictions["way"]))
    columns = min(3, len(ways))
    n_rows = -(-len(ways) // columns)
    figure, axes = plt.subplots(n_rows, columns, figsize=(WIDTH, 2.6 * n_rows), squeeze=False, sharex=True, sharey=True)
    for axis, way in zip(axes.flat, ways, strict=False):
        rows = predictions[predictions["way"] == way]
        x, y = rows[["lon", "predicted_lon"]].to_numpy().T, rows[["lat", "predicted_lat"]].to_numpy().T
        axis.plot(x, y, color="0.7", linewidth=0.6, zorder=1)
        axis.scatter(x[0], y[0], s=9, color=COLOURS[0], linewidths=0, label="true", zorder=2)
        axis.scatter(x[1], y[1], s=12, color=COLOURS[1], marker="x", linewidths=0.9, label="predicted", zorder=3)
        title = textwrap.fill(str(way), 30)
        axis.set_title(f"{title}\nAHD {rows['error_m'].mean():.0f} m", loc="left", fontsize=8)
        axis.set_aspect(1 / math.cos(math.radians(float(rows["lat"].mean()))))
        axis.ticklabel_format(useOffset=False)
        axis.locator_params(nbins=3)
        axis.tick_params(labelsize=6)
    for axis in axes.flat[len(ways) :]:
        axis.set_axis_off()
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def error_map(predictions: pd.DataFrame, way: str, atlas: Atlas | None, zoom: int) -> folium.Map:
    """The same as an interactive map that loads nothing, on the drawn map (`atlas` at `zoom`) where there is one."""
    import folium

    from reproduction.pages.offline_map import image_layer

    rows = predictions[predictions["way"] == way]
    if not len(rows):
        raise InputError(f"error map: no predictions by '{way}' (there are: {', '.join(predictions['way'].unique())})")
    figure = folium.Map(
        location=[float(rows["lat"].mean()), float(rows["lon"].mean())], tiles=None, zoom_start=16, max_zoom=20
    )
    if atlas is not None:
        image, bbox = ground_map(atlas, zoom, rows)
        image_layer(image, bbox, "map", atlas.attribution).add_to(figure)
    for row in records(rows):
        ends = [(row.lat, row.lon), (row.predicted_lat, row.predicted_lon)]
        folium.PolyLine(ends, color="#555", weight=1).add_to(figure)
        folium.CircleMarker(ends[0], radius=3, color="#0072B2", fill=True, popup=f"true, {row.error_m:.0f} m").add_to(
            figure
        )
        folium.CircleMarker(ends[1], radius=3, color="#D55E00", fill=True, popup="predicted").add_to(figure)
    south, north = float(rows["lat"].min()), float(rows["lat"].max())
    figure.fit_bounds([[south, float(rows["lon"].min())], [north, float(rows["lon"].max())]])
    return figure


def ground_map(
    atlas: Atlas, zoom: int, rows: pd.DataFrame, most: int = 1_400
) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """The drawn map around the true coordinates, at most `most` pixels a side, and the bbox that it fills."""
    from selm.maps.mercator import from_tile, to_tile

    x, y = (v * atlas.tile_px for v in to_tile(rows["lat"].to_numpy(), rows["lon"].to_numpy(), zoom))
    size = int(min(most, max(np.ptp(x), np.ptp(y)) + atlas.tile_px)) // 2 * 2
    left, top = (round(float(v.min() + v.max()) / 2) - size // 2 for v in (x, y))
    lat, lon = from_tile((left + size / 2) / atlas.tile_px, (top + size / 2) / atlas.tile_px, zoom)
    north, west = from_tile(left / atlas.tile_px, top / atlas.tile_px, zoom)
    south, east = from_tile((left + size) / atlas.tile_px, (top + size) / atlas.tile_px, zoom)
    image = atlas.crop(float(lat), float(lon), zoom, size)
    return image, (float(west), float(south), float(east), float(north))

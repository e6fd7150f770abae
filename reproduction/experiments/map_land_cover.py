"""Places of the test region with their land cover, and their images with and without the fills that give it away.

The label is the class that covers most of the image, from an atlas in class colours
(`reproduction.labels.land_cover`). Only some blocks of the region are drawn in the two extra styles, and a place's
image lies whole in its block.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray

from reproduction import paths
from reproduction.computed import drawn_maps, store
from reproduction.computed.store import remembered
from reproduction.labels.land_cover import STYLE, land_cover
from reproduction.places import sampling, splits
from reproduction.settings import Profile, Region
from selm import checkpoints
from selm.maps.atlas import BLOCK_ZOOM, Atlas
from selm.maps.mercator import to_tile
from selm.maps.style import LAND_COVER_CLASSES

VERSION = 1  # raise it when places or labels change for the same settings and data
NO_FILLS = "selm_no_fills"
SEED = 0


def region(profile: Profile) -> Region:
    """The region that the places lie in: the one of Table 1."""
    return profile.regions_for("test")[0]


def blocks(profile: Profile) -> NDArray[np.int32]:
    """int32 (N, 2): the zoom-13 tiles that are drawn in the extra styles; random ones of the region's map."""
    keys = drawn_maps.atlases(profile, "test")[region(profile).name].keys
    if len(keys) <= profile.land_cover.n_blocks:
        return keys
    chosen = np.random.default_rng(SEED).choice(len(keys), profile.land_cover.n_blocks, replace=False)
    return keys[np.sort(chosen)]


def atlas(profile: Profile, style: str) -> Atlas:
    """`blocks` drawn in a style, at zoom 17; drawn where it is missing."""
    if style == profile.maps.style:
        return drawn_maps.atlases(profile, "test")[region(profile).name]
    return _drawn(profile, style)


@store.remembered(maxsize=4)
def _drawn(profile: Profile, style: str) -> Atlas:
    from reproduction.places.regions import open_region
    from selm.maps.draw import draw_atlas  # drawing needs mapnik
    from selm.maps.style import Style

    zoom, tile_px, chosen = profile.maps.zooms[0], profile.maps.tile_px, blocks(profile)
    parts = {
        "source": drawn_maps.atlases(profile, "test")[region(profile).name].fingerprint,
        "style": Style.named(style).hash, "blocks": chosen.tolist(), "zoom": zoom, "tile_px": tile_px,
    }  # fmt: skip
    folder = store.address("atlases", f"{region(profile).name}-{style}-sample", parts)
    if (folder / "atlas.json").exists():
        return Atlas(folder)
    return draw_atlas(
        open_region(region(profile)), folder, zooms=(zoom,), tile_px=tile_px, style=style, blocks=chosen
    )  # fmt: skip


def key(profile: Profile) -> str:
    """Hash (hex) of all that places, labels and images depend on."""
    from selm.maps.style import Style

    parts = {
        "map": drawn_maps.atlases(profile, "test")[region(profile).name].fingerprint,
        "styles": [Style.named(style).hash for style in (STYLE, NO_FILLS)],
        "folds": splits.label_fingerprint(profile),
        "maps": dataclasses.asdict(profile.maps),
        "n": [profile.land_cover.n_places, profile.land_cover.n_blocks],
        "version": VERSION,
    }
    return store.key(parts)


def _file(profile: Profile) -> Path:
    return paths.runs() / "land-cover" / f"{profile.name}-{key(profile)}.safetensors"


def is_there(profile: Profile) -> bool:
    """Whether the places have been sampled already."""
    return _file(profile).exists()


@remembered(maxsize=4)
def places(profile: Profile) -> pd.DataFrame:
    """The sampled places: columns `lat lon region cell land_cover` (int64 code into `LAND_COVER_CLASSES`).

    Uniform over `blocks`, but for the blocks' outermost half image, and within the cells of the fold file; their image
    passes the entropy filter as those of pretraining do.
    """
    file, area = _file(profile), region(profile)
    if not file.exists():
        checkpoints.save_tensors(file, {name: torch.tensor(v) for name, v in _sample(profile, area).items()})
    tensors = {name: tensor.numpy() for name, tensor in checkpoints.load_tensors(file)[0].items()}
    table = pd.DataFrame({"lat": tensors["lat"], "lon": tensors["lon"], "region": area.name})
    table["cell"] = splits.cell_of(table["lat"], table["lon"], profile.maps.cell_degrees)
    return table.assign(land_cover=tensors["land_cover"])


def _sample(profile: Profile, area: Region) -> dict[str, NDArray[Any]]:
    zoom, px, tile_px = profile.maps.zooms[0], profile.views.global_px, profile.maps.tile_px
    chosen = blocks(profile).astype(np.int64)
    packed = np.sort(chosen[:, 0] << BLOCK_ZOOM | chosen[:, 1])
    folds = splits.read_folds(profile)
    listed = folds.loc[folds["region"] == area.name, "cell"].to_numpy(str)
    margin = (px / 2 + 1) / (tile_px << (zoom - BLOCK_ZOOM))  # in blocks

    def allowed(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.bool_]:
        x, y = to_tile(lat, lon, BLOCK_ZOOM)
        inside = np.isin(np.floor(x).astype(np.int64) << BLOCK_ZOOM | np.floor(y).astype(np.int64), packed)
        for offset in (x % 1, y % 1):
            inside &= (offset >= margin) & (offset <= 1 - margin)
        return inside & np.isin(splits.cell_of(lat, lon, profile.maps.cell_degrees), listed)

    table = sampling.sample_places(
        drawn_maps.atlases(profile, "test")[area.name], profile.land_cover.n_places, SEED, region=area.name, zoom=zoom,
        size=px, entropy_threshold=profile.maps.entropy_threshold, allowed=allowed,
    )  # fmt: skip
    lat, lon = table["lat"].to_numpy(), table["lon"].to_numpy()
    labels = land_cover(atlas(profile, STYLE), lat, lon, zoom=zoom, size=px)
    return {"lat": lat, "lon": lon, "land_cover": labels}


def class_counts(profile: Profile) -> pd.DataFrame:
    """Places of each class: columns `class`, `places`, `share`; classes without a place included."""
    counts = np.bincount(places(profile)["land_cover"], minlength=len(LAND_COVER_CLASSES))
    return pd.DataFrame({"class": LAND_COVER_CLASSES, "places": counts, "share": counts / counts.sum()})


def images(profile: Profile, style: str, rows: ArrayLike | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """The places' images in a style: uint8 palette indices (N, px, px), and the colours (256, 3) in [0, 1]."""
    table, drawn = places(profile), atlas(profile, style)
    if rows is not None:
        table = table.iloc[np.asarray(rows)]
    indices = drawn.indices(table["lat"], table["lon"], profile.maps.zooms[0], profile.views.global_px)
    return torch.from_numpy(indices), torch.tensor(drawn.palette, dtype=torch.float32) / 255

"""Other people's imagery in the experiments: which data set stands for which, and what encoders make of its images.

An encoder pretrained on maps sees each photograph resized to its own image size and standardised with the mean and
deviation of the photographs' own channels: a decision of ours, as the pixel statistics of maps would put photographs
outside everything that the encoder has seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reproduction import paths
from reproduction.computed import encoders
from reproduction.computed.store import cached_array, remembered
from reproduction.experiments import map_land_cover
from reproduction.imagery.aerial_cars import read_aerial_cars
from reproduction.imagery.eurosat import read_eurosat
from reproduction.imagery.images import Imagery, resized, statistics, to_bytes
from reproduction.imagery.naip import read_naip
from reproduction.imagery.sustainbench import read_sustainbench
from reproduction.imagery.uc_merced import read_uc_merced
from reproduction.imagery.xview import read_xview
from reproduction.places.regions import data_file, open_region
from reproduction.settings import Profile
from selm import distributed
from selm.errors import unknown
from selm.maps.colours import shares
from selm.maps.sources import OSM_ATTRIBUTION
from selm.maps.style import LAND_COVER_CLASSES

VERSION = 1  # raise it when features or histograms change for the same images and encoder


@dataclass(frozen=True)
class Source:
    """A data set by name.

    `path` below `SELM_DATA`; `stands_for` what it replaces, "" for the paper's own data; `credit` whose they are.
    """

    title: str
    path: str
    read: Callable[[Path], Imagery] | None
    stands_for: str
    credit: str


SOURCES: dict[str, Source] = {
    "naip": Source("NAIP tiles with CDL classes", "imagery/naip-cdl", read_naip, "", "NAIP and CDL: USDA"),
    "xview": Source("xView", "imagery/xview", read_xview, "", "xView: DigitalGlobe, CC BY-NC-SA 4.0"),
    "sustainbench": Source(
        "SustainBench, water index", "imagery/sustainbench-dhs", read_sustainbench, "", "SustainBench (Yeh et al. 2021)"
    ),
    "uc_merced": Source(
        "UC Merced, 21 classes",
        "imagery/uc-merced-21.zip",
        read_uc_merced,
        "NAIP",
        "USGS, UC Merced Land Use (Yang and Newsam 2010)",
    ),
    "eurosat": Source(
        "EuroSAT, 10 classes",
        "imagery/eurosat-rgb-3000.zip",
        read_eurosat,
        "NAIP, SustainBench",
        "Copernicus Sentinel-2, EuroSAT (Helber et al. 2019)",
    ),
    "aerial_cars": Source(
        "aerial photographs of cars",
        "imagery/aerial-cars-36.zip",
        read_aerial_cars,
        "xView",
        "jekhor, aerial-cars-dataset",
    ),
    # where nothing is downloaded: pictures of the embedded map extracts, so that everything runs anywhere
    "map_images": Source("map images without fills", "", None, "NAIP, SustainBench", OSM_ATTRIBUTION),
    "map_buildings": Source("buildings on map images", "", None, "xView", OSM_ATTRIBUTION),
}


def get_source(name: str) -> Source:
    """The data set called `name`; raises InputError with the nearest name if there is none."""
    if name in SOURCES:
        return SOURCES[name]
    raise unknown("imagery", name, SOURCES)


@remembered(maxsize=4)
def read(profile: Profile, name: str) -> Imagery:
    """A data set's images; raises InputError naming the file that is missing or at fault."""
    source = get_source(name)
    if source.read is not None:
        return source.read(data_file(source.path))
    return _map_images(profile) if name == "map_images" else _map_buildings(profile)


def _map_images(profile: Profile) -> Imagery:
    """The places of the OSM column without fills, as if they were photographs, with their land cover."""
    indices, colours = map_land_cover.images(profile, map_land_cover.NO_FILLS)
    pixels = (colours * 255).round().to(torch.uint8)[indices.long()].numpy()
    labels = map_land_cover.places(profile)["land_cover"].to_numpy(np.int64)
    return Imagery(
        "map_images", tuple(map(str, range(len(pixels)))), lambda row: pixels[row], ("red", "green", "blue"),
        hashlib.sha256(map_land_cover.key(profile).encode()).hexdigest(), LAND_COVER_CLASSES, labels,
    )  # fmt: skip


SCENE_PX, SCENES = 320, 8  # of `map_buildings`: pixels at 256 px a zoom-17 tile, and scenes of each region
MIN_BUILDING_PX = 8.0  # smaller outlines are a few pixels and no object


def _map_buildings(profile: Profile) -> Imagery:
    """Scenes of the profile's extracts at zoom 17 (256 px a tile) with the outlines' boxes; `groups` the region."""
    import geopandas

    from selm.maps.draw import draw_image
    from selm.maps.mercator import from_tile, to_tile

    scenes: list[NDArray[np.uint8]] = []
    boxes: list[NDArray[np.float32]] = []
    groups: list[str] = []
    fingerprints: list[str] = []
    zoom, tile_px = profile.maps.zooms[0], 256
    for region in profile.regions:
        source = open_region(region)
        outlines = geopandas.read_file(source.layers["building"]["file"]).to_crs(4326).bounds.to_numpy()
        left, bottom = to_tile(outlines[:, 1], outlines[:, 0], zoom)
        right, top = to_tile(outlines[:, 3], outlines[:, 2], zoom)
        pixels = np.column_stack([left, top, right, bottom]) * tile_px
        rng = np.random.default_rng([0, *region.name.encode()])
        centre = np.column_stack([left + right, top + bottom]) / 2
        for x, y in centre[rng.choice(len(centre), SCENES, replace=False)]:
            lat, lon = from_tile(x, y, zoom)
            scenes.append(draw_image(source, float(lat), float(lon), zoom=zoom, size=SCENE_PX, tile_px=tile_px))
            corner = np.rint(np.array([x, y]) * tile_px - SCENE_PX / 2)
            moved = (pixels - np.tile(corner, 2)).clip(0, SCENE_PX).astype(np.float32)
            kept = np.minimum(moved[:, 2] - moved[:, 0], moved[:, 3] - moved[:, 1]) >= MIN_BUILDING_PX
            boxes.append(moved[kept])
            groups.append(region.name)
        fingerprints.append(source.fingerprint)
    made_of = f"{fingerprints} {SCENE_PX} {SCENES} {MIN_BUILDING_PX} {zoom}"
    return Imagery(
        "map_buildings", tuple(f"{group}-{number}" for number, group in enumerate(groups)), lambda row: scenes[row],
        ("red", "green", "blue"), hashlib.sha256(made_of.encode()).hexdigest(), ("building",),
        groups=np.array(groups, dtype=np.str_), boxes=tuple(boxes),
        box_labels=tuple(np.zeros(len(b), np.int64) for b in boxes), sizes=((SCENE_PX, SCENE_PX),) * len(scenes),
    )  # fmt: skip


@remembered(maxsize=2)
def pictures(profile: Profile, name: str) -> Tensor:
    """The RGB images at the encoder's size, (N, 3, px, px) in the data set's unit; the last two are kept in memory."""
    return resized(read(profile, name), profile.views.global_px)


def _parts(profile: Profile, name: str) -> dict[str, Any]:
    return {"imagery": read(profile, name).fingerprint, "px": profile.views.global_px, "version": VERSION}


def features(profile: Profile, method: str, seed: int, name: str) -> NDArray[np.float32]:
    """(N, dim) frozen features of a data set's images, computed once; what is not pretrained yet is pretrained."""

    def make() -> Tensor:
        on, images = distributed.device(), pictures(profile, name)
        mean, std = (v.float().to(on)[:, None, None] for v in statistics(images))
        placed = encoders.encoder(profile, method, seed).to(on).eval()
        with torch.no_grad():  # not around the whole: the encoder above may have to be trained
            return torch.cat([placed((part.to(on).float() - mean) / std).cpu() for part in images.split(256)])

    parts = _parts(profile, name) | encoders.encoder_key(profile, method, seed)
    return cached_array("features", f"{profile.name}-{method}-s{seed}-{name}", parts, make)


def image_histograms(profile: Profile, name: str) -> NDArray[np.float32]:
    """(N, 64) colour histograms of a data set's images, computed once."""
    return cached_array(
        "histograms", f"{profile.name}-rgb-{name}", _parts(profile, name),
        lambda: rgb_histogram(to_bytes(pictures(profile, name))),
    )  # fmt: skip


def rgb_histogram(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Share of each of 64 colours in RGB images, uint8 (N, h, w, 3) → (N, 64): the upper two bits of red, green and
    blue (bin 16 r + 4 g + b)."""
    upper = images >> 6
    return shares(upper[..., 0] * 16 + upper[..., 1] * 4 + upper[..., 2])


def is_there(profile: Profile, name: str) -> bool:
    """Whether a data set can be read without drawing maps or sampling places."""
    if get_source(name).path:
        return (paths.sources() / get_source(name).path).exists()
    return name != "map_images" or map_land_cover.is_there(profile)


def is_stand_in(name: str) -> bool:
    """Whether a data set is not the one that the paper used."""
    return bool(get_source(name).stands_for)

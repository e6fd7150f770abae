"""What OpenStreetMap has around a place, in numbers: areas and lengths by class, and counts, within several radii.

One of the two views that Holvoet et al. (2025) align coordinates with; theirs counts objects by tag. Here it is read
from the map's layers (OpenMapTiles schema), vector tiles and raw extracts alike. Tiles of zoom 13 hold larger buildings
and no points of interest, so there counts are of buildings, schools and hospitals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from selm.errors import InputError
from selm.maps import mercator

if TYPE_CHECKING:
    from selm.maps.sources import MapSource

_CHUNK = 512  # places looked at together
_WORLD_M = 2 * np.pi * 6_378_137.0  # width of Web Mercator, whose sphere has the earth's equatorial radius


@dataclass(frozen=True)
class Measure:
    """One number of a place: the `kind` (area, length or count) of a layer's objects of some classes (none: of all)."""

    name: str
    layer: str
    kind: str
    classes: tuple[str, ...] = ()


MEASURES = (
    Measure("housing", "landuse", "area", ("residential",)),
    Measure("shops and offices", "landuse", "area", ("commercial", "retail")),
    Measure("industry", "landuse", "area", ("industrial", "railway", "quarry")),
    Measure("schools", "landuse", "area", ("school", "university", "college", "kindergarten")),
    Measure("wood", "landcover", "area", ("wood",)),
    Measure("grass", "landcover", "area", ("grass",)),
    Measure("farmland", "landcover", "area", ("farmland",)),
    Measure("water", "water", "area"),
    Measure("buildings", "building", "area"),
    Measure("motorways", "transportation", "length", ("motorway", "trunk")),
    Measure("main roads", "transportation", "length", ("primary", "secondary")),
    Measure("tertiary roads", "transportation", "length", ("tertiary",)),
    Measure("minor roads", "transportation", "length", ("minor", "service", "track")),
    Measure("paths", "transportation", "length", ("path",)),
    Measure("railways", "transportation", "length", ("rail", "transit")),
    Measure("waterways", "waterway", "length"),
    Measure("number of buildings", "building", "count"),
    Measure("number of schools", "landuse", "count", ("school", "university", "college", "kindergarten")),
    Measure("number of hospitals", "landuse", "count", ("hospital",)),
)


def names(radii_m: Sequence[float]) -> tuple[str, ...]:
    """What the columns of `map_features` are called."""
    return tuple(f"{measure.name}, {radius:g} m" for radius in radii_m for measure in MEASURES)


def map_features(source: MapSource, lat: ArrayLike, lon: ArrayLike, radii_m: Sequence[float]) -> NDArray[np.float64]:
    """float64 (N, radii · measures): within each radius of each place, the share of the ground that areas of a class
    cover, the km of lines a km², and the objects (by their centre) a km².

    lat, lon: (N,) degrees. A layer that the source lacks counts as empty. An object that a tile's border cuts is two.
    """
    lat, lon = np.asarray(lat, np.float64), np.asarray(lon, np.float64)
    mercator.check_coordinates(lat, lon, "map features")
    if not radii_m or min(radii_m) <= 0:
        raise InputError(f"map features: radii {tuple(radii_m)} must be above 0 m")
    right, down = mercator.to_tile(lat, lon, 0)
    x, y = (right - 0.5) * _WORLD_M, (0.5 - down) * _WORLD_M
    stretch = 1 / np.cos(np.radians(lat))  # Web Mercator metres in one on the ground
    out = np.zeros((len(lat), len(radii_m), len(MEASURES)))
    for layer in dict.fromkeys(measure.layer for measure in MEASURES):
        shapes, classes = _objects(source, layer)
        for column, measure in enumerate(MEASURES):
            if measure.layer == layer:
                chosen = _of_kind(shapes, measure.kind)
                chosen &= np.isin(classes, measure.classes) if measure.classes else True
                out[:, :, column] = _sums(shapes[chosen], measure.kind, x, y, stretch, radii_m)
    return out.reshape(len(lat), -1)


def _objects(source: MapSource, layer: str) -> tuple[NDArray[np.object_], NDArray[np.str_]]:
    """The shapes of a layer in Web Mercator and their classes."""
    if layer not in source.layers:
        return np.empty(0, object), np.empty(0, str)
    import pyogrio

    parameters = source.layers[layer]
    name = parameters.get("layer", 0)  # a file of one layer is of an extract
    frame = pyogrio.read_dataframe(parameters["file"], layer=name)
    classes = frame["class"].fillna("") if "class" in frame else [""] * len(frame)
    there = ~(frame.geometry.isna() | frame.geometry.is_empty).to_numpy()
    return frame.geometry.to_numpy()[there], np.asarray(classes, str)[there]


def _of_kind(shapes: NDArray[np.object_], kind: str) -> NDArray[np.bool_]:
    import shapely

    dimensions = shapely.get_dimensions(shapes)
    return np.asarray(dimensions == 1 if kind == "length" else dimensions == 2)


def _sums(
    shapes: NDArray[np.object_], kind: str, x: NDArray[np.float64], y: NDArray[np.float64],
    stretch: NDArray[np.float64], radii_m: Sequence[float],
) -> NDArray[np.float64]:  # fmt: skip
    """(N, radii) of one measure; radii in metres on the ground."""
    import shapely

    out = np.zeros((len(x), len(radii_m)))
    if not len(shapes):
        return out
    points = shapely.points(x, y)
    if kind == "count":
        tree = shapely.STRtree(shapely.centroid(shapes))
        for k, radius in enumerate(radii_m):
            place, _ = tree.query(points, predicate="dwithin", distance=radius * stretch)
            out[:, k] = np.bincount(place, minlength=len(x)) / (np.pi * (radius / 1000) ** 2)
        return out
    tree = shapely.STRtree(shapes if kind == "length" else shapely.make_valid(shapes))
    outward = sorted(range(len(radii_m)), key=lambda k: -radii_m[k])
    for start in range(0, len(x), _CHUNK):
        rows = slice(start, start + _CHUNK)
        parts: Any = None
        for k in outward:  # each circle cuts what the larger one has left
            circle = shapely.buffer(points[rows], radii_m[k] * stretch[rows], quad_segs=8)
            if parts is None:
                place, number = tree.query(circle, predicate="intersects")
                parts = tree.geometries[number]
            parts = shapely.intersection(parts, circle[place])
            size = shapely.length(parts) / 1000 if kind == "length" else shapely.area(parts)
            summed = np.bincount(place, size, minlength=len(circle))
            of = shapely.area(circle) / (1e6 * stretch[rows] if kind == "length" else 1)
            out[rows, k] = summed / of
    return out

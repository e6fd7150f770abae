"""Areas, lengths and counts around a place, by hand and against shapes cut in a plane of the place's own."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pyproj
import pytest
import shapely

from reproduction.beyond.multi_view.map_features import MEASURES, map_features, names
from selm.errors import InputError
from selm.maps.sources import MapSource
from selm.maps.tiles import Listed

LAT, LON = 43.06, 141.35


def plane(lat: float, lon: float) -> str:
    return f"+proj=aeqd +lat_0={lat} +lon_0={lon} +ellps=WGS84"


def source(folder: Path, shapes: dict[str, list[tuple[str, shapely.Geometry]]]) -> MapSource:
    """A source with layers of (class, shape), shapes in metres around (LAT, LON)."""
    layers = {}
    for layer, objects in shapes.items():
        frame = geopandas.GeoDataFrame(
            {"class": [kind for kind, _ in objects]}, geometry=[shape for _, shape in objects], crs=plane(LAT, LON)
        )
        frame.to_crs("EPSG:3857").to_file(folder / f"{layer}.fgb", driver="FlatGeobuf")
        layers[layer] = {"type": "ogr", "file": str(folder / f"{layer}.fgb"), "layer_by_index": "0"}
    tiles = Listed(np.empty((0, 2), np.int32), (141.0, 43.0, 142.0, 44.0))
    return MapSource("made up", "osm", "0", "", layers, tiles)


def test_by_hand(tmp_path: Path) -> None:
    made = source(tmp_path, {
        "landuse": [("residential", shapely.box(-50, -50, 50, 50)), ("school", shapely.box(120, 0, 140, 20))],
        "transportation": [("minor", shapely.LineString([(-400, 10), (400, 10)])),
                           ("path", shapely.box(-5, -5, 5, 5))],  # an area has no length
        "building": [("yes", shapely.box(a, 0, a + 10, 10)) for a in (0, 90, 300)],
    })  # fmt: skip
    found = dict(zip(names((100, 200)), map_features(made, [LAT], [LON], (100, 200))[0], strict=True))
    wide = np.pi * 0.1**2  # km²
    assert found["housing, 100 m"] == pytest.approx(0.01 / wide, rel=0.01)
    assert found["housing, 200 m"] == pytest.approx(0.01 / (4 * wide), rel=0.01)
    chord = 2 * np.sqrt(100**2 - 10**2) / 1000
    assert found["minor roads, 100 m"] == pytest.approx(chord / wide, rel=0.01)
    assert found["paths, 100 m"] == 0 and found["motorways, 200 m"] == 0 and found["water, 200 m"] == 0
    assert found["number of buildings, 100 m"] == pytest.approx(2 / wide)
    assert found["number of schools, 100 m"] == 0 and found["number of schools, 200 m"] == pytest.approx(0.25 / wide)


def test_against_a_plane_of_each_place(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(-1500, 1500, (40, 2))
    areas = [("wood", shapely.box(x, y, x + 250, y + 400)) for x, y in corners]
    lines = [("primary", shapely.LineString(rng.uniform(-1500, 1500, (3, 2)))) for _ in range(30)]
    made = source(tmp_path, {"landcover": areas, "transportation": lines})
    at = [(LAT, LON), (LAT + 0.004, LON - 0.006), (LAT - 0.005, LON + 0.002)]
    radii = (300.0, 120.0, 700.0)  # in any order
    found = map_features(made, *np.transpose(at), radii).reshape(len(at), len(radii), len(MEASURES))
    wood, roads = (next(i for i, m in enumerate(MEASURES) if m.name == name) for name in ("wood", "main roads"))
    for i, (lat, lon) in enumerate(at):
        turn = pyproj.Transformer.from_crs(plane(LAT, LON), plane(lat, lon), always_xy=True)
        for k, radius in enumerate(radii):
            circle = shapely.Point(0, 0).buffer(radius, quad_segs=64)
            area = length = 0.0
            for objects in (areas, lines):
                for kind, shape in objects:
                    x, y = turn.transform(*shapely.get_coordinates(shape).T)
                    cut = shapely.intersection(circle, type(shape)(list(zip(x, y, strict=True))))
                    area += cut.area if kind == "wood" else 0.0
                    length += cut.length if kind == "primary" else 0.0
            ground = np.pi * radius**2
            assert found[i, k, wood] == pytest.approx(area / ground, rel=0.02, abs=1e-3)
            assert found[i, k, roads] == pytest.approx(length / ground * 1000, rel=0.02, abs=0.05)


def test_bad_input(tmp_path: Path) -> None:
    made = source(tmp_path, {"building": [("yes", shapely.box(0, 0, 1, 1))]})
    with pytest.raises(InputError, match="must be above 0 m"):
        map_features(made, [LAT], [LON], (100.0, 0.0))
    with pytest.raises(InputError, match="map features"):
        map_features(made, [91.0], [LON], (100.0,))

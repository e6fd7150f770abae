"""Web Mercator tiles and the Japanese grid square codes of JIS X 0410.

Latitudes and longitudes are degrees, WGS84, in the order (lat, lon). Tile coordinates are fractional: the integer part
names an XYZ tile (x to the east, y to the south, as OpenStreetMap counts them), the fraction a place inside it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from selm.errors import InputError

LAT_MAX = 85.0511287798066  # where the Web Mercator square ends
EARTH_RADIUS_M = 6_371_008.8  # mean radius, IUGG
EQUATOR_M = 2 * np.pi * 6_378_137.0  # the equator of Web Mercator's sphere
BBox = tuple[float, float, float, float]  # west, south, east, north


def to_tile(lat: ArrayLike, lon: ArrayLike, zoom: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fractional tile coordinates (x, y) of places at `zoom`; float64 with the shape of the input."""
    phi = np.radians(np.clip(np.asarray(lat, np.float64), -LAT_MAX, LAT_MAX))
    n = 2.0**zoom
    x = (np.asarray(lon, np.float64) + 180.0) / 360.0 * n
    y = (1.0 - np.arcsinh(np.tan(phi)) / np.pi) / 2.0 * n
    return x, y


def from_tile(x: ArrayLike, y: ArrayLike, zoom: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Latitude and longitude of fractional tile coordinates; the inverse of `to_tile`."""
    n = 2.0**zoom
    lon = np.asarray(x, np.float64) / n * 360.0 - 180.0
    lat = np.degrees(np.arctan(np.sinh(np.pi * (1.0 - 2.0 * np.asarray(y, np.float64) / n))))
    return lat, lon


def tile_bounds(x: float, y: float, zoom: int) -> BBox:
    """(west, south, east, north) of the tile, degrees."""
    north, west = from_tile(x, y, zoom)
    south, east = from_tile(x + 1, y + 1, zoom)
    return float(west), float(south), float(east), float(north)


def metres_per_pixel(lat: ArrayLike, zoom: int, tile_px: int = 256) -> NDArray[np.float64]:
    """Ground size of a pixel, metres, at a latitude."""
    return EQUATOR_M * np.cos(np.radians(np.asarray(lat, np.float64))) / (tile_px * 2.0**zoom)


def haversine_m(lat1: ArrayLike, lon1: ArrayLike, lat2: ArrayLike, lon2: ArrayLike) -> NDArray[np.float64]:
    """Great-circle distance in metres on a sphere of the mean radius; the inputs broadcast."""
    phi1, lam1, phi2, lam2 = (np.radians(np.asarray(a, np.float64)) for a in (lat1, lon1, lat2, lon2))
    h = np.sin((phi2 - phi1) / 2) ** 2 + np.cos(phi1) * np.cos(phi2) * np.sin((lam2 - lam1) / 2) ** 2
    return 2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(np.minimum(h, 1.0)))


def check_coordinates(lat: ArrayLike, lon: ArrayLike, where: str = "") -> None:
    """Raise InputError for the first coordinate that is not a number, out of range, or seems swapped.

    `where` (a file name, say) opens the message. Rows count from 0; a single coordinate (two scalars) has none.
    """
    single = np.ndim(lat) == 0 and np.ndim(lon) == 0
    lat, lon = np.atleast_1d(np.asarray(lat, np.float64)), np.atleast_1d(np.asarray(lon, np.float64))
    if lat.shape != lon.shape:
        raise InputError(f"{where + ': ' if where else ''}{lat.size} latitudes but {lon.size} longitudes")
    good = (np.abs(lat) <= 90) & (np.abs(lon) <= 180)  # False for NaN
    if good.all():
        return
    row = int(np.flatnonzero(~good.ravel())[0])
    a, o = float(lat.ravel()[row]), float(lon.ravel()[row])
    at = (f"{where}: " if where else "") + ("" if single else f"row {row}: ")
    if not (np.isfinite(a) and np.isfinite(o)):
        raise InputError(f"{at}lat {a}, lon {o} is not a coordinate")
    if abs(a) > 90 and abs(a) <= 180 and abs(o) <= 90:
        raise InputError(f"{at}lat {a:g}, lon {o:g} is out of range; are lat and lon swapped?")
    field = f"lat {a:g} is outside -90..90" if abs(a) > 90 else f"lon {o:g} is outside -180..180"
    raise InputError(f"{at}{field}")


# JIS X 0410 grid squares. Sizes in degrees (lat, lon): level 1 about 80 km, 2 about 10 km, 3 about 1 km, 4 about 500 m.
_MESH_LAT = {1: 2 / 3, 2: 1 / 12, 3: 1 / 120, 4: 1 / 240}
_MESH_LON = {1: 1.0, 2: 1 / 8, 3: 1 / 80, 4: 1 / 160}
_MESH_DIGITS = {4: 1, 6: 2, 8: 3, 9: 4}


def mesh_code(lat: ArrayLike, lon: ArrayLike, level: int = 3) -> NDArray[np.str_]:
    """Grid square codes of JIS X 0410 (an array of strings): levels 1, 2, 3, and 4 for the half (500 m) square.

    Digits ab cd e f g h [i]: ab = 1.5 lat, cd = lon - 100, then eighths, tenths and the quarter square
    (1 south-west, 2 south-east, 3 north-west, 4 north-east). Raises InputError outside the grid (20-46 N, 122-154 E).
    """
    if level not in _MESH_LAT:
        raise InputError(f"mesh level {level}: there are {', '.join(map(str, _MESH_LAT))}")
    lat, lon = np.asarray(lat, np.float64), np.asarray(lon, np.float64)
    if not ((lat >= 20) & (lat < 46) & (lon >= 122) & (lon < 154)).all():
        raise InputError("JIS X 0410 codes exist between 20-46 N and 122-154 E only")
    # Integers from here on, in half squares of level 3; the nudge keeps decimal borders such as 35.55 in their square.
    south = np.floor(lat * 240 + 1e-7).astype(np.int64)
    west = np.floor((lon - 100) * 160 + 1e-7).astype(np.int64)
    parts = [south // 160, west // 160]
    widths = [2, 2]
    if level >= 2:
        parts += [south // 20 % 8, west // 20 % 8]
    if level >= 3:
        parts += [south // 2 % 10, west // 2 % 10]
    if level >= 4:
        parts.append(south % 2 * 2 + west % 2 + 1)
    widths += [1] * (len(parts) - 2)
    code = np.zeros_like(south)
    for part, width in zip(parts, widths, strict=True):
        code = code * 10**width + part
    return code.astype(np.str_)


def mesh_bounds(code: str | int) -> BBox:
    """(west, south, east, north) of the grid square with this code, degrees; InputError if it is not a code."""
    text = str(code)
    level = _MESH_DIGITS.get(len(text)) if text.isdigit() else None
    digits = [int(c) for c in text] if level else []
    if not level or max([0, *digits[4:6]]) > 7 or (level == 4 and digits[8] not in (1, 2, 3, 4)):
        raise InputError(f"'{text}' is not a JIS X 0410 mesh code of 4, 6, 8 or 9 digits")
    south, west = int(text[:2]) * 160, int(text[2:4]) * 160  # in half squares of level 3
    if level >= 2:
        south, west = south + digits[4] * 20, west + digits[5] * 20
    if level >= 3:
        south, west = south + digits[6] * 2, west + digits[7] * 2
    if level >= 4:
        south, west = south + (digits[8] - 1) // 2, west + (digits[8] - 1) % 2
    lat, lon = south / 240, 100 + west / 160
    return lon, lat, lon + _MESH_LON[level], lat + _MESH_LAT[level]

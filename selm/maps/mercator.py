"""Web Mercator tiles, distances and coordinates."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from selm.errors import InputError

LAT_MAX = 85.0511287798066  # where the Web Mercator square ends
EARTH_RADIUS_M = 6_371_008.8  # mean radius, IUGG
EQUATOR_M = 2 * np.pi * 6_378_137.0  # the equator of Web Mercator's sphere
BBox = tuple[float, float, float, float]  # west, south, east, north
WHOLE: BBox = (-180.0, -LAT_MAX, 180.0, LAT_MAX)


def to_tile(lat: ArrayLike, lon: ArrayLike, zoom: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fractional tile coordinates (x, y) of places at `zoom`; float64 with the shape of the input.

    Beyond `LAT_MAX` y is that of the map's edge.
    """
    phi = np.radians(np.clip(np.asarray(lat, np.float64), -LAT_MAX, LAT_MAX))
    n = 2.0**zoom
    x = (np.asarray(lon, np.float64) + 180.0) / 360.0 * n
    y = (1.0 - np.arcsinh(np.tan(phi)) / np.pi) / 2.0 * n
    return x, np.clip(y, 0.0, np.nextafter(n, 0.0))  # the map's edges lie in its outermost tiles


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


def unit_vectors(lat: ArrayLike, lon: ArrayLike) -> NDArray[np.float64]:
    """Places as points of the unit sphere, (N, 3): near places are near, also across the 180th meridian."""
    phi, lam = np.radians(np.asarray(lat, np.float64)), np.radians(np.asarray(lon, np.float64))
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)

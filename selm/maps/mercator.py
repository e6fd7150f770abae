"""Web Mercator tiles, coordinates, and places near one another on the sphere, in true metres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from selm.errors import InputError

if TYPE_CHECKING:
    from scipy import sparse

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


def _unit_vectors(lat: ArrayLike, lon: ArrayLike) -> NDArray[np.float64]:
    phi, lam = np.radians(np.asarray(lat, np.float64)), np.radians(np.asarray(lon, np.float64))
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)


def nearest_places(
    lat: ArrayLike,
    lon: ArrayLike,
    to_lat: ArrayLike,
    to_lon: ArrayLike,
    *,
    k: int = 1,
    radius_m: float = np.inf,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """For N coordinates, distances in metres and indices of the k nearest of M others; both (N, k), nearest first.

    Great-circle distances on the mean sphere. Beyond `radius_m`, or where there are fewer than k others, the distance
    is infinite and the index 0. M must not be 0.
    """
    from scipy.spatial import cKDTree  # not for those who only draw

    places, others = _unit_vectors(lat, lon), _unit_vectors(to_lat, to_lon)
    # A k-d tree on the unit sphere measures chords, which order places as arcs do.
    reach = 2 * np.sin(min(radius_m / EARTH_RADIUS_M, np.pi) / 2)
    chord, index = cKDTree(others).query(places, k=list(range(1, k + 1)), distance_upper_bound=reach * (1 + 1e-12))
    distance = np.where(np.isfinite(chord), 2 * EARTH_RADIUS_M * np.arcsin(np.minimum(chord, 2.0) / 2), np.inf)
    return distance, np.where(np.isfinite(chord), index, 0).astype(np.int64)


def within(lat: ArrayLike, lon: ArrayLike, of_lat: ArrayLike, of_lon: ArrayLike, metres: float) -> NDArray[np.bool_]:
    """Whether each of N coordinates lies within `metres` of any of M others; bool (N,)."""
    if not np.size(np.asarray(of_lat)):
        return np.zeros(np.size(np.asarray(lat)), np.bool_)
    distance, _ = nearest_places(lat, lon, of_lat, of_lon, radius_m=metres)
    return np.asarray(distance[:, 0] <= metres)


def pairs_within(lat: ArrayLike, lon: ArrayLike, metres: float) -> sparse.csr_array:
    """Which of N places lie within `metres` of each other: sparse bool (N, N), symmetric; none where that is 0."""
    from scipy import sparse
    from scipy.spatial import cKDTree

    places = _unit_vectors(lat, lon)
    n = len(places)
    if metres <= 0 or n == 0:
        return sparse.csr_array((n, n), dtype=bool)
    chord = 2 * np.sin(metres / EARTH_RADIUS_M / 2)
    first, second = cKDTree(places).query_pairs(chord, output_type="ndarray").T
    both = np.concatenate([first, second]), np.concatenate([second, first])
    return sparse.csr_array((np.ones(len(both[0]), dtype=bool), both), shape=(n, n))


def chords(lat: ArrayLike, lon: ArrayLike) -> NDArray[np.float64]:
    """Metres between each two of N places, straight through the ground: float64 (N, N)."""
    places = _unit_vectors(lat, lon)
    squared = 2 - 2 * np.clip(places @ places.T, -1, 1)  # of unit vectors' differences
    return np.asarray(EARTH_RADIUS_M * np.sqrt(squared))


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """N places and a distance: who lies within `metres` of some of them, asked without a list of all pairs.

    For wide distances among many places, where `pairs_within` would hold a pair for most of them.
    """

    lat: NDArray[np.float64]
    lon: NDArray[np.float64]
    metres: float

    def of(self, some: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether each place lies within the distance of any of `some`, themselves too; bool (N,) both."""
        if self.metres <= 0:
            return some.copy()
        return within(self.lat, self.lon, self.lat[some], self.lon[some], self.metres)

    def some(self, rows: NDArray[np.int64]) -> Neighbourhood:
        """The same for some of the places, by row number."""
        return Neighbourhood(self.lat[rows], self.lon[rows], self.metres)

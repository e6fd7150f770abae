"""Nearest places on the sphere, in true metres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from selm.maps.mercator import EARTH_RADIUS_M, unit_vectors


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
    places, others = unit_vectors(lat, lon), unit_vectors(to_lat, to_lon)
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
    places = unit_vectors(lat, lon)
    n = len(places)
    if metres <= 0 or n == 0:
        return sparse.csr_array((n, n), dtype=bool)
    chord = 2 * np.sin(metres / EARTH_RADIUS_M / 2)
    first, second = cKDTree(places).query_pairs(chord, output_type="ndarray").T
    both = np.concatenate([first, second]), np.concatenate([second, first])
    return sparse.csr_array((np.ones(len(both[0]), dtype=bool), both), shape=(n, n))


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


def chords(lat: ArrayLike, lon: ArrayLike) -> NDArray[np.float64]:
    """Metres between each two of N places, straight through the ground: float64 (N, N)."""
    places = unit_vectors(lat, lon)
    squared = 2 - 2 * np.clip(places @ places.T, -1, 1)  # of unit vectors' differences
    return np.asarray(EARTH_RADIUS_M * np.sqrt(squared))

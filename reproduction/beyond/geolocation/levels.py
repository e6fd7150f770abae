"""Regions within regions: prefectures, municipalities in them, and geocells in those, each with a classifier.

PIGEON (Haas et al. 2023) draws its cells along administrative borders; HierLoc (2026) aligns an image with regions of
every level, weighed by distance. Here a linear classifier of each level has labels that spread by haversine distance
over that level's regions, and a cell is as likely as it and all that it lies in are together.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax

from reproduction.beyond.geolocation.geocells import Geocells
from selm.errors import InputError
from selm.maps.mercator import haversine_m


@dataclass(frozen=True)
class Level:
    """The regions of one level: their `names`, the mean coordinate `lat lon` (R,) of their places, the region `own`
    (N,) of each place and `above` (C,), the region that each cell of the finest level lies in."""

    names: tuple[str, ...]
    lat: NDArray[np.float64]
    lon: NDArray[np.float64]
    own: NDArray[np.int64]
    above: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.names)

    def distances_km(self, lat: ArrayLike, lon: ArrayLike) -> NDArray[np.float64]:
        """(N, R) kilometres from N coordinates to the regions' centres."""
        lat, lon = np.asarray(lat, np.float64), np.asarray(lon, np.float64)
        return haversine_m(lat[:, None], lon[:, None], self.lat, self.lon) / 1000


def hierarchy(lat: ArrayLike, lon: ArrayLike, codes: Sequence[ArrayLike], *, most: int) -> tuple[Level, ...]:
    """The levels of N places from the coarsest on, with geocells of at most `most` places in the finest regions.

    codes: the region's name of each place, (N,) for every level but the cells', coarsest first. Raises InputError where
    a region lies in two of the level above.
    """
    lat, lon = np.asarray(lat, np.float64), np.asarray(lon, np.float64)
    given = [np.asarray(code, str) for code in codes]
    if not given or any(len(code) != len(lat) for code in given) or len(lat) != len(lon):
        raise InputError(f"hierarchy: {len(lat)} places with {[len(code) for code in given]} codes")
    cell = np.empty(len(lat), object)
    for region in np.unique(given[-1]):
        rows = np.flatnonzero(given[-1] == region)
        inside = Geocells.split(lat[rows], lon[rows], most=most)
        squares = ["/".join(map(str, square)) for square in inside.squares.tolist()]
        cell[rows] = [f"{region} {squares[i]}" for i in inside.assign(lat[rows], lon[rows])]
    named = [*given, cell.astype(str)]
    for coarse, fine in itertools.pairwise(named):
        pairs = np.unique(np.stack([fine, coarse], 1), axis=0)
        twice = pairs[1:, 0][pairs[1:, 0] == pairs[:-1, 0]]
        if len(twice):
            raise InputError(f"hierarchy: region '{twice[0]}' lies in two regions of the level above")
    _, first = np.unique(named[-1], return_index=True)  # a place of each cell, in the order of their names
    out = []
    for code in named:
        names, own = np.unique(code, return_inverse=True)
        count = np.bincount(own)
        middle, across = (np.bincount(own, values) / count for values in (lat, lon))
        out.append(Level(tuple(names.tolist()), middle, across, own.astype(np.int64), own[first].astype(np.int64)))
    return tuple(out)


def tau_of(tau_km: float, n_cells: int, n_regions: int) -> float:
    """How far labels spread at a level: `tau_km` for cells, more for larger regions, as their diameters."""
    return tau_km * float(np.sqrt(n_cells / n_regions))


def together(logits: Sequence[ArrayLike], levels: Sequence[Level]) -> NDArray[np.float64]:
    """Log of what a cell and all that it lies in are given: (Q, R) class logits of each level → (Q, C), unnormalised.

    The probability of each level's classifier counts once: Σ_l log p_l(region of level l that holds the cell).
    """
    parts = [log_softmax(np.asarray(one, np.float64), axis=1) for one in logits]
    return np.asarray(sum(part[:, level.above] for part, level in zip(parts, levels, strict=True)))

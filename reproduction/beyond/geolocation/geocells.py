"""Where is this image? Geocells to classify into, labels smoothed over the earth, and recall against area.

Geocells are squares of a quadtree over Web Mercator that split until each holds few training places (PlaNet, Weyand et
al. 2016, on S2; PIGEON, Haas et al. 2023, draws borders by meaning instead). The labels of PIGEON's loss spread over
the cells near the true one. Recall against area (Pillai et al. 2024) asks how much ground must be searched, best guess
first, until the true place is in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from selm.errors import InputError
from selm.maps import mercator

_DEEPEST = 22  # zoom below which no square is split: some 10 m


@dataclass(frozen=True)
class Geocells:
    """A cut of the places' ground into cells, told apart by the squares (z, x, y) of Web Mercator tiles.

    squares int64 (C, 3), sorted; lat, lon float64 (C,) the mean coordinate of a cell's training places; count int64
    (C,) their number; area_km2 float64 (C,).
    """

    squares: NDArray[np.int64]
    lat: NDArray[np.float64]
    lon: NDArray[np.float64]
    count: NDArray[np.int64]
    area_km2: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.squares)

    @classmethod
    def split(cls, lat: ArrayLike, lon: ArrayLike, *, most: int, least: int = 1, start: int = 0) -> Geocells:
        """Split squares from zoom `start` on until none holds more than `most` places; drop those with under `least`.

        PlaNet's rule. Places in dropped cells belong to no cell (`assign` gives −1).
        """
        lat, lon = np.asarray(lat, np.float64), np.asarray(lon, np.float64)
        if not lat.size or most < 1 or least < 1:
            raise InputError(f"geocells: {lat.size} places, at most {most} and at least {least} in a cell")
        mercator.check_coordinates(lat, lon, "geocells")
        todo = [(start, np.arange(lat.size))]
        kept: list[tuple[int, int, int, NDArray[np.int64]]] = []
        while todo:
            zoom, rows = todo.pop()
            x, y = (np.floor(v).astype(np.int64) for v in mercator.to_tile(lat[rows], lon[rows], zoom))
            squares, of = np.unique(np.stack([x, y], 1), axis=0, return_inverse=True)
            for i, (a, b) in enumerate(squares.tolist()):
                inside = rows[of.ravel() == i]
                if len(inside) > most and zoom < _DEEPEST:
                    todo.append((zoom + 1, inside))
                elif len(inside) >= least:
                    kept.append((zoom, a, b, inside))
        if not kept:
            raise InputError(f"geocells: no cell holds {least} of the {lat.size} places")
        kept.sort(key=lambda cell: cell[:3])
        return cls(
            np.array([cell[:3] for cell in kept], np.int64),
            np.array([lat[cell[3]].mean() for cell in kept]),
            np.array([lon[cell[3]].mean() for cell in kept]),
            np.array([len(cell[3]) for cell in kept], np.int64),
            np.array([tile_area_km2(*cell[:3]) for cell in kept]),
        )

    def assign(self, lat: ArrayLike, lon: ArrayLike) -> NDArray[np.int64]:
        """The cell of each of N coordinates, int64 (N,); −1 where there is none."""
        lat, lon = np.atleast_1d(np.asarray(lat, np.float64)), np.atleast_1d(np.asarray(lon, np.float64))
        out = np.full(lat.size, -1, np.int64)
        for zoom in np.unique(self.squares[:, 0]):
            x, y = (np.floor(v).astype(np.int64) for v in mercator.to_tile(lat, lon, int(zoom)))
            cells = np.flatnonzero(self.squares[:, 0] == zoom)
            number = {(int(a), int(b)): int(c) for c, (a, b) in zip(cells, self.squares[cells, 1:], strict=True)}
            found = np.array([number.get(key, -1) for key in zip(x.tolist(), y.tolist(), strict=True)], np.int64)
            out = np.where(found >= 0, found, out)
        return out

    def distances_km(self, lat: ArrayLike, lon: ArrayLike) -> NDArray[np.float64]:
        """Kilometres from each of N coordinates to the mean coordinate of each cell, (N, C)."""
        lat, lon = np.asarray(lat, np.float64)[:, None], np.asarray(lon, np.float64)[:, None]
        return mercator.haversine_m(lat, lon, self.lat, self.lon) / 1000


def tile_area_km2(zoom: int, x: int, y: int) -> float:
    """Ground area of a Web Mercator tile on the mean sphere, km²."""
    west, south, east, north = mercator.tile_bounds(x, y, zoom)
    band = np.sin(np.radians(north)) - np.sin(np.radians(south))
    return float((mercator.EARTH_RADIUS_M / 1000) ** 2 * np.radians(east - west) * band)


def smoothed_labels(distance_km: ArrayLike, cell: ArrayLike, tau_km: float) -> NDArray[np.float64]:
    """PIGEON's labels, each row divided by its sum so that the loss is a cross-entropy.

    y_nc ∝ exp(−(d_nc − d_n,c*) / τ), with d_nc the distance from place n to cell c and c* its own cell.
    distance_km: (N, C); cell: (N,) each place's cell. Returns (N, C), rows sum to 1. τ → 0 gives hard labels.
    """
    distance, own = np.asarray(distance_km, np.float64), np.asarray(cell, np.int64)
    if tau_km <= 0:
        raise InputError(f"smoothed labels: tau must be above 0 km, not {tau_km:g}")
    if (own < 0).any():
        raise InputError(f"smoothed labels: place {int(np.flatnonzero(own < 0)[0])} lies in no cell")
    # −d/τ up to a constant of the row, which the division takes out; shifted so that nothing overflows
    exponent = -(distance - distance.min(axis=1, keepdims=True)) / tau_km
    label = np.exp(exponent)
    return label / label.sum(axis=1, keepdims=True)


def hard_labels(cell: ArrayLike, n_cells: int) -> NDArray[np.float64]:
    """One-hot labels (N, C), PlaNet's."""
    own = np.asarray(cell, np.int64)
    if (own < 0).any():
        raise InputError(f"hard labels: place {int(np.flatnonzero(own < 0)[0])} lies in no cell")
    return np.eye(n_cells)[own]


def fit_classifier(
    features: ArrayLike, labels: ArrayLike, *, penalty: float = 1e-3, max_iterations: int = 200
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A linear softmax classifier on frozen features, fitted to soft labels at its minimum by L-BFGS.

    Minimises mean cross-entropy + penalty / 2 ‖W‖² over standardised features. features (N, d), labels (N, C) rows
    summing to 1 → weights (d, C) and intercepts (C,) that apply to the features as they are.
    """
    x = torch.as_tensor(np.asarray(features, np.float32))
    y = torch.as_tensor(np.asarray(labels, np.float32))
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise InputError(f"classifier: features of shape {tuple(x.shape)} and labels of shape {tuple(y.shape)}")
    mean, std = x.mean(dim=0), x.std(dim=0, correction=0).clamp(min=1e-6)
    x = (x - mean) / std
    weight = torch.zeros(x.shape[1], y.shape[1], requires_grad=True)
    bias = y.mean(dim=0).clamp(min=1e-8).log().requires_grad_()
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=max_iterations, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = -(y * (x @ weight + bias).log_softmax(dim=1)).sum(dim=1).mean()
        loss = loss + penalty / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        scaled = weight / std[:, None]
        return scaled.numpy(), (bias - mean @ scaled).numpy()


def area_searched(scores: ArrayLike, area: ArrayLike, true: ArrayLike) -> NDArray[np.float64]:
    """Area (N,) that is searched, best region first, until the true one is included.

    scores: (N, C) of each region for each query, the higher the better; area: (C,); true: (N,) the region that holds
    the query's place, −1 where none does (the area is then infinite). Regions of equal score count half on average.
    """
    score, size, own = np.asarray(scores, np.float64), np.asarray(area, np.float64), np.asarray(true, np.int64)
    if score.shape != (len(own), len(size)):
        raise InputError(
            f"recall against area: scores of shape {score.shape} for {len(own)} queries, {len(size)} areas"
        )
    at = score[np.arange(len(own)), np.maximum(own, 0)][:, None]
    better = (score > at) @ size
    tied = (score == at) @ size - size[np.maximum(own, 0)]
    return np.where(own >= 0, better + tied / 2 + size[np.maximum(own, 0)], np.inf)


def recall_within(searched: ArrayLike, budgets: ArrayLike) -> NDArray[np.float64]:
    """Share of queries whose place is found within each area budget, (B,): the curve of recall against area."""
    return (np.asarray(searched, np.float64)[:, None] <= np.asarray(budgets, np.float64)).mean(axis=0)

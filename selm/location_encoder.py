"""Coordinates → embeddings without a map: a location encoder of feature tables, in NumPy alone.

Learnt vectors on the corners of square grids of many resolutions (Müller et al. 2022, "Instant neural graphics
primitives"), between which a place is interpolated, then a perceptron with ReLU. It has learned what the map shows at
the places that it was trained on, and knows nothing of any other.
"""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from selm import checkpoints
from selm.bundled import LOCATIONS, PLACES
from selm.embedding.coordinates import wrapped
from selm.embedding.map_embedder import degrees
from selm.errors import InputError, OutsideMapWarning, unknown
from selm.files import read_json
from selm.maps.mercator import EARTH_RADIUS_M, check_coordinates, to_tile

ABOUT, WEIGHTS = "location.json", "location.safetensors"
_PRIME = 2_654_435_761  # of the hash (their eq. 4), for the coordinate to the north; that to the east has 1
_AT_ONCE = 8192


class LocationEncoder:
    """A location encoder for use: ``LocationEncoder.from_pretrained("japan-coordinates")(lat, lon)``.

    `about` says what it was trained on and how it scored; `dim` is the length of an embedding.
    """

    def __init__(self, about: dict[str, Any], tensors: dict[str, NDArray[Any]], source: str) -> None:
        """about: ``lat lon half_m`` (the square's middle, degrees, and half its side, metres), ``cells`` (along a side
        at each level), ``zoom`` (of the tiles that it knows); tensors: ``known`` int32 (M, 2), those tiles;
        ``tables.L`` (entries, features); ``weights.K`` (out, in) and ``biases.K``. Raises InputError for others."""
        try:
            self.about, self._known = about, {tuple(tile) for tile in tensors["known"].tolist()}
            self._cells, self._zoom = [int(n) for n in about["cells"]], int(about["zoom"])
            self._middle = float(about["lat"]), float(about["lon"]), float(about["half_m"])
            self._tables = [tensors[f"tables.{level}"] for level in range(len(self._cells))]
            n = sum(name.startswith("weights.") for name in tensors)
            self._layers = [(tensors[f"weights.{k}"].T, tensors[f"biases.{k}"]) for k in range(n)]
            self.dim = len(self._layers[-1][1])
            widths = [sum(table.shape[1] for table in self._tables), *(len(bias) for _, bias in self._layers)]
            fits = [weight.shape for weight, _ in self._layers] == list(itertools.pairwise(widths))
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{source}: not a location encoder of this version ({error})") from None
        if not fits:
            raise InputError(f"{source}: its layers and tables do not fit together")

    @classmethod
    def from_pretrained(cls, model: str | Path) -> LocationEncoder:
        """One that comes along, by its name, or of a folder; raises InputError for none and for a damaged one."""
        folder = Path(model)
        if not folder.is_dir():
            there = {found.parent.name: found.parent for at in PLACES for found in (at / LOCATIONS).glob(f"*/{ABOUT}")}
            if str(model) not in there:
                raise unknown("location encoder", str(model), sorted(there))
            folder = there[str(model)]
        tensors, _ = checkpoints.load_arrays(folder / WEIGHTS)
        return cls(read_json(folder / ABOUT), tensors, str(folder))

    def __call__(self, lat: ArrayLike, lon: ArrayLike) -> NDArray[np.float32]:
        """(N,) degrees each → (N, dim) float32; rows outside the tiles that it knows are NaN, and an OutsideMapWarning
        counts them. Raises InputError for coordinates that are none."""
        lat, lon = degrees(lat, lon)
        check_coordinates(lat, lon)
        lon = wrapped(lon)
        tiles = np.stack(to_tile(lat, lon, self._zoom), axis=1).astype(np.int64)
        distinct, of = np.unique(tiles, axis=0, return_inverse=True)
        known = np.array([tuple(tile) in self._known for tile in distinct.tolist()], np.bool_)[of.ravel()]
        out = np.full((len(lat), self.dim), np.nan, np.float32)
        inside = np.flatnonzero(known)
        for rows in (inside[at : at + _AT_ONCE] for at in range(0, len(inside), _AT_ONCE)):
            out[rows] = self._features(lat[rows], lon[rows])
        if len(inside) < len(lat):
            text = f"{len(lat) - len(inside)} of {len(lat)} coordinates lie where this encoder has seen no map"
            warnings.warn(text, OutsideMapWarning, stacklevel=2)
        return out

    def _features(self, lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.float32]:
        middle_lat, middle_lon, half_m = self._middle
        turn = np.remainder(lon - middle_lon + 180.0, 360.0) - 180.0  # the short way round
        plane = np.radians(np.stack([turn * np.cos(np.radians(middle_lat)), lat - middle_lat], axis=1))
        at = ((plane * (EARTH_RADIUS_M / half_m)).astype(np.float32).clip(-1, 1) + 1) / 2
        x = np.hstack([self._interpolated(at, *level) for level in zip(self._cells, self._tables, strict=True)])
        for number, (weight, bias) in enumerate(self._layers, start=1):
            x = x @ weight + bias
            x = np.maximum(x, 0, out=x) if number < len(self._layers) else x
        return x

    @staticmethod
    def _interpolated(at: NDArray[np.float32], n: int, table: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, 2) in 0 … 1, east and north → (N, features): the bilinear mean of a grid's corners."""
        low = np.minimum(np.floor(at * n), n - 1)
        east, north = (at * n - low).T[:, :, None]
        x, y = low.astype(np.int64).T
        mixed = np.zeros((len(at), table.shape[1]), np.float32)
        for right, up in itertools.product((0, 1), (0, 1)):
            rows = (y + up) * (n + 1) + x + right if (n + 1) ** 2 <= len(table) else (x + right) ^ (y + up) * _PRIME
            share = (east if right else 1 - east) * (north if up else 1 - north)
            mixed += share * table[rows % len(table)]
        return mixed

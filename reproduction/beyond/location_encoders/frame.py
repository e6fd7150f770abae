"""The square of the earth that a location encoder is made for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from selm.errors import InputError
from selm.maps.mercator import EARTH_RADIUS_M, check_coordinates


@dataclass(frozen=True)
class Frame:
    """A square around (lat, lon), `half_m` metres from its middle to each side.

    The scaling decision. Encoders for the whole earth resolve 1,000 km (spherical harmonics of degree 40) to some tens
    of kilometres: nothing that tells streets or prices apart. So here the coordinates are first mapped to a plane
    around the frame's middle (equirectangular: metres east = R cos(lat₀) Δlon, metres north = R Δlat, true to a few
    per cent over 1,000 km) and divided by `half_m`; what the sources apply to the earth is then applied to the square
    −1 … 1. Every wavelength shrinks by the same factor. Places outside the square are encoded too, by extrapolation.
    """

    lat: float
    lon: float
    half_m: float

    @classmethod
    def around(cls, lat: ArrayLike, lon: ArrayLike, margin: float = 1.05) -> Frame:
        """The smallest frame that holds all coordinates, `margin` times larger; at least 100 m to each side."""
        lat, lon = np.asarray(lat, np.float64), np.asarray(lon, np.float64)
        if not lat.size:
            raise InputError("frame: no coordinates given")
        check_coordinates(lat, lon, "frame")
        middle = cls(float(lat.min() + lat.max()) / 2, float(lon.min() + lon.max()) / 2, 1.0)
        reach = middle.scaled(torch.as_tensor(np.stack([lat, lon], axis=-1))).abs().max()
        return cls(middle.lat, middle.lon, max(float(reach) * margin, 100.0))

    def scaled(self, coordinates: Tensor) -> Tensor:
        """(…, 2) degrees (lat, lon) → (…, 2) float64 (u east, v north), −1 … 1 inside the frame."""
        degrees = coordinates.double()
        turn = torch.remainder(degrees[..., 1] - self.lon + 180.0, 360.0) - 180.0  # the short way round
        east = torch.deg2rad(turn) * np.cos(np.radians(self.lat))
        north = torch.deg2rad(degrees[..., 0] - self.lat)
        return torch.stack([east, north], dim=-1) * (EARTH_RADIUS_M / self.half_m)

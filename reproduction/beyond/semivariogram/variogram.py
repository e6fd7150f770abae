"""How unlike map images are at a distance, and which pairs are more alike than that (seed of Chen et al. 2025).

The semivariogram γ(h) of unit features f is half the mean squared distance between features of places h apart, which is
the mean of 1 − cos(f_i, f_j). A model fitted to it says how unlike two images h apart are expected to be. A pair that
is more alike although it is far apart is a hard negative of a contrastive loss; a pair that is near and alike is a
false one. The estimate and the fit are GSTools'; the weights are ours, since only the paper's abstract is at hand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from selm.errors import InputError, unknown
from selm.maps.mercator import EARTH_RADIUS_M

MODELS = ("spherical", "exponential", "gaussian")


@dataclass(frozen=True)
class Empirical:
    """The empirical semivariogram: kilometres (B,), semivariance (B,) and pairs (B,) of each bin that has pairs."""

    distance_km: NDArray[np.float64]
    gamma: NDArray[np.float64]
    pairs: NDArray[np.int64]


def empirical(lat: ArrayLike, lon: ArrayLike, features: ArrayLike, edges_km: ArrayLike) -> Empirical:
    """Matheron's estimate by great-circle distance, summed over the dimensions of L2-normalised features.

    lat, lon: (N,) degrees; features: (N, d), normalised here; edges_km: (B + 1,) rising. A bin's distance is the middle
    of its edges.
    """
    import gstools

    places = np.stack([np.asarray(lat, np.float64), np.asarray(lon, np.float64)])
    f, edges = np.asarray(features, np.float64), np.asarray(edges_km, np.float64)
    if f.ndim != 2 or len(f) != places.shape[1] or len(f) < 2:
        raise InputError(f"semivariogram: features of shape {f.shape} for {places.shape[1]} places")
    if len(edges) < 2 or (np.diff(edges) <= 0).any():
        raise InputError("semivariogram: the edges of the bins must rise")
    length = np.linalg.norm(f, axis=1, keepdims=True)
    if not (length > 0).all() or not np.isfinite(f).all():
        row = int(np.flatnonzero(~((length[:, 0] > 0) & np.isfinite(f).all(axis=1)))[0])
        raise InputError(f"semivariogram: row {row} of the features has no direction")
    middle, gamma, count = gstools.vario_estimate(
        places, list((f / length).T), edges / (EARTH_RADIUS_M / 1000), latlon=True, return_counts=True
    )
    # GSTools averages over the fields, which are the dimensions here, and counts a pair in each of them
    there = count > 0
    pairs = np.rint(count[there] / f.shape[1]).astype(np.int64)
    return Empirical(middle[there] * (EARTH_RADIUS_M / 1000), gamma[there] * f.shape[1], pairs)


@dataclass(frozen=True)
class Fit:
    """A fitted model: γ(h) = nugget + partial_sill · (1 − ρ(h / range_km)) for h > 0.

    ρ is the model's correlation with its practical shape: spherical reaches 0 at the range; exponential and gaussian
    have fallen to 5 % there. `r2` is the share of the bins' variance, weighted by pairs, that the curve explains.
    """

    model: str
    nugget: float
    partial_sill: float
    range_km: float
    r2: float

    @property
    def sill(self) -> float:
        return self.nugget + self.partial_sill

    def expected(self, distance_km: Tensor) -> Tensor:
        """γ at distances in kilometres, any shape; 0 at 0."""
        h = distance_km / self.range_km
        if self.model == "spherical":
            rising = torch.where(h < 1, 1.5 * h - 0.5 * h**3, torch.ones_like(h))
        elif self.model == "exponential":
            rising = 1 - torch.exp(-3 * h)
        else:
            rising = 1 - torch.exp(-3 * h.square())
        return torch.where(h > 0, self.nugget + self.partial_sill * rising, torch.zeros_like(h))


def _shape(model: str) -> Any:
    """The class of GSTools whose correlation is that of `Fit`, up to the length scale's unit."""
    import gstools

    return {"spherical": gstools.Spherical, "exponential": gstools.Exponential, "gaussian": gstools.Gaussian}[model]


# range_km of `Fit` over GSTools' len_scale: Spherical(r / len), Exponential exp(−r/len), Gaussian exp(−π/4 (r/len)²)
_RANGE = {"spherical": 1.0, "exponential": 3.0, "gaussian": math.sqrt(12 / math.pi)}


def fit_variogram(measured: Empirical, model: str) -> Fit:
    """Least squares on the bins, each weighted by its number of pairs; raises InputError where nothing can be fitted.

    The distances of a region are small against the earth: the model is taken in the plane.
    """
    if model not in MODELS:
        raise unknown("semivariogram model", model, MODELS)
    if len(measured.gamma) < 4:
        raise InputError(f"semivariogram: {len(measured.gamma)} bins with pairs are too few to fit a model")
    weights = measured.pairs / measured.pairs.sum()
    made = _shape(model)(dim=2)
    try:
        made.fit_variogram(
            measured.distance_km, measured.gamma, weights=np.sqrt(weights), max_eval=20_000,
            init_guess={"len_scale": float(np.median(measured.distance_km)), "default": "current"},
        )  # fmt: skip
    except RuntimeError as error:
        raise InputError(f"semivariogram: the {model} model does not fit ({error})") from None
    found = Fit(model, float(made.nugget), float(made.var), float(made.len_scale) * _RANGE[model], 0.0)
    curve = found.expected(torch.as_tensor(measured.distance_km)).numpy()
    mean = weights @ measured.gamma
    spread = weights @ np.square(measured.gamma - mean)
    r2 = 1 - weights @ np.square(measured.gamma - curve) / spread if spread > 0 else 0.0
    return Fit(model, found.nugget, found.partial_sill, found.range_km, float(r2))


def pairwise_km(coordinates: Tensor) -> Tensor:
    """Great-circle distances between all of N coordinates: (N, 2) degrees → (N, N) kilometres, float64."""
    phi, lam = torch.deg2rad(coordinates.double()).unbind(dim=-1)
    a = (
        torch.sin((phi[:, None] - phi) / 2).square()
        + torch.cos(phi[:, None]) * torch.cos(phi) * torch.sin((lam[:, None] - lam) / 2).square()
    )
    return 2 * (EARTH_RADIUS_M / 1000) * torch.asin(a.clamp(max=1.0).sqrt())


def pair_weights(fitted: Fit, coordinates: Tensor, features: Tensor, strength: float = 1.0) -> Tensor:
    """How much each pair of a batch counts as a negative: (N, 2) degrees, (N, d) image features → (N, N) float32.

    With d = 1 − cos of a pair's features, γ(h) what is expected at its distance and s the sill, a pair more alike than
    expected (d < γ) is

    * beyond the range a hard negative: weight 1 + strength · (γ − d) / s;
    * within the range a false negative: weight (d / γ) ^ strength, which is 0 for identical images;

    and every other pair counts 1. `strength` 0 gives the plain loss. The diagonal is 1.
    """
    if strength < 0:
        raise InputError(f"semivariogram: strength {strength:g} is below 0")
    unit = F.normalize(features.double(), dim=-1)
    unlike = (1 - unit @ unit.T).clamp(min=0)
    distance = pairwise_km(coordinates)
    expected = fitted.expected(distance)
    hard = 1 + strength * (expected - unlike) / fitted.sill
    false = (unlike / expected.clamp(min=1e-12)).clamp(max=1) ** strength
    weight = torch.where(distance >= fitted.range_km, hard, false)
    weight = torch.where(unlike < expected, weight, torch.ones_like(weight))
    return weight.fill_diagonal_(1.0).float()


def kinds(fitted: Fit, coordinates: Tensor, features: Tensor) -> dict[str, float]:
    """Shares of the off-diagonal pairs that are hard negatives, false negatives and neither."""
    weight = pair_weights(fitted, coordinates, features)
    off = ~torch.eye(len(weight), dtype=torch.bool)
    hard, false = (weight[off] > 1).double().mean().item(), (weight[off] < 1).double().mean().item()
    return {"hard": hard, "false": false, "neither": 1 - hard - false}

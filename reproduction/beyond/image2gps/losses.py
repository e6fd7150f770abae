"""The losses of Image2GPS, as pure functions on tensors; coordinates are (…, 2) degrees (lat, lon)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from selm.maps.mercator import EARTH_RADIUS_M

_EPSILON = 1e-18  # under the roots: an angle of 2e-9 rad, a centimetre on the ground


def great_circle_m(a: Tensor, b: Tensor) -> Tensor:
    """Great-circle distance in metres, (…, 2) and (…, 2) degrees that broadcast → (…) float64, with finite gradients.

    h = sin²(Δφ/2) + cos φ₁ cos φ₂ sin²(Δλ/2) is a quarter of the squared chord between two points of the sphere, for
    any angles: also where a network's output runs out of range, h stays in 0 … 1 but for rounding (clamped here).
    What breaks the usual 2R asin √h is its gradient: 0 · ∞ at h = 0, where a prediction meets its target, and ∞ at
    h = 1. Here it is 2R atan2(√(h + ε), √(1 − h + ε)) less its value at h = 0: the gradient is 0 at both ends. In
    float64, since a float32 latitude is half a metre coarse.
    """
    phi1, lam1 = torch.deg2rad(a.double()).unbind(dim=-1)
    phi2, lam2 = torch.deg2rad(b.double()).unbind(dim=-1)
    h = torch.sin((phi2 - phi1) / 2).square()
    h = h + torch.cos(phi1) * torch.cos(phi2) * torch.sin((lam2 - lam1) / 2).square()
    h = h.clamp(0.0, 1.0)
    angle = torch.atan2((h + _EPSILON).sqrt(), (1 - h + _EPSILON).sqrt())
    return 2 * EARTH_RADIUS_M * (angle - math.atan2(math.sqrt(_EPSILON), math.sqrt(1 + _EPSILON)))


def haversine_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean great-circle distance in metres (the source's appendix B): (N, 2) degrees twice → scalar float64."""
    return great_circle_m(predicted, target).mean()


def normalised_mse(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of standardised coordinates, over both and over the batch: (N, 2) twice → scalar."""
    return (predicted.float() - target.float()).square().mean()


def distance_contrast(features: Tensor, coordinates: Tensor, tau_m: float) -> Tensor:
    """The source's contrastive loss (section 2.2.2): 1/(B(B−1)) Σ_{i≠j} (f_i·f_j − exp(−Hav_ij / τ))².

    features: (B, d), L2-normalised here; coordinates: (B, 2) degrees, not differentiated; tau_m in metres.
    """
    unit = F.normalize(features.float(), dim=-1)
    at = coordinates.detach()
    wanted = torch.exp(-great_circle_m(at[:, None], at[None]) / tau_m).float()
    error = (unit @ unit.T - wanted).square()
    n = len(features)
    return (error.sum() - error.diagonal().sum()) / (n * (n - 1))

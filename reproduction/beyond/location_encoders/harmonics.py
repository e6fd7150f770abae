"""Real spherical harmonics, orthonormal on the unit sphere, by the stable recurrence in degree."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from selm.errors import InputError


def real_harmonics(lat: Tensor, lon: Tensor, degrees: int) -> Tensor:
    """All real spherical harmonics of degree below `degrees`: (N,), (N,) radians → (N, degrees²) float64.

    The column of degree l and order m is l² + l + m. With θ = π/2 − lat, P̄ the orthonormal associated Legendre
    functions without the Condon-Shortley phase: Y_l0 = P̄_l0, Y_lm = √2 P̄_lm cos(m lon), Y_l,−m = √2 P̄_lm sin(m lon),
    so that ∫ Y² over the sphere is 1 (the basis of Rußwurm et al. 2024 and SatCLIP, up to the phase). P̄ follows the
    recurrence in l that starts at P̄_mm (Holmes and Featherstone 2002), stable in float64 for every degree of use here.
    """
    if degrees < 1:
        raise InputError(f"spherical harmonics: at least one degree is needed, not {degrees}")
    lat, lon = lat.double(), lon.double()
    up, out = torch.sin(lat), torch.cos(lat)  # cos θ and sin θ
    n = len(lat)
    orders = torch.arange(degrees, dtype=torch.float64, device=lat.device)
    turned = lon[:, None] * orders
    cosine, sine = torch.cos(turned) * math.sqrt(2), torch.sin(turned) * math.sqrt(2)
    result = lat.new_empty(n, degrees * degrees)
    before = lat.new_zeros(n, degrees)  # P̄ of degree l − 2, by order
    last = lat.new_zeros(n, degrees)  # of degree l − 1
    sectoral = lat.new_full((n,), math.sqrt(1 / (4 * math.pi)))  # P̄_ll
    for l in range(degrees):
        now = lat.new_zeros(n, degrees)
        if l > 0:
            m = orders[:l]  # P̄_lm = a (cos θ P̄_l−1,m − b P̄_l−2,m)
            a = ((4 * l * l - 1) / (l * l - m * m)).sqrt()
            b = (((l - 1) ** 2 - m * m).clamp(min=0) / (4 * (l - 1) ** 2 - 1)).sqrt() if l > 1 else torch.zeros_like(m)
            now[:, :l] = a * (up[:, None] * last[:, :l] - b * before[:, :l])
            sectoral = sectoral * out * math.sqrt((2 * l + 1) / (2 * l))
        now[:, l] = sectoral
        middle = l * l + l
        result[:, middle] = now[:, 0]
        if l > 0:
            result[:, middle + 1 : middle + l + 1] = now[:, 1 : l + 1] * cosine[:, 1 : l + 1]
            result[:, l * l : middle] = (now[:, 1 : l + 1] * sine[:, 1 : l + 1]).flip(1)
        before, last = last, now
    return result

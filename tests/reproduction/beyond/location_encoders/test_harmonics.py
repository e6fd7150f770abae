"""Spherical harmonics against scipy's, and their orthonormality by quadrature."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import torch

from reproduction.beyond.location_encoders.harmonics import real_harmonics
from selm.errors import InputError


def scipy_real(l: int, m: int, lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """The real harmonic of degree l and order m from scipy's complex ones, whose phase (−1)^m is taken out."""
    theta, k = np.pi / 2 - lat, abs(m)
    if hasattr(scipy.special, "sph_harm_y"):
        value = scipy.special.sph_harm_y(l, k, theta, lon)
    else:  # scipy before 1.15
        value = scipy.special.sph_harm(k, l, lon, theta)
    value = value * (-1.0) ** k
    return value.real if m == 0 else np.sqrt(2) * (value.real if m > 0 else value.imag)


def test_against_scipy_up_to_degree_40_poles_included() -> None:
    rng = np.random.default_rng(0)
    lat = np.concatenate([np.arcsin(rng.uniform(-1, 1, 20)), [np.pi / 2, -np.pi / 2, 0.0]])
    lon = np.concatenate([rng.uniform(-np.pi, np.pi, 20), [0.3, -2.0, 0.0]])
    found = real_harmonics(torch.tensor(lat), torch.tensor(lon), 41).numpy()
    assert found.shape == (23, 41 * 41) and found.dtype == np.float64
    for l in (*range(8), 15, 39, 40):
        for m in range(-l, l + 1):
            np.testing.assert_allclose(found[:, l * l + l + m], scipy_real(l, m, lat, lon), atol=1e-11, err_msg=(l, m))


def test_orthonormal_by_quadrature_at_degree_25() -> None:
    nodes, weights = np.polynomial.legendre.leggauss(32)
    lon = np.arange(64) * 2 * np.pi / 64
    lat, turn = (v.ravel() for v in np.meshgrid(np.arcsin(nodes), lon, indexing="ij"))
    area = np.repeat(weights, 64) * 2 * np.pi / 64
    basis = real_harmonics(torch.tensor(lat), torch.tensor(turn), 26).numpy()
    np.testing.assert_allclose(basis.T @ (area[:, None] * basis), np.eye(26 * 26), atol=1e-12)


def test_no_degrees_is_an_error() -> None:
    with pytest.raises(InputError, match="at least one degree"):
        real_harmonics(torch.zeros(1), torch.zeros(1), 0)

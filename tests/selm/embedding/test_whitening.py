"""Whitening against numpy's covariance and inverse, and what it leaves out."""

from __future__ import annotations

import numpy as np
import pytest

from selm.embedding.search import RIDGE, Nearest, whitening
from selm.errors import InputError


def vectors(n: int = 200, dim: int = 6, seed: int = 0) -> np.ndarray:
    """One direction that all share and that varies most, and few differences beside it."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, dim)) * [30, 3, 1, 1, 0.1, 0.1] + 50) @ np.linalg.qr(rng.normal(size=(dim, dim)))[0]


def test_cosines_are_those_of_the_inverse_covariance() -> None:
    gallery, asked = vectors(), vectors(20, seed=0) + np.random.default_rng(1).normal(size=(20, 6))
    covariance = np.cov(gallery.T, bias=True)
    inverse = np.linalg.inv(covariance + RIDGE * np.trace(covariance) / 6 * np.eye(6))
    a, b = gallery - gallery.mean(axis=0), asked - gallery.mean(axis=0)
    lengths = [np.sqrt(np.einsum("ni,ij,nj->n", x, inverse, x)) for x in (b, a)]
    expected = (b @ inverse @ a.T) / np.outer(*lengths)
    by = whitening(gallery)
    found = by(asked) @ by(gallery).T
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert by(asked).dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(by(gallery), axis=1), 1, atol=1e-6)


def test_every_direction_varies_alike_without_much_of_a_ridge() -> None:
    gallery = vectors()
    by = whitening(gallery, ridge=1e-9)
    np.testing.assert_allclose(np.cov(((gallery - by.mean) @ by.matrix).T, bias=True), np.eye(6), atol=1e-3)


def test_a_place_is_found_again_that_a_shared_direction_hides() -> None:
    """Questions differ from their places by noise in the strongest direction alone."""
    rng = np.random.default_rng(2)
    gallery = np.column_stack([100 * rng.normal(size=300), rng.normal(size=(300, 12))])
    asked = gallery + np.column_stack([rng.normal(size=300) * 30, np.zeros((300, 12))])
    here = np.zeros(300)
    by = whitening(gallery)

    def found(of: np.ndarray, questions: np.ndarray) -> float:
        rows, _ = Nearest(of, here, here, "euclidean").query(questions, 1)
        return float((rows[:, 0] == np.arange(300)).mean())

    assert found(gallery, asked) < 0.3 and found(by(gallery), by(asked)) > 0.9


def test_what_is_no_place_counts_for_nothing() -> None:
    gallery = vectors()
    gaps = np.vstack([gallery, np.full((3, 6), np.nan)])
    by, without = whitening(gaps), whitening(gallery)
    np.testing.assert_array_equal(by.mean, without.mean)
    assert np.isnan(by(gaps)[-3:]).all() and np.isfinite(by(gaps)[:-3]).all()


def test_an_encoder_that_says_the_same_of_all_places_is_not_saved_by_rounding() -> None:
    same = np.full((50, 6), 0.1234567) * (1 + 1e-8 * np.random.default_rng(0).normal(size=(50, 6)))
    assert not whitening(same)(same).any()


def test_bad_galleries_are_named() -> None:
    with pytest.raises(InputError, match="two places"):
        whitening(np.zeros((1, 4)))
    with pytest.raises(InputError, match="ridge above 0"):
        whitening(np.zeros((5, 4)), ridge=0)
    with pytest.raises(InputError, match="places, numbers"):
        whitening(np.zeros(5))
    with pytest.raises(InputError, match="of 6 numbers"):
        whitening(vectors())(np.zeros((2, 5)))

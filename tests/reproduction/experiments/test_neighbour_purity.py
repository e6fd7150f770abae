"""Neighbour purity against a slow loop and against cases whose answer is known; t-SNE keeps apart what is apart."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from reproduction.experiments.neighbour_purity import groups_of_equal_number, neighbour_purity, tsne
from selm.errors import InputError


def slow(x: np.ndarray, code: np.ndarray, k: int, apart: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    own, chance = np.full(len(x), np.nan), np.full(len(x), np.nan)
    for i in range(len(x)):
        others = [j for j in range(len(x)) if j != i and code[j] >= 0 and not apart[i, j]]
        if code[i] < 0 or not others:
            continue
        nearest = sorted(others, key=lambda j: float(np.linalg.norm(x[i] - x[j])))[:k]
        own[i] = np.mean([code[j] == code[i] for j in nearest])
        chance[i] = np.mean([code[j] == code[i] for j in others])
    return own, chance


@pytest.mark.parametrize("k", [1, 3, 50])
def test_equals_a_slow_loop(k: int) -> None:
    rng = np.random.default_rng(k)
    x, code = rng.normal(size=(40, 5)), rng.integers(-1, 4, 40)
    near = rng.random((40, 40)) < 0.1
    near |= near.T
    near[7] = near[:, 7] = True  # a place with no neighbours left
    code[7] = 2
    found = neighbour_purity(x, code, k, apart=sparse.csr_array(near))
    own, chance = slow(x, code, k, near)
    np.testing.assert_allclose(found.own, own)
    np.testing.assert_allclose(found.chance, chance)
    assert np.isnan(found.own[7]) and found.n == np.isfinite(own).sum()


def test_pure_clusters_and_pure_noise() -> None:
    rng = np.random.default_rng(0)
    code = np.repeat([0, 1, 2, 3], 50)
    clustered = neighbour_purity(rng.normal(size=(200, 8)) + 20 * np.eye(8)[code], code, 10)
    assert np.nanmean(clustered.own) == 1.0 and np.nanmean(clustered.chance) == pytest.approx(49 / 199)
    noise = neighbour_purity(rng.normal(size=(200, 8)), code, 10)
    assert abs(np.nanmean(noise.own) - np.nanmean(noise.chance)) < 0.04


def test_without_the_neighbours_next_door_purity_is_no_more_than_chance() -> None:
    """Twins share image and label: all of the purity is theirs, and goes when they may not be neighbours."""
    rng = np.random.default_rng(1)
    x, code = np.repeat(rng.normal(size=(60, 4)), 2, axis=0), np.repeat(rng.integers(0, 3, 60), 2)
    twins = sparse.csr_array(np.kron(np.eye(60), np.ones((2, 2))).astype(bool))
    assert np.nanmean(neighbour_purity(x, code, 1).own) == 1.0
    apart = neighbour_purity(x, code, 1, apart=twins)
    assert abs(np.nanmean(apart.own) - np.nanmean(apart.chance)) < 0.15


def test_labels_that_are_missing_take_no_part() -> None:
    x = np.arange(6.0)[:, None]
    found = neighbour_purity(x, np.array([0, -1, 0, 1, -1, 1]), 1)
    assert np.isnan(found.own[[1, 4]]).all()
    np.testing.assert_allclose(found.own[[0, 2, 3, 5]], [1, 0, 0, 1])  # 2's nearest with a label is 3
    assert neighbour_purity(x, np.full(6, -1), 1).n == 0
    with pytest.raises(InputError, match="k = 0"):
        neighbour_purity(x, np.zeros(6, int), 0)


def test_groups_of_equal_number() -> None:
    values = np.array([5.0, 1.0, np.nan, 3.0, 2.0, 4.0, 6.0])
    np.testing.assert_array_equal(groups_of_equal_number(values, 3), [2, 0, -1, 1, 0, 1, 2])
    np.testing.assert_array_equal(groups_of_equal_number([7.0, 7.0, 7.0, 9.0], 2), [0, 0, 0, 1])
    np.testing.assert_array_equal(groups_of_equal_number([np.nan], 5), [-1])


def test_tsne_keeps_clusters_apart_and_is_deterministic() -> None:
    rng = np.random.default_rng(0)
    code = np.repeat([0, 1, 2], 30)
    x = rng.normal(size=(90, 10)) + 15 * np.eye(10)[code]
    points = tsne(x, perplexity=8.0, seed=3)
    assert points.shape == (90, 3) and points.dtype == np.float32
    assert np.nanmean(neighbour_purity(points, code, 5).own) > 0.6  # by chance 0.33
    np.testing.assert_array_equal(points, tsne(x, perplexity=8.0, seed=3))
    with pytest.raises(InputError, match="perplexity 90"):
        tsne(x, perplexity=90.0)

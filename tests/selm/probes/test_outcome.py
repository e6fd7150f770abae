"""Top-k with ties, unseen classes and pooling, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from selm.probes.folds import OutOfFold, hits, missing


def slow_hit(scores: list[float], label: int, k: int) -> float:
    """Mean over every order of the tied classes, by counting the places left for them."""
    if scores[label] == -np.inf:
        return 0.0
    places = k - sum(s > scores[label] for s in scores)
    tied = sum(s == scores[label] for s in scores)
    return min(max(places / tied, 0.0), 1.0)


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("n_classes", [2, 4, 9])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_hits_equal_counting(k: int, n_classes: int, dtype: type) -> None:
    rng = np.random.default_rng(3)
    scores = rng.integers(0, 3, (200, n_classes)).astype(dtype)  # many ties
    scores[rng.random(scores.shape) < 0.1] = -np.inf
    labels = rng.integers(0, n_classes, 200)
    expected = [slow_hit(list(row), label, k) for row, label in zip(scores, labels, strict=True)]
    np.testing.assert_allclose(hits(scores, labels, k), expected, rtol=1e-6)


def test_equal_scores_are_chance_and_few_classes_always_hit() -> None:
    labels = np.arange(10)
    assert hits(np.zeros((10, 10)), labels, 1).mean() == pytest.approx(0.1)
    assert hits(np.zeros((10, 10)), labels, 5).mean() == pytest.approx(0.5)
    assert (hits(np.zeros((3, 3)), np.arange(3), 5) == 1.0).all()  # 3 classes fit into 5 places


def test_an_unseen_class_is_a_miss_even_where_places_are_left() -> None:
    assert hits(np.array([[1.0, -np.inf, 0.0]]), np.array([1]), 5) == 0.0


def test_values_pool_over_points_and_rows_are_tidy() -> None:
    score = np.full((2, 2, 4), np.nan, dtype=np.float32)
    score[0, 0] = [1, 2, 3, 6]
    score[0, 1, :2] = [4, 8]
    score[1, :, 0] = [5, 7]
    result = OutOfFold((1, 50), {"mse": score}, score, np.array([9, 9]), np.array([4, 2]))
    np.testing.assert_allclose(result.values("mse"), [[3, 6], [5, 7]])
    rows = result.rows(method="dino", seed=4)
    assert len(rows) == 4
    assert rows[1] == {
        "method": "dino", "seed": 4, "epochs": 1, "metric": "mse", "trial": 1, "value": 6.0, "n_train": 9, "n_test": 2,
    }  # fmt: skip


def test_missing_targets() -> None:
    assert missing(np.array([0.0, np.nan]), "regression").tolist() == [False, True]
    assert missing(np.array([0, -1, 4]), "classification").tolist() == [False, True, False]

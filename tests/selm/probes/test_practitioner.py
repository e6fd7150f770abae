"""The rows without an embedding, against loops and values worked out by hand; the marks on real data."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sklearn.utils.parallel
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor, HistGradientBoostingRegressor

from selm.errors import InputError
from selm.maps.colours import colour_histogram
from selm.probes import practitioner
from selm.probes.folds import random_folds
from selm.probes.practitioner import (
    boosting,
    class_prior,
    forest,
    knn,
    target_mean,
)


def places(n: int = 80) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    lat, lon = rng.uniform(42, 44, n), rng.uniform(140, 143, n)
    return lat, lon, np.sin(3 * lat) + lon - 141 + 0.1 * rng.normal(size=n)


def test_knn_is_the_inverse_distance_mean() -> None:
    lat, lon, price = places()
    price[9] = np.nan
    folds = random_folds(80, range(2), n_folds=4)
    result = knn(lat, lon, price, folds, task="regression", k=3)
    for draw in range(2):
        for i in range(80):
            if i == 9:
                assert np.isnan(result.predictions[0, draw, i])
                continue
            train = np.flatnonzero((folds[draw] != folds[draw, i]) & np.isfinite(price))
            distance = np.hypot(lat[train] - lat[i], lon[train] - lon[i])
            nearest = np.argsort(distance)[:3]
            weight = 1 / distance[nearest]
            expected = (weight * price[train[nearest]]).sum() / weight.sum()
            assert result.predictions[0, draw, i] == pytest.approx(expected, rel=1e-5)


def test_knn_votes_and_orders_the_rest_by_the_prior() -> None:
    # one cluster of class 0 next to the tested point, class 2 more frequent than class 1 elsewhere
    lat = np.array([0.0, 0.1, 0.2, 9.0, 9.1, 9.2, 9.3, 0.05])
    codes = np.array([0, 0, 0, 1, 2, 2, 2, 2])
    folds = np.array([[1, 1, 1, 1, 1, 1, 1, 0]])
    result = knn(lat, np.zeros(8), codes, folds, task="classification", k=2, test_folds=(0,))
    assert result.scores["top1"][0, 0, 7] == 0.0
    assert result.scores["top5"][0, 0, 7] == 1.0
    from selm.probes.folds import problems
    from selm.probes.practitioner import outputs_of

    layout = problems(codes, folds, "classification", test_folds=(0,))
    from sklearn.neighbors import KNeighborsClassifier

    scores = outputs_of(layout, 0, np.column_stack([lat, np.zeros(8)]), KNeighborsClassifier(2, weights="distance").fit)
    assert scores[0].argsort()[::-1].tolist() == [0, 2, 1]


def test_boosting_equals_one_fit_at_a_time() -> None:
    lat, lon, price = places()
    x = np.column_stack([lat, lon])
    folds = random_folds(80, [0], n_folds=2)
    result = boosting(x, price, folds, task="regression", max_iter=5, seed=4)
    for fold in range(2):
        train, test = folds[0] != fold, folds[0] == fold
        model = HistGradientBoostingRegressor(max_iter=5, random_state=4).fit(x[train], price[train])
        np.testing.assert_allclose(result.predictions[0, 0, test], model.predict(x[test]), rtol=1e-5)
    assert result.values("mse")[0, 0] < target_mean(price, folds).values("mse")[0, 0]


def test_boosting_classifies_with_single_points_and_unseen_classes() -> None:
    lat, lon, _ = places()
    codes = (lat > 43).astype(np.int64)
    codes[0] = 5
    folds = random_folds(80, [0], n_folds=4)
    result = boosting(np.column_stack([lat, lon]), codes, folds, task="classification")
    assert result.scores["top5"][0, 0, 0] == 0.0
    assert result.values("top1")[0, 0] > 0.9
    assert result.notes["classes_present"] == 3


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_forest_equals_one_fit_at_a_time(task: str) -> None:
    lat, lon, price = places()
    targets = price if task == "regression" else (lat > 43).astype(np.int64)
    x, folds = np.column_stack([lat, lon]).astype(np.float32), random_folds(80, [0], n_folds=2)
    result = forest(x, targets, folds, task=task, trees=10, seed=3)
    kind = ExtraTreesRegressor if task == "regression" else ExtraTreesClassifier
    for fold in range(2):
        train, test = folds[0] != fold, folds[0] == fold
        model = kind(10, random_state=3).fit(x[train], targets[train])
        if task == "regression":
            np.testing.assert_allclose(result.predictions[0, 0, test], model.predict(x[test]), rtol=1e-5)
        else:
            hit = model.predict_proba(x[test]).argmax(axis=1) == targets[test]
            assert (result.scores["top1"][0, 0, test] == hit).mean() > 0.97  # but for ties, which share
    assert result.values("mse" if task == "regression" else "top1").shape == (1, 1)


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_processes_change_no_number(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(40, 3))
    y = x[:, 0] + 0.1 * rng.normal(size=40) if task == "regression" else rng.integers(0, 3, 40)
    folds = random_folds(40, range(1))
    alone = forest(x, y, folds, task=task, trees=5)
    started: list[int] = []
    monkeypatch.setattr(practitioner, "WORTH_PROCESSES", len(folds[0]) * 10 * 3)
    monkeypatch.setattr(practitioner.torch, "get_num_threads", lambda: 2)
    parallel = sklearn.utils.parallel.Parallel

    def counted(n_jobs: int, backend: str) -> object:
        started.append(n_jobs)
        return parallel(n_jobs, backend=backend)

    monkeypatch.setattr(sklearn.utils.parallel, "Parallel", counted)
    together = forest(x, y, folds, task=task, trees=5)
    assert started == [2]
    np.testing.assert_array_equal(together.predictions, alone.predictions)


def test_class_prior_by_hand() -> None:
    codes = np.array([0] * 6 + [1] * 3 + [2] + [3])
    folds = np.array([[0, 1] * 5 + [1]])
    result = class_prior(codes, folds)
    # fold 0 tests rows 0 2 4 6 8 (three 0, two 1), trained on three 0, one 1, one 2 and one 3
    tested = folds[0] == 0
    np.testing.assert_allclose(result.scores["top1"][0, 0, tested], [1, 1, 1, 0, 0])
    np.testing.assert_allclose(result.scores["top5"][0, 0, tested], 1.0)
    # fold 1 tests class 2 and 3, unseen in training
    assert result.scores["top5"][0, 0, 9:].tolist() == [0.0, 0.0]
    assert result.notes["tested_of_unseen_class"] == 2
    assert result.notes["majority_share"] == pytest.approx((3 / 5 + 3 / 6) / 2)


def test_target_mean_by_hand() -> None:
    result = target_mean(np.array([1.0, 3.0, 10.0, np.nan]), np.array([[0, 0, 1, 1]]))
    np.testing.assert_allclose(result.predictions[0, 0], [10.0, 10.0, 2.0, np.nan])
    assert result.values("mse")[0, 0] == pytest.approx((81 + 49 + 64) / 3)


def test_features_with_a_hole_are_named() -> None:
    _, _, price = places()
    x = np.zeros((80, 2))
    x[31, 1] = np.inf
    with pytest.raises(InputError, match="row 31"):
        boosting(x, price, random_folds(80, [0]), task="regression")


@pytest.mark.realdata
def test_marks_on_the_official_points(real: Callable[[str], Path]) -> None:
    """k-NN on coordinates at Hokkaido's 1,371 points: 0.270 ± 0.005, measured before on the same file."""
    from reproduction.labels.land_price import read_l01

    points = read_l01(real("mlit/L01-2013.zip"))
    points = points[points["address"].str.startswith("北海道")]
    price = np.log(points["price_yen_m2"].to_numpy())
    price = (price - price.mean()) / price.std()
    assert len(price) == 1371
    result = knn(points["lat"], points["lon"], price, random_folds(1371, range(3)), task="regression")
    assert result.values("mse").mean() == pytest.approx(0.270, abs=0.012)


@pytest.mark.skipif("SELM_ATLAS_HOKKAIDO" not in os.environ, reason="SELM_ATLAS_HOKKAIDO does not name a drawn atlas")
@pytest.mark.realdata
def test_marks_of_histograms(real: Callable[[str], Path]) -> None:
    """Boosting on the colours around a point: zoom 14 says much more about its price than zoom 17 (0.263, 0.575)."""
    from reproduction.labels.land_price import read_l01
    from selm.maps.atlas import Atlas

    points = read_l01(real("mlit/L01-2013.zip"))
    points = points[points["address"].str.startswith("北海道")]
    price = np.log(points["price_yen_m2"].to_numpy())
    price = (price - price.mean()) / price.std()
    atlas = Atlas(os.environ["SELM_ATLAS_HOKKAIDO"])
    lat, lon = points["lat"].to_numpy(), points["lon"].to_numpy()
    colours = {zoom: colour_histogram(atlas.indices(lat, lon, zoom, atlas.tile_px), atlas.palette) for zoom in (17, 14)}
    error = {
        zoom: boosting(colours[zoom], price, random_folds(1371, [0]), task="regression").values("mse").mean()
        for zoom in (17, 14)
    }
    assert error[17] == pytest.approx(0.575, abs=0.06)
    assert error[14] == pytest.approx(0.263, abs=0.06)

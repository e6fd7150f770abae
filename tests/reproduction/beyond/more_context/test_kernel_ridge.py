"""The probe against its equation, term by term."""

from __future__ import annotations

import math

import numpy as np
import pytest

from reproduction.beyond.more_context.kernel_ridge import KernelRidge, kernel_ridge, kernel_ridges
from selm.errors import InputError
from selm.maps.mercator import haversine_m
from selm.probes.folds import random_folds


def places(n: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    lat, lon = 43 + 0.5 * rng.random(n), 141 + 0.5 * rng.random(n)
    x = rng.normal(size=(n, 3)) * (1, 10, 0.1) + (0, 5, -3)
    y = x[:, 0] + 0.1 * x[:, 1] + np.sin(8 * lat) + 0.1 * rng.normal(size=n)
    return x, lat, lon, y


def slow(x, lat, lon, y, fold, tested, s: KernelRidge) -> np.ndarray:
    """Every kernel value on its own; the linear system by numpy."""
    train, test = np.flatnonzero(fold != tested), np.flatnonzero(fold == tested)
    z = (x - x[train].mean(axis=0)) / x[train].std(axis=0)

    def kernel(i: int, j: int) -> float:
        if s.width:
            apart = sum((z[i, k] - z[j, k]) ** 2 for k in range(z.shape[1])) / z.shape[1]
            alike = math.exp(-apart / (2 * s.width**2))
        else:
            alike = sum(z[i, k] * z[j, k] for k in range(z.shape[1])) / z.shape[1]
        km = haversine_m(lat[i], lon[i], lat[j], lon[j]) / 1000
        return alike + s.share * math.exp(-(km**2) / (2 * s.km**2))

    own = np.array([[kernel(i, j) + s.penalty * (i == j) for j in train] for i in train])
    dual = np.linalg.solve(own, y[train] - y[train].mean())
    return np.array([sum(kernel(i, j) * a for j, a in zip(train, dual, strict=True)) for i in test]) + y[train].mean()


@pytest.mark.parametrize(
    "settings",
    [
        KernelRidge(0.3), KernelRidge(1.0, 0.0, 0.5, 10.0), KernelRidge(0.1, 0.0, 2.0, 40.0), KernelRidge(0.3, 1.5),
        KernelRidge(0.1, 0.7, 0.5, 10.0),
    ],
)  # fmt: skip
def test_predictions_are_those_of_the_equation(settings: KernelRidge) -> None:
    x, lat, lon, y = places()
    folds = random_folds(40, range(2), n_folds=4)
    done = kernel_ridge(x, lat, lon, y, folds, settings)
    for draw in range(2):
        for fold in range(4):
            test = folds[draw] == fold
            expected = slow(x, lat, lon, y, folds[draw], fold, settings)
            np.testing.assert_allclose(done.predictions[0, draw, test], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(done.scores["mse"][0], (done.predictions[0] - y) ** 2, rtol=1e-4, atol=1e-5)


def test_several_tries_at_once_change_no_number() -> None:
    x, lat, lon, y = places()
    folds = random_folds(40, range(2), n_folds=4)
    tries = [KernelRidge(0.3), KernelRidge(1.0, 0.0, 0.5, 10.0), KernelRidge(3.0, 1.0), KernelRidge(3.0, 2.0)]
    for settings, together in zip(tries, kernel_ridges(x, lat, lon, y, folds, tries), strict=True):
        alone = kernel_ridge(x, lat, lon, y, folds, settings)
        np.testing.assert_array_equal(together.predictions, alone.predictions)


def test_a_field_helps_where_the_target_has_one() -> None:
    x, lat, lon, y = places(200)
    folds = random_folds(200, range(2))
    alone, beside = (
        kernel_ridge(x, lat, lon, y, folds, KernelRidge(0.1, 0.0, share, 10.0)).values("mse").mean()
        for share in (0.0, 1.0)
    )
    assert beside < 0.7 * alone


def test_a_gaussian_kernel_follows_what_a_linear_one_cannot() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2))
    lat, lon = 43 + rng.random(300), 141 + rng.random(300)
    y = np.abs(x[:, 0])
    folds = random_folds(300, range(1))
    straight, bent = (kernel_ridge(x, lat, lon, y, folds, KernelRidge(0.1, w)).values("mse").mean() for w in (0.0, 0.7))
    assert bent < 0.2 * straight


def test_bad_settings_are_named() -> None:
    x, lat, lon, y = places()
    folds = random_folds(40, range(1))
    for bad in (KernelRidge(0.0), KernelRidge(1.0, -1.0), KernelRidge(1.0, share=-1.0), KernelRidge(1.0, km=0.0)):
        with pytest.raises(InputError, match="penalty and km must be above 0, width and share 0 or more"):
            kernel_ridge(x, lat, lon, y, folds, bad)
    with pytest.raises(InputError, match="features: 39 rows, but folds are of 40 points"):
        kernel_ridge(x[:39], lat[:39], lon[:39], y, folds, KernelRidge())

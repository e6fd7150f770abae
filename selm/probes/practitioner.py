"""What a practitioner would do without an embedding: coordinates and colour histograms into standard learners.

These rows are the measure of an embedding's worth: it earns its place where it beats, or adds to, them on places far
from the training points.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from selm.errors import InputError
from selm.probes.folds import BufferedFolds, Collector, OutOfFold, Problems, problems

_SMOOTHING = 1e-6  # weight of the class prior where a classifier's scores tie
# Numbers (models × points × features) from which trees go to several processes: seconds of work. To start them takes
# some seconds, once in a run.
WORTH_PROCESSES = 500_000


def knn(
    lat: ArrayLike,
    lon: ArrayLike,
    targets: ArrayLike,
    folds: ArrayLike | BufferedFolds,
    *,
    task: str,
    k: int = 5,
    test_folds: tuple[int, ...] | None = None,
    progress: bool = False,
) -> OutOfFold:
    """The inverse-distance mean (or vote) of the k nearest training points in degrees of longitude and latitude.

    Classes without a vote are ordered by their share of the training fold.
    """
    from sklearn import neighbors

    coordinates = np.column_stack([lon, lat]).astype(np.float64)

    def fit(x: NDArray[Any], y: NDArray[Any]) -> Any:
        kind = neighbors.KNeighborsRegressor if task == "regression" else neighbors.KNeighborsClassifier
        return kind(min(k, len(y)), weights="distance").fit(x, y)

    return _each(coordinates, targets, folds, task, fit, test_folds, 1, f"{k}-NN", progress)


def boosting(
    features: ArrayLike,
    targets: ArrayLike,
    folds: ArrayLike | BufferedFolds,
    *,
    task: str,
    seed: int = 0,
    max_iter: int | None = None,
    n_jobs: int | None = None,
    test_folds: tuple[int, ...] | None = None,
    progress: bool = False,
) -> OutOfFold:
    """Gradient-boosted trees (scikit-learn's histogram-based ones, as they come) on features (N, d).

    max_iter: rounds, by default 100 for regression and 20 for classification, where a round grows a tree a class.
    n_jobs: processes that share the models, each with one thread; by default as many as PyTorch uses threads, or one
        where there is little to do.
    """
    from sklearn import ensemble  # scikit-learn takes a second: not for those who grow no trees

    rounds = max_iter if max_iter is not None else (100 if task == "regression" else 20)

    def fit(x: NDArray[Any], y: NDArray[Any]) -> Any:
        if task == "regression":
            return ensemble.HistGradientBoostingRegressor(max_iter=rounds, random_state=seed).fit(x, y)
        # early_stopping="auto" would hold points out at random, which fails for classes with a single one
        model = ensemble.HistGradientBoostingClassifier(max_iter=rounds, random_state=seed, early_stopping=False)
        return model.fit(x, y)

    x = np.asarray(features, dtype=np.float64)
    return _each(x, targets, folds, task, fit, test_folds, n_jobs, "boosting", progress)


def forest(
    features: ArrayLike,
    targets: ArrayLike,
    folds: ArrayLike | BufferedFolds,
    *,
    task: str,
    seed: int = 0,
    trees: int = 200,
    n_jobs: int | None = None,
    test_folds: tuple[int, ...] | None = None,
    progress: bool = False,
) -> OutOfFold:
    """Extremely randomised trees (scikit-learn's, as they come) on features (N, d).

    For many classes: boosting grows a tree a class and round, a forest one tree for all. Arguments as in `boosting`.
    """
    from sklearn import ensemble

    def fit(x: NDArray[Any], y: NDArray[Any]) -> Any:
        kind = ensemble.ExtraTreesRegressor if task == "regression" else ensemble.ExtraTreesClassifier
        return kind(trees, random_state=seed).fit(x, y)

    x = np.asarray(features, dtype=np.float32)
    return _each(x, targets, folds, task, fit, test_folds, n_jobs, "forest", progress)


def class_prior(
    targets: ArrayLike, folds: ArrayLike | BufferedFolds, *, test_folds: tuple[int, ...] | None = None
) -> OutOfFold:
    """Ignore the place: every test point gets the classes in the order of their share of the training fold."""
    layout = problems(targets, folds, "classification", test_folds=test_folds)
    collected = Collector(layout, (0,))
    for p in range(len(layout.draw)):
        prior = _prior(layout, p)
        collected.add(0, p, np.broadcast_to(prior, (int(layout.test[p].sum()), layout.n_classes)))
    shares = np.array([_prior(layout, p).max() for p in range(len(layout.draw))])
    return collected.result(majority_share=float(shares.mean()))


def target_mean(
    targets: ArrayLike, folds: ArrayLike | BufferedFolds, *, test_folds: tuple[int, ...] | None = None
) -> OutOfFold:
    """Ignore the place: every test point gets the training fold's mean."""
    layout = problems(targets, folds, "regression", test_folds=test_folds)
    collected = Collector(layout, (0,))
    for p, draw in enumerate(layout.draw):
        mean = layout.targets[draw, layout.train[p]].mean()
        collected.add(0, p, np.full((int(layout.test[p].sum()), 1), mean))
    return collected.result()


def _prior(layout: Problems, p: int) -> NDArray[np.float64]:
    """(C,): share of each class among the training points of problem p."""
    counts = np.bincount(layout.targets[layout.draw[p], layout.train[p]], minlength=layout.n_classes)
    return counts / counts.sum()


def outputs_of(layout: Problems, p: int, x: NDArray[Any], fit: Callable[[Any, Any], Any]) -> NDArray[np.float64]:
    """Fit problem p's model and apply it to its test points: (n_test, 1) or (n_test, C)."""
    train, test = layout.train[p], layout.test[p]
    y = layout.targets[layout.draw[p], train]
    if layout.task == "regression":
        return np.asarray(fit(x[train], y).predict(x[test]), dtype=np.float64)[:, None]
    scores = np.zeros((int(test.sum()), layout.n_classes))
    seen = np.unique(y)
    if len(seen) == 1:
        scores[:, seen] = 1.0
        return scores
    model = fit(x[train], y)
    scores[:, model.classes_] = model.predict_proba(x[test])
    return scores + _SMOOTHING * _prior(layout, p)


def _each(
    x: NDArray[Any], targets: ArrayLike, folds: ArrayLike | BufferedFolds, task: str, fit: Callable[[Any, Any], Any],
    test_folds: tuple[int, ...] | None, n_jobs: int | None, name: str, progress: bool,
) -> OutOfFold:  # fmt: skip
    from sklearn.utils.parallel import Parallel, delayed

    layout = problems(targets, folds, task, test_folds=test_folds)
    if x.ndim != 2 or len(x) != layout.n_points:
        raise InputError(f"features: shape {x.shape}, but folds are of {layout.n_points} points")
    if not np.isfinite(x).all():
        row = int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0])
        raise InputError(f"features: row {row} holds NaN or infinity")
    collected = Collector(layout, (0,))
    models = len(layout.draw)
    if n_jobs is None:
        n_jobs = min(torch.get_num_threads(), models) if models * x.size >= WORTH_PROCESSES else 1
    numbers = tqdm(range(models), desc=name, disable=not progress, leave=False)
    run = Parallel(n_jobs=n_jobs, backend="sequential" if n_jobs == 1 else "loky")
    with threadpool_limits(1, "openmp"):  # on so few places, threads of a tree wait for each other: up to ten times
        for p, outputs in enumerate(run(delayed(outputs_of)(layout, p, x, fit) for p in numbers)):
            collected.add(0, p, outputs)
    return collected.result()

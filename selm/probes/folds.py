"""Trials, folds and out-of-fold scores: what is trained on, what is tested and what comes of it, for every probe alike.

A fold array is int64 (T, N): the fold of each point in each of T draws, −1 where the point takes no part.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from selm.errors import InputError, unknown
from selm.maps.sphere import Neighbourhood

TASKS = ("regression", "classification")


@dataclass(frozen=True)
class OutOfFold:
    """Scores of points by models that were not trained on them.

    T trials (fold draws), N points, E evaluations during training.

    epochs: downstream epochs of each evaluation; (0,) for a probe that is not trained by epochs.
    scores: metric → (E, T, N) float32, the point's share in the metric: squared error (``mse``), hit or share of a
        hit (``top1``, ``top5``); NaN where the point was not tested.
    predictions: (E, T, N) float32, the predicted value or class code; NaN where not tested.
    n_train: (T,) training points of a model (mean over the folds, rounded).  n_test: (T,) points tested.
    notes: facts to print beside the numbers (classes present, chosen penalties, …).
    """

    epochs: tuple[int, ...]
    scores: dict[str, NDArray[np.float32]]
    predictions: NDArray[np.float32]
    n_train: NDArray[np.int64]
    n_test: NDArray[np.int64]
    notes: dict[str, Any] = field(default_factory=dict)

    def values(self, metric: str) -> NDArray[np.float64]:
        """(E, T): the metric of each trial, pooled over its tested points."""
        return np.nanmean(self.scores[metric].astype(np.float64), axis=2)

    def rows(self, **columns: Any) -> list[dict[str, Any]]:
        """One row of the tidy results table for each evaluation, metric and trial, with `columns` copied into each."""
        return [
            {
                **columns,
                "epochs": epochs,
                "metric": metric,
                "trial": trial,
                "value": float(value),
                "n_train": int(self.n_train[trial]),
                "n_test": int(self.n_test[trial]),
            }
            for metric in self.scores
            for epochs, by_trial in zip(self.epochs, self.values(metric), strict=True)
            for trial, value in enumerate(by_trial)
        ]


def hits(scores: NDArray[Any], labels: NDArray[Any], k: int) -> NDArray[np.float32]:
    """Top-k accuracy of each row: (n, C) class scores, (n,) true codes → (n,) in [0, 1].

    Classes that tie for the last places share them, so that a row of equal scores gets k / C, whatever the order of
    the classes. A true class scored −inf (unseen in training) is a miss, also where fewer than k classes were seen.
    """
    true = np.take_along_axis(scores, labels[:, None].astype(np.int64), axis=1)
    above = (scores > true).sum(axis=1)
    tied = (scores == true).sum(axis=1)
    share = np.clip((k - above) / np.maximum(tied, 1), 0.0, 1.0)
    return np.where(np.isneginf(true[:, 0]), 0.0, share).astype(np.float32)


def classification_scores(scores: NDArray[Any], labels: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
    """(n, C) class scores and (n,) true codes → the points' top-1 and top-5 hits."""
    return {"top1": hits(scores, labels, 1), "top5": hits(scores, labels, 5)}


def missing(targets: NDArray[Any], task: str) -> NDArray[np.bool_]:
    """Where a target is missing: NaN for regression, a negative code for classification."""
    return ~np.isfinite(targets) if task == "regression" else targets < 0


def random_folds(n: int, draws: Iterable[int] = range(10), n_folds: int = 10) -> NDArray[np.int64]:
    """Plain shuffled folds of `n` points: draw d is shuffled with seed d; sizes differ by at most one. (T, n)."""
    rows = []
    for draw in draws:
        fold = np.arange(n, dtype=np.int64) % n_folds
        np.random.default_rng(draw).shuffle(fold)
        rows.append(fold)
    return np.stack(rows)


@dataclass(frozen=True)
class BufferedFolds:
    """Folds with a buffer: no model learns from a point that lies near one it is tested on.

    fold: int64 (T, N).  near: which points lie within the buffer of each other: sparse bool (N, N), symmetric, or a
        `Neighbourhood` of the N points, which takes no memory for pairs.
    Pass one wherever a probe takes `folds`.
    """

    fold: NDArray[np.int64]
    near: sparse.csr_array | Neighbourhood

    def buffer_of(self, tested: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether each point lies within the buffer of a tested one; bool (N,) both."""
        if isinstance(self.near, Neighbourhood):
            return self.near.of(tested)
        return np.asarray(self.near @ tested.astype(np.int32), dtype=bool)


@dataclass(frozen=True)
class Problems:
    """Every model to be trained: one a draw and fold.

    targets: (T, N), missing ones included.  draw, fold: (P,) of each problem.
    train, test: (P, N) bool; points without a target or with fold −1 are in neither.
    """

    task: str
    targets: NDArray[Any]
    draw: NDArray[np.int64]
    fold: NDArray[np.int64]
    train: NDArray[np.bool_]
    test: NDArray[np.bool_]
    n_classes: int  # 1 for regression

    @property
    def n_draws(self) -> int:
        return self.targets.shape[0]

    @property
    def n_points(self) -> int:
        return self.targets.shape[1]

    def seen(self) -> NDArray[np.bool_]:
        """(P, C): which classes each problem's training points hold."""
        seen = np.zeros((len(self.draw), self.n_classes), dtype=bool)
        for problem, draw in enumerate(self.draw):
            seen[problem, self.targets[draw, self.train[problem]]] = True
        return seen

    def sizes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(T,) training points of a model, mean over the folds, and (T,) points tested."""
        n_train = [round(self.train[self.draw == draw].sum(axis=1).mean()) for draw in range(self.n_draws)]
        n_test = [int(self.test[self.draw == draw].sum()) for draw in range(self.n_draws)]
        return np.array(n_train, dtype=np.int64), np.array(n_test, dtype=np.int64)

    def notes(self) -> dict[str, Any]:
        """What to print beside the numbers: points left out, classes present, tested points of unseen classes."""
        took_part = self.train | self.test
        notes: dict[str, Any] = {"points": int(took_part.any(axis=0).sum()), "problems": len(self.draw)}
        if self.task == "classification":
            codes = self.targets[self.draw[:, None], np.arange(self.n_points)]
            seen = np.take_along_axis(self.seen(), np.maximum(codes, 0), axis=1)
            notes["classes_present"] = len(np.unique(codes[took_part]))
            notes["tested_of_unseen_class"] = int((self.test & ~seen).sum())
            notes["tested"] = int(self.test.sum())
        return notes


def problems(
    targets: ArrayLike, folds: ArrayLike | BufferedFolds, task: str, *, test_folds: tuple[int, ...] | None = None
) -> Problems:
    """Lay out the models that `folds` asks for.

    targets: (N,) or, where they depend on the draw (interpolated prices), (T, N): floats with NaN for missing, or
        class codes with −1 for missing.
    test_folds: None trains one model a fold and tests each fold once; otherwise one model a draw is tested on these
        folds together and trained on the others.
    Raises InputError where a model would have nothing to train on or a draw nothing to test on.
    """
    if task not in TASKS:
        raise unknown("task", task, TASKS)
    fold_array = np.asarray(folds.fold if isinstance(folds, BufferedFolds) else folds)
    if fold_array.ndim != 2:
        raise InputError(f"folds: expected an array (draws, points), got shape {fold_array.shape}")
    n_draws, n = fold_array.shape
    target_array = np.asarray(targets, dtype=np.float64 if task == "regression" else None)
    if task == "classification" and not np.issubdtype(target_array.dtype, np.integer):
        raise InputError("targets: classification needs integer class codes, -1 where missing")
    if target_array.shape not in ((n,), (n_draws, n)):
        raise InputError(f"targets: shape {target_array.shape} does not fit folds of shape {fold_array.shape}")
    target_array = np.broadcast_to(target_array, (n_draws, n))
    usable = ~missing(target_array, task) & (fold_array >= 0)
    draws, numbers, trains, tests = [], [], [], []
    for draw in range(n_draws):
        groups = [test_folds] if test_folds is not None else [(int(f),) for f in np.unique(fold_array[draw]) if f >= 0]
        for group in groups:
            tested = np.isin(fold_array[draw], group) & usable[draw]
            trained = usable[draw] & ~tested
            if isinstance(folds, BufferedFolds):
                trained &= ~folds.buffer_of(tested)
            if not tested.any() and test_folds is None:
                continue  # a fold whose points all lack a target
            if not trained.any() or not tested.any():
                side = "train on" if tested.any() else "test on"
                if tested.any() and isinstance(folds, BufferedFolds) and (usable[draw] & ~tested).any():
                    side += ": all others lie within the buffer of those tested"
                raise InputError(f"folds: draw {draw}, fold {', '.join(map(str, group))}: no points to {side}")
            draws.append(draw)
            numbers.append(group[0])
            trains.append(trained)
            tests.append(tested)
        if draw not in draws:
            raise InputError(f"folds: draw {draw} has no points to test on")
    n_classes = int(target_array.max()) + 1 if task == "classification" else 1
    return Problems(
        task, target_array, np.array(draws), np.array(numbers), np.stack(trains), np.stack(tests), n_classes
    )


class Collector:
    """Gathers the outputs of models as they come in, by evaluation and problem, into an `OutOfFold`."""

    def __init__(self, layout: Problems, epochs: tuple[int, ...]):
        self.layout = layout
        self.epochs = epochs
        shape = (len(epochs), layout.n_draws, layout.n_points)
        metrics = ("mse",) if layout.task == "regression" else ("top1", "top5")
        self.scores = {metric: np.full(shape, np.nan, dtype=np.float32) for metric in metrics}
        self.predictions = np.full(shape, np.nan, dtype=np.float32)
        self.seen = layout.seen() if layout.task == "classification" else None

    def add(self, evaluation: int, problem: int, outputs: NDArray[np.floating]) -> None:
        """outputs: (n_test, 1) predicted values or (n_test, C) class scores of the problem's test points."""
        draw, test = self.layout.draw[problem], self.layout.test[problem]
        truth = self.layout.targets[draw, test]
        if self.seen is None:
            self.predictions[evaluation, draw, test] = outputs[:, 0]
            self.scores["mse"][evaluation, draw, test] = np.square(outputs[:, 0] - truth)
        else:
            outputs = np.where(self.seen[problem], outputs, -np.inf)
            self.predictions[evaluation, draw, test] = outputs.argmax(axis=1)
            for metric, score in classification_scores(outputs, truth).items():
                self.scores[metric][evaluation, draw, test] = score

    def result(self, **notes: object) -> OutOfFold:
        n_train, n_test = self.layout.sizes()
        return OutOfFold(self.epochs, self.scores, self.predictions, n_train, n_test, {**self.layout.notes(), **notes})

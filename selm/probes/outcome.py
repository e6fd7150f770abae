"""What every probe returns: out-of-fold scores of each point, and the rows of the results table they make."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selm.errors import InputError

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

    def mean_scores(self, metric: str) -> NDArray[np.float64]:
        """(E, N): each point's score, averaged over the trials that tested it; NaN for points never tested."""
        scores = self.scores[metric].astype(np.float64)
        tested = np.isfinite(scores).sum(axis=1)
        return np.where(tested > 0, np.nansum(scores, axis=1) / np.maximum(tested, 1), np.nan)

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


def check_task(task: str) -> None:
    if task not in TASKS:
        raise InputError(f"unknown task '{task}' (there are: {', '.join(TASKS)})")


def missing(targets: NDArray[Any], task: str) -> NDArray[np.bool_]:
    """Where a target is missing: NaN for regression, a negative code for classification."""
    return ~np.isfinite(targets) if task == "regression" else targets < 0

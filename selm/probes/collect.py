"""From the outputs of each model to out-of-fold scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from selm.probes.folds import Problems
from selm.probes.outcome import OutOfFold, classification_scores


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

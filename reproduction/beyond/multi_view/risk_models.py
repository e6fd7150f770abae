"""The models that Holvoet et al. (2025) give their embeddings to: a GLM, a GAM and boosting, on the log price.

The target is a logarithm, so the GLM is the linear probe (Gaussian, identity link, ridge) and the GAM a sum of
penalised splines, pyGAM's. Boosting is the practitioner's.
"""

from __future__ import annotations

import importlib.util
import operator
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from selm.errors import InputError
from selm.probes.folds import BufferedFolds, Collector, OutOfFold, problems
from selm.probes.practitioner import outputs_of

SMOOTHING = (0.1, 1.0, 10.0, 100.0, 1000.0)  # penalties of the splines: the one of least GCV, the same for all terms
SPLINES = 10  # of a term; in each direction for coordinates


def has_gam() -> bool:
    """Whether pyGAM is installed."""
    return importlib.util.find_spec("pygam") is not None


class Additive:
    """A GAM on (N, d) features: one spline a feature, or for `surface` one surface over two (a tensor product).

    Features are standardised by the training places; more than `most` enter as their first `most` principal components.
    Beyond what was trained on, a spline keeps its value at the edge.
    """

    def __init__(self, most: int, surface: bool):
        self.most, self.surface = most, surface

    def fit(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> Additive:
        from pygam import LinearGAM, s, te
        from sklearn.decomposition import PCA
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        parts: list[Any] = [StandardScaler()]
        if x.shape[1] > self.most:
            parts.append(PCA(self.most, random_state=0))
        self.turn = make_pipeline(*parts).fit(x)
        z = self.turn.transform(x)
        self.low, self.high = z.min(axis=0), z.max(axis=0)
        spread = np.flatnonzero(self.high > self.low)
        if self.surface and z.shape[1] != 2:
            raise InputError(f"a surface is over two features, not {z.shape[1]}")
        if not len(spread):
            raise InputError("GAM: every feature is the same at all places")
        one_each = [s(int(i), n_splines=SPLINES) for i in spread]
        terms = te(0, 1, n_splines=SPLINES) if self.surface else reduce(operator.add, one_each)
        fitted = [LinearGAM(terms, lam=penalty).fit(z, y) for penalty in SMOOTHING]
        self.model = min(fitted, key=lambda model: float(model.statistics_["GCV"]))
        return self

    def predict(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        z = np.clip(self.turn.transform(x), self.low, self.high)
        return np.asarray(self.model.predict(z), np.float64)


def gam(
    features: ArrayLike, targets: ArrayLike, folds: ArrayLike | BufferedFolds, *, most: int, surface: bool = False,
    test_folds: tuple[int, ...] | None = None,
) -> OutOfFold:  # fmt: skip
    """`Additive` on features (N, d), scored out of fold; arguments otherwise as in `selm.probes.practitioner.boosting`.

    Raises InputError where pyGAM is not installed.
    """
    if not has_gam():
        raise InputError("the GAM needs pyGAM: pip install '.[gam]'")
    x = np.asarray(features, np.float64)
    layout = problems(targets, folds, "regression", test_folds=test_folds)
    if x.ndim != 2 or len(x) != layout.n_points:
        raise InputError(f"features: shape {x.shape}, but folds are of {layout.n_points} points")
    collected = Collector(layout, (0,))
    for p in range(len(layout.draw)):
        collected.add(0, p, outputs_of(layout, p, x, lambda a, b: Additive(most, surface).fit(a, b)))
    return collected.result()

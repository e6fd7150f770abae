"""A linear probe on features beside a smooth local field of the coordinates: what an embedding adds to the place.

Kernel ridge regression (a Gaussian process' mean) with the sum of two kernels: a linear one on standardised features,
and `share` times a Gaussian one of length `km` on the ground. `share` 0 leaves the linear probe alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from selm.errors import InputError
from selm.labels.neighbours import chords
from selm.probes.collect import Collector
from selm.probes.folds import BufferedFolds, problems
from selm.probes.frozen import conditioned, fold_statistics
from selm.probes.outcome import OutOfFold


@dataclass(frozen=True)
class LocalField:
    """`penalty` on the squared norm, relative to a mean squared feature of 1; see the module for the others."""

    penalty: float = 0.5
    share: float = 0.0
    km: float = 20.0


def local_field(
    features: ArrayLike | Tensor, lat: ArrayLike, lon: ArrayLike, targets: ArrayLike,
    folds: ArrayLike | BufferedFolds, settings: LocalField,
) -> OutOfFold:  # fmt: skip
    """Out-of-fold predictions of the probe.

    features (N, d); lat, lon (N,) degrees; targets and folds as in `selm.probes.folds.problems` (regression).
    Raises InputError for settings that are no numbers above 0, or features of another length.
    """
    return local_fields(features, lat, lon, targets, folds, [settings])[0]


def local_fields(
    features: ArrayLike | Tensor, lat: ArrayLike, lon: ArrayLike, targets: ArrayLike,
    folds: ArrayLike | BufferedFolds, tries: Sequence[LocalField],
) -> list[OutOfFold]:  # fmt: skip
    """`local_field` for several settings, which share the features' kernel."""
    for settings in tries:
        if settings.penalty <= 0 or settings.share < 0 or settings.km <= 0:
            raise InputError(f"local field: penalty and km must be above 0 and share 0 or more, not {settings}")
    x = conditioned(features)
    layout = problems(targets, folds, "regression")
    if len(x) != layout.n_points:
        raise InputError(f"features: {len(x)} rows, but folds are of {layout.n_points} points")
    fields: dict[LocalField, Tensor | float] = dict.fromkeys(tries, 0.0)
    if any(settings.share for settings in tries):
        km = torch.as_tensor(chords(lat, lon) / 1000)
        fields = {s: s.share * torch.exp(-km.square() / (2 * s.km**2)) if s.share else 0.0 for s in tries}
    outputs = [Collector(layout, (0,)) for _ in tries]
    mean, deviation = fold_statistics(x, layout.train)
    for p in range(len(layout.draw)):
        z = (x - mean[p]) / deviation[p]
        linear = z @ z.T / z.shape[1]
        train, test = torch.as_tensor(layout.train[p]), torch.as_tensor(layout.test[p])
        y = torch.as_tensor(np.array(layout.targets[layout.draw[p], layout.train[p]]))
        for settings, output in zip(tries, outputs, strict=True):
            kernel = linear + fields[settings]
            own = kernel[train][:, train]
            own.diagonal().add_(settings.penalty)
            dual = torch.cholesky_solve((y - y.mean())[:, None], torch.linalg.cholesky(own))
            output.add(0, p, (kernel[test][:, train] @ dual + y.mean()).numpy())
    return [output.result() for output in outputs]

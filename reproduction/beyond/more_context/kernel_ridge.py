"""Kernel ridge regression on features, alone or beside a smooth local field of the coordinates.

The kernel (a Gaussian process' mean with it) is that of the features, standardised and divided by the root of their
number: linear, or Gaussian of a `width`; and beside it `share` times a Gaussian one of length `km` on the ground. With
`share` 0 the probe does not know where a place is. Further numbers of a place (`reproduction.computed.head`) may have a
share of their own in the features' kernel, however few they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from selm.errors import InputError
from selm.maps.sphere import chords
from selm.probes.folds import BufferedFolds, Collector, OutOfFold, problems
from selm.probes.frozen import conditioned, fold_statistics


@dataclass(frozen=True)
class KernelRidge:
    """`penalty` on the squared norm, relative to a kernel of about 1 at a place itself; `width` of the Gaussian kernel
    on the features, where two places differ by the root of 2 on average, or 0 for the linear one; `share` and `km` of
    the field of the coordinates; `head`, the head's part of the features' kernel, 0 to 1."""

    penalty: float = 0.5
    width: float = 0.0
    share: float = 0.0
    km: float = 20.0
    head: float = 0.0


def kernel_ridge(
    features: ArrayLike | Tensor, lat: ArrayLike, lon: ArrayLike, targets: ArrayLike,
    folds: ArrayLike | BufferedFolds, settings: KernelRidge, *, test_folds: tuple[int, ...] | None = None,
) -> OutOfFold:  # fmt: skip
    """Out-of-fold predictions of the probe.

    features (N, d); lat, lon (N,) degrees; targets, folds and test_folds as in `selm.probes.folds.problems`
    (regression).
    Raises InputError for settings out of range, or features of another length.
    """
    return kernel_ridges(features, lat, lon, targets, folds, [settings], test_folds=test_folds)[0]


def kernel_ridges(
    features: ArrayLike | Tensor, lat: ArrayLike, lon: ArrayLike, targets: ArrayLike,
    folds: ArrayLike | BufferedFolds, tries: Sequence[KernelRidge], *, test_folds: tuple[int, ...] | None = None,
    head: ArrayLike | None = None,
) -> list[OutOfFold]:  # fmt: skip
    """`kernel_ridge` for several settings, which share the features' kernel; `test_folds` as in `problems`.

    head (N, t): further numbers, for settings that give them a part of the kernel.
    """
    for settings in tries:
        if settings.penalty <= 0 or settings.width < 0 or settings.share < 0 or settings.km <= 0:
            raise InputError(f"penalty and km must be above 0, width and share 0 or more, not {settings}")
        if not 0 <= settings.head <= 1 or (settings.head and head is None):
            raise InputError(f"a head's part must be 0 to 1, and 0 where there is no head, not {settings.head:g}")
    x = conditioned(features)
    layout = problems(targets, folds, "regression", test_folds=test_folds)
    if len(x) != layout.n_points:
        raise InputError(f"features: {len(x)} rows, but folds are of {layout.n_points} points")
    fields: dict[tuple[float, float], Tensor] = {}
    if grounds := dict.fromkeys((s.share, s.km) for s in tries if s.share):
        ground = torch.as_tensor(chords(lat, lon) / 1000)
        fields = {(share, km): share * torch.exp(-ground.square() / (2 * km**2)) for share, km in grounds}
    outputs = [Collector(layout, (0,)) for _ in tries]
    looks = dict.fromkeys((s.width, s.head) for s in tries)
    both = [x] if head is None else [x, conditioned(head)]
    statistics = [fold_statistics(some, layout.train) for some in both]
    for p in range(len(layout.draw)):
        linear = [
            _linear(some, mean[p], deviation[p]) for some, (mean, deviation) in zip(both, statistics, strict=True)
        ]
        train, test = torch.as_tensor(layout.train[p]), torch.as_tensor(layout.test[p])
        y = torch.as_tensor(np.array(layout.targets[layout.draw[p], layout.train[p]]))
        alike = {}
        for width, part in looks:
            whole = (1 - part) * linear[0] + part * linear[1] if part else linear[0]
            alike[width, part] = _gaussian(whole, width) if width else whole
        kernels, local = ({key: _parts(whole, train, test) for key, whole in of.items()} for of in (alike, fields))
        for settings, output in zip(tries, outputs, strict=True):
            own, other = kernels[settings.width, settings.head]
            if settings.share:
                field = local[settings.share, settings.km]
                own, other = own + field[0], other + field[1]
            own = own.clone()
            own.diagonal().add_(settings.penalty)
            dual = torch.cholesky_solve((y - y.mean())[:, None], torch.linalg.cholesky(own))
            output.add(0, p, (other @ dual + y.mean()).numpy())
    return [output.result() for output in outputs]


def _linear(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """The linear kernel (N, N) of standardised features (N, d)."""
    z = (x - mean) / deviation
    return z @ z.T / z.shape[1]


def _gaussian(linear: Tensor, width: float) -> Tensor:
    """The Gaussian kernel of a width, from the linear one."""
    own_norm = linear.diagonal()
    apart = (own_norm[:, None] + own_norm - 2 * linear).clamp_min(0)  # squared distances
    return torch.exp(-apart / (2 * width**2))


def _parts(kernel: Tensor, train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """A kernel among the points that are learned from, and between those that are tested and those."""
    columns = kernel[:, train]
    return columns[train], columns[test]

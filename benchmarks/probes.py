"""How long Table 1's frozen column takes at the scale of the profile `japan`, once the features are there.

    python -m benchmarks.probes [--points 1371] [--dim 2048] [--draws 10] [--rows 1]

Made-up features of that size (random directions of falling variance, as an encoder's are) and a target that depends on
them; ten draws of ten folds. For each probe: processor seconds for one row of the table and one way to split, and for
the whole column (every pretrained row and the random one, both ways to split). Writes probes.csv.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import measure
from reproduction.profiles import get_profile
from reproduction.rows import IN_TABLES
from selm.probes.folds import random_folds
from selm.probes.frozen import frozen, ridge


def made_up(n: int, d: int, seed: int = 0) -> tuple[Any, Any]:
    """(features float32 (n, d), targets (n,)): a falling spectrum, half the target in its first directions."""
    rng = np.random.default_rng(seed)
    scale = 1 / np.arange(1, d + 1) ** 0.5
    hidden = rng.standard_normal((n, d)) * scale
    mixed = np.maximum(hidden @ rng.standard_normal((d, d)) / d**0.5 * 3, 0)  # features end in a ReLU and a mean
    target = hidden[:, :20] @ rng.standard_normal(20)
    return mixed.astype(np.float32), target / target.std() + rng.standard_normal(n)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=1371, help="official prices in Hokkaido")
    parser.add_argument("--dim", type=int, default=2048, help="of a ResNet-50's feature")
    parser.add_argument("--draws", type=int, default=10)
    measure.options(parser)
    chosen = parser.parse_args()
    profile = get_profile("japan")
    columns = 2 * (1 + sum(profile.seeds_of(name) for name in IN_TABLES))  # random weights too; two ways to split
    x, y = made_up(chosen.points, chosen.dim)
    folds = random_folds(chosen.points, range(chosen.draws))
    probing = profile.probing
    ways: dict[str, Callable[[], Any]] = {
        "ridge (frozen-closed)": lambda: ridge(x, y, folds),
        f"linear layer, {probing.epochs[-1]} epochs (frozen)": lambda: frozen(
            x, y, folds, task="regression", epochs=probing.epochs, batch=probing.batch, lr=probing.frozen_lr
        ),
    }
    rows = []
    for name, way in ways.items():
        start, busy = time.perf_counter(), measure.cpu_seconds()
        mse = float(way().values("mse")[-1].mean())
        wall, busy = time.perf_counter() - start, measure.cpu_seconds() - busy
        rows.append({
            "probe": name, "mse": mse, "seconds": wall, "cpu_seconds": busy, "cpu_seconds_a_draw": busy / chosen.draws,
            "cells": columns, "column_cpu_seconds": busy * columns * 10 / chosen.draws,
        })  # fmt: skip
    measure.report("probes", rows, chosen, points=chosen.points, dim=chosen.dim, draws=chosen.draws)


if __name__ == "__main__":
    main()

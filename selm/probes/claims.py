"""Does one row of a table beat another? Paired bootstrap over spatial blocks, corrected for the number of claims.

Points near each other are alike, so whole blocks are drawn, not points. What is tested is conditional on the
pretraining runs at hand: their spread over seeds is not in the interval.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from selm.errors import InputError


@dataclass(frozen=True)
class Comparison:
    """How much better a is than b, in units of the metric: positive means that a is better.

    low, high: the central interval of the bootstrap.  p: one-sided, of a being no better than b.
    """

    gain: float
    low: float
    high: float
    p: float
    n_points: int
    n_blocks: int


def paired_bootstrap(
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    blocks: ArrayLike,
    *,
    higher_is_better: bool,
    n_boot: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare two rows by their out-of-fold scores at the same points.

    scores_a, scores_b: (N,) each point's score, averaged over trials and pretraining seeds (`OutOfFold.mean_scores`);
        points that are NaN in either are left out.
    blocks: (N,) the block of each point; blocks are drawn with replacement, with all their points, so that the number
        of points varies as it does between places.
    p is (1 + draws in which a is not better) / (1 + n_boot): never zero.
    Raises InputError for fewer than two blocks.
    """
    a, b = np.asarray(scores_a, dtype=np.float64), np.asarray(scores_b, dtype=np.float64)
    names = np.asarray(blocks)
    if not a.shape == b.shape == names.shape or a.ndim != 1:
        raise InputError(f"scores and blocks must be of the same points: shapes {a.shape}, {b.shape}, {names.shape}")
    both = np.isfinite(a) & np.isfinite(b)
    gain = (a - b if higher_is_better else b - a)[both]
    _, code = np.unique(names[both], return_inverse=True)
    n_blocks = int(code.max()) + 1 if len(code) else 0
    if n_blocks < 2:
        raise InputError(f"a bootstrap over blocks needs two of them at least, there are {n_blocks}")
    total, count = np.bincount(code, weights=gain), np.bincount(code)
    rng = np.random.default_rng(seed)
    times = rng.multinomial(n_boot * [n_blocks], np.full(n_blocks, 1 / n_blocks))  # (n_boot, blocks)
    drawn = (times @ total) / (times @ count)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    p = (1 + int((drawn <= 0).sum())) / (1 + n_boot)
    return Comparison(float(gain.mean()), float(low), float(high), p, len(gain), n_blocks)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's (1979) adjusted p-values: reject where below the level, and no claim of the family errs more often."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted


def compare_claims(
    scores: Mapping[str, ArrayLike],
    claims: Iterable[tuple[str, str]],
    blocks: ArrayLike,
    *,
    higher_is_better: bool,
    n_boot: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Test every claim "a beats b" of one family: one row a claim, in the order given.

    Columns: a, b, gain, low, high, p, p_holm, verdict, n_points, n_blocks. The verdict is ``holds`` or ``reversed``
    where the difference stands at `level` after Holm's correction (of both directions), else ``undecided``; a row
    without scores gives ``not run``.
    """
    rows = []
    for a, b in claims:
        if a in scores and b in scores:
            found = paired_bootstrap(
                scores[a], scores[b], blocks,
                higher_is_better=higher_is_better, n_boot=n_boot, level=level, seed=seed,
            )  # fmt: skip
            rows.append({"a": a, "b": b, **vars(found)})
        else:
            rows.append({"a": a, "b": b})
    columns = ["a", "b", "gain", "low", "high", "p", "p_holm", "verdict", "n_points", "n_blocks"]
    table = pd.DataFrame(rows).reindex(columns=columns)
    table["verdict"] = "not run"
    run = table["p"].notna()
    p = table.loc[run, "p"].to_numpy(dtype=np.float64)
    table.loc[run, "p_holm"] = holm(p)
    # the other direction's p-value is 1 − p, give or take the one that keeps it from zero
    against = holm(np.maximum(1.0 - p, 1.0 / (1 + n_boot)))
    alpha = 1.0 - level
    verdict = np.where(holm(p) < alpha, "holds", np.where(against < alpha, "reversed", "undecided"))
    table.loc[run, "verdict"] = verdict
    return table

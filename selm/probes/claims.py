"""Does one row of a table beat another? Paired bootstrap over spatial blocks, corrected for the number of claims.

Points near each other are alike, so whole blocks are drawn, not points. What is tested is conditional on the
pretraining runs at hand: their spread over seeds is not in the interval.

A test and its interval are one thing here: a two-sided test at level α rejects exactly where the interval at level
1 − α leaves 0 out. Both are read off the same ordered draws. A family of claims is fixed before any of them is tested,
and a claim that cannot be tested yet counts in it as one that did not stand (p = 1): results that come later can make
an undecided claim stand, but no claim that stands can fall.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from selm.errors import InputError

N_BOOT = 20_000


@dataclass(frozen=True)
class Draws:
    """How much better a is than b, and the same in every bootstrap draw, in ascending order (B,)."""

    gain: float
    drawn: NDArray[np.float64]
    n_points: int
    n_blocks: int

    @property
    def p(self) -> float:
        """Two-sided p-value of no difference: twice the smaller tail, (1 + draws on its side of 0) / (1 + B),
        so never zero."""
        below, above = np.count_nonzero(self.drawn <= 0), np.count_nonzero(self.drawn >= 0)
        return min(1.0, 2 * (1 + min(below, above)) / (1 + len(self.drawn)))

    @property
    def sign(self) -> int:
        """1 where most draws have a better than b, −1 where most have it worse, 0 for a tie."""
        return int(np.sign(np.count_nonzero(self.drawn > 0) - np.count_nonzero(self.drawn < 0)))

    def interval(self, alpha: float) -> tuple[float, float]:
        """The central interval at level 1 − alpha: it leaves 0 out exactly where `p` is at most alpha.

        Raises InputError where there are too few draws for such an interval.
        """
        n = len(self.drawn)
        tail = math.floor(alpha * (1 + n) / 2 + 1e-9)
        if tail < 1:
            raise InputError(f"an interval at level {1 - alpha:g} needs {math.ceil(2 / alpha) - 1} draws, not {n}")
        return float(self.drawn[tail - 1]), float(self.drawn[n - tail])


@dataclass(frozen=True)
class Comparison:
    """How much better a is than b, in units of the metric: positive means that a is better.

    low, high: the central interval of the bootstrap.  p: two-sided, of no difference.
    """

    gain: float
    low: float
    high: float
    p: float
    n_points: int
    n_blocks: int


@lru_cache(maxsize=16)
def _times(n_blocks: int, n_boot: int, seed: int) -> NDArray[np.float32]:
    """(n_boot, n_blocks): how often each block is drawn."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_boot * [n_blocks], np.full(n_blocks, 1 / n_blocks)).astype(np.float32)


def draw(
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    blocks: ArrayLike,
    *,
    higher_is_better: bool,
    n_boot: int = N_BOOT,
    seed: int = 0,
) -> Draws:
    """Bootstrap the gain of a over b from their out-of-fold scores at the same points.

    scores_a, scores_b: (N,) each point's score, averaged over trials and pretraining seeds (`OutOfFold.mean_scores`);
        points that are NaN in either are left out.
    blocks: (N,) the block of each point; blocks are drawn with replacement, with all their points, so that the number
        of points varies as it does between places.
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
    times = _times(n_blocks, n_boot, seed)
    drawn = (times @ total) / (times @ count.astype(np.float64))
    return Draws(float(gain.mean()), np.sort(drawn), len(gain), n_blocks)


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
    """One comparison on its own (`draw`), with its interval at `level`."""
    found = draw(scores_a, scores_b, blocks, higher_is_better=higher_is_better, n_boot=n_boot, seed=seed)
    low, high = found.interval(1 - level)
    return Comparison(found.gain, low, high, found.p, found.n_points, found.n_blocks)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's (1979) adjusted p-values: reject where at most the level, and no claim of the family errs more often."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted


def judge(family: Sequence[Draws | None], level: float = 0.95) -> pd.DataFrame:
    """Verdicts on a family of claims "a beats b", one row a claim in the order given; None: not run.

    Columns: gain, low, high, interval_level, p, p_holm, verdict, n_points, n_blocks, n_family. Verdicts are by Holm's
    step-down test at `level`, two-sided, over the whole family, claims that are not run included with p = 1:
    ``holds``, ``reversed`` (b beats a), ``undecided`` or ``not run``. The intervals are at the level of Holm's last
    step, 1 − (1 − level) / (claims that do not stand): such an interval leaves 0 out exactly where the verdict is
    ``holds`` or ``reversed``.
    """
    columns = ["gain", "low", "high", "interval_level", "p", "p_holm", "verdict", "n_points", "n_blocks", "n_family"]
    alpha = 1.0 - level
    adjusted = holm([1.0 if one is None else one.p for one in family])
    stands = adjusted <= alpha * (1 + 1e-12)  # exact multiples of a level are at it, whatever the last bit
    last = alpha / max(len(family) - int(stands.sum()), 1)
    rows: list[dict[str, object]] = []
    for one, p_holm, decided in zip(family, adjusted, stands, strict=True):
        if one is None:
            rows.append({"verdict": "not run", "n_family": len(family)})
            continue
        low, high = one.interval(last)
        verdict = ("holds" if one.sign > 0 else "reversed") if decided else "undecided"
        rows.append(
            {
                "gain": one.gain, "low": low, "high": high, "interval_level": 1 - last, "p": one.p, "p_holm": p_holm,
                "verdict": verdict, "n_points": one.n_points, "n_blocks": one.n_blocks, "n_family": len(family),
            }
        )  # fmt: skip
    return pd.DataFrame(rows).reindex(columns=columns)


def compare_claims(
    scores: Mapping[str, ArrayLike],
    claims: Iterable[tuple[str, str]],
    blocks: ArrayLike,
    *,
    higher_is_better: bool,
    n_boot: int = N_BOOT,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Test every claim (a, b), "a beats b", of one family by scores at the same points: the columns of `judge` after
    a and b. A row without scores gives ``not run``."""
    pairs = list(claims)
    family = [
        draw(scores[a], scores[b], blocks, higher_is_better=higher_is_better, n_boot=n_boot, seed=seed)
        if a in scores and b in scores
        else None
        for a, b in pairs
    ]
    return pd.concat([pd.DataFrame(pairs, columns=["a", "b"]), judge(family, level)], axis=1)

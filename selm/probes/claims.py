"""Does one row of a table beat another? A hierarchical bootstrap over spatial blocks and pretraining runs, and
verdicts.

**What is drawn.** Points near each other are alike, so whole blocks are drawn, not points. Regions are fixed: blocks
are drawn with replacement within each, and a region counts by its share of all points. Pretraining runs (seeds) are a
further level: those of a and those of b are drawn independently of each other. Seeds of one name are one run in all
regions that have the same seeds. Of n blocks or seeds n − 1 are drawn (Rao and Wu 1988), so that the variance of the
draws is unbiased also for three seeds; where there is one, its spread is unknown and not in the interval.

**What is decided.** Two tests a question: is there a difference (two-sided), and is the difference within a margin
that was stated beforehand (two one-sided tests at the level of one two-sided interval: p is twice the larger)? Both
are read off the same ordered draws as the interval: at level α the first rejects exactly where the interval at level
1 − α leaves 0 out, the second exactly where it lies inside the margin.

**Families.** Holm's step-down over both tests of every question. Of a question's two null hypotheses, no difference
and a difference beyond the margin, one at most is true; so where Holm divides by the number of hypotheses left, one
may divide by the number of questions of which one is left (Shaffer 1986). Where only differences are asked for this
is Holm (1979), by statsmodels. To judge equivalence at the level that Holm leaves for differences alone would not do:
of ten differences of just the margin, all easily told from 0, one is called equivalent in a fifth of all cases. A
question that cannot be tested yet counts as one that is not decided (p = 1): results that come later can decide it,
and undo nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from selm.errors import InputError

N_BOOT = 20_000
BLOCKS = ("region", "seed", "block", "points", "score")  # columns of a table of blocks


@dataclass(frozen=True)
class Draws:
    """How much better a is than b, and the same in every bootstrap draw, in ascending order (B,)."""

    gain: float
    drawn: NDArray[np.float64]
    n_points: int
    n_blocks: int
    n_regions: int = 1

    @property
    def p(self) -> float:
        """Two-sided p-value of no difference: twice the smaller tail, (1 + draws on its side of 0) / (1 + B),
        so never zero."""
        return self._p(min(np.count_nonzero(self.drawn <= 0), np.count_nonzero(self.drawn >= 0)))

    def p_beyond(self, margin: float) -> float:
        """p-value of a difference of `margin` or more: twice the larger of two one-sided ones."""
        return self._p(max(np.count_nonzero(self.drawn <= -margin), np.count_nonzero(self.drawn >= margin)))

    def _p(self, beyond: int | np.signedinteger) -> float:
        return min(1.0, 2 * (1 + int(beyond)) / (1 + len(self.drawn)))

    @property
    def sign(self) -> int:
        """1 where most draws have a better than b, −1 where most have it worse, 0 for a tie."""
        return int(np.sign(np.count_nonzero(self.drawn > 0) - np.count_nonzero(self.drawn < 0)))

    def interval(self, alpha: float) -> tuple[float, float]:
        """The central interval at level 1 − alpha: it leaves 0 out exactly where `p` is at most alpha, and lies within
        ± margin exactly where `p_beyond` is.

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


# -- the bootstrap -----------------------------------------------------------------------------------------------------


def block_scores(scores: ArrayLike, blocks: ArrayLike, *, region: ArrayLike = "", seed: int = 0) -> pd.DataFrame:
    """A table of blocks (`BLOCKS`) from scores of points.

    scores: (N,) or, by trial, (T, N); NaN where a point was not tested.  blocks: (N,).  region: one, or (N,).
    A trial counts as much as any other, and in it a tested point as any other, so that the mean of `score` weighted by
    `points` is the mean of the trials' means. Where every trial tests the same points, `score` is the mean over a
    block's points and `points` their number; else `points` is the block's share of the tests in the number of points.
    """
    values = np.atleast_2d(np.asarray(scores, np.float64))
    names = np.asarray(blocks).astype(str)
    if values.shape[1:] != names.shape:
        raise InputError(f"scores and blocks must be of the same points: shapes {values.shape}, {names.shape}")
    tested = np.isfinite(values)
    used = tested.any(axis=1)  # a trial that tests nothing is none
    values, tested = values[used], tested[used]
    points = tested.any(axis=0)
    weight = tested / np.maximum(tested.sum(axis=1, keepdims=True), 1) * (points.sum() / max(len(tested), 1))
    where = np.broadcast_to(np.asarray(region), names.shape).astype(str)
    (regions, in_region), (found, in_block) = (np.unique(of[points], return_inverse=True) for of in (where, names))
    pairs, in_pair = np.unique(in_region * len(found) + in_block, return_inverse=True)
    sums = (weight, weight * np.where(tested, values, 0.0))
    count, total = (np.bincount(in_pair, of.sum(axis=0)[points], len(pairs)) for of in sums)
    i, j = np.divmod(pairs, max(len(found), 1))
    return pd.DataFrame(dict(zip(BLOCKS, (regions[i], seed, found[j], count.round(9), total / count), strict=True)))


def gain(
    a: pd.DataFrame,
    b: pd.DataFrame,
    *,
    higher_is_better: bool,
    same_places: bool = True,
    n_boot: int = N_BOOT,
    seed: int = 0,
) -> Draws:
    """Bootstrap how much better a scores than b, each the mean over all its points and seeds.

    a, b: tables with the columns `BLOCKS`, a row a (region, seed, block).
    same_places: both are of the same regions, whose blocks are drawn together for a and b; they may have other points
    in a block. False: the same runs at other places, so that the seeds are drawn together and the blocks apart.
    The draws depend on `seed` alone, not on the order of rows.
    Raises InputError, in one line, for a table that is empty, repeats a block or lacks one, holds NaN, for regions that
    differ, and for one of fewer than two blocks.
    """
    side = {"a": _by_region(a, "a"), "b": _by_region(b, "b")}
    regions = sorted({*side["a"], *side["b"]})
    if same_places and set(side["a"]) != set(side["b"]):
        only = sorted(set(side["a"]) ^ set(side["b"]))
        raise InputError(f"a and b must be of the same regions: {', '.join(only)} is of one of them alone")
    totals = {name: sum(float(r.points.sum()) for r in of.values()) for name, of in side.items()}
    drawn, found, n_blocks = np.zeros(n_boot), 0.0, 0
    for at, region in enumerate(regions):
        here = {name: of[region] for name, of in side.items() if region in of}
        blocks = sorted({block for of in here.values() for block in of.blocks})
        if len(blocks) < 2:
            where = f"region {region}: " if region else ""
            raise InputError(f"{where}a bootstrap over blocks needs two of them at least, there is {len(blocks)}")
        n_blocks += len(blocks)
        times = _times(len(blocks), n_boot, (seed, 0, at))
        parts = []  # of each side: points, and the sum of the scores of each seed, by block
        for of in here.values():
            parts.append(np.zeros((len(blocks), 1 + len(of.seeds))))
            parts[-1][[blocks.index(block) for block in of.blocks]] = np.vstack([of.points, of.scores * of.points]).T
        in_draws = times @ np.hstack(parts)  # one pass over the draws, which are most of the memory
        ends = np.cumsum([part.shape[1] for part in parts])[:-1]
        for (name, of), sums in zip(here.items(), np.split(in_draws, ends, axis=1), strict=True):
            sign = (1 if name == "a" else -1) * (1 if higher_is_better else -1) * of.points.sum() / totals[name]
            mean = (of.scores @ of.points) / of.points.sum()  # (S,)
            count = sums[:, :1]
            values = np.where(count > 0, sums[:, 1:] / np.where(count > 0, count, 1.0), mean)
            key = (seed, 1 + (name == "b" and same_places), *of.seeds)
            drawn += sign * (values * _times(len(of.seeds), n_boot, key)).sum(axis=1)
            found += sign * float(mean.mean())
    n_points = min(totals.values()) if same_places else sum(totals.values())
    return Draws(found, np.sort(drawn), round(n_points), n_blocks, len(regions))


@dataclass(frozen=True)
class _Region:
    """Blocks (B,), seeds (S,), points (B,) and scores (S, B) of one row in one region."""

    blocks: list[str]
    seeds: list[int]
    points: NDArray[np.float64]
    scores: NDArray[np.float64]


def _by_region(table: pd.DataFrame, name: str) -> dict[str, _Region]:
    absent = [column for column in BLOCKS if column not in table]
    if absent:
        raise InputError(f"blocks of {name}: column '{absent[0]}' is missing")
    if not len(table):
        raise InputError(f"blocks of {name}: none")
    numbers = table[["points", "score"]].to_numpy(np.float64)
    bad = ~np.isfinite(numbers).all(axis=1) | ~(numbers[:, 0] > 0)
    if bad.any():
        row = table.iloc[int(np.flatnonzero(bad)[0])]
        raise InputError(
            f"blocks of {name}: region {row.region}, block {row.block}: score {row.score} of {row.points} points"
        )
    regions, in_region = np.unique(table["region"].to_numpy(str), return_inverse=True)
    all_seeds, all_blocks = table["seed"].to_numpy(np.int64), table["block"].to_numpy(str)
    out = {}
    for at, region in enumerate(regions):
        rows = in_region == at
        seeds, of_seed = np.unique(all_seeds[rows], return_inverse=True)
        blocks, of_block = np.unique(all_blocks[rows], return_inverse=True)
        points, scores = np.full((2, len(seeds), len(blocks)), np.nan)
        points[of_seed, of_block], scores[of_seed, of_block] = numbers[rows].T
        if rows.sum() > points.size - np.isnan(points).sum():
            raise InputError(f"blocks of {name}: region {region}: a block is there twice for one seed")
        if np.isnan(points).any() or np.ptp(points, axis=0).max() > 1e-3:
            raise InputError(f"blocks of {name}: region {region}: its seeds have not the same points")
        out[str(region)] = _Region(blocks.tolist(), seeds.tolist(), points[0], scores)
    return out


@lru_cache(maxsize=16)
def _times(n: int, n_boot: int, key: tuple[int, ...]) -> NDArray[np.float64]:
    """(n_boot, n): the share of each of n in draws of n − 1 with replacement; 1 where there is one."""
    if n == 1:
        return np.ones((n_boot, 1))
    rng = np.random.default_rng([abs(part) for part in key])
    return rng.multinomial(n_boot * [n - 1], np.full(n, 1 / n)) / (n - 1)


def draw(
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    blocks: ArrayLike,
    *,
    higher_is_better: bool,
    n_boot: int = N_BOOT,
    seed: int = 0,
) -> Draws:
    """Bootstrap the gain of a over b from their scores (N,) at the same points, of one region and one run each.

    Points that are NaN in either are left out. Raises InputError for fewer than two blocks.
    """
    a, b = np.asarray(scores_a, dtype=np.float64), np.asarray(scores_b, dtype=np.float64)
    names = np.asarray(blocks)
    if not a.shape == b.shape == names.shape or a.ndim != 1:
        raise InputError(f"scores and blocks must be of the same points: shapes {a.shape}, {b.shape}, {names.shape}")
    both = np.isfinite(a) & np.isfinite(b)
    one, other = (block_scores(values[both], names[both]) for values in (a, b))
    return gain(one, other, higher_is_better=higher_is_better, n_boot=n_boot, seed=seed)


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


# -- verdicts ----------------------------------------------------------------------------------------------------------


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's (1979) adjusted p-values: reject where at most the level, and no claim of the family errs more often."""
    from statsmodels.stats.multitest import multipletests

    p = np.asarray(p_values, dtype=np.float64)
    return np.asarray(multipletests(p, method="holm")[1]) if len(p) else p


def step_down(different: ArrayLike, beyond: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Adjusted p-values of the two tests of K questions, of whose two null hypotheses one at most is true.

    Holm's step-down over all 2 K, each multiplied by the number of questions of which one at least was not rejected
    before it (Shaffer 1986): never more than Holm's own.
    """
    p = np.concatenate([np.asarray(different, np.float64), np.asarray(beyond, np.float64)])
    k = len(p) // 2
    order = np.argsort(p, kind="stable")
    rank = np.empty(2 * k, np.int64)
    rank[order] = np.arange(2 * k)
    closed = np.sort(np.maximum(rank[:k], rank[k:]))  # the step by which both tests of a question are done
    left = k - np.searchsorted(closed, np.arange(2 * k), side="left")
    adjusted = np.empty(2 * k)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * left), 1.0)
    return adjusted[:k], adjusted[k:]


def judge(family: Sequence[Draws | None], level: float = 0.95, *, margin: float | None = None) -> pd.DataFrame:
    """Verdicts on a family of questions "does a beat b?", one row each in the order given; None: not tested.

    margin: a smaller difference does not matter; None asks for differences only.
    Columns: gain, low, high, interval_level, p, p_beyond, p_holm, verdict, n_points, n_blocks, n_regions, n_family.
    ``better`` and ``worse``: a difference, whatever its size; ``equivalent``: none, and the whole interval lies within
    the margin; ``undecided``; ``not run``. The intervals are all at the level of the last step: one leaves 0 out
    exactly where the verdict is ``better`` or ``worse``, and contains 0 and lies within the margin exactly where it is
    ``equivalent``. p_holm is the adjusted p.
    """
    columns = [
        "gain", "low", "high", "interval_level", "p", "p_beyond", "p_holm", "verdict", "n_points", "n_blocks",
        "n_regions", "n_family",
    ]  # fmt: skip
    alpha, k = 1.0 - level, len(family)
    p = np.array([1.0 if one is None else one.p for one in family])
    if margin is None:
        beyond, outside = np.ones(k), np.ones(k)
        adjusted = holm(p)
    else:
        beyond = np.array([1.0 if one is None else one.p_beyond(margin) for one in family])
        adjusted, outside = step_down(p, beyond)
    at = alpha * (1 + 1e-12)  # exact multiples of a level are at it, whatever the last bit
    differs, within = adjusted <= at, outside <= at
    decided = differs if margin is None else differs & within
    last = alpha / max(k - int(decided.sum()), 1)
    rows: list[dict[str, object]] = []
    for number, one in enumerate(family):
        if one is None:
            rows.append({"interval_level": 1 - last, "verdict": "not run", "n_family": k})
            continue
        low, high = one.interval(last)
        verdict = "equivalent" if within[number] else "undecided"
        if differs[number]:
            verdict = "better" if one.sign > 0 else "worse"
        rows.append(
            {
                "gain": one.gain, "low": low, "high": high, "interval_level": 1 - last, "p": p[number],
                "p_beyond": beyond[number] if margin is not None else math.nan, "p_holm": adjusted[number],
                "verdict": verdict, "n_points": one.n_points, "n_blocks": one.n_blocks, "n_regions": one.n_regions,
                "n_family": k,
            }
        )  # fmt: skip
    return pd.DataFrame(rows).reindex(columns=columns)

"""The paired bootstrap against a slow loop and cases whose answer is known; tests and intervals as one thing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from selm.errors import InputError
from selm.probes.claims import Draws, compare_claims, draw, holm, judge, paired_bootstrap


def clustered(gain: float, seed: int, n_blocks: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Squared errors of two rows: b is worse by `gain` on average, by much more in some blocks than in others."""
    rng = np.random.default_rng(seed)
    blocks = np.repeat(np.arange(n_blocks), rng.integers(1, 30, n_blocks))
    base = rng.gamma(2.0, 0.5, len(blocks))
    return base, base + gain + rng.normal(0, 0.3, n_blocks)[blocks] + rng.normal(0, 0.2, len(blocks)), blocks


def of(values: list[float], gain: float = 1.0) -> Draws:
    return Draws(gain, np.sort(np.array(values, float)), 10, 5)


def spread(below: int, n: int = 1999) -> Draws:
    """n draws, `below` of them below 0."""
    return of([-1.0 - i for i in range(below)] + [1.0 + i for i in range(n - below)])


def test_equals_a_slow_loop_over_blocks() -> None:
    a, b, blocks = clustered(0.1, 0, n_blocks=8)
    found = draw(a, b, blocks, higher_is_better=False, n_boot=500, seed=5)
    rng = np.random.default_rng(5)
    drawn = []
    for times in rng.multinomial([8] * 500, [1 / 8] * 8):
        differences: list[float] = []
        for block, repeats in enumerate(times):
            differences += list((b - a)[blocks == block]) * int(repeats)
        drawn.append(np.mean(differences))
    assert found.gain == pytest.approx(np.mean(b - a))
    np.testing.assert_allclose(found.drawn, np.sort(drawn))
    low, high = found.interval(0.05)
    assert (low, high) == (found.drawn[11], found.drawn[-12])  # 12 = ⌊0.05 · 501 / 2⌋ draws in each tail
    assert found.p == pytest.approx(2 * (1 + min(sum(d <= 0 for d in drawn), sum(d >= 0 for d in drawn))) / 501)
    assert (found.n_points, found.n_blocks) == (len(a), 8)


def test_a_real_gain_is_found_and_its_interval_covers() -> None:
    covered = 0
    for seed in range(60):
        a, b, blocks = clustered(0.3, seed)
        found = paired_bootstrap(a, b, blocks, higher_is_better=False, n_boot=400)
        assert found.p < 0.05
        covered += found.low <= 0.3 <= found.high
    assert covered >= 50  # of 60 at 95 %; over points instead of blocks it is about 20


def test_no_gain_is_rarely_claimed() -> None:
    p = [paired_bootstrap(*clustered(0.0, 100 + seed), higher_is_better=False, n_boot=400).p for seed in range(100)]
    assert np.mean(np.array(p) <= 0.05) <= 0.14


def test_direction_and_determinism() -> None:
    a, b, blocks = clustered(0.3, 1)
    errors = paired_bootstrap(a, b, blocks, higher_is_better=False)
    hits = paired_bootstrap(a, b, blocks, higher_is_better=True)
    assert errors == paired_bootstrap(a, b, blocks, higher_is_better=False)
    assert hits.gain == -errors.gain
    assert hits.low == pytest.approx(-errors.high)
    assert errors.p == hits.p < 0.002  # two-sided


def test_points_not_tested_are_left_out() -> None:
    a, b, blocks = clustered(0.3, 1)
    extra = paired_bootstrap(
        np.append(a, [np.nan, 9.0]), np.append(b, [0.0, np.nan]), np.append(blocks, [0, 0]), higher_is_better=False
    )
    assert extra == paired_bootstrap(a, b, blocks, higher_is_better=False)


def test_holm_by_hand() -> None:
    # sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, never falling
    np.testing.assert_allclose(holm([0.02, 0.01, 0.04, 0.03]), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.9, 0.8]), [1.0, 1.0])


@pytest.mark.parametrize("alpha", [0.5, 0.1, 0.05, 0.01, 0.002])
def test_an_interval_leaves_zero_out_exactly_where_the_test_rejects(alpha: float) -> None:
    for below in (*range(60), 997, 998, 999, 1000, 1001, 1002, *range(1940, 2000)):
        one = spread(below)
        low, high = one.interval(alpha)
        assert (low > 0 or high < 0) == (one.p <= alpha + 1e-12), (below, alpha)
    tied = of([0.0] * 100 + [1.0] * 1899)
    assert tied.p == pytest.approx(2 * 101 / 2000)  # a draw of exactly no difference speaks for neither side
    assert tied.interval(0.05)[0] == 0.0


def test_too_few_draws_are_no_interval() -> None:
    with pytest.raises(InputError, match="needs 1999 draws, not 99"):
        spread(0, 99).interval(0.001)


def test_no_verdict_stands_beside_an_interval_that_touches_zero() -> None:
    """Families of every mixture: what is decided leaves 0 out, what is not does not, and nothing falls as rows come."""
    rng = np.random.default_rng(0)
    for _ in range(150):
        family = [spread(int(below)) for below in rng.choice([0, 1, 2, 3, 5, 9, 30, 400, 1000, 1999], 7)]
        everything = judge(family)
        for row in everything.itertuples():
            outside = row.low > 0 or row.high < 0
            assert outside == (row.verdict in ("holds", "reversed"))
            assert row.verdict != "holds" or row.low > 0
            assert row.verdict != "reversed" or row.high < 0
        there = rng.random(7) < 0.5
        some = judge([one if here else None for one, here in zip(family, there, strict=True)])
        for early, late, here in zip(some["verdict"], everything["verdict"], there, strict=True):
            assert early == "not run" if not here else early in (late, "undecided")


def test_claims_that_are_not_run_count_in_the_family() -> None:
    one = spread(4)  # two-sided p = 2 · 5 / 2000 = 0.005
    assert judge([one])["verdict"].tolist() == ["holds"]
    padded = judge([one] + [None] * 9)
    assert padded["p_holm"][0] == pytest.approx(0.05) and padded["verdict"][0] == "holds"
    more = judge([one] + [None] * 10)
    assert more["p_holm"][0] == pytest.approx(0.055) and more["verdict"][0] == "undecided"
    assert more["low"][0] < 0 < more["high"][0]
    assert more["interval_level"][0] == pytest.approx(1 - 0.05 / 11)
    assert more["n_family"].tolist() == [11] * 11 and math.isnan(more["p_holm"][3])


def test_family_of_claims() -> None:
    a, b, blocks = clustered(0.3, 1)
    scores = {"gps_selm": a, "dino": b, "same": a + np.where(np.arange(len(a)) % 2, 1e-3, -1e-3)}
    claims = [("gps_selm", "dino"), ("dino", "gps_selm"), ("same", "gps_selm"), ("gps_selm", "mugs")]
    table = compare_claims(scores, claims, blocks, higher_is_better=False, n_boot=2000)
    assert table[["a", "b"]].to_numpy().tolist() == [list(claim) for claim in claims]
    assert table["verdict"].tolist() == ["holds", "reversed", "undecided", "not run"]
    assert table["p_holm"][0] == pytest.approx(4 * table["p"][0])
    assert np.isnan(table["p_holm"][3])


def test_one_block_is_not_enough() -> None:
    with pytest.raises(InputError, match="two of them"):
        paired_bootstrap([1.0, 2.0], [2.0, 1.0], [3, 3], higher_is_better=True)
    with pytest.raises(InputError, match="same points"):
        paired_bootstrap([1.0, 2.0], [2.0], [3, 3], higher_is_better=True)

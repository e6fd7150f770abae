"""The paired bootstrap against a slow loop and against cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from selm.errors import InputError
from selm.probes.claims import compare_claims, holm, paired_bootstrap


def clustered(gain: float, seed: int, n_blocks: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Squared errors of two rows: b is worse by `gain` on average, by much more in some blocks than in others."""
    rng = np.random.default_rng(seed)
    blocks = np.repeat(np.arange(n_blocks), rng.integers(1, 30, n_blocks))
    base = rng.gamma(2.0, 0.5, len(blocks))
    return base, base + gain + rng.normal(0, 0.3, n_blocks)[blocks] + rng.normal(0, 0.2, len(blocks)), blocks


def test_equals_a_slow_loop_over_blocks() -> None:
    a, b, blocks = clustered(0.1, 0, n_blocks=8)
    found = paired_bootstrap(a, b, blocks, higher_is_better=False, n_boot=500, seed=5)
    rng = np.random.default_rng(5)
    drawn = []
    for times in rng.multinomial([8] * 500, [1 / 8] * 8):
        differences: list[float] = []
        for block, repeats in enumerate(times):
            differences += list((b - a)[blocks == block]) * int(repeats)
        drawn.append(np.mean(differences))
    assert found.gain == pytest.approx(np.mean(b - a))
    assert found.low == pytest.approx(np.quantile(drawn, 0.025))
    assert found.high == pytest.approx(np.quantile(drawn, 0.975))
    assert found.p == pytest.approx((1 + sum(d <= 0 for d in drawn)) / 501)
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
    p = [
        paired_bootstrap(*clustered(0.0, 100 + seed), higher_is_better=False, n_boot=400).p for seed in range(100)
    ]
    assert np.mean(np.array(p) < 0.05) <= 0.12


def test_direction_and_determinism() -> None:
    a, b, blocks = clustered(0.3, 1)
    errors = paired_bootstrap(a, b, blocks, higher_is_better=False)
    hits = paired_bootstrap(a, b, blocks, higher_is_better=True)
    assert errors == paired_bootstrap(a, b, blocks, higher_is_better=False)
    assert hits.gain == -errors.gain
    assert hits.low == pytest.approx(-errors.high)
    assert errors.p < 0.001
    assert hits.p > 0.999


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


def test_family_of_claims() -> None:
    a, b, blocks = clustered(0.3, 1)
    scores = {"gps_selm": a, "dino": b, "same": a + np.where(np.arange(len(a)) % 2, 1e-3, -1e-3)}
    claims = [("gps_selm", "dino"), ("dino", "gps_selm"), ("same", "gps_selm"), ("gps_selm", "mugs")]
    table = compare_claims(scores, claims, blocks, higher_is_better=False, n_boot=2000)
    assert table["verdict"].tolist()[:2] == ["holds", "reversed"]
    assert table["verdict"].tolist()[3] == "not run"
    assert table["p_holm"][0] == pytest.approx(3 * table["p"][0])
    assert np.isnan(table["p_holm"][3])


def test_one_block_is_not_enough() -> None:
    with pytest.raises(InputError, match="two of them"):
        paired_bootstrap([1.0, 2.0], [2.0, 1.0], [3, 3], higher_is_better=True)
    with pytest.raises(InputError, match="same points"):
        paired_bootstrap([1.0, 2.0], [2.0], [3, 3], higher_is_better=True)

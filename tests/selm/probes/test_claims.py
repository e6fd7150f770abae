"""The hierarchical bootstrap against a slow loop and cases whose answer is known; tests and intervals as one thing."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from reproduction.experiments.score_claims import compare_claims
from selm.errors import InputError
from selm.probes.claims import (
    Draws,
    block_scores,
    gain,
    holm,
    judge,
    paired_bootstrap,
    step_down,
)


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


def table(seed: int, *, n_blocks: int = 12, seeds: int = 3, shift: float = 0.0, spread: float = 0.1) -> pd.DataFrame:
    """Blocks of two regions, with effects of blocks, of seeds, and of both."""
    places = np.random.default_rng(1)
    base, points = places.normal(0, 0.3, n_blocks), places.integers(1, 30, n_blocks)
    rng = np.random.default_rng(seed)
    return pd.concat(
        [
            pd.DataFrame(
                {"region": ["north" if i < n_blocks // 3 else "south" for i in range(n_blocks)], "seed": number,
                 "block": [f"b{i}" for i in range(n_blocks)], "points": points,
                 "score": 1 + base + shift + rng.normal(0, spread) + rng.normal(0, 0.05, n_blocks)}
            )
            for number in range(seeds)
        ]
    )  # fmt: skip


def mean_of(rows: pd.DataFrame) -> float:
    return float(np.average(rows["score"], weights=rows["points"]))


def test_equals_a_slow_loop_over_regions_blocks_and_seeds() -> None:
    """The same draws by hand: n − 1 of n blocks in each region, the seeds of each side apart, regions by their size."""
    a, b, n_boot = table(2), table(3, seeds=2, shift=0.2), 200
    found = gain(a, b, higher_is_better=False, n_boot=n_boot, seed=5)
    assert found.gain == pytest.approx(mean_of(b) - mean_of(a))
    sides = {"a": a, "b": b}
    blocks, runs = {}, {}
    for at, region in enumerate(("north", "south")):
        names = sorted(set(a.loc[a["region"] == region, "block"]))
        rng = np.random.default_rng([5, 0, at])
        times = rng.multinomial([len(names) - 1] * n_boot, [1 / len(names)] * len(names))
        blocks[region] = [dict(zip(names, row, strict=True)) for row in times]
    for key, (name, of) in enumerate(sides.items()):
        numbers = sorted(set(of["seed"]))
        rng = np.random.default_rng([5, 1 + key, *numbers])
        runs[name] = rng.multinomial([len(numbers) - 1] * n_boot, [1 / len(numbers)] * len(numbers))
    drawn = []
    for number in range(n_boot):
        value = {}
        for name, of in sides.items():
            total = 0.0
            for region in ("north", "south"):
                here = of[of["region"] == region]
                scores = []
                for seed, repeats in enumerate(runs[name][number]):
                    sums = count = 0.0
                    for row in here[here["seed"] == seed].itertuples():
                        times = blocks[region][number][row.block]
                        sums, count = sums + times * row.points * row.score, count + times * row.points
                    scores += [sums / count] * int(repeats)
                total += np.mean(scores) * here["points"].sum() / of["points"].sum()
            value[name] = total
        drawn.append(value["b"] - value["a"])
    np.testing.assert_allclose(found.drawn, np.sort(drawn))
    low, high = found.interval(0.05)
    assert (low, high) == (found.drawn[4], found.drawn[-5])  # 5 = ⌊0.05 · 201 / 2⌋ draws in each tail
    assert found.p == pytest.approx(2 * (1 + min(sum(d <= 0 for d in drawn), sum(d >= 0 for d in drawn))) / 201)
    assert (found.n_points, found.n_blocks, found.n_regions) == (table(2, seeds=1)["points"].sum(), 12, 2)


def test_the_order_of_rows_and_the_names_of_sides_do_not_matter() -> None:
    a, b = table(2), table(3, shift=0.05)
    found = gain(a, b, higher_is_better=False, n_boot=500)
    again = gain(a.sample(frac=1, random_state=0), b.sample(frac=1, random_state=1), higher_is_better=False, n_boot=500)
    np.testing.assert_array_equal(found.drawn, again.drawn)
    assert gain(a, b, higher_is_better=True, n_boot=500).gain == pytest.approx(-found.gain)
    assert not np.array_equal(found.drawn, gain(a, b, higher_is_better=False, n_boot=500, seed=1).drawn)


def test_the_interval_covers_with_effects_of_blocks_and_of_seeds() -> None:
    """New blocks and new runs each time: without the level of seeds it would cover the truth in about half of them."""
    covered, without = 0, 0
    for number in range(80):
        rng = np.random.default_rng(number)
        sides = []
        base = rng.normal(0, 0.3, 40)
        for shift in (0.0, 0.2):
            own = rng.normal(0, 0.1, 40)
            sides.append(
                pd.concat(
                    pd.DataFrame({"region": "r", "seed": seed, "block": np.arange(40), "points": 5,
                                  "score": base + own + shift + rng.normal(0, 0.06)})
                    for seed in range(4)
                )
            )  # fmt: skip
        low, high = gain(*sides, higher_is_better=False, n_boot=400).interval(0.05)
        covered += low <= 0.2 <= high
        means = [of.groupby(["region", "block"], as_index=False)[["points", "score"]].mean() for of in sides]
        low, high = gain(*(of.assign(seed=0) for of in means), higher_is_better=False, n_boot=400).interval(0.05)
        without += low <= 0.2 <= high
    assert covered >= 68 and without < covered - 8, (covered, without)


def test_other_places_of_the_same_runs() -> None:
    """Areas are drawn apart and runs together: what a run has everywhere is no difference between areas."""
    a = table(2, spread=1.0)
    b = a.assign(region="elsewhere", score=a["score"] - 0.5)
    found = gain(a, b, higher_is_better=True, same_places=False, n_boot=2000)
    assert found.gain == pytest.approx(0.5) and found.n_regions == 3 and found.n_blocks == 24
    low, high = found.interval(0.05)
    assert 0.1 < low < 0.5 < high < 0.9  # the runs' own spread is 1
    with pytest.raises(InputError, match="a and b must be of the same regions: elsewhere, north, south"):
        gain(a, b, higher_is_better=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.assign(score=t["score"].where(t["block"] != "b7")), "a: region south, block b7: score nan"),
        (lambda t: t[t["block"] != "b7"].assign(points=0), "of 0 points"),
        (lambda t: t.iloc[:0], "blocks of a: none"),
        (lambda t: t.drop(columns="score"), "blocks of a: column 'score' is missing"),
        (lambda t: pd.concat([t, t]), "region north: a block is there twice for one seed"),
        (lambda t: t[(t["block"] != "b7") | (t["seed"] > 0)], "region south: its seeds have not the same points"),
        (lambda t: t[t["region"] == "south"], "same regions: north is of one of them alone"),
    ],
)  # fmt: skip
def test_bad_tables_are_named_in_one_line(change: Callable[[pd.DataFrame], pd.DataFrame], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        gain(change(table(2)), table(3), higher_is_better=True)
    assert "\n" not in str(error.value)


def test_one_block_of_a_region_is_not_enough() -> None:
    one, other = (of[(of["region"] == "south") | (of["block"] == "b0")] for of in (table(2), table(3)))
    with pytest.raises(
        InputError, match="region north: a bootstrap over blocks needs two of them at least, there is 1"
    ):
        gain(one, other, higher_is_better=True)


def test_blocks_of_points_add_up_to_the_mean_of_the_trials() -> None:
    """Whatever points a trial tests; with the same in all, plain means and numbers of points."""
    scores = np.array([[1.0, 2.0, 3.0, 4.0], [3.0, 2.0, 1.0, 0.0]])
    made = block_scores(scores, ["x", "x", "y", "y"], region=["r", "r", "s", "s"], seed=7)
    assert made.to_dict("list") == {
        "region": ["r", "s"], "seed": [7, 7], "block": ["x", "y"], "points": [2.0, 2.0], "score": [2.0, 2.0],
    }  # fmt: skip
    scores = np.array([[1.0, np.nan, 3.0, np.nan], [3.0, 2.0, np.nan, np.nan], [np.nan] * 4])
    made = block_scores(scores, ["x", "x", "y", "z"])
    assert made["block"].tolist() == ["x", "y"] and made["points"].sum() == pytest.approx(3)
    assert mean_of(made) == pytest.approx(np.mean([2.0, 2.5]))
    with pytest.raises(InputError, match="same points"):
        block_scores(scores, ["x"])


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


def test_holm_by_hand_and_by_a_slow_loop() -> None:
    rng = np.random.default_rng(0)
    for _ in range(3):
        p = rng.choice([0.001, 0.004, 0.01, 0.02, 0.3, 1.0], 8)
        slow, highest = np.empty(8), 0.0
        for done, number in enumerate(sorted(range(8), key=lambda i: p[i])):
            highest = max(highest, p[number] * (8 - done))
            slow[number] = min(highest, 1.0)
        np.testing.assert_allclose(holm(p), slow)
    # sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, never falling
    np.testing.assert_allclose(holm([0.02, 0.01, 0.04, 0.03]), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.9, 0.8]), [1.0, 1.0])


def test_step_down_over_two_tests_by_a_slow_loop() -> None:
    """Each p times the questions not done with; never above Holm's over all tests, nor below Holm's over one."""
    rng = np.random.default_rng(0)
    for number in range(100):
        p = rng.choice([0.0005, 0.001, 0.003, 0.01, 0.02, 0.06, 0.3, 1.0], (2, 6))
        adjusted = step_down(*p)
        todo = sorted((p[test, question], test, question) for test in (0, 1) for question in range(6))
        slow, highest = np.empty((2, 6)), 0.0
        left = dict.fromkeys(range(6), 2)
        for value, test, question in todo:
            highest = max(highest, value * sum(count > 0 for count in left.values()))
            slow[test, question] = min(highest, 1.0)
            left[question] -= 1
        np.testing.assert_allclose(adjusted, slow)
        if number >= 3:
            continue
        both = holm(p.ravel()).reshape(2, 6)
        assert (np.stack(adjusted) <= both + 1e-12).all() and (adjusted[0] >= holm(p[0]) - 1e-12).all()
        order = rng.permutation(6)
        np.testing.assert_allclose(step_down(p[0][order], p[1][order])[1], adjusted[1][order])


def test_differences_of_just_the_margin_are_rarely_called_equivalent() -> None:
    """Ten differences of the margin, all easily told from 0: no family errs more often than the level."""
    rng = np.random.default_rng(0)
    normal = np.sort(rng.normal(0, 1, 1999))
    wrong = 0
    for _ in range(200):
        family = [Draws(x, np.sort(x + normal), 10, 5) for x in 4.8 + rng.normal(0, 1, 10)]
        wrong += "equivalent" in set(judge(family, margin=4.8)["verdict"])
    assert wrong <= 10  # of 200


@pytest.mark.parametrize("margin", [0.05, 0.3, 3.0])
def test_verdict_interval_and_p_agree(margin: float) -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(40):
        family: list[Draws | None] = [
            of(list(centre + width * rng.normal(0, 1, 1999)))
            for centre, width in zip(rng.normal(0, 0.4, 6), rng.choice([0.01, 0.1, 0.5], 6), strict=True)
        ]
        found = judge([*family, None], margin=margin)
        alpha = 1 - found["interval_level"][0]
        assert found["interval_level"].nunique() == 1 and found["verdict"].iloc[-1] == "not run"
        for row in found.iloc[:-1].itertuples():
            seen.add(row.verdict)
            outside, within = row.low > 0 or row.high < 0, -margin < row.low and row.high < margin
            assert outside == (row.p <= alpha + 1e-12) == (row.verdict in ("better", "worse")) == (row.p_holm <= 0.05)
            assert within == (row.p_beyond <= alpha + 1e-12)
            assert (within and not outside) == (row.verdict == "equivalent")
    assert seen == {"better", "worse", "equivalent", *(["undecided"] if margin < 3 else [])}


def test_what_is_the_same_is_equivalent() -> None:
    same = of([0.0] * 1999, gain=0.0)
    assert judge([same], margin=0.02)["verdict"].tolist() == ["equivalent"]
    assert judge([same])["verdict"].tolist() == ["undecided"]  # equivalence was not asked for


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
    for _ in range(4):
        family = [spread(int(below)) for below in rng.choice([0, 1, 2, 3, 5, 9, 30, 400, 1000, 1999], 7)]
        everything = judge(family)
        for row in everything.itertuples():
            outside = row.low > 0 or row.high < 0
            assert outside == (row.verdict in ("better", "worse"))
            assert row.verdict != "better" or row.low > 0
            assert row.verdict != "worse" or row.high < 0
        there = rng.random(7) < 0.5
        some = judge([one if here else None for one, here in zip(family, there, strict=True)])
        for early, late, here in zip(some["verdict"], everything["verdict"], there, strict=True):
            assert early == "not run" if not here else early in (late, "undecided")


def test_claims_that_are_not_run_count_in_the_family() -> None:
    one = spread(4)  # two-sided p = 2 · 5 / 2000 = 0.005
    assert judge([one])["verdict"].tolist() == ["better"]
    padded = judge([one] + [None] * 9)
    assert padded["p_holm"][0] == pytest.approx(0.05) and padded["verdict"][0] == "better"
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
    assert table["verdict"].tolist() == ["better", "worse", "undecided", "not run"]
    assert table["p_holm"][0] == pytest.approx(4 * table["p"][0])
    assert np.isnan(table["p_holm"][3])


def test_one_block_is_not_enough() -> None:
    with pytest.raises(InputError, match="two of them"):
        paired_bootstrap([1.0, 2.0], [2.0, 1.0], [3, 3], higher_is_better=True)
    with pytest.raises(InputError, match="same points"):
        paired_bootstrap([1.0, 2.0], [2.0], [3, 3], higher_is_better=True)

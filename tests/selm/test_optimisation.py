"""Schedules at the epochs that the paper names (section 4), from the `paper` profile's numbers."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from reproduction.profiles import PROFILES
from selm.optimisation import cosine, learning_rate, linear_warmup

PAPER = PROFILES["paper"].pretraining
EPOCHS = 100


def test_the_paper_profile_runs_for_100_epochs():
    assert PAPER.images / PAPER.n_places == pytest.approx(EPOCHS, rel=1e-6)
    assert PAPER.batch == 256


def rate(epoch: float) -> float:
    return learning_rate(PAPER.lr * PAPER.batch / 256, PAPER.lr_min, epoch / EPOCHS, PAPER.lr_warmup)


@pytest.mark.parametrize(
    ("epoch", "value"),
    [
        (0, 0.0), (1, 5e-5), (5, 2.5e-4), (10, 5e-4), (100, 1e-6),
        (55, (5e-4 + 1e-6) / 2), (25, 1e-6 + (5e-4 - 1e-6) * (1 + math.cos(math.pi / 6)) / 2),
    ],
)  # fmt: skip
def test_learning_rate_ramps_up_for_10_epochs_then_follows_a_cosine(epoch, value):
    assert rate(epoch) == pytest.approx(value, rel=1e-9, abs=1e-15)


def test_learning_rate_is_continuous_and_falls_after_the_warmup():
    assert rate(10 - 1e-9) == pytest.approx(rate(10))
    after = [rate(epoch) for epoch in range(10, 101)]
    assert all(a > b for a, b in pairwise(after))
    assert max(rate(epoch / 10) for epoch in range(1001)) == pytest.approx(5e-4)


@pytest.mark.parametrize(
    ("epoch", "value"), [(0, 0.04), (50, 0.22), (100, 0.4), (25, 0.22 - 0.18 * math.cos(math.pi / 4))]
)
def test_weight_decay_follows_a_cosine_from_004_to_04(epoch, value):
    assert cosine(*PAPER.weight_decay, epoch / EPOCHS) == pytest.approx(value)


@pytest.mark.parametrize("temperatures", [PAPER.teacher_temp, PAPER.cluster_teacher_temp])
@pytest.mark.parametrize(("epoch", "value"), [(0, 0.04), (15, 0.055), (29, 0.069), (30, 0.07), (31, 0.07), (100, 0.07)])
def test_the_teachers_temperature_warms_up_from_004_to_007_in_30_epochs(epoch, value, temperatures):
    out = linear_warmup(*temperatures, epoch / EPOCHS, PAPER.teacher_temp_warmup)
    assert out == pytest.approx(value)


@pytest.mark.parametrize(("epoch", "value"), [(0, 0.996), (50, 0.998), (100, 1.0)])
def test_the_teachers_momentum_follows_a_cosine_from_0996_to_1(epoch, value):
    assert cosine(*PAPER.teacher_momentum, epoch / EPOCHS) == pytest.approx(value)


def test_without_warmup_schedules_start_at_their_peak():
    assert learning_rate(1.0, 0.0, 0.0, 0.0) == 1.0
    assert linear_warmup(0.04, 0.07, 0.0, 0.0) == 0.07


def test_progress_outside_the_run_gives_the_ends():
    assert cosine(2.0, 1.0, -0.1) == 2.0
    assert cosine(2.0, 1.0, 1.1) == 1.0

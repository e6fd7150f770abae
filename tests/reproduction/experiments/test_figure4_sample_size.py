"""Training sets of growing size: nested, apart from the test set, and scored by what each data set is scored by."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from reproduction.experiments import figure4_sample_size, image_sets
from reproduction.imagery.images import Imagery
from reproduction.imagery.sustainbench import SPLITS
from reproduction.profiles import get_profile
from reproduction.settings import SampleSize
from selm.errors import InputError


def images(n: int, name: str = "eurosat", **fields: object) -> Imagery:
    return Imagery(name, tuple(map(str, range(n))), lambda row: np.zeros((2, 2, 3), np.uint8), ("red", "green", "blue"),
                   "0", **fields)  # type: ignore[arg-type]  # fmt: skip


def test_larger_sets_hold_smaller_ones_and_no_test_image() -> None:
    made = images(100)
    small, large = (figure4_sample_size.folds(made, size, 20, 3) for size in (10, 60))
    for trial in range(3):
        assert (small[trial] == 0).sum() == (large[trial] == 0).sum() == 20
        assert np.array_equal(small[trial] == 0, large[trial] == 0)  # the same test set
        assert (small[trial] == 1).sum() == 10 and (large[trial] == 1).sum() == 60
        assert not ((small[trial] == 1) & (large[trial] != 1)).any()
    assert not np.array_equal(small[0], small[1])
    assert np.array_equal(small, figure4_sample_size.folds(made, 10, 20, 3))
    with pytest.raises(InputError, match="80 images to train on and 20 to test, 90 wanted"):
        figure4_sample_size.folds(made, 90, 20, 3)


def test_sustainbench_keeps_its_countries_apart() -> None:
    countries = np.array([SPLITS["train"][0], SPLITS["validation"][0], SPLITS["test"][0]] * 30)
    made = images(90, "sustainbench", groups=countries)
    drawn = figure4_sample_size.folds(made, 12, 10, 2)
    assert set(countries[(drawn == 0).any(axis=0)]) == {SPLITS["test"][0]}
    assert set(countries[(drawn == 1).any(axis=0)]) == {SPLITS["train"][0]}


@pytest.fixture
def water(monkeypatch: pytest.MonkeyPatch) -> Iterator[Imagery]:
    """Images with a value that their features tell, and its level."""
    rng = np.random.default_rng(0)
    value = rng.uniform(1, 5, 400)
    countries = np.where(np.arange(400) % 2 == 0, SPLITS["train"][3], SPLITS["test"][3])
    made = images(400, "sustainbench", values=value, groups=countries, class_names=tuple("12345"),
                  labels=np.clip(np.floor(value + 0.5), 1, 5).astype(np.int64) - 1)  # fmt: skip
    x = np.column_stack([value + rng.normal(size=400), rng.normal(size=(400, 3))]).astype(np.float32)
    monkeypatch.setattr(image_sets, "read", lambda profile, name: made)
    monkeypatch.setattr(image_sets, "features", lambda profile, method, seed, name: x)
    yield made


def test_a_value_is_scored_by_r2_and_its_levels_by_top1(water: Imagery) -> None:
    profile = dataclasses.replace(get_profile("smoke"), sample_size=SampleSize("sustainbench", (8, 160), 150, 3))
    entry = figure4_sample_size.Entry("sustainbench", "dino", "frozen-closed")
    rows, _ = figure4_sample_size.compute(profile, entry, progress=False)
    assert {row["metric"] for row in rows} == {"top1", "r2"} and len(rows) == 2 * 2 * 3
    assert {(row["target"], row["n_train"], row["n_test"]) for row in rows} == {
        ("sustainbench/8", 8, 150), ("sustainbench/160", 160, 150),
    }  # fmt: skip

    def mean(metric: str, size: int) -> float:
        chosen = [row for row in rows if row["metric"] == metric and row["target"].endswith(f"/{size}")]
        return float(np.mean([row["value"] for row in chosen]))

    assert mean("r2", 160) > mean("r2", 8) and mean("top1", 160) > mean("top1", 8)
    # the signal's variance is 16/12, the noise's 1: no linear rule does better than this, and 160 images come near it
    assert 0.4 < mean("r2", 160) < 0.7


def test_r2_is_numpys() -> None:
    rng = np.random.default_rng(1)
    value, predicted = rng.normal(size=30), rng.normal(size=(2, 30))
    predicted[1, ::2] = np.nan
    done = figure4_sample_size.OutOfFold((0,), {}, predicted[None], np.zeros(2, int), np.zeros(2, int))
    expected = [np.corrcoef(value, predicted[0])[0, 1] ** 2, np.corrcoef(value[1::2], predicted[1, 1::2])[0, 1] ** 2]
    np.testing.assert_allclose(figure4_sample_size.squared_correlation(done, value), expected)

"""The reduced embedding: what its numbers keep, who teaches it, and that `selm embed` gives the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reproduction.computed import compact, encoders, frozen_features, head, place_tables
from reproduction.profiles import get_profile
from reproduction.rows import LONGER

SMOKE = get_profile("smoke")


def made_up(n: int = 60, d: int = 7, t: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    x = (rng.normal(size=(n, d)) * np.arange(1, d + 1) + 5).astype(np.float32)
    return x, x[:, :t] @ rng.normal(size=(t, t)) + rng.normal(size=(n, t))


@pytest.mark.parametrize("part", [0.0, 0.3, 0.8])
def test_all_components_keep_the_sum_of_both_kernels(part: float) -> None:
    x, known = made_up()
    found = compact.reduction(x, known, x.shape[1], "it", part)
    reduced = found(x)
    assert found.identity == "it" and abs(found.kept - 1) < 1e-9 and reduced.shape == x.shape
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    outputs = z @ head.weights(z, known)
    outputs /= outputs.std(axis=0)
    for i in range(0, len(x), 7):
        for j in range(len(x)):
            want = (1 - part) * (z[i] @ z[j]) / z.shape[1] + part * (outputs[i] @ outputs[j]) / outputs.shape[1]
            assert reduced[i] @ reduced[j] == pytest.approx(want * x.shape[1], abs=2e-3)  # W's variance is 1 in all


def test_fewer_components_are_the_best_of_their_number_and_vary_alike() -> None:
    x, known = made_up(400, 30, 4)
    some, every = compact.reduction(x, known, 6, ""), compact.reduction(x, known, 30, "")
    variances = np.sort(np.linalg.eigvalsh(np.cov(every(x).T)))[::-1]
    fewer = np.sort(np.linalg.eigvalsh(np.cov(some(x).T)))[::-1]
    np.testing.assert_allclose(fewer / fewer.sum(), variances[:6] / variances[:6].sum(), rtol=1e-3)
    assert some(x).var(axis=0).mean() == pytest.approx(1, rel=1e-3) == every(x).var(axis=0).mean()
    assert some.kept == pytest.approx(variances[:6].sum() / variances.sum(), rel=1e-3)
    spread = some(x).std(axis=0)
    assert spread.max() / spread.min() < 0.7 * np.sqrt(variances[0] / variances[5])
    np.testing.assert_array_equal(some(x), compact.reduction(x, known, 6, "")(x))  # the rotation has a seed


def test_a_colour_that_is_hardly_ever_there_is_not_blown_up() -> None:
    x, known = made_up()
    x[:, 6] = np.float32(0.0)
    x[3, 6] = 1e-4
    reduced = compact.reduction(x, known, 4, "")
    other = x.copy()
    other[:, 6] = 1
    more = x.copy()
    more[:, 6] = 0.01
    assert reduced.clip == compact.CLIP and np.abs(reduced(other)).max() < 4 * np.abs(reduced(x)).max()
    np.testing.assert_allclose(reduced(other), reduced(more), atol=1e-5)


def test_neither_the_tested_nor_the_validation_regions_teach() -> None:
    japan = get_profile("japan-cpu")
    regions = np.array(["kanto", "fukuoka", "kansai", "hiroshima", "nagoya"])
    places = pd.DataFrame({"region": regions})
    assert regions[compact.teachers(japan, places, validated=False)].tolist() == regions.tolist()
    assert regions[compact.teachers(japan, places, validated=True)].tolist() == ["kanto", "kansai", "nagoya"]


def test_the_smoke_profiles_reduction_is_of_what_embed_gives(runs: Path) -> None:
    profile = dataclasses.replace(SMOKE, surroundings=dataclasses.replace(SMOKE.surroundings, longer=2, compact=16))
    encoders.pretrained(profile.times(2), LONGER, progress=False)
    found = compact.learned(profile)
    assert found.dim == 16 and found.identity == compact.identity(profile)
    places = place_tables.elsewhere(profile)
    assert "helsinki" not in set(places["region"])
    x = frozen_features.recommended(profile, places)
    want = compact.reduction(x, head.known(places), 16, "")
    np.testing.assert_allclose(compact.compact(profile, places), want(x), atol=1e-5)
    about = compact.about(profile, found)
    assert about["places"] == len(places) and about["numbers"] == 16
    # where its entries are kept is known without it
    assert compact.key(profile)["run"] == frozen_features.recommended_run(profile)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frozen_features, "recommended", lambda *_: pytest.fail("computed"))
        known = dataclasses.replace(profile, surroundings=dataclasses.replace(profile.surroundings, compact=8))
        assert compact.key(known)["numbers"] == 8 != compact.key(profile)["numbers"]

"""Rotations: another region is tested on, nothing of it is pretrained on, and all else stays."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from reproduction.computed import drawn_maps
from reproduction.places import regions, splits
from reproduction.profiles import PROFILES, get_profile
from reproduction.rotations import rotated
from selm.errors import InputError

JAPAN = get_profile("japan-cpu")
DRAWS = [f"draw_{d}" for d in range(splits.DRAWS)]

every_rotation = pytest.mark.parametrize("region", JAPAN.rotations)


@every_rotation
def test_the_regions_of_a_rotation_change_roles(region: str) -> None:
    turned = get_profile(f"japan-cpu-{region}")
    assert turned == rotated(JAPAN, region) and get_profile(turned.name) is turned
    roles = {one.name: one.role for one in turned.regions}
    before = {one.name: one.role for one in JAPAN.regions}
    assert roles.pop(region) == "test" and before.pop(region) == "pretrain"
    assert before.pop("hokkaido") == "test"
    assert roles == before
    assert turned.surroundings == dataclasses.replace(JAPAN.surroundings, longer=1)
    same = {"name", "purpose", "regions", "rotations", "held_out", "surroundings"}
    for field in dataclasses.fields(JAPAN):
        if field.name not in same:
            assert getattr(turned, field.name) == getattr(JAPAN, field.name)


def test_which_profiles_have_rotations() -> None:
    assert {name for name, profile in PROFILES.items() if profile.rotations} == {"japan-cpu", "japan-gpu", "japan"}
    with pytest.raises(InputError, match="profile 'smoke': only profiles on the official data of Japan"):
        rotated(get_profile("smoke"), "kotka")
    with pytest.raises(InputError, match="unknown pretraining region 'hokkaido'"):
        rotated(JAPAN, "hokkaido")
    with pytest.raises(InputError, match="is a rotation already"):
        rotated(get_profile("japan-cpu-kanto"), "nagoya")
    with pytest.raises(InputError, match="unknown profile 'japan-cpu-hokkaido'"):
        get_profile("japan-cpu-hokkaido")


@every_rotation
def test_the_fold_file_of_a_rotation(region: str) -> None:
    turned = get_profile(f"japan-cpu-{region}")
    folds, before = splits.read_folds(turned), splits.read_folds(JAPAN)
    assert splits.to_csv(splits.rotation_folds(turned)) == splits.fold_file(turned).read_text()
    assert splits.fold_file(turned) == splits.fold_file(get_profile(f"japan-{region}"))
    assert "hokkaido" not in set(folds["region"])
    others = before[~before["region"].isin([region, "hokkaido"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(folds[folds["region"] != region].reset_index(drop=True), others)
    tested = folds[folds["region"] == region]
    assert tested["cell"].tolist() == before.loc[before["region"] == region, "cell"].tolist()
    assert not tested["set_aside"].any()
    for draw in DRAWS:
        sizes = np.bincount(tested[draw], minlength=splits.FOLDS)
        assert len(sizes) == splits.FOLDS and sizes.max() - sizes.min() <= 1
    assert len(tested[DRAWS].T.drop_duplicates()) == len(DRAWS)


@every_rotation
def test_nothing_of_the_test_region_is_pretrained_on(region: str) -> None:
    turned = get_profile(f"japan-cpu-{region}")
    folds = splits.read_folds(turned)
    size = turned.maps.cell_degrees
    corner = np.array([splits.cell_bounds(cell, size)[1::-1] for cell in folds["cell"]])
    lat, lon = (np.repeat(corner, 10, axis=0) + np.random.default_rng(0).random((10 * len(corner), 2)) * size).T
    for one in turned.regions_for("pretrain"):
        split = splits.split_of(lat, lon, one.role, turned, folds)
        of = folds["region"].to_numpy().repeat(10)
        assert "pretrain" not in set(split[np.isin(of, [region, "fukuoka", "hiroshima"])])
        mine = of == one.name
        aside = folds["set_aside"].to_numpy().repeat(10) == 1
        np.testing.assert_array_equal(split[mine] == "set-aside", aside[mine])
        as_before = splits.split_of(lat[mine], lon[mine], "pretrain", JAPAN, splits.read_folds(JAPAN))
        np.testing.assert_array_equal(split[mine], as_before)


@every_rotation
def test_the_map_of_a_rotations_test_region_is_that_of_pretraining(region: str) -> None:
    turned = get_profile(f"japan-cpu-{region}")
    (tested,) = turned.regions_for("test")
    assert regions.blocks_with_points(turned, tested) is None  # whole: no other map by that name
    assert drawn_maps.drawn_blocks(turned, tested, "") is None
    assert drawn_maps.atlas_folder(turned, region) == drawn_maps.atlas_folder(JAPAN, region)

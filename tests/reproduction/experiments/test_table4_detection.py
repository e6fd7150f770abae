"""Scenes are split by groups, never by chip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reproduction.experiments import image_sets, table4_detection
from reproduction.imagery.images import Imagery
from reproduction.profiles import get_profile
from selm.errors import InputError


def test_two_flights_are_trained_on_in_turn() -> None:
    groups = np.array(["b", "a", "b", "a", "b"])
    for trial, trained in ((0, [1, 3]), (1, [0, 2, 4]), (2, [1, 3])):
        train, test = table4_detection.split(groups, trial, 0.8)
        assert train.tolist() == trained and sorted([*train, *test]) == list(range(5))


def test_many_scenes_are_shared_out_as_the_paper_does() -> None:
    groups = np.array([f"{i}.tif" for i in range(846)])
    train, test = table4_detection.split(groups, 0, 700 / 846)
    assert len(train) == 700 and len(test) == 146 and not set(groups[train]) & set(groups[test])
    other, _ = table4_detection.split(groups, 1, 700 / 846)
    assert set(train) != set(other)
    with pytest.raises(InputError, match="one group"):
        table4_detection.split(np.array(["a", "a"]), 0, 0.8)


def test_chips_of_one_group_are_on_one_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (120, 150, 3)).astype(np.uint8)
    boxes = np.array([[10, 10, 60, 50]], np.float32)
    scenes = Imagery("made up", tuple("abcd"), lambda row: pixels, ("red", "green", "blue"), "0", ("car",),
                     groups=np.array(["x", "y", "x", "y"]), boxes=(boxes,) * 4,
                     box_labels=(np.zeros(1, np.int64),) * 4)  # fmt: skip
    monkeypatch.setenv("SELM_RUNS", str(tmp_path))  # where nothing is remembered
    monkeypatch.setattr(image_sets, "read", lambda profile, name: scenes)
    train, test = table4_detection.chips(get_profile("smoke"), "made up", 0)
    assert set(train.groups) == {"x"} and set(test.groups) == {"y"} and len(train) == len(test) == 2
    assert train.load(0).shape == (96, 96, 3)

"""One loop: what it writes, that it resumes bit for bit, that it is a function of its seed, and that it learns."""

from __future__ import annotations

import csv
import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from synthetic import SETTINGS, sampler, trainer

from selm import checkpoints
from selm.errors import InputError
from selm.networks import MapEncoder
from selm.pretrain import clip_each, parameter_groups, pretrain, step_generator

CONFIG = {"method": "some", "seed": 0, "area": (0.4, 1.0)}


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as handle:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(handle)]


def assert_same_run(a: Path, b: Path) -> None:
    for file in ("method.safetensors", "model.safetensors"):
        one, two = checkpoints.load_tensors(a / file)[0], checkpoints.load_tensors(b / file)[0]
        assert one.keys() == two.keys()
        different = [name for name in one if not torch.equal(one[name], two[name])]
        assert not different, f"{file}: {different}"
    assert rows_of(a) == rows_of(b)


@pytest.mark.parametrize("name", ["dino", "gps_selm"])
def test_a_run_stopped_anywhere_ends_as_if_it_had_not_been(tmp_path, name):
    whole = pretrain(trainer(name), tmp_path / "whole", CONFIG, progress=False)
    # checkpoints are at steps 4 and 8: stop before the first, between them, and after the second
    for done in (3, 5, 3):
        pretrain(trainer(name), tmp_path / "parts", CONFIG, progress=False, stop_after=done)
        assert not checkpoints.read_json(tmp_path / "parts" / "run.json")["complete"]
    parts = pretrain(trainer(name), tmp_path / "parts", CONFIG, progress=False)
    assert_same_run(whole, parts)
    assert not (parts / "state").exists()

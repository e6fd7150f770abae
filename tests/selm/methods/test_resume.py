"""Every method: stopped and gone on with, a run ends with the same numbers, queues and optimizers included."""

from __future__ import annotations

import pytest
import torch
from synthetic import trainer

from selm import checkpoints
from selm.methods import METHODS
from selm.methods.gps_selm import GPSSELM
from selm.pretrain import pretrain

OTHERS = [name for name, recipe in METHODS.items() if not issubclass(recipe.builder, GPSSELM)]


@pytest.mark.parametrize("name", OTHERS)
def test_a_run_stopped_anywhere_ends_as_if_it_had_not_been(tmp_path, name):
    config = {"method": name}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    pretrain(trainer(name), whole, config, progress=False)
    for done in (5, 3):  # checkpoints are at steps 4 and 8
        pretrain(trainer(name), parts, config, progress=False, stop_after=done)
    pretrain(trainer(name), parts, config, progress=False)
    one, two = (checkpoints.load_tensors(folder / "method.safetensors")[0] for folder in (whole, parts))
    assert one.keys() == two.keys()
    assert [key for key in one if not torch.equal(one[key], two[key])] == []
    lines = [[line.rsplit(",", 1)[0] for line in (f / "metrics.csv").read_text().splitlines()] for f in (whole, parts)]
    assert lines[0] == lines[1]

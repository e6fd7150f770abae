"""Table 4: object detection with the pretrained encoders, on chips of large scenes.

An entry is one method and trial. Whole groups of scenes (flights; in xView each scene is one) are trained or tested on,
never chips of one scene on both sides. With two groups, trial t trains on group t mod 2 and tests on the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from reproduction.computed import encoders
from reproduction.computed.store import remembered
from reproduction.experiments import image_sets
from reproduction.experiments.entries import Grid, Rows
from reproduction.experiments.retinanet import Objects, average_precision, detect, detector, train
from reproduction.imagery.chips import random_chips
from reproduction.imagery.images import Imagery, statistics
from reproduction.rows import ONE_IMAGE
from reproduction.settings import Profile
from selm import distributed, encoder
from selm.errors import InputError

VERSION = 1  # raise it when the numbers change for the same settings and data
EXPERIMENT = "table4"
SEED = 0  # of the chips, which all methods and trials share


@dataclass(frozen=True)
class Entry:
    """One method's training in one trial."""

    imagery: str
    method: str
    trial: int
    seed: int = 0

    @property
    def label(self) -> str:
        return f"{EXPERIMENT}-{self.imagery}-{self.method}-s{self.seed}-t{self.trial}"


def entries(profile: Profile, which: Iterable[str] | None = None, photographs: str | None = None) -> list[Entry]:
    """The grid, method by method; `photographs` names another data set than the profile's."""
    name = photographs or profile.detection.imagery
    rows = ("random_init", *ONE_IMAGE)
    out = [Entry(name, method, trial) for method in rows for trial in range(profile.detection.n_trials)]
    return [entry for entry in out if which is None or entry.method in set(which)]


def split(groups: NDArray[np.str_], trial: int, train_share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(training rows, test rows) of scenes by their groups; InputError where there is one group only."""
    names = np.unique(groups)
    if len(names) < 2:
        raise InputError(f"detection: all scenes belong to one group ('{names[0]}'): nothing is left to test on")
    if len(names) == 2:
        chosen = names[[trial % 2]]
    else:
        n_train = min(max(1, round(train_share * len(names))), len(names) - 1)
        chosen = np.random.default_rng([SEED, trial]).permutation(names)[:n_train]
    inside = np.isin(groups, chosen)
    return np.flatnonzero(inside), np.flatnonzero(~inside)


@remembered(maxsize=2)
def chips(profile: Profile, name: str, trial: int) -> tuple[Imagery, Imagery]:
    """The chips to train on and those to test on."""
    settings, scenes = profile.detection, image_sets.read(profile, name)
    if scenes.groups is None:
        raise InputError(f"imagery '{name}' has no groups of scenes to split by, so it cannot be used for Table 4")
    sides = split(scenes.groups, trial, settings.train_share)
    first, second = (
        random_chips(scenes.some(rows), px=settings.chip_px, count=settings.chips, seed=SEED) for rows in sides
    )
    return first, second


def _pixels(chips: Imagery) -> Tensor:
    return torch.stack([torch.from_numpy(chips.rgb(row)).permute(2, 0, 1) for row in range(len(chips))])


def _objects(chips: Imagery) -> list[Objects]:
    return [Objects(boxes, labels) for boxes, labels in zip(chips.boxes, chips.box_labels, strict=True)]


def _encoder(profile: Profile, entry: Entry) -> Any:
    """The row's encoder; random weights differ from trial to trial."""
    if entry.method == "random_init":
        return encoder.new_encoder(encoders.encoder_config(profile), entry.trial)
    return encoders.encoder(profile, entry.method, entry.seed)


def compute(profile: Profile, entry: Entry, *, progress: bool = True) -> tuple[Rows, dict[str, Tensor]]:
    """Train and test one detector: its row, and what it found in the test chips (`found`)."""
    settings, on = profile.detection, distributed.device()
    training, testing = chips(profile, entry.imagery, entry.trial)
    pixels = _pixels(training)
    mean, std = statistics(pixels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(entry.trial)  # for the heads
        model = detector(
            _encoder(profile, entry), len(training.class_names), px=settings.chip_px, mean=(mean / 255).tolist(),
            std=(std / 255).tolist(), fpn_channels=settings.fpn_channels,
        )  # fmt: skip
    losses = train(model, pixels, _objects(training), epochs=settings.epochs, batch=settings.batch, lr=settings.lr,
                   seed=entry.trial, device=on, progress=progress)  # fmt: skip
    found = detect(model, _pixels(testing), batch=settings.batch, device=on)
    precision = average_precision(found, _objects(testing), len(training.class_names))
    row = {
        "experiment": EXPERIMENT, "target": entry.imagery, "split": "scenes", "setting": "finetune",
        "epochs": settings.epochs, "metric": "ap50", "trial": entry.trial, "value": float(np.nanmean(precision)),
        "n_train": len(training), "n_test": len(testing),
    }  # fmt: skip
    tensors = {
        "boxes": torch.from_numpy(np.concatenate([objects.boxes for objects in found])),
        "labels": torch.from_numpy(np.concatenate([objects.labels for objects in found])),
        "scores": torch.from_numpy(np.concatenate([objects.scores for objects in found if objects.scores is not None])),
        "count": torch.tensor([len(objects.boxes) for objects in found]),
        "ap50": torch.from_numpy(precision),
        "loss": torch.tensor(losses),
    }
    return [row], tensors


def _parts(profile: Profile, entry: Entry) -> dict[str, Any]:
    settings = dataclasses.asdict(profile.detection)
    for name in ("imagery", "n_trials"):  # the first trials are the same, however many there are
        del settings[name]
    return {"data": _data(profile, entry), "settings": settings, "version": VERSION}


def _data(profile: Profile, entry: Entry) -> str:
    return image_sets.read(profile, entry.imagery).fingerprint


GRID = Grid[Entry](
    _parts, compute, data=_data, stand_in=lambda profile, entry: image_sets.is_stand_in(entry.imagery)
)  # fmt: skip


def found(profile: Profile, entry: Entry) -> list[Objects]:
    """What an entry's detector found in each test chip, best first."""
    GRID.rows(profile, entry)
    tensors = GRID.kept(profile, entry).tensors()
    ends = np.cumsum(tensors["count"].numpy())[:-1]
    parts = (np.split(tensors[name].numpy(), ends) for name in ("boxes", "labels", "scores"))
    return [Objects(*part) for part in zip(*parts, strict=True)]


def table4(
    profile: Profile, which: Iterable[str] | None = None, *, photographs: str | None = None, progress: bool = True
) -> pd.DataFrame:
    """Object detection (Table 4): tidy results, one row a trial; computes the entries that are missing."""
    return GRID.table(profile, EXPERIMENT, entries(profile, which, photographs), progress=progress)


def finished(profile: Profile) -> dict[str, pd.DataFrame]:
    """The rows of the entries that are there already, by the name of their file; computes nothing."""
    if not image_sets.is_there(profile, profile.detection.imagery):
        return {}
    rows = GRID.finished(profile, entries(profile))
    return {f"{EXPERIMENT}.csv": rows} if len(rows) else {}

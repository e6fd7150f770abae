"""Figure 4: performance against the size of the training set, on frozen features.

A trial draws a test set and an order of the rest; a training set of n is the first n of that order, so that larger ones
hold the smaller ones. Features are computed once; all sizes and trials of a method are one entry.
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
from tqdm import tqdm

from reproduction.experiments import image_sets
from reproduction.experiments.entries import Grid, Rows
from reproduction.imagery.images import Imagery
from reproduction.imagery.sustainbench import official_split
from reproduction.rows import ONE_IMAGE
from reproduction.settings import Profile
from selm.errors import InputError
from selm.probes import practitioner
from selm.probes.folds import OutOfFold
from selm.probes.frozen import logistic, ridge

VERSION = 1  # raise it when the numbers change for the same settings and data
EXPERIMENT = "figure4"
SEED = 4
_TEST, _TRAIN = 0, 1


@dataclass(frozen=True)
class Entry:
    """One line of the figure."""

    imagery: str
    method: str
    setting: str
    seed: int = 0

    @property
    def label(self) -> str:
        return f"{EXPERIMENT}-{self.imagery}-{self.method}-{self.setting}-s{self.seed}"


def entries(profile: Profile, which: Iterable[str] | None = None, photographs: str | None = None) -> list[Entry]:
    """The lines of the figure. `which` keeps some methods; `photographs` names another data set than the profile's."""
    name = photographs or profile.sample_size.imagery
    out = [Entry(name, "random_init", "frozen-closed")]
    for method in ONE_IMAGE:
        out += [Entry(name, method, "frozen-closed", seed) for seed in range(profile.seeds_of(method))]
    out.append(Entry(name, "histogram", "practitioner"))
    return [entry for entry in out if which is None or entry.method in set(which)]


def split(images: Imagery, n_test: int, trial: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(test rows, training rows in the order in which sets of growing size take them) of a trial.

    SustainBench keeps its official split by country; other data sets are shuffled.
    """
    order = np.random.default_rng([SEED, trial]).permutation(len(images))
    if images.name == "sustainbench" and images.groups is not None:
        of = official_split(images.groups)[order]
        return order[of == "test"][:n_test], order[of == "train"]
    return order[:n_test], order[n_test:]


def folds(images: Imagery, size: int, n_test: int, n_trials: int) -> NDArray[np.int64]:
    """Fold array (trials, N): 0 tested, 1 trained on, -1 neither. InputError where there are too few images."""
    out = np.full((n_trials, len(images)), -1, np.int64)
    for trial in range(n_trials):
        test, train = split(images, n_test, trial)
        if len(train) < size or not len(test):
            raise InputError(f"{images.name}: {len(train)} images to train on and {len(test)} to test, {size} wanted")
        out[trial, test] = _TEST
        out[trial, train[:size]] = _TRAIN
    return out


def squared_correlation(done: OutOfFold, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """r² of each trial: the squared Pearson correlation of predictions and values over the tested images."""
    out = []
    for predicted in done.predictions[0].astype(np.float64):
        tested = np.isfinite(predicted)
        spread = predicted[tested].std() * values[tested].std()
        centred = (predicted[tested] - predicted[tested].mean()) * (values[tested] - values[tested].mean())
        out.append((centred.mean() / spread) ** 2 if spread > 0 else 0.0)
    return np.array(out)


def compute(profile: Profile, entry: Entry, *, progress: bool = True) -> tuple[Rows, dict[str, torch.Tensor]]:
    """The rows of an entry and their values: top-1 on the classes and, where images have values (SustainBench), r²."""
    settings, images = profile.sample_size, image_sets.read(profile, entry.imagery)
    if entry.setting == "practitioner":
        x = image_sets.image_histograms(profile, entry.imagery)
    else:
        x = image_sets.features(profile, entry.method, entry.seed, entry.imagery)
    rows: Rows = []
    for size in tqdm(settings.sizes, desc=entry.label, unit="size", disable=not progress, leave=False):
        drawn = folds(images, size, settings.n_test, settings.n_trials)
        used = np.flatnonzero((drawn >= 0).any(axis=0))
        columns = {
            "experiment": EXPERIMENT, "target": f"{entry.imagery}/{size}", "split": "random", "setting": entry.setting
        }  # fmt: skip
        if images.labels is not None:
            codes = images.labels[used]
            if entry.setting == "practitioner":
                done = practitioner.forest(x[used], codes, drawn[:, used], task="classification", test_folds=(_TEST,))
            else:
                done = logistic(x[used], codes, drawn[:, used], test_folds=(_TEST,))
            rows += [row for row in done.rows(**columns) if row["metric"] == "top1"]
        if images.values is not None:
            values = images.values[used]
            if entry.setting == "practitioner":
                done = practitioner.boosting(x[used], values, drawn[:, used], task="regression", test_folds=(_TEST,))
            else:
                done = ridge(x[used], values, drawn[:, used], test_folds=(_TEST,))
            for trial, value in enumerate(squared_correlation(done, values)):
                rows.append({**columns, "epochs": 0, "metric": "r2", "trial": trial, "value": float(value),
                             "n_train": int(done.n_train[trial]), "n_test": int(done.n_test[trial])})  # fmt: skip
    return rows, {"value": torch.tensor([row["value"] for row in rows], dtype=torch.float64)}


def _parts(profile: Profile, entry: Entry) -> dict[str, Any]:
    settings = dataclasses.asdict(profile.sample_size) | {"imagery": entry.imagery}
    return {"data": _data(profile, entry), "settings": settings, "version": VERSION}


def _data(profile: Profile, entry: Entry) -> str:
    return image_sets.read(profile, entry.imagery).fingerprint


GRID = Grid[Entry](
    _parts, compute, data=_data, stand_in=lambda profile, entry: image_sets.is_stand_in(entry.imagery)
)  # fmt: skip


def figure4(
    profile: Profile, which: Iterable[str] | None = None, *, photographs: str | None = None, progress: bool = True
) -> pd.DataFrame:
    """Performance against training-set size (Figure 4): tidy results, one row a trial.

    `target` is ``IMAGERY/n``, n the size of the training set; computes the entries that are missing.
    """
    return GRID.table(profile, EXPERIMENT, entries(profile, which, photographs), progress=progress)


def finished(profile: Profile) -> dict[str, pd.DataFrame | bytes]:
    """The rows of the entries that are there already, by the name of their file; computes nothing."""
    if not image_sets.is_there(profile, profile.sample_size.imagery):
        return {}
    rows = GRID.finished(profile, entries(profile))
    return {f"{EXPERIMENT}.csv": rows} if len(rows) else {}

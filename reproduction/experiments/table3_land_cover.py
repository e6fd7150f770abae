"""Table 3: land cover from map images, with and without the fills that show it, and from photographs.

A cell is one method, setting, target and way to split, kept as `reproduction.experiments.cells` keeps them. Targets:
``osm`` and ``osm_no_fills``, the 13 classes of `osm_land_cover` on images in full style and without land use, land
cover and water fills, and the photographs of `profile.land_cover.imagery`. The encoders were pretrained on images in
full style: without fills they see images unlike any of their training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import sparse

from reproduction import paths
from reproduction.computed import encoders, frozen_features, store
from reproduction.experiments import image_sets, map_land_cover
from reproduction.experiments.cells import cell_base, cell_rows, encoder_key, is_finished, table_rows
from reproduction.experiments.raw_gps import raw_gps
from reproduction.places import splits
from reproduction.rows import ONE_IMAGE
from reproduction.settings import Profile
from selm import checkpoints
from selm.errors import InputError
from selm.maps.sphere import pairs_within
from selm.probes import practitioner
from selm.probes.folds import BufferedFolds, OutOfFold, random_folds
from selm.probes.frozen import frozen, logistic

VERSION = 1  # raise it when the numbers change for the same settings and data
EXPERIMENT = "table3"
OSM = {"osm": "selm", "osm_no_fills": map_land_cover.NO_FILLS}  # target → map style
SETTINGS = ("frozen", "frozen-closed")
TOLERANCE = 1e-4  # of the logistic probe's gradient: top-1 moves by 0.0003 from that at 1e-5, in 40 % of the time
_COORDINATES = ("raw_gps", "raw_gps_standardised", "knn_coordinates", "prior")  # rows that see no image


@dataclass(frozen=True)
class Cell:
    """One entry of the grid; fields as in `reproduction.experiments.table1_table2.Cell`."""

    target: str
    split: str
    method: str
    setting: str
    seed: int = 0

    @property
    def label(self) -> str:
        return f"{EXPERIMENT}-{self.target}-{self.split}-{self.method}-{self.setting}-s{self.seed}"


def cells(profile: Profile, which: Iterable[str] | None = None, photographs: str | None = None) -> list[Cell]:
    """The grid in reading order; `which` keeps some methods, `photographs` names other imagery than the profile's."""
    out: list[Cell] = []
    targets = [(target, split) for target in OSM for split in ("random", "blocks")]
    targets += [(name, "random") for name in ((photographs,) if photographs else profile.land_cover.imagery)]
    for target, split in targets:
        on_map = target in OSM
        out += [Cell(target, split, "random_init", setting) for setting in SETTINGS]
        if on_map:
            out += [Cell(target, split, name, "finetune") for name in ("raw_gps", "raw_gps_standardised")]
        for method in ONE_IMAGE:
            for seed in range(profile.seeds_of(method)):
                out += [Cell(target, split, method, setting, seed) for setting in SETTINGS]
        rows = ("prior", "knn_coordinates", "histogram_17") if on_map else ("prior", "histogram")
        out += [Cell(target, split, method, "practitioner") for method in rows]
    return [cell for cell in out if which is None or cell.method in set(which)]


def data_key(profile: Profile, target: str) -> str:
    """Hash (hex) of a target's images and labels."""
    return map_land_cover.key(profile) if target in OSM else image_sets.read(profile, target).fingerprint


def labels(profile: Profile, target: str) -> NDArray[np.int64]:
    """Class codes (N,) of a target's images."""
    if target in OSM:
        return map_land_cover.places(profile)["land_cover"].to_numpy(np.int64)
    codes = image_sets.read(profile, target).labels
    if codes is None:
        raise InputError(f"imagery '{target}' has no classes, so it cannot be a target of Table 3")
    return codes


@lru_cache(maxsize=4)
def _folds(root: Path, profile: Profile, on_map: bool, split: str, n: int) -> BufferedFolds:
    draws = range(profile.land_cover.n_trials)
    if not on_map or split == "random":
        return BufferedFolds(random_folds(n, draws), sparse.eye_array(n, dtype=bool, format="csr"))
    places, table = map_land_cover.places(profile), splits.read_folds(profile)
    fold = np.stack([splits.fold_of(places["cell"].to_numpy(), table, draw) for draw in draws])
    return BufferedFolds(fold, pairs_within(places["lat"], places["lon"], profile.maps.buffer_m))


def folds(profile: Profile, target: str, split: str) -> BufferedFolds:
    """Ten folds a trial: shuffled (``random``), or the committed ones of whole cells with a buffer (``blocks``)."""
    return _folds(paths.runs(), profile, target in OSM, split, len(labels(profile, target)))


def features(profile: Profile, target: str, method: str, seed: int) -> NDArray[np.float32]:
    """(N, dim) frozen features of a target's images, computed once."""
    if target not in OSM:
        return image_sets.features(profile, method, seed, target)
    if OSM[target] == profile.maps.style:
        return frozen_features.features(profile, method, seed, map_land_cover.places(profile), EXPERIMENT)
    network = encoders.encoder(profile, method, seed)
    parts = {**encoder_key(profile, method, seed), "images": map_land_cover.key(profile), "style": OSM[target],
             "version": VERSION}  # fmt: skip
    label = f"{profile.name}-{method}-s{seed}-{EXPERIMENT}-{target}"
    file = store.address("features", label, parts).with_suffix(".safetensors")
    if not file.exists():
        out = frozen_features.encode(network, *map_land_cover.images(profile, OSM[target]))
        checkpoints.save_tensors(file, {"features": out})
    return checkpoints.load_tensors(file)[0]["features"].numpy()


def _histograms(profile: Profile, target: str) -> NDArray[np.float32]:
    if target not in OSM:
        return image_sets.histograms(profile, target)
    indices, _ = map_land_cover.images(profile, OSM[target])
    return practitioner.colour_histogram(indices.numpy(), map_land_cover.atlas(profile, OSM[target]).palette)


def compute(profile: Profile, cell: Cell, *, progress: bool = True) -> OutOfFold:
    """Run one cell, scored out of fold."""
    probing, settings = profile.probing, profile.land_cover
    codes, split = labels(profile, cell.target), folds(profile, cell.target, cell.split)
    if cell.setting in SETTINGS:
        x = features(profile, cell.target, cell.method, cell.seed)
        if cell.setting == "frozen-closed":
            return logistic(x, codes, split, tolerance=TOLERANCE)
        return frozen(x, codes, split, task="classification", epochs=probing.epochs, batch=probing.batch,
                      lr=probing.frozen_lr, progress=progress)  # fmt: skip
    if cell.method == "prior":
        return practitioner.class_prior(codes, split)
    if cell.method.startswith("histogram"):
        fewer = BufferedFolds(split.fold[: settings.n_trees], split.near)
        return practitioner.forest(
            _histograms(profile, cell.target), codes, fewer, task="classification", trees=probing.trees
        )
    places = map_land_cover.places(profile)
    lat, lon = places["lat"].to_numpy(), places["lon"].to_numpy()
    if cell.method == "knn_coordinates":
        return practitioner.knn(lat, lon, codes, split, task="classification")
    inputs = "standardised" if cell.method.endswith("standardised") else "raw"
    return raw_gps(lat, lon, codes, split, task="classification", inputs=inputs, epochs=probing.epochs,
                   batch=probing.batch, progress=progress)  # fmt: skip


def cell_at(profile: Profile, cell: Cell) -> Path:
    """Where a cell is kept (without suffix), whether or not it has been computed."""
    if cell.method in _COORDINATES and cell.target in OSM:  # the same numbers whatever the image
        cell = dataclasses.replace(cell, target="osm")
    parts = {
        "cell": dataclasses.asdict(cell),
        "data": data_key(profile, cell.target),
        "folds": [profile.land_cover.n_trials, profile.land_cover.n_trees],
        "probing": dataclasses.asdict(profile.probing),
        "version": VERSION,
    }
    return cell_base(profile, cell.label, cell.method, cell.seed, parts)


def run_cell(profile: Profile, cell: Cell, *, progress: bool = True) -> pd.DataFrame:
    """The rows of a cell in the results table, computed where they are not there yet."""

    def make() -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
        done = compute(profile, cell, progress=progress)
        rows = done.rows(experiment=EXPERIMENT, target=cell.target, split=cell.split, setting=cell.setting)
        scores = {metric: torch.from_numpy(values) for metric, values in done.scores.items()}
        return rows, {**scores, "predictions": torch.from_numpy(done.predictions)}

    stand_in = profile.stand_ins if cell.target in OSM else image_sets.is_stand_in(cell.target)
    rows = cell_rows(profile, cell_at(profile, cell), cell.method, cell.seed, make,
                     data=data_key(profile, cell.target), stand_in=stand_in)  # fmt: skip
    return rows.assign(target=cell.target)


def table3(
    profile: Profile, which: Iterable[str] | None = None, *, photographs: str | None = None, progress: bool = True
) -> pd.DataFrame:
    """Land cover (Table 3): tidy results, one row a trial; computes the cells that are missing."""
    return table_rows(
        f"{EXPERIMENT} ({profile.name})", cells(profile, which, photographs),
        lambda cell: run_cell(profile, cell, progress=progress), progress,
    )  # fmt: skip


def finished(profile: Profile) -> dict[str, pd.DataFrame]:
    """The rows of the cells that are there already and the places of each class, by file name; computes nothing."""
    if not map_land_cover.is_there(profile):
        return {}
    here = [cell for cell in cells(profile) if cell.target in OSM or image_sets.is_there(profile, cell.target)]
    done = [cell for cell in here if is_finished(cell_at(profile, cell))]
    parts = [run_cell(profile, cell) for cell in done]
    if not parts:
        return {}
    counts = map_land_cover.class_counts(profile).assign(profile=profile.name, data=map_land_cover.key(profile)[:12])
    return {f"{EXPERIMENT}.csv": pd.concat(parts, ignore_index=True), f"{EXPERIMENT}-classes.csv": counts}

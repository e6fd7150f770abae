"""Table 3: land cover from map images, with and without the fills that show it, and from photographs.

Targets: ``osm`` and ``osm_no_fills``, the 13 classes of `reproduction.labels.land_cover` on images in full style and
without land use, land cover and water fills; and the photographs of `profile.land_cover.imagery`. The encoders were
pretrained on images in full style: without fills they see images unlike any of their training.
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
from scipy import sparse

from reproduction.computed import encoders, frozen_features
from reproduction.computed.store import cached_array, remembered
from reproduction.experiments import image_sets, map_land_cover, row_claims
from reproduction.experiments.entries import Grid, Rows, rows_and_scores
from reproduction.experiments.raw_gps import raw_gps
from reproduction.places import splits
from reproduction.rows import ONE_IMAGE
from reproduction.settings import Profile
from selm.errors import InputError
from selm.maps.colours import colour_histogram
from selm.maps.sphere import pairs_within
from selm.probes import practitioner
from selm.probes.folds import BufferedFolds, OutOfFold, random_folds
from selm.probes.frozen import frozen, logistic

VERSION = 1  # raise it when the numbers change for the same settings and data
EXPERIMENT = "table3"
OSM = {"osm": "selm", "osm_no_fills": map_land_cover.NO_FILLS}  # target → map style
CLAIMED = "osm_no_fills"  # the fills of the map show its land cover
SETTINGS = ("frozen", "frozen-closed")
TOLERANCE = 1e-4  # of the logistic probe's gradient: top-1 moves by 0.0003 from that at 1e-5, in 40 % of the time
_COORDINATES = ("raw_gps", "raw_gps_standardised", "knn_coordinates", "prior")  # rows that see no image


@dataclass(frozen=True)
class Entry:
    """One entry of the grid; fields as in `reproduction.experiments.table1_table2.Entry`."""

    target: str
    split: str
    method: str
    setting: str
    seed: int = 0

    @property
    def label(self) -> str:
        return f"{EXPERIMENT}-{self.target}-{self.split}-{self.method}-{self.setting}-s{self.seed}"


def entries(profile: Profile, which: Iterable[str] | None = None, photographs: str | None = None) -> list[Entry]:
    """The grid in reading order; `which` keeps some methods, `photographs` names other imagery than the profile's."""
    out: list[Entry] = []
    targets = [(target, split) for target in OSM for split in ("random", "blocks")]
    targets += [(name, "random") for name in ((photographs,) if photographs else profile.land_cover.imagery)]
    for target, split in targets:
        on_map = target in OSM
        out += [Entry(target, split, "random_init", setting) for setting in SETTINGS]
        if on_map:
            out += [Entry(target, split, name, "finetune") for name in ("raw_gps", "raw_gps_standardised")]
        for method in ONE_IMAGE:
            for seed in range(profile.seeds_of(method)):
                out += [Entry(target, split, method, setting, seed) for setting in SETTINGS]
        rows = ("prior", "knn_coordinates", "histogram_17") if on_map else ("prior", "histogram")
        out += [Entry(target, split, method, "practitioner") for method in rows]
    return [entry for entry in out if which is None or entry.method in set(which)]


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


@remembered(maxsize=4)
def _folds(profile: Profile, on_map: bool, split: str, n: int) -> BufferedFolds:
    draws = range(profile.land_cover.n_trials)
    if not on_map or split == "random":
        return BufferedFolds(random_folds(n, draws), sparse.eye_array(n, dtype=bool, format="csr"))
    places, table = map_land_cover.places(profile), splits.read_folds(profile)
    fold = np.stack([splits.fold_of(places["cell"].to_numpy(), table, draw) for draw in draws])
    return BufferedFolds(fold, pairs_within(places["lat"], places["lon"], profile.maps.buffer_m))


def folds(profile: Profile, target: str, split: str) -> BufferedFolds:
    """Ten folds a trial: shuffled (``random``), or the committed ones of whole cells with a buffer (``blocks``)."""
    return _folds(profile, target in OSM, split, len(labels(profile, target)))


def features(profile: Profile, target: str, method: str, seed: int) -> NDArray[np.float32]:
    """(N, dim) frozen features of a target's images, computed once."""
    if target not in OSM:
        return image_sets.features(profile, method, seed, target)
    if OSM[target] == profile.maps.style:
        return frozen_features.features(profile, method, seed, map_land_cover.places(profile), EXPERIMENT)
    parts = {**encoders.encoder_key(profile, method, seed), "images": map_land_cover.key(profile), "style": OSM[target],
             "version": VERSION}  # fmt: skip
    label = f"{profile.name}-{method}-s{seed}-{EXPERIMENT}-{target}"
    return cached_array(
        "features", label, parts,
        lambda: frozen_features.encode(
            encoders.encoder(profile, method, seed), *map_land_cover.images(profile, OSM[target])
        ),
    )  # fmt: skip


def histograms(profile: Profile, target: str) -> NDArray[np.float32]:
    """Colour histograms (N, colours) of a target's images."""
    if target not in OSM:
        return image_sets.image_histograms(profile, target)
    indices, _ = map_land_cover.images(profile, OSM[target])
    return colour_histogram(indices.numpy(), map_land_cover.atlas(profile, OSM[target]).palette)


def compute(profile: Profile, entry: Entry, *, progress: bool = True) -> tuple[Rows, dict[str, torch.Tensor]]:
    """The rows and scores of an entry."""
    done = _probed(profile, entry, progress=progress)
    return rows_and_scores(done, experiment=EXPERIMENT, target=entry.target, split=entry.split, setting=entry.setting)


def _probed(profile: Profile, entry: Entry, *, progress: bool) -> OutOfFold:
    probing, settings = profile.probing, profile.land_cover
    codes, split = labels(profile, entry.target), folds(profile, entry.target, entry.split)
    if entry.setting in SETTINGS:
        x = features(profile, entry.target, entry.method, entry.seed)
        if entry.setting == "frozen-closed":
            return logistic(x, codes, split, tolerance=TOLERANCE)
        return frozen(x, codes, split, task="classification", epochs=probing.epochs, batch=probing.batch,
                      lr=probing.frozen_lr, weight_decay=probing.frozen_weight_decay, progress=progress)  # fmt: skip
    if entry.method == "prior":
        return practitioner.class_prior(codes, split)
    if entry.method.startswith("histogram"):
        fewer = BufferedFolds(split.fold[: settings.n_trees], split.near)
        return practitioner.forest(
            histograms(profile, entry.target), codes, fewer, task="classification", trees=probing.trees
        )
    places = map_land_cover.places(profile)
    lat, lon = places["lat"].to_numpy(), places["lon"].to_numpy()
    if entry.method == "knn_coordinates":
        return practitioner.knn(lat, lon, codes, split, task="classification")
    inputs = "standardised" if entry.method.endswith("standardised") else "raw"
    return raw_gps(lat, lon, codes, split, task="classification", inputs=inputs, epochs=probing.epochs,
                   batch=probing.batch, progress=progress)  # fmt: skip


def _parts(profile: Profile, entry: Entry) -> dict[str, Any]:
    return {
        "data": data_key(profile, entry.target),
        "folds": [profile.land_cover.n_trials, profile.land_cover.n_trees],
        "probing": dataclasses.asdict(profile.probing),
        "version": VERSION,
    }


def _shared(entry: Entry) -> Entry:
    """A row that sees no image has the same numbers whatever the image."""
    blind = entry.method in _COORDINATES and entry.target in OSM
    return dataclasses.replace(entry, target="osm") if blind else entry


def _is_stand_in(profile: Profile, entry: Entry) -> bool:
    return profile.stand_ins if entry.target in OSM else image_sets.is_stand_in(entry.target)


GRID = Grid[Entry](
    _parts, compute, data=lambda profile, entry: data_key(profile, entry.target), stand_in=_is_stand_in, shared=_shared,
    named=lambda entry: {"target": entry.target},
)  # fmt: skip


def table3(
    profile: Profile, which: Iterable[str] | None = None, *, photographs: str | None = None, progress: bool = True
) -> pd.DataFrame:
    """Land cover (Table 3): tidy results, one row a trial; computes the entries that are missing."""
    return GRID.table(profile, EXPERIMENT, entries(profile, which, photographs), progress=progress)


def finished(profile: Profile) -> dict[str, pd.DataFrame]:
    """The rows of the entries that are there already and the places of each class, by file name; computes nothing."""
    if not map_land_cover.is_there(profile):
        return {}
    here = [entry for entry in entries(profile) if entry.target in OSM or image_sets.is_there(profile, entry.target)]
    rows = GRID.finished(profile, here)
    if not len(rows):
        return {}
    counts = map_land_cover.class_counts(profile).assign(profile=profile.name, data=map_land_cover.key(profile)[:12])
    blocks = _finished_blocks(profile, here)
    return {f"{EXPERIMENT}.csv": rows, f"{EXPERIMENT}-blocks.csv": blocks, f"{EXPERIMENT}-classes.csv": counts}


def _finished_blocks(profile: Profile, which: Iterable[Entry]) -> pd.DataFrame:
    """The scores by block of those entries that are there: on images without fills, which alone support a claim."""
    places, parts = map_land_cover.places(profile), []
    for entry in which:
        kept = GRID.kept(profile, entry)
        if (entry.target, entry.split) == (CLAIMED, "blocks") and kept.is_there():
            parts += row_claims.blocks_of_kept(
                kept, places["cell"].to_numpy(str), places["region"].to_numpy(str), seed=entry.seed,
                target=entry.target, setting=entry.setting, method=entry.method,
                buffer_km=profile.maps.buffer_m / 1000,
            )  # fmt: skip
    return row_claims.joined(parts)

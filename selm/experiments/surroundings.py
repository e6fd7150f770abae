"""What a place's surroundings add: embeddings of one zoom after the other, alone and beside the coordinates.

For the official prices of the test region. Every encoder sees the images of a place at the first one, two, … of
`selm.methods.multi_zoom.WIDE`; those features, side by side, go into a linear probe, with or without a local field
of the coordinates (`selm.probes.local_field`). The probe's numbers are chosen in the validation regions, by as many
tries for every row; the test region is scored by the one that is chosen. Beside them trees on the colours at all
zooms, as they come.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from selm import methods, paths, splits, stages
from selm.experiments import grid
from selm.experiments.cached import cell_base, cell_rows, is_finished
from selm.experiments.runs import complete
from selm.labels.neighbours import pairs_within
from selm.methods.multi_zoom import WIDE
from selm.probes import practitioner
from selm.probes.folds import BufferedFolds
from selm.probes.local_field import LocalField, local_fields
from selm.probes.outcome import OutOfFold
from selm.settings import Profile

EXPERIMENT = "surroundings"
VERSION = 2
# the rows: our own encoder of several zooms, encoders that have learned from one, and random weights
ROWS = ("random_init", "dino", "gps_selm_geo", "gps_selm", "multi_zoom", "multi_zoom_wide")
LONGER = "multi_zoom_wide"  # trained once more, on `Surroundings.longer` times the places and images
COLOURS = "histogram"


@dataclass(frozen=True)
class Cell:
    """An encoder (`method`, `seed`, `times` as long in training as others), the zooms whose features it gives, with the
    coordinates or without, a split.

    `COLOURS` in place of an encoder stands for trees on colour histograms.
    """

    method: str
    seed: int
    zooms: tuple[int, ...]
    coordinates: bool
    split: str
    times: int = 1

    @property
    def row(self) -> str:
        """The row of the table that it belongs to."""
        return self.method if self.times == 1 else f"{self.method}_x{self.times}"

    @property
    def label(self) -> str:
        beside = "+coordinates" if self.coordinates else ""
        zooms = "-".join(map(str, self.zooms))
        return f"{EXPERIMENT}-{self.split}-{self.row}-s{self.seed}-z{zooms}{beside}"


def setting(zooms: tuple[int, ...], coordinates: bool) -> str:
    """What a row's setting is called: "zooms 17-16", "zooms 17-16, coordinates"."""
    return f"zooms {'-'.join(map(str, zooms))}" + (", coordinates" if coordinates else "")


def cells(profile: Profile) -> list[Cell]:
    """The grid, in reading order."""
    first = [WIDE[: n + 1] for n in range(len(WIDE))]
    longer = profile.surroundings.longer
    rows = [(method, 1) for method in ROWS] + ([(LONGER, longer)] if longer > 1 else [])
    out = []
    for split in grid.SPLITS:
        for (method, times), coordinates, some in itertools.product(rows, (False, True), first):
            out.append(Cell(method, 0, some, coordinates, split, times))
        out += [Cell(COLOURS, 0, WIDE, coordinates, split) for coordinates in (False, True)]
    return out


def tries(profile: Profile, coordinates: bool) -> list[LocalField]:
    """The probes that are tried in the validation regions."""
    settings = profile.surroundings
    if not coordinates:
        return [LocalField(penalty) for penalty in settings.penalties]
    return [LocalField(penalty, share, km) for penalty in settings.penalties for share, km in settings.fields]


def _test(profile: Profile, split: str) -> grid.Task:
    return grid.task(profile, "table1", "l01", split).some(profile.surroundings.n_points)


def validation(profile: Profile) -> grid.Task:
    """The official points of the validation regions, in blocks; a profile without any (a plumbing check) tunes where it
    tests."""
    points = stages.points(profile)
    chosen = points[points["target_set"] == "validation"].reset_index(drop=True)
    if not len(chosen):
        return _test(profile, "blocks").first(1)
    table = splits.read_folds(profile)
    draws = range(profile.surroundings.validation_draws)
    fold = np.stack([splits.fold_of(chosen["cell"].to_numpy(), table, draw) for draw in draws])
    near = pairs_within(chosen["lat"], chosen["lon"], profile.maps.buffer_m)
    return grid.Task("regression", chosen, chosen["price"].to_numpy(float), BufferedFolds(fold, near))


@lru_cache(maxsize=12)
def _features(root: str, profile: Profile, method: str, seed: int, of: str) -> dict[int, NDArray[np.float32]]:
    places = (validation(profile) if of == "validation" else _test(profile, "blocks")).places
    network, colours = stages.encoder(profile, method, seed), stages.palette(profile)
    return {zoom: stages.encode(network, stages.point_images(profile, places, zoom), colours).numpy() for zoom in WIDE}


def _scores(profile: Profile, cell: Cell, todo: grid.Task, of: str, probes: Sequence[LocalField]) -> list[OutOfFold]:
    by_zoom = _features(str(paths.runs()), profile.times(cell.times), cell.method, cell.seed, of)
    x = np.hstack([by_zoom[zoom] for zoom in cell.zooms])
    return local_fields(x, todo.places["lat"], todo.places["lon"], todo.targets, todo.folds, probes)


def _colours(profile: Profile, cell: Cell) -> OutOfFold:
    todo = _test(profile, cell.split).first(profile.probing.n_trees)
    x = [stages.histograms(profile, todo.places, zoom) for zoom in cell.zooms]
    x += [todo.places[["lat", "lon"]].to_numpy(np.float64)] if cell.coordinates else []
    return practitioner.boosting(np.hstack(x), todo.targets, todo.folds, task="regression")


def _compute(profile: Profile, cell: Cell) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    if cell.method == COLOURS:
        done = _colours(profile, cell)
        chosen: dict[str, Any] = {"tries": 0}
    else:
        probes = tries(profile, cell.coordinates)
        known = _scores(profile, cell, validation(profile), "validation", probes)
        errors = [float(one.values("mse").mean()) for one in known]
        best = probes[int(np.argmin(errors))]
        (done,) = _scores(profile, cell, _test(profile, cell.split), "test", [best])
        chosen = {"tries": len(errors), "validation": min(errors), **dataclasses.asdict(best)}
    rows = done.rows(
        experiment=EXPERIMENT, target="l01", split=cell.split, setting=setting(cell.zooms, cell.coordinates), **chosen
    )
    return rows, {"mse": torch.from_numpy(done.scores["mse"]), "predictions": torch.from_numpy(done.predictions)}


def _base(profile: Profile, cell: Cell) -> Any:
    settings = dataclasses.asdict(profile.surroundings)
    del settings["longer"]  # one more row: no other's business
    parts = {"points": stages.points_key(profile), "probing": dataclasses.asdict(profile.probing), "version": VERSION,
             "settings": settings, **stages.further_maps(profile, cell.zooms)}  # fmt: skip
    return cell_base(profile.times(cell.times), cell.label, cell.method, cell.seed, parts)


def run_cell(profile: Profile, cell: Cell) -> pd.DataFrame:
    """The rows of a cell, computed where they are not there yet."""
    rows = cell_rows(profile.times(cell.times), _base(profile, cell), cell.method, cell.seed,
                     lambda: _compute(profile, cell), data=stages.points_key(profile),
                     stand_in=profile.stand_ins)  # fmt: skip
    return rows.assign(method=cell.row)


def surroundings(profile: Profile, *, progress: bool = True) -> pd.DataFrame:
    """All rows, computing what is missing (encoders too)."""
    todo = tqdm(cells(profile), desc=f"{EXPERIMENT} ({profile.name})", unit="cell", disable=not progress)
    return pd.concat([run_cell(profile, cell) for cell in todo], ignore_index=True)


def finished(profile: Profile) -> dict[str, pd.DataFrame]:
    """The rows that are there already, under the name of their file; computes nothing."""
    there = [
        cell for cell in cells(profile)
        if (cell.method not in methods.PRETRAINED or complete(profile.times(cell.times), cell.method, cell.seed))
        and is_finished(_base(profile, cell))
    ]  # fmt: skip
    rows = [run_cell(profile, cell) for cell in there]
    return {f"{EXPERIMENT}.csv": pd.concat(rows, ignore_index=True)} if rows else {}

"""What a place's surroundings add: embeddings of one zoom after the other, alone and beside the coordinates.

For the official prices of the test region. Every encoder sees the images of a place at the first one, two, … of
`selm.methods.multi_zoom.WIDE`, each in eight orientations whose features are averaged; those of all zooms, side by
side, go into kernel ridge regression, with or without a local field of the coordinates (`kernel_ridge.py`).
Which of the network's stages the features are of (the last, or all four) and the probe's numbers are chosen in the
validation regions, by as many tries for every encoder; the test region is scored by what is chosen. Beside them stand
colour histograms, in the same probe and in trees as they come, and some encoders' features and colours together.
Asides: one orientation, and the last stage alone.

A wide image shows the tested places beyond a buffer of 1 km. So blocks are asked under wider ones, too: 5 km is another
part of the town, 15 km another town, where no two images of zoom 10 are centred within each other. Stages and probe are
then chosen under the same buffer. Where the profile asks for it, rows of all zooms learn from the official points of
all other regions, too, by what is chosen under the widest buffer; without the coordinates, which say nothing there. And
some rows are asked with a *head* beside their features (`reproduction.computed.head`): what those points teach, put to
use where prices nearby are known as well. The head's part of the kernel is chosen with the probe; in the validation
regions the head is that of the pretraining regions, in the test region that of all others. One row is what `selm embed`
gives by default: features, colours and a linear head reduced to some hundred numbers (`reproduction.computed.compact`).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from reproduction.beyond.more_context.kernel_ridge import KernelRidge, kernel_ridges
from reproduction.computed import compact, drawn_maps, encoders, frozen_features, head, place_tables
from reproduction.computed.store import remembered
from reproduction.experiments import knowledge, table1_table2
from reproduction.experiments.entries import Grid, Rows, rows_and_scores
from reproduction.places import splits
from reproduction.rows import LONGER
from reproduction.settings import Profile
from reproduction.titles import COMPACT, HEAD, LAST_STAGE, ONE_ORIENTATION, REGIONS
from selm.encoder import STAGES
from selm.maps.sphere import Neighbourhood, pairs_within
from selm.methods.multi_zoom import WIDE
from selm.probes import practitioner
from selm.probes.folds import BufferedFolds, OutOfFold

EXPERIMENT = "surroundings"
VERSION = 4
# the rows: random weights, encoders that have learned from one zoom, and our own of several
ROWS = ("random_init", "dino", "gps_selm_geo", "multi_zoom", "multi_zoom_wide")
STEP_BY_STEP = (LONGER,)  # seen with every number of zooms; the others with some
SOME = (1, 4, 8)
WITH_COLOURS = ("random_init", LONGER)  # rows that are seen beside the colours, too
COLOURS = "colours"  # in the probe that encoders have
WITH_HEAD = (LONGER, COLOURS)  # an encoder beside the colours, and the colours alone
HEADS = (0.2, 0.5, 0.8)  # parts of a head in the features' kernel that are tried
TREES = "histogram"
LAST = (STAGES[-1:],)


@dataclass(frozen=True)
class Entry:
    """An encoder (`method`, `seed`, `times` as long in training as others), the zooms whose features it gives, with the
    coordinates or without, a split, in how many orientations an image is seen, the sets of stages to choose from,
    whether the images' colour histograms stand beside the features, the buffer (0: the profile's own), and whether a
    head that other regions teach stands beside all of it.

    `COLOURS` and `TREES` in place of an encoder stand for colour histograms, `COMPACT` for the reduced embedding.
    """

    method: str
    seed: int
    zooms: tuple[int, ...]
    coordinates: bool
    split: str
    times: int = 1
    orientations: int = 1
    stages: tuple[tuple[int, ...], ...] = ()
    colours: bool = False
    buffer_km: float = 0.0
    head: bool = False

    @property
    def asked(self) -> str:
        """The split as rows name it: "blocks", "blocks, 15 km"."""
        return f"{self.split}, {self.buffer_km:g} km" if self.buffer_km else self.split

    @property
    def row(self) -> str:
        """The row of the table that it belongs to."""
        name = self.method if self.times == 1 else f"{self.method}_x{self.times}"
        return name + "+colours" * self.colours + HEAD * self.head

    @property
    def label(self) -> str:
        beside = "+coordinates" if self.coordinates else ""
        zooms = "-".join(map(str, self.zooms))
        sets = "+".join("".join(map(str, stages)) for stages in self.stages)
        split = f"{self.split}{self.buffer_km:g}km" if self.buffer_km else self.split
        return f"{EXPERIMENT}-{split}-{self.row}-s{self.seed}-z{zooms}-o{self.orientations}-l{sets}{beside}"


def setting(zooms: tuple[int, ...], coordinates: bool, aside: str = "") -> str:
    """What a row's setting is called: "zooms 17-16", "zooms 17-16, coordinates"; with an `aside`
    "zooms 17-16, one orientation, coordinates"."""
    return f"zooms {'-'.join(map(str, zooms))}{aside}" + (", coordinates" if coordinates else "")


def entries(profile: Profile) -> list[Entry]:
    """The grid, in reading order."""
    s = profile.surroundings
    out = []
    for split, method, coordinates in itertools.product(table1_table2.SPLITS, ROWS, (False, True)):
        times = s.longer if method == LONGER else 1
        for n in range(1, len(WIDE) + 1) if method in STEP_BY_STEP else SOME:
            entry = Entry(method, 0, WIDE[:n], coordinates, split, times, s.orientations, s.stages)
            out.append(entry)
            if method in WITH_COLOURS and n in SOME:
                out.append(dataclasses.replace(entry, colours=True))
        if s.orientations != 1:
            out.append(Entry(method, 0, WIDE, coordinates, split, times, 1, s.stages))
        if s.stages != LAST:
            out.append(Entry(method, 0, WIDE, coordinates, split, times, s.orientations, LAST))
    for split, coordinates in itertools.product(table1_table2.SPLITS, (False, True)):
        out += [Entry(COLOURS, 0, WIDE[:n], coordinates, split) for n in range(1, len(WIDE) + 1)]
        out.append(Entry(TREES, 0, WIDE, coordinates, split))
        if s.compact:
            out.append(Entry(COMPACT, 0, WIDE, coordinates, split))
    wider = [entry for entry in out if entry.split == "blocks" and not aside(profile, entry)]
    out += [dataclasses.replace(entry, buffer_km=km) for km in s.buffers_km for entry in wider]
    if s.other_regions:
        far = (e for e in wider if e.zooms == WIDE and not e.coordinates and e.method != COMPACT)
        out += [dataclasses.replace(entry, split=REGIONS) for entry in far]
        whole = [e for e in out if e.zooms == WIDE and e.split != REGIONS and not aside(profile, e)]
        whole = [e for e in whole if e.method in WITH_HEAD and (e.colours or e.method == COLOURS)]
        out += [dataclasses.replace(entry, head=True) for entry in whole]
    return out


def aside(profile: Profile, entry: Entry) -> str:
    """What sets an encoder's entry apart from its row."""
    if entry.method in (COLOURS, TREES, COMPACT):
        return ""
    s = profile.surroundings
    return ONE_ORIENTATION if entry.orientations != s.orientations else LAST_STAGE if entry.stages != s.stages else ""


def tries(profile: Profile, coordinates: bool, head: bool = False) -> list[KernelRidge]:
    """The probes that are tried in the validation regions."""
    s = profile.surroundings
    fields = s.fields if coordinates else ((0.0, 1.0),)
    chosen = itertools.product(HEADS if head else (0.0,), s.penalties, s.widths, fields)
    return [KernelRidge(penalty, width, share, km, part) for part, penalty, width, (share, km) in chosen]


def tested(profile: Profile, split: str, buffer_km: float = 0.0) -> table1_table2.Task:
    """The official points of the test region under a split; with `REGIONS` those of the other regions follow them."""
    if split == REGIONS:
        return knowledge.task(profile, "price", 0.0, elsewhere=True)
    todo = table1_table2.task(profile, "table1", "l01", split).some(profile.surroundings.n_points)
    return _apart(todo, buffer_km) if buffer_km else todo


def _apart(todo: table1_table2.Task, buffer_km: float) -> table1_table2.Task:
    """The same folds with a buffer of so many kilometres."""
    near = Neighbourhood(todo.places["lat"].to_numpy(float), todo.places["lon"].to_numpy(float), 1000.0 * buffer_km)
    return dataclasses.replace(todo, folds=BufferedFolds(todo.folds.fold, near))


def validation(profile: Profile, buffer_km: float = 0.0) -> table1_table2.Task:
    """The official points of the validation regions, in blocks; a profile without any (a plumbing check) tunes where it
    tests."""
    if not profile.regions_for("validation"):
        return tested(profile, "blocks", buffer_km).first(1)
    points = place_tables.points(profile)
    chosen = points[points["target_set"] == "validation"].reset_index(drop=True)
    table = splits.read_folds(profile)
    draws = range(profile.surroundings.validation_draws)
    fold = np.stack([splits.fold_of(chosen["cell"].to_numpy(), table, draw) for draw in draws])
    near = pairs_within(chosen["lat"], chosen["lon"], profile.maps.buffer_m)
    todo = table1_table2.Task("regression", chosen, chosen["price"].to_numpy(float), BufferedFolds(fold, near))
    return _apart(todo, buffer_km) if buffer_km else todo


@remembered(maxsize=12)
def features(
    profile: Profile, method: str, seed: int, orientations: int, of: str
) -> dict[tuple[int, int], NDArray[np.float32]]:
    """(zoom, stage) → features (N, d) of the places `of` "validation", "test" or `REGIONS` (those of the test and of
    the other regions); colours have one stage, 0."""
    places = (validation(profile) if of == "validation" else tested(profile, of if of == REGIONS else "blocks")).places
    if method == COLOURS:
        return {(zoom, 0): drawn_maps.histograms(profile, places, zoom) for zoom in WIDE}
    zooms = [whole.numpy() for whole in frozen_features.at_all_zooms(profile, method, seed, places, orientations)]
    return _by_stage(zooms, encoders.encoder(profile, method, seed).stage_dims)


@remembered(maxsize=3)
def _recommended(profile: Profile, of: str) -> dict[tuple[int, int], NDArray[np.float32]]:
    """The same for the recommended embedding, which is kept: other chapters ask for it, too."""
    places = [(validation(profile) if of == "validation" else tested(profile, "blocks")).places]
    if of == REGIONS:
        places.append(place_tables.elsewhere(profile))
    network = encoders.encoder(profile.times(profile.surroundings.longer), LONGER, 0)
    every = len(WIDE) * sum(network.stage_dims)  # colours follow
    known = np.vstack([frozen_features.recommended(profile, some)[:, :every] for some in places])
    return _by_stage(np.split(known, len(WIDE), axis=1), network.stage_dims)


def _by_stage(
    zooms: Sequence[NDArray[np.float32]], stage_dims: Sequence[int]
) -> dict[tuple[int, int], NDArray[np.float32]]:
    """(zoom, stage) → features, of all stages side by side at each zoom of `WIDE`."""
    ends = np.cumsum(stage_dims)[:-1]
    parts = {zoom: np.split(whole, ends, axis=1) for zoom, whole in zip(WIDE, zooms, strict=True)}
    return {(zoom, stage): parts[zoom][n] for zoom in WIDE for n, stage in enumerate(STAGES)}


def numbers(profile: Profile, entry: Entry, of: str, some: Sequence[int]) -> NDArray[np.float32]:
    """(N, d) what the probe sees of the places `of` (see `features`): of `some` stages, and colours beside them."""
    if entry.method == COMPACT:
        places = validation(profile).places if of == "validation" else tested(profile, "blocks").places
        return compact.compact(profile, places, validated=of == "validation")
    if (entry.method, entry.orientations) == (LONGER, profile.surroundings.orientations):
        known = _recommended(profile, of)
    else:
        known = features(profile.times(entry.times), entry.method, entry.seed, entry.orientations, of)
    parts = [known[zoom, stage] for zoom in entry.zooms for stage in some]
    if entry.colours:
        own = features(profile, COLOURS, 0, 1, of)
        parts += [own[zoom, 0] for zoom in entry.zooms]
    return np.hstack(parts)


@remembered(maxsize=4)
def _taught(profile: Profile, entry: Entry, of: str, some: tuple[int, ...]) -> NDArray[np.float32]:
    """(N, T) the outputs of the head that other regions teach from the same features."""
    n = len(tested(profile, "blocks").places)
    others = tested(profile, REGIONS).places.iloc[n:]
    teach = compact.teachers(profile, others, validated=of == "validation")
    x, learned = numbers(profile, entry, of, some), numbers(profile, entry, REGIONS, some)[n:][teach]
    return head.outputs(x, learned, head.known(others[teach]))


def _scores(
    profile: Profile,
    entry: Entry,
    todo: table1_table2.Task,
    of: str,
    some: Sequence[int],
    probes: Sequence[KernelRidge],
) -> list[OutOfFold]:
    """The outcome of `probes` on the features of `some` stages."""
    x, further = numbers(profile, entry, of, some), None
    if entry.head:
        # the same under every split, and with the coordinates
        alike = dataclasses.replace(entry, split="blocks", buffer_km=0.0, coordinates=False)
        further = _taught(profile, alike, of, tuple(some))
    lat, lon = todo.places["lat"], todo.places["lon"]
    return kernel_ridges(x, lat, lon, todo.targets, todo.folds, probes, test_folds=todo.test_folds, head=further)


@remembered(maxsize=64)
def validated(profile: Profile, entry: Entry) -> tuple[list[float], tuple[int, ...], KernelRidge]:
    """The errors of all tries in the validation regions, and the stages and probe of the best; the same for every split
    with the same buffer."""
    probes, todo = tries(profile, entry.coordinates, entry.head), validation(profile, entry.buffer_km)
    of = "validation" if profile.regions_for("validation") else "test"
    errors, tried = [], []
    for some in entry.stages or ((0,),):
        known = _scores(profile, entry, todo, of, some, probes)
        errors += [float(one.values("mse").mean()) for one in known]
        tried += [(some, probe) for probe in probes]
    return errors, *tried[int(np.argmin(errors))]


def _trees(profile: Profile, entry: Entry) -> OutOfFold:
    todo = tested(profile, entry.split, entry.buffer_km).first(profile.probing.n_trees)
    x = [drawn_maps.histograms(profile, todo.places, zoom) for zoom in entry.zooms]
    x += [todo.places[["lat", "lon"]].to_numpy(np.float64)] if entry.coordinates else []
    rounds = profile.probing.rounds
    return practitioner.boosting(
        np.hstack(x), todo.targets, todo.folds, task="regression", max_iter=rounds, test_folds=todo.test_folds
    )


def compute(profile: Profile, entry: Entry, *, progress: bool = True) -> tuple[Rows, dict[str, torch.Tensor]]:
    """The rows and scores of an entry."""
    if entry.method == TREES:
        done = _trees(profile, entry)
        chosen: dict[str, Any] = {"tries": 0}
    else:
        far = entry.split == REGIONS
        km = max(profile.surroundings.buffers_km, default=0.0) if far else entry.buffer_km
        errors, some, best = validated(profile, dataclasses.replace(entry, split="blocks", buffer_km=km))
        todo, of = tested(profile, entry.split, entry.buffer_km), REGIONS if far else "test"
        (done,) = _scores(profile, entry, todo, of, some, [best])
        chosen = {"tries": len(errors), "validation": min(errors), **dataclasses.asdict(best)}
        if not entry.head:
            del chosen["head"]
        chosen["stages"] = "" if not entry.stages else "last" if (some,) == LAST else "-".join(map(str, some))
    called = setting(entry.zooms, entry.coordinates, aside(profile, entry))
    return rows_and_scores(done, experiment=EXPERIMENT, target="l01", split=entry.asked, setting=called, **chosen)


def _parts(profile: Profile, entry: Entry) -> dict[str, Any]:
    settings = dataclasses.asdict(profile.surroundings)
    # parts of the run's own address, and of the entry
    for name in ("longer", "buffers_km", "other_regions", "compact"):
        del settings[name]
    buffer = {"buffer_km": entry.buffer_km} if entry.buffer_km else {}
    reduced = {"reduction": compact.key(profile)} if entry.method == COMPACT else {}
    taught = {"head": head.KEY} if entry.head else {}
    return {
        "points": place_tables.points_key(profile), "probing": dataclasses.asdict(profile.probing),
        "version": VERSION, "settings": settings, **buffer, **reduced, **taught,
        **drawn_maps.further_maps(profile, entry.zooms),
    }  # fmt: skip


GRID = Grid[Entry](
    _parts, compute, data=lambda profile, entry: place_tables.points_key(profile),
    trained=lambda profile, entry: profile.times(entry.times), named=lambda entry: {"method": entry.row},
)  # fmt: skip


def surroundings(profile: Profile, *, progress: bool = True) -> pd.DataFrame:
    """All rows, computing what is missing (encoders too)."""
    todo = entries(profile)
    # all entries of an encoder one after the other, so that its features, which are kept in memory, are computed once
    by_encoder = sorted(todo, key=lambda entry: (entry.method, entry.times))
    bar = tqdm(by_encoder, desc=f"{EXPERIMENT} ({profile.name})", unit="entry", disable=not progress)
    rows = {entry: GRID.rows(profile, entry) for entry in bar}
    return pd.concat([rows[entry] for entry in todo], ignore_index=True)


def finished(profile: Profile) -> dict[str, pd.DataFrame]:
    """The rows that are there already, under the name of their file; computes nothing."""
    rows = GRID.finished(profile, entries(profile))
    return {f"{EXPERIMENT}.csv": rows} if len(rows) else {}

"""What an embedding knows: several targets read off the same frozen features, far from what the probe has learned from.

Targets at the official points of the test region: ``price`` (log of yen/m²), ``density`` (ln(1 + people/km²)),
``area_type`` (70 classes) and ``zone`` (the merged use districts). At places of its own, sampled as Table 3's, but
more: ``land_cover`` (13 classes), from images at zoom 17 without the fills that show it. Squared errors are of targets
standardised within the region that is tested, so that 1 is what its mean scores.

The test region is Hokkaido and, in the profile's rotations (`reproduction.rotations`), each other large region
in turn. In each the probe learns from whole cells (blocks) and leaves out what lies within a buffer of the tested ones:

- 1 km: next door, where a wide image shows the tested place itself;
- 5 km: another part of the same town;
- 15 km: another town, where no two images of zoom 10 are centred within each other;
- ``other-regions``: another part of the country: the probe learns from the official points of all other regions (not
  for land cover, whose places are drawn in the tested region alone).
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from reproduction import paths
from reproduction.computed import compact, encoders, frozen_features, place_tables
from reproduction.computed.store import remembered
from reproduction.experiments import map_land_cover, table3_land_cover
from reproduction.experiments.entries import Grid, Rows, rows_and_scores
from reproduction.experiments.table1_table2 import HISTOGRAM_ZOOMS, Task, trees, without_embedding
from reproduction.experiments.verdicts import BESIDE, NO_EMBEDDING
from reproduction.places import splits
from reproduction.places.labelled import raw_price
from reproduction.rotations import rotated
from reproduction.rows import IN_TABLES, LONGER, PRETRAINED, zooms_of
from reproduction.settings import Profile
from reproduction.titles import COMPACT, RECOMMENDED, REGIONS
from selm import distributed
from selm.errors import InputError, unknown
from selm.maps.sphere import Neighbourhood
from selm.probes import peers
from selm.probes.folds import BufferedFolds, OutOfFold, problems
from selm.probes.frozen import logistic, ridge

EXPERIMENT = "knowledge"
VERSION = 1  # raise it when the numbers change for the same settings and data
COVER = "land_cover"
TARGETS = {
    "price": "regression", "density": "regression", "area_type": "classification", "zone": "classification",
    COVER: "classification",
}  # fmt: skip
METRICS = {"regression": ("mse",), "classification": ("top1", "top5")}
OURS = (RECOMMENDED, COMPACT)  # a rotation's encoder was not trained longer than the others
CLOSED, PRACTITIONERS, OTHER_REGIONS = "closed", NO_EMBEDDING, "other-regions"
WITHOUT_EMBEDDING = (
    "prior", "knn_coordinates", "trees_coordinates", "histogram_17", "histogram_17_14", "histogram_17+coordinates",
    "histogram_17_14+coordinates",
)  # fmt: skip
METHODS = ("random_init", *IN_TABLES, *OURS, peers.GEOCLIP, *WITHOUT_EMBEDDING)
WITH_COORDINATES = ("gps_selm",)  # rows that have trees on their features and the coordinates, too
TOLERANCE = 1e-4  # of the logistic probe's gradient, as in Table 3
DIGITS = 6  # significant ones of a block's score
_PLACES = "table1-l01"  # what Table 1 calls its features at the same places
_FEW = ("prior", "knn_coordinates")  # practitioner's rows that grow no trees


@dataclass(frozen=True)
class Entry:
    """One entry of the grid.

    region: the one that is tested.  setting: ``closed`` (ridge or logistic regression on frozen features),
    ``with-coordinates`` (trees on them and the coordinates), ``practitioner``, or ``other-regions`` for those that
    learn from other regions.  buffer_km: 0 for ``other-regions``.  seed: of the pretraining, or of the random weights.
    """

    region: str
    target: str
    setting: str
    buffer_km: float
    method: str
    seed: int = 0

    @property
    def split(self) -> str:
        return REGIONS if self.setting == OTHER_REGIONS else f"blocks, {self.buffer_km:g} km"

    @property
    def label(self) -> str:
        where = f"{self.region}-{self.target}-{self.buffer_km:g}km"
        return f"{EXPERIMENT}-{where}-{self.method}-{self.setting}-s{self.seed}"


def regions_of(profile: Profile) -> tuple[str, ...]:
    """The regions that are tested: the profile's own, then those of its rotations."""
    (own,) = profile.regions_for("test")
    return (own.name, *profile.rotations)


def under(profile: Profile, region: str) -> Profile:
    """The profile itself or its rotation, whichever tests on `region`."""
    return profile if region == regions_of(profile)[0] else rotated(profile, region)


def entries(
    profile: Profile, which: Iterable[str] | None = None, regions: Iterable[str] | None = None,
    seeds: int | None = None,
) -> list[Entry]:  # fmt: skip
    """The grid in reading order; `which` keeps some methods, `regions` some regions, `seeds` so many of each method.

    Raises InputError for a method or region that there is not.
    """
    chosen = METHODS if which is None else tuple(which)
    where = regions_of(profile) if regions is None else tuple(regions)
    for kind, names, known in (("row", chosen, METHODS), ("region", where, regions_of(profile))):
        for name in names:
            if name not in known:
                raise unknown(kind, name, known)
    out = []
    asked = [*((CLOSED, km) for km in profile.knowledge.buffers_km), (OTHER_REGIONS, 0.0)]
    for region, target, (setting, km) in itertools.product(where, profile.knowledge.targets, asked):
        for method in (name for name in METHODS if name in chosen and _is_asked(target, setting, name)):
            if method in OURS and not (profile.surroundings.compact and _is_asked_of(profile, region, method)):
                continue
            plain = method in WITHOUT_EMBEDDING and setting == CLOSED
            n = profile.seeds_of(method) if seeds is None else min(seeds, profile.seeds_of(method))
            named = PRACTITIONERS if plain else setting
            out += [Entry(region, target, named, km, method, seed) for seed in range(n)]
            if setting == CLOSED and method in WITH_COORDINATES:
                out.append(Entry(region, target, BESIDE, km, method))
    return out


def _is_asked_of(profile: Profile, region: str, method: str) -> bool:
    """Whether a row of ours is asked in a region: of the long embedding, in the test region of the paper alone."""
    return method == COMPACT or (not profile.held_out and region == regions_of(profile)[0])


def _is_asked(target: str, setting: str, method: str) -> bool:
    """Whether a row is asked for a target: images without fills are drawn at one zoom and in the tested region."""
    several = method in OURS or zooms_of(method) or len(HISTOGRAM_ZOOMS.get(method.partition("+")[0], ())) > 1
    return target != COVER or not (several or setting == OTHER_REGIONS)


def targets(places: pd.DataFrame, target: str, tested: NDArray[np.bool_]) -> NDArray[Any]:
    """(N,) a target of labelled places: float64 standardised by those that are `tested`, NaN where it is not known; or
    class codes, -1 where it is not. Raises InputError for an unknown target."""
    if target not in TARGETS:
        raise unknown("target", target, TARGETS)
    if TARGETS[target] == "classification":
        return places[target].to_numpy(np.int64)
    values = np.log(raw_price(places)) if target == "price" else np.log1p(places["density"].to_numpy(np.float64))
    return np.asarray((values - np.nanmean(values[tested])) / np.nanstd(values[tested]))


@remembered(maxsize=8)
def task(profile: Profile, target: str, buffer_km: float, *, elsewhere: bool = False) -> Task:
    """Places, targets and folds of the profile's own test region: the committed folds of whole cells, with a buffer.

    Land cover has places of its own (`of_cover`). `elsewhere`: one fold instead, that is tested by a model
    of the labelled places of all other regions, which follow the tested ones in the table (and lie beyond the widest
    buffer, too).
    """
    places = _places(profile, target)
    n = len(places)
    if elsewhere:
        places = pd.concat([places, place_tables.elsewhere(profile)], ignore_index=True)
        fold = np.where(np.arange(len(places)) < n, 0, 1)[None]
        buffer_km = max(profile.knowledge.buffers_km)
    else:
        table, cells = splits.read_folds(profile), places["cell"].to_numpy(str)
        fold = np.stack([splits.fold_of(cells, table, draw) for draw in range(profile.knowledge.n_trials)])
    near = Neighbourhood(places["lat"].to_numpy(float), places["lon"].to_numpy(float), 1000.0 * buffer_km)
    values = targets(places, target, np.arange(len(places)) < n)
    return Task(TARGETS[target], places, values, BufferedFolds(fold, near), (0,) if elsewhere else None)


def of_cover(profile: Profile) -> Profile:
    """The profile with this chapter's number of places in place of Table 3's."""
    s = profile.knowledge
    more = dataclasses.replace(profile.land_cover, n_places=s.n_cover_places, n_blocks=s.n_cover_blocks)
    return dataclasses.replace(profile, land_cover=more)


def _places(profile: Profile, target: str) -> pd.DataFrame:
    """The places of the profile's own test region that a target is asked about."""
    return map_land_cover.places(of_cover(profile)) if target == COVER else _points(profile)


def _points(profile: Profile) -> pd.DataFrame:
    """The official points of the profile's own test region."""
    (region,) = profile.regions_for("test")
    points = place_tables.points(profile)
    return points[points["target_set"] == region.name].reset_index(drop=True)


@remembered(maxsize=64)
def refusal(profile: Profile, target: str, buffer_km: float, *, elsewhere: bool = False) -> str:
    """Why a target cannot be asked for under a buffer (some fold leaves nothing to learn from); "" where it can.

    Densities are known around Sapporo alone in Hokkaido: 15 km from some of its cells there is no other.
    """
    todo = task(profile, target, buffer_km, elsewhere=elsewhere)
    try:
        problems(todo.targets, todo.folds, todo.kind, test_folds=todo.test_folds)
    except InputError as error:
        return str(error)
    return ""


def trials(profile: Profile, entry: Entry) -> int:
    """How many draws of folds an entry is scored in."""
    s = profile.knowledge
    if entry.setting == OTHER_REGIONS:
        return 1
    if entry.setting == BESIDE or (entry.method in WITHOUT_EMBEDDING and entry.method not in _FEW):
        return s.n_trees
    return s.n_trials if TARGETS[entry.target] == "regression" else s.n_logistic


def compute(profile: Profile, entry: Entry, *, progress: bool = True) -> tuple[Rows, dict[str, torch.Tensor]]:
    """The rows and scores of an entry, of the profile that tests on its region."""
    done = _probed(profile, entry, progress=progress)
    about = {"region": entry.region, "target": entry.target, "split": entry.split}
    return rows_and_scores(
        done, experiment=EXPERIMENT, **about, setting=entry.setting, buffer_km=float(entry.buffer_km)
    )


def _probed(profile: Profile, entry: Entry, *, progress: bool) -> OutOfFold:
    elsewhere = entry.setting == OTHER_REGIONS
    todo = task(profile, entry.target, entry.buffer_km, elsewhere=elsewhere).first(trials(profile, entry))
    cover = entry.target == COVER
    own = _places(profile, entry.target)
    if entry.method in WITHOUT_EMBEDDING:
        colours, _, also = entry.method.partition("+")
        if not (cover and colours in HISTOGRAM_ZOOMS):
            return without_embedding(profile, entry.method, todo)
        x = table3_land_cover.histograms(of_cover(profile), table3_land_cover.CLAIMED)
        return trees(profile, np.column_stack([x, own[["lat", "lon"]]]) if also else x, todo)
    x = _features(profile, entry, own, _PLACES)
    if elsewhere:
        x = np.vstack([x, _features(profile, entry, place_tables.elsewhere(profile), "elsewhere")])
    if entry.setting == BESIDE:
        return trees(profile, np.column_stack([x, own[["lat", "lon"]]]), todo)
    on = distributed.device()
    if todo.kind == "regression":
        return ridge(x, todo.targets, todo.folds, test_folds=todo.test_folds, device=on, progress=progress)
    return logistic(x, todo.targets, todo.folds, tolerance=TOLERANCE, test_folds=todo.test_folds, device=on,
                    progress=progress)  # fmt: skip


def _features(profile: Profile, entry: Entry, places: pd.DataFrame, label: str) -> NDArray[np.float32]:
    if entry.method == peers.GEOCLIP:
        return peers.geoclip_features(places["lat"], places["lon"])
    if entry.method == RECOMMENDED:
        return frozen_features.recommended(profile, places)
    if entry.method == COMPACT:
        return compact.compact(profile, places)
    if entry.target == COVER:
        return table3_land_cover.features(of_cover(profile), table3_land_cover.CLAIMED, entry.method, entry.seed)
    return frozen_features.features(profile, entry.method, entry.seed, places, label)


def _parts(profile: Profile, entry: Entry) -> dict[str, Any]:
    parts = {
        "points": _data(profile, entry), "trials": trials(profile, entry),
        "trees": [profile.probing.rounds, profile.probing.trees], "version": VERSION,
    }  # fmt: skip
    if entry.method == RECOMMENDED:
        return parts | {"run": frozen_features.recommended_run(profile)}
    if entry.method == COMPACT:
        return parts | {"reduction": compact.key(profile)}
    return parts | ({"package": peers.geoclip_version()} if entry.method == peers.GEOCLIP else {})


def _data(profile: Profile, entry: Entry) -> str:
    """Hash (hex) of the places and labels of an entry."""
    return map_land_cover.key(of_cover(profile)) if entry.target == COVER else place_tables.points_key(profile)


GRID = Grid[Entry](_parts, compute, data=_data)


def blocks(profile: Profile, entry: Entry) -> pd.DataFrame:
    """The scores of a finished entry, one row a metric and block: `block` (the cell's name), `points` tested, and their
    mean `score`, each point's averaged over the trials that tested it; told by the entry's fields."""
    elsewhere = entry.setting == OTHER_REGIONS
    cells = task(profile, entry.target, entry.buffer_km, elsewhere=elsewhere).places["cell"].to_numpy(str)
    kept = GRID.kept(profile, entry)
    parts = []
    for metric in METRICS[TARGETS[entry.target]]:
        scores = pd.Series(kept.point_scores(metric)).groupby(cells)
        by_block = scores.agg(points="count", score="mean").rename_axis("block").reset_index()
        parts.append(by_block[by_block["points"] > 0].assign(metric=metric))
    table = pd.concat(parts, ignore_index=True).assign(
        region=entry.region, target=entry.target, buffer_km=float(entry.buffer_km), setting=entry.setting,
        method=entry.method, seed=entry.seed, data=_data(profile, entry)[:12],
    )  # fmt: skip
    columns = ["region", "target", "metric", "buffer_km", "setting", "method", "seed", "block", "points", "score"]
    return table[[*columns, "data"]]


def chapter(
    profile: Profile, which: Iterable[str] | None = None, regions: Iterable[str] | None = None,
    seeds: int | None = None, *, progress: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """All rows, computing what is missing; arguments as of `entries`.

    Without `which`, pretrained methods have rows where their pretraining is complete or comes with the code, and
    GeoCLIP where its package is installed; methods that are named are pretrained where they have to be. A question that
    cannot be asked (`refusal`) is left out for all, and a line on standard error says so.
    """
    parts = []
    for region, part in itertools.groupby(entries(profile, which, regions, seeds), key=lambda entry: entry.region):
        turned, todo = under(profile, region), list(part)
        for target, split, km in dict.fromkeys((entry.target, entry.split, entry.buffer_km) for entry in todo):
            if why := refusal(turned, target, km, elsewhere=split == "regions"):
                print(f"{EXPERIMENT}: {region}, {target}, {split}: left out ({why})", file=sys.stderr)
                todo = [entry for entry in todo if (entry.target, entry.split) != (target, split)]
        if which is None:
            there = {run: _is_there(turned, *run) for run in dict.fromkeys((one.method, one.seed) for one in todo)}
            todo = [entry for entry in todo if there[entry.method, entry.seed]]
        parts.append(GRID.table(turned, f"{EXPERIMENT}, {region}", todo, progress=progress))
    return pd.concat(parts, ignore_index=True)


def _is_there(profile: Profile, method: str, seed: int) -> bool:
    if method == peers.GEOCLIP:
        return bool(peers.geoclip_version())
    if method in OURS:
        return encoders.is_pretrained(profile.times(profile.surroundings.longer), LONGER, 0)
    return method not in PRETRAINED or encoders.is_pretrained(profile, method, seed)


def finished(profile: Profile) -> dict[str, pd.DataFrame]:
    """The rows that are there already and their blocks, by file name; computes no entry, and of a region without any
    not even its places."""
    rows, of_blocks = [], []
    for region in regions_of(profile):
        turned = under(profile, region)
        if not any((paths.runs() / "entries").glob(f"{turned.name}-{EXPERIMENT}-*.csv")):
            continue
        there = [e for e in entries(profile, regions=[region]) if GRID.kept(turned, e).is_there()]
        rows.append(GRID.finished(turned, there))
        of_blocks += [blocks(turned, entry) for entry in there]
    if not of_blocks:
        return {}
    table = pd.concat(of_blocks, ignore_index=True)
    table["score"] = [float(f"{score:.{DIGITS}g}") for score in table["score"]]
    return {f"{EXPERIMENT}.csv": pd.concat(rows, ignore_index=True), f"{EXPERIMENT}-blocks.csv": table}

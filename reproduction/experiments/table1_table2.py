"""Tables 1 and 2, land price and area type: their entries, how each is computed, and the claims read off them."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from reproduction.computed import drawn_maps, encoders, place_tables, store
from reproduction.computed.frozen_features import features
from reproduction.experiments import row_claims
from reproduction.experiments.entries import Grid, Rows, rows_and_scores
from reproduction.experiments.finetune import finetune
from reproduction.experiments.raw_gps import raw_gps
from reproduction.places import interpolated, splits
from reproduction.rows import IN_TABLES, ROWS
from reproduction.settings import Profile
from selm import distributed, encoder
from selm.encoder import MapEncoder
from selm.errors import InputError
from selm.maps.sphere import Neighbourhood, pairs_within
from selm.probes import peers, practitioner
from selm.probes.folds import BufferedFolds, OutOfFold, random_folds
from selm.probes.frozen import frozen, logistic, ridge
from selm.views import colour

VERSION = 1  # of the probes: raise it when their numbers change
SPLITS = ("random", "blocks")
TABLES = ("table1", "table2")
CLAIMED = ("l01", "area_type", "zone")  # targets that claims are about

HISTOGRAM_ZOOMS = {
    "histogram_17": (17,), "histogram_16": (16,), "histogram_15": (15,), "histogram_14": (14,),
    "histogram_17_14": (17, 16, 15, 14),
}  # fmt: skip
PRACTITIONER = (
    "prior", "knn_coordinates", "trees_coordinates", *HISTOGRAM_ZOOMS, "histogram_17+coordinates",
    "histogram_17_14+coordinates",
)  # fmt: skip
_LINEAR = ("frozen", "frozen-closed")
_PLAIN = ("prior", "knn_coordinates")
_FROM_SCRATCH = ("random_init", "raw_gps", "raw_gps_standardised")


@dataclass(frozen=True)
class Entry:
    """One entry of the grid.

    `target`: table 1: ``l01``, ``interpolated`` or ``interpolated-leaking``; table 2: ``area_type`` or ``zone``.
    `setting`: ``frozen`` (a linear layer trained by epochs), ``frozen-closed`` (ridge or logistic regression),
    ``with-coordinates`` (trees on frozen features and the coordinates), ``finetune`` or ``practitioner``. `seed` is
    that of the pretraining (or of the random weights).
    """

    table: str
    target: str
    split: str
    method: str
    setting: str
    seed: int = 0

    @property
    def label(self) -> str:
        return f"{self.table}-{self.target}-{self.split}-{self.method}-{self.setting}-s{self.seed}"


def entries(profile: Profile, table: str, which: Iterable[str] | None = None) -> list[Entry]:
    """The grid of a table, in reading order; `which` keeps some methods. Raises InputError for an unknown table.

    Table 1 has GeoCLIP's rows where its package is installed.
    """
    if table not in TABLES:
        raise InputError(f"unknown table '{table}' (there are: {', '.join(TABLES)})")
    out = []
    # the second target is an aside: no fine-tuning, no colours; the merged zones by the closed form alone
    for target, settings, rows, tuned in (
        (("l01", _LINEAR, PRACTITIONER, True), ("interpolated", _LINEAR, _PLAIN, False))
        if table == "table1"
        else (("area_type", _LINEAR, PRACTITIONER, True), ("zone", _LINEAR[1:], _PLAIN, False))
    ):
        for split in SPLITS:
            out += [Entry(table, target, split, "random_init", setting) for setting in settings]
            if tuned:
                out += [Entry(table, target, split, name, "finetune") for name in _FROM_SCRATCH]
                out.append(Entry(table, target, split, "random_init", "with-coordinates"))
            for method in IN_TABLES:
                for seed in range(profile.seeds_of(method)):
                    out += [Entry(table, target, split, method, setting, seed) for setting in settings]
                if tuned:
                    out.append(Entry(table, target, split, method, "with-coordinates"))
                if tuned and ROWS[method].in_paper:
                    out.append(Entry(table, target, split, method, "finetune"))
            out += [Entry(table, target, split, method, "practitioner") for method in rows]
            if target == "l01" and peers.geoclip_version():
                out.append(Entry(table, target, split, peers.GEOCLIP, "frozen-closed"))
    if table == "table1":
        out += [
            Entry(table, "interpolated-leaking", "random", method, setting)
            for method, setting in (("knn_coordinates", "practitioner"), ("gps_selm", "frozen-closed"))
        ]
    return [entry for entry in out if which is None or entry.method in set(which)]


@dataclass(frozen=True)
class Task:
    """The places, targets and folds of an entry; folds (T, N), targets (N,) or (T, N).

    `test_folds`: those that one model a draw is tested on; None for a model a fold (`selm.probes.folds.problems`).
    """

    kind: str
    places: pd.DataFrame
    targets: NDArray[Any]
    folds: BufferedFolds
    test_folds: tuple[int, ...] | None = None

    def first(self, trials: int) -> Task:
        """The same with the first `trials` draws only."""
        targets = self.targets[:trials] if self.targets.ndim == 2 else self.targets
        return dataclasses.replace(
            self, targets=targets, folds=dataclasses.replace(self.folds, fold=self.folds.fold[:trials])
        )

    def rows_of(self, n: int) -> NDArray[np.int64]:
        """At most `n` rows, drawn with a fixed seed."""
        if len(self.places) <= n:
            return np.arange(len(self.places))
        return np.sort(np.random.default_rng(0).choice(len(self.places), n, replace=False))

    def some(self, n: int) -> Task:
        """The same on the places `rows_of` n."""
        if len(self.places) <= n:
            return self
        rows = self.rows_of(n)
        near = self.folds.near
        near = near.some(rows) if isinstance(near, Neighbourhood) else near[rows][:, rows]
        return dataclasses.replace(
            self, places=self.places.iloc[rows].reset_index(drop=True), targets=self.targets[..., rows],
            folds=BufferedFolds(self.folds.fold[:, rows], near),
        )  # fmt: skip


@store.remembered(maxsize=4)
def task(profile: Profile, table: str, target: str, split: str) -> Task:
    """Places, targets and folds: plain shuffled folds (``random``), or whole cells with a buffer (``blocks``)."""
    points = place_tables.points(profile)
    region = profile.regions_for("test")[0].name
    chosen = points[points["target_set"] == (region if table == "table1" else "set-aside")].reset_index(drop=True)
    draws = range(profile.probing.n_frozen)
    table_of_folds = splits.read_folds(profile)

    def fold(of: pd.DataFrame) -> NDArray[np.int64]:
        if split == "random":
            return random_folds(len(of), draws)
        return np.stack([splits.fold_of(of["cell"].to_numpy(), table_of_folds, draw) for draw in draws])

    buffer = profile.maps.buffer_m if split == "blocks" else 0.0

    def buffered(fold: NDArray[np.int64], of: pd.DataFrame) -> BufferedFolds:
        return BufferedFolds(fold, pairs_within(of["lat"], of["lon"], buffer))

    if table == "table2":
        return Task("classification", chosen, chosen[target].to_numpy(np.int64), buffered(fold(chosen), chosen))
    if target == "l01":
        return Task("regression", chosen, chosen["price"].to_numpy(float), buffered(fold(chosen), chosen))
    places = place_tables.interpolated(profile)
    if target == "interpolated-leaking":
        folds = random_folds(len(places), draws)
        return Task("regression", places, places["price_leaking"].to_numpy(float), buffered(folds, places))
    of_points = fold(chosen)
    prices = np.stack([interpolated.prices_by_fold(places, chosen, row) for row in of_points]).astype(float)
    return Task("regression", places, prices, buffered(of_points[:, places["nearest"].to_numpy()], places))


def compute(profile: Profile, entry: Entry, *, progress: bool = True) -> tuple[Rows, dict[str, torch.Tensor]]:
    """The rows and scores of an entry."""
    done = _probed(profile, entry, progress=progress)
    return rows_and_scores(done, experiment=entry.table, target=entry.target, split=entry.split, setting=entry.setting)


def _probed(profile: Profile, entry: Entry, *, progress: bool) -> OutOfFold:
    """Features, fine-tuning or a practitioner's model, scored out of fold."""
    probing = profile.probing
    todo = task(profile, entry.table, entry.target, entry.split)
    lat, lon = todo.places["lat"].to_numpy(), todo.places["lon"].to_numpy()
    if entry.setting == "practitioner":
        return without_embedding(profile, entry.method, todo)
    if entry.method.startswith("raw_gps"):
        inputs = "standardised" if entry.method.endswith("standardised") else "raw"
        return raw_gps(lat, lon, todo.targets, todo.folds, task=todo.kind, inputs=inputs, epochs=probing.epochs,
                       batch=probing.batch, progress=progress)  # fmt: skip
    if entry.setting in ("frozen", "frozen-closed"):
        x, on = frozen_features(profile, entry, todo.places), distributed.device()
        if entry.setting == "frozen":
            return frozen(x, todo.targets, todo.folds, task=todo.kind, epochs=probing.epochs, batch=probing.batch,
                          lr=probing.frozen_lr, weight_decay=probing.frozen_weight_decay, device=on,
                          progress=progress)  # fmt: skip
        if todo.kind == "regression":
            return ridge(x, todo.targets, todo.folds, device=on)
        return logistic(x, todo.targets, todo.folds, device=on)
    if entry.setting == "with-coordinates":
        x = frozen_features(profile, entry, todo.places)
        return trees(profile, np.column_stack([x, lat, lon]), todo)
    if entry.setting == "finetune":
        todo = todo.first(probing.n_finetune).some(probing.max_finetune)
        network = None if entry.method == "random_init" else encoders.encoder(profile, entry.method, entry.seed)
        config = encoders.config_of(profile, entry.method)

        def fresh(seed: int) -> MapEncoder:
            return encoder.new_encoder(config, seed) if network is None else copy.deepcopy(network)

        like = fresh(0)
        return finetune(
            fresh, like.dim, _image_reader(profile, todo.places, like), todo.targets, todo.folds,
            task=todo.kind, epochs=probing.epochs, batch=probing.batch, lr=probing.finetune_lr,
            device=distributed.device(), progress=progress,
        )  # fmt: skip
    raise InputError(f"unknown setting '{entry.setting}'")


def frozen_features(profile: Profile, entry: Entry, places: pd.DataFrame) -> NDArray[np.float32]:
    """(N, dim) features of the entry's encoder at its task's places, computed once for all entries on them; a peer's,
    which cost next to nothing, anew."""
    if entry.method == peers.GEOCLIP:
        return peers.geoclip_features(places["lat"], places["lon"])
    label = f"{entry.table}-{entry.target.split('-')[0]}" if entry.table == "table1" else entry.table
    return features(profile, entry.method, entry.seed, places, label)


def _image_reader(profile: Profile, places: pd.DataFrame, like: MapEncoder) -> Callable[[torch.Tensor], torch.Tensor]:
    on = distributed.device()
    indices, palette = drawn_maps.point_images(profile, places).to(on), drawn_maps.palette(profile).to(on)
    return lambda rows: like.standardise(colour(indices[rows.to(on)], palette))


def without_embedding(profile: Profile, method: str, todo: Task) -> OutOfFold:
    """A practitioner's row (`PRACTITIONER`) scored out of fold; trees in the first `Probing.n_trees` draws alone."""
    lat, lon = todo.places["lat"].to_numpy(), todo.places["lon"].to_numpy()
    if method == "prior":
        if todo.kind == "classification":
            return practitioner.class_prior(todo.targets, todo.folds, test_folds=todo.test_folds)
        return practitioner.target_mean(todo.targets, todo.folds, test_folds=todo.test_folds)
    if method == "knn_coordinates":
        return practitioner.knn(lat, lon, todo.targets, todo.folds, task=todo.kind, test_folds=todo.test_folds)
    coordinates = np.column_stack([lat, lon])
    name, _, also = method.partition("+")
    if name == "trees_coordinates":
        x = coordinates
    else:
        colours = [drawn_maps.histograms(profile, todo.places, zoom) for zoom in HISTOGRAM_ZOOMS[name]]
        x = np.hstack([*colours, coordinates] if also else colours)
    return trees(profile, x, todo)


def trees(profile: Profile, x: NDArray[Any], todo: Task) -> OutOfFold:
    """Trees on (N, D) features scored out of fold, in the first `Probing.n_trees` draws alone."""
    probing = profile.probing
    todo = todo.first(probing.n_trees)
    if todo.kind == "regression":
        return practitioner.boosting(
            x, todo.targets, todo.folds, task=todo.kind, max_iter=probing.rounds, test_folds=todo.test_folds
        )
    return practitioner.forest(
        x, todo.targets, todo.folds, task=todo.kind, trees=probing.trees, test_folds=todo.test_folds
    )


def _parts(profile: Profile, entry: Entry) -> dict[str, Any]:
    parts = {
        "points": place_tables.points_key(profile),
        "probing": dataclasses.asdict(profile.probing),
        "version": VERSION,
    }
    return parts | ({"package": peers.geoclip_version()} if entry.method == peers.GEOCLIP else {})


GRID = Grid[Entry](_parts, compute, data=lambda profile, entry: place_tables.points_key(profile))


def point_scores(
    profile: Profile, entry: Entry, metric: str, epochs: int
) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """Each point's score (N,), averaged over the trials that tested it, NaN where none did, and its cell's name.

    N are all points of the target, also where an entry was computed on some of them.
    """
    rows, kept = GRID.rows(profile, entry), GRID.kept(profile, entry)
    evaluations = list(dict.fromkeys(rows["epochs"]))
    values = kept.point_scores(metric, evaluations.index(epochs))
    todo = task(profile, entry.table, entry.target, entry.split)
    out = np.full(len(todo.places), np.nan)
    some = entry.setting == "finetune" and not entry.method.startswith("raw_gps")
    out[todo.rows_of(profile.probing.max_finetune) if some else slice(None)] = values
    return out, todo.places["cell"].to_numpy(str)


def table(profile: Profile, name: str, which: Iterable[str] | None = None, *, progress: bool = True) -> pd.DataFrame:
    """All rows of a table's results, computing the entries that are missing."""
    return GRID.table(profile, name, entries(profile, name, which), progress=progress)


def table1(profile: Profile, **options: Any) -> pd.DataFrame:
    """Land price (Table 1): tidy results, one row a trial."""
    return table(profile, "table1", **options)


def table2(profile: Profile, **options: Any) -> pd.DataFrame:
    """Area type (Table 2): tidy results, one row a trial."""
    return table(profile, "table2", **options)


def finished(profile: Profile, name: str) -> pd.DataFrame:
    """The rows of a table's entries that are there already; computes nothing."""
    return GRID.finished(profile, entries(profile, name))


def class_counts(profile: Profile) -> pd.DataFrame:
    """The classes of Table 2's places, most frequent first; absent ones are left out.

    Columns: target, class, places, share, defined (how many classes the target has), profile, data.
    """
    points = place_tables.points(profile)
    chosen = points[points["target_set"] == "set-aside"]
    parts = []
    for target, names in (("area_type", points.attrs["area_types"]), ("zone", points.attrs["zones"])):
        counts = chosen.loc[chosen[target] >= 0, target].value_counts()
        parts.append(
            pd.DataFrame(
                {"target": target, "class": [names[code] for code in counts.index], "places": counts.to_numpy(),
                 "share": counts.to_numpy() / counts.sum(), "defined": len(names)}
            )
        )  # fmt: skip
    return pd.concat(parts, ignore_index=True).assign(profile=profile.name, data=place_tables.points_key(profile)[:12])


def finished_blocks(profile: Profile, name: str) -> pd.DataFrame:
    """The scores by block (`row_claims.COLUMNS`) of the entries under spatial blocks that are there already; without
    interpolated prices, which no claim is about."""
    parts = []
    for entry in entries(profile, name):
        kept = GRID.kept(profile, entry)
        if entry.split != "blocks" or entry.target not in CLAIMED or not kept.is_there():
            continue
        todo = _task(profile, name, entry.target)
        tuned = entry.setting == "finetune" and not entry.method.startswith("raw_gps")  # on some of the places
        places = todo.places.iloc[todo.rows_of(profile.probing.max_finetune)] if tuned else todo.places
        parts += row_claims.blocks_of_kept(
            kept, places["cell"].to_numpy(str), places["region"].to_numpy(str), seed=entry.seed, target=entry.target,
            setting=entry.setting, method=entry.method, buffer_km=profile.maps.buffer_m / 1000,
        )  # fmt: skip
    return row_claims.joined(parts)


@store.remembered(maxsize=4)
def _task(profile: Profile, name: str, target: str) -> Task:
    return task(profile, name, target, "blocks")


# Our questions, as (better, worse): what the methods add, by the best linear layer, and what a practitioner asks; a row
# "+coordinates" is trees on both. The paper's own claims are in data/paper/claims.csv
# (`reproduction.experiments.paper_claims`).
CLAIMS = (
    ("gps_selm", "dino"),
    ("gps_selm_geo", "dino"),
    ("gps_selm_geo_rec", "gps_selm_geo"),
    ("gps_selm", "gps_selm_geo_rec"),
    ("dino", "random_init"),
    ("gps_selm", "random_init"),
    ("gps_selm", "geo_only"),
    ("gps_selm", "gps_selm_no_price"),
    ("gps_selm", "trees_coordinates"),
    ("gps_selm", "histogram_17"),
    ("gps_selm", "histogram_17_14"),
    ("gps_selm+coordinates", "trees_coordinates"),
    ("gps_selm+coordinates", "histogram_17+coordinates"),
)


def claims(profile: Profile, name: str) -> pd.DataFrame:
    """A verdict on each of `CLAIMS`, from the entries of a table that are there already (`claims_on`)."""
    return claims_on(name, finished(profile, name), finished_blocks(profile, name))


def claims_on(name: str, rows: pd.DataFrame | None, blocks: pd.DataFrame | None) -> pd.DataFrame:
    """A verdict on each of `CLAIMS`, from a table's rows without epochs and their scores by block.

    One family (`row_claims.verdicts`); claims on rows that are not there yet are ``not run``.
    """
    target, metric = ("l01", "mse") if name == "table1" else ("area_type", "top1")
    sides: dict[str, row_claims.Side | None] = {}
    for method in dict.fromkeys(method for pair in CLAIMS for method in pair):
        of, setting = method, "practitioner" if method in PRACTITIONER else "frozen-closed"
        if setting != "practitioner" and method.endswith("+coordinates"):
            of, setting = method.removesuffix("+coordinates"), "with-coordinates"
        sides[method] = row_claims.side_of(
            rows, blocks, target=target, split="blocks", metric=metric, setting=setting, method=of, epochs=0
        )
    family = [row_claims.tested(sides[a], sides[b], (a, b), metric) for a, b in CLAIMS]
    table = pd.DataFrame(CLAIMS, columns=["a", "b"])
    verdicts = pd.concat([table, row_claims.verdicts(family, metric)], axis=1).drop(columns="stand_in")
    return verdicts.assign(experiment=name, target=target, split="blocks", metric=metric)

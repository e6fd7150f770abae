"""An embedding from coordinates alone, made from two views of each place, in the models of risk (Holvoet et al. 2025).

The views are the map image's embedding by a published, frozen encoder, and what OpenStreetMap has around the place in
numbers. The location encoder that was aligned with them has seen maps of all regions and no label. It is compared with
coordinates themselves, with the views, and with encoders of one view each, on official land prices: under random folds,
under spatial blocks, and in a region of which the model has seen no price.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray

from reproduction import paths
from reproduction.beyond.location_encoders import experiment as location_encoders
from reproduction.beyond.location_encoders.encoder import LocationConfig, LocationEncoder
from reproduction.beyond.multi_view import risk_models
from reproduction.beyond.multi_view.map_features import MEASURES, map_features
from reproduction.beyond.multi_view.method import MultiViewMethod, ViewedPlaces
from reproduction.computed import drawn_maps, encoders, frozen_features, place_tables, store
from reproduction.experiments import table1_table2
from reproduction.experiments.entries import Grid, Rows, rows_and_scores
from reproduction.experiments.score_claims import compare_claims
from reproduction.experiments.table1_table2 import HISTOGRAM_ZOOMS, Task
from reproduction.labels.land_price import PriceScale
from reproduction.places import regions
from reproduction.places.labelled import raw_price
from reproduction.results import computed_once, origin, read_csv
from reproduction.settings import Profile
from selm import distributed
from selm.errors import unknown
from selm.files import read_json
from selm.maps.sphere import pairs_within
from selm.pretrain import Trainer, pretrain
from selm.probes import practitioner
from selm.probes.folds import BufferedFolds, OutOfFold
from selm.probes.frozen import ridge
from selm.settings import Pretraining

VERSION = 1  # raise it when the numbers change
UNSEEN = "unseen"
SPLITS = (*table1_table2.SPLITS, UNSEEN)
# Encoders of coordinates, and the views that each is aligned with.
ENCODERS = {"views": ("map", "objects"), "views-map": ("map",), "views-objects": ("objects",)}
FEATURES = {
    "coordinates": "coordinates",
    "views": "embedding of coordinates, both views",
    "views-map": "embedding of coordinates, map images alone",
    "views-objects": "embedding of coordinates, map objects alone",
    "objects": "map objects in numbers",
    "map": "map image's embedding",
    "colours": "colours, zooms 17-14",
}
MODELS = {"glm": "GLM", "gam": "GAM", "boosting": "boosting"}
CLAIMS = tuple(("views", other) for other in FEATURES if other != "views")  # "a beats b"
_GRID_SIDE, _GRID_CELLS = 64, 3.0  # of the map of effects: places along its side, and how many cells that is
EFFECTS = (("coordinates", "boosting"), ("views", "boosting"), ("views", "glm"))  # drawn on the map


@dataclass(frozen=True)
class Entry:
    """One cell: what a model is given (`FEATURES`), which model (`MODELS`), and how it is tested (`SPLITS`)."""

    features: str
    model: str
    split: str
    seed: int = 0

    @property
    def method(self) -> str:
        return self.features

    @property
    def label(self) -> str:
        return f"multi-view-{self.split}-{self.features}-{self.model}"


def models() -> tuple[str, ...]:
    """The models that can be fitted here."""
    return tuple(name for name in MODELS if name != "gam" or risk_models.has_gam())


def entries(profile: Profile) -> list[Entry]:
    """The grid in reading order, without the GAM where pyGAM is not installed."""
    return [Entry(name, model, split) for split in SPLITS for model in models() for name in FEATURES]


# -- the views ---------------------------------------------------------------------------------------------------------


def objects(profile: Profile, table: pd.DataFrame, label: str) -> NDArray[np.float64]:
    """(N, radii · measures): log(1 + `map_features`) at places `lat lon region`, computed once; `label` names them."""
    radii = profile.multi_view.radii_m
    where = table[["region", "lat", "lon"]].reset_index(drop=True)
    parts = {
        "places": store.table_fingerprint(where), "radii": radii, "maps": drawn_maps.map_fingerprint(profile),
        "measures": [dataclasses.asdict(measure) for measure in MEASURES], "version": VERSION,
    }  # fmt: skip

    def make() -> NDArray[np.float64]:
        out = np.zeros((len(where), len(radii) * len(MEASURES)))
        for region in profile.regions:
            rows = np.flatnonzero(where["region"] == region.name)
            if len(rows):
                at = where.iloc[rows]
                out[rows] = map_features(regions.open_region(region), at["lat"], at["lon"], radii)
        return np.log1p(out)

    return store.cached_array("map-objects", f"{profile.name}-{label}", parts, make)


@store.remembered(maxsize=2)
def _viewed(profile: Profile) -> tuple[torch.Tensor, dict[str, NDArray[Any]]]:
    """Coordinates (n, 2) of the places that location encoders learn from, all regions', and both views of them."""
    pairs = location_encoders.paired(profile, "everywhere")
    kinds = location_encoders.covered("everywhere")
    of_kind = [objects(profile, location_encoders.places(profile, kind), f"location-{kind}") for kind in kinds]
    return pairs.coordinates, {"map": pairs.features.numpy(), "objects": np.concatenate(of_kind)}


def _config(profile: Profile, name: str) -> dict[str, Any]:
    s, shared = profile.multi_view, dataclasses.asdict(profile.location_encoders)
    at, views = _viewed(profile)
    lengths = ("images", "batch", "lr", "lr_warmup", "weight_decay", "hidden", "layers", "degrees", "teacher")
    return {
        "views": {view: store.table_fingerprint(pd.DataFrame(views[view])) for view in ENCODERS[name]},
        "places": store.table_fingerprint(pd.DataFrame(at.numpy())),
        "frame": dataclasses.asdict(location_encoders.frame(profile)), "encoder": s.encoder, "dim": s.dim,
        "settings": {length: shared[length] for length in lengths}, "profile": profile.name, "version": VERSION,
        "device": distributed.device().type,
    }  # fmt: skip


def trained(profile: Profile, name: str, *, progress: bool = True) -> Path:
    """The run directory of an encoder of `ENCODERS`; trains, by the one training loop, what is not finished."""
    if name not in ENCODERS:
        raise unknown("encoder of views", name, ENCODERS)
    config = _config(profile, name)
    folder = store.address("multi-view", f"{profile.name}-{name}", config)
    if (folder / "run.json").exists() and read_json(folder / "run.json").get("complete"):
        return folder
    s, shared = profile.multi_view, profile.location_encoders
    at, views = _viewed(profile)
    places = ViewedPlaces.of(at, [views[view] for view in ENCODERS[name]])
    position, network = s.encoder
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = LocationEncoder(LocationConfig(
            position, network, location_encoders.frame(profile), s.dim, hidden=shared.hidden, layers=shared.layers,
            degrees=shared.degrees,
        ))  # fmt: skip
        method = MultiViewMethod(
            encoder, places, lr=shared.lr, lr_warmup=shared.lr_warmup, weight_decay=shared.weight_decay
        )
    length = Pretraining(images=shared.images, batch=shared.batch, checkpoint_every=1_000, log_every=25)
    trainer = Trainer(method, places, length, 0, distributed.device())
    return pretrain(trainer, folder, config, progress=progress, title=name)


# -- what models are given, and what they make of it -------------------------------------------------------------------


def _elsewhere(profile: Profile) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """The labelled places of all other regions, and which of them are learnt from."""
    table = place_tables.elsewhere(profile)
    n = min(profile.multi_view.max_elsewhere, len(table))
    return table, np.sort(np.random.default_rng(0).choice(len(table), n, replace=False))


def _given(profile: Profile, name: str, table: pd.DataFrame, label: str) -> NDArray[Any]:
    """(N, d) what a model is given at places `lat lon region`; `label` names them."""
    if name == "coordinates":
        return np.array(table[["lat", "lon"]], np.float64)
    if name in ENCODERS:
        at = torch.tensor(np.array(table[["lat", "lon"]], np.float64))
        return LocationEncoder.from_pretrained(trained(profile, name)).embed(at).numpy()
    if name == "objects":
        return objects(profile, table, label)
    if name == "map":
        return frozen_features.features(profile, profile.location_encoders.teacher, 0, table, label)
    if name == "colours":
        return np.hstack([drawn_maps.histograms(profile, table, zoom) for zoom in HISTOGRAM_ZOOMS["histogram_17_14"]])
    raise unknown("features", name, FEATURES)


def given(profile: Profile, name: str, split: str) -> NDArray[Any]:
    """(N, d) what a model is given (`FEATURES`) at the places of `task`."""
    tested = _given(profile, name, table1_table2.task(profile, "table1", "l01", "blocks").places, "table1-l01")
    if split != UNSEEN:
        return tested
    table, rows = _elsewhere(profile)
    if name in ("map", "colours"):  # kept for all of them, for other chapters ask there too
        return np.concatenate([tested, _given(profile, name, table, "elsewhere")[rows]])
    return np.concatenate([tested, _given(profile, name, table.iloc[rows], "elsewhere-some")])


def task(profile: Profile, split: str) -> Task:
    """Places, standardised log prices and folds: those of Table 1; for `UNSEEN` its places are all tested by one model
    of places of other regions, which follow them in the table."""
    todo = table1_table2.task(profile, "table1", "l01", "blocks" if split == UNSEEN else split)
    if split != UNSEEN:
        return todo.first(profile.multi_view.n_trials)
    table, rows = _elsewhere(profile)
    known = table if profile.stand_ins else table[table["split"] == "pretrain"]
    prices = PriceScale.of(raw_price(known))(raw_price(table.iloc[rows]))  # on the scale of Table 1
    n = len(todo.places)
    places = pd.concat([todo.places, table.iloc[rows]], ignore_index=True)
    fold = (np.arange(len(places)) >= n).astype(np.int64)[None]
    folds = BufferedFolds(fold, pairs_within(places["lat"], places["lon"], profile.maps.buffer_m))
    return Task(todo.kind, places, np.concatenate([todo.targets, prices]), folds, (0,))


def modelled(
    profile: Profile, model: str, x: ArrayLike, y: ArrayLike, folds: ArrayLike | BufferedFolds,
    test_folds: tuple[int, ...] | None, *, surface: bool = False,
) -> OutOfFold:  # fmt: skip
    """A model of `MODELS` on features x (N, d) and targets y (N,), out of fold; `surface`: see `Additive`."""
    if model == "glm":
        return ridge(x, y, folds, test_folds=test_folds)
    if model == "gam":
        return risk_models.gam(x, y, folds, most=profile.multi_view.dim, surface=surface, test_folds=test_folds)
    if model == "boosting":
        return practitioner.boosting(
            x, y, folds, task="regression", max_iter=profile.probing.rounds, test_folds=test_folds
        )
    raise unknown("model", model, MODELS)


def compute(profile: Profile, entry: Entry, *, progress: bool = True) -> tuple[Rows, dict[str, torch.Tensor]]:
    """The rows and scores of an entry."""
    todo = task(profile, entry.split)
    x = given(profile, entry.features, entry.split)
    done = modelled(
        profile, entry.model, x, todo.targets, todo.folds, todo.test_folds, surface=entry.features == "coordinates"
    )
    return rows_and_scores(done, features=entry.features, model=entry.model, split=entry.split, dim=x.shape[1])


def _parts(profile: Profile, entry: Entry) -> dict[str, Any]:
    parts: dict[str, Any] = {
        "points": place_tables.points_key(profile), "rounds": profile.probing.rounds,
        "settings": dataclasses.asdict(profile.multi_view), "teacher": profile.location_encoders.teacher,
        "version": [VERSION, table1_table2.VERSION],
    }  # fmt: skip
    if entry.features in ENCODERS:
        parts["encoder of views"] = _config(profile, entry.features)
    if entry.features == "map":
        parts["teacher"] = encoders.pretraining_folder(profile, profile.location_encoders.teacher).name
    return parts


GRID = Grid[Entry](_parts, compute, data=lambda profile, entry: place_tables.points_key(profile))


def chapter(profile: Profile) -> pd.DataFrame:
    """All rows, computing what is missing: one row a trial. The claims and the map of effects are computed too."""
    rows = GRID.table(profile, "several views", entries(profile))
    claims(profile)
    effects(profile)
    return rows


def claims(profile: Profile, which: Iterable[str] | None = None) -> pd.DataFrame:
    """Is the embedding from both views better than each of the other features, in each model, under spatial blocks and
    in the unseen region? One verdict each (`compare_claims`; Holm over a split's claims); `which` keeps some models."""
    chosen = models() if which is None else tuple(which)
    parts = []
    for split in SPLITS[1:]:
        todo = task(profile, split)
        scores = {}
        for model in chosen:
            for name in FEATURES:
                entry = Entry(name, model, split)
                GRID.rows(profile, entry, progress=False)
                scores[f"{name}, {model}"] = GRID.kept(profile, entry).point_scores("mse")
        tested = np.isfinite(np.stack(list(scores.values()))).all(axis=0)
        blocks = todo.places["cell"].to_numpy(str)[tested]
        pairs = [(f"{a}, {model}", f"{b}, {model}") for model in chosen for a, b in CLAIMS]
        held = {name: values[tested] for name, values in scores.items()}
        parts.append(compare_claims(held, pairs, blocks, higher_is_better=False).assign(split=split))
    return pd.concat(parts, ignore_index=True).assign(**origin(profile, place_tables.points_key(profile)))


def _effects_file(profile: Profile) -> Path:
    parts = {
        "effects": EFFECTS, "grid": [_GRID_SIDE, _GRID_CELLS],
        "of": [_parts(profile, Entry(name, model, "blocks")) for name, model in EFFECTS],
    }  # fmt: skip
    return store.address("multi-view", f"{profile.name}-effects", parts, ".csv")


def effects(profile: Profile) -> pd.DataFrame:
    """The price that models of all official points give every place of a grid around the middle of those points: `lat
    lon`, and a column ``FEATURES, MODEL`` for each of `EFFECTS` (standardised log price). The official points there
    come first, their own price under ``official``."""

    def make() -> pd.DataFrame:
        todo = task(profile, "blocks")
        middle = todo.places[["lat", "lon"]].median()
        reach = _GRID_CELLS / 2 * profile.maps.cell_degrees
        line = np.linspace(-reach, reach, _GRID_SIDE)
        lat, lon = (part.ravel() for part in np.meshgrid(middle["lat"] + line, middle["lon"] + line, indexing="ij"))
        table = pd.DataFrame({"lat": lat, "lon": lon})
        n = len(todo.places)
        fold = (np.arange(n + len(table)) < n).astype(np.int64)[None]
        y = np.concatenate([todo.targets, np.zeros(len(table))])  # what stands for the unknown prices is not used
        out = table[["lat", "lon"]].copy()
        for name, model in EFFECTS:
            x = np.concatenate([_given(profile, name, part, "") for part in (todo.places, table)])
            done = modelled(profile, model, x, y, fold, (0,), surface=name == "coordinates")
            out[f"{name}, {model}"] = done.predictions[0, 0, n:]
        points = todo.places[["lat", "lon"]].assign(official=todo.targets)
        points = points[((points[["lat", "lon"]] - middle).abs() <= reach).all(axis=1)]
        run_id = store.id_of(_effects_file(profile).with_suffix(""))
        both = pd.concat([points, out], ignore_index=True)
        return both.assign(**origin(profile, place_tables.points_key(profile), run_id=run_id))

    return computed_once(_effects_file(profile), make)


def finished(profile: Profile) -> dict[str, pd.DataFrame]:
    """What is there to publish; computes no result."""
    folder = paths.runs() / "multi-view"
    if not (folder.is_dir() and any(folder.glob(f"{profile.name}-*/location.json"))):
        return {}
    kept = {entry: GRID.kept(profile, entry).is_there() for entry in entries(profile)}
    rows = GRID.finished(profile, kept)
    out: dict[str, pd.DataFrame] = {"multi-view.csv": rows} if len(rows) else {}
    whole = [m for m in models() if all(there for entry, there in kept.items() if entry.model == m)]
    if whole:
        out["multi-view-claims.csv"] = claims(profile, whole)
    if _effects_file(profile).exists():
        out["multi-view-effects.csv"] = read_csv(_effects_file(profile)).round(4)
    return out

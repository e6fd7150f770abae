"""A location encoder to use: the embedding of several zooms, and the colours beside it, distilled into coordinates.

The chapter's other encoders learn from one image of zoom 17. This one learns what the recommended way to use a map
gives (`beyond.more_context`): the wide encoder's features at all zooms beside the colours of the same images, at places
of all regions, whose maps it so has seen, never a label. Its errors are asked as that chapter asks the map's: kernel
ridge regression, whose numbers are chosen in the validation regions, under every buffer.

*What is learned.* Each feature and colour share is standardised, the features as a whole weigh as much as the colours,
and the whole is turned to its first principal components and from there by a random rotation: so all numbers of an
embedding vary alike, and a probe that standardises them does not make noise of the last components as large as what the
first ones say. *Jitter.* Tables of fine cells learn their few places by heart. So each place is moved at random, a
standard deviation of some hundred metres, each time it is seen.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reproduction import paths
from reproduction.beyond.location_encoders.encoder import LocationConfig, LocationEncoder
from reproduction.beyond.location_encoders.experiment import NEIGHBOURS, seconds_of
from reproduction.beyond.location_encoders.experiment import places as places_of
from reproduction.beyond.location_encoders.frame import Frame
from reproduction.beyond.location_encoders.grid import FeatureGrid
from reproduction.beyond.location_encoders.method import LocationMethod, PairedPlaces
from reproduction.beyond.more_context import experiment as more_context
from reproduction.beyond.more_context.kernel_ridge import KernelRidge, kernel_ridges
from reproduction.computed import drawn_maps, encoders, frozen_features, place_tables, store
from reproduction.computed.compact import turned_components
from reproduction.experiments.entries import Grid, Rows, rows_and_scores
from reproduction.experiments.table1_table2 import Task
from reproduction.places.sampling import sample_places
from reproduction.rows import LONGER
from reproduction.settings import Profile
from selm import distributed
from selm.errors import InputError
from selm.files import read_json
from selm.maps.mercator import to_tile
from selm.maps.sphere import nearest_places
from selm.methods.multi_zoom import WIDE
from selm.pretrain import Trainer, pretrain
from selm.probes.folds import OutOfFold
from selm.settings import Pretraining

EXPERIMENT = "distilled"
VERSION = 1  # raise it when the numbers change
TEACHER = LONGER
MAP, GRID_TABLES = "map", "grid"
KNOWN_ZOOM = 12  # an encoder for use answers in those tiles, some 7 km wide, that hold a place it learned from
LEAST_SPREAD = 1e-3  # of a number that is standardised: a colour that is hardly ever there is not blown up
NEAREST_M = 50.0  # nearer places weigh no more


@dataclass(frozen=True)
class Entry:
    """A location encoder (a position encoding, the jitter of its training in metres), and the buffer that it is asked
    under. `MAP` stands for what is learned from, the map's own embedding of the tested places; `NEIGHBOURS` for the
    control of a network: the mean, weighted by inverse distance, of the nearest places' embeddings."""

    position: str
    network: str
    jitter_m: float
    buffer_km: float
    seed: int = 0

    @property
    def method(self) -> str:
        return self.position

    @property
    def setting(self) -> str:
        return f"jitter of {self.jitter_m:g} m" if self.jitter_m else "no jitter"

    @property
    def label(self) -> str:
        return f"{EXPERIMENT}-{self.position}-{self.jitter_m:g}m-{self.buffer_km:g}km-s{self.seed}"


def entries(profile: Profile) -> list[Entry]:
    """The grid, in reading order."""
    s = profile.distilled
    buffers = (profile.maps.buffer_m / 1000, *profile.surroundings.buffers_km)
    ways = [
        (MAP, "", 0.0),
        (NEIGHBOURS, "", 0.0),
        *((*way, jitter) for way, jitter in itertools.product(s.encoders, s.jitters_m)),
    ]
    return [Entry(*way, km) for way, km in itertools.product(ways, buffers)]


# -- what is learned ---------------------------------------------------------------------------------------------------


def places(profile: Profile) -> pd.DataFrame:
    """Places of all regions whose maps are learned from, `lat lon region`, computed once a kind of region."""
    wanted = dataclasses.replace(profile.location_encoders, n_places=profile.distilled.n_places)
    more = dataclasses.replace(profile, location_encoders=wanted)
    regions = profile.regions_for("validation")
    parts = [places_of(more, "pretraining"), *([_validation(profile)] if regions else []), places_of(more, "test")]
    return pd.concat(parts, ignore_index=True)


def _validation(profile: Profile) -> pd.DataFrame:
    """Places of the validation regions, uniform on their maps among those whose image passes the entropy filter."""
    maps, n, seed = profile.maps, profile.distilled.n_places, 15
    atlases = drawn_maps.atlases(profile, "validation")

    def make() -> pd.DataFrame:
        every = sum(len(atlas.keys) for atlas in atlases.values())
        parts = [
            sample_places(
                atlas, -(-n * len(atlas.keys) // every), seed, region=name, zoom=maps.zooms[0],
                entropy_threshold=maps.entropy_threshold, allowed=lambda lat, lon: np.ones(len(lat), np.bool_),
            )
            for name, atlas in atlases.items()
        ]  # fmt: skip
        return pd.concat(parts, ignore_index=True)[["lat", "lon", "region"]]

    parts = {"n": n, "maps": drawn_maps.map_fingerprint(profile, "validation"), "seed": seed, "version": VERSION,
             "settings": dataclasses.asdict(maps)}  # fmt: skip
    return store.cached_table("location-places", f"{profile.name}-validation", parts, make)


def map_embeddings(profile: Profile, table: pd.DataFrame, label: str) -> NDArray[np.float32]:
    """(N, D) what the map gives for places: the teacher's features at all zooms, then the square roots of the shares of
    colours in the same images."""
    longer = profile.times(profile.surroundings.longer)
    features = frozen_features.features(longer, TEACHER, 0, table, label)
    parts = {
        "places": store.table_fingerprint(table[["region", "lat", "lon"]]), "zooms": WIDE, "version": VERSION,
        "maps": drawn_maps.map_fingerprint(profile), **drawn_maps.further_maps(profile, WIDE),
    }  # fmt: skip

    def colours() -> Tensor:
        return torch.from_numpy(np.hstack([np.sqrt(drawn_maps.histograms(profile, table, zoom)) for zoom in WIDE]))

    return np.hstack([features, store.cached_array("features", f"{profile.name}-colours-{label}", parts, colours)])


@dataclass(frozen=True)
class Basis:
    """How the map's embedding becomes what is learned: (x − mean) · scale, times `turn` (D, dim)."""

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    turn: NDArray[np.float64]

    @classmethod
    def of(cls, x: NDArray[np.float32], n_features: int, dim: int, seed: int = 0) -> Basis:
        """Of map embeddings (N, D), whose first `n_features` numbers are features and the others colours."""
        x = x.astype(np.float64)
        mean = x.mean(axis=0)
        share = np.where(np.arange(x.shape[1]) < n_features, n_features, x.shape[1] - n_features)
        scale = 1 / (np.maximum(x.std(axis=0), LEAST_SPREAD) * np.sqrt(share))
        centred = (x - mean) * scale
        return cls(mean, scale, turned_components(centred, min(dim, *x.shape), seed)[0])

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        return (((x - self.mean) * self.scale) @ self.turn).astype(np.float32)


@store.remembered(maxsize=2)
def paired(profile: Profile) -> tuple[PairedPlaces, Basis]:
    """The training set, and how the map's embedding becomes it; the last ones are kept in memory."""
    table = places(profile)
    x = map_embeddings(profile, table, EXPERIMENT)
    longer = profile.times(profile.surroundings.longer)
    features = len(WIDE) * encoders.encoder(longer, TEACHER, 0, progress=False).dim
    basis = Basis.of(x, features, profile.distilled.dim)
    lat, lon = table["lat"].to_numpy(), table["lon"].to_numpy()
    return PairedPlaces.of(lat, lon, basis(x)), basis


# -- training ----------------------------------------------------------------------------------------------------------


def _config(profile: Profile, entry: Entry) -> dict[str, Any]:
    s = profile.distilled
    return {
        "encoder": dataclasses.asdict(location_config(profile, entry)), "jitter_m": entry.jitter_m, "seed": entry.seed,
        "settings": {name: getattr(s, name) for name in ("images", "batch", "lr", "lr_warmup", "weight_decay")},
        "places": store.table_fingerprint(places(profile)), "teacher": teacher_run(profile), "profile": profile.name,
        "version": VERSION, "device": distributed.device().type,
    }  # fmt: skip


def teacher_run(profile: Profile) -> str:
    """The name of the run directory of the encoder that is learned from."""
    return encoders.pretraining_folder(profile.times(profile.surroundings.longer), TEACHER).name


def location_config(profile: Profile, entry: Entry) -> LocationConfig:
    s = profile.distilled
    table = places(profile)
    return LocationConfig(
        entry.position, entry.network, Frame.around(table["lat"], table["lon"]), s.dim, hidden=s.hidden,
        layers=s.layers, degrees=s.degrees, features=s.features, grid_levels=s.grid_levels,
        grid_features=s.grid_features, grid_entries=s.grid_entries, cell_m=s.cell_m, seed=entry.seed,
    )  # fmt: skip


def folder(profile: Profile, entry: Entry) -> Path:
    """The run directory of a location encoder, whether or not it has been trained; the same for every buffer."""
    name = f"{profile.name}-{EXPERIMENT}-{entry.position}-{entry.jitter_m:g}m-s{entry.seed}"
    return store.address("distilled", name, _config(profile, entry))


def trained(profile: Profile, entry: Entry, *, progress: bool = True) -> Path:
    """The run directory of a trained location encoder; trains, by the one training loop, what is not finished."""
    at = folder(profile, entry)
    if (at / "run.json").exists() and read_json(at / "run.json").get("complete"):
        return at
    s, (pairs, _) = profile.distilled, paired(profile)
    config = dataclasses.replace(location_config(profile, entry), dim=pairs.features.shape[1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(entry.seed)
        method = LocationMethod(
            LocationEncoder(config), pairs, "distillation", lr=s.lr, lr_warmup=s.lr_warmup,
            weight_decay=s.weight_decay, jitter_m=entry.jitter_m,
        )  # fmt: skip
    length = Pretraining(images=s.images, batch=s.batch, checkpoint_every=1_000, log_every=25)
    trainer = Trainer(method, pairs, length, entry.seed, distributed.device())
    return pretrain(trainer, at, _config(profile, entry), progress=progress, title=entry.label)


# -- what is asked of it -----------------------------------------------------------------------------------------------


def embeddings(profile: Profile, entry: Entry, table: pd.DataFrame, *, progress: bool = True) -> NDArray[np.float32]:
    """(N, dim) embeddings of the coordinates of a table (`MAP`: of its map images)."""
    _, basis = paired(profile)
    if entry.position == MAP:
        return basis(map_embeddings(profile, table, f"{EXPERIMENT}-tested"))
    coordinates = table[["lat", "lon"]].to_numpy(np.float64)
    if entry.position == NEIGHBOURS:
        return _mean_of_nearest(profile, coordinates)
    network = LocationEncoder.from_pretrained(trained(profile, entry, progress=progress))
    return network.embed(torch.tensor(coordinates)).numpy()


def _mean_of_nearest(profile: Profile, coordinates: NDArray[np.float64]) -> NDArray[np.float32]:
    """(N, 2) degrees → (N, dim): the mean of the nearest places' embeddings, by inverse distance."""
    pairs, _ = paired(profile)
    known = pairs.coordinates.numpy()
    k = min(profile.distilled.neighbours, len(known))
    distance, near = nearest_places(*coordinates.T, *known.T, k=k)
    weight = (1 / np.maximum(distance, NEAREST_M)).astype(np.float32)
    weight /= weight.sum(axis=1, keepdims=True)
    return np.einsum("nk,nkd->nd", weight, pairs.features.numpy()[near])


def compute(profile: Profile, entry: Entry, *, progress: bool = True) -> tuple[Rows, dict[str, Tensor]]:
    """The rows and scores of an entry in the test region, by the probe of the least error in the validation regions."""
    probes = more_context.tries(profile, coordinates=False)
    km = 0.0 if entry.buffer_km == profile.maps.buffer_m / 1000 else entry.buffer_km
    learned, asked = more_context.validation(profile, km), more_context.tested(profile, "blocks", km)

    def scored(todo: Task, some: list[KernelRidge]) -> list[OutOfFold]:
        x = embeddings(profile, entry, todo.places, progress=progress)
        return kernel_ridges(x, todo.places["lat"], todo.places["lon"], todo.targets, todo.folds, some)

    errors = [float(one.values("mse").mean()) for one in scored(learned, probes)]
    best = probes[int(np.argmin(errors))]
    (done,) = scored(asked, [best])
    return rows_and_scores(
        done, experiment=EXPERIMENT, target="l01", split=f"blocks, {entry.buffer_km:g} km", setting=entry.setting,
        buffer_km=float(entry.buffer_km), position=entry.position, network=entry.network, jitter_m=entry.jitter_m,
        validation=min(errors), tries=len(errors), **dataclasses.asdict(best), **_measured(profile, entry),
    )  # fmt: skip


def _measured(profile: Profile, entry: Entry) -> dict[str, float]:
    """Numbers of an embedding, what has to be kept for it in megabytes of 32-bit numbers, and coordinates a second of
    processor time (the best of three). NaN for the map, which `benchmarks` measures."""
    pairs, _ = paired(profile)
    dim = pairs.features.shape[1]
    if entry.position == MAP:
        return {"dim": dim, "megabytes": np.nan, "coordinates_per_s": np.nan}
    rows = np.random.default_rng(0).integers(len(pairs.coordinates), size=profile.distilled.n_timed)
    more = pairs.coordinates[rows]
    numbers = pairs.features.numel() + pairs.coordinates.numel()
    work: Callable[[], object] = partial(_mean_of_nearest, profile, more.numpy())
    if entry.position != NEIGHBOURS:
        network = LocationEncoder.from_pretrained(trained(profile, entry))
        numbers = sum(parameter.numel() for parameter in network.parameters())
        work = partial(network.embed, more)
    seconds = min(seconds_of(work) for _ in range(3))
    return {"dim": dim, "megabytes": 4 * numbers / 1e6, "coordinates_per_s": len(more) / seconds}


def _parts(profile: Profile, entry: Entry) -> dict[str, Any]:
    surroundings = dataclasses.asdict(profile.surroundings)
    how = {} if entry.position in (MAP, NEIGHBOURS) else {"run": folder(profile, entry).name}
    return {
        "points": place_tables.points_key(profile), "probe": [surroundings[name] for name in ("widths", "penalties")],
        "draws": profile.surroundings.validation_draws, "places": store.table_fingerprint(places(profile)),
        "teacher": teacher_run(profile), "dim": profile.distilled.dim, "neighbours": profile.distilled.neighbours,
        "version": VERSION, **how,
    }  # fmt: skip


GRID = Grid[Entry](
    _parts, compute, data=lambda profile, entry: place_tables.points_key(profile),
    named=lambda entry: {"setting": entry.setting},
)  # fmt: skip


def chapter(profile: Profile, *, progress: bool = True) -> pd.DataFrame:
    """All rows, computing what is missing (encoders too)."""
    return GRID.table(profile, EXPERIMENT, entries(profile), progress=progress)


def finished(profile: Profile) -> dict[str, pd.DataFrame]:
    """The rows that are there already, under the name of their file; computes nothing."""
    if not any((paths.runs() / "entries").glob(f"{profile.name}-{EXPERIMENT}-*.csv")):
        return {}  # and samples no place to find out
    rows = GRID.finished(profile, entries(profile))
    return {f"{EXPERIMENT}.csv": rows} if len(rows) else {}


# -- for use -----------------------------------------------------------------------------------------------------------


def chosen(rows: pd.DataFrame, positions: Sequence[str] = ()) -> pd.DataFrame:
    """Of each position encoding (of some) the rows of the jitter with the least error in the validation regions, a mean
    over buffers; best first by the error under the widest buffer."""
    rows = rows[rows["position"].isin(list(positions) or list(rows["position"]))]
    tried = rows.groupby(["position", "jitter_m"])["validation"].mean()
    best = dict(tried.groupby("position").idxmin().tolist())
    own = rows[rows["jitter_m"] == rows["position"].map(best)]
    far = own[own["buffer_km"] == own["buffer_km"].max()].groupby("position")["value"].mean()
    return own.iloc[np.argsort(own["position"].map(far).to_numpy(), kind="stable")]


def exported(profile: Profile) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The feature tables that the validation regions choose, as `selm.LocationEncoder` takes them: about and tensors.

    Raises InputError where the chapter has not been computed.
    """
    rows = finished(profile).get(f"{EXPERIMENT}.csv", pd.DataFrame(columns=["position"]))
    rows = rows[rows["position"].isin([GRID_TABLES, MAP])]
    if set(rows["position"]) != {GRID_TABLES, MAP}:
        raise InputError(f"profile '{profile.name}': no feature tables here: `chapter {EXPERIMENT}` computes them")
    own = chosen(rows, [GRID_TABLES])
    entry = next(
        one for one in entries(profile) if one.position == GRID_TABLES and one.setting == own["setting"].iloc[0]
    )
    network = LocationEncoder.from_pretrained(folder(profile, entry))
    tables = next(module for module in network.modules() if isinstance(module, FeatureGrid))
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    table = places(profile)
    tiles = np.unique(np.stack(to_tile(table["lat"], table["lon"], KNOWN_ZOOM), axis=1).astype(np.int32), axis=0)
    tensors = {"known": torch.from_numpy(tiles)}
    tensors |= {f"tables.{level}": values.detach() for level, values in enumerate(tables.tables)}
    for number, layer in enumerate(linear):
        tensors |= {f"weights.{number}": layer.weight.detach(), f"biases.{number}": layer.bias.detach()}

    def errors(position: str) -> dict[str, float]:
        of = rows if position == MAP else own
        means = of[of["position"] == position].groupby("buffer_km")["value"].mean()
        return {f"{km:g}": round(float(value), 6) for km, value in means.items()}

    run = read_json(folder(profile, entry) / "run.json")
    about = {
        **dataclasses.asdict(network.config.frame), "cells": list(tables.cells), "zoom": KNOWN_ZOOM,
        "places": len(table), "regions": [region.name.capitalize() for region in profile.regions],
        "setting": entry.setting, "errors": errors(GRID_TABLES), "map_errors": errors(MAP), "profile": profile.name,
        "teacher": teacher_run(profile), **{name: run[name] for name in ("commit", "date", "device", "torch")},
    }  # fmt: skip
    return about, tensors

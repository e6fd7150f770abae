"""Location encoders against the map's embedding: the probes of Tables 1 and 2, and coordinates embedded a second.

Every encoder is trained twice: on maps of the pretraining regions alone, and also on maps (without labels) of the
places that the probes test, as a user would who has maps of the whole country. The first knows nothing of Hokkaido and
can only extrapolate; the second has seen its maps, never a label.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from reproduction import paths
from reproduction.beyond.location_encoders.encoder import LocationConfig, LocationEncoder
from reproduction.beyond.location_encoders.frame import Frame
from reproduction.beyond.location_encoders.method import LocationMethod, PairedPlaces
from reproduction.beyond.location_encoders.negatives import ChosenNegatives
from reproduction.beyond.semivariogram.variogram import Fit, pair_weights
from reproduction.computed import drawn_maps, encoders, frozen_features, place_tables, store
from reproduction.experiments import table1_table2
from reproduction.experiments.entries import rows_and_scores
from reproduction.experiments.score_claims import compare_claims
from reproduction.experiments.table1_table2 import Entry
from reproduction.places import splits
from reproduction.places.sampling import sample_places
from reproduction.results import Kept, computed_once, origin, read_csv
from reproduction.settings import Profile
from selm import checkpoints, distributed
from selm.errors import InputError
from selm.files import read_json
from selm.maps.sphere import nearest_places
from selm.pretrain import Trainer, pretrain
from selm.probes import peers
from selm.probes.frozen import frozen, logistic, ridge
from selm.settings import Pretraining

VERSION = 2  # raise it when the numbers change
UNTRAINED = "none"
COVERAGES = {
    UNTRAINED: "random weights",
    "pretraining": "maps of the pretraining regions",
    "everywhere": "maps of all regions, without labels",
}
NEIGHBOURS = "neighbours"
POSITIONS = {
    "raw": "raw coordinates",
    "sinusoidal": "multi-scale sinusoids",
    "fourier": "random Fourier hierarchy (GeoCLIP)",
    "harmonics": "spherical harmonics, SIREN (SatCLIP)",
    "grid": "feature tables at many resolutions (instant NGP)",
    NEIGHBOURS: "no network: mean of the nearest maps' embeddings",
}
TARGETS = {"table1": "l01", "table2": "area_type"}
BESIDE = ("prior", "knn_coordinates", "trees_coordinates", "random_init")  # rows of the tables shown beside


@dataclass(frozen=True)
class Run:
    """One training of a location encoder. `variogram` weighs the negatives of its contrast, `strength` how much;
    `negatives` chooses them (`location_encoders.negatives`).

    With the coverage `UNTRAINED` it keeps its random weights: what the position encoding gives a probe by itself. The
    position `NEIGHBOURS` is no network but the control of one: the mean, weighted by inverse distance, of the teacher's
    embeddings of the nearest places that the coverage has maps of.
    """

    position: str
    network: str
    objective: str
    coverage: str
    seed: int = 0
    variogram: Fit | None = None
    strength: float = 0.0
    negatives: str = ""

    @property
    def label(self) -> str:
        weighted = "" if self.variogram is None else "weighted"
        words = (self.position, self.network, self.objective, self.coverage, weighted, self.negatives, f"s{self.seed}")
        return "-".join(word for word in words if word)


def runs(profile: Profile) -> list[Run]:
    """Every encoder of the profile: with random weights, the neighbours' mean, then by objective and coverage."""
    s = profile.location_encoders
    untrained = [Run(position, network, "", UNTRAINED) for position, network in s.encoders]
    means = [Run(NEIGHBOURS, "", "", coverage) for coverage in COVERAGES if coverage != UNTRAINED]
    return [*untrained, *means] + [
        Run(position, network, objective, coverage)
        for coverage in COVERAGES
        if coverage != UNTRAINED
        for objective in s.objectives
        for position, network in s.encoders
    ]


# -- places and their images' embeddings -------------------------------------------------------------------------------


def _sampled(profile: Profile, kind: str, n: int, seed: int) -> pd.DataFrame:
    """`n` places of the test region (``test``) or of the cells set aside before pretraining (``set-aside``)."""
    folds, maps = splits.read_folds(profile), profile.maps
    role = "test" if kind == "test" else "pretrain"
    chosen = profile.regions_for(role)
    atlases = drawn_maps.atlases(profile, role)
    parts = []
    for region in chosen:
        listed = folds.loc[folds["region"] == region.name]

        cells = listed["cell"].to_numpy(str)

        def allowed(
            lat: NDArray[np.float64], lon: NDArray[np.float64], cells: NDArray[np.str_] = cells
        ) -> NDArray[np.bool_]:
            inside = np.ones(len(lat), bool)
            if kind == "set-aside":
                inside = splits.split_of(lat, lon, role, profile, folds) == "set-aside"
            if profile.stand_ins:  # blocks reach beyond an extract
                inside &= np.isin(splits.cell_of(lat, lon, maps.cell_degrees), cells)
            return inside

        if kind == "set-aside" and not listed["set_aside"].any():
            continue
        share = -(-n * len(atlases[region.name].keys) // sum(len(atlases[r.name].keys) for r in chosen))
        part = sample_places(
            atlases[region.name], share, seed, region=region.name, zoom=maps.zooms[0],
            entropy_threshold=maps.entropy_threshold, allowed=allowed,
        )  # fmt: skip
        parts.append(part)
    return pd.concat(parts, ignore_index=True)[["lat", "lon", "region"]]


def places(profile: Profile, kind: str) -> pd.DataFrame:
    """Places whose maps location encoders are trained on, `lat lon region`, computed once.

    ``pretraining``: some of those that the teacher was pretrained on; ``test``: of the test region; ``set-aside``: of
    the cells of Table 2; ``queries`` and ``set-aside-queries``: of the same places, and of no training.
    """
    s = profile.location_encoders
    n = s.n_queries if kind.endswith("queries") else s.n_places
    if kind == "pretraining":
        table = place_tables.pretraining_places(profile)
        rows = np.sort(np.random.default_rng(5).permutation(len(table))[:n])
        return table.iloc[rows][["lat", "lon", "region"]].reset_index(drop=True)
    seed = {"test": 11, "set-aside": 12, "queries": 13, "set-aside-queries": 14}[kind]
    where = "set-aside" if kind.startswith("set-aside") else "test"
    parts = {
        "kind": kind, "n": n, "maps": drawn_maps.map_fingerprint(profile), "settings": dataclasses.asdict(profile.maps),
        "folds": splits.label_fingerprint(profile), "seed": seed, "version": VERSION,
    }  # fmt: skip
    return store.cached_table(
        "location-places", f"{profile.name}-{kind}", parts,
        lambda: _sampled(profile, where, n, seed),
    )  # fmt: skip


def covered(coverage: str) -> tuple[str, ...]:
    """The kinds of places that a coverage has maps of; those that a frame is around, where nothing is trained."""
    return ("pretraining",) if coverage == "pretraining" else ("pretraining", "test", "set-aside")


def image_features(profile: Profile, kind: str) -> NDArray[np.float32]:
    """(N, d): the teacher's embedding of the map image of each of `places`."""
    s = profile.location_encoders
    return frozen_features.features(profile, s.teacher, 0, places(profile, kind), f"location-{kind}")


@store.remembered(maxsize=4)
def paired(profile: Profile, coverage: str) -> PairedPlaces:
    """The training set of a coverage (of no coverage: that of all); the last ones are kept in memory."""
    tables = [places(profile, kind) for kind in covered(coverage)]
    lat, lon = (np.concatenate([table[name].to_numpy() for table in tables]) for name in ("lat", "lon"))
    return PairedPlaces.of(lat, lon, np.concatenate([image_features(profile, kind) for kind in covered(coverage)]))


@store.remembered(maxsize=4)
def frame(profile: Profile) -> Frame:
    """The square around every place of the profile, the same for all its encoders: known from the map, not a label."""
    tables = [places(profile, kind) for kind in covered("everywhere")]
    return Frame.around(
        np.concatenate([table["lat"] for table in tables]), np.concatenate([table["lon"] for table in tables])
    )


# -- training ----------------------------------------------------------------------------------------------------------


def new_location_encoder(profile: Profile, run: Run, dim: int) -> LocationEncoder:
    """The encoder of a run before training."""
    s = profile.location_encoders
    config = LocationConfig(
        run.position, run.network, frame(profile), dim, hidden=s.hidden, layers=s.layers, degrees=s.degrees,
        shortest_m=8 * image_width_m(profile) if run.position == "sinusoidal" else 500.0, seed=run.seed,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        return LocationEncoder(config)


def image_width_m(profile: Profile) -> float:
    """Ground width of one map image, metres: the shortest wavelength is eight of them."""
    from selm.maps.mercator import metres_per_pixel

    square = frame(profile)
    px = profile.views.global_px
    return float(metres_per_pixel(square.lat, profile.maps.zooms[0], profile.maps.tile_px)) * px


@store.remembered(maxsize=4)
def _teacher(profile: Profile) -> str:
    return encoders.pretraining_folder(profile, profile.location_encoders.teacher).name


@store.remembered(maxsize=8)
def _task(profile: Profile, table: str, split: str) -> table1_table2.Task:
    return table1_table2.task(profile, table, TARGETS[table], split).first(
        dict(profile.location_encoders.n_trials)[table]
    )


@store.remembered(maxsize=4)
def _points_key(profile: Profile) -> str:
    return place_tables.points_key(profile)


def _config(profile: Profile, run: Run, pairs: PairedPlaces) -> dict[str, Any]:
    s = profile.location_encoders
    names: tuple[str, ...] = (
        "images", "batch", "lr", "lr_warmup", "weight_decay", "dim", "hidden", "layers", "degrees", "teacher",
    )  # fmt: skip
    values = dataclasses.asdict(s)
    state = pd.DataFrame(pairs.coordinates.numpy())
    if run.position == NEIGHBOURS:
        names = ("neighbours",)
    described = {name: value for name, value in dataclasses.asdict(run).items() if name != "negatives" or value}
    return {
        "run": described, "settings": {name: values[name] for name in names},
        "teacher": _teacher(profile), "places": store.table_fingerprint(state),
        "frame": dataclasses.asdict(frame(profile)), "profile": profile.name, "version": VERSION,
        "device": distributed.device().type,
    }  # fmt: skip


def trained(profile: Profile, run: Run, *, progress: bool = True) -> Path:
    """The run directory of a trained location encoder; trains, by the one training loop, what is not finished."""
    if run.position == NEIGHBOURS or run.coverage == UNTRAINED:
        raise InputError(f"'{run.label}' is not trained")
    s = profile.location_encoders
    pairs = paired(profile, run.coverage)
    config = _config(profile, run, pairs)
    folder = store.address("location-encoders", f"{profile.name}-{run.label}", config)
    if (folder / "run.json").exists() and read_json(folder / "run.json").get("complete"):
        return folder
    dim = pairs.features.shape[1] if run.objective == "distillation" else s.dim
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        method = _method(profile, run, new_location_encoder(profile, run, dim), pairs)
    length = Pretraining(images=s.images, batch=s.batch, checkpoint_every=1_000, log_every=25)
    trainer = Trainer(method, pairs, length, run.seed, distributed.device())
    return pretrain(trainer, folder, config, progress=progress, title=run.label)


def _method(profile: Profile, run: Run, encoder: LocationEncoder, pairs: PairedPlaces) -> LocationMethod:
    s, fitted = profile.location_encoders, run.variogram
    weigh = None if fitted is None else lambda at, images: pair_weights(fitted, at, images, run.strength)
    make = partial(ChosenNegatives, run.negatives) if run.negatives else LocationMethod
    return make(encoder, pairs, run.objective, lr=s.lr, lr_warmup=s.lr_warmup, weight_decay=s.weight_decay, weigh=weigh)


def encoder(profile: Profile, run: Run, *, progress: bool = True) -> LocationEncoder:
    """The trained encoder of a run; without training, it is as wide as a contrast's."""
    if run.coverage == UNTRAINED:
        return new_location_encoder(profile, run, profile.location_encoders.dim).eval()
    return LocationEncoder.from_pretrained(trained(profile, run, progress=progress))


def method(profile: Profile, run: Run, *, progress: bool = True) -> LocationMethod:
    """The trained method of a run, with the image's projection, for retrieval."""
    folder = trained(profile, run, progress=progress)
    made = _method(profile, run, LocationEncoder.from_pretrained(folder), paired(profile, run.coverage))
    tensors, _ = checkpoints.load_tensors(folder / "method.safetensors")
    checkpoints.load_into(made, tensors, folder / "method.safetensors")
    return made.eval()


def embeddings(profile: Profile, run: Run, table: pd.DataFrame, *, progress: bool = True) -> NDArray[np.float32]:
    """(N, dim) embeddings of the coordinates of a table."""
    if run.position == NEIGHBOURS:
        pairs = paired(profile, run.coverage)
        known = pairs.coordinates.numpy()
        k = min(profile.location_encoders.neighbours, len(known))
        distance, near = nearest_places(table["lat"], table["lon"], known[:, 0], known[:, 1], k=k)
        weight = 1 / np.maximum(distance, 1.0)  # metres
        weight /= weight.sum(axis=1, keepdims=True)
        return np.einsum("nk,nkd->nd", weight, pairs.features.numpy()[near]).astype(np.float32)
    coordinates = torch.tensor(table[["lat", "lon"]].to_numpy(np.float64))
    return encoder(profile, run, progress=progress).embed(coordinates).numpy()


# -- the probes of Tables 1 and 2 --------------------------------------------------------------------------------------


def entries(profile: Profile) -> list[tuple[str, str, str, Run]]:
    """(table, split, setting, run) of all that is probed, in reading order; nothing for a table with no trials."""
    s = profile.location_encoders
    return [
        (table, split, setting, run)
        for table, trials in s.n_trials
        if trials
        for split in table1_table2.SPLITS
        for setting in s.settings
        for run in runs(profile)
    ]


def kept(profile: Profile, table: str, split: str, setting: str, run: Run) -> Kept:
    """Where a probe is kept, whether or not it has been computed."""
    s = profile.location_encoders
    parts = {
        "run": trained_name(profile, run), "table": table, "split": split, "setting": setting,
        "trials": dict(s.n_trials)[table], "points": _points_key(profile),
        "probing": dataclasses.asdict(profile.probing), "version": [VERSION, table1_table2.VERSION],
    }  # fmt: skip
    label = f"{profile.name}-location-{table}-{split}-{run.label}-{setting}"
    return Kept(store.address("entries", label, parts))


def trained_name(profile: Profile, run: Run) -> str:
    """The name of a run's directory, whether or not it has been trained."""
    return trained_folder(profile, run).name


def trained_folder(profile: Profile, run: Run) -> Path:
    """A run's directory, whether or not it has been trained."""
    config = _config(profile, run, paired(profile, run.coverage))
    return store.address("location-encoders", f"{profile.name}-{run.label}", config)


def run_entry(
    profile: Profile, table: str, split: str, setting: str, run: Run, *, progress: bool = True
) -> pd.DataFrame:
    """The rows of one probe, computed where they are not there yet."""

    def make() -> tuple[pd.DataFrame, dict[str, torch.Tensor]]:
        probing = profile.probing
        todo = _task(profile, table, split)
        x = embeddings(profile, run, todo.places, progress=progress)
        if setting == "frozen":
            out = frozen(x, todo.targets, todo.folds, task=todo.kind, epochs=probing.epochs, batch=probing.batch,
                         lr=probing.frozen_lr, weight_decay=probing.frozen_weight_decay, progress=progress)  # fmt: skip
        elif setting == "frozen-closed":
            out = (ridge if todo.kind == "regression" else logistic)(x, todo.targets, todo.folds)
        else:
            raise InputError(f"unknown setting '{setting}'")
        rows, scores = rows_and_scores(
            out, table=table, target=TARGETS[table], split=split, position=run.position, network=run.network,
            objective=run.objective, coverage=run.coverage, setting=setting, dim=x.shape[1], seed=run.seed,
            **origin(profile, _points_key(profile), run_id=store.id_of(trained_folder(profile, run))),
        )  # fmt: skip
        return pd.DataFrame(rows), scores

    return kept(profile, table, split, setting, run).once(make)


def probes(profile: Profile, *, progress: bool = True) -> pd.DataFrame:
    """All rows of the probes, computing what is missing: one row a trial, metric and evaluation."""
    parts = []
    todo = entries(profile)
    with tqdm(todo, desc=f"location encoders ({profile.name})", unit="entry", disable=not progress) as bar:
        for table, split, setting, run in bar:
            bar.set_postfix_str(f"{table} {split} {run.label}")
            parts.append(run_entry(profile, table, split, setting, run, progress=progress))
    return pd.concat(parts, ignore_index=True)


def beside(profile: Profile, *, compute: bool = True) -> pd.DataFrame:
    """The rows of Tables 1 and 2 shown beside: the teacher's map embedding, and coordinates without any embedding.

    Those of the tables' own entries; with `compute` off only those that are there.
    """
    parts = []
    for table, trials in profile.location_encoders.n_trials:
        for split in table1_table2.SPLITS if trials else ():
            for name in (*BESIDE, profile.location_encoders.teacher):
                setting = "practitioner" if name in table1_table2.PRACTITIONER else "frozen-closed"
                entry = Entry(table, TARGETS[table], split, name, setting)
                if compute or table1_table2.GRID.kept(profile, entry).is_there():
                    parts.append(table1_table2.GRID.rows(profile, entry, progress=False))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _compared(run: Run) -> bool:
    """Whether `claims` looks at a run."""
    everywhere = run.coverage == "everywhere" and (run.position == NEIGHBOURS or run.objective == "distillation")
    return run.coverage == UNTRAINED or everywhere


def claims(profile: Profile, tables: Iterable[str] = ("table1", "table2")) -> pd.DataFrame:
    """Is a distilled encoder that saw maps of the test region worse than the map's embedding, better than its own
    random weights, than the mean of neighbouring maps' embeddings and than trees on coordinates? A verdict each, from
    the closed-form probe under spatial blocks.

    Paired bootstrap over blocks with Holm's correction over the claims of a table (`selm.probes.claims`), conditional
    on one training each. ``a`` and ``b`` name encoders as ``POSITION`` and ``POSITION (random weights)``, and rows of
    the tables.
    """
    s, parts = profile.location_encoders, []
    for table, trials in s.n_trials:
        if table not in tables or not trials or "frozen-closed" not in s.settings or "distillation" not in s.objectives:
            continue
        metric = "mse" if table == "table1" else "top1"
        scores: dict[str, NDArray[np.float64]] = {}
        pairs = []
        for run in filter(_compared, runs(profile)):
            name = run.position
            if run.coverage == UNTRAINED:
                name = f"{name} (random weights)"
            elif name != NEIGHBOURS:
                others = (f"{name} (random weights)", NEIGHBOURS, "trees_coordinates")
                pairs += [(s.teacher, name), *((name, other) for other in others)]
            run_entry(profile, table, "blocks", "frozen-closed", run, progress=False)
            scores[name] = kept(profile, table, "blocks", "frozen-closed", run).point_scores(metric)
        for name, setting in ((s.teacher, "frozen-closed"), ("trees_coordinates", "practitioner")):
            entry = Entry(table, TARGETS[table], "blocks", name, setting)
            scores[name], names = table1_table2.point_scores(profile, entry, metric, 0)
        tested = np.isfinite(np.stack(list(scores.values()))).all(axis=0)  # fewer draws may leave points untested
        everywhere = {name: np.where(tested, values, np.nan) for name, values in scores.items()}
        found = compare_claims(everywhere, pairs, names, higher_is_better=metric != "mse")
        parts.append(found.assign(table=table, metric=metric, split="blocks"))
    return pd.concat(parts, ignore_index=True).assign(**origin(profile, _points_key(profile)))


# -- speed -------------------------------------------------------------------------------------------------------------


def _speed_file(profile: Profile) -> Path:
    s = profile.location_encoders
    parts: dict[str, Any] = {
        "runs": [trained_name(profile, run) for run in _timed(profile)], "n": [s.n_timed, s.n_timed_images],
        "version": VERSION,
    }  # fmt: skip
    if peers.geoclip_version():  # measured beside the others where it is installed
        parts["package"] = peers.geoclip_version()
    return store.address("location-speed", profile.name, parts, ".csv")


def _timed(profile: Profile) -> list[Run]:
    return [run for run in runs(profile) if run.coverage == "everywhere" and run.objective == "distillation"]


def speed(profile: Profile) -> pd.DataFrame:
    """Coordinates embedded a second by each encoder, by GeoCLIP's own where its package is installed, and by map image
    and teacher from maps that are drawn already.

    Columns: way, coordinates_per_s (the best of three), n and provenance. On a CPU these are seconds of processor time,
    all threads together, which other work on the machine hardly changes. Measured once.
    """

    def make() -> pd.DataFrame:
        s = profile.location_encoders
        table = places(profile, "pretraining")
        more = table.sample(s.n_timed, replace=True, random_state=0)[["lat", "lon"]].to_numpy(np.float64)
        coordinates = torch.tensor(more)
        rows: list[dict[str, Any]] = []
        for run in _timed(profile):
            network = encoder(profile, run, progress=False).to(distributed.device())
            network.embed(coordinates[:64])
            seconds = min(seconds_of(partial(network.embed, coordinates)) for _ in range(3))
            rows.append({"way": run.position, "coordinates_per_s": len(coordinates) / seconds, "n": len(coordinates)})
        if peers.geoclip_version():
            peers.geoclip_features(*more[:64].T)
            seconds = min(seconds_of(partial(peers.geoclip_features, *more.T)) for _ in range(3))
            rows.append({"way": peers.GEOCLIP, "coordinates_per_s": len(more) / seconds, "n": len(more)})
        some = table.iloc[: s.n_timed_images]
        teacher, colours = encoders.encoder(profile, s.teacher, 0, progress=False), drawn_maps.palette(profile)
        seconds = min(
            seconds_of(lambda: frozen_features.encode(teacher, drawn_maps.point_images(profile, some), colours))
            for _ in range(3)
        )
        rows.append({"way": "map", "coordinates_per_s": len(some) / seconds, "n": len(some)})
        run_id = store.id_of(_speed_file(profile).with_suffix(""))
        return pd.DataFrame(rows).assign(**origin(profile, _points_key(profile), run_id=run_id))

    return computed_once(_speed_file(profile), make)


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds that work takes: of processor time, on a GPU of the clock."""
    on_gpu = distributed.device().type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    started = clock()
    work()
    if on_gpu:
        torch.cuda.synchronize()
    return clock() - started


def chapter(profile: Profile) -> pd.DataFrame:
    """The probes' rows, once the speed is measured too."""
    speed(profile)
    return probes(profile)


def finished(profile: Profile) -> dict[str, pd.DataFrame]:
    """What is there to publish; computes no result."""
    out: dict[str, pd.DataFrame] = {}
    if not is_started(profile):
        return out
    there = {entry: kept(profile, *entry) for entry in entries(profile)}
    rows = [of.rows() for of in there.values() if of.is_there()]
    if rows:
        out["location-encoders.csv"] = pd.concat(rows, ignore_index=True)
    # a table's verdicts, once the entries that they compare are there
    todo = {
        table for (table, split, setting, run), of in there.items()
        if split == "blocks" and setting == "frozen-closed" and _compared(run) and not of.is_there()
    }  # fmt: skip
    done = [table for table, trials in profile.location_encoders.n_trials if trials and table not in todo]
    if done and "frozen-closed" in profile.location_encoders.settings:
        out["location-claims.csv"] = claims(profile, done)
    if _speed_file(profile).exists():
        out["location-speed.csv"] = read_csv(_speed_file(profile))
    return out


def is_started(profile: Profile) -> bool:
    """Whether any encoder of the profile has been trained: without that nothing is sampled to look for results."""
    folder = paths.runs() / "location-encoders"
    return folder.is_dir() and any(folder.glob(f"{profile.name}-*/location.json"))

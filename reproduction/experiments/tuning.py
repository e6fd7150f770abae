"""How each pretrained row is trained: as many short runs (four) for each, judged in the validation regions alone.

Two numbers are fixed beforehand. *Price*: mean squared error of ridge on the frozen features at the official points of
the validation regions, under spatial blocks. *Recall*: the share of places there that are found again in the top 1 %,
from a picture that is rotated and zoomed; no label is behind it. The try with the lowest sum of ranks is chosen, of
equals the one with the lower error; a run that the collapse watch marks is not chosen. The rows of GPS-SELM (with fewer
losses, without prices, of several zooms) are trained as full GPS-SELM is: an ablation changes one thing.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from reproduction.computed import drawn_maps, encoders, frozen_features, place_tables, store
from reproduction.experiments import retrieval
from reproduction.places import splits
from reproduction.places.sampling import sample_places
from reproduction.recipes import TRIES, tries
from reproduction.results import computed_once, origin, read_csv
from reproduction.settings import Change, Profile, Query
from selm.encoder import MapEncoder
from selm.errors import InputError
from selm.maps.sphere import pairs_within
from selm.probes.folds import BufferedFolds
from selm.probes.frozen import ridge
from selm.views import DeviceAtlas

VERSION = 1  # raise it when the numbers change
IMAGES = 51_200  # seen by a try: a quarter of a row's
GALLERY = 1_000  # places in each validation region that are to be told apart
QUERY = Query("turned", rotation_degrees=180.0, zoom=1.25)


def tried(profile: Profile, method: str, change: Change) -> Profile:
    """The profile of a try: short, with this change and no other."""
    pretraining = dataclasses.replace(profile.pretraining, images=IMAGES, checkpoint_every=200)
    return dataclasses.replace(profile, pretraining=pretraining).with_recipe(method, change)


def file_of(profile: Profile, method: str, change: Change, seed: int = 0) -> Path:
    """Where a try's row is kept, whether or not it has been made."""
    parts = {
        "run": encoders.pretraining_config(tried(profile, method, change), method, seed),
        "points": place_tables.points_key(profile), "gallery": GALLERY, "query": dataclasses.asdict(QUERY),
        "trials": profile.probing.n_frozen, "version": VERSION,
    }  # fmt: skip
    return store.address("tuning", f"{profile.name}-{method}-s{seed}", parts, ".csv")


def run(profile: Profile, method: str, change: Change, seed: int = 0, *, progress: bool = True) -> pd.DataFrame:
    """One try, trained and judged where it is not there yet: one row.

    Columns: method, change, seed, price, recall, processor_seconds, images, teacher_entropy (NaN where there is none),
    feature_spread, collapse, and provenance. Raises InputError for a profile without validation regions.
    """

    def make() -> pd.DataFrame:
        changed = tried(profile, method, change)
        started = time.process_time()
        folder = encoders.pretrained(changed, method, seed, progress=progress)
        seconds = time.process_time() - started
        network = MapEncoder.from_pretrained(str(folder))
        last = pd.read_csv(folder / "metrics.csv").iloc[-1]
        row = {
            "method": method, "change": change.name, "seed": seed, "price": price_error(profile, network),
            "recall": float(np.mean(list(recalls(profile, network).values()))),
            "processor_seconds": round(seconds, 1), "images": changed.pretraining.images,
            "teacher_entropy": last.get("teacher_entropy", np.nan), "feature_spread": last["feature_spread"],
            "collapse": last["collapse"] if isinstance(last["collapse"], str) else "",
            **origin(profile, place_tables.points_key(profile), run_id=store.id_of(folder)),
        }  # fmt: skip
        return pd.DataFrame([row])

    return computed_once(file_of(profile, method, change, seed), make)


def validation_task(profile: Profile) -> tuple[pd.DataFrame, BufferedFolds]:
    """The validation regions' official points, and their folds of spatial blocks; raises InputError for a profile
    without such regions."""
    points = place_tables.points(profile)
    places = points[points["target_set"] == "validation"].reset_index(drop=True)
    if not len(places):
        raise InputError(f"profile '{profile.name}' has no validation region to judge a try on")
    table = splits.read_folds(profile)
    draws = range(profile.probing.n_frozen)
    fold = np.stack([splits.fold_of(places["cell"].to_numpy(), table, draw) for draw in draws])
    near = pairs_within(places["lat"], places["lon"], profile.maps.buffer_m)
    return places, BufferedFolds(fold, near)


def validation_features(profile: Profile, network: MapEncoder, places: pd.DataFrame) -> NDArray[np.float32]:
    """(N, D) embeddings of places of the validation regions."""
    return frozen_features.encode(
        network, drawn_maps.point_images(profile, places), drawn_maps.palette(profile)
    ).numpy()


def price_error(profile: Profile, network: MapEncoder) -> float:
    """Mean squared error (over trials) of ridge at the validation regions' official points, under spatial blocks."""
    places, folds = validation_task(profile)
    x = validation_features(profile, network, places)
    return float(ridge(x, places["price"].to_numpy(float), folds).values("mse")[0].mean())


def recalls(profile: Profile, network: MapEncoder) -> dict[str, float]:
    """Validation region → share of `GALLERY` places found within the top 1 %, by cosine, from `QUERY`'s pictures."""
    zoom, px = profile.maps.zooms[0], profile.views.global_px
    out = {}
    for name, atlas in drawn_maps.atlases(profile, "validation").items():
        table = sample_places(
            atlas, GALLERY, 0, region=name, zoom=zoom, entropy_threshold=profile.maps.entropy_threshold
        )
        lat, lon = table["lat"].to_numpy(), table["lon"].to_numpy()
        loaded = DeviceAtlas([atlas], (zoom,), "cpu")
        own = retrieval.gallery_images(loaded, lat, lon, zoom, px)
        generator = torch.Generator().manual_seed(0)
        asked = retrieval.query_images(loaded, lat, lon, zoom, px, QUERY, generator)
        rank = retrieval.ranks(_unit_features(network, own), _unit_features(network, asked))
        out[name] = float(retrieval.recall(rank, [1.0], len(rank))[0])
    return out


@torch.no_grad()
def _unit_features(network: MapEncoder, images: torch.Tensor) -> NDArray[np.float32]:
    network = network.cpu().eval()
    found = np.concatenate([network(network.standardise(part)).float().numpy() for part in images.split(256)])
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def ranked(rows: pd.DataFrame, shares: Sequence[str] = ("recall",)) -> pd.DataFrame:
    """The tries with the ranks of their price and of each of the `shares` of places found (`rank_price`, `rank_recall`;
    1: best of its method), their `rank_sum`, and `chosen`.

    Several seeds of a try count by their mean.
    """
    by_try = rows.assign(collapse=rows["collapse"].fillna("")).groupby(["method", "change"], sort=False)
    table = by_try.agg(
        price=("price", "mean"), seeds=("seed", "nunique"), **{name: (name, "mean") for name in shares},
        processor_seconds=("processor_seconds", "mean"), teacher_entropy=("teacher_entropy", "mean"),
        collapse=("collapse", "max"),
    ).reset_index()  # fmt: skip
    by_method = table.groupby("method", sort=False)
    table["rank_price"] = by_method["price"].rank()
    for name in shares:
        table[f"rank_{name}"] = by_method[name].rank(ascending=False)
    table["rank_sum"] = table[["rank_price", *(f"rank_{name}" for name in shares)]].sum(axis=1)
    healthy = table[table["collapse"] == ""].sort_values(["rank_sum", "price"], kind="stable")
    table["chosen"] = table.index.isin(healthy.drop_duplicates("method").index)
    return table


def chapter(profile: Profile, which: Iterable[str] | None = None, *, progress: bool = True) -> pd.DataFrame:
    """`ranked` tries of all rows (or some), computing what is missing."""
    chosen = TRIES if which is None else list(which)
    rows = [run(profile, name, change, progress=progress) for name in chosen for change in tries(name)]
    return ranked(pd.concat(rows, ignore_index=True))


def finished(profile: Profile) -> dict[str, pd.DataFrame]:
    """What is there to publish, by file name; computes nothing."""
    if not profile.regions_for("validation"):
        return {}
    files = [file_of(profile, name, change) for name, changes in TRIES.items() for change in changes]
    there = [read_csv(file) for file in files if file.exists()]
    return {"tuning.csv": pd.concat(there, ignore_index=True)} if there else {}

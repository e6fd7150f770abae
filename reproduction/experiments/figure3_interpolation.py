"""Figure 3: from a field to a city through the embedding space, with the nearest held-out places at each step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from reproduction.computed import drawn_maps, store
from reproduction.experiments import figure2_tsne, held_out_sample, representations
from reproduction.experiments.ways import along, interpolate
from reproduction.results import origin, read_csv, write_csv
from reproduction.settings import Profile
from selm.embedding.search import Nearest
from selm.errors import InputError
from selm.maps.sphere import pairs_within

VERSION = 1  # raise it when the numbers change
DRAWN = ("gps_selm", "dino")  # whose pairs are shown as images


def classes_share(table: pd.DataFrame, classes: Iterable[str]) -> NDArray[np.float64]:
    """(N,) share of some land cover classes in each held-out place's image."""
    return table[[f"share_{name}" for name in classes]].to_numpy(np.float64).sum(axis=1)


def endpoints(profile: Profile) -> NDArray[np.int64]:
    """(pairs, 2) rows of `held_out_sample.places`: a field and a city each, by a rule and a seed, not by hand.

    The `extreme` places with the largest share of `field_classes` in their image are the fields, those with the largest
    share of `city_classes` the cities (ties: the first in the table); each pair is drawn from the two at random.
    Raises InputError where fewer places show any of the classes at all.
    """
    figures, table = profile.figures, held_out_sample.places(profile)
    found = []
    for what, classes in (("field", figures.field_classes), ("city", figures.city_classes)):
        share = classes_share(table, classes)
        best = np.argsort(-share, kind="stable")[: figures.extreme]
        if not (share[best] > 0).all():
            raise InputError(
                f"profile '{profile.name}': only {int((share > 0).sum())} held-out places show a {what} "
                f"({', '.join(classes)}), {figures.extreme} are asked for"
            )
        found.append(best)
    fields = np.setdiff1d(found[0], found[1], assume_unique=True)  # keeps the order
    rng = np.random.default_rng(figures.seed)
    return np.stack([rng.choice(fields, figures.pairs), rng.choice(found[1], figures.pairs)], axis=1)


@dataclass(frozen=True)
class Way:
    """One pair's way: `rows` and `similarity` (steps, shown) of the nearest places at each step, endpoints left out."""

    rows: NDArray[np.int64]
    similarity: NDArray[np.float32]


def way(x: NDArray[np.float32], table: pd.DataFrame, pair: NDArray[np.int64], steps: int, shown: int, kind: str) -> Way:
    """The nearest places by cosine along the way between two rows of x (N, d); the two themselves are not found."""
    gallery = np.array(x, np.float32)
    gallery[pair] = np.nan
    search = Nearest(gallery, table["lat"], table["lon"])
    return Way(*search.query(interpolate(x[pair[0]], x[pair[1]], steps, kind), shown))


def files(profile: Profile, method: str, seed: int, kind: str) -> tuple[Path, Path]:
    """(CSV of numbers, CSV of the drawn pairs' neighbours) of one representation, whether or not they are there."""
    parts = (
        held_out_sample.address_parts(profile)
        | representations.source(profile, method, seed)
        | held_out_sample.settings(
            profile, "steps", "shown", "field_classes", "city_classes", "extreme", "pairs", "pairs_drawn", "seed"
        )
        | {"kind": kind, "near": profile.maps.buffer_m, "version": VERSION}
    )
    label = f"{profile.name}-{method}-s{seed}-{kind}"
    return store.address("figure3", label, parts, ".csv"), store.address("figure3", label, parts, "-ways.csv")


def compute(profile: Profile, method: str, seed: int, kind: str = "linear") -> pd.DataFrame:
    """Three numbers of one representation over all pairs, with a bootstrap interval over the pairs; one row each.

    ``progression``: Spearman's correlation of the step with the share of `city_classes` in the images found, 1 where
    they only become more built up. ``contiguous``: of the pairs of different places found at a step or at two in turn,
    the share that lie within the profile's buffer (1 km) of each other; ``contiguous, at random``: that of all pairs
    of held-out places. ``distinct``: share of different places among all that a way finds.
    """
    numbers, ways = files(profile, method, seed, kind)
    if not (numbers.exists() and ways.exists()):
        figures, table = profile.figures, held_out_sample.places(profile)
        x, pairs = figure2_tsne.vectors(profile, method, seed), endpoints(profile)
        built = classes_share(table, figures.city_classes)
        near = pairs_within(table["lat"], table["lon"], profile.maps.buffer_m)
        found = [way(x, table, pair, figures.steps, figures.shown, kind) for pair in pairs]
        measured = {
            "progression": [along(built[one.rows].mean(axis=1)) for one in found],
            "contiguous": [contiguous(one.rows, near) for one in found],
            "distinct": [len(np.unique(one.rows)) / one.rows.size for one in found],
        }
        n = len(table)
        base = {
            "experiment": "figure3", "kind": kind, "method": method, "seed": seed, "pairs": len(pairs), "gallery": n,
            "steps": figures.steps, "shown": figures.shown,
            **origin(profile, held_out_sample.key(profile), stand_in=False,
                     run_id=representations.run_id(profile, method, seed)),
        }  # fmt: skip
        rows: list[dict[str, Any]] = []
        for metric, values in measured.items():
            low, high = _interval(np.array(values), figures.seed)
            rows.append({**base, "metric": metric, "value": np.mean(values), "low": low, "high": high})
        # every pair of places counts twice in the matrix, and never a place with itself
        random = (near.sum() - near.diagonal().sum()) / (n * (n - 1))
        rows.append({**base, "metric": "contiguous, at random", "value": random, "low": np.nan, "high": np.nan})
        drawn = _ways(table, pairs[: figures.pairs_drawn], found, built)
        write_csv(ways, drawn.assign(method=method, seed=seed, kind=kind))
        write_csv(numbers, pd.DataFrame(rows))
    return read_csv(numbers)


def contiguous(rows: NDArray[np.int64], near: Any) -> float:
    """Of the pairs of a place found at a step and another found there or at the step before: share of `near`."""
    hits = total = 0
    for step in range(1, len(rows)):
        for row in rows[step]:
            others = [other for other in (*rows[step - 1], *rows[step]) if other != row]
            total += len(others)
            hits += sum(bool(near[int(row), int(other)]) for other in others)
    return hits / max(total, 1)


def _interval(values: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """95 % bootstrap interval of a mean over pairs."""
    rng = np.random.default_rng(seed)
    drawn = values[rng.integers(0, len(values), (2000, len(values)))].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _ways(table: pd.DataFrame, pairs: NDArray[np.int64], found: list[Way], built: NDArray[np.float64]) -> pd.DataFrame:
    """One row an image of the drawn pairs: its place (`row` of the held-out ones), step and rank; rank 0: endpoint."""
    rows = []
    for number, (pair, one) in enumerate(zip(pairs, found, strict=False)):
        last = len(one.rows) - 1
        entries = [(0, 0, int(pair[0]), 1.0), (last, 0, int(pair[1]), 1.0)]
        entries += [
            (step, rank + 1, int(row), float(one.similarity[step, rank]))
            for step, line in enumerate(one.rows)
            for rank, row in enumerate(line)
        ]
        rows += [
            {
                "pair": number, "step": step, "rank": rank, "row": row, "lat": round(float(table["lat"].iloc[row]), 5),
                "lon": round(float(table["lon"].iloc[row]), 5), "built": round(float(built[row]), 3),
                "similarity": round(similarity, 4),
            }
            for step, rank, row, similarity in entries
        ]  # fmt: skip
    return pd.DataFrame(rows)


def figure3(
    profile: Profile, which: Iterable[str] | None = None, *, kind: str = "linear", progress: bool = True
) -> pd.DataFrame:
    """The numbers of all representations at hand (`representations.available`); computes what is missing."""
    todo = representations.available(profile, which)
    with tqdm(todo, desc=f"figure 3 ({profile.name})", unit="method", disable=not progress) as bar:
        return pd.concat([compute(profile, method, seed, kind) for method, seed in bar], ignore_index=True)


def ways(profile: Profile, methods: Iterable[str] = DRAWN, kind: str = "linear") -> pd.DataFrame:
    """The drawn pairs' images by some methods (first seed), with `image`, each place's number in the sheet."""
    there = [files(profile, method, 0, kind)[1] for method in methods]
    table = pd.concat([pd.read_csv(file) for file in there if file.exists()], ignore_index=True)
    return table.assign(image=pd.factorize(table["row"])[0])


def images(profile: Profile, table: pd.DataFrame) -> NDArray[np.uint8]:
    """uint8 (n, px, px) palette indices of the places of `ways`, by their number `image`."""
    rows = table.drop_duplicates("image").sort_values("image")["row"]
    return drawn_maps.point_images(profile, held_out_sample.places(profile).iloc[rows].reset_index(drop=True)).numpy()


def colours(profile: Profile) -> NDArray[np.uint8]:
    """uint8 (256, 3): the palette of `images`."""
    return (drawn_maps.palette(profile) * 255).round().to(torch.uint8).numpy()


def finished(profile: Profile) -> dict[str, pd.DataFrame | bytes]:
    """What is there to publish, by file name; computes nothing but the sheet of images."""
    there = [files(profile, *run, "linear") for run in representations.complete_ones(profile)]
    rows = [read_csv(numbers) for numbers, drawn in there if numbers.exists() and drawn.exists()]
    if not rows:
        return {}
    out: dict[str, pd.DataFrame | bytes] = {"figure3.csv": pd.concat(rows, ignore_index=True)}
    if any(files(profile, method, 0, "linear")[1].exists() for method in DRAWN):
        table = ways(profile)
        out["figure3-images.csv"] = table
        out["figure3-images.png"] = figure2_tsne.sheet(images(profile, table), colours(profile))
    return out

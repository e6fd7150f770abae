"""Figure 2: t-SNE of held-out places by every representation, and how pure their neighbourhoods are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from reproduction.computed import drawn_maps, store
from reproduction.experiments import held_out_sample, representations
from reproduction.experiments.neighbour_purity import groups_of_equal_number, neighbour_purity, tsne
from reproduction.results import computed_once, origin, read_csv
from reproduction.settings import Profile
from selm.maps.atlas import encode_png
from selm.maps.sphere import pairs_within
from selm.maps.style import LAND_COVER_CLASSES
from selm.probes.claims import paired_bootstrap
from selm.views import colour

VERSIONS = {"tsne": 1, "purity": 2}  # raise one when its numbers change
LABELS = {"price": "land price", "land_cover": "land cover", "area_type": "area type", "density": "density"}
THUMBNAILS = 90  # at most, in the print
DRAWN = "gps_selm"  # whose print has the map images


def labels(profile: Profile) -> dict[str, NDArray[np.int64]]:
    """label → int64 code of each held-out place, -1 where unknown; prices and densities are groups of equal number."""
    table, bins = held_out_sample.places(profile), profile.figures.bins
    return {
        "price": groups_of_equal_number(table["price_yen_m2"], bins),
        "land_cover": table["land_cover"].to_numpy(np.int64),
        "area_type": table["zone"].to_numpy(np.int64),
        "density": groups_of_equal_number(table["density"], bins),
    }


def images(profile: Profile) -> Iterable[torch.Tensor]:
    """The held-out places' pictures, in batches (B, 3, px, px) in [0, 1]."""
    colours = drawn_maps.palette(profile)
    for part in drawn_maps.point_images(profile, held_out_sample.places(profile)).split(256):
        yield colour(part, colours)


def vectors(profile: Profile, method: str, seed: int) -> NDArray[np.float32]:
    """(N, d) vectors of the held-out places by one representation, computed once."""
    parts = held_out_sample.address_parts(profile) | representations.source(profile, method, seed)
    return store.cached_array(
        "features", f"{profile.name}-{method}-s{seed}-held-out",
        parts | {"maps": drawn_maps.map_fingerprint(profile, "test")},
        lambda: representations.vectors(profile, method, seed, images(profile)),
    )  # fmt: skip


def _picture_parts(profile: Profile, method: str, seed: int) -> dict[str, Any]:
    parts = held_out_sample.address_parts(profile) | representations.source(profile, method, seed)
    return parts | held_out_sample.settings(profile, "perplexity", "seed") | {"version": VERSIONS["tsne"]}


def _purity_file(profile: Profile, method: str, seed: int) -> Path:
    parts = _picture_parts(profile, method, seed) | held_out_sample.settings(profile, "neighbours", "bins")
    parts |= {"buffer": profile.maps.buffer_m, "purity": VERSIONS["purity"]}
    return store.address("figure2", f"{profile.name}-{method}-s{seed}", parts, ".csv")


def tsne_points(profile: Profile, method: str, seed: int) -> NDArray[np.float32]:
    """(N, 3) t-SNE of the held-out places by one representation, computed once."""
    figures = profile.figures
    return store.cached_array(
        "tsne", f"{profile.name}-{method}-s{seed}", _picture_parts(profile, method, seed),
        lambda: tsne(vectors(profile, method, seed), perplexity=figures.perplexity, seed=figures.seed),
    )  # fmt: skip


def compute(profile: Profile, method: str, seed: int) -> pd.DataFrame:
    """Purities of one representation, computed where they are not there yet: a row a label and space.

    space: ``embedding``, the vectors, or ``tsne``, the three dimensions of the picture. Columns `purity`, `chance`,
    `excess` (their difference) with its interval `low` … `high`: bootstrap over the spatial cells. Places within the
    buffer of each other are never neighbours. The baselines have no picture.
    """

    def make() -> pd.DataFrame:
        figures, table = profile.figures, held_out_sample.places(profile)
        x = vectors(profile, method, seed)
        spaces = {"embedding": x}
        if method not in representations.BASELINES:
            spaces["tsne"] = tsne_points(profile, method, seed)
        apart = pairs_within(table["lat"], table["lon"], profile.maps.buffer_m)
        facts = origin(profile, held_out_sample.key(profile), run_id=representations.run_id(profile, method, seed))
        rows = []
        for label, codes in labels(profile).items():
            for space, where in spaces.items():
                found = neighbour_purity(where, codes, figures.neighbours, apart=apart)
                if found.n < 2 or len(set(table["cell"][np.isfinite(found.own)])) < 2:
                    continue  # a label that is known in one cell at most
                gain = paired_bootstrap(found.own, found.chance, table["cell"], higher_is_better=True)
                rows.append(
                    {
                        "experiment": "figure2", "label": label, "space": space, "method": method, "seed": seed,
                        "k": figures.neighbours, "classes": len(np.unique(codes[codes >= 0])),
                        "purity": np.nanmean(found.own), "chance": np.nanmean(found.chance), "excess": gain.gain,
                        "low": gain.low, "high": gain.high, "n": gain.n_points, "n_blocks": gain.n_blocks,
                        **facts, "stand_in": profile.stand_ins and label != "land_cover",
                    }
                )  # fmt: skip
        return pd.DataFrame(rows)

    return computed_once(_purity_file(profile, method, seed), make)


def figure2(profile: Profile, which: Iterable[str] | None = None, *, progress: bool = True) -> pd.DataFrame:
    """Purities of all representations at hand (`representations.available`); computes what is missing."""
    todo = representations.available(profile, which)
    with tqdm(todo, desc=f"figure 2 ({profile.name})", unit="method", disable=not progress) as bar:
        return pd.concat([compute(profile, *run) for run in bar], ignore_index=True)


def coordinates(profile: Profile) -> pd.DataFrame:
    """One row a held-out place: `lat lon`, its labels in words and numbers, `thumbnail` (its place in the sheet of map
    images, -1: not there), and ``NAME_x NAME_y NAME_z`` of every representation (first seed) that is there."""
    table = held_out_sample.places(profile)
    zones, cover = np.array([*held_out_sample.zone_names(profile), ""]), np.array([*LAND_COVER_CLASSES, ""])
    out = pd.DataFrame(
        {
            "lat": table["lat"].round(5), "lon": table["lon"].round(5), "price": table["price_yen_m2"].round(1),
            "density": table["density"].round(1), "area_type": zones[table["zone"]],
            "land_cover": cover[table["land_cover"]], "thumbnail": -1,
        }
    )  # fmt: skip
    for method, seed in _there(profile):
        if seed == 0 and method not in representations.BASELINES:
            for axis, name in enumerate("xyz"):
                out[f"{method}_{name}"] = tsne_points(profile, method, seed)[:, axis].round(2)
    if f"{DRAWN}_x" in out:
        rows = spread_out(out[[f"{DRAWN}_{name}" for name in "xyz"]].to_numpy(), THUMBNAILS)
        out.loc[rows, "thumbnail"] = np.arange(len(rows))
    return out


def principal_plane(where: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N, 3) → (N, 2): the two directions in which the points spread most; each points to its longer side."""
    centred = np.asarray(where, np.float64) - np.mean(where, axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    flat = centred @ axes[:2].T
    return flat * np.where(np.abs(flat.max(axis=0)) >= np.abs(flat.min(axis=0)), 1.0, -1.0)


def spread_out(where: NDArray[np.floating], most: int) -> NDArray[np.int64]:
    """Rows of at most `most` points that cover the principal plane: the one nearest to the middle of each square of the
    finest grid with so few occupied squares."""
    flat = principal_plane(where)
    low, extent = flat.min(axis=0), float(np.ptp(flat, axis=0).max()) or 1.0
    best = np.array([0])
    for squares in range(1, 64):
        at = np.floor((flat - low) / extent * squares * 0.999999).astype(int)
        off = np.linalg.norm((flat - low) / extent * squares - at - 0.5, axis=1)
        order = np.lexsort((off, at[:, 1], at[:, 0]))
        _, first = np.unique(at[order], axis=0, return_index=True)
        if len(first) > most:
            break
        best = np.sort(order[first])
    return best


def thumbnails(profile: Profile, table: pd.DataFrame) -> NDArray[np.uint8]:
    """uint8 (n, px, px, 3) map images of the rows of `coordinates` that have a thumbnail, in its order."""
    chosen = table[table["thumbnail"] >= 0].sort_values("thumbnail").index
    indices = drawn_maps.point_images(
        profile, held_out_sample.places(profile).iloc[chosen].reset_index(drop=True)
    ).numpy()
    return (drawn_maps.palette(profile) * 255).round().to(torch.uint8).numpy()[indices]


def sheet(indices: NDArray[np.uint8], palette: NDArray[np.uint8], columns: int = 10) -> bytes:
    """A PNG of images (n, px, px) of palette indices, in rows of `columns`, with no space between."""
    n, px, _ = indices.shape
    rows = -(-n // columns)
    canvas = np.zeros((rows * px, columns * px), np.uint8)
    for i, image in enumerate(indices):
        canvas[i // columns * px :][:px, i % columns * px :][:, :px] = image
    return encode_png(canvas, palette, level=9)


def _there(profile: Profile) -> list[tuple[str, int]]:
    return [run for run in representations.complete_ones(profile) if _purity_file(profile, *run).exists()]


def finished(profile: Profile) -> dict[str, pd.DataFrame | bytes]:
    """What is there to publish, by file name; computes nothing but the sheet of thumbnails."""
    there = _there(profile)
    if not there:
        return {}
    rows = pd.concat([read_csv(_purity_file(profile, *run)) for run in there], ignore_index=True)
    table = coordinates(profile)
    out: dict[str, pd.DataFrame | bytes] = {"figure2.csv": rows, "figure2-places.csv": table}
    chosen = table[table["thumbnail"] >= 0].sort_values("thumbnail").index
    if len(chosen):
        places = held_out_sample.places(profile).iloc[chosen].reset_index(drop=True)
        colours = (drawn_maps.palette(profile) * 255).round().to(torch.uint8).numpy()
        out["figure2-thumbnails.png"] = sheet(drawn_maps.point_images(profile, places).numpy(), colours)
    return out

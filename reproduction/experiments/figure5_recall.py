"""Figure 5: places found again from another picture of them, in areas of 5,000 places.

By each representation as the paper would have it, and whitened on the gallery (`representations.whitened`).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from reproduction.computed import store
from reproduction.experiments import representations, row_claims
from reproduction.experiments import retrieval as recall
from reproduction.experiments.retrieval import bootstrap, gallery_images, query_images
from reproduction.places.regions import source_of
from reproduction.places.sampling import sample_places
from reproduction.results import Kept, origin
from reproduction.settings import Area, Profile, Query, Region
from selm.embedding.search import Whitening
from selm.encoder import MapEncoder
from selm.errors import InputError
from selm.maps.atlas import Atlas
from selm.maps.mercator import to_tile
from selm.maps.sphere import nearest_places
from selm.views import DeviceAtlas

VERSION = 1  # raise it when the numbers change
BLOCK_ZOOM = 16  # places are drawn for the bootstrap by whole zoom-16 tiles: about 460 m in New York
CLAIMED_SHARE = 1.0  # % of the gallery: the recall that claims are about
_BATCH = 256


def area_folder(profile: Profile, area: Area, style: str = "") -> Path:
    """Where the area's map is kept, whether or not it is drawn."""
    from selm.maps.style import Style

    maps = profile.maps
    chosen = style or maps.style
    parts = {
        "source": area.source, "bbox": area.bbox, "style": Style.named(chosen).hash, "zoom": maps.zooms[0],
        "px": maps.tile_px,
    }  # fmt: skip
    return store.address("atlases", f"area-{area.name}-{chosen}", parts)


def area_atlas(profile: Profile, area: Area, style: str = "") -> Atlas:
    """The area's map and a margin for queries, drawn in a style ("": the profile's); computed once."""
    folder = area_folder(profile, area, style)
    if (folder / "atlas.json").exists():
        return Atlas(folder)
    from selm.maps.draw import draw_atlas
    from selm.maps.sources import open_source

    maps = profile.maps
    west, south, east, north = area.bbox
    lat, lon = 0.003, 0.004  # some 330 m: beyond any query's reach
    box = (west - lon, south - lat, east + lon, north + lat)
    source = open_source(source_of(Region(area.name, area.source, "test")))
    style = style or maps.style
    return draw_atlas(source, folder, zooms=maps.zooms[:1], tile_px=maps.tile_px, bbox=box, style=style)


def is_drawn(profile: Profile, area: Area) -> bool:
    """Whether the area's map is there: where it is not, nothing else of the area is."""
    return (area_folder(profile, area) / "atlas.json").exists()


def area_key(profile: Profile, area: Area) -> dict[str, Any]:
    """What the gallery of an area depends on."""
    return {
        "map": area_atlas(profile, area).fingerprint, "bbox": area.bbox, "n": profile.retrieval.gallery,
        "seed": profile.retrieval.seed, "entropy": profile.maps.entropy_threshold, "px": profile.views.global_px,
        "version": VERSION,
    }  # fmt: skip


def gallery(profile: Profile, area: Area) -> pd.DataFrame:
    """The places of an area, uniform on its map among those whose image passes the entropy filter: columns `lat lon`
    and `block`, the zoom-16 tile that holds each."""

    def make() -> pd.DataFrame:
        west, south, east, north = area.bbox

        def inside(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.bool_]:
            return (lat >= south) & (lat < north) & (lon >= west) & (lon < east)

        table = sample_places(
            area_atlas(profile, area), profile.retrieval.gallery, profile.retrieval.seed, region=area.name,
            zoom=profile.maps.zooms[0], entropy_threshold=profile.maps.entropy_threshold, allowed=inside,
        )[["lat", "lon"]]  # fmt: skip
        x, y = (np.floor(v).astype(int) for v in to_tile(table["lat"], table["lon"], BLOCK_ZOOM))
        table["block"] = [f"{a}_{b}" for a, b in zip(x, y, strict=True)]
        return table

    return store.cached_table("galleries", f"{profile.name}-{area.name}", area_key(profile, area), make)


def spacing_m(table: pd.DataFrame) -> float:
    """Median distance in metres from a place of a gallery to the nearest other."""
    distance, _ = nearest_places(table["lat"], table["lon"], table["lat"], table["lon"], k=2)
    return float(np.median(distance[:, 1]))


def pictures(profile: Profile, area: Area, query: Query | None) -> Iterator[torch.Tensor]:
    """Pictures of all places of an area's gallery, in batches (B, 3, px, px) in [0, 1]: their own, or a query's."""
    table = gallery(profile, area)
    lat, lon = table["lat"].to_numpy(), table["lon"].to_numpy()
    atlas = DeviceAtlas([area_atlas(profile, area, query.style if query else "")], profile.maps.zooms[:1], "cpu")
    words = "" if query is None else query.name
    seed = int(hashlib.sha256(f"{profile.retrieval.seed} {area.name} {words}".encode()).hexdigest()[:8], 16)
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, len(table), _BATCH):
        at = slice(start, start + _BATCH)
        if query is None:
            yield gallery_images(atlas, lat[at], lon[at], profile.maps.zooms[0], profile.views.global_px)
        else:
            yield query_images(
                atlas, lat[at], lon[at], profile.maps.zooms[0], profile.views.global_px, query, generator
            )


def kept(profile: Profile, area: Area, method: str, seed: int) -> Kept:
    """The curves of one representation in one area and the ranks they come from, whether or not they are there."""
    retrieval = dataclasses.asdict(profile.retrieval)
    parts = (
        area_key(profile, area)
        | representations.source(profile, method, seed)
        | {"queries": retrieval["queries"], "shares": retrieval["shares"], "cuts": VERSION}
    )
    return Kept(store.address("figure5", f"{profile.name}-{area.name}-{method}-s{seed}", parts))


def compute(profile: Profile, area: Area, which: Iterable[tuple[str, int]], *, progress: bool = False) -> pd.DataFrame:
    """Recall curves in one area of some representations (name, seed), computed where they are not there yet.

    One row a query and k: `share` k in % of the gallery, `recall` with its interval `low` … `high` (bootstrap over the
    area's zoom-16 tiles). The pictures of a query are made once for all representations.
    """
    runs = list(which)
    missing = [run for run in runs if not kept(profile, area, *run).is_there()]
    if missing:
        table, queries = gallery(profile, area), profile.retrieval.queries
        found: dict[tuple[str, int], dict[str, NDArray[np.int64]]] = {run: {} for run in missing}
        needed = dict.fromkeys(part for run in missing for part in representations.made_of(*run))
        networks = {run: representations.network(profile, *run) for run in needed}
        whitenings: dict[tuple[str, int], Whitening] = {}
        own = _all_vectors(profile, area, None, networks, whitenings, missing)
        for query in tqdm(queries, desc=f"figure 5, {area.name}", unit="query", disable=not progress):
            asked = _all_vectors(profile, area, query, networks, whitenings, missing)
            for run in missing:
                found[run][query.name] = recall.ranks(own[run], asked[run])
        for run in missing:
            ranks = {name: torch.from_numpy(rank) for name, rank in found[run].items()}
            kept(profile, area, *run).keep(_curves(profile, area, run, table, found[run]), ranks)
    return pd.concat([kept(profile, area, *run).rows() for run in runs], ignore_index=True)


def _all_vectors(
    profile: Profile, area: Area, query: Query | None, networks: dict[tuple[str, int], MapEncoder | None],
    whitenings: dict[tuple[str, int], Whitening], asked: Iterable[tuple[str, int]],
) -> dict[tuple[str, int], NDArray[np.float32]]:  # fmt: skip
    """Of the gallery (no query), whose whitenings are put into `whitenings`; or of a query, whitened by those: of the
    representations that are `asked`, and of what they are made of."""
    seen, out = list(pictures(profile, area, query)), {}
    for run, network in networks.items():
        if representations.is_whitened(run[0]):
            out[run], whitenings[run] = representations.whitened(profile, *run, seen, whitenings.get(run), network)
        else:
            out[run] = representations.vectors(profile, *run, seen, network)
    for run in asked:
        if run not in out:
            out[run] = representations.beside_colours(*(out[part] for part in representations.made_of(*run)))
    return out


def _curves(
    profile: Profile, area: Area, run: tuple[str, int], table: pd.DataFrame, found: dict[str, NDArray[np.int64]]
) -> pd.DataFrame:
    method, seed = run
    n, shares = len(table), profile.retrieval.shares
    common = {
        "gallery": n, "n_blocks": table["block"].nunique(), "spacing_m": round(spacing_m(table), 1),
        **origin(profile, area_atlas(profile, area).fingerprint, stand_in=False,
                 run_id=representations.run_id(profile, method, seed)),
    }  # fmt: skip
    rows = []
    for query in profile.retrieval.queries:
        rank = found[query.name]
        values = recall.recall(rank, shares, n)
        low, high = bootstrap(rank, table["block"], shares, n)
        rows += [
            {
                "experiment": "figure5", "area": area.name, "query": query.name, "shift_m": query.shift_m,
                "method": method, "seed": seed, "share": share, "recall": value, "low": a, "high": b, **common,
            }
            for share, value, a, b in zip(shares, values, low, high, strict=True)
        ]  # fmt: skip
    return pd.DataFrame(rows)


def figure5(profile: Profile, which: Iterable[str] | None = None, *, progress: bool = True) -> pd.DataFrame:
    """Recall curves of all representations at hand (`representations.available`), plain and then whitened, in every
    area; computes what is missing. `which` keeps some names. Raises InputError where no area is asked for."""
    if not profile.retrieval.areas:
        raise InputError(f"profile '{profile.name}': no area to look for places in")
    names = None if which is None else set(which)
    wanted = None if names is None else {representations.plain(name) for name in names}
    todo = representations.with_whitened(representations.available(profile, wanted))
    todo = [run for run in todo if names is None or run[0] in names]
    parts = [compute(profile, area, todo, progress=progress) for area in profile.retrieval.areas]
    return pd.concat(parts, ignore_index=True)


def examples(profile: Profile, area: Area, n: int = 4) -> dict[str, NDArray[np.uint8]]:
    """Name of each query, and "" for the gallery → uint8 (n, px, px, 3) pictures of the first places of an area."""
    out = {}
    for query in (None, *profile.retrieval.queries):
        first = next(pictures(profile, area, query))[:n]
        out[query.name if query else ""] = (first.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    return out


def finished(profile: Profile) -> dict[str, pd.DataFrame | bytes]:
    """What is there to publish, by file name; computes nothing."""
    there, blocks = [], []
    for area in profile.retrieval.areas:
        if not is_drawn(profile, area):
            continue
        table = gallery(profile, area)
        for method, seed in representations.with_whitened(representations.complete_ones(profile)):
            of = kept(profile, area, method, seed)
            if of.is_there():
                rows = of.rows()
                there.append(rows)
                blocks.append(_blocks(area, method, seed, rows, of, table))
    if not there:
        return {}
    return {"figure5.csv": pd.concat(there, ignore_index=True), "figure5-blocks.csv": row_claims.joined(blocks)}


def _blocks(area: Area, method: str, seed: int, rows: pd.DataFrame, of: Kept, table: pd.DataFrame) -> pd.DataFrame:
    """Whether a place is among the top `CLAIMED_SHARE` % for the first query, by zoom-16 tile; 1 and 0."""
    query = str(rows["query"].iloc[0])
    rank = of.tensors()[query].numpy()
    hits = (rank <= recall.found_within([CLAIMED_SHARE], len(rank))[0]).astype(float)
    return row_claims.blocks_of(
        hits, table["block"].to_numpy(str), area.name, seed=seed, target=query, metric="recall1", buffer_km=0.0,
        setting="frozen", method=method, epochs=0, data=rows["data"].iloc[0],
    )  # fmt: skip

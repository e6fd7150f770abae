"""What embedding very many coordinates takes: storage, hours and money, computed from rates that are measured first.

    python -m benchmarks.scale [--blocks 40] [--places 256] [--cores 16] [--jobs 64] [--core-hour 0.04]

Measured, by processor time on one core: drawing random blocks of the maps in osm-japan below `SELM_DATA` at each zoom
that the default encoder looks at, and encoding places whose maps are drawn: near one another (every image of a block)
and alone, as the encoder comes and with one orientation at its first zoom. Computed from that: a million places
scattered over Japan or over the planet's land, every zoom-17 image of Japan and of that land. So many blocks at a zoom
are touched by N places that lie anywhere among B blocks and need k each: B (1 - exp(-N k / B)). A block of anywhere is
taken to be as full as one of Japan: for the planet that is too much. Random blocks also have few neighbours, with which
they would be drawn together at small zooms: drawing is at most what it says here, for whole areas much less. Land is
Natural Earth's at 1:110 million, without Antarctica, as large as the web map shows it. The grid that does it:
`snakemake embedded` (Snakefile). Writes scale.csv.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd

from benchmarks import measure
from benchmarks.embedding import coordinates
from reproduction import paths
from selm.bundled import shelf
from selm.embedding.blocks import Plan
from selm.embedding.embedder import Embedder
from selm.errors import InputError
from selm.maps.atlas import BLOCK_ZOOM
from selm.maps.draw import draw_atlas
from selm.maps.mercator import from_tile
from selm.maps.sources import open_source

IMAGES = 256  # of zoom 17 in a block of zoom 13
JAPAN = 9_000_000  # tiles of the paper's map (page 5)
WORLD = 2 * 20_037_508.34  # the web map's side, metres


@dataclass(frozen=True)
class Rates:
    """What was measured of one way to embed: core-seconds and bytes, by zoom or for a place."""

    draw: dict[int, float]  # core-seconds a block
    drawn: dict[int, float]  # bytes a block
    alone: dict[int, float]  # blocks that a place alone needs
    near_s: float  # core-seconds to encode a place near others
    alone_s: float  # … and a place alone
    tile: float  # bytes of a block's vector tile
    dim: int


@dataclass(frozen=True)
class Machines:
    """What the work is given to, and what that costs."""

    cores: int
    jobs: int
    core_hour: float
    gib_month: float


def touched(places: float, each: float, blocks: float) -> float:
    """Blocks that places which lie anywhere among so many blocks, and need `each`, touch."""
    return blocks * -math.expm1(-places * each / blocks)


def cost(places: float, blocks: float, dense: bool, rates: Rates, machines: Machines) -> dict[str, Any]:
    """A row: places among so many blocks; `dense` are all images of these blocks."""
    wanted = {zoom: blocks if dense else touched(places, k, blocks) for zoom, k in rates.alone.items()}
    drawing = sum(wanted[zoom] * seconds for zoom, seconds in rates.draw.items()) / 3600
    encoding = places * (rates.near_s if dense else rates.alone_s) / 3600
    gib = {
        "vector_tiles_gib": max(wanted.values()) * rates.tile / 2**30,
        "drawn_gib": sum(wanted[zoom] * size for zoom, size in rates.drawn.items()) / 2**30,
        "embeddings_gib": places * rates.dim * 4 / 2**30,
    }
    hours = drawing + encoding
    return {
        "places": places, "blocks": max(wanted.values()), **gib, "drawing_core_hours": drawing,
        "encoding_core_hours": encoding, "machine_hours": hours / machines.cores,
        "cluster_hours": hours / machines.cores / machines.jobs, "usd": hours * machines.core_hour,
        "usd_a_month": sum(gib.values()) * machines.gib_month,
    }  # fmt: skip


def land_blocks(path: Path) -> float:
    """Blocks of zoom 13 that the land of a file of countries fills on the web map, without Antarctica."""
    import geopandas
    from shapely import box

    countries = geopandas.read_file(path)
    land = countries[countries["continent"] != "Antarctica"].geometry.intersection(box(-180, -85.05, 180, 85.05))
    return float(land.to_crs(3857).area.sum()) / (WORLD / 2**BLOCK_ZOOM) ** 2


def natural_earth() -> Path:
    """The file of countries that pyogrio's wheel has among its tests."""
    import pyogrio

    path = Path(pyogrio.__file__).parent / "tests/fixtures/naturalearth_lowres/naturalearth_lowres.shp"
    if not path.exists():
        raise InputError(f"{path}: no such file; name one of Natural Earth's files of countries by --land")
    return path


def drawing(sources: list[Path], zooms: tuple[int, ...], tile_px: int, n: int, seed: int) -> dict[str, Any]:
    """Core-seconds and bytes a block by zoom, and the bytes of its vector tile: n random blocks of some maps."""
    opened = [open_source(path) for path in sources]
    of = np.repeat(np.arange(len(opened)), [len(source.tiles.keys) for source in opened])
    chosen = np.random.default_rng(seed).choice(len(of), n, replace=False)
    starts = np.cumsum([0, *(len(source.tiles.keys) for source in opened)])
    seconds, sizes, tiles = dict.fromkeys(zooms, 0.0), dict.fromkeys(zooms, 0.0), 0
    with tempfile.TemporaryDirectory() as name:
        for i, source in enumerate(opened):
            keys = source.tiles.keys[chosen[of[chosen] == i] - starts[i]]
            tiles += sum(len(source.tiles.tile(BLOCK_ZOOM, x, y) or b"") for x, y in keys.tolist())
            for zoom in zooms if len(keys) else ():
                folder = Path(name) / f"{i}-{zoom}"
                busy = measure.cpu_seconds()
                draw_atlas(source, folder, zooms=(zoom,), tile_px=tile_px, blocks=keys, progress=False, workers=1)
                seconds[zoom] += measure.cpu_seconds() - busy
                sizes[zoom] += sum(file.stat().st_size for file in folder.rglob("*.png"))
    return {"draw": {zoom: s / n for zoom, s in seconds.items()}, "drawn": {zoom: s / n for zoom, s in sizes.items()},
            "tile": tiles / n}  # fmt: skip


def encoding(embedder: Embedder, near: pd.DataFrame, alone: pd.DataFrame) -> dict[str, float]:
    """Core-seconds a place once its maps are drawn."""
    out = {}
    for name, places in (("near_s", near), ("alone_s", alone)):
        lat, lon = places["lat"].to_numpy(), places["lon"].to_numpy()
        embedder(lat, lon)  # draws
        busy = measure.cpu_seconds()
        embedder(lat, lon)
        out[name] = (measure.cpu_seconds() - busy) / len(places)
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=40, help="to draw")
    parser.add_argument("--places", type=int, default=256, help="to encode near one another; an eighth of them alone")
    parser.add_argument("--land", type=Path, help="countries; by default Natural Earth's in pyogrio's wheel")
    parser.add_argument("--cores", type=int, default=16, help="of a machine, and of a cluster's job")
    parser.add_argument("--jobs", type=int, default=64, help="of a cluster at the same time")
    parser.add_argument("--core-hour", type=float, default=0.04, help="USD (assumed)")
    parser.add_argument("--gib-month", type=float, default=0.023, help="USD (assumed)")
    parser.add_argument("--seed", type=int, default=0)
    measure.options(parser)
    chosen = parser.parse_args()
    machines = Machines(chosen.cores, chosen.jobs, chosen.core_hour, chosen.gib_month)
    folder = paths.sources() / "osm-japan"
    sources = sorted(folder.glob("*.mbtiles"))
    try:
        if not sources:
            raise InputError(f"{folder}: has no .mbtiles; set SELM_DATA (data/README.md)")
        areas = {"Japan": JAPAN / IMAGES, "the planet's land": land_blocks(chosen.land or natural_earth())}
    except InputError as error:
        print(f"scale: {error}")
        return 2
    best = shelf().named(shelf().default)
    map_ = str(sources[0])
    keys = open_source(map_).tiles.keys
    middle = keys[np.abs(keys - np.median(keys, axis=0)).max(1).argmin()]
    rng = np.random.default_rng(chosen.seed)
    at = (rng.permutation(IMAGES)[: chosen.places, None] // (1, 16) % 16 + 0.5) / 16 + middle
    near = pd.DataFrame(dict(zip(("lat", "lon"), from_tile(at[:, 0], at[:, 1], BLOCK_ZOOM), strict=True)))
    alone = coordinates(keys, max(1, chosen.places // 8), chosen.seed)
    assumed = {"cores": chosen.cores, "jobs": chosen.jobs, "core_hour": chosen.core_hour, "gib_month": chosen.gib_month}
    rows = []
    # a map's description may still be written when the last block is there
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name,
        mock.patch.dict(os.environ, {"SELM_CACHE": f"{name}/cache"}),
    ):
        embedders = {
            f"{best.name}, as it comes": Embedder(None, map_),
            f"one orientation, zoom {best.zooms[0]}": Embedder(None, map_, orientations=1, zooms=best.zooms[:1]),
        }
        config = embedders[f"{best.name}, as it comes"].encoder.config
        drawn = drawing(sources, best.zooms, config.tile_px, chosen.blocks, chosen.seed)
        for way, embedder in embedders.items():
            zooms = embedder.open().blocks
            needs = {
                zoom: float(np.mean([
                    len(np.unique(np.concatenate(Plan.make(
                        [row.lat], [row.lon], zoom, config.image_px, config.tile_px, lambda keys: keys[:, 0] >= 0
                    ).blocks), axis=0)) for row in alone.itertuples()
                ])) for zoom in zooms
            }  # fmt: skip
            parts = {what: {zoom: drawn[what][zoom] for zoom in zooms} for what in ("draw", "drawn")}
            rates = Rates(**parts, alone=needs, tile=drawn["tile"], dim=embedder.dim,
                          **encoding(embedder, near, alone))  # fmt: skip
            facts = {"draw_s_a_block": sum(rates.draw.values()), "near_s": rates.near_s, "alone_s": rates.alone_s,
                     "dim": rates.dim}  # fmt: skip
            for where, blocks in areas.items():
                for what, places, dense in ((f"a million places over {where}", 1e6, False),
                                            (f"every zoom-17 image of {where}", blocks * IMAGES, True)):  # fmt: skip
                    rows.append({"what": what, "way": way, **cost(places, blocks, dense, rates, machines), **facts})
            measure.keep("scale", rows, chosen, **assumed)
    measure.report("scale", rows, chosen, **assumed)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""How fast atlases are drawn, against drawing tile by tile with Mapnik in the same run.

    python -m benchmarks.drawing [SOURCE] [--rounds 7] [--blocks 8] [--no-write]
    python -m benchmarks.drawing --cities SOURCE … [--rounds 3]

Every round draws the same zoom-13 blocks in each way, one way after the other, so that what else the machine does
hits all alike; medians over rounds are shown. "Images" are zoom-17 images of 128 pixels, 256 to a block. All ways draw
the same style to the same colours and store PNG files. Rates are per second of wall time and per second of processor
time: on a shared machine the latter is the one that says what a core can do. Mapnik reads vector tiles in threads of
its own, so one process keeps more than a core busy where there are more; `draw_atlas` is therefore timed on one core
(one process that may not leave it) and on two (two processes). With `--cities` small maps are drawn whole by `selm
atlas` in a process of its own on one core, start-up, palette and reading included; other rows of the table stay.
Writes data/results/benchmarks/drawing.csv.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mapnik
import numpy as np
import pandas as pd

from benchmarks import measure as measured
from reproduction import paths
from selm.files import written
from selm.maps import draw, style
from selm.maps.atlas import Atlas, encode_png
from selm.maps.sources import MapSource, open_source

ZOOM, TILE_PX, PER_BLOCK = 17, 128, 256
DENSE = (7276, 3225)  # central Tokyo, Kanda to Nihonbashi


def block_by_block(pen: draw.Pen, keys: list[tuple[int, int]], folder: Path) -> int:
    """The atlas's way: one picture a block, fixed palette, one file."""
    for x, y in keys:
        draw.draw_blocks(pen, folder, draw.Job(ZOOM, [(x, y)]))
    return PER_BLOCK * len(keys)


def tile_by_tile(pen: draw.Pen, keys: list[tuple[int, int]], folder: Path, every: int = 4) -> int:
    """One picture a zoom-17 tile, otherwise stored as the atlas does; every 4th tile in x and y, for time's sake."""
    tiles = _tiles(keys, every)
    for x, y in tiles:
        image = pen.indices(x, y, ZOOM, TILE_PX)
        with written(folder / f"{x}-{y}.png", durable=False) as temporary:
            temporary.write_bytes(encode_png(image, pen.style.palette))
    return len(tiles)


def tile_by_tile_plain(pen: draw.Pen, keys: list[tuple[int, int]], folder: Path, every: int = 4) -> int:
    """The same as most scripts do it: Mapnik draws the tile and saves an 8-bit PNG with a palette of its own."""
    canvas = pen.style.map_for(pen.source, TILE_PX)
    side = 2 * draw.HALF_M / 2**ZOOM
    tiles = _tiles(keys, every)
    for x, y in tiles:
        west, north = -draw.HALF_M + x * side, draw.HALF_M - y * side
        canvas.zoom_to_box(mapnik.Box2d(west, north - side, west + side, north))
        image = mapnik.Image(TILE_PX, TILE_PX)
        mapnik.render(canvas, image, TILE_PX / 256)
        image.save(str(folder / f"{x}-{y}.png"), "png8")
    return len(tiles)


def _tiles(keys: list[tuple[int, int]], every: int) -> list[tuple[int, int]]:
    return [(16 * x + i, 16 * y + j) for x, y in keys for i in range(1, 16, every) for j in range(1, 16, every)]


def measure(ways: dict[str, Callable[[], int]], rounds: int) -> dict[str, tuple[float, float]]:
    """Median images a second of (wall, processor) time of each way; interleaved, after one round to warm up."""
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            before = measured.cpu_seconds()
            start = time.perf_counter()
            images = way()
            seconds, busy = time.perf_counter() - start, measured.cpu_seconds() - before
            if turn:
                wall[name].append(images / seconds)
                cpu[name].append(images / busy)
    return {name: (statistics.median(wall[name]), statistics.median(cpu[name])) for name in ways}


@contextlib.contextmanager
def only(cores: int) -> Iterator[None]:
    """Keep this process, and those that it starts, on so many processors."""
    allowed = os.sched_getaffinity(0)
    if len(allowed) < cores:
        raise SystemExit(f"benchmarks.drawing: needs {cores} processors, there are {len(allowed)}")
    os.sched_setaffinity(0, sorted(allowed)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def storing(pen: draw.Pen, rounds: int) -> list[dict[str, Any]]:
    """Milliseconds to turn one drawn block (central Tokyo, 2048 pixels) into a PNG, in several ways."""
    side = TILE_PX * 16
    canvas = pen.style.map_for(pen.source, side)
    edge = 2 * draw.HALF_M / 2**13
    west, north = -draw.HALF_M + DENSE[0] * edge, draw.HALF_M - DENSE[1] * edge
    canvas.zoom_to_box(mapnik.Box2d(west, north - edge, west + edge, north))
    image = mapnik.Image(side, side)
    mapnik.render(canvas, image, TILE_PX / 256)

    def ours() -> bytes:
        rgba = np.frombuffer(image.to_string(), np.uint8).reshape(side, side, 4)
        return encode_png(style.to_indices(rgba, pen.style.table), pen.style.palette)

    ways: dict[str, Callable[[], bytes]] = {
        "fixed palette by table, zlib level 1 (used)": ours,
        "Mapnik png8, palette of its own": lambda: bytes(image.to_string("png8")),
        "Mapnik png8, fast settings (m=h:z=1)": lambda: bytes(image.to_string("png8:m=h:z=1")),
        "Mapnik png32, z=1": lambda: bytes(image.to_string("png32:z=1")),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    sizes: dict[str, int] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.process_time()
            sizes[name] = len(way())
            times[name].append(time.process_time() - start)
    return [
        {"way": name, "cpu ms a block": 1000 * statistics.median(times[name]), "kB a block": sizes[name] / 1000}
        for name in ways
    ]


def city(file: str, folder: Path) -> int:
    """Draw a small map by the command line, from nothing; returns how many images it holds."""
    with tempfile.TemporaryDirectory(dir=folder) as out, only(1):
        words = ["atlas", file, "-o", f"{out}/atlas", "--zooms", str(ZOOM), "--workers", "1"]
        subprocess.run([sys.executable, "-m", "selm", *words], check=True, capture_output=True)
        return PER_BLOCK * len(Atlas(f"{out}/atlas").keys)


def cities(files: list[str], rounds: int) -> list[dict[str, Any]]:
    """A row a small map."""
    with tempfile.TemporaryDirectory() as name:
        rates = measure({file: lambda file=file: city(file, Path(name)) for file in files}, rounds)
    return [
        _row(f"{Path(file).stem}, start-up included", "selm atlas", 1, wall, cpu, float("nan"))
        for file, (wall, cpu) in rates.items()
    ]


def keep(rows: list[dict[str, Any]], source: MapSource, options: argparse.Namespace) -> None:
    """Into the table, in place of its rows of the same `where`."""
    facts = {"source": source.name, "data": source.fingerprint[:12], "mapnik": str(mapnik.version_string())}
    measured.keep("drawing", rows, options, among="where", **facts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", default=str(paths.sources() / "osm-japan" / "kanto.mbtiles"))
    parser.add_argument("--cities", nargs="+", metavar="SOURCE", help="small maps, drawn whole by the command line")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--blocks", type=int, default=8, help="random blocks a round")
    parser.add_argument("--atlas-blocks", type=int, default=300, help="blocks to measure several processes on")
    parser.add_argument("--seed", type=int, default=0)
    measured.options(parser)
    options = parser.parse_args()
    if options.cities:
        found = cities(options.cities, options.rounds)
        print(pd.DataFrame(found).to_string(index=False))
        for row, file in zip(found, options.cities, strict=True):
            keep([row], open_source(file), options)
        return
    source: MapSource = open_source(options.source)
    pen = draw.Pen(source, style.Style.named("selm"), TILE_PX)
    rng = np.random.default_rng(options.seed)
    chosen = rng.choice(source.keys, min(options.blocks, len(source.keys)), replace=False)
    keys = [(int(x), int(y)) for x, y in chosen]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = {f"{len(keys)} random blocks": keys}
        if (source.keys == DENSE).all(1).any():
            samples["central Tokyo"] = [DENSE]
        for where, sample in samples.items():
            rates = measure(
                {
                    "block by block": lambda sample=sample: block_by_block(pen, sample, folder),
                    "tile by tile": lambda sample=sample: tile_by_tile(pen, sample, folder),
                    "tile by tile, Mapnik saves": lambda sample=sample: tile_by_tile_plain(pen, sample, folder),
                },
                options.rounds,
            )
            base = rates["tile by tile"]
            for way, (wall, cpu) in rates.items():
                rows.append(_row(where, way, 1, wall, cpu, cpu / base[1]))
        many = rng.choice(source.keys, min(options.atlas_blocks, len(source.keys)), replace=False)

        def atlas(cores: int) -> int:
            with tempfile.TemporaryDirectory(dir=folder) as out, only(cores):
                draw.draw_atlas(source, out, zooms=(ZOOM,), blocks=many, workers=cores, progress=False)
            return PER_BLOCK * len(many)

        rates = measure({str(n): lambda n=n: atlas(n) for n in (1, 2)}, max(3, options.rounds // 2))
        for count, (wall, cpu) in rates.items():
            way = f"draw_atlas on {count} core{'s' if count != '1' else ''}"
            rows.append(_row(f"{len(many)} random blocks", way, int(count), wall, cpu, wall / rates["1"][0]))
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format=lambda value: f"{value:,.2f}" if value < 100 else f"{value:,.0f}"))
    print("\nRatio: to 'tile by tile' on the same blocks, by processor time; of draw_atlas to one core, wall time.\n")
    print(pd.DataFrame(storing(pen, options.rounds)).round(1).to_string(index=False))
    keep(rows, source, options)


def _row(where: str, way: str, processes: int, wall: float, cpu: float, ratio: float) -> dict[str, Any]:
    return {
        "where": where, "way": way, "processes": processes, "images_per_s": wall, "images_per_cpu_s": cpu,
        "ratio": ratio,
    }  # fmt: skip


if __name__ == "__main__":
    main()

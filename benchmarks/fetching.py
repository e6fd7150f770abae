"""Drawing a map that comes from a slow server: what drawing while fetching saves, and how much is fetched for a place.

    python -m benchmarks.fetching [--blocks 96] [--delay-ms 600] [--rounds 3]

A server on this machine gives the tiles of osm-japan/kanto.mbtiles below `SELM_DATA`, each after a delay. Random blocks
are drawn twice a round, each time from an empty cache: all tiles first, and as `selm embed` does it. Then it is counted
which tiles the images of places show, where these are alone, all over the map, and near one another. Writes
fetching.csv.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks import measure
from benchmarks.embedding import coordinates
from reproduction import paths
from selm.embedding.blocks import Plan
from selm.maps.atlas import BLOCK_ZOOM
from selm.maps.draw import draw_atlas
from selm.maps.sources import open_source
from selm.maps.tiles import MBTiles
from selm.methods.multi_zoom import WIDE


class Server:
    """Gives the tiles of a file over HTTP, each `delay` seconds late."""

    def __init__(self, tiles: MBTiles, delay: float) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                z, x, y = map(int, re.findall(r"\d+", self.path))
                data = tiles.tile(z, x, y)
                time.sleep(delay)
                self.send_response(404 if data is None else 200)
                self.send_header("Content-Encoding", "gzip")
                self.send_header("Content-Length", str(len(data or b"")))
                self.end_headers()
                self.wfile.write(data or b"")

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}/{{z}}/{{x}}/{{y}}.pbf"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def empty_folder() -> Iterator[Path]:
    """A folder whose cache is the user's."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, {"SELM_CACHE": f"{folder}/cache"}):
        yield Path(folder)


def draw(address: str, blocks: NDArray[np.int32], *, first_all_tiles: bool) -> float:
    """Draw blocks from an empty cache; returns how many."""
    with empty_folder() as folder:
        source = open_source(address)
        if first_all_tiles:
            source.tiles.has(blocks)
        atlas = draw_atlas(source, folder / "atlas", zooms=(17, 16), tile_px=64, blocks=blocks, progress=False)
    return float(len(atlas.keys))


def needed(zooms: tuple[int, ...], places: pd.DataFrame, tiles: MBTiles) -> dict[str, Any]:
    """The tiles that images of 64 pixels at these zooms show, and their size, for a place."""
    lat, lon = places["lat"].to_numpy(), places["lon"].to_numpy()
    plans = [Plan.make(lat, lon, zoom, 64, 64, tiles.has) for zoom in zooms]
    blocks = np.unique(np.concatenate([some for plan in plans for some in plan.blocks]), axis=0)
    size = sum(len(tiles.tile(BLOCK_ZOOM, x, y) or b"") for x, y in blocks.tolist())
    return {"places": len(places), "tiles_a_place": len(blocks) / len(places), "kb_a_place": size / len(places) / 1000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=96)
    parser.add_argument("--places", type=int, default=1000)
    parser.add_argument("--delay-ms", type=float, default=600.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    measure.options(parser)
    chosen = parser.parse_args()
    tiles = MBTiles(paths.sources() / "osm-japan" / "kanto.mbtiles")
    blocks = np.random.default_rng(chosen.seed).permutation(tiles.keys)[: chosen.blocks]
    server = Server(tiles, chosen.delay_ms / 1000)
    one, both = "tiles first, then drawn", "drawn while tiles come"
    rates = measure.interleaved(
        {
            one: lambda: draw(server.address, blocks, first_all_tiles=True),
            both: lambda: draw(server.address, blocks, first_all_tiles=False),
        },
        chosen.rounds, one, warmup=0,
    )  # fmt: skip
    server.stop()
    rows: list[dict[str, Any]] = [
        {"what": way, "blocks": len(blocks), "delay_ms": chosen.delay_ms, "blocks_per_s": rate.wall,
         "wall_ratio": rate.wall_ratio}
        for way, rate in rates.items()
    ]  # fmt: skip
    middle = np.median(tiles.keys, axis=0)
    near = tiles.keys[np.abs(tiles.keys - middle).max(1) <= 1]
    for name, zooms in (("zoom 17", (17,)), ("all zooms of japan-wide", WIDE)):
        alone = [needed(zooms, coordinates(tiles.keys, 1, seed), tiles) for seed in range(50)]
        rows.append({"what": f"needed: {name}, a place alone", **pd.DataFrame(alone).mean()})
        for where, keys in (("all over Kanto", tiles.keys), ("in one town", near)):
            places = coordinates(keys, chosen.places, chosen.seed)
            rows.append({"what": f"needed: {name}, places {where}", **needed(zooms, places, tiles)})
    measure.report("fetching", rows, chosen, rounds=chosen.rounds)


if __name__ == "__main__":
    main()

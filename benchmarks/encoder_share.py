"""How much of the time of embedding the encoder takes, for encoders of several sizes, once the map is there.

    python -m benchmarks.encoder_share ATLAS [--encoders resnet18:0.25:64 resnet18:1:64 resnet50:1:128] [--seconds 10]
                                             [--source MAP]

For each encoder (architecture : width : pixels; its weights are random, which costs the same), in rounds: the whole way
from coordinates to embeddings in this process, and the encoder alone on images that are cut and coloured already. The
ratio of the two rates is the encoder's share. Places lie as densely as a million would on the whole map: on a few
blocks side by side, each read for many places. With `--source`, the default encoder too, as it comes (several zooms,
eight orientations), at 2,000 places in the middle of that map, each of whose blocks is drawn already: the share is the
processor time within the encoder of that of all. Writes encoder_share.csv.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks import measure
from benchmarks.embedding import coordinates
from selm.embedding.embedder import Embedder
from selm.embedding.map_embedder import MapEmbedder
from selm.encoder import EncoderConfig, MapEncoder, new_encoder
from selm.maps.atlas import Atlas
from selm.views import colour

ENCODERS = ("resnet18:0.25:64", "resnet18:1:64", "resnet50:1:128")  # of demo and japan-cpu, between, of japan


def random_encoder(text: str, atlas: Atlas) -> MapEncoder:
    """The encoder that ``arch:width:pixels`` names, for the atlas."""
    arch, width, px = text.split(":")
    return new_encoder(
        EncoderConfig(
            arch=arch, width=float(width), zoom=max(atlas.zooms), image_px=int(px), tile_px=atlas.tile_px,
            style=atlas.style,
        ),
        0,
    )  # fmt: skip


def rates(embedder: Embedder, atlas: Atlas, n: int, rounds: int, seed: int) -> dict[str, measure.Rate]:
    """Rates of the whole and of the encoder alone, for n places."""
    first = np.random.default_rng(seed).choice(atlas.keys)
    near = np.abs(atlas.keys - first).max(axis=1).argsort(kind="stable")
    table = coordinates(atlas.keys[near[: max(1, round(n * len(near) / 1_000_000))]], n, seed)
    lat, lon = table["lat"].to_numpy(), table["lon"].to_numpy()
    opened = embedder.open()
    network = opened.encoder
    assert isinstance(network, torch.nn.Module)
    device = torch.device(opened.on)  # a network that is given is run by torch
    config, gpu = network.config, device.type == "cuda"
    palette = torch.tensor(atlas.palette, dtype=torch.float32, device=device) / 255
    images = colour(torch.randint(0, 8, (embedder.batch, config.image_px, config.image_px), device=device), palette)

    def whole() -> float:
        return float(sum(len(rows) for rows, _ in embedder.stream(lat, lon)))

    @torch.inference_mode()
    def alone() -> float:
        for start in range(0, n, embedder.batch):
            with torch.autocast("cuda", torch.bfloat16, enabled=gpu):
                network(images[: min(embedder.batch, n - start)]).float().cpu()
        return float(n)

    return measure.interleaved({"whole": whole, "encoder alone": alone}, rounds, "whole")


def default_row(source: str, seed: int) -> dict[str, object]:
    """The default encoder's row, at places of 4 km around the middle of a map."""
    embedder = MapEmbedder(map=source)
    west, south, east, north = embedder.map_bounds
    shift = np.random.default_rng(seed).uniform(-0.02, 0.02, (2, 2_000))
    lat, lon = (south + north) / 2 + shift[0], (west + east) / 2 + shift[1]
    embedder(lat, lon)  # draws
    encoder, within = embedder.encoder, 0.0
    features = encoder.features

    def timed(*images: Any) -> Any:
        nonlocal within
        start = time.thread_time()
        found = features(*images)
        within += time.thread_time() - start
        return found

    with mock.patch.object(encoder, "features", timed):
        start, busy = time.perf_counter(), time.process_time()
        embedder(lat, lon)
        seconds, busy = time.perf_counter() - start, time.process_time() - busy
    return {
        "encoder": f"the default, {len(encoder.config.zooms)} zooms, {encoder.config.orientations} orientations",
        "px": encoder.config.image_px, "batch": embedder.batch, "places": len(lat),
        "places_per_s": len(lat) / seconds, "places_per_cpu_s": len(lat) / busy, "share": within / busy,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("atlas", type=Path, metavar="ATLAS", help="a drawn atlas")
    parser.add_argument("--encoders", nargs="+", default=list(ENCODERS), metavar="ARCH:WIDTH:PIXELS")
    parser.add_argument("--source", metavar="MAP", help="also the default encoder, on this map; one thread")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each way in each round, about")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    measure.options(parser)
    chosen = parser.parse_args()
    atlas = Atlas(chosen.atlas)
    rows = []
    for text in chosen.encoders:
        embedder = Embedder(random_encoder(text, atlas), atlas, batch=chosen.batch)
        start = time.perf_counter()
        rates(embedder, atlas, chosen.batch, 1, chosen.seed)  # both ways, a round to warm up and one that counts
        n = max(chosen.batch, int(4 * chosen.batch / (time.perf_counter() - start) * chosen.seconds))
        both = rates(embedder, atlas, n, chosen.rounds, chosen.seed + 1)
        alone = both["encoder alone"]
        config = embedder.encoder.config
        rows.append({
            "encoder": f"{config.arch} x{config.width:g}", "px": config.image_px, "batch": chosen.batch, "places": n,
            "places_per_s": both["whole"].wall, "places_per_cpu_s": both["whole"].cpu,
            "share": 1 / (alone.wall_ratio if embedder.computes_on.startswith("cuda") else alone.cpu_ratio),
        })  # fmt: skip
    if chosen.source:
        rows.append(default_row(chosen.source, chosen.seed))
    measure.report("encoder_share", rows, chosen, among="encoder")


if __name__ == "__main__":
    main()

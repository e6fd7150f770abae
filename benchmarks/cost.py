"""What a profile will take: GPU-hours, storage and energy, computed from the rates that were measured.

    python -m benchmarks.cost [--profile paper] [--rates data/results/benchmarks/pretraining-japan.csv] [--watts 700]

The rate of pretraining comes from what was measured with the paper's encoder, else with the demo's: the share of the
arithmetic limit and the limit carry over to the profile's own encoder, views and batch, whose operations are counted
from its networks. A rate that was measured on a CPU gives core-hours; beside them stands what a GPU would take, at the
rate that the runs published for the profile japan-gpu reached together, and at the goal, marked as assumed. Storage is
counted from the drawn maps that are here (bytes a block) and from the sizes of checkpoints. Every assumption is a row
of the table. Writes cost.csv.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
from contextlib import nullcontext
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import measure
from benchmarks.embedding import coordinates
from benchmarks.steps import EmptyMap, empty_sampler
from reproduction import paths
from reproduction.pages import published
from reproduction.profiles import get_profile
from reproduction.rows import PRETRAINED
from reproduction.rows import ROWS as METHODS
from reproduction.settings import Profile
from selm import methods
from selm.encoder import EncoderConfig, MapEncoder
from selm.errors import InputError
from selm.maps.atlas import BLOCK_ZOOM

ASSUMED = (0.25, 790e12)  # share of the limit and limit of a GPU, as assumed: the goal of 6,000 images/s
ON_GPU = "japan-gpu"  # the profile whose rows were trained on one, side by side
PUE = 1.2  # energy of a data centre for each unit of the machines' own (ours: a usual figure)


@lru_cache(maxsize=64)
def arithmetic(profile: Profile, method: str) -> tuple[float, int]:
    """(floating-point operations a place: forward, backward and teacher; number of parameters), counted by torch.

    The networks live on the meta device: nothing is computed, whatever their size.
    """
    n = 2
    table = coordinates(EmptyMap.keys, 1_000, 0)
    sampler = empty_sampler(table["lat"].to_numpy(), table["lon"].to_numpy(), profile.views)
    px = profile.views.global_px
    with torch.device("meta"):
        encoder = MapEncoder(EncoderConfig(profile.encoder.arch, profile.encoder.width, image_px=px))
        made = methods.build(method, encoder, dataclasses.replace(profile.pretraining, batch=n), px)
    made.prepare(sampler)
    batch = made.draw(sampler, n, torch.Generator().manual_seed(0))
    parts = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    batch = dataclasses.replace(batch, **{k: v.to("meta") for k, v in parts.items() if isinstance(v, torch.Tensor)})
    made.to("meta")
    with (
        torch.device("meta"), FlopCounterMode(display=False) as counter,
        mock.patch.object(torch, "autocast", lambda *_, **__: nullcontext()),  # which this device does not know
    ):  # fmt: skip
        made.loss(batch, 0.5)["loss"].backward()
    return counter.get_total_flops() / n, sum(p.numel() for p in made.parameters())


def block_bytes(tile_px: int) -> dict[int, float]:
    """Bytes of a block by zoom at so many pixels a tile: bytes a pixel of the maps that are drawn here, times pixels.

    Larger drawings pack better, so that maps drawn with fewer pixels a tile give somewhat too much.
    """
    out: dict[int, float] = {}
    for zoom in (17, 16, 15, 14):
        shares = []
        for folder in sorted(paths.runs().glob(f"atlases/*-selm-*px-*/z{zoom}")):
            drawn = int(re.findall(r"-(\d+)px-", folder.parent.name)[0])
            sizes = [file.stat().st_size for file in islice(sorted(folder.glob("13/*/*.png")), 0, None, 7)]
            shares += [size / (drawn << (zoom - BLOCK_ZOOM)) ** 2 for size in sizes]
        if shares:
            out[zoom] = sum(shares) / len(shares) * (tile_px << (zoom - BLOCK_ZOOM)) ** 2
    return out


def gpu_rate(runs: pd.DataFrame) -> tuple[float, str]:
    """Floating-point operations a second of published runs that one device trained at the same time, and in words."""
    profile = get_profile(ON_GPU)
    flops = sum(row.images * arithmetic(profile, str(row.method))[0] for row in runs.itertuples())
    rate = float(flops) / float(runs["seconds"].max())
    words = f"{len(runs)} rows side by side on one {runs['device'].iloc[0]} reached {rate / 1e12:.0f} TFLOP/s"
    return rate, f"{words} ({profile.encoder.arch}, {profile.views.global_px} px, batch {profile.pretraining.batch})"


def estimate(
    profile: Profile, rates: pd.DataFrame, watts: float, on_gpu: pd.DataFrame | None = None
) -> list[dict[str, Any]]:  # fmt: skip
    """The rows of the table; `on_gpu` are runs as `gpu_rate` takes them."""
    ours = rates[rates["way"].str.startswith("ours")]
    measured = ours.sort_values("share_of_limit").iloc[0]  # the slowest of ours: no optimist's estimate
    limit = float(measured["matrix_gflops"]) * 1e9
    share = float(measured["share_of_limit"])
    gpu = "cpu" not in str(measured["device"]).lower() and "x86" not in str(measured["device"])
    unit = "GPU-hours" if gpu else "core-hours"
    rows: list[dict[str, Any]] = []

    def row(item: str, value: float, unit: str, how: str) -> float:
        rows.append({"item": item, "value": value, "unit": unit, "how": how})
        return value

    row("arithmetic limit", limit / 1e12, "TFLOP/s", f"large matrix products on {measured['device']}")
    row("share of it reached", share, "", f"{measured['way']}, {measured['encoder']}, {measured['px']} px")
    images, hours, parameters, work = profile.pretraining.images, 0.0, 0, 0.0
    for method in PRETRAINED:
        if not METHODS[method].in_paper:
            continue
        flops, parameters_ = arithmetic(profile, method)
        parameters = max(parameters, parameters_)
        seeds = profile.seeds_of(method)
        rate = share * limit / flops
        work += seeds * images * flops
        hours += row(
            f"pretraining {method}", seeds * images / rate / 3600, unit,
            f"{seeds} seed{'s' * (seeds > 1)} x {images:,} images at {rate:,.1f}/s ({flops / 1e9:.1f} GFLOP an image)",
        )  # fmt: skip
    row("pretraining, all", hours, unit, "sum of the rows above")
    row("energy", hours * watts * PUE / 1000, "kWh", f"{watts:g} W a {unit.split('-')[0]}, PUE {PUE} (assumed)")
    if not gpu and on_gpu is not None:
        reached, how = gpu_rate(on_gpu)
        measured_hours = row("on GPUs, at a rate that was reached", work / reached / 3600, "GPU-hours", how)
        how = f"700 W a GPU, PUE {PUE} (assumed)"
        row("energy on GPUs, at that rate", measured_hours * 700 * PUE / 1000, "kWh", how)
    if not gpu:
        assumed = work / (ASSUMED[0] * ASSUMED[1]) / 3600
        how = f"assumed, not measured: {ASSUMED[0]:.0%} of {ASSUMED[1] / 1e12:.0f} TFLOP/s (an H200 in bfloat16)"
        row("on GPUs, at the goal", assumed, "GPU-hours", how)
        row("energy on GPUs, at the goal", assumed * 700 * PUE / 1000, "kWh", f"700 W a GPU, PUE {PUE} (assumed)")
    tiles = profile.pretraining.n_places / 0.7  # 70 % of the places are pretrained on (section 4)
    sizes = block_bytes(profile.maps.tile_px)
    if sizes:
        blocks = math.ceil(tiles / 256)
        each = ", ".join(f"zoom {zoom}: {size / 1000:,.0f} kB" for zoom, size in sizes.items())
        how = f"at least {blocks:,} blocks of 256 places, by the bytes a pixel of those drawn here ({each} a block)"
        row("maps", blocks * sum(sizes.values()) / 2**30, "GiB", how)
        row("maps on a GPU", blocks * (2048**2 + 1024**2) / 2**30, "GiB", "uint8 blocks of zooms 17 and 16")
    runs = sum(profile.seeds_of(m) for m in PRETRAINED if METHODS[m].in_paper)
    how = f"{runs} runs: weights, their mean, and AdamW's two moments in float32"
    row("checkpoints", runs * parameters * 4 * 4 / 2**30, "GiB", how)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="paper")
    like_paper = measure.RESULTS / "pretraining-japan.csv"  # measured with the paper's encoder and sizes of views
    default = like_paper if like_paper.exists() else measure.RESULTS / "pretraining.csv"
    parser.add_argument("--rates", type=Path, default=default)
    parser.add_argument("--watts", type=float, help="of one GPU (700: H200's limit) or core; by default 700 or 10")
    measure.options(parser)
    chosen = parser.parse_args()
    try:
        if not chosen.rates.exists():
            raise InputError(f"{chosen.rates}: no such file; python -m benchmarks.pretraining makes it")
        rates = pd.read_csv(chosen.rates)
        watts = chosen.watts or (10.0 if "x86" in str(rates["device"].iloc[0]) else 700.0)
        rows = estimate(get_profile(chosen.profile), rates, watts, published.results("runs", ON_GPU))
    except InputError as error:
        print(f"cost: {error}")
        return 2
    measure.report("cost", rows, chosen, profile=chosen.profile, rates=chosen.rates.name)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

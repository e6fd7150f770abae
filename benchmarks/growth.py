"""How time and memory grow with the number of places, of map blocks, of classes and of trials, and the size of images.

    python -m benchmarks.growth [--only places blocks image_px classes trials] [--rounds 3]

Every point is measured in a process of its own, forked from this one, so that its memory is that of the work alone;
time is processor time, the least of some rounds. `slope` is that of log time against log size over the larger half of
the sizes: 1 is linear. Blocks are of osm-japan/kanto.mbtiles below `SELM_DATA`; without it they are left out, which is
said. Writes growth.csv; the book draws it.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import gc
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import measure
from benchmarks.steps import EmptyMap, empty_sampler
from reproduction import paths
from reproduction.computed import encoders
from reproduction.profiles import get_profile
from reproduction.settings import Profile
from selm import distributed, methods, settings
from selm.embedding.blocks import Plan
from selm.embedding.search import Nearest
from selm.encoder import new_encoder
from selm.pretrain import Trainer
from selm.probes.folds import random_folds
from selm.probes.frozen import frozen, logistic, ridge
from selm.views import DeviceAtlas

Work = Callable[[], object]
PIXELS = "pixels: four times as many for twice the side"
# what grows, with what, its sizes, what to do (given a size, prepare and return the work), and a reason for its slope
Growth = tuple[str, str, tuple[int, ...], Callable[[int], Work], str]
PLACES = (1_000, 10_000, 100_000, 1_000_000)


def _places(n: int) -> tuple[Any, Any]:
    from benchmarks.embedding import coordinates

    table = coordinates(EmptyMap.keys, n, 0)
    return table["lat"].to_numpy(), table["lon"].to_numpy()


def planning(n: int) -> Work:
    """Which images `selm embed` needs of which blocks."""
    lat, lon = _places(n)
    return lambda: Plan.make(lat, lon, 17, 128, 128, EmptyMap.keys)


def drawing_rows(n: int) -> Work:
    """A hundred batches' draws with eq. 1's priorities, the distribution function included."""
    empty = DeviceAtlas([EmptyMap()], (17, 16))
    lat, lon = _places(n)

    def work() -> None:
        sampler = empty_sampler(lat, lon, settings.Views(), empty)
        generator = torch.Generator().manual_seed(0)
        for _ in range(100):
            sampler.draw_rows(256, generator)

    return work


def exact_search(n: int) -> Work:
    """Opening and asking exact search for the neighbours of one place, among embeddings of 128 numbers."""
    embeddings = np.random.default_rng(0).standard_normal((n, 128), np.float32)
    return lambda: Nearest(embeddings, np.zeros(n), np.zeros(n)).query(embeddings[0], 10)


def _kanto() -> Path:
    return paths.sources() / "osm-japan" / "kanto.mbtiles"


def drawing_blocks(n: int) -> Work:
    """Drawing n random blocks of Kanto at zooms 17 and 16, 64 pixels a tile, in one process."""
    from selm.maps.draw import draw_atlas
    from selm.maps.sources import open_source

    source = open_source(_kanto())
    blocks = np.random.default_rng(0).permutation(source.keys)[:n]

    def work() -> None:
        with tempfile.TemporaryDirectory() as out:
            draw_atlas(source, out, zooms=(17, 16), tile_px=64, blocks=blocks, workers=1, progress=False)

    return work


def _step(profile: Profile, batch: int) -> Work:
    length = dataclasses.replace(profile.pretraining, batch=batch, images=10_000_000)
    torch.manual_seed(0)
    encoder = new_encoder(encoders.encoder_config(profile), 0)
    method = methods.build("gps_selm", encoder, length, profile.views.global_px)
    trainer = Trainer(method, encoders.sampler(profile), length, 0, distributed.device())
    trainer.train_step()
    return trainer.train_step


def step_by_px(px: int) -> Work:
    """A step of GPS-SELM with the demo's encoder on 16 places, by the side of its global views."""
    demo = get_profile("demo")
    return _step(dataclasses.replace(demo, views=dataclasses.replace(demo.views, global_px=px, local_px=px // 2)), 16)


def _features(n: int = 800, d: int = 128) -> Any:
    return np.random.default_rng(0).standard_normal((n, d)).astype(np.float32)


def _codes(classes: int, n: int = 800) -> Any:
    return np.arange(n) % classes


def frozen_by_classes(classes: int) -> Work:
    """The linear probe, 3 epochs of one draw, by the number of classes."""
    x, folds = _features(), random_folds(800, [0])
    return lambda: frozen(x, _codes(classes), folds, task="classification", epochs=(3,))


def logistic_by_classes(classes: int) -> Work:
    """Logistic regression at its minimum, one draw, by the number of classes."""
    x, folds = _features(), random_folds(800, [0])
    return lambda: logistic(x, _codes(classes), folds, tolerance=1e-4)


def frozen_by_trials(trials: int) -> Work:
    """The linear probe on prices, 5 epochs, by the number of trials (draws of ten folds)."""
    x, folds = _features(), random_folds(800, range(trials))
    return lambda: frozen(x, x[:, 0], folds, task="regression", epochs=(5,))


def ridge_by_trials(trials: int) -> Work:
    """Ridge on prices by the number of trials (draws of ten folds)."""
    x, folds = _features(), random_folds(800, range(trials))
    return lambda: ridge(x, x[:, 0], folds)


GROWTHS: tuple[Growth, ...] = (
    ("places", "planning an embedding", PLACES, planning, "sorting: n log n"),
    ("places", "drawing 100 batches", PLACES, drawing_rows, "one pass to make the distribution function"),
    ("places", "exact search", PLACES, exact_search, "every embedding is looked at"),
    ("blocks", "drawing an atlas", (1, 8, 64, 512), drawing_blocks, "each block is drawn; memory stays"),
    ("image_px", "pretraining step", (32, 64, 128), step_by_px, PIXELS),
    ("classes", "linear probe", (10, 30, 100, 300), frozen_by_classes, "weights of all classes"),
    ("classes", "logistic regression", (10, 30, 100, 300), logistic_by_classes, "weights of all, rarer classes"),
    ("trials", "linear probe", (1, 2, 5, 10, 20), frozen_by_trials, "models of all trials"),
    ("trials", "ridge", (1, 2, 5, 10), ridge_by_trials, "one decomposition a fold"),
)  # fmt: skip


def _peak_kib() -> int:
    """The most memory that this process has had so far, KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)


def _give_back() -> None:
    """Hand freed memory back to the system: what the parent once used would hide what the work takes."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc's
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):  # Linux: the peak starts anew from here
        Path("/proc/self/clear_refs").write_text("5")


def _in_child(make: Callable[[int], Work], size: int, rounds: int, answer: Any) -> None:
    _give_back()
    work = make(size)
    before = _peak_kib()
    times = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    after = _peak_kib()
    answer.send((min(times), (after - before) / 2**10, after / 2**10))


def point(make: Callable[[int], Work], size: int, rounds: int) -> tuple[float, float, float]:
    """(processor seconds, MiB that the work added to what it was given, MiB of the process) at one size."""
    here, there = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_in_child, args=(make, size, rounds, there))
    child.start()
    there.close()
    try:
        answer: tuple[float, float, float] = here.recv()
        return answer
    except EOFError:
        child.join()
        raise SystemExit(f"growth: the process for size {size} ended with status {child.exitcode}") from None
    finally:
        child.join()


def slope(sizes: list[int], seconds: list[float]) -> float:
    """The exponent of growth over the larger half of the sizes."""
    half = len(sizes) // 2
    return float(np.polyfit(np.log(sizes[half - 1 :]), np.log(np.maximum(seconds[half - 1 :], 1e-6)), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=["places", "blocks", "image_px", "classes", "trials"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--largest", type=int, help="leave out sizes above this (tests)")
    measure.options(parser)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for grows, what, sizes, make, reason in GROWTHS:
        if chosen.only and grows not in chosen.only:
            continue
        if grows == "blocks" and not _kanto().exists():
            print(f"{what} by {grows}: left out, there is no {_kanto()}", file=sys.stderr)
            continue
        print(f"{what} by {grows}", file=sys.stderr, flush=True)
        kept = [size for size in sizes if chosen.largest is None or size <= chosen.largest]
        points = [point(make, size, chosen.rounds) for size in kept]
        exponent = slope([s**2 if grows == "image_px" else s for s in kept], [p[0] for p in points])
        rows += [
            {"grows": grows, "what": what, "size": size, "seconds": seconds, "mib_added": added, "mib": whole,
             "slope": exponent, "why": reason}
            for size, (seconds, added, whole) in zip(kept, points, strict=True)
        ]  # fmt: skip
    measure.report("growth", rows, chosen)


if __name__ == "__main__":
    main()

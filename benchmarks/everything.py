"""All benchmarks of this machine, one after the other, each in a process of its own.

    python -m benchmarks.everything [--reference DINO] [--minutes 10] [--only NAME …]

For an idle machine. Needs `SELM_DATA` with osm-japan/kanto.mbtiles for drawing and embedding; what cannot run is named
at the end. Writes data/results/benchmarks/*.csv.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import measure
from reproduction import paths
from reproduction.computed import encoders
from reproduction.profiles import get_profile
from selm import encoder


def programs(reference: Path | None, minutes: float) -> dict[str, list[str]]:
    """What to run, by name."""
    peer = ["--reference", str(reference)] if reference else []
    source = paths.sources() / "osm-japan" / "kanto.mbtiles"
    model = paths.runs() / "benchmarks" / "random-encoder"
    if not (model / "config.json").exists():
        encoder.new_encoder(encoders.encoder_config(get_profile("demo")), 0).save_pretrained(model)
    ready = sorted(paths.runs().glob("atlases/kanto-selm-*-64px-*/atlas.json"))
    maps = [str(source), *(str(file.parent) for file in ready[:1])]
    return {
        "drawing": [str(source)],
        "pretraining": peer,
        "pretraining-japan": ["--like", "japan", "--batch", "4", "--no-peers", "--steps", "1"],
        "profile_step": [],
        "embedding": ["--model", str(model), "--map", *maps, "--minutes", f"{minutes:g}"],
        "coordinates": [],
        **({"encoder_share": [str(ready[0].parent)]} if ready else {}),
        "search": [],
        "probes": [],
        "growth": [],
        "cost": [],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, help="a checkout of facebookresearch/dino")
    parser.add_argument("--minutes", type=float, default=10.0, help="for one call of embedding")
    parser.add_argument("--only", nargs="+", metavar="NAME")
    measure.options(parser)
    chosen = parser.parse_args()
    failed = []
    for name, words in programs(chosen.reference, chosen.minutes).items():
        if chosen.only and name not in chosen.only:
            continue
        where = ["--out", str(chosen.out)]
        start = time.perf_counter()
        program = f"benchmarks.{name.partition('-')[0]}"
        done = subprocess.run([sys.executable, "-m", program, *words, *where], check=False)
        print(f"{name}: {time.perf_counter() - start:.0f} s, status {done.returncode}", file=sys.stderr, flush=True)
        failed += [name] if done.returncode else []
    if failed:
        print(f"not done: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())

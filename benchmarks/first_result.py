"""From nothing to the first embedding: a new environment, `pip install ".[embed]"`, and `selm embed` of one coordinate.

    python -m benchmarks.first_result [--map …/osm-japan/tochigi_north.mbtiles] [--lat 37 --lon 139.9]

The environment is a folder of its own that goes when all is measured; how long the installation takes depends on where
packages come from and on what pip has kept. Then the same coordinate twice: drawn in the call, and once more. Processor
seconds and memory of each. Writes first_result.csv.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import measure
from reproduction import paths


def step(what: str, command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Run a command; its row. Raises CalledProcessError where it fails."""
    busy, start = measure.cpu_seconds(), time.perf_counter()
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return {"step": what, "seconds": time.perf_counter() - start, "cpu_seconds": measure.cpu_seconds() - busy}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--map", type=Path, default=paths.sources() / "osm-japan" / "tochigi_north.mbtiles")
    parser.add_argument("--lat", type=float, default=37.0)
    parser.add_argument("--lon", type=float, default=139.9)
    parser.add_argument("--again", type=int, default=3, help="how often the map is there already")
    measure.options(parser)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "one.csv").write_text(f"lat,lon\n{chosen.lat},{chosen.lon}\n")
        # nothing of this process's own packages may help out
        others = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        others["SELM_CACHE"] = str(folder / "cache")
        bin_ = folder / "new" / "bin"
        embed = [str(bin_ / "selm"), "embed", str(folder / "one.csv"), "--map", str(chosen.map.resolve()),
                 "-o", str(folder / "out.parquet")]  # fmt: skip
        package = f"{paths.repository()}[embed]"
        rows = [
            step("a new environment", [sys.executable, "-m", "venv", str(folder / "new")], others),
            step("pip install .[embed]", [str(bin_ / "pip"), "install", "-q", package], others),
            step("selm embed, the first", embed, others),
        ]
        again = [step("selm embed, map ready", embed, others) for _ in range(chosen.again)]
        rows.append(min(again, key=lambda row: float(row["cpu_seconds"])))
        size = sum(path.stat().st_size for path in (folder / "new").rglob("*") if path.is_file())
    for row in rows:
        row["mib_installed"] = size / 2**20 if row["step"].startswith("pip") else None
    measure.report("first_result", rows, chosen, map=chosen.map.name)


if __name__ == "__main__":
    main()

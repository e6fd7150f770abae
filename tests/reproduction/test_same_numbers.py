"""The profile `smoke` gives the rows that it gave before the code was split into the library and the reproduction.

``same_numbers/`` holds every row of every table, figure and chapter of that profile, with its keys and its numbers as
the code of commit 689196edbab7 computes them with today's settings of the profile, which has become smaller since
(`surroundings.n_points`, `probing.n_frozen`, `rounds` and `trees`, `land_cover.n_places`, `retrieval.gallery`);
without provenance. On a machine like that of `machine.json` (processor,
instructions, torch and the other libraries that compute) all of them must be the same to the last bit. Elsewhere
pretraining and trees may end otherwise. Compared there are the columns, the number of rows and everything that is not a
floating number; and, to a thousandth, the errors of the closed form on features that nothing was trained for.

Rows that have been added since are left out of the comparison (`as_before`); those that are here may not change.

The ablations, the tuning and the recolouring have no rows here: the profile has no validation regions. Nor has the
chapter on what an embedding knows, whose rows are of the pretrainings that there are. The chapters on several views,
on hierarchies and on distilled encoders came later.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import platform
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from reproduction import contents, report
from reproduction.beyond.location_encoders.negatives import KINDS
from reproduction.computed import encoders
from reproduction.experiments.pretrainings import pretrainings
from reproduction.profiles import get_profile
from reproduction.titles import PEERS, WHITENED

pytest.importorskip("mapnik")
pytest.importorskip("pyrosm")

FOLDER = Path(__file__).parent / "same_numbers"
FILES = sorted(FOLDER.glob("*.csv.gz"))
LIBRARIES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "pandas", "mapnik", "pyrosm")
UNTRAINED = ("random_init", "raw_gps", "raw_gps_standardised")
RELATIVE = 1e-3


def machine() -> dict[str, Any]:
    """What decides whether the same code gives the same bits."""
    about = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    processor = [found[1].strip() for field in ("model name", "cpu family", "model")
                 if (found := re.search(rf"^{field}\s*:(.*)$", about, re.M))]  # fmt: skip
    return {
        "machine": platform.machine(),
        "processor": processor,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def computed(kind: str, name: str) -> pd.DataFrame:
    profile = get_profile("smoke")
    if kind == "figure":  # figures compare the methods whose pretraining is complete
        for method, seed in pretrainings(profile):
            encoders.pretrained(profile, method, seed, progress=False)
    if kind == "table":
        return contents.table(profile, name, progress=False)
    return contents.figure(profile, int(name)) if kind == "figure" else contents.chapter(profile, name)


def without_provenance(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns=[column for column in report.PROVENANCE if column in table])


def as_before(table: pd.DataFrame) -> pd.DataFrame:
    """Without the rows that have been added since: Figure 5's whitened ones, a peer's where it is installed, and those
    of a contrast whose negatives are chosen."""
    if "negatives" in table:
        return table[~table["negatives"].isin(list(KINDS))].reset_index(drop=True)
    if "method" not in table:
        return table
    added = table["method"].str.endswith(WHITENED) | table["method"].isin(list(PEERS))
    return table[~added].reset_index(drop=True)


def through_text(table: pd.DataFrame) -> pd.DataFrame:
    """As a table is once it was written and read; floats keep every bit."""
    return read(io.StringIO(table.to_csv(index=False)))


def read(source: Any) -> pd.DataFrame:
    return pd.read_csv(source, float_precision="round_trip", low_memory=False)


def test_every_table_figure_and_chapter_is_here() -> None:
    names = {f"table-{name}" for name in contents.TABLES} | {f"figure-{number}" for number in contents.FIGURES}
    names |= {f"chapter-{name}" for name in contents.CHAPTERS} - {
        "chapter-ablations",
        "chapter-tuning",
        "chapter-probe-tuning",
        "chapter-recolouring",
        "chapter-knowledge",
        "chapter-multi-view",
        "chapter-hierarchies",
        "chapter-distilled",
    }
    assert {file.name.removesuffix(".csv.gz") for file in FILES} == names


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name.removesuffix(".csv.gz"))
def test_the_rows_are_what_they_were(file: Path) -> None:
    kind, _, name = file.name.removesuffix(".csv.gz").partition("-")
    before, now = read(file), through_text(as_before(without_provenance(computed(kind, name))))
    assert list(now.columns) == list(before.columns)
    assert len(now) == len(before)
    if machine() == json.loads((FOLDER / "machine.json").read_text()):
        if file.name.startswith("figure-2"):
            # since then n - 1 of n blocks are drawn, and a gain is a sum of blocks: its last digit may differ
            np.testing.assert_allclose(now.pop("excess"), before.pop("excess"), rtol=0, atol=1e-12)
            now, before = (table.drop(columns=["low", "high"]) for table in (now, before))
        pd.testing.assert_frame_equal(now, before, check_exact=True)
        return
    keys = before.select_dtypes(exclude="float").columns
    pd.testing.assert_frame_equal(now[keys], before[keys])
    if {"method", "setting", "metric"} <= set(before):
        same = before["method"].isin(UNTRAINED) & (before["setting"] == "frozen-closed") & (before["metric"] == "mse")
        np.testing.assert_allclose(now.loc[same, "value"], before.loc[same, "value"], rtol=RELATIVE)

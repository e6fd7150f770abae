"""Committed results: where they lie, and how a page reads one table of them.

A table is ``data/results/PROFILE/NAME.csv``. Whole results, checked and put together, are read by
`reproduction.report`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reproduction import paths, report
from selm.errors import InputError

REFERENCES = (*report.REFERENCES.values(), *report.NETWORK.values())  # the best first; the last has fewest rows
MEASUREMENTS = "benchmarks"  # what the scripts of `benchmarks/` measured lies beside the profiles
_DTYPES = {"run_id": str, "commit": str, "data": str, "date": str}  # never read as numbers


def results_folder() -> Path:
    """Where committed results lie, a folder a profile."""
    return paths.repository() / "data" / "results"


def profile_with(name: str, *profiles: str) -> str | None:
    """The first of these profiles (by default, of `REFERENCES`) that has the table `name`, or None."""
    folder = results_folder()
    return next((profile for profile in profiles or REFERENCES if (folder / profile / f"{name}.csv").exists()), None)


def results(name: str, *profiles: str) -> pd.DataFrame | None:
    """The table `name` (`claims`, `table1`, `figure5`, …) of `profile_with`, or None where there is none."""
    profile = profile_with(name, *profiles)
    return None if profile is None else pd.read_csv(results_folder() / profile / f"{name}.csv", dtype=_DTYPES)


def sheet_images(name: str, profile: str, n: int) -> NDArray[np.uint8] | None:
    """uint8 (n, px, px, 3): the first n images of a published sheet, ``NAME.png``, or None where there is none.

    `reproduction.experiments.figure2_tsne.sheet` makes such sheets.
    """
    from PIL import Image

    columns = 10
    file = results_folder() / profile / f"{name}.png"
    if not file.exists():
        return None
    with Image.open(file) as picture:
        canvas = np.asarray(picture.convert("RGB"))
    px = canvas.shape[1] // columns
    if n > columns * (canvas.shape[0] // px):
        raise InputError(f"{file}: a sheet of {columns * (canvas.shape[0] // px)} images, {n} are asked for")
    corners = [(i // columns * px, i % columns * px) for i in range(n)]
    return np.stack([canvas[y : y + px, x : x + px] for y, x in corners]) if n else np.zeros((0, px, px, 3), np.uint8)


def other_paper(name: str) -> pd.DataFrame:
    """A table of another paper as printed, from ``data/paper/NAME.csv``."""
    file = paths.repository() / "data" / "paper" / f"{name}.csv"
    if not file.exists():
        raise InputError(f"{file}: no such table")
    return pd.read_csv(file)

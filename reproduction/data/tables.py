"""Reading a file of a data set that is a table, whatever its format, and saying what is in it."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pandas as pd

from reproduction.data.registry import DATA_SETS, get_data_set
from selm.errors import InputError

SHOWN = 5  # rows


def read(name: str, path: str | Path) -> pd.DataFrame:
    """The table of a file of the data set `name`, by the data set's own reader.

    Raises InputError for a data set that is no table, and naming the file and what in it cannot be used.
    """
    data_set = get_data_set(name)
    if not data_set.table:
        tables = ", ".join(known for known, other in DATA_SETS.items() if other.table)
        raise InputError(f"{name} is not a table (tables are: {tables}); {data_set.reader} reads it")
    module, _, function = data_set.reader.rpartition(".")
    table: pd.DataFrame = getattr(importlib.import_module(module), function)(path)
    return table


def summary(table: pd.DataFrame) -> str:
    """The number of rows, the columns, the bounding box in degrees and the first rows of a table of `read`."""
    if "geometry" in table:
        west, south, east, north = table.geometry.total_bounds  # type: ignore[attr-defined]
    else:
        lat, lon = table["lat"].to_numpy(np.float64), table["lon"].to_numpy(np.float64)
        west, south, east, north = lon.min(), lat.min(), lon.max(), lat.max()
    lines = [
        f"{len(table)} rows of {', '.join(map(str, table.columns))}",
        f"{south:.4f} to {north:.4f} N, {west:.4f} to {east:.4f} E",
    ]
    shown = pd.DataFrame(table.drop(columns="geometry", errors="ignore")).head(SHOWN)
    return "\n".join([*lines, shown.to_string(index=False)])

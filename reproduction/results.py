"""Tables of results: their CSV files, where their rows come from, and results that are computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from reproduction.settings import Profile
from selm import checkpoints, distributed, files
from selm.provenance import provenance

TEXT = {"run_id": str, "commit": str, "data": str}  # columns of hashes, some of which look like numbers


def read_csv(file: str | Path) -> pd.DataFrame:
    """A table of results from a CSV file."""
    return pd.read_csv(file, dtype=TEXT)


def by_category(table: pd.DataFrame) -> pd.DataFrame:
    """The same with texts as categories, by which rows are chosen much faster."""
    return table.astype(dict.fromkeys(table.select_dtypes("str"), "category"))


def write_csv(file: str | Path, table: pd.DataFrame, *, float_format: str | None = None) -> None:
    """Write a table as a CSV file, atomically; the same on every system."""
    files.write_text(file, table.to_csv(index=False, lineterminator="\n", float_format=float_format))


def origin(profile: Profile, data: str, *, stand_in: bool | None = None, run_id: str | None = None) -> dict[str, Any]:
    """The columns that say where rows come from: profile, run, data, commit, device, torch's version and date.

    data: a fingerprint, of which 12 digits are kept.  stand_in: whether the labels are (by default the profile's).
    run_id: left out where rows are of several runs.
    """
    run = {} if run_id is None else {"run_id": run_id}
    return {
        "profile": profile.name, **run, "stand_in": profile.stand_ins if stand_in is None else stand_in,
        "data": data[:12], **provenance(distributed.device()),
    }  # fmt: skip


def computed_once(file: Path, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table in a CSV file, which `make` makes where it is not there yet."""
    if not file.exists():
        write_csv(file, make())
    return read_csv(file)


@dataclass(frozen=True)
class Kept:
    """A result that is computed once: its rows (BASE.csv), and the tensors that they come from (BASE.safetensors)."""

    base: Path

    @property
    def csv(self) -> Path:
        return self.base.with_name(f"{self.base.name}.csv")

    @property
    def safetensors(self) -> Path:
        return self.base.with_name(f"{self.base.name}.safetensors")

    def is_there(self) -> bool:
        return self.csv.exists() and self.safetensors.exists()

    def rows(self) -> pd.DataFrame:
        return read_csv(self.csv)

    def tensors(self) -> dict[str, Tensor]:
        return checkpoints.load_tensors(self.safetensors)[0]

    def point_scores(self, metric: str, evaluation: int = 0) -> NDArray[np.float64]:
        """Each point's score (N,), averaged over the trials that tested it; NaN where none did."""
        return np.asarray(self.tensors()[metric][evaluation].double().nanmean(dim=0))

    def keep(self, rows: pd.DataFrame, tensors: Mapping[str, Tensor]) -> None:
        checkpoints.save_tensors(self.safetensors, tensors)
        write_csv(self.csv, rows)

    def once(self, make: Callable[[], tuple[pd.DataFrame, Mapping[str, Tensor]]]) -> pd.DataFrame:
        """The rows, which `make` makes with their tensors where they are not there yet."""
        if not self.is_there():
            self.keep(*make())
        return self.rows()

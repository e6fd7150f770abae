"""What is published already, and what is new: results grow from one run to the next, on whatever machine.

`runs/` stays where it was computed, but `data/results` travels with the code. So what is published is not replaced by
less: an entry that this machine has not computed keeps its rows, with the commit and date that they came with, as long
as they are of today's data. A method that is pretrained anew takes away all its rows of the run before, so that a table
never holds two trainings of one row. Whoever changes what an entry's numbers mean takes its rows out of the published
file.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from reproduction.rows import PRETRAINED
from selm.errors import InputError

_BLOCKS = ("target", "setting", "method", "seed")  # scores by spatial block, the one split that they are of
# What tells one entry of a file from another: its rows are replaced together.
ENTRIES: dict[str, tuple[str, ...]] = {
    "runs.csv": ("method", "seed"),
    "curves.csv": ("method", "seed"),
    "table1.csv": ("target", "split", "setting", "method", "seed"),
    "table2.csv": ("target", "split", "setting", "method", "seed"),
    "table3.csv": ("target", "split", "setting", "method", "seed"),
    "table4.csv": ("target", "split", "setting", "method", "seed"),
    "table1-blocks.csv": _BLOCKS,
    "table2-blocks.csv": _BLOCKS,
    "table3-blocks.csv": _BLOCKS,
    "figure5-blocks.csv": ("region", *_BLOCKS),
    "figure2.csv": ("label", "space", "method", "seed"),
    "figure3.csv": ("kind", "method", "seed"),
    "figure4.csv": ("target", "split", "setting", "method", "seed"),
    "figure5.csv": ("area", "query", "method", "seed"),
    "surroundings.csv": ("split", "setting", "method", "seed"),
    "knowledge.csv": ("region", "target", "setting", "buffer_km", "method", "seed"),
    "knowledge-blocks.csv": ("region", "target", "setting", "buffer_km", "method", "seed"),
    "ablations.csv": ("method", "variant", "seed"),
    "probe-tuning.csv": ("method", "seed"),
    "tuning.csv": ("method", "change", "seed"),
    "recolouring-tries.csv": ("method", "change", "seed"),
    "recolouring.csv": ("area", "query", "method", "change", "seed"),
    "tuned.csv": ("method", "variant", "seed"),
    "distilled.csv": ("split", "position", "jitter_m", "seed"),
    "multi-view.csv": ("features", "model", "split"),
    "location-encoders.csv": (
        "table", "target", "split", "position", "network", "objective", "coverage", "setting", "seed",
    ),
}  # fmt: skip
# Columns that say which data set a row is about: such rows are of one data set, or the older ones go.
_ABOUT = ("area", "region", "target")
_TRAINED = ("region", "method", "variant", "change", "seed")  # columns that say which pretraining a row is of


def merged(name: str, new: pd.DataFrame, old: pd.DataFrame | None) -> pd.DataFrame:
    """The rows of a file to publish: `new` ones, and those of `old` that they do not replace.

    A file that is computed as a whole is `new` alone. Verdicts are not merged at all: they are computed from what is
    published. Raises InputError where `old` lacks a column that tells entries apart.
    """
    if old is None or not len(old):
        return new
    if name == "figure2-places.csv":
        return _merged_columns(new, old)
    if name not in ENTRIES:
        return new
    key = list(ENTRIES[name])
    absent = [column for column in key if column not in old]
    if absent:
        raise InputError(f"{name}: what is published has no column '{absent[0]}'; take the file away to begin anew")
    keep = ~_keys(old, key).isin(_keys(new, key))
    keep &= _of_todays_data(new, old)
    keep &= _of_todays_run(new, old)
    return _in_order(new, old[keep.to_numpy()], _keys(old, key), key)


def gone(name: str, table: pd.DataFrame, old: pd.DataFrame | None) -> int:
    """How many entries of the published rows `old` a `merged` table has no more: of other data, or of another
    pretraining, than today's."""
    if old is None or name not in ENTRIES or not len(old):
        return 0
    key = list(ENTRIES[name])
    return len(set(_keys(old, key)) - set(_keys(table, key)))


def _keys(table: pd.DataFrame, key: list[str]) -> pd.Series:
    columns = [table[name].astype(object).where(table[name].notna(), "").astype(str) for name in key]
    return pd.Series(["|".join(parts) for parts in zip(*columns, strict=True)], index=table.index, dtype=object)


def _of_todays_data(new: pd.DataFrame, old: pd.DataFrame) -> pd.Series:
    """Whether each old row is of the data that new rows on the same thing are of (or there are none)."""
    if "data" not in old or "data" not in new:
        return pd.Series(True, index=old.index)
    about = [column for column in _ABOUT if column in old and column in new]
    if not about:
        return old["data"].isin(new["data"])
    known = new.groupby(_keys(new, about))["data"].agg(set)
    return pd.Series(
        [key not in known or data in known[key] for key, data in zip(_keys(old, about), old["data"], strict=True)],
        index=old.index,
    )


def _of_todays_run(new: pd.DataFrame, old: pd.DataFrame) -> pd.Series:
    """Whether each old row is of the pretraining that new rows of the same method, seed (and region) are of."""
    about = [column for column in _TRAINED if column in old and column in new]
    everything = pd.Series(True, index=old.index)
    if "run_id" not in old or "run_id" not in new or not {"method", "seed"} <= set(about):
        return everything
    trained = new[new["method"].isin(PRETRAINED)]
    if not len(trained):
        return everything
    known = trained["run_id"].groupby(_keys(trained, about)).agg(set)
    return pd.Series(
        [key not in known or run in known[key] for key, run in zip(_keys(old, about), old["run_id"], strict=True)],
        index=old.index,
    )


def _in_order(new: pd.DataFrame, kept: pd.DataFrame, before: pd.Series, key: list[str]) -> pd.DataFrame:
    """Entries where they were, new ones behind them; rows within an entry as they are."""
    both = pd.concat([new, kept], ignore_index=True)
    keys = _keys(both, key)
    order = list(dict.fromkeys([*before, *_keys(new, key)]))
    rank = keys.map({one: number for number, one in enumerate(order)})
    return both.iloc[np.argsort(rank.to_numpy(), kind="stable")].reset_index(drop=True)


def _merged_columns(new: pd.DataFrame, old: pd.DataFrame) -> pd.DataFrame:
    """The same places with the columns of rows that are not there today."""
    where = ["lat", "lon"]
    if len(new) != len(old) or not np.allclose(new[where], old[where], atol=1e-6):
        return new
    return pd.concat([new, old[[column for column in old if column not in new]]], axis=1)

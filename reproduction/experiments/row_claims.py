"""Claims as a function of published rows: "a beats b" by the rows of a table and their scores by spatial block.

A table's file has a row a trial; beside it lies a file of its rows' scores under spatial blocks, ``NAME-blocks.csv``
(`COLUMNS`). A claim's gain is the difference of the rows' means. Its interval comes from the blocks
(`selm.probes.claims`); where those of a side are not there, or are not of the rows that are there, no verdict can be
given: ``undecided``, with `NOT_KEPT` as the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from reproduction.report import HIGHER_IS_BETTER
from reproduction.results import Kept
from selm.errors import InputError
from selm.probes.claims import N_BOOT, Draws, block_scores, gain, judge

COLUMNS = (
    "region", "target", "metric", "buffer_km", "setting", "method", "seed", "epochs", "block", "points", "score",
    "data",
)  # fmt: skip
# Smaller differences do not matter: stated before anything was tested.
MARGINS = {"mse": 0.02, "top1": 0.01, "top5": 0.01, "ap50": 0.01, "recall1": 0.01}
NOT_KEPT = "scores were not kept"
NO_ROW = "no finished row of "
ORIGIN = ("profile", "stand_in", "data", "commit", "device", "torch", "date")  # where the newest row of a claim is from
_ROUNDING = 2e-5  # published numbers have six digits behind the point


def blocks_of(scores: ArrayLike, blocks: ArrayLike, region: ArrayLike, *, seed: int, **columns: Any) -> pd.DataFrame:
    """Rows of a ``NAME-blocks.csv``: (T, N) scores by trial and point, (N,) the block and the region of each point."""
    own = dict(block_scores(scores, blocks, region=region, seed=seed))
    return pd.DataFrame({name: own[name] if name in own else columns[name] for name in COLUMNS})


def blocks_of_kept(
    kept: Kept, blocks: ArrayLike, region: ArrayLike, *, seed: int, **columns: Any
) -> list[pd.DataFrame]:
    """The same from a kept entry, for each of its metrics and numbers of epochs."""
    rows = kept.rows()
    facts = {**columns, "seed": seed, "data": rows["data"].iloc[0]}
    return [
        blocks_of(by_trial, blocks, region, metric=metric, epochs=int(epochs), **facts)
        for metric, values in kept.tensors().items()
        if metric in HIGHER_IS_BETTER
        for epochs, by_trial in zip(dict.fromkeys(rows["epochs"]), values.double().numpy(), strict=True)
    ]


def joined(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables of blocks as one, without rows where there are none."""
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(COLUMNS))


@dataclass(frozen=True)
class Side:
    """One side of a claim: its mean over trials and pretraining runs, the number of runs, the newest row, its number of
    tested points, and its scores by block (None: not kept)."""

    mean: float
    seeds: int
    newest: pd.Series
    n_points: int
    blocks: pd.DataFrame | None


def side(rows: pd.DataFrame, blocks: pd.DataFrame | None) -> Side | None:
    """A side from the rows of one entry (all its trials and seeds, one metric, one number of epochs) and what is kept
    of its scores; None where there are no rows."""
    if not len(rows):
        return None
    values = "recall" if "recall" in rows else "value"
    by_seed = rows.groupby("seed")[values].mean()
    kept = blocks
    if kept is not None:
        kept = kept[kept["seed"].isin(by_seed.index)]
        sums = (kept["points"] * kept["score"]).groupby(kept["seed"]).sum()
        means = (sums / kept["points"].groupby(kept["seed"]).sum()).reindex(by_seed.index)
        if not (means - by_seed).abs().lt(_ROUNDING).all():  # of other rows than those that are there, or not of all
            kept = None
    n_points = rows["n_test" if "n_test" in rows else "gallery"].max()
    newest = rows.sort_values("date", kind="stable").iloc[-1]
    return Side(float(by_seed.mean()), len(by_seed), newest, int(n_points), kept)


def side_of(rows: pd.DataFrame | None, blocks: pd.DataFrame | None, **where: Any) -> Side | None:
    """The same from whole files: the rows, and of the blocks those, whose columns have the values `where`."""
    if rows is None or not len(rows):
        return None
    if blocks is not None:
        blocks = chosen(blocks, {column: value for column, value in where.items() if column in blocks})
    return side(chosen(rows, where), blocks)


def chosen(table: pd.DataFrame, where: Mapping[str, Any]) -> pd.DataFrame:
    """The rows whose columns have these values."""
    keep = np.ones(len(table), bool)
    for column, value in where.items():
        keep &= (table[column] == value).to_numpy()
    return table[keep]


@dataclass(frozen=True)
class Tested:
    """What is known of a claim: its gain, the bootstrap's draws where there are scores, the runs behind a and b, and
    why there are no draws."""

    gain: float = np.nan
    draws: Draws | None = None
    seeds_a: int = 0
    seeds_b: int = 0
    n_points: int | None = None
    reason: str = ""
    newest: pd.Series | None = None


def tested(
    a: Side | None, b: Side | None, names: tuple[str, str], metric: str, *, same_places: bool = True,
    n_boot: int = N_BOOT,
) -> Tested:  # fmt: skip
    """Bootstrap one claim; `names` are what a row that is not there is called."""
    if a is None or b is None:
        lacking = [name for name, one in zip(names, (a, b), strict=True) if one is None]
        seeds = [0 if one is None else one.seeds for one in (a, b)]
        return Tested(seeds_a=seeds[0], seeds_b=seeds[1], reason=f"{NO_ROW}{' and '.join(lacking)}")
    higher = HIGHER_IS_BETTER.get(metric, True)
    by_rows = a.mean - b.mean if higher else b.mean - a.mean
    points = min(a.n_points, b.n_points) if same_places else a.n_points + b.n_points
    newest = max((a.newest, b.newest), key=lambda row: str(row["date"]))
    draws, reason = None, NOT_KEPT
    if a.blocks is not None and b.blocks is not None:
        try:
            draws = gain(a.blocks, b.blocks, higher_is_better=higher, same_places=same_places, n_boot=n_boot)
            reason = ""
        except InputError as error:
            reason = str(error)
    return Tested(by_rows, draws, a.seeds, b.seeds, points, reason, newest)


def verdicts(family: Sequence[Tested], metric: str) -> pd.DataFrame:
    """The columns of `selm.probes.claims.judge` for one family; margin, seeds_a, seeds_b, reason; and `ORIGIN`.

    A claim with rows but without scores has its gain and ``undecided``; one without rows is ``not run``.
    """
    table = judge([one.draws for one in family], margin=MARGINS[metric])
    for number, one in enumerate(family):
        if one.draws is None and np.isfinite(one.gain):
            table.loc[number, ["verdict", "n_points"]] = ["undecided", one.n_points]
        table.loc[number, "gain"] = one.gain  # by the rows: that of the blocks but for rounding
    table["margin"] = MARGINS[metric]
    for column in ("seeds_a", "seeds_b", "reason"):
        table[column] = [getattr(one, column) for one in family]
    for column in ORIGIN:
        table[column] = [None if one.newest is None else one.newest.get(column) for one in family]
    return table.astype({"n_points": "Int64", "n_blocks": "Int64", "n_regions": "Int64"})

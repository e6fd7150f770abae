"""Results against the paper: *paper | reference run | this run*, with an honest status, and the ranking claims.

Results are tidy tables, one row a trial (`COLUMNS`), kept as CSV in ``data/results/<profile>/``. The paper's own
numbers are in ``data/paper/table<N>.csv``, as printed. Nothing here computes a result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reproduction import paths
from reproduction.results import read_csv, write_csv
from reproduction.titles import row_title
from selm.errors import InputError

COLUMNS = (
    "experiment", "target", "split", "method", "setting", "epochs", "metric", "trial", "value", "n_train", "n_test",
    "seed", "profile", "run_id", "stand_in", "commit", "data", "device", "date",
)  # fmt: skip
PROVENANCE = ("profile", "run_id", "data", "commit", "device", "torch", "date")  # columns of every table of results
_KEY = ("experiment", "target", "split", "method", "setting", "epochs", "metric")
STATUSES = ("match", "differs", "reduced scale", "stand-in data", "not run")
# Profiles whose numbers may be held against the paper's: the paper's encoder and image size. Others are reduced scale.
FULL_SCALE = ("japan", "paper")
# Profiles whose committed results the book shows, by the heading of their column: never mixed in one.
REFERENCES = {"reference": "japan", "reference, reduced": "japan-cpu"}
NETWORK = {"ResNet-50, reduced": "japan-gpu"}  # few rows, in tables of their own
HIGHER_IS_BETTER = {"mse": False, "top1": True, "top5": True, "ap50": True, "r2": True}
PERCENT = ("top1", "top5", "ap50")  # in percent in the paper and in tables, as a share in result files

SETTINGS = {
    "frozen": "Frozen features, linear layer",
    "frozen-closed": "Frozen features, ridge probe",
    "with-coordinates": "Frozen features and the coordinates, trees",
    "finetune": "Trained end to end",
    "practitioner": "Without an embedding",
}


# -- result files ------------------------------------------------------------------------------------------------------


def check_results(results: pd.DataFrame, where: str = "results") -> pd.DataFrame:
    """The table with `COLUMNS` first; raises InputError naming a missing column, a bad value or a repeated trial."""
    absent = [column for column in COLUMNS if column not in results]
    if absent:
        raise InputError(f"{where}: column '{absent[0]}' is missing")
    bad = ~np.isfinite(pd.to_numeric(results["value"], errors="coerce"))
    if bad.any():
        raise InputError(f"{where}: row {int(np.flatnonzero(bad)[0]) + 1}, field 'value' is not a finite number")
    unknown = ~results["metric"].isin(list(HIGHER_IS_BETTER))
    if unknown.any():
        raise InputError(f"{where}: unknown metric '{results.loc[unknown, 'metric'].iloc[0]}'")
    identity = [*_KEY, "trial", "seed", "profile"]
    twice = results.duplicated(identity)
    if twice.any():
        row = results.loc[twice].iloc[0]
        named = ", ".join(f"{column} {row[column]}" for column in identity)
        raise InputError(f"{where}: the same trial twice ({named})")
    return results[[*COLUMNS, *(column for column in results if column not in COLUMNS)]]


def read_results(path: str | Path) -> pd.DataFrame:
    """A results CSV, or all those of a folder; raises InputError naming the file."""
    path = Path(path)
    files = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path}: no results here (no .csv file)")
    parts = []
    for file in files:
        try:
            part = read_csv(file)
        except FileNotFoundError:
            raise InputError(f"{file}: no such file") from None
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: not a readable CSV file ({error})") from None
        if path.is_dir() and not set(COLUMNS) <= set(part):
            continue  # other tables of the same folder: curves, figures' data
        parts.append(check_results(part, str(file)))
    if not parts:
        raise InputError(f"{path}: no results here (no CSV file has their columns)")
    return pd.concat(parts, ignore_index=True)


def write_results(results: pd.DataFrame, path: str | Path) -> Path:
    """Write a results CSV atomically, sorted, so that the same results give the same file."""
    table = check_results(results, str(path)).sort_values([*_KEY, "profile", "seed", "trial"], kind="stable")
    write_csv(path, table, float_format="%.6g")
    return Path(path)


def reference_results(profile: str, folder: Path | None = None) -> pd.DataFrame | None:
    """The committed results of a reference profile, or None where it has not been run."""
    where = (paths.repository() / "data" / "results" if folder is None else folder) / profile
    return read_results(where) if where.is_dir() and any(where.glob("table*.csv")) else None


def references(
    experiment: str, folder: Path | None = None, which: Mapping[str, str] = REFERENCES
) -> dict[str, pd.DataFrame | None]:
    """The committed results of an experiment, by heading as in `which`; ``{"reference": None}`` for none."""
    found = {heading: reference_results(profile, folder) for heading, profile in which.items()}
    rows = {heading: of[of["experiment"] == experiment] for heading, of in found.items() if of is not None}
    return {heading: of for heading, of in rows.items() if len(of)} or {"reference": None}


def paper_table(number: int, folder: Path | None = None) -> pd.DataFrame:
    """The paper's table 1 to 4 as printed: one row a number, `value` in the paper's unit (accuracies in percent)."""
    where = (paths.repository() / "data" / "paper" if folder is None else folder) / f"table{number}.csv"
    if not where.exists():
        raise InputError(f"{where}: no such table of the paper (there are tables 1 to 4)")
    return pd.read_csv(where, dtype={"gain_printed": str, "gain": str, "note": str}, keep_default_na=False,
                       na_values={"epochs": [""]})  # fmt: skip


def paper_beside(number: int, dataset: str, setting: str, epochs: int) -> pd.DataFrame:
    """The paper's numbers on one data set of Table 3 or 4, put beside our rows of this setting and number of epochs, of
    which the paper says nothing: for `compare`'s argument `paper`. Raw GPS is only ever trained."""
    table = paper_table(number)
    chosen = table[table["dataset"] == dataset]
    if not len(chosen):
        raise InputError(f"table {number} of the paper has no data set '{dataset}'")
    settings = np.where(chosen["method"] == "raw_gps", "finetune", setting)
    return chosen.assign(setting=settings, epochs=epochs)


def records(table: pd.DataFrame) -> Iterator[Any]:
    """The rows of a table, with its columns as attributes."""
    yield from table.itertuples(index=False)


# -- summaries and statuses --------------------------------------------------------------------------------------------


def summarise(results: pd.DataFrame) -> pd.DataFrame:
    """mean, sd (over trials and pretraining seeds together; NaN for one), n and seeds of each entry; shares → percent.

    Entries are told apart by experiment, target, split, method, setting, epochs, metric, profile and stand_in.
    """
    groups = results.groupby([*_KEY, "profile", "stand_in"], sort=False)
    out = groups["value"].agg(mean="mean", sd="std", n="count").reset_index()
    extra = groups.agg(seeds=("seed", "nunique"), n_train=("n_train", "mean"), n_test=("n_test", "mean")).reset_index()
    for column in ("seeds", "n_train", "n_test"):
        out[column] = extra[column]
    scale = np.where(out["metric"].isin(PERCENT), 100.0, 1.0)
    out["mean"] *= scale
    out["sd"] *= scale
    return out


def status(
    paper: float | None, mean: float | None, sd: float | None, *, profile: str | None, stand_in: bool, split: str
) -> str:
    """How a number stands to the paper's: one of `STATUSES`, or "" where the paper has nothing to compare with.

    Stand-in labels and reduced scale come first: such a number is never shown as agreement. ``match``: the paper's
    number lies within two standard deviations over trials, or within 5 % of ours. Under spatial blocks, which the
    paper does not use, a number at full scale gets no status.
    """
    if mean is None or not math.isfinite(mean):
        return "not run"
    if stand_in:
        return "stand-in data"
    if profile not in FULL_SCALE:
        return "reduced scale"
    if paper is None or not math.isfinite(paper) or split != "random":
        return ""
    spread = 0.0 if sd is None or not math.isfinite(sd) else 2.0 * sd
    return "match" if abs(mean - paper) <= max(spread, 0.05 * abs(paper)) else "differs"


def compare(
    table: int,
    runs: Mapping[str, pd.DataFrame | None],
    *,
    target: str,
    split: str,
    methods: Sequence[str] | None = None,
    paper: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Paper and runs side by side, one row a (run, method, setting, epochs, metric).

    table: the paper's 1 or 2.  runs: heading of a column → its results, or None where there are none. The results
        under one heading must be of one profile (InputError otherwise): scales are never mixed in a column.
    methods: rows to show (default: all that the paper or a run has).
    Columns: run, split, method, title, setting, epochs, metric, paper, mean, sd, n, seeds, profile, delta (ours less
    the paper's), status. Table 2 does not say whether its encoders were fine-tuned: its numbers stand beside both.
    """
    printed = paper_table(table) if paper is None else paper
    lookup: dict[tuple[str, str, int, str], float] = {}
    for row in records(printed):
        settings = ("frozen", "finetune") if row.setting == "unstated" else (row.setting,)
        if row.setting == "unstated" and row.method in ("random_init", "raw_gps"):
            settings = ("finetune",)  # these two are only ever trained (section 4, Baselines)
        for setting in settings:
            lookup[(str(row.method), str(setting), int(row.epochs), str(row.metric))] = float(row.value)
    wanted = dict(lookup)
    found: dict[str, dict[tuple[str, str, int, str], Any]] = {}
    for heading, results in runs.items():
        found[heading] = {}
        if results is None:
            continue
        chosen = results[
            (results["experiment"] == f"table{table}") & (results["target"] == target) & (results["split"] == split)
        ]
        profiles = sorted(chosen["profile"].unique())
        if len(profiles) > 1:
            raise InputError(f"column '{heading}' mixes the profiles {', '.join(profiles)}: give each its own column")
        for entry in records(summarise(chosen)):
            key = (str(entry.method), str(entry.setting), int(entry.epochs), str(entry.metric))
            found[heading][key] = entry
            wanted.setdefault(key, math.nan)
    if methods is not None:
        wanted = {key: value for key, value in wanted.items() if key[0] in set(methods)}
    rows = []
    for heading in runs:
        for (method, setting, epochs, metric), value in wanted.items():
            entry = found[heading].get((method, setting, epochs, metric))
            mean, sd = (float(entry.mean), float(entry.sd)) if entry is not None else (math.nan, math.nan)
            rows.append(
                {
                    "run": heading, "split": split, "method": method, "title": row_title(method, metric),
                    "setting": setting, "epochs": epochs, "metric": metric, "paper": value, "mean": mean, "sd": sd,
                    "n": 0 if entry is None else int(entry.n), "seeds": 0 if entry is None else int(entry.seeds),
                    "profile": "" if entry is None else str(entry.profile), "delta": mean - value,
                    "status": status(value, mean, sd, profile=None if entry is None else str(entry.profile),
                                     stand_in=entry is not None and bool(entry.stand_in), split=split),
                }
            )  # fmt: skip
    columns = ["run", "split", "method", "title", "setting", "epochs", "metric", "paper", "mean", "sd", "n", "seeds",
               "profile", "delta", "status"]  # fmt: skip
    out = pd.DataFrame(rows, columns=columns)
    # the paper's order, then our own rows as they come
    order = {method: rank for rank, method in enumerate(methods or dict.fromkeys(key[0] for key in wanted))}
    setting_order = {setting: rank for rank, setting in enumerate(SETTINGS)}
    ranks = out.assign(
        _setting=out["setting"].map(setting_order).fillna(len(setting_order)),
        _method=out["method"].map(order).fillna(len(order)),
        _run=out["run"].map({heading: rank for rank, heading in enumerate(runs)}),
    )
    return out.loc[
        ranks.sort_values(["_run", "_setting", "_method", "epochs", "metric"], kind="stable").index
    ].reset_index(drop=True)


def with_results(comparison: pd.DataFrame) -> pd.DataFrame:
    """The rows of `compare`'s table that a run has something in: of each method and setting."""
    return comparison[comparison.groupby(["method", "setting"])["n"].transform("max") > 0].reset_index(drop=True)

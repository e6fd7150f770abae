"""The paper's claims of the form "A beats B", one by one, with a verdict each.

`data/paper/claims.csv` lists them: every best number of a column of a table, and every order of methods in the text.
The claims on a column (a table, target, setting, metric and number of epochs) are one family, fixed there whatever has
been run. Verdicts are a function of rows and their scores under spatial blocks (`reproduction.experiments.row_claims`),
those of a folder of `data/results` or those that are finished here; no earlier verdict is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from reproduction import paths
from reproduction.experiments import figure5_recall, row_claims, table1_table2, table3_land_cover
from reproduction.report import records
from reproduction.results import by_category, read_csv
from reproduction.settings import Profile
from selm.errors import InputError
from selm.probes.claims import N_BOOT

COLUMNS = ("id", "where", "section", "a", "b", "metric", "target", "epochs", "setting", "text")
FAMILY = ["where", "target", "setting", "metric", "epochs"]
PAPER_EPOCHS = (1, 25, 50)  # of Tables 1 and 2; those of a shorter profile are told by their place in the order
# Claims on data that cannot be had stay open: what a stand-in says is about the stand-in.
WITHOUT_DATA = {"naip": "needs NAIP/CDL", "xview": "needs xView", "water": "needs SustainBench's water labels"}
TESTED = ("table1", "table2", "table3", "figure5")  # what there is data for

Files = Mapping[str, pd.DataFrame]  # result files by name, without ".csv"


def read_claims(file: Path | None = None) -> pd.DataFrame:
    """The list of claims; raises InputError naming the file and the row of a repeated or incomplete one."""
    path = paths.repository() / "data" / "paper" / "claims.csv" if file is None else file
    table = pd.read_csv(path, dtype={"epochs": "Int64"}, keep_default_na=False, na_values={"epochs": [""]})
    absent = [column for column in COLUMNS if column not in table]
    if absent:
        raise InputError(f"{path}: column '{absent[0]}' is missing")
    for row, claim in enumerate(records(table), start=1):
        if claim.id in set(table["id"].iloc[: row - 1]):
            raise InputError(f"{path}: row {row}, field id: '{claim.id}' is there twice")
        if not claim.text or claim.a == claim.b:
            raise InputError(f"{path}: row {row}: a claim needs a text, and two different rows")
    return table


def read_files(folder: Path) -> dict[str, pd.DataFrame]:
    """The rows and scores by block that claims are judged by, of a folder of `data/results`; those that are there."""
    names = [name for table in TESTED for name in (table, f"{table}-blocks")]
    return {name: read_csv(file) for name in names if (file := folder / f"{name}.csv").exists()}


def finished_files(profile: Profile) -> dict[str, pd.DataFrame]:
    """The same of what is finished here; computes no result that is missing."""
    out: dict[str, Any] = {}
    for name in table1_table2.TABLES:
        out[name], out[f"{name}-blocks"] = (
            table1_table2.finished(profile, name), table1_table2.finished_blocks(profile, name),
        )  # fmt: skip
    for files in (table3_land_cover.finished(profile), figure5_recall.finished(profile)):
        out.update({name.removesuffix(".csv"): table for name, table in files.items()})
    return {name: table for name, table in out.items() if len(table)}


def claim_verdicts(profile: Profile, *, n_boot: int = N_BOOT) -> pd.DataFrame:
    """`claim_verdicts_on` what is finished here."""
    return claim_verdicts_on(finished_files(profile), profile.name, n_boot=n_boot)


def claim_verdicts_on(files: Files, profile: str, *, n_boot: int = N_BOOT) -> pd.DataFrame:
    """A verdict on every claim of `read_claims`, in its order: a function of these files alone.

    The columns of the list and of `row_claims.verdicts`: the gain is the difference of the rows' means; `seeds_a
    seeds_b`, the pretraining runs behind each side; `reason`, why a claim is not run or has no scores; and where its
    newest row is from.
    """
    table = read_claims()
    files = {name: by_category(rows) for name, rows in files.items()}
    parts = []
    for _, family in table.groupby(FAMILY, sort=False, dropna=False):
        tested = [_tested(files, claim, n_boot) for claim in records(family)]
        verdicts = row_claims.verdicts(tested, str(family["metric"].iloc[0]))
        parts.append(pd.concat([family, verdicts.set_index(family.index)], axis=1))
    return pd.concat(parts).loc[table.index].assign(profile=profile)


def _tested(files: Files, claim: Any, n_boot: int) -> row_claims.Tested:
    if claim.target in WITHOUT_DATA:
        return row_claims.Tested(reason=WITHOUT_DATA[claim.target])
    areas = claim.where == "figure5"
    a, b = (_area(files, name) if areas else _row(files, claim, name) for name in (claim.a, claim.b))
    found = row_claims.tested(a, b, (claim.a, claim.b), claim.metric, same_places=not areas, n_boot=n_boot)
    return replace(found, reason=found.reason.replace(row_claims.NO_ROW, "no finished recall in ")) if areas else found


def _row(files: Files, claim: Any, method: str) -> row_claims.Side | None:
    """A row of Table 1, 2 or 3 under spatial blocks, after the epochs of the claim, or the last."""
    rows = files.get(claim.where)
    if rows is None:
        return None
    target, setting = claim.target, claim.setting
    if claim.where == "table3":
        target = table3_land_cover.CLAIMED
        setting = "finetune" if method == "raw_gps" else "frozen"
    where = {"target": target, "split": "blocks", "metric": claim.metric, "setting": setting, "method": method}
    epochs = sorted(set(row_claims.chosen(rows, where)["epochs"]))
    number = -1 if pd.isna(claim.epochs) else PAPER_EPOCHS.index(claim.epochs)
    if number >= len(epochs) or not epochs:
        return None
    return row_claims.side_of(rows, files.get(f"{claim.where}-blocks"), **where, epochs=epochs[number])


def _area(files: Files, area: str) -> row_claims.Side | None:
    """The full method's recall in an area, by the first query."""
    rows, blocks = files.get("figure5"), files.get("figure5-blocks")
    if rows is None:
        return None
    query = rows["query"].iloc[0]
    where = {"area": area, "query": query, "method": "gps_selm", "share": figure5_recall.CLAIMED_SHARE}
    if blocks is not None:
        blocks = blocks[(blocks["region"] == area) & (blocks["target"] == query)]
    return row_claims.side_of(rows, blocks, **where)

"""Tables 1 and 2's grid: its entries, each computed once, and the claims that are read off it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from reproduction.computed import frozen_features
from reproduction.experiments import row_claims, table1_table2
from reproduction.profiles import get_profile
from reproduction.report import SETTINGS
from reproduction.rows import IN_TABLES, ROWS
from reproduction.titles import title_of
from selm.errors import InputError
from selm.probes import peers, practitioner

SMOKE = get_profile("smoke")
JAPAN = get_profile("japan-cpu")


@pytest.mark.parametrize(("table", "target"), [("table1", "l01"), ("table2", "area_type")])
def test_every_row_is_there_on_both_kinds_of_folds(table: str, target: str) -> None:
    entries = table1_table2.entries(JAPAN, table)
    assert len(set(entries)) == len(entries) and len({entry.label for entry in entries}) == len(entries)
    assert {entry.setting for entry in entries} == set(SETTINGS)
    for split in table1_table2.SPLITS:
        rows = [entry for entry in entries if entry.target == target and entry.split == split]
        seeds = Counter(entry.method for entry in rows if entry.setting == "frozen-closed")
        seeds.pop(peers.GEOCLIP, None)  # a row where its package is installed
        assert seeds["dino"] == seeds["gps_selm"] == 3 and seeds["gps_selm_geo"] == seeds["random_init"] == 1
        assert set(seeds) == {"random_init", *IN_TABLES}
        tuned = {entry.method for entry in rows if entry.setting == "finetune"}
        assert tuned == {name for name, row in ROWS.items() if row.in_paper} | {"raw_gps_standardised"}
        together = {entry.method for entry in rows if entry.setting == "with-coordinates"}
        assert together == {"random_init", *IN_TABLES}
        assert {entry.method for entry in rows if entry.setting == "practitioner"} == set(table1_table2.PRACTITIONER)
    for entry in entries:
        assert title_of(entry.method)


def test_an_unknown_table_is_named() -> None:
    with pytest.raises(InputError, match="unknown table 'table3'"):
        table1_table2.entries(JAPAN, "table3")


def test_the_rows_of_claims_are_rows_of_the_tables() -> None:
    known = {entry.method + ("+coordinates" if entry.setting == "with-coordinates" else "")
             for table in table1_table2.TABLES for entry in table1_table2.entries(JAPAN, table)}  # fmt: skip
    assert {name for claim in table1_table2.CLAIMS for name in claim} <= known
    assert title_of("gps_selm+coordinates") == "GPS-SELM (geo+rec+int) and coordinates"
    with pytest.raises(InputError, match="did you mean 'gps_selm'"):
        title_of("gps_sel+coordinates")


@pytest.mark.parametrize("table", table1_table2.TABLES)
def test_features_with_coordinates_are_trees_on_both(runs: Path, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = "l01" if table == "table1" else "area_type"
    entry = table1_table2.Entry(table, target, "blocks", "random_init", "with-coordinates")
    rows = table1_table2.GRID.rows(SMOKE, entry, progress=False)
    todo = table1_table2.task(SMOKE, table, target, "blocks")
    label = "table1-l01" if table == "table1" else "table2"
    features = frozen_features.features(SMOKE, "random_init", 0, todo.places, label)
    both = np.hstack([features, todo.places[["lat", "lon"]].to_numpy()])
    probing, folds = SMOKE.probing, todo.first(SMOKE.probing.n_trees).folds
    if table == "table1":
        again = practitioner.boosting(both, todo.targets, folds, task=todo.kind, max_iter=probing.rounds)
    else:
        again = practitioner.forest(both, todo.targets, folds, task=todo.kind, trees=probing.trees)
    metric = "mse" if table == "table1" else "top1"
    mine = rows[rows["metric"] == metric]
    assert mine["value"].tolist() == pytest.approx(again.values(metric)[0].tolist())
    assert set(mine["setting"]) == {"with-coordinates"} and set(mine["epochs"]) == {0}

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("computed twice")

    monkeypatch.setattr(table1_table2, "compute", fail)
    assert table1_table2.GRID.rows(SMOKE, entry, progress=False)["value"].tolist() == rows["value"].tolist()
    scores, names = table1_table2.point_scores(SMOKE, entry, metric, 0)
    assert scores.shape == names.shape == (len(todo.places),) and np.isfinite(scores).any()
    finished = table1_table2.finished(SMOKE, table)
    assert len(finished) == len(rows)
    blocks = table1_table2.finished_blocks(SMOKE, table)
    where = {"target": target, "split": "blocks", "metric": metric, "method": "random_init", "epochs": 0}
    side = row_claims.side_of(finished, blocks, **where, setting="with-coordinates")
    assert side is not None and side.blocks is not None and side.mean == pytest.approx(mine["value"].mean())
    verdicts = table1_table2.claims(SMOKE, table)
    assert list(zip(verdicts["a"], verdicts["b"], strict=True)) == list(table1_table2.CLAIMS)
    assert set(verdicts["verdict"]) == {"not run"}  # none of their rows is there

"""The few questions: families, pooling over regions, what is not there."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reproduction.experiments import verdicts
from reproduction.titles import title_of
from selm.errors import InputError

LEVELS = {
    "gps_selm": 0.50, "gps_selm_geo_rec": 0.501, "gps_selm_geo": 0.55, "dino": 0.80, "mugs": 0.70, "geo_only": 0.45,
    "gps_selm_no_price": 0.50,
}  # fmt: skip


def knowledge(buffers: tuple[float, ...] = (1.0,), regions: tuple[str, ...] = ("north", "south")) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for region, buffer in itertools.product(regions, buffers):
        base = rng.gamma(3, 0.1, 40)
        for method, level in {**LEVELS, "trees_coordinates": 0.7, "gps_selm ": 0.4}.items():
            setting = {"trees_coordinates": "practitioner", "gps_selm ": "with-coordinates"}.get(
                method, "frozen-closed"
            )
            for seed in range(3 if method == "gps_selm" else 1):
                rows += [
                    {"region": region, "target": "l01", "metric": "mse", "buffer_km": buffer, "setting": setting,
                     "method": method.strip(), "seed": seed, "block": f"b{block}", "points": 3 + block % 5,
                     "score": base[block] + level + rng.normal(0, 0.01)}
                    for block in range(40)
                ]  # fmt: skip
    return pd.DataFrame(rows)


def test_every_question_has_a_verdict_in_every_family() -> None:
    table = verdicts.verdicts_on(knowledge((1.0, 15.0)), n_boot=2000)
    assert list(table) == list(verdicts.COLUMNS)
    assert set(table["buffer_km"]) == {1.0, 15.0} and not table.duplicated(["family", "question"]).any()
    by = table[(table["buffer_km"] == 1) & (table["setting"] == "frozen-closed")].set_index("question")
    assert by["family"].unique().tolist() == [
        "paper: l01, frozen-closed, 1 km", "explains: l01, frozen-closed, 1 km", "practice: l01, frozen-closed, 1 km",
    ]  # fmt: skip
    assert (
        by.loc[["dino", "mugs", "geo", "reconstruction", "trees", "with-trees"], "verdict"].tolist() == ["better"] * 6
    )
    assert by.loc["self-supervision", "verdict"] == "worse" and by.loc["self-supervision", "gain"] < -0.04
    assert by.loc[["clustering", "price"], "verdict"].tolist() == ["equivalent"] * 2
    assert by.loc["tile2vec", "verdict"] == "not run" and by.loc["tile2vec", "reason"] == "no row of tile2vec"
    assert by.loc["dino", ["seeds_a", "seeds_b", "n_regions", "n_blocks"]].tolist() == [3, 1, 2, 80]
    assert by.loc["dino", "n_family"] == len(verdicts.PAPER) and by.loc["dino", "margin"] == 0.02


def test_regions_that_one_side_lacks_are_left_out() -> None:
    blocks = knowledge()
    blocks = blocks[(blocks["method"] != "dino") | (blocks["region"] == "north")]
    by = verdicts.verdicts_on(blocks, n_boot=2000).set_index(["setting", "question"]).loc["frozen-closed"]
    assert by.loc["dino", ["n_regions", "n_blocks"]].tolist() == [1, 40]
    assert by.loc["mugs", "n_regions"] == 2
    blocks = blocks[(blocks["method"] != "dino") | (blocks["block"] == "b0")]
    by = verdicts.verdicts_on(blocks[blocks["region"] == "north"], n_boot=2000)
    assert (by["n_regions"].dropna() == 1).all()


def test_the_same_file_gives_the_same_verdicts_in_any_order(tmp_path: Path) -> None:
    blocks = knowledge()
    blocks.to_csv(tmp_path / verdicts.BLOCKS, index=False)
    once = verdicts.verdicts(tmp_path, n_boot=1000)
    blocks.sample(frac=1, random_state=0).to_csv(tmp_path / verdicts.BLOCKS, index=False)
    again = verdicts.verdicts(tmp_path, n_boot=1000)
    key = ["family", "question"]
    pd.testing.assert_frame_equal(
        once.sort_values(key, ignore_index=True), again.sort_values(key, ignore_index=True), rtol=1e-12
    )


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"knowledge-blocks\.csv: no such file"):
        verdicts.verdicts(tmp_path)
    with pytest.raises(InputError, match=r"knowledge-blocks\.csv: column 'points' is missing"):
        verdicts.verdicts_on(knowledge().drop(columns="points"))
    with pytest.raises(InputError, match="unknown metric 'mape'"):
        verdicts.verdicts_on(knowledge().assign(metric="mape"))
    assert list(verdicts.verdicts_on(knowledge((3.0,)))) == list(verdicts.COLUMNS)


def test_questions_are_about_rows_that_have_a_title() -> None:
    for questions in verdicts.KINDS.values():
        assert len({one.id for one in questions}) == len(questions)
        for one in questions:
            assert title_of(one.a) and title_of(one.b)

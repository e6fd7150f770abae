"""Result files and statuses, and results beside the paper."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up_results import results

from reproduction import report
from selm.errors import InputError


@pytest.mark.parametrize(
    ("number", "rows", "value"),
    [
        (1, 54, ("gps_selm", "frozen", 50, "mse", 0.13)),
        (2, 60, ("gps_selm_geo_rec", "unstated", 50, "top5", 55.01)),
        (3, 19, ("tile2vec", "unstated", None, "top1", 68.34)),
        (4, 8, ("gps_selm", "finetune", None, "ap50", 18.79)),
    ],
)
def test_the_papers_tables_are_as_printed(number: int, rows: int, value: tuple) -> None:
    table = report.paper_table(number)
    assert len(table) == rows
    method, setting, epochs, metric, expected = value
    chosen = table[(table["method"] == method) & (table["setting"] == setting) & (table["metric"] == metric)]
    if epochs is not None:
        chosen = chosen[chosen["epochs"] == epochs]
    assert expected in chosen["value"].tolist()
    assert not table["title"].eq("").any()


def test_the_papers_slips_are_noted() -> None:
    table3, table4 = report.paper_table(3), report.paper_table(4)
    for table in (table3, table4):
        base = table[table["method"] == "random_init"].set_index("dataset")["value"]
        for row in table[table["gain"] != ""].itertuples():
            assert float(row.gain) == pytest.approx(row.value - base[row.dataset], abs=0.005)
            wrong = abs(float(row.gain_printed) - float(row.gain)) > 0.005
            assert wrong == ("printed gain" in row.note)
    slips = table3[table3["note"].str.contains("printed gain")]
    assert list(zip(slips["method"], slips["gain_printed"], slips["gain"], strict=True)) == [
        ("mugs", "+4.72", "+2.88"),
        ("mugs", "+7.70", "+5.39"),
    ]
    assert "Randon" in table4["note"][0]


def test_results_survive_a_round_trip(tmp_path: Path) -> None:
    first = results()
    file = report.write_results(first.sample(frac=1.0, random_state=0), tmp_path / "r" / "table1.csv")
    text = file.read_text()
    report.write_results(report.read_results(file), file)
    assert file.read_text() == text
    assert not list(file.parent.glob(".*"))


def test_a_folder_of_results_leaves_other_tables_out(tmp_path: Path) -> None:
    report.write_results(results(), tmp_path / "table1.csv")
    pd.DataFrame({"step": [1], "loss": [2.0]}).to_csv(tmp_path / "curves.csv", index=False)
    assert len(report.read_results(tmp_path)) == len(results())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="commit"), "column 'commit' is missing"),
        (lambda t: t.assign(value=["x", *t["value"][1:]]), "row 1, field 'value'"),
        (lambda t: t.assign(metric="mae"), "unknown metric 'mae'"),
        (lambda t: pd.concat([t, t.iloc[[3]]]), "the same trial twice .*dino.*trial 3"),
    ],
)
def test_bad_result_files_are_named_and_not_written(tmp_path: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    bad = change(results())
    with pytest.raises(InputError, match=message):
        report.write_results(bad, tmp_path / "table1.csv")
    assert not list(tmp_path.iterdir())
    bad.to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(InputError, match=f"bad.csv: {message}"):
        report.read_results(tmp_path / "bad.csv")


def test_files_that_are_not_there_or_not_csv(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.csv: no such file"):
        report.read_results(tmp_path / "none.csv")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"empty\.csv: not a readable CSV"):
        report.read_results(tmp_path / "empty.csv")
    with pytest.raises(InputError, match="no results here"):
        report.read_results(tmp_path / "folder")
    with pytest.raises(InputError, match="tables 1 to 4"):
        report.paper_table(5)


def test_summary_by_hand() -> None:
    table = results()
    row = report.summarise(table)[lambda t: (t["method"] == "dino") & (t["epochs"] == 1)].iloc[0]
    values = [0.6 - 0.004 + 0.01 * (trial - 4.5) for trial in range(10)]
    assert row["mean"] == pytest.approx(np.mean(values))
    assert row["sd"] == pytest.approx(np.std(values, ddof=1))
    assert (row["n"], row["seeds"]) == (10, 1)
    shares = report.summarise(table.assign(metric="top1"))
    assert shares["mean"][0] == pytest.approx(100 * np.mean(values))
    two = report.summarise(pd.concat([table, table.assign(seed=1)]))
    assert (two["n"][0], two["seeds"][0]) == (20, 2)


@pytest.mark.parametrize(
    ("mean", "sd", "profile", "stand_in", "split", "expected"),
    [
        (0.29, 0.01, "japan", False, "random", "match"),  # the paper's own number
        (0.309, 0.01, "japan", False, "random", "match"),  # within two deviations
        (0.302, 0.0, "japan", False, "random", "match"),  # within 5 %
        (0.33, 0.01, "japan", False, "random", "differs"),
        (0.33, math.nan, "japan", False, "random", "differs"),
        (0.29, 0.01, "japan", False, "blocks", ""),  # the paper has no blocks
        (0.29, 0.01, "japan-cpu", False, "random", "reduced scale"),  # never shown as agreement
        (0.29, 0.01, "demo", True, "random", "stand-in data"),
        (0.29, 0.01, "japan", True, "random", "stand-in data"),
        (None, None, None, False, "random", "not run"),
        (math.nan, math.nan, "japan", False, "random", "not run"),
    ],
)
def test_status(mean: float, sd: float, profile: str, stand_in: bool, split: str, expected: str) -> None:
    assert report.status(0.29, mean, sd, profile=profile, stand_in=stand_in, split=split) == expected
    if split == "random" and profile == "japan" and not stand_in and mean is not None and math.isfinite(mean):
        assert report.status(math.nan, mean, sd, profile=profile, stand_in=stand_in, split=split) == ""


def test_compare_sets_paper_and_runs_side_by_side() -> None:
    out = report.compare(1, {"reference": results(), "this run": None}, target="l01", split="random")
    cell = out[(out["run"] == "reference") & (out["method"] == "dino") & (out["epochs"] == 50)]
    frozen = cell[cell["setting"] == "frozen"].iloc[0]
    assert frozen["paper"] == 0.29
    assert frozen["mean"] == pytest.approx(0.4)
    assert frozen["delta"] == pytest.approx(0.11)
    assert frozen["status"] == "reduced scale"
    assert (out[out["run"] == "this run"]["status"] == "not run").all()
    assert (out[(out["run"] == "reference") & (out["method"] == "mugs")]["status"] == "not run").all()
    assert "knn_coordinates" in set(out["method"])
    trained = out[out["setting"] == "finetune"]["method"].tolist()
    assert list(dict.fromkeys(trained)) == list(dict.fromkeys(report.paper_table(1)["method"]))


def test_scales_are_never_mixed_in_a_column() -> None:
    both = pd.concat([results("japan"), results("japan-cpu")])
    with pytest.raises(InputError, match="mixes the profiles japan, japan-cpu"):
        report.compare(1, {"reference": both}, target="l01", split="random")


def test_table_2_stands_beside_both_settings_but_random_init_is_only_trained() -> None:
    out = report.compare(2, {"this run": None}, target="area_type", split="random")
    dino = out[(out["method"] == "dino") & (out["epochs"] == 50) & (out["metric"] == "top1")]
    assert dino["setting"].tolist() == ["frozen", "finetune"]
    assert dino["paper"].tolist() == [36.79, 36.79]
    assert set(out[out["method"] == "random_init"]["setting"]) == {"finetune"}


def test_references_are_committed_results_or_none(tmp_path: Path) -> None:
    assert report.reference_results("japan", tmp_path) is None
    report.write_results(results(), tmp_path / "japan-cpu" / "table1.csv")
    found = report.reference_results("japan-cpu", tmp_path)
    assert found is not None and len(found) == len(results())


def test_numbers_without_epochs_stand_beside_those_of_ours_that_are_named() -> None:
    """The paper says nothing of epochs in Tables 3 and 4."""
    beside = report.paper_beside(3, "OSM", "frozen", 50)
    ours = results(experiment="table3", target="osm_no_fills", split="blocks", metric="top1", stand_in=False, value=0.5)
    compared = report.compare(3, {"reference": ours}, target="osm_no_fills", split="blocks", paper=beside)
    cell = compared[(compared["method"] == "dino") & (compared["epochs"] == 50)].iloc[0]
    assert (cell["paper"], cell["mean"], cell["status"]) == (65.99, 50.0, "reduced scale")
    assert compared.loc[compared["epochs"] == 1, "paper"].isna().all()
    raw = compared[compared["method"] == "raw_gps"]
    assert raw["setting"].tolist() == ["finetune"] and raw["paper"].tolist() == [5.12]
    assert len(report.paper_beside(4, "xView", "finetune", 8)) == 8
    with pytest.raises(InputError, match="no data set 'water'"):
        report.paper_beside(3, "water", "frozen", 50)


def test_references_have_a_column_each_where_they_hold_the_experiment(tmp_path: Path) -> None:
    assert report.references("table1", tmp_path) == {"reference": None}
    report.write_results(results(), tmp_path / "japan-cpu" / "table1.csv")
    report.write_results(results("japan-gpu"), tmp_path / "japan-gpu" / "table1.csv")
    assert list(report.references("table1", tmp_path)) == ["reference, reduced"]
    assert report.references("table3", tmp_path) == {"reference": None}
    network = report.references("table1", tmp_path, report.NETWORK)
    assert list(network) == ["ResNet-50, reduced"]
    # rows that it has not are left out of a table of its own
    rows = network["ResNet-50, reduced"]
    assert rows is not None
    target, split = rows["target"].iloc[0], rows["split"].iloc[0]
    shown = report.with_results(report.compare(1, network, target=target, split=split))
    assert set(shown["method"]) == set(rows["method"])
    assert len(shown) < len(report.compare(1, network, target=target, split=split))
    assert not len(report.with_results(report.compare(1, {"reference": None}, target=target, split=split)))

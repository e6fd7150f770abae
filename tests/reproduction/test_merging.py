"""What is published stays until it is computed anew."""

from __future__ import annotations

import importlib
from pathlib import Path

import pandas as pd
import pytest

from reproduction import paths
from reproduction.merging import ENTRIES, gone, merged
from reproduction.profiles import get_profile
from selm.errors import InputError

NAME = "table1.csv"


def rows(method: str, value: float, *, data: str = "d", run: str = "r", target: str = "l01", trials: int = 2) -> list:
    return [
        {"target": target, "split": "blocks", "setting": "frozen", "method": method, "seed": 0, "trial": trial,
         "value": value + trial, "run_id": run, "data": data}
        for trial in range(trials)
    ]  # fmt: skip


def table(*cells: list) -> pd.DataFrame:
    return pd.DataFrame([row for cell in cells for row in cell])


def test_without_anything_published_the_new_rows_are_all() -> None:
    new = table(rows("dino", 1.0))
    pd.testing.assert_frame_equal(merged(NAME, new, None), new)


def test_a_cell_is_replaced_as_a_whole_and_where_it_was() -> None:
    old = table(rows("mugs", 1.0, trials=3), rows("dino", 2.0, trials=3), rows("gps_selm", 3.0))
    out = merged(NAME, table(rows("tile2vec", 9.0), rows("dino", 5.0)), old)
    assert out["method"].tolist() == ["mugs"] * 3 + ["dino"] * 2 + ["gps_selm"] * 2 + ["tile2vec"] * 2
    assert out.loc[out["method"] == "dino", "value"].tolist() == [5.0, 6.0]


def test_rows_of_other_data_go_where_there_are_new_ones_on_the_same_thing() -> None:
    old = table(rows("mugs", 1.0, data="before"), rows("mugs", 1.0, data="before", target="interpolated"))
    out = merged(NAME, table(rows("dino", 5.0, data="today")), old)
    assert set(zip(out["method"], out["target"], strict=True)) == {("dino", "l01"), ("mugs", "interpolated")}
    assert gone(NAME, out, old) == 1 and gone(NAME, old, old) == 0 and gone(NAME, out, None) == 0


def test_a_pretraining_made_anew_takes_away_the_rows_of_the_one_before() -> None:
    old = table(
        rows("dino", 1.0, run="before"), rows("dino", 2.0, run="before", target="interpolated"),
        rows("mugs", 3.0, run="before"), rows("random_init", 4.0, run="a"),
        rows("random_init", 5.0, run="b", target="interpolated"),
    )  # fmt: skip
    out = merged(NAME, table(rows("dino", 6.0, run="today"), rows("random_init", 7.0, run="c")), old)
    assert set(zip(out["method"], out["target"], out["run_id"], strict=True)) == {
        ("dino", "l01", "today"), ("mugs", "l01", "before"),
        ("random_init", "l01", "c"), ("random_init", "interpolated", "b"),  # not pretrained: each entry has its own id
    }  # fmt: skip


def test_a_file_of_another_form_is_not_dropped_without_a_word() -> None:
    old = table(rows("mugs", 1.0)).drop(columns="setting")
    with pytest.raises(InputError, match=r"table1\.csv: what is published has no column 'setting'"):
        merged(NAME, table(rows("dino", 5.0)), old)


def test_columns_of_the_same_places_are_kept() -> None:
    old = pd.DataFrame({"lat": [1.0, 2.0], "lon": [3.0, 4.0], "dino_x": [5, 6], "mugs_x": [7, 8]})
    new = old[["lat", "lon", "dino_x"]].assign(dino_x=[0, 0])
    assert merged("figure2-places.csv", new, old).to_dict("list") == {
        "lat": [1.0, 2.0], "lon": [3.0, 4.0], "dino_x": [0, 0], "mugs_x": [7, 8],
    }  # fmt: skip
    assert "mugs_x" not in merged("figure2-places.csv", new.assign(lat=[1.5, 2.0]), old)


@pytest.mark.parametrize("name", list(ENTRIES))
def test_what_is_published_merges_with_itself(name: str) -> None:
    """On the committed files: the keys are columns of theirs, and nothing is lost or doubled."""
    for file in sorted((paths.repository() / "data" / "results").glob(f"*/{name}")):
        old = pd.read_csv(file, dtype={"run_id": str, "commit": str, "data": str}, low_memory=False)
        key = list(ENTRIES[name])
        same = (old[key].fillna("") == old[key].iloc[0].fillna("")).all(axis=1)
        first = old[same]
        out = merged(name, first.reset_index(drop=True), old)
        assert len(out) == len(old) and list(out) == list(old)
        pd.testing.assert_frame_equal(out, old, check_dtype=False)


def test_publishing_adds_to_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publishing = importlib.import_module("reproduction.publishing")  # the package has the function by that name
    profile = get_profile("smoke")
    folder = tmp_path / "data" / "results" / "smoke"
    folder.mkdir(parents=True)
    table(rows("mugs", 1.0), rows("dino", 2.0)).to_csv(folder / "table3.csv", index=False)
    nothing: dict[str, object] = {}
    monkeypatch.setattr(publishing.paths, "repository", lambda: tmp_path)
    monkeypatch.setattr(publishing, "complete", lambda *run: False)
    monkeypatch.setattr(publishing.table1_table2, "finished", lambda profile, name: pd.DataFrame())
    monkeypatch.setattr(
        publishing, "FINISHED_TABLES", {"table3": lambda profile: {"table3.csv": table(rows("dino", 7.0))}}
    )
    monkeypatch.setattr(publishing, "FINISHED_FIGURES", nothing)
    monkeypatch.setattr(publishing, "FINISHED_CHAPTERS", nothing)
    assert publishing.publish(profile) == [folder / "table3.csv"]
    out = pd.read_csv(folder / "table3.csv")
    assert out["method"].tolist() == ["mugs"] * 2 + ["dino"] * 2 and out["value"].tolist() == [1.0, 2.0, 7.0, 8.0]


def test_verdicts_are_never_kept(tmp_path: Path) -> None:
    """What is published in a folder gives all its verdicts, whatever stood there before."""
    publishing = importlib.import_module("reproduction.publishing")
    cells = [("gps_selm", 0.5, 0), ("gps_selm", 0.7, 1), ("dino", 0.9, 0), ("mugs", 1.0, 0)]
    made = [
        {"experiment": "table1", "target": "l01", "split": "blocks", "setting": "frozen", "epochs": epochs,
         "metric": "mse", "trial": 0, "value": value - epochs / 100, "n_train": 90, "n_test": 80,
         "method": method, "seed": seed,
         "profile": "p", "run_id": "r", "stand_in": False, "data": "d", "commit": "c", "device": "cpu", "torch": "2",
         "date": "2026-11-28"}
        for method, value, seed in cells
        for epochs in (1, 25, 50)
    ]  # fmt: skip
    table = pd.DataFrame(made)
    table.to_csv(tmp_path / "table1.csv", index=False)
    pd.DataFrame({"id": ["T1-best-frozen-1-dino"], "verdict": ["better"]}).to_csv(tmp_path / "claims.csv", index=False)
    half = [
        {"region": "r", "target": "l01", "metric": "mse", "buffer_km": 1, "setting": "frozen", "method": row["method"],
         "seed": row["seed"], "epochs": row["epochs"], "block": f"b{block}", "points": 4,
         "score": row["value"] + (block % 2 - 0.5) / 10, "data": "d"}
        for row in made
        for block in range(20)
    ]  # fmt: skip
    blocks = pd.DataFrame(half)
    blocks = blocks[blocks["method"] != "mugs"]  # its scores were not kept
    blocks.loc[(blocks["method"] == "dino") & (blocks["epochs"] == 50), "score"] += 0.1  # those of older rows
    blocks.to_csv(tmp_path / "table1-blocks.csv", index=False)
    assert [file.name for file in publishing.publish_verdicts(tmp_path)] == ["claims-table1.csv", "claims.csv"]
    by = pd.read_csv(tmp_path / "claims.csv").set_index("id")
    one = by.loc["T1-best-frozen-1-dino"]
    assert one["gain"] == pytest.approx(0.3) and one["verdict"] == "better" and 0 < one["low"] < 0.3 < one["high"]
    assert one[["n_points", "n_blocks", "seeds_a", "seeds_b"]].tolist() == [80, 20, 2, 1]
    for name, gain in (("T1-best-frozen-50-dino", 0.3), ("T1-best-frozen-25-mugs", 0.4)):
        one = by.loc[name]
        assert (one["verdict"], one["reason"]) == ("undecided", "scores were not kept") and pd.isna(one["low"])
        assert one["gain"] == pytest.approx(gain) and one["n_points"] == 80
    assert by.loc["T1-best-frozen-1-tile2vec", "reason"] == "no finished row of tile2vec"
    assert by.loc["F5-tokyo", "reason"] == "no finished recall in tokyo and wall-street"
    first = (tmp_path / "claims.csv").read_text()
    publishing.publish_verdicts(tmp_path)
    assert (tmp_path / "claims.csv").read_text() == first

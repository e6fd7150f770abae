"""What is published stays until it is computed anew."""

from __future__ import annotations

import importlib
from pathlib import Path

import pandas as pd
import pytest

from reproduction import paths
from reproduction.merging import CLAIMS, ENTRIES, merged
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


def test_a_file_of_another_form_is_not_dropped_without_a_word() -> None:
    old = table(rows("mugs", 1.0)).drop(columns="setting")
    with pytest.raises(InputError, match=r"table1\.csv: what is published has no column 'setting'"):
        merged(NAME, table(rows("dino", 5.0)), old)


def claims(*found: tuple[str, str, int]) -> pd.DataFrame:
    """Claims of (id, verdict, runs), tested on nine points; one that is not run has none."""
    table = pd.DataFrame(found, columns=["id", "verdict", "seeds_a"])
    points = table["seeds_a"].where(table["seeds_a"] > 0) * 0 + 9
    return table.assign(gain=0.0, n_points=points, n_blocks=points, seeds_b=table["seeds_a"])


def test_a_claim_keeps_the_verdict_with_the_most_runs_behind_it() -> None:
    old = claims(("a", "holds", 3), ("b", "holds", 1), ("c", "not run", 0), ("gone", "holds", 3))
    new = claims(("a", "undecided", 1), ("b", "undecided", 1), ("c", "reversed", 1), ("d", "not run", 0))
    out = merged("claims.csv", new, old)
    assert out["id"].tolist() == ["a", "b", "c", "d"]
    assert out["verdict"].tolist() == ["holds", "undecided", "reversed", "not run"]
    assert out["seeds_a"].tolist() == [3, 1, 1, 0]
    for one in (out, merged("claims.csv", new, None)):
        assert one.to_csv(columns=["n_points", "n_blocks"], index=False).split()[1:] == ["9,9", "9,9", "9,9", ","]


def test_columns_of_the_same_places_are_kept() -> None:
    old = pd.DataFrame({"lat": [1.0, 2.0], "lon": [3.0, 4.0], "dino_x": [5, 6], "mugs_x": [7, 8]})
    new = old[["lat", "lon", "dino_x"]].assign(dino_x=[0, 0])
    assert merged("figure2-places.csv", new, old).to_dict("list") == {
        "lat": [1.0, 2.0], "lon": [3.0, 4.0], "dino_x": [0, 0], "mugs_x": [7, 8],
    }  # fmt: skip
    assert "mugs_x" not in merged("figure2-places.csv", new.assign(lat=[1.5, 2.0]), old)


@pytest.mark.parametrize("name", [*ENTRIES, *CLAIMS])
def test_what_is_published_merges_with_itself(name: str) -> None:
    """On the committed files: the keys are columns of theirs, and nothing is lost or doubled."""
    for file in sorted((paths.repository() / "data" / "results").glob(f"*/{name}")):
        old = pd.read_csv(file, dtype={"run_id": str, "commit": str, "data": str}, low_memory=False)
        key = list((ENTRIES | CLAIMS)[name])
        same = (old[key].fillna("") == old[key].iloc[0].fillna("")).all(axis=1)
        first = old[same]
        out = merged(name, old if name in CLAIMS else first.reset_index(drop=True), old)
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

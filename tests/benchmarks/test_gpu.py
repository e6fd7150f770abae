"""The one command for a GPU machine, on a CPU: several processes share out the rows of a profile and probe them."""

from __future__ import annotations

import fcntl
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import gpu, lane
from reproduction.computed import encoders
from reproduction.experiments import table1_table2
from reproduction.profiles import get_profile

SMOKE = get_profile("smoke")


def test_lanes_share_out_the_rows_and_probe_them_as_the_tables_do(
    smoke: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        str(tmp_path), "--profile", "smoke", "--rows", "random_init", "moco_v2", "--minutes", "5", "--skip",
        *gpu.PARTS, "--lanes",
    ]  # fmt: skip
    assert gpu.main([*words, "2"]) == 0
    for method in ("random_init", "moco_v2"):
        for entry in lane.entries(SMOKE, method, 0):
            assert table1_table2.GRID.kept(SMOKE, entry).is_there(), entry.label
    said = "".join(file.read_text() for file in (tmp_path / "logs").glob("lane-*.log"))
    for name in ("random_init-s0", "moco_v2-s0"):
        for phase in ("trained", "probed"):
            assert (tmp_path / phase / f"{name}.json").exists() and said.count(f"{name}: to be {phase}") == 1
    # the table at the end is that of the entries
    scores = pd.read_csv(tmp_path / "scores.csv")
    entry = table1_table2.Entry("table1", "l01", "blocks", "moco_v2", "frozen-closed")
    shown = scores[(scores["experiment"] == "table1") & (scores["target"] == "l01") & (scores["split"] == "blocks")
                   & (scores["setting"] == "frozen-closed") & (scores["method"] == "moco_v2")]  # fmt: skip
    expected = table1_table2.GRID.kept(SMOKE, entry).rows()["value"].mean()
    np.testing.assert_allclose(shown["mean"], [expected])
    # called again it goes on: nothing is left to do
    run = encoders.pretraining_folder(SMOKE, "moco_v2") / "run.json"
    before = run.stat().st_mtime_ns
    capsys.readouterr()
    assert lane.main(words[:6]) == 0 and run.stat().st_mtime_ns == before
    assert "to be" not in "".join(capsys.readouterr())


def test_what_another_process_has_taken_is_left_to_it(smoke: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with (tmp_path / "taken" / "random_init-s0").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert lane.main([str(tmp_path), "--profile", "smoke", "--rows", "random_init"]) == 0
        assert not (tmp_path / "probed").exists()
    assert lane.main([str(tmp_path), "--profile", "smoke", "--rows", "random_init"]) == 0
    assert (tmp_path / "probed" / "random_init-s0.json").exists()


def test_a_row_that_fails_is_named_and_the_others_are_done(
    smoke: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no such kernel\nand more")

    monkeypatch.setattr(encoders, "pretrained", broken)
    assert lane.main([str(tmp_path), "--profile", "smoke", "--rows", "random_init", "dino"]) == 1
    assert "dino-s0: RuntimeError: no such kernel" in capsys.readouterr().err
    there = {file.parent.name for file in tmp_path.glob("*/dino-s0.json")}
    assert (tmp_path / "probed" / "random_init-s0.json").exists() and not there


def test_rows_come_in_the_order_of_their_worth() -> None:
    rows = lane.rows(get_profile("japan-gpu"))
    assert rows[:3] == [("random_init", 0), ("dino", 0), ("gps_selm", 0)]
    assert len(rows) == len(set(rows))
    assert {("dino", 2), ("gps_selm", 2), ("tile2vec", 0), ("multi_zoom", 0)} < set(rows)
    assert rows.index(("tile2vec", 0)) < rows.index(("dino", 1)) < rows.index(("geo_only", 0))


def test_an_unknown_profile_is_said_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([str(tmp_path), "--profile", "jappan"]) == 2
    assert capsys.readouterr().err.strip().startswith("gpu: unknown profile 'jappan'; did you mean 'japan'?")

"""The benchmarks themselves, at the smallest size: they run, and their tables hold what the page shows."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import coordinates, embedding, encoder_share, growth, pretraining, probes, profile_step
from reproduction.computed import drawn_maps, encoders
from reproduction.pages import measurements
from reproduction.profiles import get_profile
from selm import encoder


def run(program: object, monkeypatch: pytest.MonkeyPatch, out: Path, *words: str) -> dict[str, pd.DataFrame]:
    monkeypatch.setattr(sys, "argv", ["benchmark", *words, "--out", str(out)])
    program.main()  # type: ignore[attr-defined]
    tables = {file.stem: pd.read_csv(file) for file in out.glob("*.csv")}
    for name, table in tables.items():
        shown = {column for column, _, _ in measurements.MEASURED[name].columns}
        assert {"device", "load", "commit", "date", "command"} <= set(table), name
        assert shown - set(table) <= {"recall", "build_s"}, name
    return tables


def test_pretraining_against_the_peers_that_are_here(
    smoke: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--profile", "smoke", "--steps", "1", "--rounds", "1")
    rows = run(pretraining, monkeypatch, tmp_path, *words)["pretraining"].set_index("way")
    assert "no --reference" in capsys.readouterr().err
    ours = rows.loc["ours, DINO"]
    assert ours["ratio"] == ours["cpu_ratio"] == 1.0 and 0 < ours["share_of_limit"] < 1
    assert ours["images_per_cpu_s"] > 0 and ours["batch"] == get_profile("smoke").pretraining.batch
    full = rows.loc["ours, GPS-SELM (five auxiliary losses)"]
    assert full["gflop_an_image"] > ours["gflop_an_image"]


def test_the_profile_of_a_step_adds_up(smoke: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = run(profile_step, monkeypatch, tmp_path, "--profile", "smoke", "--steps", "1", "--rounds", "1")
    parts = tables["profile_step"].query("kind == 'part'").set_index("name")
    assert {"backward", "cutting views", "student, forward", "teacher, forward", "reconstruction"} <= set(parts.index)
    assert parts["share"].sum() == pytest.approx(1, abs=0.02)
    assert (parts["share"] > -0.02).all() and parts.loc["student, forward", "calls"] == 2
    ways = tables["ablation"].set_index("way")
    assert ways.loc["as it is", "cpu_ratio"] == 1.0 and len(ways) >= 6


def test_embedding_counts_places(smoke: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = get_profile("smoke")
    model = smoke / "random-encoder"
    encoder.new_encoder(encoders.encoder_config(profile), 0).save_pretrained(model)
    atlas = next(iter(drawn_maps.atlases(profile, "pretrain").values())).path
    words = ("--model", str(model), "--map", str(atlas), "--most", "1")
    rows = run(embedding, monkeypatch, tmp_path / "out", *words)["embedding"]
    assert rows["what"].tolist() == ["selm embed"] and rows["places"].tolist() == [1]
    assert rows["peak_mib"][0] > 50
    assert str(smoke) not in (tmp_path / "out" / "embedding.csv").read_text()


def test_the_default_encoder_is_measured_beside_geoclip(
    smoke: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mapnik")
    monkeypatch.setattr(coordinates.peers, "geoclip_version", lambda: "9.8")
    monkeypatch.setattr(coordinates.peers, "geoclip_features", lambda lat, lon: lat)
    monkeypatch.delenv("SELM_DEVICE")  # as users have it: without PyTorch where ONNX Runtime is
    words = ("--places", "2", "--rounds", "1", "--threads", "1")
    rows = run(coordinates, monkeypatch, tmp_path / "out", *words)["coordinates"].set_index("what")
    assert rows["places"].eq(2).all() and rows.loc["GeoCLIP 9.8, location encoder", "cpu_ratio"] > 1
    assert (rows["places_per_s"].dropna() > 0).all() and rows["places_per_s"].notna().sum() == 4
    assert rows["threads_used"].dropna().eq(1).all()
    first = rows[rows.index.str.startswith("selm embed")]
    assert len(first) == 2 and (first["seconds"] > 0).all()


def test_shares_are_measured_for_encoders_of_several_sizes(
    smoke: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atlas = next(iter(drawn_maps.atlases(get_profile("smoke"), "pretrain").values())).path
    words = ("--encoders", "resnet18:0.125:32", "resnet50:1:32", "--seconds", "0.1", "--rounds", "1", "--batch", "16")
    rows = run(encoder_share, monkeypatch, tmp_path / "out", str(atlas), *words)["encoder_share"]
    assert rows["encoder"].tolist() == ["resnet18 x0.125", "resnet50 x1"] and rows["px"].tolist() == [32, 32]
    assert (rows["share"] > 0).all()  # which is larger is for a machine at rest to say
    assert str(smoke) not in (tmp_path / "out" / "encoder_share.csv").read_text()


def test_growth_of_probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = run(growth, monkeypatch, tmp_path, "--only", "trials", "--rounds", "1", "--largest", "2")["growth"]
    assert set(rows["what"]) == {"linear probe", "ridge"} and set(rows["size"]) == {1, 2}
    assert (rows["seconds"] > 0).all()


def test_probes_count_the_whole_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = run(probes, monkeypatch, tmp_path, "--points", "60", "--dim", "32", "--draws", "1")["probes"]
    for row in rows.itertuples():  # the file keeps six digits of each number
        assert row.column_cpu_seconds == pytest.approx(row.cpu_seconds * row.cells * 10, rel=1e-4)
    assert (rows["mse"] < 3).all()

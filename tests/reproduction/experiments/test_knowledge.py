"""What an embedding knows: the grid, its folds and targets, and what is published of it."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from reproduction import contents
from reproduction.experiments import knowledge, map_land_cover, table3_land_cover
from reproduction.experiments.knowledge import CLOSED, OTHER_REGIONS, PRACTITIONERS, Entry
from reproduction.experiments.table1_table2 import trees
from reproduction.experiments.verdicts import BESIDE
from reproduction.merging import merged
from reproduction.profiles import get_profile
from reproduction.report import check_results, summarise
from reproduction.rotations import rotated
from reproduction.settings import Profile
from reproduction.titles import title_of
from selm.errors import InputError
from selm.maps.mercator import haversine_m
from selm.probes import peers
from selm.probes.folds import problems
from selm.probes.frozen import logistic, ridge

SMOKE, JAPAN = get_profile("smoke"), get_profile("japan-cpu")
SOME = ("random_init", "geoclip", "prior", "knn_coordinates", "histogram_17+coordinates")


def test_every_row_is_asked_every_question_in_every_region() -> None:
    grid = knowledge.entries(JAPAN)
    assert len(set(grid)) == len(grid) and len({entry.label for entry in grid}) == len(grid)
    assert list(dict.fromkeys(entry.region for entry in grid)) == ["hokkaido", "kansai", "nagoya", "kanto"]
    for region in knowledge.regions_of(JAPAN):
        turned = knowledge.under(JAPAN, region)
        assert turned == (JAPAN if region == "hokkaido" else rotated(JAPAN, region))
        # a rotation has the same entries by itself
        assert knowledge.entries(turned, regions=[region]) == [entry for entry in grid if entry.region == region]
    one = [entry for entry in grid if (entry.region, entry.target) == ("kansai", "zone")]
    for km in (1.0, 5.0, 15.0):
        asked = [entry for entry in one if entry.buffer_km == km]
        assert {entry.method for entry in asked} == set(knowledge.METHODS) - {knowledge.RECOMMENDED}
        assert {entry.setting for entry in asked} == {CLOSED, BESIDE, PRACTITIONERS}
        assert [entry.method for entry in asked if entry.setting == BESIDE] == ["gps_selm"]
    elsewhere = [entry for entry in one if entry.setting == OTHER_REGIONS]
    assert {entry.method for entry in elsewhere} == set(knowledge.METHODS) - {knowledge.RECOMMENDED}
    # all numbers of the recommended embedding in Hokkaido alone
    ours = {(entry.region, entry.target, entry.method) for entry in grid if entry.method in knowledge.OURS}
    targets = ("price", "density", "area_type", "zone")
    reduced = set(itertools.product(knowledge.regions_of(JAPAN), targets, [knowledge.COMPACT]))
    assert ours == reduced | set(itertools.product(["hokkaido"], targets, [knowledge.RECOMMENDED]))
    assert all(title_of(entry.method) for entry in grid)
    assert {entry.seed for entry in one if entry.method == "gps_selm"} == {0, 1, 2}
    assert {entry.seed for entry in knowledge.entries(JAPAN, ["gps_selm"], ["kanto"], 1)} == {0}
    with pytest.raises(InputError, match="unknown region 'hiroshima'"):
        knowledge.entries(JAPAN, regions=["hiroshima"])
    with pytest.raises(InputError, match="unknown row 'dyno'; did you mean 'dino'"):
        knowledge.entries(JAPAN, ["dyno"])


def test_land_cover_is_asked_where_images_without_fills_are_drawn() -> None:
    cover = [entry for entry in knowledge.entries(JAPAN) if entry.target == "land_cover"]
    assert {entry.region for entry in cover} == {"hokkaido", "kansai", "nagoya", "kanto"}
    assert {entry.buffer_km for entry in cover} == {1.0, 5.0, 15.0}  # not from other regions
    several = {"multi_zoom", "histogram_17_14", "histogram_17_14+coordinates", *knowledge.OURS}
    assert {entry.method for entry in cover} == set(knowledge.METHODS) - several


def test_land_cover_is_read_off_images_without_fills(runs: Path) -> None:
    targets = dataclasses.replace(SMOKE.knowledge, targets=("land_cover",), n_cover_places=120)
    profile = dataclasses.replace(SMOKE, knowledge=targets)
    names = ("random_init", "prior", "knn_coordinates", "histogram_17", "histogram_17+coordinates")
    rows = knowledge.chapter(profile, names, progress=False)
    assert set(rows["target"]) == {"land_cover"} and set(rows["split"]) == {"blocks, 0.06 km", "blocks, 0.15 km",
                                                                            "blocks, 0.3 km"}  # fmt: skip
    assert set(rows["method"]) == set(names) and np.isfinite(rows["value"]).all()
    # sampled as Table 3's places, without fills, but so many as this chapter asks for, under its own buffer
    more = knowledge.of_cover(profile)
    places = map_land_cover.places(more)
    assert len(places) == 120 and not map_land_cover.is_there(profile)
    todo = knowledge.task(profile, "land_cover", 0.15).first(targets.n_logistic)
    assert (todo.targets == places["land_cover"]).all() and len(todo.places) == len(places)
    x = table3_land_cover.features(more, "osm_no_fills", "random_init", 0)
    assert not np.allclose(x, table3_land_cover.features(more, "osm", "random_init", 0))
    done = logistic(x, todo.targets, todo.folds, tolerance=knowledge.TOLERANCE)
    own = rows[(rows["method"] == "random_init") & (rows["buffer_km"] == 0.15) & (rows["metric"] == "top1")]
    np.testing.assert_allclose(own["value"], done.values("top1")[0], atol=1e-12)
    # colours, too, are of the images without fills
    entry = Entry("helsinki", "land_cover", PRACTITIONERS, 0.06, "histogram_17")
    colours = table3_land_cover.histograms(more, "osm_no_fills")
    grown = trees(profile, colours, knowledge.task(profile, "land_cover", 0.06))
    mine = rows[(rows["method"] == "histogram_17") & (rows["buffer_km"] == 0.06) & (rows["metric"] == "top1")]
    np.testing.assert_allclose(mine["value"], grown.values("top1")[0], atol=1e-12)
    assert knowledge.blocks(profile, entry)["data"].unique() == [map_land_cover.key(more)[:12]]
    assert set(knowledge.finished(profile)["knowledge.csv"]["target"]) == {"land_cover"}


def test_options_are_for_this_chapter_alone() -> None:
    with pytest.raises(InputError, match="chapter 'ablations' is computed as a whole; which, seeds can be chosen"):
        contents.chapter(SMOKE, "ablations", ["dino"], seeds=1)


def test_targets_are_standardised_by_the_tested_places() -> None:
    places = pd.DataFrame({
        "price_yen_m2": np.exp([1.0, 3.0, 9.0]), "density": [0.0, np.expm1(2.0), np.nan], "area_type": [4, -1, 2],
    })  # fmt: skip
    tested = np.array([True, True, False])
    np.testing.assert_allclose(knowledge.targets(places, "price", tested), [-1, 1, 7])
    np.testing.assert_allclose(knowledge.targets(places, "density", tested), [-1, 1, np.nan])
    assert knowledge.targets(places, "area_type", tested).tolist() == [4, -1, 2]
    with pytest.raises(InputError, match="unknown target 'prize'"):
        knowledge.targets(places, "prize", tested)


def test_the_smoke_profiles_rows_and_what_is_published_of_them(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "geoclip_version", lambda: "9.8")
    monkeypatch.setattr(peers, "geoclip_features", lambda lat, lon: np.column_stack([lat, lon]).astype(np.float32))
    assert knowledge.finished(SMOKE) == {}
    rows = knowledge.chapter(SMOKE, SOME, progress=False)
    buffers = SMOKE.knowledge.buffers_km
    assert len(rows.groupby(["target", "split", "method"])) == 2 * (len(buffers) + 1) * len(SOME)
    assert len(check_results(rows)) == len(rows)  # no row is there twice
    assert set(rows["region"]) == {"helsinki"} and set(rows["profile"]) == {"smoke"}
    assert set(rows.loc[rows["setting"] == OTHER_REGIONS, "split"]) == {"regions"}
    assert np.isfinite(summarise(rows)["mean"]).all()
    closed = rows[(rows["method"] == "random_init") & (rows["metric"] == "mse") & (rows["setting"] == CLOSED)]
    n_train = closed.groupby("buffer_km")["n_train"].mean()
    assert list(n_train.index) == list(buffers) and n_train.is_monotonic_decreasing

    # the buffers keep their distance, and the other region's places alone are learned from
    for km in buffers:
        todo = knowledge.task(SMOKE, "price", km)
        lat, lon = todo.places["lat"].to_numpy(), todo.places["lon"].to_numpy()
        layout = problems(todo.targets, todo.folds, todo.kind)
        for train, test in zip(layout.train, layout.test, strict=True):
            assert haversine_m(lat[test][:, None], lon[test][:, None], lat[train], lon[train]).min() > 1000 * km
    todo = knowledge.task(SMOKE, "price", 0.0, elsewhere=True)
    layout = problems(todo.targets, todo.folds, todo.kind, test_folds=todo.test_folds)
    regions = todo.places["region"].to_numpy(str)
    assert set(regions[layout.test[0]]) == {"helsinki"} and set(regions[layout.train[0]]) == {"kotka"}
    assert len(layout.draw) == 1
    values = todo.targets[layout.test[0]]
    np.testing.assert_allclose([values.mean(), values.std()], [0, 1], atol=1e-6)

    # numbers of blocks are those of the rows
    published = knowledge.finished(SMOKE)
    assert set(published) == {"knowledge.csv", "knowledge-blocks.csv"}
    assert len(published["knowledge.csv"]) == len(rows)
    for entry in knowledge.entries(SMOKE, SOME):
        exact = knowledge.blocks(SMOKE, entry)
        mine = rows[(rows["target"] == entry.target) & (rows["split"] == entry.split)]
        mine = mine[mine["method"] == entry.method]
        for metric, part in exact.groupby("metric"):
            value = np.average(part["score"], weights=part["points"])
            assert value == pytest.approx(mine.loc[mine["metric"] == metric, "value"].mean(), abs=1e-6)
            assert part["points"].sum() == mine["n_test"].iloc[0]
    score = published["knowledge-blocks.csv"]["score"]
    assert [float(f"{one:.6g}") for one in score] == score.tolist()

    # publishing writes them, and adds to what is there
    publishing = importlib.import_module("reproduction.publishing")
    with monkeypatch.context() as patch:
        patch.setattr(publishing.paths, "repository", lambda: tmp_path)
        patch.setattr(publishing, "complete", lambda *run: False)
        patch.setattr(publishing.table1_table2, "finished", lambda profile, name: pd.DataFrame())
        patch.setattr(publishing, "FINISHED_TABLES", {})
        patch.setattr(publishing, "FINISHED_FIGURES", {})
        patch.setattr(publishing, "FINISHED_CHAPTERS", {"knowledge": lambda profile: published})
        first = publishing.publish(SMOKE)
        texts = [file.read_bytes() for file in first]
        assert [file.name for file in first] == [*published, "verdicts.csv"]
        assert publishing.publish(SMOKE) == first and [file.read_bytes() for file in first] == texts
    again = publishing.read_csv(first[1])
    assert again["score"].tolist() == score.tolist()

    # computed once
    for probe in ("ridge", "logistic", "without_embedding"):
        monkeypatch.setattr(knowledge, probe, None)
    assert len(knowledge.chapter(SMOKE, SOME, ["helsinki"], progress=False)) == len(rows)


def test_ridge_under_a_buffer_is_ridge_on_what_is_left(runs: Path) -> None:
    """The closed form against a slow loop over folds."""
    todo = knowledge.task(SMOKE, "price", SMOKE.knowledge.buffers_km[1]).first(1)
    x = todo.places[["lat", "lon"]].to_numpy() @ np.random.default_rng(0).normal(size=(2, 3))
    done = ridge(x, todo.targets, todo.folds, penalties=[0.1])
    lat, lon, fold = todo.places["lat"].to_numpy(), todo.places["lon"].to_numpy(), todo.folds.fold[0]
    for number in np.unique(fold):
        test = fold == number
        apart = haversine_m(lat[:, None], lon[:, None], lat[test], lon[test]).min(axis=1)
        train = ~test & (apart > 1000 * SMOKE.knowledge.buffers_km[1])
        mean, sd, centre = x[train].mean(0), x[train].std(0), todo.targets[train].mean()
        a, n = (x[train] - mean) / sd, train.sum()
        weights = np.linalg.solve(a.T @ a + 0.1 * n * np.eye(3), a.T @ (todo.targets[train] - centre))
        expected = (x[test] - mean) / sd @ weights + centre
        np.testing.assert_allclose(done.predictions[0, 0, test], expected, rtol=1e-3, atol=1e-4)


def test_a_buffer_that_leaves_nothing_is_refused_in_one_line(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    far = dataclasses.replace(SMOKE, knowledge=dataclasses.replace(SMOKE.knowledge, buffers_km=(50.0,)))
    entry = Entry("helsinki", "price", PRACTITIONERS, 50.0, "prior")
    with pytest.raises(InputError, match="no points to train on: all others lie within the buffer") as caught:
        knowledge.GRID.rows(far, entry)
    assert "\n" not in str(caught.value)
    rows = knowledge.chapter(far, ["prior"], progress=False)  # leaves that question out, and says so
    assert set(rows["split"]) == {"regions"} and set(rows["target"]) == {"price", "area_type"}
    (said, _) = capsys.readouterr().err.splitlines()
    assert said.startswith("knowledge: helsinki, price, blocks, 50 km: left out (folds: draw 0, fold 0: no points to")


def test_a_region_that_is_not_computed_here_keeps_its_published_rows() -> None:
    def rows(region: str, data: str, value: float) -> pd.DataFrame:
        about = {"region": region, "target": "price", "setting": CLOSED, "buffer_km": 15.0, "method": "dino", "seed": 0}
        return pd.DataFrame([{**about, "block": block, "score": value, "data": data} for block in ("a", "b")])

    old = pd.concat([rows("hokkaido", "h", 1.0), rows("kansai", "k", 2.0)], ignore_index=True)
    for name in ("knowledge.csv", "knowledge-blocks.csv"):
        out = merged(name, rows("kansai", "k", 3.0), old)
        assert out["score"].tolist() == [1.0, 1.0, 3.0, 3.0]
        out = merged(name, rows("kansai", "today", 3.0).assign(method="mugs"), old)
        assert out["region"].tolist() == ["hokkaido"] * 2 + ["kansai"] * 2  # other data go, of the same region alone


def test_without_being_named_only_pretrained_methods_have_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def table(profile: Profile, title: str, entries: list[Entry], *, progress: bool) -> pd.DataFrame:
        asked.extend((profile.name, entry.method) for entry in entries)
        return pd.DataFrame()

    def is_pretrained(profile: Profile, method: str, seed: int) -> bool:
        return (profile.name, method, seed) == ("japan-cpu-kansai", "dino", 0)

    monkeypatch.setattr(peers, "geoclip_version", lambda: "")
    monkeypatch.setattr(knowledge, "GRID", SimpleNamespace(table=table))
    monkeypatch.setattr(knowledge, "refusal", lambda *question, elsewhere: "")
    monkeypatch.setattr(knowledge.encoders, "is_pretrained", is_pretrained)
    knowledge.chapter(JAPAN, regions=["hokkaido", "kansai"])
    plain = {"random_init", *knowledge.WITHOUT_EMBEDDING}
    assert {method for name, method in asked if name == "japan-cpu"} == plain
    assert {method for name, method in asked if name == "japan-cpu-kansai"} == plain | {"dino"}
    asked.clear()
    knowledge.chapter(JAPAN, ["mugs"], ["hokkaido"])  # named: trained where it has to be
    assert set(asked) == {("japan-cpu", "mugs")}
    asked.clear()
    monkeypatch.setattr(peers, "geoclip_version", lambda: "9.8")
    knowledge.chapter(JAPAN, regions=["hokkaido"])
    assert {method for _, method in asked} == plain | {"geoclip"}
    asked.clear()
    monkeypatch.setattr(knowledge.encoders, "is_pretrained", lambda profile, *run: run == ("multi_zoom_wide", 0))
    knowledge.chapter(JAPAN, regions=["hokkaido", "kansai"])
    ours = [one for one in dict.fromkeys(asked) if one[1] in knowledge.OURS]
    reduced = ("japan-cpu-kansai", knowledge.COMPACT)
    assert ours == [*(("japan-cpu", name) for name in knowledge.OURS), reduced]

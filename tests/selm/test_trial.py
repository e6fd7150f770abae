"""Trying an embedding: what is compared and how, the verdict, what is refused, and a report that loads nothing."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made_up
import numpy as np
import pandas as pd
import pytest

from selm import trial as trials
from selm.cli import main
from selm.embedding.embedder import Embedder
from selm.errors import InputError
from selm.maps.atlas import Atlas
from selm.maps.mercator import haversine_m
from selm.maps.sphere import Neighbourhood
from selm.probes.claims import paired_bootstrap
from selm.probes.folds import BufferedFolds, random_folds
from selm.probes.frozen import ridge
from selm.trial import FREE, MEAN, WITH, try_embedding

N = 220
RNG = np.random.default_rng(0)
LAT, LON = made_up.place(0.2 + 3.6 * RNG.random(N), 0.2 + 3.6 * RNG.random(N))


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    return made_up.atlas(tmp_path_factory.mktemp("atlas"), 4, 4)


@pytest.fixture(scope="module")
def embedder(atlas: Atlas) -> Embedder:
    return Embedder(made_up.encoder(), atlas, "cpu", beside=("colours",))


@pytest.fixture(scope="module")
def vectors(embedder: Embedder) -> Any:
    return embedder(LAT, LON)


@pytest.fixture(autouse=True)
def without_geoclip(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(trials.peers, "geoclip_version", lambda: "")
    yield


def table(target: Any, **more: Any) -> pd.DataFrame:
    return pd.DataFrame({"lat": LAT, "lon": LON, "price": target, **more})


def tried(frame: Any, embedder: Embedder, target: str = "price", **options: Any) -> trials.Trial:
    return try_embedding(frame, target, map=embedder.map, model=embedder.model, device="cpu", **options)


def test_every_way_is_scored_on_the_same_places_and_folds(embedder: Embedder, vectors: Any) -> None:
    price = 100 + 7 * vectors[:, 3] + RNG.normal(size=N)
    price[[4, 9]] = np.nan
    found = tried(table(price), embedder)
    assert found.task == "regression" and len(found.places) == N - 2
    assert found.scores["way"].tolist() == [
        MEAN, "5 nearest by coordinates", "coordinates", "colours", FREE, "embedding", "embedding, colours", WITH,
    ]  # fmt: skip
    assert f"2 of {N} rows have no price: row 4 (" in " ".join(found.facts)
    scores = found.scores.set_index("way")
    assert scores.loc[MEAN, "random"] == pytest.approx(1, abs=0.05)
    ends = scores[[f"{s}{end}" for s in ("random", "blocks") for end in ("_low", "", "_high")]].to_numpy()
    assert (np.diff(ends[:, :3], axis=1) > 0).all() and (np.diff(ends[:, 3:], axis=1) > 0).all()

    kept = np.isfinite(price)
    lat, lon, y = LAT[kept], LON[kept], price[kept]
    side, block = trials.blocks(lat, lon, "")
    assert side == found.block_km
    near = Neighbourhood(lat, lon, 150 * side)
    folds = BufferedFolds(random_folds(int(block.max()) + 1, range(3), 5)[:, block], near)
    by_hand = ridge(vectors[kept][:, embedder.parts["e"] :], (y - y.mean()) / y.std(), folds)
    standard = (y - y.mean()) / y.std()
    points = np.square(np.clip(by_hand.predictions[0], standard.min(), standard.max()) - standard).mean(axis=0)
    again = paired_bootstrap(points, np.zeros(len(points)), block, higher_is_better=True)
    assert scores.loc["colours", "blocks"] == pytest.approx(points.mean(), rel=1e-4)
    assert scores.loc["colours", "blocks_low"] == pytest.approx(again.low, rel=1e-3)
    # the map is of the way with all, in the target's own units
    assert np.corrcoef(found.places["predicted"], y)[0, 1] > 0.5
    np.testing.assert_allclose(found.places["truth"], y)
    np.testing.assert_allclose(found.places["error"], found.places["predicted"] - y)
    assert found.places["row"].tolist() == np.flatnonzero(kept).tolist()


def test_nothing_is_learned_from_near_what_is_tested() -> None:
    side, block = trials.blocks(LAT, LON, "")
    folds = random_folds(int(block.max()) + 1, [0], 5)[:, block]
    near = Neighbourhood(LAT, LON, 1000 * trials.BUFFER * side)
    for fold in range(5):
        tested = folds[0] == fold
        learned = ~tested & ~near.of(tested)
        gaps = haversine_m(LAT[learned][:, None], LON[learned][:, None], LAT[tested], LON[tested])
        assert gaps.min() > 1000 * trials.BUFFER * side > 0


@pytest.mark.parametrize(("lat", "lon"), [(35.0, 139.0), (-60.0, 179.99), (0.0, 0.0), (84.0, 10.0)])
def test_blocks_are_the_largest_squares_that_serve(lat: float, lon: float) -> None:
    rng = np.random.default_rng(1)
    east, north = rng.uniform(-9, 9, (2, 400))  # km
    lats = lat + north / 111.2
    lons = (lon + east / 111.2 / np.cos(np.radians(lats)) + 180) % 360 - 180
    side, block = trials.blocks(lats, lons, "")
    assert side in (2, 5) and block.max() + 1 >= trials.LEAST_BLOCKS  # of 5 km there are 16 to 25
    assert np.bincount(block).max() <= trials.LARGEST_SHARE * len(lats)
    for one in range(block.max() + 1):
        mine = block == one
        gaps = haversine_m(lats[mine][:, None], lons[mine][:, None], lats[mine], lons[mine])
        assert gaps.max() < 1500 * side


def test_the_three_verdicts(embedder: Embedder, vectors: Any) -> None:
    e, colours = np.split(vectors, [embedder.parts["e"]], axis=1)
    told = (e - e.mean(axis=0)) / e.std(axis=0)
    found = tried(table(told[:, :6].sum(axis=1) + 0.1 * RNG.normal(size=N)), embedder)
    assert found.verdict.startswith("Yes: the embedding adds") and found.comparison.low > 0
    noise = tried(table(RNG.normal(size=N)), embedder)
    assert noise.verdict.startswith("No: in blocks that nothing was learned from") and "its mean" in noise.verdict
    common = colours[:, colours.std(axis=0).argsort()[::-1][:3]] @ np.array([1.0, 2.0, -1.0])
    free = tried(table(common + 0.02 * common.std() * RNG.normal(size=N)), embedder)
    assert not free.verdict.startswith("Yes") and free.comparison.high > free.comparison.low
    assert f"{free.comparison.low:+.3f} to {free.comparison.high:+.3f}" in free.verdict


def test_classes_are_told_apart_and_unknown_ones_left_out(embedder: Embedder, vectors: Any, tmp_path: Path) -> None:
    kind = np.where(vectors[:, 0] > np.median(vectors[:, 0]), '<script>alert("x")</script>', "a & b").astype(object)
    kind[7] = ""
    found = tried(table(0.0, **{"<i>kind": kind}), embedder, "<i>kind")
    assert found.task == "classification" and len(found.places) == N - 1 and "2 classes." in found.facts
    scores = found.scores.set_index("way")
    assert 0.35 < scores.loc[MEAN, "random"] < 0.65 and scores.loc["embedding", "random"] > 0.75
    assert set(found.places["predicted"]) == set(kind[kind != ""]) and found.places["error"].between(0, 1).all()

    page = found.save(tmp_path / "t.html").read_text(encoding="utf-8")
    assert "<script" not in page and "<i>kind" not in page and "&lt;i&gt;kind" in page and "&lt;script&gt;" in page
    assert not re.search(r"(src|href)\s*=|url\(|@import|https?://", page)
    assert page.count("<circle") == N - 1 + 2 * len(scores) and html.escape(found.verdict) in page
    assert "<h3>" in found._repr_html_() and str(found).splitlines()[-1] in found.facts
    with pytest.raises(InputError, match=r"must end in \.html"):
        found.save(tmp_path / "t.pdf")


SWAPPED = str.maketrans(",.", ".,")


@pytest.mark.parametrize(
    ("values", "task", "low"),
    [
        ([f"{value:,.1f}" for value in np.linspace(900, 5000, N)], "regression", 900),  # 1,234.5
        ([f"{value:.2f}".replace(".", ",") for value in np.linspace(0.5, 90, N)], "regression", 0.5),  # 12,50
        ([f"{value:,.1f}".translate(SWAPPED) for value in np.linspace(900, 5000, N)], "regression", 900),  # 1.234,5
        ([f"${value:,.0f}" for value in np.linspace(900, 5000, N)], "regression", 900),  # $1,234
        ([f"{value:.0f} %" for value in np.linspace(0, 99, N)], "regression", 0),
        (np.arange(N) % 5, "classification", None),
        ([True, False] * (N // 2), "classification", None),
        (["yes", "no"] * (N // 2), "classification", None),
    ],
)
def test_what_a_column_is_is_said(
    embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: Any, task: str, low: float | None
) -> None:
    monkeypatch.setattr(trials, "DRAWS", 1)  # scores do not matter here, so that a third of the rows will do
    table(values).iloc[::3].to_csv(tmp_path / "x.csv", index=False)
    found = tried(tmp_path / "x.csv", embedder)
    assert found.task == task and "price is predicted as a" in found.facts[0]
    if task == "regression":
        assert found.places["truth"].min() == pytest.approx(low)


def test_missing_values_of_parquet(embedder: Embedder, tmp_path: Path) -> None:
    frame = table(pd.array([None, None, *range(N - 2)], dtype="Int64"), kind=pd.array([None, True] * (N // 2)))
    frame.to_parquet(tmp_path / "x.parquet")
    found = tried(tmp_path / "x.parquet", embedder)
    assert found.task == "regression" and found.facts[1].startswith(f"2 of {N} rows have no price: row 1 (")
    with pytest.raises(InputError, match="has 1 classes"):
        tried(tmp_path / "x.parquet", embedder, "kind")


def test_a_task_can_be_set_and_rows_are_drawn(embedder: Embedder) -> None:
    found = tried(table(np.arange(N) % 5), embedder, task="regression", rows=100)
    assert found.task == "regression" and len(found.places) == 100 and "as you said" in found.facts[0]
    assert f"Of {N} rows 100 are tried, drawn at random." in found.facts


def test_geoclip_has_a_row_where_it_is_installed(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials.peers, "geoclip_version", lambda: "9.8")
    monkeypatch.setattr(trials.peers, "geoclip_features", lambda lat, lon: np.stack([lat, lon], axis=1))
    assert tried(table(LAT), embedder).scores["way"].tolist()[-1] == "GeoCLIP 9.8"


def test_rows_that_a_server_has_nothing_for_are_left_out(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    class Losing(Embedder):
        def stream(self, lat: Any, lon: Any, **options: Any) -> Any:
            for rows, vectors in super().stream(lat, lon, **options):
                kept = lat[rows] > np.quantile(LAT, 0.1)
                yield rows[kept], vectors[kept]

    monkeypatch.setattr(trials, "Embedder", Losing)
    found = tried(table(LAT + RNG.normal(size=N)), embedder)
    lost = int((np.quantile(LAT, 0.1) >= LAT).sum())
    assert (
        len(found.places) == N - lost
        and found.places["row"].tolist() == np.flatnonzero(np.quantile(LAT, 0.1) < LAT).tolist()
    )
    assert f"Of {N} rows that are tried the map turned out to have nothing for {lost}." in found.facts


def test_what_cannot_be_tried_is_refused(embedder: Embedder) -> None:
    odd = [str(value) for value in RNG.normal(size=N)]
    odd[11] = "on request"
    short = table(RNG.normal(size=N))
    short.loc[40:, "price"] = np.nan
    spot = table(RNG.normal(size=N))
    spot[["lat", "lon"]] = spot.loc[:3, ["lat", "lon"]].to_numpy()[np.arange(N) % 4]
    good = table(RNG.normal(size=N))
    for frame, target, options, words in (
        (good, "prise", {}, "unknown column of the table 'prise'; did you mean 'price'"),
        (good, "price", {"task": "ranking"}, "unknown task 'ranking'"),
        (table(odd), "price", {}, "row 11, column price: 'on request' is not a number, as most others are"),
        (table(["a"] * N), "price", {}, "has 1 classes; 2 to 50"),
        (table([f"c{i % 60}" for i in range(N)]), "price", {}, "has 60 classes; 2 to 50"),
        (table(5.0), "price", {"task": "regression"}, "has one value, 5, in all rows"),
        (table(""), "price", {}, "column price is empty"),
        (short, "price", {}, "40 rows have a price and lie on the map; a trial needs 60"),
        (spot, "price", {}, "the rows lie in 4 spots of 50 m; a trial needs 20"),
    ):
        with pytest.raises(InputError, match=re.escape(words)):
            tried(frame, embedder, target, **options)


def test_the_command(embedder: Embedder, atlas: Atlas, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_up.encoder().save_pretrained(tmp_path / "run")
    table(RNG.normal(size=N)).to_csv(tmp_path / "x.csv", index=False)
    words = ["try", tmp_path / "x.csv", "--target", "price", "--map", atlas.path, "--model", tmp_path / "run"]
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words), "-o", str(tmp_path / "out.html"), "--device", "cpu"])
    out = capsys.readouterr().out
    assert not ended.value.code and "random folds" in out and "No: in blocks" in out and "out.html" in out
    assert (tmp_path / "out.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words), "-o", str(tmp_path / "out.pdf")])
    assert ended.value.code == 2 and "must end in .html" in capsys.readouterr().err

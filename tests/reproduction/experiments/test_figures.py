"""Figures 2, 3 and 5 from made-up places: the rules by which things are chosen, and the numbers that are kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from reproduction import contents
from reproduction.computed import drawn_maps, encoders
from reproduction.experiments import (
    figure2_tsne,
    figure3_interpolation,
    figure5_recall,
    held_out_sample,
    representations,
)
from reproduction.pages.style import kind_of
from reproduction.profiles import get_profile
from reproduction.settings import Area, Figures, Query, Retrieval
from selm.embedding.search import whitening
from selm.encoder import EncoderConfig, new_encoder
from selm.errors import InputError
from selm.maps.colours import colour_histogram
from selm.maps.style import make_palette

SMOKE = get_profile("smoke")
CONFIG = EncoderConfig("resnet18", 0.125, image_px=16, pixel_mean=(0.5,) * 3, pixel_std=(0.25,) * 3)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SELM_RUNS", str(tmp_path))
    return tmp_path


def table(n: int = 40, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    shares = pd.DataFrame(0.0, index=range(n), columns=list(held_out_sample.SHARES))
    shares["share_farmland"], shares["share_built_up"] = rng.random(n), rng.random(n)
    return shares.assign(lat=43 + rng.random(n), lon=141 + rng.random(n))


# -- Figure 2 ----------------------------------------------------------------------------------------------------------


def test_the_print_shows_the_plane_of_greatest_spread() -> None:
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(300, 2)) * [10, 4]
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    points = np.column_stack([flat, 0.01 * rng.normal(size=300)]) @ turn
    found = figure2_tsne.principal_plane(points)
    for axis in (0, 1):
        assert abs(np.corrcoef(found[:, axis], flat[:, axis])[0, 1]) > 0.99
    assert (found.max(axis=0) >= -found.min(axis=0)).all()


def test_thumbnails_cover_the_plane_and_are_not_too_many() -> None:
    points = np.random.default_rng(0).uniform(size=(2000, 3)) * [8, 8, 0.01]
    rows = figure2_tsne.spread_out(points, 90)
    assert 49 <= len(rows) <= 90 and len(set(rows.tolist())) == len(rows)
    flat = figure2_tsne.principal_plane(points)
    away = np.linalg.norm(flat[:, None] - flat[rows][None], axis=-1).min(axis=1)
    assert away.max() < 2.2  # no part of the 8 × 8 square is far from a picture
    assert figure2_tsne.spread_out(np.zeros((5, 3)), 3).tolist() == [0]


# -- Figure 3 ----------------------------------------------------------------------------------------------------------


def test_endpoints_are_drawn_by_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    places = table()
    monkeypatch.setattr(held_out_sample, "places", lambda profile: places)
    figures = Figures(extreme=5, pairs=200, seed=1)
    profile = dataclasses.replace(SMOKE, figures=figures)
    pairs = figure3_interpolation.endpoints(profile)
    cities = set(np.argsort(-places["share_built_up"].to_numpy())[:5])
    fields = set(np.argsort(-places["share_farmland"].to_numpy())[:5]) - cities
    assert set(pairs[:, 0]) == fields and set(pairs[:, 1]) == cities
    np.testing.assert_array_equal(pairs, figure3_interpolation.endpoints(profile))
    places["share_farmland"] = np.where(np.arange(40) < 3, 0.5, 0.0)
    with pytest.raises(InputError, match="only 3 held-out places show a field"):
        figure3_interpolation.endpoints(profile)


def test_a_way_finds_what_lies_between_and_never_its_ends() -> None:
    """Places on a quarter circle: each step finds the nearest of those left."""
    angles = np.linspace(0, np.pi / 2, 11)
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    places = pd.DataFrame({"lat": np.full(11, 43.0), "lon": np.linspace(141, 142, 11)})
    way = figure3_interpolation.way(x, places, np.array([0, 10]), 3, 2, "linear")
    assert way.rows.tolist()[0] == [1, 2] and way.rows.tolist()[2] == [9, 8]
    assert way.rows[1, 0] == 5 and set(way.rows[1]) <= {4, 5, 6}
    assert (np.diff(way.similarity, axis=1) <= 0).all()


def test_contiguous_by_hand() -> None:
    near = sparse.csr_array(np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]], bool))
    rows = np.array([[0, 2], [1, 2]])
    # step 1: 1 with 0 (near), with 2 of the step before, with 2 beside it; 2 with 0, with 1 beside it
    assert figure3_interpolation.contiguous(rows, near) == pytest.approx(1 / 5)
    assert figure3_interpolation.contiguous(np.array([[0], [0]]), near) == 0.0  # the same place is not another one


# -- What is compared --------------------------------------------------------------------------------------------------


def test_the_histogram_of_a_picture_is_that_of_its_palette_indices(monkeypatch: pytest.MonkeyPatch) -> None:
    base = [(0, 0, 0), (200, 200, 200), (100, 120, 140), (40, 200, 80), (240, 30, 30)]
    palette = make_palette(base)
    monkeypatch.setattr(drawn_maps, "palette", lambda profile: torch.tensor(palette, dtype=torch.float32) / 255)
    monkeypatch.setattr(encoders, "encoder_config", lambda profile: CONFIG)
    indices = np.random.default_rng(0).integers(0, len(base), (7, 16, 16)).astype(np.uint8)
    images = torch.from_numpy(palette[indices]).permute(0, 3, 1, 2).float() / 255
    found = representations.vectors(SMOKE, "histogram", 0, images.split(3))
    np.testing.assert_allclose(found, np.sqrt(colour_histogram(indices, palette)), atol=1e-6)
    pixels = representations.vectors(SMOKE, "pixels", 0, images.split(4))
    assert pixels.shape == (7, 3 * representations.PIXELS**2)
    np.testing.assert_allclose(pixels.reshape(images.shape), (images - 0.5) / 0.25, atol=1e-5)


def test_every_figure_has_numbers_and_something_to_publish() -> None:
    from reproduction.contents import FINISHED_FIGURES as FINISHED

    assert {2, 3, 5} <= set(contents.FIGURES) and set(FINISHED) <= set(contents.FIGURES)
    with pytest.raises(InputError, match="no figure 7"):
        contents.figure(SMOKE, 7)


# -- Figure 5 ----------------------------------------------------------------------------------------------------------


def test_recall_is_kept_by_area_and_representation(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    area = Area("a", "A", "none", (0, 0, 1, 1))
    queries = (Query("same"), Query("noise"))
    profile = dataclasses.replace(SMOKE, retrieval=Retrieval(30, (area,), queries, (1.0, 10.0, 100.0)))
    rng = np.random.default_rng(0)
    places = pd.DataFrame({"lat": 43 + rng.random(30), "lon": 141 + rng.random(30), "block": np.repeat(["x", "y"], 15)})
    own = rng.normal(size=(30, 8)).astype(np.float32)
    asked: list[str] = []

    class Map:
        fingerprint = "f" * 64

    def pictures(profile: object, area: Area, query: Query | None) -> Iterable[str]:
        asked.append(query.name if query else "")
        return ["noise" if query and query.name == "noise" else "same"]

    def vectors(profile: object, method: str, seed: int, images: Iterable[str], encoder: object) -> np.ndarray:
        (word,) = images
        return own if word == "same" else np.random.default_rng(9).normal(size=own.shape).astype(np.float32)

    monkeypatch.setattr(figure5_recall, "gallery", lambda profile, area: places)
    monkeypatch.setattr(figure5_recall, "area_atlas", lambda profile, area, style="": Map())
    monkeypatch.setattr(figure5_recall, "pictures", pictures)
    monkeypatch.setattr(representations, "vectors", vectors)
    monkeypatch.setattr(representations, "complete_ones", lambda profile: [("pixels", 0), ("histogram", 0)])
    rows = figure5_recall.compute(profile, area, [("pixels", 0), ("histogram", 0)])
    same = rows[(rows["query"] == "same") & (rows["method"] == "pixels")]
    assert same["recall"].tolist() == [1.0, 1.0, 1.0] and same["low"].tolist() == [1.0, 1.0, 1.0]
    noise = rows[(rows["query"] == "noise") & (rows["share"] == 10)]
    assert noise["recall"].between(0, 0.35).all() and (rows["gallery"] == 30).all() and (rows["n_blocks"] == 2).all()
    assert asked == ["", "same", "noise"]  # once for both representations
    pd.testing.assert_frame_equal(figure5_recall.compute(profile, area, [("pixels", 0), ("histogram", 0)]), rows)
    assert asked == ["", "same", "noise"]  # and not again
    assert figure5_recall.finished(profile) == {}  # no map is drawn to see whether there is anything
    monkeypatch.setattr(figure5_recall, "is_drawn", lambda profile, area: True)
    published = figure5_recall.finished(profile)
    assert set(published) == {"figure5.csv", "figure5-blocks.csv"} and len(published["figure5.csv"]) == len(rows)
    blocks = published["figure5-blocks.csv"]
    assert isinstance(blocks, pd.DataFrame) and len(blocks) == 2 * 2  # the tiles of two representations
    own = blocks[blocks["method"] == "pixels"]
    assert own["points"].sum() == 30 and set(own["score"]) == {1.0} and set(own["target"]) == {"same"}


def test_each_representation_is_there_whitened_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under another name and address, with the run it is of; raw pixels are not."""
    runs = representations.with_whitened([("pixels", 0), ("histogram", 0), ("random_init", 1)])
    assert runs[3:5] == [("histogram_whitened", 0), ("random_init_whitened", 1)]
    (beside,) = runs[5:]  # the colours beside an encoder's features; colours and pixels have none
    assert beside == ("random_init+colours_whitened", 1)
    assert representations.made_of(*beside) == [("random_init_whitened", 1), ("histogram", 0)]
    assert representations.title("gps_selm+colours_whitened") == "whitened GPS-SELM (geo+rec+int) and colours"
    assert representations.run_id(SMOKE, *beside) == "random_init"
    assert kind_of("gps_selm+colours_whitened") == "own"
    assert representations.title("histogram_whitened") == "whitened colour histogram"
    assert representations.title("gps_selm_whitened") == "whitened GPS-SELM (geo+rec+int)"
    assert representations.run_id(SMOKE, "random_init_whitened", 1) == "random_init"
    own = representations.source(SMOKE, "histogram", 0)
    there = representations.source(SMOKE, "histogram_whitened", 0)
    assert there.pop("whitened")["ridge"] > 0 and there == own
    coloured = representations.source(SMOKE, *beside)
    assert coloured.pop("colours") == 6 and coloured == representations.source(SMOKE, "random_init_whitened", 1)
    asked: list[list[tuple[str, int]]] = []

    def compute(profile: object, area: object, which: list[tuple[str, int]], progress: bool) -> pd.DataFrame:
        asked.append(which)
        return pd.DataFrame()

    monkeypatch.setattr(figure5_recall, "compute", compute)
    monkeypatch.setattr(representations, "complete_ones", lambda profile: runs[:3])
    figure5_recall.figure5(SMOKE, ["histogram_whitened", "random_init"])
    assert asked[0] == [("random_init", 1), ("histogram_whitened", 0)]


def test_colours_stand_beside_whitened_features(runs: Path) -> None:
    area = SMOKE.retrieval.areas[0]
    figure5_recall.compute(SMOKE, area, [("random_init+colours_whitened", 0)])
    kept = figure5_recall.kept(SMOKE, area, "random_init+colours_whitened", 0)
    # by hand, one place after the other
    own = list(figure5_recall.pictures(SMOKE, area, None))
    query = SMOKE.retrieval.queries[0]
    asked = list(figure5_recall.pictures(SMOKE, area, query))
    x, by = representations.whitened(SMOKE, "random_init_whitened", 0, own)
    y, _ = representations.whitened(SMOKE, "random_init_whitened", 0, asked, by)
    colours = [representations.vectors(SMOKE, "histogram", 0, images) for images in (own, asked)]
    for i, rank in enumerate(kept.tensors()[query.name].tolist()):
        distances = []
        for j in range(len(x)):
            apart = x[j] / np.linalg.norm(x[j]) - y[i] / np.linalg.norm(y[i])
            hues = colours[0][j] - colours[1][i]
            distances.append((apart**2).sum() + 36 * (hues**2).sum())
        assert abs(rank - sum(d <= distances[i] for d in distances)) <= 1  # two that are alike to rounding


def test_a_query_is_whitened_by_its_gallery_and_seen_in_eight_orientations(monkeypatch: pytest.MonkeyPatch) -> None:
    config = EncoderConfig("resnet18", 0.125, image_px=32)
    monkeypatch.setattr(encoders, "encoder", lambda *_: new_encoder(config, 3).eval())
    own = torch.rand(40, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    asked = own[:10].rot90(1, dims=(2, 3)).flip(3)
    found, by = representations.whitened(SMOKE, "dino_whitened", 0, own.split(16))
    again, same = representations.whitened(SMOKE, "dino_whitened", 0, [asked], by)
    assert found.shape == (40, 8 * (1 + 2 + 4 + 8)) and same is by
    np.testing.assert_allclose(again, found[:10], atol=1e-3)
    eight = new_encoder(dataclasses.replace(config, orientations=8, stages=(1, 2, 3, 4)), 3).eval()
    with torch.no_grad():
        features = eight.embed(own).numpy()
    np.testing.assert_allclose(found, whitening(features)(features), atol=1e-3)

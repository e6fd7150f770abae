"""Table 3's grid, and its places: their label is what covers their image, which lies whole on the map."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from reproduction import contents
from reproduction.computed import drawn_maps
from reproduction.experiments import image_sets, map_land_cover, table3_land_cover
from reproduction.labels.land_cover import STYLE, majority
from reproduction.profiles import get_profile
from selm.maps.mercator import to_tile
from selm.maps.style import LAND_COVER_CLASSES

SMOKE = get_profile("smoke")


def test_every_row_is_there_with_and_without_fills() -> None:
    grid = table3_land_cover.entries(get_profile("japan-cpu"))
    assert len(set(grid)) == len(grid)
    rows = {t: {(c.split, c.method, c.setting, c.seed) for c in grid if c.target == t} for t in table3_land_cover.OSM}
    assert rows["osm"] == rows["osm_no_fills"]
    methods = {method for _, method, _, _ in rows["osm"]}
    assert {"random_init", "raw_gps", "dino", "gps_selm", "geo_only", "histogram_17", "prior"} <= methods
    photographs = [c for c in grid if c.target not in table3_land_cover.OSM]
    assert {c.target for c in photographs} == {"uc_merced", "eurosat"} and {c.split for c in photographs} == {"random"}
    assert not any(c.method.startswith("raw_gps") or "coordinates" in c.method for c in photographs)
    assert {c.target for c in table3_land_cover.entries(SMOKE, photographs="naip")} == {"osm", "osm_no_fills", "naip"}
    assert all(c.method == "dino" for c in table3_land_cover.entries(SMOKE, which=["dino"]))


def test_every_photograph_has_a_source_that_says_what_it_stands_for() -> None:
    for name in ("naip", "xview", "sustainbench"):
        assert not image_sets.is_stand_in(name)
    for name in ("uc_merced", "eurosat", "aerial_cars", "map_images", "map_buildings"):
        assert image_sets.is_stand_in(name)
    with pytest.raises(Exception, match="did you mean 'eurosat'"):
        image_sets.get_source("eurosta")
    with pytest.raises(Exception, match="not made of photographs"):
        contents.table(SMOKE, "table1", photographs="naip")


def test_places_have_the_class_that_covers_their_image(runs: Path) -> None:
    assert not map_land_cover.is_there(SMOKE)
    assert table3_land_cover.finished(SMOKE) == {}
    places = map_land_cover.places(SMOKE)
    assert map_land_cover.is_there(SMOKE) and len(places) == SMOKE.land_cover.n_places
    classes, _ = map_land_cover.images(SMOKE, STYLE)
    np.testing.assert_array_equal(places["land_cover"], majority(classes.numpy()))
    counts = map_land_cover.class_counts(SMOKE)
    assert counts["places"].sum() == len(places) and len(counts) == len(LAND_COVER_CLASSES)
    assert (counts["places"] > 0).sum() > 2
    # the whole image lies in the place's block
    x, y = (v % 1 * SMOKE.maps.tile_px * 16 for v in to_tile(places["lat"], places["lon"], 13))
    half = SMOKE.views.global_px / 2
    assert min(x.min(), y.min()) >= half and max(x.max(), y.max()) <= SMOKE.maps.tile_px * 16 - half


def test_images_without_fills_are_other_images(runs: Path) -> None:
    full, colours = map_land_cover.images(SMOKE, SMOKE.maps.style)
    bare, fewer = map_land_cover.images(SMOKE, map_land_cover.NO_FILLS)
    assert full.shape == bare.shape == (SMOKE.land_cover.n_places, *(SMOKE.views.global_px,) * 2)
    assert colours.max() <= 1 and fewer.shape == (256, 3)
    assert (colours[full.long()] != fewer[bare.long()]).flatten(1).any(1).float().mean() > 0.2
    some = map_land_cover.images(SMOKE, SMOKE.maps.style, rows=[5, 2])[0]
    assert torch.equal(some, full[[5, 2]])


def test_entries_are_computed_once_and_those_without_images_are_shared(runs: Path) -> None:
    prior = [
        c
        for c in table3_land_cover.entries(SMOKE, which=["prior"])
        if c.target in table3_land_cover.OSM and c.split == "random"
    ]
    assert [c.target for c in prior] == ["osm", "osm_no_fills"]
    assert table3_land_cover.GRID.kept(SMOKE, prior[0]) == table3_land_cover.GRID.kept(SMOKE, prior[1])
    first = table3_land_cover.GRID.rows(SMOKE, prior[0], progress=False)
    assert table3_land_cover.GRID.kept(SMOKE, prior[0]).is_there()
    again = table3_land_cover.GRID.rows(SMOKE, prior[1], progress=False)
    assert first["target"].unique().tolist() == ["osm"] and again["target"].unique().tolist() == ["osm_no_fills"]
    assert first["value"].tolist() == again["value"].tolist()
    counts = map_land_cover.class_counts(SMOKE)["places"]
    mean = first.groupby("metric")["value"].mean()
    assert 0 < mean["top1"] <= counts.max() / counts.sum() and mean["top5"] > mean["top1"]
    published = table3_land_cover.finished(SMOKE)
    assert set(published) == {"table3.csv", "table3-blocks.csv", "table3-classes.csv"}
    assert len(published["table3.csv"]) == 2 * len(first) and not len(published["table3-blocks.csv"])
    entry = next(c for c in table3_land_cover.entries(SMOKE, which=["prior"]) if c.split == "blocks")
    entry = dataclasses.replace(entry, target=table3_land_cover.CLAIMED)
    rows = table3_land_cover.GRID.rows(SMOKE, entry, progress=False)
    blocks = table3_land_cover.finished(SMOKE)["table3-blocks.csv"]
    for metric in ("top1", "top5"):
        own = blocks[blocks["metric"] == metric]
        mean = np.average(own["score"], weights=own["points"])
        assert mean == pytest.approx(rows.loc[rows["metric"] == metric, "value"].mean())


def test_photographs_of_the_embedded_profiles_are_map_images(runs: Path) -> None:
    made = image_sets.read(SMOKE, "map_images")
    assert len(made) == SMOKE.land_cover.n_places and made.rgb(0).dtype == np.uint8
    np.testing.assert_array_equal(made.labels, map_land_cover.places(SMOKE)["land_cover"])
    assert image_sets.image_histograms(SMOKE, "map_images").shape == (len(made), 64)


def test_buildings_lie_where_the_map_draws_them(runs: Path) -> None:
    scenes = image_sets.read(SMOKE, "map_buildings")
    assert set(scenes.groups) == {"kotka", "helsinki"} and sum(map(len, scenes.boxes)) > 100
    inside, everywhere = [], []
    building = drawn_maps.atlases(SMOKE, "test")["helsinki"].palette  # the style's own colours
    for row in range(len(scenes)):
        image = scenes.rgb(row)
        everywhere.append(image.reshape(-1, 3))
        for x0, y0, x1, y1 in scenes.boxes[row].round().astype(int):
            inside.append(image[(y0 + y1) // 2, (x0 + x1) // 2])
    colours, counts = np.unique(np.array(inside), axis=0, return_counts=True)
    common = colours[counts.argmax()]
    share = (np.concatenate(everywhere) == common).all(axis=1).mean()
    assert counts.max() / counts.sum() > 0.5 > share + 0.1  # the middles of boxes are of the buildings' colour
    assert (building == common).all(axis=1).any()


def test_a_histogram_of_photographs_counts_by_hand() -> None:
    image = np.zeros((1, 2, 2, 3), dtype=np.uint8)
    image[0, 0, 0] = (255, 128, 64)  # bins 3, 2, 1 → 48 + 8 + 1
    image[0, 0, 1] = (192, 191, 127)  # the same bin
    image[0, 1, 0] = (63, 63, 63)  # bin 0, as black
    out = image_sets.rgb_histogram(image)
    assert out.shape == (1, 64) and out.sum() == 1.0
    assert out[0, 57] == out[0, 0] == 0.5

"""Any place as a profile: cut in two without leaking, labelled by what covers it, found again by its name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from reproduction import sites
from reproduction.any_place import making
from reproduction.places import splits
from reproduction.profiles import PROFILES, get_profile
from selm.errors import InputError
from selm.maps.mercator import haversine_m

BOUNDS = (9.47, 47.04, 9.64, 47.28)  # west, south, east, north


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SELM_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SELM_DATA", str(tmp_path / "data"))
    return tmp_path


def spread(n: int = 4000, seed: int = 0, bounds=BOUNDS) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(bounds[1], bounds[3], n), rng.uniform(bounds[0], bounds[2], n)


@pytest.fixture
def extract(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """A map source that is not there, with buildings all over `BOUNDS`."""
    opened = SimpleNamespace(
        name="small.osm.pbf",
        kind="osm",
        bounds=BOUNDS,
        fingerprint="f" * 64,
        attribution="© OpenStreetMap contributors",
        blocks=lambda bbox: None,
    )
    monkeypatch.setattr("selm.maps.sources.open_source", lambda path: opened)
    monkeypatch.setattr(making, "building_places", lambda source, bounds: spread(bounds=bounds))
    return opened


# The cut


@pytest.mark.parametrize(
    ("bounds", "along", "test"),
    [(BOUNDS, "parallel", "north"), ((9.0, 47.0, 9.9, 47.2), "meridian", "east")],
)
def test_the_line_crosses_the_longer_side_and_leaves_three_tenths(bounds, along, test):
    lat, lon = spread(bounds=bounds)
    cut = making.cut_in_two(lat, lon, bounds, 0)
    assert (cut.along, cut.test) == (along, test)
    values = lat if along == "parallel" else lon
    assert (values >= cut.at).mean() == pytest.approx(0.3, abs=0.08)
    assert cut.at / cut.cell_degrees == pytest.approx(round(cut.at / cut.cell_degrees), abs=1e-6)  # a border of cells


def test_cells_are_as_large_as_leaves_enough_of_them():
    lat, lon = spread()
    cut = making.cut_in_two(lat, lon, BOUNDS, 0)
    larger = making.SIZES[making.SIZES.index(cut.cell_degrees) - 1]

    def counts(size: float, at: float) -> list[int]:
        cells = splits.cell_of(lat, lon, size)
        return [len(np.unique(cells[side])) for side in (lat >= at, lat < at)]

    assert min(counts(cut.cell_degrees, cut.at)) >= making.MIN_CELLS
    borders = np.arange(np.ceil(BOUNDS[1] / larger), np.floor(BOUNDS[3] / larger) + 1) * larger
    best = borders[np.abs((lat[:, None] >= borders).mean(0) - making.TEST_SHARE).argmin()]
    assert min(counts(larger, best)) < making.MIN_CELLS


def test_few_or_crowded_points_cannot_be_cut():
    lat, lon = spread(30)
    assert making.cut_in_two(lat, lon, BOUNDS, 0) is None
    assert making.cut_in_two(np.full(4000, 47.1), np.full(4000, 9.5), BOUNDS, 0) is None
    lat, lon = spread(100)
    assert making.cut_in_two(lat, lon, BOUNDS, 60) is None  # not 60 points on either side


# The profile


def test_a_place_is_a_profile_at_some_scale(extract):
    profile = making.make_site("x.osm.pbf", "Liechtenstein", scale="smoke")
    assert profile.name.startswith("place-liechtenstein-") and "Liechtenstein" in profile.purpose
    assert profile.stand_ins and "stand-in" in profile.purpose
    assert profile.pretraining == PROFILES["smoke"].pretraining and profile.probing == PROFILES["smoke"].probing
    pretrain, test = profile.regions_for("pretrain"), profile.regions_for("test")
    assert len(pretrain) == len(test) == 1
    assert pretrain[0].bbox[3] == test[0].bbox[1]  # side by side along the parallel
    assert (pretrain[0].bbox[1], test[0].bbox[3]) == (BOUNDS[1], BOUNDS[3])
    height = haversine_m(47.1, 9.5, 47.1 + profile.maps.cell_degrees, 9.5)
    assert 0 < profile.maps.buffer_m <= min(1000, 0.16 * height)
    assert sites.is_site(profile) and not sites.is_site(PROFILES["smoke"])


def test_it_is_found_again_by_its_name(extract):
    profile = making.make_site("x.osm.pbf", "Liechtenstein", scale="smoke")
    assert get_profile(profile.name) == profile == sites.load_site(profile.name, PROFILES)
    again = making.make_site("x.osm.pbf", "Liechtenstein", scale="smoke")
    assert again == profile
    assert making.make_site("x.osm.pbf", "Liechtenstein", scale="demo").name != profile.name
    extract.fingerprint = "0" * 64
    assert making.make_site("x.osm.pbf", "Liechtenstein", scale="smoke").name != profile.name


def test_folds_hold_every_cell_on_one_side(extract):
    profile = making.make_site("x.osm.pbf", "Liechtenstein", scale="smoke")
    folds = splits.read_folds(profile)
    (pretrain,), (test,) = profile.regions_for("pretrain"), profile.regions_for("test")
    south = np.array([splits.cell_bounds(cell, profile.maps.cell_degrees)[1] for cell in folds["cell"]])
    tested = folds["region"] == test.name
    assert south[tested].min() >= test.bbox[1] - 1e-9 > south[~tested].max()
    assert set(folds["region"]) == {pretrain.name, test.name}
    assert folds.loc[tested, "draw_0"].min() >= 0 and folds.loc[tested, "set_aside"].sum() == 0
    assert folds["set_aside"].sum() == round(0.2 * (~tested).sum())


def test_nothing_is_pretrained_on_near_what_is_held_out(extract):
    profile = making.make_site("x.osm.pbf", "Liechtenstein", scale="smoke")
    folds = splits.read_folds(profile)
    lat, lon = spread(20_000, seed=1)
    split = splits.split_of(lat, lon, "pretrain", profile, folds)
    assert set(split) == {"pretrain", "buffer", "set-aside"}
    held_out = folds.loc[folds["draw_0"] >= 0, "cell"]
    distance = splits.metres_to_cells(lat, lon, held_out, profile.maps.cell_degrees)
    assert distance[split == "pretrain"].min() > profile.maps.buffer_m
    (test,) = profile.regions_for("test")
    near_the_line = (lat < test.bbox[1]) & (lat > test.bbox[1] - 1e-4)
    assert near_the_line.any() and not (split[near_the_line] == "pretrain").any()


def test_the_committed_profiles_are_split_as_before():
    profile = PROFILES["demo"]
    folds = splits.read_folds(profile)
    row = folds[folds["set_aside"] == 1].iloc[0]
    west, south, _, _ = splits.cell_bounds(row["cell"], profile.maps.cell_degrees)
    assert splits.split_of([south + 1e-4], [west + 1e-4], "pretrain", profile, folds).tolist() == ["set-aside"]
    assert splits.fold_file(profile).name == "embedded.csv"


# Labels


def test_official_labels_where_they_cover_the_place(extract, monkeypatch):
    monkeypatch.setattr(making, "official_places", lambda bounds: spread(400))
    profile = making.make_site("x.osm.pbf", "Somewhere", scale="smoke")
    assert not profile.stand_ins and "official labels" in profile.purpose
    assert making.make_site("x.osm.pbf", "Somewhere", scale="smoke", labels="stand-ins").stand_ins


def test_too_few_official_points_leave_stand_ins(extract, monkeypatch):
    monkeypatch.setattr(making, "official_places", lambda bounds: spread(50))
    assert making.make_site("x.osm.pbf", "Somewhere", scale="smoke").stand_ins
    with pytest.raises(InputError, match="Somewhere: only 50 official land prices here, too few"):
        making.make_site("x.osm.pbf", "Somewhere", scale="smoke", labels="official")


def test_vector_tiles_without_official_labels_are_refused(extract):
    extract.kind, extract.name = "mbtiles", "tiles.mbtiles"
    with pytest.raises(InputError, match=r"stand-ins are computed from \.osm\.pbf extracts, not from tiles\.mbtiles"):
        making.make_site("tiles.mbtiles", "Somewhere", scale="smoke")


def test_outside_japan_no_official_file_is_looked_for(folder):
    assert making.official_places(BOUNDS) is None
    assert making.official_places((139.7, 35.6, 139.8, 35.7)) is None  # nothing below SELM_DATA


def test_official_points_of_a_part_are_those_inside_its_box(monkeypatch):
    import pandas as pd

    from reproduction.places import regions

    points = pd.DataFrame({"lat": [35.60, 35.70], "lon": [139.75, 139.75], "address": ["東京都", "東京都"]})
    points.attrs["year"] = 2013
    monkeypatch.setattr(regions, "land_prices", points.copy)
    from reproduction.settings import Region

    parts = (
        Region("south", "x", "pretrain", (139.7, 35.55, 139.8, 35.65)),
        Region("north", "x", "test", (139.7, 35.65, 139.8, 35.75)),
    )
    profile = dataclasses.replace(PROFILES["japan"], regions=parts)
    from selm.maps import mercator

    x, y = mercator.to_tile(points["lat"], points["lon"], 13)
    keys = np.stack([np.floor(x), np.floor(y)], 1).astype(np.int32)  # both parts' maps hold both blocks
    found = regions.official_points(profile, {"south": keys, "north": keys})
    assert found["region"].tolist() == ["south", "north"]


# Mistakes


def test_mistakes_are_named(extract, folder):
    with pytest.raises(InputError, match="unknown profile 'dmeo'"):
        making.make_site("x.osm.pbf", "X", scale="dmeo")
    with pytest.raises(InputError, match="unknown kind of labels 'offical'"):
        making.make_site("x.osm.pbf", "X", labels="offical")
    with pytest.raises(InputError, match="no site 'place-nowhere'"):
        get_profile("place-nowhere")
    profile = making.make_site("x.osm.pbf", "Liechtenstein", scale="smoke")
    with pytest.raises(InputError, match=f"unknown site '{profile.name[:-1]}'; did you mean '{profile.name}'"):
        get_profile(profile.name[:-1])
    (folder / "runs" / "places" / f"{profile.name}.json").write_text("{")
    with pytest.raises(InputError, match="not a readable description"):
        get_profile(profile.name)


def test_a_place_too_small_says_so(extract, monkeypatch):
    monkeypatch.setattr(making, "building_places", lambda source, bounds: spread(12))
    with pytest.raises(InputError, match=r"Hut: too small to be cut in two \(12 buildings\)"):
        making.make_site("x.osm.pbf", "Hut")


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("path", "line"),
    [("osm-elsewhere/liechtenstein.osm.pbf", ("parallel", 47.19, 0.01)),
     ("osm-newyork/lower-manhattan.osm.pbf", ("meridian", -73.985, 0.005))],
)  # fmt: skip
def test_real_extracts(real, path, line, tmp_path, monkeypatch):
    source = real(path)
    monkeypatch.setenv("SELM_RUNS", str(tmp_path))
    profile = making.make_site(source, "Here", scale="smoke")
    cut = sites.describe(profile.name)["cut"]
    assert (cut["along"], cut["at"], cut["cell_degrees"]) == line
    assert profile.stand_ins
    description = json.loads((tmp_path / "places" / f"{profile.name}.json").read_text())
    assert description["attribution"] == "© OpenStreetMap contributors"

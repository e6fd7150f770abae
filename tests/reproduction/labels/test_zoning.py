"""A29 in its official forms: two codes for garden residential, unknown districts, names, CP932 without a .cpg."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from reproduction.labels.area_type import NO_ZONE, ZONES
from reproduction.labels.zoning import read_a29
from selm.errors import InputError

geopandas = pytest.importorskip("geopandas")
shapely = pytest.importorskip("shapely")
pytestmark = pytest.mark.filterwarnings("ignore:'crs' was not provided")

GARDEN = next(code for code, zone in enumerate(ZONES) if zone[0] == "2低専")


def zipped(folder: Path, suffix: str, codes: list, names: list | None, *, inside: str = "A29-19_09_GML/") -> Path:
    """A zip as the official ones: squares of 0.01 degrees side by side from 139.0 E, 36.0 N."""
    count = len(codes)
    columns = {"A29_001": ["09201"] * count, "A29_002": ["栃木県"] * count, "A29_004": codes}
    if names is not None:
        columns["A29_005"] = names
    squares = [shapely.box(139 + i / 100, 36, 139 + (i + 1) / 100, 36.01) for i in range(count)]
    table = geopandas.GeoDataFrame(columns, geometry=squares, crs=None if suffix == ".shp" else "EPSG:6668")
    folder.mkdir(exist_ok=True)
    member = folder / f"A29-19_09{suffix}"
    table.to_file(member, encoding="cp932" if suffix == ".shp" else None)
    path = folder / "A29-2019_09_GML.zip"
    with zipfile.ZipFile(path, "a") as archive:
        for file in sorted(folder.glob("A29-19_09.*")):
            if file.suffix not in (".prj", ".cpg"):
                archive.write(file, inside + file.name)
            file.unlink()
    return path


@pytest.mark.parametrize("suffix", [".geojson", ".shp"])
def test_codes_and_names(tmp_path, suffix):
    names = [ZONES[0][1], ZONES[11][1], "田園住居地域", "田園住居地域", "不明"]
    districts = read_a29(zipped(tmp_path / "x", suffix, [1, 12, 21, 13, 99], names))
    assert districts["zone"].tolist() == [0, 11, GARDEN, GARDEN, NO_ZONE]
    assert districts["name"].tolist() == names
    assert districts.crs.to_epsg() == 4326
    np.testing.assert_allclose(districts.total_bounds, (139, 36, 139.05, 36.01))


def test_the_command_shows_districts(tmp_path, shown):
    lines = shown("a29", zipped(tmp_path / "x", ".shp", [1, 12], [ZONES[0][1], ZONES[11][1]]))
    assert lines[:2] == ["2 rows of zone, name, geometry", "36.0000 to 36.0100 N, 139.0000 to 139.0200 E"]
    assert lines[2].split() == ["zone", "name"] and lines[4].split() == ["11", ZONES[11][1]]


def test_the_name_decides_where_codes_differ_between_editions(tmp_path):
    districts = read_a29(zipped(tmp_path / "x", ".geojson", [13, 1], ["工業地域", ""]))
    assert districts["zone"].tolist() == [10, 0]


def test_without_names_codes_do(tmp_path):
    assert read_a29(zipped(tmp_path / "x", ".shp", [3, 21], None))["zone"].tolist() == [2, GARDEN]


def test_utf8_folder_comes_before_shift_jis(tmp_path):
    zipped(tmp_path / "x", ".shp", [1], [ZONES[0][1]], inside="Shift-JIS/")
    path = zipped(tmp_path / "x", ".geojson", [8], [ZONES[7][1]], inside="UTF-8/")
    assert read_a29(path)["zone"].tolist() == [7]
    both = zipped(tmp_path / "y", ".geojson", [1], [ZONES[0][1]], inside="Shift-JIS/")
    zipped(tmp_path / "y", ".geojson", [8], [ZONES[7][1]], inside="UTF-8/")
    assert read_a29(both)["zone"].tolist() == [7]


@pytest.mark.parametrize(
    ("codes", "names", "message"),
    [
        ([1, 14], ["第一種低層住居専用地域", "?"], "row 2, field A29_004: '14' is no use district"),
        ([1, 0], None, "row 2, field A29_004: '0' is no use district"),
    ],
)
def test_what_means_nothing_is_named(tmp_path, codes, names, message):
    with pytest.raises(InputError, match=f"A29-2019_09_GML.zip: {message}"):
        read_a29(zipped(tmp_path / "x", ".geojson", codes, names))


def test_points_are_no_districts(tmp_path):
    path = tmp_path / "A29-19_09.geojson"
    geopandas.GeoDataFrame({"A29_004": [1]}, geometry=[shapely.Point(139, 36)], crs="EPSG:6668").to_file(path)
    with pytest.raises(InputError, match="row 1 is not a polygon"):
        read_a29(path)


def test_missing_fields(tmp_path):
    path = tmp_path / "A29-19_09.geojson"
    geopandas.GeoDataFrame({"other": [1]}, geometry=[shapely.box(139, 36, 140, 37)], crs="EPSG:6668").to_file(path)
    with pytest.raises(InputError, match="fields A29_004 and A29_005 are missing"):
        read_a29(path)


def test_a_ring_that_is_not_closed_is_named(tmp_path):
    outline = {"type": "Polygon", "coordinates": [[[139.7, 35.6], [139.8, 35.6], [139.8, 35.7], [139.7, 35.7]]]}
    feature = {"type": "Feature", "properties": {"A29_004": "1", "A29_005": "商業地域"}, "geometry": outline}
    with zipfile.ZipFile(tmp_path / "A29-19_01.zip", "w") as archive:
        archive.writestr("A29-19_01.geojson", json.dumps({"type": "FeatureCollection", "features": [feature]}))
    with pytest.raises(InputError, match=r"A29-19_01\.zip: A29-19_01\.geojson cannot be read \(.*closed linestring"):
        read_a29(tmp_path / "A29-19_01.zip")


def test_a_zip_of_zips_says_so(tmp_path):
    path = tmp_path / "A29-19.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("A29-19_01_GML.zip", b"")
    with pytest.raises(InputError, match=r"holds other zips \(A29-19_01_GML.zip …\); unpack it"):
        read_a29(path)


@pytest.mark.realdata
def test_districts_of_tochigi(real):
    districts = read_a29(real("mlit/zoning-a29-tochigi.parquet"))
    assert len(districts) == 2_573
    counts = np.bincount(districts["zone"], minlength=13)
    assert counts.tolist() == [358, 7, 315, 95, 712, 220, 64, 166, 87, 239, 182, 128, 0]

"""Tables of coordinates as people have them: what is read and said, and what `selm embed` makes of their columns."""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import json
import os
import subprocess
import sys
import types
import warnings
import zipfile
from pathlib import Path
from typing import Any

import made_up
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selm.embedding.coordinates import degrees, points_inside, read_places, read_table
from selm.embedding.embedder import Embedder
from selm.embedding.search import build_index, find_nearest
from selm.embedding.tables import embed_file, embedded_places, embedding_pieces, one_embedding, read_embeddings
from selm.errors import InputError, InputWarning, OutsideMapWarning
from selm.maps.atlas import Atlas
from selm.maps.tiles import Listed

LAT, LON = [35.69, 35.68, 35.67], [139.75, 139.76, 139.77]  # on the made-up atlas
ROWS = list(zip(LAT, LON, strict=True))
PLAIN = "lat,lon\n" + "".join(f"{a},{o}\n" for a, o in ROWS)


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    return made_up.atlas(tmp_path_factory.mktemp("atlas"), 3, 3)


@pytest.fixture(scope="module")
def embedder(atlas: Atlas) -> Embedder:
    return Embedder(made_up.encoder(), atlas, "cpu")


@pytest.fixture
def said(recwarn: pytest.WarningsRecorder) -> Any:
    """The warnings about tables so far, as one text; forgets them."""
    warnings.simplefilter("always")

    def call() -> str:
        lines = [str(w.message) for w in recwarn.list if issubclass(w.category, InputWarning | OutsideMapWarning)]
        recwarn.clear()
        assert all("\n" not in line for line in lines)
        return " | ".join(lines)

    return call


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def names_of(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines()[0].split(",")


# Reading

SEPARATED = {
    "comma.csv": PLAIN,
    "semicolon.csv": "lat;lon\n" + "".join(f"{a};{o}\n" for a, o in ROWS),
    "decimal commas.csv": "lat;lon\n" + "".join(f"{a};{o}\n".replace(".", ",") for a, o in ROWS),
    "quoted decimal commas.csv": "lat,lon\n" + "".join(f'"{a}","{o}"\n'.replace(".", ",") for a, o in ROWS),
    "tab.tsv": PLAIN.replace(",", "\t"),
    "pipe.csv": PLAIN.replace(",", "|"),
    "spaces.txt": PLAIN.replace(",", "   "),
    "excel.csv": "sep=;\n" + PLAIN.replace(",", ";"),
    "blank after comma.csv": PLAIN.replace(",", ", "),
    "windows lines.csv": PLAIN.replace("\n", "\r\n"),
    "old mac lines.csv": PLAIN.replace("\n", "\r"),
    "blank lines.csv": "\n" + PLAIN + "\n\n",
    "bom.csv": b"\xef\xbb\xbf" + PLAIN.encode(),
    "packed.csv.gz": gzip.compress(PLAIN.encode(), mtime=0),
    "packed.csv.bz2": bz2.compress(PLAIN.encode()),
    "packed in disguise.csv": gzip.compress(PLAIN.encode(), mtime=0),
}


@pytest.mark.parametrize("name", SEPARATED)
def test_separators_and_packing(tmp_path: Path, said: Any, name: str) -> None:
    places = read_places(write(tmp_path / name, SEPARATED[name]))
    assert places.lat.tolist() == LAT and places.lon.tolist() == LON and places.rows.tolist() == [0, 1, 2]
    assert said() == ""


def test_a_zip_of_one_file(tmp_path: Path) -> None:
    path = tmp_path / "coords.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("folder/coords.csv", PLAIN)
        archive.writestr("__MACOSX/coords.csv", "x")
    assert read_places(path).lat.tolist() == LAT
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("more.csv", PLAIN)
    with pytest.raises(InputError, match=r"coords\.zip: holds 2 files"):
        read_places(path)


@pytest.mark.parametrize(
    ("encoding", "word", "what"),
    [
        ("utf-8", "札幌", ""),
        ("cp932", "札幌", "CP932"),
        ("cp932", "カフェ ふじ", "CP932"),
        ("utf-16", "札幌", "UTF-16"),
        ("utf-16-le", "plain", "UTF-16-LE"),
        ("utf-16-be", "plain", "UTF-16-BE"),
        ("latin-1", "Café Müller, 60°", "Latin-1"),
        ("cp1252", "L’été “là”", "Latin-1"),
    ],
)
def test_encodings(tmp_path: Path, said: Any, encoding: str, word: str, what: str) -> None:
    text = "名前" if "CP" in what or what == "UTF-16" or not what else "name"
    path = write(tmp_path / "x.csv", f'lat,lon,{text}\n35.7,139.7,"{word}"\n'.encode(encoding))
    table = read_places(path).table
    assert table.columns.tolist() == ["lat", "lon", text] and table.iloc[0, 2] == word
    line = said()
    assert (what in line and "x.csv: read as" in line) if what else line == ""


@pytest.mark.parametrize(
    ("lat", "lon", "warned"),
    [
        ("lat", "lon", ""),
        ("LAT", "Lng", ""),
        ("Latitude [°]", "LONGITUDE [°]", ""),
        ("lat (deg)", "lon (deg)", ""),
        ("lat_deg", "long_deg", ""),
        ("latitude_wgs84", "longitude_wgs84", ""),
        ("緯度", "経度", ""),
        ("緯度（度）", "経度（度）", ""),
        ("Y", "X", "column Y is taken for latitude, X for longitude"),
        ("Northing", "Easting", "column Northing is taken for latitude"),
    ],
)
def test_names_of_columns(tmp_path: Path, said: Any, lat: str, lon: str, warned: str) -> None:
    places = read_places(write(tmp_path / "x.csv", f"{lon},{lat},n\n139.7,35.7,1\n"))
    assert (places.lat[0], places.lon[0]) == (35.7, 139.7) and places.table.columns.tolist() == [lon, lat, "n"]
    assert (warned in (line := said())) and bool(line) == bool(warned)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("60.1705", 60.1705), ("60,1705", 60.1705), (" +60.5 ", 60.5), ("−33.9", -33.9), ("６０.５", 60.5),
        ("60.17N", 60.17), ("33.9 S", -33.9), ("S 33.9", -33.9), ("W0.1", -0.1), ("24.9402E", 24.9402),
        ("60°10′13.8″N", 60.1705), ("60°10'13.8\"N", 60.1705), ("60° 10' 13.8'' N", 60.1705), ("60º10´13.8”", 60.1705),
        ("60 10 13.8 N", 60.1705), ("60d10m13.8s", 60.1705), ("60d10m13.8sS", -60.1705), ("60:10:13.8", 60.1705),
        ("60-10-13.8N", 60.1705), ("N60°10.23'", 60.1705), ("60 deg 10 min 13.8 sec", 60.1705), ("60°", 60.0),
        ("33 52 10 S", -33.869444), ("33d52m10s", 33.869444), ("-33 30", -33.5), ("北緯35度41分24秒", 35.69),
        ("西経0度30分", -0.5),
    ],
)  # fmt: skip
def test_spellings_of_degrees(text: str, value: float) -> None:
    assert degrees(text) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(
    "text",
    ["north", "60.1.2", "60 61 0", "60 10 60", "60.5 10", "60 10.5 3", "-33.9N", "N60S", "1,234.5", "inf", "60x"],
)
def test_what_is_no_coordinate(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError):
        degrees(text)
    with pytest.raises(InputError, match=r"x\.csv: row 2, column lat: '.*' is not a coordinate"):
        read_places(write(tmp_path / "x.csv", f"lat;lon\n1;2\n{text};2\n"))


def test_a_hemisphere_of_the_other_axis_is_no_coordinate(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"row 1, column lat: '24\.9E' is not a coordinate"):
        read_places(write(tmp_path / "x.csv", "lat,lon\n24.9E,60.1N\n"))


def test_two_pairs_of_coordinates(embedder: Embedder, tmp_path: Path, said: Any) -> None:
    path = write(tmp_path / "x.csv", "lat,lon,latitude,longitude\n1,2,35.69,139.75\n,,35.68,139.76\n")
    places = read_places(path, pair=("latitude", "longitude"))
    assert places.lat.tolist() == LAT[:2] and places.lon.tolist() == LON[:2]
    with pytest.raises(InputError, match=r"x.csv: no column breadth \(has: lat, lon, latitude, longitude\)"):
        read_places(path, pair=("breadth", "lon"))
    embed_file(path, embedder, tmp_path / "y.csv", pair=("latitude", "longitude"), progress=False)
    assert "the degrees that were read are called selm_lat, selm_lon" in said()
    there, vectors = read_embeddings(tmp_path / "y.csv")
    assert list(there.columns) == ["lat", "lon", "latitude", "longitude", "selm_lat", "selm_lon"]
    np.testing.assert_allclose(vectors, embedder(LAT[:2], LON[:2]), atol=1e-5)


def test_longitudes_to_360_and_the_180th_meridian(tmp_path: Path, said: Any) -> None:
    places = read_places(write(tmp_path / "x.csv", "lat,lon\n1,384.94\n2,180\n3,-180\n4,360\n5,0\n6,-190\n"))
    np.testing.assert_allclose(places.lon, [24.94, -180, -180, 0, 0, 170], atol=1e-9)
    assert "longitudes are taken modulo 360 in 3 of 6 rows (row 1: 384.94 is 24.94)" in said()


def test_rows_without_coordinates_stay(tmp_path: Path, said: Any) -> None:
    path = write(tmp_path / "x.csv", "lat,lon\n35.7,139.7\n,139.7\n35.7,n/a\n999,999\n139.7,35.7\n35.6,139.8\n")
    places = read_places(path)
    assert places.rows.tolist() == [0, 5] and len(places.table) == 6
    line = said()
    assert "2 of 6 rows have no coordinates: row 2, row 3; their embeddings are empty" in line
    assert "1 of 6 rows look swapped: row 5 (139.7, 35.7)" in line
    assert "1 of 6 rows are outside -90..90 or -180..180: row 4 (999, 999)" in line
    with pytest.raises(InputError, match="row 2, column lat: no value"):
        read_places(path, strict=True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "", "the file is empty"),
        ("x.csv", "\n \n", "the file is empty"),
        ("x.csv", "sep=;\n", "no column lat|empty"),
        ("x.csv", "lat,lon\n", "no rows"),
        ("x.csv", "35.7,139.7\n35.6,139.8\n", r"no column lat or latitude .*is the first line missing"),
        ("x.csv", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "binary"),
        ("x.csv", bytes(range(256)) * 20, "binary"),
        ("x.csv", PLAIN.encode("utf-16")[:-1], "not a (readable )?table"),
        ("x.csv", "lat,lon\n1,2\n1,2,3\n", "line 3 has 3 fields, the header names 2"),
        ("x.csv", "lat,lon,lat\n1,2,3\n", "column lat appears 2 times"),
        ("x.csv", "lat,latitude,lon\n1,2,3\n", "columns lat and latitude could both be lat; .*--pair LAT LON"),
        ("x.csv", "lat,lon\n,\n,\n", "row 1, column lat: no value"),
        ("x.csv", "X,Y\n385000,6672000\n", "columns X and Y are not degrees .row 1: 385000"),
        ("x.csv.gz", gzip.compress(PLAIN.encode(), mtime=0)[:20], "not a readable table"),
        ("x.zip", b"PK\x03\x04 no zip", "not a readable table"),
        ("x.parquet", "lat,lon\n1,2\n", "not a readable table"),
        ("x.geojson", "{}", "not a readable table"),
        ("x.gpkg", "no database", "not a .gpkg file"),
        ("x.fgb", b"fgb\x03fgb\x00 cut", "not a readable table .cut short or damaged"),
        ("x.xls", b"\xd0\xcf\x11\xe0", "old Excel"),
    ],
)
def test_hostile_files(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(InputError, match=message) as error:
        read_places(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_what_unpacks_to_very_much_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from selm.embedding import coordinates

    monkeypatch.setattr(coordinates, "UNPACKED_BYTES", 1000)
    with pytest.raises(InputError, match="unpacks to more than"):
        read_places(write(tmp_path / "x.csv.gz", gzip.compress(PLAIN.encode() + b" " * 10**6)))


def test_optional_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("openpyxl", "geopandas", "h3"):
        monkeypatch.setitem(sys.modules, module, None)
    for name, content, package in (
        ("x.xlsx", b"PK\x03\x04", "pip install openpyxl"),
        ("x.gpkg", b"", r"pip install selm\[maps\]"),
        ("x.csv", b"h3\n8a1126d1a2dffff\n", "column h3 needs h3: pip install h3"),
    ):
        with pytest.raises(InputError, match=package):
            read_places(write(tmp_path / name, content))


def test_excel(tmp_path: Path, said: Any) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["name", "Latitude", "Longitude", "name", None])
    for row in (["a", 35.69, 139.75, 7, 1], ["b", None, 139.76, "x", 2], ["c", "35°40′12″N", "139,77", 3, 4]):
        book.active.append(row)
    book.create_sheet("second")
    book.save(tmp_path / "x.xlsx")
    places = read_places(tmp_path / "x.xlsx")
    assert places.table.columns.tolist() == ["name", "Latitude", "Longitude", "name", ""]
    assert places.lat == pytest.approx([35.69, 35.67]) and places.rows.tolist() == [0, 2]
    line = said()
    assert "its sheet Sheet is read, not second" in line and "1 of 3 rows have no coordinates: row 2" in line


def test_the_sheet_that_has_coordinates_is_read(tmp_path: Path, said: Any) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["read me"])
    book.create_sheet("data")
    for row in (["lat", "lon"], [35.69, 139.75]):
        book["data"].append(row)
    book.save(tmp_path / "x.xlsx")
    assert read_places(tmp_path / "x.xlsx").lat.tolist() == [35.69]
    assert "its sheet data is read, not Sheet" in said()


def test_numbers_of_a_text_file_are_numbers_where_a_file_has_types(embedder: Embedder, tmp_path: Path) -> None:
    text = 'lat,lon,n,x,code,power,comma,gap\n35.69,139.75,1,1.50,007,1e3,"1,5",\n35.68,139.76,-20,2,008,2,"2,0",7\n'
    path = write(tmp_path / "x.csv", text)
    embed_file(path, embedder, tmp_path / "out.parquet", progress=False)
    kinds = {field.name: str(field.type) for field in pq.read_schema(tmp_path / "out.parquet")}
    assert (kinds["n"], kinds["gap"], kinds["x"]) == ("int64", "int64", "double")
    assert all("string" in kinds[name] for name in ("code", "power", "comma"))
    rows = pq.read_table(tmp_path / "out.parquet").select(["n", "x", "code", "gap"]).to_pylist()
    assert rows[0] == {"n": 1, "x": 1.5, "code": "007", "gap": None}
    embed_file(path, embedder, tmp_path / "out.csv", progress=False)
    assert '35.69,139.75,1,1.50,007,1e3,"1,5",,' in (tmp_path / "out.csv").read_text("utf-8")  # as it was
    if importlib.util.find_spec("geopandas"):
        embed_file(path, embedder, tmp_path / "out.geojson", progress=False)
        first = json.loads((tmp_path / "out.geojson").read_text("utf-8"))["features"][0]["properties"]
        assert (first["n"], first["x"], first["code"], first["gap"]) == (1, 1.5, "007", None)


def test_a_column_called_geometry_may_hold_words(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "lat,lon,geometry\n35.69,139.75,POINT\n35.68,139.76,round\n")
    assert read_places(path).lat.tolist() == [35.69, 35.68]


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    table = pa.table({"n": pa.array([1, None, 3]), "lat": LAT, "lon": pa.array(LON, pa.float32())})
    pq.write_table(table, tmp_path / "x.parquet")
    places = read_places(tmp_path / "x.parquet")
    assert places.lat.tolist() == LAT and pa.Array.from_pandas(places.table["n"]).to_pylist() == [1, None, 3]


# Shapes


def test_points_inside_shapes() -> None:
    shapely = pytest.importorskip("shapely")
    square = shapely.box(139, 35, 140, 36)
    ring = shapely.Point(139.5, 35.5).buffer(0.5).difference(shapely.Point(139.5, 35.5).buffer(0.4))
    thin = shapely.box(139, 35, 139.00001, 36)
    for shape in (square, ring, thin, shapely.MultiPolygon([square, shapely.box(-170, 0, -169, 1)])):
        for samples in (1, 4, 16, 100):
            points = points_inside(shape, samples)
            assert len(points) >= 1 and shapely.contains_xy(shape.buffer(1e-12), *points.T).all()
            assert max(1, samples // 2) <= len(points) <= 3 * samples + 3 or shape is thin
    np.testing.assert_allclose(points_inside(square, 200).mean(axis=0), [139.5, 35.5], atol=0.02)
    line = shapely.LineString([(139, 35), (139, 36)])
    np.testing.assert_allclose(points_inside(line, 4), [[139, 35.125], [139, 35.375], [139, 35.625], [139, 35.875]])
    assert len(points_inside(shapely.MultiPoint([(1, 2), (3, 4)]), 9)) == 2
    mixed = shapely.GeometryCollection([shapely.Point(0, 0), square])
    np.testing.assert_array_equal(points_inside(mixed, 9), points_inside(square, 9))
    for nothing in (None, shapely.Polygon(), shapely.GeometryCollection()):
        assert points_inside(nothing, 9).shape == (0, 2)
    assert len(points_inside(shapely.Polygon([(0, 0), (1, 1), (0, 0)]), 9)) <= 9  # without area: does not fail


def test_the_centre_of_a_shape_across_the_180th_meridian() -> None:
    geopandas = pytest.importorskip("geopandas")
    shapely = pytest.importorskip("shapely")
    both = shapely.MultiPolygon([shapely.box(179, 0, 180, 1), shapely.box(-180, 0, -179, 1)])
    lat, lon = read_places(geopandas.GeoDataFrame(geometry=[both], crs=4326), 64).centres()
    assert lat[0] == pytest.approx(0.5, abs=0.1) and abs(lon[0]) == pytest.approx(180, abs=0.1)


def shapes_on_the_map() -> Any:
    geopandas = pytest.importorskip("geopandas")
    shapely = pytest.importorskip("shapely")
    return geopandas.GeoDataFrame(
        {"name": ["point", "polygon", "nothing", "far", "line"]},
        geometry=[
            shapely.Point(139.75, 35.69), shapely.box(139.755, 35.66, 139.765, 35.67), None,
            shapely.box(10, 50, 11, 51), shapely.LineString([(139.76, 35.65), (139.77, 35.66)]),
        ],
        crs=4326,
    )  # fmt: skip


def test_polygons_are_the_mean_over_points_inside(embedder: Embedder, tmp_path: Path, said: Any) -> None:
    table = shapes_on_the_map()
    out = embedder.add_to(table, samples=9)
    line = said()
    assert "1 of 5 rows have no coordinates: row 2" in line and "1 of 5 coordinates lie outside" in line
    assert type(out) is type(table) and out.crs == table.crs
    values = out[[f"e{i}" for i in range(embedder.dim)]].to_numpy()
    assert np.isnan(values[[2, 3]]).all()
    for row in (0, 1, 4):
        points = points_inside(table.geometry[row], 9)
        np.testing.assert_allclose(values[row], embedder(points[:, 1], points[:, 0]).mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(embedder.transform(table)[0], values[0], atol=1e-5)
    embedder.fit(table)
    metres = embedder.add_to(table.to_crs(32654), samples=9)
    assert metres.crs.to_epsg() == 32654
    np.testing.assert_allclose(metres["e0"][0], values[0, 0], atol=1e-4)

    table.to_parquet(tmp_path / "x.parquet")
    assert embed_file(tmp_path / "x.parquet", embedder, tmp_path / "out.parquet", samples=9, progress=False) == 3
    rest, stored = read_embeddings(tmp_path / "out.parquet")
    np.testing.assert_allclose(stored, values, atol=1e-6)
    assert rest.columns.tolist() == ["name", "geometry", "lat", "lon"]
    back = read_table(tmp_path / "out.parquet")
    assert back.geometry.geom_equals(table.geometry).tolist() == [True, True, False, True, True]
    assert back.crs == table.crs


def test_h3_cells(embedder: Embedder, tmp_path: Path, said: Any) -> None:
    h3 = pytest.importorskip("h3")
    cells = [h3.latlng_to_cell(35.69, 139.75, 9), "", h3.latlng_to_cell(35.66, 139.76, 8)]
    path = write(tmp_path / "x.csv", "cell,n\n" + "".join(f"{cell},{i}\n" for i, cell in enumerate(cells)))
    places = read_places(path, samples=49)
    assert set(places.rows.tolist()) == {0, 2} and (places.rows == 0).sum() > 30
    for lat, lon, row in zip(places.lat, places.lon, places.rows, strict=True):
        assert h3.latlng_to_cell(lat, lon, h3.get_resolution(cells[row])) == cells[row]
    assert "row 2" in said()
    assert embed_file(path, embedder, tmp_path / "out.csv", progress=False) == 2
    write(path, f"cell\n{cells[0]}\nzz\n")
    with pytest.raises(InputError, match="row 2, column cell: 'zz' is not an H3 cell"):
        read_places(path)
    number = pd.DataFrame({"h3": [int(cells[0], 16)]})
    np.testing.assert_array_equal(read_places(number, 49).lat, places.lat[places.rows == 0])


def test_the_h3_package_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's part, played by a stand-in whose cells are squares."""
    played = types.SimpleNamespace(
        is_valid_cell=lambda cell: cell.endswith("ff"),
        get_resolution=lambda cell: 9,
        cell_to_children=lambda cell, level: [(cell, i) for i in range(7 ** (level - 9))],
        cell_to_latlng=lambda child: (35.0 + child[1] / 100, 139.0),
        latlng_to_cell=lambda lat, lon, level: "891126d1a2dffff" if lat < 35.055 else "another",
    )
    monkeypatch.setitem(sys.modules, "h3", played)
    places = read_places(pd.DataFrame({"h3": ["891126d1a2dffff", "891126d1a2dffff"]}), 7)
    assert places.rows.tolist() == [0] * 6 + [1] * 6 and places.lat.max() == 35.05
    with pytest.raises(InputError, match="row 1, column h3: '891126d1a2d0000' is not an H3 cell"):
        read_places(pd.DataFrame({"h3": ["891126d1a2dffff", "891126d1a2d0000"]}), 7)
    with pytest.raises(InputError, match="no column lat"):
        read_places(pd.DataFrame({"cell": ["A1", "B2"]}))


# What is embedded, and where it is written


def test_no_column_is_lost_or_renamed(embedder: Embedder, tmp_path: Path, said: Any) -> None:
    text = ',name,"x, y",lat,name,lon,e0\n1,007,a,35.69,,139.75,9\n2,b,"q""q",35.68,z,139.76,8\n'
    path = write(tmp_path / "x.csv", text)
    assert embed_file(path, embedder, tmp_path / "out.csv", progress=False) == 2
    assert "has a column e0; the embeddings are called selm_e0" in said()
    header, first, second = (line.split(",selm_e0")[0] for line in (tmp_path / "out.csv").read_text().splitlines())
    assert header == ',name,"x, y",lat,name,lon,e0'
    assert first.startswith("1,007,a,35.69,,139.75,9,") and second.startswith('2,b,"q""q",35.68,z,139.76,8,')
    for layout in ("wide", "list"):
        embed_file(path, embedder, tmp_path / "out.parquet", columns=layout, progress=False)
        line = said()
        assert "out.parquet cannot hold these names of columns: name is name_2 there" in line
        rest, stored = read_embeddings(tmp_path / "out.parquet")
        assert rest.columns.tolist() == ["", "name", "x, y", "lat", "name_2", "lon", "e0"]
        assert rest["name"].tolist() == ["007", "b"] and stored.shape == (2, embedder.dim)
        np.testing.assert_allclose(stored, embedder(LAT[:2], LON[:2]), atol=1e-5)


def test_the_text_of_coordinates_stays_in_text(embedder: Embedder, tmp_path: Path, said: Any) -> None:
    embed_file(write(tmp_path / "x.csv", "Lat,LON\n35.6900,+139.75\n,\n"), embedder, tmp_path / "o.csv", progress=False)
    header, first, second = (tmp_path / "o.csv").read_text().splitlines()
    assert header.startswith("Lat,LON,e0,") and first.startswith("35.6900,+139.75,") and second.startswith(",,,")
    said()
    for text in ("35,69;139,75\n", "35.69;139.75\n-;n/a\n"):
        embed_file(write(tmp_path / "x.csv", "lat;lon\n" + text), embedder, tmp_path / "o.csv", progress=False)
        assert ("column lat is written with decimal points" in said()) == ("," in text)
        rest, stored = read_embeddings(tmp_path / "o.csv")
        assert rest["lat"].tolist()[0] == 35.69 and rest["lat"].dtype == float and np.isfinite(stored[0]).all()


def test_coordinates_that_were_read_otherwise_stand_beside_the_users(
    embedder: Embedder, tmp_path: Path, said: Any
) -> None:
    path = write(tmp_path / "x.csv", "lat;lon\n35°41′24″N;139,75\n")
    embed_file(path, embedder, tmp_path / "out.csv", columns="list", progress=False)
    assert "the degrees that were read are called selm_lat, selm_lon" in said()
    assert names_of(tmp_path / "out.csv") == ["lat", "lon", "selm_lat", "selm_lon", "embedding"]
    lat, lon = embedded_places(read_embeddings(tmp_path / "out.csv")[0])
    assert lat == pytest.approx([35.69]) and lon == pytest.approx([139.75])
    # once more, on what was made
    embed_file(tmp_path / "out.csv", embedder, tmp_path / "again.csv", columns="list", progress=False)
    assert names_of(tmp_path / "again.csv")[-4:] == ["embedding", "selm_selm_lat", "selm_selm_lon", "selm_embedding"]
    np.testing.assert_allclose(
        read_embeddings(tmp_path / "again.csv")[1], read_embeddings(tmp_path / "out.csv")[1], atol=1e-5
    )


@pytest.mark.parametrize("layout", ["wide", "list"])
@pytest.mark.parametrize("ending", [".parquet", ".csv", ".csv.gz"])
def test_both_layouts_are_found_again(
    embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, ending: str
) -> None:
    from selm.embedding import tables

    monkeypatch.setattr(tables, "PIECE_BYTES", 4 * embedder.dim * 2)  # two rows
    monkeypatch.setattr(tables, "LIST_ROWS", 2)
    path, out = write(tmp_path / "x.csv", "lat,lon\n,\n" + PLAIN[8:] + "51,0\n"), tmp_path / f"out{ending}"
    with pytest.warns(InputWarning, match="row 1"), pytest.warns(OutsideMapWarning, match=r"row 5 \(51, 0\)"):
        assert embed_file(path, embedder, out, columns=layout, progress=False) == 3
    want = np.full((5, embedder.dim), np.nan, np.float32)
    want[1:4] = embedder(LAT, LON)
    rest, stored = read_embeddings(out)
    assert rest.columns.tolist() == ["lat", "lon"]
    np.testing.assert_allclose(stored, want, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([part for _, _, part in embedding_pieces(out)]), stored)
    for row in range(5):
        np.testing.assert_array_equal(one_embedding(out, row), stored[row])
    assert find_nearest(out, 1, like=(35.6801, 139.7601))["row"].tolist() == [3]
    if ending == ".parquet" and layout == "list":
        pytest.importorskip("faiss")
        index = build_index(out, tmp_path / "index", progress=False)
        assert find_nearest(index.folder, 1, row=2)["row"].tolist() != [2]


def test_what_a_killed_process_had_begun_of_a_file_for_maps_goes(
    tmp_path: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    geopandas = pytest.importorskip("geopandas")
    table, out = write(tmp_path / "x.csv", PLAIN), tmp_path / "out.fgb"
    begun: list[Path] = []
    monkeypatch.setattr(geopandas.GeoDataFrame, "to_file", lambda self, file, **_: begun.append(Path(file)) or 1 / 0)
    with pytest.raises(InputError, match=r"out.fgb: cannot hold this table \(division by zero\)"):
        embed_file(table, embedder, out, progress=False)
    assert not begun[0].parent.exists()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = tmp_path / begun[0].parent.name.replace(f".{os.getpid()}.", f".{ended.pid}.")
    (left / "a.fgb").parent.mkdir()
    (left / "a.fgb").touch()
    monkeypatch.undo()
    embed_file(table, embedder, out, progress=False)
    assert {path.name for path in tmp_path.iterdir()} >= {"x.csv", "out.fgb"} and not left.exists()


@pytest.mark.parametrize("ending", [".geojson", ".fgb", ".gpkg"])
def test_files_for_maps(embedder: Embedder, tmp_path: Path, said: Any, ending: str) -> None:
    geopandas = pytest.importorskip("geopandas")
    table = shapes_on_the_map()
    table.to_file(tmp_path / f"x{ending}", **({"SPATIAL_INDEX": "NO"} if ending == ".fgb" else {}))
    out = tmp_path / f"out{ending}"
    assert embed_file(tmp_path / f"x{ending}", embedder, out, progress=False) == 3
    back = geopandas.read_file(out)
    assert back["name"].tolist() == table["name"].tolist()  # the order, too
    assert back.geometry.geom_equals(table.geometry).tolist() == [True, True, False, True, True]
    np.testing.assert_allclose(read_embeddings(out)[1], embedder.transform(table), atol=1e-5)
    said()
    path = write(tmp_path / "x.csv", "fid,Name,name,lat,lon\n5,a,b,35.69,139.75\n5,c,d,,\n")
    embed_file(path, embedder, out, progress=False)
    assert ("fid is fid_2, name is name_2" if ending == ".gpkg" else "name is name_2") in said()
    back = geopandas.read_file(out)
    assert (back.geometry[0].x, back.geometry[0].y) == (139.75, 35.69) and back.geometry[1] is None
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted({path.name, f"x{ending}", out.name})
    with pytest.raises(InputError, match=r"one column of vectors needs \.parquet or \.csv"):
        embed_file(path, embedder, out, columns="list", progress=False)


def test_a_projected_table_stays_projected_and_is_embedded_in_degrees(
    embedder: Embedder, tmp_path: Path, said: Any
) -> None:
    geopandas = pytest.importorskip("geopandas")
    table = shapes_on_the_map().iloc[[0, 1]].to_crs(32654)
    table.to_file(tmp_path / "x.gpkg")
    for ending, epsg in ((".gpkg", 32654), (".parquet", 32654), (".geojson", 4326), (".csv", None)):
        out = tmp_path / f"out{ending}"
        embed_file(tmp_path / "x.gpkg", embedder, out, progress=False)
        assert ("degrees, not in" in said()) == (ending in (".geojson", ".csv"))
        if epsg:
            assert read_table(out).crs.to_epsg() == epsg
    places, again = read_places(tmp_path / "x.gpkg"), read_places(tmp_path / "out.csv")  # well-known text
    assert again.rows.tolist() == places.rows.tolist()
    np.testing.assert_allclose(again.centres(), places.centres(), atol=1e-3)
    assert isinstance(geopandas.read_parquet(tmp_path / "out.parquet"), geopandas.GeoDataFrame)


# Warnings that the map's box allows


@pytest.mark.parametrize(
    ("rows", "words", "kept"),
    [
        ("35.69,139.75\n-12.5,20\n", ["1 of 2 coordinates lie outside"], 1),
        (
            "0.6229,2.4391\n0.6226,2.4391\n",
            ["2 of 2 rows look like radians: row 1 (0.6229, 2.4391)", "give degrees"],
            0,
        ),
        ("35.69,139.75\n0,0\n0.0,0\n", ["2 of 3 rows are at 0, 0", "row 2 (0, 0), row 3"], 1),
        ("35.69,139.75\n90,139.75\n-86,139.75\n", ["2 of 3 coordinates lie outside", "ends at 85.05"], 1),
    ],
)
def test_suspicious_rows(embedder: Embedder, tmp_path: Path, said: Any, rows: str, words: list[str], kept: int) -> None:
    path = write(tmp_path / "x.csv", "lat,lon\n" + rows)
    if kept:
        assert embed_file(path, embedder, tmp_path / "out.csv", progress=False) == kept
        line = said()
    else:
        with pytest.raises(InputError) as error:
            embed_file(path, embedder, tmp_path / "out.csv", progress=False)
        line = str(error.value)
        assert not (tmp_path / "out.csv").exists()
    assert all(word in line for word in words) and "x.csv: " in line, line


class Stand:
    """An embedder of a map whose box is Helsinki's, with latitude and longitude as embeddings."""

    dim, together, map_name, map_bounds = 2, 2, "Helsinki", (24.0, 60.0, 25.0, 61.0)

    def outside(self, lat: Any, lon: Any, *, ask: bool) -> Any:
        return ~((lat >= 60) & (lat <= 61) & (lon >= 24) & (lon <= 25))

    def describe_outside(self, lat: Any, lon: Any, left: Any, first_row: int) -> str:
        return f"{left.sum()} outside"

    def stream(self, lat: Any, lon: Any, *, tick: Any) -> Any:
        order = np.random.default_rng(len(lat)).permutation(len(lat))
        for rows in np.array_split(order, 3):
            yield rows, np.stack([lat[rows], lon[rows]], axis=1).astype(np.float32)


def test_swapped_rows_are_seen_by_the_maps_box(said: Any) -> None:
    from selm.embedding.tables import embeddings_of

    table = pd.DataFrame({"lat": [60.17, 24.94, 60.2, 24.95, 10.0], "lon": [24.94, 60.17, 24.95, 60.2, 10.0]})
    embeddings, _ = embeddings_of(table, Stand())  # type: ignore[arg-type]
    line = said()
    assert "2 of 5 rows look swapped: row 1 (24.94, 60.17), row 3 (24.95, 60.2)" in line and "1 outside" in line
    assert np.isnan(embeddings[:, 0]).tolist() == [False, True, False, True, True]
    with pytest.raises(InputError, match="2 of 2 rows look swapped"):
        embeddings_of(table.iloc[[1, 3]], Stand())  # type: ignore[arg-type]


# Embedder.add_to


def test_add_to_keeps_the_table(embedder: Embedder, said: Any) -> None:
    table = pd.DataFrame({"id": [3, 1, 2], "Latitude": LAT, "Longitude": LON, "e1": 0}, index=[9, 9, 7])
    before = table.copy()
    out = embedder.add_to(table)
    assert "the table: has a column e1; the embeddings are called selm_e0" in said()
    pd.testing.assert_frame_equal(table, before)
    pd.testing.assert_frame_equal(out.iloc[:, :4], before)
    assert out.shape[1] == 4 + embedder.dim and (out.dtypes.iloc[4:] == np.float32).all()
    np.testing.assert_array_equal(out.iloc[:, 4:].to_numpy(), embedder(LAT, LON))
    listed = embedder.add_to(table, columns="list")
    assert listed.columns.tolist() == [*table.columns, "embedding"]
    np.testing.assert_array_equal(np.stack(listed["embedding"].tolist()), embedder(LAT, LON))
    with pytest.raises(InputError, match="unknown layout of columns 'long'"):
        embedder.add_to(table, columns="long")
    with pytest.raises(InputError, match="the table: no column lon"):
        embedder.add_to(table.drop(columns="Longitude"))


@pytest.mark.parametrize("seed", range(3))
def test_the_same_whatever_the_order_duplicates_or_batch(atlas: Atlas, tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lat, lon = made_up.place(rng.uniform(0, 3, 40), rng.uniform(0, 3, 40))
    want = Embedder(made_up.encoder(), atlas, "cpu")(lat, lon)
    rows = rng.integers(0, 40, 90)
    table = pd.DataFrame({"lat": lat[rows], "lon": lon[rows] + rng.choice([0, 360, -360], 90)})
    with pytest.warns(InputWarning, match="modulo 360"):
        out = Embedder(made_up.encoder(), atlas, "cpu", int(rng.integers(1, 40))).add_to(table)
    got = out.iloc[:, 2:].to_numpy()
    assert got.shape == (90, want.shape[1])
    # 360 degrees added and taken away may move a place by a pixel: these rows against themselves
    plain = table["lon"].between(-180, 180).to_numpy()
    np.testing.assert_allclose(got[plain], want[rows[plain]], atol=1e-5)
    assert np.isclose(got, want[rows], atol=1e-4).all(axis=1).mean() > 0.95


def test_the_180th_meridian_and_the_poles(tmp_path: Path) -> None:
    atlas = made_up.atlas(tmp_path)
    embedder = Embedder(made_up.encoder(), atlas, "cpu")
    blocks = embedder.open().first
    blocks.tiles = Listed(np.array([[0, 4096], [8191, 4096], [0, 0]]))
    assert embedder.outside([-0.01] * 4, [-180, 180, 179.99, 179.9]).tolist() == [False, False, False, True]
    assert embedder.outside([85.051, 85.06, 90.0], [-180, -180, 180]).tolist() == [False, True, True]


def test_a_geopackage_says_whose_map_it_shows(embedder: Embedder, tmp_path: Path) -> None:
    pyogrio = pytest.importorskip("pyogrio")
    pytest.importorskip("geopandas")
    embed_file(write(tmp_path / "x.csv", PLAIN), embedder, tmp_path / "out.gpkg", progress=False)
    said = pyogrio.read_info(tmp_path / "out.gpkg")["layer_metadata"]
    assert said["attribution"] == embedder.map_attribution == "© nobody" and said["map"] == embedder.map_name


def test_origin_is_kept_with_lists(embedder: Embedder, tmp_path: Path) -> None:
    embed_file(write(tmp_path / "x.csv", PLAIN), embedder, tmp_path / "out.parquet", columns="list", progress=False)
    schema = pq.read_schema(tmp_path / "out.parquet")
    assert schema.field("embedding").type == pa.list_(pa.float32())
    assert json.loads(schema.metadata[b"selm"])["map"] == embedder.map_name


@pytest.mark.parametrize("seed", range(3))
def test_altered_files_get_one_line_or_are_read(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pieces = [b"\0", b'"', b"\n", b",", b";", b"inf", b"1e999", "°".encode(), b"sep=", b"h3", b"POINT(", b"\x1f\x8b"]
    made = {"x.csv": PLAIN.encode(), "x.csv.gz": gzip.compress(PLAIN.encode(), mtime=0)}
    table = pa.table({"lat": LAT, "lon": LON})
    pq.write_table(table, tmp_path / "x.parquet")
    made["x.parquet"] = (tmp_path / "x.parquet").read_bytes()
    for _ in range(150):
        name = str(rng.choice(list(made)))
        data = bytearray(made[name])
        for _ in range(rng.integers(1, 5)):
            at = int(rng.integers(len(data) + 1))
            data[at : at + int(rng.integers(0, 9))] = pieces[rng.integers(len(pieces))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InputWarning)
            try:
                read_places(write(tmp_path / name, bytes(data)))
            except InputError as error:
                assert len(str(error).splitlines()) == 1

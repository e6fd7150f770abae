"""Reading atlases, on a made-up one: each pixel's value tells where it is."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selm.errors import InputError
from selm.maps import mercator
from selm.maps.atlas import Atlas, block_path, block_px, check_atlas, decode_png, encode_png

X, Y, TILE_PX = 7276, 3225, 8
KEYS = [[X, Y], [X, Y + 1], [X + 1, Y], [X + 1, Y + 1]]


def pixel_value(px: np.ndarray, py: np.ndarray) -> np.ndarray:
    """What the made-up map shows at global pixel coordinates."""
    return ((px * 7 + py * 13) % 251 + 1).astype(np.uint8)


def whole_map(zoom: int, x: int, y: int, width: int, height: int) -> np.ndarray:
    px, py = np.meshgrid(np.arange(x, x + width), np.arange(y, y + height))
    return pixel_value(px, py)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    palette = np.random.default_rng(0).integers(0, 256, (256, 3)).astype(np.uint8)
    for x, y in KEYS:
        for zoom in (17, 16):
            side = block_px(zoom, TILE_PX)
            file = block_path(tmp_path, x, y, zoom)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode_png(whole_map(zoom, x * side, y * side, side, side), palette))
    description = {
        "format": 1, "source": "made up", "source_fingerprint": "0" * 64, "attribution": "© nobody", "style": "none",
        "style_hash": "1" * 64, "zooms": [17, 16], "tile_px": TILE_PX,
        "palette": ["#" + bytes(colour).hex() for colour in palette], "keys": KEYS,
    }  # fmt: skip
    (tmp_path / "atlas.json").write_text(json.dumps(description))
    return tmp_path


def test_what_an_atlas_knows(folder: Path) -> None:
    atlas = Atlas(folder)
    assert atlas.zooms == (17, 16) and atlas.tile_px == TILE_PX and atlas.keys.tolist() == KEYS
    assert atlas.keys.dtype == np.int32 and atlas.palette.shape == (256, 3) and atlas.attribution == "© nobody"
    west, south, east, north = atlas.bounds
    assert mercator.to_tile(north, west, 13) == pytest.approx((X, Y))
    assert mercator.to_tile(south, east, 13) == pytest.approx((X + 2, Y + 2))
    assert len(atlas.fingerprint) == 64 and atlas.fingerprint == Atlas(folder).fingerprint


def test_fingerprint_follows_what_decides_pixels(folder: Path) -> None:
    before = Atlas(folder).fingerprint
    file = folder / "atlas.json"
    description = json.loads(file.read_text())
    file.write_text(json.dumps(description | {"attribution": "© somebody"}))
    assert Atlas(folder).fingerprint == before
    for change in ({"style_hash": "2"}, {"tile_px": 4}, {"keys": KEYS[:3]}, {"source_fingerprint": "3"}):
        file.write_text(json.dumps(description | change))
        assert Atlas(folder).fingerprint != before


def test_covers(folder: Path) -> None:
    atlas = Atlas(folder)
    lat, lon = mercator.from_tile([X + 0.5, X + 1.99, X + 2.01, X - 0.01], [Y + 0.5, Y + 1.99, Y, Y], 13)
    assert atlas.covers(lat, lon).tolist() == [True, True, False, False]
    assert bool(atlas.covers(float(lat[0]), float(lon[0])))


@pytest.mark.parametrize("zoom", [17, 16])
@pytest.mark.parametrize("size", [1, 8, 31, 64, 300])
def test_crops_equal_those_from_one_large_drawing(folder: Path, zoom: int, size: int) -> None:
    atlas = Atlas(folder)
    side = block_px(zoom, TILE_PX)
    large = np.zeros((side * 2 + 800, side * 2 + 800), np.uint8)  # background around the four blocks
    large[400:-400, 400:-400] = whole_map(zoom, X * side, Y * side, 2 * side, 2 * side)
    rng = np.random.default_rng(size)
    x, y = X + rng.uniform(0, 2, 40), Y + rng.uniform(0, 2, 40)
    x[:3], y[:3] = X + 1, Y + 1  # where four blocks meet
    lat, lon = mercator.from_tile(x, y, 13)
    got = atlas.indices(lat, lon, zoom, size)
    assert got.shape == (40, size, size) and got.dtype == np.uint8
    for image, u, v in zip(got, x, y, strict=True):
        left, top = (int(np.rint((a - b) * side - size / 2)) + 400 for a, b in ((u, X), (v, Y)))
        np.testing.assert_array_equal(image, large[top : top + size, left : left + size])
    np.testing.assert_array_equal(atlas.crop(lat[0], lon[0], zoom, size), atlas.palette[got[0]])


def test_blocks_as_an_array(folder: Path) -> None:
    atlas = Atlas(folder)
    blocks = atlas.read_blocks(KEYS[::-1], 16)
    assert blocks.shape == (4, 64, 64) and blocks.dtype == np.uint8
    np.testing.assert_array_equal(blocks[0], atlas.block(X + 1, Y + 1, 16))
    with pytest.raises(ValueError, match="read-only"):
        atlas.block(X, Y, 16)[0, 0] = 1


def test_png_is_what_others_read() -> None:
    rng = np.random.default_rng(0)
    palette = rng.integers(0, 256, (256, 3)).astype(np.uint8)
    indices = rng.integers(0, 256, (5, 9)).astype(np.uint8)
    data = encode_png(indices, palette)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "P" and image.size == (9, 5)
        np.testing.assert_array_equal(np.array(image.convert("RGB")), palette[indices])
    np.testing.assert_array_equal(decode_png(data), indices)
    for at in range(len(data)):  # every byte counts: none can change or be missing at the end
        with pytest.raises(ValueError, match=r"PNG|cut short|wrong checksum"):
            decode_png(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(ValueError, match=r"PNG|cut short"):
            decode_png(data[:at])
    for other in (Image.new("L", (4, 4)), Image.new("RGB", (4, 4))):
        written = io.BytesIO()
        other.save(written, "png")
        with pytest.raises(ValueError, match="not an 8-bit palette PNG"):
            decode_png(written.getvalue())


def test_bad_atlases_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no atlas here"):
        Atlas(tmp_path / "nowhere")
    atlas = Atlas(folder)
    with pytest.raises(InputError, match="zoom 15 was not drawn; there are 17, 16"):
        atlas.crop(35.7, 139.76, zoom=15)
    with pytest.raises(InputError, match="no such block"):
        atlas.block(1, 2, 17)
    file = block_path(folder, X, Y, 17)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match=rf"{Y}\.png: damaged block"):
        atlas.block(X, Y, 17)
    file.write_bytes(block_path(folder, X, Y, 16).read_bytes())
    with pytest.raises(InputError, match="64x64 pixels instead of 128x128"):
        atlas.block(X, Y, 17)
    (folder / "atlas.json").write_text('{"format": 1, ')
    with pytest.raises(InputError, match=r"atlas\.json: not a readable atlas description"):
        Atlas(folder)
    (folder / "atlas.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match="atlas format 99, this version reads 1"):
        Atlas(folder)
    (folder / "atlas.json").rename(folder / "drawing.json")
    with pytest.raises(InputError, match="not finished; draw it again to go on"):
        Atlas(folder)


def test_sizes_that_do_not_divide_are_refused() -> None:
    assert block_px(17, 128) == 2048 and block_px(14, 64) == 128 and block_px(12, 64) == 32
    with pytest.raises(InputError, match="zoom 7"):
        block_px(7, 32)


def test_reading_needs_no_drawing_library() -> None:
    code = (
        "import sys; sys.modules['mapnik'] = sys.modules['geopandas'] = sys.modules['pyrosm'] = None;"
        "import selm.maps.atlas, selm.maps.entropy, selm.maps.style, selm.maps.mercator, selm.maps.sources,"
        "selm.maps.draw"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_file_in_place_of_an_atlas(tmp_path: Path) -> None:
    file = tmp_path / "atlas.png"
    file.touch()
    for opened in (Atlas, check_atlas):
        with pytest.raises(InputError, match="no atlas here"):
            opened(file)

"""An atlas drawn in shards is the one drawn at once; every shard can be checked, and a damaged image is found."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from selm.cli import main
from selm.errors import InputError
from selm.maps.atlas import Atlas, block_path, check_atlas, encode_png, palette_of, shard_of

pytest.importorskip("mapnik")
draw = pytest.importorskip("selm.maps.draw")

TILES = tuple((13, 7276 + x, 3225 + y) for x in range(3) for y in range(2))
SETTINGS = {"zooms": (14, 13), "tile_px": 64, "workers": 1, "progress": False}


@pytest.fixture
def source(make_mbtiles) -> Path:
    return make_mbtiles("six.mbtiles", TILES)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.mark.parametrize("n", [1, 2, 3, 5, 100])
def test_shards_are_disjoint_whole_and_even(n: int) -> None:
    items = list(range(17))
    parts = [shard_of(items, (i, n)) for i in range(1, n + 1)]
    assert [item for part in parts for item in part] == items
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_shards_together_are_the_atlas_drawn_at_once(source: Path, tmp_path: Path) -> None:
    draw.draw_atlas(source, tmp_path / "once", **SETTINGS)
    out = tmp_path / "parts"
    left = [draw.draw_shard(source, out, (i, 4), **SETTINGS) for i in (3, 1, 4)]
    assert left == [10, 8, 4]  # of 12 images
    with pytest.raises(InputError, match="not finished"):
        Atlas(out)
    assert not check_atlas(out, (1, 4)).missing and len(check_atlas(out, (2, 4)).missing) == 4
    assert draw.draw_shard(source, out, (2, 4), **SETTINGS) == 0
    assert files(out) == files(tmp_path / "once")
    assert check_atlas(out).finished


def test_a_shard_goes_on_where_it_was_killed_and_leaves_others_alone(source: Path, tmp_path: Path) -> None:
    draw.draw_shard(source, tmp_path, (1, 2), **SETTINGS)
    kept = block_path(tmp_path, *TILES[0][1:], 14)
    before = kept.stat().st_mtime_ns
    block_path(tmp_path, *TILES[1][1:], 14).unlink()
    half = kept.with_name(".3226.png.999999.part")  # another machine's, which is writing
    half.write_bytes(b"half")
    draw.draw_shard(source, tmp_path, (1, 2), **SETTINGS)
    assert kept.stat().st_mtime_ns == before and half.exists()
    assert not check_atlas(tmp_path, (1, 2)).missing


@pytest.mark.parametrize("shard", [(0, 2), (3, 2)])
def test_shards_that_there_are_not(source: Path, tmp_path: Path, shard: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=f"shard {shard[0]}/2"):
        draw.draw_shard(source, tmp_path / "x", shard, **SETTINGS)


def test_check_finds_what_is_wrong(source: Path, tmp_path: Path) -> None:
    atlas = draw.draw_atlas(source, tmp_path, **SETTINGS)
    assert check_atlas(tmp_path) == type(check_atlas(tmp_path))(12, (), (), True)
    paths = [block_path(tmp_path, x, y, 14) for _, x, y in TILES]
    cut, flipped, small, other = paths[:4]
    cut.write_bytes(cut.read_bytes()[:-30])
    data = bytearray(flipped.read_bytes())
    data[900] ^= 1
    flipped.write_bytes(data)
    small.write_bytes(encode_png(np.zeros((8, 8), np.uint8), atlas.palette))
    other.write_bytes(encode_png(np.zeros((128, 128), np.uint8), np.roll(atlas.palette, 3)))
    paths[4].unlink()
    found = check_atlas(tmp_path)
    assert [line.split(":")[0] for line in found.missing] == [str(paths[4])]
    assert [line.split(":")[0] for line in found.damaged] == list(map(str, paths[:4]))
    assert "8x8 pixels instead of 128x128" in found.damaged[2] and "colours of another atlas" in found.damaged[3]


def test_the_colours_of_a_png_are_read_without_decoding() -> None:
    palette = np.random.default_rng(0).integers(0, 256, (256, 3)).astype(np.uint8)
    assert palette_of(encode_png(np.zeros((4, 4), np.uint8), palette)) == palette.tobytes()
    assert palette_of(b"something else") == b""


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    shown = capsys.readouterr()
    return end.value.code or 0, shown.out, shown.err


def test_the_commands(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "atlas")
    common = ("atlas", str(source), "-o", out, "--zooms", "14,13", "--tile-px", "64", "--workers", "1")
    assert run(capsys, *common, "--shard", "1/2")[1] == (
        f"{out}: shard 1/2 is drawn, 6 images of other shards are missing\n"
    )
    status, shown, err = run(capsys, "check", out)
    assert status == 2 and shown.count(": missing\n") == 6
    assert err.splitlines()[-1] == f"selm: {out}: 6 of 12 images missing, 0 damaged"
    assert run(capsys, "check", out, "--shard", "1/2")[1] == f"{out}: 6 images are whole; the atlas is not finished\n"
    assert "so is all else" in run(capsys, *common, "--shard", "2/2")[1]
    assert run(capsys, "check", out)[:2] == (0, f"{out}: 12 images are whole\n")
    status, _, err = run(capsys, *common, "--shard", "3/2")
    assert status == 2 and "--shard 3/2: I/N, as 1/8" in err
    status, _, err = run(capsys, "check", str(tmp_path / "nothing"))
    assert status == 2 and re.search("no atlas here, begun or finished", err)

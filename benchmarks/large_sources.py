"""What opening a source of ten million tiles takes, and one image from it.

    python -m benchmarks.large_sources [--tiles 100000 10000000] [--folder DIR]

The files are made up: one small tile, stored once and found at every place of a region of zoom-14 tiles. In the
.mbtiles file each place has a row of its own, as such files do that store equal tiles once; in the .pmtiles file an
entry of its own, no runs, for one of 64 copies. Each step is measured in a process of its own: seconds, and the most
memory it held. Writes large_sources.csv.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import measure
from selm.maps.mercator import from_tile

ZOOM, CORNER = 14, (6_000, 5_000)  # its square's north-western tile
PLACE = tuple(float(v) for v in from_tile(CORNER[0] + 21.3, CORNER[1] + 20.5, ZOOM))  # on that tile's road
LAYERS = [{"id": name, "fields": {"class": "String"}} for name in ("transportation", "water")]
STEPS = {
    "import selm": "import selm.maps.sources, selm.maps.draw",
    "open": "from selm.maps.sources import open_source; s = open_source({file!r})",
    "open, one look-up": "import numpy as np; from selm.maps.sources import open_source\n"
    "s = open_source({file!r}); assert s.tiles.has(np.array([[3010, 2510], [1, 1]])).tolist() == [True, False]",
    "one image": "from selm.maps.draw import draw_image\n"
    "assert len(set(draw_image({file!r}, {lat}, {lon}, size=512).ravel().tolist())) > 3",
}


def _field(number: int, content: bytes | int) -> bytes:
    def varint(value: int) -> bytes:
        return bytes([value & 0x7F | 0x80]) + varint(value >> 7) if value > 0x7F else bytes([value])

    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def tile() -> bytes:
    """A vector tile with a road that crosses it."""
    geometry = bytes([9, 0, 128, 32, 10, 128, 64, 0])  # from the middle of its western side to the eastern
    feature = _field(2, bytes([0, 0])) + _field(3, 2) + _field(4, geometry)
    layer = _field(15, 2) + _field(1, b"transportation") + _field(2, feature)
    layer += _field(3, b"class") + _field(4, _field(1, b"primary")) + _field(5, 4096)
    return gzip.compress(_field(3, layer), mtime=0)


def places(tiles: int) -> NDArray[np.int64]:
    side = math.isqrt(tiles)
    x, y = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    return np.stack([x.ravel() + CORNER[0], y.ravel() + CORNER[1]], 1)


def make_mbtiles(file: Path, tiles: int) -> None:
    about = {"name": "large", "format": "pbf", "minzoom": str(ZOOM), "maxzoom": str(ZOOM), "bounds": "-180,-85,180,85"}
    with sqlite3.connect(file) as database:
        database.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; CREATE TABLE metadata (name TEXT, value TEXT);"
            "CREATE TABLE images (tile_id INTEGER PRIMARY KEY, tile_data BLOB);"
            "CREATE TABLE map (zoom_level INTEGER, tile_column INTEGER, tile_row INTEGER, tile_id INTEGER);"
            "CREATE VIEW tiles AS SELECT zoom_level, tile_column, tile_row, tile_data"
            " FROM map JOIN images USING (tile_id);"
        )
        described = about | {"json": json.dumps({"vector_layers": LAYERS})}
        database.executemany("INSERT INTO metadata VALUES (?, ?)", described.items())
        database.execute("INSERT INTO images VALUES (1, ?)", (tile(),))
        for some in np.array_split(places(tiles), 64):
            rows = ((ZOOM, x, 2**ZOOM - 1 - y, 1) for x, y in some.tolist())
            database.executemany("INSERT INTO map VALUES (?, ?, ?, ?)", rows)
        database.execute("CREATE UNIQUE INDEX map_index ON map (zoom_level, tile_column, tile_row)")
    database.close()


def _varints(values: NDArray[np.int64]) -> bytes:
    """Numbers below 2^35 as varints, one behind the other."""
    place = np.arange(5)
    groups = values[:, None] >> 7 * place & 0x7F
    used = 1 + sum((values >= 1 << 7 * i).astype(int) for i in (1, 2, 3, 4))
    there = place < used[:, None]
    groups[place < used[:, None] - 1] |= 0x80
    return groups[there].astype(np.uint8).tobytes()


def make_pmtiles(file: Path, tiles: int) -> None:
    """Leaf directories of 4,096 entries below one root."""
    from pmtiles.tile import Compression, TileType, serialize_header, zxy_to_tileid

    data, copies = tile(), np.random.default_rng(0)
    # tiles that follow one another on the archive's curve, whole blocks of four, around the place
    before = (4**ZOOM - 1) // 3
    middle = zxy_to_tileid(ZOOM, CORNER[0] + 21, CORNER[1] + 20) - before
    ids = before + (middle // 4 - tiles // 8) * 4 + np.arange(tiles)

    def directory(first: NDArray[np.int64], runs: int, lengths: NDArray[np.int64], offsets: NDArray[np.int64]) -> bytes:
        parts = [np.diff(first, prepend=0), np.full(len(first), runs), lengths, offsets + 1]
        return gzip.compress(_varints(np.concatenate([[len(first)], *parts])), 1, mtime=0)

    leaves = [
        directory(some, 1, np.full(len(some), len(data)), copies.integers(0, 64, len(some)) * len(data))
        for some in np.split(ids, range(4096, len(ids), 4096))
    ]
    lengths = np.array([len(leaf) for leaf in leaves])
    root = directory(ids[::4096], 0, lengths, np.cumsum(lengths) - lengths)
    metadata = gzip.compress(json.dumps({"vector_layers": LAYERS}).encode())
    leaf_at = 127 + len(root) + len(metadata)
    header = {
        "root_offset": 127, "root_length": len(root), "metadata_offset": 127 + len(root),
        "metadata_length": len(metadata), "leaf_directory_offset": leaf_at, "leaf_directory_length": int(lengths.sum()),
        "tile_data_offset": leaf_at + int(lengths.sum()), "tile_data_length": 64 * len(data),
        "addressed_tiles_count": len(ids), "tile_entries_count": len(ids), "tile_contents_count": 1, "clustered": True,
        "internal_compression": Compression.GZIP, "tile_compression": Compression.GZIP, "tile_type": TileType.MVT,
        "min_zoom": ZOOM, "max_zoom": ZOOM,
    }  # fmt: skip
    with file.open("wb") as stream:
        for part in (serialize_header(header), root, metadata, *leaves, data * 64):
            stream.write(part)


def measured(step: str, file: Path, folder: Path) -> dict[str, float]:
    """Seconds, processor seconds and peak memory of a step in a process of its own."""
    code = STEPS[step].format(file=str(file), lat=PLACE[0], lon=PLACE[1])
    after = (
        "\nimport re, time; most = re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]\n"
        "print(time.perf_counter() - begun, time.process_time(), int(most) / 1024)"
    )
    environment = os.environ | {"SELM_CACHE": str(folder / "cache")}
    command = [sys.executable, "-c", "import time; begun = time.perf_counter()\n" + code + after]
    out = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
    seconds, processor, memory = map(float, out.split()[-3:])
    return {"seconds": seconds, "cpu_seconds": processor, "peak_mib": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, nargs="+", default=[100_000, 10_000_000])
    parser.add_argument("--folder", type=Path, help="where the files are made and kept")
    measure.options(parser)
    chosen = parser.parse_args()
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="large-sources-"))
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    try:
        for kind, make in ((".mbtiles", make_mbtiles), (".pmtiles", make_pmtiles)):
            for tiles in chosen.tiles:
                file = folder / f"{tiles}{kind}"
                if not file.exists():
                    make(file, tiles)
                for step in STEPS:
                    about = {"kind": kind, "tiles": tiles, "file_mib": file.stat().st_size / 2**20, "step": step}
                    rows.append(about | measured(step, file, folder))
                    measure.keep("large_sources", rows, chosen)
    finally:
        if chosen.folder is None:
            shutil.rmtree(folder)
    measure.report("large_sources", rows, chosen)


if __name__ == "__main__":
    main()

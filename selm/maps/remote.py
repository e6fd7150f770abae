"""Vector tiles one by one: found in files of any size, fetched from servers, kept in a cache of one file a source.

Nothing here reads a whole source: where a block (a zoom-13 tile) has content is looked up block by block, and of a
server only the tiles are asked for that are wanted. What was fetched lies in the user's cache as an MBTiles file and is
drawn from there.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import gzip
import hashlib
import html
import json
import os
import random
import re
import sqlite3
import struct
import threading
import time
import urllib.parse
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from selm.errors import InputError
from selm.files import cache_folder, read_json, scratch, write_json
from selm.maps import mercator
from selm.maps.atlas import BLOCK_ZOOM

OPENFREEMAP = "https://tiles.openfreemap.org/planet"  # the map where none is given: OpenMapTiles schema, no key
OSM_ATTRIBUTION = "© OpenStreetMap contributors"
CONNECTIONS = 4  # to one server at once
TRIES = 6  # of a tile, where the server is busy or fails
BACKOFF_S, LONGEST_WAIT_S = 0.5, 300.0
TIMEOUT_S = (10, 60)  # to connect, and between two pieces of an answer
FRESH_S = 24 * 3600  # how long a server's description of itself is believed
FIRST_READ = 2**14  # bytes of an archive: its header and root directory lie there
_NO_TILE = "not a vector tile, plain or in gzip (brotli and zstd are not read)"
_TOGETHER = 64  # tiles that are written to the cache together

# The schema's layers, and of those that styles draw the fields that they look at.
SCHEMA = {
    "aerodrome_label", "aeroway", "boundary", "building", "globallandcover", "housenumber", "landcover", "landuse",
    "mountain_peak", "park", "place", "poi", "transportation", "transportation_name", "water", "water_name", "waterway",
}  # fmt: skip
DRAWN = ("aeroway", "building", "landcover", "landuse", "transportation", "water", "waterway")
FIELDS = {"class": "String", "subclass": "String", "brunnel": "String", "ramp": "Number"}
# Layers by which other schemas are known.
_OTHER_SCHEMAS = {
    "Protomaps basemap": {"roads", "earth", "landuse"},
    "Shortbread": {"streets", "ocean", "land"},
    "Mapbox Streets": {"road", "landuse_overlay"},
    "Tilezen": {"roads", "earth"},
}

Fields = dict[str, dict[str, str]]  # of each layer, its fields and their types
Tile = tuple[int, int, int]  # zoom, x, y; rows count from the north
Keys = NDArray[np.int32]  # (N, 2): blocks (x, y)


def check_schema(where: str, layers: set[str]) -> None:
    """Raise InputError unless these are layers of the OpenMapTiles schema."""
    if "transportation" in layers:
        return
    for name, marks in _OTHER_SCHEMAS.items():
        if marks <= layers:
            raise InputError(f"{where}: vector tiles of the {name} schema; OpenMapTiles is needed")
    found = ", ".join(sorted(layers)[:6]) or "none"
    raise InputError(
        f"{where}: vector tiles of another schema than OpenMapTiles (no layer 'transportation'; has: {found})"
    )


def declared_layers(described: Any) -> Fields | None:
    """The layers that metadata names under ``vector_layers``, with their fields; None where it names none."""
    listed = described.get("vector_layers") if isinstance(described, dict) else None
    out: Fields = {}
    for layer in listed if isinstance(listed, list) else []:
        if isinstance(layer, dict) and isinstance(layer.get("id"), str):
            fields = layer.get("fields")
            named = fields.items() if isinstance(fields, dict) else ()
            out[layer["id"]] = {str(name): str(kind) for name, kind in named}
    return out or None


def with_drawn(layers: Fields) -> Fields:
    """These layers, and all that styles draw with the fields that they look at: to Mapnik the others do not exist."""
    return {name: FIELDS | layers.get(name, {}) for name in sorted({*layers, *DRAWN})}


def unpacked(data: bytes) -> bytes:
    """A tile without its compression, gzip or none, whatever is said of it; raises ValueError where it is damaged."""
    if data[:2] == b"\x1f\x8b" or (data[:1] == b"\x78" and data[1:2] in (b"\x01", b"\x5e", b"\x9c", b"\xda")):
        inflate = zlib.decompressobj(47)  # gzip or zlib
        try:
            out = inflate.decompress(data, 2**27)
        except zlib.error as error:
            raise ValueError(f"damaged ({error})") from None
        if not inflate.eof:
            raise ValueError("cut short" if len(out) < 2**27 else "too large")
        return out
    return data


def _gzipped(data: bytes) -> bytes:
    """A tile as Mapnik takes it from an MBTiles file."""
    return data if data[:2] == b"\x1f\x8b" else gzip.compress(unpacked(data), mtime=0)


def tile_layers(data: bytes) -> dict[str, tuple[int, set[str]]]:
    """Of each layer in a vector tile, packed or not, how many features it has and its fields; {} of nothing.

    Raises ValueError where it is cut short or no vector tile.
    """
    layers: dict[str, tuple[int, set[str]]] = {}
    for number, value in message(unpacked(data)):
        if number != 3 or not isinstance(value, bytes):
            raise ValueError(_NO_TILE)
        name, features, fields = "", 0, set()
        for part, content in message(value):
            if part == 2:
                features += 1
            elif part in (1, 3) and isinstance(content, bytes):
                if part == 1:
                    name = content.decode()
                else:
                    fields.add(content.decode())
        if not name:
            raise ValueError(_NO_TILE)
        layers[name] = features, fields
    return layers


def message(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of every field of a protocol buffer message."""
    at, size = 0, len(data)

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            if at >= size or shift > 63:
                raise ValueError("cut short")
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    while at < size:
        tag = varint()
        kind = tag & 7
        if kind == 0:
            yield tag >> 3, varint()
            continue
        length = {1: 8, 5: 4}.get(kind) or (varint() if kind == 2 else -1)
        if kind not in (1, 2, 5):
            raise ValueError(_NO_TILE)
        if at + length > size:
            raise ValueError("cut short")
        yield tag >> 3, data[at : at + length]
        at += length


def tiles_of(x: int, y: int, zoom: int) -> list[Tile]:
    """The tiles of a zoom that hold a block or lie in it."""
    if zoom <= BLOCK_ZOOM:
        return [(zoom, x >> (BLOCK_ZOOM - zoom), y >> (BLOCK_ZOOM - zoom))]
    n = 1 << (zoom - BLOCK_ZOOM)
    return [(zoom, x * n + i, y * n + j) for i in range(n) for j in range(n)]


class Tiles:
    """Where a source has content, asked block by block; `first` and `last` are the zooms that its tiles have.

    `keys`, all blocks with content (sorted), and `bounds`, what they span, are found when they are first asked for: of
    large sources that takes time.
    """

    first: int = 0
    last: int = BLOCK_ZOOM

    def has(self, keys: NDArray[Any]) -> NDArray[np.bool_]:
        """bool (N,): whether there is content in each block (x, y)."""
        raise NotImplementedError

    def tile(self, zoom: int, x: int, y: int) -> bytes | None:
        """A tile as it is stored; None where there is none."""
        return None

    @cached_property
    def keys(self) -> Keys:
        raise NotImplementedError

    @cached_property
    def bounds(self) -> mercator.BBox:
        (x0, y0), (x1, y1) = self.keys.min(0).tolist(), self.keys.max(0).tolist()
        return block_bounds(x0, y0, x1, y1)

    def within(self, x0: int, y0: int, x1: int, y1: int) -> Keys:
        """The blocks with content in a rectangle, its last column and row included; sorted."""
        if "keys" not in self.__dict__ and (x1 - x0 + 1) * (y1 - y0 + 1) <= 2**14:
            keys = rectangle(x0, y0, x1, y1)
            return keys[self.has(keys)]
        return self.keys[((self.keys >= (x0, y0)) & (self.keys <= (x1, y1))).all(1)]


def block_bounds(x0: int, y0: int, x1: int, y1: int) -> mercator.BBox:
    west, _, _, north = mercator.tile_bounds(x0, y0, BLOCK_ZOOM)
    _, south, east, _ = mercator.tile_bounds(x1, y1, BLOCK_ZOOM)
    return west, south, east, north


def rectangle(x0: int, y0: int, x1: int, y1: int) -> Keys:
    """All blocks of a rectangle, its last column and row included; sorted."""
    x, y = np.meshgrid(np.arange(x0, x1 + 1), np.arange(y0, y1 + 1), indexing="ij")
    return np.stack([x.ravel(), y.ravel()], 1).astype(np.int32)


def _on_earth(keys: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray(((keys >= 0) & (keys < 2**BLOCK_ZOOM)).all(1))


class Listed(Tiles):
    """Blocks that are listed."""

    def __init__(self, keys: NDArray[Any], bounds: mercator.BBox | None = None) -> None:
        self.keys = np.asarray(keys, np.int32).reshape(-1, 2)
        self._packed = self.keys[:, 0].astype(np.int64) << 32 | self.keys[:, 1]
        if bounds is not None:
            self.bounds = bounds

    def has(self, keys: NDArray[Any]) -> NDArray[np.bool_]:
        keys = np.asarray(keys, np.int64).reshape(-1, 2)
        return np.isin(keys[:, 0] << 32 | keys[:, 1], self._packed)


class MBTiles(Tiles):
    """The tiles of an .mbtiles file; `xyz` where its rows count from the north, against the standard."""

    def __init__(self, file: Path, xyz: bool = False) -> None:
        self.file, self.xyz = file, xyz

    def connect(self) -> sqlite3.Connection:
        quoted = urllib.parse.quote(str(self.file.resolve()))
        return sqlite3.connect(f"file:{quoted}?mode=ro", uri=True, timeout=60)

    def one(self, question: str, *values: Any) -> Any:
        """The first row of an answer, or None."""
        with closing(self.connect()) as database:
            return database.execute(question, values).fetchone()

    def _end(self, column: str, order: str, zoom: int = -1) -> int:
        """The least or greatest value of a column by the index: min() and max() together would read it whole."""
        where = "WHERE zoom_level = ?" if zoom >= 0 else "WHERE ? < 0"
        found = self.one(f"SELECT {column} FROM tiles {where} ORDER BY {column} {order} LIMIT 1", zoom)
        return int(found[0]) if found else -1

    @cached_property
    def first(self) -> int:  # type: ignore[override]
        return self._end("zoom_level", "ASC")

    @cached_property
    def last(self) -> int:  # type: ignore[override]
        return self._end("zoom_level", "DESC")

    @cached_property
    def _indexed(self) -> bool:
        question = "EXPLAIN QUERY PLAN SELECT 1 FROM tiles WHERE zoom_level = 1 AND tile_column = 1 AND tile_row = 1"
        with closing(self.connect()) as database:
            return not any(str(row[-1]).startswith("SCAN") for row in database.execute(question))

    def _row(self, zoom: int, y: int) -> int:
        return y if self.xyz else 2**zoom - 1 - y

    def has(self, keys: NDArray[Any]) -> NDArray[np.bool_]:
        keys = np.asarray(keys, np.int64).reshape(-1, 2)
        if "keys" in self.__dict__ or not self._indexed:
            return Listed(self.keys).has(keys)
        n = 1 << (self.last - BLOCK_ZOOM)
        out = np.zeros(len(keys), np.bool_)
        question = (
            "SELECT 1 FROM tiles WHERE zoom_level = ? AND tile_column BETWEEN ? AND ? AND tile_row BETWEEN ? AND ? "
            "LIMIT 1"
        )
        with closing(self.connect()) as database:
            for row in np.flatnonzero(_on_earth(keys)).tolist():
                x, y = (int(v) * n for v in keys[row])
                top, bottom = sorted((self._row(self.last, y), self._row(self.last, y + n - 1)))
                asked = (self.last, x, x + n - 1, top, bottom)
                out[row] = database.execute(question, asked).fetchone() is not None
        return out

    @cached_property
    def keys(self) -> Keys:
        shift = self.last - BLOCK_ZOOM
        found: list[NDArray[np.int64]] = []
        with closing(self.connect()) as database:
            rows = database.execute("SELECT tile_column, tile_row FROM tiles WHERE zoom_level = ?", (self.last,))
            while some := rows.fetchmany(2**17):
                x, y = np.array(some, np.int64).T
                y = y if self.xyz else 2**self.last - 1 - y
                found.append(np.unique((x >> shift) << 32 | y >> shift))
        packed = np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)
        return np.stack([packed >> 32, packed & 0xFFFFFFFF], 1).astype(np.int32)

    @cached_property
    def bounds(self) -> mercator.BBox:
        question = (
            "SELECT min(tile_column), max(tile_column), min(tile_row), max(tile_row) FROM tiles WHERE zoom_level = ?"
        )
        x0, x1, *rows = self.one(question, self.last)
        shift = self.last - BLOCK_ZOOM
        y0, y1 = sorted(self._row(self.last, row) >> shift for row in rows)
        return block_bounds(x0 >> shift, y0, x1 >> shift, y1)

    def tile(self, zoom: int, x: int, y: int) -> bytes | None:
        found = self.one(
            "SELECT tile_data FROM tiles WHERE zoom_level = ? AND tile_column = ? AND tile_row = ?",
            zoom, x, self._row(zoom, y),
        )  # fmt: skip
        return bytes(found[0]) if found and found[0] is not None else None

    def samples(self) -> Iterator[tuple[Tile, bytes]]:
        """Some tiles of the last zoom, from all over its columns."""
        low, high = (self._end("tile_column", order, self.last) for order in ("ASC", "DESC"))
        question = (
            "SELECT tile_column, tile_row, tile_data FROM tiles WHERE zoom_level = ? AND tile_column >= ? LIMIT 4"
        )
        with closing(self.connect()) as database:
            for part in range(4):
                for x, row, data in database.execute(question, (self.last, low + (high - low) * part // 4)):
                    yield (self.last, x, self._row(self.last, row)), bytes(data or b"")


class PMTiles(Tiles):
    """The tiles of a PMTiles archive of version 3, through its directories; `read(offset, length)` gives bytes of it.

    Raises InputError, which begins with `name`, where it is none or a directory is damaged.
    """

    def __init__(self, read: Callable[[int, int], bytes], name: str) -> None:
        from pmtiles.tile import MagicNumberNotFound, SpecVersionUnsupported, deserialize_header

        self.read, self.name = read, name
        self._directories: OrderedDict[int, tuple[NDArray[np.int64], ...]] = OrderedDict()
        try:
            begins = read(0, 127)
            if not begins:
                raise ValueError("empty")
            self.header: Mapping[str, Any] = deserialize_header(begins)
        except (MagicNumberNotFound, SpecVersionUnsupported):
            raise InputError(f"{name}: not a PMTiles file of version 3") from None
        except (EOFError, IndexError, ValueError, struct.error) as error:
            raise InputError(f"{name}: not a readable .pmtiles file ({error})") from None

    def metadata(self) -> Any:
        """What the archive says of itself; None where that cannot be read."""
        data = self.read(self.header["metadata_offset"], self.header["metadata_length"])
        try:
            return json.loads(unpacked(data))
        except ValueError:
            return None

    def _directory(self, offset: int, length: int) -> tuple[NDArray[np.int64], ...]:
        """(first tile, how many, 0 for a leaf; length; offset) of a directory's entries."""
        if offset in self._directories:
            return self._directories[offset]
        try:
            values = _varints(unpacked(self.read(offset, length)))
            n = int(values[0])
            if len(values) != 1 + 4 * n:
                raise ValueError("its directory does not fit")
        except (ValueError, IndexError) as error:
            raise InputError(f"{self.name}: not a readable .pmtiles file ({error})") from None
        steps, runs, lengths, raw = values[1:].reshape(4, n)
        before = np.cumsum(lengths) - lengths
        start = np.maximum.accumulate(np.where(raw > 0, np.arange(n), 0))  # 0: right behind the entry before
        directory = np.cumsum(steps), runs, lengths, raw[start] - 1 + before - before[start]
        self._directories[offset] = directory
        while len(self._directories) > 64:
            self._directories.popitem(last=False)
        return directory

    @property
    def _root(self) -> tuple[NDArray[np.int64], ...]:
        return self._directory(self.header["root_offset"], self.header["root_length"])

    def _leaf(self, directory: tuple[NDArray[np.int64], ...], row: int) -> tuple[NDArray[np.int64], ...]:
        return self._directory(self.header["leaf_directory_offset"] + int(directory[3][row]), int(directory[2][row]))

    @cached_property
    def first(self) -> int:  # type: ignore[override]
        return _zoom_of(int(self._root[0][0])) if len(self._root[0]) else -1

    @cached_property
    def last(self) -> int:  # type: ignore[override]
        directory = self._root
        while len(directory[0]) and not directory[1][-1]:
            directory = self._leaf(directory, -1)
        return _zoom_of(int(directory[0][-1] + directory[1][-1] - 1)) if len(directory[0]) else -1

    def _last_before(self, end: int) -> tuple[tuple[NDArray[np.int64], ...], int] | None:
        """The entry of the last tile before `end`: its directory and row."""

        def search(directory: tuple[NDArray[np.int64], ...], depth: int) -> tuple[Any, int] | None:
            row = int(np.searchsorted(directory[0], end)) - 1
            if row < 0:
                return None
            if directory[1][row]:
                return directory, row
            return search(self._leaf(directory, row), depth + 1) if depth < 4 else None

        return search(self._root, 0)

    def has(self, keys: NDArray[Any]) -> NDArray[np.bool_]:
        keys = np.asarray(keys, np.int64).reshape(-1, 2)
        out = _on_earth(keys)
        rows = np.flatnonzero(out)
        shift = 2 * (self.last - BLOCK_ZOOM)
        # on the Hilbert curve the tiles of a block follow one another
        start = _before(self.last) + ((tile_ids(BLOCK_ZOOM, *keys[rows].T) - _before(BLOCK_ZOOM)) << shift)
        for row, tile in sorted(zip(rows.tolist(), start.tolist(), strict=True), key=lambda pair: pair[1]):
            found = self._last_before(tile + (1 << shift))
            out[row] = found is not None and int(found[0][0][found[1]] + found[0][1][found[1]]) > tile
        return out

    @cached_property
    def keys(self) -> Keys:
        shift = 2 * (self.last - BLOCK_ZOOM)
        found: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]

        def walk(directory: tuple[NDArray[np.int64], ...]) -> None:
            tiles, runs = directory[:2]
            here = (runs > 0) & (tiles + runs > _before(self.last))
            low = (np.maximum(tiles[here], _before(self.last)) - _before(self.last)) >> shift
            high = (tiles[here] + runs[here] - 1 - _before(self.last)) >> shift
            if len(low):
                counts = high - low + 1
                within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
                found.append(np.unique(np.repeat(low, counts) + within))
            for row in np.flatnonzero(runs == 0).tolist():
                walk(self._leaf(directory, row))

        walk(self._root)
        keys = tile_places(BLOCK_ZOOM, np.unique(np.concatenate(found)))
        return keys[np.lexsort((keys[:, 1], keys[:, 0]))].astype(np.int32)

    @cached_property
    def bounds(self) -> mercator.BBox:
        """Of the blocks; of a large archive, what its header says, unless that is no box."""
        box = tuple(self.header[f"{name}_e7"] / 1e7 for name in ("min_lon", "min_lat", "max_lon", "max_lat"))
        west, south, east, north = box
        if self.header["leaf_directory_length"] and -180 <= west < east <= 180 and -90 <= south < north <= 90:
            return west, south, east, north
        return Tiles.bounds.func(self)  # type: ignore[attr-defined,no-any-return]

    def tile(self, zoom: int, x: int, y: int) -> bytes | None:
        wanted = int(tile_ids(zoom, np.array([x]), np.array([y]))[0])
        found = self._last_before(wanted + 1)
        if found is None:
            return None
        (tiles, runs, lengths, offsets), row = found
        if tiles[row] + runs[row] <= wanted:
            return None
        return self.read(self.header["tile_data_offset"] + int(offsets[row]), int(lengths[row]))

    def samples(self) -> Iterator[tuple[Tile, bytes]]:
        """Some tiles of the last zoom, from all over the archive."""
        n = 4 ** (self.last)
        directory = self._root
        for part in range(1, 9):
            low = max(int(directory[0][0]), _before(self.last))
            found = self._last_before(low + (_before(self.last) + n - low) * part // 8)
            if found is not None:
                (tiles, runs, *_), row = found
                at = int(tiles[row] + runs[row] - 1)
                if at >= _before(self.last):
                    ((x, y),) = tile_places(self.last, np.array([at - _before(self.last)])).tolist()
                    yield (self.last, x, y), self.tile(self.last, x, y) or b""


def _varints(data: bytes) -> NDArray[np.int64]:
    octets = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(octets < 0x80)
    if not len(ends) or ends[-1] != len(octets) - 1:
        raise ValueError("a directory is cut short")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 9:
        raise ValueError("a directory is damaged")
    place = np.arange(len(octets)) - np.repeat(starts, lengths)
    return np.add.reduceat((octets & 0x7F).astype(np.int64) << (7 * place), starts)


def _before(zoom: int) -> int:
    """How many tiles there are of the zooms before."""
    return int((4**zoom - 1) // 3)


def _zoom_of(tile: int) -> int:
    return ((3 * tile + 1).bit_length() - 1) // 2


def _turned(
    side: int, x: NDArray[np.int64], y: NDArray[np.int64], rx: NDArray[np.int64], ry: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    flip = (ry == 0) & (rx != 0)
    x, y = np.where(flip, side - 1 - x, x), np.where(flip, side - 1 - y, y)
    return np.where(ry == 0, y, x), np.where(ry == 0, x, y)


def tile_ids(zoom: int, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.int64]:
    """Numbers of tiles along PMTiles's Hilbert curve."""
    x, y = np.asarray(x, np.int64), np.asarray(y, np.int64)
    out = np.full(x.shape, _before(zoom), np.int64)
    for bit in range(zoom - 1, -1, -1):
        side = 1 << bit
        rx, ry = x & side, y & side
        out += ((3 * rx) ^ ry) << bit
        x, y = _turned(side, x, y, rx, ry)
    return out


def tile_places(zoom: int, place: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N, 2): x and y of the tiles of a zoom, numbered along the curve from 0."""
    x, y = np.zeros_like(place), np.zeros_like(place)
    for bit in range(zoom):
        side = 1 << bit
        rx = (place >> 1) & side
        ry = (place ^ rx) & side
        x, y = _turned(side, x, y, rx, ry)
        x, y, place = x + rx, y + ry, place >> 1
    return np.stack([x, y], 1)


class TileCache(MBTiles):
    """An MBTiles file in the user's cache that grows tile by tile; several processes may read and fill it at once.

    Write-ahead logging lets Mapnik read while another process writes. A tile that a source has not is remembered, too.
    """

    def __init__(self, file: Path, layers: Fields, first: int, last: int, attribution: str) -> None:
        super().__init__(file)
        self.first, self.last = first, last
        described = [{"id": name, "fields": fields} for name, fields in layers.items()]
        self._about = {
            "name": file.stem, "format": "pbf", "bounds": "-180,-85.051129,180,85.051129", "minzoom": str(first),
            "maxzoom": str(last), "attribution": attribution, "json": json.dumps({"vector_layers": described}),
        }  # fmt: skip
        if not file.exists():
            self._create()

    def _create(self) -> None:
        with scratch(self.file) as temporary, self._errors():
            temporary.unlink(missing_ok=True)
            with closing(sqlite3.connect(temporary)) as database:
                database.execute("PRAGMA journal_mode = WAL")
                database.executescript(
                    "CREATE TABLE metadata (name TEXT, value TEXT);"
                    "CREATE TABLE tiles (zoom_level INTEGER, tile_column INTEGER, tile_row INTEGER, tile_data BLOB);"
                    "CREATE UNIQUE INDEX tile_index ON tiles (zoom_level, tile_column, tile_row);"
                    "CREATE TABLE absent (zoom_level INTEGER, tile_column INTEGER, tile_row INTEGER,"
                    " PRIMARY KEY (zoom_level, tile_column, tile_row)) WITHOUT ROWID;"
                    "CREATE TABLE parts (place INTEGER PRIMARY KEY, data BLOB);"
                )
                database.executemany("INSERT INTO metadata VALUES (?, ?)", self._about.items())
                database.commit()
            try:
                os.link(temporary, self.file)  # never over the file of a process that was faster
            except FileExistsError:
                pass
            except OSError:  # a file system without links
                if not self.file.exists():
                    os.replace(temporary, self.file)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise InputError(f"{self.file}: this cache of tiles cannot be used ({error}); delete it") from None

    def unknown(self, tiles: Iterable[Tile]) -> list[Tile]:
        """Those tiles that have not been asked for yet."""
        question = " UNION ALL ".join(
            f"SELECT 1 FROM {table} WHERE zoom_level = ?1 AND tile_column = ?2 AND tile_row = ?3"
            for table in ("tiles", "absent")
        )
        with self._errors(), closing(self.connect()) as database:
            return [
                (zoom, x, y)
                for zoom, x, y in dict.fromkeys(tiles)
                if database.execute(question, (zoom, x, self._row(zoom, y))).fetchone() is None
            ]

    def put(self, tiles: list[tuple[Tile, bytes | None]]) -> None:
        """Keep tiles; those that are nothing as absent."""
        self._write(
            "INSERT OR IGNORE INTO tiles VALUES (?, ?, ?, ?)",
            [(zoom, x, self._row(zoom, y), _gzipped(data)) for (zoom, x, y), data in tiles if data],
            "INSERT OR IGNORE INTO absent VALUES (?, ?, ?)",
            [(zoom, x, self._row(zoom, y)) for (zoom, x, y), data in tiles if not data],
        )

    def _write(self, *pairs: Any) -> None:
        with self._errors(), closing(sqlite3.connect(self.file, timeout=60, isolation_level=None)) as database:
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute("BEGIN IMMEDIATE")  # one process writes, others wait
            for statement, rows in zip(pairs[::2], pairs[1::2], strict=True):
                database.executemany(statement, rows)
            database.execute("COMMIT")

    def part(self, place: int, read: Callable[[], bytes]) -> bytes:
        """Some bytes of an archive from `place` on, kept once they have been read."""
        with self._errors():
            found = self.one("SELECT data FROM parts WHERE place = ?", place)
        if found is None:
            found = (read(),)
            self._write("INSERT OR IGNORE INTO parts VALUES (?, ?)", [(place, found[0])])
        return bytes(found[0])


@dataclass(frozen=True)
class View:
    """A file that Mapnik would misread, because of what its header says: its tiles are copied as they are wanted."""

    source: Tiles
    cache: TileCache
    name: str

    def copy(self, keys: NDArray[Any]) -> None:
        """Have the tiles of these blocks in the cache; raises InputError that names the first damaged one."""
        zooms = range(self.source.first, self.source.last + 1)
        wanted = (tile for x, y in np.asarray(keys).tolist() for zoom in zooms for tile in tiles_of(x, y, zoom))
        held: list[tuple[Tile, bytes | None]] = []
        for tile in self.cache.unknown(wanted):
            data = self.source.tile(*tile)
            if data:
                check_tile(data, tile, self.name)
            held.append((tile, data))
            if len(held) >= _TOGETHER:
                self.cache.put(held)
                held = []
        self.cache.put(held)


def check_tile(data: bytes, tile: Tile, name: str) -> dict[str, tuple[int, set[str]]]:
    """`tile_layers`; raises InputError that names source and tile where it is damaged."""
    try:
        return tile_layers(data)
    except ValueError as error:
        raise InputError(f"{name}: tile {tile[0]}/{tile[1]}/{tile[2]} is damaged: {error}") from None


class _NoAnswer(InputError):
    """A server that cannot be reached, or fails again and again."""


class Web:
    """Polite requests to one server: few at once, again after a while where it is busy, named by a user agent."""

    def __init__(self) -> None:
        from importlib.metadata import version

        import requests
        from requests.adapters import HTTPAdapter

        self.stop = threading.Event()
        self._session = requests.Session()
        self._session.headers["User-Agent"] = f"selm/{version('selm')} (map tiles to embeddings)"
        self._session.headers["Accept-Encoding"] = "gzip"
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=CONNECTIONS))

    def get(
        self, address: str, what: str, check: Callable[[bytes], Any] = len, span: tuple[int, int] | None = None
    ) -> tuple[bytes | None, str]:
        """(content, entity tag); None where the server has nothing there (404, 204). `span` asks for some bytes.

        `check` raises ValueError for content that is cut short. Raises InputError that begins with `what`.
        """
        from requests import exceptions

        headers = {"Range": f"bytes={span[0]}-{sum(span) - 1}", "Accept-Encoding": "identity"} if span else {}
        reason, wait, lost = "", 0.0, 0
        for attempt in range(TRIES):
            if attempt and self.stop.wait(wait or min(30.0, BACKOFF_S * 2 ** (attempt - 1)) * random.uniform(0.5, 1.5)):
                break
            wait = 0.0
            try:
                with self._session.get(address, headers=headers, timeout=TIMEOUT_S, stream=True) as answer:
                    status = answer.status_code
                    if status in (204, 404, 410):
                        return None, ""
                    if span and status == 200:
                        raise InputError(f"{what}: the server gives no ranges of bytes, which .pmtiles are read by")
                    if status in (200, 206):
                        content = answer.content
                        if span and len(content) > span[1]:
                            raise ValueError("more than was asked for")
                        check(content)
                        return content, answer.headers.get("ETag", "")
                    reason = f"the server answers {status} {answer.reason or ''}".strip()
                    if status != 429 and status < 500:
                        raise InputError(f"{what}: {reason}")
                    wait = _seconds(answer.headers.get("Retry-After", ""))
                    if wait > LONGEST_WAIT_S:
                        raise InputError(f"{what}: {reason}; it asks to come back in {wait:.0f} seconds")
            except exceptions.ChunkedEncodingError:
                reason = "its answer is cut short"
            except (exceptions.InvalidURL, exceptions.InvalidSchema, exceptions.MissingSchema):
                raise InputError(f"{what}: not an address") from None
            except exceptions.RequestException as error:
                reason, lost = _reason(error), lost + 1
                if lost >= 3:
                    break
            except ValueError as error:
                if isinstance(error, InputError):
                    raise
                reason = f"its answer is damaged: {error}"
        kept = "; what has come is kept: run again to go on" if "tile" in what else ""
        raise _NoAnswer(f"{what}: {reason or 'stopped'}{kept}")


def _seconds(text: str) -> float:
    """The seconds of a header Retry-After, a number or a date; 0 where there is none."""
    with contextlib.suppress(ValueError):
        return max(0.0, float(text))
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    return 0.0


def _reason(error: Exception) -> str:
    text = str(error)
    known = re.search(r"\[Errno -?\d+\] ([^'\")]+)", text) or re.search(r"(timed out|Connection aborted)", text)
    detail = known.group(1) if known else type(error).__name__
    return f"no answer ({detail.strip()}); is there a network?"


class Remote(Tiles):
    """Tiles of one zoom that a server has: to ask whether there is content is to fetch it into the cache."""

    def __init__(
        self, name: str, cache: TileCache, web: Web, fetch: Callable[[Tile], bytes | None], declared: bool
    ) -> None:
        self.name, self.cache, self.first, self.last = name, cache, cache.first, cache.last
        self._web, self._fetch, self._declared = web, fetch, declared

    @cached_property
    def keys(self) -> Keys:
        raise InputError(f"{self.name}: what a server has is not listed; name a part of it (a bbox)")

    @cached_property
    def bounds(self) -> mercator.BBox:
        return -180.0, -mercator.LAT_MAX, 180.0, mercator.LAT_MAX

    def within(self, x0: int, y0: int, x1: int, y1: int) -> Keys:
        count = (x1 - x0 + 1) * (y1 - y0 + 1)
        if count > 2**16:
            raise InputError(f"{self.name}: {count} tiles are more than should be asked of a server; take a file")
        keys = rectangle(x0, y0, x1, y1)
        return keys[self.has(keys)]

    def tile(self, zoom: int, x: int, y: int) -> bytes | None:
        return self.cache.tile(zoom, x, y)

    def has(self, keys: NDArray[Any]) -> NDArray[np.bool_]:
        keys = np.asarray(keys, np.int64).reshape(-1, 2)
        there = np.unique(keys[_on_earth(keys)], axis=0)
        wanted = self.cache.unknown(tile for x, y in there.tolist() for tile in tiles_of(x, y, self.last))
        if wanted:
            self._bring(wanted)
        return self.cache.has(keys)

    def _bring(self, wanted: list[Tile]) -> None:
        """Fetch tiles; what has come is kept, whatever happens to the rest."""
        self._web.stop.clear()
        held: list[tuple[Tile, bytes | None]] = []
        bar = tqdm(total=len(wanted), desc=f"fetch {self.name}", unit="tile", disable=len(wanted) < 32 or None)
        pool = ThreadPoolExecutor(CONNECTIONS)
        try:
            with bar:
                for start in range(0, len(wanted), 2**12):
                    asked = {pool.submit(self._checked, tile): tile for tile in wanted[start : start + 2**12]}
                    for answer in as_completed(asked):
                        held.append((asked[answer], answer.result()))
                        bar.update()
                        if len(held) >= _TOGETHER:
                            self.cache.put(held)
                            held = []
        except BaseException:
            self._web.stop.set()
            pool.shutdown(cancel_futures=True)
            there = {tile for tile, _ in held}
            for answer, tile in asked.items():
                if tile not in there and answer.done() and not answer.cancelled() and not answer.exception():
                    held.append((tile, answer.result()))
            raise
        finally:
            pool.shutdown()
            self.cache.put(held)

    def _checked(self, tile: Tile) -> bytes | None:
        data = self._fetch(tile)
        if not data:
            return None
        where = f"{self.name}: tile {tile[0]}/{tile[1]}/{tile[2]}"
        layers = set(check_tile(data, tile, self.name))
        if layers and not (layers & SCHEMA if self._declared else layers <= SCHEMA or "transportation" in layers):
            check_schema(where, layers)
        return data if layers else None


@dataclass(frozen=True)
class Server:
    """An opened address: its tiles, what is to be drawn from, what tells it from others, and whom to name."""

    name: str
    tiles: Remote
    identity: str
    attribution: str
    layers: Fields


def open_server(address: str) -> Server:
    """Open a TileJSON address, a ``{z}/{x}/{y}`` template, or the address of a ``.pmtiles`` archive.

    Raises InputError (one line) where it does not answer, or is none of these.
    """
    host = urllib.parse.urlsplit(address).netloc
    label = re.sub(r"[^\w.-]+", "-", host) or "server"
    folder = cache_folder() / "tiles" / f"{label}-{hashlib.sha256(address.encode()).hexdigest()[:12]}"
    web = Web()
    if "{z}" in address and "{x}" in address and "{y}" in address:
        return _templated(address, address, {}, folder, web)
    if urllib.parse.urlsplit(address).path.lower().endswith(".pmtiles"):
        return _archived(address, folder, web)
    described = _described(address, folder / "about.json", lambda: _tilejson(address, web))
    template = urllib.parse.urljoin(address, described["tiles"][0]).replace("%7B", "{").replace("%7D", "}")
    return _templated(address, template, described, folder, web)


def _described(address: str, file: Path, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a server says of itself, asked once a day; an older answer where there is no network."""
    old = None
    with contextlib.suppress(InputError, KeyError, TypeError, ValueError):
        kept = read_json(file)
        if kept["address"] == address:
            old = dict(kept["described"])
            if 0 <= time.time() - float(kept["time"]) < FRESH_S:
                return old
    try:
        described = ask()
    except _NoAnswer:
        if old is None:
            raise
        return old
    write_json(file, {"address": address, "described": described, "time": time.time()})
    return described


def _tilejson(address: str, web: Web) -> dict[str, Any]:
    content, _ = web.get(address, address)
    if content is None:
        raise InputError(f"{address}: the server has nothing there")
    try:
        described = json.loads(content)
        if not isinstance(described["tiles"][0], str):
            raise TypeError
    except (ValueError, KeyError, TypeError, IndexError):
        raise InputError(
            f"{address}: not a TileJSON address, a template with {{z}}/{{x}}/{{y}} or a .pmtiles file"
        ) from None
    return dict(described)


def _zoom_to_fetch(where: str, first: Any, last: Any) -> int:
    """13 where there are such tiles: encoders have learned on them; else the first after it."""
    low = first if isinstance(first, int) else 0
    high = last if isinstance(last, int) else BLOCK_ZOOM
    if high < BLOCK_ZOOM:
        raise InputError(f"{where}: its tiles end at zoom {high}; zoom {BLOCK_ZOOM} or closer is needed")
    if low > BLOCK_ZOOM + 3:
        raise InputError(f"{where}: its tiles begin at zoom {low}; zoom {BLOCK_ZOOM} is needed, or one soon after it")
    return max(BLOCK_ZOOM, low)


def _credit(given: Any) -> str:
    text = html.unescape(re.sub(r"<[^>]*>", " ", given)) if isinstance(given, str) else ""
    return " ".join(text.split()) or OSM_ATTRIBUTION


def _templated(address: str, template: str, described: dict[str, Any], folder: Path, web: Web) -> Server:
    layers = declared_layers(described)
    if layers is not None:
        check_schema(address, set(layers))
    zoom = _zoom_to_fetch(address, described.get("minzoom"), described.get("maxzoom"))
    south_first = described.get("scheme") == "tms"
    identity = f"{template} zoom {zoom}"
    attribution = _credit(described.get("attribution"))
    file = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:12]}.mbtiles"
    fields = with_drawn(layers or {})
    cache = TileCache(file, fields, zoom, zoom, attribution)
    name = urllib.parse.urlsplit(address).netloc

    def fetch(tile: Tile) -> bytes | None:
        z, x, y = tile
        row = 2**z - 1 - y if south_first else y
        at = template.replace("{z}", str(z)).replace("{x}", str(x)).replace("{y}", str(row))
        return web.get(at, f"{name}: tile {z}/{x}/{y}", tile_layers)[0]

    return Server(address, Remote(name, cache, web, fetch, layers is not None), identity, attribution, fields)


def _archived(address: str, folder: Path, web: Web) -> Server:
    """A PMTiles archive by ranges: its directories are fetched as they are needed, and kept."""

    def ask() -> dict[str, Any]:
        data, tag = web.get(address, address, span=(0, FIRST_READ))
        if data is None:
            raise InputError(f"{address}: the server has nothing there")
        PMTiles(lambda offset, length: data[offset : offset + length], address)  # refuses what is none
        return {"begins": base64.b64encode(data).decode(), "tag": tag}

    described = _described(address, folder / "about.json", ask)
    begins, tag = base64.b64decode(described["begins"]), str(described["tag"])
    identity = f"{address} {tag} {hashlib.sha256(begins).hexdigest()}"
    file = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:12]}.mbtiles"
    name = urllib.parse.urlsplit(address).netloc
    kept: dict[int, bytes] = {}

    def ask_for(offset: int, length: int) -> bytes:
        def whole(content: bytes) -> None:
            if len(content) != length:
                raise ValueError("cut short")

        data, now = web.get(address, f"{name}: bytes of tiles", whole, (offset, length))
        if data is None or (tag and now and now != tag):
            (folder / "about.json").unlink(missing_ok=True)
            raise InputError(f"{address}: the archive has changed on the server; run again")
        return data

    def read(offset: int, length: int) -> bytes:
        if offset + length <= len(begins):
            return begins[offset : offset + length]
        if offset >= archive.header["tile_data_offset"]:
            return ask_for(offset, length)
        if offset not in kept:  # a directory, or metadata
            kept[offset] = cache.part(offset, lambda: ask_for(offset, length)) if cache else ask_for(offset, length)
        return kept[offset]

    cache: TileCache | None = None
    archive = PMTiles(read, address)
    about = described.get("about")
    if about is None:  # the first time: kept with the rest, for a day without a network
        about = {"metadata": archive.metadata(), "zooms": [archive.first, archive.last]}
        described["about"] = about
        write_json(folder / "about.json", {"address": address, "described": described, "time": time.time()})
    kind = archive.header["tile_type"].name
    if kind not in ("MVT", "UNKNOWN"):
        raise InputError(f"{address}: holds {kind} images, not vector tiles")
    layers = declared_layers(about["metadata"])
    if layers is not None:
        check_schema(address, set(layers))
    zoom = _zoom_to_fetch(address, *about["zooms"])
    metadata = about["metadata"] if isinstance(about["metadata"], dict) else {}
    attribution = _credit(metadata.get("attribution"))
    fields = with_drawn(layers or {})
    cache = TileCache(file, fields, zoom, zoom, attribution)

    def fetch(tile: Tile) -> bytes | None:
        return archive.tile(*tile)

    return Server(address, Remote(name, cache, web, fetch, layers is not None), identity, attribution, fields)

"""Where a source has content, looked up block by block (zoom-13 tiles) and so in no more time for a larger source."""

from __future__ import annotations

import gzip
import sqlite3
import struct
import urllib.parse
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from selm.errors import InputError, first_line
from selm.files import parsed
from selm.maps import mercator
from selm.maps.atlas import BLOCK_ZOOM
from selm.maps.vector_tiles import Tile, unpacked

if TYPE_CHECKING:
    from pmtiles.tile import Entry

Keys = NDArray[np.int32]  # (N, 2): blocks (x, y)
_FEW = 2**14  # blocks of a rectangle that are looked up rather than listed
_MOST = 2**24  # blocks that are listed: a country has some 10,000, all land some million


def tiles_of(x: int, y: int, zoom: int) -> list[Tile]:
    """The tiles of a zoom that hold a block or lie in it."""
    if zoom <= BLOCK_ZOOM:
        return [(zoom, x >> (BLOCK_ZOOM - zoom), y >> (BLOCK_ZOOM - zoom))]
    n = 1 << (zoom - BLOCK_ZOOM)
    return [(zoom, x * n + i, y * n + j) for i in range(n) for j in range(n)]


def block_bounds(x0: int, y0: int, x1: int, y1: int) -> mercator.BBox:
    """West, south, east, north of a rectangle of blocks, its last column and row included."""
    west, _, _, north = mercator.tile_bounds(x0, y0, BLOCK_ZOOM)
    _, south, east, _ = mercator.tile_bounds(x1, y1, BLOCK_ZOOM)
    return west, south, east, north


def rectangle(x0: int, y0: int, x1: int, y1: int) -> Keys:
    """All blocks of a rectangle, its last column and row included; sorted."""
    x, y = np.meshgrid(np.arange(x0, x1 + 1), np.arange(y0, y1 + 1), indexing="ij")
    return np.stack([x.ravel(), y.ravel()], 1).astype(np.int32)


def on_earth(keys: NDArray[Any]) -> NDArray[np.bool_]:
    """bool (N,): which of these are blocks."""
    return np.asarray(((keys >= 0) & (keys < 2**BLOCK_ZOOM)).all(1))


def pack(keys: NDArray[Any]) -> NDArray[np.int64]:
    """Blocks (N, 2) as one number each (N,), which sort as they do."""
    return np.asarray(keys[..., 0], np.int64) << 32 | np.asarray(keys[..., 1], np.int64)


def unpack(packed: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.stack([packed >> 32, packed & 0xFFFFFFFF], axis=-1)


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

    def may_have(self, keys: NDArray[Any]) -> NDArray[np.bool_]:
        """As `has`, but True where only a server could tell: nothing is fetched."""
        return self.has(keys)

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
        """The blocks of a rectangle, its last column and row included, that `may_have` content; sorted."""
        if "keys" not in self.__dict__ and (x1 - x0 + 1) * (y1 - y0 + 1) <= _FEW:
            keys = rectangle(x0, y0, x1, y1)
            return keys[self.may_have(keys)]
        return self.keys[((self.keys >= (x0, y0)) & (self.keys <= (x1, y1))).all(1)]


class Listed(Tiles):
    """Blocks that are listed."""

    def __init__(self, keys: NDArray[Any], bounds: mercator.BBox | None = None) -> None:
        self.keys = np.asarray(keys, np.int32).reshape(-1, 2)
        if bounds is not None:
            self.bounds = bounds

    def has(self, keys: NDArray[Any]) -> NDArray[np.bool_]:
        return np.isin(pack(np.asarray(keys, np.int64).reshape(-1, 2)), pack(self.keys))


class MBTiles(Tiles):
    """The tiles of an .mbtiles file; `xyz` where its rows count from the north, against the standard."""

    trouble = "damaged .mbtiles file"

    def __init__(self, file: Path, xyz: bool = False) -> None:
        self.file, self.xyz = file, xyz

    def connect(self) -> sqlite3.Connection:
        quoted = urllib.parse.quote(str(self.file.resolve()))
        return sqlite3.connect(f"file:{quoted}?mode=ro", uri=True, timeout=60)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """What SQLite finds wrong, as an InputError."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise InputError(f"{self.file}: {self.trouble} ({first_line(error)})") from None

    @contextmanager
    def connected(self) -> Iterator[sqlite3.Connection]:
        with self.errors(), closing(self.connect()) as database:
            yield database

    def one(self, question: str, *values: Any) -> Any:
        """The first row of an answer, or None."""
        with self.connected() as database:
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
        with self.connected() as database:
            return not any(str(row[-1]).startswith("SCAN") for row in database.execute(question))

    def row(self, zoom: int, y: int) -> int:
        """The row as the file counts it; its own inverse."""
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
        with self.connected() as database:
            for at in np.flatnonzero(on_earth(keys)).tolist():
                x, y = (int(v) * n for v in keys[at])
                rows = sorted((self.row(self.last, y), self.row(self.last, y + n - 1)))
                out[at] = database.execute(question, (self.last, x, x + n - 1, *rows)).fetchone() is not None
        return out

    @cached_property
    def keys(self) -> Keys:
        shift = self.last - BLOCK_ZOOM
        found: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        with self.connected() as database:
            rows = database.execute("SELECT tile_column, tile_row FROM tiles WHERE zoom_level = ?", (self.last,))
            while some := rows.fetchmany(2**17):
                x, y = np.array(some, np.int64).T
                y = y if self.xyz else 2**self.last - 1 - y
                found.append(np.unique(pack(np.stack([x >> shift, y >> shift], 1))))
        return unpack(np.unique(np.concatenate(found))).astype(np.int32)

    @cached_property
    def bounds(self) -> mercator.BBox:
        question = (
            "SELECT min(tile_column), max(tile_column), min(tile_row), max(tile_row) FROM tiles WHERE zoom_level = ?"
        )
        x0, x1, *rows = self.one(question, self.last)
        shift = self.last - BLOCK_ZOOM
        y0, y1 = sorted(self.row(self.last, row) >> shift for row in rows)
        return block_bounds(x0 >> shift, y0, x1 >> shift, y1)

    def tile(self, zoom: int, x: int, y: int) -> bytes | None:
        found = self.one(
            "SELECT tile_data FROM tiles WHERE zoom_level = ? AND tile_column = ? AND tile_row = ?",
            zoom, x, self.row(zoom, y),
        )  # fmt: skip
        return bytes(found[0]) if found and found[0] is not None else None

    def samples(self) -> Iterator[tuple[Tile, bytes]]:
        """Some tiles of the last zoom, from all over its columns."""
        low, high = (self._end("tile_column", order, self.last) for order in ("ASC", "DESC"))
        question = (
            "SELECT tile_column, tile_row, tile_data FROM tiles WHERE zoom_level = ? AND tile_column >= ? LIMIT 4"
        )
        with self.connected() as database:
            for part in range(4):
                for x, row, data in database.execute(question, (self.last, low + (high - low) * part // 4)):
                    yield (self.last, x, self.row(self.last, row)), bytes(data or b"")


class PMTiles(Tiles):
    """The tiles of a PMTiles archive of version 3, through its directories; `read(offset, length)` gives bytes of it.

    Raises InputError, which begins with `name`, where it is none or a directory is damaged.
    """

    def __init__(self, read: Callable[[int, int], bytes], name: str) -> None:
        from pmtiles.tile import MagicNumberNotFound, SpecVersionUnsupported, deserialize_header

        self.read, self.name = read, name
        self._entries = lru_cache(64)(self._read_entries)
        try:
            self.header: Mapping[str, Any] = deserialize_header(read(0, 127))
        except (MagicNumberNotFound, SpecVersionUnsupported, UnicodeDecodeError):
            raise InputError(f"{name}: not a PMTiles file of version 3") from None
        except (EOFError, IndexError, ValueError, struct.error) as error:
            raise InputError(f"{name}: not a readable .pmtiles file ({error})") from None

    def metadata(self) -> Any:
        """What the archive says of itself; None where that cannot be read."""
        data = self.read(self.header["metadata_offset"], self.header["metadata_length"])
        try:
            return parsed(unpacked(data))
        except ValueError:
            return None

    def _read_entries(self, offset: int, length: int) -> list[Entry]:
        from pmtiles.tile import deserialize_directory

        try:
            return deserialize_directory(gzip.compress(unpacked(self.read(offset, length)), 0))
        except (EOFError, IndexError, ValueError) as error:
            raise InputError(f"{self.name}: not a readable .pmtiles file ({error})") from None

    @property
    def _root(self) -> list[Entry]:
        return self._entries(self.header["root_offset"], self.header["root_length"])

    def _leaf(self, entry: Entry) -> list[Entry]:
        return self._entries(self.header["leaf_directory_offset"] + entry.offset, entry.length)

    def _last_until(self, tile_id: int) -> Entry | None:
        """The last entry that begins at this tile or before it; None where there is none."""
        entries = self._root
        for _ in range(4):  # as deep as directories may lie
            at = bisect_right(entries, tile_id, key=lambda entry: entry.tile_id) - 1
            if at < 0 or entries[at].run_length:
                return entries[at] if at >= 0 else None
            entries = self._leaf(entries[at])
        return None

    @cached_property
    def _ends(self) -> tuple[int, int]:
        """The first and the last tile; -1 where there is none."""
        last = self._last_until(4**32)
        return (self._root[0].tile_id, last.tile_id + last.run_length - 1) if last else (-1, -1)

    @cached_property
    def first(self) -> int:  # type: ignore[override]
        return _zoom_of(self._ends[0])

    @cached_property
    def last(self) -> int:  # type: ignore[override]
        return _zoom_of(self._ends[1])

    @property
    def _shift(self) -> int:
        """On the Hilbert curve the tiles of a block follow one another: 2 to this many."""
        return 2 * (self.last - BLOCK_ZOOM)

    def has(self, keys: NDArray[Any]) -> NDArray[np.bool_]:
        from pmtiles.tile import zxy_to_tileid

        keys = np.asarray(keys, np.int64).reshape(-1, 2)
        out = on_earth(keys)
        for at in np.flatnonzero(out).tolist():
            place = zxy_to_tileid(BLOCK_ZOOM, *keys[at].tolist()) - _before(BLOCK_ZOOM)
            start = _before(self.last) + (place << self._shift)
            entry = self._last_until(start + (1 << self._shift) - 1)
            out[at] = entry is not None and entry.tile_id + entry.run_length > start
        return out

    @cached_property
    def keys(self) -> Keys:
        from pmtiles.tile import tileid_to_zxy

        places: set[int] = set()
        begin = _before(self.last)

        def walk(entries: list[Entry]) -> None:
            for entry in entries:
                end = entry.tile_id + entry.run_length
                if not entry.run_length:
                    walk(self._leaf(entry))
                elif end > begin:
                    low = max(entry.tile_id, begin) - begin
                    some = range(low >> self._shift, (end - 1 - begin >> self._shift) + 1)
                    if len(places) + len(some) > _MOST:
                        raise InputError(f"{self.name}: too many tiles to list them; name a part of it (a bbox)")
                    places.update(some)

        walk(self._root)
        first = _before(BLOCK_ZOOM)
        return np.array(sorted(tileid_to_zxy(first + place)[1:] for place in places), np.int32).reshape(-1, 2)

    @cached_property
    def bounds(self) -> mercator.BBox:
        """Of the blocks; of a large archive, what its header says, unless that is no box."""
        box = tuple(self.header[f"{name}_e7"] / 1e7 for name in ("min_lon", "min_lat", "max_lon", "max_lat"))
        west, south, east, north = box
        if self.header["leaf_directory_length"] and -180 <= west < east <= 180 and -90 <= south < north <= 90:
            return west, south, east, north
        return Tiles.bounds.func(self)  # type: ignore[attr-defined,no-any-return]

    def tile(self, zoom: int, x: int, y: int) -> bytes | None:
        from pmtiles.tile import zxy_to_tileid

        wanted = zxy_to_tileid(zoom, x, y)
        entry = self._last_until(wanted)
        if entry is None or entry.tile_id + entry.run_length <= wanted:
            return None
        return self.read(self.header["tile_data_offset"] + entry.offset, entry.length)

    def samples(self) -> Iterator[tuple[Tile, bytes]]:
        """Some tiles of the last zoom, from all over the archive."""
        from pmtiles.tile import tileid_to_zxy

        low, high = max(self._ends[0], _before(self.last)), self._ends[1]
        for part in range(8):
            entry = self._last_until(low + (high - low) * part // 7)
            if entry is not None and entry.tile_id >= low:
                tile = tileid_to_zxy(entry.tile_id)
                yield tile, self.tile(*tile) or b""


def _before(zoom: int) -> int:
    """How many tiles there are of the zooms before."""
    return int((4**zoom - 1) // 3)


def _zoom_of(tile_id: int) -> int:
    return ((3 * tile_id + 1).bit_length() - 1) // 2 if tile_id >= 0 else -1

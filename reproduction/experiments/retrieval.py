"""Figure 5: is a place found again from another picture of it? Top-k % recall over a gallery of places.

Samano et al. (ECCV 2020), whose protocol the paper follows, ask with street panoramas; the paper says "location images"
and no more. Here the question is another map picture of the place, made as `reproduction.settings.Query` says.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from reproduction.settings import Query
from selm.errors import InputError
from selm.maps.mercator import metres_per_pixel
from selm.views import DeviceAtlas, Windows, colour, cut

_CHUNK_BYTES = 2**26  # of distances that are computed together


def gallery_images(atlas: DeviceAtlas, lat: ArrayLike, lon: ArrayLike, zoom: int, size: int) -> Tensor:
    """The places' own pictures: (N, 3, size, size) float32 in [0, 1]."""
    return atlas.images(lat, lon, zoom, size)


def query_images(
    atlas: DeviceAtlas, lat: NDArray[np.float64], lon: NDArray[np.float64], zoom: int, size: int, query: Query,
    generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """Another picture of each of N places: (N, 3, size, size) float32 in [0, 1].

    atlas: drawn in the query's style.  generator: on the CPU; the same draws whatever the device.
    A picture that is neither rotated, zoomed, shifted nor redrawn is that of `gallery_images`, pixel by pixel. Shifts
    are measured from the middle of the place's own picture, which lies on whole pixels.
    """
    if query.zoom < 1 or query.shift_m < 0 or query.rotation_degrees < 0:
        raise InputError(f"query '{query.name}': zoom is 1 or more, shift and rotation are 0 or more")
    n = len(lat)
    u = torch.rand(n, 3, generator=generator, dtype=torch.float64).to(atlas.device)
    centre = atlas.locate(lat, lon, zoom)
    own = torch.floor(centre - size / 2 + 0.5) + size / 2  # the middle of the place's picture
    pixels = query.shift_m / torch.as_tensor(metres_per_pixel(lat, zoom, atlas.tile_px), device=atlas.device)
    bearing = 2 * math.pi * u[:, 0]
    middle = own + pixels[:, None] * torch.stack([torch.sin(bearing), -torch.cos(bearing)], dim=1)
    angle = math.radians(query.rotation_degrees) * (2 * u[:, 1] - 1)
    side = size * torch.exp(math.log(query.zoom) * (2 * u[:, 2] - 1))
    patch = 2 * (math.ceil(size * query.zoom * (math.sqrt(0.5) if query.rotation_degrees else 0.5)) + 1)
    indices, offset = atlas.patches(middle, zoom, patch)
    windows = Windows(torch.zeros(n, 1, 2, device=atlas.device), side[:, None].float(), angle[:, None].float())
    return cut(colour(indices, atlas.palette), offset, windows, size)


def ranks(gallery: ArrayLike, queries: ArrayLike) -> NDArray[np.int64]:
    """Rank, from 1, at which each query finds its own place: row i of `queries` (N, d) asks for row i of `gallery`.

    By Euclidean distance. Pessimistic: a place that is as near as the true one counts as found before it, so that an
    embedding that says the same of every place finds none of them.
    """
    g, q = (np.asarray(x, np.float32) for x in (gallery, queries))
    if g.shape != q.shape or g.ndim != 2:
        raise InputError(f"recall: gallery of shape {g.shape}, queries of shape {q.shape}; they must be of one shape")
    if not (np.isfinite(g).all() and np.isfinite(q).all()):
        raise InputError("recall: a vector that is not finite")
    squares = np.einsum("nd,nd->n", g, g)
    out = np.empty(len(g), np.int64)
    step = max(1, _CHUNK_BYTES // (4 * max(len(g), 1)))
    for start in range(0, len(g), step):
        rows = np.arange(start, min(start + step, len(g)))
        distance = squares - 2 * q[rows] @ g.T  # less the query's own square, which changes no order
        out[rows] = (distance <= distance[np.arange(len(rows)), rows][:, None]).sum(axis=1)
    return out


def found_within(shares: ArrayLike, n: int) -> NDArray[np.int64]:
    """The number of places that k % of a gallery of n are: rounded, at least one."""
    return np.maximum(np.rint(np.asarray(shares, np.float64) * n / 100), 1).astype(np.int64)


def recall(rank: ArrayLike, shares: ArrayLike, n: int) -> NDArray[np.float64]:
    """Share of queries that find their place within the top k % of a gallery of n, for each k of `shares` (S,)."""
    return (np.asarray(rank)[:, None] <= found_within(shares, n)).mean(axis=0)


def bootstrap(
    rank: ArrayLike, blocks: ArrayLike, shares: ArrayLike, n: int, *,
    n_boot: int = 2_000, level: float = 0.95, seed: int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # fmt: skip
    """(low, high), each (S,): central bootstrap interval of `recall`; whole blocks of places are drawn, not places.

    blocks: (N,) the block of each query. Raises InputError for fewer than two.
    """
    _, code = np.unique(np.asarray(blocks), return_inverse=True)
    n_blocks = int(code.max()) + 1 if len(code) else 0
    if n_blocks < 2:
        raise InputError(f"a bootstrap over blocks needs two of them at least, there are {n_blocks}")
    hit = np.asarray(rank)[:, None] <= found_within(shares, n)
    total = np.zeros((n_blocks, hit.shape[1]))
    np.add.at(total, code, hit)
    count = np.bincount(code, minlength=n_blocks)
    times = np.random.default_rng(seed).multinomial(n_blocks, np.full(n_blocks, 1 / n_blocks), size=n_boot)
    drawn = (times @ total) / (times @ count)[:, None]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high

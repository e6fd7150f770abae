"""How much a map image shows: Shannon entropy, the filter, the sampling priorities (eq. 1); and in which colours."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from selm.errors import InputError
from selm.maps.mercator import to_tile

if TYPE_CHECKING:
    from selm.maps.atlas import Atlas

COLOURS = 64  # of a colour histogram
_CHUNK = 2048  # images whose entropy is computed together
THRESHOLD = 0.40  # section 4 of the paper, which gives no unit: bits is ours


def grey(palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(..., 3) RGB to grey by ITU-R BT.601 (0.299 R + 0.587 G + 0.114 B), rounded; uint8 (...)."""
    r, g, b = (palette[..., i].astype(np.int64) for i in range(3))
    return ((299 * r + 587 * g + 114 * b + 500) // 1000).astype(np.uint8)


def image_entropy(indices: NDArray[np.uint8], palette: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Shannon entropy, in bits, of the 256-bin grey histogram of each image.

    `indices` uint8 (N, h, w) into `palette` uint8 (256, 3). Returns float32 (N,): 0 for one grey alone, at most 8.
    """
    indices = np.asarray(indices)
    if indices.ndim != 3:
        raise ValueError(f"expected images of shape (N, h, w), got {indices.shape}")
    n, pixels = len(indices), indices.shape[1] * indices.shape[2]
    to_grey = np.zeros((256, 256))  # palette index → grey level; several indices may share a grey
    to_grey[np.arange(256), grey(palette)] = 1.0
    out = np.empty(n, np.float32)
    step = max(1, 2**24 // max(pixels, 1))
    for start in range(0, n, step):
        chunk = indices[start : start + step].reshape(-1, pixels)
        offset = np.arange(len(chunk), dtype=np.int32)[:, None] * 256
        counts = np.bincount((chunk + offset).ravel(), minlength=len(chunk) * 256).reshape(-1, 256)
        p = counts @ to_grey / pixels
        # 0 log 0 = 0; adding 0.0 turns the -0.0 of a single grey into 0.0
        out[start : start + step] = -np.where(p > 0, p * np.log2(np.where(p > 0, p, 1.0)), 0.0).sum(1) + 0.0
    return out


def entropy_at(
    atlas: Atlas, lat: ArrayLike, lon: ArrayLike, *, zoom: int = 17, size: int | None = None
) -> NDArray[np.float32]:
    """Entropy in bits, float32 (N,), of the images centred on N coordinates; `size` pixels, by default one tile."""
    lat, lon = np.atleast_1d(np.asarray(lat, np.float64)), np.atleast_1d(np.asarray(lon, np.float64))
    x, y = to_tile(lat, lon, 13)
    order = np.lexsort((np.floor(y), np.floor(x)))  # block by block, so that each is read about once
    out = np.empty(len(lat), np.float32)
    for start in range(0, len(order), _CHUNK):
        rows = order[start : start + _CHUNK]
        images = atlas.indices(lat[rows], lon[rows], zoom, size or atlas.tile_px)
        out[rows] = image_entropy(images, atlas.palette)
    return out


def keep(entropy: ArrayLike, threshold: float = THRESHOLD) -> NDArray[np.bool_]:
    """Which images pass the filter: entropy larger than `threshold` bits (section 3.1)."""
    return np.asarray(entropy) > threshold


def priorities(entropy: ArrayLike, alpha: float = 1.0, epsilon: float = 0.01) -> NDArray[np.float64]:
    """Sampling probabilities of eq. 1: P(i) = p_i^alpha / sum_k p_k^alpha with p_i = entropy_i + epsilon.

    `alpha` 0 is uniform sampling; `epsilon` > 0 gives every image a chance. float64 (N,), summing to 1.
    """
    if alpha < 0 or epsilon <= 0:
        raise ValueError(f"eq. 1 needs alpha >= 0 and epsilon > 0, got {alpha} and {epsilon}")
    p = (np.asarray(entropy, np.float64) + epsilon) ** alpha
    return p / p.sum()


def colour_histogram(images: ArrayLike, palette: ArrayLike | None = None) -> NDArray[np.float32]:
    """Share of each of 64 colours in each image: (N, 64), rows sum to 1.

    images: uint8 (N, h, w) indices into `palette` uint8 (256, 3): the 64 colours are the palette's first, which are the
        style's own flat colours and its most distinct blends; every other index counts for the nearest of them.
    Without a palette, images are RGB, uint8 (N, h, w, 3), and a colour is the upper two bits of red, green and blue
        (bin 16 r + 4 g + b). On a pale map style that tells little: land, housing and streets share one bin.
    """
    pixels = np.asarray(images)
    if pixels.dtype != np.uint8:
        raise InputError(f"images: expected uint8, got {pixels.dtype}")
    if palette is None:
        if pixels.ndim != 4 or pixels.shape[3] != 3:
            raise InputError(f"images: expected (N, h, w, 3) without a palette, got shape {pixels.shape}")
        upper = pixels >> 6
        bins = upper[..., 0] * 16 + upper[..., 1] * 4 + upper[..., 2]
    else:
        if pixels.ndim != 3:
            raise InputError(f"images: expected (N, h, w) with a palette, got shape {pixels.shape}")
        bins = _nearest_of_first(np.asarray(palette, np.uint8).tobytes())[pixels]
    n, n_pixels = len(bins), int(np.prod(bins.shape[1:]))
    flat = bins.reshape(n, -1).astype(np.int64) + COLOURS * np.arange(n)[:, None]
    counts = np.bincount(flat.ravel(), minlength=n * COLOURS).reshape(n, COLOURS)
    return (counts / max(n_pixels, 1)).astype(np.float32)


@lru_cache(maxsize=8)
def _nearest_of_first(palette: bytes) -> NDArray[np.uint8]:
    """Each palette entry's nearest (squared RGB distance) among the first 64, uint8 (256,); of equals, the first."""
    colours = np.frombuffer(palette, np.uint8).reshape(-1, 3).astype(np.int64)
    distance = np.square(colours[:, None] - colours[None, :COLOURS]).sum(axis=2)
    return distance.argmin(axis=1).astype(np.uint8)

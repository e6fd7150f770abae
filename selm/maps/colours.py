"""How much of each colour a map image shows: what is free, and the baseline of every embedding of map images."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from selm.errors import InputError

COLOURS = 64  # of a colour histogram


def colour_histogram(images: ArrayLike, palette: ArrayLike) -> NDArray[np.float32]:
    """Share of each of 64 colours in each image: (N, 64), rows sum to 1.

    images: uint8 (N, h, w) indices into `palette` uint8 (256, 3). The 64 colours are the palette's first, which are the
    style's own flat colours and its most distinct blends; every other index counts for the nearest of them.
    """
    pixels = np.asarray(images)
    if pixels.dtype != np.uint8 or pixels.ndim != 3:
        raise InputError(f"images: expected uint8 (N, h, w), got {pixels.dtype} {pixels.shape}")
    return shares(_nearest_of_first(np.asarray(palette, np.uint8).tobytes())[pixels])


def shares(bins: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Share of each of 64 bins in each image: uint8 (N, h, w) → (N, 64)."""
    n, flat = len(bins), bins.reshape(len(bins), -1).astype(np.int64)
    counts = np.bincount((flat + COLOURS * np.arange(n)[:, None]).ravel(), minlength=n * COLOURS).reshape(n, COLOURS)
    return (counts / max(flat.shape[1], 1)).astype(np.float32)


@lru_cache(maxsize=8)
def _nearest_of_first(palette: bytes) -> NDArray[np.uint8]:
    """Each palette entry's nearest (squared RGB distance) among the first 64, uint8 (256,); of equals, the first."""
    colours = np.frombuffer(palette, np.uint8).reshape(-1, 3).astype(np.int64)
    distance = np.square(colours[:, None] - colours[None, :COLOURS]).sum(axis=2)
    return distance.argmin(axis=1).astype(np.uint8)

"""How much a map image shows: Shannon entropy, the filter, the sampling priorities (eq. 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from selm.maps.mercator import to_tile

if TYPE_CHECKING:
    from selm.maps.atlas import Atlas

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

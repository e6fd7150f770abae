"""Figure 2: t-SNE of embeddings, and a number for what the picture shows: how often neighbours share a label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from selm.errors import InputError

_CHUNK_BYTES = 2**26  # of distances that are computed together


def tsne(vectors: ArrayLike, *, dimensions: int = 3, perplexity: float = 30.0, seed: int = 0) -> NDArray[np.float32]:
    """t-SNE (van der Maaten and Hinton 2008) of N vectors (N, d) by Euclidean distance: float32 (N, dimensions).

    scikit-learn's Barnes-Hut t-SNE from the principal components; deterministic by `seed`. Raises InputError where
    `perplexity` is not below the number of vectors.
    """
    from sklearn.manifold import TSNE  # half a second to import

    x = np.ascontiguousarray(vectors, dtype=np.float32)
    if perplexity >= len(x):
        raise InputError(f"t-SNE: perplexity {perplexity:g} needs more than {len(x)} places")
    model = TSNE(dimensions, perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed)
    return np.asarray(model.fit_transform(x), dtype=np.float32)


@dataclass(frozen=True)
class Purity:
    """own, chance float64 (N,): share of each place's neighbours with its label, and what random ones would give.

    NaN for places without a label or without a neighbour.
    """

    own: NDArray[np.float64]
    chance: NDArray[np.float64]

    @property
    def n(self) -> int:
        return int(np.isfinite(self.own).sum())


def neighbour_purity(vectors: ArrayLike, labels: ArrayLike, k: int, *, apart: sparse.csr_array | None = None) -> Purity:
    """Of each place's k nearest labelled places by Euclidean distance, the share that has its label.

    vectors: (N, d).  labels: int (N,), negative where missing; such places take no part.
    apart: sparse bool (N, N), places that are never each other's neighbours. Images of places next to each other
        overlap, and so do their labels: with these pairs left out, purity is about places that only look alike.
    chance: the share of a place's label among all the places that could be its neighbours, which is exactly what k of
        them drawn at random have on average.
    """
    x, code = np.asarray(vectors, np.float32), np.asarray(labels)
    if k < 1 or x.ndim != 2 or code.shape != (len(x),):
        raise InputError(f"purity: k = {k}, vectors of shape {x.shape}, labels of shape {code.shape}")
    own, chance = np.full(len(x), np.nan), np.full(len(x), np.nan)
    known = np.flatnonzero(code >= 0)
    if len(known) < 2:
        return Purity(own, chance)
    x, code = x[known], code[known]
    taken = None if apart is None else apart[known][:, known].tocsr()
    squares = np.einsum("nd,nd->n", x, x)
    step = max(1, _CHUNK_BYTES // (4 * len(x)))
    for start in range(0, len(x), step):
        rows = np.arange(start, min(start + step, len(x)))
        distance = squares[rows, None] + squares - 2 * x[rows] @ x.T
        out = np.zeros(distance.shape, bool)
        out[np.arange(len(rows)), rows] = True
        if taken is not None:
            out |= taken[rows].toarray().astype(bool)
        distance[out] = np.inf
        same = code[rows, None] == code
        free = (~out).sum(axis=1)
        some = free > 0
        nearest = np.argsort(distance, axis=1, kind="stable")[:, : min(k, len(x))]
        reached = np.isfinite(np.take_along_axis(distance, nearest, axis=1))  # a place may have fewer than k
        hits = (np.take_along_axis(same, nearest, axis=1) & reached).sum(axis=1)
        own[known[rows]] = np.where(some, hits / np.maximum(reached.sum(axis=1), 1), np.nan)
        chance[known[rows]] = np.where(some, (same & ~out).sum(axis=1) / np.maximum(free, 1), np.nan)
    return Purity(own, chance)


def groups_of_equal_number(values: ArrayLike, bins: int) -> NDArray[np.int64]:
    """int64 (N,): which of `bins` groups of equal number each value is in, the smallest first; -1 for NaN.

    Equal values are in one group, so that the groups are as equal in number as ties allow.
    """
    v = np.asarray(values, np.float64)
    known = np.isfinite(v)
    out = np.full(len(v), -1, np.int64)
    if known.any():
        below = pd.Series(v[known]).rank().to_numpy() - 0.5  # half of the equal ones counted
        share = below / known.sum()
        _, out[known] = np.unique(np.floor(share * bins), return_inverse=True)
    return out

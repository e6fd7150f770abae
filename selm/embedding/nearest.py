"""Embeddings → coordinates: the places whose embeddings are nearest to a vector."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from selm.errors import InputError, unknown

METRICS = ("cosine", "euclidean")
_CHUNK_BYTES = 2**26  # of similarities that are computed together


class Nearest:
    """Exact search in embeddings: ``Nearest(embeddings, lat, lon).query(vectors, k)``.

    `embeddings` float (N, dim) is not copied; rows that are not finite (places outside the map) are never found.
    `metric` is ``cosine`` (the similarity is the cosine) or ``euclidean`` (it is minus the distance).
    """

    def __init__(self, embeddings: ArrayLike, lat: ArrayLike, lon: ArrayLike, metric: str = "cosine") -> None:
        if metric not in METRICS:
            raise unknown("metric", metric, METRICS)
        self.embeddings = np.asarray(embeddings, np.float32)
        self.lat, self.lon = np.asarray(lat, np.float64), np.asarray(lon, np.float64)
        self.metric = metric
        if self.embeddings.ndim != 2 or not len(self.embeddings) == len(self.lat) == len(self.lon):
            raise InputError(
                f"embeddings of shape {self.embeddings.shape} do not go with {len(self.lat)} latitudes and "
                f"{len(self.lon)} longitudes"
            )
        self._squares = np.einsum("nd,nd->n", self.embeddings, self.embeddings)  # NaN where a row has one
        self.found = np.isfinite(self._squares)
        if not self.found.any():
            raise InputError("no place has an embedding")

    def query(self, vectors: ArrayLike, k: int = 5) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(Q, dim) or (dim,) → rows int64 (Q, k) and similarities float32 (Q, k), the nearest first.

        Equally near rows come in their order. There are fewer than k columns where fewer rows have an embedding.
        """
        queries = np.atleast_2d(np.asarray(vectors, np.float32))
        if queries.shape[1] != self.embeddings.shape[1]:
            raise InputError(f"a vector of {queries.shape[1]} numbers; the embeddings have {self.embeddings.shape[1]}")
        if not np.isfinite(queries).all():
            raise InputError("a vector that is not finite has no neighbours (a place outside the map?)")
        if k < 1:
            raise InputError(f"k = {k}: at least one neighbour must be asked for")
        k = min(k, int(self.found.sum()))
        rows = np.zeros((len(queries), 0), np.int64)
        best = np.zeros((len(queries), 0), np.float32)
        step = max(k, _CHUNK_BYTES // (4 * max(len(queries), 1)))
        for start in range(0, len(self.embeddings), step):
            similarity = self._similarity(queries, slice(start, start + step))
            numbers = np.broadcast_to(np.arange(start, start + similarity.shape[1]), similarity.shape)
            rows, best = _largest(np.hstack([rows, numbers]), np.hstack([best, similarity]), k)
        return rows, best

    def _similarity(self, queries: NDArray[np.float32], part: slice) -> NDArray[np.float32]:
        """(Q, n) float32 for some rows; −∞ where a row has no embedding."""
        squares = self._squares[part]
        products = queries @ self.embeddings[part].T
        lengths = np.einsum("qd,qd->q", queries, queries)[:, None]
        if self.metric == "cosine":
            similarity = products / np.maximum(np.sqrt(lengths * squares), np.finfo(np.float32).tiny)
        else:
            similarity = -np.sqrt(np.maximum(lengths + squares - 2 * products, 0))
        return np.where(self.found[part], similarity, -np.inf).astype(np.float32)


def _largest(
    rows: NDArray[np.int64], values: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k largest values of each line and their rows, the largest first; ties in the order of their rows."""
    if values.shape[1] < k:
        return rows, values
    edges = np.partition(values, -k, axis=1)[:, -k]
    kept_rows, kept = np.empty((len(values), k), np.int64), np.empty((len(values), k), np.float32)
    for i, edge in enumerate(edges):
        near = np.flatnonzero(values[i] >= edge)  # more than k where the last ones are tied
        near = near[np.lexsort((rows[i, near], -values[i, near]))][:k]
        kept_rows[i], kept[i] = rows[i, near], values[i, near]
    return kept_rows, kept

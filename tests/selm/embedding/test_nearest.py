"""Nearest places against a slow loop, with ties, gaps and bad questions."""

from __future__ import annotations

import numpy as np
import pytest

from selm.embedding import search
from selm.embedding.search import Nearest
from selm.errors import InputError


def slow(embeddings: np.ndarray, vector: np.ndarray, k: int, metric: str) -> list[int]:
    """Rows by falling similarity, then by number."""
    scored = []
    for row, e in enumerate(embeddings.astype(float)):
        if not np.isfinite(e).all():
            continue
        if metric == "cosine":
            near = float(e @ vector) / (np.linalg.norm(e) * np.linalg.norm(vector))
        else:
            near = -float(np.linalg.norm(e - vector))
        scored.append((-round(near, 5), row))
    return [row for _, row in sorted(scored)[:k]]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("chunk", [2**26, 100])
def test_as_a_slow_loop_finds_them(metric: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "CHUNK_BYTES", chunk)  # 100 bytes: pieces of a few rows
    rng = np.random.default_rng(0)
    embeddings = rng.integers(-2, 3, (60, 3)).astype(np.float32) + 0.5  # few values: many ties
    embeddings[[3, 17]] = np.nan
    queries = rng.normal(size=(4, 3)).astype(np.float32)
    rows, similarity = Nearest(embeddings, np.zeros(60), np.zeros(60), metric).query(queries, 7)
    assert rows.shape == similarity.shape == (4, 7) and similarity.dtype == np.float32
    assert (np.diff(similarity, axis=1) <= 0).all()
    found = [slow(embeddings, query, 7, metric) for query in queries]
    values = lambda at: embeddings[at]  # noqa: E731  # equal embeddings may swap: products round differently
    for got, want in zip(rows, found, strict=True):
        np.testing.assert_array_equal(values(got), values(want))


def test_ties_come_in_the_order_of_rows_and_gaps_never_come() -> None:
    embeddings = np.tile(np.array([[1.0, 2.0]], np.float32), (6, 1))
    embeddings[2] = np.nan
    rows, similarity = Nearest(embeddings, np.zeros(6), np.zeros(6)).query([1.0, 2.0], 3)
    assert rows.tolist() == [[0, 1, 3]] and similarity == pytest.approx(np.ones((1, 3)))
    everything, _ = Nearest(embeddings, np.zeros(6), np.zeros(6)).query([1.0, 2.0], 99)
    assert everything.tolist() == [[0, 1, 3, 4, 5]]


def test_a_row_of_zeros_is_like_nothing() -> None:
    embeddings = np.array([[0, 0], [-1, 0], [1, 0]], np.float32)
    rows, similarity = Nearest(embeddings, np.zeros(3), np.zeros(3)).query([1, 0], 3)
    assert rows.tolist() == [[2, 0, 1]] and similarity.tolist() == [[1, 0, -1]]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda e, z: Nearest(e, z, z, "cosin"), "unknown metric 'cosin'; did you mean 'cosine'"),
        (lambda e, z: Nearest(e, z[:2], z), "2 latitudes and 3 longitudes"),
        (lambda e, z: Nearest(e * np.nan, z, z), "no place has an embedding"),
        (lambda e, z: Nearest(e, z, z).query([1.0]), "a vector of 1 numbers; the embeddings have 2"),
        (lambda e, z: Nearest(e, z, z).query([1.0, np.nan]), "not finite"),
        (lambda e, z: Nearest(e, z, z).query([1.0, 1.0], 0), "k = 0"),
    ],
)
def test_bad_questions(ask, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ask(np.ones((3, 2), np.float32), np.zeros(3))

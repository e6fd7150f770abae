"""Embeddings → coordinates: the places whose embeddings are nearest to a vector, exactly or through an index.

Exact search (`Nearest`) reads every embedding for every question. An `Index` reads them once: vectors are scaled to
length 1, projected on the principal directions of their inner products, and sorted by faiss into lists around k-means
centres, as float16; a question looks into the lists nearest to it. The file is mapped into memory, so that opening it
costs next to nothing and searching touches little of it; ten million places in 128 dimensions take 2.6 GB on disk.

faiss is an extra: ``pip install selm[search]``.

A few strong directions that all places share can hide what tells them apart; `whitening` makes all directions of a
gallery count alike before it is searched.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from selm import files
from selm.embedding.tables import embedded_places, embedding_pieces, one_embedding, read_embeddings
from selm.errors import InputError, first_line, unknown
from selm.maps.mercator import check_coordinates, haversine_m

if TYPE_CHECKING:
    from selm.embedding.map_embedder import MapEmbedder

METRICS = ("cosine", "euclidean")
CHUNK_BYTES = 2**26  # of similarities that are computed together
FORMAT = 2
_POINTS_A_LIST = 40  # to train k-means on: faiss warns below 39
_LOOKED_INTO = 64  # lists a question looks into
RIDGE = 1e-3  # of a whitening, of the mean variance: the best of 0.1, 0.01 … 1e-6 for maps of Fukuoka


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
        queries = _queries(vectors, k, self.embeddings.shape[1])
        k = min(k, int(self.found.sum()))
        rows = np.zeros((len(queries), 0), np.int64)
        best = np.zeros((len(queries), 0), np.float32)
        step = max(k, CHUNK_BYTES // (4 * max(len(queries), 1)))
        for start in range(0, len(self.embeddings), step):
            similarity = self._similarity(queries, slice(start, start + step))
            numbers = np.broadcast_to(np.arange(start, start + similarity.shape[1]), similarity.shape)
            rows, best = largest(np.hstack([rows, numbers]), np.hstack([best, similarity]), k)
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


def _queries(vectors: ArrayLike, k: int, dim: int) -> NDArray[np.float32]:
    """Vectors (dim,) or (Q, dim) as float32 (Q, dim), checked."""
    queries = np.atleast_2d(np.asarray(vectors, np.float32))
    if queries.shape[1] != dim:
        raise InputError(f"a vector of {queries.shape[1]} numbers; the embeddings have {dim}")
    if not np.isfinite(queries).all():
        raise InputError("a vector that is not finite has no neighbours (a place outside the map?)")
    if k < 1:
        raise InputError(f"k = {k}: at least one neighbour must be asked for")
    return queries


def largest(
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


@dataclass(frozen=True)
class Whitening:
    """A linear map learnt from a gallery: ``whitening(gallery)(vectors)``; `mean` (dim,) and `matrix` (dim, dim)."""

    mean: NDArray[np.float64]
    matrix: NDArray[np.float64]

    def __call__(self, vectors: ArrayLike) -> NDArray[np.float32]:
        """(N, dim) → (N, dim) float32 of length 1, between which cosines and Euclidean distances have one order.

        A vector that is the gallery's mean, to the precision of float32, becomes zeros; one that is not finite, NaN.
        """
        x = np.asarray(vectors, np.float64)
        if x.ndim != 2 or x.shape[1] != len(self.mean):
            raise InputError(f"vectors of shape {x.shape}; the whitening is of {len(self.mean)} numbers a vector")
        off = x - self.mean
        flat = np.linalg.norm(off, axis=1) <= 4 * np.finfo(np.float32).eps * np.linalg.norm(x, axis=1)
        out = off @ self.matrix
        out /= np.maximum(np.linalg.norm(out, axis=1), np.finfo(np.float32).tiny)[:, None]
        out[flat] = 0
        return out.astype(np.float32)


def whitening(gallery: ArrayLike, ridge: float = RIDGE) -> Whitening:
    """The map that takes the gallery's mean away and makes its variance the same in every direction.

    gallery: (N, dim); rows that are not finite (places outside the map) are left out.  ridge: of the mean variance,
    added to all, so that directions with far less of it are not blown up. Questions are whitened by the same map, of
    which they are no part. Raises InputError for fewer than two places or a ridge that is not above 0.
    """
    x = np.asarray(gallery, np.float64)
    if x.ndim != 2:
        raise InputError(f"a gallery is (places, numbers), not of shape {x.shape}")
    x = x[np.isfinite(x).all(axis=1)]
    if len(x) < 2 or not ridge > 0:
        raise InputError(f"whitening needs two places and a ridge above 0, not {len(x)} and {ridge:g}")
    mean = x.mean(axis=0)
    variance, directions = np.linalg.eigh(np.atleast_2d((x - mean).T @ (x - mean)) / len(x))
    variance = np.maximum(variance, 0)
    scale = np.sqrt(np.maximum(variance + ridge * variance.mean(), np.finfo(np.float64).tiny))
    return Whitening(mean, directions / scale)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise InputError("an index needs faiss: pip install selm[search]") from None
    return faiss


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]
    return vectors / np.maximum(lengths, np.finfo(np.float32).tiny)


def _sample(path: Path, rows: int, wanted: int, seed: int) -> NDArray[np.float32]:
    """About `wanted` random finite embeddings of a file, of length 1."""
    rng = np.random.default_rng(seed)
    parts = []
    for _, _, embeddings in embedding_pieces(path):
        chosen = rng.random(len(embeddings)) < wanted / max(rows, 1)
        part = embeddings[chosen]
        if part.shape[1]:
            parts.append(_unit(part[np.isfinite(part).all(axis=1)]))
    return np.concatenate([np.zeros((0, parts[0].shape[1] if parts else 0), np.float32), *parts])


def build_index(
    embeddings: str | Path, out: str | Path, *, dims: int = 128, seed: int = 0, progress: bool = True
) -> Index:
    """Index the table of embeddings that `selm embed` wrote into the new folder `out`.

    `dims` is what embeddings are projected to (at most their own length). The file is read twice, in pieces; memory is
    that of the finished index. Rows without an embedding (outside the map) are never found. The folder appears when it
    is complete. Raises InputError for a file that holds no embeddings, or an `out` that exists.
    """
    faiss = _faiss()
    path, out = Path(embeddings), Path(out)
    if out.exists():
        raise InputError(f"{out}: exists; choose another folder for the index")
    rows, dim = 0, 0
    for _, _, piece in embedding_pieces(path):
        rows, dim = rows + len(piece), max(dim, piece.shape[1])  # a piece without any embedding has length 0
    dims = min(dims, dim)
    lists = 2 ** max(0, round(math.log2(math.sqrt(max(rows, 1))))) if rows >= 10_000 else 1
    learnt = _sample(path, rows, max(_POINTS_A_LIST * lists, 50_000), seed)
    if not len(learnt):
        raise InputError(f"{path}: no place has an embedding")
    # inner products are kept best by the directions of the second moments, not of the covariance
    moments, directions = np.linalg.eigh(learnt.T.astype(np.float64) @ learnt / len(learnt))
    projection = np.ascontiguousarray(directions[:, ::-1][:, :dims], dtype=np.float32)
    kept = float(moments[::-1][:dims].sum() / moments.sum())
    lists = min(lists, max(1, len(learnt) // _POINTS_A_LIST))
    kind = f"IVF{lists}_HNSW32,SQfp16" if lists >= 4096 else f"IVF{lists},SQfp16"
    index = faiss.index_factory(dims, kind, faiss.METRIC_INNER_PRODUCT)
    faiss.extract_index_ivf(index).cp.seed = seed
    index.train(_unit(learnt @ projection))
    places = np.full((rows, 2), np.nan)  # of rows that are not indexed
    with files.written_folder(out) as temporary:
        with tqdm(total=rows, desc="index", unit="place", disable=not progress) as bar:
            for start, table, piece in embedding_pieces(path):
                found = np.flatnonzero(np.isfinite(piece).all(axis=1) & (piece.shape[1] > 0))
                places[start + found] = table[["lat", "lon"]].to_numpy()[found]
                if len(found):
                    index.add_with_ids(_unit(_unit(piece[found]) @ projection), start + found)
                bar.update(len(piece))
        faiss.write_index(index, str(temporary / "vectors.faiss"))
        np.save(temporary / "places.npy", places)
        np.save(temporary / "projection.npy", projection)
        files.write_json(temporary / "index.json", {
            "format": FORMAT, "rows": rows, "places": int(index.ntotal), "dim": dim, "dims": dims, "lists": lists,
            "kept": round(kept, 6), "seed": seed, "embeddings": os.path.relpath(path.resolve(), out.parent.resolve()),
        })  # fmt: skip
    return Index(out)


class Index:
    """An index on disk: ``Index(folder).query(vectors, k)``, as `Nearest` but approximate.

    `about` is what ``index.json`` says: `rows` of the table, `places` with an embedding, their length `dim`, the length
    `dims` they were projected to and the share `kept` of their inner products' total, the number of `lists`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.about: dict[str, Any] = files.read_json(self.folder / "index.json")
        if not isinstance(self.about, dict):
            raise InputError(f"{folder}: index.json does not describe an index")
        if self.about.get("format") != FORMAT:
            raise InputError(f"{folder}: index format {self.about.get('format')}, this version reads {FORMAT}")
        if not isinstance(self.about.get("embeddings"), str) or not isinstance(self.about.get("lists"), int):
            raise InputError(f"{folder}: index.json lacks what it should say of embeddings or lists")
        faiss = _faiss()
        try:
            self._index = faiss.read_index(str(self.folder / "vectors.faiss"), faiss.IO_FLAG_MMAP)
            self.places = np.load(self.folder / "places.npy", mmap_mode="r")
            self._projection = np.load(self.folder / "projection.npy")
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(f"{folder}: not a readable index ({first_line(error)})") from None

    def query(
        self, vectors: ArrayLike, k: int = 5, *, lists: int = _LOOKED_INTO
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(Q, dim) or (dim,) → rows int64 (Q, k) and similarities float32 (Q, k), the nearest first.

        The similarity is the cosine of the projected vectors. `lists` is how many a question looks into: more find more
        of the true neighbours and take longer. Where fewer than k are found, the rest are −1 with similarity −∞.
        """
        faiss = _faiss()
        queries = _queries(vectors, k, len(self._projection))
        wanted = faiss.SearchParametersIVF(nprobe=min(lists, int(self.about["lists"])))
        similarity, rows = self._index.search(_unit(_unit(queries) @ self._projection), k, params=wanted)
        return rows.astype(np.int64), np.where(rows < 0, -np.inf, similarity).astype(np.float32)

    def embeddings_file(self) -> Path:
        """The table that was indexed, if it is still beside the index; InputError where it is not."""
        path = (self.folder.parent / self.about["embeddings"]).resolve()
        if not path.exists():
            raise InputError(f"{self.folder}: the embeddings it was made from are gone ({self.about['embeddings']})")
        return path


def is_index(path: str | Path) -> bool:
    """Whether a path is the folder of an index."""
    return (Path(path) / "index.json").is_file()


def find_nearest(
    path: str | Path,
    k: int = 5,
    *,
    row: int | None = None,
    like: tuple[float, float] | None = None,
    embedder: MapEmbedder | None = None,
) -> pd.DataFrame:
    """The k places of a table of embeddings, or of an index of one, that are most like one place.

    Columns: `row` (from 1), `lat`, `lon`, `similarity` (cosine) and `metres`, the distance on the ground from the place
    asked for. That place is a row (left out of the answer), or the coordinate `like` (lat, lon): embedded with
    `embedder` where there is one, else the row that is nearest to it on the ground, which is left in. Raises InputError
    for a row that there is not or that has no embedding, and for a place outside the map.
    """
    if (row is None) == (like is None):
        raise InputError("name one place: a row, or a latitude and longitude")
    if like is not None:
        check_coordinates(*like)
    search: Nearest | Index
    if is_index(path):
        search = Index(path)
        lat, lon = search.places[:, 0], search.places[:, 1]
        served = np.isfinite(lat)
    else:
        table, embeddings = read_embeddings(path)
        lat, lon = embedded_places(table)
        search = Nearest(embeddings, lat, lon)
        served = search.found
    if like is not None and embedder is not None:
        if embedder.outside(*like)[0]:
            raise InputError(f"lat {like[0]:g}, lon {like[1]:g} lies outside {embedder.map_name}")
        vector = embedder(*like)[0]
    else:
        if like is not None:
            at = int(np.where(served, haversine_m(like[0], like[1], lat, lon), np.inf).argmin())
        else:
            assert row is not None
            at = row - 1
        if not 0 <= at < len(lat):
            raise InputError(f"{path}: no row {at + 1} (there are rows 1 to {len(lat)})")
        vector = one_embedding(search.embeddings_file(), at) if isinstance(search, Index) else search.embeddings[at]
        if not np.isfinite(vector).all():
            raise InputError(f"{path}: row {at + 1} has no embedding: it lies outside the map")
    place = like or (float(lat[at]), float(lon[at]))
    rows, similarity = (found[0] for found in search.query(vector, k + (row is not None)))
    kept = (rows >= 0) & (rows != (0 if row is None else row) - 1)
    rows, similarity = rows[kept][:k], similarity[kept][:k]
    metres = haversine_m(place[0], place[1], lat[rows], lon[rows])
    return pd.DataFrame(
        {"row": rows + 1, "lat": lat[rows], "lon": lon[rows], "similarity": similarity, "metres": metres.round(1)}
    )

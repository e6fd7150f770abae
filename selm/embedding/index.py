"""An index over millions of embeddings: approximate neighbours from disk, in milliseconds and with little memory.

Exact search (`selm.embedding.nearest`) reads every embedding for every question. An index reads them once: vectors are
scaled to length 1, projected on the principal directions of their inner products, and sorted by faiss into cells
around k-means centres, as float16; a question looks into the cells nearest to it. The file is mapped into memory, so
that opening it costs next to nothing and searching touches little of it; ten million places in 128 dimensions take 2.6
GB on disk.

faiss is an extra: ``pip install selm[search]``.
"""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from selm import checkpoints, files
from selm.embedding.tables import embedding_pieces, one_embedding
from selm.errors import InputError
from selm.maps.mercator import check_coordinates, haversine_m

FORMAT = 1
_POINTS_A_CELL = 40  # to train k-means on: faiss warns below 39
_LOOKED_INTO = 64  # cells a question looks into


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
        parts.append(_unit(part[np.isfinite(part).all(axis=1)]))
    return np.concatenate(parts)


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
        rows, dim = rows + len(piece), piece.shape[1]
    dims = min(dims, dim)
    cells = 2 ** max(0, round(math.log2(math.sqrt(max(rows, 1))))) if rows >= 10_000 else 1
    learnt = _sample(path, rows, max(_POINTS_A_CELL * cells, 50_000), seed)
    if not len(learnt):
        raise InputError(f"{path}: no place has an embedding")
    # inner products are kept best by the directions of the second moments, not of the covariance
    moments, directions = np.linalg.eigh(learnt.T.astype(np.float64) @ learnt / len(learnt))
    projection = np.ascontiguousarray(directions[:, ::-1][:, :dims], dtype=np.float32)
    kept = float(moments[::-1][:dims].sum() / moments.sum())
    cells = min(cells, max(1, len(learnt) // _POINTS_A_CELL))
    kind = f"IVF{cells}_HNSW32,SQfp16" if cells >= 4096 else f"IVF{cells},SQfp16"
    index = faiss.index_factory(dims, kind, faiss.METRIC_INNER_PRODUCT)
    faiss.extract_index_ivf(index).cp.seed = seed
    index.train(_unit(learnt @ projection))
    places = np.empty((rows, 2))
    temporary = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        temporary.mkdir(parents=True)
        with tqdm(total=rows, desc="index", unit="place", disable=not progress) as bar:
            for start, table, piece in embedding_pieces(path):
                places[start : start + len(piece)] = table[["lat", "lon"]].to_numpy()
                found = np.flatnonzero(np.isfinite(piece).all(axis=1))
                if len(found):
                    index.add_with_ids(_unit(_unit(piece[found]) @ projection), start + found)
                bar.update(len(piece))
        faiss.write_index(index, str(temporary / "vectors.faiss"))
        np.save(temporary / "places.npy", places)
        checkpoints.save_tensors(temporary / "projection.safetensors", {"projection": torch.from_numpy(projection)})
        files.write_json(temporary / "index.json", {
            "format": FORMAT, "rows": rows, "places": int(index.ntotal), "dim": dim, "dims": dims, "cells": cells,
            "kept": round(kept, 6), "seed": seed, "embeddings": os.path.relpath(path.resolve(), out.parent.resolve()),
        })  # fmt: skip
        os.replace(temporary, out)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Index(out)


class Index:
    """An index on disk: ``Index(folder).query(vectors, k)``, as `selm.embedding.nearest.Nearest` but approximate.

    `about` is what ``index.json`` says: `rows` of the table, `places` with an embedding, their length `dim`, the length
    `dims` they were projected to and the share `kept` of their inner products' total, the number of `cells`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.about: dict[str, Any] = files.read_json(self.folder / "index.json")
        if self.about.get("format") != FORMAT:
            raise InputError(f"{folder}: index format {self.about.get('format')}, this version reads {FORMAT}")
        faiss = _faiss()
        try:
            self._index = faiss.read_index(str(self.folder / "vectors.faiss"), faiss.IO_FLAG_MMAP)
            self.places = np.load(self.folder / "places.npy", mmap_mode="r")
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(f"{folder}: not a readable index ({str(error).splitlines()[0]})") from None
        tensors, _ = checkpoints.load_tensors(self.folder / "projection.safetensors")
        self._projection = tensors["projection"].numpy()

    def query(
        self, vectors: ArrayLike, k: int = 5, *, cells: int = _LOOKED_INTO
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(Q, dim) or (dim,) → rows int64 (Q, k) and similarities float32 (Q, k), the nearest first.

        The similarity is the cosine of the projected vectors. `cells` is how many a question looks into: more find more
        of the true neighbours and take longer. Where fewer than k are found, the rest are −1 with similarity −∞.
        """
        faiss = _faiss()
        queries = np.atleast_2d(np.asarray(vectors, np.float32))
        if queries.shape[1] != len(self._projection):
            raise InputError(f"a vector of {queries.shape[1]} numbers; the index is of {len(self._projection)}")
        if not np.isfinite(queries).all():
            raise InputError("a vector that is not finite has no neighbours (a place outside the map?)")
        if k < 1:
            raise InputError(f"k = {k}: at least one neighbour must be asked for")
        wanted = faiss.SearchParametersIVF(nprobe=min(cells, int(self.about["cells"])))
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


def nearest_in_index(
    folder: str | Path,
    k: int = 5,
    *,
    row: int | None = None,
    like: tuple[float, float] | None = None,
    embedder: Any = None,
) -> pd.DataFrame:
    """As `selm.embedding.tables.nearest_in_file`, through an index: approximate, whatever the number of places."""
    if (row is None) == (like is None):
        raise InputError("name one place: a row, or a latitude and longitude")
    index = Index(folder)
    lat, lon = index.places[:, 0], index.places[:, 1]
    if like is not None:
        check_coordinates(*like)
    if like is not None and embedder is not None:
        if embedder.outside(*like)[0]:
            raise InputError(f"lat {like[0]:g}, lon {like[1]:g} lies outside {embedder.map_name}")
        vector, place = embedder(*like)[0], like
    else:
        if row is None:
            assert like is not None
            row, leave_out = int(haversine_m(like[0], like[1], lat, lon).argmin()) + 1, False
        else:
            leave_out = True
            if not 1 <= row <= len(lat):
                raise InputError(f"{folder}: no row {row} (there are rows 1 to {len(lat)})")
        vector = one_embedding(index.embeddings_file(), row - 1)
        if not np.isfinite(vector).all():
            raise InputError(f"{folder}: row {row} has no embedding: it lies outside the map")
        place = like or (float(lat[row - 1]), float(lon[row - 1]))
        row = row if leave_out else None
    rows, similarity = (found[0] for found in index.query(vector, k + (row is not None)))
    kept = (rows >= 0) & (rows != (row or 0) - 1)
    rows, similarity = rows[kept][:k], similarity[kept][:k]
    metres = haversine_m(place[0], place[1], lat[rows], lon[rows])
    return pd.DataFrame(
        {"row": rows + 1, "lat": lat[rows], "lon": lon[rows], "similarity": similarity, "metres": metres.round(1)}
    )

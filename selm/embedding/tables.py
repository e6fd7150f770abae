"""Tables of embeddings on disk: a user's table of coordinates with the columns ``e0`` … ``e{dim-1}`` added.

They are written and read in pieces, so that a million places need no more memory than a thousand. Rows are named as
the user's file counts them, from 1.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from selm.embedding.coordinates import read_coordinates
from selm.errors import InputError, OutsideMapWarning
from selm.files import check_target, scratch, written

if TYPE_CHECKING:
    from selm.embedding.embedder import Embedder

ENDINGS = (".parquet", ".csv")
PIECE_BYTES = 2**26  # of embeddings written or read together


def embed_file(coordinates: str | Path, embedder: Embedder, out: str | Path, *, progress: bool = True) -> int:
    """Embed a table of coordinates (CSV or parquet) into `out` (.parquet or .csv); returns the number of rows served.

    `out` has the input's columns with `lat` and `lon` first, then ``e0`` … float32. Rows outside the map have no
    embedding and an OutsideMapWarning names them. Raises InputError for bad coordinates, where no row at all lies on
    the map, and where the file cannot be written; then nothing is.
    """
    out = check_target(out, ENDINGS)
    table = read_coordinates(coordinates)
    taken = [name for name in table.columns if re.fullmatch(r"e\d+", str(name))]
    if taken:
        raise InputError(f"{coordinates}: column {taken[0]} is named as an embedding's would be; rename it")
    lat, lon = table["lat"].to_numpy(), table["lon"].to_numpy()
    missing = embedder.outside(lat, lon)
    if missing.any():
        message = f"{coordinates}: {embedder.describe_outside(lat, lon, missing, first_row=1)}"
        if missing.all():
            raise InputError(message)
        warnings.warn(message, OutsideMapWarning, stacklevel=2)
    with scratch(out, "rows") as store:  # rows come in the order of the map: on disk until all are there
        embeddings = _on_disk(store, (len(table), embedder.dim))
        for rows, part in embedder.stream(lat, lon, progress=progress):
            embeddings[rows] = part
        with written(out) as temporary:
            _write(temporary, out.suffix.lower(), table, embeddings, missing, _origin(embedder))
    return int((~missing).sum())


def _on_disk(path: Path, shape: tuple[int, int]) -> NDArray[np.float32]:
    with path.open("wb") as file:
        size = shape[0] * shape[1] * 4
        if hasattr(os, "posix_fallocate"):  # a disk that is full says so here, not by a signal later
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    return np.memmap(path, np.float32, "r+", shape=shape)


def _origin(embedder: Embedder) -> dict[str, str]:
    """What the file says about itself: the encoder, the map, and the version that made it."""
    model = embedder.model
    return {
        "selm": version("selm"),
        "model": str(model) if isinstance(model, (str, Path)) else type(model).__name__,
        "encoder": json.dumps(dataclasses.asdict(embedder.encoder.config), sort_keys=True),
        "map": embedder.map_name,
        "map_fingerprint": embedder.map_fingerprint,
        "attribution": embedder.map_attribution,
    }


def _write(
    path: Path, ending: str, table: pd.DataFrame, embeddings: NDArray[np.float32], missing: NDArray[np.bool_],
    origin: dict[str, str],
) -> None:  # fmt: skip
    names = [f"e{i}" for i in range(embeddings.shape[1])]
    step = max(1, PIECE_BYTES // (4 * len(names)))
    pieces = [slice(start, start + step) for start in range(0, len(table), step)]
    if ending == ".csv":
        with path.open("w", encoding="utf-8", newline="") as text:
            for piece in pieces:
                values = np.where(missing[piece, None], np.float32(np.nan), embeddings[piece])
                part = pd.DataFrame(values, columns=names, index=table.index[piece])
                pd.concat([table[piece], part], axis=1).to_csv(
                    text, index=False, header=piece.start == 0, lineterminator="\n"
                )
        return
    given = pa.Table.from_pandas(table, preserve_index=False)
    fields = [*given.schema, *(pa.field(name, pa.float32()) for name in names)]
    schema = pa.schema(fields, metadata={"selm": json.dumps(origin)})
    with path.open("wb") as file, pq.ParquetWriter(file, schema) as writer:
        for piece in pieces:
            columns = given.slice(piece.start, step).columns
            values = np.ascontiguousarray(embeddings[piece].T)
            columns = [*columns, *(pa.array(value, mask=missing[piece]) for value in values)]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def read_embeddings(path: str | Path) -> tuple[pd.DataFrame, NDArray[np.float32]]:
    """What `embed_file` wrote: the other columns (`lat`, `lon`, …) and embeddings float32 (N, dim), NaN where missing.

    Raises InputError if the file cannot be read or holds no embeddings.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        if path.suffix.lower() == ".csv":
            table = pd.read_csv(path)
            names = _embedding_columns(path, list(table.columns))
            return table.drop(columns=names), table[names].to_numpy(np.float32)
        with pq.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            names = _embedding_columns(path, columns)
            out = np.empty((file.metadata.num_rows, len(names)), np.float32)
            start = 0
            for batch in file.iter_batches(max(1, PIECE_BYTES // (4 * len(names))), columns=names):
                for i, column in enumerate(batch.columns):
                    out[start : start + len(batch), i] = column.to_numpy(zero_copy_only=False)
                start += len(batch)
            rest = file.read(columns=[name for name in columns if name not in set(names)]).to_pandas()
            return rest, out
    except (OSError, ValueError, pa.ArrowException) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a readable table of embeddings ({str(error).splitlines()[0]})") from None


def embedding_pieces(path: str | Path) -> Iterator[tuple[int, pd.DataFrame, NDArray[np.float32]]]:
    """What `embed_file` wrote, in pieces: (first row from 0, its `lat` and `lon`, embeddings float32 (n, dim)).

    Raises InputError as `read_embeddings` does.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    start = 0
    try:
        if path.suffix.lower() == ".csv":
            for table in pd.read_csv(path, chunksize=50_000):
                names = _embedding_columns(path, list(table.columns))
                yield start, table[["lat", "lon"]], table[names].to_numpy(np.float32)
                start += len(table)
            return
        with pq.ParquetFile(path) as file:
            names = _embedding_columns(path, file.schema_arrow.names)
            for batch in file.iter_batches(max(1, PIECE_BYTES // (4 * len(names))), columns=["lat", "lon", *names]):
                columns = [batch.column(name).to_numpy(zero_copy_only=False) for name in names]
                yield start, batch.select(["lat", "lon"]).to_pandas(), np.stack(columns, axis=1).astype(np.float32)
                start += len(batch)
    except (OSError, ValueError, pa.ArrowException) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a readable table of embeddings ({str(error).splitlines()[0]})") from None


def one_embedding(path: str | Path, row: int) -> NDArray[np.float32]:
    """The embedding (dim,) in one row, counted from 0, of what `embed_file` wrote; reads no more than its piece."""
    path = Path(path)
    if path.suffix.lower() == ".parquet" and path.is_file():
        with pq.ParquetFile(path) as file:
            names = _embedding_columns(path, file.schema_arrow.names)
            start = 0
            for number in range(file.num_row_groups):
                length = file.metadata.row_group(number).num_rows
                if row < start + length:
                    group = file.read_row_group(number, columns=names).slice(row - start, 1)
                    return np.array([group.column(name)[0].as_py() for name in names], np.float64).astype(np.float32)
                start += length
    for start, _, embeddings in embedding_pieces(path):
        if row < start + len(embeddings):
            return embeddings[row - start]
    raise InputError(f"{path}: no row {row + 1}")


def _embedding_columns(path: Path, columns: list[str]) -> list[str]:
    names: list[str] = []
    while f"e{len(names)}" in columns:
        names.append(f"e{len(names)}")
    if not names or not {"lat", "lon"} <= set(columns):
        raise InputError(f"{path}: not a table of embeddings (columns lat, lon, e0, e1, …); selm embed makes one")
    return names

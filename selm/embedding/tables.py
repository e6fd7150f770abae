"""Tables of embeddings: a user's table of coordinates with the embeddings added behind its own columns.

They stand as columns ``e0``, ``e1``, … (wide) or as one column ``embedding`` of vectors (list); what stands beside the
features, or is left of them after a PCA, has names of its own (`PARTS`). Before them come `lat` and `lon`, where the
table has no such columns of its own. Nothing of the user's is changed: where our names are taken, ours get a prefix.
Tables are written and read in pieces, so that a million places need no more memory than a thousand. Rows are named as
the user's file counts them, from 1.
"""

from __future__ import annotations

import dataclasses
import glob
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from selm.embedding import reduction
from selm.embedding.coordinates import (
    AS_TEXT,
    SAMPLES,
    Places,
    is_geographic,
    needed,
    read_places,
    read_table,
    wrapped,
)
from selm.errors import InputError, InputWarning, OutsideMapWarning, first_line, unknown
from selm.files import cannot_write, check_target, written

if TYPE_CHECKING:
    from selm.embedding.map_embedder import MapEmbedder

ENDINGS = (".parquet", ".csv", ".csv.gz", ".geojson", ".fgb", ".gpkg")
TELLING = (".parquet", ".gpkg")  # those that say of themselves what they were made from, and whom to name
LAYOUTS = ("wide", "list")
PARTS = ("e", "colour", "x", "pc")  # names of columns, before their numbers
PIECE_BYTES = 2**26  # of embeddings written or read together
_PREFIX = "selm_"  # of our columns where their names are taken; as often as it needs
_DRIVERS = {".geojson": "GeoJSON", ".fgb": "FlatGeobuf", ".gpkg": "GPKG"}
LIST_ROWS = 4096  # of vectors in one column, read together


def embed_file(
    coordinates: str | Path,
    embedder: MapEmbedder,
    out: str | Path,
    *,
    columns: str = "wide",
    samples: int = SAMPLES,
    pair: tuple[str, str] | None = None,
    pca: int | str | Path | None = None,
    progress: bool = True,
) -> int:
    """Embed a table of coordinates (`read_places`, also on `pair`) into `out`; returns the number of rows served.

    `out` ends in one of `ENDINGS`; it has the input's columns and geometry, then float32 embeddings as `columns` says
    (wide or list; list in .parquet and .csv only). Polygons, lines and cells get the mean over about `samples` points,
    those of them that lie on the map. `pca` writes so many principal components in place of the embeddings, and what
    they were made with beside the output (OUT.pca.safetensors); the path of such a file makes the same ones again.
    A call that was killed goes on where it was when it is made again.
    Rows without coordinates or outside the map have no embedding, and a warning names them. Raises InputError for bad
    coordinates, where no row at all lies on the map, and where the file cannot be written; then nothing is.
    """
    out = check_target(out, ENDINGS)
    ending = next(ending for ending in reversed(ENDINGS) if out.name.lower().endswith(ending))
    if columns not in LAYOUTS:
        raise unknown("layout of columns", columns, LAYOUTS)
    if ending in _DRIVERS:
        if columns == "list":
            raise InputError(f"{out}: one column of vectors needs .parquet or .csv")
        needed("geopandas", f"{out}: {ending}", "selm[maps]")
    if ending == ".gpkg" and out.exists() and out.samefile(coordinates):
        raise InputError(f"{out}: the table itself; write another file, for a GeoPackage may hold more than is read")
    known = None if pca is None or isinstance(pca, int) else reduction.Reduction.load(Path(pca), embedder.identity)
    places = read_places(coordinates, samples, pair=pair)
    inside = on_map(places, embedder)
    n = len(places.table)
    if isinstance(pca, int):
        reduction.check(pca, len(np.unique(places.rows[inside])), embedder.dim)
    with kept_rows(out, n, embedder.dim, _key(places, inside, embedder)) as rows:  # they come in the map's order
        served = fill(rows, places, inside, embedder, progress=progress)
        embeddings, names, origin = rows.values, embedder.names, _origin(embedder)
        if pca is not None:
            beside = out.with_name(f"{out.name}.pca.safetensors") if known is None else Path(pca)  # type: ignore[arg-type]
            if known is None:
                known = reduction.fit(embeddings, np.flatnonzero(served), int(pca), embedder.identity)  # type: ignore[arg-type]
                known.save(beside)
            step = max(1, PIECE_BYTES // (4 * embedder.dim))
            embeddings = np.concatenate([known(embeddings[at : at + step]) for at in range(0, n, step)])
            names = known.names
            origin |= {"pca": beside.name, "pca_variance_kept": f"{known.kept:.4f}"}
        with written(out) as temporary:
            _write(temporary, ending, out, places, embeddings, names, ~served, columns, origin)
    return int(served.sum())


def add_embeddings(
    table: pd.DataFrame, embedder: MapEmbedder, columns: str, samples: int, progress: bool
) -> pd.DataFrame:
    """What `MapEmbedder.add_to` gives."""
    if columns not in LAYOUTS:
        raise unknown("layout of columns", columns, LAYOUTS)
    embeddings, places = embeddings_of(table, embedder, samples, progress)
    names = _our_names(places, [str(name) for name in table.columns], columns, embedder.names)
    if columns == "wide":
        added = pd.DataFrame(embeddings, columns=names, index=table.index)
        return pd.concat([table, added], axis=1)
    out = table.copy()
    rows = [None if np.isnan(row).any() else row for row in embeddings]
    out.insert(out.shape[1], names[0], pd.Series(rows, index=table.index, dtype=object))
    return out


def embeddings_of(
    table: str | Path | pd.DataFrame, embedder: MapEmbedder, samples: int = SAMPLES, progress: bool = False
) -> tuple[NDArray[np.float32], Places]:
    """The embeddings float32 (N, dim) of a table in memory, NaN where a row has none, and what was read."""
    places = read_places(table, samples)
    rows = Rows(len(places.table), embedder.dim)
    served = fill(rows, places, on_map(places, embedder), embedder, progress=progress)
    rows.values[~served] = np.nan
    return rows.values, places


def on_map(places: Places, embedder: MapEmbedder) -> NDArray[np.bool_]:
    """Which points, bool (P,), lie on the map, as far as can be told without asking a server; warns of rows without.

    Rows that would lie inside the map's box with latitude and longitude swapped, or taken for radians, are said to look
    so. Raises InputError where no row lies on the map.
    """
    n = len(places.table)
    inside = ~embedder.outside(places.lat, places.lon, ask=False)
    served, there = np.zeros(n, bool), np.zeros(n, bool)
    served[places.rows[inside]] = True
    there[places.rows] = True
    lat, lon = places.centres()
    left = there & ~served

    def in_box(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.bool_]:
        west, south, east, north = embedder.map_bounds
        with np.errstate(invalid="ignore"):
            return (lat >= south) & (lat <= north) & (lon >= west) & (lon <= east)

    said: list[tuple[str, type[UserWarning]]] = []

    def take(which: NDArray[np.bool_], message: str) -> None:
        rows = np.flatnonzero(which)
        if len(rows):
            count = f"{len(rows)} of {n} rows"
            said.append((f"{places.name}: {message.format(count=count, rows=places.naming(rows))}", InputWarning))
            left[rows] = False

    null = there & (np.abs(lat) < 1e-9) & (np.abs(lon) < 1e-9)
    take(null, "{count} are at 0, 0, which mostly means that nothing was known: {rows}")
    if left.any():
        outside = left & ~in_box(lat, lon)
        small = (np.abs(lat) <= np.pi / 2) & (np.abs(lon) <= np.pi)
        radians = outside & small & in_box(np.degrees(lat), np.degrees(lon))
        if 2 * radians.sum() > left.sum():  # a column is in radians as a whole
            take(radians, "{count} look like radians: {rows}; give degrees")
            outside &= ~radians
        take(outside & in_box(lon, lat), "{count} look swapped: {rows}; with lat and lon exchanged they lie on the map")
    if left.any():
        said.append((f"{places.name}: {embedder.describe_outside(lat, lon, left, places.first)}", OutsideMapWarning))
    if not served.any():
        raise InputError("; ".join([said[0][0], *(text.removeprefix(f"{places.name}: ") for text, _ in said[1:])]))
    for message, kind in said:
        warnings.warn(message, kind, stacklevel=4)
    return inside


class Rows:
    """``values`` float32 (n, dim) and which rows are ``done``, bool (n,): in memory, or both in the file `path`."""

    def __init__(self, n: int, dim: int, path: Path | None = None) -> None:
        self.done: NDArray[np.bool_] = np.zeros(n, np.bool_)
        self.values: NDArray[np.float32] = np.zeros((n, dim), np.float32) if path is None else np.zeros((0, 0), "f4")
        if path is None:
            return
        flags = -(-n // 4096) * 4096
        size = flags + n * dim * 4
        if not path.exists() or path.stat().st_size != size:
            with path.open("wb") as file:
                if hasattr(os, "posix_fallocate"):  # a disk that is full says so here, not by a signal later
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.truncate(size)
        self.done = np.memmap(path, np.bool_, "r+", shape=(n,))
        self.values = np.memmap(path, np.float32, "r+", offset=flags, shape=(n, dim))

    def keep(self, rows: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Keep some rows (k,), (k, dim). They are on disk before they count as done: after a power cut, too."""
        self.values[rows] = values
        if isinstance(self.values, np.memmap):
            self.values.flush()
        self.done[rows] = True


@contextmanager
def kept_rows(out: Path, n: int, dim: int, key: str) -> Iterator[Rows]:
    """Rows beside the file `out`, in a hidden file that goes when the block ends well.

    Where it ends otherwise, the file stays if any row is done, and the next call with the same `key`, which says what
    the rows are, finds them. Raises InputError where the disk is full or the folder cannot be written to.
    """
    path = out.with_name(f".{out.name}.{key[:16]}.rows")
    rows = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        rows = Rows(n, dim, path)
        yield rows
    except OSError as error:
        raise cannot_write(out, error) from error
    finally:
        if rows is None or not rows.done.any():
            with suppress(OSError):
                path.unlink(missing_ok=True)
    for done in out.parent.glob(f".{glob.escape(out.name)}.*.rows"):  # of calls with other options, too
        with suppress(OSError):
            done.unlink(missing_ok=True)


def fill(
    out: Rows, places: Places, inside: NDArray[np.bool_], embedder: MapEmbedder, *, progress: bool = False
) -> NDArray[np.bool_]:
    """Keep in `out` the mean of the embeddings of each row's points that are `inside` the map, of rows not done yet.

    Rows are embedded in groups of neighbours; a group is kept only when it is complete. Gives the rows that have an
    embedding, bool (N,); those for whose points a server turned out to have nothing become NaN and are warned of.
    Raises InputError where it has nothing for any.
    """
    from selm.embedding.inference import counted, in_map_order

    lat, lon, rows = places.lat[inside], places.lon[inside], places.rows[inside]  # rows ascend
    asked, first, count = np.unique(rows, return_index=True, return_counts=True)
    there = out.done[asked]
    with counted(len(rows), progress, int(count[there].sum())) as tick:
        wanted, first, count = asked[~there], first[~there], count[~there]
        order = in_map_order(lat[first], lon[first])
        helping = (np.cumsum(count[order]) - 1) // embedder.together
        for some in np.split(order, np.flatnonzero(np.diff(helping)) + 1):
            if not len(some):
                continue
            points = np.concatenate([np.arange(first[row], first[row] + count[row]) for row in some])
            row_of = np.repeat(np.arange(len(some)), count[some])
            sums, came = np.zeros((len(some), embedder.dim), np.float32), np.zeros(len(some))
            for at, part in embedder.stream(lat[points], lon[points], tick=tick):
                np.add.at(came, row_of[at], 1)
                np.add.at(sums, row_of[at], part / count[some][row_of[at], None].astype(np.float32))
            with np.errstate(invalid="ignore", divide="ignore"):
                sums *= (count[some] / came)[:, None].astype(np.float32)  # NaN where nothing came
            out.keep(wanted[some], sums)
    served = out.done & ~np.isnan(out.values[:, 0])
    if (lost := np.setdiff1d(asked, np.flatnonzero(served))).size:
        missing = np.isin(np.arange(len(served)), lost)
        message = f"{places.name}: {embedder.describe_outside(*places.centres(), missing, places.first)}"
        if not served.any():
            out.done[:] = False
            raise InputError(message)
        warnings.warn(message, OutsideMapWarning, stacklevel=4)
    return np.asarray(served)


def _key(places: Places, inside: NDArray[np.bool_], embedder: MapEmbedder) -> str:
    """SHA-256 of all that the rows of a file depend on."""
    state = hashlib.sha256(f"{embedder.identity} {embedder.map_fingerprint} {embedder.computes_on}".encode())
    for array in (places.lat, places.lon, places.rows, inside):
        state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()


def _our_names(places: Places, taken: list[str], layout: str, names: list[str]) -> list[str]:
    """The names of the columns of embeddings; with a prefix, and a warning, where the table has such names."""
    lower = [name.lower() for name in taken]
    parts = sorted({name.rstrip("0123456789") for name in names})
    pattern = rf"({'|'.join(parts)})\d+" if layout == "wide" else "embedding"
    names = names if layout == "wide" else ["embedding"]
    prefix = ""
    while found := [name for name in lower if re.fullmatch(prefix + pattern, name)]:
        collides = taken[lower.index(found[0])]
        prefix += _PREFIX
    if prefix:
        names = [prefix + name for name in names]
        _say(places, f"has a column {collides}; the embeddings are called {names[0]}" + (
            f" … {names[-1]}" if len(names) > 1 else ""
        ))  # fmt: skip
    return names


def _say(places: Places, message: str) -> None:
    warnings.warn(f"{places.name}: {message}", InputWarning, stacklevel=5)


def _origin(embedder: MapEmbedder) -> dict[str, str]:
    """What the file says about itself: the encoder, the map, and the version that made it."""
    model = embedder.model
    return {
        "selm": version("selm"),
        "model": str(model) if isinstance(model, (str, Path)) else type(model).__name__,
        "encoder": json.dumps(embedder.encoder.config.as_dict(), sort_keys=True),
        "parts": json.dumps(embedder.parts),
        "map": embedder.map_name,
        "map_fingerprint": embedder.map_fingerprint,
        "attribution": embedder.map_attribution,
    }


def _named_columns(places: Places, as_text: bool) -> list[tuple[str, pd.Series[Any]]]:
    """The user's columns, and behind them `lat` and `lon` unless there are such columns that hold the coordinates.

    Those become numbers where they are text, unless text is written that is read as the same numbers again.
    """
    table = places.table
    columns = [(str(name), table.iloc[:, i]) for i, name in enumerate(table.columns)]
    lower = [name.lower() for name, _ in columns]
    centres = places.centres()
    if lower.count("lat") == lower.count("lon") == 1:
        at = [lower.index("lat"), lower.index("lon")]
        theirs = [_plain(columns[i][1]) for i in at]
        if all(_same(*pair) for pair in zip(theirs, centres, strict=True)):
            for i, values in zip(at, theirs, strict=True):
                name, column = columns[i]
                if pd.api.types.is_numeric_dtype(column.dtype):
                    continue
                numbers = pd.to_numeric(column.astype(object).replace("", np.nan), errors="coerce")
                same = np.array_equal(numbers, values, equal_nan=True)
                if not same:
                    _say(places, f"column {name} is written with decimal points")
                if not (as_text and same and (column.isna() | (column == "") | np.isfinite(values)).all()):
                    columns[i] = (name, pd.Series(values, index=table.index))
            return columns
    prefix = ""
    while {f"{prefix}lat", f"{prefix}lon"} & set(lower):
        prefix += _PREFIX
    if prefix:
        _say(
            places, f"has columns lat or lon of its own; the degrees that were read are called {prefix}lat, {prefix}lon"
        )
    for name, values in zip(("lat", "lon"), centres, strict=True):
        columns.append((prefix + name, pd.Series(values, index=table.index)))
    return columns


def _plain(column: pd.Series[Any]) -> NDArray[np.float64]:
    """A column of numbers, or of text that is plain numbers; NaN for all else."""
    if not pd.api.types.is_numeric_dtype(column.dtype):
        column = column.astype(object).map(lambda value: value.replace(",", ".") if isinstance(value, str) else value)
    return np.asarray(pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan))


def _same(theirs: NDArray[np.float64], ours: NDArray[np.float64]) -> bool:
    """Whether columns hold the same degrees, modulo 360, wherever there are coordinates."""
    known = np.isfinite(ours)
    return bool((np.abs(wrapped(theirs[known] - ours[known])) < 1e-7).all())


def _distinct(places: Places, out: Path, names: list[str], reserved: tuple[str, ...] = ()) -> list[str]:
    """Names of which no two are equal; says which were changed. `reserved`: lower case, for files that ignore case."""
    seen, new = set(reserved), []
    fold = str.lower if reserved else str
    wanted = {fold(name) for name in names}
    for name in names:
        base = name or ("unnamed" if reserved else "")
        other, number = base, 2
        while fold(other) in seen or (other != name and fold(other) in wanted):
            other, number = f"{base}_{number}", number + 1
        seen.add(fold(other))
        new.append(other)
    changed = [f"{a or 'a column without name'} is {b}" for a, b in zip(names, new, strict=True) if a != b]
    if changed:
        _say(places, f"{out.name} cannot hold these names of columns: {', '.join(changed)} there")
    return new


def _write(
    path: Path, ending: str, out: Path, places: Places, embeddings: NDArray[np.float32], names: list[str],
    missing: NDArray[np.bool_], layout: str, origin: dict[str, str],
) -> None:  # fmt: skip
    as_text = ending in (".csv", ".csv.gz")
    columns = _named_columns(places, as_text)
    if places.table.attrs.get(AS_TEXT) and not as_text:
        columns = [(name, _typed(column)) for name, column in columns]
    ours = _our_names(places, [name for name, _ in columns], layout, names)
    if ending in _DRIVERS:
        _write_geographic(path, ending, out, places, columns, ours, embeddings, missing, origin)
        return
    step = max(1, PIECE_BYTES // (4 * embeddings.shape[1]))
    pieces = [slice(start, start + step) for start in range(0, len(missing), step)]
    if ending != ".parquet":
        columns = [(name, _as_text(places, column)) for name, column in columns]
        frame = pd.concat([column for _, column in columns], axis=1)
        frame.columns = pd.Index([name for name, _ in columns], dtype=object)
        with ExitStack() as files:
            raw: Any = files.enter_context(path.open("wb"))
            if ending == ".csv.gz":
                raw = files.enter_context(gzip.GzipFile("", "wb", 6, raw, mtime=0))
            text = files.enter_context(io.TextIOWrapper(raw, encoding="utf-8", newline="", write_through=True))
            for piece in pieces:
                given = frame.iloc[piece]
                values = np.where(missing[piece, None], np.float32(np.nan), embeddings[piece])
                if layout == "list":
                    vectors = [
                        "" if gone else f"[{', '.join(map(str, row))}]"
                        for row, gone in zip(values, missing[piece], strict=True)
                    ]
                    part = pd.DataFrame({ours[0]: vectors}, index=given.index)
                else:
                    part = pd.DataFrame(values, columns=ours, index=given.index)
                pd.concat([given, part], axis=1).to_csv(text, index=False, header=piece.start == 0, lineterminator="\n")
        return
    theirs = _distinct(places, out, [name for name, _ in columns])
    arrays, shapes = [], {}
    for name, (_, column) in zip(theirs, columns, strict=True):
        if str(column.dtype) == "geometry":
            shapes[name] = column
            column = pd.Series(column.to_wkb(), index=column.index, dtype=object)
        arrays.append(_arrow(places, name, column))
    metadata = {"selm": json.dumps(origin)}
    if shapes:
        metadata["geo"] = json.dumps(_geo(places, theirs, shapes))
    fields = [pa.field(name, array.type) for name, array in zip(theirs, arrays, strict=True)]
    kind = pa.float32() if layout == "wide" else pa.list_(pa.float32())
    schema = pa.schema([*fields, *(pa.field(name, kind) for name in ours)], metadata=metadata)
    with path.open("wb") as file, pq.ParquetWriter(file, schema) as writer:
        for piece in pieces:
            own = [array.slice(piece.start, step) for array in arrays]
            if layout == "list":
                there = ~missing[piece]
                offsets = np.concatenate([[0], np.cumsum(np.where(there, embeddings.shape[1], 0))]).astype(np.int32)
                values = pa.array(np.ascontiguousarray(embeddings[piece][there]).ravel())
                added = [pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(~there))]
            else:
                valid = pa.array(~missing[piece]).buffers()[1]  # one bitmap for all columns
                turned = map(pa.py_buffer, np.ascontiguousarray(embeddings[piece].T))
                added = [pa.Array.from_buffers(kind, len(missing[piece]), [valid, values]) for values in turned]
            writer.write_table(pa.Table.from_arrays([*own, *added], schema=schema))


def _typed(column: pd.Series[Any]) -> pd.Series[Any]:
    """A text file's column as numbers where all its cells are plainly such: not 007, 1e3, 1,5 or a very long one."""
    full = column[column != ""]
    if pd.api.types.is_numeric_dtype(column.dtype) or not len(full):
        return column
    kinds = {r"-?(0|[1-9]\d{0,14})": pd.Int64Dtype(), r"-?(0|[1-9]\d{0,14})(\.\d{1,17})?": pd.Float64Dtype()}
    kind = next((kind for pattern, kind in kinds.items() if full.str.fullmatch(pattern).all()), None)
    return column if kind is None else pd.to_numeric(column.where(column != "")).astype(kind)


def _as_text(places: Places, column: pd.Series[Any]) -> pd.Series[Any]:
    """A column as a CSV has it: a geometry as well-known text in degrees, all else as it is."""
    if str(column.dtype) != "geometry":
        return column
    shapes: Any = column
    if shapes.crs is not None and not shapes.crs.equals("EPSG:4326"):
        _say(places, f"geometry {column.name} is written in degrees, not in {shapes.crs.name}")
        shapes = shapes.to_crs(4326)
    return pd.Series(shapes.to_wkt(rounding_precision=-1), index=column.index, dtype=object)


def _arrow(places: Places, name: str, column: pd.Series[Any]) -> pa.Array:
    try:
        array = pa.Array.from_pandas(column)
    except (pa.ArrowException, ValueError, TypeError):  # numbers and words mixed
        _say(places, f"column {name} holds values of several kinds; they are written as text")
        array = pa.Array.from_pandas(column.map(lambda value: None if value is None or value != value else str(value)))
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _geo(places: Places, names: list[str], shapes: dict[str, Any]) -> dict[str, Any]:
    """What GeoParquet says about columns of geometry."""
    about = {}
    for name, column in shapes.items():
        kinds = sorted({str(kind) for kind in column.geom_type.dropna().unique()})
        about[name] = {
            "encoding": "WKB", "geometry_types": kinds if not column.has_z.any() else [],
            "crs": column.crs.to_json_dict() if column.crs is not None else None,
        }  # fmt: skip
    main = str(places.table.active_geometry_name) if is_geographic(places.table) else ""
    return {"version": "1.0.0", "primary_column": main if main in about else next(iter(about)), "columns": about}


def _write_geographic(
    path: Path, ending: str, out: Path, places: Places, columns: list[tuple[str, pd.Series[Any]]], ours: list[str],
    embeddings: NDArray[np.float32], missing: NDArray[np.bool_], origin: dict[str, str],
) -> None:  # fmt: skip
    """A file for maps: the user's geometry, or points. The order of rows stays: no spatial index in FlatGeobuf."""
    geopandas = needed("geopandas", f"{out}: {ending}", "selm[maps]")
    table = places.table
    if is_geographic(table):
        shapes: Any = table.geometry
        main = [*map(str, table.columns)].index(str(table.active_geometry_name))
        columns = [pair for i, pair in enumerate(columns) if i != main]
        if ending == ".geojson" and shapes.crs is not None and not shapes.crs.equals("EPSG:4326"):
            _say(places, f"{out.name} is in degrees, not in {shapes.crs.name}")
            shapes = shapes.to_crs(4326)
    else:
        points = geopandas.points_from_xy(*places.centres()[::-1], crs=4326)
        points[np.isnan(places.centres()[0])] = None
        shapes = geopandas.GeoSeries(points, index=table.index)
    reserved = {".gpkg": ("fid", "geom", "geometry"), ".fgb": ("geometry",)}.get(ending, ("geometry",))
    names = _distinct(places, out, [name for name, _ in columns], reserved)
    values = np.where(missing[:, None], np.float32(np.nan), embeddings)
    added = pd.DataFrame(values, columns=ours, index=table.index)
    frame = pd.concat([*(_as_text(places, column) for _, column in columns), added], axis=1)
    frame.columns = pd.Index([*names, *ours], dtype=object)
    frame = geopandas.GeoDataFrame(frame, geometry=shapes.to_numpy(), crs=shapes.crs)
    options: dict[str, Any] = {"SPATIAL_INDEX": "NO"} if ending == ".fgb" else {}
    if ending in TELLING:
        options |= {"layer_metadata": origin, "layer": out.name.removesuffix(ending)}
    start, pid, end = path.name.rsplit(".", 2)
    folder = path.with_name(f"{start}.files.{pid}.{end}")  # a name that `files.written` clears
    folder.mkdir()
    try:
        frame.to_file(folder / f"a{ending}", driver=_DRIVERS[ending], engine="pyogrio", index=False, **options)
        os.replace(folder / f"a{ending}", path)
    except OSError:
        raise
    except Exception as error:
        room = "is the disk full?" if "I/O" in first_line(error) else ".parquet can"
        raise InputError(f"{out}: cannot hold this table ({first_line(error)}); {room}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# Reading again


@dataclasses.dataclass
class _Layout:
    """Where a table of embeddings has what."""

    lat: str
    lon: str
    embeddings: list[str]  # their columns: one of vectors, if `vectors`
    vectors: bool

    @classmethod
    def of(cls, path: Path, columns: list[str]) -> _Layout:
        lower = {name.lower(): name for name in columns}
        prefixes = ["lat"]
        while len(prefixes[-1]) < max(map(len, lower), default=0):
            prefixes.append(_PREFIX + prefixes[-1])
        pairs = [(lower[lat], lower[lat[:-3] + "lon"]) for lat in prefixes if {lat, lat[:-3] + "lon"} <= set(lower)]
        starts = [i for i, name in enumerate(columns) if re.fullmatch(rf"({_PREFIX})*(e0|pc0|embedding)", name)]
        if not pairs or not starts:
            raise InputError(
                f"{path}: not a table of embeddings (columns lat, lon, e0, e1, … or embedding); selm embed makes one"
            )
        first = columns[starts[-1]]  # ours are behind the user's
        if first.endswith("embedding"):
            return cls(*pairs[-1], [first], True)
        prefix = re.sub("(e|pc)0$", "", first)
        names = [first]
        for name in columns[starts[-1] + 1 :]:  # the next number of a part, or the first of another
            part, number = re.fullmatch(r"(.*?)(\d*)", names[-1]).groups()  # type: ignore[union-attr]
            if name != f"{part}{int(number) + 1}" and name not in {f"{prefix}{other}0" for other in PARTS}:
                break
            names.append(name)
        return cls(*pairs[-1], names, False)


def embedded_places(table: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Latitudes and longitudes of the other columns that `read_embeddings` gives, degrees float64."""
    layout = _Layout.of(Path("the table"), [*map(str, table.columns), "e0"])
    return tuple(table[name].to_numpy(np.float64, na_value=np.nan) for name in (layout.lat, layout.lon))  # type: ignore[return-value]


def read_embeddings(path: str | Path) -> tuple[pd.DataFrame, NDArray[np.float32]]:
    """What `embed_file` wrote: the other columns (`lat`, `lon`, …) and embeddings float32 (N, dim), NaN where missing.

    Raises InputError if the file cannot be read or holds no embeddings.
    """
    path = Path(path)
    with _reading(path):
        if path.suffix.lower() != ".parquet":
            table = _whole(path)
            layout = _Layout.of(path, list(table.columns))
            return table.drop(columns=layout.embeddings), _vectors(path, table, layout)
        with pq.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            layout = _Layout.of(path, columns)
            dim = _dim(file, layout)
            out = np.empty((file.metadata.num_rows, dim), np.float32)
            start = 0
            for batch in file.iter_batches(_rows(layout), columns=layout.embeddings):
                out[start : start + len(batch)] = _values(batch, layout, dim)
                start += len(batch)
            ours = set(layout.embeddings)
            return file.read(columns=[name for name in columns if name not in ours]).to_pandas(), out


def embedding_pieces(path: str | Path) -> Iterator[tuple[int, pd.DataFrame, NDArray[np.float32]]]:
    """What `embed_file` wrote, in pieces: (first row from 0, its `lat` and `lon`, embeddings float32 (n, dim)).

    Raises InputError as `read_embeddings` does.
    """
    path = Path(path)
    start = 0
    with _reading(path):
        if path.suffix.lower() != ".parquet":
            text = path.name.lower().endswith((".csv", ".csv.gz"))
            for table in pd.read_csv(path, chunksize=50_000) if text else [_whole(path)]:
                layout = _Layout.of(path, list(table.columns))
                places = pd.DataFrame({"lat": table[layout.lat], "lon": table[layout.lon]})
                yield start, places, _vectors(path, table, layout)
                start += len(table)
            return
        with pq.ParquetFile(path) as file:
            layout = _Layout.of(path, file.schema_arrow.names)
            dim = _dim(file, layout)
            names = [layout.lat, layout.lon]
            for batch in file.iter_batches(_rows(layout), columns=[*names, *layout.embeddings]):
                places = batch.select(names).to_pandas()
                yield start, places.set_axis(["lat", "lon"], axis=1), _values(batch, layout, dim)
                start += len(batch)


def one_embedding(path: str | Path, row: int) -> NDArray[np.float32]:
    """The embedding (dim,) in one row, counted from 0, of what `embed_file` wrote; reads no more than its piece."""
    path = Path(path)
    if path.suffix.lower() == ".parquet" and path.is_file():
        with _reading(path), pq.ParquetFile(path) as file:
            layout = _Layout.of(path, file.schema_arrow.names)
            start = 0
            for number in range(file.num_row_groups):
                length = file.metadata.row_group(number).num_rows
                if row < start + length:
                    group = file.read_row_group(number, columns=layout.embeddings).slice(row - start, 1)
                    return _values(group.combine_chunks().to_batches()[0], layout, _dim(file, layout))[0]
                start += length
    for start, _, embeddings in embedding_pieces(path):
        if row < start + len(embeddings):
            return embeddings[row - start]
    raise InputError(f"{path}: no row {row + 1}")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a readable table of embeddings ({first_line(error)})") from None


def _whole(path: Path) -> pd.DataFrame:
    if path.name.lower().endswith((".csv", ".csv.gz")):
        return pd.read_csv(path)
    return read_table(path)


def _rows(layout: _Layout) -> int:
    return LIST_ROWS if layout.vectors else max(1, PIECE_BYTES // (4 * len(layout.embeddings)))


def _dim(file: pq.ParquetFile, layout: _Layout) -> int:
    """The length of embeddings; of vectors in one column that of the first there is."""
    if not layout.vectors:
        return len(layout.embeddings)
    for batch in file.iter_batches(LIST_ROWS, columns=layout.embeddings):
        lengths = batch.column(0).value_lengths().drop_null()
        if len(lengths):
            return int(lengths[0].as_py())
    return 0


def _values(batch: pa.RecordBatch, layout: _Layout, dim: int) -> NDArray[np.float32]:
    columns = [batch.column(name) for name in layout.embeddings]
    if not layout.vectors:
        return np.stack([column.to_numpy(zero_copy_only=False) for column in columns], axis=1).astype(np.float32)
    out = np.full((len(batch), dim), np.nan, np.float32)
    there = columns[0].is_valid().to_numpy(zero_copy_only=False)
    out[there] = columns[0].drop_null().flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
    return out


def _vectors(path: Path, table: pd.DataFrame, layout: _Layout) -> NDArray[np.float32]:
    if not layout.vectors:
        return table[layout.embeddings].to_numpy(np.float32)
    texts = table[layout.embeddings[0]]
    vectors = [np.array(json.loads(text), np.float32) if isinstance(text, str) else None for text in texts]
    dim = next((len(vector) for vector in vectors if vector is not None), 0)
    if any(vector is not None and vector.shape != (dim,) for vector in vectors):
        raise InputError(f"{path}: the vectors in column {layout.embeddings[0]} are not of one length")
    gone = np.full(dim, np.nan, np.float32)
    return np.array([gone if vector is None else vector for vector in vectors], np.float32).reshape(len(vectors), dim)

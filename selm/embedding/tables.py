"""Tables of embeddings: a user's table of coordinates with the embeddings added behind its own columns.

They stand as columns ``e0`` … ``e{dim-1}`` (wide) or as one column ``embedding`` of vectors (list). Before them come
`lat` and `lon`, where the table has no such columns of its own. Nothing of the user's is changed: where our names are
taken, ours get a prefix. Tables are written and read in pieces, so that a million places need no more memory than a
thousand. Rows are named as the user's file counts them, from 1.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from selm.embedding.coordinates import SAMPLES, Places, is_geographic, needed, read_places, read_table, wrapped
from selm.errors import InputError, InputWarning, OutsideMapWarning, unknown
from selm.files import check_target, scratch, written

if TYPE_CHECKING:
    from selm.embedding.embedder import Embedder

ENDINGS = (".parquet", ".csv", ".csv.gz", ".geojson", ".fgb", ".gpkg")
TELLING = (".parquet", ".gpkg")  # those that say of themselves what they were made from, and whom to name
LAYOUTS = ("wide", "list")
PIECE_BYTES = 2**26  # of embeddings written or read together
_PREFIX = "selm_"  # of our columns where their names are taken; as often as it needs
_DRIVERS = {".geojson": "GeoJSON", ".fgb": "FlatGeobuf", ".gpkg": "GPKG"}
LIST_ROWS = 4096  # of vectors in one column, read together


def embed_file(
    coordinates: str | Path,
    embedder: Embedder,
    out: str | Path,
    *,
    columns: str = "wide",
    samples: int = SAMPLES,
    progress: bool = True,
) -> int:
    """Embed a table of coordinates (any that `read_places` reads) into `out`; returns the number of rows served.

    `out` ends in one of `ENDINGS`; it has the input's columns and geometry, then float32 embeddings as `columns` says
    (wide or list; list in .parquet and .csv only). Polygons, lines and cells get the mean over about `samples` points,
    those of them that lie on the map.
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
    places = read_places(coordinates, samples)
    inside = on_map(places, embedder)
    with scratch(out, "rows") as store:  # rows come in the order of the map: on disk until all are there
        embeddings = _on_disk(store, (len(places.table), embedder.dim))
        served = fill(embeddings, places, inside, embedder, progress=progress)
        with written(out) as temporary:
            _write(temporary, ending, out, places, embeddings, ~served, columns, _origin(embedder))
    return int(served.sum())


def add_embeddings(table: pd.DataFrame, embedder: Embedder, columns: str, samples: int, progress: bool) -> pd.DataFrame:
    """What `Embedder.add_to` gives."""
    if columns not in LAYOUTS:
        raise unknown("layout of columns", columns, LAYOUTS)
    embeddings, places = embeddings_of(table, embedder, samples, progress)
    names = _our_names(places, [str(name) for name in table.columns], columns, embeddings.shape[1])
    if columns == "wide":
        added = pd.DataFrame(embeddings, columns=names, index=table.index)
        return pd.concat([table, added], axis=1)
    out = table.copy()
    rows = [None if np.isnan(row).any() else row for row in embeddings]
    out.insert(out.shape[1], names[0], pd.Series(rows, index=table.index, dtype=object))
    return out


def embeddings_of(
    table: pd.DataFrame, embedder: Embedder, samples: int = SAMPLES, progress: bool = False
) -> tuple[NDArray[np.float32], Places]:
    """The embeddings float32 (N, dim) of a table in memory, NaN where a row has none, and what was read."""
    places = read_places(table, samples)
    embeddings = np.zeros((len(table), embedder.dim), np.float32)
    served = fill(embeddings, places, on_map(places, embedder), embedder, progress=progress)
    embeddings[~served] = np.nan
    return embeddings, places


def on_map(places: Places, embedder: Embedder) -> NDArray[np.bool_]:
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


def fill(
    out: NDArray[np.float32], places: Places, inside: NDArray[np.bool_], embedder: Embedder, *, progress: bool = False
) -> NDArray[np.bool_]:
    """Add the mean of the embeddings of each row's points that are `inside` the map to `out` (N, dim), all zeros.

    Gives the rows that have one, bool (N,); warns of those for whose points a server turned out to have nothing, and
    raises InputError where it has nothing for any.
    """
    rows = places.rows[inside]
    asked = np.bincount(rows, minlength=len(out))
    came = np.zeros(len(out), np.int64)
    alone = not len(rows) or asked.max() == 1
    for at, part in embedder.stream(places.lat[inside], places.lon[inside], progress=progress):
        np.add.at(came, rows[at], 1)
        if alone:
            out[rows[at]] = part
        else:
            np.add.at(out, rows[at], part / asked[rows[at], None].astype(np.float32))
    fewer = (came > 0) & (came < asked)
    out[fewer] *= (asked[fewer] / came[fewer])[:, None].astype(np.float32)
    if (lost := (came == 0) & (asked > 0)).any():
        message = f"{places.name}: {embedder.describe_outside(*places.centres(), lost, places.first)}"
        if not came.any():
            raise InputError(message)
        warnings.warn(message, OutsideMapWarning, stacklevel=4)
    return came > 0


def _our_names(places: Places, taken: list[str], layout: str, dim: int) -> list[str]:
    """The names of the columns of embeddings; with a prefix, and a warning, where the table has such names."""
    lower = [name.lower() for name in taken]
    first, pattern = ("e0", r"e\d+") if layout == "wide" else ("embedding", "embedding")
    prefix = ""
    while found := [name for name in lower if re.fullmatch(prefix + pattern, name)]:
        collides = taken[lower.index(found[0])]
        prefix += _PREFIX
    names = [f"{prefix}e{i}" for i in range(dim)] if layout == "wide" else [f"{prefix}embedding"]
    if prefix:
        _say(places, f"has a column {collides}; the embeddings are called {prefix}{first}" + (
            f" … {names[-1]}" if len(names) > 1 else ""
        ))  # fmt: skip
    return names


def _say(places: Places, message: str) -> None:
    warnings.warn(f"{places.name}: {message}", InputWarning, stacklevel=5)


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
    path: Path, ending: str, out: Path, places: Places, embeddings: NDArray[np.float32], missing: NDArray[np.bool_],
    layout: str, origin: dict[str, str],
) -> None:  # fmt: skip
    columns = _named_columns(places, as_text=ending in (".csv", ".csv.gz"))
    ours = _our_names(places, [name for name, _ in columns], layout, embeddings.shape[1])
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
    names = _distinct(places, out, [name for name, _ in columns])
    arrays, shapes = [], {}
    for name, (_, column) in zip(names, columns, strict=True):
        if str(column.dtype) == "geometry":
            shapes[name] = column
            column = pd.Series(column.to_wkb(), index=column.index, dtype=object)
        arrays.append(_arrow(places, name, column))
    metadata = {"selm": json.dumps(origin)}
    if shapes:
        metadata["geo"] = json.dumps(_geo(places, names, shapes))
    fields = [pa.field(name, array.type) for name, array in zip(names, arrays, strict=True)]
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
                turned = np.ascontiguousarray(embeddings[piece].T)
                added = [pa.array(value, mask=missing[piece]) for value in turned]
            writer.write_table(pa.Table.from_arrays([*own, *added], schema=schema))


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
        options["layer_metadata"] = origin
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=path.parent) as folder:
        file = Path(folder) / f"embeddings{ending}"
        try:
            frame.to_file(file, driver=_DRIVERS[ending], engine="pyogrio", index=False, **options)
        except OSError:
            raise
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(f"{out}: cannot hold this table ({reason}); .parquet can") from None
        os.replace(file, path)


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
        starts = [i for i, name in enumerate(columns) if re.fullmatch(rf"({_PREFIX})*(e0|embedding)", name)]
        if not pairs or not starts:
            raise InputError(
                f"{path}: not a table of embeddings (columns lat, lon, e0, e1, … or embedding); selm embed makes one"
            )
        first = columns[starts[-1]]  # ours are behind the user's
        if first.endswith("embedding"):
            return cls(*pairs[-1], [first], True)
        prefix, there = first.removesuffix("0"), set(columns)
        names: list[str] = []
        while f"{prefix}{len(names)}" in there:
            names.append(f"{prefix}{len(names)}")
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
        raise InputError(f"{path}: not a readable table of embeddings ({str(error).splitlines()[0]})") from None


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

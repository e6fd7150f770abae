"""Users' tables of coordinates: read from the files that people have, and taken for points on the ground.

A row is a point, or a polygon, line or H3 cell, which stands for several points inside it (`Places.rows`). What is read
otherwise than it stands is said by an InputWarning; rows without coordinates stay in the table and have no point.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import re
import sys
import unicodedata
import warnings
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from selm.errors import InputError, InputWarning, first_line
from selm.files import check_begins

SAMPLES = 16  # about how many points a polygon, a line or a cell stands for
GEOGRAPHIC = (".geojson", ".json", ".fgb", ".gpkg", ".shp")  # read by geopandas
_ROLES = {
    "lat": ("lat", "latitude", "緯度"),
    "lon": ("lon", "lng", "long", "longitude", "経度"),
    "y": ("y", "northing", "point_y", "coord_y", "y_coord", "ycoord"),
    "x": ("x", "easting", "point_x", "coord_x", "x_coord", "xcoord"),
    "h3": ("h3", "cell", "h3_cell", "h3_index", "h3index", "h3_id"),
    "geometry": ("geometry", "geom", "wkt", "the_geom"),
}
_UNITS = re.compile(r"([ _.\-]*(deg|degree|degrees|dd|dms|decimal|wgs84|epsg:?4326|°|度))+$")
EMPTY = {"", "nan", "na", "n/a", "#n/a", "null", "none", "<na>", "nat", "-", "–", "."}
_NAMED = 5  # rows that a warning names
_LARGEST_LON = 720.0  # farther from 0 nothing is taken modulo 360
_SPACES = r"\s+"
AS_TEXT = "selm as text"  # in a table's attrs: its file was text, so that every cell is
UNPACKED_BYTES, UNPACKED_RATIO = 2**24, 100  # a packed table may have so many bytes, or so many times its own


@dataclass
class Places:
    """A user's table, and the points that its rows stand for.

    `table` has the user's columns as they were. `lat` and `lon` are float64 (P,) degrees WGS84, -180 <= lon < 180, and
    `rows` int64 (P,) names the row of each point: a row without coordinates has none, a polygon many. Messages begin
    with `name` and count rows from `first`. `columns` are the positions of latitude and longitude, where there are.
    """

    name: str
    first: int
    table: pd.DataFrame
    lat: NDArray[np.float64]
    lon: NDArray[np.float64]
    rows: NDArray[np.int64]
    columns: tuple[int, ...]

    def centres(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The mean of each row's points, float64 (N,) degrees each; NaN for a row without."""
        n = len(self.table)
        if len(self.rows) == n and (self.rows == np.arange(n)).all():
            return self.lat, self.lon
        count = np.bincount(self.rows, minlength=n)
        first = np.zeros(n)
        first[self.rows[::-1]] = self.lon[::-1]
        east = wrapped(self.lon - first[self.rows])  # across the 180th meridian, too
        with np.errstate(invalid="ignore", divide="ignore"):
            lat = np.bincount(self.rows, self.lat, n) / count
            lon = first + np.bincount(self.rows, east, n) / count
        return lat, wrapped(lon)

    def naming(self, rows: NDArray[np.int64]) -> str:
        """``row 3 (60.17, 24.94), row 5 (…) and 7 more``."""
        return _naming(rows, self.first, *self.centres())


def wrapped(lon: NDArray[np.float64]) -> NDArray[np.float64]:
    """Longitudes modulo 360, -180 <= lon < 180; those in this range stay bit for bit."""
    return np.where((lon < -180) | (lon >= 180), (lon + 180) % 360 - 180, lon)


def read_places(
    source: str | Path | pd.DataFrame, samples: int = SAMPLES, *, pair: tuple[str, str] | None = None,
    strict: bool = False,
) -> Places:  # fmt: skip
    """A table of coordinates: a file, or a DataFrame or GeoDataFrame in memory.

    Files: CSV and the like (separated by commas, semicolons, tabs, pipes or spaces; UTF-8, UTF-16, CP932 or Latin-1;
    also .gz, .bz2 and .zip), .xlsx, parquet, GeoParquet, GeoJSON, FlatGeobuf, GeoPackage. Coordinates are taken from
    the geometry where there is one, from columns named as latitude and longitude are, from H3 cells, or from x and y
    that hold degrees; degrees may be decimal or with minutes and seconds. `pair` names the columns of latitude and
    longitude where several could be it. Polygons, lines and cells become about `samples` points inside them.

    Raises InputError, one line with file, row and column, where no row can be used or a value is not a coordinate; if
    `strict`, where any row has no coordinates.
    """
    if samples < 1:
        raise InputError(f"samples = {samples}: at least one point must stand for a polygon")
    if isinstance(source, pd.DataFrame):
        return _Reading("the table", 0, source, samples, pair, strict).places()
    return _Reading(str(source), 1, read_table(source), samples, pair, strict).places()


def read_coordinates(path: str | Path) -> pd.DataFrame:
    """A table as `read_places` reads it, with `lat` and `lon`, float64 degrees WGS84, in front of its other columns.

    Raises InputError naming the file and the column or row (data rows count from 1) for a missing or repeated column,
    text, missing numbers, or coordinates that are swapped or out of range.
    """
    places = read_places(path, strict=True)
    lat, lon = places.centres()
    kept = [i for i in range(places.table.shape[1]) if i not in places.columns]
    others = pd.DataFrame(places.table.iloc[:, kept]).reset_index(drop=True)
    names = pd.Index(["lat", "lon", *map(str, others.columns)])
    if names.has_duplicates:
        raise InputError(f"{path}: there are two columns {names[names.duplicated()][0]}")
    return pd.concat([pd.DataFrame({"lat": lat, "lon": lon}), others], axis=1)


# From a table to points


@dataclass
class _Reading:
    """A table whose coordinates are being looked for."""

    name: str
    first: int
    table: pd.DataFrame
    samples: int
    pair: tuple[str, str] | None
    strict: bool

    def places(self) -> Places:
        if not len(self.table):
            raise InputError(f"{self.name}: no rows")
        if self.pair is not None:
            names = list(map(str, self.table.columns))
            lat, lon = (self._column({role: [i for i, name in enumerate(names) if name == wanted]}, role, wanted)
                        for role, wanted in zip(("lat", "lon"), self.pair, strict=True))  # fmt: skip
            return self._of_columns(lat, lon)
        if is_geographic(self.table):
            return self._of_geometries(self.table.geometry.to_numpy(), self.table.crs)
        at: dict[str, list[int]] = {}
        for i, name in enumerate(self.table.columns):
            if (role := _role(name)) is not None:
                at.setdefault(role, []).append(i)
        for i in at.get("geometry", ()):
            if (shapes := self._shapes(i)) is not None:
                return self._of_geometries(shapes, None)
        if "lat" not in at and "lon" not in at:
            for i in at.get("h3", ()):
                if (cells := self._cells(i)) is not None:
                    return self._of_cells(cells, i)
            if len(at.get("x", ())) == len(at.get("y", ())) == 1:
                return self._of_columns(at["y"][0], at["x"][0], guessed=True)
        return self._of_columns(self._column(at, "lat"), self._column(at, "lon"))

    def _column(self, at: dict[str, list[int]], role: str, wanted: str | None = None) -> int:
        found = at.get(role, [])
        names = [str(self.table.columns[i]) for i in found]
        if not found:
            there = [str(name) for name in self.table.columns]
            has = ", ".join(there[:6]) + (" …" if len(there) > 6 else "")
            hint = "; is the first line missing, with names?" if any(_is_number(name) for name in there) else ""
            wanted = wanted or " or ".join(name for name in _ROLES[role] if name.isascii())
            raise InputError(f"{self.name}: no column {wanted} (has: {has or 'none'}){hint}")
        if len(set(names)) < len(names):
            raise InputError(f"{self.name}: column {names[0]} appears {names.count(names[0])} times")
        if len(found) > 1:
            both = f"columns {' and '.join(names)} could both be {role}"
            raise InputError(f"{self.name}: {both}; rename one, or name two (--pair LAT LON)")
        return found[0]

    def _of_columns(self, at_lat: int, at_lon: int, guessed: bool = False) -> Places:
        names = str(self.table.columns[at_lat]), str(self.table.columns[at_lon])
        lat, lon = self._degrees(at_lat, "NS"), self._degrees(at_lon, "EW")
        if guessed:
            values = f"{self.name}: columns {names[1]} and {names[0]}"
            there = np.isfinite(lat) & np.isfinite(lon)
            bad = there & ((np.abs(lat) > 90) | (np.abs(lon) > 360))
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                raise InputError(
                    f"{values} are not degrees (row {row + self.first}: {lon[row]:g}, {lat[row]:g}); "
                    "give columns lat and lon in degrees, WGS84"
                )
            self.say(f"column {names[0]} is taken for latitude, {names[1]} for longitude")
        return self._checked(lat, lon, np.arange(len(lat)), (at_lat, at_lon), names)

    def _degrees(self, at: int, letters: str) -> NDArray[np.float64]:
        """A column as degrees, NaN where it is empty."""
        column = self.table.iloc[:, at]
        try:
            if not pd.api.types.is_numeric_dtype(column.dtype):
                column = column.astype(object)
            numbers = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan).copy()
        except (TypeError, ValueError):
            numbers = np.full(len(column), np.nan)
        known: dict[str, float] = {}
        for row in np.flatnonzero(~np.isfinite(numbers)).tolist():
            text = str(column.iloc[row])
            if text not in known:
                try:
                    known[text] = degrees(text, letters)
                except ValueError:
                    raise InputError(
                        f"{self.name}: row {row + self.first}, column {self.table.columns[at]}: "
                        f"'{text.strip()[:40]}' is not a coordinate"
                    ) from None
            numbers[row] = known[text]
        return numbers

    def _shapes(self, at: int) -> NDArray[Any] | None:
        """The geometries of a column of text (WKT); None if it holds something else or there is no shapely."""
        texts = [str(value).strip() for value in self.table.iloc[:, at]]
        kind = re.compile(r"(SRID=\d+;)?\s*(MULTI)?(POINT|LINESTRING|POLYGON|GEOMETRYCOLLECTION)[ ZM]*(\(|EMPTY)", re.I)
        full = [text for text in texts if text.lower() not in EMPTY]
        if not full or not all(kind.match(text) for text in full):
            return None
        try:
            import shapely
        except ImportError:
            return None
        out = np.full(len(texts), None, object)
        for row, text in enumerate(texts):
            if text.lower() not in EMPTY:
                try:
                    out[row] = shapely.from_wkt(re.sub(r"^SRID=\d+;", "", text, flags=re.IGNORECASE))
                except shapely.errors.GEOSException:
                    name = self.table.columns[at]
                    raise InputError(
                        f"{self.name}: row {row + self.first}, column {name}: '{text[:40]}' is not a geometry"
                    ) from None
        return out

    def _of_geometries(self, shapes: NDArray[Any], crs: Any) -> Places:
        import shapely

        if crs is not None and str(crs).upper() not in ("EPSG:4326", "OGC:CRS84"):
            geopandas = needed("geopandas", f"{self.name}: the system {crs}", "selm[maps]")
            shapes = geopandas.GeoSeries(shapes, crs=crs).to_crs(4326).to_numpy()
        kinds = np.where(shapely.is_empty(shapes), -1, shapely.get_type_id(shapes))
        rows, parts = [np.flatnonzero(kinds == 0)], []
        parts.append(np.column_stack([shapely.get_x(shapes[rows[0]]), shapely.get_y(shapes[rows[0]])]))
        for row in np.flatnonzero(kinds > 0).tolist():
            if not np.isfinite(shapely.get_coordinates(shapes[row])).all():
                continue
            points = points_inside(shapes[row], self.samples)
            rows.append(np.full(len(points), row))
            parts.append(points)
        at, points = np.concatenate(rows).astype(np.int64), np.concatenate(parts)
        order = np.argsort(at, kind="stable")
        return self._checked(points[order, 1], points[order, 0], at[order], (), ("latitude", "longitude"))

    def _cells(self, at: int) -> list[str] | None:
        """A column's H3 indexes as text, "" where it is empty; None if none of it looks like one."""
        cells = []
        for value in self.table.iloc[:, at]:
            text = str(value).strip().lower()
            if text in EMPTY:
                text = ""
            elif re.fullmatch(r"\d{18,19}", text):  # the number itself
                text = f"{int(text):x}"
            cells.append(text)
        return cells if any(re.fullmatch(r"8[0-9a-f]{14}", text) for text in cells) else None

    def _of_cells(self, cells: list[str], at: int) -> Places:
        h3 = needed("h3", f"{self.name}: column {self.table.columns[at]}", "h3")
        deeper = max(0, round(np.log(self.samples) / np.log(7)))  # a cell has seven children
        known: dict[str, list[tuple[float, float]]] = {"": []}
        for row, cell in enumerate(cells):
            if cell in known:
                continue
            if not h3.is_valid_cell(cell):
                raise InputError(
                    f"{self.name}: row {row + self.first}, column {self.table.columns[at]}: '{cell}' is not an H3 cell"
                )
            level = h3.get_resolution(cell)
            centres = [h3.cell_to_latlng(child) for child in h3.cell_to_children(cell, min(15, level + deeper))]
            known[cell] = [place for place in centres if h3.latlng_to_cell(*place, level) == cell]
        rows = np.repeat(np.arange(len(cells)), [len(known[cell]) for cell in cells])
        places = np.array([place for cell in cells for place in known[cell]], np.float64).reshape(-1, 2)
        return self._checked(places[:, 0], places[:, 1], rows, (), ("latitude", "longitude"))

    def _checked(
        self, lat: NDArray[np.float64], lon: NDArray[np.float64], rows: NDArray[np.int64], columns: tuple[int, ...],
        names: tuple[str, str],
    ) -> Places:  # fmt: skip
        """The points that are coordinates; what is said of the rows that have none."""
        n = len(self.table)
        empty = ~(np.isfinite(lat) & np.isfinite(lon))
        with np.errstate(invalid="ignore"):
            good = (np.abs(lat) <= 90) & (np.abs(lon) <= _LARGEST_LON)
        served, wrong = np.zeros(n, bool), np.zeros(n, bool)
        served[rows[good]] = True
        wrong[rows[~empty & ~good]] = True
        wrong &= ~served
        lost = np.flatnonzero(~served)
        a, o = np.full(n, np.nan), np.full(n, np.nan)  # the first point of each row
        a[rows[::-1]], o[rows[::-1]] = lat[::-1], lon[::-1]
        with np.errstate(invalid="ignore"):
            swapped = wrong & (np.abs(a) <= 180) & (np.abs(o) <= 90)
        if len(lost) and (self.strict or len(lost) == n):
            row = int(lost[0])
            at = f"{self.name}: row {row + self.first}"
            if not wrong[row]:
                name = names[1] if columns and np.isfinite(a[row]) else names[0]
                raise InputError(f"{at}, column {name}: no value" if columns else f"{at}: no geometry")
            if swapped[row]:
                raise InputError(f"{at}: {names[0]} {a[row]:g}, {names[1]} {o[row]:g} look swapped")
            name, value, limit = (names[0], a[row], "90") if abs(a[row]) > 90 else (names[1], o[row], "180")
            hint = " (metres of a projection? give degrees, WGS84)" if abs(value) > 1000 else ""
            raise InputError(f"{at}, column {name}: {value:g} is outside -{limit}..{limit}{hint}")
        gone = "their embeddings are empty"
        if (none := np.flatnonzero(~served & ~wrong)).size:
            self.say(f"{len(none)} of {n} rows have no coordinates: {_naming(none, self.first)}; {gone}")
        if swapped.any():
            which = _naming(np.flatnonzero(swapped), self.first, a, o)
            self.say(f"{swapped.sum()} of {n} rows look swapped: {which}; {gone}")
        if (beyond := np.flatnonzero(wrong & ~swapped)).size:
            which = _naming(beyond, self.first, a, o)
            self.say(f"{len(beyond)} of {n} rows are outside -90..90 or -180..180: {which}; {gone}")
        turned = wrapped(lon)
        far = np.flatnonzero(good & ((lon > 180) | (lon < -180)))
        if len(far):
            i = far[0]
            self.say(
                f"longitudes are taken modulo 360 in {len(np.unique(rows[far]))} of {n} rows "
                f"(row {rows[i] + self.first}: {lon[i]:.7g} is {turned[i]:.7g})"
            )
        return Places(self.name, self.first, self.table, lat[good], turned[good], rows[good], columns)

    def say(self, message: str) -> None:
        warnings.warn(f"{self.name}: {message}", InputWarning, stacklevel=4)


def is_geographic(table: pd.DataFrame) -> bool:
    """Whether a table is a GeoDataFrame with a geometry; does not import geopandas."""
    geopandas = sys.modules.get("geopandas")
    return geopandas is not None and isinstance(table, geopandas.GeoDataFrame) and bool(table.active_geometry_name)


def needed(module: str, what: str, package: str) -> Any:
    """An optional module; an InputError that says what to install where it is absent."""
    try:
        return import_module(module)
    except ImportError:
        raise InputError(f"{what} needs {module}: pip install {package}") from None


def _naming(rows: NDArray[np.int64], first: int, *values: NDArray[np.float64]) -> str:
    def one(row: int) -> str:
        place = f" ({', '.join(f'{value[row]:.6g}' for value in values)})" if values else ""
        return f"row {row + first}{place}"

    more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
    return ", ".join(one(row) for row in rows[:_NAMED].tolist()) + more


def _role(name: object) -> str | None:
    """What a column is by its name: a key of `_ROLES`; units, brackets, case and blanks do not matter."""
    text = unicodedata.normalize("NFKC", str(name)).strip("\ufeff\"' \t").lower()
    text = re.sub(r"[(\[].*?[)\]]", "", text).strip(" _.:")
    spellings = {text.replace(" ", "_"), _UNITS.sub("", text).replace(" ", "_")}
    return next((role for role, names in _ROLES.items() if not spellings.isdisjoint(names)), None)


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


# From text to degrees

_SIGNS = str.maketrans(
    {**dict.fromkeys("′’‘´`＇", "'"), **dict.fromkeys("″”“＂", '"'), **dict.fromkeys("º˚度", "°"),
     **dict.fromkeys("−–—", "-"), "分": "'", "秒": '"', "\u00a0": " "}
)  # fmt: skip
_HEMISPHERES = {"北緯": "N", "南緯": "S", "東経": "E", "西経": "W"}
_NUMBER = r"\d+(?:[.,]\d*)?|[.,]\d+"
_DEGREES = re.compile(
    rf"(?P<before>[NSEWnsew])?\s*(?P<sign>[+-])?\s*(?P<d>{_NUMBER})"
    rf"(?:(?:\s*(?:°|deg|d|:|-)\s*|\s+)(?P<m>{_NUMBER})"
    rf"(?:(?:\s*(?:'|min|m|:|-)\s*|\s+)(?P<s>{_NUMBER})\s*(?:\"|''|sec|(?P<unit>s))?|\s*(?:'|min|m))?"
    rf"|\s*(?:°|deg|d))?\s*(?P<after>[NSEWnsew])?"
)


def degrees(text: str, letters: str = "NSEW") -> float:
    """Degrees of one value as people write it: ``60.17``, ``60,17``, ``60.17N``, ``S 33.9``, ``60°10′13.8″N``,
    ``60 10 13.8 N``, ``60d10m13.8s``, ``北緯35度41分``; NaN for nothing. `letters` are the hemispheres that it may
    name.

    Raises ValueError for anything else.
    """
    text = unicodedata.normalize("NFKC", text.translate(_SIGNS)).strip()
    if text.lower() in EMPTY:
        return float("nan")
    text = re.sub("^(北緯|南緯|東経|西経)", lambda found: _HEMISPHERES[found[0]], text)
    found = _DEGREES.fullmatch(text)
    if not found:
        raise ValueError(text)
    d, m, s = ((found[part] or "").replace(",", ".") for part in ("d", "m", "s"))
    before, after = (found["before"] or "").upper(), (found["after"] or "").upper()
    if found["unit"] and not re.search("[dm]", text) and not before and not after:
        after = "S"  # 33 52 10 s: south
    if (m and "." in d) or (s and "." in m) or float(m or 0) >= 60 or float(s or 0) >= 60 or (before and after):
        raise ValueError(text)
    hemisphere = before or after
    if hemisphere and (hemisphere not in letters or (found["sign"] == "-" and hemisphere in "NE")):
        raise ValueError(text)
    value = float(d) + float(m or 0) / 60 + float(s or 0) / 3600
    return -value if found["sign"] == "-" or hemisphere in ("S", "W") else value


# From shapes to points


def points_inside(shape: Any, samples: int) -> NDArray[np.float64]:
    """Points (n, 2) of longitude and latitude on a regular grid inside polygons, or along lines; points themselves.

    There are about `samples`, at least one; none for a shape that is empty. The grid depends on the shape alone.
    """
    import shapely

    if shape is None or shape.is_empty:
        return np.zeros((0, 2))
    parts = _simple(shape)
    dimension = max(shapely.get_dimensions(part) for part in parts)
    parts = [part for part in parts if shapely.get_dimensions(part) == dimension]
    if dimension == 0:
        return np.array([(part.x, part.y) for part in parts])
    south, north = (f(part.bounds[side] for part in parts) for f, side in ((min, 1), (max, 3)))
    narrow = max(0.01, float(np.cos(np.radians((south + north) / 2))))  # a degree of longitude in those of latitude
    if dimension == 1:
        lines = [shapely.transform(part, lambda at: at * (narrow, 1)) for part in parts]
        step = sum(line.length for line in lines) / samples
        along = [
            shapely.line_interpolate_point(line, (np.arange(n) + 0.5) / n, normalized=True)
            for line in lines if (n := round(line.length / step) if step else 0)
        ] or [np.array([shapely.Point(lines[0].coords[0])])]  # fmt: skip
        points = np.concatenate(along)
        return np.column_stack([shapely.get_x(points) / narrow, shapely.get_y(points)])
    step = float(np.sqrt(sum(part.area for part in parts) * narrow / samples))
    for _ in range(12):  # finer for what is thin
        if not step:
            break
        points = np.concatenate([_grid(part, step / narrow, step) for part in parts])
        if len(points) >= max(1, samples // 2):
            return points
        step /= 1.3
    middle = max(parts, key=lambda part: float(part.area)).representative_point()
    return np.array([(middle.x, middle.y)] if not middle.is_empty else []).reshape(-1, 2)


def _simple(shape: Any) -> list[Any]:
    """The points, lines and polygons that a shape consists of, empty ones left out."""
    import shapely

    parts = np.array([shape])
    while (shapely.get_type_id(parts) > 3).any():  # however deep collections lie in one another
        parts = shapely.get_parts(parts)
    return list(parts[~shapely.is_empty(parts)])


def _grid(polygon: Any, dx: float, dy: float) -> NDArray[np.float64]:
    import shapely

    west, south, east, north = polygon.bounds
    if (east - west) / dx * ((north - south) / dy) > 1e6:
        return np.zeros((0, 2))
    xs = (np.arange(np.floor(west / dx), np.ceil(east / dx)) + 0.5) * dx
    ys = (np.arange(np.floor(south / dy), np.ceil(north / dy)) + 0.5) * dy
    x, y = (values.ravel() for values in np.meshgrid(xs, ys))
    shapely.prepare(polygon)
    kept = shapely.contains_xy(polygon, x, y)
    return np.column_stack([x[kept], y[kept]])


# From a file to a table


def read_table(path: str | Path) -> pd.DataFrame:
    """The table in a file, its columns as they are there; a GeoDataFrame where it has a geometry."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        raise InputError(f"{path}: a folder, not a table")
    ending = path.suffix.lower()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="openpyxl|pyogrio|geopandas")  # of styles, of fields' types
            if ending in (".parquet", ".pq", ".geoparquet"):
                return _read_parquet(path)
            if ending in GEOGRAPHIC:
                return _read_geographic(path)
            if ending == ".xls":
                raise InputError(f"{path}: a workbook of an old Excel; save it as .xlsx or CSV")
            data = None if ending in (".xlsx", ".xlsm") else _unpacked(path)
            return _read_excel(path) if data is None else _read_text(path, data)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # whatever a library finds wrong with a file
        why = "cut short or damaged" if isinstance(error, IndexError) else first_line(error)
        raise InputError(f"{path}: not a readable table ({why})") from None


def _say(path: Path, message: str) -> None:
    warnings.warn(f"{path}: {message}", InputWarning, stacklevel=5)


def _read_parquet(path: Path) -> pd.DataFrame:
    with pq.ParquetFile(path) as file:
        _check_size(path, 4 * file.metadata.num_rows * file.metadata.num_columns)
        if b"geo" in (file.schema_arrow.metadata or {}):
            geopandas = needed("geopandas", f"{path}: GeoParquet", "selm[maps]")
            table = geopandas.read_parquet(path)
            return table if isinstance(table.index, pd.RangeIndex) else table.reset_index()
        # Arrow's types: whole numbers with gaps stay whole numbers
        return file.read().to_pandas(ignore_metadata=True, types_mapper=pd.ArrowDtype)


def _read_geographic(path: Path) -> pd.DataFrame:
    geopandas = needed("geopandas", f"{path}: {path.suffix.lower()}", "selm[maps]")
    with path.open("rb") as file:
        check_begins(path, file, path.suffix.lower())
    if path.suffix.lower() == ".gpkg":
        layers = geopandas.list_layers(path)["name"].tolist()
        if len(layers) > 1:
            _say(path, f"its layer {layers[0]} is read, not {', '.join(layers[1:])}")
        return geopandas.read_file(path, layer=layers[0] if layers else None)
    return geopandas.read_file(path)


def _read_excel(path: Path) -> pd.DataFrame:
    needed("openpyxl", f"{path}: an Excel workbook", "openpyxl")
    full: dict[str, pd.DataFrame] = {}
    with zipfile.ZipFile(path) as archive:
        _check_size(path, sum(info.file_size for info in archive.infolist()))
    with pd.ExcelFile(path, engine="openpyxl") as book:
        for name in map(str, book.sheet_names):  # until one has coordinates
            if len(cells := book.parse(name, header=None, dtype=object)):
                full[name] = _headed(cells)
                if _located(full[name].columns):
                    full = {name: full[name]}
                    break
        if not full:
            raise InputError(f"{path}: the file is empty")
        read, table = next(iter(full.items()))
        if others := [str(name) for name in book.sheet_names if str(name) != read]:
            _say(path, f"its sheet {read} is read, not {', '.join(others)}")
    return table.infer_objects()


def _headed(cells: pd.DataFrame) -> pd.DataFrame:
    """A table whose first row is its columns' names; they may repeat or be empty."""
    table = cells.iloc[1:].reset_index(drop=True)
    table.columns = pd.Index(["" if pd.isna(name) else str(name) for name in cells.iloc[0]], dtype=object)
    return table


def _largest(path: Path) -> int:
    return max(UNPACKED_BYTES, UNPACKED_RATIO * path.stat().st_size)


def _check_size(path: Path, unpacked: int) -> None:
    if unpacked > _largest(path):
        raise InputError(f"{path}: unpacks to more than {_largest(path) >> 20} MiB; unpack it first, if it is meant")


def _unpacked(path: Path) -> bytes | None:
    """The bytes of a table that may be packed, by what they begin with; None for a workbook of Excel."""

    def read(file: Any) -> bytes:
        data: bytes = file.read(_largest(path) + 1)
        _check_size(path, len(data))
        return data

    with path.open("rb") as file:
        head = file.read(4)
        file.seek(0)
        if head[:2] == b"\x1f\x8b":
            return read(gzip.GzipFile(fileobj=file))
        if head[:3] == b"BZh":
            return read(bz2.BZ2File(file))
        if head != b"PK\x03\x04":
            return file.read()
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/") and "__MACOSX" not in name]
            if "xl/workbook.xml" in names:
                return None
            if len(names) != 1:
                raise InputError(f"{path}: holds {len(names)} files; one table is wanted")
            return read(archive.open(names[0]))


def _encoding(path: Path, data: bytes) -> str:
    """How a text is encoded; says so where it is not UTF-8. CP932 is seen by bytes that no Latin text has."""
    head = data[:4096]
    unreadable = InputError(f"{path}: not a table as text (binary, or cut short)")
    known = ""
    if data.startswith(codecs.BOM_UTF8):
        known = "utf-8-sig"
    elif data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        known = "utf-16"
    elif b"\0" in head:
        zeros = head[0::2].count(0), head[1::2].count(0)
        if max(zeros) < len(head) // 8 or min(zeros) > len(head) // 16:
            raise unreadable
        known = "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    for name in (known,) if known else ("utf-8", "cp932", "cp1252", "latin-1"):
        try:
            text = data.decode(name)
        except UnicodeDecodeError:
            continue
        if re.search(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]", text[:4096]):
            raise unreadable
        if name == "cp932":
            values = np.frombuffer(data, np.uint8)
            if 4 * ((values >= 0x81) & (values <= 0x9F)).sum() < (values > 0x7F).sum():
                continue
        if not name.startswith("utf-8"):
            shown = {"cp932": "CP932 (Shift JIS)", "cp1252": "Windows-1252 (Latin-1)"}.get(name, name.upper())
            _say(path, f"read as {shown}, since it is not UTF-8")
        return name
    raise unreadable


def _read_text(path: Path, data: bytes) -> pd.DataFrame:
    if not data.strip():
        raise InputError(f"{path}: the file is empty")
    encoding = _encoding(path, data)
    decoder = codecs.getincrementaldecoder(encoding)()
    lines = io.StringIO(decoder.decode(data[:65536]), newline=None)
    skipped, separator = 0, None
    start = next((line for line in lines if line.strip()), "")
    if found := re.fullmatch(r'"?sep=(.)"?\s*', start, re.IGNORECASE):
        skipped, separator = 1, found[1]
        start = next((line for line in lines if line.strip()), "")
    rest = [start, *lines]
    separator = separator or _separator(rest)
    names = start.split() if separator == _SPACES else next(csv.reader(rest, delimiter=separator), [])
    try:
        cells = pd.read_csv(
            io.BytesIO(data), sep=separator, encoding=encoding, header=None, skiprows=skipped, dtype=str,
            keep_default_na=False, index_col=False, skip_blank_lines=len(names) > 1,
            skipinitialspace=any(name.startswith(" ") for name in names[1:]),
        )  # fmt: skip
    except pd.errors.EmptyDataError:
        raise InputError(f"{path}: the file is empty") from None
    except pd.errors.ParserError as error:
        if found := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error)):
            raise InputError(f"{path}: line {found[2]} has {found[3]} fields, the header names {found[1]}") from None
        raise
    table = _headed(cells)
    table.attrs[AS_TEXT] = True
    return table


def _located(names: Iterable[object]) -> bool:
    """Whether columns of these names may say where rows lie."""
    roles = {_role(name) for name in names}
    return bool({"lat", "lon"} <= roles or {"x", "y"} <= roles or roles & {"h3", "geometry"})


def _separator(lines: Iterable[str]) -> str:
    """What separates the fields of a header: that by which coordinates are found, else the most frequent."""
    lines = list(lines)

    def score(separator: str) -> tuple[bool, int]:
        fields = lines[0].split() if separator == _SPACES else next(csv.reader(lines, delimiter=separator), [])
        return _located(fields), len(fields)

    best = max(",;\t|", key=score)
    return _SPACES if not score(best)[0] and score(_SPACES)[0] else best

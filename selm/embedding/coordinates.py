"""Users' tables of coordinates."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from selm.errors import InputError

_LAT, _LON = ("lat", "latitude"), ("lon", "lng", "long", "longitude")


def read_coordinates(path: str | Path) -> pd.DataFrame:
    """A user's table of coordinates: CSV (comma, semicolon or tab; UTF-8) or parquet, with its other columns kept.

    The coordinate columns may be called lat or latitude and lon, lng, long or longitude in any case, and become `lat`
    and `lon`, float64 degrees WGS84, in front. Raises InputError naming the file and the column or row (data rows count
    from 1) for a missing or repeated column, text, missing numbers, or coordinates that are swapped or out of range.
    """
    path = Path(path)
    table = _read_table(path)
    lat_name, lon_name = _column(path, table, _LAT), _column(path, table, _LON)
    if not len(table):
        raise InputError(f"{path}: no rows")
    lat, lon = _numbers(path, table[lat_name]), _numbers(path, table[lon_name])
    bad = (np.abs(lat) > 90) | (np.abs(lon) > 180)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        a, o = lat[row], lon[row]
        if abs(a) <= 180 and abs(o) <= 90:
            raise InputError(f"{path}: row {row + 1}: {lat_name} {a:g}, {lon_name} {o:g} look swapped")
        name, value, limit = (lat_name, a, 90) if abs(a) > 90 else (lon_name, o, 180)
        raise InputError(f"{path}: row {row + 1}, column {name}: {value:g} is outside -{limit}..{limit}")
    others = table.drop(columns=[lat_name, lon_name])
    taken = [name for name in others.columns if name in ("lat", "lon")]
    if taken:
        raise InputError(f"{path}: column {taken[0]} repeats a coordinate column")
    return pd.concat([pd.DataFrame({"lat": lat, "lon": lon}), others.reset_index(drop=True)], axis=1)


def _read_table(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        raise InputError(f"{path}: a folder, not a table")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return pd.read_parquet(path)
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline()
        separator = max(",;\t", key=header.count)
        names = [name.strip().strip('"').lower() for name in header.split(separator)]
        for name in _LAT + _LON:
            if names.count(name) > 1:
                raise InputError(f"{path}: column {name} appears {names.count(name)} times")
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
            return pd.read_csv(
                path, sep=separator, encoding="utf-8-sig", dtype=str, keep_default_na=False, index_col=False
            )
    except pd.errors.ParserWarning:
        raise InputError(f"{path}: rows have more fields than the header names") from None
    except InputError:
        raise
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; save the table as CSV UTF-8") from None
    except pd.errors.EmptyDataError:
        raise InputError(f"{path}: the file is empty") from None
    except (pd.errors.ParserError, OSError, ValueError) as error:  # pyarrow's errors are ValueErrors or OSErrors
        raise InputError(f"{path}: not a readable table ({str(error).strip().splitlines()[0]})") from None


def _column(path: Path, table: pd.DataFrame, names: tuple[str, ...]) -> str:
    found = [name for name in table.columns if str(name).strip().lower() in names]
    if not found:
        there = ", ".join(map(str, table.columns[:6])) + (" …" if len(table.columns) > 6 else "")
        raise InputError(f"{path}: no column {' or '.join(names)} (has: {there or 'none'})")
    if len(found) > 1:
        raise InputError(f"{path}: columns {' and '.join(map(str, found))} could both be {names[0]}")
    return found[0]


def _numbers(path: Path, column: pd.Series[Any]) -> NDArray[np.float64]:
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    bad = ~np.isfinite(numbers)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        value = column.iloc[row]
        empty = bool(pd.isna(value)) or str(value).strip().lower() in ("", "nan", "na", "null", "none")
        what = "no value" if empty else f"'{str(value)[:40]}' is not a coordinate"
        raise InputError(f"{path}: row {row + 1}, column {column.name}: {what}")
    return numbers

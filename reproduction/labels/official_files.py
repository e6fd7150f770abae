"""Japan's official vector files as they are delivered: zips with GeoJSON, shapefiles or bare dBase tables inside.

Their oddities, all met in real files: text in CP932 without a .cpg that says so, no .prj (then degrees of JGD2000 or
JGD2011, which agree with WGS84 within a metre or two), the same layer twice in folders ``Shift-JIS`` and ``UTF-8``,
shapefiles whose attributes were left out beside a GeoJSON that has them, and nationwide zips that hold other zips.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selm.errors import InputError, first_line
from selm.files import check_begins

if TYPE_CHECKING:
    import geopandas
    import pandas as pd

NOTHING = ("_", "false", "None", "nan")  # what the editions write for no value
JAPAN = (122.0, 20.0, 154.0, 46.0)  # west, south, east, north


def find_member(path: Path, what: str, suffixes: Sequence[str], kind: str) -> str:
    """Name of the file to read inside a zip, '' where `path` is such a file itself.

    Suffixes are tried in their order; `what` is part of the file's name ("L01"); folders called UTF-8 come before
    Shift-JIS. Raises InputError, calling the files a `kind`, if there is none.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.suffix.lower() in suffixes:
        return ""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if "__MACOSX" not in name and not name.endswith("/")]
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{path}: not a whole zip file ({error})") from None
    for suffix in suffixes:
        found = [name for name in names if name.lower().endswith(suffix) and what in name]
        if found:
            return min(found, key=lambda name: ("utf" not in name.lower() and "jis" in name.lower(), name))
    inner = [name for name in names if name.lower().endswith(".zip")]
    if inner:
        raise InputError(f"{path}: holds other zips ({inner[0]} …); unpack it and give one of them")
    raise InputError(f"{path}: holds no {kind} (has: {', '.join(names[:4]) or 'nothing'})")


def read_table(
    path: Path, member: str, columns: Iterable[str] | None = None, *, geometry: bool = True
) -> geopandas.GeoDataFrame | pd.DataFrame:
    """The features of a file, or of a zip's `member`, with those of `columns` that it has; degrees where it says so.

    Raises InputError naming the file if it cannot be read, or if its coordinates are no degrees and it says nothing.
    """
    import pyogrio
    import shapely

    try:
        with zipfile.ZipFile(path).open(member) if member else path.open("rb") as file:
            check_begins(f"{path}: {member}" if member else path, file, Path(member or path).suffix.lower())
    except InputError:
        raise
    except Exception as error:  # whatever zipfile finds wrong with a member
        raise InputError(f"{path}: {member or path.name} cannot be read ({first_line(error)})") from None
    location = f"/vsizip/{{{path.resolve()}}}/{member}" if member else str(path)
    encoding = _encoding(path, member)
    name = member or path.name
    try:
        if columns is not None:
            wanted = set(columns)
            columns = [field for field in pyogrio.read_info(location, encoding=encoding)["fields"] if field in wanted]
        table = pyogrio.read_dataframe(location, encoding=encoding, columns=columns, read_geometry=geometry)
    except (
        pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, shapely.errors.ShapelyError, UnicodeDecodeError,
    ) as error:  # fmt: skip
        raise InputError(f"{path}: {name} cannot be read ({first_line(error)})") from None
    if not geometry:
        return table
    if table.crs is not None and not table.crs.is_geographic:
        return table.to_crs("EPSG:4326")
    bounds = np.asarray(table.total_bounds, np.float64)
    if table.crs is None and len(table) and np.isfinite(bounds).all() and (np.abs(bounds) > 180).any():
        raise InputError(f"{path}: {name} has no .prj and its coordinates are no degrees; download it in degrees")
    return table


def _encoding(path: Path, member: str) -> str | None:
    """None where the file says itself what its text is in."""
    name = member or str(path)
    if not name.lower().endswith((".shp", ".dbf")):
        return None
    if member:
        with zipfile.ZipFile(path) as archive:
            said = member.rsplit(".", 1)[0].lower() + ".cpg" in {other.lower() for other in archive.namelist()}
    else:
        said = path.with_suffix(".cpg").exists()
    if said:
        return None
    return "utf-8" if "utf-8" in name.lower() else "cp932"


def text_of(column: pd.Series[Any]) -> pd.Series[str]:
    """Attributes as stripped text; '' for what the editions write for nothing."""
    text = column.astype(object).where(column.notna(), "").map(str).str.strip()
    return text.where(~text.isin(NOTHING), "")


def code_of(column: pd.Series[Any]) -> pd.Series[str]:
    """Codes as text, also where a file has them as numbers (``1.0`` is ``1``)."""
    return text_of(column).str.removesuffix(".0")

"""Land use on squares of 100 m: MLIT's National Land Numerical Information L03-b, likely the paper's 13 classes.

One zip a primary mesh (80 km), with a dBase table of up to 640,000 squares and a shapefile of their outlines that is
twenty times as large. Only the table is read: a square's place is its code's. Codes are text (``0100``); tables that
went through a spreadsheet have them as numbers, and the edition of 2014 has Japanese field names.
"""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reproduction.labels.official_files import code_of, find_member, read_table
from selm.errors import InputError

# Classes of the editions since 2006.
LAND_USE_MESH: dict[str, str] = {
    "0100": "paddy", "0200": "field", "0500": "forest", "0600": "waste land", "0700": "building", "0901": "road",
    "0902": "railway", "1000": "other", "1100": "water", "1400": "beach", "1500": "sea", "1600": "golf course",
    "0000": "outside the analysis",
}  # fmt: skip
LAND_USE_NAMES = tuple(LAND_USE_MESH.values())
_CODES = {code: number for number, code in enumerate(LAND_USE_MESH)}
_MESH, _CLASS = ("L03b_001", "メッシュ"), ("L03b_002", "土地利用種")
_ROWS, _COLUMNS = 1200, 800  # squares a degree of latitude (×2/3: 800 a primary mesh) and of longitude


def read_l03b(path: str | Path) -> pd.DataFrame:
    """The squares of an L03-b file: the zip as downloaded, or its .dbf, .geojson or .shp.

    Columns: `lat lon` float64, the centre (JGD2000 or JGD2011); `land_use` int64 code into `LAND_USE_NAMES`; `mesh`
    str, the ten digits. In the file's order. Raises InputError naming the file, and the row and field at fault.
    """
    path = Path(path)
    member = find_member(path, "L03-b", (".dbf", ".geojson", ".shp"), "L03-b table")
    table = _table(path, member)
    mesh_field, class_field = _field(path, table, _MESH), _field(path, table, _CLASS)
    if not len(table):
        raise InputError(f"{path}: no squares in {member or path.name}")
    mesh = code_of(table[mesh_field]).to_numpy(object)
    lat, lon = mesh_centres(mesh, f"{path}: ", mesh_field)
    code = code_of(table[class_field]).str.zfill(4)
    land_use = code.map(_CODES)
    if land_use.isna().any():
        row = int(np.flatnonzero(land_use.isna())[0])
        value = table[class_field].iloc[row]
        hint = "; editions before 2006 have other classes" if len(str(value).strip()) == 1 else ""
        raise InputError(f"{path}: row {row + 1}, field {class_field}: '{value}' is no class of L03-b{hint}")
    return pd.DataFrame({"lat": lat, "lon": lon, "land_use": land_use.astype(np.int64), "mesh": mesh})


def _table(path: Path, member: str) -> pd.DataFrame:
    if not member.lower().endswith(".dbf"):
        return read_table(path, member, (*_MESH, *_CLASS), geometry=False)
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / Path(member).name  # beside its shapefile, GDAL would open that as well
        try:
            alone.write_bytes(archive.read(member))
        except (zipfile.BadZipFile, OSError) as error:
            raise InputError(f"{path}: {member} cannot be read ({error})") from None
        try:
            return read_table(alone, "", (*_MESH, *_CLASS), geometry=False)
        except InputError as error:
            raise InputError(f"{path}: {str(error).removeprefix(f'{alone}: ')}") from None


def _field(path: Path, table: pd.DataFrame, names: tuple[str, ...]) -> str:
    for name in names:
        if name in table.columns:
            return name
    raise InputError(f"{path}: field {names[0]} is missing (nor is there {names[1]})")


def mesh_centres(
    codes: NDArray[np.object_], where: str = "", field: str = "mesh"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Latitudes and longitudes, float64 (N,), of the centres of 100-m squares by their digits ``ab cd e f g h i j``.

    ``lat = ab / 1.5 + e / 12 + g / 120 + i / 1200``, ``lon = 100 + cd + f / 8 + h / 80 + j / 800`` are the south-west
    corner. Raises InputError for the first that is no such code.
    """
    text = np.asarray(codes, dtype=np.str_)
    good = (np.char.str_len(text) == 10) & np.char.isdigit(text)
    digits = np.where(good, text, "0" * 10)
    digits = np.frombuffer(np.ascontiguousarray(digits.astype("S10")), np.uint8).reshape(-1, 10).astype(np.int64) - 48
    ab, cd = digits[:, 0] * 10 + digits[:, 1], digits[:, 2] * 10 + digits[:, 3]
    e, f, g, h, i, j = digits[:, 4:].T
    good &= (e < 8) & (f < 8)
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        raise InputError(f"{where}row {row + 1}, field {field}: '{codes[row]}' is not a mesh code of ten digits")
    south = ab * 800 + e * 100 + g * 10 + i  # in squares: 1/1200 degree
    west = cd * 800 + f * 100 + h * 10 + j  # 1/800 degree, from 100 E
    return (south + 0.5) / _ROWS, 100 + (west + 0.5) / _COLUMNS

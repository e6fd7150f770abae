"""Use districts (用途地域) of MLIT's National Land Numerical Information A29.

`A29_004` is the district's code and `A29_005` its name. Codes 1 to 12 are the same in all editions; garden residential
(田園住居地域, since 2018) is 21 in some and 13 in others, and 99 is unknown. So the name decides where it is one of
the planning law's, and the code elsewhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reproduction.labels.area_type import NO_ZONE, ZONES
from reproduction.labels.official_files import code_of, find_member, read_table, text_of
from selm.errors import InputError, first_line

if TYPE_CHECKING:
    import geopandas

_CODE, _NAME = "A29_004", "A29_005"
_OTHER_NAME = "用途地域"  # what tables made from A29 call it
_GARDEN = ZONES.index(next(zone for zone in ZONES if zone[0] == "2低専"))  # its rules are those of this one
_BY_NAME = {name: code for code, (_, name, _) in enumerate(ZONES) if name} | {"田園住居地域": _GARDEN}
_BY_CODE = {str(number): number - 1 for number in range(1, 13)} | {"13": _GARDEN, "21": _GARDEN, "99": NO_ZONE}


def read_a29(path: str | Path) -> geopandas.GeoDataFrame:
    """The use districts of an A29 file: the zip as downloaded, its GeoJSON or shapefile, or GeoParquet made from it.

    Columns: `zone`, int64 code into `reproduction.labels.area_type.ZONES`; `name` as the file has it; `geometry`,
    degrees (JGD2000 or JGD2011, which agree with WGS84 within a metre or two). Unknown districts (code 99, or no name)
    are `NO_ZONE`. Raises InputError naming the file, and the row and field of a code or name that means nothing.
    """
    import geopandas as gpd
    import pyarrow

    path = Path(path)
    if path.suffix == ".parquet":
        if not path.exists():
            raise InputError(f"{path}: no such file")
        try:
            table = gpd.read_parquet(path)
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise InputError(f"{path}: not a readable table of districts ({first_line(error)})") from None
    else:
        member = find_member(path, "A29", (".geojson", ".shp"), "A29 GeoJSON or shapefile")
        table = read_table(path, member, (_CODE, _NAME))
    named = _NAME if _NAME in table else _OTHER_NAME
    if _CODE not in table and named not in table:
        raise InputError(f"{path}: fields {_CODE} and {_NAME} are missing")
    if not len(table):
        raise InputError(f"{path}: no districts")
    empty = np.full(len(table), "")
    names = text_of(table[named]).to_numpy() if named in table else empty
    codes = code_of(table[_CODE]).to_numpy() if _CODE in table else empty
    zone = np.empty(len(table), np.int64)
    for row, (code, name) in enumerate(zip(codes, names, strict=True)):
        if name in _BY_NAME:
            zone[row] = _BY_NAME[name]
        elif code in _BY_CODE:
            zone[row] = _BY_CODE[code]
        elif not code and (not name or name == "不明"):
            zone[row] = NO_ZONE
        else:
            field, value = (_CODE, code) if code else (named, name)
            raise InputError(f"{path}: row {row + 1}, field {field}: '{value}' is no use district")
    shape = table.geometry.geom_type.isin(["Polygon", "MultiPolygon"]).to_numpy()
    if not shape.all():
        raise InputError(f"{path}: row {int(np.flatnonzero(~shape)[0]) + 1} is not a polygon")
    return gpd.GeoDataFrame({"zone": zone, "name": names}, geometry=table.geometry.to_numpy(), crs="EPSG:4326")

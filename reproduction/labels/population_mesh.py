"""Population on the squares of MLIT's estimates (500 m, 1 km): people, divided by the square's area at its latitude.

Two generations: fields ``POP2010`` … ``POP2050`` in the edition of 2017, ``PTN_2020`` … ``PTN_2070`` since 2024.
Numbers are not whole. A square that lies in several municipalities comes once for each (`SHICODE`) and is summed.
Outlines are made from the squares' codes (JIS X 0410).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reproduction.labels.mesh import mesh_bounds
from reproduction.labels.official_files import code_of, find_member, read_table
from selm.errors import InputError

if TYPE_CHECKING:
    import geopandas

_MESH = "MESH_ID"
_YEAR = re.compile(r"(?:POP|PTN_)(\d{4})")


def read_population_mesh(path: str | Path) -> geopandas.GeoDataFrame:
    """The squares of a population mesh with `density` (float64, people/km²) and `people`, as `population.density_at`
    takes them; one row a square, sorted by code.

    `path` is the zip as downloaded, or its GeoJSON or shapefile. The year is the first in the file, that of the census
    that the estimates start from. Raises InputError naming the file, and the row and field at fault.
    """
    import geopandas as gpd
    import shapely

    path = Path(path)
    member = find_member(path, "mesh" if path.suffix.lower() == ".zip" else "", (".geojson", ".shp"),
                         "mesh GeoJSON or shapefile")  # fmt: skip
    table = read_table(path, member, geometry=False)
    years = {int(found[1]): name for name in table.columns if (found := _YEAR.fullmatch(str(name)))}
    if _MESH not in table:
        raise InputError(f"{path}: field {_MESH} is missing")
    if not years:
        raise InputError(f"{path}: no field of people (POP2010 … or PTN_2020 …)")
    field = years[min(years)]
    people = pd.to_numeric(table[field], errors="coerce").to_numpy(np.float64)
    bad = ~(people >= 0)  # NaN too
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(f"{path}: row {row + 1}, field {field}: {table[field].iloc[row]} cannot be people")
    codes = code_of(table[_MESH])
    summed = pd.Series(people).groupby(codes.to_numpy()).sum().sort_index()
    boxes = []
    for code in summed.index:
        try:
            boxes.append(mesh_bounds(code))
        except InputError as error:
            row = int(np.flatnonzero(codes.to_numpy() == code)[0])
            raise InputError(f"{path}: row {row + 1}, field {_MESH}: {error}") from None
    west, south, east, north = np.array(boxes).T
    density = summed.to_numpy() / _area_km2(west, south, east, north)
    outlines = shapely.box(west, south, east, north)
    table = {"density": density, "people": summed.to_numpy(), "mesh": summed.index.to_numpy(str)}
    return gpd.GeoDataFrame(table, geometry=outlines, crs="EPSG:4326")


def _area_km2(
    west: NDArray[np.float64], south: NDArray[np.float64], east: NDArray[np.float64], north: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Areas of boxes on the GRS80 ellipsoid, km² (Snyder 1987, eq. 3-12, integrated over longitude)."""
    a, e2 = 6_378_137.0, 0.006_694_380_022_903_416
    e = np.sqrt(e2)

    def q(lat: NDArray[np.float64]) -> NDArray[np.float64]:
        sine = np.sin(np.radians(lat))
        return (1 - e2) * (sine / (1 - e2 * sine**2) + np.arctanh(e * sine) / e)

    return a**2 / 2 * np.radians(east - west) * (q(north) - q(south)) / 1e6

"""Population density of the census area that holds a coordinate, and its classes.

e-Stat publishes the census by small areas (cho-me) with their outlines: `JINKO` people on `AREA` m². The paper groups
densities into 30 classes by k-means (section 4); here that is exact one-dimensional k-means on log density.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reproduction.labels.official_files import find_member, read_table
from selm.errors import InputError, first_line

if TYPE_CHECKING:
    import geopandas

_POLYGONAL = ("Polygon", "MultiPolygon")


def read_areas(path: str | Path) -> geopandas.GeoDataFrame:
    """Census areas with `density` (float64, people/km²), `municipality` (the five digits that `KEY_CODE` begins with;
    "" without it) and their outlines: an e-Stat zip or shapefile, or GeoParquet.

    Needs the fields `JINKO` (people) and `AREA` (m²) and geographic coordinates (JGD2000, JGD2011 or WGS84, which agree
    within a metre or two). Raises InputError naming the file and the field or row that cannot be used.
    """
    import geopandas as gpd
    import pyarrow
    import shapely

    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file")
    try:
        if path.suffix == ".parquet":
            areas = gpd.read_parquet(path)
        else:
            member = find_member(path, "", (".geojson", ".shp"), "shapefile")
            areas = read_table(path, member, ("JINKO", "AREA", "KEY_CODE"))
    except InputError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable table of areas ({first_line(error)})") from None
    for field in ("JINKO", "AREA"):
        if field not in areas.columns:
            raise InputError(f"{path}: field {field} is missing (expected JINKO people and AREA m²)")
    if areas.crs is not None and not areas.crs.is_geographic:
        areas = areas.to_crs("EPSG:4326")
    people, size = areas["JINKO"].to_numpy(np.float64), areas["AREA"].to_numpy(np.float64)
    for field, good in (("JINKO", people >= 0), ("AREA", size > 0)):
        if not good.all():
            row = int(np.flatnonzero(~good)[0])
            raise InputError(f"{path}: row {row + 1}, field {field}: {areas[field].iloc[row]} cannot be used")
    outlines = areas.geometry.to_numpy().copy()
    for row in np.flatnonzero(~areas.geom_type.isin(_POLYGONAL).to_numpy()).tolist():  # polygons with stray lines
        parts = shapely.get_parts(outlines[row])
        outlines[row] = shapely.union_all([part for part in parts if part.geom_type in _POLYGONAL])
    code = areas["KEY_CODE"].astype(str).str[:5] if "KEY_CODE" in areas else [""] * len(areas)
    columns = {"density": people / size * 1e6, "municipality": np.asarray(code, str)}
    return gpd.GeoDataFrame(columns, geometry=outlines, crs="EPSG:4326")


def density_at(lat: ArrayLike, lon: ArrayLike, areas: geopandas.GeoDataFrame) -> NDArray[np.float64]:
    """Density, people/km², of the area of `read_areas` that holds each of N coordinates; NaN where none does.

    float64 (N,).
    """
    return np.append(areas["density"].to_numpy(np.float64), np.nan)[_area_at(lat, lon, areas)]


def municipality_at(lat: ArrayLike, lon: ArrayLike, areas: geopandas.GeoDataFrame) -> NDArray[np.str_]:
    """The municipality's code (or, in large cities, the ward's) at each of N coordinates, "" outside all areas; its
    first two digits are the prefecture's. str (N,)."""
    return np.append(areas["municipality"].to_numpy(str), "")[_area_at(lat, lon, areas)]


def _area_at(lat: ArrayLike, lon: ArrayLike, areas: geopandas.GeoDataFrame) -> NDArray[np.int64]:
    """int64 (N,): the area that holds each place, their number where none does.

    Simplified outlines can overlap by metres: there the area that comes first in the table counts.
    """
    import shapely

    places = shapely.points(np.atleast_1d(np.asarray(lon, np.float64)), np.atleast_1d(np.asarray(lat, np.float64)))
    place, area = shapely.STRtree(areas.geometry.to_numpy()).query(places, predicate="intersects")
    first = np.full(len(places), len(areas), np.int64)
    np.minimum.at(first, place, area)
    return first


def density_classes(density: ArrayLike, k: int = 30) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Classes of N densities by k-means on ln(1 + density), sparsest first.

    Returns int64 (N,) classes, -1 where the density is NaN, and the float64 (k,) centres, ascending and on log scale.
    The clustering is optimal, not a local minimum, and so depends on nothing but the densities. With fewer than k
    distinct densities there are as many classes as those.
    """
    log = np.log1p(np.asarray(density, np.float64))
    centres = kmeans_1d(log[np.isfinite(log)], k)
    return assign(density, centres), centres


def assign(density: ArrayLike, centres: NDArray[np.float64]) -> NDArray[np.int64]:
    """int64 (N,): for each density the class of `density_classes` whose centre is nearest; -1 for NaN."""
    log = np.log1p(np.asarray(density, np.float64))
    borders = (centres[1:] + centres[:-1]) / 2
    return np.where(np.isfinite(log), np.searchsorted(borders, log, side="right"), -1).astype(np.int64)


def kmeans_1d(values: ArrayLike, k: int) -> NDArray[np.float64]:
    """Centres, float64 (k,) ascending, of the partition of N numbers into k groups with the least sum of squares.

    Exact, by dynamic programming over the sorted distinct values (Wang and Song, R Journal 3/2, 2011). The best last
    border moves monotonically with the end of the range, so each of the k layers is solved by divide and conquer,
    all ranges of one depth together. O(k n log n). InputError if there are no values.
    """
    x, repeats = np.unique(np.asarray(values, np.float64), return_counts=True)
    n = len(x)
    if n == 0:
        raise InputError("no values to cluster: every density is missing")
    k = min(k, n)
    shifted = x - x.mean()  # keeps the difference of squares exact enough
    ones, sums, squares = (np.concatenate([[0.0], np.cumsum(repeats * shifted**p)]) for p in (0, 1, 2))

    def scatter(start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.float64]:
        """Sum of squared distances from the mean of the values start..end-1."""
        return squares[end] - squares[start] - (sums[end] - sums[start]) ** 2 / (ones[end] - ones[start])

    ends = np.arange(1, n + 1)
    cost = scatter(np.zeros(n, np.int64), ends)  # of the first 1..n values in one group
    borders = np.zeros((k, n), np.int64)  # where the last group starts, for each number of groups and each end
    for group in range(1, k):
        cost, borders[group] = _best_borders(cost, scatter, n, group)
    starts = [n]
    for group in range(k - 1, -1, -1):
        starts.append(int(borders[group, starts[-1] - 1]))
    edges = np.array(starts[::-1])
    return (sums[edges[1:]] - sums[edges[:-1]]) / (ones[edges[1:]] - ones[edges[:-1]]) + x.mean()


def _best_borders(
    previous: NDArray[np.float64],
    scatter: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]],
    n: int,
    group: int,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """One layer: for each end, the least cost of ``group + 1`` groups and where the last of them starts."""
    cost, border = np.full(n, np.inf), np.zeros(n, np.int64)
    # ranges of ends still to be solved, with the least and greatest border that can be best in them
    low, high, least, greatest = (np.array([a]) for a in (group, n - 1, group, n - 1))
    while len(low):
        middle = (low + high) // 2
        width = np.minimum(greatest, middle) - least + 1
        offset = np.concatenate([[0], np.cumsum(width)[:-1]])
        owner = np.repeat(np.arange(len(middle)), width)
        start = np.arange(width.sum()) - offset[owner] + least[owner]
        candidate = previous[start - 1] + scatter(start, middle[owner] + 1)
        best = np.minimum.reduceat(candidate, offset)
        hit = np.flatnonzero(candidate == best[owner])
        chosen = start[hit[np.unique(owner[hit], return_index=True)[1]]]  # the first of equals
        cost[middle], border[middle] = best, chosen
        left, right = low <= middle - 1, middle + 1 <= high
        low, high, least, greatest = (
            np.concatenate([low[left], middle[right] + 1]),
            np.concatenate([middle[left] - 1, high[right]]),
            np.concatenate([least[left], chosen[right]]),
            np.concatenate([chosen[left], greatest[right]]),
        )
    return cost, border

"""Official land prices: the points of MLIT's National Land Numerical Information L01, and prices between them.

L01 (地価公示) publishes, for 1 January of a year, the price of some 26,000 standard lots in yen/m² with their
current use and zoning. A coordinate without a lot takes the inverse-distance mean of the nearest ones in log price
(section 4 of the paper needs a price at every location and does not say how it gets one; this way is ours).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from reproduction.labels.official_files import JAPAN, find_member, read_table, text_of
from selm.errors import InputError
from selm.maps import sphere

if TYPE_CHECKING:
    import geopandas

# Chosen on the pretraining points of Kanto, Nagoya and Kansai, each predicted from the others: error 0.125 of the
# variance with 5 lots (1: 0.168, 3: 0.129, 8: 0.124, 12: 0.127); 98 % of them have another within 2 km (1 km: 91 %).
NEIGHBOURS = 5  # lots that a price between lots is taken from
RADIUS_M = 2_000.0  # none of them further away than this


@dataclass(frozen=True)
class Fields:
    """The codes of the attributes that are read, which change with the edition of the product specification."""

    price: str
    address: str
    current_use: str
    zoning: str
    id: tuple[str, str, str]  # municipality code, kind of lot, serial number


# First year of each layout. 2013's was checked on the official file, the others come from code that reads the files.
LAYOUTS: dict[int, Fields] = {
    1983: Fields("L01_006", "L01_019", "L01_021", "L01_029", ("L01_017", "L01_001", "L01_002")),
    2014: Fields("L01_006", "L01_023", "L01_025", "L01_047", ("L01_021", "L01_001", "L01_002")),
    2022: Fields("L01_006", "L01_024", "L01_027", "L01_050", ("L01_022", "L01_001", "L01_002")),
    2024: Fields("L01_008", "L01_025", "L01_028", "L01_051", ("L01_001", "L01_002", "L01_003")),
}


def fields_of(year: int) -> Fields:
    """The field codes of the edition of `year`; raises InputError before 1983."""
    starts = [start for start in LAYOUTS if start <= year]
    if not starts:
        raise InputError(f"L01 of {year}: editions start in 1983")
    return LAYOUTS[max(starts)]


def read_l01(path: str | Path) -> pd.DataFrame:
    """The points of an official L01 file: the zip as downloaded (nationwide or one prefecture), or its GeoJSON or .shp.

    Columns: `lat lon` float64 (JGD2000/JGD2011, which agree with WGS84 within a metre or two), `price_yen_m2` float64,
    `current_use zoning address id` str (empty where the file says nothing), in the file's order; ``attrs["year"]``.
    Where a zip holds both, GeoJSON is preferred: some years' shapefiles lack attributes. Old files are CP932 without
    .prj. Raises InputError naming the file and the row or field that cannot be used.
    """
    path = Path(path)
    member = find_member(path, "L01", (".geojson", ".shp"), "L01 GeoJSON or shapefile")
    year = _year(path, member)
    fields = fields_of(year)
    codes = [fields.price, fields.address, fields.current_use, fields.zoning, *fields.id]
    table = read_table(path, member, codes)
    if not set(codes) & set(table.columns):
        raise InputError(f"{path}: {member or path.name} has no attributes; take the GeoJSON of the same edition")
    for code in codes:
        if code not in table.columns:
            raise InputError(f"{path}: field {code} is missing (expected in the {year} edition of L01)")
    if not len(table):
        raise InputError(f"{path}: no points in {member or path.name}")
    text = {code: text_of(table[code]) for code in codes}
    lon, lat = _coordinates(path, table)
    points = pd.DataFrame(
        {
            "lat": lat,
            "lon": lon,
            "price_yen_m2": _prices(path, fields.price, text[fields.price]),
            "current_use": text[fields.current_use],
            "zoning": text[fields.zoning],
            "address": text[fields.address],
            "id": text[fields.id[0]] + "-" + text[fields.id[1]] + "-" + text[fields.id[2]],
        }
    )
    points.attrs["year"] = year
    return points


def _year(path: Path, member: str) -> int:
    for name in (Path(member).name, path.name):
        match = re.search(r"L01-(\d{4}|\d{2})", name)
        if match:
            digits = match.group(1)
            year = int(digits)
            return year if len(digits) == 4 else year + (1900 if year >= 83 else 2000)
    raise InputError(f"{path}: the name says no edition (expected L01-YY…, as the official files are called)")


def _coordinates(path: Path, table: geopandas.GeoDataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    west, south, east, north = JAPAN
    point = (table.geom_type == "Point").to_numpy() & ~table.geometry.isna().to_numpy()
    if not point.all():
        raise InputError(f"{path}: row {int(np.flatnonzero(~point)[0]) + 1} is not a point")
    lon, lat = table.geometry.x.to_numpy(), table.geometry.y.to_numpy()
    inside = (lon >= west) & (lon <= east) & (lat >= south) & (lat <= north)
    if not inside.all():
        row = int(np.flatnonzero(~inside)[0])
        raise InputError(f"{path}: row {row + 1} lies at lat {lat[row]}, lon {lon[row]}, outside Japan")
    return lon, lat


def _prices(path: Path, field: str, text: pd.Series[str]) -> NDArray[np.float64]:
    prices = pd.to_numeric(text, errors="coerce").to_numpy(np.float64)
    good = np.isfinite(prices) & (prices > 0)
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        raise InputError(f"{path}: row {row + 1}, field {field}: '{text.iloc[row]}' is not a price in yen/m²")
    return prices


@dataclass(frozen=True)
class PriceScale:
    """Standardises the natural log of prices: ``z = (ln price - mean) / sd``."""

    mean: float
    sd: float

    @classmethod
    def of(cls, price_yen_m2: ArrayLike) -> PriceScale:
        """Mean and (population) standard deviation of the natural log of these prices."""
        log = np.log(np.asarray(price_yen_m2, np.float64))
        return cls(float(log.mean()), float(log.std()))

    def __call__(self, price_yen_m2: ArrayLike) -> NDArray[np.float32]:
        """float32 z of prices; NaN stays NaN."""
        return ((np.log(np.asarray(price_yen_m2, np.float64)) - self.mean) / self.sd).astype(np.float32)


def inverse_distance_mean(
    lat: ArrayLike,
    lon: ArrayLike,
    to_lat: ArrayLike,
    to_lon: ArrayLike,
    values: ArrayLike,
    *,
    k: int = NEIGHBOURS,
    radius_m: float = RADIUS_M,
) -> NDArray[np.float64]:
    """float64 (N,): at N coordinates, the inverse-distance mean of the values of the k nearest of M places.

    Only places within `radius_m` metres count, so fewer than k may; NaN where there is none. Distances are cut off at
    one metre, so that a coordinate on a place takes all but that place's value.
    """
    lat, lon = np.atleast_1d(np.asarray(lat, np.float64)), np.atleast_1d(np.asarray(lon, np.float64))
    values = np.asarray(values, np.float64)
    if not len(values):
        return np.full(len(lat), np.nan)
    distance, index = sphere.nearest_places(lat, lon, to_lat, to_lon, k=k, radius_m=radius_m)
    weight = np.where(np.isfinite(distance), 1.0 / np.maximum(distance, 1.0), 0.0)
    total = weight.sum(1)
    mean = (weight * values[index]).sum(1) / np.where(total > 0, total, 1.0)
    return np.where(total > 0, mean, np.nan)


def interpolate_price(lat: ArrayLike, lon: ArrayLike, points: pd.DataFrame) -> NDArray[np.float64]:
    """Prices, yen/m² float64 (N,), at N coordinates: exp of the inverse-distance mean of ln price (NaN: none near).

    `points` has `lat lon price_yen_m2`; pass only those that may be known: whatever is in it reaches the answer.
    """
    log = np.log(points["price_yen_m2"].to_numpy(np.float64))
    return np.exp(inverse_distance_mean(lat, lon, points["lat"], points["lon"], log))

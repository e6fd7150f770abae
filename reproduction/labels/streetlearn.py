"""StreetLearn's places in the lists of Samano et al. 2020 (*You Are Here*): 5,000 panoramas around a place in New York.

``unionsquare5k.csv`` and ``wallstreet5k.csv`` have no header; a row is ``latitude,longitude,yaw,city``: the panorama's
place, its yaw in whole degrees, and ``manhattan``. Later columns, where there are any, are left out.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd

from selm.errors import InputError
from selm.maps.mercator import check_coordinates

_FIELDS = ("latitude", "longitude", "yaw")


def read_streetlearn(path: str | Path) -> pd.DataFrame:
    """The places of a list: `lat lon` float64 degrees WGS84, `yaw` float64 degrees in 0 … 360, `city` str, in the
    file's order. Raises InputError naming the file, and the row (from 1) and field at fault."""
    path = Path(path)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a readable CSV file ({error})") from None
    if not rows:
        raise InputError(f"{path}: no rows")
    numbers = np.empty((len(rows), len(_FIELDS)))
    for number, row in enumerate(rows, start=1):
        if len(row) < len(_FIELDS):
            raise InputError(f"{path}: row {number} has {len(row)} fields, expected latitude, longitude, yaw, city")
        for column, field in enumerate(_FIELDS):
            try:
                numbers[number - 1, column] = float(row[column])
            except ValueError:
                raise InputError(f"{path}: row {number}, field {field}: '{row[column]}' is not a number") from None
        lat, lon, yaw = numbers[number - 1]
        check_coordinates(lat, lon, f"{path}: row {number}")
        if not 0 <= yaw <= 360:
            raise InputError(f"{path}: row {number}, field yaw: {yaw:g} is outside 0..360")
    cities = [row[3].strip() if len(row) > 3 else "" for row in rows]
    return pd.DataFrame({"lat": numbers[:, 0], "lon": numbers[:, 1], "yaw": numbers[:, 2], "city": cities})

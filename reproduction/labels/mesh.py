"""The Japanese grid square codes of JIS X 0410."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from selm.errors import InputError
from selm.maps.mercator import BBox

# JIS X 0410 grid squares. Sizes in degrees (lat, lon): level 1 about 80 km, 2 about 10 km, 3 about 1 km, 4 about 500 m.
_MESH_LAT = {1: 2 / 3, 2: 1 / 12, 3: 1 / 120, 4: 1 / 240}
_MESH_LON = {1: 1.0, 2: 1 / 8, 3: 1 / 80, 4: 1 / 160}
_MESH_DIGITS = {4: 1, 6: 2, 8: 3, 9: 4}


def mesh_code(lat: ArrayLike, lon: ArrayLike, level: int = 3) -> NDArray[np.str_]:
    """Grid square codes of JIS X 0410 (an array of strings): levels 1, 2, 3, and 4 for the half (500 m) square.

    Digits ab cd e f g h [i]: ab = 1.5 lat, cd = lon - 100, then eighths, tenths and the quarter square
    (1 south-west, 2 south-east, 3 north-west, 4 north-east). Raises InputError outside the grid (20-46 N, 122-154 E).
    """
    if level not in _MESH_LAT:
        raise InputError(f"mesh level {level}: there are {', '.join(map(str, _MESH_LAT))}")
    lat, lon = np.asarray(lat, np.float64), np.asarray(lon, np.float64)
    if not ((lat >= 20) & (lat < 46) & (lon >= 122) & (lon < 154)).all():
        raise InputError("JIS X 0410 codes exist between 20-46 N and 122-154 E only")
    # Integers from here on, in half squares of level 3; the nudge keeps decimal borders such as 35.55 in their square.
    south = np.floor(lat * 240 + 1e-7).astype(np.int64)
    west = np.floor((lon - 100) * 160 + 1e-7).astype(np.int64)
    parts = [south // 160, west // 160]
    widths = [2, 2]
    if level >= 2:
        parts += [south // 20 % 8, west // 20 % 8]
    if level >= 3:
        parts += [south // 2 % 10, west // 2 % 10]
    if level >= 4:
        parts.append(south % 2 * 2 + west % 2 + 1)
    widths += [1] * (len(parts) - 2)
    code = np.zeros_like(south)
    for part, width in zip(parts, widths, strict=True):
        code = code * 10**width + part
    return code.astype(np.str_)


def mesh_bounds(code: str | int) -> BBox:
    """(west, south, east, north) of the grid square with this code, degrees; InputError if it is not a code."""
    text = str(code)
    level = _MESH_DIGITS.get(len(text)) if text.isdigit() else None
    digits = [int(c) for c in text] if level else []
    if not level or max([0, *digits[4:6]]) > 7 or (level == 4 and digits[8] not in (1, 2, 3, 4)):
        raise InputError(f"'{text}' is not a JIS X 0410 mesh code of 4, 6, 8 or 9 digits")
    south, west = int(text[:2]) * 160, int(text[2:4]) * 160  # in half squares of level 3
    if level >= 2:
        south, west = south + digits[4] * 20, west + digits[5] * 20
    if level >= 3:
        south, west = south + digits[6] * 2, west + digits[7] * 2
    if level >= 4:
        south, west = south + (digits[8] - 1) // 2, west + (digits[8] - 1) % 2
    lat, lon = south / 240, 100 + west / 160
    return lon, lat, lon + _MESH_LON[level], lat + _MESH_LAT[level]

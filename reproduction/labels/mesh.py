"""The Japanese grid square codes of JIS X 0410."""

from __future__ import annotations

from selm.errors import InputError
from selm.maps.mercator import BBox

# JIS X 0410 grid squares. Sizes in degrees (lat, lon): level 1 about 80 km, 2 about 10 km, 3 about 1 km, 4 about 500 m.
_MESH_LAT = {1: 2 / 3, 2: 1 / 12, 3: 1 / 120, 4: 1 / 240}
_MESH_LON = {1: 1.0, 2: 1 / 8, 3: 1 / 80, 4: 1 / 160}
_MESH_DIGITS = {4: 1, 6: 2, 8: 3, 9: 4}


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

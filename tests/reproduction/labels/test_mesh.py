"""The grid squares of JIS X 0410 against published codes and the standard's formula."""

from __future__ import annotations

import pytest

from reproduction.labels.mesh import mesh_bounds
from selm.errors import InputError


@pytest.mark.parametrize(
    ("code", "lat", "lon"),
    [
        # Tokyo Station is in 5339-46-11 (Statistics Bureau of Japan); its half squares count from the south-west.
        ("5339", 35.6812, 139.7671),
        ("533946", 35.6812, 139.7671),
        ("53394611", 35.6812, 139.7671),
        ("533946113", 35.6812, 139.7671),
        ("6441", 43.0621, 141.3544),  # Sapporo
        ("3927", 26.2124, 127.6809),  # Naha
    ],
)
def test_squares_of_known_places(code: str, lat: float, lon: float) -> None:
    west, south, east, north = mesh_bounds(code)
    assert west <= lon < east and south <= lat < north


def test_the_formula_of_the_standard() -> None:
    # lat = ab/1.5 + e/12 + g/120, lon = 100 + cd + f/8 + h/80 (JIS X 0410)
    west, south, east, north = mesh_bounds("53394611")
    assert south == pytest.approx(53 / 1.5 + 4 / 12 + 1 / 120) and north - south == pytest.approx(1 / 120)
    assert west == pytest.approx(139 + 6 / 8 + 1 / 80) and east - west == pytest.approx(1 / 80)


@pytest.mark.parametrize(
    ("level", "digits"), [("5339", ("00", "77")), ("533946", ("00", "99")), ("53394611", ("1", "4"))]
)
def test_a_square_is_filled_by_its_parts(level: str, digits: tuple[str, str]) -> None:
    west, south, east, north = mesh_bounds(level)
    first, last = mesh_bounds(level + digits[0]), mesh_bounds(level + digits[1])
    assert (*first[:2], *last[2:]) == pytest.approx((west, south, east, north))


@pytest.mark.parametrize("code", ["", "533", "5339x611", "53398011", "533946115", 53])
def test_bad_codes(code: str | int) -> None:
    with pytest.raises(InputError, match="not a JIS X 0410 mesh code"):
        mesh_bounds(code)

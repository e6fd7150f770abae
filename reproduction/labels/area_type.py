"""Area types: the zoning of the official land price points, its most frequent values and its merged zones.

The paper has 70 classes of area type and does not say of what. L01 of 2013 has 87 distinct zoning values and 88 of
current use; the default here is zoning, cut to the 70 most frequent. Many of those are rare combinations, so a second
label merges them to the use districts (A29) that the Japanese planning law names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

# L01's abbreviation, the name in A29, and in English; in the order of A29's codes 1 to 12, then no use district.
ZONES: tuple[tuple[str, str, str], ...] = (
    ("1低専", "第一種低層住居専用地域", "category 1 low-rise residential"),
    ("2低専", "第二種低層住居専用地域", "category 2 low-rise residential"),
    ("1中専", "第一種中高層住居専用地域", "category 1 mid/high-rise residential"),
    ("2中専", "第二種中高層住居専用地域", "category 2 mid/high-rise residential"),
    ("1住居", "第一種住居地域", "category 1 residential"),
    ("2住居", "第二種住居地域", "category 2 residential"),
    ("準住居", "準住居地域", "quasi-residential"),
    ("近商", "近隣商業地域", "neighbourhood commercial"),
    ("商業", "商業地域", "commercial"),
    ("準工", "準工業地域", "quasi-industrial"),
    ("工業", "工業地域", "industrial"),
    ("工専", "工業専用地域", "exclusively industrial"),
    ("", "", "no use district"),
)
NO_ZONE = len(ZONES) - 1
ZONE_NAMES: tuple[str, ...] = tuple(english for _, _, english in ZONES)
_ZONE_OF = {short: code for code, (short, _, _) in enumerate(ZONES) if short}
# Garden residential exists since 2018; its building rules are those of category 2 low-rise with farm shops added.
_ZONE_OF["田園住"] = _ZONE_OF["田園住居"] = _ZONE_OF["2低専"]

_BESIDE = {"準防": "quasi-fire zone", "防火": "fire zone", "調区": "urbanisation control",
           "都計外": "outside city planning", "都市": "city planning area", "地森計": "forest plan",
           "国立公（普通）": "national park (ordinary)", "国立公（2種）": "national park (class 2)"}  # fmt: skip


def in_english(zoning: str) -> str:
    """An L01 zoning value in English, part by part; a part that has no translation here stays as it is.

    ``in_english("1住居,準防")`` is ``"category 1 residential, quasi-fire zone"``.
    """
    words = {**{short: english for short, _, english in ZONES if short}, **_BESIDE}
    return ", ".join(words.get(part.strip(), part.strip()) for part in zoning.replace("、", ",").split(","))


def zone_of(zoning: Iterable[str]) -> NDArray[np.int64]:
    """Merged A29 zones (int64 codes into `ZONES`) of L01 zoning values such as ``1住居,準防``.

    The use district is the first of the comma-separated parts that is one; fire zones and parks are left out. Values
    without a use district (``調区``, urbanisation control; ``都計外``, unplanned …) become `NO_ZONE`.
    """
    codes = []
    for value in zoning:
        parts = [part.strip() for part in value.replace("、", ",").split(",")]
        codes.append(next((_ZONE_OF[part] for part in parts if part in _ZONE_OF), NO_ZONE))
    return np.array(codes, np.int64)


def most_frequent(values: Iterable[str], n: int = 70) -> tuple[str, ...]:
    """The `n` most frequent non-empty values: the names of the classes, most frequent first, ties by code point."""
    counts = Counter(value for value in values if value)
    return tuple(sorted(counts, key=lambda value: (-counts[value], value))[:n])


def codes_of(values: Iterable[str], names: tuple[str, ...]) -> NDArray[np.int64]:
    """int64 codes of `values` into `names`; -1 for a value that is not among them."""
    index = {name: code for code, name in enumerate(names)}
    return np.array([index.get(value, -1) for value in values], np.int64)

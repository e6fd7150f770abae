"""The rows of the tables. `build` makes a method by name; `METHODS` says which there are and which are pretrained."""

from __future__ import annotations

from dataclasses import dataclass

from selm.errors import InputError, unknown
from selm.methods.base import Method
from selm.methods.gps_selm import GPSSELM, Terms
from selm.networks import MapEncoder
from selm.profiles import Pretraining


@dataclass(frozen=True)
class Row:
    """A row of the tables: its title, and for pretrained methods the losses that are on.

    `version` is part of a run's address: raise it when the method's numbers change.
    """

    title: str
    terms: Terms | None = None
    version: int = 1
    in_paper: bool = True


_GEO = Terms(price=True, density=True, coordinates=True)

METHODS: dict[str, Row] = {
    "random_init": Row("Random Init"),
    "raw_gps": Row("raw GPS"),
    "dino": Row("DINO", Terms()),
    "gps_selm_geo": Row("GPS-SELM (geo)", _GEO),
    "gps_selm_geo_rec": Row(
        "GPS-SELM (geo+rec)", Terms(price=True, density=True, coordinates=True, reconstruction=True)
    ),
    "gps_selm": Row(
        "GPS-SELM (geo+rec+int)",
        Terms(price=True, density=True, coordinates=True, reconstruction=True, clustering=True),
    ),
    # controls of our own: does supervision alone explain the result, and what is left without prices?
    "geo_only": Row(
        "geo losses alone", Terms(distillation=False, price=True, density=True, coordinates=True), in_paper=False
    ),
    "gps_selm_no_price": Row(
        "GPS-SELM without land price",
        Terms(density=True, coordinates=True, reconstruction=True, clustering=True),
        in_paper=False,
    ),
}

PRETRAINED = tuple(name for name, row in METHODS.items() if row.terms is not None)


def get_row(name: str) -> Row:
    """The row called `name`; raises InputError with the nearest name if there is none."""
    if name in METHODS:
        return METHODS[name]
    raise unknown("method", name, METHODS)


def build(name: str, encoder: MapEncoder, settings: Pretraining, image_px: int) -> Method:
    """The method `name` around `encoder`; raises InputError for a row that is not pretrained."""
    row = get_row(name)
    if row.terms is None:
        raise InputError(f"'{name}' is not pretrained (pretrained: {', '.join(PRETRAINED)})")
    return GPSSELM(encoder, settings, row.terms, image_px)

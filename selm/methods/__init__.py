"""Ways to pretrain an encoder, by name: `build` makes one of `METHODS`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from selm.encoder import MapEncoder
from selm.errors import unknown
from selm.methods.base import Method
from selm.methods.gps_selm import GEO, GPSSELM, Terms
from selm.methods.moco import MoCo, MoCoGeoTP, MoCoGeoTPSettings, MoCoSettings
from selm.methods.mugs import Mugs, MugsSettings
from selm.methods.multi_zoom import WIDE, MultiZoom, MultiZoomSettings
from selm.methods.tile2vec import Tile2Vec, Tile2VecSettings
from selm.settings import Pretraining


@dataclass(frozen=True)
class Recipe:
    """How a method is made: ``builder(encoder, pretraining, settings, image_px)``.

    `settings` are the method's own numbers, `version` rises when a method gives other numbers for the same settings.
    """

    builder: type[Method]
    settings: Any
    version: int = 1

    @property
    def zooms(self) -> tuple[int, ...]:
        """The zooms that an embedding is made of, where they are not the encoder's one."""
        return getattr(self.settings, "zooms", ())


METHODS: dict[str, Recipe] = {
    "mugs": Recipe(Mugs, MugsSettings()),
    "moco_v2": Recipe(MoCo, MoCoSettings()),
    "dino": Recipe(GPSSELM, Terms()),
    "moco_geo_tp": Recipe(MoCoGeoTP, MoCoGeoTPSettings()),
    "tile2vec": Recipe(Tile2Vec, Tile2VecSettings()),
    "gps_selm_geo": Recipe(GPSSELM, GEO),
    "gps_selm_geo_rec": Recipe(GPSSELM, Terms(price=True, density=True, coordinates=True, reconstruction=True)),
    "gps_selm": Recipe(
        GPSSELM, Terms(price=True, density=True, coordinates=True, reconstruction=True, clustering=True)
    ),
    # controls: does supervision alone explain the result, and what is left without prices?
    "geo_only": Recipe(GPSSELM, Terms(distillation=False, price=True, density=True, coordinates=True)),
    "gps_selm_no_price": Recipe(GPSSELM, Terms(density=True, coordinates=True, reconstruction=True, clustering=True)),
    # beyond the paper
    "multi_zoom": Recipe(MultiZoom, MultiZoomSettings()),
    "multi_zoom_wide": Recipe(MultiZoom, MultiZoomSettings(zooms=WIDE)),
}


def get_method(name: str) -> Recipe:
    """The method called `name`; raises InputError with the nearest name if there is none."""
    if name in METHODS:
        return METHODS[name]
    raise unknown("method", name, METHODS)


def build(name: str, encoder: MapEncoder, settings: Pretraining, image_px: int, own: Any = None) -> Method:
    """The method `name` around `encoder`, for images of `image_px` pixels; InputError for an unknown name.

    `own` takes the place of the method's own settings.
    """
    recipe = get_method(name)
    return recipe.builder(encoder, settings, recipe.settings if own is None else own, image_px)

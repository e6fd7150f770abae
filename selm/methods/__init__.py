"""The rows of the tables. `build` makes a method by name; `METHODS` says which there are and which are pretrained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from selm.errors import InputError, unknown
from selm.methods.base import Method
from selm.methods.gps_selm import GPSSELM, Terms
from selm.methods.moco_geo_tp import MoCoGeoTP, MoCoGeoTPSettings
from selm.methods.moco_v2 import MoCo, MoCoSettings
from selm.methods.mugs import Mugs, MugsSettings
from selm.methods.multi_zoom import WIDE, MultiZoom, MultiZoomSettings
from selm.methods.tile2vec import Tile2Vec, Tile2VecSettings
from selm.networks import EncoderConfig, MapEncoder
from selm.settings import Pretraining, Profile
from selm.titles import title_of


@dataclass(frozen=True)
class Row:
    """A row of the tables: for pretrained methods, who builds it from which settings (`selm.titles` has its title).

    `builder(encoder, pretraining, settings, image_px)` makes the method. `version` is part of a run's address: raise
    it when the method's numbers change.
    """

    builder: Callable[[MapEncoder, Pretraining, Any, int], Method] | None = None
    settings: Any = None
    version: int = 1
    in_paper: bool = True
    in_tables: bool = True  # False: in a chapter of its own only
    tuning_runs: int = 0  # trial runs, judged on the validation regions, that its settings were chosen from

    @property
    def terms(self) -> Terms | None:
        """Which of eq. 13's losses are on, in a row of GPS-SELM's."""
        return self.settings if isinstance(self.settings, Terms) else None

    @property
    def zooms(self) -> tuple[int, ...]:
        """The zooms that the embedding is made of, where they are not the profile's one."""
        return getattr(self.settings, "zooms", ())


_GEO = Terms(price=True, density=True, coordinates=True)

METHODS: dict[str, Row] = {
    "random_init": Row(),
    "raw_gps": Row(),
    "mugs": Row(Mugs, MugsSettings()),
    "moco_v2": Row(MoCo, MoCoSettings()),
    "dino": Row(GPSSELM, Terms()),
    "moco_geo_tp": Row(MoCoGeoTP, MoCoGeoTPSettings()),
    "tile2vec": Row(Tile2Vec, Tile2VecSettings()),
    "gps_selm_geo": Row(GPSSELM, _GEO),
    "gps_selm_geo_rec": Row(GPSSELM, Terms(price=True, density=True, coordinates=True, reconstruction=True)),
    "gps_selm": Row(GPSSELM, Terms(price=True, density=True, coordinates=True, reconstruction=True, clustering=True)),
    # controls of our own: does supervision alone explain the result, and what is left without prices?
    "geo_only": Row(GPSSELM, Terms(distillation=False, price=True, density=True, coordinates=True), in_paper=False),
    "gps_selm_no_price": Row(
        GPSSELM,
        Terms(density=True, coordinates=True, reconstruction=True, clustering=True),
        in_paper=False,
    ),
    # beyond the paper
    "multi_zoom": Row(MultiZoom, MultiZoomSettings(), in_paper=False),
    "multi_zoom_wide": Row(MultiZoom, MultiZoomSettings(zooms=WIDE), in_paper=False, in_tables=False),
}

PRETRAINED = tuple(name for name, row in METHODS.items() if row.builder is not None)
IN_TABLES = tuple(name for name in PRETRAINED if METHODS[name].in_tables)
ONE_IMAGE = tuple(name for name in PRETRAINED if not METHODS[name].zooms)  # those that see one image of a place


def get_row(name: str) -> Row:
    """The row called `name`; raises InputError with the nearest name if there is none."""
    if name in METHODS:
        return METHODS[name]
    raise unknown("method", name, METHODS)


def build(name: str, encoder: MapEncoder, settings: Pretraining, image_px: int) -> Method:
    """The method `name` around `encoder`; raises InputError for a row that is not pretrained."""
    row = get_row(name)
    if row.builder is None:
        raise InputError(f"'{name}' is not pretrained (pretrained: {', '.join(PRETRAINED)})")
    return row.builder(encoder, settings, row.settings, image_px)


def settings_table(profile: Profile, *, controls: bool = False) -> pd.DataFrame:
    """How each pretrained row of the paper's tables is trained under a profile (with `controls`, of ours too), as text.

    The words come from the methods as they are built for it (without memory for their weights).
    """
    config = EncoderConfig(profile.encoder.arch, profile.encoder.width, image_px=profile.views.global_px)
    rows = {}
    for name in PRETRAINED:
        row = METHODS[name]
        if not (row.in_paper or controls):
            continue
        with torch.device("meta"):
            method = build(name, MapEncoder(config), profile.pretraining, profile.views.global_px)
        rows[title_of(name)] = {
            **method.optimisation().describe(),
            **method.describe(profile.views),
            "images seen": f"{profile.pretraining.images:,}",
            "tuning runs": str(row.tuning_runs),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")

"""The rows of the tables: which methods stand in them, and how each is trained (`selm.methods` makes them)."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch

from reproduction.recipes import UNTUNED, tries
from reproduction.settings import Profile
from reproduction.titles import title_of
from selm import methods
from selm.encoder import EncoderConfig, MapEncoder
from selm.errors import unknown
from selm.methods import METHODS


@dataclass(frozen=True)
class Row:
    """A row of the tables (`reproduction.titles` has its title)."""

    in_paper: bool = True  # False: a control of ours, or beyond the paper
    in_tables: bool = True  # False: in a chapter of its own only


ROWS: dict[str, Row] = {
    "random_init": Row(),
    "raw_gps": Row(),
    "mugs": Row(),
    "moco_v2": Row(),
    "dino": Row(),
    "moco_geo_tp": Row(),
    "tile2vec": Row(),
    "gps_selm_geo": Row(),
    "gps_selm_geo_rec": Row(),
    "gps_selm": Row(),
    "geo_only": Row(in_paper=False),
    "gps_selm_no_price": Row(in_paper=False),
    "multi_zoom": Row(in_paper=False),
    "multi_zoom_wide": Row(in_paper=False, in_tables=False),
}

PRETRAINED = tuple(name for name in ROWS if name in METHODS)
LONGER = "multi_zoom_wide"  # trained on `Surroundings.longer` times the places and images
IN_TABLES = tuple(name for name in PRETRAINED if ROWS[name].in_tables)
ONE_IMAGE = tuple(name for name in PRETRAINED if not METHODS[name].zooms)  # those that see one image of a place


def get_row(name: str) -> Row:
    """The row called `name`; raises InputError with the nearest name if there is none."""
    if name in ROWS:
        return ROWS[name]
    raise unknown("method", name, ROWS)


def zooms_of(name: str) -> tuple[int, ...]:
    """The zooms that a row's embedding is made of, where they are not the profile's one."""
    return METHODS[name].zooms if name in METHODS else ()


def settings_table(profile: Profile, *, controls: bool = False) -> pd.DataFrame:
    """How each pretrained row of the paper's tables is trained under a profile (with `controls`, of ours too), as text.

    The words come from the methods as they are built for it (without memory for their weights).
    """
    config = EncoderConfig(profile.encoder.arch, profile.encoder.width, image_px=profile.views.global_px)
    rows = {}
    for name in PRETRAINED:
        if not (ROWS[name].in_paper or controls):
            continue
        recipe = profile.recipe_of(name)
        trained, own = recipe.of(profile), recipe.of_settings(METHODS[name].settings)
        with torch.device("meta"):
            encoder = MapEncoder(recipe.of_encoder(config))
            method = methods.build(name, encoder, trained.pretraining, trained.views.global_px, own)
        rows[title_of(name)] = {
            **method.optimisation().describe(),
            **method.describe(trained.views),
            "images seen": f"{trained.pretraining.images:,}",
            "recipe": recipe.name,
            "tuning runs": str(len(tries(name)) if profile.recipes and name not in UNTUNED else 0),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")

"""The tables of places of a profile, made once: to pretrain on, to probe at, and with interpolated prices."""

from __future__ import annotations

import dataclasses
from typing import Any

import pandas as pd

from reproduction.computed.drawn_maps import atlases, map_fingerprint
from reproduction.computed.store import cached_table, key
from reproduction.places import splits
from reproduction.settings import Profile
from selm.errors import InputError

VERSION = 2


def _data_parts(profile: Profile, role: str | None = None) -> dict[str, Any]:
    return {
        "maps": map_fingerprint(profile, role),
        "labels": splits.label_fingerprint(profile),
        "regions": [dataclasses.asdict(region) for region in profile.regions],
        "settings": dataclasses.asdict(profile.maps),
        "version": VERSION,
    }


def _sampled_parts(profile: Profile) -> dict[str, Any]:
    s = profile.pretraining
    return _data_parts(profile, "pretrain") | {"n": s.n_places, "density_classes": s.density_classes}


def sampled_places(profile: Profile) -> pd.DataFrame:
    """The table of places to pretrain on (`reproduction.places.labelled.build_places`), computed once."""
    from reproduction.places.labelled import build_places

    parts = _sampled_parts(profile)
    return cached_table("places", profile.name, parts, lambda: build_places(profile, atlases(profile, "pretrain")))


def sampled_key(profile: Profile) -> str:
    """Hash of all that the places to pretrain on depend on: the same on every machine, which their numbers' last digits
    are not."""
    return key(_sampled_parts(profile))


def _points_parts(profile: Profile) -> dict[str, Any]:
    return _data_parts(profile) | {"area_types": profile.probing.area_types, "n": profile.probing.n_interpolated}


def points(profile: Profile) -> pd.DataFrame:
    """The labelled places that probes learn from and are tested on (`reproduction.places.labelled`), computed once."""
    from reproduction.places.labelled import probe_points

    return cached_table("points", profile.name, _points_parts(profile), lambda: probe_points(profile, atlases(profile)))


def elsewhere(profile: Profile) -> pd.DataFrame:
    """Labelled places of all regions but the test region: the official points, computed once, or for stand-ins those of
    the set-aside cells."""
    from reproduction.places.labelled import official_elsewhere

    if profile.stand_ins:
        table = points(profile)
        return table[table["split"] != "test"].reset_index(drop=True)
    parts = _points_parts(profile) | {"table": "elsewhere"}
    return cached_table("elsewhere", profile.name, parts, lambda: official_elsewhere(profile, atlases(profile)))


def interpolated(profile: Profile) -> pd.DataFrame:
    """Places of the test region with prices from points nearby (`reproduction.places.interpolated`), computed once."""
    from reproduction.places.interpolated import interpolated_points

    def make() -> pd.DataFrame:
        (region,) = profile.regions_for("test")
        table = points(profile)
        known = table[table["target_set"] == region.name].reset_index(drop=True)
        return interpolated_points(profile, atlases(profile, "test"), known)

    return cached_table("interpolated", profile.name, _points_parts(profile), make)


def points_key(profile: Profile) -> str:
    """Hash of all that the probe's places and labels depend on."""
    return key(_points_parts(profile))


def pretraining_places(profile: Profile) -> pd.DataFrame:
    """The rows of `sampled_places` that are pretrained on; raises InputError where there is none."""
    table = sampled_places(profile)
    table = table[table["split"] == "pretrain"].reset_index(drop=True)
    if not len(table):
        raise InputError(f"profile '{profile.name}': no location to pretrain on")
    return table

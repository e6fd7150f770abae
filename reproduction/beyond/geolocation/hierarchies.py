"""In which prefecture, municipality and cell was this map image? Levels of regions beside plain geocells.

Places and queries lie in the cells that were set aside before pretraining, in all pretraining regions: the encoder has
seen neither, the classifiers have seen the places.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reproduction.beyond.geolocation import geocells, levels
from reproduction.beyond.geolocation.levels import Level
from reproduction.beyond.location_encoders import experiment as location_encoders
from reproduction.computed import store
from reproduction.labels import population
from reproduction.places.regions import census_areas
from reproduction.results import computed_once, origin, read_csv
from reproduction.settings import Profile
from selm.maps.mercator import haversine_m, to_tile

VERSION = 1  # raise it when the numbers change
LEVELS = ("prefecture", "municipality", "cell")
WAYS = {
    "prior": "the cell with most places",
    "plain-hard": "plain geocells, hard labels",
    "plain-smoothed": "plain geocells, smoothed labels",
    "cells-smoothed": "geocells along municipal borders, smoothed labels",
    "levels-hard": "all three levels together, hard labels",
    "levels-smoothed": "all three levels together, smoothed labels",
}
_STAND_IN_ZOOMS = (14, 16)  # squares that stand for prefectures and municipalities where there is no census


def codes(profile: Profile, table: pd.DataFrame) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """The prefecture and municipality of places, str (N,) each, "" where there is none: by the census, or squares."""
    lat, lon = table["lat"].to_numpy(np.float64), table["lon"].to_numpy(np.float64)
    if profile.stand_ins:
        of_zoom = []
        for zoom in _STAND_IN_ZOOMS:
            x, y = (np.floor(v).astype(int).astype(str) for v in to_tile(lat, lon, zoom))
            of_zoom.append(np.char.add(np.char.add(x, "/"), y))
        return of_zoom[0], of_zoom[1]
    municipality = population.municipality_at(lat, lon, census_areas())
    return np.array([code[:2] for code in municipality], str), municipality


def _file(profile: Profile) -> Path:
    s = dataclasses.asdict(profile.location_encoders)
    names = ("hierarchy_most", "tau_km", "accuracy_km", "n_queries", "teacher")
    kinds = ("set-aside", "set-aside-queries")
    parts = {
        "settings": {name: s[name] for name in names}, "version": VERSION, "ways": list(WAYS),
        "places": [store.table_fingerprint(location_encoders.places(profile, kind)) for kind in kinds],
    }  # fmt: skip
    return store.address("hierarchies", profile.name, parts, ".csv")


def accuracy_by_level(profile: Profile) -> pd.DataFrame:
    """Which way finds the prefecture, the municipality, the cell and the place; computed once.

    Columns: way, quantity (``prefecture``, ``municipality``, ``cell``: the share found; ``accuracy``: the share within
    `at` km; ``median_km``), at, value, n, regions (how many there are of the level) and provenance. A cell is one of
    the way's own cut. Places and queries without a municipality (at sea, beyond the census) are left out.
    """

    def made() -> pd.DataFrame:
        s = profile.location_encoders
        tables, features, named = {}, {}, {}
        for kind in ("set-aside", "set-aside-queries"):
            table = location_encoders.places(profile, kind)
            found = codes(profile, table)
            inside = found[1] != ""
            tables[kind], named[kind] = table[inside].reset_index(drop=True), [code[inside] for code in found]
            features[kind] = location_encoders.image_features(profile, kind)[inside]
        known, asked = tables["set-aside"], tables["set-aside-queries"]
        x, queries = features["set-aside"], features["set-aside-queries"]
        at = known["lat"].to_numpy(), known["lon"].to_numpy()
        cut = levels.hierarchy(*at, named["set-aside"], most=s.hierarchy_most)
        plain = levels.hierarchy(*at, [np.full(len(known), "all")], most=s.hierarchy_most)[-1]

        def fitted(level: Level, tau_km: float | None) -> NDArray[np.float64]:
            own = level.own
            label = (
                geocells.hard_labels(own, len(level)) if tau_km is None
                else geocells.smoothed_labels(level.distances_km(*at), own, tau_km)
            )  # fmt: skip
            weight, bias = geocells.fit_classifier(x, label)
            return (queries @ weight + bias).astype(np.float64)

        def tau(level: Level) -> float:
            return levels.tau_of(s.tau_km, len(cut[-1]), len(level))

        smoothed = [fitted(level, tau(level)) for level in cut]
        scores = {
            "prior": np.broadcast_to(np.bincount(plain.own), (len(queries), len(plain))),
            "plain-hard": fitted(plain, None), "plain-smoothed": fitted(plain, s.tau_km),
            "cells-smoothed": smoothed[-1],
            "levels-hard": levels.together([fitted(level, None) for level in cut], cut),
            "levels-smoothed": levels.together(smoothed, cut),
        }  # fmt: skip
        rows: list[dict[str, Any]] = []
        for way, score in scores.items():
            finest = plain if way.startswith(("prior", "plain")) else cut[-1]
            cell = score.argmax(axis=1)
            rows += _outcome(profile, way, finest, cell, named, asked)
            within = np.full(len(asked), "all") if finest is plain else named["set-aside-queries"][1]
            right = cell == cells_of(finest, within, asked)
            rows.append({"way": way, "quantity": "cell", "at": 0.0, "value": right.mean(), "regions": len(finest)})
        run_id = store.id_of(_file(profile).with_suffix(""))
        about = origin(profile, store.table_fingerprint(known), run_id=run_id)
        return pd.DataFrame(rows).assign(n=len(asked), **about)

    return computed_once(_file(profile), made)


def cells_of(finest: Level, region: NDArray[np.str_], table: pd.DataFrame) -> NDArray[np.int64]:
    """int64 (N,): the cell that holds each place, by its square and the `region` it was cut in; −1 where none does."""
    out = np.full(len(table), -1, np.int64)
    for number, name in enumerate(finest.names):
        within, square = name.rsplit(" ", 1)
        zoom, *corner = map(int, square.split("/"))
        x, y = (np.floor(v) for v in to_tile(table["lat"].to_numpy(), table["lon"].to_numpy(), zoom))
        out[(region == within) & (x == corner[0]) & (y == corner[1])] = number
    return out


def _outcome(
    profile: Profile, way: str, finest: Level, cell: NDArray[np.int64], named: dict[str, list[NDArray[np.str_]]],
    asked: pd.DataFrame,
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of one way: how often the cell that was chosen lies in the query's regions, and how far off its centre is.

    A cell across a border lies where most of its places do.
    """
    rows = []
    for level, code, true in zip(LEVELS, named["set-aside"], named["set-aside-queries"], strict=False):
        names, number = np.unique(code, return_inverse=True)
        count = np.zeros((len(finest), len(names)))
        np.add.at(count, (finest.own, number), 1)
        right = names[count.argmax(axis=1)][cell] == true
        rows.append({"way": way, "quantity": level, "at": 0.0, "value": right.mean(), "regions": len(names)})
    error = haversine_m(asked["lat"].to_numpy(), asked["lon"].to_numpy(), finest.lat[cell], finest.lon[cell]) / 1000
    for km in profile.location_encoders.accuracy_km:
        rows.append({"way": way, "quantity": "accuracy", "at": km, "value": (error <= km).mean(), "regions": 0})
    return [*rows, {"way": way, "quantity": "median_km", "at": 0.0, "value": np.median(error), "regions": 0}]


def finished(profile: Profile) -> dict[str, pd.DataFrame]:
    """What is there to publish; computes no result."""
    if not location_encoders.is_started(profile) or not _file(profile).exists():
        return {}
    return {"location-hierarchies.csv": read_csv(_file(profile))}

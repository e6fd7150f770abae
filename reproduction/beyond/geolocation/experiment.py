"""Where on the island is this map image? Geocells and location encoders, by area searched and by distance.

Queries are places of the test region that nothing was trained on; their neighbours were, as in the field's benchmarks:
this asks how well an image is found in a country whose maps are known, not how well unknown country is understood.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from reproduction.beyond.geolocation import geocells
from reproduction.beyond.geolocation.geocells import Geocells
from reproduction.beyond.location_encoders import experiment as location_encoders
from reproduction.beyond.location_encoders.experiment import Run
from reproduction.computed import store
from reproduction.results import computed_once, origin, read_csv
from reproduction.settings import Profile
from selm.maps.mercator import haversine_m

VERSION = 1  # raise it when the numbers change
WAYS = {
    "prior": "most places a km² first",
    "geocells-hard": "geocells, hard labels (PlaNet)",
    "geocells-smoothed": "geocells, smoothed labels (PIGEON)",
}
SHARES = tuple(float(share) for share in np.geomspace(1e-4, 1.0, 41))  # of the ground that all geocells cover
_GEOCELL_START = 8  # zoom of the largest geocell: some 110 km at 43° N


def _geocells(profile: Profile) -> Geocells:
    s, table = profile.location_encoders, location_encoders.places(profile, "test")
    return Geocells.split(table["lat"], table["lon"], most=s.cell_most, least=s.cell_least, start=_GEOCELL_START)


def gallery_scores(profile: Profile, run: Run, *, progress: bool = True) -> NDArray[np.float32]:
    """(queries, gallery): cosine between each query image and each training place of the test region."""
    method = location_encoders.method(profile, run, progress=progress)
    gallery = location_encoders.places(profile, "test")
    at = torch.tensor(gallery[["lat", "lon"]].to_numpy(np.float64))
    locations = F.normalize(method.encoder.embed(at), dim=-1)
    images = method.images(torch.as_tensor(location_encoders.image_features(profile, "queries")))
    return (F.normalize(images, dim=-1) @ locations.T).numpy()


def best_of_geocells(scores: NDArray[Any], geocell: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """(Q, n): the best score of the places in each geocell, −∞ where there are none; geocell −1 is no geocell."""
    out = np.full((len(scores), n), -np.inf)
    for number in range(n):
        inside = geocell == number
        if inside.any():
            out[:, number] = scores[:, inside].max(axis=1)
    return out


def distances_km(profile: Profile, lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kilometres from each query's place to the place that was predicted for it."""
    table = location_encoders.places(profile, "queries")
    return haversine_m(table["lat"].to_numpy(), table["lon"].to_numpy(), lat, lon) / 1000


def _outcome(
    profile: Profile, cells: Geocells, scores: NDArray[np.float64], error_km: NDArray[np.float64]
) -> list[dict[str, Any]]:
    """Rows (quantity, at, value) of one way: recall within areas, accuracy within distances, median distance."""
    table = location_encoders.places(profile, "queries")
    searched = geocells.area_searched(scores, cells.area_km2, cells.assign(table["lat"], table["lon"]))
    budgets = np.array(SHARES) * cells.area_km2.sum()
    recall = geocells.recall_within(searched, budgets)
    rows = [
        {"quantity": "recall", "at": float(area), "value": float(value)}
        for area, value in zip(budgets, recall, strict=True)
    ]
    for km in profile.location_encoders.accuracy_km:
        rows.append({"quantity": "accuracy", "at": km, "value": float((error_km <= km).mean())})
    rows.append({"quantity": "median_km", "at": 0.0, "value": float(np.median(error_km))})
    return rows


def accuracy(profile: Profile, run: Run, *, progress: bool = True) -> list[dict[str, Any]]:
    """Accuracy within distances and the median distance of one encoder's first guess: rows (quantity, at, value)."""
    scores = gallery_scores(profile, run, progress=progress)
    gallery = location_encoders.places(profile, "test").iloc[scores.argmax(axis=1)]
    error = distances_km(profile, gallery["lat"].to_numpy(), gallery["lon"].to_numpy())
    rows = [
        {"quantity": "accuracy", "at": km, "value": float((error <= km).mean())}
        for km in profile.location_encoders.accuracy_km
    ]
    return [*rows, {"quantity": "median_km", "at": 0.0, "value": float(np.median(error))}]


def contrasts(profile: Profile) -> list[Run]:
    """The encoders that an image can be matched with: trained by contrast, with maps of the test region."""
    return [
        run for run in location_encoders.runs(profile) if run.objective == "contrast" and run.coverage == "everywhere"
    ]


def _file(profile: Profile) -> Path:
    s = dataclasses.asdict(profile.location_encoders)
    parts = {
        "settings": {name: s[name] for name in ("cell_most", "cell_least", "tau_km", "accuracy_km", "n_queries")},
        "runs": [location_encoders.trained_name(profile, run) for run in contrasts(profile)],
        "shares": SHARES,
        "version": VERSION,
    }
    return store.address("image-to-location", profile.name, parts, ".csv")


def recall_against_area(profile: Profile, *, progress: bool = True) -> pd.DataFrame:
    """Recall against area, accuracy within distances and median distance of every way; computed once.

    Columns: way, quantity (recall, accuracy, median_km), at (km² or km), value, n, cells and provenance.
    """

    def make() -> pd.DataFrame:
        s, cells = profile.location_encoders, _geocells(profile)
        table = location_encoders.places(profile, "test")
        own = cells.assign(table["lat"], table["lon"])
        known = own >= 0
        x, queries = (location_encoders.image_features(profile, kind) for kind in ("test", "queries"))
        near = cells.distances_km(table["lat"], table["lon"])[known]
        labels = {
            "geocells-hard": geocells.hard_labels(own[known], len(cells)),
            "geocells-smoothed": geocells.smoothed_labels(near, own[known], s.tau_km),
        }
        prior = np.broadcast_to(cells.count / cells.area_km2, (len(queries), len(cells)))
        scores: dict[str, NDArray[np.float64]] = {"prior": np.asarray(prior)}
        for way, label in labels.items():
            weight, bias = geocells.fit_classifier(x[known], label)
            scores[way] = (queries @ weight + bias).astype(np.float64)
        rows = []
        for way, score in scores.items():
            # a large geocell may be likely and still a poor place to begin: searched by probability a km²
            ranked = score if way == "prior" else log_density(score, cells.area_km2)
            best = cells.count.argmax() * np.ones(len(queries), int) if way == "prior" else score.argmax(axis=1)
            error = distances_km(profile, cells.lat[best], cells.lon[best])
            rows += [{"way": way, **row} for row in _outcome(profile, cells, ranked, error)]
        for run in contrasts(profile):
            similar = gallery_scores(profile, run, progress=progress)
            found = table.iloc[similar.argmax(axis=1)]
            error = distances_km(profile, found["lat"].to_numpy(), found["lon"].to_numpy())
            by_cell = best_of_geocells(similar, own, len(cells))
            rows += [{"way": run.position, **row} for row in _outcome(profile, cells, by_cell, error)]
        run_id = store.id_of(_file(profile).with_suffix(""))
        about = origin(profile, store.table_fingerprint(table), run_id=run_id)
        return pd.DataFrame(rows).assign(n=len(queries), cells=len(cells), **about)

    return computed_once(_file(profile), make)


def log_density(logits: NDArray[np.float64], area: NDArray[np.float64]) -> NDArray[np.float64]:
    """Class logits (Q, C) → the order of probability a km²."""
    return logits - np.log(area)


def finished(profile: Profile) -> dict[str, pd.DataFrame]:
    """What is there to publish; computes no result."""
    if not location_encoders.is_started(profile) or not _file(profile).exists():
        return {}
    return {"location-recall.csv": read_csv(_file(profile))}

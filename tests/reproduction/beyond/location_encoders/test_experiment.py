"""The chapters on location encoders and the semivariogram, end to end on made-up embeddings: no map is drawn."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reproduction.beyond.geolocation import experiment as geolocation
from reproduction.beyond.geolocation import hierarchies
from reproduction.beyond.location_encoders import experiment as location_encoders
from reproduction.beyond.location_encoders.experiment import Run
from reproduction.beyond.semivariogram import experiment as semivariogram
from reproduction.computed import encoders, place_tables
from reproduction.experiments import table1_table2
from reproduction.experiments.table1_table2 import Task
from reproduction.profiles import get_profile
from reproduction.settings import Profile
from selm.errors import InputError
from selm.maps.mercator import haversine_m
from selm.maps.sphere import pairs_within
from selm.probes.folds import BufferedFolds, random_folds

KINDS = ("pretraining", "test", "set-aside", "queries", "set-aside-queries")


def made_up_features(table: pd.DataFrame) -> np.ndarray:
    """Smooth in the coordinate, so that it can be learnt from few places."""
    u, v = (table["lat"].to_numpy() - 60.17) * 150, (table["lon"].to_numpy() - 24.945) * 75
    return np.stack([u, v, np.sin(2 * u), np.cos(2 * v), u * v, np.ones_like(u)], axis=1).astype(np.float32)


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Profile:
    monkeypatch.setenv("SELM_RUNS", str(tmp_path / "runs"))
    smoke = get_profile("smoke")
    settings = dataclasses.replace(
        smoke.location_encoders, images=6_000, batch=60, lr=5e-3, n_places=200, n_queries=60,
        n_trials=(("table1", 1), ("table2", 0)), cell_most=20, hierarchy_most=5, variogram_places=300,
    )  # fmt: skip

    def places(profile: Profile, kind: str) -> pd.DataFrame:
        rng = np.random.default_rng(KINDS.index(kind))
        n = settings.n_queries if kind.endswith("queries") else settings.n_places
        lat, lon = rng.uniform(60.165, 60.175, n), rng.uniform(24.935, 24.955, n)
        return pd.DataFrame({"lat": lat, "lon": lon, "region": "helsinki"})

    def task(profile: Profile, table: str, target: str, split: str) -> Task:
        chosen = places(profile, "queries").assign(cell=[f"c{i % 6}" for i in range(settings.n_queries)])
        buffer = pairs_within(chosen["lat"], chosen["lon"], 0.0)
        y = np.sin(3 * made_up_features(chosen)[:, 0])
        return Task("regression", chosen, y, BufferedFolds(random_folds(len(chosen), range(1), 5), buffer))

    monkeypatch.setattr(location_encoders, "places", places)
    monkeypatch.setattr(
        location_encoders, "image_features", lambda profile, kind: made_up_features(places(profile, kind))
    )
    monkeypatch.setattr(table1_table2, "task", task)
    monkeypatch.setattr(encoders, "pretraining_folder", lambda *a, **k: Path("teacher-0"))
    monkeypatch.setattr(place_tables, "points_key", lambda profile: "0123456789abcdef")
    monkeypatch.setattr(location_encoders, "image_width_m", lambda profile: 40.0)
    return dataclasses.replace(smoke, location_encoders=settings)


def test_probes_are_computed_once_and_say_what_they_are(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = location_encoders.probes(profile, progress=False)
    n_runs = len(location_encoders.runs(profile))
    assert n_runs == 2 + 2 + 2 * 2 * 2 and len(rows) == 2 * n_runs  # two ways to split
    assert np.isfinite(rows["value"]).all() and set(rows["coverage"]) == set(location_encoders.COVERAGES)
    untrained = (rows["coverage"] == "none") | (rows["position"] == "neighbours")
    assert rows.loc[untrained, "objective"].isna().all() and (rows["table"] == "table1").all()
    assert rows["run_id"].nunique() == n_runs
    monkeypatch.setattr(location_encoders, "embeddings", lambda *a, **k: pytest.fail("computed again"))
    pd.testing.assert_frame_equal(location_encoders.probes(profile, progress=False), rows)


def test_a_distilled_encoder_knows_places_it_was_not_trained_on(profile: Profile) -> None:
    queries = location_encoders.places(profile, "queries")
    truth = made_up_features(queries)
    run = Run("fourier", "relu", "distillation", "everywhere")
    method = location_encoders.method(profile, run, progress=False)
    found = location_encoders.embeddings(profile, run, queries) * method.std.numpy() + method.mean.numpy()
    error = np.square(found - truth)[:, :5].mean(axis=0) / truth[:, :5].var(axis=0)
    assert (error < 0.7).all() and error.mean() < 0.4


def test_the_neighbours_mean_against_a_loop(profile: Profile) -> None:
    queries, known = (location_encoders.places(profile, kind) for kind in ("queries", "pretraining"))
    found = location_encoders.embeddings(profile, Run("neighbours", "", "", "pretraining"), queries)
    features = made_up_features(known)
    for i in range(5):
        at = queries.iloc[i]
        metres = haversine_m(at["lat"], at["lon"], known["lat"], known["lon"])
        near = np.argsort(metres)[: profile.location_encoders.neighbours]
        weight = 1 / np.maximum(metres[near], 1.0)
        np.testing.assert_allclose(found[i], weight @ features[near] / weight.sum(), rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="is not trained"):
        location_encoders.trained(profile, Run("neighbours", "", "", "pretraining"))


def test_recall_rises_with_the_area_and_a_match_beats_the_prior(profile: Profile) -> None:
    found = geolocation.recall_against_area(profile, progress=False)
    assert set(found["way"]) == {*geolocation.WAYS, "fourier", "harmonics"}
    for _, curve in found[found["quantity"] == "recall"].groupby("way"):
        assert (np.diff(curve["value"]) >= 0).all() and curve["value"].iloc[-1] == 1.0
    median = found[found["quantity"] == "median_km"].set_index("way")["value"]
    assert max(median["fourier"], median["geocells-hard"], median["geocells-smoothed"]) < 0.6 * median["prior"]


def test_levels_find_regions_that_the_prior_does_not(profile: Profile) -> None:
    rows = hierarchies.accuracy_by_level(profile)
    assert set(rows["way"]) == set(hierarchies.WAYS)
    found = rows.pivot_table("value", "way", "quantity")
    for level in hierarchies.LEVELS:
        assert found[level].between(0, 1).all()
        assert found.loc["levels-smoothed", level] > found.loc["prior", level]
    assert (found["prefecture"] >= found["municipality"]).all()
    regions = rows[rows["way"] == "levels-hard"].set_index("quantity")["regions"]
    assert regions["prefecture"] < regions["municipality"] < regions["cell"]


def test_the_semivariogram_weighs_the_same_runs(profile: Profile) -> None:
    bins, fits = semivariogram.variogram(profile)
    assert bins["gamma"].iloc[-3:].mean() > bins["gamma"].iloc[:3].mean()  # near places are more alike
    assert len(fits) >= 1 and (fits["r2"] > 0.5).any()
    rows = semivariogram.accuracies(profile, progress=False)
    kinds = {"plain", "weighted", "geographic", "sample4geo"}
    assert rows.groupby("negatives")["seed"].nunique().to_dict() == dict.fromkeys(kinds, 2)
    assert rows["run_id"].nunique() == 8
    plain = {run.seed: run for kind, run in semivariogram.runs(profile) if kind == "plain"}
    others = [run for kind, run in semivariogram.runs(profile) if kind != "plain"]
    for run in others:
        a = location_encoders.embeddings(profile, run, location_encoders.places(profile, "queries"))
        b = location_encoders.embeddings(profile, plain[run.seed], location_encoders.places(profile, "queries"))
        assert np.abs(a - b).max() > 1e-3  # weights and choices are felt


def test_what_is_finished_is_published_and_nothing_else(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    assert location_encoders.finished(profile) == {} and semivariogram.finished(profile) == {}
    assert geolocation.finished(profile) == {}
    some = location_encoders.entries(profile)[-1]
    location_encoders.run_entry(profile, *some, progress=False)
    assert set(location_encoders.finished(profile)) == {"location-encoders.csv"}
    location_encoders.probes(profile, progress=False)

    def scores(profile: Profile, entry: table1_table2.Entry, metric: str, epochs: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = table1_table2.task(profile, "table1", "l01", "blocks").places
        return np.full(len(chosen), 5.0), chosen["cell"].to_numpy(str)

    monkeypatch.setattr(table1_table2, "point_scores", scores)
    verdicts = location_encoders.finished(profile)["location-claims.csv"]
    assert len(verdicts) == 2 * 4 and (verdicts.loc[verdicts["b"] == "trees_coordinates", "verdict"] == "better").all()
    assert (verdicts.loc[verdicts["a"] == "gps_selm", "verdict"] == "worse").all()

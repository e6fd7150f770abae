"""Which run counts where several kinds of device have made one; what is remembered, and what is kept."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from reproduction import paths
from reproduction.computed import encoders, frozen_features, place_tables, store
from reproduction.profiles import get_profile
from reproduction.recipes import CODES
from reproduction.rows import LONGER
from reproduction.settings import AS_IT_IS, Change
from selm import files
from selm.embedding.map_embedder import MapEmbedder
from selm.methods.multi_zoom import WIDE

SMOKE = get_profile("smoke")


def finish(folder: Path) -> Path:
    files.write_json(folder / "run.json", {"complete": True})
    return folder


def test_what_another_kind_of_device_has_trained_is_used_where_this_one_has_not(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELM_DEVICE", "cpu")
    here = encoders.pretraining_folder(SMOKE, "dino", 7)
    monkeypatch.setenv("SELM_DEVICE", "cuda")
    there = encoders.pretraining_folder(SMOKE, "dino", 7)
    assert here != there and encoders.pretraining_config(SMOKE, "dino", 7)["device"] == "cuda"
    monkeypatch.setenv("SELM_DEVICE", "cpu")
    files.write_json(there / "run.json", {"complete": False})  # begun only
    assert encoders.pretraining_folder(SMOKE, "dino", 7) == here
    finish(there)
    assert encoders.pretraining_folder(SMOKE, "dino", 7) == there
    assert encoders.pretraining_config(SMOKE, "dino", 7)["device"] == "cuda"
    assert encoders.pretrained(SMOKE, "dino", 7) == there  # not trained again
    finish(here)
    assert encoders.pretraining_folder(SMOKE, "dino", 7) == here
    for folder in (here, there):
        shutil.rmtree(folder)


def test_an_encoder_that_comes_with_the_code_may_be_of_another_kind_of_device(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELM_DEVICE", "cuda")
    config = encoders.pretraining_config(SMOKE, "dino", 8)
    there = encoders.pretraining_folder(SMOKE, "dino", 8)
    published = tmp_path / "encoders" / "smoke" / "dino"
    files.write_json(published / "run.json", {"config": config, "complete": True})
    (published / "config.json").write_text("{}")
    monkeypatch.setattr(paths, "encoders", lambda: tmp_path / "encoders")
    monkeypatch.setenv("SELM_DEVICE", "cpu")
    assert encoders.pretrained(SMOKE, "dino", 8) == there and (there / "config.json").exists()
    assert encoders.pretraining_folder(SMOKE, "dino", 8) == there
    shutil.rmtree(there)


def test_an_encoder_that_comes_with_the_code_may_be_from_another_processor(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prices between points and other numbers of the places then have other last digits, and a hash of them differs."""
    monkeypatch.setattr(paths, "encoders", lambda: tmp_path / "encoders")
    monkeypatch.setenv("SELM_DEVICE", "cpu")
    config = encoders.pretraining_config(SMOKE, "dino", 9)
    own = encoders.pretraining_folder(SMOKE, "dino", 9)
    published = tmp_path / "encoders" / "smoke" / "dino"
    about = {"config": config | {"data": "of another processor"}, "complete": True}
    files.write_json(published / "run.json", about | {"places": "of other places"})
    (published / "config.json").write_text("{}")
    assert encoders.pretraining_folder(SMOKE, "dino", 9) == own and not encoders.is_pretrained(SMOKE, "dino", 9)
    shutil.rmtree(tmp_path / "encoders" / "smoke")
    files.write_json(published / "run.json", about | {"places": place_tables.sampled_key(SMOKE)})
    (published / "config.json").write_text("{}")
    there = encoders.pretraining_folder(SMOKE, "dino", 9)
    assert there != own and encoders.pretrained(SMOKE, "dino", 9) == there and (there / "config.json").exists()
    assert encoders.pretraining_config(SMOKE, "dino", 9)["data"] == "of another processor"
    shutil.rmtree(there)


def test_what_is_remembered_belongs_to_the_folders_and_device_of_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []

    @store.remembered(maxsize=2)
    def total(a: int, b: int = 0) -> int:
        asked.append((a, b))
        return a + b

    assert total(1) == total(1) == 1 and total(1, b=2) == total(1, b=2) == 3 and asked == [(1, 0), (1, 2)]
    for number, name in enumerate(("SELM_RUNS", "SELM_DATA", "SELM_DEVICE"), start=3):
        with monkeypatch.context() as patch:
            patch.setenv(name, str(tmp_path))
            assert total(1) == total(1) == 1 and len(asked) == number
    assert total.__name__ == "total"
    assert total(1) == 1 and len(asked) == 6  # no more than two are kept


def test_a_label_may_have_dots_and_the_address_ends_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELM_RUNS", str(tmp_path))
    file = store.address("kind", "share-0.5", {"a": 1}, ".csv")
    assert file == tmp_path / "kind" / f"share-0.5-{store.key({'a': 1})}.csv"
    assert store.id_of(store.address("kind", "share-0.5", {"a": 1})) == store.key({"a": 1})


@pytest.mark.parametrize("recipe", [AS_IT_IS, CODES])
def test_what_is_recommended_is_what_embed_gives(runs: Path, recipe: Change) -> None:
    profile = dataclasses.replace(SMOKE, surroundings=dataclasses.replace(SMOKE.surroundings, longer=2))
    profile = profile.with_recipe(LONGER, recipe)
    run = encoders.pretrained(profile.times(2), LONGER, progress=False)
    assert frozen_features.recommended_run(profile) == run.name
    points = place_tables.points(SMOKE)
    table = points[points["region"] == "helsinki"].head(5)
    x = frozen_features.recommended(profile, table)
    ways = {"orientations": 8, "stages": (1, 2, 3, 4), "zooms": WIDE, "beside": ("colours",)}
    embedder = MapEmbedder(run, profile.regions_for("test")[0].source, "cpu", **ways)
    np.testing.assert_allclose(x, embedder(table["lat"], table["lon"]), atol=2e-5)

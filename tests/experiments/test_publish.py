"""Weights that come with the code: written with all that they need, and taken in place of training again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from selm import checkpoints, embedder, experiments, paths, stages
from selm.errors import InputError
from selm.profiles import get_profile

SMOKE = get_profile("smoke")


def test_a_published_encoder_is_found_in_place_of_training(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paths, "encoders", lambda: tmp_path / "encoders")
    monkeypatch.setenv("SELM_DEVICE", "cpu")
    with pytest.raises(InputError, match="unknown finished pretraining 'tile2vec'"):
        experiments.publish_encoders(SMOKE, ["tile2vec"])
    folder = stages.pretrained(SMOKE, "tile2vec", progress=False)
    (published,) = experiments.publish_encoders(SMOKE, ["tile2vec"])
    assert published == tmp_path / "encoders" / "smoke" / "tile2vec"
    card = (published / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# Tile2Vec, profile smoke") and "© OpenStreetMap" in card and "stand-ins" in card
    assert "96 images seen" in card and "reduced scale" in card
    before = checkpoints.load_tensors(folder / "model.safetensors")[0]
    assert embedder.load_encoder(published).config.image_px == SMOKE.views.global_px

    shutil.rmtree(folder)
    with monkeypatch.context() as patch:
        patch.setattr(stages, "Trainer", None)  # nothing trains
        assert stages.pretrained(SMOKE, "tile2vec", progress=False) == folder
    assert f"taken from {published}, not trained" in capsys.readouterr().err
    after = checkpoints.load_tensors(folder / "model.safetensors")[0]
    assert checkpoints.digest(after) == checkpoints.digest(before)
    assert checkpoints.read_json(folder / "run.json")["complete"]

    shutil.rmtree(folder)  # another configuration is another run
    run = checkpoints.read_json(published / "run.json")
    run["config"]["pretraining"]["lr"] *= 2
    checkpoints.write_json(published / "run.json", run)
    monkeypatch.setattr(stages, "Trainer", None)
    with pytest.raises(TypeError):
        stages.pretrained(SMOKE, "tile2vec", progress=False)


def test_what_comes_with_the_code_is_whole() -> None:
    for config in sorted(paths.encoders().glob("*/*/config.json")):
        encoder = embedder.load_encoder(config.parent)
        run = checkpoints.read_json(config.parent / "run.json")
        assert run["complete"] and run["config"]["encoder"]["arch"] == encoder.config.arch
        assert "openstreetmap" in (config.parent / "README.md").read_text(encoding="utf-8").lower()

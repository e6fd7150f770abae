"""Weights that come with the code: written with all that they need, and taken in place of training again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from reproduction import paths, publishing
from reproduction.computed import encoders
from reproduction.profiles import get_profile
from selm import checkpoints, files
from selm.embedding.inference import load_encoder
from selm.errors import InputError

SMOKE = get_profile("smoke")


def test_a_published_encoder_is_found_in_place_of_training(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paths, "encoders", lambda: tmp_path / "encoders")
    monkeypatch.setenv("SELM_DEVICE", "cpu")
    with pytest.raises(InputError, match="unknown finished pretraining 'tile2vec'"):
        publishing.publish_encoders(SMOKE, ["tile2vec"])
    folder = encoders.pretrained(SMOKE, "tile2vec", progress=False)
    readme = (paths.repository() / "README.md").read_bytes()
    (published,) = publishing.publish_encoders(SMOKE, ["tile2vec"])
    assert (paths.repository() / "README.md").read_bytes() == readme  # which speaks of other encoders
    assert published == tmp_path / "encoders" / "smoke" / "tile2vec"
    card = (published / "README.md").read_text(encoding="utf-8")
    assert "# smoke-tile2vec: Tile2Vec" in card and "© OpenStreetMap" in card and "stand-ins" in card
    assert "Not scored yet." in card and "model-index" not in card
    assert "96 images seen" in card and "reduced scale" in card
    before = checkpoints.load_tensors(folder / "model.safetensors")[0]
    assert load_encoder(published).config.image_px == SMOKE.views.global_px

    shutil.rmtree(folder)
    with monkeypatch.context() as patch:
        patch.setattr(encoders, "make_trainer", None)  # nothing trains
        assert encoders.pretrained(SMOKE, "tile2vec", progress=False) == folder
    assert f"taken from {published}, not trained" in capsys.readouterr().err
    after = checkpoints.load_tensors(folder / "model.safetensors")[0]
    assert checkpoints.digest(after) == checkpoints.digest(before)
    assert files.read_json(folder / "run.json")["complete"]

    text = (folder / "metrics.csv").read_text()
    header, *lines = text.splitlines()
    marked = dict(zip(header.split(","), lines[-1].split(","), strict=True)) | {"collapse": "one output takes all"}
    (folder / "metrics.csv").write_text("\n".join([header, *lines[:-1], ",".join(marked.values())]) + "\n")
    with pytest.raises(InputError, match="tile2vec: one output takes all, says the collapse watch"):
        publishing.publish_encoders(SMOKE, ["tile2vec"])
    (folder / "metrics.csv").write_text(text)

    shutil.rmtree(folder)  # another configuration is another run
    run = files.read_json(published / "run.json")
    run["config"]["pretraining"]["lr"] *= 2
    files.write_json(published / "run.json", run)
    monkeypatch.setattr(encoders, "make_trainer", None)
    with pytest.raises(TypeError):
        encoders.pretrained(SMOKE, "tile2vec", progress=False)


def test_what_comes_with_the_code_is_whole() -> None:
    for config in sorted(paths.encoders().glob("*/*/config.json")):
        encoder = load_encoder(config.parent)
        run = files.read_json(config.parent / "run.json")
        assert run["complete"] and run["config"]["encoder"]["arch"] == encoder.config.arch
        assert run["places"]  # what they depend on: the same on every machine
        assert "openstreetmap" in (config.parent / "README.md").read_text(encoding="utf-8").lower()

"""Codes in place of RGB: what they are, what an encoder makes of them, and that both runtimes agree."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import made_up
import numpy as np
import pandas as pd
import pytest
import torch

from selm.encoder import MapEncoder, new_encoder
from selm.errors import InputError
from selm.maps.style import Style
from selm.methods import METHODS
from selm.onnx_encoder import OnnxEncoder
from selm.pretrain import fit
from selm.settings import SMALL, EncoderConfig

CONFIG = dataclasses.replace(made_up.CONFIG, style="selm", codes=5, stem=3)
WIDER = dataclasses.replace(CONFIG, width=0.125)  # as in test_fit
SHORT = dataclasses.replace(
    SMALL, images=16, batch=8, head_hidden=16, head_bottleneck=8, out_dim=16, geo_hidden=8, rec_channels=8,
    cluster_hidden=8, cluster_out=8, prototypes=8, density_classes=5, checkpoint_every=2, log_every=1,
)  # fmt: skip


def test_a_blend_has_the_blend_of_its_flat_colours_codes() -> None:
    style = Style.named("selm")
    codes, flat = style.codes(16), len(style.colours)
    assert codes.shape == (256, 16) and codes.dtype == np.float32
    np.testing.assert_allclose(codes[:flat].mean(axis=0), 0, atol=1e-6)
    assert (codes[:flat] ** 2).mean() == pytest.approx(1, abs=0.1)
    for index in range(256):
        want = sum(share * codes[k] for k, share in enumerate(style.mixtures[index]) if share)
        np.testing.assert_allclose(codes[index], want, atol=1e-5)
    apart = np.linalg.norm(codes[:flat, None] - codes[:flat], axis=-1)
    assert apart[~np.eye(flat, dtype=bool)].min() > 1  # no two classes are alike
    np.testing.assert_array_equal(codes, style.codes(16))


def test_an_encoder_sees_the_codes_and_no_colours(tmp_path: Path) -> None:
    encoder, style = new_encoder(CONFIG, 0).eval(), Style.named("selm")
    assert encoder.network.conv1.weight.shape[1:] == (5, 3, 3)
    indices = np.random.default_rng(0).integers(0, 256, (4, 32, 32)).astype(np.uint8)
    seen = torch.from_numpy(style.codes(5)[indices]).permute(0, 3, 1, 2)
    with torch.no_grad():
        want = encoder(seen).numpy()
    np.testing.assert_allclose(encoder.features(indices, style.palette), want, atol=1e-5)
    encoder.save_pretrained(tmp_path)
    back = MapEncoder.from_pretrained(tmp_path)
    assert back.config == CONFIG and back.digest == encoder.digest
    other = style.palette.copy()
    other[7] ^= 1
    for one in (back, OnnxEncoder(CONFIG, tmp_path / "model.safetensors")):
        np.testing.assert_allclose(one.features(indices, style.palette), want, atol=2e-5)
        with pytest.raises(InputError, match="colours of style selm"):
            one.features(indices, other)


def test_both_runtimes_agree_in_eight_orientations(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, orientations=8, stages=(1, 3))
    encoder = new_encoder(config, 1).eval()
    encoder.save_pretrained(tmp_path)
    indices = np.random.default_rng(1).integers(0, 256, (3, 32, 32)).astype(np.uint8)
    ours = OnnxEncoder(EncoderConfig.read(tmp_path / "config.json"), tmp_path / "model.safetensors")
    palette = Style.named("selm").palette
    np.testing.assert_allclose(ours.features(indices, palette), encoder.features(indices, palette), atol=2e-5)


@pytest.mark.parametrize("method", [name for name, recipe in METHODS.items() if not recipe.zooms])
def test_every_method_of_one_zoom_learns_from_codes(method: str, tmp_path: Path) -> None:
    atlas = made_up.atlas(tmp_path / "atlas", 3, 3, style="selm")
    rng = np.random.default_rng(0)
    lat, lon = made_up.place(1 + rng.random(16), 1 + rng.random(16))
    places = pd.DataFrame({"lat": lat, "lon": lon, "price": 1 + rng.random(16), "density": 100 * rng.random(16)})
    folder = fit(method, atlas, places, tmp_path / "run", encoder=WIDER, settings=SHORT, device="cpu", progress=False)
    assert np.isfinite(pd.read_csv(folder / "metrics.csv")["loss"]).all()
    encoder, begun = MapEncoder.from_pretrained(folder), new_encoder(WIDER, 0)
    assert (encoder.config.codes, encoder.config.stem) == (5, 3)
    learned, drawn = encoder.network.conv1.weight, begun.network.conv1.weight
    assert learned.shape == drawn.shape and not torch.allclose(learned, drawn)


def test_published_configurations_without_the_fields_are_of_rgb(tmp_path: Path) -> None:
    new_encoder(made_up.CONFIG, 0).save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    assert not {"codes", "stem"} & set(fields)
    assert EncoderConfig.read(tmp_path / "config.json") == made_up.CONFIG


@pytest.mark.parametrize("wrong", [{"codes": -1}, {"codes": 300}, {"stem": 5}])
def test_fields_that_no_encoder_can_have(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="codes must be"):
        dataclasses.replace(CONFIG, **wrong)

"""Encoders against torchvision's own, heads by their shapes, and published encoders read back."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from selm import files
from selm.encoder import EncoderConfig, MapEncoder, laid, resnet
from selm.errors import InputError
from selm.heads import ProjectionHead, ReconstructionHead, border_mask, cluster_head, geo_head


@pytest.fixture
def small() -> MapEncoder:
    torch.manual_seed(0)
    config = EncoderConfig("resnet18", 0.125, 16, 32, 64, "other", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    return MapEncoder(config).eval()


# ---------------------------------------------------------------------------------------------------- encoders


@pytest.mark.parametrize("arch", ["resnet18", "resnet34", "resnet50"])
def test_at_width_1_an_encoder_is_torchvisions(arch):
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, arch)(weights=None).eval()
    ours = MapEncoder(EncoderConfig(arch)).eval()
    state = {key: value for key, value in theirs.state_dict().items() if not key.startswith("fc.")}
    assert ours.network.state_dict().keys() == state.keys()
    ours.network.load_state_dict(state)
    theirs.fc = nn.Identity()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))
    assert ours.dim == (2048 if arch == "resnet50" else 512)


@pytest.mark.parametrize(
    ("arch", "width", "dim"),
    [("resnet18", 0.125, 64), ("resnet18", 0.25, 128), ("resnet34", 0.25, 128), ("resnet50", 0.25, 512)],
)  # fmt: skip
@torch.no_grad()
def test_width_multiplies_every_channel_count(arch, width, dim):
    encoder = MapEncoder(EncoderConfig(arch, width)).eval()
    assert encoder.dim == dim
    for px in (16, 32, 65):
        assert encoder(torch.randn(2, 3, px, px)).shape == (2, dim)
    narrow, full = encoder.network.state_dict(), resnet(arch).state_dict()
    assert narrow.keys() == full.keys()
    for key, value in narrow.items():
        for mine, theirs in zip(value.shape, full[key].shape, strict=True):
            assert mine == (int(theirs * width) if theirs >= 64 else theirs), key


def test_narrow_encoders_are_initialised_as_torchvisions_are():
    torch.manual_seed(0)
    network = resnet("resnet18", 0.5)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
            assert module.bias is None
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()


def test_unknown_encoders_get_the_nearest_name():
    with pytest.raises(InputError, match=r"unknown encoder 'resnet5'; did you mean 'resnet50'\?"):
        resnet("resnet5")
    with pytest.raises(InputError, match="there are: resnet18, resnet34, resnet50"):
        resnet("vit")


@pytest.mark.parametrize("width", [0.0, 0.001, 1 / 3, -1.0])
def test_widths_that_are_no_whole_number_of_channels_are_refused(width):
    with pytest.raises(InputError, match="must be a whole number"):
        resnet("resnet18", width)


def test_standardise_takes_the_mean_off_and_divides_by_the_deviation(small):
    images = torch.rand(2, 3, 4, 4)
    out = small.standardise(images)
    for c in range(3):
        expected = (images[:, c] - small.config.pixel_mean[c]) / small.config.pixel_std[c]
        torch.testing.assert_close(out[:, c], expected)


# --------------------------------------------------------------------------------------------- reading and writing


def test_a_saved_encoder_comes_back_as_it_was(small, tmp_path):
    images = torch.randn(3, 3, 32, 32)
    before = small(images)
    small.save_pretrained(tmp_path)
    back = MapEncoder.from_pretrained(str(tmp_path))
    assert back.config == small.config
    assert isinstance(back.config.pixel_mean, tuple)
    assert not back.training
    assert torch.equal(back(images), before)
    assert {"config.json", "model.safetensors"} <= {file.name for file in tmp_path.iterdir()}
    assert torch.equal(MapEncoder.from_pretrained(tmp_path)(images), before)  # a Path will do


def test_a_mean_over_orientations_does_not_depend_on_how_an_image_lies(small):
    torch.manual_seed(0)
    images = torch.randn(3, 3, 16, 16)
    ways = [laid(images, way) for way in range(8)]
    assert all(not torch.equal(a, b) for i, a in enumerate(ways) for b in ways[:i])  # eight, and the first as it is
    assert torch.equal(ways[0], images)
    small.eval()
    torch.testing.assert_close(small.embed(images), small(images))
    small.config = dataclasses.replace(small.config, orientations=8)
    means = [small.embed(way) for way in ways]
    for mean in means[1:]:
        torch.testing.assert_close(mean, means[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(means[0], torch.stack([small(way) for way in ways]).mean(dim=0))


def test_orientations_are_saved(small, tmp_path):
    small.save_pretrained(tmp_path / "one")
    small.config = dataclasses.replace(small.config, orientations=8)
    small.save_pretrained(tmp_path / "eight")
    assert MapEncoder.from_pretrained(tmp_path / "eight").config.orientations == 8
    assert MapEncoder.from_pretrained(tmp_path / "one").config.orientations == 1
    config = json.loads((tmp_path / "eight" / "config.json").read_text()) | {"orientations": 5}
    (tmp_path / "eight" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"config\.json: orientations must be 1 or 8, not 5"):
        MapEncoder.from_pretrained(tmp_path / "eight")


def test_the_features_of_every_stage_are_what_it_gives_averaged_over_the_image(small, tmp_path):
    """Against hooks on the stages of the plain forward pass."""
    images, seen = torch.randn(3, 3, 32, 32), {}
    small.eval()
    for number in range(1, 5):
        layer = getattr(small.network, f"layer{number}")
        layer.register_forward_hook(lambda _, __, out, number=number: seen.update({number: out}))
    last = small(images)
    want = {number: out.flatten(2).mean(dim=2) for number, out in seen.items()}
    torch.testing.assert_close(want[4], last)
    for stages in ((1, 2, 3, 4), (2, 4), (3,)):
        small.config = dataclasses.replace(small.config, stages=stages)
        out = small.embed(images)
        assert out.shape == (3, small.embedding_dim)
        torch.testing.assert_close(out, torch.cat([want[number] for number in stages], dim=1))
    small.config = dataclasses.replace(small.config, stages=(1, 4), orientations=8)
    ways = [small.embed(laid(images, way)) for way in (0, 5)]
    torch.testing.assert_close(ways[0], ways[1], rtol=1e-4, atol=1e-5)
    small.save_pretrained(tmp_path)
    assert MapEncoder.from_pretrained(tmp_path).config.stages == (1, 4)
    for wrong in ((), (0, 4), (4, 1), (1, 1), (5,)):
        with pytest.raises(InputError, match="stages must be some of 1, 2, 3, 4"):
            dataclasses.replace(small.config, stages=wrong)


def test_saving_again_replaces_what_was_there(small, tmp_path):
    small.save_pretrained(tmp_path)
    other = MapEncoder(EncoderConfig("resnet34", 0.125))
    other.save_pretrained(tmp_path)
    assert MapEncoder.from_pretrained(str(tmp_path)).config.arch == "resnet34"


def test_an_encoder_that_comes_along_is_read_by_name():
    one, wide = (MapEncoder.from_pretrained(name) for name in ("japan-mugs", "japan-wide"))
    assert one.config.zooms == (17,) and not one.training
    assert wide.config.zooms == tuple(range(17, 9, -1)) and wide.config.orientations == 8  # as it is used


@pytest.mark.parametrize("name", ["/no/such/folder", "./no/folder", "nothing", "a/b/c"])
def test_a_folder_that_is_not_there_is_not_asked_of_the_hub(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *a, **k: pytest.fail("asked the Hub"))
    with pytest.raises(InputError, match=f"unknown encoder '{name}'.*; not a run folder, a Hub id"):
        MapEncoder.from_pretrained(name)


def one_line(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        MapEncoder.load(EncoderConfig.read(folder / "config.json"), folder / "model.safetensors")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_damage_to_a_published_encoder_is_one_line_that_names_the_file(small, tmp_path):
    small.save_pretrained(tmp_path)
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-10])
    assert "model.safetensors: cut short" in one_line(tmp_path)
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert "model.safetensors: altered" in one_line(tmp_path)
    weights.unlink()
    assert "model.safetensors: no such file" in one_line(tmp_path)
    weights.write_bytes(good)

    values = json.loads(config.read_text())
    files.write_json(config, {key: value for key, value in values.items() if key != "zoom"})
    assert "config.json: not an encoder's configuration (lacks zoom)" in one_line(tmp_path)
    files.write_json(config, values | {"width": 0.25})
    assert "model.safetensors: " in one_line(tmp_path)
    files.write_json(config, values | {"arch": "resnet5"})
    assert "config.json: unknown encoder 'resnet5'" in one_line(tmp_path)
    files.write_json(config, ["something", "else"])
    assert "config.json: not an encoder's configuration" in one_line(tmp_path)
    config.write_text("{")
    assert "config.json: not valid JSON" in one_line(tmp_path)


# ------------------------------------------------------------------------------------------------------- heads


def test_the_projection_head_is_dinos():
    torch.manual_seed(0)
    head = ProjectionHead(6, 5, 8, 4)
    z = torch.randn(3, 6)
    hidden = z
    layers = [module for module in head.mlp if isinstance(module, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in layers] == [(6, 8), (8, 8), (8, 4)]
    for i, layer in enumerate(layers):
        hidden = layer(hidden)
        if i < 2:
            hidden = nn.functional.gelu(hidden)
    out = head(z)
    for b in range(3):
        for k in range(5):
            cosine = torch.dot(hidden[b], head.prototypes[k]) / (hidden[b].norm() * head.prototypes[k].norm())
            assert out[b, k].item() == pytest.approx(cosine.item(), abs=1e-6)
    with torch.no_grad():
        head.prototypes *= 7  # only directions count
    torch.testing.assert_close(head(z), out)


def test_geo_heads_have_two_layers_with_relu_and_cluster_heads_three():
    geo = geo_head(10, 256, 30)
    assert [type(m) for m in geo] == [nn.Linear, nn.ReLU, nn.Linear]
    assert (geo[0].in_features, geo[0].out_features, geo[2].out_features) == (10, 256, 30)
    cluster = [m for m in cluster_head(10, 512, 256) if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in cluster] == [(10, 512), (512, 512), (512, 256)]


@pytest.mark.parametrize("px", [32, 64, 128, 256])
@torch.no_grad()
def test_reconstructions_have_the_size_of_their_parents(px):
    head = ReconstructionHead(16, px, 8)
    out = head(torch.randn(2, 16), torch.zeros(2, 3, px, px))
    assert out.shape == (2, 3, px, px)
    up = [m for m in head.up if isinstance(m, nn.ConvTranspose2d)]
    assert len(up) == 3  # section 4: three transposed convolutions with GELU
    assert isinstance(head.up[-1], nn.ConvTranspose2d)
    assert sum(isinstance(m, nn.GELU) for m in head.up) == 2


@pytest.mark.parametrize("px", [32, 128])
def test_reconstructions_depend_on_the_feature_and_on_the_border_everywhere(px):
    torch.manual_seed(0)
    head = ReconstructionHead(16, px, 8)
    z, context = torch.randn(1, 16, requires_grad=True), torch.randn(1, 3, px, px, requires_grad=True)
    head(z, context).sum().backward()
    assert (z.grad != 0).all()
    assert (context.grad[:, :, :3] != 0).all()  # each border pixel is seen
    assert (context.grad[:, :, :, -3:] != 0).all()
    parts = head(z, context)[0].detach()
    corners = torch.stack([parts[:, y, x] for y in (0, px // 2, -1) for x in (0, px // 2, -1)])
    assert (corners.std(dim=0) > 0).all()


@pytest.mark.parametrize("px", [16, 96, 224])
def test_other_sizes_cannot_be_reconstructed(px):
    with pytest.raises(InputError, match=f"32, 64, 128 or 256 px, not {px}"):
        ReconstructionHead(8, px)


def test_the_mask_of_equation_9_counts_44652_values_at_128_px():
    mask = border_mask(128, 3)
    assert 3 * mask.sum().item() == 44_652
    assert mask.unique().tolist() == [0, 1]
    for side in (mask[:3], mask[-3:], mask[:, :3], mask[:, -3:]):
        assert (side == 0).all()
    assert (mask[3:-3, 3:-3] == 1).all()

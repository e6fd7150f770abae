"""Image2GPS's networks: the source's parameter counts, attention pooling against a loop, and weights from files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from reproduction.beyond.image2gps import networks
from reproduction.beyond.image2gps.networks import AttentionPooling, Img2GPS
from selm.errors import InputError


@pytest.mark.parametrize(("backbone", "millions"), [("efficientnet_b0", 4.34), ("efficientnet_b3", 11.09)])
def test_as_many_parameters_as_the_source_prints(backbone: str, millions: float) -> None:
    with torch.device("meta"):
        network = Img2GPS(backbone)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == millions


def test_attention_pooling_against_a_loop() -> None:
    torch.manual_seed(0)
    pool, maps = AttentionPooling(8, 4), torch.randn(2, 8, 3, 2)
    torch.testing.assert_close(pool(maps), maps.mean(dim=(2, 3)))  # starts as the mean
    torch.nn.init.normal_(pool.score.weight)
    found = pool(maps)
    for b in range(2):
        scores = torch.einsum("kc,chw->khw", pool.score.weight[:, :, 0, 0], maps[b])
        for channel in range(8):
            weight = scores[channel // 2].flatten().softmax(dim=0)
            assert found[b, channel].item() == pytest.approx((maps[b, channel].flatten() @ weight).item(), abs=1e-5)
    with pytest.raises(InputError, match="10 channels cannot be shared by 4 heads"):
        AttentionPooling(10, 4)


@pytest.mark.parametrize("pooling", networks.POOLINGS)
def test_shapes(pooling: str) -> None:
    network = Img2GPS("efficientnet_b0", pooling).eval()
    images = torch.randn(2, 3, 32, 32)
    assert network.embed(images).shape == (2, 256) and network(images).shape == (2, 2)


def test_weights_are_looked_for_and_never_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert networks.weights_file("efficientnet_b0") is None
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "efficientnet_b0_rwightman-7f5810bc.pth").write_bytes(b"")
    found = networks.weights_file("efficientnet_b0")
    assert found is not None and found.parent == folder and networks.weights_file("efficientnet_b1") is None
    with pytest.raises(InputError, match="not a readable weights file"):
        networks.load_efficientnet(Img2GPS(), found)
    with pytest.raises(InputError, match="no pretrained weights here"):
        networks.weights_file("efficientnet_b0", tmp_path / "missing.pth")


def test_efficientnet_weights_as_torchvision_publishes_them(tmp_path: Path) -> None:
    from torchvision.models import efficientnet_b0

    torch.manual_seed(0)
    whole = efficientnet_b0(weights=None)
    torch.save(whole.state_dict(), tmp_path / "b0.pth")
    network = Img2GPS()
    networks.load_efficientnet(network, tmp_path / "b0.pth")
    for name, value in whole.features.state_dict().items():
        assert torch.equal(network.features.state_dict()[name], value)
    with pytest.raises(InputError, match="does not fit this network"):
        networks.load_efficientnet(Img2GPS("efficientnet_b1"), tmp_path / "b0.pth")


def test_dino_weights_give_dinos_output(tmp_path: Path) -> None:
    """A ViT written out step by step from DINO's parameters gives what torchvision's does with them renamed."""
    torch.manual_seed(0)
    dim, heads, patch, px = 12, 3, 8, 16
    ours = networks.vit(px, patch=patch, dim=dim, layers=2, heads=heads)
    backward = {v: k for k, v in networks.DINO_OUTSIDE.items()}
    state: dict[str, torch.Tensor] = {}
    for name, value in ours.state_dict().items():
        if name in backward:
            state[backward[name]] = torch.randn_like(value) * 0.3
            continue
        _, _, layer, rest = name.split(".", 3)
        dinos, tvs = next((d, t) for d, t in networks.DINO_INSIDE.items() if rest.startswith(t))
        state[f"blocks.{layer.rsplit('_', 1)[1]}.{dinos}{rest.removeprefix(tvs)}"] = torch.randn_like(value) * 0.3
    torch.save(state, tmp_path / "dino.pth")
    networks.load_dino_vit(ours, tmp_path / "dino.pth")
    images = torch.randn(2, 3, px, px)
    f = torch.nn.functional

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return f.layer_norm(x, (dim,), state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6)

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    x = f.conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=patch)
    x = torch.cat([state["cls_token"].expand(2, 1, dim), x.flatten(2).transpose(1, 2)], dim=1) + state["pos_embed"]
    for i in range(2):
        q, k, v = linear(norm(x, f"blocks.{i}.norm1"), f"blocks.{i}.attn.qkv").unflatten(-1, (3, heads, -1)).unbind(2)
        weight = torch.einsum("bqhd,bkhd->bhqk", q, k).mul((dim // heads) ** -0.5).softmax(dim=-1)
        x = x + linear(torch.einsum("bhqk,bkhd->bqhd", weight, v).flatten(2), f"blocks.{i}.attn.proj")
        x = x + linear(f.gelu(linear(norm(x, f"blocks.{i}.norm2"), f"blocks.{i}.mlp.fc1")), f"blocks.{i}.mlp.fc2")
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), norm(x, "norm")[:, 0], rtol=1e-3, atol=1e-4)
    wider = networks.vit(32, patch=patch, dim=dim, layers=2, heads=heads)
    networks.load_dino_vit(wider, tmp_path / "dino.pth")  # position embeddings are resampled
    assert wider(torch.randn(1, 3, 32, 32)).shape == (1, dim)
    torch.save({"head.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="no part of DINO's ViT"):
        networks.load_dino_vit(ours, tmp_path / "other.pth")

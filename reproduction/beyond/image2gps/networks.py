"""Image2GPS's networks: EfficientNet with a linear head or attention pooling, and a frozen ViT.

Pretrained weights are read from a file that the user has; nothing is fetched.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from selm.errors import InputError, unknown

if TYPE_CHECKING:
    from torchvision.models import vision_transformer

BACKBONES = ("efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3")
POOLINGS = ("average", "attention")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class AttentionPooling(nn.Module):
    """(B, C, h, w) → (B, C): each of `heads` heads weighs the positions and pools its own share of the channels.

    The source says no more than "spatial attention pooling, 4 heads"; that a head owns C / heads channels, so that the
    output stays as wide as average pooling's, is our choice.
    """

    def __init__(self, channels: int, heads: int = 4):
        super().__init__()
        if channels % heads:
            raise InputError(f"attention pooling: {channels} channels cannot be shared by {heads} heads")
        self.heads = heads
        self.score = nn.Conv2d(channels, heads, kernel_size=1)
        nn.init.zeros_(self.score.weight)  # starts as average pooling
        if self.score.bias is not None:
            nn.init.zeros_(self.score.bias)

    def forward(self, maps: Tensor) -> Tensor:
        weight = self.score(maps).flatten(2).softmax(dim=-1)  # (B, heads, h·w)
        values = maps.flatten(2).unflatten(1, (self.heads, -1))  # (B, heads, C / heads, h·w)
        return (values * weight[:, :, None]).sum(dim=-1).flatten(1)


class Img2GPS(nn.Module):
    """An EfficientNet, pooled, projected to a `dim`-d embedding, then ReLU, dropout and two standardised coordinates.

    With average pooling the parameters are as many as Table 2 of the source prints.
    """

    def __init__(
        self, backbone: str = "efficientnet_b0", pooling: str = "average", *, dim: int = 256, dropout: float = 0.3,
        heads: int = 4,
    ):  # fmt: skip
        super().__init__()
        if backbone not in BACKBONES:
            raise unknown("backbone", backbone, BACKBONES)
        if pooling not in POOLINGS:
            raise unknown("pooling", pooling, POOLINGS)
        from torchvision.models import efficientnet  # over a second: not for every page that names the chapter

        whole = getattr(efficientnet, backbone)(weights=None)
        self.features, channels = whole.features, whole.classifier[1].in_features
        self.pool = AttentionPooling(channels, heads) if pooling == "attention" else _average()
        self.project = nn.Linear(channels, dim)
        self.regress = nn.Sequential(nn.ReLU(), nn.Dropout(dropout), nn.Linear(dim, 2))

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) standardised → (B, dim)."""
        return self.project(self.pool(self.features(images)))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) standardised → (B, 2) standardised (lat, lon)."""
        return self.regress(self.embed(images))


def _average() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))


def vit(
    px: int, *, patch: int = 8, dim: int = 384, layers: int = 12, heads: int = 6
) -> vision_transformer.VisionTransformer:
    """torchvision's ViT without its classifier, by default the ViT-S/8 that DINO published: images → class token."""
    if px % patch:
        raise InputError(f"ViT: images of {px} px cannot be cut into patches of {patch} px")
    from torchvision.models import vision_transformer

    made = vision_transformer.VisionTransformer(px, patch, layers, heads, dim, 4 * dim, num_classes=1)
    made.heads = nn.Identity()  # type: ignore[assignment]
    return made


def weights_file(name: str, pretrained: str | Path = "") -> Path | None:
    """Where pretrained weights of `name` lie on this machine, or None.

    pretrained: a file, or a folder of files named as torchvision names them (``efficientnet_b0_*.pth``), or "" for
    `TORCH_HOME`/hub/checkpoints (by default ~/.cache/torch). Nothing is fetched. A path that does not exist is an
    InputError.
    """
    if pretrained:
        path = Path(pretrained)
        if not path.exists():
            raise InputError(f"{path}: no pretrained weights here")
        if path.is_file():
            return path
    else:
        path = Path(os.environ.get("TORCH_HOME", Path.home() / ".cache" / "torch")) / "hub" / "checkpoints"
    found = sorted(path.glob(f"{name}*.pth")) if path.is_dir() else []
    return found[0] if found else None


def load_efficientnet(network: Img2GPS, file: Path) -> None:
    """Load ImageNet weights as torchvision publishes them into the convolutions; raises InputError naming the file."""
    state = {key.removeprefix("features."): value for key, value in _read(file).items() if key.startswith("features.")}
    _strict(network.features, state, file)


def load_dino_vit(network: vision_transformer.VisionTransformer, file: Path) -> None:
    """Load a ViT as DINO publishes it (``dino_deitsmall8_pretrain.pth``); raises InputError naming the file.

    Position embeddings of another image size are resampled bicubically, as DINO does.
    """
    state = dino_to_torchvision(_read(file), file)
    wanted = network.encoder.pos_embedding.shape[1] - 1
    position = state["encoder.pos_embedding"]
    side, have = round(wanted**0.5), position.shape[1] - 1
    if have != wanted:
        old = round(have**0.5)
        grid = position[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
        grid = nn.functional.interpolate(grid, (side, side), mode="bicubic", align_corners=False)
        state["encoder.pos_embedding"] = torch.cat([position[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
    _strict(network, state, file)


DINO_OUTSIDE = {
    "cls_token": "class_token", "pos_embed": "encoder.pos_embedding", "patch_embed.proj.weight": "conv_proj.weight",
    "patch_embed.proj.bias": "conv_proj.bias", "norm.weight": "encoder.ln.weight", "norm.bias": "encoder.ln.bias",
}  # fmt: skip
DINO_INSIDE = {
    "norm1.": "ln_1.", "norm2.": "ln_2.", "attn.qkv.": "self_attention.in_proj_", "mlp.fc1.": "mlp.0.",
    "attn.proj.": "self_attention.out_proj.", "mlp.fc2.": "mlp.3.",
}  # fmt: skip


def dino_to_torchvision(state: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """A ViT's parameters by torchvision's names, from DINO's; raises InputError for a name that is neither."""
    out = {}
    for name, value in state.items():
        if name in DINO_OUTSIDE:
            out[DINO_OUTSIDE[name]] = value
            continue
        _, _, rest = name.partition(".")
        number, _, inner = rest.partition(".")
        prefix = next((part for part in DINO_INSIDE if inner.startswith(part)), None)
        if not name.startswith("blocks.") or prefix is None:
            raise InputError(f"{file}: has '{name}', which is no part of DINO's ViT")
        out[f"encoder.layers.encoder_layer_{number}.{DINO_INSIDE[prefix]}{inner.removeprefix(prefix)}"] = value
    return out


def _read(file: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        raise InputError(f"{file}: not a readable weights file ({type(error).__name__})") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{file}: not a state dict of tensors")
    return state


def _strict(module: nn.Module, state: dict[str, Tensor], file: Path) -> None:
    own = module.state_dict()
    for name in sorted(set(own) | set(state)):
        if name not in state or name not in own or own[name].shape != state[name].shape:
            raise InputError(f"{file}: '{name}' does not fit this network")
    module.load_state_dict(state)

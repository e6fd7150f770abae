"""What losses put on an encoder: heads of DINO and GPS-SELM, of MoCo and of MUGS."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selm.errors import InputError


class ProjectionHead(nn.Module):
    """DINO's head: an MLP with GELU, L2 normalisation, then unit-norm prototypes: (B, in_dim) → (B, out_dim) logits."""

    def __init__(self, in_dim: int, out_dim: int, hidden: int, bottleneck: int):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(in_dim, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        for module in self.mlp:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        # directions only, as DINO's weight-normed layer with its gain fixed at 1
        self.prototypes = nn.Parameter(torch.empty(out_dim, bottleneck))
        nn.init.uniform_(self.prototypes, -1 / math.sqrt(bottleneck), 1 / math.sqrt(bottleneck))

    def forward(self, features: Tensor) -> Tensor:
        hidden = F.normalize(self.mlp(features), dim=-1, eps=1e-6)
        return F.linear(hidden, F.normalize(self.prototypes, dim=-1))


def contrastive_head(in_dim: int, out_dim: int) -> nn.Sequential:
    """MoCo-v2's head: as wide as the feature, ReLU, then `out_dim`."""
    return nn.Sequential(nn.Linear(in_dim, in_dim), nn.ReLU(), nn.Linear(in_dim, out_dim))


class PredictedHead(nn.Module):
    """MUGS's head: a 3-layer projector and a student-only 2-layer predictor, all without bias; unit outputs.

    (B, in_dim) → (B, out_dim). The teacher has a copy of the `projector` alone.
    """

    def __init__(self, in_dim: int, hidden: int, out_dim: int, predictor_hidden: int):
        super().__init__()
        self.projector = nn.Sequential(
            nn.Linear(in_dim, hidden, bias=False),
            nn.GELU(),
            nn.Linear(hidden, hidden, bias=False),
            nn.GELU(),
            nn.Linear(hidden, out_dim, bias=False),
        )
        for module in self.projector:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
        self.predictor = nn.Sequential(
            nn.Linear(out_dim, predictor_hidden, bias=False),
            nn.GELU(),
            nn.Linear(predictor_hidden, out_dim, bias=False),
        )

    def forward(self, features: Tensor) -> Tensor:
        return F.normalize(self.predictor(F.normalize(self.projector(features), dim=-1)), dim=-1)


class RelationBlock(nn.Module):
    """One pre-norm transformer block over a feature and its neighbours, of which the feature's own token comes out.

    (B, dim), (B, k, dim) → (B, dim), with a final LayerNorm. Heads of 64 dimensions where `dim` allows, and an MLP four
    times as wide, as ViT-S has them in MUGS. Only the first token asks; the others would not be used.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.heads = dim // 64 if dim % 64 == 0 else 1
        self.norm1, self.norm2, self.norm = (nn.LayerNorm(dim, eps=1e-6) for _ in range(3))
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, feature: Tensor, neighbours: Tensor) -> Tensor:
        tokens = self.norm1(torch.cat([feature[:, None], neighbours.to(feature.dtype)], dim=1))

        def split(values: Tensor) -> Tensor:  # (B, tokens, dim) → (B, heads, tokens, dim / heads)
            return values.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        query, key, value = split(self.query(tokens[:, :1])), split(self.key(tokens)), split(self.value(tokens))
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(1)
        x = feature + self.out(mixed)
        return self.norm(x + self.mlp(self.norm2(x)))


def geo_head(in_dim: int, hidden: int, out_dim: int) -> nn.Sequential:
    """f_p, f_c and f_l: a 2-layer perceptron with ReLU (section 4)."""
    return nn.Sequential(nn.Linear(in_dim, hidden), nn.ReLU(), nn.Linear(hidden, out_dim))


def cluster_head(in_dim: int, hidden: int, out_dim: int) -> nn.Sequential:
    """f_c^s and f_c^t of the intermediate clustering: a 3-layer MLP (section 4)."""
    return nn.Sequential(
        nn.Linear(in_dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, out_dim)
    )


def border_mask(px: int, border: int, device: torch.device | None = None) -> Tensor:
    """M̂ of eq. 9, (px, px) float: 0 on the context (a border of `border` pixels), 1 inside."""
    mask = torch.zeros(px, px, device=device)
    mask[border : px - border, border : px - border] = 1
    return mask


class ReconstructionHead(nn.Module):
    """f_r of eq. 9: three transposed convolutions with GELU, from a feature and the border of the parent image.

    z is spread over a 4 × 4 grid; the border pixels join it there, folded into the grid's cells. `px` must be a
    power of 2 from 32 to 256: the three strides multiply to px / 4. `image_channels` are those of an image.
    """

    def __init__(self, in_dim: int, px: int, channels: int = 128, image_channels: int = 3):
        super().__init__()
        strides = {32: (2, 2, 2), 64: (2, 2, 4), 128: (2, 4, 4), 256: (4, 4, 4)}.get(px)
        if strides is None:
            raise InputError(f"reconstruction needs images of 32, 64, 128 or 256 px, not {px}")
        self.channels = channels
        self.spread = nn.Linear(in_dim, channels * 16)
        self.context = nn.Conv2d(image_channels, channels // 4, px // 4, stride=px // 4)  # one cell, one pixel block
        widths = (channels + channels // 4, channels // 2, channels // 4, image_channels)
        layers: list[nn.Module] = []
        for i, stride in enumerate(strides):
            layers += [nn.ConvTranspose2d(widths[i], widths[i + 1], stride + 2, stride, padding=1), nn.GELU()]
        self.up = nn.Sequential(*layers[:-1])

    def forward(self, features: Tensor, context: Tensor) -> Tensor:
        """(B, in_dim), (B, C, px, px) with the inside zeroed → (B, C, px, px)."""
        grid = self.spread(features).view(-1, self.channels, 4, 4)
        return self.up(F.gelu(torch.cat([grid, self.context(context)], dim=1)))

"""What location encoders are trained with: pure functions on tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def symmetric_info_nce(a: Tensor, b: Tensor, scale: Tensor | float, weights: Tensor | None = None) -> Tensor:
    """CLIP's loss between two views of the same N things: (N, d) twice, L2-normalised here → scalar.

    With s_ij = scale · a_i·b_j:  −½ mean_i [ log(e^s_ii / Σ_j w_ij e^s_ij) + log(e^s_ii / Σ_j w_ji e^s_ji) ].
    weights: (N, N) ≥ 0, how much each pair counts as a negative
    (`reproduction.beyond.semivariogram.variogram.pair_weights`); its diagonal is taken as 1. None: all count 1, which
    is CLIP.
    """
    logits = scale * (F.normalize(a.float(), dim=-1) @ F.normalize(b.float(), dim=-1).T)
    same = torch.diagonal(logits)
    if weights is not None:
        eye = torch.eye(len(a), dtype=torch.bool, device=a.device)
        logits = logits + torch.where(eye, torch.ones_like(logits), weights.float()).log()
    return (torch.logsumexp(logits, dim=1) + torch.logsumexp(logits, dim=0) - 2 * same).mean() / 2


def embedding_error(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error between an embedding and the teacher's, (N, d) each; the teacher is not differentiated."""
    return (predicted.float() - target.detach().float()).square().mean()


def multi_view_info_nce(places: Tensor, views: Sequence[Tensor], scale: Tensor | float) -> Tensor:
    """One thing aligned with several views of it: the mean of `symmetric_info_nce` over views.

    places: (N, d); views: (N, d) each. The views meet in the places' space, not each other.
    """
    return torch.stack([symmetric_info_nce(view, places, scale) for view in views]).mean()

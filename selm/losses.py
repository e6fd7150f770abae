"""The losses of GPS-SELM: pure functions on tensors, each named by its equation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_assignment(logits: Tensor, temperature: float | Tensor, centre: Tensor | None = None) -> Tensor:
    """Eq. 2, and its analogue for the teacher: softmax((logits − centre) / temperature) over the last dimension.

    logits: (..., K) floats; centre: (K,) or None (eq. 2 as printed has none; DINO needs one not to collapse).
    """
    if centre is not None:
        logits = logits - centre
    return F.softmax(logits.float() / temperature, dim=-1)


def cross_entropy(teacher: Tensor, student_log: Tensor) -> Tensor:
    """Eq. 3 and eq. 12: H(a, b) = −Σ a log b over the last dimension, from probabilities and log-probabilities."""
    return -(teacher * student_log).sum(dim=-1)


def distillation(student_logits: Tensor, teacher_probabilities: Tensor, temperature: float | Tensor) -> Tensor:
    """Eq. 4, as a mean over pairs of different views and over the batch.

    student_logits: (V, B, K), the global views first; teacher_probabilities: (G, B, K), not differentiated.
    View v of the student is paired with view g of the teacher for all g ≠ v.
    """
    n_views, n_global = len(student_logits), len(teacher_probabilities)
    student_log = F.log_softmax(student_logits.float() / temperature, dim=-1)
    teacher = teacher_probabilities.detach()
    # Σ_g Σ_{v≠g} −t_g·s_v = −(Σ_g t_g)·(Σ_v s_v) + Σ_g t_g·s_g: two sums instead of G·(V−1) products
    every = cross_entropy(teacher.sum(dim=0), student_log.sum(dim=0))
    same = cross_entropy(teacher, student_log[:n_global]).sum(dim=0)
    return (every - same).mean() / (n_global * (n_views - 1))


def land_price(predicted: Tensor, target: Tensor) -> Tensor:
    """Eq. 5: mean squared error over locations whose price is known; (N,), (N,) with NaN for unknown. 0 if none."""
    return _masked_mean((predicted - target.nan_to_num(posinf=0, neginf=0)) ** 2, target.isfinite())


def density(logits: Tensor, target: Tensor) -> Tensor:
    """Eq. 6, the cross-entropy (its indices are slips): (N, classes), (N,) int64, −1 for unknown. 0 if none."""
    return _masked_mean(F.cross_entropy(logits.float(), target.clamp(min=0), reduction="none"), target >= 0)


def coordinates(predicted: Tensor, target: Tensor) -> Tensor:
    """Eq. 7: mean over locations of the summed squared errors of latitude and longitude; (N, 2) each, scaled."""
    return ((predicted - target) ** 2).sum(dim=-1).mean()


def geo(price_loss: Tensor, density_loss: Tensor, coordinate_loss: Tensor) -> Tensor:
    """Eq. 8: a third of each."""
    return (price_loss + density_loss + coordinate_loss) / 3


def pixel_error(predicted: Tensor, parent: Tensor) -> Tensor:
    """Squared error of every pixel, a mean over batch and channels: (N, 3, h, w) twice → (h, w)."""
    return (predicted.float() - parent.float()).square().mean(dim=(0, 1))


def reconstruction(error: Tensor, mask: Tensor) -> Tensor:
    """Eq. 9 as a mean over the masked pixels: `pixel_error` (h, w), mask M̂ (h, w) with 1 where the loss counts."""
    return (error * mask).sum() / mask.sum()


def cluster_logits(features: Tensor, prototypes: Tensor, centre: Tensor | None) -> Tensor:
    """The numerators' exponents of eqs. 10 and 11 before the temperature: (f − p_div) · c_i.

    features: (..., d), L2-normalised here; prototypes: (m, d), L2-normalised here; centre p_div: (d,) or None.
    """
    features = F.normalize(features.float(), dim=-1)
    if centre is not None:
        features = features - centre
    return features @ F.normalize(prototypes.float(), dim=-1).T


def moving_average(average: Tensor, values: Tensor, eta: float) -> Tensor:
    """average ← η average + (1 − η) mean(values), over all but the last dimension (p_div, eq. 11; DINO's centre)."""
    return eta * average + (1 - eta) * values.detach().float().flatten(0, -2).mean(dim=0)


def total(cl: Tensor, geo_: Tensor, rec: Tensor, clust: Tensor, alpha: float, beta: float, gamma: float) -> Tensor:
    """Eq. 13: L_cl + α L_geo + β L_rec + γ L_clust."""
    return cl + alpha * geo_ + beta * rec + gamma * clust


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    # where, not a product: an unknown target must not send 0 · inf through the gradient
    kept = torch.where(mask, values, torch.zeros_like(values))
    return kept.sum() / mask.sum().clamp(min=1)

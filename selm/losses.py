"""Every loss as a pure function on tensors: GPS-SELM's by equation, then those of MoCo, MUGS and Tile2Vec."""

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


def info_nce(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """InfoNCE of each query (MoCo's eq. 1): −log exp(q·k/τ) / (exp(q·k/τ) + Σ_i exp(q·n_i/τ)), n_i from the queue.

    queries and keys: (…, d), of shapes that broadcast; queue: (K, d); all L2-normalised by the caller. Returns (…) in
    float32, the sums too, also under autocast: with τ = 0.02 bfloat16's steps would be as large as the logits.
    """
    with torch.autocast(queries.device.type, enabled=False):
        queries, keys, queue = queries.float(), keys.float(), queue.float()
        positive = (queries * keys).sum(dim=-1) / temperature
        negative = torch.logsumexp(queries @ queue.T / temperature, dim=-1)
        return F.softplus(negative - positive)  # −log(e^p / (e^p + e^n)) = log(1 + e^(n − p))


def by_crop_size(pairs: Tensor) -> Tensor:
    """MUGS's mean over pairs of views: half from the student's global views, half from its local ones.

    pairs: (G, V), losses of teacher view g and student view v, global views first; g = v is left out. With no local
    view (V = G) it is the mean over the global ones.
    """
    n_global, n_views = pairs.shape
    large = (pairs[:, :n_global].sum() - pairs.diagonal().sum()) / (n_global * (n_global - 1))
    return large if n_views == n_global else (large + pairs[:, n_global:].mean()) / 2


def cross_entropies(student_logits: Tensor, teacher_probabilities: Tensor, temperature: float) -> Tensor:
    """−Σ_k t log s of every pair of views, a mean over the batch: (V, B, K), (G, B, K) → (G, V)."""
    with torch.autocast(student_logits.device.type, enabled=False):
        student_log = F.log_softmax(student_logits.float() / temperature, dim=-1)
        teacher = teacher_probabilities.detach().float()
        return -torch.einsum("gbk,vbk->gv", teacher, student_log) / student_logits.shape[1]


def triplet(anchor: Tensor, neighbour: Tensor, distant: Tensor, margin: float, l2: float) -> Tensor:
    """Tile2Vec's eqs. 1 and 2, a mean over triplets of embeddings (N, d) each:
    [‖a − n‖ − ‖a − d‖ + margin]₊ + l2 (‖a‖ + ‖n‖ + ‖d‖).

    The authors' code takes the norm of the whole batch of 50 in the second term; here it is each embedding's own, as in
    the paper, so that its weight is independent of the batch.
    """
    with torch.autocast(anchor.device.type, enabled=False):
        anchor, neighbour, distant = anchor.float(), neighbour.float(), distant.float()
        # vector_norm: its gradient at 0 is 0, and two tiles of open sea are the same
        near = torch.linalg.vector_norm(anchor - neighbour, dim=-1)
        far = torch.linalg.vector_norm(anchor - distant, dim=-1)
        lengths = sum(torch.linalg.vector_norm(z, dim=-1) for z in (anchor, neighbour, distant))
        return (F.relu(near - far + margin) + l2 * lengths).mean()

"""The losses of the other rows (MoCo, MUGS, Tile2Vec), as pure functions on tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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


def push(queue: Tensor, pointer: Tensor, values: Tensor, chosen: Tensor | None = None) -> None:
    """Overwrite the queue's oldest entries with `values`, in order, wrapping around; moves the pointer. In place.

    queue: (K, d); pointer: int64 scalar tensor, where the next entry goes; values: (n, d), of which the last K are
    kept if n > K; chosen: (n,) bool, which of them to take, or None for all. Nothing is read back from the device.
    """
    length = len(queue)
    skipped = max(0, len(values) - length)
    values = values[-length:].to(queue.dtype)
    at = (pointer + skipped + torch.arange(len(values), device=queue.device)) % length
    count: Tensor | int = skipped + len(values)
    if chosen is not None:
        at, chosen = (at - skipped) % length, chosen[-length:]
        # the chosen ones first, in order; behind them the queue keeps what it has
        order = torch.argsort((~chosen).int(), stable=True)
        values = torch.where(chosen[order, None], values[order], queue[at])
        count = chosen.sum()
    queue.index_copy_(0, at, values)
    pointer.copy_((pointer + count) % length)


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

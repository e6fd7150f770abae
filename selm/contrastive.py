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


def push(queue: Tensor, pointer: Tensor, values: Tensor) -> None:
    """Overwrite the queue's oldest entries with `values`, in order, wrapping around; moves the pointer. In place.

    queue: (K, d); pointer: int64 scalar tensor, where the next entry goes; values: (n, d), of which the last K are
    kept if n > K. Nothing is read back from the device.
    """
    length = len(queue)
    values, skipped = values[-length:], max(0, len(values) - length)
    at = (pointer + skipped + torch.arange(len(values), device=queue.device)) % length
    queue.index_copy_(0, at, values.to(queue.dtype))
    pointer.copy_((pointer + skipped + len(values)) % length)

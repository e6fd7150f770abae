"""What methods with a momentum encoder and a queue share."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from selm.settings import Pretraining


def frozen_copy(module: nn.Module) -> nn.Module:
    """A deep copy that takes no gradient."""
    twin = copy.deepcopy(module)
    for parameter in twin.parameters():
        parameter.requires_grad_(False)
    return twin


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, momentum: float) -> None:
    """slow ← momentum · slow + (1 − momentum) · fast, over parameters; BatchNorm statistics stay each network's own."""
    torch._foreach_lerp_(list(slow.parameters()), list(fast.parameters()), 1 - momentum)


def momentum_of_run(momentum: float, memory_share: float, pretraining: Pretraining) -> float:
    """The authors' momentum, or less in a short run: it remembers 1 / (1 − m) steps, at most `memory_share` of the run
    (but ten steps, where that is fewer)."""
    steps = max(1, pretraining.images // pretraining.batch)
    return min(momentum, 1 - 1 / max(10.0, memory_share * steps))


def queue_length(length: int, share: float, pretraining: Pretraining) -> int:
    """The authors' queue, or `share` of the places where that is less: a longer one would hold a query's own place."""
    return max(1, min(length, int(share * pretraining.n_locations)))


def random_units(n: int, dim: int) -> Tensor:
    """(n, dim) random unit vectors: what a queue holds at first."""
    return nn.functional.normalize(torch.randn(n, dim), dim=-1)


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

"""What the training loop asks of a method, and what methods share: features' spread, momentum encoders, queues."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selm import distributed
from selm.encoder import MapEncoder
from selm.optimisation import Optimisation
from selm.settings import Pretraining, Views
from selm.views import Batch, ViewSampler

Places = TypeVar("Places")  # what batches are drawn from
Seen = TypeVar("Seen")  # a batch


class Saved(Protocol):
    """An encoder that can be kept: `MapEncoder`, or one of coordinates."""

    def eval(self) -> Any: ...

    def save_pretrained(self, save_directory: str | Path) -> Any: ...


class Trainable(nn.Module, ABC, Generic[Places, Seen]):
    """What the training loop trains: an `encoder` and its heads, on batches drawn from places of its own kind."""

    encoder: Saved

    @abstractmethod
    def optimisation(self) -> Optimisation:
        """The optimizer and schedules that the method is trained with."""

    @abstractmethod
    def describe(self, views: Views) -> dict[str, str]:
        """For the book's table of settings: `momentum` of the slow network, `temperatures`, `queue`, `heads`, and the
        `views` that are drawn where the profile's are `views`; "–" for what the method has not."""

    def prepare(self, sampler: Places) -> None:
        """Called once, before training: buffers that the method computes from all places."""

    @abstractmethod
    def draw(self, sampler: Places, n: int, generator: torch.Generator, part: slice = slice(None)) -> Seen:
        """A batch of n places; `part` as in `ViewSampler.batch`. Images seen are counted in places, however many views
        there are of each."""

    @abstractmethod
    def loss(self, batch: Seen, progress: float) -> dict[str, Tensor]:
        """Losses and diagnostics as scalars on the device; the entry ``loss`` is differentiated, the rest is logged."""

    def forward(self, batch: Seen, progress: float) -> dict[str, Tensor]:
        """`loss`, by the name that wrappers of modules call."""
        return self.loss(batch, progress)

    def before_step(self, progress: float) -> None:
        """Called between the backward pass and the optimizer's step."""

    def after_step(self, progress: float) -> None:
        """Called after the optimizer's step: moving averages, queues."""

    def collapse(self, logged: dict[str, float]) -> str:
        """A word on collapse from logged means of `loss`'s entries: '' when healthy, else what has collapsed."""
        return "features are all alike" if logged.get("feature_spread", 1.0) < 0.05 else ""


class Method(Trainable[ViewSampler, Batch]):
    """A way to pretrain an encoder on views of places.

    `parent_share` says of how many of a batch's places it must carry the zoom-16 parent images; `needs` names the
    columns that a table of places must have besides coordinates. `encoder` is the network whose pooled feature is the
    embedding.
    """

    parent_share: float = 0.0
    needs: tuple[str, ...] = ()
    encoder: MapEncoder

    def draw(self, sampler: ViewSampler, n: int, generator: torch.Generator, part: slice = slice(None)) -> Batch:
        """A batch of n places, seen as the method wants to see them; `part` as in `ViewSampler.batch`."""
        return sampler.batch(sampler.draw_rows(n, generator), generator, parent_share=self.parent_share, part=part)


@torch.no_grad()
def feature_spread(features: Tensor) -> Tensor:
    """Root of the summed variances of unit features (N, d): 1 for all directions, 0 when all features are the same."""
    return distributed.gather(F.normalize(features.float(), dim=-1)).var(dim=0).sum().sqrt()


def views_text(views: Views) -> str:
    """Number, size and share of the image of global and local views: 2 × 128 px of 40–100 %, 6 × 64 px of 5–40 %."""

    def one(count: int, px: int, area: tuple[float, float]) -> str:
        return f"{count} × {px} px of {100 * area[0]:g}–{100 * area[1]:g} %"

    text = one(2, views.global_px, views.global_area)
    return f"{text}, {one(views.n_local, views.local_px, views.local_area)}" if views.n_local else text


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
    return max(1, min(length, int(share * pretraining.n_places)))


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

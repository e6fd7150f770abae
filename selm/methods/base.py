"""What the training loop asks of a method."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selm.networks import MapEncoder
from selm.optimisation import Optimisation
from selm.views import Batch, ViewSampler


class Method(nn.Module, ABC):
    """A way to pretrain an encoder on views of places.

    `needs_parents` says whether batches must carry the zoom-16 parent images. `encoder` is the network whose pooled
    feature is the embedding.
    """

    needs_parents: bool = False
    encoder: MapEncoder

    @abstractmethod
    def optimisation(self) -> Optimisation:
        """The optimizer and schedules that the method is trained with."""

    def prepare(self, sampler: ViewSampler) -> None:
        """Called once, before training: buffers that the method computes from all places."""

    def draw(self, sampler: ViewSampler, n: int, generator: torch.Generator, part: slice = slice(None)) -> Batch:
        """A batch of n places, seen as the method wants to see them; `part` as in `ViewSampler.batch`.

        Images seen are counted in places, whatever the number of views.
        """
        return sampler.batch(sampler.draw_rows(n, generator), generator, parents=self.needs_parents, part=part)

    @abstractmethod
    def loss(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Losses and diagnostics as scalars on the device; the entry ``loss`` is differentiated, the rest is logged."""

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """`loss`, by the name that wrappers of modules call."""
        return self.loss(batch, progress)

    def before_step(self, progress: float) -> None:
        """Called between the backward pass and the optimizer's step."""

    def after_step(self, progress: float) -> None:
        """Called after the optimizer's step: moving averages, queues."""

    def collapse(self, logged: dict[str, float]) -> str:
        """A word on collapse from logged means of `loss`'s entries: '' when healthy, else what has collapsed."""
        return "features are all alike" if logged.get("feature_spread", 1.0) < 0.05 else ""


@torch.no_grad()
def feature_spread(features: Tensor) -> Tensor:
    """Root of the summed variances of unit features (N, d): 1 for all directions, 0 when all features are the same."""
    return F.normalize(features.float(), dim=-1).var(dim=0).sum().sqrt()

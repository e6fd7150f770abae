"""What the training loop asks of a method."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from selm.networks import MapEncoder
from selm.views import Batch


class Method(nn.Module, ABC):
    """A way to pretrain an encoder on views of places.

    `needs_parents` says whether batches must carry the zoom-16 parent images. `encoder` is the network whose pooled
    feature is the embedding.
    """

    needs_parents: bool = False
    encoder: MapEncoder

    @abstractmethod
    def loss(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Losses and diagnostics as scalars on the device; the entry ``loss`` is differentiated, the rest is logged."""

    def before_step(self, progress: float) -> None:
        """Called between the backward pass and the optimizer's step."""

    def after_step(self, progress: float) -> None:
        """Called after the optimizer's step: moving averages, queues."""

    def collapse(self, logged: dict[str, float]) -> str:
        """A word on collapse from logged means of `loss`'s entries: '' when healthy, else what has collapsed."""
        return ""

"""Coordinates aligned with several views of their place (Holvoet et al. 2025), by the one training loop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from reproduction.beyond.location_encoders.encoder import LocationEncoder
from reproduction.beyond.location_encoders.losses import multi_view_info_nce
from selm.errors import InputError
from selm.methods.base import Trainable, feature_spread
from selm.optimisation import Optimisation
from selm.settings import Views


@dataclass(frozen=True)
class ViewedPlaces:
    """`coordinates` (n, 2) float64 degrees and, for each of several `views` of those places, features (n, d) float32,
    each standardised over the places."""

    coordinates: Tensor
    views: tuple[Tensor, ...]

    @classmethod
    def of(cls, coordinates: Tensor, views: Sequence[ArrayLike]) -> ViewedPlaces:
        """Standardises the views; a number that is the same everywhere becomes 0."""
        tensors = [torch.as_tensor(np.asarray(view, np.float64)) for view in views]
        for number, view in enumerate(tensors):
            if view.ndim != 2 or len(view) != len(coordinates) or not len(view):
                raise InputError(f"view {number}: shape {tuple(view.shape)} for {len(coordinates)} places")
            if not torch.isfinite(view).all():
                raise InputError(f"view {number}: not all numbers are finite")
        if not tensors:
            raise InputError("no view to align coordinates with")
        made = [(view - view.mean(dim=0)) / view.std(dim=0, correction=0).clamp(min=1e-9) for view in tensors]
        return cls(coordinates, tuple(view.float() for view in made))


@dataclass(frozen=True)
class ViewBatch:
    """`positions` (parts, B, width) of B places and their `views`, (B, d) each."""

    positions: Tensor
    views: tuple[Tensor, ...]


class MultiViewMethod(Trainable[ViewedPlaces, ViewBatch]):
    """A location encoder whose output meets every view of the place, each through one linear layer of its own, by
    CLIP's symmetric loss with one learnt scale (from 1/0.07, at most 100). Only the location encoder is kept."""

    encoder: LocationEncoder

    def __init__(
        self, encoder: LocationEncoder, places: ViewedPlaces, *, lr: float, lr_warmup: float, weight_decay: float
    ):
        super().__init__()
        self.encoder = encoder
        self.lr, self.lr_warmup, self.weight_decay = lr, lr_warmup, weight_decay
        self.projections = nn.ModuleList(nn.Linear(view.shape[1], encoder.dim) for view in places.views)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def optimisation(self) -> Optimisation:
        return Optimisation(
            "adamw", lr=self.lr, lr_warmup=self.lr_warmup, weight_decay=(self.weight_decay, self.weight_decay)
        )

    def describe(self, views: Views) -> dict[str, str]:
        """See `Method.describe`."""
        return {
            "momentum": "–", "temperatures": "learnt, from 0.07, at least 0.01", "queue": "–",
            "heads": "one linear layer a view", "views": f"{len(self.projections)} vectors of the place",
        }  # fmt: skip

    def draw(self, sampler: ViewedPlaces, n: int, generator: torch.Generator, part: slice = slice(None)) -> ViewBatch:
        """See `Trainable.draw`: uniformly, with replacement."""
        on = self.log_scale.device
        rows = torch.randint(len(sampler.coordinates), (n,), generator=generator, device=generator.device)[part].cpu()
        positions = self.encoder.positions(sampler.coordinates[rows].to(on))
        return ViewBatch(positions, tuple(view[rows].to(on) for view in sampler.views))

    def loss(self, batch: ViewBatch, progress: float) -> dict[str, Tensor]:
        places = self.encoder.encode_positions(batch.positions)
        scale = self.log_scale.clamp(max=math.log(100)).exp()
        views = [project(view) for project, view in zip(self.projections, batch.views, strict=True)]
        return {
            "loss": multi_view_info_nce(places, views, scale), "scale": scale.detach(),
            "feature_spread": feature_spread(places.detach()),
        }  # fmt: skip

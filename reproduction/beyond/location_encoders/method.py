"""Training a location encoder from the embeddings of map images: by contrast, or by distillation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reproduction.beyond.location_encoders.encoder import LocationEncoder
from reproduction.beyond.location_encoders.losses import embedding_error, symmetric_info_nce
from selm.errors import InputError, unknown
from selm.maps.mercator import EARTH_RADIUS_M
from selm.methods.base import Trainable, feature_spread
from selm.optimisation import Optimisation
from selm.settings import Views

OBJECTIVES = ("contrast", "distillation")
PairWeights = Callable[[Tensor, Tensor], Tensor]  # (N, 2) degrees, (N, d) image features → (N, N)


@dataclass(frozen=True)
class PairedPlaces:
    """Places and the frozen embeddings of their map images: `coordinates` (n, 2) float64 degrees, `features` (n, d)."""

    coordinates: Tensor
    features: Tensor

    @classmethod
    def of(cls, lat: NDArray[np.float64], lon: NDArray[np.float64], features: NDArray[np.float32]) -> PairedPlaces:
        if not len(lat) == len(lon) == len(features) or not len(lat):
            raise InputError(f"{len(lat)} latitudes, {len(lon)} longitudes and {len(features)} embeddings")
        return cls(torch.as_tensor(np.stack([lat, lon], axis=1)), torch.as_tensor(features))


@dataclass(frozen=True)
class PairBatch:
    """`positions` (parts, B, width) of B places, their `coordinates` (B, 2) and image `features` (B, d)."""

    positions: Tensor
    coordinates: Tensor
    features: Tensor


class LocationMethod(Trainable[PairedPlaces, PairBatch]):
    """A location encoder against the frozen embeddings of the places' map images.

    ``contrast``: the image's embedding goes through one linear layer, and both embeddings are matched within the batch
    by CLIP's symmetric loss with a learnt scale (from 1/0.07, at most 100), as SatCLIP and GeoCLIP do.
    ``distillation``: the encoder predicts the image's embedding, each dimension standardised over the places.

    `places` standardise the images' embeddings. `weigh` gives the weight of each pair of a batch as negatives (contrast
    only). Each time a place is seen, its coordinates are moved by normal numbers of `jitter_m` metres, north and east.
    """

    encoder: LocationEncoder
    mean: Tensor
    std: Tensor

    def __init__(
        self, encoder: LocationEncoder, places: PairedPlaces, objective: str, *,
        lr: float, lr_warmup: float, weight_decay: float, weigh: PairWeights | None = None, jitter_m: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        if objective not in OBJECTIVES:
            raise unknown("objective", objective, OBJECTIVES)
        image_dim = places.features.shape[1]
        if objective == "distillation" and encoder.dim != image_dim:
            raise InputError(f"distillation: the encoder has {encoder.dim} dimensions, the teacher {image_dim}")
        self.encoder, self.objective, self.weigh, self.jitter_m = encoder, objective, weigh, jitter_m
        self.lr, self.lr_warmup, self.weight_decay = lr, lr_warmup, weight_decay
        self.register_buffer("mean", places.features.float().mean(dim=0))
        self.register_buffer("std", places.features.float().std(dim=0).clamp(min=1e-6))
        if objective == "contrast":
            self.image_projection = nn.Linear(image_dim, encoder.dim)
            self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def optimisation(self) -> Optimisation:
        return Optimisation(
            "adamw", lr=self.lr, lr_warmup=self.lr_warmup, weight_decay=(self.weight_decay, self.weight_decay)
        )

    def describe(self, views: Views) -> dict[str, str]:
        """See `Method.describe`."""
        heads = "one linear layer on the image" if self.objective == "contrast" else "–"
        temperature = "learnt, from 0.07, at least 0.01" if self.objective == "contrast" else "–"
        return {
            "momentum": "–", "temperatures": temperature, "queue": "–", "heads": heads, "views": "no view: coordinates"
        }  # fmt: skip

    def draw(self, sampler: PairedPlaces, n: int, generator: torch.Generator, part: slice = slice(None)) -> PairBatch:
        """See `Trainable.draw`: uniformly, with replacement."""
        rows = torch.randint(len(sampler.features), (n,), generator=generator, device=generator.device)[part].cpu()
        if not self.jitter_m:
            return self.batch_of(sampler, rows)
        metres = self.jitter_m * torch.randn(n, 2, generator=generator, device=generator.device)[part].cpu()
        return self.batch_of(sampler, rows, metres)

    def batch_of(self, sampler: PairedPlaces, rows: Tensor, moved_m: Tensor | None = None) -> PairBatch:
        """The batch of some places, int64 (B,), on the method's device; `moved_m` (B, 2): so far north and east."""
        on = self.mean.device
        coordinates = sampler.coordinates[rows].to(on)
        if moved_m is not None:
            north, east = torch.rad2deg(moved_m.to(coordinates) / EARTH_RADIUS_M).T
            coordinates = coordinates + torch.stack([north, east / coordinates[:, 0].deg2rad().cos()], dim=1)
        return PairBatch(self.encoder.positions(coordinates), coordinates, sampler.features[rows].to(on))

    def standardised(self, features: Tensor) -> Tensor:
        """Image embeddings, each dimension standardised by the training places'."""
        return (features.float() - self.mean) / self.std

    def loss(self, batch: PairBatch, progress: float) -> dict[str, Tensor]:
        embedding = self.encoder.encode_positions(batch.positions)
        image = self.standardised(batch.features)
        out: dict[str, Tensor] = {}
        if self.objective == "distillation":
            out["loss"] = embedding_error(embedding, image)
        else:
            weights = None if self.weigh is None else self.weigh(batch.coordinates, batch.features)
            scale = self.log_scale.clamp(max=math.log(100)).exp()
            out["loss"] = symmetric_info_nce(self.image_projection(image), embedding, scale, weights)
            out["scale"] = scale.detach()
        out["feature_spread"] = feature_spread(embedding.detach())
        return out

    @torch.no_grad()
    def images(self, features: Tensor) -> Tensor:
        """Where frozen image embeddings (N, d) lie in the location encoder's space, (N, dim), for retrieval."""
        image = self.standardised(features)
        return image if self.objective == "distillation" else self.image_projection(image)

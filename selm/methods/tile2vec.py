"""Tile2Vec (Jean et al., AAAI 2019): near tiles are alike, distant ones are not, by a triplet loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from selm import losses
from selm.encoder import MapEncoder
from selm.methods.base import Method, feature_spread
from selm.optimisation import Optimisation
from selm.settings import Pretraining, Views
from selm.views import Batch, ViewSampler


@dataclass(frozen=True)
class Tile2VecSettings:
    """Numbers of Tile2Vec: the authors' (ermongroup/tile2vec), and by name where map images differ.

    Batch (50 there), encoder (an 18-layer network of their own with 512 outputs) and images seen are the profile's.
    """

    margin: float = 10.0  # the training notebook's; the code's default is 0.1, the paper's 50
    l2: float = 0.01  # λ of eq. 2, the training notebook's
    neighbourhood: float = 2.0  # in images: ± 100 px around the middle of a 50-px tile
    lr: float = 1e-3  # the training notebook's, constant
    betas: tuple[float, float] = (0.5, 0.999)


class Tile2Vec(Method):
    """Triplets of whole images without cropping or zooming. A place drawn counts as one image seen, as for every
    method, though three tiles are looked at: the anchor, which is the place, a neighbour and a distant tile."""

    def __init__(self, encoder: MapEncoder, pretraining: Pretraining, settings: Tile2VecSettings, image_px: int):
        super().__init__()
        self.settings = settings
        self.encoder = encoder

    def optimisation(self) -> Optimisation:
        """Adam at a constant rate."""
        s = self.settings
        return Optimisation("adam", lr=s.lr, lr_min=s.lr, momentum=s.betas)

    def describe(self, views: Views) -> dict[str, str]:
        """See `Method.describe`."""
        s = self.settings
        return {
            "momentum": "–",
            "temperatures": f"margin {s.margin:g}, λ = {s.l2:g}",
            "queue": "–",
            "heads": "–",
            "views": f"3 × {views.global_px} px: whole images, ± {s.neighbourhood:g} images and beyond",
        }

    def draw(self, sampler: ViewSampler, n: int, generator: torch.Generator, part: slice = slice(None)) -> Batch:
        """Anchors, neighbours and distant tiles of n places."""
        rows = sampler.draw_rows(n, generator)
        return sampler.triplets(rows, self.settings.neighbourhood, generator, part=part)

    def loss(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """See `Method.loss`. Entries: loss, triplet (its hinge alone), mean distances and length, feature_spread."""
        s = self.settings
        # one after the other, each with BatchNorm statistics of its own, as the authors do
        anchor, neighbour, distant = (self.encoder(part).float() for part in batch.global_views.split(batch.size))
        out = {"loss": losses.triplet(anchor, neighbour, distant, s.margin, s.l2)}
        with torch.no_grad():
            out["triplet"] = losses.triplet(anchor, neighbour, distant, s.margin, 0.0)
            out["neighbour_distance"] = (anchor - neighbour).norm(dim=-1).mean()
            out["distant_distance"] = (anchor - distant).norm(dim=-1).mean()
            out["length"] = anchor.norm(dim=-1).mean()
            out["feature_spread"] = feature_spread(anchor)
        return out

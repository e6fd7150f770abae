"""MoCo-v2 + Geo + TP (Ayush et al., ICCV 2021): MoCo-v2 that also says where a place is, with temporal positives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selm.errors import InputError
from selm.methods.moco_v2 import MoCo, MoCoSettings
from selm.networks import MapEncoder
from selm.settings import Pretraining, Views
from selm.views import Batch, ViewSampler


@dataclass(frozen=True)
class MoCoGeoTPSettings(MoCoSettings):
    """What differs from `MoCoSettings`: the authors' numbers (sustainlab-group/geography-aware-ssl), and by name ours.

    A temporal positive is the same place at another date. Maps have no dates, so the key is another view of the place.
    """

    temperature: float = 0.02  # the README's --moco-t
    crop_area: tuple[float, float] = (0.08, 1.0)  # the temporal data set's RandomResizedCrop
    positive: Literal["view", "zoom"] = "view"  # ours: the key is another crop, or the whole place one zoom out
    geo_classes: int = 100  # clusters of latitude and longitude
    geo_classes_share: float = 0.25  # ours: as many classes as this share of the places at most
    geo_weight: float = 1.0


class MoCoGeoTP(MoCo):
    """MoCo, and a classifier on the query's un-normalised projection that names the place's cluster of coordinates."""

    settings: MoCoGeoTPSettings
    geo_class: Tensor  # (places,) int64

    def __init__(self, encoder: MapEncoder, pretraining: Pretraining, settings: MoCoGeoTPSettings, image_px: int):
        super().__init__(encoder, pretraining, settings, image_px)
        self.needs_parents = settings.positive == "zoom"
        self.classes = max(2, min(settings.geo_classes, int(settings.geo_classes_share * pretraining.n_locations)))
        self.geo_head = nn.Sequential(nn.ReLU(), nn.Linear(settings.dim, self.classes))

    def describe(self, views: Views) -> dict[str, str]:
        """See `Method.describe`."""
        own = super().describe(views)
        key = "" if self.settings.positive == "view" else "; the key one zoom out"
        return own | {"heads": f"{own['heads']}; geo: {self.classes} classes", "views": own["views"] + key}

    def prepare(self, sampler: ViewSampler) -> None:
        """Cluster the places' coordinates by k-means, in degrees as the authors do."""
        self.register_buffer("geo_class", torch.as_tensor(cluster_coordinates(sampler.places, self.classes)))

    def loss(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """See `Method.loss`. Entries: those of `MoCo`, geo and geo_accuracy."""
        projected, out = self.contrast(batch)
        target = self.geo_class[batch.rows]
        logits = self.geo_head(projected).float()
        out["geo"] = F.cross_entropy(logits, target)
        out["geo_accuracy"] = (logits.detach().argmax(dim=-1) == target).float().mean()
        out["loss"] = out["nce"] + self.settings.geo_weight * out["geo"]
        return out

    def key_images(self, batch: Batch) -> Tensor:
        """The other view of each place, or the map around it one zoom out: (B, 3, px, px)."""
        if batch.parents is not None:
            return batch.parents[batch.size :]
        return super().key_images(batch)


def cluster_coordinates(places: np.ndarray, classes: int) -> np.ndarray:
    """k-means of (n, 2) degrees: (n,) int64 classes. Raises InputError where places are fewer than classes."""
    from sklearn.cluster import KMeans

    if len(places) < classes:
        raise InputError(f"{len(places)} places cannot make {classes} geographic classes")
    # learnt from 100,000 places at most; a fixed seed and one start: the same places give the same classes
    some = places[np.random.default_rng(0).permutation(len(places))[:100_000]]
    return KMeans(classes, n_init=1, random_state=0).fit(some).predict(places).astype(np.int64)

"""MoCo-v2 (He et al., CVPR 2020; Chen et al., arXiv 2003.04297), and MoCo-v2 + Geo + TP (Ayush et al., ICCV 2021)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selm import distributed, losses
from selm.encoder import MapEncoder
from selm.errors import InputError
from selm.heads import contrastive_head
from selm.methods.base import (
    Method,
    feature_spread,
    follow,
    frozen_copy,
    momentum_of_run,
    push,
    queue_length,
    random_units,
    views_text,
)
from selm.optimisation import Optimisation
from selm.settings import Pretraining, Views
from selm.views import Batch, ViewSampler


class SplitBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm whose training batch is normalised in groups of about `group` images, as several GPUs would do it.

    There are always two groups at least, over all processes that share the batch. In eval mode it is a plain BatchNorm,
    with the same state.
    """

    group: int

    def forward(self, images: Tensor) -> Tensor:
        if not self.training:
            return super().forward(images)
        groups = max(2, len(images) * distributed.size() // self.group)
        parts = images.tensor_split(max(1, groups // distributed.size()))
        return torch.cat([super(SplitBatchNorm2d, self).forward(part) for part in parts])


def split_batchnorm(encoder: MapEncoder, group: int) -> MapEncoder:
    """Replace the encoder's BatchNorms by split ones, in place; parameters and names stay. Returns the encoder."""
    for parent in list(encoder.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                split = SplitBatchNorm2d(child.num_features, child.eps, child.momentum)
                split.load_state_dict(child.state_dict())
                split.group = group
                setattr(parent, name, split)
    return encoder


@dataclass(frozen=True)
class MoCoSettings:
    """Numbers of MoCo-v2: the authors' (facebookresearch/moco), and by name where map images or short runs differ.

    Batch, encoder, places, images seen, rotation and zoom of views are the profile's. Colour jitter, greyscale and blur
    are left out, as for every row: on a map, colour says what a thing is (section 3.2 of the paper has none either).
    """

    dim: int = 128  # moco-dim
    temperature: float = 0.2  # moco-t of v2
    queue: int = 65_536  # moco-k
    queue_share: float = 0.25  # ours: the queue holds at most this share of the places
    momentum: float = 0.999  # moco-m
    memory_share: float = 0.1  # ours: short runs lower the momentum (`momentum_of_run`), to 0.9968 under japan-cpu
    crop_area: tuple[float, float] = (0.2, 1.0)  # aug-plus; the image's neighbourhood fills what a rotation uncovers
    bn_images: int = 32  # 256 images on 8 GPUs; ours: groups of one batch instead of GPUs, keys dealt out anew
    lr: float = 0.03  # for batch 256; used as it is for the profile's batch, as DINO's 5e-4 is under japan-cpu
    sgd_momentum: float = 0.9
    weight_decay: float = 1e-4  # on all parameters


class MoCo(Method):
    """A query encoder and a key encoder, each with a 2-layer head; keys of past batches are the negatives.

    The first view is the query, the second the key. The authors shuffle keys among GPUs so that a query and its key
    never share BatchNorm statistics. On one device, both batches are normalised in groups of `bn_images`, and key
    groups take one place in G of each query group: which places a group holds then says nothing about the pair.
    """

    queue: Tensor  # (K, dim) unit keys
    pointer: Tensor  # where the next key goes

    def __init__(self, encoder: MapEncoder, pretraining: Pretraining, settings: MoCoSettings, image_px: int):
        super().__init__()
        self.settings = settings
        self.encoder = split_batchnorm(encoder, settings.bn_images)
        self.head = contrastive_head(encoder.dim, settings.dim)
        self.key_encoder = frozen_copy(self.encoder)
        self.key_head = frozen_copy(self.head)
        self.momentum = momentum_of_run(settings.momentum, settings.memory_share, pretraining)
        length = queue_length(settings.queue, settings.queue_share, pretraining)
        self.register_buffer("queue", random_units(length, settings.dim))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    def optimisation(self) -> Optimisation:
        """SGD with a cosine and no warm-up."""
        s = self.settings
        return Optimisation(
            "sgd", lr=s.lr, weight_decay=(s.weight_decay, s.weight_decay), decay_all=True, momentum=(s.sgd_momentum,)
        )

    def describe(self, views: Views) -> dict[str, str]:
        """See `Method.describe`."""
        s, width = self.settings, self.head[0].out_features
        return {
            "momentum": f"{self.momentum:.4g}",
            "temperatures": f"{s.temperature:g}",
            "queue": f"{len(self.queue):,}",
            "heads": f"{width}-{s.dim}",
            "views": views_text(self._views(views)),
        }

    def _views(self, views: Views) -> Views:
        return dataclasses.replace(views, global_area=self.settings.crop_area, n_local=0)

    def draw(self, sampler: ViewSampler, n: int, generator: torch.Generator, part: slice = slice(None)) -> Batch:
        """Two random crops of each place."""
        views = self._views(sampler.views)
        rows = sampler.draw_rows(n, generator)
        return sampler.batch(rows, generator, parent_share=self.parent_share, part=part, views=views)

    def loss(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """See `Method.loss`. Entries: loss, nce, mean cosines to the key and to the queue, feature_spread."""
        _, out = self.contrast(batch)
        out["loss"] = out["nce"]
        return out

    def contrast(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The head's output for the queries, before normalisation (B, dim), and InfoNCE with its diagnostics."""
        query_images, key_images = batch.global_views[: batch.size], self.key_images(batch)
        features = self.encoder(query_images)
        projected = self.head(features).float()
        queries = F.normalize(projected, dim=-1)
        with torch.no_grad():
            # several processes deal with each other, as the authors' GPUs do
            dealt = deal(batch.size * distributed.size(), self.settings.bn_images, query_images.device)
            own = distributed.part(len(dealt))
            taught = self.key_head(self.key_encoder(distributed.gather(key_images)[dealt[own]])).float()
            taught = distributed.gather(taught)
            self._next_keys = F.normalize(torch.empty_like(taught).index_copy_(0, dealt, taught), dim=-1)
            keys = self._next_keys[own]
        nce = losses.info_nce(queries, keys, self.queue, self.settings.temperature).mean()
        with torch.no_grad():
            asked = queries.detach()
            diagnostics = {
                "key_cosine": (asked * keys).sum(dim=-1).mean(),
                "queue_cosine": asked.mean(dim=0) @ self.queue.mean(dim=0),
                "feature_spread": feature_spread(features),
            }
        return projected, {"nce": nce, **diagnostics}

    def key_images(self, batch: Batch) -> Tensor:
        """The other view of each place: (B, 3, px, px)."""
        return batch.global_views[batch.size :]

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Move the key encoder (the same as before the next step's keys) and put this step's keys into the queue."""
        follow(self.key_encoder, self.encoder, self.momentum)
        follow(self.key_head, self.head, self.momentum)
        push(self.queue, self.pointer, self._next_keys)


def deal(n: int, group: int, device: torch.device) -> Tensor:
    """(n,) int64: an order in which each group of about `group` images holds as many of each group of the old one."""
    groups = max(2, n // group)
    return torch.cat([torch.arange(first, n, groups, device=device) for first in range(groups)])


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
        self.parent_share = float(settings.positive == "zoom")
        self.classes = max(2, min(settings.geo_classes, int(settings.geo_classes_share * pretraining.n_places)))
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

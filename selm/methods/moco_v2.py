"""MoCo-v2 (He et al., CVPR 2020; Chen et al., arXiv 2003.04297): queries against momentum-encoded keys and a queue."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from selm import contrastive, distributed
from selm.methods.base import Method, feature_spread, views_text
from selm.methods.momentum import follow, frozen_copy, momentum_of_run, queue_length, random_units
from selm.networks import MapEncoder, contrastive_head, split_batchnorm
from selm.optimisation import Optimisation
from selm.settings import Pretraining, Views
from selm.views import Batch, ViewSampler


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
    # cosine to 0 without warm-up, as main_moco's --cos


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
        return sampler.batch(rows, generator, parents=self.needs_parents, part=part, views=views)

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
        nce = contrastive.info_nce(queries, keys, self.queue, self.settings.temperature).mean()
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
        contrastive.push(self.queue, self.pointer, self._next_keys)


def deal(n: int, group: int, device: torch.device) -> Tensor:
    """(n,) int64: an order in which each group of about `group` images holds as many of each group of the old one."""
    groups = max(2, n // group)
    return torch.cat([torch.arange(first, n, groups, device=device) for first in range(groups)])

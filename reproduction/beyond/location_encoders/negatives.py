"""Negatives that are chosen, not drawn: batches of places with their neighbours, as Sample4Geo fills them.

Deuser et al. (2023) choose a batch so that its negatives are hard: at first each place's neighbours on the ground,
later the places whose images look most like its own. Their lists of look-alikes are renewed as the image encoder
learns; here the images' embeddings are frozen, so both lists are made once.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from reproduction.beyond.location_encoders.method import LocationMethod, PairBatch, PairedPlaces
from selm.errors import InputError, unknown
from selm.maps.sphere import nearest_places

KINDS = ("geographic", "sample4geo")
RANGE = 128  # source: so many neighbours are listed,
SELECT = 64  # so many of them join a place's batch, half of them the nearest, half drawn from the others
GEOGRAPHIC_SHARE = 0.1  # source: four of forty epochs
_CHUNK = 1024


def neighbours_on_the_ground(coordinates: Tensor, k: int) -> Tensor:
    """int64 (N, k): each place's k nearest others, nearest first; coordinates (N, 2) degrees."""
    lat, lon = coordinates.numpy().T
    _, near = nearest_places(lat, lon, lat, lon, k=k + 1)
    return _others(torch.as_tensor(near), k)


def look_alikes(features: Tensor, k: int) -> Tensor:
    """int64 (N, k): the k others whose features (N, d) have the largest cosine with each place's, the largest first."""
    unit = F.normalize(features.float(), dim=-1)
    near = [(part @ unit.T).topk(k + 1, dim=1).indices for part in unit.split(_CHUNK)]
    return _others(torch.cat(near), k)


def _others(near: Tensor, k: int) -> Tensor:
    """Lists of k + 1 without the place itself, which may stand anywhere among its equals, or not at all."""
    own = near == torch.arange(len(near))[:, None]
    own[:, -1] |= ~own.any(dim=1)
    return near[~own].reshape(len(near), k)


def filled(lists: Tensor, n: int, select: int, generator: torch.Generator) -> Tensor:
    """int64 (n,): the rows of a batch, no two the same.

    Places in random order, each followed by the first `select` / 2 of its list and as many random ones of the others,
    until the batch is full. lists: (N, R).
    """
    if n > len(lists):
        raise InputError(f"a batch of {n} different places out of {len(lists)}")
    half = select // 2
    rows: dict[int, None] = {}  # in the order that they came
    for place in torch.randperm(len(lists), generator=generator).tolist():
        if len(rows) >= n:
            break
        if place not in rows:
            near, others = lists[place, :half], lists[place, half:]
            drawn = others[torch.randperm(len(others), generator=generator)[:half]]
            rows.update(dict.fromkeys([place, *near.tolist(), *drawn.tolist()]))
    return torch.tensor(list(rows)[:n])


class ChosenNegatives(LocationMethod):
    """`LocationMethod` by contrast on batches that are `filled` with neighbours.

    ``geographic``: on the ground, all the time; ``sample4geo``: on the ground for the first `GEOGRAPHIC_SHARE` of the
    steps, then those that look alike.
    """

    done: Tensor  # share of the steps that have been made; kept with the weights, so that a run goes on as it was

    def __init__(self, kind: str, *args: Any, **options: Any):
        super().__init__(*args, **options)
        if kind not in KINDS:
            raise unknown("way to choose negatives", kind, KINDS)
        if self.objective != "contrast":
            raise InputError(f"{self.objective} has no negatives to choose")
        self.kind = kind
        self.register_buffer("done", torch.zeros(()))
        self._lists: dict[str, Tensor] = {}

    def draw(self, sampler: PairedPlaces, n: int, generator: torch.Generator, part: slice = slice(None)) -> PairBatch:
        """See `Trainable.draw`."""
        early = self.kind == "geographic" or float(self.done) < GEOGRAPHIC_SHARE
        name, k = "ground" if early else "looks", min(RANGE, len(sampler.features) - 1)
        if name not in self._lists:
            self._lists[name] = (
                neighbours_on_the_ground(sampler.coordinates, k) if early
                else look_alikes(self.standardised(sampler.features.to(self.mean.device)).cpu(), k)
            )  # fmt: skip
        seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
        rows = filled(self._lists[name], n, SELECT, torch.Generator().manual_seed(seed))[part]
        return self.batch_of(sampler, rows)

    def after_step(self, progress: float) -> None:
        self.done.fill_(progress)

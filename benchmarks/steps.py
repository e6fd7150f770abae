"""A pretraining run of a profile that can be stepped."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from reproduction import rows
from reproduction.computed import encoders
from reproduction.profiles import get_profile
from reproduction.settings import Profile
from selm import distributed, encoder, methods
from selm.maps.atlas import BLOCK_ZOOM
from selm.pretrain import Trainer
from selm.settings import Pretraining, Views
from selm.views import Batch, DeviceAtlas, ViewSampler


class EmptyMap:
    """A map of 8 x 8 blocks without anything on it, for work that only asks where places are."""

    tile_px = 8
    zooms: tuple[int, ...] = (17, 16)
    palette = np.zeros((256, 3), np.uint8)
    keys = np.array([(7200 + i, 3200 + j) for i in range(8) for j in range(8)], np.int32)

    def read_blocks(self, keys: NDArray[np.int32], zoom: int) -> NDArray[np.uint8]:
        side = self.tile_px << (zoom - BLOCK_ZOOM)
        return np.zeros((len(keys), side, side), np.uint8)


def empty_sampler(
    lat: NDArray[np.float64], lon: NDArray[np.float64], views: Views, atlas: DeviceAtlas | None = None
) -> ViewSampler:
    """Views of places on an `EmptyMap`, with random priorities and made-up labels."""
    n = len(lat)
    priorities = np.random.default_rng(0).random(n)
    return ViewSampler(
        atlas or DeviceAtlas([EmptyMap()], (17, 16)), lat, lon, views, zoom=17, parent_zoom=16, price=np.zeros(n),
        density_class=np.zeros(n), coordinates=np.zeros((n, 2)), priorities=priorities / priorities.sum(),
        pixel_mean=(0.5,) * 3, pixel_std=(0.5,) * 3,
    )  # fmt: skip


@dataclass
class Run:
    """A trainer, its profile and its images."""

    profile: Profile
    trainer: Trainer[ViewSampler, Batch]
    device: torch.device

    @property
    def batch(self) -> int:
        return self.trainer.settings.batch

    def steps(self, n: int) -> float:
        """Do n steps, wait for them, and return how many images (places) they saw."""
        for _ in range(n):
            self.trainer.train_step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return float(n * self.batch)


def scaled(name: str, like: str | None) -> Profile:
    """The profile `name`; with `like` its places and maps alone, and encoder, views and heads of that profile."""
    profile = get_profile(name)
    if like is None:
        return profile
    other, own = get_profile(like), profile.pretraining
    settings = dataclasses.replace(
        other.pretraining, n_places=own.n_places, density_classes=own.density_classes
    )  # fmt: skip
    return dataclasses.replace(profile, encoder=other.encoder, views=other.views, pretraining=settings)


def settings_of(profile: Profile, batch: int | None) -> Pretraining:
    """The profile's settings, so long that the learning rate is that of the middle of a run."""
    s = profile.pretraining
    return dataclasses.replace(s, batch=batch or s.batch, images=10_000_000)


def open_run(profile: Profile, method: str, *, batch: int | None = None, compiled: str | None = None) -> Run:
    """A run of `method` with the profile's encoder, views and settings, in the middle of its schedules."""
    settings = settings_of(profile, batch)
    zooms = rows.zooms_of(method)
    torch.manual_seed(0)
    config = dataclasses.replace(encoders.encoder_config(profile), context_zooms=zooms[1:])
    made = methods.build(method, encoder.new_encoder(config, 0), settings, profile.views.global_px)
    trainer = Trainer(made, encoders.sampler(profile, zooms), settings, 0, distributed.device(), compiled=compiled)
    trainer.step = trainer.steps // 2
    return Run(profile, trainer, distributed.device())

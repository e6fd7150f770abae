"""A pretraining run that can be stepped: of a profile, or of a folder that `benchmarks.pack` made."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from selm import methods, stages
from selm.networks import EncoderConfig
from selm.pretrain import Trainer
from selm.profiles import Pretraining, Profile, get_profile
from selm.views import ViewSampler


@dataclass
class Run:
    """A trainer, its profile and its images."""

    profile: Profile
    trainer: Trainer
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


def settings_of(profile: Profile, batch: int | None) -> Pretraining:
    """The profile's settings, so long that the learning rate is that of the middle of a run."""
    s = profile.pretraining
    return dataclasses.replace(s, batch=batch or s.batch, images=10_000_000)


def material(profile: Profile, pack: Path | None) -> tuple[ViewSampler, EncoderConfig]:
    """Views of the places to train on, and the encoder that goes with them."""
    if pack is None:
        return stages.sampler(profile), stages.encoder_config(profile)
    from benchmarks.pack import open_pack

    packed = open_pack(pack)
    return packed.sampler(profile, stages.device()), packed.encoder_config(profile)


def open_run(
    name: str, method: str, *, pack: Path | None = None, batch: int | None = None, compiled: str | None = None
) -> Run:
    """A run of `method` with the encoder, views and settings of the profile `name`, in the middle of its schedules."""
    profile = get_profile(name)
    settings = settings_of(profile, batch)
    sampler, config = material(profile, pack)
    torch.manual_seed(0)
    made = methods.build(method, stages.new_encoder(config, 0), settings, profile.views.global_px)
    trainer = Trainer(made, sampler, settings, 0, stages.device(), compiled=compiled)
    trainer.step = trainer.steps // 2
    return Run(profile, trainer, stages.device())

"""Which optimizer a method wants, and its schedules: pure functions of progress, the share of the run that is done."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.optim import Optimizer


def cosine(start: float, end: float, progress: float) -> float:
    """Half a cosine from `start` to `end` (weight decay 0.04 → 0.4; the teacher's momentum 0.996 → 1)."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


def linear_warmup(start: float, end: float, progress: float, warmup: float) -> float:
    """Straight from `start` to `end` in the first `warmup` of the run, then `end` (τt 0.04 → 0.07)."""
    return end if progress >= warmup else start + (end - start) * progress / warmup


def learning_rate(peak: float, floor: float, progress: float, warmup: float) -> float:
    """Linear from 0 to `peak` in the first `warmup` of the run, then a cosine to `floor` (section 4)."""
    if progress < warmup:
        return peak * progress / warmup
    return cosine(peak, floor, (progress - warmup) / (1 - warmup))


def range_text(start: float, end: float) -> str:
    """A number that goes from one value to another, in words: ``0.04 → 0.07``, or ``0.04`` where it stays."""
    return f"{start:g}" if start == end else f"{start:g} → {end:g}"


@dataclass(frozen=True)
class Optimisation:
    """An optimizer and its schedules.

    The learning rate rises linearly to `lr` in the first `lr_warmup` (a share of the run), then follows a cosine to
    `lr_min`; the two equal make it constant. Weight decay follows a cosine between its two values. `momentum` is SGD's
    one number or Adam's two betas. `clip` is the longest norm a parameter tensor's gradient may have, or None.
    """

    optimizer: Literal["adamw", "adam", "sgd"]
    lr: float
    lr_min: float = 0.0
    lr_warmup: float = 0.0
    weight_decay: tuple[float, float] = (0.0, 0.0)
    decay_all: bool = False  # biases and other 1-d parameters decay too
    momentum: tuple[float, ...] = (0.9, 0.999)
    clip: float | None = None

    def make(self, groups: list[dict[str, Any]], device: torch.device) -> Optimizer:
        """The optimizer over parameter groups; `schedule` sets its rates before every step."""
        if self.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=0.0, momentum=self.momentum[0])
        kind = torch.optim.AdamW if self.optimizer == "adamw" else torch.optim.Adam
        first, second = self.momentum
        return kind(groups, lr=0.0, betas=(first, second), fused=device.type in ("cuda", "cpu"))

    def schedule(self, optimizer: Optimizer, progress: float) -> None:
        """Set learning rate and weight decay for a step at `progress` (0 … 1) of the run."""
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(self.lr, self.lr_min, progress, self.lr_warmup)
            if group["decays"] or self.decay_all:
                group["weight_decay"] = cosine(*self.weight_decay, progress)

    def describe(self) -> dict[str, str]:
        """For the book's table of settings."""
        name = {"adamw": "AdamW", "adam": "Adam", "sgd": "SGD"}[self.optimizer]
        return {
            "optimizer": f"{name} ({', '.join(map(str, self.momentum))})",
            "learning rate": range_text(self.lr, self.lr_min)
            + (f", warm-up {100 * self.lr_warmup:g} %" if self.lr_warmup else ""),
            "weight decay": range_text(*self.weight_decay),
            "gradient clip": "–" if self.clip is None else f"{self.clip:g}",
        }

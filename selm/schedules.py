"""Schedules over a run: pure functions of progress, the share of the run that is done (0 … 1)."""

from __future__ import annotations

import math


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

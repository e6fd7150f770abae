"""Coordinates aligned with several views: the loss against a loop, and that the one training loop trains it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from reproduction.beyond.location_encoders.encoder import LocationConfig, LocationEncoder
from reproduction.beyond.location_encoders.frame import Frame
from reproduction.beyond.location_encoders.losses import multi_view_info_nce
from reproduction.beyond.multi_view.method import MultiViewMethod, ViewedPlaces
from selm import settings
from selm.errors import InputError
from selm.pretrain import Trainer, pretrain


def test_the_loss_against_a_loop() -> None:
    generator = torch.Generator().manual_seed(2)
    places, *views = (torch.randn(6, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    total = 0.0
    for view in views:
        for i in range(6):
            for left, right in ((view, places), (places, view)):
                s = torch.stack([7.0 * F.cosine_similarity(left[i], right[j], dim=0) for j in range(6)])
                total -= float(s[i] - s.exp().sum().log()) / (2 * 6 * len(views))
    assert multi_view_info_nce(places, views, 7.0).item() == pytest.approx(total, rel=1e-5)


def places(n: int = 300) -> ViewedPlaces:
    rng = np.random.default_rng(0)
    at = torch.tensor(rng.uniform([42.5, 140.5], [43.5, 141.5], (n, 2)))
    u, v = (at.numpy() - [43, 141]).T * 2
    first, second = np.stack([u, v, u * v], 1), np.stack([np.sin(3 * u), 50 + np.cos(2 * v), np.full(n, 7.0)], 1)
    return ViewedPlaces.of(at, [first, second])


def test_views_are_standardised_and_checked() -> None:
    first, second = places().views
    assert first.mean(dim=0).abs().max() < 1e-5 and (first.std(dim=0, correction=0) - 1).abs().max() < 1e-4
    assert (second[:, 2] == 0).all() and second[:, 1].std(correction=0) == pytest.approx(1.0, abs=1e-4)
    at = torch.zeros(3, 2, dtype=torch.float64)
    for views, said in (([], "no view"), ([np.zeros((2, 4))], r"view 0: shape \(2, 4\) for 3"),
                        ([np.zeros((3, 1)), np.full((3, 1), np.nan)], "view 1: not all")):  # fmt: skip
        with pytest.raises(InputError, match=said):
            ViewedPlaces.of(at, views)


def test_training_brings_places_and_their_views_together(tmp_path: Path) -> None:
    torch.manual_seed(0)
    frame, known = Frame(43.0, 141.0, 60_000.0), places()
    config = LocationConfig("harmonics", "siren", frame, 6, hidden=32, degrees=6)
    method = MultiViewMethod(LocationEncoder(config), known, lr=5e-3, lr_warmup=0.1, weight_decay=0.01)
    batch = method.draw(known, 100, torch.Generator().manual_seed(1))
    assert [tuple(view.shape) for view in batch.views] == [(100, 3), (100, 3)]
    before = float(method.loss(batch, 0.0)["loss"].detach())
    length = dataclasses.replace(settings.Pretraining(), images=32 * 150, batch=32, checkpoint_every=100, log_every=50)
    folder = pretrain(Trainer(method, known, length, 0, torch.device("cpu")), tmp_path / "run", {}, progress=False)
    assert float(method.loss(batch, 1.0)["loss"].detach()) < 0.75 * before
    kept = LocationEncoder.from_pretrained(folder).embed(known.coordinates)  # needs no view any more
    assert torch.equal(kept, method.encoder.embed(known.coordinates)) and kept.shape == (300, 6)

"""Losses of location encoders against slow loops, and that the one training loop trains them and resumes."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from reproduction.beyond.location_encoders.encoder import LocationConfig, LocationEncoder
from reproduction.beyond.location_encoders.frame import Frame
from reproduction.beyond.location_encoders.losses import embedding_error, symmetric_info_nce
from reproduction.beyond.location_encoders.method import LocationMethod, PairBatch, PairedPlaces
from selm import settings
from selm.errors import InputError
from selm.maps.mercator import EARTH_RADIUS_M
from selm.pretrain import Trainer, pretrain

SETTINGS = dataclasses.replace(settings.Pretraining(), images=32 * 40, batch=32, checkpoint_every=10, log_every=5)


def slow_info_nce(a: torch.Tensor, b: torch.Tensor, scale: float, weights: torch.Tensor) -> float:
    n, total = len(a), 0.0
    for i in range(n):
        for left, right, w in ((a, b, weights), (b, a, weights.T)):
            s = [scale * float(F.cosine_similarity(left[i], right[j], dim=0)) for j in range(n)]
            below = sum((1.0 if i == j else float(w[i, j])) * math.exp(s[j]) for j in range(n))
            total -= math.log(math.exp(s[i]) / below)
    return total / (2 * n)


@pytest.mark.parametrize("weighted", [False, True])
def test_symmetric_info_nce_against_a_loop(weighted: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(7, 5, generator=generator), torch.randn(7, 5, generator=generator)
    weights = torch.rand(7, 7, generator=generator) * 2
    weights[1, 2] = 0.0  # a pair that is no negative at all
    found = symmetric_info_nce(a, b, 9.0, weights if weighted else None)
    slow = slow_info_nce(a, b, 9.0, weights if weighted else torch.ones(7, 7))
    assert found.item() == pytest.approx(slow, rel=1e-5)


def test_a_dropped_pair_sends_no_gradient() -> None:
    a = torch.randn(4, 3, requires_grad=True)
    b = torch.randn(4, 3, requires_grad=True)
    symmetric_info_nce(a, b, 5.0, torch.zeros(4, 4)).backward()  # no negatives: nothing to learn
    assert a.grad is not None and b.grad is not None
    assert torch.isfinite(a.grad).all() and a.grad.abs().max() < 1e-6


def test_embedding_error_by_hand() -> None:
    predicted = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
    target = torch.tensor([[1.0, 0.0], [3.0, -1.0]], requires_grad=True)
    loss = embedding_error(predicted.requires_grad_(), target)
    assert loss.item() == pytest.approx((4 + 9) / 4)
    loss.backward()
    assert target.grad is None


def places(n: int = 300) -> PairedPlaces:
    rng = np.random.default_rng(0)
    lat, lon = rng.uniform(42.5, 43.5, n), rng.uniform(140.5, 141.5, n)
    u, v = (lat - 43) * 2, (lon - 141) * 2
    features = np.stack([u, v, u * v, u**2, np.sin(3 * u), np.cos(2 * v)], axis=1).astype(np.float32)
    return PairedPlaces.of(lat, lon, features)


def method(objective: str, **options: object) -> LocationMethod:
    torch.manual_seed(0)
    frame = Frame(43.0, 141.0, 60_000.0)
    encoder = LocationEncoder(LocationConfig("sinusoidal", "relu", frame, 6, hidden=32, scales=4, shortest_m=20_000.0))
    return LocationMethod(
        encoder,
        places(),
        objective,
        lr=1e-2,
        lr_warmup=0.1,
        weight_decay=0.01,
        **options,  # type: ignore[arg-type]
    )


def trainer(objective: str, **options: object) -> Trainer[PairedPlaces, PairBatch]:
    made = method(objective, **options)
    return Trainer(made, places(), SETTINGS, 0, torch.device("cpu"))


@pytest.mark.parametrize("objective", ["contrast", "distillation"])
def test_the_loss_falls_and_a_killed_run_ends_the_same(objective: str, tmp_path: Path) -> None:
    whole = trainer(objective)
    folder = pretrain(whole, tmp_path / "whole", {"a": 1}, progress=False)
    lines = (folder / "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("loss")
    first, last = (float(lines[i].split(",")[column]) for i in (1, -1))
    assert last < 0.8 * first
    torch.testing.assert_close(
        LocationEncoder.from_pretrained(folder).embed(places().coordinates), whole.method.encoder.embed(
            places().coordinates), rtol=0, atol=0
    )  # fmt: skip
    killed = tmp_path / "killed"
    pretrain(trainer(objective), killed, {"a": 1}, progress=False, stop_after=23)
    resumed = trainer(objective)
    pretrain(resumed, killed, {"a": 1}, progress=False)
    for name, value in whole.method.state_dict().items():
        torch.testing.assert_close(resumed.method.state_dict()[name], value, rtol=0, atol=0)


def test_pair_weights_are_used() -> None:
    seen: list[tuple[torch.Size, torch.Size]] = []

    def weigh(coordinates: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        seen.append((coordinates.shape, features.shape))
        return torch.full((len(features), len(features)), 0.5)

    weighted, plain = trainer("contrast", weigh=weigh), trainer("contrast")
    a, b = weighted.train_step()["loss"], plain.train_step()["loss"]
    assert seen == [(torch.Size([32, 2]), torch.Size([32, 6]))]
    assert a < b  # half the negatives, the same step's places


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(InputError, match="unknown objective 'contrst'"):
        method("contrst")
    encoder = LocationEncoder(LocationConfig("raw", "relu", Frame(43.0, 141.0, 1e5), 4))
    with pytest.raises(InputError, match="the encoder has 4 dimensions, the teacher 6"):
        LocationMethod(encoder, places(), "distillation", lr=1e-3, lr_warmup=0.1, weight_decay=0.0)
    with pytest.raises(InputError, match="2 latitudes"):
        PairedPlaces.of(np.zeros(2), np.zeros(2), np.zeros((3, 4), np.float32))


def test_jitter_moves_places_by_metres_and_draws_the_same_places() -> None:
    rng = np.random.default_rng(0)
    lat, lon = rng.uniform(43, 44, 50), rng.uniform(141, 143, 50)
    pairs = PairedPlaces.of(lat, lon, rng.normal(size=(50, 6)).astype(np.float32))
    encoder = LocationEncoder(LocationConfig("raw", "relu", Frame.around(lat, lon), 6, hidden=8))
    still, moved = (
        LocationMethod(encoder, pairs, "distillation", lr=1e-3, lr_warmup=0.0, weight_decay=0.0, jitter_m=metres)
        for metres in (0.0, 300.0)
    )  # fmt: skip
    first, second = (one.draw(pairs, 4000, torch.Generator().manual_seed(3)) for one in (still, moved))
    assert torch.equal(first.features, second.features)
    assert torch.equal(first.coordinates, pairs.coordinates[[int((pairs.features == row).all(1).nonzero()[0])
                                                            for row in first.features]])  # fmt: skip
    by = second.coordinates - first.coordinates
    metres = by.deg2rad() * EARTH_RADIUS_M * torch.stack([torch.ones(4000), first.coordinates[:, 0].deg2rad().cos()], 1)
    np.testing.assert_allclose(metres.std(dim=0), [300, 300], rtol=0.05)
    np.testing.assert_allclose(metres.mean(dim=0), [0, 0], atol=20)
    assert not torch.allclose(first.positions, second.positions)
    again = moved.draw(pairs, 4000, torch.Generator().manual_seed(3))
    assert torch.equal(again.positions, second.positions)

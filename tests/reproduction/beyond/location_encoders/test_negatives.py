"""Batches filled with neighbours on the ground and with look-alikes, against loops; a stopped run goes on as it was."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from reproduction.beyond.location_encoders.encoder import LocationConfig, LocationEncoder
from reproduction.beyond.location_encoders.frame import Frame
from reproduction.beyond.location_encoders.method import PairBatch, PairedPlaces
from reproduction.beyond.location_encoders.negatives import (
    GEOGRAPHIC_SHARE,
    ChosenNegatives,
    filled,
    look_alikes,
    neighbours_on_the_ground,
)
from selm import settings
from selm.errors import InputError
from selm.maps.mercator import haversine_m
from selm.pretrain import Trainer, pretrain


def places(n: int = 200) -> PairedPlaces:
    rng = np.random.default_rng(0)
    lat, lon = rng.uniform(42.5, 43.5, n), rng.uniform(140.5, 141.5, n)
    return PairedPlaces.of(lat, lon, rng.normal(size=(n, 6)).astype(np.float32))


def test_neighbours_against_loops() -> None:
    known = places(60)
    lat, lon = known.coordinates.numpy().T
    ground, looks = neighbours_on_the_ground(known.coordinates, 7), look_alikes(known.features, 7)
    for i in range(60):
        metres = haversine_m(lat[i], lon[i], lat, lon)
        assert ground[i].tolist() == [j for j in np.argsort(metres).tolist() if j != i][:7]
        alike = [float(F.cosine_similarity(known.features[i], known.features[j], dim=0)) for j in range(60)]
        assert looks[i].tolist() == [j for j in np.argsort(alike)[::-1].tolist() if j != i][:7]


def test_equal_places_are_no_neighbours_of_themselves() -> None:
    same = torch.tensor([[43.0, 141.0]] * 6 + [[44.0, 141.0]], dtype=torch.float64)
    for lists in (neighbours_on_the_ground(same, 3), look_alikes(torch.ones(7, 2), 3)):
        assert lists.shape == (7, 3)
        assert all(i not in row and len(set(row)) == 3 for i, row in enumerate(lists.tolist()))


def test_a_batch_is_filled_neighbourhood_by_neighbourhood() -> None:
    known = places()
    lists = neighbours_on_the_ground(known.coordinates, 20)
    rows = filled(lists, 50, 12, torch.Generator().manual_seed(3)).tolist()
    assert len(set(rows)) == len(rows) == 50
    order = torch.randperm(200, generator=torch.Generator().manual_seed(3)).tolist()
    first = lists[order[0]].tolist()
    assert rows[0] == order[0] and rows[1:7] == first[:6]  # the nearest half
    assert set(rows[7:13]) <= set(first[6:])  # the other half from the rest of the list
    second = next(place for place in order[1:] if place not in rows[:13])
    assert rows[13] == second
    assert filled(lists, 50, 12, torch.Generator().manual_seed(4)).tolist() != rows
    assert sorted(filled(lists, 200, 12, torch.Generator().manual_seed(5)).tolist()) == list(range(200))
    with pytest.raises(InputError, match="a batch of 201 different places out of 200"):
        filled(lists, 201, 12, torch.Generator())


def method(kind: str, objective: str = "contrast") -> ChosenNegatives:
    torch.manual_seed(0)
    config = LocationConfig("sinusoidal", "relu", Frame(43.0, 141.0, 60_000.0), 6, hidden=16, scales=4)
    encoder = LocationEncoder(config)
    return ChosenNegatives(kind, encoder, places(), objective, lr=1e-2, lr_warmup=0.1, weight_decay=0.01)


def spread_m(made: ChosenNegatives) -> float:
    """Median distance of the places of a batch from the nearest other one in it."""
    batch = made.draw(places(), 40, torch.Generator().manual_seed(0))
    lat, lon = batch.coordinates.numpy().T
    metres = haversine_m(lat[:, None], lon[:, None], lat, lon)
    return float(np.median((metres + 1e9 * np.eye(len(lat))).min(axis=1)))


def test_first_the_ground_then_the_looks() -> None:
    made = method("sample4geo")
    early = spread_m(made)
    made.after_step(GEOGRAPHIC_SHARE)
    late = spread_m(made)
    assert early < 0.75 * late  # features are random here: look-alikes lie anywhere
    always = method("geographic")
    always.after_step(0.9)
    assert spread_m(always) == early
    with pytest.raises(InputError, match="way to choose negatives 'nearby'"):
        method("nearby")
    with pytest.raises(InputError, match="distillation has no negatives"):
        method("geographic", "distillation")


def test_a_run_that_was_stopped_goes_on_with_the_same_batches(tmp_path: Path) -> None:
    length = dataclasses.replace(settings.Pretraining(), images=32 * 20, batch=32, checkpoint_every=1, log_every=5)

    def trainer() -> Trainer[PairedPlaces, PairBatch]:
        return Trainer(method("sample4geo"), places(), length, 0, torch.device("cpu"))

    whole, stopped = trainer(), trainer()
    pretrain(whole, tmp_path / "whole", {}, progress=False)
    pretrain(trainer(), tmp_path / "killed", {}, progress=False, stop_after=7)  # past the places on the ground
    pretrain(stopped, tmp_path / "killed", {}, progress=False)
    for name, value in whole.method.state_dict().items():
        torch.testing.assert_close(stopped.method.state_dict()[name], value, rtol=0, atol=0)

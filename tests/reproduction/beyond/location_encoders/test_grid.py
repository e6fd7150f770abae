"""Feature tables: the mean of four corners, shared entries, and what a network of them can learn."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
import torch
from torch import nn

from reproduction.beyond.location_encoders.encoder import LocationConfig, LocationEncoder
from reproduction.beyond.location_encoders.frame import Frame
from reproduction.beyond.location_encoders.grid import FeatureGrid, resolutions

FRAME = Frame(43.0, 141.0, 100_000.0)
GRID = LocationConfig(
    "grid", "relu", FRAME, 6, hidden=16, grid_levels=4, grid_features=3, grid_entries=512, cell_m=2000.0
)


def test_resolutions_grow_in_geometric_steps() -> None:
    assert resolutions(16, 128, 4) == [16, 32, 64, 128]
    assert resolutions(16, 16, 1) == [16] and resolutions(10, 100, 3) == [10, 32, 100]


def slow(grid: FeatureGrid, place: torch.Tensor) -> torch.Tensor:
    """The definition, one place, level and corner at a time."""
    out = []
    for n, table in zip(grid.cells, grid.tables, strict=True):
        u, v = ((place.clamp(-1, 1) + 1) / 2 * n).tolist()
        i, j = min(int(u), n - 1), min(int(v), n - 1)
        total = torch.zeros(grid.features)
        for a, b in itertools.product((0, 1), repeat=2):
            if (n + 1) ** 2 <= grid.entries:
                row = (j + b) * (n + 1) + i + a
            else:
                row = ((i + a) ^ ((j + b) * 2654435761)) % grid.entries
            total += abs(1 - a - (u - i)) * abs(1 - b - (v - j)) * table[row].detach()
        out.append(total)
    return torch.cat(out)


def test_a_place_takes_the_bilinear_mean_of_its_cells_corners() -> None:
    torch.manual_seed(0)
    grid = FeatureGrid([4, 9, 50], 128, 2)  # the last one shares entries
    assert [len(table) for table in grid.tables] == [25, 100, 128] and grid.width == 6
    for table in grid.tables:
        nn.init.normal_(table)
    places = torch.cat([2 * torch.rand(40, 2) - 1, torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0], [1.7, -3.0]])])
    expected = torch.stack([slow(grid, place) for place in places])
    torch.testing.assert_close(grid(places), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(grid(places[-1:]), grid(torch.tensor([[1.0, -1.0]])))  # outside: the border


def test_shared_entries_are_used_evenly() -> None:
    grid = FeatureGrid([300], 512, 1)
    corners = torch.cartesian_prod(torch.arange(301), torch.arange(301))
    counts = torch.bincount(grid.rows(corners, 300), minlength=512)
    assert counts.min() > 0.5 * counts.float().mean() and counts.max() < 2 * counts.float().mean()


def test_an_encoder_of_tables_learns_what_varies_between_neighbours(tmp_path: Path) -> None:
    """A pattern of 20 km in a frame of 200: raw coordinates in the same network cannot follow it."""
    torch.manual_seed(0)
    places = torch.rand(1200, 2, dtype=torch.float64) * torch.tensor([1.0, 1.0]) + torch.tensor([42.5, 140.5])
    at = FRAME.scaled(places).float()
    target = torch.stack([(10 * torch.pi * at[:, 0]).sin(), (10 * torch.pi * at[:, 1]).cos()], dim=1)
    errors = {}
    for position in ("grid", "raw"):
        encoder = LocationEncoder(dataclasses.replace(GRID, position=position, dim=2))
        optimizer = torch.optim.Adam(encoder.parameters(), lr=2e-2)
        for _ in range(120):
            loss = (encoder(places[:800]) - target[:800]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        errors[position] = float((encoder.embed(places[800:]) - target[800:]).square().mean())
    assert errors["grid"] < 0.1 < 0.3 < errors["raw"], errors
    encoder = LocationEncoder(GRID)
    encoder.save_pretrained(tmp_path)
    torch.testing.assert_close(LocationEncoder.from_pretrained(tmp_path).embed(places[:5]), encoder.embed(places[:5]))


@pytest.mark.parametrize("half_m", [1_000.0, 1e6])
def test_levels_reach_from_sixteen_cells_to_the_finest(half_m: float) -> None:
    encoder = LocationEncoder(dataclasses.replace(GRID, frame=Frame(43.0, 141.0, half_m)))
    grid = encoder.networks[0][0]
    assert grid.cells[0] == 16 and grid.cells[-1] == max(16, round(2 * half_m / 2000))

"""A location encoder for use: against a slow loop, where it has seen no map, and files that are none."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import selm
from selm import checkpoints
from selm.bundled import shelf
from selm.errors import InputError, OutsideMapWarning
from selm.location_encoder import ABOUT, WEIGHTS, LocationEncoder
from selm.maps.mercator import EARTH_RADIUS_M, to_tile

LAT, LON, HALF_M = 43.0, -170.0, 20_000.0
CELLS = [4, 16, 200]  # the last one's corners share entries by the hash


def made_up(seed: int = 0) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    x, y = (int(v) for v in to_tile(LAT, LON, 12))
    tensors = {
        "known": np.array([(x + i, y + j) for i in (-1, 0, 1) for j in (-1, 0, 1)], np.int32),
        "weights.0": rng.normal(size=(8, 6)).astype(np.float32), "biases.0": rng.normal(size=8).astype(np.float32),
        "weights.1": rng.normal(size=(5, 8)).astype(np.float32), "biases.1": rng.normal(size=5).astype(np.float32),
    }  # fmt: skip
    for level, n in enumerate(CELLS):
        tensors[f"tables.{level}"] = rng.normal(size=(min((n + 1) ** 2, 512), 2)).astype(np.float32)
    return {"lat": LAT, "lon": LON, "half_m": HALF_M, "cells": CELLS, "zoom": 12}, tensors


def slow(lat: float, lon: float, tensors: dict[str, np.ndarray]) -> np.ndarray:
    """One place, corner by corner."""
    east = math.radians(lon - LON) * math.cos(math.radians(LAT)) * EARTH_RADIUS_M / HALF_M
    north = math.radians(lat - LAT) * EARTH_RADIUS_M / HALF_M
    x: list[float] = []
    for level, n in enumerate(CELLS):
        table, total = tensors[f"tables.{level}"], np.zeros(2)
        u, v = ((min(max(value, -1), 1) + 1) / 2 * n for value in (east, north))
        for i in (math.floor(u), math.floor(u) + 1):
            for j in (math.floor(v), math.floor(v) + 1):
                at = j * (n + 1) + i if (n + 1) ** 2 <= 512 else (i ^ (j * 2_654_435_761)) % 512
                total += (1 - abs(u - i)) * (1 - abs(v - j)) * table[at]
        x += list(total)
    hidden = np.maximum(tensors["weights.0"] @ np.array(x) + tensors["biases.0"], 0)
    return tensors["weights.1"] @ hidden + tensors["biases.1"]


def test_against_a_loop_over_corners() -> None:
    about, tensors = made_up()
    encoder = LocationEncoder(about, tensors, "here")
    rng = np.random.default_rng(1)
    lat, lon = LAT + rng.uniform(-0.03, 0.03, 40), LON + rng.uniform(-0.05, 0.05, 40)
    found = encoder(lat, lon)
    assert found.shape == (40, 5) and found.dtype == np.float32 and encoder.dim == 5
    np.testing.assert_allclose(found, [slow(a, b, tensors) for a, b in zip(lat, lon, strict=True)], atol=2e-3)
    np.testing.assert_allclose(encoder(lat, lon + 360), found, atol=1e-4)  # 0 … 360 degrees, too
    np.testing.assert_allclose(encoder(lat[3], lon[3])[0], found[3], atol=1e-5)


def test_where_it_has_seen_no_map_there_is_no_embedding() -> None:
    encoder = LocationEncoder(*made_up(), "here")
    with pytest.warns(OutsideMapWarning, match="2 of 3 coordinates lie where this encoder has seen no map"):
        found = encoder([LAT, 60.17, 0.0], [LON, 24.94, 0.0])
    assert np.isfinite(found[0]).all() and np.isnan(found[1:]).all()
    assert encoder([], []).shape == (0, 5)
    with pytest.raises(InputError, match="lat"):
        encoder([91.0], [0.0])


def test_a_folder_and_what_is_none(tmp_path: Path) -> None:
    about, tensors = made_up()
    checkpoints.save_tensors(tmp_path / WEIGHTS, {name: torch.from_numpy(value) for name, value in tensors.items()})
    (tmp_path / ABOUT).write_text(json.dumps(about))
    np.testing.assert_array_equal(
        selm.LocationEncoder.from_pretrained(tmp_path)([LAT], [LON]), LocationEncoder(about, tensors, "")([LAT], [LON])
    )
    with pytest.raises(InputError, match="unknown location encoder 'japan-cordinates'"):
        LocationEncoder.from_pretrained("japan-cordinates")
    for name in ("known", "tables.1", "biases.1"):
        with pytest.raises(InputError, match="here: not a location encoder of this version"):
            LocationEncoder(about, {key: value for key, value in tensors.items() if key != name}, "here")
    with pytest.raises(InputError, match="do not fit together"):
        LocationEncoder(about, tensors | {"weights.1": tensors["weights.1"][:, :3]}, "here")
    (tmp_path / ABOUT).write_text("[]")
    with pytest.raises(InputError, match="not a location encoder"):
        LocationEncoder.from_pretrained(tmp_path)


def test_the_one_that_comes_along() -> None:
    encoder = LocationEncoder.from_pretrained("japan-coordinates")
    lat, lon = np.array([43.0687, 43.0600, 35.6812, 34.7025]), np.array([141.3508, 141.3500, 139.7671, 135.4959])
    found = encoder(lat, lon)  # Sapporo twice, Tokyo, Osaka
    assert found.shape == (4, encoder.dim) and np.isfinite(found).all()
    apart = np.linalg.norm(found[0] - found[1:], axis=1)
    assert apart.argmin() == 0
    assert {"1", "5", "15"} == set(encoder.about["errors"]) == set(encoder.about["map_errors"])
    assert "without a map: japan-coordinates (selm.LocationEncoder)" in shelf().table()
    with pytest.warns(OutsideMapWarning):
        assert np.isnan(encoder(60.1719, 24.9414)).all()

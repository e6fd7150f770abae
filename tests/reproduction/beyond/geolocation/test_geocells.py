"""Geocells, smoothed labels and recall against area, by hand and against slow loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from reproduction.beyond.geolocation import geocells
from reproduction.beyond.geolocation.geocells import Geocells
from selm.errors import InputError
from selm.maps.mercator import haversine_m, tile_bounds


def places(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    city = rng.normal([43.06, 141.35], 0.03, (n // 2, 2))
    country = rng.uniform([42.0, 140.0], [44.0, 144.0], (n - n // 2, 2))
    lat, lon = np.concatenate([city, country]).T
    return lat, lon


def test_cells_hold_what_they_may_and_lie_apart() -> None:
    lat, lon = places()
    cells = Geocells.split(lat, lon, most=25, least=3)
    assert cells.count.max() <= 25 and cells.count.min() >= 3
    of = cells.assign(lat, lon)
    assert np.array_equal(np.bincount(of[of >= 0], minlength=len(cells)), cells.count)
    assert cells.count.sum() == (of >= 0).sum() < len(lat)  # some places are in cells that were dropped
    for cell, (zoom, x, y) in enumerate(cells.squares.tolist()):
        west, south, east, north = tile_bounds(x, y, zoom)
        inside = (lat <= north) & (lat > south) & (lon >= west) & (lon < east)
        assert np.array_equal(inside, of == cell)
        assert cells.lat[cell] == pytest.approx(lat[inside].mean())
    assert cells.area_km2[of[:200]].max() < cells.area_km2.max()  # the city is cut finer than the country


def test_identical_places_do_not_split_for_ever() -> None:
    cells = Geocells.split(np.full(50, 43.0), np.full(50, 141.0), most=10)
    assert len(cells) == 1 and cells.count[0] == 50


def test_area_of_a_tile_against_its_sides() -> None:
    zoom, x, y = 13, 7276, 3225
    west, south, east, north = tile_bounds(x, y, zoom)
    height = haversine_m(south, west, north, west) / 1000
    width = haversine_m((south + north) / 2, west, (south + north) / 2, east) / 1000
    assert geocells.tile_area_km2(zoom, x, y) == pytest.approx(float(height * width), rel=1e-5)
    assert geocells.tile_area_km2(0, 0, 0) == pytest.approx(5.1e8 * math.sin(math.radians(85.0511)), rel=1e-3)


def test_smoothed_labels_against_the_equation() -> None:
    lat, lon = places(60)
    cells = Geocells.split(lat, lon, most=8)
    of, distance = cells.assign(lat, lon), cells.distances_km(lat, lon)
    found = geocells.smoothed_labels(distance, of, 30.0)
    for n in range(len(lat)):
        raw = [
            math.exp(-(haversine_m(lat[n], lon[n], cells.lat[c], cells.lon[c]) / 1000 - distance[n, of[n]]) / 30.0)
            for c in range(len(cells))
        ]
        np.testing.assert_allclose(found[n], np.array(raw) / sum(raw), rtol=1e-9)
    far = geocells.smoothed_labels(np.array([[0.0, 20_000.0]]), [1], 1.0)  # would overflow as printed
    assert np.isfinite(far).all() and far.sum() == pytest.approx(1.0)
    with pytest.raises(InputError, match="place 0 lies in no cell"):
        geocells.smoothed_labels([[1.0]], [-1], 1.0)
    with pytest.raises(InputError, match="tau must be above 0"):
        geocells.smoothed_labels([[1.0]], [0], 0.0)


def test_the_classifier_finds_the_minimum_for_soft_labels() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4)).astype(np.float32) * [1, 10, 0.1, 3] + [5, 0, 0, -2]
    logits = (x - x.mean(axis=0)) / x.std(axis=0) @ rng.normal(size=(4, 3))
    y = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    weight, bias = geocells.fit_classifier(x, y, penalty=1e-6)
    out = x @ weight + bias
    found = np.exp(out) / np.exp(out).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, y, atol=5e-3)


def test_area_searched_against_a_loop() -> None:
    rng = np.random.default_rng(1)
    scores, area = rng.normal(size=(30, 6)), rng.uniform(1, 50, 6)
    true = rng.integers(-1, 6, 30)
    found = geocells.area_searched(scores, area, true)
    for n in range(30):
        total = 0.0
        for region in np.argsort(-scores[n]):
            total += area[region]
            if region == true[n]:
                break
        assert found[n] == (pytest.approx(total) if true[n] >= 0 else np.inf)
    assert geocells.area_searched(np.zeros((1, 3)), [2.0, 4.0, 6.0], [1])[0] == 4 + (2 + 6) / 2
    budgets = [5, 30, 200]
    expected = [(found <= budget).mean() for budget in budgets]
    np.testing.assert_allclose(geocells.recall_within(found, budgets), expected)

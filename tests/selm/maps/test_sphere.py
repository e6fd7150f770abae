"""Nearest places against all great-circle distances."""

from __future__ import annotations

import numpy as np
import pytest

from selm.maps import sphere
from selm.maps.mercator import haversine_m


@pytest.mark.parametrize("spread", [0.01, 1.0, 60.0])
def test_nearest_agrees_with_all_distances(spread):
    rng = np.random.default_rng(0)
    lat, lon = rng.random((2, 40)) * spread
    to_lat, to_lon = rng.random((2, 25)) * spread
    distance, index = sphere.nearest_places(lat, lon, to_lat, to_lon, k=3)
    all_m = haversine_m(lat[:, None], lon[:, None], to_lat, to_lon)
    assert np.array_equal(index, np.argsort(all_m, axis=1)[:, :3])
    np.testing.assert_allclose(distance, np.sort(all_m, axis=1)[:, :3], rtol=1e-6)


def test_too_few_and_too_far():
    distance, index = sphere.nearest_places([0.0], [0.0], [0.0, 1.0], [0.0, 0.0], k=3, radius_m=1000)
    assert distance.tolist() == [[0.0, np.inf, np.inf]]
    assert index.tolist() == [[0, 0, 0]]


def test_within_is_about_true_metres_at_any_latitude():
    # 0.01 degrees of longitude: 1112 m at the equator, 556 m at 60 degrees
    assert sphere.within([0.0, 60.0], [0.0, 0.0], [0.0, 60.0], [0.01, 0.01], 1000).tolist() == [False, True]
    assert sphere.within([0.0], [0.0], [], [], 1000).tolist() == [False]


@pytest.mark.parametrize("metres", [0.0, 300.0, 5_000.0])
def test_pairs_within_agree_with_all_distances(metres):
    rng = np.random.default_rng(1)
    lat, lon = 43 + 0.1 * rng.random(60), 141 + 0.1 * rng.random(60)
    lat[1], lon[1] = lat[0], lon[0]
    expected = haversine_m(lat[:, None], lon[:, None], lat, lon) <= metres
    np.fill_diagonal(expected, False)
    if metres == 0:
        expected[:] = False
    assert np.array_equal(sphere.pairs_within(lat, lon, metres).toarray(), expected)
    assert sphere.pairs_within([], [], metres).shape == (0, 0)


def test_chords_are_great_circles_where_places_are_near():
    lat, lon = np.array([43.0, 43.1, 43.1]), np.array([141.0, 141.0, 141.2])
    metres = haversine_m(lat[:, None], lon[:, None], lat, lon)
    np.testing.assert_allclose(sphere.chords(lat, lon), metres, rtol=1e-5, atol=0.1)

"""Retrieval of places: the best place of each cell, and probability a km² where cells differ in size."""

from __future__ import annotations

import numpy as np

from reproduction.beyond.geolocation import experiment as geolocation
from reproduction.beyond.geolocation import geocells


def test_best_of_geocells_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    scores, cell = rng.normal(size=(7, 30)), rng.integers(-1, 5, 30)
    cell[cell == 3] = 2  # a cell without places
    found = geolocation.best_of_geocells(scores, cell, 5)
    for q in range(7):
        for c in range(5):
            inside = [scores[q, i] for i in range(30) if cell[i] == c]
            assert found[q, c] == (max(inside) if inside else -np.inf)


def test_searching_by_density_needs_less_area_than_by_probability() -> None:
    probability, area = np.array([[0.5, 0.3, 0.2]]), np.array([1000.0, 10.0, 5.0])
    by_density = geolocation.log_density(np.log(probability), area)
    assert np.argsort(-by_density[0]).tolist() == [2, 1, 0]
    expected = [
        sum(p * geocells.area_searched(order, area, [c])[0] for c, p in enumerate(probability[0]))
        for order in (np.log(probability), by_density)
    ]
    assert expected[1] < expected[0]

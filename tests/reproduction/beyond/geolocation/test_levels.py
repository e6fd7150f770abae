"""Regions within regions: cells nest, labels spread further where regions are larger, levels count together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from reproduction.beyond.geolocation import hierarchies, levels
from selm.errors import InputError
from selm.maps.mercator import haversine_m

RNG = np.random.default_rng(0)
LAT, LON = RNG.uniform(35, 36, 300), RNG.uniform(139, 140, 300)
EAST = np.where(LON > 139.5, "13", "14")
TOWN = np.char.add(EAST, np.where(LAT > 35.5, "101", "202"))


def test_cells_lie_in_their_towns_and_hold_few_places() -> None:
    cut = levels.hierarchy(LAT, LON, [EAST, TOWN], most=20)
    assert cut[0].names == ("13", "14") and cut[1].names == ("13101", "13202", "14101", "14202")
    finest = cut[-1]
    assert np.bincount(finest.own).max() <= 20 and finest.above.tolist() == list(range(len(finest)))
    for level, codes in zip(cut, (EAST, TOWN), strict=False):
        assert [level.names[i] for i in level.own] == codes.tolist()
        for place in range(300):  # the cell's region is the place's
            assert level.above[finest.own[place]] == level.own[place]
        for region, name in enumerate(level.names):
            assert level.lat[region] == pytest.approx(LAT[codes == name].mean())
    far = cut[1].distances_km(LAT[:3], LON[:3])
    assert far[2, 1] == pytest.approx(haversine_m(LAT[2], LON[2], cut[1].lat[1], cut[1].lon[1]) / 1000)
    table = pd.DataFrame({"lat": LAT, "lon": LON})
    assert np.array_equal(hierarchies.cells_of(finest, TOWN, table), finest.own)
    assert (hierarchies.cells_of(finest, np.full(300, "99999"), table) == -1).all()


def test_a_region_lies_in_one_region() -> None:
    with pytest.raises(InputError, match="region 'a' lies in two regions of the level above"):
        levels.hierarchy(LAT[:3], LON[:3], [["x", "y", "x"], ["a", "a", "b"]], most=5)
    with pytest.raises(InputError, match=r"300 places with \[2\] codes"):
        levels.hierarchy(LAT, LON, [["x", "y"]], most=5)


def test_levels_together_against_a_loop() -> None:
    cut = levels.hierarchy(LAT, LON, [EAST, TOWN], most=60)
    logits = [RNG.normal(size=(5, len(level))) for level in cut]
    found = levels.together(logits, cut)
    for q in range(5):
        for c in range(len(cut[-1])):
            log = 0.0
            for one, level in zip(logits, cut, strict=True):
                p = np.exp(one[q]) / np.exp(one[q]).sum()
                log += np.log(p[level.above[c]])
            assert found[q, c] == pytest.approx(log)
    # a level that is sure decides among cells that are equal
    sure = [np.where(np.arange(len(level)) == 0, 50.0, 0.0)[None] if i == 0 else np.zeros((1, len(level)))
            for i, level in enumerate(cut)]  # fmt: skip
    assert cut[0].above[levels.together(sure, cut).argmax()] == 0


def test_labels_spread_with_the_size_of_regions() -> None:
    assert levels.tau_of(10.0, 200, 200) == 10.0 and levels.tau_of(10.0, 200, 2) == pytest.approx(100.0)

"""The class that covers most of an image."""

from __future__ import annotations

import numpy as np

from reproduction.labels.land_cover import LAND_COVER_CLASSES, majority


def test_thirteen_classes():
    assert len(LAND_COVER_CLASSES) == 13
    assert LAND_COVER_CLASSES[:2] == ("none", "built_up")


def test_majority_is_a_slow_count():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 13, (20, 5, 4)).astype(np.uint8)
    slow = []
    for image in images:
        values = image.ravel().tolist()
        slow.append(min(range(13), key=lambda code: (-values.count(code), code)))
    got = majority(images)
    assert got.dtype == np.int64
    assert got.tolist() == slow


def test_ties_go_to_the_lower_code():
    assert majority(np.array([[[3, 3, 1, 1]], [[0, 0, 5, 6]]], np.uint8)).tolist() == [1, 0]

"""The way between two embeddings: its ends, its steps, and what is said of a quantity along it."""

from __future__ import annotations

import numpy as np
import pytest

from reproduction.experiments.ways import along, interpolate
from selm.errors import InputError


def test_a_straight_line_at_equal_intervals() -> None:
    a, b = np.array([1.0, 0.0, 2.0]), np.array([3.0, 4.0, 2.0])
    line = interpolate(a, b, 5)
    np.testing.assert_allclose(line[[0, -1]], [a, b])
    np.testing.assert_allclose(np.diff(line, axis=0), np.tile((b - a) / 4, (4, 1)))


def test_the_great_circle_at_equal_angles() -> None:
    a, b = np.array([2.0, 0.0]), np.array([0.0, 4.0])
    arc = interpolate(a, b, 4, "spherical")
    angles = np.degrees(np.arctan2(arc[:, 1], arc[:, 0]))
    np.testing.assert_allclose(angles, [0, 30, 60, 90], atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(arc, axis=1), [2, 8 / 3, 10 / 3, 4])
    same = interpolate(a, 3 * a, 3, "spherical")
    np.testing.assert_allclose(same, [[2, 0], [4, 0], [6, 0]])


def test_what_cannot_be_interpolated_is_named() -> None:
    a = np.array([1.0, 0.0])
    with pytest.raises(InputError, match="opposite"):
        interpolate(a, -a, 3, "spherical")
    with pytest.raises(InputError, match="length zero"):
        interpolate(a, 0 * a, 3, "spherical")
    with pytest.raises(InputError, match="linear"):
        interpolate(a, a, 3, "linaer")
    with pytest.raises(InputError, match="two steps"):
        interpolate(a, a, 1)


def test_along() -> None:
    assert along([0.0, 0.1, 0.5, 0.9]) == pytest.approx(1.0)
    assert along([3.0, 2.0, 1.0]) == pytest.approx(-1.0)
    assert along([0.4, 0.4, 0.4]) == 0.0
    assert along([0.0, 1.0, 1.0, 0.0]) == pytest.approx(0.0)

"""The style of the figures: told apart by any eye, the same on every machine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from reproduction.pages import map_figures, style


def test_colours_differ_in_brightness_for_any_eye() -> None:
    """No two of the first four colours are the same to an eye without red-green vision."""
    matrix = np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]])  # protanopia, Machado
    seen = [matrix @ np.array(to_rgb(colour)) for colour in style.COLOURS[:4]]
    for i in range(4):
        for j in range(i):
            assert np.abs(seen[i] - seen[j]).sum() > 0.2


def test_the_same_data_gives_the_same_bytes(saved_figure: Callable[[Figure], bytes]) -> None:
    first, second = (saved_figure(map_figures.entropy_histogram({"a": [0.1, 2.0]})) for _ in range(2))
    assert first == second

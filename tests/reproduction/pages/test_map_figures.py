"""Figures of maps, read back from their artists."""

from __future__ import annotations

import numpy as np
import pytest

from reproduction.pages import map_figures
from selm.errors import InputError


def test_entropy_histogram_says_what_passes() -> None:
    figure = map_figures.entropy_histogram({"a": [0.1, 0.5, 2.0, 3.0], "b": [0.2, np.nan]}, threshold=0.4)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert sorted(labels) == ["a, 75 % kept", "b, 0 % kept"]
    heights = [patch.get_xy()[:, 1].max() for patch in figure.axes[0].patches]
    assert max(heights) == pytest.approx(100)  # all of b in one bin
    with pytest.raises(InputError, match="no values"):
        map_figures.entropy_histogram({"a": []})

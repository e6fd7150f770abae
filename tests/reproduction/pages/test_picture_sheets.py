"""Sheets of pictures, read back from their artists."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

from reproduction.pages import picture_sheets


def test_detections_show_what_is_there_and_what_scores_high_enough(saved_figure: Callable[[Figure], bytes]) -> None:
    images = np.zeros((2, 40, 40, 3), np.uint8)
    truth = [np.array([[1, 2, 11, 22]]), np.empty((0, 4))]
    found = [(np.array([[0, 2, 10, 20], [5, 5, 9, 9]]), np.array([0.8, 0.4])), (np.empty((0, 4)), np.empty(0))]
    figure = picture_sheets.detections(images, truth, found, min_score=0.5, captions=["one", "two"])
    first, second, empty = figure.axes
    boxes = {tuple(float(v) for v in patch.get_bbox().bounds) for patch in first.patches}
    assert boxes == {(1, 2, 10, 20), (0, 2, 10, 18)}  # the second detection scores too low
    assert not empty.patches and not empty.get_images()
    assert not second.patches and second.get_title(loc="left") == "two"
    saved_figure(figure)

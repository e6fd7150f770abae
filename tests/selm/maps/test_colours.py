from __future__ import annotations

import numpy as np
import pytest

from selm.errors import InputError
from selm.maps import colours


def test_histogram_of_indices_counts_the_nearest_of_the_first_64_colours() -> None:
    rng = np.random.default_rng(0)
    palette = rng.integers(0, 256, (256, 3), dtype=np.uint8)
    palette[200] = palette[7]
    indices = rng.integers(0, 256, (5, 9, 7), dtype=np.uint8)
    slow = np.zeros((5, 64))
    for i, row, column in np.ndindex(indices.shape):
        colour = palette[indices[i, row, column]].astype(float)
        nearest = min(range(64), key=lambda k: sum((colour - palette[k].astype(float)) ** 2))
        slow[i, nearest] += 1 / 63
    np.testing.assert_allclose(colours.colour_histogram(indices, palette), slow, rtol=1e-5)
    assert colours.colour_histogram(np.full((1, 2, 2), 200, np.uint8), palette)[0, 7] == 1.0


@pytest.mark.parametrize(
    ("images", "got"), [(np.zeros((1, 2, 2)), "float64"), (np.zeros((1, 2, 2, 3), np.uint8), r"\(1, 2, 2, 3\)")]
)
def test_histogram_names_bad_images(images: np.ndarray, got: str) -> None:
    with pytest.raises(InputError, match=rf"images: expected uint8 \(N, h, w\), got .*{got}"):
        colours.colour_histogram(images, np.zeros((256, 3), np.uint8))

"""Entropy against a slow loop, eq. 1, and colours against a loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from selm.maps import entropy


def slow_entropy(indices: np.ndarray, palette: np.ndarray) -> float:
    counts: dict[int, int] = {}
    for index in indices.ravel().tolist():
        r, g, b = (int(v) for v in palette[index])
        level = math.floor(0.299 * r + 0.587 * g + 0.114 * b + 0.5 + 1e-9)
        counts[level] = counts.get(level, 0) + 1
    total = sum(counts.values())
    return -sum(n / total * math.log2(n / total) for n in counts.values())


@pytest.mark.parametrize("size", [1, 7, 32])
@pytest.mark.parametrize("colours", [1, 2, 20, 256])
def test_entropy_against_a_loop(size: int, colours: int) -> None:
    rng = np.random.default_rng(size * 1000 + colours)
    palette = rng.integers(0, 256, (256, 3)).astype(np.uint8)
    palette[5] = palette[3]  # two indices of one colour are one grey
    images = rng.integers(0, colours, (5, size, size)).astype(np.uint8)
    got = entropy.image_entropy(images, palette)
    assert got.dtype == np.float32 and got.shape == (5,)
    np.testing.assert_allclose(got, [slow_entropy(image, palette) for image in images], atol=1e-5)


def test_entropy_of_known_images() -> None:
    palette = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1)
    flat = np.full((1, 16, 16), 9, np.uint8)
    halves = flat.copy()
    halves[:, :8] = 200
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    np.testing.assert_allclose(entropy.image_entropy(np.concatenate([flat, halves, every]), palette), [0, 1, 8])
    assert not np.signbit(entropy.image_entropy(flat, palette))[0]


def test_grey_is_itu_601() -> None:
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (64, 3)).astype(np.uint8)
    pillow = np.array(Image.fromarray(colours[None]).convert("L"))[0].astype(int)
    assert np.abs(entropy.grey(colours).astype(int) - pillow).max() <= 1
    assert entropy.grey(np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0]], np.uint8)).tolist() == [255, 0, 76]


def test_filter_keeps_what_is_larger_than_the_threshold() -> None:
    assert entropy.keep([0.0, 0.39, 0.40, 0.41]).tolist() == [False, False, False, True]
    assert entropy.keep([0.5], threshold=0.6).tolist() == [False]


def test_priorities_are_eq_1() -> None:
    bits = np.array([0.0, 0.5, 2.0, 3.5])
    for alpha in (0.5, 1.0, 2.0):
        p = [(h + 0.01) ** alpha for h in bits]
        np.testing.assert_allclose(entropy.priorities(bits, alpha, 0.01), [v / sum(p) for v in p])
    uniform = entropy.priorities(bits, alpha=0)
    np.testing.assert_allclose(uniform, 0.25)
    ranked = entropy.priorities(bits, alpha=1)
    assert ranked.sum() == pytest.approx(1) and (np.diff(ranked) > 0).all() and ranked[0] > 0


def test_priorities_need_a_positive_epsilon() -> None:
    with pytest.raises(ValueError, match="epsilon"):
        entropy.priorities([0.0, 1.0], epsilon=0.0)
    with pytest.raises(ValueError, match=r"\(N, h, w\)"):
        entropy.image_entropy(np.zeros((4, 4), np.uint8), np.zeros((256, 3), np.uint8))

"""The fixed palette and the way from pixels to its indices."""

from __future__ import annotations

import numpy as np
import pytest

from selm.errors import InputError
from selm.maps import style

COLOURS = [(242, 239, 233), (170, 211, 223), (255, 255, 255), (217, 208, 201), (220, 42, 103), (170, 211, 223)]


def test_flat_colours_come_first_and_blends_follow() -> None:
    made = style.make_palette(COLOURS)
    assert made.shape == (256, 3) and made.dtype == np.uint8
    assert made[:5].tolist() == [list(colour) for colour in COLOURS[:5]]  # the repeated one once
    assert (style.make_palette(COLOURS) == made).all()
    # Blends of two lie near the palette: no more than 12 of 255 away in any channel.
    rng = np.random.default_rng(0)
    flat = np.array(COLOURS, float)
    share = rng.random((2000, 1))
    blends = flat[rng.integers(0, 6, 2000)] * share + flat[rng.integers(0, 6, 2000)] * (1 - share)
    nearest = np.abs(blends[:, None] - made[None]).max(-1).min(1)
    assert nearest.max() <= 12 and nearest.mean() < 3


def test_without_blends_only_the_flat_colours_are_used() -> None:
    made = style.make_palette(COLOURS, blends=False)
    assert made[:5].tolist() == [list(colour) for colour in COLOURS[:5]]
    assert (made[5:] == made[0]).all()
    table = style.lookup(made)
    assert table.max() == 4


def test_indices_are_the_nearest_colours() -> None:
    made = style.make_palette(COLOURS)
    table = style.lookup(made)
    rng = np.random.default_rng(1)
    pixels = np.full((40, 50, 4), 255, np.uint8)
    pixels[..., :3] = rng.integers(0, 256, (40, 50, 3))
    pixels[0, :5, :3] = made[:5]
    indices = style.to_indices(pixels, table)
    assert indices.shape == (40, 50) and indices.dtype == np.uint8
    assert indices[0, :5].tolist() == [0, 1, 2, 3, 4]
    chosen = ((pixels[..., :3].astype(float) - made[indices]) ** 2).sum(-1) ** 0.5
    best = ((pixels[..., None, :3].astype(float) - made) ** 2).sum(-1).min(-1) ** 0.5
    assert (chosen - best).max() <= 7  # the table's cells are 4 wide: at most twice half their diagonal


@pytest.mark.parametrize("name", ["selm", "selm_no_fills", "land_cover"])
def test_every_colour_of_a_palette_is_a_mix_of_two_flat_ones(name: str) -> None:
    drawn = style.Style.named(name)
    flat, shares = np.array(drawn.colours, float), drawn.mixtures
    m = len(flat)
    assert shares.shape == (256, m) and shares.dtype == np.float32
    assert drawn.palette[:m].tolist() == flat.tolist() and (shares[:m] == np.eye(m)).all()
    assert (shares >= 0).all() and (shares.sum(1) == 1).all() and ((shares > 0).sum(1) <= 2).all()
    assert (8 * shares == np.round(8 * shares)).all()
    # none of all mixes, one by one, is nearer to a colour
    for index in (m, (m + 255) // 2, 255):
        colour = drawn.palette[index].astype(float)
        mixes = (flat[i] * (8 - k) / 8 + flat[j] * k / 8 for i in range(m) for j in range(i, m) for k in range(9))
        nearest = min(float(((mix - colour) ** 2).sum()) for mix in mixes)
        assert ((shares[index] @ flat - colour) ** 2).sum() == pytest.approx(nearest, abs=1e-6)


def test_land_cover_has_13_classes() -> None:
    assert len(style.LAND_COVER_CLASSES) == len(set(style.LAND_COVER_CLASSES)) == 13
    assert style.LAND_COVER_CLASSES[0] == "none"


def test_colours_that_no_palette_holds_are_one_line() -> None:
    with pytest.raises(InputError, match="a palette holds 256 colours, the style uses 300"):
        style.make_palette([(i // 256, i % 256, 0) for i in range(300)])

"""The style of the figures: one look a method, told apart by any eye, the same on every machine."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from reproduction import rows
from reproduction.pages import map_figures, style
from reproduction.titles import TITLES

# How a screen looks to an eye without red-green vision (Machado et al. 2009, severity 1; linear RGB).
EYES = {
    "any": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def lab(colour: str, eye: str) -> NDArray[np.float64]:
    """CIE L*a*b* of a colour as an eye sees it."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.asarray(EYES[eye]) @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    t = xyz / [0.9505, 1.0, 1.089]
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("eye", EYES)
def test_kinds_of_rows_are_told_apart_by_any_eye(eye: str) -> None:
    for a, b in itertools.combinations(style.LOOKS, 2):
        first, second = style.LOOKS[a], style.LOOKS[b]
        apart = float(np.linalg.norm(lab(first.colour, eye) - lab(second.colour, eye)))
        assert apart > 20 or (first.marker, first.dash) != (second.marker, second.dash), f"{a} and {b}: {apart:.0f}"
        if "own" in (a, b):
            assert apart > 35, f"{a} and {b}: {apart:.0f}"


@pytest.mark.parametrize("eye", EYES)
def test_the_first_colours_are_told_apart_by_any_eye(eye: str) -> None:
    for a, b in itertools.combinations(style.COLOURS[:4], 2):
        assert np.linalg.norm(lab(a, eye) - lab(b, eye)) > 15, f"{a} and {b}"


def test_every_row_has_one_look() -> None:
    kinds = {method: style.kind_of(method) for method in (*rows.ROWS, *TITLES)}
    assert kinds["gps_selm"] == style.kind_of("gps_selm_whitened") == "own"
    assert kinds["dino"] == "rival" and kinds["mugs"] == kinds["geoclip"] == "method"
    assert kinds["multi_zoom"] == kinds["gps_selm_geo"] == kinds["geo_only"] == "variant"
    assert {kinds[name] for name in ("random_init", "histogram_17_14+coordinates", "raw_gps")} == {"baseline"}
    assert kinds["prior"] == "constant" and style.LOOKS["baseline"].dash != "-"
    assert style.LOOKS["own"].width > max(ink.width for kind, ink in style.LOOKS.items() if kind != "own")


def test_names_of_lines_do_not_overlap() -> None:
    assert style.spaced([0.1, 0.2, 0.21, 0.9], 0.1) == pytest.approx([0.1, 0.2, 0.3, 0.9], abs=0.06)
    moved = style.spaced([0.5, 0.5, 0.5], 0.1)
    assert moved == pytest.approx([0.4, 0.5, 0.6])
    _, axis = plt.subplots()
    axis.plot([0, 1], [0, 1])
    ends = {"GPS-SELM": 1.0, "DINO": 0.99, "MUGS": 0.2}
    style.label_lines(axis, ends, dict(zip(ends, ("gps_selm", "dino", "mugs"), strict=True)))
    at = sorted(text.xyann[1] for text in axis.texts)
    assert min(np.diff(at)) > 0.02 and [text.get_fontweight() for text in axis.texts].count("bold") == 1


def test_the_same_data_gives_the_same_bytes(saved_figure: Callable[[Figure], bytes]) -> None:
    first, second = (saved_figure(map_figures.entropy_histogram({"a": [0.1, 2.0]})) for _ in range(2))
    assert first == second

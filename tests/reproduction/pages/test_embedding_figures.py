"""Figures of embeddings, read back from their artists."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from reproduction.pages import embedding_figures
from selm.errors import InputError


def test_purity_shows_what_is_above_chance() -> None:
    rows = pd.DataFrame(
        [
            {"label": label, "space": space, "method": method, "seed": 0, "excess": excess, "low": excess - 0.02,
             "high": excess + 0.02, "chance": 0.25, "purity": 0.25 + excess}
            for label in ("price", "land_cover") for space in ("embedding", "tsne")
            for method, excess in (("dino", 0.05), ("pixels", -0.01))
        ]
    )  # fmt: skip
    figure = embedding_figures.purity_above_chance(
        rows, {"price": "land price", "land_cover": "land cover"}, {"dino": "DINO", "pixels": "raw"}
    )
    panels = [axis for axis in figure.axes if axis.get_title(loc="left")]
    assert [axis.get_title(loc="left") for axis in panels] == ["land price\nchance 25 %", "land cover\nchance 25 %"]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["DINO", "raw"]
    np.testing.assert_allclose(np.asarray(panels[0].containers[0][0].get_xdata(), float), [5, -1])
    with pytest.raises(InputError, match="no label"):
        embedding_figures.purity_above_chance(rows, {"density": "density"}, {})


def test_maps_lie_over_their_points() -> None:
    rng = np.random.default_rng(0)
    flat, images = rng.normal(size=(30, 2)), rng.integers(0, 255, (2, 4, 4, 3)).astype(np.uint8)
    codes = rng.integers(-1, 2, 30)
    figure = embedding_figures.maps_on_a_plane(flat, [3, 8], images, codes, ["wood", "water"], "title", "© nobody")
    extents = [image.get_extent() for image in figure.axes[0].get_images()]
    for row, (west, east, south, north) in zip((3, 8), extents, strict=True):
        np.testing.assert_allclose([(west + east) / 2, (south + north) / 2], flat[row])
    names = {text.get_text() for text in figure.legends[0].get_texts()}
    assert names == {"unknown", "wood", "water"}


def test_a_way_has_its_ends_outside_and_a_column_a_step(saved_figure: Callable[[Figure], bytes]) -> None:
    images = np.random.default_rng(0).integers(0, 255, (9, 4, 4, 3)).astype(np.uint8)
    rows = [{"step": 0, "rank": 0, "image": 7}, {"step": 2, "rank": 0, "image": 8}]
    rows += [{"step": step, "rank": rank, "image": 2 * step + rank - 1} for step in range(3) for rank in (1, 2)]
    figure = embedding_figures.interpolation_strip(pd.DataFrame(rows), images, "DINO", "© nobody")
    shown = {
        (round(axis.get_position().y0, 2), round(axis.get_position().x0, 2)): axis.get_images()[0].get_array()
        for axis in figure.axes if axis.get_images()
    }  # fmt: skip
    assert len(shown) == 8
    assert [axis.get_title() for axis in figure.axes if axis.get_title()] == ["from", "0.00", "0.50", "1.00", "to"]
    saved_figure(figure)


def test_recall_curves_are_named_with_their_top_one_percent() -> None:
    rows = pd.DataFrame(
        [
            {"area": area, "method": method, "query": "d0", "share": share, "recall": value, "low": value - 0.05,
             "high": min(value + 0.05, 1), "gallery": 5000, "spacing_m": 17.4}
            for area in ("tokyo", "wall-street") for method, first in (("dino", 0.5), ("pixels", 0.1))
            for share, value in ((0.1, first / 2), (1.0, first), (100.0, 1.0))
        ]
    )  # fmt: skip
    areas = {"tokyo": "Tokyo", "wall-street": "Wall Street"}
    figure = embedding_figures.recall_curves(rows, areas, {"dino": "DINO", "pixels": "raw"})
    panels = figure.axes
    assert [axis.get_title(loc="left") for axis in panels] == [
        "Tokyo: 5,000 places, 17 m apart", "Wall Street: 5,000 places, 17 m apart"
    ]  # fmt: skip
    assert {text.get_text() for text in panels[0].texts} == {"DINO 50 %", "raw 10 %"}
    np.testing.assert_allclose(panels[0].get_lines()[0].get_ydata(), [25, 50, 100])
    with pytest.raises(InputError, match="no area"):
        embedding_figures.recall_curves(rows, {"paris": "Paris"}, {})


def test_encoders_beside_the_colours_are_bold_where_they_are_ahead_of_them() -> None:
    rows = pd.DataFrame(
        [
            {"area": "tokyo", "method": method, "query": query, "share": share, "recall": recall}
            for method, known in (
                ("histogram", (0.9, 0.5)), ("mugs+colours_whitened", (0.95, 0.4)), ("mugs", (0.1, 0.1)),
                ("gps_selm+colours_whitened", (0.8, 0.6)),
            )
            for query, recall in zip(("d0", "d25"), known, strict=True) for share in (1.0, 2.0)
        ]
    )  # fmt: skip
    rows = pd.concat([rows, rows.assign(query="shifted")])
    text = embedding_figures.shifted_table(rows, {"tokyo": "Tokyo", "paris": "Paris"}).text
    found = re.findall(r"<t[dh](?: [^>]*)?>(.*?)</t[dh]>", text, re.S)
    cells = list(filter(None, map(str.strip, found)))
    assert cells[:3] == ["0 m", "25 m", "Tokyo"]
    assert cells[3:6] == ["the colours alone", "90", "50"]
    assert cells[6:9] == ["GPS-SELM (geo+rec+int) and colours", "80", "<b>60</b>"]
    assert cells[9:] == ["MUGS and colours", "<b>95</b>", "40"]
    none = rows[rows["method"] == "histogram"]
    assert embedding_figures.shifted_table(none, {"tokyo": "Tokyo"}).text == ""

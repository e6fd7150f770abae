"""The page on more context: its figure, read back from its artists."""

from __future__ import annotations

import pandas as pd

from reproduction.pages import more_context


def test_rows_have_their_titles_in_legends() -> None:
    rows = pd.DataFrame(
        [
            {"experiment": "surroundings", "target": "l01", "split": "blocks", "method": method, "setting": setting,
             "metric": "mse", "epochs": 0, "trial": trial, "value": 0.5, "n_train": 90, "n_test": 10, "seed": 0,
             "profile": "japan-cpu", "stand_in": False}
            for method in ("multi_zoom_wide_x4", "my own") for setting in ("zooms 17", "zooms 17-16, coordinates",
                                                                       "zooms 17-16, one orientation")
            for trial in range(2)
        ]
    )  # fmt: skip
    figure = more_context.error_by_zoom(rows)
    named = {text.get_text() for text in figure.legends[0].get_texts()}
    assert named == {"wide multi-zoom GPS-SELM (geo), 4 × training", "my own"}
    without, beside = figure.axes
    assert [text.get_text() for text in without.get_xticklabels()] == ["17", "17-16"]  # asides are left out
    assert [[list(line[0].get_xdata()) for line in axis.containers] for axis in figure.axes] == [[[0]] * 2, [[1]] * 2]
    assert (without.get_title(), beside.get_title()) == (
        "spatial blocks, without the coordinates", "spatial blocks, beside the coordinates"
    )  # fmt: skip
    assert without.get_yscale() == "log"
    many = pd.concat([rows[rows["method"] == "my own"].assign(method=f"row {n}") for n in range(11)])
    figure = more_context.error_by_zoom(many)
    lines = [line[0] for line in figure.axes[0].containers]
    looks = {(line.get_marker(), line.get_markerfacecolor()) for line in lines}
    assert len(looks) == 11  # told apart by their marks

"""The page on more context: its figure, read back from its artists."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from reproduction.pages import more_context
from reproduction.pages.html import Html
from reproduction.titles import ONE_ORIENTATION


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


def test_zooms_are_chosen_anew_under_a_wider_buffer() -> None:
    rows = pd.DataFrame(
        [
            {"experiment": "surroundings", "target": "l01", "split": split, "method": "colours", "setting": setting,
             "metric": "mse", "epochs": 0, "trial": trial, "value": value, "n_train": 90, "n_test": 10, "seed": 0,
             "profile": "japan-cpu", "stand_in": False, "validation": validation}
            for split, setting, value, validation in (
                ("random", "zooms 17", 0.3, 0.5), ("random", "zooms 17-16-15", 0.2, 0.4),
                ("blocks", "zooms 17", 0.6, 0.5), ("blocks", "zooms 17-16-15", 0.4, 0.4),
                ("blocks, 15 km", "zooms 17", 0.7, 0.6), ("blocks, 15 km", "zooms 17-16-15", 0.5, 0.8),
                ("blocks, 5 km", "zooms 17", 0.65, 0.5),
            )
            for trial in range(2)
        ]
    )  # fmt: skip
    chosen = more_context.chosen_zooms(rows)
    assert chosen.groupby("split")["setting"].unique().map(list).to_dict() == {
        "random": ["zooms 17-16-15"], "blocks": ["zooms 17-16-15"], "blocks, 15 km": ["zooms 17"],
        "blocks, 5 km": ["zooms 17"],
    }  # fmt: skip
    table = more_context.by_buffer(rows)
    assert list(table) == ["method", "coordinates", "blocks", "blocks, 5 km", "blocks, 15 km", "zooms"]
    (row,) = table.to_dict("records")
    assert (row["blocks"], row["blocks, 5 km"], row["blocks, 15 km"], row["zooms"]) == (0.4, 0.65, 0.7, "zooms 17")
    shown = words(more_context.buffer_table(rows))
    assert "row 15 km 5 km 1 km zooms" in shown and "colours, kernel ridge 0.700 0.650 0.400 17" in shown
    (wide,) = more_context.wider_context(rows).to_dict("records")
    assert wide["blocks"] == "0.400 ± 0.000" and wide["validation"] == 0.4
    # where the probe learned from other regions, too
    far = rows[(rows["split"] == "blocks") & (rows["setting"] == "zooms 17-16-15")].assign(split="regions", value=0.9)
    both = pd.concat([far, rows])
    assert more_context.headline(both) == "blocks, 15 km"
    shown = words(more_context.buffer_table(both))
    assert "row other regions 15 km 5 km 1 km zooms" in shown
    assert "colours, kernel ridge 0.900 0.700 0.650 0.400 17" in shown and "all of them where" in shown


def surroundings() -> pd.DataFrame:
    """Made-up errors: each zoom halves what is left, coordinates take a tenth off; validation prefers two zooms."""
    levels = {"multi_zoom": 0.8, "random_init": 1.2, "colours": 1.0, "dino": 0.9}
    return pd.DataFrame(
        [
            {"experiment": "surroundings", "target": "l01", "split": split, "method": method, "setting": setting,
             "metric": "mse", "epochs": 0, "trial": trial, "seed": 0, "profile": "japan-cpu", "stand_in": False,
             "n_train": 90, "n_test": 10, "validation": 0.5 if "-" in setting else 0.9,
             "value": level * (0.5 if "-" in setting else 1) * (0.9 if "coord" in setting else 1) + 0.01 * trial}
            for method, level in levels.items() for split in ("blocks", "random")
            for setting in ("zooms 17", "zooms 17-16", "zooms 17, coordinates", "zooms 17-16, coordinates",
                            "zooms 17-16, one orientation")
            for trial in (-1, 1)
        ]
    )  # fmt: skip


def words(page: Html) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.text.split("</style>")[-1])).strip()


def test_the_answer_and_the_tables_are_those_of_the_rows() -> None:
    rows = surroundings()
    assert words(more_context.answer(rows)) == (
        "Multi-zoom GPS-SELM (geo) at zooms 17-16 reaches a mean squared error of 0.400 (land price, spatial "
        "blocks; small encoder, Japan); at zoom 17 alone it reaches 0.800. Random Init, which has learned nothing, "
        "reaches 0.600; colours, kernel ridge, which needs no encoder, reaches 0.500; with the coordinates beside it "
        "the same encoder is at 0.360."
    )
    far = rows[rows["split"] == "blocks"].assign(split="blocks, 15 km", value=lambda some: some["value"] + 0.2)
    both = pd.concat([rows, far])
    assert words(more_context.answer(both)).startswith(
        "Multi-zoom GPS-SELM (geo) at zooms 17-16 reaches a mean squared error of 0.600 (land price, spatial blocks, "
        "15 km away; small encoder, Japan); at zoom 17 alone it reaches 1.000; next door, where images overlap, 0.400 "
        "at zooms 17-16. Random Init, which has learned nothing, reaches 0.800;"
    )
    assert "spatial blocks, 15 km away row" in words(more_context.chosen_table(both))
    titles = [axis.get_title() for axis in more_context.error_by_zoom(both).axes]
    assert titles[0].startswith("spatial blocks, without") and titles[2].startswith("spatial blocks, 15 km away, with")
    assert "No reference run" in words(more_context.answer(None))
    assert "no encoder" in words(more_context.answer(rows[rows["method"] == "dino"]))
    shown = words(more_context.chosen_table(rows))
    assert shown.index("multi-zoom") < shown.index("DINO") < shown.index("colours") < shown.index("Random Init")
    assert "DINO 17-16 0.450 ± 0.014 17-16 0.405 ± 0.014" in shown
    assert "DINO 0.900 0.450" in words(more_context.every_zoom_table(rows))
    assert "DINO 17-16 0.450 ± 0.014 0.450 ± 0.014 0.500" in words(more_context.validation_table(rows))
    assert "one, blocks one, random eight, blocks eight, random" in words(
        more_context.asides_table(rows, ONE_ORIENTATION, ("one", "eight"))
    )
    goals = words(more_context.goal_table(rows, {False: 0.45, True: 0.2}))
    assert "multi-zoom GPS-SELM (geo) 17-16 0.400 goal reached" in goals and "0.360 not reached" in goals
    assert "zooms 17-16, 0.400" in more_context.zoom_picture(rows).text


def test_rows_with_a_head_have_a_table_of_their_own() -> None:
    rows = surroundings()
    far = rows.assign(split=rows["split"].replace({"blocks": "blocks, 15 km"}), value=rows["value"] + 0.2)
    plain = pd.concat([rows, far[far["split"] != "random"]])
    whole = plain[plain["method"].eq("colours") & plain["setting"].str.startswith("zooms 17-16")]
    whole = whole[~whole["setting"].str.contains("orientation")]
    heads = whole.assign(method="colours+head", value=whole["value"] - 0.1)
    both = pd.concat([plain, heads, heads[heads["split"] == "blocks"].assign(split="regions")])
    text = words(more_context.head_table(both))
    assert "15 km 1 km random folds" in text
    assert "colours, kernel ridge and a head of other regions 0.600 0.400 0.400 colours, kernel ridge 0.700" in text
    assert "With the coordinates" in text and "0.900" not in text
    assert more_context.head_table(plain).text == ""
    assert more_context.best_head(both, "blocks, 15 km") == pytest.approx(0.55)  # with the coordinates
    assert np.isnan(more_context.best_head(plain, "blocks")) and np.isnan(more_context.best_head(None, "blocks"))
    # nothing else on the page counts them
    for made in (more_context.chosen_table, more_context.buffer_table, more_context.every_zoom_table):
        assert made(pd.concat([plain, heads])).text == made(plain).text
    assert more_context.answer(pd.concat([plain, heads])).text == more_context.answer(plain).text

"""Tables, figures and the map of the page on Image2GPS, from small tables of results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reproduction.beyond.image2gps import page
from reproduction.pages.offline_map import document
from selm.errors import InputError
from selm.maps import mercator


def test_img2gps_tables_hold_the_source_as_printed() -> None:
    text = page.backbones_table(None).text
    assert "0.1118" in text and "48.54" in text and "4.34 M" in text
    assert "49.48" in page.retrieval_table(None).text and "88.76" in page.retrieval_table(None).text
    assert "68.86" in page.training_size_table(None).text
    ours = pd.DataFrame(
        [{"backbone": "efficientnet_b0", "pooling": "attention", "loss": "mse", "parameters": 4_341_122,
          "n_training": 13, "train_loss": 0.5, "val_loss": 0.75, "val_ahd_m": 77.7, "test_ahd_m": 99.9,
          "start": "random", "profile": "demo", "stand_in": True}]
    )  # fmt: skip
    text = page.backbones_table(ours).text
    assert "EfficientNet-B0, attention" in text and "99.9" in text and "random initial weights" in text
    assert "map images as stand-in" in text and "its numbers mean nothing" in text


def test_the_answer_is_read_off_the_results() -> None:
    backbones = pd.DataFrame(
        {"backbone": ["efficientnet_b0", "efficientnet_b1"], "pooling": "average", "loss": "mse",
         "test_ahd_m": [120.0, 90.0], "profile": "japan-cpu"}
    )  # fmt: skip
    retrieval = pd.DataFrame({"recipe": ["vit", "mean"], "k": [3, 0], "test_ahd_m": [110.0, 100.0]})
    found = page.result(backbones, retrieval)
    titles = ["regression, EfficientNet-B1", "k-NN (3), frozen ViT", "regression, EfficientNet-B0"]
    assert list(found.rows["title"]) == titles and found.constant == 100.0
    assert list(found.rows["paper"].round(2))[::2] == [56.26, 48.54]
    said = page.answer(found).text
    assert "<strong>90 m</strong> off" in said and "10 % better, where the source prints 44 %" in said


def predictions() -> pd.DataFrame:
    return pd.DataFrame(
        {"way": ["a", "a", "b", "b"], "lat": 40.0, "lon": [-77.0, -77.001] * 2, "predicted_lat": 40.001,
         "predicted_lon": -77.0, "error_m": [111.0, 140.0, 111.0, 140.0]}
    )  # fmt: skip


def test_error_lines_and_the_map() -> None:
    figure = page.error_lines(predictions())
    assert [axis.get_title(loc="left").split("\n")[1] for axis in figure.axes[:2]] == ["AHD 126 m"] * 2
    shown = document(page.error_map(predictions(), "a", None, 18))
    assert shown.count("L.polyline(") == 2 and shown.count("L.circleMarker(") == 4
    with pytest.raises(InputError, match="no predictions by 'c'"):
        page.error_map(predictions(), "c", None, 18)


def test_the_map_below_lies_where_the_places_are(tmp_path: Path) -> None:
    import made_up

    atlas = made_up.atlas(tmp_path)
    lat, lon = made_up.place(np.array([0.5, 0.9]), np.array([0.6, 1.2]))
    image, (west, south, east, north) = page.ground_map(atlas, 17, pd.DataFrame({"lat": lat, "lon": lon}))
    assert west < lon.min() and east > lon.max() and south < lat.min() and north > lat.max()
    x, y = mercator.to_tile(lat[0], lon[0], 17)
    left, top = mercator.to_tile(north, west, 17)
    column, row = int((x - left) * atlas.tile_px), int((y - top) * atlas.tile_px)
    colour = atlas.crop(float(lat[0]), float(lon[0]), 17, 2)
    assert (image[row - 1 : row + 1, column - 1 : column + 1] == colour).all() or (
        image[row - 2 : row + 2, column - 2 : column + 2].reshape(-1, 3)[:, None] == colour.reshape(-1, 3)
    ).all(axis=2).any()

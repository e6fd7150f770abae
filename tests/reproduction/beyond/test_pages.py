"""Tables and figures of the chapters beyond the paper, from small tables of results."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest

from reproduction.beyond.geolocation import page as geolocation_page
from reproduction.beyond.image2gps import page as image2gps_page
from reproduction.beyond.location_encoders import page as location_encoders_page
from reproduction.beyond.semivariogram import page as semivariogram_page
from reproduction.pages import published
from selm.errors import InputError
from selm.maps import mercator

matplotlib.use("Agg")
COMMON = {"profile": "japan-cpu", "stand_in": False}


def probes() -> pd.DataFrame:
    rows = []
    for split, add in (("random", 0.0), ("blocks", 0.4)):
        for coverage, objective, value in (
            ("none", np.nan, 0.9), ("pretraining", "contrast", 0.8), ("everywhere", "contrast", 0.5),
            ("everywhere", "distillation", 0.3),
        ):  # fmt: skip
            for trial in range(2):
                rows.append(
                    {"table": "table1", "target": "l01", "split": split, "position": "fourier", "network": "relu",
                     "objective": objective, "coverage": coverage, "setting": "frozen-closed", "epochs": 0,
                     "metric": "mse", "trial": trial, "value": value + add + 0.02 * trial, **COMMON}
                )  # fmt: skip
    return pd.DataFrame(rows)


def beside() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"experiment": "table1", "target": "l01", "split": split, "method": method, "setting": "frozen-closed",
             "epochs": 0, "metric": "mse", "trial": 0, "value": value, "seed": 0, **COMMON}
            for split in ("random", "blocks")
            for method, value in (("gps_selm", 0.6), ("trees_coordinates", 0.75))
        ]
    )  # fmt: skip


def test_location_table_and_what_is_lost() -> None:
    text = location_encoders_page.location_table(probes(), beside(), "table1").text
    assert "0.310<small> ± 0.014</small>" in text and "1.210" in text and "GPS-SELM (geo+rec+int) (map image)" in text
    assert text.count("random Fourier hierarchy (GeoCLIP)") == 4 and "n = 2 fold draws" in text
    said = location_encoders_page.what_is_lost(probes(), beside()).text
    blocks = said[said.index("spatial blocks") :]
    assert "<strong>0.710</strong> from maps of all regions" in blocks and "distillation" in blocks
    assert "<strong>1.310</strong> from random weights" in blocks and "<strong>0.600</strong> with a map" in blocks


def test_claims_table() -> None:
    claims = pd.DataFrame(
        [{"a": "gps_selm", "b": "fourier", "gain": 0.1234, "low": 0.05, "high": 0.2, "p_holm": 0.0004,
          "verdict": "holds", "interval_level": 0.99, "n_family": 12,
          "n_blocks": 70, "table": "table1", **COMMON},
         {"a": "fourier", "b": "fourier (random weights)", "gain": -0.1, "low": -0.2, "high": 0.1, "p_holm": 0.5,
          "verdict": "undecided", "interval_level": 0.99, "n_family": 12, "n_blocks": 70, "table": "table1", **COMMON}]
    )  # fmt: skip
    text = location_encoders_page.claims_table(claims, "table1").text
    assert "0.123" in text and "0.050 to 0.200" in text and "&lt; 0.001" in text and "−0.100" in text
    assert "beats random Fourier hierarchy (GeoCLIP) (random weights)" in text and "holds" in text
    assert "holds" not in location_encoders_page.claims_table(claims.assign(profile="smoke"), "table1").text


def test_plumbing_checks_are_said_to_be_such() -> None:
    assert (
        "plumbing check" in location_encoders_page.location_table(probes().assign(profile="demo"), None, "table1").text
    )


def test_speed_table() -> None:
    speed = pd.DataFrame({"way": ["raw", "map"], "coordinates_per_s": [123456.0, 1000.0], "device": "cpu"})
    text = location_encoders_page.speed_table(speed).text
    assert "120,000" in text and "123.5 ×" in text and "1.0 ×" in text


def recall() -> pd.DataFrame:
    rows = []
    for way in ("prior", "fourier"):
        rows += [{"way": way, "quantity": "recall", "at": a, "value": v} for a, v in ((1.0, 0.1), (10.0, 0.5))]
        rows += [{"way": way, "quantity": "accuracy", "at": km, "value": 0.25} for km in (1.0, 25.0)]
        rows.append({"way": way, "quantity": "median_km", "at": 0.0, "value": 33.3})
    return pd.DataFrame(rows).assign(n=40, cells=7, **COMMON)


def test_recall_against_area() -> None:
    text = geolocation_page.accuracy_table(recall()).text
    assert "most places a km² first" in text and "25.0" in text and "33" in text and "7 geocells" in text
    axis = geolocation_page.recall_against_area(recall()).axes[0]
    assert [line.get_ydata().tolist() for line in axis.lines] == [[10.0, 50.0]] * 2 and axis.get_xscale() == "log"


def test_semivariogram() -> None:
    bins = pd.DataFrame({"distance_km": [1.0, 5.0, 20.0], "gamma": [0.2, 0.4, 0.5], "pairs": [10, 100, 50]})
    fits = pd.DataFrame(
        [{"model": "spherical", "nugget": 0.1, "partial_sill": 0.4, "range_km": 10.0, "r2": 0.9, "sill": 0.5,
          "hard": 0.3, "false": 0.01, "neither": 0.69, **COMMON}]
    )  # fmt: skip
    curve = next(
        line for line in semivariogram_page.variogram_figure(bins, fits).axes[0].lines if len(line.get_xdata()) > 100
    )
    x, y = np.asarray(curve.get_xdata()), np.asarray(curve.get_ydata())
    assert y[-1] == pytest.approx(0.5) and y[x.searchsorted(5.0)] == pytest.approx(0.1 + 0.4 * 0.6875, abs=0.01)
    assert "30.0" in semivariogram_page.fits_table(fits).text and "1.00" in semivariogram_page.fits_table(fits).text
    found = pd.concat(
        [
            pd.DataFrame({"quantity": ["accuracy", "median_km"], "at": [5.0, 0.0], "value": [v, 12.0]}).assign(
                negatives=n, seed=s, n=50, **COMMON
            )
            for n, s, v in (("plain", 0, 0.1), ("plain", 1, 0.2), ("weighted", 0, 0.3), ("weighted", 1, 0.3))
        ]
    )
    text = semivariogram_page.weights_table(found).text
    assert "15.0<small> ± 7.1</small>" in text and "30.0<small> ± 0.0</small>" in text and "2 seeds each" in text


def test_img2gps_tables_hold_the_source_as_printed() -> None:
    text = image2gps_page.img2gps_table2(None).text
    assert "0.1118" in text and "48.54" in text and "4.34 M" in text
    assert "49.48" in image2gps_page.img2gps_table3(None).text and "88.76" in image2gps_page.img2gps_table3(None).text
    assert "68.86" in image2gps_page.img2gps_table4(None).text
    ours = pd.DataFrame(
        [{"backbone": "efficientnet_b0", "pooling": "attention", "loss": "mse", "parameters": 4_341_122,
          "n_training": 13, "train_loss": 0.5, "val_loss": 0.75, "val_ahd_m": 77.7, "test_ahd_m": 99.9,
          "start": "random", "profile": "demo", "stand_in": True}]
    )  # fmt: skip
    text = image2gps_page.img2gps_table2(ours).text
    assert "efficientnet_b0, attention" in text and "99.9" in text and "random initial weights" in text
    assert "map images as stand-in" in text and "plumbing check" in text


def predictions() -> pd.DataFrame:
    return pd.DataFrame(
        {"way": ["a", "a", "b", "b"], "lat": 40.0, "lon": [-77.0, -77.001] * 2, "predicted_lat": 40.001,
         "predicted_lon": -77.0, "error_m": [111.0, 140.0, 111.0, 140.0]}
    )  # fmt: skip


def test_error_lines_and_the_map() -> None:
    from reproduction.pages.offline_map import document

    figure = image2gps_page.error_lines(predictions())
    assert [axis.get_title(loc="left").split("\n")[1] for axis in figure.axes[:2]] == ["AHD 126 m"] * 2
    page = document(image2gps_page.error_map(predictions(), "a", None, 18))
    assert page.count("L.polyline(") == 2 and page.count("L.circleMarker(") == 4
    with pytest.raises(InputError, match="no predictions by 'c'"):
        image2gps_page.error_map(predictions(), "c", None, 18)


def test_the_map_below_lies_where_the_places_are(tmp_path: Path) -> None:
    import made_up

    atlas = made_up.atlas(tmp_path)
    lat, lon = made_up.place(np.array([0.5, 0.9]), np.array([0.6, 1.2]))
    image, (west, south, east, north) = image2gps_page._ground(atlas, 17, pd.DataFrame({"lat": lat, "lon": lon}))
    assert west < lon.min() and east > lon.max() and south < lat.min() and north > lat.max()
    x, y = mercator.to_tile(lat[0], lon[0], 17)
    left, top = mercator.to_tile(north, west, 17)
    column, row = int((x - left) * atlas.tile_px), int((y - top) * atlas.tile_px)
    colour = atlas.crop(float(lat[0]), float(lon[0]), 17, 2)
    assert (image[row - 1 : row + 1, column - 1 : column + 1] == colour).all() or (
        image[row - 2 : row + 2, column - 2 : column + 2].reshape(-1, 3)[:, None] == colour.reshape(-1, 3)
    ).all(axis=2).any()


def test_missing_files_are_none_or_named(tmp_path: Path) -> None:
    assert published.published(("japan",), "location-encoders", tmp_path) is None
    (tmp_path / "japan-cpu").mkdir()
    (tmp_path / "japan-cpu" / "x.csv").write_text("run_id,value\n00012,1\n")
    found = published.published(("japan", "japan-cpu"), "x", tmp_path)
    assert found is not None and found["run_id"].iloc[0] == "00012"
    with pytest.raises(InputError, match="no such table"):
        published.printed("img2gps-table9")

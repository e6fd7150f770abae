"""The table and figure on finding where an image was taken, from small tables of results."""

from __future__ import annotations

import pandas as pd

from reproduction.beyond.geolocation import page
from reproduction.beyond.geolocation.hierarchies import LEVELS, WAYS

COMMON = {"profile": "japan-cpu", "stand_in": False}


def recall() -> pd.DataFrame:
    rows = []
    for way in ("prior", "fourier"):
        rows += [{"way": way, "quantity": "recall", "at": a, "value": v} for a, v in ((1.0, 0.1), (10.0, 0.5))]
        rows += [{"way": way, "quantity": "accuracy", "at": km, "value": 0.25} for km in (1.0, 25.0)]
        rows.append({"way": way, "quantity": "median_km", "at": 0.0, "value": 33.3})
    return pd.DataFrame(rows).assign(n=40, cells=7, **COMMON)


def test_recall_against_area() -> None:
    text = page.distance_accuracy_table(recall()).text
    assert "most places a km² first" in text and "25.0" in text and "33" in text and "7 geocells" in text
    axis = page.recall_by_area_figure(recall()).axes[0]
    assert [line.get_ydata().tolist() for line in axis.lines] == [[10.0, 50.0]] * 2 and axis.get_xscale() == "log"


def test_levels() -> None:
    rows = []
    for i, way in enumerate(WAYS):
        rows += [{"way": way, "quantity": level, "at": 0.0, "value": 0.1 * i, "regions": 10 * (k + 1)}
                 for k, level in enumerate(LEVELS)]  # fmt: skip
        rows += [{"way": way, "quantity": "accuracy", "at": km, "value": 0.25, "regions": 0} for km in (5.0, 25.0)]
        rows.append({"way": way, "quantity": "median_km", "at": 0.0, "value": 33.3, "regions": 0})
    text = page.levels_table(pd.DataFrame(rows).assign(n=40, **COMMON)).text
    assert "10 prefectures, 20 municipalities" in text and "50.0<small> of 30</small>" in text
    assert "at most 7.9 points" in text  # half of 1 / √40
    assert "all three levels together, smoothed labels" in text and ">25 km</th>" in text

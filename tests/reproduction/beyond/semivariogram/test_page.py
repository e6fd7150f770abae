"""Tables and figures of the page on semivariograms, from small tables of results."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from reproduction.beyond.semivariogram import page

COMMON = {"profile": "japan-cpu", "stand_in": False}


def test_semivariogram() -> None:
    bins = pd.DataFrame({"distance_km": [1.0, 5.0, 20.0], "gamma": [0.2, 0.4, 0.5], "pairs": [10, 100, 50]})
    fits = pd.DataFrame(
        [{"model": "spherical", "nugget": 0.1, "partial_sill": 0.4, "range_km": 10.0, "r2": 0.9, "sill": 0.5,
          "hard": 0.3, "false": 0.01, "neither": 0.69, **COMMON}]
    )  # fmt: skip
    curve = next(line for line in page.variogram_figure(bins, fits).axes[0].lines if len(line.get_xdata()) > 100)
    x, y = np.asarray(curve.get_xdata()), np.asarray(curve.get_ydata())
    assert y[-1] == pytest.approx(0.5) and y[x.searchsorted(5.0)] == pytest.approx(0.1 + 0.4 * 0.6875, abs=0.01)
    assert "30.0" in page.fits_table(fits).text and "1.00" in page.fits_table(fits).text
    found = pd.concat(
        [
            pd.DataFrame({"quantity": ["accuracy", "median_km"], "at": [5.0, 0.0], "value": [v, 12.0]}).assign(
                negatives=n, seed=s, n=50, **COMMON
            )
            for n, s, v in (
                ("plain", 0, 0.1),
                ("plain", 1, 0.2),
                ("weighted", 0, 0.3),
                ("weighted", 1, 0.3),
                ("sample4geo", 0, 0.5),
            )
        ]
    )
    text = page.weights_table(found).text
    assert "15.0<small> ± 7.1</small>" in text and "30.0<small> ± 0.0</small>" in text and "2 seeds each" in text
    said = page.differences(found).text
    assert "weighted by the semivariogram: <strong>30.0 against 15.0</strong> (within 5 km, %)" in said
    assert "12.0" not in said  # the medians are the same
    assert "Of 2 comparisons chance alone would give some 0.4." in said  # t of two degrees of freedom beyond 2: 0.18
    answer = page.answer(fits, found).text
    assert "<strong>10 km</strong>" in answer and "differ by 20" in answer
    assert "weighted by the semivariogram, 30.0" in answer and "<strong>better</strong>" in answer
    alike = found.assign(value=np.where(found["quantity"] == "accuracy", 0.1 + found["seed"] / 10, 12.0))
    assert "No way to weigh or choose" in page.differences(alike[alike["negatives"] != "sample4geo"]).text
    assert "look-alikes (Sample4Geo)" in text and "50.0" in text and "chosen: neighbours on the ground" not in text

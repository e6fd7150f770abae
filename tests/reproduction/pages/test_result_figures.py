"""Figures of results, read back from their artists."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from reproduction.pages import result_figures
from selm.errors import InputError


def results() -> pd.DataFrame:
    rows = [
        {
            "experiment": "table1", "target": "l01", "split": split, "method": method, "setting": "frozen",
            "epochs": epochs, "metric": "mse", "trial": trial, "value": level + 0.1 * trial - 0.01 * epochs,
            "n_train": 9, "n_test": 10, "seed": 0, "profile": "japan-cpu", "stand_in": False,
        }
        for split in ("random", "blocks") for method, level in (("dino", 0.9), ("gps_selm", 0.7))
        for epochs in (1, 50) for trial in range(3)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_bars_show_mean_and_deviation_of_the_last_epochs() -> None:
    figure = result_figures.performance_bars(results(), metric="mse")
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["DINO", "GPS-SELM (geo+rec+int)"]
    points = axis.containers[0]
    np.testing.assert_allclose(np.asarray(points[0].get_xdata(), dtype=float), [0.9 + 0.1 - 0.5, 0.7 + 0.1 - 0.5])
    spread = points[2][0].get_segments()[0][:, 0]
    assert spread[1] - spread[0] == pytest.approx(2 * 0.1)
    assert "lower is better" in axis.get_xlabel()
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {
        "random folds, frozen", "spatial blocks, frozen"
    }  # fmt: skip
    with pytest.raises(InputError, match="top5"):
        result_figures.performance_bars(results(), metric="top5")


def test_heat_strip_is_darker_where_better() -> None:
    table = pd.DataFrame({1: [0.9, 0.2], 50: [0.5, np.nan]}, index=["bad", "good"])
    table.columns.name = "epochs"

    def brightness(metric: str) -> np.ndarray:
        mesh = result_figures.heat_strip(table, metric=metric).axes[0].collections[0]
        mesh.update_scalarmappable()
        return mesh.get_facecolors()[:, :3].sum(axis=1).reshape(2, 2)

    assert brightness("mse")[1, 0] < brightness("mse")[0, 0]
    assert brightness("top1")[1, 0] > brightness("top1")[0, 0]
    texts = [text.get_text() for text in result_figures.heat_strip(table, metric="mse").axes[0].texts]
    assert texts == ["0.90", "0.50", "0.20"]


def test_curves_against_training_set_size(saved_figure: Callable[[Figure], bytes]) -> None:
    rows = [
        {"target": f"eurosat/{size}", "method": method, "metric": "top1", "trial": trial, "seed": 0,
         "setting": "practitioner" if method == "histogram" else "frozen-closed",
         "value": 0.3 + 0.0001 * size + 0.02 * (trial - 0.5) + (0.1 if method == "dino" else 0.0)}
        for size in (400, 50) for method in ("dino", "histogram") for trial in (0, 1)
    ]  # fmt: skip
    figure = result_figures.sample_size_curves(pd.DataFrame(rows))
    (axis,) = figure.axes
    lines = {line.get_label(): np.asarray(line.get_xydata(), dtype=float) for line in axis.get_lines()}
    np.testing.assert_allclose(lines["DINO"], [[50, 40.5], [400, 44.0]])
    np.testing.assert_allclose(lines["trees on colours"], [[50, 30.5], [400, 34.0]])
    band = axis.collections[0].get_paths()[0].vertices
    assert np.ptp(band[np.isclose(band[:, 0], 50), 1]) == pytest.approx(2 * 100 * np.std([0.01, -0.01], ddof=1))
    assert axis.get_xscale() == "log" and [t.get_text() for t in axis.get_xticklabels()] == ["50", "400"]
    saved_figure(figure)
    with pytest.raises(InputError, match="top1"):
        result_figures.sample_size_curves(pd.DataFrame(rows).assign(metric="top5"))


def test_forest_puts_claims_where_their_gains_are() -> None:
    rows = pd.DataFrame(
        {"title": ["a > b", "c > d"], "gain": [0.2, -0.01], "low": [0.1, -0.1], "high": [0.3, 0.1],
         "verdict": ["better", "undecided"]}
    )  # fmt: skip
    axis = result_figures.claims_forest(rows, scale=100, unit="points").axes[0]
    lines = [line.get_xdata() for line in axis.get_lines()]
    assert any(np.allclose(line, [10, 30]) for line in lines) and any(np.allclose(line, [-1]) for line in lines)
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a > b", "c > d"]
    with pytest.raises(InputError, match="no claim"):
        result_figures.claims_forest(rows.iloc[:0])

"""Figures of results, read back from their artists."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from reproduction.pages import result_figures
from selm.errors import InputError


def test_curves_against_training_set_size(saved_figure: Callable[[Figure], bytes]) -> None:
    rows = [
        {"target": f"eurosat/{size}", "method": method, "metric": "top1", "trial": trial, "seed": 0,
         "setting": "practitioner" if method == "histogram" else "frozen-closed",
         "value": 0.3 + 0.0001 * size + 0.02 * (trial - 0.5) + (0.1 if method == "gps_selm" else 0.0)}
        for size in (400, 50) for method in ("gps_selm", "histogram") for trial in (0, 1)
    ]  # fmt: skip
    figure = result_figures.sample_size_curves(pd.DataFrame(rows))
    (axis,) = figure.axes
    lines = {line.get_label(): np.asarray(line.get_xydata(), dtype=float) for line in axis.get_lines()}
    np.testing.assert_allclose(lines["GPS-SELM (geo+rec+int)"], [[50, 40.5], [400, 44.0]])
    np.testing.assert_allclose(lines["trees on colours"], [[50, 30.5], [400, 34.0]])
    band = axis.collections[0].get_paths()[0].vertices
    assert np.ptp(band[np.isclose(band[:, 0], 50), 1]) == pytest.approx(2 * 100 * np.std([0.01, -0.01], ddof=1))
    assert axis.get_xscale() == "log" and [t.get_text() for t in axis.get_xticklabels()] == ["50", "400"]
    saved_figure(figure)
    with pytest.raises(InputError, match="top1"):
        result_figures.sample_size_curves(pd.DataFrame(rows).assign(metric="top5"))


def claims(**columns: object) -> pd.DataFrame:
    made = {"title": ["a > b", "a > b", "c > d"], "gain": [0.2, 0.9, -0.01], "low": [0.1, np.nan, -0.05],
            "high": [0.3, np.nan, 0.1], "verdict": ["better", "undecided", "worse"], "setting": "frozen",
            "epochs": [1, 50, 1]}  # fmt: skip
    return pd.DataFrame({**made, **columns})


def test_forest_puts_claims_where_their_gains_are() -> None:
    axis = result_figures.claims_forest(claims(gain=[0.2, 0.15, -0.01]), scale=100, unit="points").axes[0]
    lines = [line.get_xdata() for line in axis.get_lines()]
    assert any(np.allclose(line, [10, 30]) for line in lines) and any(np.allclose(line, [-1]) for line in lines)
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a > b", "c > d"]
    with pytest.raises(InputError, match="no claim"):
        result_figures.claims_forest(claims(gain=np.nan))


def test_forest_draws_outliers_at_the_edge_with_their_number() -> None:
    many = pd.concat(
        [claims(gain=[0.1, 0.1, 0.1], title=f"row {i}") for i in range(6)] + [claims().iloc[:1].assign(gain=50.0)]
    )
    axis = result_figures.claims_forest(many).axes[0]
    assert axis.get_xlim()[1] < 1 and [text.get_text() for text in axis.texts] == ["+50"]


def test_scorecard_has_a_line_a_question_with_its_verdict() -> None:
    table = pd.DataFrame(
        {"section": ["Land price", "Land price", "Area type"], "question": ["one?", "two?", "three?"],
         "gain": [20.0, -300.0, np.nan], "low": [10.0, np.nan, np.nan], "high": [30.0, np.nan, np.nan],
         "paper": [50.0, np.nan, np.nan], "verdict": ["better", "undecided", "not run"]}
    )  # fmt: skip
    axis = result_figures.scorecard(table).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["one?", "two?", "three?"]
    words = [text.get_text() for text in axis.texts]
    assert "+20 % better" in words and "−300 % undecided" in words and "not run" in words and "Area type" in words
    assert any(np.allclose(line.get_xdata(), [10, 30]) for line in axis.get_lines())

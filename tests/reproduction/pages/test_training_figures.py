"""Figures of pretraining, read back from their artists."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from reproduction.pages import training_figures
from selm.errors import InputError


def curve(level: float, extra: bool = False) -> pd.DataFrame:
    steps = np.arange(1, 6) * 10
    table = pd.DataFrame({"step": steps, "loss": level + 1 / steps, "cl": level + 1 / steps, "seconds": steps})
    return table.assign(rec=0.1) if extra else table


def test_training_curves_show_each_loss_of_each_run() -> None:
    figure = training_figures.training_curves({"dino": curve(5.0), "gps_selm": curve(4.0, extra=True)}, out_dim=256)
    panels = {axis.get_title(loc="left"): axis for axis in figure.axes if axis.axison}
    assert list(panels) == ["total loss", "distillation (eq. 4)", "reconstruction (eq. 9)"]
    lines = panels["total loss"].get_lines()
    np.testing.assert_allclose(lines[0].get_ydata(), curve(5.0)["loss"])
    assert len(panels["reconstruction (eq. 9)"].get_lines()) == 1
    assert any(np.allclose(line.get_ydata(), math.log(256)) for line in panels["distillation (eq. 4)"].get_lines())
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["DINO", "GPS-SELM (geo+rec+int)"]
    assert lines[0].get_linestyle() != lines[1].get_linestyle()  # told apart in print


def test_training_curves_need_a_run() -> None:
    with pytest.raises(InputError, match="no runs"):
        training_figures.training_curves({})


def test_a_sweep_has_a_panel_a_method_and_shows_chance() -> None:
    table = pd.DataFrame(
        {
            "method": ["dino"] * 3 + ["gps_selm"] * 2,
            "variant": ["as it is", "K = 64", "no centring", "as it is", "α = 1"],
            "gain": [0.0, -0.1, 0.2, 0.0, 0.05], "chance": [0.04] * 3 + [np.nan] * 2,
            "collapse": ["", "", "yes", "", ""],
        }
    )  # fmt: skip
    figure = training_figures.ablation_gains(table)
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["no centring", "as it is", "K = 64"]  # best first
    assert [label.get_text() for label in right.get_yticklabels()] == ["α = 1", "as it is"]
    assert len(left.patches) == 1 and not right.patches  # the band of chance, where it is known
    hollow = left.collections[-1]
    assert hollow.get_offsets().tolist() == [[0.2, 0.0]]  # what has collapsed


def test_the_answer_names_the_best_try_and_its_score() -> None:
    table = pd.DataFrame(
        {"method": "gps_selm", "variant": ["as it is", "K = 64", "α = 1"], "gain": [0.0, 0.2, -0.1], "chance": 0.01}
    )
    tuned = pd.DataFrame({"method": "gps_selm", "variant": ["as it is", "K = 64"], "value": [0.9, 0.7]})
    said = training_figures.ablation_answer(table, tuned).text
    assert "1 of 2 tries gain" in said and "<strong>K = 64</strong> (error down by 0.200" in said
    assert "<strong>0.700</strong>, the method as it is 0.900" in said
    assert "test region" not in training_figures.ablation_answer(table, None).text

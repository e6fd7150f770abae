"""The linear layer's rate and decay: the same tries for every row, one choice for all, by the validation regions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from reproduction import paths
from reproduction.experiments import probe_tuning
from reproduction.experiments.probe_tuning import CLOSED, LAYER
from reproduction.profiles import get_profile
from reproduction.results import read_csv
from selm.errors import InputError

JAPAN = get_profile("japan-cpu")


def made(method: str, errors: dict[tuple[float, float], tuple[float, float]]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = [
        {"method": method, "seed": 0, "probe": LAYER, "lr": lr, "weight_decay": decay, "epochs": epochs, "mse": mse}
        for (lr, decay), both in errors.items()
        for epochs, mse in zip((1, 50), both, strict=True)
    ]
    return [*rows, {"method": method, "seed": 0, "probe": CLOSED, "epochs": 0, "mse": 0.1, "lr": np.nan}]


def test_the_choice_is_the_least_error_after_the_last_epoch_over_all_rows() -> None:
    rows = made("dino", {(0.01, 0.01): (0.5, 1.0), (0.03, 1.0): (0.9, 0.8), (0.03, 10.0): (0.9, 0.9)})
    rows += made("mugs", {(0.01, 0.01): (0.5, 0.6), (0.03, 1.0): (0.9, 0.9), (0.03, 10.0): (0.9, 0.6)})
    assert probe_tuning.chosen(pd.DataFrame(rows)) == (0.03, 10.0)  # means .80, .85 and .75
    rows += made("tile2vec", {(0.01, 0.01): (0.5, 0.1), (0.03, 1.0): (0.9, 0.9), (0.03, 10.0): (0.9, 0.9)})
    assert probe_tuning.chosen(pd.DataFrame(rows)) == (0.01, 0.01)


def test_the_profile_has_what_the_published_tries_choose() -> None:
    rows = read_csv(paths.repository() / "data" / "results" / "japan-cpu" / "probe-tuning.csv")
    layer = rows[rows["probe"] == LAYER]
    tries = layer.groupby("method").apply(lambda of: set(zip(of["lr"], of["weight_decay"], strict=True)))
    assert all(of == set(tries.iloc[0]) and len(of) == 9 for of in tries)
    assert probe_tuning.chosen(rows) == (JAPAN.probing.frozen_lr, JAPAN.probing.frozen_weight_decay)


def test_a_profile_without_validation_regions_is_refused() -> None:
    smoke = get_profile("smoke")
    with pytest.raises(InputError, match="has no validation region"):
        probe_tuning.chapter(smoke)
    assert probe_tuning.finished(smoke) == {}

"""What the figures show, read back from their artists; and that they can be drawn and saved."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from selm import plots
from selm.errors import InputError


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def drawn(figure: plt.Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=50, metadata={"Software": None})
    return out.getvalue()


def curve(level: float, extra: bool = False) -> pd.DataFrame:
    steps = np.arange(1, 6) * 10
    table = pd.DataFrame({"step": steps, "loss": level + 1 / steps, "cl": level + 1 / steps, "seconds": steps})
    return table.assign(rec=0.1) if extra else table


def test_training_curves_show_each_loss_of_each_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    curve(5.0).to_csv(folder / "metrics.csv", index=False)
    figure = plots.training_curves({"dino": folder, "gps_selm": curve(4.0, extra=True)}, out_dim=256)
    panels = {axis.get_title(loc="left"): axis for axis in figure.axes if axis.axison}
    assert list(panels) == ["total loss", "distillation (eq. 4)", "reconstruction (eq. 9)"]
    lines = panels["total loss"].get_lines()
    np.testing.assert_allclose(lines[0].get_ydata(), curve(5.0)["loss"])
    assert len(panels["reconstruction (eq. 9)"].get_lines()) == 1
    assert any(np.allclose(line.get_ydata(), math.log(256)) for line in panels["distillation (eq. 4)"].get_lines())
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["DINO", "GPS-SELM (geo+rec+int)"]
    assert lines[0].get_linestyle() != lines[1].get_linestyle()  # told apart in print


def test_training_curves_name_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"metrics\.csv"):
        plots.training_curves({"dino": tmp_path})
    with pytest.raises(InputError, match="'clust'"):
        plots.training_curves({"dino": curve(1.0)}, columns=["clust"])
    with pytest.raises(InputError, match="no runs"):
        plots.training_curves({})


def test_entropy_histogram_says_what_passes() -> None:
    figure = plots.entropy_histogram({"a": [0.1, 0.5, 2.0, 3.0], "b": [0.2, np.nan]}, threshold=0.4)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert sorted(labels) == ["a, 75 % kept", "b, 0 % kept"]
    heights = [patch.get_xy()[:, 1].max() for patch in figure.axes[0].patches]
    assert max(heights) == pytest.approx(100)  # all of b in one bin
    with pytest.raises(InputError, match="no values"):
        plots.entropy_histogram({"a": []})


def test_heat_strip_is_darker_where_better() -> None:
    table = pd.DataFrame({1: [0.9, 0.2], 50: [0.5, np.nan]}, index=["bad", "good"])
    table.columns.name = "epochs"

    def brightness(metric: str) -> np.ndarray:
        mesh = plots.heat_strip(table, metric=metric).axes[0].collections[0]
        mesh.update_scalarmappable()
        return mesh.get_facecolors()[:, :3].sum(axis=1).reshape(2, 2)

    assert brightness("mse")[1, 0] < brightness("mse")[0, 0]
    assert brightness("top1")[1, 0] > brightness("top1")[0, 0]
    texts = [text.get_text() for text in plots.heat_strip(table, metric="mse").axes[0].texts]
    assert texts == ["0.90", "0.50", "0.20"]


def test_predicted_against_true_pairs_points_and_prints_the_error() -> None:
    truth = np.array([0.0, 1.0, np.nan, 3.0])
    figure = plots.predicted_against_true(truth, {"dino": [0.5, 1.0, 2.0, np.nan]})
    np.testing.assert_allclose(figure.axes[0].collections[0].get_offsets(), [[0, 0.5], [1, 1]])
    assert figure.axes[0].get_title(loc="left") == "DINO: MSE 0.12"


def test_the_same_data_gives_the_same_bytes() -> None:
    assert drawn(plots.entropy_histogram({"a": [0.1, 2.0]})) == drawn(plots.entropy_histogram({"a": [0.1, 2.0]}))


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
    figure = plots.performance_bars(results(), metric="mse", paper={"dino": 0.29})
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["DINO", "GPS-SELM (geo+rec+int)"]
    points = axis.containers[0]
    np.testing.assert_allclose(np.asarray(points[0].get_xdata(), dtype=float), [0.9 + 0.1 - 0.5, 0.7 + 0.1 - 0.5])
    spread = points[2][0].get_segments()[0][:, 0]
    assert spread[1] - spread[0] == pytest.approx(2 * 0.1)
    assert any(np.allclose(np.asarray(line.get_xdata(), dtype=float), 0.29) for line in axis.get_lines())
    assert "lower is better" in axis.get_xlabel()
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {
        "random folds, frozen", "spatial blocks, frozen", "paper"
    }  # fmt: skip
    with pytest.raises(InputError, match="top5"):
        plots.performance_bars(results(), metric="top5")


def test_error_map_by_fold() -> None:
    lat, lon = np.array([43.0, 43.5, 44.0, 44.5]), np.array([141.0, 142.0, 143.0, 144.0])
    figure = plots.error_map(lat, lon, [0.1, 0.3, np.nan, 1.0], [0, 0, 1, 2])
    panels = {axis.get_title(loc="left"): axis for axis in figure.axes}
    assert len(panels["error of each point"].collections[0].get_offsets()) == 3
    bars = panels["by fold, with points"].patches
    assert [bar.get_width() for bar in bars] == pytest.approx([0.2, 1.0])  # a fold without errors has no bar
    assert panels["error of each point"].get_aspect() == pytest.approx(1 / math.cos(math.radians(43.75)))
    drawn(figure)
    assert len(plots.error_map(lat, lon, [0.1, 0.3, np.nan, 1.0]).axes) == 2  # the map and its colour bar
    with pytest.raises(InputError, match="no point"):
        plots.error_map(lat, lon, [np.nan] * 4)


def test_colours_differ_in_brightness_for_any_eye() -> None:
    """No two of the first four colours are the same to an eye without red-green vision."""
    matrix = np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]])  # protanopia, Machado
    seen = [matrix @ np.array(to_rgb(colour)) for colour in plots.COLOURS[:4]]
    for i in range(4):
        for j in range(i):
            assert np.abs(seen[i] - seen[j]).sum() > 0.2

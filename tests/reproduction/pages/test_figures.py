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

from reproduction.pages import figures
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
    figure = figures.training_curves({"dino": folder, "gps_selm": curve(4.0, extra=True)}, out_dim=256)
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
        figures.training_curves({"dino": tmp_path})
    with pytest.raises(InputError, match="'clust'"):
        figures.training_curves({"dino": curve(1.0)}, columns=["clust"])
    with pytest.raises(InputError, match="no runs"):
        figures.training_curves({})


def test_entropy_histogram_says_what_passes() -> None:
    figure = figures.entropy_histogram({"a": [0.1, 0.5, 2.0, 3.0], "b": [0.2, np.nan]}, threshold=0.4)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert sorted(labels) == ["a, 75 % kept", "b, 0 % kept"]
    heights = [patch.get_xy()[:, 1].max() for patch in figure.axes[0].patches]
    assert max(heights) == pytest.approx(100)  # all of b in one bin
    with pytest.raises(InputError, match="no values"):
        figures.entropy_histogram({"a": []})


def test_heat_strip_is_darker_where_better() -> None:
    table = pd.DataFrame({1: [0.9, 0.2], 50: [0.5, np.nan]}, index=["bad", "good"])
    table.columns.name = "epochs"

    def brightness(metric: str) -> np.ndarray:
        mesh = figures.heat_strip(table, metric=metric).axes[0].collections[0]
        mesh.update_scalarmappable()
        return mesh.get_facecolors()[:, :3].sum(axis=1).reshape(2, 2)

    assert brightness("mse")[1, 0] < brightness("mse")[0, 0]
    assert brightness("top1")[1, 0] > brightness("top1")[0, 0]
    texts = [text.get_text() for text in figures.heat_strip(table, metric="mse").axes[0].texts]
    assert texts == ["0.90", "0.50", "0.20"]


def test_predicted_against_true_pairs_points_and_prints_the_error() -> None:
    truth = np.array([0.0, 1.0, np.nan, 3.0])
    figure = figures.predicted_against_true(truth, {"dino": [0.5, 1.0, 2.0, np.nan]})
    np.testing.assert_allclose(figure.axes[0].collections[0].get_offsets(), [[0, 0.5], [1, 1]])
    assert figure.axes[0].get_title(loc="left") == "DINO: MSE 0.12"


def test_the_same_data_gives_the_same_bytes() -> None:
    assert drawn(figures.entropy_histogram({"a": [0.1, 2.0]})) == drawn(figures.entropy_histogram({"a": [0.1, 2.0]}))


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
    figure = figures.performance_bars(results(), metric="mse", paper={"dino": 0.29})
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
        figures.performance_bars(results(), metric="top5")


def test_error_map_by_fold() -> None:
    lat, lon = np.array([43.0, 43.5, 44.0, 44.5]), np.array([141.0, 142.0, 143.0, 144.0])
    figure = figures.error_map(lat, lon, [0.1, 0.3, np.nan, 1.0], [0, 0, 1, 2])
    panels = {axis.get_title(loc="left"): axis for axis in figure.axes}
    assert len(panels["error of each point"].collections[0].get_offsets()) == 3
    bars = panels["by fold, with points"].patches
    assert [bar.get_width() for bar in bars] == pytest.approx([0.2, 1.0])  # a fold without errors has no bar
    assert panels["error of each point"].get_aspect() == pytest.approx(1 / math.cos(math.radians(43.75)))
    drawn(figure)
    assert len(figures.error_map(lat, lon, [0.1, 0.3, np.nan, 1.0]).axes) == 2  # the map and its colour bar
    with pytest.raises(InputError, match="no point"):
        figures.error_map(lat, lon, [np.nan] * 4)


def test_colours_differ_in_brightness_for_any_eye() -> None:
    """No two of the first four colours are the same to an eye without red-green vision."""
    matrix = np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]])  # protanopia, Machado
    seen = [matrix @ np.array(to_rgb(colour)) for colour in figures.COLOURS[:4]]
    for i in range(4):
        for j in range(i):
            assert np.abs(seen[i] - seen[j]).sum() > 0.2


def test_purity_shows_what_is_above_chance() -> None:
    rows = pd.DataFrame(
        [
            {"label": label, "space": space, "method": method, "seed": 0, "excess": excess, "low": excess - 0.02,
             "high": excess + 0.02, "chance": 0.25, "purity": 0.25 + excess}
            for label in ("price", "land_cover") for space in ("embedding", "tsne")
            for method, excess in (("dino", 0.05), ("pixels", -0.01))
        ]
    )  # fmt: skip
    figure = figures.purity(
        rows, {"price": "land price", "land_cover": "land cover"}, {"dino": "DINO", "pixels": "raw"}
    )
    panels = [axis for axis in figure.axes if axis.get_title(loc="left")]
    assert [axis.get_title(loc="left") for axis in panels] == ["land price\nchance 25 %", "land cover\nchance 25 %"]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["DINO", "raw"]
    np.testing.assert_allclose(np.asarray(panels[0].containers[0][0].get_xdata(), float), [5, -1])
    with pytest.raises(InputError, match="no label"):
        figures.purity(rows, {"density": "density"}, {})


def test_a_way_has_its_ends_outside_and_a_column_a_step() -> None:
    images = np.random.default_rng(0).integers(0, 255, (9, 4, 4, 3)).astype(np.uint8)
    rows = [{"step": 0, "rank": 0, "image": 7}, {"step": 2, "rank": 0, "image": 8}]
    rows += [{"step": step, "rank": rank, "image": 2 * step + rank - 1} for step in range(3) for rank in (1, 2)]
    figure = figures.ways(pd.DataFrame(rows), images, "DINO", "© nobody")
    shown = {
        (round(axis.get_position().y0, 2), round(axis.get_position().x0, 2)): axis.get_images()[0].get_array()
        for axis in figure.axes if axis.get_images()
    }  # fmt: skip
    assert len(shown) == 8
    assert [axis.get_title() for axis in figure.axes if axis.get_title()] == ["from", "0.00", "0.50", "1.00", "to"]
    drawn(figure)


def test_recall_curves_have_the_top_one_percent_in_their_legend() -> None:
    rows = pd.DataFrame(
        [
            {"area": area, "method": method, "query": "d0", "share": share, "recall": value, "low": value - 0.05,
             "high": min(value + 0.05, 1), "gallery": 5000, "spacing_m": 17.4}
            for area in ("tokyo", "wall-street") for method, first in (("dino", 0.5), ("pixels", 0.1))
            for share, value in ((0.1, first / 2), (1.0, first), (100.0, 1.0))
        ]
    )  # fmt: skip
    areas = {"tokyo": "Tokyo", "wall-street": "Wall Street"}
    figure = figures.recall_curves(rows, areas, {"dino": "DINO", "pixels": "raw"})
    panels = [axis for axis in figure.axes if axis.get_legend()]
    assert [axis.get_title(loc="left") for axis in panels] == [
        "Tokyo: 5,000 places, 17 m apart", "Wall Street: 5,000 places, 17 m apart"
    ]  # fmt: skip
    assert [text.get_text() for text in panels[0].get_legend().get_texts()] == ["DINO (50.0 %)", "raw (10.0 %)"]
    np.testing.assert_allclose(panels[0].get_lines()[0].get_ydata(), [25, 50, 100])
    with pytest.raises(InputError, match="no area"):
        figures.recall_curves(rows, {"paris": "Paris"}, {})


def test_forest_puts_claims_where_their_gains_are() -> None:
    rows = pd.DataFrame(
        {"title": ["a > b", "c > d"], "gain": [0.2, -0.01], "low": [0.1, -0.1], "high": [0.3, 0.1],
         "verdict": ["holds", "undecided"]}
    )  # fmt: skip
    axis = figures.forest(rows, scale=100, unit="points").axes[0]
    lines = [line.get_xdata() for line in axis.get_lines()]
    assert any(np.allclose(line, [10, 30]) for line in lines) and any(np.allclose(line, [-1]) for line in lines)
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a > b", "c > d"]
    with pytest.raises(InputError, match="no claim"):
        figures.forest(rows.iloc[:0])


def test_maps_lie_over_their_points() -> None:
    rng = np.random.default_rng(0)
    flat, images = rng.normal(size=(30, 2)), rng.integers(0, 255, (2, 4, 4, 3)).astype(np.uint8)
    codes = rng.integers(-1, 2, 30)
    figure = figures.maps_on_a_plane(flat, [3, 8], images, codes, ["wood", "water"], "title", "© nobody")
    extents = [image.get_extent() for image in figure.axes[0].get_images()]
    for row, (west, east, south, north) in zip((3, 8), extents, strict=True):
        np.testing.assert_allclose([(west + east) / 2, (south + north) / 2], flat[row])
    names = {text.get_text() for text in figure.legends[0].get_texts()}
    assert names == {"unknown", "wood", "water"}


def test_curves_against_training_set_size() -> None:
    rows = [
        {"target": f"eurosat/{size}", "method": method, "metric": "top1", "trial": trial, "seed": 0,
         "setting": "practitioner" if method == "histogram" else "frozen-closed",
         "value": 0.3 + 0.0001 * size + 0.02 * (trial - 0.5) + (0.1 if method == "dino" else 0.0)}
        for size in (400, 50) for method in ("dino", "histogram") for trial in (0, 1)
    ]  # fmt: skip
    figure = figures.sample_size_curves(pd.DataFrame(rows))
    (axis,) = figure.axes
    lines = {line.get_label(): np.asarray(line.get_xydata(), dtype=float) for line in axis.get_lines()}
    np.testing.assert_allclose(lines["DINO"], [[50, 40.5], [400, 44.0]])
    np.testing.assert_allclose(lines["trees on colours"], [[50, 30.5], [400, 34.0]])
    band = axis.collections[0].get_paths()[0].vertices
    assert np.ptp(band[np.isclose(band[:, 0], 50), 1]) == pytest.approx(2 * 100 * np.std([0.01, -0.01], ddof=1))
    assert axis.get_xscale() == "log" and [t.get_text() for t in axis.get_xticklabels()] == ["50", "400"]
    drawn(figure)
    with pytest.raises(InputError, match="r2"):
        figures.sample_size_curves(pd.DataFrame(rows), metric="r2")


def test_detections_show_what_is_there_and_what_scores_high_enough() -> None:
    images = np.zeros((2, 40, 40, 3), np.uint8)
    truth = [np.array([[1, 2, 11, 22]]), np.empty((0, 4))]
    found = [(np.array([[0, 2, 10, 20], [5, 5, 9, 9]]), np.array([0.8, 0.4])), (np.empty((0, 4)), np.empty(0))]
    figure = figures.detections(images, truth, found, min_score=0.5, columns=2, captions=["one", "two"])
    first, second = figure.axes
    boxes = {tuple(float(v) for v in patch.get_bbox().bounds) for patch in first.patches}
    assert boxes == {(1, 2, 10, 20), (0, 2, 10, 18)}  # the second detection scores too low
    assert not second.patches and second.get_title(loc="left") == "two"
    drawn(figure)


def test_a_sweep_has_a_panel_a_method_and_shows_chance() -> None:
    table = pd.DataFrame(
        {
            "method": ["dino"] * 3 + ["gps_selm"] * 2,
            "variant": ["as it is", "K = 64", "no centring", "as it is", "α = 1"],
            "gain": [0.0, -0.1, 0.2, 0.0, 0.05], "chance": [0.04] * 3 + [np.nan] * 2,
            "collapse": ["", "", "yes", "", ""],
        }
    )  # fmt: skip
    figure = figures.sweep(table)
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["no centring", "as it is", "K = 64"]  # best first
    assert [label.get_text() for label in right.get_yticklabels()] == ["α = 1", "as it is"]
    assert len(left.patches) == 1 and not right.patches  # the band of chance, where it is known
    hollow = left.collections[-1]
    assert hollow.get_offsets().tolist() == [[0.2, 0.0]]  # what has collapsed
    plt.close(figure)


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
    figure = figures.surroundings(rows)
    named = {text.get_text() for text in figure.legends[0].get_texts()}
    assert named == {"wide multi-zoom GPS-SELM (geo), 4 × training", "my own"}
    without, beside = figure.axes
    assert [text.get_text() for text in without.get_xticklabels()] == ["17", "17-16"]  # asides are left out
    assert [[list(line[0].get_xdata()) for line in axis.containers] for axis in figure.axes] == [[[0]] * 2, [[1]] * 2]
    assert (without.get_title(), beside.get_title()) == (
        "spatial blocks, without the coordinates", "spatial blocks, beside the coordinates"
    )  # fmt: skip
    assert without.get_yscale() == "log"
    plt.close(figure)
    many = pd.concat([rows[rows["method"] == "my own"].assign(method=f"row {n}") for n in range(11)])
    figure = figures.surroundings(many)
    lines = [line[0] for line in figure.axes[0].containers]
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines}
    assert len(looks) == len({line[:2] for line in looks}) == 11  # told apart by colour and marker alone, too
    plt.close(figure)

"""The template of a results page: what it says and shows is what the rows say."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up_results import results

from reproduction.pages import result_page
from reproduction.pages.html import DEMO, fold, picture, this_run
from selm.errors import InputError

LEVELS = {"prior": 1.0, "dino": 0.8, "gps_selm": 0.6, "mugs": 0.7, "gps_selm_geo": 0.65, "random_init": 0.9,
          "histogram_17": 0.5, "trees_coordinates": 0.55, "knn_coordinates": 0.58, "tile2vec": 0.75}  # fmt: skip


def rows(profile: str = "japan-cpu", stand_in: bool = False) -> pd.DataFrame:
    """Table 1 by the ridge probe under blocks, three trials a row."""
    some = []
    for method, level in LEVELS.items():
        baseline = method in ("prior", "histogram_17", "trees_coordinates", "knn_coordinates")
        for trial in range(3):
            some.append(
                {"experiment": "table1", "target": "l01", "split": "blocks", "method": method, "epochs": 0,
                 "setting": "practitioner" if baseline else "frozen-closed", "metric": "mse", "trial": trial,
                 "value": level + 0.01 * (trial - 1), "n_train": 9, "n_test": 10, "seed": 0, "profile": profile,
                 "stand_in": stand_in}
            )  # fmt: skip
    return pd.DataFrame(some)


def text_of(page: str) -> str:
    return re.sub(r"<[^>]+>", " ", page.split("</style>")[1])


def test_the_answer_has_number_verdict_and_the_best_row_without_pretraining() -> None:
    result = result_page.of_table("table1", rows(), "l01", verdicts={"dino": "better"})
    text = result_page.answer(result).text
    assert "a mean squared error of <strong>0.600</strong>" in text and "the mean predictor gives 1.000" in text
    assert "the paper prints 0.130" in text and "gainst DINO (0.800) it is <strong>better</strong>" in text
    assert (
        "against the best row without pretraining (trees on colours, zoom 17: 0.500) it is <strong>behind</strong>"
        in text
    )
    untested = result_page.answer(result_page.of_table("table1", rows(), "l01")).text
    assert "<strong>ahead</strong> (not tested)" in untested
    assert "No reference run" in result_page.answer(None).text
    more = result_page.answer(result, beside=["geoclip", "tile2vec"]).text  # those of them that are there
    assert "against Tile2Vec (0.750) it is" in more and "GeoCLIP" not in more


def test_the_plot_is_sorted_and_shows_paper_baselines_and_mean_predictor() -> None:
    result = result_page.of_table("table1", rows(), "l01")
    (axis,) = result_page.dots(result).axes
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names[:2] == ["trees on colours, zoom 17", "trees on coordinates"] and names[-1] == "Random Init"
    assert "mean predictor" not in names  # it is the line
    hollow = [line for line in axis.get_lines() if line.get_markerfacecolor() == "white"]
    assert 0.13 in [float(line.get_xdata()[0]) for line in hollow]
    assert any(np.allclose(line.get_xdata(), 1.0) and len(line.get_xdata()) == 2 for line in axis.get_lines())
    assert len(axis.patches) == 4  # shaded: random weights and what needs no encoder
    ticks = {label.get_text(): label.get_fontweight() for label in axis.get_yticklabels()}
    assert ticks["GPS-SELM (geo+rec+int)"] == "bold" and ticks["DINO"] == "normal"


def test_intervals_come_from_the_blocks_where_they_are_kept() -> None:
    table = rows()
    blocks = pd.concat(
        pd.DataFrame({"region": "hokkaido", "target": "l01", "metric": "mse", "buffer_km": 1.0, "method": method,
                      "setting": table.loc[table["method"] == method, "setting"].iloc[0], "seed": 0, "epochs": 0,
                      "block": [f"43.00_{141 + i / 4:.2f}" for i in range(20)], "points": 5.0,
                      "score": level + 0.2 * np.linspace(-1, 1, 20)})
        for method, level in LEVELS.items()
    )  # fmt: skip
    result = result_page.of_table("table1", table, "l01", blocks=blocks)
    own = result.row("gps_selm")
    assert "bootstrap" in result.bars and own.low < own.mean < own.high
    assert own.high - own.low == pytest.approx(4 * 0.1214 / np.sqrt(20), rel=0.25)  # four standard errors
    assert "standard deviation" in result_page.of_table("table1", table, "l01", blocks=blocks.iloc[:20]).bars
    figure = result_page.error_squares(blocks, 0.25, {"gps_selm": "GPS-SELM", "dino": "DINO"}, "mean squared error")
    assert [axis.get_title(loc="left") for axis in figure.axes[:2]] == ["GPS-SELM", "DINO"]
    assert len(figure.axes[0].collections[0].get_offsets()) == 20


def test_the_table_is_short_with_the_verdict_second() -> None:
    result = result_page.of_table("table1", rows(), "l01", verdicts={"dino": "better", "histogram_17": "worse"})
    page = result_page.short_table(result).text
    body = page.split("<tbody>")[1]
    assert 6 <= body.count("<tr>") <= 8
    head = re.findall(r"<th>(.*?)</th>", page)
    assert len(head) <= 5 and "against it" in head[1]
    assert "GPS-SELM (geo+rec+int)" in body and "mean predictor" in body and "frozen-closed" not in page


def test_the_demo_has_neither_paper_nor_verdict_nor_hokkaido() -> None:
    result = result_page.of_table("table1", rows("demo", stand_in=True), "l01")
    shown = [result_page.dot_plot(result).text, result_page.short_table(result).text]
    page = "".join(text_of(one) for one in shown).replace("lower is better", "")
    for word in ("Hokkaido", "paper", "better", "0.130"):
        assert word not in page, word
    assert "stand-in" in page
    folded = this_run("demo", result_page.short_table(result)).text
    assert f"<summary>{DEMO}</summary>" in folded and "selm-demo" in folded
    assert "selm-demo" not in this_run("japan", fold("x")).text.split("</style>")[1]


def test_pictures_have_a_caption_and_a_text_and_the_demos_a_watermark() -> None:
    import matplotlib.pyplot as plt

    figure, _ = plt.subplots()
    page = picture(figure, "**What** it <shows>.", 'A "plot".', profile="demo").text
    assert 'alt="A &quot;plot&quot;."' in page and "<strong>What</strong> it &lt;shows&gt;." in page
    assert [text.get_text() for text in figure.texts] == ["demo: no result"]
    assert not plt.fignum_exists(figure.number)
    with pytest.raises(ValueError, match="caption"):
        picture(figure, "", "")


@pytest.mark.parametrize("dpi", ["figure", 200])
def test_pictures_have_the_pixels_that_saving_gives(dpi: str | int) -> None:
    import matplotlib.pyplot as plt
    from PIL import Image

    with plt.rc_context({"savefig.dpi": dpi, "figure.dpi": 50, "figure.constrained_layout.use": True}):
        saved, (axes, shown) = io.BytesIO(), zip(*(plt.subplots(figsize=(3, 2))[::-1] for _ in range(2)), strict=True)
        for axis in axes:
            axis.plot([0, 1], label="a line")
            axis.set_xlabel("steps")
        shown[0].savefig(saved)
        page = picture(shown[1], "A.", "B.").text
    data = base64.b64decode(re.findall(r"base64,([\w+/=]+)", page)[0])
    one = Image.open(saved).convert("RGB").quantize(256, dither=Image.Dither.NONE).convert("RGB")
    np.testing.assert_array_equal(one, Image.open(io.BytesIO(data)).convert("RGB"))
    plt.close(shown[0])


def test_the_download_holds_every_row() -> None:
    result = result_page.of_table("table1", rows(), "l01")
    data = re.findall(r"base64,([\w+/=]+)", result_page.download(result, "table1").text)[0]
    lines = base64.b64decode(data).decode().splitlines()
    assert lines[0].startswith("method,title,mean") and len(lines) == 1 + len(LEVELS)


def test_figures_are_results_too() -> None:
    scores = pd.DataFrame({"method": ["dino", "gps_selm", "gps_selm"], "excess": [0.1, 0.3, 0.4],
                           "low": [0.0, 0.2, 0.3], "high": [0.2, 0.4, 0.5], "profile": "japan-cpu"})  # fmt: skip
    titles = {"dino": "DINO", "gps_selm": "GPS-SELM"}
    result = result_page.of_scores(scores, "excess", titles, task="purity", measure="points", constant=0.0)
    own = result.row("gps_selm")
    assert (own.mean, own.low, own.high) == pytest.approx((35.0, 20.0, 50.0))
    assert list(result.rows["title"]) == ["GPS-SELM", "DINO"]
    with pytest.raises(InputError, match="no rows of nowhere"):
        result_page.of_table("table1", rows(), "nowhere")


def test_the_map_of_errors_is_of_the_published_blocks(results_folder: Path) -> None:
    (results_folder / "japan-cpu").mkdir()
    one = {"target": "l01", "metric": "mse", "method": "gps_selm", "seed": 0, "epochs": 0, "points": 3}
    kept = [
        {**one, "setting": "frozen-closed", "block": f"43.00_{141 + i / 4:.2f}", "score": 0.1 * i} for i in range(4)
    ]
    other = [{**row, "setting": "with-coordinates", "block": "10.00_10.00"} for row in kept]
    pd.DataFrame(kept + other).to_csv(results_folder / "japan-cpu" / "table1-blocks.csv", index=False)
    page = result_page.error_map("table1", "l01", "mse", {"gps_selm": "GPS-SELM"}).text
    assert "block of 0.25°" in page and "with 4 squares" in page


def test_nothing_published_is_said_so(results_folder: Path) -> None:
    assert result_page.published_table("table1", "l01") is None
    assert "not published" in result_page.error_map("table1", "l01", "mse", {"gps_selm": "GPS-SELM"}).text


def test_lines_over_epochs_have_both_settings() -> None:
    page = result_page.learning_curves(results(split="blocks"), "l01").text
    assert "<figcaption>" in page and "By epochs" in page

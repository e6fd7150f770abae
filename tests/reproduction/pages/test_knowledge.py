"""The page "What does an embedding know?": its words, figure and tables are those of the published files."""

from __future__ import annotations

import itertools
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reproduction.experiments import verdicts
from reproduction.pages import findings, knowledge
from reproduction.pages.html import Html
from reproduction.pages.result_figures import VERDICTS, verdict_grid

LEVELS = {"gps_selm": 0.5, "dino": 0.8, "geo_only": 0.5, "random_init": 0.9, "histogram_17_14": 0.3, "prior": 1.0}
PLAIN = ("histogram_17_14", "prior")
EVERYWHERE = ("hokkaido", "kansai")


def published(folder: Path, *, skip: tuple[tuple[str, str], ...] = (("kansai", "dino"),)) -> pd.DataFrame:
    """Made-up rows of two regions, three buffers and other regions, their blocks and verdicts; `skip` is not there.
    Densities are not asked at 15 km."""
    rng = np.random.default_rng(0)
    rows, blocks = [], []
    for region, (target, metric) in itertools.product(
        EVERYWHERE, (("price", "mse"), ("density", "mse"), ("zone", "top1"))
    ):
        base = rng.normal(0, 0.02, 30)
        for method, level in LEVELS.items():
            for km in (1.0, 5.0, 15.0, 0.0):
                if (region, method) in skip or (target, km) == ("density", 15.0):
                    continue
                setting = "other-regions" if km == 0 else "practitioner" if method in PLAIN else "closed"
                about = {"region": region, "target": target, "metric": metric, "buffer_km": km, "setting": setting,
                         "method": method, "seed": 0}  # fmt: skip
                scores = base + (level if metric == "mse" else 1 - level) + rng.normal(0, 0.003, 30)
                n = 10 if region == "hokkaido" else 30
                blocks += [{**about, "block": f"b{i}", "points": n, "score": s} for i, s in enumerate(scores)]
                split = f"blocks, {km:g} km" if km else "regions"
                rows += [
                    {**about, "split": split, "trial": t, "value": scores.mean() + t, "n_test": 30 * n}
                    for t in (-0.1, 0.1)
                ]
    pd.DataFrame(blocks).to_csv(folder / verdicts.BLOCKS, index=False)
    verdicts.verdicts(folder, n_boot=2000).to_csv(folder / "verdicts.csv", index=False)
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("published")
    return folder, published(folder)


@pytest.fixture
def rows(results_folder: Path, made: tuple[Path, pd.DataFrame]) -> pd.DataFrame:
    shutil.copytree(made[0], results_folder / "japan-cpu")
    return made[1]


def words(page: Html) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.text.split("</style>")[-1])).strip()


def test_the_answer_is_two_sentences_from_the_verdicts(rows: pd.DataFrame) -> None:
    assert words(knowledge.answer("japan-cpu")) == (
        "Against no pretraining, GPS-SELM is better for land price and zone; against DINO, better for land price and "
        "zone (small encoder, Japan; 15 km and more from what the probe has learned from). Against the geographic "
        "losses alone, without self-supervision, it is equivalent for land price and zone; against the colours of "
        "zooms 17-14, which need no encoder, worse for land price and zone."
    )
    near = words(knowledge.answer("japan-cpu", 1.0))
    assert "better for land price, population density and zone; against DINO" in near


def test_counts_and_gains_are_those_of_the_verdicts(rows: pd.DataFrame, results_folder: Path) -> None:
    asked = knowledge.asked("japan-cpu")
    assert set(asked["buffer_km"]) == {15.0} and set(asked["metric"]) == {"mse", "top1"}
    n = {word: int((asked["verdict"] == word).sum()) for word in VERDICTS}
    assert n["better"] == 4 and n["worse"] == 2 and n["equivalent"] == 2 and n["undecided"] == 0
    said = knowledge.counts(asked)
    found = "8 could be tested: **4 better, 2 equivalent, 2 worse, 0 undecided**."
    assert said == f"Of {len(asked)} questions on land price and zone {found}"
    explained = knowledge.what_explains("japan-cpu")
    row = next(asked[(asked["question"] == "self-supervision") & (asked["target"] == "zone")].itertuples())
    assert f"zone {100 * row.gain:+.1f}".replace("-", "−") in explained and "points, **equivalent**" in explained
    assert explained.startswith("What self-supervision adds to the geographic losses alone: land price ")
    lines = findings.far_away("japan-cpu")
    assert said in lines and explained in lines and "](what-it-knows.html)" in lines
    (results_folder / "japan-cpu" / "verdicts.csv").unlink()
    assert findings.far_away("japan-cpu") == "" and knowledge.what_explains("japan-cpu") == ""
    assert "No verdict" in words(knowledge.answer("japan-cpu")) and knowledge.question_picture("japan-cpu").text == ""
    assert words(knowledge.behind("japan-cpu")[0]) == "Nothing is published yet."


def test_the_scorecard_is_that_of_the_widest_buffer(rows: pd.DataFrame, results_folder: Path) -> None:
    table = findings.scorecard("japan-cpu").set_index(["section", "question"])
    asked = knowledge.asked("japan-cpu")
    tested = asked[(asked["verdict"] != "not run") & (asked["target"] == "price")].set_index("question")
    blocks = pd.read_csv(results_folder / "japan-cpu" / verdicts.BLOCKS)
    of_dino = blocks[(blocks["method"] == "dino") & (blocks["target"] == "price") & (blocks["buffer_km"] == 15)]
    of_dino = of_dino[of_dino["region"] == "hokkaido"]  # the one region that DINO was tested in
    row = table.loc["Land price", "better than DINO?"]
    assert row["gain"] == pytest.approx(100 * tested.loc["dino", "gain"] / of_dino["score"].mean())
    assert row["low"] < row["gain"] < row["high"] and row["verdict"] == "better"
    assert np.isfinite(row["paper"]) and set(table.index.get_level_values(0)) == {"Land price"}
    assert table.loc["Land price", "better than the colours of zooms 17-14?"]["verdict"] == "worse"
    text = findings.card("japan-cpu").text
    assert "15 km and more from what the probe has learned from, in Hokkaido and Kansai or" in text
    (results_folder / "japan-cpu" / "verdicts.csv").unlink()
    assert not len(findings.scorecard("japan-cpu"))


def test_errors_far_away_are_a_sentence_where_all_rows_have_them(rows: pd.DataFrame, results_folder: Path) -> None:
    file = results_folder / "japan-cpu" / "knowledge.csv"
    assert findings.far_price("japan-cpu") == ""
    rows.to_csv(file, index=False)
    assert findings.far_price("japan-cpu") == ""  # DINO was not tested in Kansai
    dino = rows[(rows["method"] == "dino") & (rows["region"] == "hokkaido")]
    pd.concat([rows, dino.assign(region="kansai")]).to_csv(file, index=False)
    far = dino[(dino["target"] == "price") & (dino["buffer_km"] == 15)]["value"].mean()
    said = findings.far_price("japan-cpu")
    assert said.startswith("For land price 15 km and more from known prices, in Hokkaido and Kansai, GPS-SELM's error")
    assert f"DINO's {far:.2f}, that of random weights" in said


def test_every_question_and_target_has_a_cell(rows: pd.DataFrame) -> None:
    questions = knowledge.asked("japan-cpu")
    figure = verdict_grid(knowledge.grid(questions), knowledge.WORDS)
    price, density, area, zone, cover = figure.axes
    n = len(questions) // 2
    assert len(price.get_yticks()) == n == sum(map(len, verdicts.KINDS.values()))
    texts = [text.get_text() for text in zone.texts]
    assert texts.count("not run") == n - 4 and sum(text.endswith("better") for text in texts) == 2
    gain = questions.loc[(questions["question"] == "dino") & (questions["target"] == "zone"), "gain"].iloc[0]
    assert f"{100 * gain:+.1f} better" in texts
    for empty in (density, area, cover):
        assert [text.get_text() for text in empty.texts] == ["not asked at this distance"]
    page = knowledge.question_picture("japan-cpu").text
    assert "± 0.02 of MSE and ± 1 point." in page and "land price: Does GPS-SELM beat DINO? better" in page
    table = knowledge.question_table(questions).text
    assert table.count('"selm-tag') == len(questions) and table.count("<tr>") == 1 + n
    explains = words(knowledge.explains_table("japan-cpu"))
    assert "1 km 5 km 15 km" in explains and "population density equivalent" in explains


def test_what_is_pooled_is_named(rows: pd.DataFrame) -> None:
    line, table = knowledge.behind("japan-cpu")
    assert "300 to 1,200 points in 30 to 60 spatial blocks; regions: 1 to 2; pretraining runs of a row: 1." in words(
        line
    )
    assert "Tile2Vec" in words(line) and "gps_selm" not in line.text
    assert "Does GPS-SELM beat DINO? Hokkaido 300 30 1 / 1" in words(table)
    assert "Hokkaido and Kansai 1,200 60 1 / 1" in words(table)


def test_a_column_of_errors_is_of_the_same_points_in_all_its_rows(rows: pd.DataFrame) -> None:
    table, pooled = knowledge.errors(rows, "price")
    assert list(pooled) == ["blocks, 1 km", "blocks, 5 km", "blocks, 15 km", "regions"]
    assert pooled["regions"] == ["hokkaido", "kansai"]
    by = table.set_index("method")
    assert np.isnan(by.loc["dino", "blocks, 15 km"])  # not tested in Kansai
    one = rows[(rows["method"] == "gps_selm") & (rows["target"] == "price") & (rows["split"] == "blocks, 15 km")]
    mean = one.groupby("region")["value"].mean()
    assert by.loc["gps_selm", "blocks, 15 km"] == pytest.approx((300 * mean["hokkaido"] + 900 * mean["kansai"]) / 1200)
    assert table["method"].iloc[0] == "histogram_17_14"
    shown = words(knowledge.error_table(rows, "price"))
    assert "1 km 5 km 15 km other regions" in shown and shown.endswith("Tested in Hokkaido and Kansai.")
    assert "DINO" not in shown and "DINO" in words(knowledge.error_table(rows, "price", short=False))
    assert "1 km 5 km other regions" in words(knowledge.error_table(rows, "density"))
    zones, _ = knowledge.errors(rows, "zone")
    assert zones["blocks, 1 km"].iloc[0] == pytest.approx(70, abs=2) and "most frequent class" in set(zones["title"])
    assert words(knowledge.error_table(rows, "area_type")) == "Not run."
    regions = words(knowledge.region_table(rows, "price"))
    assert "Hokkaido Kansai" in regions and re.search(r"DINO 0\.\d+ –", regions)


def test_an_embedding_beside_coordinates_is_a_row_of_its_own(rows: pd.DataFrame) -> None:
    beside = rows[(rows["method"] == "gps_selm") & (rows["buffer_km"] > 0)].assign(setting="with-coordinates")
    beside["value"] -= 0.4
    table, _ = knowledge.errors(pd.concat([rows, beside]), "price")
    by = table.set_index("title")["blocks, 15 km"]
    assert by["GPS-SELM (geo+rec+int) and coordinates"] == pytest.approx(by["GPS-SELM (geo+rec+int)"] - 0.4)


def test_the_recommended_embedding_stands_beside_what_else_could_be_taken(rows: pd.DataFrame) -> None:
    assert not knowledge.recommended_table(rows).text
    ours = rows[(rows["method"] == "gps_selm") & (rows["region"] == "hokkaido")].assign(method="compact")
    better = ours.assign(value=ours["value"].where(ours["metric"] != "mse", 0.123))
    whole = ours.assign(method="recommended")
    kansai = rows[(rows["method"] == "gps_selm") & (rows["region"] == "kansai")].assign(method="compact")
    every = pd.concat([rows, better, whole, kansai])
    text = words(knowledge.recommended_table(every))
    assert "Hokkaido, by the distance" in text and "Kansai" not in text
    turned = words(knowledge.recommended_table(every, rotated=True))
    assert "Kansai, by the distance" in turned and "Hokkaido" not in turned and "all numbers" not in turned
    assert not knowledge.recommended_table(pd.concat([rows, better, whole]), rotated=True).text
    for word in ("land price", "population density", "zone"):
        assert word in text
    lines = knowledge.recommended_table(every).text.split("<tr>")
    (price, *_) = [line for line in lines if "recommended embedding, reduced" in line]
    assert price.count("<strong>0.123</strong>") == 4  # three buffers and other regions
    own = rows[(rows["region"] == "hokkaido") & (rows["target"] == "price") & (rows["method"] == "gps_selm")]
    (plain, *_) = [line for line in lines if "GPS-SELM (geo+rec+int)" in line]
    assert f"{own[own['buffer_km'] == 15]['value'].mean():.3f}" in plain

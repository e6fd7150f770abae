"""Cards and the list of encoders: what is committed is what the results give, and that is what is published."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from reproduction import cards, paths
from reproduction.beyond.location_encoders import distilled
from reproduction.cli import main
from reproduction.profiles import get_profile
from reproduction.results import read_csv
from selm.errors import InputError
from selm.files import read_json

WIDE, MUGS = "multi_zoom_wide_x4", "mugs"
LATER = "2100-01-01"  # than the encoders were trained
MARK = "<!-- written by python -m reproduction encoders -->"


def test_what_is_committed_is_what_the_results_give() -> None:
    wanted = cards.written()
    there = {file.parent / "README.md" for file in paths.encoders().glob("*/*/config.json")}
    assert set(wanted) == there | {paths.encoders() / "encoders.json", paths.repository() / "README.md"}
    for file, text in wanted.items():
        assert file.read_text(encoding="utf-8") == text, f"{file}: not up to date; python -m reproduction encoders"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two encoders, and made-up results of them."""
    for name in (WIDE, MUGS):
        shutil.copytree(paths.encoders() / "japan-cpu" / name, tmp_path / "encoders" / "japan-cpu" / name)
    results = tmp_path / "results" / "japan-cpu"
    results.mkdir(parents=True)
    rows = [  # validation would choose the first, the test region another
        (f"{WIDE}+colours", "zooms 17-16", 0.20, [0.31, 0.33], "1-2-3-4"),
        (WIDE, "zooms 17-16-15", 0.25, [0.10, 0.10], "last"),
        (WIDE, "zooms 17-16-15, one orientation", 0.30, [0.15, 0.15], "1-2-3-4"),
        (WIDE, "zooms 17-16, coordinates", 0.10, [0.05, 0.05], "last"),
        ("colours", "zooms 17-16", 0.4, [0.50, 0.52], ""),
    ]
    far = [  # validation under 15 km would choose the second: the way of use is chosen once, under 1 km
        (f"{WIDE}+colours", "zooms 17-16", 0.40, [0.41, 0.43], "1-2-3-4"),
        (WIDE, "zooms 17-16-15", 0.35, [0.30, 0.30], "last"),
        ("colours", "zooms 17-16", 0.6, [0.70, 0.72], ""),
    ]
    pd.DataFrame([
        {"target": "l01", "split": split, "method": method, "setting": setting, "stages": stages, "seed": seed,
         "date": LATER, "validation": validation, "trial": trial, "value": value + (split == "random") + 5 * seed}
        for split, some in (("blocks", rows), ("random", rows), ("blocks, 15 km", far))
        for method, setting, validation, values, stages in some for seed in (0, 1) for trial, value in enumerate(values)
    ]).to_csv(results / "surroundings.csv", index=False)  # fmt: skip
    pd.DataFrame([
        {"target": target, "split": split, "method": method, "setting": setting, "metric": "mse", "seed": seed,
         "date": LATER, "value": value + (target != "l01") + (split != "blocks") + seed}
        for method, setting, value in ((MUGS, "frozen-closed", 0.8), (MUGS, "frozen", 0.1),
                                       ("knn_coordinates", "practitioner", 0.7), ("prior", "practitioner", 1.2))
        for target in ("l01", "interpolated") for split in ("blocks", "random") for seed in (0, 1)
    ]).to_csv(results / "table1.csv", index=False)  # fmt: skip
    pd.DataFrame([
        {"target": target, "region": region, "buffer_km": km, "split": f"blocks, {km:g} km", "method": method,
         "setting": setting, "metric": "mse", "seed": 0, "date": LATER,
         "value": value + km / 100 + (region != "hokkaido")}
        for method, setting, value in ((MUGS, "closed", 0.9), ("prior", "practitioner", 1.0))
        for target in ("price", "density") for region in ("hokkaido", "kanto") for km in (1.0, 15.0)
    ]).to_csv(results / "knowledge.csv", index=False)  # fmt: skip
    return tmp_path / "encoders", tmp_path / "results"


def test_rows_from_before_an_encoder_was_trained_are_not_its_own(folders: tuple[Path, Path]) -> None:
    file = folders[1] / "japan-cpu" / "table1.csv"
    for name in ("table1.csv", "knowledge.csv"):
        table = pd.read_csv(file.with_name(name))
        table.assign(date="2000-01-01").to_csv(file.with_name(name), index=False)
    found = cards.describe(folders[0] / "japan-cpu" / MUGS, folders[1])
    assert found.bundled.trained_errors == {} and found.free("1")["5 nearest by coordinates"] == 0.7


def test_scores_and_use_come_from_the_results(folders: tuple[Path, Path]) -> None:
    encoders, results = folders
    made = cards.written(encoders, results)
    whole = json.loads(made[encoders / "encoders.json"])
    wide, mugs = whole["encoders"]
    assert whole["default"] == wide["name"] == "japan-wide" and mugs["name"] == "japan-mugs"
    assert (wide["zooms"], wide["orientations"], wide["stages"]) == ([17, 16], 8, [1, 2, 3, 4])
    assert wide["beside"] == ["colours"] and wide["errors"] == {"1": 0.32, "15": 0.42} and wide["trained_errors"] == {}
    assert mugs["zooms"] == [17] and mugs["orientations"] == 1 and mugs["beside"] == [] and mugs["errors"] == {}
    assert mugs["trained_errors"] == {"1": 0.8, "15": 1.05}
    assert whole["free"] == {
        "free: the same images' colours": {"1": 0.51, "15": 0.71}, "free: 5 nearest by coordinates": {"1": 0.7},
        "free: the mean of the others": {"1": 1.2, "15": 1.15},
    }  # fmt: skip
    card = made[encoders / "japan-cpu" / MUGS / "README.md"]
    _, front, body = card.split("---\n", 2)
    (index,) = yaml.safe_load(front)["model-index"]
    assert [result["metrics"][0]["value"] for result in index["results"]] == [0.8, 1.05]
    assert "| **japan-mugs**, as it was trained | ridge | 0.800 | 1.050 |" in body
    assert "| free: the mean of the others | as it comes | 1.200 | 1.150 |" in body
    assert "At 1 km it is no better than 5 nearest by coordinates" in body and "no better than the mean" not in body
    assert "Land prices of those regions" not in body
    said = " ".join(cards.sentence(cards.describe(encoders / "japan-cpu" / WIDE, results)).split())
    assert "15 km and more" in said and "**0.420** in the standardised logarithm, 0.320 at 1 km." in said
    assert "the same images' colours, 0.710 (0.510); the mean of the others, 1.150 (1.200)." in said
    assert "Land prices of those regions" in made[encoders / "japan-cpu" / WIDE / "README.md"]


def test_only_what_changed_is_written(folders: tuple[Path, Path]) -> None:
    encoders, results = folders
    assert len(cards.write(encoders, results)) == 3 and cards.write(encoders, results) == []
    (results / "japan-cpu" / "surroundings.csv").unlink()
    changed = {file.parent.name for file in cards.write(encoders, results)}
    assert changed == {WIDE, "encoders"}
    assert json.loads((encoders / "encoders.json").read_text())["default"] == "japan-mugs"  # the only one with a score


def test_two_encoders_of_one_name_are_refused(folders: tuple[Path, Path]) -> None:
    encoders, results = folders
    shutil.copytree(encoders / "japan-cpu" / WIDE, encoders / "japan-cpu" / "multi_zoom_wide")
    with pytest.raises(InputError, match="two encoders would have one name"):
        cards.written(encoders, results)


def test_one_command_writes_them(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    encoders, results = folders
    monkeypatch.setattr(paths, "encoders", lambda: encoders)
    monkeypatch.setattr(paths, "repository", lambda: results.parent)
    (results.parent / "data").mkdir()
    shutil.move(results, results.parent / "data" / "results")
    with pytest.raises(SystemExit):
        main(["encoders"])
    assert capsys.readouterr().out.count("README.md") == 2 and (encoders / "encoders.json").exists()
    (results.parent / "README.md").write_text(f"before{MARK}old words<!-- until here -->after")
    with pytest.raises(SystemExit):
        main(["encoders"])
    text = (results.parent / "README.md").read_text(encoding="utf-8")
    assert text.startswith(f"before{MARK}\n") and text.endswith("\n<!-- until here -->after") and "old" not in text
    assert "an error of **0.420**" in " ".join(text.split()).replace("a squared error", "an error")


def test_the_card_of_the_location_encoder_that_comes_along_is_of_its_numbers() -> None:
    (about,) = (paths.encoders() / "locations").glob("*/location.json")
    raw = read_json(about)
    profile = get_profile(raw["profile"])
    assert about.parent.name == cards.location_name(profile) == "japan-coordinates"
    size = (about.parent / "location.safetensors").stat().st_size
    assert (about.parent / "README.md").read_text(encoding="utf-8") == cards.location_card(profile, raw, size)
    rows = read_csv(paths.repository() / "data" / "results" / profile.name / "distilled.csv")
    own = distilled.chosen(rows, [distilled.GRID_TABLES])
    published = own.groupby("buffer_km")["value"].mean()
    assert raw["errors"] == {f"{km:g}": pytest.approx(value, abs=1e-4) for km, value in published.items()}


def test_a_reduction_is_used_once_it_is_scored_and_by_the_probe_that_chose(folders: tuple[Path, Path]) -> None:
    encoders, results = folders
    wide, file = encoders / "japan-cpu" / WIDE, results / "japan-cpu" / "surroundings.csv"
    assert "reduction" in read_json(wide / "run.json")
    about = cards.describe(wide, results).bundled
    assert about.reduction == "" and about.numbers == 0 and about.errors["1"] == pytest.approx(0.32)
    rows = pd.read_csv(file)
    own = rows[rows["method"] == f"{WIDE}+colours"].assign(method="compact", stages="", validation=0.1)
    pd.concat([rows, own.assign(value=own["value"] / 2)]).to_csv(file, index=False)
    known = pd.read_csv(file.with_name("knowledge.csv"))  # a plain probe's
    more = known[known["method"] == MUGS].assign(method="compact", value=0.01)
    pd.concat([known, more]).to_csv(file.with_name("knowledge.csv"), index=False)
    one = cards.describe(wide, results)
    assert one.bundled.reduction == f"japan-cpu/{WIDE}/reduction.safetensors" and one.bundled.numbers == 128
    assert one.bundled.errors == {"1": pytest.approx(0.16), "15": pytest.approx(0.21)}
    assert one.whole_errors == {"1": pytest.approx(0.32), "15": pytest.approx(0.42)} and one.validation == 0.1
    assert "as 128 numbers" in cards.card(one) and "selm embed --all-numbers" in cards.card(one)

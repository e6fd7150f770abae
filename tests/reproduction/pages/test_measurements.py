"""What the page on speed shows: every committed file, in its own columns, with where it comes from."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from reproduction.pages import measurements, published
from selm.errors import InputError

COMMITTED = sorted(file.stem for file in (published.results_folder() / published.MEASUREMENTS).glob("*.csv"))


@pytest.fixture
def elsewhere(results_folder: Path) -> Path:
    """A folder without measurements."""
    folder = results_folder / published.MEASUREMENTS
    folder.mkdir()
    return folder


@pytest.mark.parametrize("name", COMMITTED)
def test_every_committed_measurement_is_shown(name: str) -> None:
    rows = measurements.measurement(name)
    assert rows is not None and len(rows)
    text = measurements.measurement_table(name).text
    assert str(rows["commit"].iloc[0]) in text and "not measured yet" not in text
    shown = [column for column, _, _ in measurements.MEASURED[name].columns if column in rows]
    assert len(shown) >= 3


def test_what_was_not_measured_is_said_to_be_so(elsewhere: Path) -> None:
    for name, about in measurements.MEASURED.items():
        assert measurements.measurement(name) is None
        text = measurements.measurement_table(name).text
        assert "not measured yet" in text and about.command in text


def test_numbers_are_shown_by_kind(elsewhere: Path) -> None:
    row = {
        "way": "<ours>", "images_per_s": 12_345.6, "images_per_cpu_s": 0.12345, "cpu_ratio": 1.5,
        "least": 1.25, "greatest": 1.75, "share_of_limit": 0.256, "commit": "abc123", "date": "2026-01-01",
        "command": "python -m x",
    }  # fmt: skip
    pd.DataFrame([row, {**row, "share_of_limit": None}]).to_csv(elsewhere / "pretraining.csv", index=False)
    text = measurements.measurement_table("pretraining").text
    for wanted in ("&lt;ours&gt;", "12,346", "0.123", "1.5 ×", "1.25 to 1.75", "25.6 %", "–", "abc123", "python -m x"):
        assert wanted in text, wanted


def test_a_table_made_in_parts_names_every_command(elsewhere: Path) -> None:
    rows = [{"work": name, "wrong": 0, "command": f"python -m x --only {name}"} for name in ("a", "b")]
    pd.DataFrame(rows).to_csv(elsewhere / "kills.csv", index=False)
    text = measurements.measurement_table("kills").text
    assert all(f"<code>python -m x --only {name}</code>" in text for name in ("a", "b"))


def test_growth_has_a_line_for_each_pair_of_work_and_size(elsewhere: Path) -> None:
    rows = [
        {"grows": grows, "what": "linear probe", "size": size, "slope": slope, "why": "", "commit": "a"}
        for grows, slope in (("classes", 0.25), ("trials", 0.75)) for size in (1, 2)
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(elsewhere / "growth.csv", index=False)
    text = measurements.measurement_table("growth").text
    assert text.count("linear probe") == 2 and "0.25" in text and "0.75" in text


def test_scripts_words_become_the_book_s_and_a_column_headings(elsewhere: Path) -> None:
    cost = {"item": ["pretraining moco_v2", "energy"], "value": [1.0, 2.0], "unit": "", "how": "", "commit": "a"}
    pd.DataFrame(cost).to_csv(elsewhere / "cost.csv", index=False)
    text = measurements.measurement_table("cost").text
    assert "pretraining MoCo-V2" in text and "energy" in text and "moco_v2" not in text
    drawn = {"where": ["a", "a", "b"], "way": "block by block", "ratio": [9.0, 1.0, 13.0], "commit": "a"}
    pd.DataFrame(drawn).to_csv(elsewhere / "drawing.csv", index=False)
    assert measurements.measurement_table("drawing").text.count('class="section"') == 2
    assert "<strong>1 ×</strong>" in measurements.answer().text


def test_an_unknown_measurement_is_named() -> None:
    with pytest.raises(InputError, match="unknown measurement 'drawings'; did you mean 'drawing'"):
        measurements.measurement("drawings")


def test_growth_is_drawn_by_what_grows() -> None:
    pytest.importorskip("matplotlib")
    rows = pd.DataFrame([
        {"grows": grows, "what": what, "size": size, "seconds": size / 100, "mib_added": size}
        for grows, what in (("places", "planning"), ("places", "search"), ("trials", "ridge")) for size in (1, 10, 100)
    ])  # fmt: skip
    figure = measurements.growth_figure(rows)
    times = figure.axes[::2]
    assert [len(axis.get_lines()) for axis in times] == [3, 2]  # with the line of linear growth
    assert {axis.get_xlabel() for axis in figure.axes} == {"number of places", "number of trials"}

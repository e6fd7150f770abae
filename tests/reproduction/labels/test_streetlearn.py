"""The lists of StreetLearn's places, written here as they are published: no header, latitude, longitude, yaw, city."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reproduction.labels.streetlearn import read_streetlearn
from selm.errors import InputError


def written(folder: Path, *rows: str) -> Path:
    path = folder / "wallstreet5k.csv"
    path.write_text("".join(f"{row}\n" for row in rows))
    return path


def test_rows_without_a_header(tmp_path: Path) -> None:
    places = read_streetlearn(written(tmp_path, "40.7055,-74.0135,209,manhattan", "40.7056,-74.0134,0,manhattan,7,9"))
    assert places["lat"].tolist() == [40.7055, 40.7056] and places["lon"].tolist() == [-74.0135, -74.0134]
    assert places["yaw"].tolist() == [209, 0] and set(places["city"]) == {"manhattan"}


def test_the_command_shows_places(tmp_path: Path, shown: Callable[[str, Path], list[str]]) -> None:
    lines = shown("streetlearn", written(tmp_path, *["40.7055,-74.0135,209,manhattan"] * 7))
    assert lines[:2] == ["7 rows of lat, lon, yaw, city", "40.7055 to 40.7055 N, -74.0135 to -74.0135 E"]
    assert len(lines) == 8 and lines[3].split() == ["40.7055", "-74.0135", "209.0", "manhattan"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("40.7,-74.0", "row 2 has 2 fields"),
        ("lat,-74.0,3,manhattan", "row 2, field latitude: 'lat' is not a number"),
        ("40.7,-74.0,north,manhattan", "row 2, field yaw: 'north' is not a number"),
        ("40.7,-74.0,361,manhattan", "row 2, field yaw: 361 is outside 0..360"),
        ("-174.0,40.7,3,manhattan", "row 2: lat -174, lon 40.7 is out of range; are lat and lon swapped"),
    ],
)
def test_errors_name_row_and_field(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(InputError, match=f"wallstreet5k.csv: {message}"):
        read_streetlearn(written(tmp_path, "40.7055,-74.0135,209,manhattan", row))


def test_no_file_and_no_rows(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_streetlearn(tmp_path / "nowhere.csv")
    with pytest.raises(InputError, match="no rows"):
        read_streetlearn(written(tmp_path))

"""Reading files of data sets by the command; what their readers understand is tested beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from reproduction.cli import main
from reproduction.data import registry


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("a28", "x.zip"), "unknown data set 'a28'; did you mean 'a29'?"),
        (("eurosat", "x.zip"), "eurosat is not a table (tables are: l01, a29, l03-b, population-mesh, e-stat,"),
        (("l03-b", "nowhere.zip"), "nowhere.zip: no such file"),
        (("streetlearn", "."), "not a readable CSV file"),
    ],
)
def test_mistakes_are_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, str],
    message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["data", "read", *words])
    shown = capsys.readouterr()
    assert ended.value.code == 2 and shown.out == "" and shown.err.count("\n") == 1
    assert shown.err.startswith("selm: ") and message in shown.err


@pytest.mark.parametrize("name", [name for name, data_set in registry.DATA_SETS.items() if data_set.table])
def test_every_table_can_be_asked_for(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    with pytest.raises(SystemExit):
        main(["data", "read", name, str(tmp_path / "none.zip")])
    assert capsys.readouterr().err == f"selm: {tmp_path / 'none.zip'}: no such file\n"


@pytest.mark.parametrize(
    ("name", "file", "rows"),
    [
        ("l01", "mlit/L01-2013.zip", 25_983),
        ("a29", "mlit/zoning-a29-tochigi.parquet", 2_573),
        ("e-stat", "population-estat-2015.parquet", None),
    ],
)
def test_official_files(real, capsys: pytest.CaptureFixture[str], name: str, file: str, rows: int | None) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["data", "read", name, str(real(file))])
    lines = capsys.readouterr().out.splitlines()
    assert not ended.value.code and len(lines) == 8
    assert rows is None or lines[0].startswith(f"{rows} rows of ")

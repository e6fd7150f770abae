"""L03-b in its official forms, written here: a dBase table in a zip, codes as text or as numbers, Japanese fields."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from reproduction.labels.land_use_mesh import LAND_USE_NAMES, mesh_centres, read_l03b
from selm.errors import InputError

pytest.importorskip("pyogrio")

MESH = ["5339000000", "5339000001", "5339000010", "5339779999"]
CLASS = ["0100", "0700", "0500", "1600"]


def dbf(rows: list[tuple[str, str]], names: tuple[str, str] = ("L03b_001", "L03b_002"), kind: str = "C") -> bytes:
    """A dBase III table, byte by byte, in CP932, with a third field as the official ones have."""
    fields = [(names[0], 10), (names[1], 4), ("L03b_003", 8)]
    width = 1 + sum(length for _, length in fields)
    head = struct.pack("<BBBBIHH20x", 3, 121, 3, 31, len(rows), 32 + 32 * len(fields) + 1, width)
    for number, (name, length) in enumerate(fields):
        type_ = kind if number == 1 else "C"
        head += struct.pack("<11sc4xBB14x", name.encode("cp932")[:10], type_.encode(), length, 0)
    records = b"".join(
        b" " + mesh.ljust(10).encode() + (code.rjust(4) if kind == "N" else code.ljust(4)).encode("cp932") + b"20210101"
        for mesh, code in rows
    )
    return head + b"\r" + records + b"\x1a"


def zipped(folder: Path, content: bytes, name: str = "L03-b-21_5339.dbf") -> Path:
    path = folder / "L03-b-2021_5339_GML.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"L03-b-21_5339-jgd2011_GML/{name}", content)
        archive.writestr("L03-b-21_5339-jgd2011_GML/L03-b-21_5339.shp", b"not read at all")
    return path


@pytest.mark.parametrize("kind", ["C", "N"])
@pytest.mark.parametrize("names", [("L03b_001", "L03b_002"), ("メッシュ", "土地利用種")])
def test_the_table_alone_is_read(tmp_path, kind, names):
    table = read_l03b(zipped(tmp_path, dbf(list(zip(MESH, CLASS, strict=True)), names, kind)))
    assert [LAND_USE_NAMES[code] for code in table["land_use"]] == ["paddy", "building", "forest", "golf course"]
    assert table["mesh"].tolist() == MESH
    # 5339: 53 / 1.5 = 35.3333 N, 139 E; squares of 3 seconds by 4.5 seconds
    np.testing.assert_allclose(
        table["lat"], [35 + 1 / 3 + n * 3 / 3600 + 1.5 / 3600 for n in (0, 0, 1, 799)], atol=1e-9
    )
    np.testing.assert_allclose(table["lon"], [139 + n * 4.5 / 3600 + 2.25 / 3600 for n in (0, 1, 0, 799)], atol=1e-9)


def test_centres_by_the_formula_of_the_standard():
    for code in ("3622579999", "6848000000", "5339452367"):
        ab, cd, (e, f, g, h, i, j) = int(code[:2]), int(code[2:4]), (int(c) for c in code[4:])
        lat, lon = mesh_centres(np.array([code], object))
        assert lat[0] == pytest.approx(ab / 1.5 + e / 12 + g / 120 + i / 1200 + 1 / 2400, abs=1e-9)
        assert lon[0] == pytest.approx(100 + cd + f / 8 + h / 80 + j / 800 + 1 / 1600, abs=1e-9)


def test_the_command_shows_squares(tmp_path, shown):
    lines = shown("l03-b", zipped(tmp_path, dbf(list(zip(MESH, CLASS, strict=True)))))
    assert lines[:2] == ["4 rows of lat, lon, land_use, mesh", "35.3338 to 35.9996 N, 139.0006 to 139.9994 E"]
    assert lines[3].split()[-2:] == ["0", MESH[0]] and len(lines) == 7


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("5339000000", "0100"), ("53390000", "0100")], "row 2, field L03b_001: '53390000' is not a mesh code of ten"),
        ([("5339900000", "0100")], "row 1, field L03b_001: '5339900000' is not a mesh code"),
        ([("5339000000", "0100"), ("5339000001", "0300")], "row 2, field L03b_002: '0300' is no class of L03-b"),
        ([("5339000000", "A")], "'A' is no class of L03-b; editions before 2006 have other classes"),
        ([], "no squares in"),
    ],
)
def test_errors_name_row_and_field(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        read_l03b(zipped(tmp_path, dbf(rows)))


def test_missing_field(tmp_path):
    with pytest.raises(InputError, match="field L03b_002 is missing"):
        read_l03b(zipped(tmp_path, dbf([("5339000000", "0100")], ("L03b_001", "other"))))


def test_no_table_in_the_zip(tmp_path):
    path = tmp_path / "L03-b.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "x")
    with pytest.raises(InputError, match=r"holds no L03-b table \(has: readme.txt\)"):
        read_l03b(path)

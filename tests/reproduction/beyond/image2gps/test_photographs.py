"""Reading photographs: the real ones, CSV and EXIF, and what is wrong with bad ones in one line."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from reproduction.beyond.image2gps import photographs
from reproduction.beyond.image2gps.photographs import Photos
from selm.errors import InputError


def jpeg(lat: float | None = None, lon: float | None = None, size: tuple[int, int] = (12, 9), turn: int = 1) -> bytes:
    image = Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8))
    image.paste((255, 0, 0), (0, 0, size[0] // 2, size[1]))
    exif = Image.Exif()
    exif[0x0112] = turn
    if lat is not None and lon is not None:

        def parts(value: float) -> tuple[float, float, float]:
            value = abs(value)
            minutes = value % 1 * 60
            return int(value), int(minutes), minutes % 1 * 60

        exif[0x8825] = {1: "N" if lat >= 0 else "S", 2: parts(lat), 3: "E" if lon >= 0 else "W", 4: parts(lon)}
    out = io.BytesIO()
    image.save(out, "JPEG", exif=exif, quality=95)
    return out.getvalue()


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as target:
        for name, content in files.items():
            target.writestr(name, content)
    return path


def test_the_real_photographs(real: Callable[[str], Path]) -> None:
    found = Photos(real("photos/penn-campus-10.zip"))
    assert len(found.table) == 10 and found.without == 0
    first = found.table.iloc[0]
    assert first["file"] == "IMG_7182.jpg" and first["lat"] == pytest.approx(39.95240833333334)
    images = found.images(found.table["file"].tolist()[:2], 48)
    assert images.shape == (2, 3, 48, 48) and images.float().std() > 20
    box = photographs.inside(found.table, (-75.1916, 39.95235, -75.1910, 39.9530))
    assert len(box) == 4  # those north of the photographer's first stands
    assert len(photographs.without_lone_points(found.table)) == 7  # from three stands there is one photograph each


def test_exif_where_there_is_no_csv(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "a.zip",
        {
            "x/one.jpg": jpeg(39.9524, -75.1916),
            "x/two.jpg": jpeg(-33.5, 151.25),
            "x/none.jpg": jpeg(),
            "x/note.txt": b"",
        },
    )
    found = Photos(path)
    assert found.table["file"].tolist() == ["x/one.jpg", "x/two.jpg"] and found.without == 1
    np.testing.assert_allclose(found.table[["lat", "lon"]], [[39.9524, -75.1916], [-33.5, 151.25]], atol=1e-6)
    assert photographs.exif_coordinates(b"not an image") is None


def test_csv_names_in_any_order_and_case_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.jpg").write_bytes(jpeg(size=(8, 4), turn=6))
    (tmp_path / "meta.csv").write_text("LONGITUDE, Lat ,Filename\n-75.19,39.95,a.jpg\n")
    found = Photos(tmp_path)
    assert found.table.iloc[0].tolist() == ["sub/a.jpg", 39.95, -75.19]
    upright = found.images(["sub/a.jpg"], 16)[0].float()
    assert upright[0, :6].mean() > 200 > 60 > upright[0, 10:].mean()  # EXIF's quarter turn: red is on top


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,lat\na.jpg,1\n", "meta.csv: no column for lon"),
        ("file,lat,lon\na.jpg,north,1\n", "meta.csv: row 0, field lat is not a number"),
        ("file,lat,lon\na.jpg,-75.19,39.95\nb.jpg,1,1\n", "meta.csv: row 1, no image called b.jpg"),
        ("file,lat,lon\na.jpg,139.95,-75.19\n", "out of range; are lat and lon swapped"),
        ("", "meta.csv: not a readable CSV file"),
    ],
)
def test_a_bad_table_is_one_line(tmp_path: Path, table: str, message: str) -> None:
    path = archive(tmp_path / "a.zip", {"a.jpg": jpeg(), "meta.csv": table.encode()})
    with pytest.raises(InputError, match=message):
        Photos(path)


def test_other_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no photographs here"):
        Photos(tmp_path / "missing")
    (tmp_path / "a.zip").write_bytes(b"no zip")
    with pytest.raises(InputError, match="neither a folder nor a"):
        Photos(tmp_path / "a.zip")
    with pytest.raises(InputError, match="no images here"):
        Photos(archive(tmp_path / "b.zip", {"meta.csv": b"file,lat,lon\n"}))
    with pytest.raises(InputError, match="2 CSV files"):
        Photos(archive(tmp_path / "c.zip", {"a.jpg": jpeg(), "x.csv": b"", "y.csv": b""}))
    with pytest.raises(InputError, match="neither in a CSV file nor in EXIF"):
        Photos(archive(tmp_path / "d.zip", {"a.jpg": jpeg()}))
    cut = archive(tmp_path / "e.zip", {"a.jpg": jpeg()[:200], "m.csv": b"file,lat,lon\na.jpg,1,1\n"})
    with pytest.raises(InputError, match=r"a\.jpg is not a readable image"):
        Photos(cut).images(["a.jpg"], 8)


def test_lone_points_box_and_split() -> None:
    table = pd.DataFrame({"file": list("abcd"), "lat": [1.0, 1.0, 2.0, 3.0], "lon": [5.0, 5.0, 5.0, 6.0]})
    assert photographs.without_lone_points(table)["file"].tolist() == ["a", "b"]
    assert photographs.inside(table, (5.0, 1.5, 6.0, 3.0))["file"].tolist() == ["c", "d"]
    training, validation = photographs.random_split(3219)
    assert len(training) == 2575 and len(validation) == 644
    assert np.array_equal(np.sort(np.concatenate([training, validation])), np.arange(3219))

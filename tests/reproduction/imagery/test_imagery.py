"""Readers of other people's images: each on small files of its exact format, and on the real ones where they are."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reproduction.imagery.aerial_cars import read_aerial_cars
from reproduction.imagery.chips import crop_boxes, random_chips
from reproduction.imagery.eurosat import read_eurosat
from reproduction.imagery.images import Imagery, resized, statistics, to_bytes
from reproduction.imagery.naip import count_triplets, read_naip, read_triplet
from reproduction.imagery.sustainbench import BANDS, SPLITS, official_split, read_sustainbench
from reproduction.imagery.uc_merced import read_uc_merced
from reproduction.imagery.xview import CLASSES, read_xview
from selm.errors import InputError

Real = Callable[[str], Path]


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def one_line(error: pytest.ExceptionInfo[InputError], *words: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text


# EuroSAT and UC Merced


def test_eurosat_archives_name_classes_by_folder(tmp_path: Path) -> None:
    pixels = {f"2750/{name}/{name}_{i}.jpg": picture(64, 64, i) for name in ("River", "Forest") for i in (1, 2)}
    file = archive(tmp_path / "EuroSAT.zip", {name: encoded(p, "PNG") for name, p in pixels.items()})
    read = read_eurosat(file)
    assert len(read) == 4 and read.class_names == ("Forest", "River") and read.groups is None
    for row, name in enumerate(read.names):
        assert read.class_names[read.labels[row]] == name.split("/")[1]
        np.testing.assert_array_equal(read.rgb(row), pixels[name])
    assert read.fingerprint != read.some([0, 1]).fingerprint != read.some([1, 0]).fingerprint
    assert read.some([2]).names == (read.names[2],) and np.array_equal(read.some([2]).rgb(0), read.rgb(2))


def test_uc_merced_tiffs_and_copies_with_a_split_read_alike(tmp_path: Path) -> None:
    official = {f"UCMerced_LandUse/Images/beach/beach0{i}.tif": encoded(picture(256, 247, i), "TIFF") for i in (0, 1)}
    copies = {"train/beach/beach1.jpg": encoded(picture(256, 256), "JPEG"),
              "test/river/river7.jpg": encoded(picture(256, 256), "JPEG")}  # fmt: skip
    read = read_uc_merced(archive(tmp_path / "a.zip", official))
    assert read.class_names == ("beach",) and read.rgb(1).shape == (247, 256, 3) and read.size(1) == (256, 247)
    np.testing.assert_array_equal(read.rgb(1), picture(256, 247, 1))
    assert read_uc_merced(archive(tmp_path / "b.zip", copies)).class_names == ("beach", "river")
    assert resized(read, 32).shape == (2, 3, 32, 32)


def test_archives_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_eurosat(tmp_path / "absent.zip")
    one_line(error, "absent.zip", "no such file")
    (tmp_path / "short.zip").write_bytes(b"PK\3\4")
    with pytest.raises(InputError) as error:
        read_eurosat(tmp_path / "short.zip")
    one_line(error, "short.zip", "cut short")
    with pytest.raises(InputError) as error:
        read_eurosat(archive(tmp_path / "empty.zip", {"readme.txt": b"x"}))
    one_line(error, "empty.zip", "no images")
    with pytest.raises(InputError) as error:
        read_eurosat(archive(tmp_path / "flat.zip", {"a.jpg": b"x"}))
    one_line(error, "flat.zip", "a.jpg", "no folder")
    broken = read_eurosat(archive(tmp_path / "broken.zip", {"River/a.jpg": encoded(picture(9, 9), "JPEG")[:40]}))
    with pytest.raises(InputError) as error:
        broken.rgb(0)
    one_line(error, "broken.zip", "River/a.jpg")


# NAIP and CDL


def naip_folder(folder: Path, codes: list[float], bands: int = 5) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(1, len(codes) + 1):
        np.save(folder / f"{number}tile.npy", rng.integers(0, 256, (100, 100, bands)).astype(np.uint8))
    np.save(folder / "y.npy", np.array(codes))
    return folder


@pytest.mark.parametrize("bands", [4, 5])
def test_naip_tiles_are_numbered_from_one_and_codes_have_gaps(tmp_path: Path, bands: int) -> None:
    folder = naip_folder(tmp_path / "tiles", [236.0, 1.0, 36.0, 1.0, *[54.0] * 8], bands)
    read = read_naip(folder)
    assert read.names[0] == "1tile.npy" and read.names[10] == "11tile.npy"  # in the order of y.npy, not of text
    assert read.class_names == ("1", "36", "54", "236")
    assert read.labels[:4].tolist() == [3, 0, 1, 0]
    tile = np.load(folder / "2tile.npy")
    assert read.load(1).shape == (100, 100, 4)
    np.testing.assert_array_equal(read.rgb(1), tile[:, :, :3])  # red, green, blue come first


def test_naip_files_at_fault_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_naip(tmp_path)
    one_line(error, "y.npy", "no such file")
    folder = naip_folder(tmp_path / "tiles", [1.0, 5.0])
    (folder / "2tile.npy").unlink()
    with pytest.raises(InputError) as error:
        read_naip(folder)
    one_line(error, "2tile.npy", "2 labels")
    np.save(folder / "2tile.npy", np.zeros((100, 100, 3), np.uint8))
    with pytest.raises(InputError) as error:
        read_naip(folder).load(1)
    one_line(error, "2tile.npy", "(100, 100, 3)")
    np.save(folder / "y.npy", np.array([1.0, 1.5]))
    with pytest.raises(InputError) as error:
        read_naip(folder)
    one_line(error, "y.npy", "row 1", "1.5")


def test_naip_triplets(tmp_path: Path) -> None:
    for number in range(2):
        for k, part in enumerate(("anchor", "neighbor", "distant")):
            np.save(tmp_path / f"{number}{part}.npy", np.full((50, 50, 5), 10 * number + k, np.uint8))
    assert count_triplets(tmp_path) == 2
    triplet = read_triplet(tmp_path, 1)
    assert [int(tile[0, 0, 0]) for tile in triplet] == [10, 11, 12] and triplet[0].shape == (50, 50, 4)
    (tmp_path / "1distant.npy").unlink()
    with pytest.raises(InputError) as error:
        count_triplets(tmp_path)
    one_line(error, "1distant.npy")


# SustainBench


def sustainbench_folder(folder: Path, water: dict[str, object], without: tuple[str, ...] = ()) -> Path:
    folder.mkdir()
    rows = [f"{cluster},12.5,-1.25,{value}" for cluster, value in water.items()]
    (folder / "dhs_final_labels.csv").write_text("DHSID_EA,lat,lon,water_index\n" + "\n".join(rows) + "\n")
    for k, cluster in enumerate(water):
        if cluster not in without:
            survey = folder / cluster[:10]
            survey.mkdir(exist_ok=True)
            image = np.arange(8, dtype=np.float32)[:, None, None] + np.zeros((8, 255, 255), np.float32) + 100 * k
            np.savez_compressed(survey / f"{cluster}.npz", x=image)
    return folder


def test_sustainbench_water_index(tmp_path: Path) -> None:
    water: dict[str, object] = {
        "AL-2008-5#-00000001": 4.5, "AL-2008-5#-00000002": "", "BF-2010-6#-00000001": 1.0,
        "AM-2010-6#-00000007": 3.49, "AM-2010-6#-00000008": 5,
    }  # fmt: skip
    folder = sustainbench_folder(tmp_path / "dhs", water, without=("AM-2010-6#-00000008",))
    read = read_sustainbench(folder)
    assert read.names == ("AL-2008-5#-00000001", "BF-2010-6#-00000001", "AM-2010-6#-00000007")
    assert read.values.tolist() == [4.5, 1.0, 3.49]
    assert [read.class_names[code] for code in read.labels] == ["5", "1", "3"]
    assert official_split(read.groups).tolist() == ["train", "validation", "test"]
    image = read.load(2)
    assert image.shape == (255, 255, 8) and image.dtype == np.float32
    assert image[0, 0].tolist() == [300 + k for k in range(8)]
    assert read.rgb(2)[0, 0].tolist() == [302, 301, 300]  # its bands are blue, green, red, …
    assert BANDS[:3] == ("blue", "green", "red")
    assert resized(read, 16).dtype == torch.float32


def test_sustainbench_splits_are_the_published_ones() -> None:
    assert [len(SPLITS[name]) for name in ("train", "validation", "test")] == [30, 13, 13]
    assert len({country for countries in SPLITS.values() for country in countries}) == 56
    with pytest.raises(InputError, match="'XX'"):
        official_split(np.array(["AL", "XX"]))


def test_sustainbench_faults_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dhs_final_labels\.csv: no such file"):
        read_sustainbench(tmp_path)
    for k, (water, words) in enumerate(
        (
            ({"AL-2008-5#-00000001": 6}, ("row 1", "'water_index'", "6")),
            ({"AL-2008-5#-00000001": "good"}, ("row 1", "'water_index'", "good")),
            ({"AL-2008-5#-00000001": ""}, ("no image",)),
        )
    ):
        with pytest.raises(InputError) as error:
            read_sustainbench(sustainbench_folder(tmp_path / f"dhs{k}", dict(water)))
        one_line(error, *words)
    folder = sustainbench_folder(tmp_path / "dhs9", {"AL-2008-5#-00000001": 2})
    np.savez(folder / "AL-2008-5#" / "AL-2008-5#-00000001.npz", x=np.zeros((3, 255, 255)))
    with pytest.raises(InputError) as error:
        read_sustainbench(folder).load(0)
    one_line(error, "AL-2008-5#-00000001.npz", "(3, 255, 255)")
    (folder / "dhs_final_labels.csv").write_text("DHSID_EA,asset_index\n")
    with pytest.raises(InputError, match="column 'water_index' is missing"):
        read_sustainbench(folder)


# xView


def xview_folder(folder: Path, features: list[dict[str, object]]) -> Path:
    (folder / "train_images").mkdir(parents=True)
    for k, name in enumerate(("5.tif", "104.tif")):
        (folder / "train_images" / name).write_bytes(encoded(picture(300, 200, k), "TIFF"))
    properties = [{"type": "Feature", "properties": feature} for feature in features]
    text = json.dumps({"type": "FeatureCollection", "features": properties})
    (folder / "xView_train.geojson").write_text(text)
    return folder


def box(image: str, type_id: int, bounds: str) -> dict[str, object]:
    return {"bounds_imcoords": bounds, "type_id": type_id, "image_id": image, "cat_id": type_id, "edited_by": "x"}


def test_xview_scenes_and_boxes(tmp_path: Path) -> None:
    folder = xview_folder(
        tmp_path / "xview",
        [
            box("104.tif", 18, "10,20,30,44"),
            box("5.tif", 94, "-5,190,20,215"),  # beyond the scene's edge
            box("5.tif", 75, "1,1,9,9"),  # the published file has ids that are no classes
            box("1395.tif", 18, "1,1,9,9"),  # and boxes of a scene that was not published
            box("104.tif", 11, "295,0,310,50"),
            box("104.tif", 11, "301,0,310,50"),  # wholly outside
        ],
    )
    read = read_xview(folder)
    assert read.names == ("104.tif", "5.tif") and read.sizes == ((300, 200), (300, 200))
    assert len(read.class_names) == 60 and min(CLASSES) == 11 and max(CLASSES) == 94
    assert [read.class_names[code] for code in read.box_labels[0]] == ["Small Car", "Fixed-wing Aircraft"]
    assert read.boxes[0].tolist() == [[10, 20, 30, 44], [295, 0, 300, 50]]
    assert read.boxes[1].tolist() == [[0, 190, 20, 200]]
    np.testing.assert_array_equal(read.rgb(1), picture(300, 200, 0))
    assert read.groups.tolist() == list(read.names)


@pytest.mark.parametrize(
    ("feature", "words"),
    [
        (box("5.tif", 14, "1,1,9,9"), ("feature 0", "'type_id'", "14")),
        (box("5.tif", 18, "1,1,9"), ("feature 0", "'bounds_imcoords'", "1,1,9")),
        ({"type_id": 18, "image_id": "5.tif"}, ("feature 0", "'bounds_imcoords'", "missing")),
    ],
)
def test_xview_faults_are_named(tmp_path: Path, feature: dict[str, object], words: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as error:
        read_xview(xview_folder(tmp_path / "xview", [feature]))
    one_line(error, "xView_train.geojson", *words)


def test_xview_files_that_are_missing_or_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_xview(tmp_path)
    folder = xview_folder(tmp_path / "xview", [])
    (folder / "train_images" / "5.tif").write_bytes(b"II*\0")
    with pytest.raises(InputError) as error:
        read_xview(folder)
    one_line(error, "5.tif", "not a readable GeoTIFF")


# chips


def scenes(boxes: list[list[float]], size: tuple[int, int] = (300, 200)) -> Imagery:
    pixels = picture(*size)
    found = np.array(boxes, np.float32).reshape(-1, 4)
    return Imagery("made up", ("a",), lambda row: pixels, ("red", "green", "blue"), "0", ("x", "y"),
                   groups=np.array(["flight"]), boxes=(found,), box_labels=(np.arange(len(found)) % 2,))  # fmt: skip


def test_boxes_with_under_a_quarter_inside_are_dropped() -> None:
    corner, px = (100, 50), 100  # the chip is 100 … 200 across and 50 … 150 down
    boxes = np.array(
        [
            [110, 60, 150, 90],  # inside
            [70, 60, 110, 100],  # 10 of 40 columns inside: exactly a quarter stays
            [69, 60, 109, 100],  # a little less does not
            [150, 140, 250, 160],  # half of its width, half of its height: a quarter
            [0, 0, 50, 50],
            [200, 60, 220, 80],  # touches the edge only
        ],
        np.float32,
    )
    kept, inside = crop_boxes(boxes, *corner, px)
    assert inside.tolist() == [True, True, False, True, False, False]
    assert kept.tolist() == [[10, 10, 50, 40], [0, 10, 10, 50], [50, 90, 100, 100]]


def test_chips_are_pieces_of_their_scene_with_its_boxes() -> None:
    made = scenes([[20, 30, 60, 50], [200, 150, 240, 190]])
    chips = random_chips(made, px=80, count=30, seed=3)
    assert len(chips) == 30 and set(chips.groups) == {"flight"}
    again = random_chips(made, px=80, count=30, seed=3)
    assert chips.fingerprint == again.fingerprint and np.array_equal(chips.load(7), again.load(7))
    assert chips.fingerprint != random_chips(made, px=80, count=30, seed=4).fingerprint
    whole, seen = made.rgb(0), 0
    for number in range(len(chips)):
        piece = chips.rgb(number)
        assert piece.shape == (80, 80, 3)
        spots = np.argwhere((whole[: 200 - 79, : 300 - 79] == piece[0, 0]).all(axis=2))
        ((y, x),) = [spot for spot in spots if np.array_equal(whole[spot[0] :, spot[1] :][:80, :80], piece)]
        kept, inside = crop_boxes(made.boxes[0], x, y, 80)
        np.testing.assert_array_equal(chips.boxes[number], kept)
        np.testing.assert_array_equal(chips.box_labels[number], made.box_labels[0][inside])
        seen += len(kept)
    assert seen > 0


def test_small_scenes_are_filled_up() -> None:
    chips = random_chips(scenes([[0, 0, 40, 40]], size=(50, 60)), px=80, count=2)
    assert chips.load(0).shape == (80, 80, 3)
    np.testing.assert_array_equal(chips.load(0)[:60, :50], picture(50, 60))
    assert chips.load(0)[60:].sum() == 0 and chips.load(0)[:, 50:].sum() == 0
    with pytest.raises(InputError, match="has no boxes"):
        random_chips(scenes([]).some([]), px=8)


# drone photographs


def test_aerial_cars_boxes_are_shares_of_the_photograph(tmp_path: Path) -> None:
    jpeg = encoded(picture(200, 100), "JPEG")
    members = {
        "DJI_0005-0018.jpg": jpeg, "DJI_0005-0018.txt": b"0 0.5 0.5 0.1 0.2\n3 0.0 0.5 0.1 0.2\n\n",
        "DJI-00760-00001.jpg": jpeg, "DJI-00760-00001.txt": b"",
    }  # fmt: skip
    read = read_aerial_cars(archive(tmp_path / "cars.zip", members))
    assert read.names == ("DJI-00760-00001.jpg", "DJI_0005-0018.jpg")
    assert read.groups.tolist() == ["DJI-00760", "DJI_0005"] and read.class_names == ("vehicle",)
    assert read.boxes[0].shape == (0, 4)
    np.testing.assert_allclose(read.boxes[1], [[90, 40, 110, 60], [0, 40, 10, 60]], atol=1e-4)
    assert read.box_labels[1].tolist() == [0, 0] and read.size(0) == (200, 100)
    for text, words in (
        (b"0 0.5 0.5 0.1\n", ("line 1", "4 fields")),
        (b"0 0.5 0.5 0.1 0.2\n0 0.5 x 0.1 0.2\n", ("line 2", "not numbers")),
        (b"0 1.5 0.5 0.1 0.2\n", ("line 1", "outside")),
    ):
        with pytest.raises(InputError) as error:
            read_aerial_cars(archive(tmp_path / "bad.zip", {"f-1.jpg": jpeg, "f-1.txt": text}))
        one_line(error, "bad.zip", "f-1.txt", *words)
    with pytest.raises(InputError, match=r"f-1\.txt is missing"):
        read_aerial_cars(archive(tmp_path / "bad.zip", {"f-1.jpg": jpeg}))


# what all share


def test_statistics_and_bytes() -> None:
    images = torch.tensor([[0, 100], [50, 50]], dtype=torch.uint8).expand(5, 3, 2, 2)
    mean, std = statistics(images)
    np.testing.assert_allclose(mean, 50.0)
    np.testing.assert_allclose(std, np.std([0, 100, 50, 50]))
    assert to_bytes(images).shape == (5, 2, 2, 3) and to_bytes(images)[0, 0, 1, 0] == 100
    stretched = to_bytes(torch.linspace(0, 0.3, 1200).view(1, 3, 20, 20))
    assert stretched.min() == 0 and stretched.max() == 255


def test_labels_must_be_of_the_images() -> None:
    with pytest.raises(InputError, match="1 labels for 2 images"):
        Imagery("x", ("a", "b"), lambda row: picture(2, 2), ("red", "green", "blue"), "0", labels=np.zeros(1, np.int64))


# the real files


def test_real_eurosat(real: Real) -> None:
    read = read_eurosat(real("imagery/eurosat-rgb-3000.zip"))
    assert len(read.class_names) == 10 and np.bincount(read.labels).tolist() == [300] * 10
    assert read.rgb(2999).shape == (64, 64, 3)


def test_real_uc_merced(real: Real) -> None:
    read = read_uc_merced(real("imagery/uc-merced-21.zip"))
    assert len(read.class_names) == 21 and np.bincount(read.labels).tolist() == [100] * 21
    assert read.rgb(0).shape == (256, 256, 3)


def test_real_aerial_cars(real: Real) -> None:
    read = read_aerial_cars(real("imagery/aerial-cars-36.zip"))
    assert dict(zip(*np.unique(read.groups, return_counts=True), strict=True)) == {"DJI-00760": 11, "DJI_0005": 25}
    assert sum(len(boxes) for boxes in read.boxes) == 600 and set(read.sizes) == {(1280, 720)}
    assert all((boxes[:, 2:] > boxes[:, :2]).all() for boxes in read.boxes)

"""Image2GPS's images: the stand-in's headings and splits, and those of photographs."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from pathlib import Path

import made_up
import numpy as np
import pytest
import torch
from PIL import Image

from reproduction.beyond.image2gps import experiment as image2gps
from reproduction.profiles import get_profile
from reproduction.settings import Area, ImageToGPS
from selm.errors import InputError


def profile(**settings: object):
    smoke = get_profile("smoke")
    return dataclasses.replace(smoke, image_to_gps=ImageToGPS(**settings))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELM_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SELM_DATA", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def test_the_stand_in_turns_each_place_to_its_headings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atlas = made_up.atlas(tmp_path / "atlas")
    monkeypatch.setattr(image2gps, "campus_atlas", lambda profile: atlas)
    monkeypatch.setattr(image2gps, "TILE_PX", made_up.TILE_PX)
    (north, south), (west, east) = made_up.place(np.array([0.4, 1.6]), np.array([0.4, 1.6]))
    area = Area("made up", "made up", "", (float(west), float(south), float(east), float(north)))
    chosen = profile(area=area, zoom=17, n_places=10, headings=4, n_test=6, px=8)
    found = image2gps.images(chosen)
    assert found.stand_in and len(found.training) == 32 and len(found.validation) == 8 and len(found.test) == 6
    # a quarter turn of the heading is a quarter turn of the picture
    four = found.test.images[:4].float()
    for quarter in range(1, 4):
        torch.testing.assert_close(four[quarter], four[0].rot90(quarter, dims=(1, 2)), rtol=0, atol=1.0)
    assert found.test.coordinates[:4].unique(dim=0).shape[0] == 1
    known = {tuple(c) for part in (found.training, found.validation) for c in part.coordinates.tolist()}
    assert len(known) == 10 and not known & {tuple(c) for c in found.test.coordinates.tolist()}


def archive(path: Path, stands: int, each: int) -> None:
    rows = ["file,lat,lon"]
    with zipfile.ZipFile(path, "w") as target:
        for stand in range(stands):
            for shot in range(each):
                out = io.BytesIO()
                Image.new("RGB", (8, 8), (20 * stand, 30 * shot, 0)).save(out, "PNG")
                target.writestr(f"{stand}-{shot}.png", out.getvalue())
                rows.append(f"{stand}-{shot}.png,{39.95 + stand * 1e-4},-75.19")
        out = io.BytesIO()
        Image.new("RGB", (8, 8)).save(out, "PNG")
        target.writestr("lone.png", out.getvalue())
        rows.append("lone.png,39.9777,-75.19")
        target.writestr("metadata.csv", "\n".join(rows))


def test_photographs_are_split_with_test_stands_of_their_own(tmp_path: Path) -> None:
    archive(tmp_path / "photos.zip", stands=10, each=4)
    found = image2gps.images(profile(photos="photos.zip", n_test=6, px=8))
    assert not found.stand_in
    assert len(found.test) == 8 and len(found.training) == 26 and len(found.validation) == 6  # 40 less the lone one
    test = {tuple(c) for c in found.test.coordinates.tolist()}
    assert len(test) == 2 and not test & {tuple(c) for c in found.training.coordinates.tolist()}
    # images go with their own coordinates
    stand = ((found.training.coordinates[:, 0] - 39.95) * 1e4).round()
    torch.testing.assert_close(found.training.images[:, 0, 0, 0].double(), 20 * stand)
    with pytest.raises(InputError, match="too few to split"):
        box = (-75.2, 39.94, -75.18, 39.95005)
        image2gps.images(profile(photos="photos.zip", n_test=6, px=8, bbox=box))
    with pytest.raises(InputError, match=r"missing\.zip: no such file"):
        image2gps.images(profile(photos="missing.zip"))


def test_what_a_network_starts_from_is_said(tmp_path: Path) -> None:
    assert image2gps.initialisation(profile(), "efficientnet_b0") == "random"
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "efficientnet_b0_x.pth").write_bytes(b"")
    assert image2gps.initialisation(profile(), "efficientnet_b0") == "efficientnet_b0_x.pth"
    assert image2gps.initialisation(profile(), "efficientnet_b1") == "random"

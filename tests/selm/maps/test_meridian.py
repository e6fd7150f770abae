"""At the 180th meridian a map goes on at its other side: images there are those of the same map elsewhere."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import made_up
import numpy as np
import pytest

from selm.embedding.embedder import Embedder
from selm.errors import InputError, OutsideMapWarning
from selm.maps import draw
from selm.maps.atlas import Atlas
from selm.maps.mercator import LAT_MAX, from_tile
from selm.views import DeviceAtlas, blocks_near

EDGE, ROW = made_up.X + 1, made_up.Y  # elsewhere, two tiles meet at this column
LAT = float(from_tile(EDGE, ROW + 0.3, 13)[0])
AWAY = EDGE * 360 / 2**13 - 180  # the longitude there
STEP = 360 / 2**13 / 64  # a 64th of a tile
AT = np.array([180.0, -180.0, -180 + STEP, 180 - STEP])
SAME = np.array([AWAY, AWAY, AWAY + STEP, AWAY - STEP])


@pytest.fixture
def atlases(tmp_path: Path) -> tuple[Atlas, Atlas]:
    """A map at the meridian, and the same map elsewhere."""
    there = made_up.atlas(tmp_path / "there")
    here = tmp_path / "here"
    for zoom in there.zooms:
        for from_, to in ((EDGE - 1, 2**13 - 1), (EDGE, 0)):
            shutil.copytree(there.path / f"z{zoom}/13/{from_}", here / f"z{zoom}/13/{to}")
    keys = [[x, ROW + i] for x in (0, 2**13 - 1) for i in range(2)]
    (here / "atlas.json").write_text(json.dumps(there.description | {"keys": keys}))
    return Atlas(here), there


def test_crops(atlases: tuple[Atlas, Atlas]) -> None:
    here, there = atlases
    lat = np.full(len(AT), LAT)
    expected = there.indices(lat, SAME, 17, 32)
    assert expected.min() > 0  # no background in it
    np.testing.assert_array_equal(here.indices(lat, AT, 17, 32), expected)
    device = DeviceAtlas([here], (17,))
    np.testing.assert_array_equal(device.patches(device.locate(lat, AT, 17), 17, 32)[0], expected)
    assert len(blocks_near(here.keys, lat[:1], AT[:1], (17,))) == len(blocks_near(there.keys, lat[:1], SAME[:1], (17,)))


def test_embeddings(atlases: tuple[Atlas, Atlas]) -> None:
    encoder = made_up.encoder()
    here, there = (Embedder(encoder, atlas, "cpu") for atlas in atlases)
    found = here([LAT] * 4, AT)
    np.testing.assert_allclose(found, there([LAT] * 4, SAME), atol=1e-6)
    np.testing.assert_allclose(found, here([LAT] * 4, AT % 360), atol=1e-6)
    assert not np.allclose(found[0], found[2], atol=1e-3)


@pytest.mark.parametrize("zoom", [15, 13])
def test_drawn_images(
    make_mbtiles: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zoom: int
) -> None:
    pytest.importorskip("mapnik")
    monkeypatch.setenv("SELM_CACHE", str(tmp_path / "cache"))
    here = make_mbtiles("here.mbtiles", ((13, 8191, ROW), (13, 0, ROW)), bounds="-180,-85,180,85")
    there = make_mbtiles("there.mbtiles", ((13, EDGE - 1, ROW), (13, EDGE, ROW)))
    for lon, same in zip(AT % 360, SAME, strict=True):
        images = [draw.draw_image(file, LAT, where, zoom=zoom, size=64, tile_px=64)
                  for file, where in ((here, lon), (there, same))]  # fmt: skip
        assert len(np.unique(images[0][:, :24].reshape(-1, 3), axis=0)) > 1
        differing = (images[0] != images[1]).any(-1)
        assert differing.any(0).sum() <= 2  # where the tiles meet, a line is drawn once or twice


def test_the_poles(make_mbtiles: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mapnik")
    monkeypatch.setenv("SELM_CACHE", str(tmp_path / "cache"))
    file = make_mbtiles("pole.mbtiles", ((13, 4096, 0), (13, 4096, 8191)), bounds="-180,-85.06,180,85.06")
    encoder = made_up.encoder()
    encoder.config = dataclasses.replace(encoder.config, style="selm", zoom=15)
    with pytest.warns(OutsideMapWarning, match=r"2 of 6 .*row 4 \(85\.06, 0\.01\), row 5 \(-90, 0\.01\).*ends at 85"):
        found = Embedder(encoder, file, "cpu")([LAT_MAX, 85.05, -LAT_MAX, -85.05, 85.06, -90], [0.01] * 6)
    assert np.isfinite(found[:4]).all() and np.isnan(found[4:]).all()
    for lat in (LAT_MAX, -LAT_MAX):  # half of the image lies beyond the map
        assert len(np.unique(draw.draw_image(file, lat, 0.01, zoom=13, size=64, tile_px=64))) > 2
    with pytest.raises(InputError, match=r"lat 85\.06, lon 0\.01 is outside pole\.mbtiles"):
        draw.draw_image(file, 85.06, 0.01)

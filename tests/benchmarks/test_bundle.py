"""A bundle holds what a profile needs, and a machine that has only the bundle draws, trains and probes the same."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import bundle
from reproduction import paths, profiles
from reproduction.computed import drawn_maps, encoders
from reproduction.experiments.table1_table2 import task
from reproduction.places.regions import LAND_PRICES, POPULATION
from reproduction.profiles import get_profile
from reproduction.settings import Profile, Region
from selm.errors import InputError

SMOKE = get_profile("smoke")
# real data, at the smallest size: some blocks of three regions
REGIONS = (
    Region("nagoya", "osm-japan/nagoya.mbtiles", "pretrain", (136.88, 35.15, 136.93, 35.19)),
    Region("fukuoka", "osm-japan/fukuoka.mbtiles", "validation", (130.38, 33.58, 130.43, 33.62)),
    Region("hiroshima", "osm-japan/hiroshima.mbtiles", "test", (132.44, 34.38, 132.48, 34.41)),
)
SMALL = dataclasses.replace(
    SMOKE, name="japan-small", regions=REGIONS, stand_ins=False,
    maps=dataclasses.replace(get_profile("japan-cpu").maps, tile_px=32),
)  # fmt: skip


@pytest.fixture
def small(real: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Profile:
    """The profile `SMALL` with runs of its own."""
    pytest.importorskip("mapnik")
    for name in (LAND_PRICES, POPULATION, *(region.source for region in REGIONS)):
        real(name)
    monkeypatch.setenv("SELM_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SELM_DEVICE", "cpu")
    monkeypatch.setitem(profiles.PROFILES, SMALL.name, SMALL)
    return SMALL


def test_a_machine_with_the_bundle_alone_does_the_same(
    small: Profile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = bundle.write(small, tmp_path / "parts", 30.0)
    assert len(parts) >= 2
    sizes = [sum(f.stat().st_size for f in part.rglob("*") if f.name != bundle.LIST) for part in parts]
    assert max(sizes) <= 30 * 2**20
    here = tmp_path / "here"
    first = bundle.join(parts[:1], here)
    assert first and bundle.join(parts, here) == []  # as they come
    code = (
        "import importlib.abc, json, sys\n"
        "class No(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in {'geopandas', 'pyogrio', 'shapely', 'pyrosm', 'matplotlib'}:\n"
        "            raise ImportError(f'{name} is not on that machine')\n"
        "sys.meta_path.insert(0, No())\n"
        "import torch, mapnik\n"
        "from test_bundle import SMALL\n"
        "from reproduction import profiles\n"
        "from reproduction.computed import drawn_maps, encoders\n"
        "profiles.PROFILES[SMALL.name] = SMALL\n"
        "from reproduction.experiments.table1_table2 import task\n"
        "sampler = encoders.sampler(SMALL)\n"
        "generator = torch.Generator().manual_seed(3)\n"
        "batch = sampler.batch(sampler.draw_rows(8, generator), generator)\n"
        "todo = task(SMALL, 'table1', 'l01', 'blocks')\n"
        "print(json.dumps({'mapnik': mapnik.__file__, 'views': float(batch.global_views.double().sum()),\n"
        "    'folder': encoders.pretraining_folder(SMALL, 'dino').name,\n"
        "    'images': int(drawn_maps.point_images(SMALL, todo.places).long().sum())}))\n"
    )
    environment = {
        **os.environ, "SELM_DATA": str(here / "data"), "SELM_RUNS": str(here / "runs"),
        "PYTHONPATH": os.pathsep.join(map(str, (here / "lib", paths.repository(), Path(__file__).parent))),
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    there = json.loads(done.stdout.splitlines()[-1])
    assert Path(there["mapnik"]).is_relative_to(here / "lib")
    sampler, generator = encoders.sampler(small), torch.Generator().manual_seed(3)
    batch = sampler.batch(sampler.draw_rows(8, generator), generator)
    assert there["views"] == float(batch.global_views.double().sum())
    assert there["folder"] == encoders.pretraining_folder(small, "dino").name
    todo = task(small, "table1", "l01", "blocks")
    assert there["images"] == int(drawn_maps.point_images(small, todo.places).long().sum()) > 0

    assert bundle.main(["--join", *map(str, parts), "--into", str(here)]) == 0
    assert f"SELM_DATA={here / 'data'}" in capsys.readouterr().out
    shutil.copytree(parts[0], tmp_path / "cut")
    file = next(f for f in (tmp_path / "cut").rglob("*") if f.is_file() and f.name != bundle.LIST)
    file.write_bytes(file.read_bytes()[:-1])
    assert bundle.main(["--join", str(tmp_path / "cut"), "--into", str(tmp_path / "bad")]) == 2
    assert "cut short or altered" in capsys.readouterr().err
    # another profile of the same regions: their maps are drawn, but which blocks to draw there is not known by its name
    other = dataclasses.replace(small, name="japan-other")
    wheel = tmp_path / "small.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("mapnik/lib/mapnik/input/tiles.input", "")
    parts_of_other = bundle.write(other, tmp_path / "other", 30.0, wheel)
    names = {path.name for part in parts_of_other for path in part.rglob("*.parquet")}
    assert {name.rsplit("-", 1)[0] for name in names} >= {"japan-other-hiroshima", "japan-other-fukuoka"}
    with pytest.raises(InputError, match="is not empty"):
        bundle.write(small, tmp_path / "parts", 30.0)
    with pytest.raises(InputError, match=r"do not fit into a part of 0\.5"):
        bundle.write(small, tmp_path / "tiny", 0.5, wheel)
    assert not (tmp_path / "tiny").exists()


def test_what_makes_no_bundle_is_said_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bundle.main([str(tmp_path / "out"), "--profile", "smoke"]) == 2
    assert "there is nothing to carry" in capsys.readouterr().err
    assert bundle.main(["--join", str(tmp_path)]) == 2
    assert "bundle.json: no such file" in capsys.readouterr().err
    assert bundle.main([]) == 2
    (tmp_path / "no.whl").write_text("no")
    with pytest.raises(InputError, match=r"no\.whl: not a readable wheel"):
        bundle.pack_mapnik(tmp_path / "no.whl", tmp_path / "mapnik.zip")
    with zipfile.ZipFile(tmp_path / "empty.whl", "w") as archive:
        archive.writestr("mapnik/__init__.py", "")
    with pytest.raises(InputError, match="no Mapnik that reads vector tiles"):
        bundle.pack_mapnik(tmp_path / "empty.whl", tmp_path / "mapnik.zip")

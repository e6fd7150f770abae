"""A pack holds what a profile trains on, and a machine that has only the pack trains the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import gpu, pack
from selm import checkpoints, paths, stages
from selm.errors import InputError
from selm.experiments.grid import task
from selm.networks import MapEncoder
from selm.probes.frozen import ridge
from selm.profiles import get_profile

PROFILE = get_profile("smoke")


@pytest.fixture(scope="module")
def packed(smoke: Path) -> pack.Pack:
    folder = smoke / "pack"
    assert pack.main([str(folder), "--profile", "smoke", "--max-mib", "20"]) == 0
    return pack.open_pack(folder)


def test_a_batch_of_the_pack_is_a_batch_of_the_profile(packed: pack.Pack) -> None:
    ours, theirs = packed.sampler(PROFILE, torch.device("cpu")), stages.sampler(PROFILE)
    assert packed.encoder_config(PROFILE) == stages.encoder_config(PROFILE)
    batches = []
    for sampler in (ours, theirs):
        generator = torch.Generator().manual_seed(3)
        batches.append(sampler.batch(sampler.draw_rows(12, generator), generator))
    for name in ("global_views", "local_views", "parents", "price", "density_class", "coordinates"):
        one, two = (getattr(batch, name) for batch in batches)
        torch.testing.assert_close(one, two, rtol=0, atol=0, equal_nan=True, msg=name)


def test_what_does_not_fit_is_left_out_by_whole_blocks_and_counted(smoke: Path, packed: pack.Pack) -> None:
    whole = sum(f.stat().st_size for f in (packed.path / "atlas").rglob("*.png"))
    folder = smoke / "small"
    blocks = len(packed.atlas.keys)
    if blocks < 2:
        with pytest.raises(InputError, match="not even one block fits"):
            pack.write(PROFILE, folder, 0.3 * whole / 2**20, 0)
        return
    about = pack.write(PROFILE, folder, 0.9 * whole / 2**20, 0)
    small = pack.open_pack(folder)
    assert 0 < about["blocks"] < about["of_blocks"] == blocks and about["places"] < about["of_places"]
    kept = set(map(tuple, small.atlas.keys.tolist()))
    assert set(map(tuple, pack.blocks_of(small.places).tolist())) <= kept


def test_a_pack_opens_without_map_libraries(packed: pack.Pack) -> None:
    code = (
        "import sys, torch; from benchmarks import gpu, pack; from selm.profiles import get_profile\n"
        f"p = pack.open_pack({str(packed.path)!r}); p.sampler(get_profile('smoke'), torch.device('cpu')); p.test()\n"
        "bad = {'mapnik', 'geopandas', 'pyrosm', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported: {bad}' if bad else 0)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=paths.repository(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_one_command_trains_from_a_pack_and_probes_as_the_table_does(packed: pack.Pack, tmp_path: Path) -> None:
    rest = [
        "--skip",
        "pretraining",
        "profile_step",
        "embedding",
        "encoder_share",
        "--train",
        "dino",
        "--minutes",
        "0.1",
    ]
    assert gpu.main([str(packed.path), str(tmp_path), *rest]) == 0
    run = tmp_path / "train" / "dino-s0"
    about = checkpoints.read_json(run / "run.json")
    assert about["complete"] and about["config"]["images"] >= PROFILE.pretraining.batch
    small, _ = checkpoints.load_tensors(run / "model-bfloat16.safetensors")
    full = MapEncoder.from_pretrained(str(run)).state_dict()
    for name, value in full.items():
        assert torch.equal(small[name], value.bfloat16() if value.is_floating_point() else value), name
    rows = pd.read_csv(tmp_path / "probes.csv")
    assert set(rows["method"]) == {"dino-s0", "random_init"} and set(rows["split"]) == {"random", "blocks"}
    todo = task(PROFILE, "table1", "l01", "random")
    network = stages.new_encoder(stages.encoder_config(PROFILE), 0)
    x = stages.encode(network, stages.point_images(PROFILE, todo.places), stages.palette(PROFILE)).numpy()
    expected = ridge(x, todo.targets, todo.folds).values("mse")[0]
    found = rows[(rows["method"] == "random_init") & (rows["split"] == "random")]["value"]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    # called again it goes on: the run is finished and stays as it is
    before = (run / "run.json").stat().st_mtime_ns
    assert gpu.main([str(packed.path), str(tmp_path), *rest]) == 0
    assert (run / "run.json").stat().st_mtime_ns == before


def test_what_is_no_pack_is_said_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([str(tmp_path / "none"), str(tmp_path)]) == 2
    assert capsys.readouterr().err.strip().endswith("pack.json: no such file")
    assert pack.main([str(tmp_path), "--check"]) == 2

"""One loop: what it writes, that it resumes bit for bit, that it is a function of its seed, and that it learns."""

from __future__ import annotations

import csv
import dataclasses
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from synthetic import SETTINGS, trainer

from selm import checkpoints, files
from selm.encoder import MapEncoder
from selm.errors import InputError
from selm.pretrain import clip_each, parameter_groups, pretrain, step_generator
from selm.provenance import commit

CONFIG = {"method": "some", "seed": 0, "area": (0.4, 1.0)}


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as handle:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(handle)]


def assert_same_run(a: Path, b: Path) -> None:
    for file in ("method.safetensors", "model.safetensors"):
        one, two = checkpoints.load_tensors(a / file)[0], checkpoints.load_tensors(b / file)[0]
        assert one.keys() == two.keys()
        different = [name for name in one if not torch.equal(one[name], two[name])]
        assert not different, f"{file}: {different}"
    assert rows_of(a) == rows_of(b)


@pytest.mark.parametrize("name", ["dino", "gps_selm"])
def test_a_run_stopped_anywhere_ends_as_if_it_had_not_been(tmp_path, name):
    whole = pretrain(trainer(name), tmp_path / "whole", CONFIG, progress=False)
    # checkpoints are at steps 4 and 8: stop before the first, between them, and after the second
    for done in (3, 5, 3):
        pretrain(trainer(name), tmp_path / "parts", CONFIG, progress=False, stop_after=done)
        assert not files.read_json(tmp_path / "parts" / "run.json")["complete"]
    parts = pretrain(trainer(name), tmp_path / "parts", CONFIG, progress=False)
    assert_same_run(whole, parts)
    assert not (parts / "state").exists()


KILLED = """
import sys, time
from pathlib import Path
import synthetic, torch
from selm.pretrain import pretrain
torch.set_num_threads(1)
run = synthetic.trainer("gps_selm")
step, counted = run.train_step, 0
def told():
    out = step()
    while run.step == 7 and not (Path(sys.argv[1]) / "state" / "last.safetensors").exists():
        time.sleep(0.01)  # checkpoints are written by a thread
    print(run.step, flush=True)
    if run.step == 7:
        sys.stdin.read()  # wait here for the end
    return out
run.train_step = told
pretrain(run, Path(sys.argv[1]), {"method": "some", "seed": 0, "area": (0.4, 1.0)}, progress=False)
"""


def test_a_run_killed_by_the_system_ends_as_if_it_had_not_been(tmp_path):
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2])])
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "killed")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path}, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "7":
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not files.read_json(tmp_path / "killed" / "run.json")["complete"]
    assert checkpoints.read_meta(tmp_path / "killed" / "state" / "last.safetensors")["step"] == "4"
    run = trainer("gps_selm")
    resumed = pretrain(run, tmp_path / "killed", CONFIG, progress=False)
    whole = pretrain(trainer("gps_selm"), tmp_path / "whole", CONFIG, progress=False)
    assert_same_run(whole, resumed)


def test_a_restored_trainer_is_the_one_that_was_saved(tmp_path):
    one, two = trainer("gps_selm"), trainer("gps_selm", seed=1)
    for _ in range(3):
        one.train_step()
    checkpoints.save_tensors(tmp_path / "s", one.state(), {})
    two.restore(checkpoints.load_tensors(tmp_path / "s")[0], one.step, tmp_path / "s")
    assert two.step == 3
    for key, value in one.method.state_dict().items():
        assert torch.equal(value, two.method.state_dict()[key]), key
    # AdamW's moments lie in memory as their parameters do: its fused kernel walks both side by side
    pairs = list(zip(one.method.parameters(), two.method.parameters(), strict=True))
    assert any(a in one.optimizer.state for a, _ in pairs)
    for a, b in pairs:
        mine, other = one.optimizer.state.get(a, {}), two.optimizer.state.get(b, {})
        assert mine.keys() == other.keys()
        for key, value in mine.items():
            assert torch.equal(value, other[key])
            assert (value.dtype, value.stride()) == (other[key].dtype, other[key].stride())


def test_a_run_that_is_complete_is_not_run_again(tmp_path):
    settings = dataclasses.replace(SETTINGS, images=2 * SETTINGS.batch)
    folder = pretrain(trainer("dino", settings), tmp_path, CONFIG, progress=False)
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    run = trainer("dino", settings)
    pretrain(run, tmp_path, CONFIG, progress=False)
    assert run.step == 0
    assert before == {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert not list(folder.glob(".*"))  # no temporary file


def test_what_a_run_leaves(tmp_path):
    settings = dataclasses.replace(SETTINGS, images=5 * SETTINGS.batch, log_every=2)
    run = trainer("gps_selm", settings)
    folder = pretrain(run, tmp_path, CONFIG, progress=False)
    about = files.read_json(folder / "run.json")
    assert about["complete"] is True
    assert (about["steps"], about["images"]) == (5, 5 * SETTINGS.batch)
    assert about["config"]["method"] == "some"
    assert {"commit", "device", "torch", "date", "seconds"} <= about.keys()
    rows = rows_of(folder)
    assert [row["step"] for row in rows] == ["2", "4", "5"]
    columns = {"loss", "cl", "price", "density", "coordinates", "geo", "rec", "clust", "feature_spread", "collapse"}
    assert columns < set(rows[0])
    encoder = MapEncoder.from_pretrained(str(folder))
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(encoder(images), run.method.encoder.eval()(images))


def test_rows_are_means_since_the_last_row(tmp_path):
    settings = dataclasses.replace(SETTINGS, images=5 * SETTINGS.batch, log_every=2)
    run = trainer("dino", settings)
    twin = trainer("dino", settings)
    losses = [twin.train_step()["loss"].item() for _ in range(5)]
    pretrain(run, tmp_path, CONFIG, progress=False)
    expected = [(losses[0] + losses[1]) / 2, (losses[2] + losses[3]) / 2, losses[4]]
    assert [float(row["loss"]) for row in rows_of(tmp_path)] == pytest.approx(expected, rel=1e-6)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    def after(seed: int, data_seed: int) -> dict[str, torch.Tensor]:
        run = trainer("gps_selm", seed=seed)
        run.seed = data_seed
        for _ in range(3):
            run.train_step()
        return {key: value.clone() for key, value in run.method.state_dict().items()}

    one, again, data = after(0, 0), after(0, 0), after(0, 1)
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert not torch.equal(one["encoder.network.conv1.weight"], data["encoder.network.conv1.weight"])


def test_every_step_has_its_own_randomness():
    cpu = torch.device("cpu")
    draws = {
        tuple(torch.rand(3, generator=step_generator(seed, step, cpu)).tolist())
        for seed in (0, 1, 1000) for step in (0, 1, 2, 100_000)
    }  # fmt: skip
    assert len(draws) == 12
    first, again = (torch.rand(3, generator=step_generator(5, 7, cpu)) for _ in range(2))
    assert torch.equal(first, again)


@pytest.mark.parametrize("change", [{"seed": 1}, {"method": "other"}, {"area": (0.3, 1.0)}])
def test_a_folder_of_another_configuration_is_refused(tmp_path, change):
    pretrain(trainer("dino"), tmp_path, CONFIG, progress=False, stop_after=1)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(InputError, match=r"run\.json: belongs to another configuration"):
        pretrain(trainer("dino"), tmp_path, CONFIG | change, progress=False)
    assert before == {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}


def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path):
    pretrain(trainer("dino"), tmp_path, CONFIG, progress=False, stop_after=5)
    state = tmp_path / "state" / "last.safetensors"
    state.write_bytes(state.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"last\.safetensors: .*cut short") as caught:
        pretrain(trainer("dino"), tmp_path, CONFIG, progress=False)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_method_is_refused(tmp_path):
    pretrain(trainer("dino"), tmp_path, CONFIG, progress=False, stop_after=5)
    with pytest.raises(InputError, match=r"last\.safetensors: lacks 'cluster_head"):
        pretrain(trainer("gps_selm"), tmp_path, CONFIG, progress=False)


def test_a_loss_that_is_not_finite_ends_the_run_in_one_line_and_keeps_the_last_checkpoint(tmp_path):
    run = trainer("dino")
    step = run.train_step

    def poisoned():
        out = step()
        return out | {"loss": torch.tensor(float("nan"))} if run.step == 7 else out

    run.train_step = poisoned
    with pytest.raises(InputError, match="the loss is not finite at step 7") as caught:
        pretrain(run, tmp_path, CONFIG, progress=False)
    assert "\n" not in str(caught.value)
    assert checkpoints.load_tensors(tmp_path / "state" / "last.safetensors")[1]["step"] == "4"
    assert not files.read_json(tmp_path / "run.json")["complete"]
    assert not (tmp_path / "model.safetensors").exists()


# ------------------------------------------------------------------------------------------------ the optimizer


def test_biases_and_norms_do_not_decay_and_the_teacher_is_not_trained():
    run = trainer("gps_selm")
    decays, still = run.optimizer.param_groups
    names = {id(p): name for name, p in run.method.named_parameters()}
    assert all(p.ndim > 1 for p in decays["params"])
    assert all(p.ndim <= 1 for p in still["params"])
    listed = [names[id(p)] for group in (decays, still) for p in group["params"]]
    assert sorted(listed) == sorted(name for name in names.values() if not name.startswith("teacher"))
    run.step = run.steps // 2
    run.train_step()
    assert decays["weight_decay"] == pytest.approx(0.22)  # half way from 0.04 to 0.4
    assert still["weight_decay"] == 0.0


def test_the_learning_rate_is_scaled_by_the_batch():
    run = trainer("dino", dataclasses.replace(SETTINGS, lr=1e-3, images=100 * SETTINGS.batch))
    run.step = 10  # the end of the warm-up
    run.train_step()
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * SETTINGS.batch / 256)


def test_a_step_is_adamw_with_gradients_clipped_one_by_one():
    """The second step of a run, redone for each parameter in plain arithmetic."""
    settings = dataclasses.replace(SETTINGS, lr_warmup=0.0, clip=0.05, freeze_last_layer=0.0)
    run = trainer("gps_selm", settings)
    seen = []
    for parameter in run.method.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda p: seen.append((p, p.grad.clone())))
    start = {p: p.detach().clone() for p in run.method.parameters()}
    run.train_step()
    lr, decay = run.optimizer.param_groups[0]["lr"], run.optimizer.param_groups[0]["weight_decay"]
    clipped = 0
    assert len(seen) == sum(p.requires_grad for p in run.method.parameters())
    for parameter, gradient in seen:
        norm = gradient.norm()
        clipped += bool(norm > 0.05)
        g = gradient * min(1.0, 0.05 / (norm.item() + 1e-6))
        # after one step m/(1 − β1) = g and v/(1 − β2) = g²
        expected = start[parameter] * (1 - lr * decay * (parameter.ndim > 1)) - lr * g / (g.abs() + 1e-8)
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-4, atol=1e-4 * lr)
    assert 0 < clipped < len(seen)


def test_clipping_shortens_long_gradients_and_leaves_short_ones():
    long, short, zero = torch.tensor([30.0, 40.0]), torch.tensor([0.3, 0.4]), torch.zeros(2)
    clip_each([long, short, zero], 3.0)
    assert long.tolist() == pytest.approx([1.8, 2.4])
    assert short.tolist() == pytest.approx([0.3, 0.4])
    assert zero.tolist() == [0, 0]


def test_frozen_parameters_are_in_no_group():
    method = trainer("dino").method
    method.encoder.network.conv1.weight.requires_grad_(False)
    listed = [p for group in parameter_groups(method) for p in group["params"]]
    assert all(p is not method.encoder.network.conv1.weight for p in listed)


# ---------------------------------------------------------------------------------------------------- learning


def test_it_learns_on_a_small_map_and_does_not_collapse(tmp_path):
    settings = dataclasses.replace(SETTINGS, images=40 * 16, batch=16, lr=2e-2, checkpoint_every=1000, log_every=10)
    pretrain(trainer("gps_selm", settings), tmp_path, CONFIG, progress=False)
    rows = rows_of(tmp_path)
    assert [row["collapse"] for row in rows] == [""] * len(rows)
    for key in ("geo", "price", "coordinates"):
        assert float(rows[-1][key]) < 0.95 * float(rows[0][key]), key
    assert float(rows[-1]["feature_spread"]) > 0.1
    assert float(rows[-1]["mean_teacher_entropy"]) > 0.5 * math.log(SETTINGS.out_dim)


@pytest.mark.parametrize("name", ["dino", "gps_selm_geo_rec", "gps_selm"])
def test_the_whole_loss_falls_when_the_teacher_stands_still(name):
    """A teacher that moves makes its own task harder and the total may rise; one that stands still must be learned."""
    settings = dataclasses.replace(
        SETTINGS, images=40 * 16, batch=16, lr=16e-3, lr_warmup=0.05, freeze_last_layer=0.0,
        teacher_momentum=(1.0, 1.0), centre_momentum=None, cluster_eta=1.0,
        teacher_temp=(0.07, 0.07), cluster_teacher_temp=(0.07, 0.07),
    )  # fmt: skip
    run = trainer(name, settings)
    rows = [{key: value.item() for key, value in run.train_step().items()} for _ in range(40)]

    def fall(key: str) -> float:
        first, last = (sum(row[key] for row in part) / 8 for part in (rows[:8], rows[-8:]))
        return last / first

    assert rows[0]["cl"] > 0.95 * math.log(settings.out_dim)  # at first it knows nothing
    assert fall("loss") < 0.88
    for key in {"cl", "rec", "clust", "price", "coordinates"} & rows[0].keys():
        assert fall(key) < 0.97, key  # noise can hardly be reconstructed
    assert rows[-1]["teacher_entropy"] < rows[-1]["cl"]  # what no student can go below


def test_a_copy_without_history_is_told_its_commit(monkeypatch, tmp_path):
    monkeypatch.setattr("selm.provenance.__file__", str(tmp_path / "selm" / "provenance.py"))
    monkeypatch.delenv("SELM_COMMIT", raising=False)
    assert commit() == "unknown"
    monkeypatch.setenv("SELM_COMMIT", "0123456789ab")
    assert commit() == "0123456789ab"

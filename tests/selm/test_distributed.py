"""Two processes (gloo, on the CPU) against one: the pieces, the loss curve, resuming, and the command line."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import multiprocessing
import os
import socket
from pathlib import Path

import pytest
import torch
from synthetic import SETTINGS, trainer
from torch import nn

from selm import checkpoints, distributed, files
from selm.errors import InputError
from selm.pretrain import pretrain

METHODS = ("gps_selm",)  # whose losses hold those of DINO
IN_PAPER = ("mugs", "moco_v2", "dino", "moco_geo_tp", "tile2vec", "gps_selm_geo", "gps_selm_geo_rec", "gps_selm")
SHORT = dataclasses.replace(SETTINGS, images=8 * SETTINGS.batch)


def curve(folder: Path) -> list[dict[str, float]]:
    with open(folder / "metrics.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    return [{k: float(v) for k, v in row.items() if k not in ("seconds", "collapse")} for row in rows]


def norm_example() -> tuple[nn.Sequential, torch.Tensor, torch.Tensor]:
    """A network with two norms, a batch of 8 for it, and weights for the outputs' sum."""
    generator = torch.Generator().manual_seed(5)
    torch.manual_seed(3)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(4 * 36))
    images = torch.randn(8, 3, 8, 8, generator=generator) * 3 + 1
    return network, images, torch.randn(8, 4 * 36, generator=generator)


def rank_program(out: Path) -> None:
    """What each of the two processes does; the results are looked at by the tests."""
    torch.set_num_threads(1)
    with distributed.joined():
        rank = distributed.rank()
        rows = distributed.part(8)
        own = torch.arange(8.0).view(8, 1)[rows] * torch.tensor([1.0, 10.0])
        price = torch.tensor([1.0, float("nan"), 3.0, 4.0, float("nan"), float("nan"), float("nan"), 8.0])[rows]
        found: dict[str, object] = {
            "size": distributed.size(),
            "main": distributed.is_main(),
            "rows": [rows.start, rows.stop],
            "gather": distributed.gather(own).tolist(),
            "gather_bool": distributed.gather(price.isfinite()).tolist(),
            "batch_mean": distributed.batch_mean(own.view(2, 2, 2)).tolist(),
            "masked": float(price.nanmean() * distributed.masked_share(price.isfinite())),
            "none": float(distributed.masked_share(torch.zeros(4, dtype=torch.bool))),
        }
        try:
            distributed.part(7)
        except InputError as error:
            found["odd"] = str(error)

        network, images, weights = norm_example()
        distributed.synchronise_norms(network, torch.device("cpu"))
        given = images[rows].clone().requires_grad_()
        output = network(given)
        (output * weights[rows]).sum().backward()
        for parameter in network.parameters():
            torch.distributed.all_reduce(parameter.grad)
        tensors = {"output": output.detach(), "input_grad": given.grad, **dict(network.state_dict())}
        tensors |= {f"grad.{name}": p.grad for name, p in network.named_parameters()}
        checkpoints.save_tensors(out / f"norms-{rank}.safetensors", tensors)
        found["kinds"] = [type(module).__name__ for module in network]

        for name in METHODS:
            pretrain(trainer(name, SHORT), out / name, {"method": name}, progress=False)
        for stop in (5, None):  # killed after the checkpoint at step 4, then on to the end
            run = trainer("gps_selm", SHORT)
            pretrain(run, out / "resumed", {"method": "gps_selm"}, progress=False, stop_after=stop)
        for name in IN_PAPER:
            run = trainer(name, SHORT)
            losses = [float(distributed.mean(run.train_step()["loss"])) for _ in range(2)]
            state = run.method.state_dict().items()
            weights_ = torch.cat([value.double().flatten() for key, value in state if "running_" not in key])
            found[f"same {name}"] = [losses, distributed.gather(weights_.sum()[None]).tolist()]
        (out / f"found-{rank}.json").write_text(json.dumps(found))


def be_rank(rank: int, port: int, out: Path) -> None:
    """The life of one of the two processes, as torchrun would have started it."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "SELM_DEVICE": "cpu",
    }  # fmt: skip
    rank_program(out)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that two processes filled."""
    out = tmp_path_factory.mktemp("two")
    port = free_port()
    context = multiprocessing.get_context("forkserver")
    once = [__name__, "torchvision", "torch.distributed.nn", "sklearn.cluster"]  # imported for both
    context.set_forkserver_preload(once)
    processes = [context.Process(target=be_rank, args=(rank, port, out)) for rank in range(2)]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=400)
    finally:
        for process in processes:
            process.kill()
    assert [process.exitcode for process in processes] == [0, 0]  # what failed stands on standard error
    return out


@pytest.fixture(scope="module", params=METHODS)
def both(request: pytest.FixtureRequest, two: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same run by one process and by two."""
    name = request.param
    one = tmp_path_factory.mktemp("one") / name
    return pretrain(trainer(name, SHORT), one, {"method": name}, progress=False), two / name


def test_two_processes_share_rows_in_the_order_of_their_ranks(two: Path) -> None:
    found = [json.loads((two / f"found-{rank}.json").read_text()) for rank in range(2)]
    assert [f["size"] for f in found] == [2, 2]
    assert [f["main"] for f in found] == [True, False]
    assert [f["rows"] for f in found] == [[0, 4], [4, 8]]
    for f in found:
        assert f["gather"] == [[float(i), 10.0 * i] for i in range(8)]
        assert f["gather_bool"] == [True, False, True, True, False, False, False, True]
        assert f["batch_mean"] == [[3.5, 35.0]]
        assert "a batch of 7 cannot be split evenly among 2 processes" in f["odd"]
        assert f["kinds"] == ["Conv2d", "GlobalBatchNorm", "ReLU", "Flatten", "GlobalBatchNorm"]
    # three known prices with one process, one with the other: the mean of the two is that over all four
    assert sum(f["masked"] for f in found) / 2 == pytest.approx((1 + 3 + 4 + 8) / 4)
    assert [f["none"] for f in found] == [0.0, 0.0]


@pytest.mark.parametrize("name", IN_PAPER)
def test_every_row_trains_in_two_processes_and_both_hold_the_same(two: Path, name: str) -> None:
    """Weights, queues and centres; the running statistics of norms that a method splits are each process's own."""
    found = [json.loads((two / f"found-{rank}.json").read_text())[f"same {name}"] for rank in range(2)]
    assert found[0] == found[1]
    losses, sums = found[0]
    assert all(math.isfinite(value) for value in losses)
    assert sums[0] == sums[1]


def test_norms_take_their_statistics_from_the_whole_batch(two: Path) -> None:
    network, images, weights = norm_example()
    images.requires_grad_()
    output = network(images)
    (output * weights).sum().backward()
    parts = [checkpoints.load_tensors(two / f"norms-{rank}.safetensors")[0] for rank in range(2)]
    torch.testing.assert_close(torch.cat([part["output"] for part in parts]), output.detach(), rtol=1e-4, atol=1e-5)
    gradient = torch.cat([part["input_grad"] for part in parts])
    torch.testing.assert_close(gradient, images.grad, rtol=1e-3, atol=1e-5)
    for part in parts:
        for name, value in network.state_dict().items():
            torch.testing.assert_close(part[name], value, rtol=1e-4, atol=1e-6, msg=name)
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(part[f"grad.{name}"], parameter.grad, rtol=1e-3, atol=1e-4, msg=name)


def test_two_processes_give_the_loss_curve_of_one(both: tuple[Path, Path]) -> None:
    one, two = (curve(folder) for folder in both)
    assert len(one) == len(two) == 8
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for name, value in a.items():
            assert b[name] == pytest.approx(value, rel=2e-3, abs=1e-5), (a["step"], name)
    # rounding alone in the first step: the same places, the same views, the same statistics
    for name, value in one[0].items():
        assert two[0][name] == pytest.approx(value, rel=2e-5, abs=1e-6), name


def test_two_processes_end_with_the_weights_of_one(both: tuple[Path, Path]) -> None:
    one, two = (checkpoints.load_tensors(folder / "method.safetensors")[0] for folder in both)
    assert one.keys() == two.keys()
    started = trainer(both[0].name, SHORT).method.state_dict()
    for name, value in one.items():
        if value.is_floating_point():
            moved = (value - started[name]).norm()
            assert (two[name] - value).norm() <= 0.02 * moved + 1e-4, name
        else:
            assert torch.equal(two[name], value), name


def test_a_shared_run_that_was_stopped_ends_as_if_it_had_not_been(two: Path) -> None:
    whole, parts = (checkpoints.load_tensors(two / name / "method.safetensors")[0] for name in ("gps_selm", "resumed"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert curve(two / "gps_selm") == curve(two / "resumed")
    assert not (two / "resumed" / "state").exists()
    about = files.read_json(two / "resumed" / "run.json")
    assert about["complete"] and about["processes"] == 2


def test_alone_everything_stays_as_it_is() -> None:
    values = torch.randn(3, 4)
    for function in (distributed.mean, distributed.gather, distributed.batch_mean):
        assert function(values) is values
    assert distributed.masked_share(values > 0) == 1.0
    assert distributed.part(7) == slice(0, 7)
    network = norm_example()[0]
    assert [type(m) for m in distributed.synchronise_norms(network, torch.device("cpu"))] == [type(m) for m in network]
    assert not distributed.launched()


def test_the_device_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELM_DEVICE", "gpu")
    with pytest.raises(InputError, match="device 'gpu' cannot be used here"):
        distributed.device()
    assert distributed.device("cpu").type == "cpu"
    monkeypatch.setenv("SELM_DEVICE", "onnx")  # ONNX Runtime is for embeddings; all else is computed on the processor
    assert distributed.device().type == "cpu"

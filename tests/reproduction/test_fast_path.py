"""The fast path against the plain one: a compiled step, checkpoints written beside training."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import torch
from synthetic import SETTINGS, method, sampler
from torch import nn

from selm import checkpoints
from selm.errors import InputError
from selm.pretrain import Trainer

CPU = torch.device("cpu")


def steps(compiled: str | None, n: int = 3) -> tuple[list[float], dict[str, torch.Tensor]]:
    run = Trainer(method("gps_selm"), sampler(), SETTINGS, 0, CPU, compiled=compiled)
    run.step = 5  # past the learning rate of zero
    losses = [run.train_step()["loss"].item() for _ in range(n)]
    return losses, {name: value.clone() for name, value in run.method.state_dict().items()}


def assert_same_training(compiled: str) -> None:
    plain, fast = steps(None), steps(compiled)
    assert plain[1].keys() == fast[1].keys()
    assert fast[0] == pytest.approx(plain[0], rel=1e-4)
    start = method("gps_selm").state_dict()
    for name, value in plain[1].items():
        if value.is_floating_point():
            moved = (value - start[name]).norm()
            assert (fast[1][name] - value).norm() <= 0.02 * moved + 1e-5, name
    assert any(not torch.equal(value, start[name]) for name, value in plain[1].items())


def test_a_captured_step_is_the_plain_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch.compile captures, run by its reference backend: the same losses and weights up to rounding (1e-4)."""
    captured = []
    compile_ = nn.Module.compile

    def compile_with_reference(module: nn.Module, mode: str, **options: object) -> None:
        captured.append(type(module).__name__)
        compile_(module, backend="aot_eager", **options)

    monkeypatch.setattr(nn.Module, "compile", compile_with_reference)
    torch._dynamo.reset()
    try:
        assert_same_training("default")
    finally:
        torch._dynamo.reset()
    assert {"MapEncoder", "ProjectionHead", "ReconstructionHead"} <= set(captured)


@pytest.mark.skipif("SELM_TEST_COMPILE" not in os.environ, reason="minutes, and a C++ compiler: SELM_TEST_COMPILE=1")
def test_a_compiled_step_is_the_plain_step() -> None:
    torch._dynamo.reset()
    assert_same_training("default")


def test_a_checkpoint_holds_what_was_there_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing waits here until the tensors have changed: the file has the old values, and `save` did not wait."""
    go_on = threading.Event()
    save = checkpoints.save_tensors

    def slow(*arguments: object) -> None:
        assert go_on.wait(30)
        save(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoints, "save_tensors", slow)
    weights = torch.arange(6.0).reshape(2, 3).t()  # not contiguous
    with checkpoints.Writer() as writer:
        writer.save(tmp_path / "a", {"w": weights}, {"step": "1"})
        assert not (tmp_path / "a").exists()
        weights += 100
        go_on.set()
        writer.save(tmp_path / "b", {"w": weights}, {"step": "2"})
    for name, step, expected in (("a", "1", torch.arange(6.0)), ("b", "2", torch.arange(6.0) + 100)):
        tensors, meta = checkpoints.load_tensors(tmp_path / name)
        assert meta["step"] == step
        assert torch.equal(tensors["w"], expected.reshape(2, 3).t())


def test_a_checkpoint_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write"), checkpoints.Writer() as writer:
        writer.save(tmp_path / "file" / "state", {"w": torch.zeros(1)})
    with pytest.raises(InputError, match="cannot write"), checkpoints.Writer() as writer:
        writer.save(tmp_path / "file" / "state", {"w": torch.zeros(1)})
        writer.save(tmp_path / "other", {"w": torch.zeros(1)})  # the first one's error


def test_an_error_in_training_waits_for_the_checkpoint_and_is_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="training"), checkpoints.Writer() as writer:
        writer.save(tmp_path / "state", {"w": torch.ones(3)})
        raise RuntimeError("training")
    assert torch.equal(checkpoints.load_tensors(tmp_path / "state")[0]["w"], torch.ones(3))

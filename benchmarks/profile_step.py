"""Where the time of a pretraining step goes, and what each part of the fast path gains.

    python -m benchmarks.profile_step [--profile demo] [--method gps_selm] [--rounds 5]

Writes profile_step.csv (time of the parts of a step, and of its most expensive operators) and ablation.csv (each
change undone by itself, as the ratio of the step's time without it to that with it; interleaved rounds).
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks import measure
from benchmarks.steps import Run, open_run, scaled
from selm import pretrain, views
from selm.methods.gps_selm import GPSSELM

# the parts of a step, in order: where the function lives, its name, and what the part is called
PARTS: tuple[tuple[Any, str, str], ...] = (
    (views.ViewSampler, "batch", "cutting views"),
    (GPSSELM, "_distill", "head and distillation"),
    (GPSSELM, "_predict", "price, density, coordinates"),
    (GPSSELM, "_reconstruct", "reconstruction"),
    (GPSSELM, "_cluster", "clustering"),
    (torch.Tensor, "backward", "backward"),
    (pretrain, "clip_each", "clipping"),
    (GPSSELM, "after_step", "teacher update"),
)


@contextlib.contextmanager
def named_parts(run: Run) -> Iterator[None]:
    """Give the parts of a step names that the profiler shows."""

    def wrap(function: Callable[..., Any], title: str) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with record_function(f"part: {title}"):
                return function(*args, **kwargs)

        return wrapped

    with contextlib.ExitStack() as stack:
        for owner, name, title in PARTS:
            stack.enter_context(mock.patch.object(owner, name, wrap(getattr(owner, name), title)))
        method = run.trainer.method
        for name, title in (("encoder", "student, forward"), ("teacher_encoder", "teacher, forward")):
            module = getattr(method, name, None)
            if module is not None:
                stack.enter_context(mock.patch.object(module, "forward", wrap(module.forward, title)))
        optimizer = run.trainer.optimizer
        stack.enter_context(mock.patch.object(optimizer, "step", wrap(optimizer.step, "optimizer")))
        yield


def profiled(run: Run, steps: int) -> list[dict[str, Any]]:
    """Milliseconds a step of each part (with what it calls) and of the 15 most expensive operators (by themselves)."""
    gpu = run.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    run.steps(2)
    # the backward pass in this thread: its kernels belong to the part of that name
    with torch.autograd.set_multithreading_enabled(False), named_parts(run), profile(activities=activities) as seen:
        run.steps(steps)
    # what was called on the processor, with the time of the kernels it started; kernels by themselves would count twice
    events = [event for event in seen.key_averages() if event.device_type == torch.autograd.DeviceType.CPU]
    whole, own = ("device_time_total", "self_device_time_total") if gpu else ("cpu_time_total", "self_cpu_time_total")
    total = sum(getattr(event, own) for event in events) / steps / 1000

    def row(kind: str, name: str, ms: float, calls: float) -> dict[str, Any]:
        return {"kind": kind, "name": name, "ms": ms, "share": ms / total, "calls": calls}

    parts = [event for event in events if event.key.startswith("part: ")]
    rows = [row("part", e.key[6:], getattr(e, whole) / steps / 1000, e.count / steps) for e in parts]
    rows.sort(key=lambda row: -row["ms"])
    rows.append(row("part", "everything else", total - sum(row["ms"] for row in rows), 1))
    operators = [event for event in events if not event.key.startswith("part: ")]
    operators.sort(key=lambda event: -getattr(event, own))
    return rows + [row("operator", e.key, getattr(e, own) / steps / 1000, e.count / steps) for e in operators[:15]]


# ---------------------------------------------------------------------------------------------------- ablation


def _cut_view_by_view(patches: torch.Tensor, offset: torch.Tensor, windows: views.Windows, px: int) -> torch.Tensor:
    parts = zip(windows.centre.split(1, 1), windows.side.split(1, 1), windows.angle.split(1, 1), strict=True)
    return torch.cat([_CUT(patches, offset, views.Windows(*part), px) for part in parts])


_CUT = views.cut


def _lerp_one_by_one(averages: list[torch.Tensor], values: list[torch.Tensor], weight: float) -> None:
    for average, value in zip(averages, values, strict=True):
        average.lerp_(value, weight)


def _clip_with_synchronisation(gradients: list[torch.Tensor], limit: float) -> None:
    for gradient in gradients:
        norm = gradient.norm().item()
        if norm > limit:
            gradient.mul_(limit / (norm + 1e-6))


def ways(open_: Callable[..., Run], steps: int) -> dict[str, Callable[[], float]]:
    """The step as it is, and with one of its parts done in the plain way."""
    fast, plain_adam, contiguous = open_(), open_(), open_()
    kept = plain_adam.trainer.optimizer
    groups = [{**group, "fused": None, "foreach": False} for group in kept.param_groups]
    plain_adam.trainer.optimizer = torch.optim.AdamW(groups, lr=0.0, foreach=False)
    contiguous.trainer.method.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def patched(owner: Any, name: str, value: Any) -> Callable[[], float]:
        def way() -> float:
            with mock.patch.object(owner, name, value):
                return fast.steps(steps)

        return way

    def not_channels_last() -> float:
        def cut(*args: Any) -> torch.Tensor:
            return _CUT(*args).contiguous()

        with mock.patch.object(views, "cut", cut):
            return contiguous.steps(steps)

    out: dict[str, Callable[[], float]] = {
        "as it is": lambda: fast.steps(steps),
        "without channels_last": not_channels_last,
        "AdamW one tensor at a time": lambda: plain_adam.steps(steps),
        "teacher update one tensor at a time": patched(torch, "_foreach_lerp_", _lerp_one_by_one),
        "one grid_sample a view": patched(views, "cut", _cut_view_by_view),
        "clipping with a synchronisation a tensor": patched(pretrain, "clip_each", _clip_with_synchronisation),
    }
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="demo", help="whose encoder, views and places")
    parser.add_argument("--like", metavar="PROFILE", help="encoder, views and heads of this profile instead")
    parser.add_argument("--method", default="gps_selm")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="steps a round")
    parser.add_argument("--compile", action="append", default=[], metavar="MODE", help="also with torch.compile")
    measure.options(parser)
    chosen = parser.parse_args()

    profile_ = scaled(chosen.profile, chosen.like)

    def open_(**more: Any) -> Run:
        return open_run(profile_, chosen.method, batch=chosen.batch, **more)

    base = open_()
    facts = {"profile": chosen.profile, "method": chosen.method, "batch": base.batch}
    measure.report("profile_step", profiled(base, chosen.steps), chosen, **facts)
    tried = ways(open_, chosen.steps)
    with tempfile.TemporaryDirectory() as cache, mock.patch.dict("os.environ", {"TORCHINDUCTOR_CACHE_DIR": cache}):
        for mode in chosen.compile:
            compiled = open_(compiled=mode)
            try:
                compiled.steps(1)
            except Exception as error:  # what cannot be compiled here is reported, and is no failure of the rest
                print(f"torch.compile {mode}: {str(error).splitlines()[0]}", file=sys.stderr)
                continue
            tried[f"torch.compile, {mode}"] = lambda compiled=compiled: compiled.steps(chosen.steps)
        rates = measure.interleaved(tried, chosen.rounds, "as it is")
    rows = [
        {
            "way": way, "images_per_s": rate.wall, "images_per_cpu_s": rate.cpu, "wall_ratio": rate.wall_ratio,
            "cpu_ratio": rate.cpu_ratio, "least": rate.low, "greatest": rate.high,
        }
        for way, rate in rates.items()
    ]  # fmt: skip
    measure.report("ablation", rows, chosen, **facts, rounds=chosen.rounds)


if __name__ == "__main__":
    main()

"""Rounds that take turns, and the tables that benchmarks write."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks import cost, growth, measure
from reproduction.profiles import get_profile
from selm.methods.gps_selm import GPSSELM


def busy(seconds: float) -> float:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return 1.0


def test_rounds_take_turns_and_ratios_are_of_processor_time() -> None:
    order = []

    def way(name: str, seconds: float) -> float:
        order.append(name)
        return busy(seconds)

    rates = measure.interleaved({"a": lambda: way("a", 0.04), "b": lambda: way("b", 0.01)}, 3, "a")
    assert order == ["a", "b"] * 4
    assert rates["a"].cpu_ratio == rates["a"].wall_ratio == 1.0
    assert rates["b"].cpu_ratio == pytest.approx(4, rel=0.4)
    assert rates["a"].cpu == pytest.approx(25, rel=0.3)
    assert rates["b"].low <= rates["b"].cpu_ratio <= rates["b"].high


def test_a_table_says_where_it_comes_from(tmp_path: Path) -> None:
    chosen = argparse.Namespace(out=tmp_path, no_write=False)
    measure.report("some", [{"way": "x", "value": 1.5}], chosen, profile="smoke")
    table = pd.read_csv(tmp_path / "some.csv")
    assert {"profile", "device", "threads", "load", "commit", "date", "command", "torch"} <= set(table)
    measure.report("other", [{"way": "x"}], argparse.Namespace(out=tmp_path, no_write=True))
    assert not (tmp_path / "other.csv").exists()


def test_the_limit_of_matrix_products_is_that_of_this_machine() -> None:
    assert 1e9 < measure.matrix_flops(size=256, rounds=2) < 1e13


def test_arithmetic_is_counted_from_the_networks() -> None:
    """A layer of the demo's encoder by hand, and the whole twice as large for twice the local views."""
    demo = get_profile("demo")
    flops, parameters = cost.arithmetic(demo, "dino")
    more, same = cost.arithmetic(demo, "gps_selm")
    assert 0 < flops < more and 0 < parameters < same
    counted = cost.arithmetic(get_profile("japan"), "dino")[0]
    assert counted == pytest.approx(33.6e9, rel=0.1)  # METHODS: 33.6 GFLOP an image


def test_runs_side_by_side_give_the_rate_of_their_device() -> None:
    runs = pd.DataFrame(
        {"method": ["dino", "tile2vec"], "images": [1_000, 3_000], "seconds": [50.0, 40.0], "device": "NVIDIA H200"}
    )
    rate, words = cost.gpu_rate(runs)
    profile = get_profile(cost.ON_GPU)
    work = 1_000 * cost.arithmetic(profile, "dino")[0] + 3_000 * cost.arithmetic(profile, "tile2vec")[0]
    assert rate == pytest.approx(work / 50.0) and "2 rows side by side on one NVIDIA H200" in words


def test_the_cost_of_a_profile_is_its_images_over_the_rate(tmp_path: Path) -> None:
    demo = get_profile("demo")
    rates = pd.DataFrame([
        {"way": "ours, DINO", "share_of_limit": 0.25, "matrix_gflops": 790_000, "device": "NVIDIA H200",
         "encoder": "resnet50 x1", "px": 128},
    ])  # fmt: skip
    rows = {row["item"]: row for row in cost.estimate(demo, rates, 700.0)}
    flops, _ = cost.arithmetic(demo, "dino")
    hours = demo.pretraining.images * flops / (0.25 * 790e12) / 3600
    assert rows["pretraining dino"]["value"] == pytest.approx(hours)
    assert rows["pretraining dino"]["unit"] == "GPU-hours"
    total = sum(row["value"] for name, row in rows.items() if name.startswith("pretraining "))
    assert rows["energy"]["value"] == pytest.approx(total * 0.7 * cost.PUE)


def test_growth_is_measured_in_a_process_of_its_own() -> None:
    def make(n: int) -> growth.Work:
        return lambda: (busy(n / 1000), bytearray(n << 20) and None)

    points = [growth.point(make, n, 1) for n in (10, 20, 40)]
    # at least as long as the work took: how much longer is the machine's business
    assert all(seconds >= n / 1000 for (seconds, *_), n in zip(points, (10, 20, 40), strict=True))
    assert points[2][1] - points[0][1] == pytest.approx(30, abs=12)
    assert growth.slope([1, 2, 4, 8], [1.0, 2.0, 4.0, 8.0]) == pytest.approx(1.0)
    assert growth.slope([1, 2, 4, 8], [1.0, 4.0, 16.0, 64.0]) == pytest.approx(2.0)


def test_a_step_waits_for_the_device_nowhere() -> None:
    """Nothing in a step reads a value from a tensor: no .item(), no nonzero, no comparison in Python."""
    from synthetic import trainer
    from torch.utils._python_dispatch import TorchDispatchMode

    waits = {"aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.equal", "aten.unique"}

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            name = str(function).rsplit(".", 1)[0]
            assert name not in waits, f"{name} waits for the device"
            return function(*args, **(kwargs or {}))

    run = trainer("gps_selm")
    run.train_step()
    assert isinstance(run.method, GPSSELM)
    with Watch():
        run.train_step()
        with pytest.raises(AssertionError, match="waits for the device"):
            torch.ones(1).item()

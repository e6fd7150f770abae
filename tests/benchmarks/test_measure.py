"""Rounds that take turns, and the tables that benchmarks write."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import cost, growth, measure, scale
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


def test_parts_of_a_table_are_made_by_calls_of_their_own(tmp_path: Path) -> None:
    chosen = argparse.Namespace(out=tmp_path, no_write=False)
    for part, value in (("a", 1), ("b", 2), ("a", 3)):
        measure.keep("some", [{"part": part, "value": value}], chosen, "part", seed=value)
    table = pd.read_csv(tmp_path / "some.csv").set_index("part")
    assert table["value"].to_dict() == table["seed"].to_dict() == {"a": 3, "b": 2}


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


def test_places_alone_touch_blocks_of_their_own_until_all_are_touched() -> None:
    rng = np.random.default_rng(0)
    assert scale.touched(1, 4, 1e9) == pytest.approx(4) and scale.touched(1e9, 4, 100) == pytest.approx(100)
    drawn = [len(np.unique(rng.integers(0, 500, 400))) for _ in range(50)]
    assert scale.touched(400, 1, 500) == pytest.approx(np.mean(drawn), rel=0.02)


def test_the_cost_of_many_places_is_that_of_their_blocks_and_of_each() -> None:
    rates = scale.Rates(draw={17: 2.0, 10: 1.0}, drawn={17: 3e6, 10: 1e6}, alone={17: 1.0, 10: 64.0}, near_s=0.5,
                        alone_s=4.0, tile=1e5, dim=100)  # fmt: skip
    machines = scale.Machines(cores=10, jobs=5, core_hour=2.0, gib_month=3.0)
    dense = scale.cost(256_000, 1_000, True, rates, machines)
    assert dense["drawing_core_hours"] == pytest.approx(3_000 / 3600)
    assert dense["encoding_core_hours"] == pytest.approx(128_000 / 3600)
    assert dense["machine_hours"] == pytest.approx(131_000 / 36_000) == pytest.approx(5 * dense["cluster_hours"])
    assert dense["usd"] == pytest.approx(131_000 / 3600 * 2)
    stored = 1_000 * (1e5 + 4e6) + 256_000 * 400
    assert dense["usd_a_month"] == pytest.approx(3 * stored / 2**30)
    alone = scale.cost(10, 1e9, False, rates, machines)
    assert alone["blocks"] == pytest.approx(640) and alone["encoding_core_hours"] == pytest.approx(40 / 3600)
    assert alone["drawing_core_hours"] == pytest.approx((10 * 2 + 640) / 3600)


def test_land_is_as_large_as_the_web_map_shows_it(tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    from shapely import box

    countries = geopandas.GeoDataFrame(
        {"continent": ["Europe", "Antarctica"]}, geometry=[box(0, 0, 90, 60), box(0, -90, 90, -60)], crs=4326
    )
    countries.to_file(tmp_path / "countries.gpkg")
    north = np.log(np.tan(np.pi / 4 + np.radians(60) / 2)) / (2 * np.pi)  # of the map's height
    assert scale.land_blocks(tmp_path / "countries.gpkg") == pytest.approx(north / 4 * 2**26)
    world = scale.land_blocks(scale.natural_earth())
    assert 0.15 < world / 2**26 < 0.3


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

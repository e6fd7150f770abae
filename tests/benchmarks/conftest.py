"""The benchmarks live beside the package, in the checkout."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reproduction import paths

if str(paths.repository()) not in sys.path:
    sys.path.append(str(paths.repository()))


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Runs of the profile `smoke` in a folder of their own, on the CPU."""
    pytest.importorskip("mapnik")
    with pytest.MonkeyPatch.context() as patch:
        runs = tmp_path_factory.mktemp("runs")
        patch.setenv("SELM_RUNS", str(runs))
        patch.setenv("SELM_DEVICE", "cpu")
        yield runs

"""Defaults for every test and every notebook that pytest runs: the smallest profile, runs in a folder of their own."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack

import pytest

from reproduction import warm_kernels

_scratch: str | None = None
_kernels = ExitStack()


def pytest_configure(config: pytest.Config) -> None:
    global _scratch
    os.environ.setdefault("SELM_PROFILE", "smoke")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors: threads cost more than they give
    os.environ.setdefault("MPLBACKEND", "Agg")
    if "SELM_RUNS" not in os.environ:
        _scratch = tempfile.mkdtemp(prefix="selm-")
        os.environ["SELM_RUNS"] = os.path.join(_scratch, "runs")
        os.environ["SELM_CACHE"] = os.path.join(_scratch, "cache")
    notebooks = config.option.nbval or config.option.nbval_lax
    if notebooks and config.option.nbval_kernel_name is None:  # in each worker too: none has the others' options
        config.option.nbval_kernel_name = _kernels.enter_context(warm_kernels.session())


def pytest_unconfigure(config: pytest.Config) -> None:
    _kernels.close()
    if _scratch is not None:
        shutil.rmtree(_scratch, ignore_errors=True)
        os.environ.pop("SELM_RUNS", None)
        os.environ.pop("SELM_CACHE", None)

"""Defaults for every test and every notebook that pytest runs: the smallest profile, runs in a folder of their own."""

from __future__ import annotations

import os
import shutil
import tempfile

import pytest

_scratch: str | None = None


def pytest_configure(config: pytest.Config) -> None:
    global _scratch
    os.environ.setdefault("SELM_PROFILE", "smoke")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors: threads cost more than they give
    os.environ.setdefault("MPLBACKEND", "Agg")
    if "SELM_RUNS" not in os.environ:
        _scratch = tempfile.mkdtemp(prefix="selm-")
        os.environ["SELM_RUNS"] = os.path.join(_scratch, "runs")
        os.environ["SELM_CACHE"] = os.path.join(_scratch, "cache")


def pytest_unconfigure(config: pytest.Config) -> None:
    if _scratch is not None:
        shutil.rmtree(_scratch, ignore_errors=True)
        os.environ.pop("SELM_RUNS", None)
        os.environ.pop("SELM_CACHE", None)

"""The built book, for the tests that read it: built strictly (a warning is an error), once a session."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reproduction import paths


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("jupyter_book")
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # a folder that all processes of the session see
        shared = shared.parent
    out, done = shared / "strict", shared / "strict.done"
    with (shared / "strict.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            jupyter_book = str(Path(sys.executable).with_name("jupyter-book"))
            command = [jupyter_book, "build", "--quiet", "--all", "-n", "-W", "--keep-going", "book"]
            made = subprocess.run(
                [*command, "--path-output", str(out)], cwd=paths.repository(), capture_output=True, text=True,
                check=False,
            )  # fmt: skip
            assert made.returncode == 0, made.stdout + made.stderr
            done.touch()
    return out / "_build" / "html"

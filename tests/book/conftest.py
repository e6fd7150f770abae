"""The built book, for the tests that read it.

`make test` builds it strictly before the tests and names the result in `SELM_BOOK`; alone, a test builds it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reproduction import paths

ROOT = paths.repository()


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if "SELM_BOOK" in os.environ:
        return ROOT / os.environ["SELM_BOOK"]
    pytest.importorskip("jupyter_book")
    out = tmp_path_factory.mktemp("built")
    jupyter_book = str(Path(sys.executable).with_name("jupyter-book"))
    command = [jupyter_book, "build", "--quiet", "--all", "-n", "-W", "--keep-going", "book"]
    done = subprocess.run([*command, "--path-output", str(out)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out / "_build" / "html"

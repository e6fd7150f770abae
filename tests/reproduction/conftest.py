"""What tests of the reproduction share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of runs of its own, with the maps of the profile `smoke`."""
    pytest.importorskip("mapnik")
    pytest.importorskip("pyrosm")
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELM_RUNS", str(folder))
        yield folder

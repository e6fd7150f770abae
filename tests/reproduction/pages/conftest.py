"""What tests of pages share."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure

from reproduction.pages import published


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture
def saved_figure() -> Callable[[Figure], bytes]:
    """The bytes of a figure as a small PNG."""

    def save(figure: Figure) -> bytes:
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=50, metadata={"Software": None})
        return out.getvalue()

    return save


@pytest.fixture
def results_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of the committed results."""
    monkeypatch.setattr(published, "results_folder", lambda: tmp_path)
    return tmp_path

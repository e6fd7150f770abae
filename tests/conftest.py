"""What all tests share: no waiting for the disk; real data found or skipped by name, and a count of both at the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reproduction import paths


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """What a process has written survives its being killed; only a power cut asks for more, and no test cuts it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture
def real() -> Callable[[str], Path]:
    """``real("mlit/L01-2013.zip")`` is that file below `SELM_DATA`, or the test is skipped and names it."""

    def find(relative_path: str) -> Path:
        path = paths.sources() / relative_path
        if not path.exists():
            pytest.skip(f"real data not here: {relative_path} (set SELM_DATA to the folder that holds it)")
        return path

    return find


def _uses_real_data(item: pytest.Item) -> bool:
    return "real" in getattr(item, "fixturenames", ()) or item.get_closest_marker("realdata") is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _uses_real_data(item):
            item.add_marker(pytest.mark.realdata)
            item.user_properties.append(("realdata", True))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    outcomes: dict[str, str] = {}
    for outcome in ("passed", "skipped", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            if ("realdata", True) in getattr(report, "user_properties", ()):
                outcomes[report.nodeid] = outcome
    skipped = sum(outcome == "skipped" for outcome in outcomes.values())
    terminalreporter.write_line(
        f"real-data tests: {len(outcomes) - skipped} run, {skipped} skipped (SELM_DATA: {paths.sources().name})"
    )

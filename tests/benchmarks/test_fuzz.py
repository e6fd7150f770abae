"""A short run over damaged files of the quick kinds, and that the harness sees what it is to see."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from benchmarks import fuzz
from selm.errors import InputError

pytest.importorskip("onnxruntime")
pytest.importorskip("mapnik")
pytest.importorskip("pyrosm")
QUICK = ("tile.pbf", "a.csv", "a.parquet", "run", "photos.zip", "folds.csv")


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    fuzz.prepared()


@pytest.mark.parametrize("name", QUICK)
def test_damaged_files_end_in_an_answer_or_in_one_line(name: str, tmp_path: Path) -> None:
    done, failures, _ = fuzz.run(name, 25, 1, tmp_path, time.monotonic() + 60)
    assert done == 25 and not failures, failures


def _lines(path: Path) -> None:
    raise InputError("one")


def _fault(path: Path) -> None:
    raise KeyError("x")


def _rubbish(path: Path) -> None:
    path.with_name("half").write_text("x")


def _memory(path: Path) -> None:
    bytearray(2 * fuzz.BYTES)


def _death(path: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("read", "says"),
    [(_lines, ""), (_fault, "KeyError"), (_rubbish, "left behind: half"), (_memory, "MemoryError"), (_death, "died")],
)
def test_the_harness_sees(read, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fuzz.KINDS, "x", fuzz.Kind(lambda path: path.write_bytes(b"abc"), read))
    done, failures, _ = fuzz.run("x", 2, 0, tmp_path, time.monotonic() + 60)
    assert done == 2 and len(failures) == (2 if says else 0)
    assert all(says in line for _, line in failures)


def test_the_harness_sees_what_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "SECONDS", 0.3)
    monkeypatch.setitem(fuzz.KINDS, "x", fuzz.Kind(lambda path: path.write_bytes(b"abc"), lambda path: time.sleep(9)))
    done, failures, _ = fuzz.run("x", 1, 0, tmp_path, time.monotonic() + 60)
    assert done == 1 and "longer than" in failures[0][1]

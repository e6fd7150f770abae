"""Temporary files of processes that were killed go when their file is written again; no others do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from selm import files


def test_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    with files.written(tmp_path / "a.txt") as mine:
        mine.write_text("whole")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()

    def of(name: str, pid: int) -> Path:
        return tmp_path / mine.name.replace("a.txt", name).replace(f".{os.getpid()}.", f".{pid}.")

    dead, live, other = of("a.txt", ended.pid), of("a.txt", os.getppid()), of("b.txt", ended.pid)
    for file in (dead, live, other):
        file.write_text("half")
    files.write_text(tmp_path / "a.txt", "again")
    assert not dead.exists() and live.exists() and other.exists()
    assert (tmp_path / "a.txt").read_text() == "again"

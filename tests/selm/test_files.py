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
    elsewhere = tmp_path / f".a.txt.00000000.{ended.pid}.part"  # another machine's, whose processes are not known here
    for file in (dead, live, other, elsewhere):
        file.write_text("half")
    files.write_text(tmp_path / "a.txt", "again")
    assert not dead.exists() and live.exists() and other.exists() and elsewhere.exists()
    assert (tmp_path / "a.txt").read_text() == "again"


def test_a_folder_of_a_faster_process_stays_where_it_is_not_to_be_replaced(tmp_path: Path) -> None:
    for replace, kept in ((False, ["first"]), (True, ["second"])):
        folder = tmp_path / str(replace)
        with files.written_folder(folder, replace=replace) as temporary:
            (temporary / "second").touch()
            folder.mkdir()
            (folder / "first").touch()
        assert [file.name for file in folder.iterdir()] == kept

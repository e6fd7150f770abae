"""The reproduction's command line: its lists, mistakes in one line, interrupts, and several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from reproduction import paths
from reproduction.cli import main
from selm import files


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """(status, output, errors) of ``python -m reproduction …`` in this process."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return (int(ended.value.code or 0), *capsys.readouterr())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("pretrain", "--profile", "japan-cp", "--method", "dino"), "did you mean 'japan-cpu'"),
        (("pretrain", "--profile", "smoke", "--method", "gps_sell"), "did you mean 'gps_selm'"),
        (("table", 1, "--profile", "demmo"), "did you mean 'demo'"),
        (("places", "--profile", "x"), "unknown profile 'x'"),
    ],
)
def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str], words: tuple[object, ...], said: str) -> None:
    status, out, err = run(capsys, *words)
    assert (status, out) == (2, "") and len(err.splitlines()) == 1
    assert err.startswith("selm: ") and said in err


def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    names = {line.split()[0] for line in run(capsys, "profiles")[1].splitlines()}
    assert {"smoke", "demo", "japan-cpu", "japan", "paper"} <= names
    names = {line.split()[0] for line in run(capsys, "methods")[1].splitlines()}
    assert {"random_init", "raw_gps", "dino", "gps_selm"} <= names


def test_wrong_usage_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "table", "7", "--profile", "demo")
    assert status == 2 and err.startswith("selm: Invalid value") and err.count("\n") == 1


def test_interrupted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from reproduction.computed import encoders

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(encoders, "pretrained", interrupt)
    status, _, err = run(capsys, "pretrain", "--profile", "smoke", "--method", "dino")
    assert status == 130 and err.splitlines()[-1] == "selm: interrupted" and "Traceback" not in err


def test_torchrun_starts_the_command_line(tmp_path: Path) -> None:
    """`torchrun … -m reproduction pretrain` draws, trains and saves; a second call finds the run finished."""
    pytest.importorskip("mapnik")
    environment = os.environ | {"SELM_RUNS": str(tmp_path), "SELM_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "reproduction",
    ]
    command += ["pretrain", "--profile", "smoke", "--method", "dino"]
    done = subprocess.run(command, env=environment, cwd=paths.repository(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (folder,) = done.stdout.split()
    about = files.read_json(Path(folder) / "run.json")
    assert about["complete"] and about["processes"] == 2 and about["config"]["method"] == "dino"
    assert len(pd.read_csv(Path(folder) / "metrics.csv")) == about["steps"]

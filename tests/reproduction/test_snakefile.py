"""The grid on a cluster, planned without one: what Slurm would be asked for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reproduction import paths
from reproduction.rows import PRETRAINED
from reproduction.rows import ROWS as METHODS

pytest.importorskip("snakemake")
pytest.importorskip("snakemake_executor_plugin_slurm")


def plan(tmp_path: Path, *words: str) -> str:
    command = [sys.executable, "-m", "snakemake", "-n", "-p", "--executor", "slurm", "-j", "8", *words]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "SELM_RUNS": str(tmp_path / "runs")}
    done = subprocess.run(command, cwd=paths.repository(), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_slurm_is_asked_for_the_gpus_of_a_shared_pretraining(tmp_path: Path) -> None:
    options = ["--default-resources", "slurm_partition=gpu", "slurm_account=some"]
    text = plan(tmp_path, *options, "--config", "profile=smoke", "controls=0", "gpus=4", "minutes=30")
    counts = dict(re.findall(r"^(\w+) +(\d+)$", text, re.M))
    in_paper = [name for name in PRETRAINED if METHODS[name].in_paper]
    assert int(counts["pretrain"]) == len(in_paper) and counts["table"] == "4" and counts["book"] == "1"
    jobs = re.split(r"\n(?=(?:local)?rule \w+:)", text)
    pretraining = [job for job in jobs if job.startswith("rule pretrain:")]
    assert len(pretraining) == len(in_paper)
    for job in pretraining:
        assert "gpu=4" in job and "runtime=30" in job and "slurm_partition=gpu" in job
        assert "torchrun --standalone --nproc-per-node 4 -m reproduction pretrain --profile smoke" in job
    tables = [job for job in jobs if job.startswith(("rule table:", "rule figure:"))]
    assert len(tables) >= 2 and all("gpu=1" in job for job in tables)
    assert any("python -m reproduction table 1 --profile smoke" in job for job in tables)


def test_without_gpus_none_are_asked_for_and_tables_of_places_are_a_job_each(tmp_path: Path) -> None:
    parts = tmp_path / "of mine"
    parts.mkdir()
    for name in ("a.csv", "b.parquet"):
        (parts / name).touch()
    words = ("profile=smoke", "controls=0", "gpus=0", f"coordinates={parts}", "map=my own.pmtiles")
    text = plan(tmp_path, "all", "embedded", "--config", *words)
    for name in ("a.csv", "b.parquet"):
        assert f"selm embed --map 'my own.pmtiles' '{parts}/{name}' -o '{parts}/embedded/{name}.parquet'" in text
    assert dict(re.findall(r"^(\w+) +(\d+)$", text, re.M))["embed"] == "2"
    assert "python -m reproduction pretrain --profile smoke" in text and "torchrun" not in text
    assert not re.search(r"gpu=[1-9]", text)


def test_jobs_are_tried_again() -> None:
    text = (paths.repository() / "Snakefile").read_text()
    rules = re.split(r"\n(?=rule )", text)
    for name in ("places", "pretrain", "table", "figure"):
        (rule,) = [one for one in rules if one.startswith(f"rule {name}:")]
        assert re.search(r"retries: [1-9]", rule), name
        assert "attempt" in text and "runtime=longer(" in rule, name

"""Where results are kept: below `SELM_RUNS`, at the hash of all that they depend on.

An address is a name for people and the hash of settings, data fingerprints and the version of the code that makes the
result, raised when its numbers change. What is there is reused; what is missing is computed; nothing is ever
overwritten by something else."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd

from reproduction import paths
from selm import files

# Raise a stage's version when its numbers change for the same settings and data.
VERSIONS = {"locations": 2, "pretraining": 2, "features": 2}


def address(kind: str, label: str, parts: dict[str, Any]) -> Path:
    """`SELM_RUNS`/kind/label-hash, where the hash covers `parts` (JSON-like)."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return paths.runs() / kind / f"{label}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def cached_table(kind: str, label: str, parts: dict[str, Any], make: Any) -> pd.DataFrame:
    file = address(kind, label, parts).with_suffix(".parquet")
    if not file.exists():
        table = make()
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
        table.to_parquet(temporary, index=False)
        files.replace_atomically(temporary, file)
    return pd.read_parquet(file)


def table_fingerprint(table: pd.DataFrame) -> str:
    """Hash of a table's values."""
    return hashlib.sha256(pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes()).hexdigest()

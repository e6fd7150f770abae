"""Where results are kept: below `SELM_RUNS`, at the hash of all that they depend on.

An address is a name for people and the hash of settings, data fingerprints and the version of the code that makes the
result. Raise a module's `VERSION` when its numbers change for the same settings and data. What is there is reused, and
what is missing is computed; nothing is ever overwritten by something else.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pandas as pd
import torch
from numpy.typing import NDArray

from reproduction import paths
from selm import checkpoints, files

P = ParamSpec("P")
T = TypeVar("T")


def key(parts: dict[str, Any]) -> str:
    """Hash of `parts` (JSON-like): 12 hex digits."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def address(kind: str, label: str, parts: dict[str, Any], suffix: str = "") -> Path:
    """`SELM_RUNS`/kind/label-key with a file's suffix, where the key is that of `parts`."""
    return paths.runs() / kind / f"{label}-{key(parts)}{suffix}"


def id_of(path: Path) -> str:
    """The key at the end of an address without suffix."""
    return path.name.rsplit("-", 1)[1]


def cached_table(kind: str, label: str, parts: dict[str, Any], make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """A table computed once, as a Parquet file at its address."""
    file = address(kind, label, parts, ".parquet")
    if not file.exists():
        table = make()
        with files.written(file) as temporary:
            table.to_parquet(temporary, index=False)
    return pd.read_parquet(file)


def cached_array(
    kind: str, label: str, parts: dict[str, Any], make: Callable[[], NDArray[Any] | torch.Tensor]
) -> NDArray[Any]:
    """An array computed once, as a safetensors file at its address that holds it by the name `kind`."""
    file = address(kind, label, parts, ".safetensors")
    if not file.exists():
        checkpoints.save_tensors(file, {kind: torch.as_tensor(make())})
    return checkpoints.load_tensors(file)[0][kind].numpy()


def table_fingerprint(table: pd.DataFrame) -> str:
    """Hash of a table's values."""
    return hashlib.sha256(pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes()).hexdigest()


def remembered(maxsize: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """As `functools.lru_cache`, but a value is also one of `SELM_RUNS`, `SELM_DATA` and `SELM_DEVICE` as they are set
    at the call: with others it is computed anew."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.lru_cache(maxsize=maxsize)
        def kept(where: tuple[object, ...], *args: P.args, **kwargs: P.kwargs) -> T:
            return function(*args, **kwargs)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            where = (paths.runs(), paths.sources(), os.environ.get("SELM_DEVICE"))
            return kept(where, *args, **kwargs)  # type: ignore[arg-type]

        return call

    return decorate

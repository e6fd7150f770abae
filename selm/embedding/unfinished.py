"""Rows of embeddings on disk until all are there: a call that was killed goes on from them."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selm.errors import DISK_FULL, InputError


class Rows:
    """``values`` float32 (n, dim) and which rows are ``done``, bool (n,): both in one file."""

    def __init__(self, path: Path, n: int, dim: int) -> None:
        flags = -(-n // 4096) * 4096
        size = flags + n * dim * 4
        if not path.exists() or path.stat().st_size != size:
            with path.open("wb") as file:
                if hasattr(os, "posix_fallocate"):  # a disk that is full says so here, not by a signal later
                    os.posix_fallocate(file.fileno(), 0, max(size, 1))
                else:
                    file.truncate(size)
        self.done: NDArray[np.bool_] = np.memmap(path, np.bool_, "r+", shape=(n,))
        self._values = np.memmap(path, np.float32, "r+", offset=flags, shape=(n, dim))

    @property
    def values(self) -> NDArray[np.float32]:
        return self._values

    def keep(self, rows: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Write some rows (k,), (k, dim). They are on disk before they count as done: after a power cut, too."""
        self._values[rows] = values
        self._values.flush()
        self.done[rows] = True


@contextmanager
def kept_rows(out: Path, n: int, dim: int, key: str) -> Iterator[Rows]:
    """Rows beside the file `out`, in a hidden file that goes when the block ends well.

    Where it ends otherwise, the file stays if any row is done, and the next call with the same `key`, which says what
    the rows are, finds them. Raises InputError where the disk is full or the folder cannot be written to.
    """
    path = out.with_name(f".{out.name}.{key[:16]}.rows")
    rows = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        rows = Rows(path, n, dim)
        yield rows
    except OSError as error:
        reason = "the disk is full" if error.errno in DISK_FULL else error.strerror or str(error)
        raise InputError(f"cannot write {out}: {reason}") from error
    finally:
        if rows is None or not rows.done.any():
            with suppress(OSError):
                path.unlink(missing_ok=True)
    for done in out.parent.glob(f".{glob.escape(out.name)}.*.rows"):  # of calls with other options, too
        with suppress(OSError):
            done.unlink(missing_ok=True)

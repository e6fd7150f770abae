"""Where things are: the repository's committed data, users' sources, and runs."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def repository() -> Path:
    """The checkout this package runs from (an editable install), which holds `data/` and `book/`."""
    return Path(__file__).resolve().parent.parent


def sources() -> Path:
    """Downloaded data: the environment variable `SELM_DATA`, by default `data/sources` in the checkout."""
    return Path(os.environ.get("SELM_DATA", repository() / "data" / "sources"))


def runs() -> Path:
    """Everything computed (atlases, locations, runs, probes): `SELM_RUNS`, by default `runs` in the checkout."""
    return Path(os.environ.get("SELM_RUNS", repository() / "runs"))


def encoders() -> Path:
    """Pretrained encoders that come with the code, a folder a profile."""
    return repository() / "data" / "encoders"

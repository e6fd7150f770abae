"""The maps of the profile `smoke`: drawn once a session, and copied to tests that have runs of their own."""

from __future__ import annotations

import shutil
from pathlib import Path

from reproduction.computed import drawn_maps
from reproduction.profiles import get_profile


def copy_to(runs: Path) -> None:
    """Put them where `SELM_RUNS` is going to be."""
    for atlas in drawn_maps.atlases(get_profile("smoke"), progress=False).values():
        shutil.copytree(atlas.path, runs / "atlases" / atlas.path.name)

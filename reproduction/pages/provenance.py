"""Where a page's numbers come from, folded at the end of every notebook."""

from __future__ import annotations

import html
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pandas as pd

from reproduction.pages.html import Html, fold, simple_table
from reproduction.settings import Profile
from selm.provenance import commit

if TYPE_CHECKING:
    from selm.maps.atlas import Atlas

_PACKAGES = ("torch", "torchvision", "mapnik", "numpy", "scikit-learn")


def provenance_table(profile: Profile, *above: Html, **computed_from: Any) -> Html:
    """The facts of `facts`, folded; `above` them what else says where numbers come from."""
    rows = [[str(name), f'<span class="selm-words">{html.escape(str(value))}</span>'] for name, value in
            facts(profile, **computed_from)[""].items()]  # fmt: skip
    return fold("Where these numbers come from", *above, simple_table(["", "this run"], {"": rows}))


def facts(
    profile: Profile,
    *,
    atlases: Mapping[str, Atlas] | None = None,
    runs: Mapping[str, str] | None = None,
    results: pd.DataFrame | None = None,
    page: str | None = None,
) -> pd.DataFrame:
    """One column of facts: profile, code, packages, machine, and what the page computed from.

    `atlases` adds their attribution and fingerprints, `runs` (name → run directory's name) the pretraining runs,
    `results` (a tidy results table) the devices, dates and run ids in it, `page` the command that makes it again.
    """
    known = {
        "profile": f"{profile.name} ({profile.purpose})",
        "labels": "stand-ins computed from the map" if profile.stand_ins else "official (MLIT, e-Stat)",
        "selm": f"{metadata.version('selm')}, commit {commit()}",
        "packages": ", ".join(f"{name} {version}" for name in _PACKAGES if (version := _version(name))),
        "python": f"{platform.python_version()}, {platform.system()} {platform.machine()}",
    }
    for name, atlas in (atlases or {}).items():
        known[f"map {name}"] = f"{atlas.attribution}; {len(atlas.keys)} blocks, sha256 {atlas.fingerprint[:12]}"
    for name, run in (runs or {}).items():
        known[f"run {name}"] = run
    if results is not None and len(results):
        for column in ("device", "date", "data", "run_id"):
            if column in results:
                values = sorted({str(value) for value in results[column].dropna()} - {""})
                shown = ", ".join(values[:6])
                known[column] = shown + (f" and {len(values) - 6} more" if len(values) > 6 else "")
    again = f"make book PROFILE={profile.name}"
    known["again"] = f"{again}, or papermill book/{page}.ipynb OUT -p profile {profile.name}" if page else again
    return pd.DataFrame({"": known})


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

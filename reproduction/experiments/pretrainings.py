"""The pretrainings of a profile: their training curves and what they took."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from reproduction.computed import encoders, place_tables, store
from reproduction.rows import PRETRAINED
from reproduction.settings import Profile
from selm import files


def curves(profile: Profile, which: Iterable[tuple[str, int]] | None = None, *, progress: bool = True) -> pd.DataFrame:
    """Training curves: `metrics.csv` of each pretraining of the profile (or of some, as (method, seed)), with `method`
    and `seed`; what is missing is trained."""
    parts = []
    for method, seed in pretrainings(profile) if which is None else which:
        folder = encoders.pretrained(profile, method, seed, progress=progress)
        parts.append(pd.read_csv(folder / "metrics.csv").assign(method=method, seed=seed))
    return pd.concat(parts, ignore_index=True)


def runs(profile: Profile, which: Iterable[tuple[str, int]] | None = None, *, progress: bool = True) -> pd.DataFrame:
    """One row a pretraining (as in `curves`): what it took and where it comes from."""
    rows = []
    for method, seed in pretrainings(profile) if which is None else which:
        folder = encoders.pretrained(profile, method, seed, progress=progress)
        run = files.read_json(folder / "run.json")
        last = pd.read_csv(folder / "metrics.csv").iloc[-1]
        rows.append(
            {
                "profile": profile.name, "method": method, "seed": seed, "run_id": store.id_of(folder),
                **{key: run[key] for key in ("steps", "images", "seconds", "commit", "device", "torch", "date")},
                "data": place_tables.sampled_key(profile), "loss": last["loss"],
                "feature_spread": last["feature_spread"],
                "collapse": last["collapse"] if isinstance(last["collapse"], str) else "",
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def pretrainings(profile: Profile) -> list[tuple[str, int]]:
    """(method, seed) of every pretraining of the profile."""
    return [(method, seed) for method in PRETRAINED for seed in range(profile.seeds_of(method))]


def complete(profile: Profile, method: str, seed: int) -> bool:
    """Whether a pretraining has been run to its end."""
    return encoders.is_complete(encoders.pretraining_folder(profile, method, seed))

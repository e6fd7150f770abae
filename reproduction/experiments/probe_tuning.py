"""The linear layer of the *frozen* columns: its learning rate and weight decay, chosen in the validation regions.

The same tries for every row that sees one image of a place, at the validation regions' official land prices under
spatial blocks; features are standardised by the training fold in all of them. One pair is chosen for all rows: that of
the least error after the last epoch, averaged over rows. The closed form (ridge) stands beside it, so that a layer that
is trained too little or too much shows.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from reproduction.computed import encoders, place_tables, store
from reproduction.experiments.pretrainings import complete
from reproduction.experiments.tuning import validation_features, validation_task
from reproduction.results import computed_once, origin, read_csv
from reproduction.rows import ONE_IMAGE
from reproduction.settings import Profile
from selm.errors import InputError
from selm.probes.frozen import frozen, ridge

VERSION = 1  # raise it when the numbers change
RATES = (3e-3, 1e-2, 3e-2)
DECAYS = (0.01, 1.0, 10.0)
LAYER, CLOSED = "linear layer", "closed form"


def file_of(profile: Profile, method: str, seed: int = 0) -> Path:
    """Where a row's tries are kept, whether or not they have been made."""
    parts = {
        "run": encoders.encoder_key(profile, method, seed), "points": place_tables.points_key(profile),
        "probing": dataclasses.asdict(profile.probing), "tries": [RATES, DECAYS], "version": VERSION,
    }  # fmt: skip
    return store.address("probe-tuning", f"{profile.name}-{method}-s{seed}", parts, ".csv")


def run(profile: Profile, method: str, seed: int = 0) -> pd.DataFrame:
    """The tries of one row, made where they are not there yet.

    Columns: method, seed, probe (`LAYER` or `CLOSED`), lr, weight_decay (NaN for the closed form), epochs, mse (mean
    over trials), and provenance. Raises InputError for a profile without validation regions.
    """

    def make() -> pd.DataFrame:
        places, folds = validation_task(profile)
        x = validation_features(profile, encoders.encoder(profile, method, seed), places)
        y, probing = places["price"].to_numpy(float), profile.probing
        rows = [{"probe": CLOSED, "epochs": 0, "mse": ridge(x, y, folds).values("mse")[0].mean()}]
        for lr, decay in itertools.product(RATES, DECAYS):
            done = frozen(x, y, folds, task="regression", epochs=probing.epochs, batch=probing.batch, lr=lr,
                          weight_decay=decay)  # fmt: skip
            errors = done.values("mse").mean(axis=1)
            rows += [
                {"probe": LAYER, "lr": lr, "weight_decay": decay, "epochs": epochs, "mse": mse}
                for epochs, mse in zip(probing.epochs, errors, strict=True)
            ]
        about = {"method": method, "seed": seed}
        run_id = encoders.run_id(profile, method, seed)
        by = origin(profile, place_tables.points_key(profile), run_id=run_id)
        return pd.DataFrame([{**about, **row, **by} for row in rows])

    return computed_once(file_of(profile, method, seed), make)


def chosen(rows: pd.DataFrame) -> tuple[float, float]:
    """Learning rate and weight decay of the least error after the last epoch, averaged over rows."""
    last = rows[(rows["probe"] == LAYER) & (rows["epochs"] == rows["epochs"].max())]
    lr, decay = last.groupby(["lr", "weight_decay"])["mse"].mean().idxmin()
    return float(lr), float(decay)


def _trained(profile: Profile, which: Iterable[str] | None = None) -> list[str]:
    names = ONE_IMAGE if which is None else tuple(which)
    return [name for name in names if complete(profile, name, 0)]


def chapter(profile: Profile, which: Iterable[str] | None = None) -> pd.DataFrame:
    """The tries of all rows whose pretraining is complete (or of some), making what is missing.

    Raises InputError where there are no validation regions, or no such row.
    """
    validation_task(profile)  # refuses a profile without validation regions
    names = _trained(profile, which)
    if not names:
        raise InputError(f"profile '{profile.name}': no pretraining is complete whose probe could be tuned")
    return pd.concat([run(profile, name) for name in names], ignore_index=True)


def finished(profile: Profile) -> dict[str, pd.DataFrame]:
    """What is there to publish, by file name; computes nothing."""
    if not profile.regions_for("validation"):
        return {}
    files = [file_of(profile, name) for name in _trained(profile)]
    there = [read_csv(file) for file in files if file.exists()]
    return {"probe-tuning.csv": pd.concat(there, ignore_index=True)} if there else {}

"""Finished results → data/results/PROFILE/*.csv, for the book to show."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from selm import checkpoints, paths
from selm.experiments import grid
from selm.experiments.runs import complete, curves, pretrainings, runs
from selm.profiles import Profile


def publish(profile: Profile) -> list[Path]:
    """Write what is finished to data/results/PROFILE/*.csv, for the book to show; computes no cell and no run."""
    folder = paths.repository() / "data" / "results" / profile.name
    out: dict[str, pd.DataFrame] = {}
    done = [run for run in pretrainings(profile) if complete(profile, *run)]
    if done:
        out["curves"] = curves(profile, done)
        out["runs"] = runs(profile, done)
    for name in grid.TABLES:
        rows = grid.finished(profile, name)
        if len(rows):
            out[name] = rows
            out[f"claims-{name}"] = grid.claims(profile, name)
    written = []
    for name, table in out.items():
        checkpoints.write_text(folder / f"{name}.csv", table.round(6).to_csv(index=False, lineterminator="\n"))
        written.append(folder / f"{name}.csv")
    return written

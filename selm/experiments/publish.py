"""Finished results → data/results/PROFILE/, for the book to show: CSV, and sheets of small map images as PNG.

What is published already and has not been computed here stays (`selm.experiments.merge`).
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from selm import checkpoints, paths
from selm.experiments import chapters, grid, tables
from selm.experiments.figures import FINISHED
from selm.experiments.merge import merged
from selm.experiments.paper_claims import claim_verdicts
from selm.experiments.runs import complete, curves, pretrainings, runs
from selm.output import written
from selm.settings import Profile


def publish(profile: Profile) -> list[Path]:
    """Write what is finished to data/results/PROFILE/, for the book to show; computes no cell and no run.

    Draws the profile's maps where they are missing, for they are part of every result's address.
    """
    folder = paths.repository() / "data" / "results" / profile.name
    out: dict[str, pd.DataFrame | bytes] = {}
    done = [run for run in pretrainings(profile) if complete(profile, *run)]
    if done:
        out["curves.csv"] = curves(profile, done)
        out["runs.csv"] = runs(profile, done)
    for name in grid.TABLES:
        rows = grid.finished(profile, name)
        if len(rows):
            out[f"{name}.csv"] = rows
            out[f"claims-{name}.csv"] = grid.claims(profile, name)
            if name == "table2":
                out["table2-classes.csv"] = grid.class_counts(profile)
    for of_table in tables.FINISHED.values():
        out.update(of_table(profile))
    if any(f"{name}.csv" in out for name in grid.TABLES):
        out["claims.csv"] = claim_verdicts(profile)
    for of_figure in FINISHED.values():
        out.update(of_figure(profile))
    for of_chapter in chapters.FINISHED.values():
        out.update(of_chapter(profile))
    for name, content in out.items():
        if isinstance(content, bytes):
            with written(folder / name) as temporary:
                temporary.write_bytes(content)
        else:
            table = merged(name, content, _published(folder / name))
            checkpoints.write_text(folder / name, table.round(6).to_csv(index=False, lineterminator="\n"))
    return [folder / name for name in out]


def _published(file: Path) -> pd.DataFrame | None:
    return pd.read_csv(file, dtype={"run_id": str, "commit": str, "data": str}) if file.exists() else None

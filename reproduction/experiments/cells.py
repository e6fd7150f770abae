"""A cell of a grid, computed once: its rows of the results table (CSV) and what they come from (safetensors)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor
from tqdm import tqdm

from reproduction.computed import encoders, store
from reproduction.rows import PRETRAINED
from reproduction.settings import Profile
from selm import checkpoints, distributed, files
from selm.provenance import provenance


def cell_base(profile: Profile, label: str, method: str, seed: int, parts: dict[str, Any]) -> Path:
    """Where a cell is kept, without suffix: at an address made of `parts` and of the row's encoder."""
    run: dict[str, Any] = {}
    if method in PRETRAINED:
        run = encoders.pretraining_config(profile, method, seed)
    elif method == "random_init":
        run = {"encoder": dataclasses.asdict(encoders.encoder_config(profile)), "seed": seed}
    return store.address("cells", f"{profile.name}-{label}", {**parts, "label": label, "run": run})


def is_finished(base: Path) -> bool:
    return base.with_suffix(".csv").exists() and base.with_suffix(".safetensors").exists()


def cell_rows(
    profile: Profile, base: Path, method: str, seed: int,
    make: Callable[[], tuple[list[dict[str, Any]], dict[str, Tensor]]], *, data: str, stand_in: bool,
) -> pd.DataFrame:  # fmt: skip
    """The rows of a cell, computed where they are not there yet.

    `make` returns rows without their provenance, and tensors to keep beside them. `data` is a fingerprint.
    """
    if not is_finished(base):
        rows, tensors = make()
        run_id = base.name.rsplit("-", 1)[1]
        if method in PRETRAINED:
            run_id = encoders.pretraining_folder(profile, method, seed).name.rsplit("-", 1)[1]
        common = {
            "method": method, "seed": seed, "profile": profile.name, "run_id": run_id, "stand_in": stand_in,
            "data": data[:12], **provenance(distributed.device()),
        }  # fmt: skip
        checkpoints.save_tensors(base.with_suffix(".safetensors"), tensors)
        table = pd.DataFrame([{**row, **common} for row in rows])
        files.write_text(base.with_suffix(".csv"), table.to_csv(index=False, lineterminator="\n"))
    return pd.read_csv(base.with_suffix(".csv"), dtype={"run_id": str, "commit": str, "data": str})


def table_rows(
    title: str, cells: Sequence[Any], run_cell: Callable[[Any], pd.DataFrame], progress: bool
) -> pd.DataFrame:
    """The rows of all `cells` (each with a `label`), one after the other, with a progress bar."""
    parts = []
    with tqdm(cells, desc=title, unit="cell", disable=not progress) as bar:
        for cell in bar:
            bar.set_postfix_str(cell.label)
            parts.append(run_cell(cell))
    return pd.concat(parts, ignore_index=True)


def encoder_key(profile: Profile, method: str, seed: int) -> dict[str, Any]:
    """What frozen features depend on, besides the images: the random weights, or the pretraining run."""
    if method == "random_init":
        return {"random": dataclasses.asdict(encoders.encoder_config(profile)), "seed": seed}
    return {"run": encoders.pretraining_folder(profile, method, seed).name}

"""Grids of results: an entry is one method, setting, target and way to split, and is computed once.

An entry is kept under `SELM_RUNS`/entries as rows of the results table (CSV) and what they come from (safetensors), at
an address made of all that it depends on. So a table is computed by any mixture of notebooks, the command line and
Snakemake, and whatever is there is reused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from reproduction.computed import encoders, store
from reproduction.results import Kept, origin
from reproduction.rows import PRETRAINED
from reproduction.settings import Profile
from selm.probes.folds import OutOfFold

Rows = list[dict[str, Any]]


class Entry(Protocol):
    """What every entry has. `label` tells it from all others; `seed` is that of the pretraining or random weights."""

    @property
    def method(self) -> str: ...

    @property
    def seed(self) -> int: ...

    @property
    def label(self) -> str: ...


E = TypeVar("E", bound=Entry)


def rows_and_scores(done: OutOfFold, **columns: Any) -> tuple[Rows, dict[str, Tensor]]:
    """What a probe out of fold gives to keep: its rows with some columns, and every point's scores and prediction."""
    scores = {metric: torch.from_numpy(values) for metric, values in done.scores.items()}
    return done.rows(**columns), {**scores, "predictions": torch.from_numpy(done.predictions)}


@dataclass(frozen=True)
class Grid(Generic[E]):
    """How the entries of an experiment are kept and computed.

    parts: what an entry's numbers depend on, besides its label and its encoder.
    compute: (profile, entry, progress=) → its rows without their origin, and tensors to keep beside them.
    data: the fingerprint of its data.  stand_in: whether those are stand-ins.
    trained: the profile that its encoder is pretrained under, where that is another.
    shared: the entry whose numbers an entry has, where several have the same ones.
    named: columns of its rows that are its own, whatever the file says.
    """

    parts: Callable[[Profile, E], dict[str, Any]]
    compute: Callable[..., tuple[Rows, Mapping[str, Tensor]]]
    data: Callable[[Profile, E], str]
    stand_in: Callable[[Profile, E], bool] = lambda profile, entry: profile.stand_ins
    trained: Callable[[Profile, E], Profile] = lambda profile, entry: profile
    named: Callable[[E], dict[str, Any]] = lambda entry: {}
    shared: Callable[[E], E] = lambda entry: entry

    def kept(self, profile: Profile, entry: E) -> Kept:
        """Where an entry is kept, whether or not it has been computed."""
        entry = self.shared(entry)
        run: dict[str, Any] = {}
        if entry.method in PRETRAINED or entry.method == "random_init":
            run = encoders.encoder_key(self.trained(profile, entry), entry.method, entry.seed)
        parts = {**self.parts(profile, entry), "label": entry.label, "encoder": run}
        return Kept(store.address("entries", f"{profile.name}-{entry.label}", parts))

    def rows(self, profile: Profile, entry: E, *, progress: bool = True) -> pd.DataFrame:
        """The rows of an entry, computed where they are not there yet."""
        kept = self.kept(profile, entry)

        def make() -> tuple[pd.DataFrame, Mapping[str, Tensor]]:
            rows, tensors = self.compute(profile, entry, progress=progress)
            run_id = store.id_of(kept.base)
            if entry.method in PRETRAINED:
                run_id = encoders.run_id(self.trained(profile, entry), entry.method, entry.seed)
            common = {
                "method": entry.method, "seed": entry.seed,
                **origin(profile, self.data(profile, entry), stand_in=self.stand_in(profile, entry), run_id=run_id),
            }  # fmt: skip
            return pd.DataFrame([{**row, **common} for row in rows]), tensors

        return kept.once(make).assign(**self.named(entry))

    def table(self, profile: Profile, title: str, entries: Sequence[E], *, progress: bool = True) -> pd.DataFrame:
        """The rows of all `entries`, one after the other, with a progress bar."""
        parts = []
        with tqdm(entries, desc=f"{title} ({profile.name})", unit="entry", disable=not progress) as bar:
            for entry in bar:
                bar.set_postfix_str(entry.label)
                parts.append(self.rows(profile, entry, progress=progress))
        return pd.concat(parts, ignore_index=True)

    def finished(self, profile: Profile, entries: Iterable[E]) -> pd.DataFrame:
        """The rows of those of `entries` that are there already; computes nothing."""
        kept = [(entry, self.kept(profile, entry)) for entry in entries]
        parts = [where.rows().assign(**self.named(entry)) for entry, where in kept if where.is_there()]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

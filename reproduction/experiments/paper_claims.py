"""The paper's claims of the form "A beats B", one by one, with a verdict each.

`data/paper/claims.csv` lists them: every best number of a column of a table, and every order of methods in the text.
All claims on one table or figure are one family, fixed there whatever has been run (`selm.probes.claims.judge`). Rows
are compared under spatial blocks, by each place's score averaged over trials and over the pretraining runs at hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reproduction import paths
from reproduction.computed import place_tables
from reproduction.computed.store import remembered
from reproduction.experiments import (
    figure5_recall,
    map_land_cover,
    representations,
    table1_table2,
    table3_land_cover,
)
from reproduction.experiments.retrieval import found_within
from reproduction.report import HIGHER_IS_BETTER, records
from reproduction.results import origin
from reproduction.rows import PRETRAINED
from reproduction.settings import Area, Profile, Query
from selm.errors import InputError
from selm.probes.claims import N_BOOT, Draws, draw, judge

COLUMNS = ("id", "where", "section", "a", "b", "metric", "target", "epochs", "setting", "text")
PAPER_EPOCHS = (1, 25, 50)  # of Tables 1 and 2; those of a shorter profile are told by their place in the order
# Claims on data that cannot be had stay open: what a stand-in says is about the stand-in.
WITHOUT_DATA = {"naip": "needs NAIP/CDL", "xview": "needs xView", "water": "needs SustainBench's water labels"}

_Values = tuple[NDArray[np.float64], int]  # (N,) a score at each place, and the number of pretraining runs behind it


def read_claims(file: Path | None = None) -> pd.DataFrame:
    """The list of claims; raises InputError naming the file and the row of a repeated or incomplete one."""
    path = paths.repository() / "data" / "paper" / "claims.csv" if file is None else file
    table = pd.read_csv(path, dtype={"epochs": "Int64"}, keep_default_na=False, na_values={"epochs": [""]})
    absent = [column for column in COLUMNS if column not in table]
    if absent:
        raise InputError(f"{path}: column '{absent[0]}' is missing")
    for row, claim in enumerate(records(table), start=1):
        if claim.id in set(table["id"].iloc[: row - 1]):
            raise InputError(f"{path}: row {row}, field id: '{claim.id}' is there twice")
        if not claim.text or claim.a == claim.b:
            raise InputError(f"{path}: row {row}: a claim needs a text, and two different rows")
    return table


def claim_verdicts(profile: Profile, *, n_boot: int = N_BOOT) -> pd.DataFrame:
    """A verdict on every claim of `read_claims`, in its order; computes no result that is missing.

    The columns of the list and of `selm.probes.claims.judge`; `seeds_a seeds_b`, the pretraining runs behind each side;
    `reason`, why a claim is not run; and provenance.
    """
    table = read_claims()
    parts = []
    for _, family in table.groupby("where", sort=False):
        tested = [_tested(profile, claim, n_boot) for claim in records(family)]
        verdicts = judge([draws for draws, *_ in tested])
        verdicts["seeds_a"], verdicts["seeds_b"], verdicts["reason"] = zip(*(rest for _, *rest in tested), strict=True)
        parts.append(pd.concat([family.reset_index(drop=True), verdicts], axis=1))
    out = pd.concat(parts, ignore_index=True)
    return out.assign(**origin(profile, place_tables.points_key(profile)))


def _tested(profile: Profile, claim: Any, n_boot: int) -> tuple[Draws | None, int, int, str]:
    """The bootstrap draws of one claim, the pretraining runs behind a and b, and why there are no draws."""
    if claim.target in WITHOUT_DATA:
        return None, 0, 0, WITHOUT_DATA[claim.target]
    if claim.where == "figure5":
        return between_areas(profile, claim, n_boot)
    a, b = (scores_of(profile, claim, method) for method in (claim.a, claim.b))
    seeds = (0 if a is None else a[1], 0 if b is None else b[1])
    if a is None or b is None:
        lacking = [name for name, values in ((claim.a, a), (claim.b, b)) if values is None]
        return None, *seeds, f"no finished row of {' and '.join(lacking)}"
    blocks = blocks_of(profile, claim.where, claim.target)
    better = HIGHER_IS_BETTER[claim.metric]
    return draw(a[0], b[0], blocks, higher_is_better=better, n_boot=n_boot), *seeds, ""


# -- Tables 1, 2 and 3 -------------------------------------------------------------------------------------------------


def scores_of(profile: Profile, claim: Any, method: str) -> _Values | None:
    """A row's score at each place, averaged over those of its pretraining runs that are finished."""
    found = []
    for seed in range(profile.seeds_of(method) if method in PRETRAINED else 1):
        scores = entry_scores(profile, claim.where, claim.target, claim.setting, method, seed)
        epochs = profile.probing.epochs[-1 if pd.isna(claim.epochs) else PAPER_EPOCHS.index(claim.epochs)]
        if (claim.metric, epochs) in scores:
            found.append(scores[claim.metric, epochs])
    return (np.mean(found, axis=0), len(found)) if found else None


def blocks_of(profile: Profile, where: str, target: str) -> NDArray[np.str_]:
    """(N,) the spatial cell of each place of a table."""
    if where == "table3":
        return map_land_cover.places(profile)["cell"].to_numpy(str)
    return _task(profile, where, target).places["cell"].to_numpy(str)


@remembered(maxsize=4)
def _task(profile: Profile, where: str, target: str) -> table1_table2.Task:
    return table1_table2.task(profile, where, target, "blocks")


@remembered(maxsize=1024)
def entry_scores(
    profile: Profile, where: str, target: str, setting: str, method: str, seed: int
) -> dict[tuple[str, int], NDArray[np.float64]]:
    """(metric, epochs) → score at each place (N,), NaN where it was not tested; empty where nothing is finished."""
    rows: slice | NDArray[np.int64] = slice(None)
    if where == "table3":
        if not map_land_cover.is_there(profile):
            return {}
        # the fills of the map show its land cover: only images without them support a claim
        learned = "finetune" if method == "raw_gps" else "frozen"
        kept = table3_land_cover.GRID.kept(
            profile, table3_land_cover.Entry("osm_no_fills", "blocks", method, learned, seed)
        )
        n = -1
        if not kept.is_there():
            return {}
    else:
        kept = table1_table2.GRID.kept(profile, table1_table2.Entry(where, target, "blocks", method, setting, seed))
        if not kept.is_there():
            return {}
        todo = _task(profile, where, target)
        n = len(todo.places)
        if setting == "finetune" and method != "raw_gps":  # fine-tuned on some of the places
            rows = todo.rows_of(profile.probing.max_finetune)
    evaluations = list(dict.fromkeys(kept.rows()["epochs"]))
    out = {}
    for metric, values in kept.tensors().items():
        if metric == "predictions":
            continue
        for epochs, by_trial in zip(evaluations, values.double(), strict=True):
            mean = by_trial.nanmean(dim=0).numpy()
            full = np.full(len(mean) if n < 0 else n, np.nan)
            full[rows] = mean
            out[metric, int(epochs)] = full
    return out


# -- Figure 5 ----------------------------------------------------------------------------------------------------------


def between_areas(profile: Profile, claim: Any, n_boot: int) -> tuple[Draws | None, int, int, str]:
    """Top-1 % recall of the full method in area a less that in area b: other places, so two bootstraps, not a pair."""
    areas = {area.name: area for area in profile.retrieval.areas}
    if not {claim.a, claim.b} <= set(areas):
        return None, 0, 0, f"the profile has no such area ({claim.a}, {claim.b})"
    query = profile.retrieval.queries[0]
    drawn, totals = [], []
    for at, name in enumerate((claim.a, claim.b)):
        hits = _found(profile, areas[name], query)
        if hits is None:
            return None, 0, 0, f"no finished recall in {name}"
        one = draw(hits[0], np.zeros_like(hits[0]), hits[1], higher_is_better=True, n_boot=n_boot, seed=at)
        order = np.random.default_rng(at).permutation(n_boot)  # draws are kept in order: independent only when shuffled
        drawn.append(one.drawn[order])
        totals.append((one.gain, one.n_points, one.n_blocks, hits[2]))
    (gain_a, n_a, blocks_a, seeds_a), (gain_b, n_b, blocks_b, seeds_b) = totals
    draws = Draws(gain_a - gain_b, np.sort(drawn[0] - drawn[1]), n_a + n_b, blocks_a + blocks_b)
    return draws, seeds_a, seeds_b, ""


def _found(profile: Profile, area: Area, query: Query) -> tuple[NDArray[np.float64], NDArray[np.str_], int] | None:
    """Whether each place is among the top 1 % (mean over the full method's runs), its block, and the number of runs."""
    hits = []
    for method, seed in representations.complete_ones(profile) if figure5_recall.is_drawn(profile, area) else ():
        kept = figure5_recall.kept(profile, area, method, seed)
        if method == "gps_selm" and kept.is_there():
            rank = kept.tensors()[query.name].numpy()
            hits.append(rank <= found_within([1.0], len(rank))[0])
    if not hits:
        return None
    return np.mean(hits, axis=0), figure5_recall.gallery(profile, area)["block"].to_numpy(str), len(hits)

"""Views in other colours: what a network gains when map colours are dropped or swapped at random in pretraining.

A network may lean on how completely a place is mapped, or on how it is drawn. With `selm.settings.Recolouring` each
view is drawn in colours of its own. A few short runs are judged in the validation regions by three numbers fixed
beforehand: *price* and *recall* as in `tuning`, and *redrawn*, the share of the places of an area there that are found
in the top 1 % from pictures drawn without fills. The change with the lowest sum of ranks is chosen, of equals the one
with the lower price; it is then trained as long as a row of the tables, and asked for places in the areas of Figure 5,
New York's among them, beside the row without it.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from reproduction.computed import encoders, store
from reproduction.experiments import figure5_recall, tuning
from reproduction.report import records
from reproduction.results import computed_once, read_csv
from reproduction.settings import AS_IT_IS, Area, Change, Profile
from selm.errors import InputError
from selm.settings import Recolouring

VERSION = 1  # raise it when the numbers change
METHODS = ("gps_selm", "moco_v2")
CHANGES = (
    AS_IT_IS,
    Change("a tenth of the colours dropped", recolouring=Recolouring(dropped=0.1)),
    Change("three tenths dropped", recolouring=Recolouring(dropped=0.3)),
    Change("a tenth dropped, two tenths swapped", recolouring=Recolouring(dropped=0.1, swapped=0.2)),
)
REDRAWN = "redrawn"  # the query of Figure 5 that is about this
# A part of a validation region, where places are to be told apart.
AREA = Area("fukuoka", "Fukuoka", "osm-japan/fukuoka.mbtiles", (130.375, 33.575, 130.415, 33.605))


def tried(profile: Profile, method: str, change: Change) -> Profile:
    """The profile of a try: short, with this change on top of the method's recipe."""
    return tuning.tried(profile, method, change.after(profile.recipe_of(method)))


def whole(profile: Profile, method: str, change: Change) -> Profile:
    """The profile in which a method is trained as its row of the tables is, with this change."""
    return profile.with_recipe(method, change.after(profile.recipe_of(method)))


def _file(profile: Profile, method: str, change: Change) -> Path:
    parts = {
        "run": encoders.pretraining_config(tried(profile, method, change), method, 0), "area": AREA.bbox,
        "tuning": tuning.VERSION, "version": VERSION,
    }  # fmt: skip
    return store.address("recolouring", f"{profile.name}-{method}", parts, ".csv")


def run(profile: Profile, method: str, change: Change, *, progress: bool = True) -> pd.DataFrame:
    """One try, trained and judged where it is not there yet: a row as of `tuning.run`, with `redrawn`."""

    def make() -> pd.DataFrame:
        recipe = profile.recipe_of(method)
        with_it = recipe if change is AS_IT_IS else change.after(recipe)  # a try of the tuning keeps its name there
        row = tuning.run(profile, method, with_it, progress=progress).assign(change=change.name)
        curves = figure5_recall.compute(tried(profile, method, change), AREA, [(method, 0)], progress=progress)
        claimed = _claimed(curves)
        return row.assign(redrawn=float(claimed.loc[claimed["query"] == REDRAWN, "recall"].iloc[0]))

    return computed_once(_file(profile, method, change), make)


def _claimed(curves: pd.DataFrame) -> pd.DataFrame:
    return curves[curves["share"] == figure5_recall.CLAIMED_SHARE]


def ranked(rows: pd.DataFrame) -> pd.DataFrame:
    """The tries by `tuning.ranked`, with what is found in redrawn pictures as a third number."""
    return tuning.ranked(rows, ("recall", REDRAWN))


def chosen(rows: pd.DataFrame) -> dict[str, Change]:
    """Method → the change that its tries choose."""
    of_name = {change.name: change for change in CHANGES}
    return {str(row.method): of_name[str(row.change)] for row in records(ranked(rows).query("chosen"))}


def asked(profile: Profile, method: str, change: Change, *, progress: bool = True) -> pd.DataFrame:
    """Recall at the claimed share in the areas of Figure 5 by a whole run: a row an area and query, and `change`."""
    variant = whole(profile, method, change)
    encoders.pretrained(variant, method, progress=progress)
    parts = [
        figure5_recall.compute(variant, area, [(method, 0)], progress=progress) for area in profile.retrieval.areas
    ]
    return _claimed(pd.concat(parts, ignore_index=True)).assign(change=change.name)


def tries(profile: Profile, *, progress: bool = True) -> pd.DataFrame:
    """All tries, computing what is missing."""
    parts = [run(profile, method, change, progress=progress) for method in METHODS for change in CHANGES]
    return pd.concat(parts, ignore_index=True)


def chapter(profile: Profile) -> pd.DataFrame:
    """What the tries and the two whole runs of each method give, computing what is missing: the rows of `asked`."""
    if not profile.regions_for("validation"):
        raise InputError(f"profile '{profile.name}' has no validation region to judge a try on")
    best = chosen(tries(profile))
    return pd.concat([
        asked(profile, method, change)
        for method in METHODS for change in dict.fromkeys((AS_IT_IS, best[method]))
    ], ignore_index=True)  # fmt: skip


def finished(profile: Profile) -> dict[str, pd.DataFrame]:
    """What is there to publish, by file name; computes nothing."""
    if not profile.regions_for("validation"):
        return {}
    files = [_file(profile, method, change) for method in METHODS for change in CHANGES]
    there = [read_csv(file) for file in files if file.exists()]
    out = {"recolouring-tries.csv": pd.concat(there, ignore_index=True)} if there else {}
    rows = []
    areas = [area for area in profile.retrieval.areas if figure5_recall.is_drawn(profile, area)]
    for method in METHODS:
        for change in CHANGES:
            variant = whole(profile, method, change)
            kept = [figure5_recall.kept(variant, area, method, 0) for area in areas]
            rows += [_claimed(one.rows()).assign(change=change.name) for one in kept if one.is_there()]
    return out | ({"recolouring.csv": pd.concat(rows, ignore_index=True)} if rows else {})

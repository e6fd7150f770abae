"""The tables by name: what computes each one's rows, and what there is of Tables 3 and 4 to publish."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pandas as pd

from selm.errors import InputError
from selm.experiments import detection, grid, land_cover
from selm.settings import Profile

TABLES: dict[str, Callable[..., pd.DataFrame]] = {
    "table1": grid.table1,
    "table2": grid.table2,
    "table3": land_cover.table3,
    "table4": detection.table4,
}
# What is there already of the tables that are not of `selm.experiments.grid`, by file name; computes no result.
FINISHED: dict[str, Callable[[Profile], dict[str, pd.DataFrame]]] = {
    "table3": land_cover.finished,
    "table4": detection.finished,
}


def table(
    profile: Profile, name: str, which: Iterable[str] | None = None, *, photographs: str | None = None,
    progress: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """All rows of a table's results, computing the cells that are missing.

    `which` keeps some methods. `photographs` names other imagery than the profile's (`selm.experiments.imagery`), for
    Tables 3 and 4. Raises InputError for an unknown table.
    """
    if name not in TABLES:
        raise InputError(f"unknown table '{name}' (there are: {', '.join(TABLES)})")
    if photographs is None:
        return TABLES[name](profile, which=which, progress=progress)
    if name not in FINISHED:
        raise InputError(f"{name} is not made of photographs; imagery can be chosen for {' and '.join(FINISHED)}")
    return TABLES[name](profile, which=which, photographs=photographs, progress=progress)

"""The figures by number: what computes each one's numbers, and what there is of it to publish."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from selm.errors import InputError
from selm.experiments import interpolation, recall, sample_size, tsne
from selm.settings import Profile

PROVENANCE = ("profile", "run_id", "data", "commit", "device", "torch", "date")  # columns of every table of results
# What a figure shows as a table, computed where it is missing: `selm figure N`.
FIGURES: dict[int, Callable[[Profile], pd.DataFrame]] = {
    2: tsne.figure2,
    3: interpolation.figure3,
    4: sample_size.figure4,
    5: recall.figure5,
}
# What is there of it, as file name → table or the bytes of a picture; computes no result.
FINISHED: dict[int, Callable[[Profile], dict[str, pd.DataFrame | bytes]]] = {
    2: tsne.finished,
    3: interpolation.finished,
    4: sample_size.finished,
    5: recall.finished,
}


def figure(profile: Profile, number: int, *, photographs: str | None = None) -> pd.DataFrame:
    """The numbers of a figure; raises InputError for a figure that is not computed.

    `photographs` names other imagery than the profile's (`selm.experiments.imagery`), for Figure 4.
    """
    if number not in FIGURES:
        raise InputError(f"no figure {number} (there are: {', '.join(map(str, sorted(FIGURES)))})")
    if photographs is None:
        return FIGURES[number](profile)
    if number != 4:
        raise InputError(f"figure {number} is not made of photographs; imagery can be chosen for figure 4")
    return sample_size.figure4(profile, photographs=photographs)

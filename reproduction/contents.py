"""Tables, figures and chapters by name: what computes each one's numbers, and what there is of it to publish."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pandas as pd

from reproduction.beyond.geolocation import experiment as geolocation
from reproduction.beyond.geolocation import hierarchies
from reproduction.beyond.image2gps import experiment as image2gps
from reproduction.beyond.location_encoders import distilled
from reproduction.beyond.location_encoders import experiment as location_encoders
from reproduction.beyond.more_context import experiment as more_context
from reproduction.beyond.multi_view import experiment as multi_view
from reproduction.beyond.semivariogram import experiment as semivariogram
from reproduction.experiments import (
    ablations,
    figure2_tsne,
    figure3_interpolation,
    figure4_sample_size,
    figure5_recall,
    knowledge,
    probe_tuning,
    recolouring,
    table1_table2,
    table3_land_cover,
    table4_detection,
    tuning,
)
from reproduction.settings import Profile
from selm.errors import InputError, unknown

TABLES: dict[str, Callable[..., pd.DataFrame]] = {
    "table1": table1_table2.table1,
    "table2": table1_table2.table2,
    "table3": table3_land_cover.table3,
    "table4": table4_detection.table4,
}
# What a figure shows as a table, computed where it is missing.
FIGURES: dict[int, Callable[[Profile], pd.DataFrame]] = {
    2: figure2_tsne.figure2,
    3: figure3_interpolation.figure3,
    4: figure4_sample_size.figure4,
    5: figure5_recall.figure5,
}
# The chapters beyond the paper: their rows, computed where they are missing.
CHAPTERS: dict[str, Callable[..., pd.DataFrame]] = {
    "ablations": ablations.chapter,
    "tuning": tuning.chapter,
    "probe-tuning": probe_tuning.chapter,
    "recolouring": recolouring.chapter,
    "knowledge": knowledge.chapter,
    "surroundings": more_context.surroundings,
    "location-encoders": location_encoders.chapter,
    "distilled": distilled.chapter,
    "multi-view": multi_view.chapter,
    "image-to-location": geolocation.recall_against_area,
    "hierarchies": hierarchies.accuracy_by_level,
    "semivariogram": semivariogram.accuracies,
    "img2gps": image2gps.chapter,
}
# What is there already, as file name → table or the bytes of a picture; computes no result. Tables 1 and 2, whose
# claims are published beside them, are in `reproduction.publishing`.
FINISHED_TABLES: dict[str, Callable[[Profile], dict[str, pd.DataFrame]]] = {
    "table3": table3_land_cover.finished,
    "table4": table4_detection.finished,
}
FINISHED_FIGURES: dict[int, Callable[[Profile], dict[str, pd.DataFrame | bytes]]] = {
    2: figure2_tsne.finished,
    3: figure3_interpolation.finished,
    4: figure4_sample_size.finished,
    5: figure5_recall.finished,
}
FINISHED_CHAPTERS: dict[str, Callable[[Profile], dict[str, pd.DataFrame]]] = {
    "ablations": ablations.finished,
    "tuning": tuning.finished,
    "probe-tuning": probe_tuning.finished,
    "recolouring": recolouring.finished,
    "knowledge": knowledge.finished,
    "surroundings": more_context.finished,
    "location-encoders": location_encoders.finished,
    "distilled": distilled.finished,
    "multi-view": multi_view.finished,
    "image-to-location": geolocation.finished,
    "hierarchies": hierarchies.finished,
    "semivariogram": semivariogram.finished,
    "img2gps": image2gps.finished,
}


def table(
    profile: Profile, name: str, which: Iterable[str] | None = None, *, photographs: str | None = None,
    progress: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """All rows of a table's results, computing what is missing.

    `which` keeps some methods. `photographs` names other imagery than the profile's, for Tables 3 and 4
    (`reproduction.experiments.image_sets`). Raises InputError for an unknown table.
    """
    if name not in TABLES:
        raise InputError(f"unknown table '{name}' (there are: {', '.join(TABLES)})")
    if photographs is None:
        return TABLES[name](profile, which=which, progress=progress)
    if name not in FINISHED_TABLES:
        raise InputError(
            f"{name} is not made of photographs; imagery can be chosen for {' and '.join(FINISHED_TABLES)}"
        )
    return TABLES[name](profile, which=which, photographs=photographs, progress=progress)


def figure(profile: Profile, number: int, *, photographs: str | None = None) -> pd.DataFrame:
    """The numbers of a figure; raises InputError for a figure that is not computed.

    `photographs` names other imagery than the profile's, for Figure 4 (`reproduction.experiments.image_sets`).
    """
    if number not in FIGURES:
        raise InputError(f"no figure {number} (there are: {', '.join(map(str, sorted(FIGURES)))})")
    if photographs is None:
        return FIGURES[number](profile)
    if number != 4:
        raise InputError(f"figure {number} is not made of photographs; imagery can be chosen for figure 4")
    return figure4_sample_size.figure4(profile, photographs=photographs)


def chapter(
    profile: Profile, name: str, which: Iterable[str] | None = None, *, regions: Iterable[str] | None = None,
    seeds: int | None = None,
) -> pd.DataFrame:  # fmt: skip
    """The rows of a chapter; raises InputError with the nearest name if there is none.

    `which`, `regions` and `seeds` keep some methods, regions and pretraining seeds, in the chapter "knowledge"
    (`reproduction.experiments.knowledge.chapter`).
    """
    if name not in CHAPTERS:
        raise unknown("chapter", name, CHAPTERS)
    options = {"which": which, "regions": regions, "seeds": seeds}
    chosen = {option: value for option, value in options.items() if value is not None}
    if chosen and name != "knowledge":
        raise InputError(f"chapter '{name}' is computed as a whole; {', '.join(chosen)} can be chosen for knowledge")
    return CHAPTERS[name](profile, **chosen)

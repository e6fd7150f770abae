"""The chapters beyond the paper by name: what computes each one's numbers, and what there is of it to publish."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from selm.errors import unknown
from selm.experiments import ablations, image_to_location, images_to_gps, location_encoders, semivariogram, surroundings
from selm.settings import Profile

# A chapter's rows, computed where they are missing: `selm chapter NAME`.
CHAPTERS: dict[str, Callable[[Profile], pd.DataFrame]] = {
    "ablations": ablations.chapter,
    "surroundings": surroundings.surroundings,
    "location-encoders": location_encoders.chapter,
    "image-to-location": image_to_location.recall_against_area,
    "semivariogram": semivariogram.accuracies,
    "img2gps": images_to_gps.chapter,
}
# What is there of it, as file name → table; computes no result.
FINISHED: dict[str, Callable[[Profile], dict[str, pd.DataFrame]]] = {
    "ablations": ablations.finished,
    "surroundings": surroundings.finished,
    "location-encoders": location_encoders.finished,
    "image-to-location": image_to_location.finished,
    "semivariogram": semivariogram.finished,
    "img2gps": images_to_gps.finished,
}


def chapter(profile: Profile, name: str) -> pd.DataFrame:
    """The rows of a chapter; raises InputError with the nearest name if there is none."""
    if name not in CHAPTERS:
        raise unknown("chapter", name, CHAPTERS)
    return CHAPTERS[name](profile)

"""The encoders that come along: what each is called, what it was trained on, how it is best used and what it scores.

They lie in ``data/encoders`` of a checkout, in ``selm/encoders`` of an installation, each with a card (README.md).
Beside them lies ``encoders.json``, which ``python -m reproduction encoders`` writes from published results.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from selm.errors import InputError, unknown
from selm.files import read_json

LIST = "encoders.json"
HERE = Path(__file__).resolve().parent
PLACES = (HERE / "encoders", HERE.parent / "data" / "encoders")


@dataclass(frozen=True)
class Bundled:
    """An encoder that comes along.

    `folder` is relative to the list's. `zooms`, `orientations`, `stages` and `beside` (parts next to the embedding) are
    how it is used where nobody says otherwise: as it scored best in validation regions, or as it was trained where
    only that was scored. `errors` are published ones of this use, `trained_errors` of the features as it was trained,
    both by the kilometres between training and tested places.
    """

    name: str
    folder: str
    title: str
    encoder: str
    bytes: int
    trained_on: str
    zooms: tuple[int, ...]
    orientations: int
    stages: tuple[int, ...]
    beside: tuple[str, ...]
    errors: dict[str, float]
    trained_errors: dict[str, float]


@dataclass(frozen=True)
class Shelf:
    """All of them, the best first. `default` names the one that is used where none is named; `free` holds the errors,
    as `Bundled.errors`, of what needs no encoder; `measure` says what an error is and `limits` where none should be
    used."""

    folder: Path
    default: str
    measure: str
    limits: str
    free: dict[str, dict[str, float]]
    encoders: tuple[Bundled, ...]

    def named(self, name: str) -> Bundled:
        """The encoder of this name; raises InputError, with all names, for one that there is not."""
        for one in self.encoders:
            if one.name == name:
                return one
        raise unknown("encoder", name, [one.name for one in self.encoders])

    def table(self) -> str:
        """What `selm encoders` prints."""
        kms = sorted({"1", "15"}.union(*(one.errors for one in self.encoders)), key=float)
        rows = [["name", *(f"{km} km" for km in kms), "size", "used with"]]
        alike: dict[str, list[str]] = {}
        for one in self.encoders:
            star = " *" if one.name == self.default else ""
            errors = [
                f"{one.errors[km]:.3f}" if km in one.errors
                else f"{one.trained_errors[km]:.3f} †" if km in one.trained_errors else "–"
                for km in kms
            ]  # fmt: skip
            rows.append([one.name + star, *errors, f"{one.bytes / 1e6:.1f} MB", described(one)])
            alike.setdefault(f"{one.encoder}, trained on {one.trained_on}", []).append(one.name)
        for name, free in self.free.items():
            rows.append([name, *(f"{free[km]:.3f}" if km in free else "–" for km in kms), "", ""])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        notes = ["* used where none is named. † its features as it was trained, in another probe.", self.measure]
        what = [f"{', '.join(names)}: {trained}." for trained, names in alike.items()]
        return "\n".join([*lines, "", *notes, "", *what, "", self.limits])


def described(one: Bundled) -> str:
    """How an encoder is used, in words: ``zooms 17-10, 8 orientations, stages 1-4, colours``."""
    zooms = f"zooms {one.zooms[0]}-{one.zooms[-1]}" if len(one.zooms) > 1 else f"zoom {one.zooms[0]}"
    words = [zooms, f"{one.orientations} orientations" if one.orientations > 1 else ""]
    words.append(f"stages {one.stages[0]}-{one.stages[-1]}" if len(one.stages) > 1 else "")
    return ", ".join(word for word in (*words, *one.beside) if word)


@cache
def shelf() -> Shelf:
    """The encoders of this installation; raises InputError where the list is missing or of another version."""
    folder = next((place for place in PLACES if (place / LIST).exists()), None)
    if folder is None:
        raise InputError("no encoders come with this installation of selm (encoders.json is missing)")
    raw = read_json(folder / LIST)
    try:
        encoders = tuple(_one(entry) for entry in raw.pop("encoders"))
        return Shelf(folder=folder, encoders=encoders, **raw)
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{folder / LIST}: not a list of encoders of this version ({error})") from None


def _one(entry: dict[str, Any]) -> Bundled:
    values: dict[str, Any] = {field.name: entry[field.name] for field in fields(Bundled)}
    for name, value in values.items():
        values[name] = tuple(value) if isinstance(value, list) else value
    return Bundled(**values)

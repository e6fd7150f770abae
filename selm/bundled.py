"""The encoders that come along: what each is called, what it was trained on, how it is best used and what it scores.

They lie in ``data/encoders`` of a checkout, in ``selm/encoders`` of an installation, each with a card (README.md).
Beside them lies ``encoders.json``, which ``python -m reproduction encoders`` writes from published results.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from selm.errors import InputError, first_line, unknown
from selm.files import read_json
from selm.settings import EncoderConfig

LIST = "encoders.json"
REDUCTION = "reduction.safetensors"  # beside weights: what makes fewer numbers of an embedding
LOCATIONS = "locations"  # the folder of encoders of coordinates alone (`selm.location_encoder`)
HERE = Path(__file__).resolve().parent
PLACES = (HERE / "encoders", HERE.parent / "data" / "encoders")


@dataclass(frozen=True)
class Bundled:
    """An encoder that comes along.

    `folder` is relative to the list's. `zooms`, `orientations`, `stages` and `beside` (parts next to the embedding) are
    how it is used where nobody says otherwise: as it scored best in validation regions, or as it was trained where
    only that was scored. `reduction` is the file, relative to the list's, of what makes `numbers` numbers of all that
    (`selm.embedding.reduction`), or "". `errors` are published ones of this use, `trained_errors` of the features as it
    was trained, both by the kilometres between training and tested places.
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
    reduction: str
    numbers: int
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
        alone = ", ".join(sorted(path.name for path in (self.folder / LOCATIONS).glob("*")))
        last = ["", f"From coordinates alone, without a map: {alone} (selm.LocationEncoder)."] if alone else []
        return "\n".join([*lines, "", *notes, "", *what, "", self.limits, *last])


def described(one: Bundled) -> str:
    """How an encoder is used, in words: ``zooms 17-10, 8 orientations, stages 1-4, colours, as 128 numbers``."""
    zooms = f"zooms {one.zooms[0]}-{one.zooms[-1]}" if len(one.zooms) > 1 else f"zoom {one.zooms[0]}"
    words = [zooms, f"{one.orientations} orientations" if one.orientations > 1 else ""]
    words.append(f"stages {one.stages[0]}-{one.stages[-1]}" if len(one.stages) > 1 else "")
    reduced = f"as {one.numbers} numbers" if one.reduction else ""
    return ", ".join(word for word in (*words, *one.beside, reduced) if word)


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


def bundled(model: object) -> Bundled | None:
    """The encoder that comes along which a name means: the default for None; None where it means another kind."""
    if model is None:
        return shelf().named(shelf().default)
    if not isinstance(model, str) or Path(model).exists():
        return None
    return next((one for one in shelf().encoders if one.name == model), None)


def published(model: str | Path | None, **options: Any) -> tuple[EncoderConfig, Path]:
    """The configuration and the file of weights of a run folder, of a Hub id (owner/name; `options` are those of
    `hf_hub_download`) or of an encoder that comes along, as it is used (None: the default).

    Raises InputError where there is none.
    """
    if known := bundled(model):
        folder = shelf().folder / known.folder
        first, *others = known.zooms
        config = dataclasses.replace(
            EncoderConfig.read(folder / "config.json"), zoom=first, context_zooms=tuple(others),
            orientations=known.orientations, stages=known.stages,
        )  # fmt: skip
        return config, folder / "model.safetensors"
    name, folder = str(model), Path(str(model))
    if folder.is_dir():
        if not (folder / "config.json").exists():
            reason = "the run is not finished" if (folder / "run.json").exists() else "holds no model (no config.json)"
            raise InputError(f"{folder}: {reason}")
        return EncoderConfig.read(folder / "config.json"), folder / "model.safetensors"
    if folder.exists() or name.startswith(".") or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        wrong = unknown("encoder", name, [one.name for one in shelf().encoders])
        raise InputError(f"{wrong}; not a run folder, a Hub id (owner/name) or the name of one that comes along")
    from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache

    try:
        if not options and try_to_load_from_cache(name, "model.safetensors") is None:
            HfApi().model_info(name, timeout=10)  # asks once: a download tries again for half a minute
        config_path, weights = (Path(hf_hub_download(name, n, **options)) for n in ("config.json", "model.safetensors"))
    except Exception as error:  # the Hub's, or of what its library asks with, which changes with its version
        raise InputError(f"{model}: no such run folder, and the Hub does not give it ({first_line(error)})") from None
    return EncoderConfig.read(config_path), weights

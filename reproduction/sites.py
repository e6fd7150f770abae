"""The profiles of sites: one map cut in two, read from what `reproduction.any_place.making` has written below
`SELM_RUNS`/places."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reproduction import paths
from reproduction.settings import Area, Maps, Profile, Region, Retrieval
from selm.errors import InputError, unknown
from selm.maps.mercator import haversine_m

BUFFER_M, BUFFER_SHARE = Maps().buffer_m, 0.15  # metres, but at most so much of a cell's height


@dataclasses.dataclass(frozen=True)
class Cut:
    """How a site is cut: the side of its cells in degrees, the parallel or meridian between the parts, and which."""

    cell_degrees: float
    along: str  # "parallel" or "meridian"
    at: float  # degrees
    test: str  # the part that is tested on: north or east


def sites_folder() -> Path:
    """Where sites are kept."""
    return paths.runs() / "places"


def load_site(name: str, scales: Mapping[str, Profile]) -> Profile:
    """The profile of a site that `reproduction.any_place.making.make_site` made, by its name; InputError if there is
    none.

    `scales` are the profiles whose settings a site may have.
    """
    return site_profile(name, describe(name), scales)


def describe(name: str) -> dict[str, Any]:
    """What a site is made of: title, source, bounds, scale, stand_ins, attribution, cut, region."""
    file = sites_folder() / f"{name}.json"
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        known = [path.stem for path in sorted(file.parent.glob("place-*.json"))]
        missing = (
            unknown("site", name, known)
            if known
            else InputError(f"no site '{name}': python -m reproduction reproduce makes it")
        )
        raise missing from None
    except ValueError:
        raise InputError(
            f"{file}: not a readable description; delete it and run python -m reproduction reproduce again"
        ) from None


def is_site(profile: Profile) -> bool:
    """Whether a profile is that of a site."""
    return bool(profile.folds)


def site_profile(name: str, description: Mapping[str, Any], scales: Mapping[str, Profile]) -> Profile:
    """The profile of the site that a description is of (`describe`)."""
    base = scales[description["scale"]]
    cut = Cut(**description["cut"])
    west, south, east, north = description["bounds"]
    if cut.along == "parallel":
        boxes = {"south": (west, south, east, cut.at), "north": (west, cut.at, east, north)}
    else:
        boxes = {"west": (west, south, cut.at, north), "east": (cut.at, south, east, north)}
    roles = {part: "test" if part == cut.test else "pretrain" for part in boxes}
    regions = tuple(
        Region(f"{description['region']}-{part}", description["source"], roles[part], box)
        for part, box in boxes.items()
    )
    at = cut.at if cut.along == "parallel" else south
    height = float(haversine_m(at, west, at + cut.cell_degrees, west))
    test = boxes[cut.test]
    labels = "stand-in labels computed from the map" if description["stand_ins"] else "official labels"
    areas = (Area(description["region"], description["title"], description["source"], test, "held out"),)
    return dataclasses.replace(
        base,
        name=name,
        purpose=f"{description['title']} at the scale of {base.name}, {labels}",
        regions=regions,
        stand_ins=bool(description["stand_ins"]),
        maps=dataclasses.replace(
            base.maps, cell_degrees=cut.cell_degrees, buffer_m=float(min(BUFFER_M, BUFFER_SHARE * height))
        ),
        retrieval=Retrieval(gallery=base.retrieval.gallery, areas=areas),
        seeds=(),
        rotations=(),
        folds=str(sites_folder() / f"{name}.csv"),
    )

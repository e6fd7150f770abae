"""Drone photographs of a road junction with boxes of vehicles (github.com/jekhor/aerial-cars-dataset, CC BY-SA).

An archive with pairs ``DJI_0005-0018.jpg`` and ``DJI_0005-0018.txt``: one line an object, ``class x y width height``
(Darknet's format: the box's centre and size as shares of the image). Frames of one film share the name before the last
hyphen: the flight.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reproduction.imagery.images import Archive, Imagery, sha256
from selm.errors import InputError

VEHICLE = ("vehicle",)


def read_aerial_cars(path: str | Path) -> Imagery:
    """The photographs of an archive: uint8 (h, w, 3), `boxes` in pixels, `groups` the flight.

    The four kinds of vehicle are read as one class: three of them have 3 to 50 boxes, too few for an average precision,
    and the data set does not name them. Raises InputError naming the archive, the member and its line at fault.
    """
    archive = Archive(path)
    members = [member for member in archive.members if member.lower().endswith((".jpg", ".jpeg"))]
    if not members:
        raise InputError(f"{archive.path}: no photographs (.jpg) in the archive")
    boxes, sizes = [], []
    for member in members:
        text = member.rsplit(".", 1)[0] + ".txt"
        if text not in archive.members:
            raise InputError(f"{archive.path}: {member} has no boxes ({text} is missing)")
        height, width = archive.image(member).shape[:2]
        boxes.append(_boxes(archive, text, width, height))
        sizes.append((width, height))
    flights = [member.rsplit("/", 1)[-1].rsplit(".", 1)[0].rpartition("-")[0] or member for member in members]
    return Imagery(
        "aerial_cars", tuple(members), lambda row: archive.image(members[row]), ("red", "green", "blue"),
        sha256([archive.path]), VEHICLE, groups=np.array(flights, dtype=np.str_), boxes=tuple(boxes),
        box_labels=tuple(np.zeros(len(b), np.int64) for b in boxes), sizes=tuple(sizes),
    )  # fmt: skip


def _boxes(archive: Archive, member: str, width: int, height: int) -> NDArray[np.float32]:
    rows = []
    for number, line in enumerate(archive.bytes(member).decode("ascii", "replace").splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{archive.path}: {member}, line {number}"
        fields = line.split()
        if len(fields) != 5:
            raise InputError(f"{where}: expected 'class x y width height', got {len(fields)} fields")
        try:
            kind, (x, y, w, h) = int(fields[0]), (float(field) for field in fields[1:])
        except ValueError:
            raise InputError(f"{where}: '{line.strip()}' are not numbers") from None
        if kind < 0 or not (0 <= x <= 1 and 0 <= y <= 1 and 0 < w <= 1 and 0 < h <= 1):
            raise InputError(f"{where}: a box outside the image")
        rows.append(
            (
                max(0.0, x - w / 2) * width, max(0.0, y - h / 2) * height,
                min(1.0, x + w / 2) * width, min(1.0, y + h / 2) * height,
            )
        )  # fmt: skip
    return np.array(rows, np.float32).reshape(-1, 4)

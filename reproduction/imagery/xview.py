"""xView (Lam et al. 2018): satellite scenes at 0.3 m with boxes of 60 classes.

A folder with ``xView_train.geojson`` and ``train_images/<image_id>`` (8-bit RGB GeoTIFF). A feature's properties are
`bounds_imcoords`, ``"xmin,ymin,xmax,ymax"`` in pixels of its scene, `type_id`, and `image_id`, the scene's file. A few
boxes of the published file carry ids that are no classes (75 and 82), name a scene that is not in the folder, or reach
beyond their scene's edge: the first two kinds are left out, the last are cut at the edge.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from reproduction.imagery.images import Imagery, decode, sha256
from selm.errors import InputError

LABELS = "xView_train.geojson"
IMAGES = "train_images"
NOT_CLASSES = (75, 82)
# The data set's own list, xview_class_labels.txt of github.com/DIUx-xView/xView1_baseline.
CLASSES: dict[int, str] = {
    11: "Fixed-wing Aircraft", 12: "Small Aircraft", 13: "Passenger/Cargo Plane", 15: "Helicopter",
    17: "Passenger Vehicle", 18: "Small Car", 19: "Bus", 20: "Pickup Truck", 21: "Utility Truck", 23: "Truck",
    24: "Cargo Truck", 25: "Truck Tractor w/ Box Trailer", 26: "Truck Tractor", 27: "Trailer",
    28: "Truck Tractor w/ Flatbed Trailer", 29: "Truck Tractor w/ Liquid Tank", 32: "Crane Truck",
    33: "Railway Vehicle", 34: "Passenger Car", 35: "Cargo/Container Car", 36: "Flat Car", 37: "Tank car",
    38: "Locomotive", 40: "Maritime Vessel", 41: "Motorboat", 42: "Sailboat", 44: "Tugboat", 45: "Barge",
    47: "Fishing Vessel", 49: "Ferry", 50: "Yacht", 51: "Container Ship", 52: "Oil Tanker",
    53: "Engineering Vehicle", 54: "Tower crane", 55: "Container Crane", 56: "Reach Stacker",
    57: "Straddle Carrier", 59: "Mobile Crane", 60: "Dump Truck", 61: "Haul Truck", 62: "Scraper/Tractor",
    63: "Front loader/Bulldozer", 64: "Excavator", 65: "Cement Mixer", 66: "Ground Grader", 71: "Hut/Tent",
    72: "Shed", 73: "Building", 74: "Aircraft Hangar", 76: "Damaged Building", 77: "Facility",
    79: "Construction Site", 83: "Vehicle Lot", 84: "Helipad", 86: "Storage Tank", 89: "Shipping container lot",
    91: "Shipping Container", 93: "Pylon", 94: "Tower",
}  # fmt: skip
_CODE = {type_id: code for code, type_id in enumerate(CLASSES)}


def read_xview(folder: str | Path) -> Imagery:
    """The scenes of a folder: uint8 (h, w, 3), `boxes` in pixels, `box_labels` 0 to 59, `groups` the scene itself.

    Raises InputError naming the file, and the feature (counted from 0) and field at fault; for a scene's content when
    it is loaded. The fingerprint covers the labels and the scenes' names and sizes.
    """
    folder = Path(folder)
    file = folder / LABELS
    try:
        features = json.loads(file.read_text(encoding="utf-8"))["features"]
    except FileNotFoundError:
        raise InputError(f"{file}: no such file") from None
    except (UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: not a GeoJSON feature collection ({error})") from None
    scenes = {path.name: path for path in sorted((folder / IMAGES).glob("*.tif"))}
    if not scenes:
        raise InputError(f"{folder / IMAGES}: no scenes (.tif) here")
    boxes: dict[str, list[list[float]]] = {name: [] for name in scenes}
    labels: dict[str, list[int]] = {name: [] for name in scenes}
    for number, feature in enumerate(features):
        read = _feature(feature, f"{file}: feature {number}", set(scenes))
        if read is not None:
            scene, code, box = read
            boxes[scene].append(box)
            labels[scene].append(code)
    names = tuple(scenes)
    sizes = {name: _size(scenes[name]) for name in names}
    digest = sha256([file]) + "".join(f" {name} {scenes[name].stat().st_size}" for name in names)
    kept = {name: _inside(boxes[name], labels[name], *sizes[name]) for name in names}
    return Imagery(
        "xview", names, lambda row: decode(scenes[names[row]].read_bytes(), str(scenes[names[row]])),
        ("red", "green", "blue"), hashlib.sha256(digest.encode()).hexdigest(), tuple(CLASSES.values()),
        groups=np.array(names, dtype=np.str_), sizes=tuple(sizes[name] for name in names),
        boxes=tuple(kept[name][0] for name in names), box_labels=tuple(kept[name][1] for name in names),
    )  # fmt: skip


def _feature(feature: Any, where: str, scenes: set[str]) -> tuple[str, int, list[float]] | None:
    """(scene, class, box) of a feature; None for one to leave out."""
    try:
        properties = feature["properties"]
        scene, type_id, text = properties["image_id"], properties["type_id"], properties["bounds_imcoords"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{where}: field {error} is missing") from None
    if type_id in NOT_CLASSES or scene not in scenes:
        return None
    if type_id not in _CODE:
        raise InputError(f"{where}, field 'type_id': {type_id} is none of the 60 classes (11 to 94)")
    try:
        box = [float(part) for part in str(text).split(",")]
    except ValueError:
        box = []
    if len(box) != 4:
        raise InputError(f"{where}, field 'bounds_imcoords': '{text}' is not 'xmin,ymin,xmax,ymax'")
    return scene, _CODE[type_id], box


def _inside(
    boxes: list[list[float]], labels: list[int], width: int, height: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The boxes cut at the scene's edges, without those that have no area there."""
    out = np.array(boxes, np.float32).reshape(-1, 4)
    out[:, 0::2] = out[:, 0::2].clip(0, width)
    out[:, 1::2] = out[:, 1::2].clip(0, height)
    kept = (out[:, 2] > out[:, 0]) & (out[:, 3] > out[:, 1])
    return out[kept], np.array(labels, np.int64)[kept]


def _size(file: Path) -> tuple[int, int]:
    """(width, height) from a scene's header."""
    try:
        with Image.open(file) as image:
            return image.size
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f"{file}: not a readable GeoTIFF ({error})") from None

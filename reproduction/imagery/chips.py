"""Chips: random square pieces of large scenes with the boxes that lie in them (Ayush et al. 2021, after xView)."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reproduction.imagery.images import Imagery
from selm.errors import InputError

MIN_OVERLAP = 0.25  # boxes with less of their area inside the chip are dropped
_SCENES_KEPT = 4  # decoded scenes kept in memory: chips are made scene by scene


def random_chips(scenes: Imagery, *, px: int = 416, count: int = 100, seed: int = 0,
                 min_overlap: float = MIN_OVERLAP) -> Imagery:  # fmt: skip
    """`count` chips of `px` pixels from each scene, at uniform random places; deterministic by `seed` and scene.

    Boxes are cut at the chip's edges; those with under `min_overlap` of their area inside are dropped. Scenes smaller
    than a chip are filled up with black at the right and below. `groups` are the scenes' groups.
    """
    if px < 1 or count < 1 or not 0 <= min_overlap <= 1:
        raise InputError(f"chips: px {px}, count {count} or overlap {min_overlap} makes no chips")
    if not scenes.boxes:
        raise InputError(f"{scenes.name}: has no boxes to cut chips with")
    decoded: OrderedDict[int, NDArray[Any]] = OrderedDict()

    def scene(row: int) -> NDArray[Any]:
        if row not in decoded:
            decoded[row] = scenes.load(row)
            while len(decoded) > _SCENES_KEPT:
                decoded.popitem(last=False)
        return decoded[row]

    where, boxes, labels, names, groups = [], [], [], [], []
    for row, name in enumerate(scenes.names):
        width, height = scenes.size(row)
        rng = np.random.default_rng([seed, *name.encode()])
        corners = np.column_stack([rng.integers(0, max(width - px, 0) + 1, count),
                                   rng.integers(0, max(height - px, 0) + 1, count)])  # fmt: skip
        for number, (x, y) in enumerate(corners.tolist()):
            kept, inside = crop_boxes(scenes.boxes[row], x, y, px, min_overlap)
            where.append((row, x, y))
            boxes.append(kept)
            labels.append(scenes.box_labels[row][inside])
            names.append(f"{name}#{number}")
            groups.append(name if scenes.groups is None else str(scenes.groups[row]))

    def load(number: int) -> NDArray[Any]:
        row, x, y = where[number]
        piece = scene(row)[y : y + px, x : x + px]
        if piece.shape[:2] == (px, px):
            return np.ascontiguousarray(piece)
        out = np.zeros((px, px, piece.shape[2]), piece.dtype)
        out[: piece.shape[0], : piece.shape[1]] = piece
        return out

    made_of = f"{scenes.fingerprint} chips {px} {count} {seed} {min_overlap}"
    return Imagery(
        scenes.name, tuple(names), load, scenes.bands, hashlib.sha256(made_of.encode()).hexdigest(),
        scenes.class_names, groups=np.array(groups, dtype=np.str_), boxes=tuple(boxes), box_labels=tuple(labels),
    )  # fmt: skip


def crop_boxes(
    boxes: NDArray[np.float32], x: float, y: float, px: int, min_overlap: float = MIN_OVERLAP
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Boxes (n, 4) seen from a chip whose corner is (x, y): those kept, cut at its edges (m, 4), and which (n,)."""
    moved = boxes - np.array([x, y, x, y], np.float32)
    cut = moved.clip(0, px)
    area = np.prod(moved[:, 2:] - moved[:, :2], axis=1)
    seen = np.prod(np.clip(cut[:, 2:] - cut[:, :2], 0, None), axis=1)
    inside = (seen > 0) & (seen >= min_overlap * area)
    return cut[inside], inside

"""Land cover as the map shows it: the class that covers most of the image, from an atlas drawn in class colours.

Atlases in the style ``land_cover`` hold class codes as palette indices; the classes are `LAND_COVER_CLASSES`. They
stand for the 13 classes of the paper's OSM land cover (section 4.4), whose origin it does not name.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from selm.errors import InputError
from selm.maps.atlas import Atlas
from selm.maps.style import LAND_COVER_CLASSES

STYLE = "land_cover"
_CHUNK = 4096  # images looked at together


def majority(classes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The most frequent class of each of N images of class codes, uint8 (N, h, w); the lowest code of equals.

    `none` (nothing drawn) and `built_up` count like any other class. Returns int64 (N,).
    """
    n = len(classes)
    counts = np.zeros((n, len(LAND_COVER_CLASSES)), np.int64)
    flat = classes.reshape(n, -1)
    for code in range(len(LAND_COVER_CLASSES)):
        counts[:, code] = (flat == code).sum(1)
    return counts.argmax(1)


def land_cover(
    atlas: Atlas, lat: ArrayLike, lon: ArrayLike, *, zoom: int = 17, size: int | None = None
) -> NDArray[np.int64]:
    """Land-cover class (int64 code into `LAND_COVER_CLASSES`) of the images centred on N coordinates; -1 off the atlas.

    `atlas` is drawn in the style ``land_cover``; `size` pixels, by default one tile at `zoom`.
    """
    if atlas.style != STYLE:
        raise InputError(f"{atlas.path}: drawn in the style '{atlas.style}', land cover needs '{STYLE}'")
    lat, lon = np.atleast_1d(np.asarray(lat, np.float64)), np.atleast_1d(np.asarray(lon, np.float64))
    out = np.full(len(lat), -1, np.int64)
    order = np.flatnonzero(atlas.covers(lat, lon))
    x = np.floor((lon[order] + 180.0) / 360.0 * 2**13)
    order = order[np.lexsort((-lat[order], x))]  # along the blocks, so that each is read about once
    for start in range(0, len(order), _CHUNK):
        rows = order[start : start + _CHUNK]
        out[rows] = majority(atlas.indices(lat[rows], lon[rows], zoom, size or atlas.tile_px))
    return out

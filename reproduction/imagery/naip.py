"""NAIP tiles with CDL land cover, as Tile2Vec publishes them (github.com/ermongroup/tile2vec; SustainBench, SDG 15).

A folder with ``1tile.npy`` … ``Ntile.npy`` and ``y.npy``. A tile is (h, w, bands) uint8 at 0.6 m, 100 × 100 pixels; its
first four bands are red, green, blue and near infrared; a fifth, where there is one, is the CDL mask, which is the
label and is left out. ``y.npy`` holds the CDL code of each tile, as floats, in the order of the tiles' numbers.
Triplets for pretraining are ``0anchor.npy``, ``0neighbor.npy``, ``0distant.npy`` and so on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reproduction.imagery.images import Imagery, sha256
from selm.errors import InputError

BANDS = ("red", "green", "blue", "near infrared")
_PARTS = ("anchor", "neighbor", "distant")


def read_naip(folder: str | Path) -> Imagery:
    """The labelled tiles of a folder: uint8 (h, w, 4); `class_names` are CDL codes as text, no groups.

    The data set's codes have gaps: `labels` number the codes that occur, in rising order. Raises InputError naming the
    file at fault, when read, or (for a tile's content) when that tile is loaded.
    """
    folder = Path(folder)
    codes = _array(folder / "y.npy")
    if codes.ndim != 1 or not np.issubdtype(codes.dtype, np.number):
        raise InputError(f"{folder / 'y.npy'}: expected one CDL code a tile, got {codes.dtype} {codes.shape}")
    if not np.array_equal(codes, np.round(codes)):
        row = int(np.flatnonzero(codes != np.round(codes))[0])
        raise InputError(f"{folder / 'y.npy'}: row {row}: {codes[row]} is not a CDL code")
    files = [folder / f"{number}tile.npy" for number in range(1, len(codes) + 1)]
    for file in files:
        if not file.exists():
            raise InputError(f"{file}: no such tile, but y.npy has {len(codes)} labels")
    found, labels = np.unique(codes.astype(np.int64), return_inverse=True)
    return Imagery(
        "naip", tuple(file.name for file in files), lambda row: _tile(files[row]), BANDS,
        sha256([folder / "y.npy", *files]), tuple(map(str, found.tolist())), labels.astype(np.int64),
    )  # fmt: skip


def read_triplet(folder: str | Path, number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Anchor, neighbour and distant tile of a triplet, each uint8 (h, w, 4); InputError naming the file at fault."""
    anchor, neighbour, distant = (_tile(Path(folder) / f"{number}{part}.npy") for part in _PARTS)
    if not anchor.shape == neighbour.shape == distant.shape:
        raise InputError(f"{Path(folder) / f'{number}distant.npy'}: the tiles of a triplet differ in shape")
    return anchor, neighbour, distant


def count_triplets(folder: str | Path) -> int:
    """Number of triplets in a folder, counted from 0; InputError where the first is missing or one is incomplete."""
    folder = Path(folder)
    n = len(list(folder.glob("*anchor.npy")))
    if n == 0:
        raise InputError(f"{folder}: no triplets here (0anchor.npy, 0neighbor.npy, 0distant.npy)")
    for number in range(n):
        for part in _PARTS:
            if not (folder / f"{number}{part}.npy").exists():
                raise InputError(f"{folder / f'{number}{part}.npy'}: no such file, but there are {n} anchors")
    return n


def _tile(file: Path) -> NDArray[np.uint8]:
    tile = _array(file)
    if tile.ndim != 3 or tile.shape[2] < len(BANDS) or tile.dtype != np.uint8:
        raise InputError(f"{file}: expected uint8 (h, w, 4 bands or more), got {tile.dtype} {tile.shape}")
    return tile[:, :, : len(BANDS)]


def _array(file: Path) -> NDArray[Any]:
    try:
        return np.load(file, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{file}: no such file") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{file}: not a readable .npy file ({error})") from None

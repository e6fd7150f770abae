"""What every reader of this package returns: images that are read when needed, and what is known of each."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from selm.errors import InputError

_CHUNK = 256  # images resized together


@dataclass(frozen=True)
class Imagery:
    """N labelled images.

    names: each image's name in its data set.
    load: row → image, (h, w, bands), uint8, or float32 in the unit of the data set.
    bands: what the channels are; the ones called ``red``, ``green`` and ``blue`` make the RGB image.
    labels: int64 (N,) codes into `class_names`, -1 where there is none; None where images have no class.
    values: float64 (N,), NaN where missing: a number to predict; None where there is none.
    groups: str (N,), the scene, flight or country of each image: what a split must keep together. Empty strings where
        the data set says nothing about it.
    boxes: float32 (n, 4) of each image, pixels ``x0 y0 x1 y1``; with int64 (n,) `box_labels`, codes into `class_names`.
    sizes: (width, height) of each image, where it is known without decoding them.
    fingerprint: SHA-256 (hex) of the files that it was read from.
    """

    name: str
    names: tuple[str, ...]
    load: Callable[[int], NDArray[Any]]
    bands: tuple[str, ...]
    fingerprint: str
    class_names: tuple[str, ...] = ()
    labels: NDArray[np.int64] | None = None
    values: NDArray[np.float64] | None = None
    groups: NDArray[np.str_] | None = None
    boxes: tuple[NDArray[np.float32], ...] = ()
    box_labels: tuple[NDArray[np.int64], ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        for what in ("labels", "values", "groups"):
            column = getattr(self, what)
            if column is not None and len(column) != len(self.names):
                raise InputError(f"{self.name}: {len(column)} {what} for {len(self.names)} images")
        for boxes in (self.boxes, self.box_labels):
            if boxes and len(boxes) != len(self.names):
                raise InputError(f"{self.name}: boxes of {len(boxes)} images, but {len(self.names)} images")

    def __len__(self) -> int:
        return len(self.names)

    def size(self, row: int) -> tuple[int, int]:
        """(width, height) of an image, pixels."""
        if self.sizes:
            return self.sizes[row]
        height, width = self.load(row).shape[:2]
        return width, height

    def rgb(self, row: int) -> NDArray[Any]:
        """Red, green and blue of an image, (h, w, 3) in the dtype and unit of the data set."""
        return np.ascontiguousarray(self.load(row)[:, :, [self.bands.index(c) for c in ("red", "green", "blue")]])

    def some(self, rows: Sequence[int] | NDArray[np.int64]) -> Imagery:
        """The images of these rows; their fingerprint tells which they are."""
        rows = np.asarray(rows, np.int64)
        whole = self

        def pick(column: Any) -> Any:
            return None if column is None else column[rows]

        return Imagery(
            self.name, tuple(self.names[i] for i in rows), lambda i: whole.load(int(rows[i])), self.bands,
            hashlib.sha256(self.fingerprint.encode() + rows.tobytes()).hexdigest(), self.class_names,
            pick(self.labels), pick(self.values), pick(self.groups),
            tuple(self.boxes[i] for i in rows) if self.boxes else (),
            tuple(self.box_labels[i] for i in rows) if self.box_labels else (),
            tuple(self.sizes[i] for i in rows) if self.sizes else (),
        )  # fmt: skip


def resized(imagery: Imagery, px: int) -> Tensor:
    """The RGB images at (N, 3, px, px), bilinear with antialiasing: uint8 for uint8 images, else float32."""
    parts = []
    for start in range(0, len(imagery), _CHUNK):
        part = []
        for row in range(start, min(start + _CHUNK, len(imagery))):
            image = torch.from_numpy(imagery.rgb(row)).permute(2, 0, 1)[None]
            if image.shape[-2:] != (px, px):
                wide = F.interpolate(image.float(), (px, px), mode="bilinear", antialias=True, align_corners=False)
                image = wide.round().clamp(0, 255).to(torch.uint8) if image.dtype == torch.uint8 else wide
            part.append(image)
        parts.append(torch.cat(part))
    return torch.cat(parts) if parts else torch.zeros(0, 3, px, px, dtype=torch.uint8)


def statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over images (N, 3, h, w), in their unit: two float64 (3,)."""
    n, total, square = 0, torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for part in images.split(_CHUNK):
        pixels = part.double().movedim(1, 0).flatten(1)
        n, total, square = n + pixels.shape[1], total + pixels.sum(1), square + pixels.square().sum(1)
    mean = total / max(n, 1)
    return mean, (square / max(n, 1) - mean.square()).clamp_min(1e-12).sqrt()


def to_bytes(images: Tensor) -> NDArray[np.uint8]:
    """(N, 3, h, w) → uint8 (N, h, w, 3); floats are stretched from their 2nd to their 98th percentile, all alike."""
    if images.dtype != torch.uint8:
        low, high = (float(v) for v in np.percentile(images.numpy(), (2, 98)))
        images = ((images - low) / max(high - low, 1e-12) * 255).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(images.movedim(1, 3).numpy())


def sha256(files: Iterable[Path]) -> str:
    """SHA-256 (hex) over the content of files, in the order given."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(2**22):
                digest.update(chunk)
    return digest.hexdigest()


def decode(data: bytes, where: str) -> NDArray[np.uint8]:
    """A JPEG, PNG or TIFF file's bytes → RGB, uint8 (h, w, 3); InputError naming `where` if it is not one."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode not in ("RGB", "RGBA", "P", "L"):
                raise InputError(f"{where}: 8-bit colour is needed, this image's mode is {image.mode}")
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where}: not a readable image ({error})") from None


class Archive:
    """A zip archive of images: members are read when asked for, errors name archive and member."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._zip = zipfile.ZipFile(self.path)
        except FileNotFoundError:
            raise InputError(f"{self.path}: no such file") from None
        except zipfile.BadZipFile:
            raise InputError(f"{self.path}: not a zip archive, or cut short") from None
        self.members = sorted(name for name in self._zip.namelist() if not name.endswith("/"))

    def bytes(self, member: str) -> bytes:
        try:
            return self._zip.read(member)
        except (KeyError, zipfile.BadZipFile, OSError) as error:
            raise InputError(f"{self.path}: member {member} cannot be read ({error})") from None

    def image(self, member: str) -> NDArray[np.uint8]:
        """uint8 (h, w, 3) RGB."""
        return decode(self.bytes(member), f"{self.path}: {member}")


def by_folder(archive: Archive, name: str, suffixes: tuple[str, ...], depth: int) -> Imagery:
    """The images of an archive whose folder, `depth` levels above them counted from 1, is their class."""
    members = [m for m in archive.members if m.lower().endswith(suffixes) and not m.startswith("__MACOSX/")]
    if not members:
        raise InputError(f"{archive.path}: no images ({', '.join(suffixes)}) in the archive")
    classes = []
    for member in members:
        folders = member.split("/")[:-1]
        if len(folders) < depth:
            raise InputError(f"{archive.path}: {member} lies in no folder that names its class")
        classes.append(folders[-depth])
    class_names, labels = np.unique(classes, return_inverse=True)
    return Imagery(
        name, tuple(members), lambda row: archive.image(members[row]), ("red", "green", "blue"),
        sha256([archive.path]), tuple(class_names.tolist()), labels.astype(np.int64),
    )  # fmt: skip

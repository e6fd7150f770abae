"""Photographs with coordinates: the source's CSV format, EXIF, its box filter and its removal of lone points."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import SupportsFloat

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from selm.errors import InputError
from selm.maps.mercator import BBox, check_coordinates

_NAMES = {
    "file": ("file_name", "filename", "file", "image", "image_name", "name"),
    "lat": ("latitude", "lat"),
    "lon": ("longitude", "lon", "lng", "long"),
}
_SUFFIXES = (".jpg", ".jpeg", ".png", ".heic")
_GPS = 0x8825  # EXIF's GPS directory


class Photos:
    """A folder or .zip of images. ``Photos(path).table`` has columns `file lat lon`, one row an image.

    Coordinates come from the one CSV in it (columns for file, latitude and longitude under their usual names, in any
    case and order), else from the images' EXIF; images without either are left out and counted in `without`.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.exists():
            raise InputError(f"{self.path}: no photographs here")
        if self.path.is_dir():
            names = sorted(p.relative_to(self.path).as_posix() for p in self.path.rglob("*") if p.is_file())
            self._read: Callable[[str], bytes] = lambda name: (self.path / name).read_bytes()
        else:
            try:
                archive = zipfile.ZipFile(self.path)
            except zipfile.BadZipFile:
                raise InputError(f"{self.path}: neither a folder nor a .zip of photographs") from None
            names = sorted(name for name in archive.namelist() if not name.endswith("/"))
            self._read = lambda name: self._member(archive, name)
        images = [name for name in names if name.lower().endswith(_SUFFIXES)]
        tables = [name for name in names if name.lower().endswith(".csv")]
        if len(tables) > 1:
            raise InputError(f"{self.path}: {len(tables)} CSV files ({', '.join(tables[:3])} …); one is expected")
        if not images:
            raise InputError(f"{self.path}: no images here ({', '.join(_SUFFIXES)})")
        self.table = self._listed(tables[0], images) if tables else self._from_exif(images)
        self.without = len(images) - self.table["file"].nunique()
        if not len(self.table):
            raise InputError(f"{self.path}: no image has coordinates, neither in a CSV file nor in EXIF")

    def _member(self, archive: zipfile.ZipFile, name: str) -> bytes:
        try:
            return archive.read(name)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:  # RuntimeError: encrypted
            raise InputError(f"{self.path}: {name} is damaged ({error})") from None

    def _listed(self, name: str, images: Sequence[str]) -> pd.DataFrame:
        where = f"{self.path}: {name}"
        try:
            raw = pd.read_csv(io.BytesIO(self._read(name)))
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            raise InputError(f"{where}: not a readable CSV file ({error})") from None
        lower = {str(column).strip().lower(): column for column in raw.columns}
        columns = {}
        for field, names in _NAMES.items():
            found = next((lower[n] for n in names if n in lower), None)
            if found is None:
                raise InputError(f"{where}: no column for {field} (known names: {', '.join(names)})")
            columns[field] = raw[found]
        table = pd.DataFrame(columns)
        table["file"] = table["file"].astype(str)
        for field in ("lat", "lon"):
            values = pd.to_numeric(table[field], errors="coerce")
            if values.isna().any():
                raise InputError(f"{where}: row {int(np.flatnonzero(values.isna())[0])}, field {field} is not a number")
            table[field] = values.astype(np.float64)
        check_coordinates(table["lat"], table["lon"], where)
        # files may be listed with or without the folders they lie in
        by_name = {Path(image).name: image for image in images} | {image: image for image in images}
        known = table["file"].isin(list(by_name))
        if not known.all():
            row = int(np.flatnonzero(~known)[0])
            raise InputError(f"{where}: row {row}, no image called {table['file'].iloc[row]}")
        table["file"] = table["file"].map(by_name)
        return table

    def _from_exif(self, images: Sequence[str]) -> pd.DataFrame:
        rows = []
        for name in images:
            place = exif_coordinates(self._read(name))
            if place is not None:
                rows.append((name, *place))
        return pd.DataFrame(rows, columns=["file", "lat", "lon"])

    def images(self, files: Sequence[str], px: int) -> Tensor:
        """uint8 (N, 3, px, px): the images turned as EXIF says, squeezed to a square (the source trains on squares)."""
        out = np.zeros((len(files), px, px, 3), np.uint8)
        for i, name in enumerate(files):
            out[i] = self._image(name, px)
        return torch.from_numpy(out).permute(0, 3, 1, 2)

    def _image(self, name: str, px: int) -> NDArray[np.uint8]:
        from PIL import Image, ImageOps, UnidentifiedImageError

        try:
            with Image.open(io.BytesIO(self._read(name))) as image:
                upright = ImageOps.exif_transpose(image).convert("RGB")
                return np.asarray(upright.resize((px, px), Image.Resampling.BICUBIC))
        except (UnidentifiedImageError, OSError, KeyError) as error:
            raise InputError(f"{self.path}: {name} is not a readable image ({error})") from None


def exif_coordinates(image: bytes) -> tuple[float, float] | None:
    """(lat, lon) in degrees from an image's EXIF, or None where it has none; a damaged image has none."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(image)) as opened:
            gps = opened.getexif().get_ifd(_GPS)
        lat, lon = (_degrees(gps[tag]) * (-1 if str(gps[tag - 1]).upper() in "SW" else 1) for tag in (2, 4))
    except (UnidentifiedImageError, OSError, KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (lat, lon) if np.isfinite([lat, lon]).all() and abs(lat) <= 90 and abs(lon) <= 180 else None


def _degrees(parts: Sequence[SupportsFloat]) -> float:
    """Degrees, minutes and seconds, rationals as Pillow reads them."""
    degrees, minutes, seconds = (float(part) for part in parts)
    return degrees + minutes / 60 + seconds / 3600


def inside(table: pd.DataFrame, bbox: BBox) -> pd.DataFrame:
    """The rows within (west, south, east, north), the source's box filter (section 2.1.2)."""
    west, south, east, north = bbox
    kept = table["lat"].between(south, north) & table["lon"].between(west, east)
    return table[kept].reset_index(drop=True)


def without_lone_points(table: pd.DataFrame) -> pd.DataFrame:
    """The rows whose exact coordinate occurs more than once: the source takes others for GPS noise (section 2.1.2)."""
    return table[table.duplicated(["lat", "lon"], keep=False)].reset_index(drop=True)


def random_split(n: int, share: float = 0.8, seed: int = 42) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to train on and to validate on, shuffled: 80/20 with seed 42 (sections 2.1.2 and 2.3.1)."""
    rows = np.random.default_rng(seed).permutation(n)
    cut = round(n * share)
    return np.sort(rows[:cut]), np.sort(rows[cut:])

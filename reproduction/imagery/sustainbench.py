"""SustainBench's water quality index (Yeh et al. 2021, SDG 6), from surveys of the DHS programme.

A folder with ``dhs_final_labels.csv`` and one ``.npz`` an image, as its archives unpack: ``AL-2008-5#/AL-2008-5#-…npz``
(folders of any name and depth are searched). The label is `water_index`, each household's water rated 1 to 5 and
averaged over a cluster, so a real number; empty where a survey did not ask. An image is the array ``x`` of its file,
float (8, 255, 255): Landsat surface reflectance and night lights. The official split is by country and is scored by the
squared Pearson correlation r².
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reproduction.imagery.images import Imagery
from selm.errors import InputError

BANDS = (
    "blue", "green", "red", "shortwave infrared 1", "shortwave infrared 2", "thermal", "near infrared", "night lights",
)  # fmt: skip
PX = 255
LABELS = "dhs_final_labels.csv"
TARGET = "water_index"
LEVELS = ("1", "2", "3", "4", "5")
# The benchmark's own split: country codes (docs/datasets/dhs.md of github.com/sustainlab-group/sustainbench).
SPLITS: dict[str, tuple[str, ...]] = {
    "train": (
        "AL", "BD", "CD", "CM", "GH", "GU", "HN", "IA", "ID", "JO", "KE", "KM", "LB", "LS", "MA", "MB", "MD", "MM",
        "MW", "MZ", "NG", "NI", "PE", "PH", "SN", "TG", "TJ", "UG", "ZM", "ZW",
    ),
    "validation": (
        "BF", "BJ", "BO", "CO", "DR", "GA", "GN", "GY", "HT", "NM", "SL", "TD", "TZ",
    ),
    "test": (
        "AM", "AO", "BU", "CI", "EG", "ET", "KH", "KY", "ML", "NP", "PK", "RW", "SZ",
    ),
}  # fmt: skip
_COLUMNS = ("DHSID_EA", TARGET)


def read_sustainbench(folder: str | Path) -> Imagery:
    """The clusters with an image and a water index.

    Images float32 (255, 255, 8), bands `BANDS`. `values` is the water index, 1 to 5; `labels` the same rounded to the
    nearest whole number, for five classes `LEVELS`; `groups` the country's two letters. The fingerprint covers the
    labels' file and the images' names and sizes. Raises InputError naming the file, and the row or field at fault; for
    an image's content when it is loaded.
    """
    folder = Path(folder)
    file = folder / LABELS
    try:
        table = pd.read_csv(file)
    except FileNotFoundError:
        raise InputError(f"{file}: no such file") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not a readable CSV file ({error})") from None
    for column in _COLUMNS:
        if column not in table:
            raise InputError(f"{file}: column '{column}' is missing")
    values = pd.to_numeric(table[TARGET], errors="coerce")
    bad = (values.isna() & table[TARGET].notna()) | (values < 1) | (values > 5)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(f"{file}: row {row + 1}, field '{TARGET}': {table[TARGET].iloc[row]} is not between 1 and 5")
    table = table.assign(value=values)[values.notna()]
    twice = table["DHSID_EA"].duplicated()
    if twice.any():
        raise InputError(f"{file}: cluster {table.loc[twice, 'DHSID_EA'].iloc[0]} has two rows")
    images = {path.stem: path for path in sorted(folder.rglob("*.npz"))}
    table = table[table["DHSID_EA"].isin(list(images))]
    if not len(table):
        raise InputError(f"{folder}: no image (.npz) of any cluster that has a '{TARGET}'")
    names = tuple(map(str, table["DHSID_EA"]))
    files = [images[name] for name in names]
    digest = hashlib.sha256(file.read_bytes())
    for name, path in zip(names, files, strict=True):
        digest.update(f"{name} {path.stat().st_size}\n".encode())
    water = table["value"].to_numpy(np.float64)
    return Imagery(
        "sustainbench", names, lambda row: _image(files[row]), BANDS, digest.hexdigest(), LEVELS,
        np.clip(np.floor(water + 0.5), 1, 5).astype(np.int64) - 1, water,
        np.array([name[:2] for name in names], dtype=np.str_),
    )  # fmt: skip


def official_split(groups: NDArray[np.str_]) -> NDArray[np.str_]:
    """``train``, ``validation`` or ``test`` of each country code; InputError for a code that is in none."""
    of = {country: split for split, countries in SPLITS.items() for country in countries}
    for group in np.unique(groups):
        if str(group) not in of:
            raise InputError(f"country '{group}' is in none of SustainBench's splits")
    return np.array([of[str(group)] for group in groups], dtype=np.str_)


def _image(file: Path) -> NDArray[np.float32]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            image = arrays["x"]
    except KeyError:
        raise InputError(f"{file}: holds no array 'x'") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{file}: not a readable .npz file ({error})") from None
    if image.shape == (len(BANDS), PX, PX):
        image = np.moveaxis(image, 0, 2)
    if image.shape != (PX, PX, len(BANDS)):
        raise InputError(f"{file}: expected an array of (8, 255, 255), got {image.shape}")
    return np.ascontiguousarray(image, np.float32)

"""EuroSAT (Helber et al. 2019): Sentinel-2 chips of 64 × 64 pixels at 10 m, ten classes of land use and cover.

The official RGB archive holds JPEGs in one folder a class, ``AnnualCrop/AnnualCrop_1.jpg``, under a folder of its own
(``2750/`` or ``EuroSAT_RGB/``). It says nothing about where a chip lies, so chips cannot be split by place.
"""

from __future__ import annotations

from pathlib import Path

from reproduction.imagery.images import Archive, Imagery, by_folder


def read_eurosat(path: str | Path) -> Imagery:
    """The RGB chips of an archive: uint8 (64, 64, 3), `labels` and `class_names`, no groups.

    Raises InputError naming the archive and the member at fault.
    """
    return by_folder(Archive(path), "eurosat", (".jpg", ".jpeg", ".png"), depth=1)

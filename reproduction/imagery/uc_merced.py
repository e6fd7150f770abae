"""UC Merced Land Use (Yang and Newsam 2010): aerial RGB images of 256 × 256 pixels at 0.3 m, 21 classes of 100 images.

The official archive holds TIFFs, ``UCMerced_LandUse/Images/agricultural/agricultural00.tif``; copies with JPEGs under
``train/`` and ``test/`` are read alike, their split is ignored. Some images are a few pixels off 256 × 256. The data
set does not say which images are neighbours, so they cannot be split by place.
"""

from __future__ import annotations

from pathlib import Path

from reproduction.imagery.images import Archive, Imagery, by_folder


def read_uc_merced(path: str | Path) -> Imagery:
    """The images of an archive: uint8 (about 256, about 256, 3), `labels` and `class_names`, no groups.

    Raises InputError naming the archive and the member at fault.
    """
    return by_folder(Archive(path), "uc_merced", (".tif", ".tiff", ".jpg", ".jpeg", ".png"), depth=1)

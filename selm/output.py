"""Files that users ask for: written whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selm.errors import DISK_FULL, InputError


def check_target(path: str | Path, endings: tuple[str, ...]) -> Path:
    """`path` as a Path; raises InputError if it ends otherwise than `endings` or is something other than a file."""
    path = Path(path)
    if path.suffix.lower() not in endings:
        raise InputError(f"{path}: the output's name must end in {' or '.join(endings)}")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: exists and is not a file")
    return path


@contextmanager
def scratch(path: Path, what: str = "part") -> Iterator[Path]:
    """A temporary name beside `path`, removed when the block ends.

    Raises InputError where the disk is full or the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{what}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
    except OSError as error:
        reason = "the disk is full" if error.errno in DISK_FULL else error.strerror or str(error).splitlines()[0]
        raise InputError(f"cannot write {path}: {reason}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """As `scratch`, but the temporary file becomes `path` when the block ends well."""
    with scratch(path) as temporary:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # on disk before it has its name
        os.replace(temporary, path)


def save_image(path: str | Path, rgb: NDArray[Any], attribution: str = "") -> Path:
    """Write uint8 (h, w, 3) colours as a PNG file; `attribution`, whose data it shows, becomes its text Copyright."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    path = check_target(path, (".png",))
    about = PngInfo()
    if attribution:
        about.add_itxt("Copyright", attribution)
    with written(path) as temporary:
        Image.fromarray(np.asarray(rgb, np.uint8)).save(temporary, format="PNG", optimize=True, pnginfo=about)
    return path

"""Files: written whole or not at all, and read with errors of one line."""

from __future__ import annotations

import glob
import json
import os
import platform
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from selm.errors import DISK_FULL, InputError, first_line

# What files of GDAL's formats begin with, by their ending
_BEGINS = {
    ".geojson": (b"{", b"["), ".json": (b"{", b"["), ".fgb": (b"fgb",), ".gpkg": (b"SQLite format 3\0",),
    ".shp": (b"\0\0\x27\x0a",), ".osm": (b"<?xml", b"<osm"),
}  # fmt: skip
_CRS = re.compile(rb'"crs"\s*:\s*\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}')


def cache_folder() -> Path:
    """Where maps are kept that were drawn or fetched on the way: `SELM_CACHE`, by default the user's cache."""
    return Path(os.environ.get("SELM_CACHE") or user_cache_path("selm"))


def check_target(path: str | Path, endings: tuple[str, ...]) -> Path:
    """`path` as a Path; raises InputError if it ends otherwise than `endings` or is something other than a file."""
    path = Path(path)
    if not path.name.lower().endswith(endings):
        raise InputError(f"{path}: the output's name must end in {' or '.join(endings)}")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: exists and is not a file")
    return path


def clear_leftovers(parts: Iterable[Path]) -> None:
    """Remove those of some temporary files and folders whose processes, of this machine, were killed."""
    for part in parts:
        if f".{_here()}." not in part.name:
            continue
        try:
            os.kill(int(part.name.split(".")[-2]), 0)  # raises unless that process lives
        except (ProcessLookupError, ValueError):
            with suppress(OSError):
                shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)
        except PermissionError:
            pass  # it lives and is another user's


def _here() -> str:
    """This machine in a temporary name: a folder may be shared with others."""
    return f"{zlib.crc32(platform.node().encode()):08x}"


def _temporary(path: Path, clear: bool = True) -> Path:
    """A name of this process beside `path`; unless not to `clear`, what a killed process had begun there goes."""
    if clear:
        clear_leftovers(path.parent.glob(f".{glob.escape(path.name)}.*.part"))
    return path.with_name(f".{path.name}.{_here()}.{os.getpid()}.part")


@contextmanager
def written(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary name beside `path` that becomes `path` when the block ends well: readers see the old or the new.

    `durable` has it on disk before it has its name; without, a power cut may leave an empty file. Raises InputError
    where the disk is full or the folder cannot be written to.
    """
    temporary = _temporary(path, clear=durable)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if durable:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def written_folder(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """A new folder beside `path` that becomes `path` when the block ends well, in place of an older one.

    Unless it is to `replace` one, the folder of a process that was faster stays. Raises InputError as `written` does.
    """
    temporary = _temporary(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if replace:
            shutil.rmtree(path, ignore_errors=True)
        try:
            os.replace(temporary, path)
        except OSError:
            if not path.is_dir():
                raise
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` atomically."""
    with written(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def parsed(text: str | bytes) -> Any:
    """What a text of JSON says; ValueError for one that is not JSON, or too deep to read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("too deeply nested") from None


def read_json(path: str | Path) -> Any:
    """Read a JSON file; raises InputError that names the file when it is absent or not JSON."""
    path = Path(path)
    try:
        return parsed(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except ValueError as error:  # no UTF-8, no JSON, or a number of thousands of digits
        raise InputError(f"{path}: not valid JSON ({error})") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def check_begins(name: object, file: IO[bytes], ending: str) -> None:
    """Raises InputError, by `name`, for a file that is not what its ending says. GDAL goes by what a file holds, and
    some of what it takes (VRT, a link to a coordinate system) names other files and addresses, which it would read."""
    head = file.read(4096)
    begins = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if b"<OGRVRT" in begins or not begins.startswith(_BEGINS.get(ending, b"")):
        raise InputError(f"{name}: not a {ending} file")
    if ending.endswith("json") and any(b'"link"' in found[0] for found in _CRS.finditer(head + file.read())):
        raise InputError(f"{name}: its coordinate system is a link; name it, or leave it out for degrees")


def cannot_write(path: Path, error: OSError) -> InputError:
    """The line for an `error` of the system in writing `path`."""
    reason = "the disk is full" if error.errno in DISK_FULL else error.strerror or first_line(error)
    return InputError(f"cannot write {path}: {reason}")

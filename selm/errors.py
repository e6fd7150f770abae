"""The one exception that users meet, bad input said in one line, and the warnings."""

import difflib
import errno
from collections.abc import Iterable

EXTRAS = {
    "torch": "train", "torchvision": "train", "onnx": "embed", "onnxruntime": "embed", "mapnik": "embed",
    "pmtiles": "embed", "geopandas": "maps", "pyogrio": "maps", "pyrosm": "maps", "shapely": "maps",
}  # fmt: skip
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # OSError.errno where a file has no more room
NO_WAY = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP)  # where a path leads to none


class InputError(ValueError):
    """Input that cannot be used.

    Its message is one line that names the file, row or field at fault and, where there is one, the remedy.
    The command line prints it after ``selm:`` and exits with status 2; the Python API raises it. Whatever of a file it
    quotes, it stays one line: what cannot be printed becomes a blank.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__("".join(c if c.isprintable() else " " for c in message))


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a `name` that is not among `known` things of a `kind`, with the nearest one."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return InputError(f"unknown {kind} '{name}'{hint} (there are: {', '.join(known)})")


def first_line(error: Exception) -> str:
    """The first line of what a library's error says, or its class where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class OutsideMapWarning(UserWarning):
    """Some coordinates lie outside the map; their embeddings are missing."""


class InputWarning(UserWarning):
    """Something in a table was taken otherwise than it stands there, or looks wrong."""


class MapWarning(UserWarning):
    """A map is of another kind than encoders have learned on, or comes slowly."""

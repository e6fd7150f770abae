"""Tensors on disk: safetensors with a digest, written atomically. Never pickle.

A file is complete and unaltered or it is refused: its header carries the format's version and the SHA-256 of names,
dtypes, shapes and bytes of all its tensors. NumPy arrays are written and read without torch.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from selm.errors import InputError
from selm.files import parsed, written

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT = "selm-1"


def digest(tensors: Mapping[str, Tensor] | Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 (hex) over the names, dtypes, shapes and bytes of tensors or arrays, in the order of their names."""
    state = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        if isinstance(value, np.ndarray):
            kind, data = f"torch.{value.dtype}", value.tobytes()
        else:
            import torch

            value = value.detach().cpu().contiguous()
            # a tensor of nothing has no bytes, and cannot be looked at as bytes
            kind = str(value.dtype)
            data = value.reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
        state.update(f"{name}|{kind}|{tuple(value.shape)}|".encode() + data)
    return state.hexdigest()


def save_tensors(
    path: str | Path, tensors: Mapping[str, Tensor] | Mapping[str, NDArray[Any]], meta: Mapping[str, str] | None = None
) -> None:
    """Write tensors, or arrays, to a safetensors file, atomically, with `meta`, the format's version and a digest."""
    path, flat = Path(path), dict[str, Any](tensors)
    if any(isinstance(value, np.ndarray) for value in flat.values()):
        from safetensors.numpy import save_file
    else:
        from safetensors.torch import save_file  # type: ignore[assignment]

        # clone: safetensors refuses tensors that share memory
        flat = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in flat.items()}
    header = {**(meta or {}), "selm": FORMAT, "sha256": digest(flat)}
    try:
        with written(path) as temporary:
            temporary.touch()
            mode = temporary.stat().st_mode
            save_file(flat, temporary, metadata=header)
            temporary.chmod(mode)  # safetensors would let its owner alone read it
            _sort_header(temporary)
    except SafetensorError as error:
        raise InputError(f"cannot write {path}: {error}") from error


def _sort_header(path: Path) -> None:
    """Metadata in the order of its keys: safetensors has any order, and the same content is to be the same file."""
    with open(path, "r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)
        if len(text) == length:
            file.seek(8)
            file.write(text)


class Writer:
    """Writes checkpoints one after the other in a thread, while training goes on.

    `save` copies the tensors (from a GPU into pinned memory, without waiting for it) and returns; an error of the
    writing is raised by the next `save`, or when the ``with`` block ends.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="selm-checkpoint")
        self._pending: Future[None] | None = None
        self._host: dict[str, Tensor] = {}

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown(wait=True)
        if kind is None:
            self._finish()

    def save(self, path: str | Path, tensors: Mapping[str, Tensor], meta: Mapping[str, str] | None = None) -> None:
        """As `save_tensors`, of the tensors as they are now."""
        import torch

        self._finish()  # also: the copies may be overwritten
        copies = {name: self._copy(name, tensor.detach()) for name, tensor in tensors.items()}
        copied = torch.cuda.current_stream().record_event() if torch.cuda.is_initialized() else None

        def write() -> None:
            if copied is not None:
                copied.synchronize()
            save_tensors(path, copies, meta)

        self._pending = self._thread.submit(write)

    def _copy(self, name: str, tensor: Tensor) -> Tensor:
        import torch

        held = self._host.get(name)
        if held is None or held.shape != tensor.shape or held.dtype != tensor.dtype:
            held = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
            self._host[name] = held
        return held.copy_(tensor, non_blocking=True)

    def _finish(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()


def read_meta(path: str | Path) -> dict[str, str]:
    """The header's metadata of a safetensors file; raises InputError where there is no readable header."""
    path = Path(path)
    try:
        with open(path, "rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            if length > path.stat().st_size:
                raise InputError(f"{path}: not a safetensors file, or cut short")
            return dict(parsed(handle.read(length)).get("__metadata__") or {})
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, struct.error, ValueError, AttributeError, TypeError) as error:  # a list has no .get
        raise InputError(f"{path}: not a safetensors file, or cut short") from error


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read (tensors, metadata) that `save_tensors` wrote.

    Raises InputError when the file is absent, cut short, altered since it was written, or of another format version.
    """
    from safetensors.torch import load_file

    return _load(path, load_file)


def load_arrays(path: str | Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """As `load_tensors`, NumPy arrays, without torch."""
    from safetensors.numpy import load_file

    return _load(path, load_file)


def _load(path: str | Path, load_file: Callable[[Any], dict[str, Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    meta = read_meta(path)
    if meta.get("selm") != FORMAT:
        raise InputError(f"{path}: format '{meta.get('selm', 'unknown')}', this version of selm reads '{FORMAT}'")
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError, KeyError, TypeError) as error:  # NumPy has not every dtype
        raise InputError(f"{path}: cut short or damaged ({error})") from error
    if digest(tensors) != meta.get("sha256"):
        raise InputError(f"{path}: altered since it was written (digest differs)")
    return tensors, meta


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Load a state dict strictly; a mismatch becomes one line that names the file and the first bad entry."""
    own = module.state_dict()
    for name in sorted(set(own) | set(tensors)):
        if name not in tensors:
            raise InputError(f"{path}: lacks '{name}', so it belongs to another model or version")
        if name not in own:
            raise InputError(f"{path}: has '{name}', which this model does not know")
        if own[name].shape != tensors[name].shape:
            raise InputError(
                f"{path}: '{name}' has shape {tuple(tensors[name].shape)}, the model wants {tuple(own[name].shape)}"
            )
    module.load_state_dict(dict(tensors))

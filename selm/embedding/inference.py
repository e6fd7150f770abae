"""An encoder and a map, opened together: map images in, embeddings out, block by block.

Blocks are drawn by other processes and read by another thread while the network works; what is held in memory does not
grow with the number of places.
"""

from __future__ import annotations

import copy
import dataclasses
import queue
import re
import threading
import warnings
from collections.abc import Generator, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from selm import distributed
from selm.embedding.blocks import Blocks, Plan, Stopped, interleave
from selm.encoder import BUNDLED, MapEncoder, bundled, channels_last
from selm.errors import InputError, MapWarning
from selm.maps.atlas import BLOCK_ZOOM, Atlas, block_px
from selm.maps.mercator import to_tile
from selm.maps.tiles import Listed
from selm.views import DeviceAtlas, colour

_AHEAD = 4  # cuts that wait for the network
_CUT = 128  # images that are cut together
TOGETHER = 16_384  # places that an encoder of several zooms looks at before it goes on
_ENDED = object()


@dataclass
class Opened:
    """An encoder on its device, and the map's blocks by zoom."""

    encoder: MapEncoder
    blocks: dict[int, Blocks]
    device: torch.device

    @classmethod
    def open(
        cls, model: str | Path | MapEncoder, map: str | Path | Atlas | None, device: str | torch.device | None,
        orientations: int | None, stages: tuple[int, ...] | None,
    ) -> Opened:  # fmt: skip
        """The arguments are those of `selm.embedding.embedder.Embedder`; so are the errors."""
        encoder = load_encoder(model)
        if orientations is not None:
            encoder.config = dataclasses.replace(encoder.config, orientations=orientations)
        if stages is not None:
            encoder.config = dataclasses.replace(encoder.config, stages=tuple(stages))
        on, blocks = distributed.device(device), Blocks.open(map, encoder.config)
        if str(model) in BUNDLED and (richer := blocks[encoder.config.zoom].richer):
            name = blocks[encoder.config.zoom].name
            warnings.warn(f"{name}: {richer}, which shows more than the tiles of zoom 13 that {model} has learned on",
                          MapWarning, stacklevel=4)  # fmt: skip
        return cls(channels_last(encoder.to(on)), blocks, on)

    @property
    def first(self) -> Blocks:
        """The blocks of the encoder's own zoom; those of all zooms are of one map."""
        return self.blocks[self.encoder.config.zoom]

    @property
    def dim(self) -> int:
        """Length of an embedding: the encoder's features, once for each of its zooms."""
        return self.encoder.embedding_dim * len(self.encoder.config.zooms)

    @torch.inference_mode()
    def stream(
        self, lat: NDArray[np.float64], lon: NDArray[np.float64], *, batch: int, progress: bool = False
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Embeddings of places on the map as they come: (rows int64 (n,), embeddings float32 (n, dim)).

        Places of which a server turns out to have nothing do not come. An encoder of several zooms looks at some
        thousand neighbouring places at one zoom after the other.
        """
        zooms = self.encoder.config.zooms
        with tqdm(total=len(lat), desc="embed", unit="place", disable=not progress) as bar:
            if len(zooms) == 1:
                for rows, embeddings in self._at(lat, lon, zooms[0], batch):
                    bar.update(len(rows))
                    yield rows, embeddings
                return
            x, y = (np.floor(v).astype(np.int64) for v in to_tile(lat, lon, BLOCK_ZOOM))
            by_place = np.argsort(interleave(x, y), kind="stable")
            for some in np.split(by_place, range(TOGETHER, len(by_place), TOGETHER)):
                out = np.empty((len(some), len(zooms), self.encoder.embedding_dim), np.float32)
                there = np.zeros(len(some), np.bool_)
                for number, zoom in enumerate(zooms):
                    for rows, embeddings in self._at(lat[some], lon[some], zoom, batch):
                        out[rows, number] = embeddings
                        there[rows] = True
                bar.update(len(some))
                yield some[there], out[there].reshape(there.sum(), -1)

    def _at(
        self, lat: NDArray[np.float64], lon: NDArray[np.float64], zoom: int, batch: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Features at one zoom, as `stream` gives embeddings."""
        blocks, config = self.blocks[zoom], self.encoder.config
        plan = Plan.make(lat, lon, zoom, config.image_px, config.tile_px, blocks.tiles.may_have)
        mean, std = (torch.tensor(value, device=self.device) for value in (config.pixel_mean, config.pixel_std))
        colours = (torch.tensor(blocks.palette, dtype=torch.float32, device=self.device) / 255 - mean) / std
        cuda = self.device.type == "cuda"
        precision = torch.autocast("cuda", torch.bfloat16) if cuda else nullcontext()
        with closing(self._images(plan, zoom)) as patches:
            for images, patch in _rebatch(patches, batch):
                with precision:
                    embeddings = self.encoder.embed(colour(patch, colours)).float().cpu().numpy()
                rows, which = plan.rows_of(images)
                yield rows, embeddings[which]

    def _images(self, plan: Plan, zoom: int) -> Generator[tuple[NDArray[np.int64], Tensor], None, None]:
        """(numbers of images, their palette indices on the device), from a thread that works ahead."""
        ready: queue.Queue[Any] = queue.Queue(_AHEAD)
        stop = threading.Event()
        px = self.encoder.config.image_px

        def put(item: Any) -> None:
            while not stop.is_set():
                try:
                    return ready.put(item, timeout=0.1)
                except queue.Full:
                    continue
            raise Stopped

        def load() -> None:
            try:
                with closing(self.blocks[zoom].provide(plan.blocks, zoom, stop)) as provided:
                    for images, group in zip(plan.groups, provided, strict=True):
                        home = np.floor(plan.centres[images] / block_px(zoom, group.tile_px))
                        images = images[Listed(group.keys).has(home)]
                        if not len(images):
                            continue
                        atlas = DeviceAtlas([group], (zoom,), self.device)
                        for part in np.array_split(images, -(-len(images) // _CUT)):
                            centres = torch.as_tensor(plan.centres[part], device=self.device)
                            put((part, cut_squares(atlas, centres, zoom, px)))
                put(_ENDED)
            except Stopped:
                pass
            except BaseException as error:  # handed to the thread that waits
                if not stop.is_set():
                    put(error)

        thread = threading.Thread(target=load, name="selm-blocks", daemon=True)
        thread.start()
        try:
            while (item := ready.get()) is not _ENDED:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            thread.join()


def load_encoder(model: str | Path | MapEncoder) -> MapEncoder:
    """The encoder of a run folder, of a Hub id or that comes along (`BUNDLED`), in evaluation mode; a given one is
    copied.

    Raises InputError where there is none, or it is cut short, altered or of another version.
    """
    if isinstance(model, MapEncoder):
        return copy.deepcopy(model).eval()
    folder = Path(model)
    if folder.is_dir():
        if not (folder / "config.json").exists():
            reason = "the run is not finished" if (folder / "run.json").exists() else "holds no model (no config.json)"
            raise InputError(f"{folder}: {reason}")
        return MapEncoder.load(folder / "config.json", folder / "model.safetensors")
    if not folder.exists() and str(model) in BUNDLED:
        return MapEncoder.from_pretrained(bundled(str(model)))
    if folder.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(model)):
        raise InputError(f"{model}: not a run folder, a Hub id (owner/name) or one of {', '.join(BUNDLED)}")
    try:
        return MapEncoder.from_pretrained(str(model))
    except InputError:
        raise
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{model}: no such run folder, and the Hub does not give it ({reason})") from None


def cut_squares(atlas: DeviceAtlas, centres: Tensor, zoom: int, size: int) -> Tensor:
    """`DeviceAtlas.patches` without the offsets: (N, 2) pixels → uint8 (N, size, size) palette indices.

    On a CPU, a square inside one block is copied row by row, for a fraction of what addressing every pixel costs.
    """
    if atlas.device.type != "cpu":
        return atlas.patches(centres, zoom, size)[0]
    side = atlas.side(zoom)
    start = np.floor(centres.numpy() - size / 2 + 0.5).astype(np.int64)
    block = start // side
    at = np.stack([block[:, 0] % 2**BLOCK_ZOOM, block[:, 1]], axis=1) - atlas.origin  # round the 180th meridian
    height, width = atlas.table.shape
    inside = ((start + size - 1) // side == block).all(axis=1)
    inside &= ((at >= 0) & (at < (width, height))).all(axis=1)  # elsewhere is no map
    out = torch.empty(len(centres), size, size, dtype=torch.uint8)
    images, blocks = out.numpy(), atlas.blocks[zoom].numpy()
    rows = np.flatnonzero(inside)
    slots = atlas.table.numpy()[at[rows, 1], at[rows, 0]]
    corners = (start - block * side)[rows]
    for row, slot, (x, y) in zip(rows.tolist(), slots.tolist(), corners.tolist(), strict=True):
        images[row] = blocks[slot, y : y + size, x : x + size]
    across = np.flatnonzero(~inside)
    if len(across):
        out[across] = atlas.patches(centres[across], zoom, size)[0]
    return out


def _rebatch(
    parts: Iterator[tuple[NDArray[np.int64], Tensor]], batch: int
) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """Pieces of any length → pieces of `batch` images (the last may be shorter)."""
    numbers: list[NDArray[np.int64]] = []
    tensors: list[Tensor] = []
    held = 0
    for number, tensor in parts:
        numbers.append(number)
        tensors.append(tensor)
        held += len(number)
        if held >= batch:
            number, tensor = np.concatenate(numbers), torch.cat(tensors)
            full = held - held % batch
            for at in range(0, full, batch):
                yield number[at : at + batch], tensor[at : at + batch]
            numbers, tensors, held = [number[full:]], [tensor[full:]], held - full
    if held:
        yield np.concatenate(numbers), torch.cat(tensors)

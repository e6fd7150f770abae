"""An encoder and a map, opened together: map images in, embeddings out, block by block.

Blocks are drawn by other processes and read by another thread while the network works; what is held in memory does not
grow with the number of places.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import queue
import re
import threading
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from selm import checkpoints, distributed
from selm.bundled import Bundled, shelf
from selm.embedding.blocks import Blocks, Plan, Stopped, interleave
from selm.encoder import MapEncoder, channels_last
from selm.errors import InputError, MapWarning, unknown
from selm.maps.atlas import BLOCK_ZOOM, Atlas, block_px
from selm.maps.mercator import to_tile
from selm.maps.tiles import Listed
from selm.probes.practitioner import COLOURS, colour_histogram
from selm.views import DeviceAtlas, colour

_AHEAD = 4  # cuts that wait for the network
_CUT = 128  # images that are cut together
# Images that are looked at before some places are done, some seconds of work: what a call that is killed may lose.
TOGETHER = {"cpu": 8_192, "cuda": 131_072}
BESIDE = ("colours", "coordinates")  # what may stand beside the features
Tick = Callable[[float], None]  # is told of places as they are done: with several zooms, of shares of them
_ENDED = object()


@dataclass
class Opened:
    """An encoder on its device, the map's blocks by zoom, and what stands `beside` the features (of `BESIDE`)."""

    encoder: MapEncoder
    blocks: dict[int, Blocks]
    device: torch.device
    beside: tuple[str, ...] = ()

    @classmethod
    def open(
        cls, model: str | Path | MapEncoder | None, map: str | Path | Atlas | None, device: str | torch.device | None,
        orientations: int | None, stages: tuple[int, ...] | None, zooms: tuple[int, ...] | None,
        beside: tuple[str, ...] | None,
    ) -> Opened:  # fmt: skip
        """The arguments are those of `selm.embedding.embedder.Embedder`; so are the errors."""
        encoder = load_encoder(model)
        if orientations is not None:
            encoder.config = dataclasses.replace(encoder.config, orientations=orientations)
        if stages is not None:
            encoder.config = dataclasses.replace(encoder.config, stages=tuple(stages))
        if zooms is not None:
            if not zooms or len(set(zooms)) < len(zooms):
                raise InputError(f"zooms must be some web map zooms, each once, not {zooms}")
            encoder.config = dataclasses.replace(encoder.config, zoom=zooms[0], context_zooms=tuple(zooms[1:]))
        known = _bundled(model)
        if beside is None:
            beside = known.beside if known else ()
        for part in beside:
            if part not in BESIDE:
                raise unknown("part beside the embedding", part, BESIDE)
        on = distributed.device(device)
        parts = tuple(part for part in BESIDE if part in beside)
        opened = cls(channels_last(encoder.to(on)), Blocks.open(map, encoder.config), on, parts)
        if known and opened.first.richer:
            warnings.warn(
                f"{opened.first.name}: {opened.first.richer}, which shows more than the tiles of zoom 13 that "
                f"{known.name} has learned on", MapWarning, stacklevel=4,
            )  # fmt: skip
        return opened

    @property
    def first(self) -> Blocks:
        """The blocks of the encoder's own zoom; those of all zooms are of one map."""
        return self.blocks[self.encoder.config.zoom]

    @property
    def parts(self) -> dict[str, int]:
        """What an embedding consists of, in this order, by the name of its columns: ``e`` the encoder's features, all
        zooms side by side; ``colour`` the shares of 64 colours in the same images; ``x`` the place on the unit sphere.
        """
        zooms = len(self.encoder.config.zooms)
        out = {"e": self.encoder.embedding_dim * zooms}
        if "colours" in self.beside:
            out["colour"] = COLOURS * zooms
        return out | ({"x": 3} if "coordinates" in self.beside else {})

    @cached_property
    def identity(self) -> str:
        """SHA-256 of all that an embedding depends on but the map: the encoder, its use, what stands beside."""
        config = json.dumps(dataclasses.asdict(self.encoder.config), sort_keys=True)
        text = f"{config} {checkpoints.digest(self.encoder.state_dict())} {self.parts}"
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def together(self) -> int:
        """How many neighbouring places are looked at together."""
        config = self.encoder.config
        most = TOGETHER["cuda" if self.device.type == "cuda" else "cpu"]
        return max(64, most // (len(config.zooms) * config.orientations))

    @torch.inference_mode()
    def stream(
        self, lat: NDArray[np.float64], lon: NDArray[np.float64], *, batch: int, tick: Tick
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Embeddings of places on the map as they come: (rows int64 (n,), embeddings float32 (n, dim)).

        Places of which a server turns out to have nothing do not come. An encoder of several zooms looks at some
        neighbouring places at one zoom after the other.
        """
        zooms, dim = self.encoder.config.zooms, self.encoder.embedding_dim
        several = len(zooms) > 1
        helpings = np.split(in_map_order(lat, lon), range(self.together, len(lat), self.together)) if several else (
            [np.arange(len(lat))]
        )  # fmt: skip
        for some in helpings:
            where = on_sphere(lat[some], lon[some])
            there = np.zeros(len(some), np.bool_)
            features = np.empty((len(some), len(zooms), dim), np.float32) if several else np.zeros((0, 0, 0), "f4")
            colours = np.empty((len(some), len(zooms), COLOURS), np.float32) if several else features
            for number, zoom in enumerate(zooms):
                for rows, found, histograms in self._at(lat[some], lon[some], zoom, batch):
                    tick(len(rows) / len(zooms))
                    there[rows] = True
                    if several:
                        features[rows, number] = found
                        if "colours" in self.beside:
                            colours[rows, number] = histograms
                    else:
                        yield some[rows], self._joined(found, histograms, where[rows])
            if several and there.any():
                flat, shares = features.reshape(len(some), -1), colours.reshape(len(some), -1)
                yield some[there], self._joined(flat[there], shares[there], where[there])

    def _joined(
        self, features: NDArray[np.float32], colours: NDArray[np.float32], where: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        parts = [features]
        parts += [colours] if "colours" in self.beside else []
        parts += [where] if "coordinates" in self.beside else []
        return np.hstack(parts) if len(parts) > 1 else features

    def _at(
        self, lat: NDArray[np.float64], lon: NDArray[np.float64], zoom: int, batch: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]]:
        """Features at one zoom, as `stream` gives embeddings, and the images' colours (n, 64) where they are wanted."""
        blocks, config = self.blocks[zoom], self.encoder.config
        plan = Plan.make(lat, lon, zoom, config.image_px, config.tile_px, blocks.tiles.may_have)
        mean, std = (torch.tensor(value, device=self.device) for value in (config.pixel_mean, config.pixel_std))
        colours = (torch.tensor(blocks.palette, dtype=torch.float32, device=self.device) / 255 - mean) / std
        cuda, wanted = self.device.type == "cuda", "colours" in self.beside
        precision = torch.autocast("cuda", torch.bfloat16) if cuda else nullcontext()
        with closing(self._images(plan, zoom)) as patches:
            for images, patch in _rebatch(patches, batch):
                with precision:
                    embeddings = self.encoder.embed(colour(patch, colours)).float().cpu().numpy()
                rows, which = plan.rows_of(images)
                shares = colour_histogram(patch.cpu().numpy(), blocks.palette) if wanted else np.zeros((len(patch), 0))
                yield rows, embeddings[which], shares[which].astype(np.float32)

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


@contextmanager
def counted(n: int, shown: bool, there: int = 0) -> Iterator[Tick]:
    """A bar of n places on the terminal, if `shown`, of which some are `there`; it is told of places, and shares."""
    done = float(there)
    with tqdm(total=n, initial=there, desc="embed", unit="place", disable=not shown) as bar:

        def tick(places: float) -> None:
            nonlocal done
            done += places
            bar.update(int(done + 1e-6) - bar.n)

        yield tick


def on_sphere(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.float32]:
    """Places as points of the unit sphere, float32 (N, 3): near places are near, also across the 180th meridian."""
    phi, lam = np.radians(lat), np.radians(lon)
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=1).astype(np.float32)


def in_map_order(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.int64]:
    """The order of places, int64 (N,), in which neighbours stand together."""
    x, y = (np.floor(v).astype(np.int64) for v in to_tile(lat, lon, BLOCK_ZOOM))
    return np.argsort(interleave(x, y), kind="stable")


def _bundled(model: str | Path | MapEncoder | None) -> Bundled | None:
    """The encoder that comes along which a name means: the default for None; None where it means another kind."""
    if model is None:
        return shelf().named(shelf().default)
    if not isinstance(model, str) or Path(model).exists():
        return None
    return next((one for one in shelf().encoders if one.name == model), None)


def load_encoder(model: str | Path | MapEncoder | None) -> MapEncoder:
    """The encoder of a run folder, of a Hub id or that comes along, used as `selm.bundled` says (None: the default), in
    evaluation mode; a given one is copied.

    Raises InputError where there is none, or it is cut short, altered or of another version.
    """
    if isinstance(model, MapEncoder):
        return copy.deepcopy(model).eval()
    if known := _bundled(model):
        folder = shelf().folder / known.folder
        encoder = MapEncoder.load(folder / "config.json", folder / "model.safetensors")
        first, *others = known.zooms
        encoder.config = dataclasses.replace(
            encoder.config, zoom=first, context_zooms=tuple(others), orientations=known.orientations,
            stages=known.stages,
        )  # fmt: skip
        return encoder
    folder = Path(str(model))
    if folder.is_dir():
        if not (folder / "config.json").exists():
            reason = "the run is not finished" if (folder / "run.json").exists() else "holds no model (no config.json)"
            raise InputError(f"{folder}: {reason}")
        return MapEncoder.load(folder / "config.json", folder / "model.safetensors")
    if folder.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(model)):
        wrong = unknown("encoder", str(model), [one.name for one in shelf().encoders])
        raise InputError(f"{wrong}; not a run folder, a Hub id (owner/name) or the name of one that comes along")
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

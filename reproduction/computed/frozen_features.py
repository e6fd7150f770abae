"""Frozen features of a profile's places, computed once."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from reproduction import rows
from reproduction.computed.drawn_maps import further_maps, map_fingerprint, palette, point_images
from reproduction.computed.encoders import encoder, encoder_config, pretrained
from reproduction.computed.store import VERSIONS, address, table_fingerprint
from reproduction.settings import Profile
from selm import checkpoints
from selm.distributed import device
from selm.encoder import MapEncoder
from selm.views import colour


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
    source = (
        {"random": dataclasses.asdict(encoder_config(profile)), "seed": seed}
        if method == "random_init"
        else {"run": pretrained(profile, method, seed).name}
    )
    places = table_fingerprint(table[["region", "lat", "lon"]])
    parts = {**source, "places": places, "maps": map_fingerprint(profile), "version": VERSIONS["features"]}
    parts |= further_maps(profile, rows.zooms_of(method))
    file = address("features", f"{profile.name}-{method}-s{seed}-{label}", parts).with_suffix(".safetensors")
    if not file.exists():
        network = encoder(profile, method, seed)
        images = (point_images(profile, table, zoom) for zoom in network.config.zooms)
        out = torch.cat([encode(network, image, palette(profile)) for image in images], dim=1)
        checkpoints.save_tensors(file, {"features": out})
    return checkpoints.load_tensors(file)[0]["features"].numpy()

"""Frozen features of a profile's places, computed once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from reproduction import rows
from reproduction.computed.drawn_maps import further_maps, histograms, map_fingerprint, palette, point_images
from reproduction.computed.encoders import encoder, encoder_key, pretrained
from reproduction.computed.store import cached_array, table_fingerprint
from reproduction.settings import Profile
from selm.distributed import device
from selm.encoder import STAGES, MapEncoder
from selm.methods.multi_zoom import WIDE

VERSION = 2


@torch.no_grad()
def encode(network: MapEncoder, indices: torch.Tensor, colours: torch.Tensor, batch: int = 256) -> torch.Tensor:
    """(N, px, px) palette indices → (N, embedding_dim) float32 embeddings on the CPU."""
    on = device()
    network = network.to(on).eval()
    colours = (255 * colours).round().byte().to(on)
    parts = [network.embed(network.pixels(part.to(on), colours)).float().cpu() for part in indices.split(batch)]
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


def at_all_zooms(
    profile: Profile, method: str, seed: int, table: pd.DataFrame, orientations: int
) -> Iterator[torch.Tensor]:
    """Features (N, d) of all stages of an encoder at one zoom of `WIDE` after the other, each the mean over
    `orientations`, for the places of `table`."""
    network, colours = encoder(profile, method, seed), palette(profile)
    network.config = dataclasses.replace(network.config, orientations=orientations, stages=STAGES)
    for zoom in WIDE:
        yield encode(network, point_images(profile, table, zoom), colours)


def recommended_run(profile: Profile) -> str:
    """The name of the run directory of the encoder of `recommended`."""
    return encoder_key(profile.times(profile.surroundings.longer), rows.LONGER, 0)["run"]


def recommended(profile: Profile, table: pd.DataFrame) -> NDArray[np.float32]:
    """(N, D) what `selm embed` gives where nobody says otherwise, for the places of `table`, computed once.

    The features of all stages of the wide encoder that was trained longest, at all zooms, each the mean over the
    profile's orientations; then the shares of colours in the same images.
    """
    longer = profile.times(profile.surroundings.longer)
    parts = {
        "run": recommended_run(profile), "orientations": profile.surroundings.orientations, "zooms": WIDE,
        "places": table_fingerprint(table[["region", "lat", "lon"]]), "maps": map_fingerprint(profile),
        "version": VERSION, **further_maps(profile, WIDE),
    }  # fmt: skip

    def make() -> torch.Tensor:
        seen = at_all_zooms(longer, rows.LONGER, 0, table, profile.surroundings.orientations)
        return torch.cat([*seen, *(torch.from_numpy(histograms(profile, table, zoom)) for zoom in WIDE)], dim=1)

    return cached_array("features", f"{profile.name}-recommended", parts, make)

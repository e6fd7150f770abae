"""Fewer numbers for use: the recommended embedding and a linear head that other regions teach, on common components.

An embedding of all zooms is long, and any probe has to find out which of its numbers matter. So it is reduced: its
numbers and the outputs of the head (`head.weights`) are standardised, each of the two sides has a fixed part of the
whole variance, and the whole goes to its first principal components and from there through a random rotation, so that a
probe that standardises them does not blow up the last ones. Standardised numbers are held within ± `CLIP` first: maps
of other countries show what Japan's hardly ever do. All of it is one matrix, kept as a
`selm.embedding.reduction.Reduction`. It is learned at official points of other regions alone; those of the tested
region, and of the validation regions where it is chosen there, have no part in it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reproduction.computed import encoders, frozen_features, head, place_tables
from reproduction.computed.store import remembered
from reproduction.rows import LONGER
from reproduction.settings import Profile
from selm import distributed
from selm.embedding.inference import Opened
from selm.embedding.reduction import Reduction
from selm.encoder import STAGES
from selm.methods.multi_zoom import WIDE
from selm.provenance import provenance

VERSION = 1  # raise it when the numbers change
PART = 0.5  # of the variance that the head has; PART and `Surroundings.compact` by the errors in Fukuoka and Hiroshima
CLIP = 10.0  # standard deviations; of 5, 10 and none the least error there, too


def reduction(
    x: NDArray[np.float32], known: NDArray[np.float64], dim: int, identity: str, part: float = PART, clip: float = CLIP,
    seed: int = 0,
) -> Reduction:  # fmt: skip
    """The reduction to `dim` numbers that is learned from embeddings `x` (N, D) of places of which `known` (N, T) is
    known (`head.known`).

    Z: embeddings, standardised and held within ± `clip`.  H = Z B: the head's outputs, standardised.
    W = [√((1 − part) / D) Z, √(part / T) H].
    The reduction of an embedding is its row of W times the first `dim` eigenvectors of Wᵀ W, times a rotation that is
    drawn at random with `seed`, times the number that makes the mean variance of the reduced numbers 1.
    """
    mean, scale = x.mean(axis=0, dtype=np.float64), np.maximum(x.std(axis=0, dtype=np.float64), 1e-6)
    z = np.clip((x - mean) / scale, -clip, clip)
    weights = head.weights(z, known)
    weights /= (z @ weights).std(axis=0)
    both = np.hstack([np.sqrt((1 - part) / z.shape[1]) * np.eye(z.shape[1]),
                      np.sqrt(part / weights.shape[1]) * weights])  # fmt: skip
    turn, squares, kept = turned_components(z @ both, dim, seed)
    directions = both @ turn * np.sqrt(dim * len(x) / squares)
    mean, scale, directions = (array.astype(np.float32) for array in (mean, scale, directions))
    return Reduction(mean, scale, directions, kept, identity, clip)


def turned_components(x: NDArray[np.float64], dim: int, seed: int = 0) -> tuple[NDArray[np.float64], float, float]:
    """The first `dim` principal directions of centred numbers x (N, D), turned by a random rotation, (D, dim); the sum
    of squares of x on them, and its share of all."""
    squares, components = np.linalg.eigh(x.T @ x)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))
    kept = float(squares[-dim:].sum())
    return components[:, ::-1][:, :dim] @ rotation, kept, kept / float(squares.sum())


def teachers(profile: Profile, places: pd.DataFrame, *, validated: bool) -> NDArray[np.bool_]:
    """Which labelled places of other regions teach, bool (M,): all, or without those of the validation regions where
    what they teach is to be `validated` in them."""
    out = ~places["region"].isin([region.name for region in profile.regions_for("validation")] if validated else [])
    return np.asarray(out, np.bool_)


@remembered(maxsize=2)
def learned(profile: Profile, *, validated: bool = False) -> Reduction:
    """The reduction of a profile's recommended embedding (`frozen_features.recommended`)."""
    places = place_tables.elsewhere(profile)
    x, which = frozen_features.recommended(profile, places), teachers(profile, places, validated=validated)
    known = head.known(places[which].reset_index(drop=True))
    return reduction(x[which], known, profile.surroundings.compact, identity(profile))


def key(profile: Profile) -> dict[str, Any]:
    """What a profile's reduction depends on besides its points and maps; computes nothing."""
    return {
        "run": frozen_features.recommended_run(profile), "numbers": profile.surroundings.compact, "part": PART,
        "clip": CLIP, "penalty": head.PENALTY, "least": head.LEAST, "version": VERSION,
    }  # fmt: skip


def identity(profile: Profile) -> str:
    """`selm.embedding.map_embedder.MapEmbedder.identity` of what is reduced."""
    network = encoders.encoder(profile.times(profile.surroundings.longer), LONGER, 0, progress=False)
    first, *others = WIDE
    network.config = dataclasses.replace(
        network.config, zoom=first, context_zooms=tuple(others), orientations=profile.surroundings.orientations,
        stages=STAGES,
    )  # fmt: skip
    return Opened(network, {}, "cpu", ("colours",)).identity


def compact(profile: Profile, places: pd.DataFrame, *, validated: bool = False) -> NDArray[np.float32]:
    """(N, `Surroundings.compact`) the recommended embedding of places, reduced."""
    return learned(profile, validated=validated)(frozen_features.recommended(profile, places))


def about(profile: Profile, reduced: Reduction) -> dict[str, Any]:
    """Where a published reduction comes from: how many numbers, the places that teach it, their regions and labels."""
    places = place_tables.elsewhere(profile)
    return {
        "numbers": reduced.dim, "places": len(places), "regions": sorted(set(places["region"].astype(str))),
        "outputs": head.known(places).shape[1], "part": PART, "clip": CLIP,
        "points": place_tables.points_key(profile)[:12], **provenance(distributed.device()),
    }  # fmt: skip

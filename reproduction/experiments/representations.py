"""What Figures 2, 3 and 5 compare: the embeddings of the methods at hand, and two that need no training.

Figure 5 has each also *whitened* (`whitened`): another representation of the same run, whose name has
`reproduction.titles.WHITENED` at its end; and encoders' whitened features *beside the colours* of the same picture
(`beside_colours`), with "+colours" before that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from reproduction import rows, titles
from reproduction.computed import drawn_maps, encoders
from reproduction.experiments.pretrainings import complete, pretrainings
from reproduction.settings import Profile
from selm import distributed
from selm.embedding import search
from selm.encoder import MapEncoder, channels_last
from selm.maps.colours import colour_histogram
from selm.maps.style import lookup
from selm.settings import ORIENTATIONS, STAGES

BASELINES = {"pixels": "raw pixels", "histogram": "colour histogram"}
ALWAYS = ("dino", "gps_selm")  # pretrained where they are missing; the other methods appear once they are complete
WHITENED_VERSION = 1  # raise it when whitened numbers change
BESIDE_COLOURS = f"+colours{titles.WHITENED}"
# Colours' share beside whitened features: of 4, 6, 8, 12, 16 and 24 the best mean of three encoders (MoCo-V2+Geo+TP,
# MUGS, GPS-SELM) in Fukuoka and Hiroshima, 1,000 places each, turned and shifted by 0 to 100 m; tried by hand, once
COLOURS_SHARE = 6.0
PIXELS = 16  # a side, of the baseline that compares pictures pixel by pixel


def title(method: str) -> str:
    """What a representation is called in figures."""
    if is_whitened(method):
        return f"whitened {title(plain(method))}{' and colours' if method.endswith(BESIDE_COLOURS) else ''}"
    return BASELINES[method] if method in BASELINES else titles.title_of(method)


def is_whitened(method: str) -> bool:
    """Whether a representation is whitened."""
    return method.endswith(titles.WHITENED)


def plain(method: str) -> str:
    """A representation as it is before it is whitened, if it is."""
    return method.removesuffix(BESIDE_COLOURS).removesuffix(titles.WHITENED)


def made_of(method: str, seed: int) -> list[tuple[str, int]]:
    """The representations that one consists of: itself, or the whitened features and the colours beside them."""
    if not method.endswith(BESIDE_COLOURS):
        return [(method, seed)]
    return [(plain(method) + titles.WHITENED, seed), ("histogram", 0)]


def with_whitened(runs: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Some representations, after them each whitened (but raw pixels, which have no features to average), and after
    these those of encoders beside the colours."""
    runs = list(runs)
    whitened = [(method + titles.WHITENED, seed) for method, seed in runs if method != "pixels"]
    beside = [(method + BESIDE_COLOURS, seed) for method, seed in runs if method not in BASELINES]
    return runs + whitened + beside


def complete_ones(profile: Profile) -> list[tuple[str, int]]:
    """(name, seed) of what can be compared without training anything."""
    runs = [run for run in pretrainings(profile) if run[0] in rows.ONE_IMAGE and complete(profile, *run)]
    return [(name, 0) for name in (*BASELINES, "random_init")] + runs


def available(profile: Profile, which: Iterable[str] | None = None) -> list[tuple[str, int]]:
    """(name, seed) of what is compared: `complete_ones`, and `ALWAYS` whether or not they are trained yet.

    `which` keeps some names.
    """
    there = complete_ones(profile)
    out = there + [(name, 0) for name in ALWAYS if (name, 0) not in there]
    return [run for run in out if which is None or run[0] in set(which)]


def source(profile: Profile, method: str, seed: int) -> dict[str, Any]:
    """What a representation depends on besides the images: part of the address of whatever is made from it."""
    if method.endswith(BESIDE_COLOURS):
        return source(profile, plain(method) + titles.WHITENED, seed) | {"colours": COLOURS_SHARE}
    if is_whitened(method):
        how = {"ridge": search.RIDGE, "orientations": ORIENTATIONS[-1], "stages": STAGES, "version": WHITENED_VERSION}
        return source(profile, plain(method), seed) | {"whitened": how}
    if method in BASELINES:
        return {"method": method}
    return encoders.encoder_key(profile, method, seed)


def run_id(profile: Profile, method: str, seed: int) -> str:
    """The pretraining run's id, or the name of what was not pretrained."""
    method = plain(method)
    if method in BASELINES or method == "random_init":
        return method
    return encoders.run_id(profile, method, seed)


@lru_cache(maxsize=2)
def _table(palette: bytes) -> NDArray[np.uint8]:
    return lookup(np.frombuffer(palette, np.uint8).reshape(256, 3))


def _histograms(profile: Profile, images: Tensor) -> NDArray[np.float32]:
    colours = (drawn_maps.palette(profile) * 255).round().to(torch.uint8).numpy()
    levels = (images.cpu() * 255).round().to(torch.int64) >> 2
    address = levels[:, 0] | levels[:, 1] << 6 | levels[:, 2] << 12
    return colour_histogram(_table(colours.tobytes())[address.numpy()], colours)


def _unit(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def network(profile: Profile, method: str, seed: int) -> MapEncoder | None:
    """What a representation is computed by, on the device, for `vectors` or `whitened`; None for a histogram.

    Raw pixels are standardised as the encoders' images are. An encoder that is whitened gives the features of all its
    stages, averaged over the eight orientations of an image.
    """
    name = plain(method)
    if name == "histogram":
        return None
    if name == "pixels":
        return encoders.encoder(profile, "random_init")
    found, on = encoders.encoder(profile, name, seed), distributed.device()
    if is_whitened(method):
        found = channels_last(found)
        found.config = dataclasses.replace(found.config, orientations=ORIENTATIONS[-1], stages=STAGES)
    return found.to(on).eval()


def vectors(
    profile: Profile, method: str, seed: int, images: Iterable[Tensor], encoder: MapEncoder | None = None
) -> NDArray[np.float32]:
    """Vectors (N, d) of the images, between which the Euclidean distance is what the method calls far apart.

    images: batches (B, 3, h, w) float in [0, 1].  method: not a whitened one, which depends on a gallery (`whitened`).
    encoder: its `network`, for who asks more than once.

    Embeddings have length one, so that the order of distances is that of cosines; histograms are square roots of
    shares (Hellinger's distance); pixels are standardised, at `PIXELS` a side.
    """
    encoder = encoder or network(profile, method, seed)
    out = []
    with torch.no_grad():  # not around the whole: the encoder above may have to be trained
        for image in images:
            if encoder is None:
                out.append(np.sqrt(_histograms(profile, image)))
            elif method == "pixels":
                out.append(F.adaptive_avg_pool2d(encoder.standardise(image.cpu()), PIXELS).flatten(1).numpy())
            else:
                out.append(_unit(encoder(encoder.standardise(image.to(distributed.device()))).float().cpu().numpy()))
    return np.concatenate(out)


def whitened(
    profile: Profile, method: str, seed: int, images: Iterable[Tensor], whitening: search.Whitening | None = None,
    encoder: MapEncoder | None = None,
) -> tuple[NDArray[np.float32], search.Whitening]:  # fmt: skip
    """Whitened vectors (N, d) of the images, and the whitening: `whitening`, or where there is none that of these
    images. So a gallery is whitened by itself, and the questions by the gallery's.

    encoder: its `network`. A histogram, which knows neither stages nor orientations, is whitened as it is.
    """
    encoder = encoder or network(profile, method, seed)
    if encoder is None:
        x = vectors(profile, plain(method), seed, images)
    else:
        on = distributed.device()
        with torch.no_grad():
            parts = [encoder.embed(encoder.standardise(image.to(on))).float().cpu() for image in images]
        x = torch.cat(parts).numpy()
    whitening = whitening or search.whitening(x)
    return whitening(x), whitening


def beside_colours(features: NDArray[np.float32], colours: NDArray[np.float32]) -> NDArray[np.float32]:
    """Whitened features (N, d), to length one, and `COLOURS_SHARE` times the `vectors` (N, c) of a histogram, side by
    side."""
    return np.hstack([_unit(features), np.float32(COLOURS_SHARE) * colours])

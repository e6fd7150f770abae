"""Location encoders that others have published, with their own weights: peers on the same points.

GeoCLIP (Vivanco Cepeda, Nayak and Shah, NeurIPS 2023): the package ``geoclip``, MIT licence, comes with the weights of
its location encoder, which was trained to match photographs of the whole earth. It is asked for as it is published: a
coordinate gives 512 numbers, and no map is drawn. The package is an extra (`peers`) and never needed: where it is not
installed, its rows are absent.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
import warnings
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from selm import distributed
from selm.errors import InputError

GEOCLIP = "geoclip"
ALONE = "_geoclip_model_alone"  # the package's folder `model` under a name of our own
_BATCH = 8192


def geoclip_version() -> str:
    """The version of the package, or "" where it is not installed; imports nothing of it."""
    if importlib.util.find_spec(GEOCLIP) is None:
        return ""
    try:
        return importlib.metadata.version(GEOCLIP)
    except importlib.metadata.PackageNotFoundError:  # a folder of that name
        return ""


@lru_cache(maxsize=1)
def geoclip_encoder() -> nn.Module:
    """GeoCLIP's location encoder with its published weights, in evaluation mode: (N, 2) degrees (lat, lon) float32 →
    (N, 512).

    Raises InputError where the package is not installed. Of the package only the module of the location encoder is
    imported: the whole would import transformers and a model of photographs.
    """
    spec = importlib.util.find_spec(GEOCLIP)
    if spec is None or spec.origin is None:
        raise InputError("GeoCLIP's weights are not installed: pip install 'geoclip>=1.3' (about 45 MB, MIT licence)")
    if ALONE not in sys.modules:
        package = ModuleType(ALONE)
        package.__path__ = [str(Path(spec.origin).parent / "model")]
        sys.modules[ALONE] = package
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it scripts functions, which torch is going to give up
        made: nn.Module = importlib.import_module(f"{ALONE}.location_encoder").LocationEncoder()
    return made.eval()


@torch.no_grad()
def geoclip_features(lat: ArrayLike, lon: ArrayLike) -> NDArray[np.float32]:
    """What GeoCLIP's own location encoder says of coordinates in degrees: float32 (N, 512).

    Raises InputError where the package is not installed, and for what is not a coordinate.
    """
    at = np.column_stack([np.ravel(np.asarray(x, np.float64)) for x in (lat, lon)])
    bad = ~(np.isfinite(at).all(axis=1) & (np.abs(at) <= (90, 180)).all(axis=1))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(f"coordinates: row {row + 1} is not one (lat {at[row, 0]:g}, lon {at[row, 1]:g})")
    on = distributed.device()
    encoder = geoclip_encoder().to(on)
    parts = [encoder(part.to(on)).float().cpu() for part in torch.tensor(at, dtype=torch.float32).split(_BATCH)]
    return torch.cat(parts).numpy() if len(at) else np.zeros((0, 512), np.float32)

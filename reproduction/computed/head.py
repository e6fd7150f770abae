"""A head that other regions teach: what their official points say about the same features.

Regression from features to what is known at places of other regions: the price within its region, the density, the area
type and the zone, a column a class. Its outputs are further numbers of a place; no label of the tested region is behind
them. Kernel ridge regression where they stand in a probe of their own; a linear head where they go into a reduction.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from reproduction.places.labelled import raw_price

# By the errors of prices in Fukuoka and Hiroshima, with a head of the other regions. Of 0.07, 0.2, 0.7 and 2, for a
# linear head alone:
PENALTY = 0.2
# of widths 1 and 1.5 with penalties 0.1 and 0.5, and 2 with 0.1, for a kernel's outputs in a probe:
WIDTH, KERNEL_PENALTY = 1.5, 0.1
CLIP = 10.0  # standard deviations that features of a kernel are held within: maps elsewhere show what is rare here
LEAST = 30  # places that a class must have
KEY = (WIDTH, KERNEL_PENALTY, CLIP, LEAST)  # what `outputs` depends on, besides places and features


def known(places: pd.DataFrame) -> NDArray[np.float64]:
    """(N, T) what is known of labelled places, each column standardised, 0 where it is not known: the logarithm of the
    price, less its region's mean and over its deviation; ln(1 + people/km²); and 1 or 0 for each area type and zone
    that `LEAST` places have."""
    price = pd.Series(np.log(raw_price(places))).groupby(places["region"].to_numpy(str))
    columns = [price.transform(lambda of: (of - of.mean()) / of.std(ddof=0)).to_numpy(np.float64)]
    columns.append(np.log1p(places["density"].to_numpy(np.float64)))
    for name in ("area_type", "zone"):
        codes, counts = np.unique(places.loc[places[name] >= 0, name], return_counts=True)
        columns += [(places[name] == code).to_numpy(np.float64) for code in codes[counts >= LEAST]]
    table = np.column_stack(columns)
    return np.nan_to_num((table - np.nanmean(table, axis=0)) / np.nanstd(table, axis=0))


def outputs(
    features: NDArray[np.floating], taught: NDArray[np.floating], targets: NDArray[np.float64]
) -> NDArray[np.float32]:
    """(N, T) outputs for `features` (N, d) of the kernel head that learns `targets` Y (M, T) from the features `taught`
    (M, d), standardised by these and held within ± `CLIP`.

    k(a, b) = exp(−|a − b|² / (2 d `WIDTH`²)), K = k(taught, taught).
    Outputs: k(features, taught) (K + `KERNEL_PENALTY` I)⁻¹ Y.
    """
    mean, deviation = taught.mean(axis=0, dtype=np.float64), np.maximum(taught.std(axis=0, dtype=np.float64), 1e-6)
    scale = WIDTH * np.sqrt(taught.shape[1])
    z, centres = (
        torch.from_numpy((np.clip((x - mean) / deviation, -CLIP, CLIP) / scale).astype(np.float32))
        for x in (features, taught)
    )
    own = _kernel(centres, centres)
    own.diagonal().add_(KERNEL_PENALTY)
    dual = torch.cholesky_solve(torch.from_numpy(targets.astype(np.float32)), torch.linalg.cholesky(own))
    return np.asarray((_kernel(z, centres) @ dual).numpy())


def _kernel(one: Tensor, other: Tensor) -> Tensor:
    """(N, d), (M, d) → (N, M) exp(−|a − b|² / 2)."""
    out = one @ other.T
    out.sub_(one.square().sum(dim=1, keepdim=True) / 2).sub_(other.square().sum(dim=1) / 2)
    return out.clamp_(max=0).exp_()


def weights(z: NDArray[np.floating], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """B (d, T) of the head that learns `targets` Y (M, T) from standardised features Z (M, d).

    B = (Zᵀ Z / M + `PENALTY` I)⁻¹ Zᵀ Y / M
    """
    gram = z.T @ z / len(z)
    gram[np.diag_indices(len(gram))] += PENALTY
    return np.asarray(np.linalg.solve(gram, z.T @ targets / len(z)))

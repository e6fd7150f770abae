"""A linear head that other regions teach: what their official points say about the same features.

Ridge regression from features to what is known at places of other regions: the price within its region, the density,
the area type and the zone, a column a class. Its outputs are further numbers of a place; no label of the tested region
is behind them.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reproduction.places.labelled import raw_price

# Of 0.07, 0.2, 0.7 and 2 the least error of prices in Fukuoka and Hiroshima by a head of the other regions alone
PENALTY = 0.2
LEAST = 30  # places that a class must have


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
) -> NDArray[np.float64]:
    """(N, T) outputs for `features` (N, d) of the head that learns `targets` (M, T) from the features `taught` (M, d),
    standardised (`weights`)."""
    mean, deviation = taught.mean(axis=0, dtype=np.float64), taught.std(axis=0, dtype=np.float64)
    deviation[deviation == 0] = 1
    return np.asarray((features - mean) / deviation @ weights((taught - mean) / deviation, targets))


def weights(z: NDArray[np.floating], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """B (d, T) of the head that learns `targets` Y (M, T) from standardised features Z (M, d).

    B = (Zᵀ Z / M + `PENALTY` I)⁻¹ Zᵀ Y / M
    """
    gram = z.T @ z / len(z)
    gram[np.diag_indices(len(gram))] += PENALTY
    return np.asarray(np.linalg.solve(gram, z.T @ targets / len(z)))

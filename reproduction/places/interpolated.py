"""Places with interpolated prices, as the paper must have had them, and without the leak."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from reproduction.labels.land_price import RADIUS_M, inverse_distance_mean
from reproduction.places import splits
from reproduction.places.sampling import sample_places
from reproduction.settings import Profile
from selm.maps import sphere
from selm.maps.atlas import Atlas


def interpolated_points(
    profile: Profile, atlases: Mapping[str, Atlas], points: pd.DataFrame, n: int | None = None, seed: int = 0
) -> pd.DataFrame:
    """`n` (default: the profile's) coordinates of the test region that a price can be interpolated at.

    The paper tests on 50,000 Hokkaido locations, far more than there are official points, so it must have interpolated.
    `points` are the test rows of `probe_points`. The coordinates are sampled uniformly on the map among those within
    2 km of a point; their images pass the entropy filter. Columns `lat lon region split cell entropy`; `nearest`, the
    row number in `points` of the nearest one, whose side of a split the coordinate takes; and `price_leaking`, from
    all points before any split, for the one comparison that shows what leaking does. Prices that do not leak:
    `prices_by_fold`.
    """
    (region,) = profile.regions_for("test")
    point_lat, point_lon = points["lat"].to_numpy(), points["lon"].to_numpy()

    def allowed(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.bool_]:
        return sphere.within(lat, lon, point_lat, point_lon, RADIUS_M)

    maps = profile.maps
    table = sample_places(
        atlases[region.name], n or profile.probing.n_interpolated, seed + 2,
        region=region.name, zoom=maps.zooms[0], entropy_threshold=maps.entropy_threshold, allowed=allowed,
    )  # fmt: skip
    table["split"] = "test"
    table["cell"] = splits.cell_of(table["lat"], table["lon"], maps.cell_degrees)
    _, index = sphere.nearest_places(table["lat"], table["lon"], point_lat, point_lon)
    table["nearest"] = index[:, 0]
    leaking = inverse_distance_mean(table["lat"], table["lon"], point_lat, point_lon, points["price"])
    table["price_leaking"] = leaking.astype(np.float32)
    return table


def prices_by_fold(coordinates: pd.DataFrame, points: pd.DataFrame, fold: ArrayLike) -> NDArray[np.float32]:
    """Standardised prices, float32 (N,), of `interpolated_points`, each from the points of its own fold only.

    One array serves every split of a draw into training and test folds without leaking: no official point reaches both
    sides. `fold` int (M,) of each of `points`; a coordinate takes the fold of its nearest point. NaN where that is
    negative.
    """
    fold = np.asarray(fold)
    own = fold[coordinates["nearest"].to_numpy()]
    prices = np.full(len(coordinates), np.nan, np.float32)
    for number in np.unique(own[own >= 0]):
        rows, known = np.flatnonzero(own == number), np.flatnonzero(fold == number)
        at, of = coordinates.iloc[rows], points.iloc[known]
        prices[rows] = inverse_distance_mean(at["lat"], at["lon"], of["lat"], of["lon"], of["price"])
    return prices

"""Places sampled on the map: coordinates whose image passes the entropy filter (section 4)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from selm.errors import InputError
from selm.maps import entropy, mercator
from selm.maps.atlas import BLOCK_ZOOM, Atlas

Allowed = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.bool_]]
_MAX_LOOKED, _MAX_DRAWN = 50, 500  # images and coordinates, for each location, after which a search is given up


def sample_places(
    atlas: Atlas,
    n: int,
    seed: int,
    *,
    region: str,
    zoom: int = 17,
    size: int | None = None,
    entropy_threshold: float = entropy.THRESHOLD,
    allowed: Allowed | None = None,
) -> pd.DataFrame:
    """`n` coordinates, uniform over the atlas's blocks, whose image passes the entropy filter (section 4).

    Columns `lat lon region entropy`. The image is `size` pixels at `zoom`, by default one tile. `allowed(lat, lon)`
    drops coordinates before they are looked at. ``attrs["keep_rate"]`` is the share of images that passed and
    ``attrs["candidates"]`` their number. Raises InputError if the map shows too little to find `n`.
    """
    rng = np.random.default_rng([seed, *region.encode()])
    kept: list[pd.DataFrame] = []
    found = looked = drawn = 0
    want = int(np.ceil(1.3 * n)) + 16
    while found < n:
        if looked > _MAX_LOOKED * n + 1000 or drawn > _MAX_DRAWN * n + 10_000:
            where = f"{atlas.path}: only {found} of {n} locations found"
            raise InputError(f"{where}; {region} shows too little at {entropy_threshold} bits")
        lat, lon = _uniform(atlas, want, rng)
        drawn += want
        if allowed is not None:
            inside = allowed(lat, lon)
            lat, lon = lat[inside], lon[inside]
        bits = entropy.entropy_at(atlas, lat, lon, zoom=zoom, size=size)
        passed = entropy.keep(bits, entropy_threshold)
        kept.append(pd.DataFrame({"lat": lat[passed], "lon": lon[passed], "region": region, "entropy": bits[passed]}))
        found, looked = found + int(passed.sum()), looked + len(lat)
        want = int(np.ceil(min(1.2 * (n - found) * drawn / max(found, 1), 4 * drawn))) + 16  # at the rate so far
    table = pd.concat(kept, ignore_index=True).iloc[:n].reset_index(drop=True)
    table.attrs = {"keep_rate": found / looked, "candidates": looked}
    return table


def _uniform(atlas: Atlas, n: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """n coordinates, uniform over the atlas's blocks on the Web Mercator plane."""
    if not len(atlas.keys):
        raise InputError(f"{atlas.path}: the atlas has no blocks")
    corner = atlas.keys[rng.integers(len(atlas.keys), size=n)]
    offset = rng.random((n, 2))
    return mercator.from_tile(corner[:, 0] + offset[:, 0], corner[:, 1] + offset[:, 1], BLOCK_ZOOM)

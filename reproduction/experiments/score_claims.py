"""Claims of rows whose scores at the same points are in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd
from numpy.typing import ArrayLike

from selm.probes.claims import N_BOOT, draw, judge


def compare_claims(
    scores: Mapping[str, ArrayLike],
    claims: Iterable[tuple[str, str]],
    blocks: ArrayLike,
    *,
    higher_is_better: bool,
    n_boot: int = N_BOOT,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Test every claim (a, b), "a beats b", of one family by scores (N,) at the same points: the columns of `judge`
    after a and b. A row without scores gives ``not run``."""
    pairs = list(claims)
    family = [
        draw(scores[a], scores[b], blocks, higher_is_better=higher_is_better, n_boot=n_boot, seed=seed)
        if a in scores and b in scores
        else None
        for a, b in pairs
    ]
    return pd.concat([pd.DataFrame(pairs, columns=["a", "b"]), judge(family, level)], axis=1)

"""Figure 3: a way through the embedding space from one place to another, and what lies along it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from selm.errors import InputError, unknown

KINDS = ("linear", "spherical")


def interpolate(start: ArrayLike, end: ArrayLike, steps: int, kind: str = "linear") -> NDArray[np.float64]:
    """`steps` vectors (steps, d) from `start` to `end` (d,), both included, at equal intervals (section 4.4).

    ``linear``: along the straight line, as in the paper. ``spherical``: directions at equal angles on the great circle
    between the two (Shoemake 1985), lengths interpolated linearly; InputError for opposite directions, which have no
    one great circle.
    """
    a, b = np.asarray(start, np.float64), np.asarray(end, np.float64)
    if a.shape != b.shape or a.ndim != 1 or steps < 2:
        raise InputError(f"interpolation needs two vectors of one length and two steps: {a.shape}, {b.shape}, {steps}")
    t = np.linspace(0.0, 1.0, steps)[:, None]
    if kind == "linear":
        return (1 - t) * a + t * b
    if kind != "spherical":
        raise unknown("kind of interpolation", kind, KINDS)
    lengths = np.linalg.norm(a), np.linalg.norm(b)
    if min(lengths) == 0:
        raise InputError("spherical interpolation: a vector of length zero has no direction")
    u, v = a / lengths[0], b / lengths[1]
    angle = np.arccos(np.clip(u @ v, -1.0, 1.0))
    if np.pi - angle < 1e-6:
        raise InputError("spherical interpolation: opposite directions have no one way between them")
    if angle < 1e-6:  # the same direction
        direction = np.broadcast_to(u, (steps, len(u)))
    else:
        direction = (np.sin((1 - t) * angle) * u + np.sin(t * angle) * v) / np.sin(angle)
    return direction * ((1 - t) * lengths[0] + t * lengths[1])


def along(values: ArrayLike) -> float:
    """Spearman's rank correlation of a quantity (steps,) with the step: 1 where it only rises; 0 where it is constant.

    What "a gradual progression" (section 4.4) says of, for example, the share of built-up land.
    """
    v = np.asarray(values, np.float64)
    from scipy.stats import rankdata

    ranks, steps = rankdata(v), np.arange(len(v), dtype=np.float64)
    if np.ptp(ranks) == 0:
        return 0.0
    return float(np.corrcoef(ranks, steps)[0, 1])

"""The head that other regions teach, against a loop."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from reproduction.computed import head


def places(n: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({
        "region": np.where(np.arange(n) < n // 2, "north", "south"), "price_yen_m2": np.exp(rng.normal(size=n) + 3),
        "density": np.where(np.arange(n) % 5, rng.exponential(size=n), np.nan),
        "area_type": np.arange(n) % 3 - 1, "zone": np.where(np.arange(n) < head.LEAST - 1, 7, 2),
    })  # fmt: skip


def test_what_is_known_is_standardised_and_zero_where_it_is_not() -> None:
    table = places()
    found = head.known(table)
    # price, density, area types 0 and 1, zone 2; -1 is unknown, and zone 7 has too few places
    assert found.shape == (200, 5)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-12)
    for name in ("north", "south"):  # a price is that within its region
        some = found[table["region"] == name, 0]
        np.testing.assert_allclose([some.mean(), some.std()], [0, 1], atol=1e-12)
    assert (found[table["density"].isna(), 1] == 0).all()
    known = np.log1p(table["density"].dropna())
    np.testing.assert_allclose(found[table["density"].notna(), 1], (known - known.mean()) / known.std(ddof=0))
    assert len(np.unique(found[:, 2])) == len(np.unique(found[:, 4])) == 2


def test_the_kernel_heads_outputs_are_those_of_kernel_ridge_one_target_after_the_other() -> None:
    rng = np.random.default_rng(1)
    taught, features = rng.normal(2, 3, size=(50, 4)), rng.normal(2, 3, size=(6, 4))
    taught[:, 3] = 1.0  # held within `CLIP` deviations, however small these are
    features[0, 0] = 1e9  # held within `CLIP` standard deviations
    targets = rng.normal(size=(50, 2))
    found = head.outputs(features, taught, targets)
    mean, deviation = taught.mean(axis=0), np.array([*taught[:, :3].std(axis=0), 1e-6])
    z, held = (taught - mean) / deviation, np.clip((features - mean) / deviation, -head.CLIP, head.CLIP)

    def kernel(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.exp(-((one - other) ** 2).sum() / (2 * head.WIDTH**2 * 4)))

    near = np.array([[kernel(one, other) for other in z] for one in z])
    for t in range(2):

        def objective(weights: np.ndarray, y: np.ndarray = targets[:, t]) -> float:
            return float(((y - near @ weights) ** 2).sum() + head.KERNEL_PENALTY * weights @ near @ weights)

        weights = minimize(objective, np.zeros(len(z)), method="BFGS").x
        want = [sum(w * kernel(one, other) for w, other in zip(weights, z, strict=True)) for one in held]
        np.testing.assert_allclose(found[:, t], want, atol=2e-3)


def test_a_linear_heads_weights_are_those_of_ridge_one_target_after_the_other() -> None:
    rng = np.random.default_rng(1)
    z, targets = rng.normal(size=(50, 4)), rng.normal(size=(50, 2))
    found = head.weights(z, targets)
    for t in range(2):
        weights = np.zeros(4)
        for _ in range(4000):  # gradient descent on the mean squared error and the penalty
            error = z @ weights - targets[:, t]
            weights -= 0.1 * (z.T @ error / 50 + head.PENALTY * weights)
        np.testing.assert_allclose(found[:, t], weights, atol=1e-8)

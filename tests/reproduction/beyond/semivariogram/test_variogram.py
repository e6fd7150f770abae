"""The semivariogram against a slow loop, fits that get known models back, and pair weights by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reproduction.beyond.semivariogram import variogram
from reproduction.beyond.semivariogram.variogram import Empirical, Fit
from selm.errors import InputError
from selm.maps.mercator import haversine_m

pytest.importorskip("gstools")


def field(n: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    lat, lon = rng.uniform(43.0, 43.5, n), rng.uniform(141.0, 141.6, n)
    features = np.stack([np.sin(9 * lat), np.cos(7 * lon), np.sin(5 * lat * lon), rng.normal(size=n)], axis=1)
    return lat, lon, features


def test_empirical_against_a_loop() -> None:
    lat, lon, features = field()
    edges = np.array([0.0, 5.0, 10.0, 20.0, 40.0, 80.0])
    found = variogram.empirical(lat, lon, features, edges)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    sums, counts = np.zeros(5), np.zeros(5, int)
    for i in range(len(lat)):
        for j in range(i):
            h = float(haversine_m(lat[i], lon[i], lat[j], lon[j])) / 1000
            bin_ = int(np.searchsorted(edges, h, side="right")) - 1
            if bin_ < 5:
                sums[bin_] += 1 - unit[i] @ unit[j]
                counts[bin_] += 1
    there = counts > 0
    np.testing.assert_array_equal(found.pairs, counts[there])
    np.testing.assert_allclose(found.gamma, sums[there] / counts[there], rtol=1e-9)
    np.testing.assert_allclose(found.distance_km, ((edges[1:] + edges[:-1]) / 2)[there], rtol=1e-9)


@pytest.mark.parametrize("model", variogram.MODELS)
def test_a_known_model_is_found_again(model: str) -> None:
    true = Fit(model, 0.1, 0.5, 30.0, 1.0)
    h = np.linspace(1, 80, 40)
    gamma = true.expected(torch.as_tensor(h)).numpy()
    found = variogram.fit_variogram(Empirical(h, gamma, np.full(40, 100)), model)
    assert found.nugget == pytest.approx(0.1, abs=2e-3) and found.partial_sill == pytest.approx(0.5, abs=4e-3)
    assert (
        found.range_km == pytest.approx(30.0, rel=0.02)
        and found.r2 > 0.999
        and found.sill == pytest.approx(0.6, abs=4e-3)
    )


def test_models_at_their_range() -> None:
    h = torch.tensor([0.0, 30.0, 3000.0])
    for model, at_range in (("spherical", 1.0), ("exponential", 0.9502), ("gaussian", 0.9502)):
        low, middle, high = Fit(model, 0.1, 0.5, 30.0, 1.0).expected(h).tolist()
        assert low == 0 and middle == pytest.approx(0.1 + 0.5 * at_range, abs=1e-4) and high == pytest.approx(0.6)


def test_pair_weights_by_hand() -> None:
    fitted = Fit("spherical", 0.2, 0.6, 10.0, 1.0)
    # place 1 lies 1 km north of place 0 and looks nearly the same; place 2 100 km away does too; 3 is unlike all
    coordinates = torch.tensor([[43.0, 141.0], [43.009, 141.0], [43.9, 141.0], [43.45, 141.0]], dtype=torch.float64)
    features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.1], [-1.0, 0.0]])
    weight = variogram.pair_weights(fitted, coordinates, features)
    h = float(haversine_m(43.0, 141.0, 43.009, 141.0)) / 1000
    unlike = 1 - 1 / np.sqrt(1.01)
    gamma = 0.2 + 0.6 * (1.5 * h / 10 - 0.5 * (h / 10) ** 3)
    assert weight[0, 1].item() == pytest.approx(unlike / gamma, rel=1e-5)
    assert weight[0, 2].item() == pytest.approx(1 + (0.8 - unlike) / 0.8, rel=1e-5)
    assert weight[0, 3].item() == 1  # less alike than expected
    assert weight.diagonal().tolist() == [1, 1, 1, 1] and torch.equal(weight, weight.T)
    plain = variogram.pair_weights(fitted, coordinates, features, strength=0.0)
    assert torch.equal(plain, torch.ones(4, 4))
    shares = variogram.kinds(fitted, coordinates, features)
    assert shares["false"] == pytest.approx(2 / 12) and shares["hard"] == pytest.approx(4 / 12)
    twins = variogram.pair_weights(fitted, coordinates[[0, 0]], features[[0, 0]])
    assert torch.isfinite(twins).all()


def test_bad_input_is_named() -> None:
    lat, lon, features = field(10)
    with pytest.raises(InputError, match="must rise"):
        variogram.empirical(lat, lon, features, [1.0, 1.0])
    with pytest.raises(InputError, match="row 3 of the features"):
        variogram.empirical(lat, lon, np.where(np.arange(10)[:, None] == 3, 0, features), [0.0, 10.0])
    with pytest.raises(InputError, match="did you mean 'gaussian'"):
        variogram.fit_variogram(Empirical(np.arange(1.0, 6), np.arange(1.0, 6), np.ones(5, int)), "gausian")
    with pytest.raises(InputError, match="too few"):
        variogram.fit_variogram(Empirical(np.ones(2), np.ones(2), np.ones(2, int)), "spherical")
    with pytest.raises(InputError, match="below 0"):
        variogram.pair_weights(Fit("spherical", 0, 1, 1, 1), torch.zeros(2, 2), torch.ones(2, 2), -1.0)

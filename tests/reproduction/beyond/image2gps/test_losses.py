"""Image2GPS's losses against slow loops, and the distance's gradient where the usual formula breaks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from reproduction.beyond.image2gps.losses import distance_contrast, great_circle_m, haversine_loss, normalised_mse
from selm.maps.mercator import EARTH_RADIUS_M
from selm.maps.mercator import haversine_m as reference


def test_distance_against_numpy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.uniform([-89, -179], [89, 179], (2, 200, 2))
    b[:50] = a[:50] + rng.normal(0, 1e-4, (50, 2))  # metres apart
    found = great_circle_m(torch.tensor(a), torch.tensor(b)).numpy()
    # the root's ε adds at most a centimetre near 0
    np.testing.assert_allclose(found, reference(a[:, 0], a[:, 1], b[:, 0], b[:, 1]), rtol=1e-6, atol=2e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("a", "b", "metres"),
    [
        ((39.95, -75.19), (39.95, -75.19), 0.0),  # a prediction that meets its target
        ((0.0, 0.0), (0.0, 180.0), math.pi * EARTH_RADIUS_M),  # antipodal
        ((30.0, 20.0), (-30.0, -160.0), math.pi * EARTH_RADIUS_M),
        ((90.0, 0.0), (-90.0, 77.0), math.pi * EARTH_RADIUS_M),
        ((95.0, 10.0), (85.0, -170.0), 0.0),  # over the pole: latitude 95 is latitude 85 on the other side
        ((-725.0, 400.0), (-5.0, 40.0), 0.0),  # two turns out of range
        ((1e6, -1e6), (39.95, -75.19), None),
        ((39.95, 359.0), (39.95, -1.0), 0.0),
    ],
)
def test_value_and_gradient_are_finite_everywhere(a, b, metres, dtype) -> None:
    predicted = torch.tensor([a], dtype=dtype, requires_grad=True)
    loss = haversine_loss(predicted, torch.tensor([b], dtype=dtype))
    loss.backward()
    assert predicted.grad is not None and torch.isfinite(loss) and torch.isfinite(predicted.grad).all()
    if metres is not None:
        assert loss.item() == pytest.approx(metres, abs=0.05)
    assert 0 <= loss.item() <= math.pi * EARTH_RADIUS_M


def test_the_usual_formula_does_break_where_this_one_does_not() -> None:
    a = torch.tensor([[39.95, -75.19]], requires_grad=True)
    phi = torch.deg2rad(a)
    h = torch.sin((phi - phi.detach()) / 2).square().sum()
    (2 * EARTH_RADIUS_M * torch.asin(h.sqrt())).backward()
    assert a.grad is not None and not torch.isfinite(a.grad).any()


def test_gradient_points_away_from_the_target_at_a_metre_a_metre() -> None:
    a = torch.tensor([[40.001, -75.0]], dtype=torch.float64, requires_grad=True)
    haversine_loss(a, torch.tensor([[40.0, -75.0]], dtype=torch.float64)).backward()
    assert a.grad is not None
    assert a.grad[0, 0].item() == pytest.approx(math.radians(1) * EARTH_RADIUS_M, rel=1e-7) and abs(a.grad[0, 1]) < 1e-6


def test_contrast_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(9, 5))
    coordinates = rng.normal([39.95, -75.19], 1e-3, (9, 2))
    total = 0.0
    for i in range(9):
        for j in range(9):
            if i != j:
                cos = features[i] @ features[j] / np.linalg.norm(features[i]) / np.linalg.norm(features[j])
                total += (cos - math.exp(-reference(*coordinates[i], *coordinates[j]) / 60.0)) ** 2
    found = distance_contrast(torch.tensor(features), torch.tensor(coordinates), 60.0)
    assert found.item() == pytest.approx(total / 72, rel=1e-4)


def test_contrast_of_places_that_coincide_has_a_finite_gradient() -> None:
    features = torch.randn(4, 3, requires_grad=True)
    distance_contrast(features, torch.full((4, 2), 40.0), 50.0).backward()
    assert features.grad is not None and torch.isfinite(features.grad).all()


def test_mse_by_hand() -> None:
    assert normalised_mse(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])).item() == pytest.approx(2.5)

"""Image2GPS's training on made-up images whose coordinate is their colour."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from reproduction.beyond.image2gps import training
from reproduction.beyond.image2gps.networks import Img2GPS
from reproduction.beyond.image2gps.training import Labelled, Scale
from selm.errors import InputError
from selm.maps.mercator import haversine_m


class Small(Img2GPS):
    """An `Img2GPS` with one convolution for a backbone."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.features = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU())
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
        self.project = nn.Linear(8, 8)
        self.regress = nn.Sequential(nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 2))


def places(n: int = 96, seed: int = 0) -> Labelled:
    rng = np.random.default_rng(seed)
    at = rng.uniform(0, 1, (n, 2))
    images = np.full((n, 3, 16, 16), 128, np.uint8)
    images[:, 0], images[:, 2] = (
        (255 * at[:, 0]).astype(np.uint8)[:, None, None],
        (255 * at[:, 1]).astype(np.uint8)[:, None, None],
    )
    coordinates = np.array([39.95, -75.19]) + at * 0.003
    return Labelled(torch.from_numpy(images), torch.from_numpy(coordinates))


@pytest.mark.parametrize("loss", training.LOSSES)
def test_training_beats_the_mean_and_keeps_the_best_epoch(loss: str) -> None:
    torch.manual_seed(0)
    train, validation = places(), places(40, 1)
    done = training.train(Small(), train, validation, epochs=25, batch=16, lr=1e-2, loss=loss)
    assert done.best_epoch == 1 + int(np.argmin([row["val_loss"] for row in done.curve])) and len(done.curve) == 25
    found = training.predict(done, validation.images)
    error = training.average_distance_m(found, validation.coordinates)
    assert error == pytest.approx(done.curve[done.best_epoch - 1]["val_ahd_m"], rel=1e-4)
    mean = training.average_distance_m(training.mean_predictor(train, 40), validation.coordinates)
    assert error < 0.6 * mean
    again = training.train(_fresh(), train, validation, epochs=2, batch=16, lr=1e-2, loss=loss)
    twice = training.train(_fresh(), train, validation, epochs=2, batch=16, lr=1e-2, loss=loss)
    assert again.curve == twice.curve  # the seed decides


def _fresh() -> Small:
    torch.manual_seed(3)
    return Small()


def test_shaping_brings_near_places_together() -> None:
    torch.manual_seed(0)
    train, validation = places(), places(40, 1)
    network = Small()

    def correlation() -> float:
        f = training.embed(network, validation.images)
        f = f / np.linalg.norm(f, axis=1, keepdims=True)
        c = validation.coordinates.numpy()
        far = haversine_m(c[:, None, 0], c[:, None, 1], c[None, :, 0], c[None, :, 1])
        pairs = np.triu_indices(40, 1)
        return float(np.corrcoef((f @ f.T)[pairs], np.exp(-far / 100)[pairs])[0, 1])

    before = correlation()
    done = training.shape_features(network, train, validation, tau_m=100.0, epochs=30, batch=32, lr=1e-2)
    assert done.curve[-1]["val_loss"] < done.curve[0]["val_loss"] and correlation() > max(before, 0.7)


def test_knn_by_hand() -> None:
    features = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    coordinates = np.array([[0.0, 0.0], [10.0, 0.0], [4.0, 8.0]])
    query = np.array([[2.0, 1.0]])
    cos = np.array([2, 1, 3 / np.sqrt(2)]) / np.sqrt(5)
    weight = 1 / (1 - cos)
    np.testing.assert_allclose(training.nearest_images(features, coordinates, query, 1), [[4.0, 8.0]])
    expected = (weight[:, None] * coordinates).sum(axis=0) / weight.sum()
    np.testing.assert_allclose(training.nearest_images(features, coordinates, query, 3), expected[None])
    np.testing.assert_allclose(
        training.nearest_images(features, coordinates, features[:1] * 5, 3), [[0.0, 0.0]], atol=1e-9
    )
    with pytest.raises(InputError, match="k = 4 neighbours of 3"):
        training.nearest_images(features, coordinates, query, 4)


def test_scale_goes_there_and_back() -> None:
    coordinates = places().coordinates
    scale = Scale.of(coordinates)
    standardised = scale(coordinates)
    np.testing.assert_allclose(standardised.mean(dim=0), 0, atol=1e-5)
    np.testing.assert_allclose(standardised.std(dim=0, correction=0), 1, atol=1e-5)
    torch.testing.assert_close(scale.back(standardised), coordinates, rtol=0, atol=1e-8)
    same = Scale.of(torch.full((3, 2), 40.0))
    assert torch.isfinite(same(torch.full((3, 2), 40.0))).all()


def test_augmented_images_stay_images() -> None:
    images = places(8).images
    generator = torch.Generator().manual_seed(0)
    out = training.augment(images, generator)
    assert out.shape == images.shape and out.min() >= 0 and out.max() <= 255
    plain = training.augment(images, torch.Generator().manual_seed(0), least_area=1.0, jitter=0.0)
    torch.testing.assert_close(plain, images.float(), rtol=0, atol=1e-3)


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="unknown loss 'l1'"):
        training.train(Small(), places(), places(), epochs=1, batch=8, lr=1e-3, loss="l1")
    with pytest.raises(InputError, match="too few"):
        training.train(Small(), places(1), places(), epochs=1, batch=8, lr=1e-3)
    with pytest.raises(InputError, match="not finite in epoch 1"):
        training.train(Small(), places(), places(), epochs=1, batch=8, lr=float("inf"))

"""Training and predicting: regression with the best epoch kept, features shaped by distance, and k-NN retrieval.

This is not `selm.pretrain`: that loop pretrains by steps over an endless stream of views, this one goes through a small
labelled set by epochs and stops at the best validation loss.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from tqdm import tqdm

from reproduction.beyond.image2gps.losses import distance_contrast, haversine_loss, normalised_mse
from reproduction.beyond.image2gps.networks import IMAGENET_MEAN, IMAGENET_STD, Img2GPS
from selm.errors import InputError
from selm.maps.mercator import haversine_m

LOSSES = ("mse", "haversine")


@dataclass(frozen=True)
class Scale:
    """Standardises coordinates by the training set's mean and deviation: (N, 2) degrees ↔ (N, 2)."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, coordinates: Tensor) -> Scale:
        """Of (N, 2) degrees; a coordinate that does not vary keeps its unit."""
        std = coordinates.double().std(dim=0, correction=0)
        return cls(coordinates.double().mean(dim=0), torch.where(std > 0, std, torch.ones_like(std)))

    def __call__(self, coordinates: Tensor) -> Tensor:
        return ((coordinates.double() - self.mean) / self.std).float()

    def back(self, standardised: Tensor) -> Tensor:
        return standardised.double() * self.std + self.mean


@dataclass(frozen=True)
class Labelled:
    """Images uint8 (N, 3, px, px) and their coordinates float64 (N, 2), degrees."""

    images: Tensor
    coordinates: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def some(self, rows: ArrayLike) -> Labelled:
        index = torch.as_tensor(np.asarray(rows))
        return Labelled(self.images[index], self.coordinates[index])


@dataclass(frozen=True)
class Trained:
    """The network at its best epoch, its scale, and one row an epoch: epoch, train_loss, val_loss, val_ahd_m."""

    network: Img2GPS
    scale: Scale
    curve: list[dict[str, float]]
    best_epoch: int


def standardise(images: Tensor) -> Tensor:
    """uint8 (or float in 0 … 255) → float32 by ImageNet's mean and deviation."""
    mean = torch.tensor(IMAGENET_MEAN, device=images.device)[:, None, None]
    std = torch.tensor(IMAGENET_STD, device=images.device)[:, None, None]
    return (images.float() / 255 - mean) / std


def augment(images: Tensor, generator: torch.Generator, least_area: float = 0.6, jitter: float = 0.2) -> Tensor:
    """uint8 (B, 3, px, px) → float32 of the same scale: random crops resized back, brightness and contrast jittered.

    The source's random cropping, resizing and colour jitter (appendix A.3); its amounts are not given, these are ours.
    """
    n, _, px, _ = images.shape
    u = torch.rand(n, 5, generator=generator)
    side = torch.sqrt(least_area + (1 - least_area) * u[:, 0])
    shift = (2 * u[:, 1:3] - 1) * (1 - side)[:, None]
    line = (torch.arange(px) + 0.5) / px * 2 - 1
    x = line[None, :] * side[:, None] + shift[:, :1]
    y = line[None, :] * side[:, None] + shift[:, 1:]
    grid = torch.stack([x[:, None, :].expand(n, px, px), y[:, :, None].expand(n, px, px)], dim=-1)
    grid = grid.to(images.device)
    out = torch.nn.functional.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    bright, contrast = (1 + jitter * (2 * u[:, 3:] - 1)).to(images.device).unbind(dim=1)
    middle = out.mean(dim=(1, 2, 3), keepdim=True)
    return ((out - middle) * contrast[:, None, None, None] + middle * bright[:, None, None, None]).clamp(0, 255)


def train(
    network: Img2GPS,
    training: Labelled,
    validation: Labelled,
    *,
    epochs: int,
    batch: int,
    lr: float,
    loss: str = "mse",
    seed: int = 42,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Trained:
    """Fit the network to the training images' coordinates with AdamW; the epoch of least validation loss is kept.

    loss: ``mse`` of standardised coordinates, or ``haversine``: mean metres over the training area's mean distance from
    its middle (so that the learning rate fits both). Raises InputError when the loss is not finite.
    """
    if loss not in LOSSES:
        raise InputError(f"unknown loss '{loss}' (there are: {', '.join(LOSSES)})")
    scale = Scale.of(training.coordinates)
    spread = float(haversine_m(*scale.mean.tolist(), *training.coordinates.T.numpy()).mean()) or 1.0

    def measure(standardised: Tensor, coordinates: Tensor) -> Tensor:
        if loss == "mse":
            return normalised_mse(standardised, scale(coordinates).to(standardised.device))
        predicted = scale.back(standardised.cpu()) if standardised.device.type != "cpu" else scale.back(standardised)
        return haversine_loss(predicted, coordinates) / spread

    return _fit(
        network, training, validation, scale, network.forward, measure,
        epochs=epochs, batch=batch, lr=lr, seed=seed, device=device, progress=progress,
        judge=lambda out: float(average_distance_m(scale.back(out), validation.coordinates)),
    )  # fmt: skip


def shape_features(
    network: Img2GPS,
    training: Labelled,
    validation: Labelled,
    *,
    tau_m: float,
    epochs: int,
    batch: int,
    lr: float,
    seed: int = 42,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Trained:
    """The second stage: the embedding's pairwise cosines follow the pairs' distances (`losses.distance_contrast`)."""
    scale = Scale.of(training.coordinates)
    return _fit(
        network, training, validation, scale, network.embed,
        lambda embedding, coordinates: distance_contrast(embedding, coordinates.to(embedding.device), tau_m),
        epochs=epochs, batch=batch, lr=lr, seed=seed, device=device, progress=progress, judge=None,
    )  # fmt: skip


def _fit(
    network: Img2GPS, training: Labelled, validation: Labelled, scale: Scale, forward: Callable[[Tensor], Tensor],
    measure: Callable[[Tensor, Tensor], Tensor], *, epochs: int, batch: int, lr: float, seed: int,
    device: torch.device | str, progress: bool, judge: Callable[[Tensor], float] | None,
) -> Trained:  # fmt: skip
    if len(training) < 2 or len(validation) < 2:
        raise InputError(f"image to GPS: {len(training)} training and {len(validation)} validation images are too few")
    network.to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(seed)
    curve: list[dict[str, float]] = []
    best, kept, best_epoch = float("inf"), copy.deepcopy(network.state_dict()), 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout and stochastic depth
        for epoch in tqdm(range(1, epochs + 1), desc="image to GPS", unit="epoch", disable=not progress, leave=False):
            network.train()
            total = 0.0
            order = torch.randperm(len(training), generator=generator)
            parts = order.tensor_split(max(1, round(len(training) / batch)))  # nearly equal: no batch of one image
            for rows in parts:
                images = standardise(augment(training.images[rows].to(device), generator))
                value = measure(forward(images), training.coordinates[rows])
                optimizer.zero_grad(set_to_none=True)
                value.backward()
                optimizer.step()
                total += float(value.detach()) * len(rows)
            out = _apply(network, forward, validation.images, batch, device)
            held_out = float(measure(out, validation.coordinates))
            row = {"epoch": epoch, "train_loss": total / len(training), "val_loss": held_out}
            if not np.isfinite([row["train_loss"], held_out]).all():
                raise InputError(f"image to GPS: the loss is not finite in epoch {epoch}; lower the learning rate")
            if judge is not None:
                row["val_ahd_m"] = judge(out)
            curve.append(row)
            if held_out < best:
                best, kept, best_epoch = held_out, copy.deepcopy(network.state_dict()), epoch
    network.load_state_dict(kept)
    return Trained(network.eval().cpu(), scale, curve, best_epoch)


@torch.no_grad()
def _apply(
    network: torch.nn.Module, forward: Callable[[Tensor], Tensor], images: Tensor, batch: int,
    device: torch.device | str,
) -> Tensor:  # fmt: skip
    network.eval()
    return torch.cat([forward(standardise(part.to(device))).float().cpu() for part in images.split(batch)])


def predict(trained: Trained, images: Tensor, batch: int = 128) -> Tensor:
    """(N, 2) degrees, float64."""
    out = _apply(trained.network, trained.network.forward, images, batch, "cpu")
    return trained.scale.back(out)


def embed(network: torch.nn.Module, images: Tensor, batch: int = 128) -> NDArray[np.float32]:
    """(N, d): the embedding of an `Img2GPS`, or the output of any other network (a ViT)."""
    forward = network.embed if isinstance(network, Img2GPS) else network.__call__
    return _apply(network, forward, images, batch, "cpu").numpy()


def nearest_images(features: ArrayLike, coordinates: ArrayLike, queries: ArrayLike, k: int) -> NDArray[np.float64]:
    """Coordinates (Q, 2) as the mean of those of the k most alike training images, weighted by inverse cosine distance.

    scikit-learn's k-NN regression; an image identical to a training image takes its coordinate.
    """
    from sklearn.neighbors import KNeighborsRegressor

    x, y, q = np.asarray(features, np.float64), np.asarray(coordinates, np.float64), np.asarray(queries, np.float64)
    if not 1 <= k <= len(x):
        raise InputError(f"k = {k} neighbours of {len(x)} training images")
    model: Any = KNeighborsRegressor(k, weights="distance", metric="cosine").fit(x, y)
    return np.asarray(model.predict(q), np.float64)


def average_distance_m(predicted: ArrayLike, coordinates: ArrayLike) -> float:
    """The source's AHD: mean great-circle distance in metres between (N, 2) predicted and true degrees."""
    p, c = np.asarray(predicted, np.float64), np.asarray(coordinates, np.float64)
    return float(haversine_m(p[:, 0], p[:, 1], c[:, 0], c[:, 1]).mean())


def mean_predictor(training: Labelled, n: int) -> Tensor:
    """(n, 2): the mean coordinate of the training images, for every image."""
    return training.coordinates.double().mean(dim=0).expand(n, 2)

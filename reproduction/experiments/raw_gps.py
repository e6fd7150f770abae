"""The paper's *raw GPS* row: a small perceptron on latitude and longitude, all draws and folds at once."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from tqdm import tqdm

from selm.errors import InputError
from selm.probes.folds import BufferedFolds, Collector, OutOfFold, problems
from selm.probes.frozen import fold_statistics, minibatches

INPUTS = ("raw", "standardised")


def raw_gps(
    lat: ArrayLike,
    lon: ArrayLike,
    targets: ArrayLike,
    folds: ArrayLike | BufferedFolds,
    *,
    task: str,
    inputs: str = "raw",
    hidden: int = 128,
    epochs: tuple[int, ...] = (1, 25, 50),
    batch: int = 64,
    lr: float = 1e-3,
    weight_decay: float = 1e-2,
    seed: int = 0,
    test_folds: tuple[int, ...] | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> OutOfFold:
    """Three linear layers (2-128-128-outputs, ReLU) on (lat, lon), trained with AdamW; section 4, *Baselines*.

    inputs: ``raw`` feeds degrees as they are, as the paper's figures suggest it did; ``standardised`` subtracts the
        training fold's mean and divides by its deviation.
    Otherwise as `selm.probes.frozen.frozen`, minibatches included; each model starts from its own weights.
    """
    if inputs not in INPUTS:
        raise InputError(f"unknown inputs '{inputs}' (there are: {', '.join(INPUTS)})")
    layout = problems(targets, folds, task, test_folds=test_folds)
    where = torch.device(device)
    x = torch.as_tensor(np.column_stack([lat, lon]), dtype=torch.float64, device=where)
    if len(x) != layout.n_points:
        raise InputError(f"coordinates: {len(x)} rows, but folds are of {layout.n_points} points")
    if not torch.isfinite(x).all():
        row = int((~torch.isfinite(x).all(dim=1)).nonzero()[0])
        raise InputError(f"coordinates: row {row} holds NaN or infinity")
    if not epochs or min(epochs) < 1 or list(epochs) != sorted(set(epochs)):
        raise InputError(f"epochs: {epochs} is not a rising list of positive numbers")
    n_problems, n_outputs = len(layout.draw), layout.n_classes
    if inputs == "standardised":
        mean, deviation = fold_statistics(x, layout.train)
        x3 = ((x - mean[:, None]) / deviation[:, None]).float()  # (P, N, 2)
    else:
        x3 = x.float().expand(n_problems, -1, -1)
    weights, biases = layers((2, hidden, hidden, n_outputs), n_problems, seed, where)
    optimizer = torch.optim.AdamW(
        [{"params": weights, "weight_decay": weight_decay}, {"params": biases, "weight_decay": 0.0}], lr=lr
    )
    member = torch.as_tensor(layout.train, dtype=torch.float32, device=where)
    truth = np.where(layout.train, layout.targets[layout.draw], 0)
    centre = truth.sum(axis=1) / layout.train.sum(axis=1) if task == "regression" else np.zeros(n_problems)
    y = torch.as_tensor(truth - centre[:, None], dtype=torch.float32, device=where) if task == "regression" else None
    codes = None if task == "regression" else torch.as_tensor(truth, dtype=torch.int64, device=where)

    def outputs(inputs: Tensor) -> Tensor:
        """(P, B, 2) → (P, B, outputs)."""
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            inputs = torch.baddbmm(bias, inputs, weight)
            if layer < len(weights) - 1:
                inputs = inputs.relu()
        return inputs

    collected = Collector(layout, epochs)
    share = float(layout.train.mean())
    schedule = minibatches(layout.n_points, batch, share, epochs[-1], seed)
    for epoch, indices in enumerate(tqdm(schedule, desc="raw GPS", total=epochs[-1], disable=not progress), start=1):
        for index in indices:
            index = index.to(where)
            out, wb = outputs(x3[:, index]), member[:, index]
            if y is not None:
                loss = (out[:, :, 0] - y[:, index]).square()
            else:
                assert codes is not None
                loss = torch.nn.functional.cross_entropy(out.transpose(1, 2), codes[:, index], reduction="none")
            # the sum over problems: each has its own weights, so each gets the gradient of its own mean
            total = ((loss * wb).sum(dim=1) / wb.sum(dim=1).clamp_min(1.0)).sum()
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            optimizer.step()
        if epoch in epochs:
            with torch.no_grad():
                everywhere = outputs(x3).double().cpu().numpy()
            for p in range(n_problems):
                collected.add(epochs.index(epoch), p, everywhere[p, layout.test[p]] + centre[p])
    return collected.result(inputs=inputs)


def layers(
    widths: tuple[int, ...], n_problems: int, seed: int, where: torch.device
) -> tuple[list[Tensor], list[Tensor]]:
    """Weights (P, in, out) and biases (P, 1, out), uniform in ± 1/sqrt(in) as torch's linear layers are."""
    generator = torch.Generator().manual_seed(seed)
    weights: list[Tensor] = []
    biases: list[Tensor] = []
    for fan_in, fan_out in itertools.pairwise(widths):
        limit = 1 / math.sqrt(fan_in)
        for shape, kept in (((n_problems, fan_in, fan_out), weights), ((n_problems, 1, fan_out), biases)):
            values = torch.empty(shape).uniform_(-limit, limit, generator=generator)
            kept.append(values.to(where).requires_grad_())
    return weights, biases

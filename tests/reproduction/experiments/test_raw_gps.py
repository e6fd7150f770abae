"""The batched perceptron against torch's own layers, one model at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from reproduction.experiments.raw_gps import layers, raw_gps
from selm.errors import InputError
from selm.probes.folds import random_folds
from selm.probes.frozen import minibatches


def places(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    lat, lon = rng.uniform(42, 45, n), rng.uniform(140, 145, n)
    return lat, lon, np.sin(lat) + 0.3 * (lon - 142), (lat > 43.5).astype(np.int64) + (lon > 142)


@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize("inputs", ["raw", "standardised"])
def test_equals_torch_layers_one_model_at_a_time(task: str, inputs: str) -> None:
    lat, lon, price, codes = places(50)
    targets = price if task == "regression" else codes
    folds = random_folds(50, range(2), n_folds=3)
    result = raw_gps(
        lat, lon, targets, folds, task=task, inputs=inputs, hidden=16, epochs=(1, 4), batch=8, lr=0.01, seed=2
    )
    n_outputs = 1 if task == "regression" else 3
    weights, biases = layers((2, 16, 16, n_outputs), 6, 2, torch.device("cpu"))
    share = np.mean([(row != f).mean() for row in folds for f in range(3)])
    for p, (draw, fold) in enumerate((draw, fold) for draw in range(2) for fold in range(3)):
        train, test = folds[draw] != fold, folds[draw] == fold
        x = np.column_stack([lat, lon])
        if inputs == "standardised":
            x = (x - x[train].mean(0)) / x[train].std(0)
        x = torch.tensor(x, dtype=torch.float32)
        linear = [nn.Linear(2, 16), nn.Linear(16, 16), nn.Linear(16, n_outputs)]
        for layer, weight, bias in zip(linear, weights, biases, strict=True):
            layer.weight.data, layer.bias.data = weight[p].detach().T.clone(), bias[p, 0].detach().clone()
        network = nn.Sequential(linear[0], nn.ReLU(), linear[1], nn.ReLU(), linear[2])
        optimizer = torch.optim.AdamW(
            [
                {"params": [layer.weight for layer in linear], "weight_decay": 1e-2},
                {"params": [layer.bias for layer in linear], "weight_decay": 0.0},
            ],
            lr=0.01,
        )
        centre = targets[train].mean() if task == "regression" else 0.0
        for epoch, indices in enumerate(minibatches(50, 8, share, 4, 2), start=1):
            for index in indices:
                rows = index.numpy()[train[index.numpy()]]
                out = network(x[rows])
                if task == "regression":
                    y = torch.tensor(targets[rows] - centre, dtype=torch.float32)
                    loss = nn.functional.mse_loss(out[:, 0], y)
                else:
                    loss = nn.functional.cross_entropy(out, torch.tensor(targets[rows]))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if epoch in (1, 4):
                out = network(x[test]).detach().numpy()
                expected = out[:, 0] + centre if task == "regression" else out.argmax(1)
                found = result.predictions[(1, 4).index(epoch), draw, test]
                np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


def test_standardising_helps() -> None:
    lat, lon, price, _ = places(300)
    folds = random_folds(300, range(2))
    error = {
        inputs: raw_gps(lat, lon, price, folds, task="regression", inputs=inputs, epochs=(25,)).values("mse").mean()
        for inputs in ("raw", "standardised")
    }
    assert error["standardised"] < 0.5 * price.var()
    assert error["standardised"] < error["raw"]


def test_missing_and_bad_input() -> None:
    lat, lon, price, _ = places(20)
    price[2] = np.nan
    folds = random_folds(20, [0], n_folds=2)
    result = raw_gps(lat, lon, price, folds, task="regression", epochs=(1,))
    assert np.isnan(result.predictions[0, 0, 2])
    assert result.n_test.tolist() == [19]
    lat[5] = np.nan
    with pytest.raises(InputError, match="row 5 holds NaN"):
        raw_gps(lat, lon, price, folds, task="regression")
    with pytest.raises(InputError, match="unknown inputs 'metres'"):
        raw_gps(lat, lon, price, folds, task="regression", inputs="metres")

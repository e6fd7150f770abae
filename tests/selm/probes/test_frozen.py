"""The batched linear probes against one model at a time, trained by torch and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from selm.errors import InputError
from selm.probes.folds import random_folds
from selm.probes.frozen import fit_logistic, fold_statistics, frozen, logistic, minibatches, ridge


def points(n: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features with very different means and scales, prices and class codes that depend on them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * 10.0 ** rng.uniform(-2, 2, d) + rng.normal(size=d) * 5
    z = (x - x.mean(0)) / x.std(0)
    price = z @ rng.normal(size=d) / math.sqrt(d) + 0.3 * rng.normal(size=n) - 1.0
    codes = (z @ rng.normal(size=(d, 4)) + rng.gumbel(size=(n, 4))).argmax(1)
    return x, price, codes


def slow_probe(x, targets, fold, tested, task, epochs, batch, lr, weight_decay, seed, share):  # type: ignore[no-untyped-def]
    """One model: torch's own linear layer and AdamW on features standardised beforehand; outputs at `epochs`."""
    usable = np.isfinite(targets) if task == "regression" else targets >= 0
    train, test = usable & (fold != tested) & (fold >= 0), usable & (fold == tested)
    mean, std = x[train].mean(0), x[train].std(0)
    z = torch.tensor((x - mean) / std, dtype=torch.float32)
    n_outputs = 1 if task == "regression" else int(targets.max()) + 1
    layer = torch.nn.Linear(x.shape[1], n_outputs)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimizer = torch.optim.AdamW(
        [{"params": [layer.weight], "weight_decay": weight_decay}, {"params": [layer.bias], "weight_decay": 0.0}],
        lr=lr / math.sqrt(x.shape[1]),
    )
    centre = targets[train].mean() if task == "regression" else 0.0
    found = {}
    for epoch, indices in enumerate(minibatches(len(x), batch, share, max(epochs), seed), start=1):
        for index in indices:
            rows = index.numpy()[train[index.numpy()]]
            out = layer(z[rows])
            if task == "regression":
                y = torch.tensor(targets[rows] - centre, dtype=torch.float32)
                loss = torch.nn.functional.mse_loss(out[:, 0], y)
            else:
                loss = torch.nn.functional.cross_entropy(out, torch.tensor(targets[rows]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if epoch in epochs:
            found[epoch] = layer(z[test]).detach().double().numpy() + centre
    return test, found


@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize(("n", "d", "batch"), [(60, 3, 16), (97, 20, 8)])
def test_batched_probe_equals_one_model_at_a_time(task: str, n: int, d: int, batch: int) -> None:
    x, price, codes = points(n, d)
    targets = price if task == "regression" else codes
    targets[5] = np.nan if task == "regression" else -1
    folds = random_folds(n, range(2), n_folds=5)
    folds[1, 11] = -1
    settings = {"epochs": (1, 4), "batch": batch, "lr": 0.05, "weight_decay": 0.1, "seed": 7}
    result = frozen(x, targets, folds, task=task, **settings)
    usable = np.isfinite(targets) if task == "regression" else targets >= 0
    share = np.mean([(usable & (row != f) & (row >= 0)).mean() for row in folds for f in range(5)])
    for draw in range(2):
        for fold in range(5):
            test, found = slow_probe(x, targets, folds[draw], fold, task, share=share, **settings)
            for evaluation, epoch in enumerate((1, 4)):
                out = found[epoch]
                if task == "regression":
                    np.testing.assert_allclose(
                        result.predictions[evaluation, draw, test], out[:, 0], rtol=2e-4, atol=2e-5
                    )
                    squared = (out[:, 0] - targets[test]) ** 2
                    np.testing.assert_allclose(result.scores["mse"][evaluation, draw, test], squared, rtol=5e-3)
                else:
                    np.testing.assert_array_equal(result.predictions[evaluation, draw, test], out.argmax(1))
                    np.testing.assert_array_equal(
                        result.scores["top1"][evaluation, draw, test], out.argmax(1) == targets[test]
                    )
    assert np.isnan(result.predictions[:, :, 5]).all()
    assert np.isnan(result.predictions[:, 1, 11]).all()
    assert result.n_test.tolist() == [n - 1, n - 2]


def test_grouping_does_not_change_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    x, price, _ = points(80, 6)
    folds = random_folds(80, range(3), n_folds=4)
    together = frozen(x, price, folds, task="regression", epochs=(3,))
    monkeypatch.setattr("selm.probes.frozen._WEIGHTS_AT_ONCE", {"cpu": 12})
    apart = frozen(x, price, folds, task="regression", epochs=(3,))
    np.testing.assert_allclose(together.predictions, apart.predictions, rtol=1e-4, atol=1e-5)


def test_minibatches_cover_every_point_once_an_epoch_in_even_sizes() -> None:
    for indices in minibatches(130, 32, 0.9, 3, seed=1):
        assert sorted(torch.cat(indices).tolist()) == list(range(130))
        assert max(map(len, indices)) - min(map(len, indices)) <= 1
        assert np.mean([len(i) for i in indices]) * 0.9 == pytest.approx(32, rel=0.15)


def test_statistics_come_from_the_training_fold_alone() -> None:
    x = torch.tensor([[1.0, 5.0], [3.0, 5.0], [100.0, 9.0]], dtype=torch.float64)
    mean, deviation = fold_statistics(x, np.array([[True, True, False], [False, True, True]]))
    np.testing.assert_allclose(mean, [[2, 5], [51.5, 7]])
    np.testing.assert_allclose(deviation, [[1, math.inf], [48.5, 2]])  # a constant feature says nothing


@pytest.mark.parametrize("probe", ["frozen", "ridge", "logistic"])
def test_no_leak_from_tested_points(probe: str) -> None:
    """Altering one tested point's features and label changes the prediction for no other point of its fold."""
    x, price, codes = points(60, 4)
    folds = random_folds(60, [0], n_folds=3)
    victim = int(np.flatnonzero(folds[0] == 1)[0])

    def predictions() -> np.ndarray:
        if probe == "frozen":
            return frozen(x, price, folds, task="regression", epochs=(2,)).predictions[0, 0]
        if probe == "ridge":
            return ridge(x, price, folds).predictions[0, 0]
        return logistic(x, codes, folds).predictions[0, 0]

    before = predictions()
    x[victim] *= 50.0
    price[victim] += 100.0
    codes[victim] = (codes[victim] + 1) % 4
    after = predictions()
    same_fold = (folds[0] == 1) & (np.arange(60) != victim)
    np.testing.assert_allclose(after[same_fold], before[same_fold], rtol=1e-4, atol=1e-5)
    if probe != "logistic":
        assert (np.abs(after - before)[folds[0] != 1] > 1e-4).any()  # it is a training point there


def test_deterministic_and_seeded() -> None:
    x, price, _ = points(70, 5)
    folds = random_folds(70, range(2))
    one, two = (frozen(x, price, folds, task="regression", epochs=(2,), seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.predictions, two.predictions)
    other = frozen(x, price, folds, task="regression", epochs=(2,), seed=4)
    assert not np.allclose(one.predictions, other.predictions)


def test_evaluations_do_not_disturb_training() -> None:
    x, price, _ = points(70, 5)
    folds = random_folds(70, range(2))
    many = frozen(x, price, folds, task="regression", epochs=(1, 2, 5))
    one = frozen(x, price, folds, task="regression", epochs=(5,))
    np.testing.assert_array_equal(many.predictions[2], one.predictions[0])


def test_targets_may_depend_on_the_draw() -> None:
    x, price, _ = points(50, 4)
    folds = random_folds(50, range(2), n_folds=5)
    both = ridge(x, np.stack([price, -2 * price]), folds)
    np.testing.assert_allclose(both.predictions[0, 1], -2 * ridge(x, price, folds).predictions[0, 1], rtol=1e-5)


@pytest.mark.parametrize(("n", "d"), [(40, 6), (30, 50)])
def test_ridge_equals_scikit_learn_with_leave_one_out_by_hand(n: int, d: int) -> None:
    x, price, _ = points(n, d)
    folds = random_folds(n, [1], n_folds=3)
    penalties = (1e-3, 1e-1, 10.0)
    result = ridge(x, price, folds, penalties=penalties)
    chosen = []
    for fold in range(3):
        train, test = folds[0] != fold, folds[0] == fold
        z = (x - x[train].mean(0)) / x[train].std(0)
        rows = np.flatnonzero(train)
        errors = []
        for penalty in penalties:
            squared = 0.0
            for left_out in rows:
                kept = rows[rows != left_out]
                # the same objective without one point: its columns stay standardised by the whole training fold
                model = Ridge(alpha=len(rows) * penalty).fit(z[kept], price[kept])
                squared += (model.predict(z[[left_out]])[0] - price[left_out]) ** 2
            errors.append(squared)
        best = penalties[int(np.argmin(errors))]
        chosen.append(best)
        expected = Ridge(alpha=len(rows) * best).fit(z[train], price[train]).predict(z[test])
        np.testing.assert_allclose(result.predictions[0, 0, test], expected, rtol=1e-4, atol=1e-5)
    assert result.notes["penalty_median"] == pytest.approx(np.median(chosen))
    assert result.epochs == (0,)


def test_logistic_equals_scikit_learn() -> None:
    x, _, codes = points(150, 8)
    folds = random_folds(150, [0], n_folds=3)
    result = logistic(x, codes, folds, penalty=0.02, tolerance=1e-7)
    for fold in range(3):
        train, test = folds[0] != fold, folds[0] == fold
        z = (x - x[train].mean(0)) / x[train].std(0)
        model = LogisticRegression(C=1 / (0.02 * train.sum()), tol=1e-9, max_iter=5000).fit(z[train], codes[train])
        np.testing.assert_array_equal(result.predictions[0, 0, test], model.predict(z[test]))
    z = torch.tensor((x - x.mean(0)) / x.std(0), dtype=torch.float64)
    weight, bias, iterations = fit_logistic(z, torch.tensor(codes), 4, 0.02, 1e-8, 2000)
    assert iterations < 2000
    model = LogisticRegression(C=1 / (0.02 * 150), tol=1e-10, max_iter=5000).fit(z.numpy(), codes)
    np.testing.assert_allclose(weight.T, model.coef_, atol=2e-5)
    np.testing.assert_allclose(bias - bias.mean(), model.intercept_ - model.intercept_.mean(), atol=2e-5)


def test_logistic_of_more_features_than_points() -> None:
    x, _, codes = points(40, 400)  # so many more that the span of the points is taken
    a = torch.tensor((x - x.mean(0)) / x.std(0))
    weight, bias, iterations = fit_logistic(a, torch.tensor(codes), 4, 0.05, 1e-8, 2000)
    assert weight.shape == (400, 4) and iterations < 2000
    model = LogisticRegression(C=1 / (0.05 * 40), tol=1e-10, max_iter=5000).fit(a.numpy(), codes)
    np.testing.assert_allclose(weight.T, model.coef_, atol=2e-5)
    again = fit_logistic(a, torch.tensor(codes), 4, 0.05, 1e-8, 2000, (weight, bias))
    np.testing.assert_allclose(again[0], weight, atol=1e-6)
    assert again[2] < iterations / 2  # a fit starts from the last one


@pytest.mark.parametrize("probe", ["frozen", "logistic"])
def test_a_class_unseen_in_training_is_an_error_and_counted(probe: str) -> None:
    x, _, _ = points(30, 3)
    codes = np.arange(30) % 2
    codes[4] = 6  # one point only
    folds = random_folds(30, [0], n_folds=3)
    if probe == "frozen":
        result = frozen(x, codes, folds, task="classification", epochs=(1,))
    else:
        result = logistic(x, codes, folds)
    assert result.scores["top1"][0, 0, 4] == 0.0
    assert result.scores["top5"][0, 0, 4] == 0.0
    seen_two = folds[0] == folds[0, 4]
    seen_two[4] = False
    assert (result.scores["top5"][0, 0, seen_two] == 1.0).all()  # two classes fit into five places
    assert result.notes["tested_of_unseen_class"] == 1
    assert result.notes["classes_present"] == 3


def test_a_learnable_target_is_learnt_and_noise_is_not() -> None:
    x, price, _ = points(400, 5)
    folds = random_folds(400, range(2))
    result = frozen(x, price, folds, task="regression", epochs=(1, 50), lr=0.03)
    late = result.values("mse")[1].mean()
    assert late < result.values("mse")[0].mean()
    assert late == pytest.approx(ridge(x, price, folds).values("mse").mean(), rel=0.1)
    noise = np.random.default_rng(0).normal(size=400)
    assert ridge(x, noise, folds).values("mse").mean() == pytest.approx(noise.var(), rel=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: np.where(np.arange(20)[:, None] == 7, np.nan, x), "row 7 holds NaN"),
        (lambda x: x[:12], "12 rows, but folds are of 20 points"),
        (lambda x: x[:, 0], r"expected an array \(points, dimensions\)"),
    ],
)
def test_bad_features_are_named(change, message: str) -> None:  # type: ignore[no-untyped-def]
    x, price, _ = points(20, 2)
    with pytest.raises(InputError, match=message):
        frozen(change(x), price, random_folds(20, [0]), task="regression")
    with pytest.raises(InputError, match=message):
        ridge(change(x), price, random_folds(20, [0]))


def test_bad_epochs_are_named() -> None:
    x, price, _ = points(20, 2)
    with pytest.raises(InputError, match="epochs"):
        frozen(x, price, random_folds(20, [0]), task="regression", epochs=(5, 1))

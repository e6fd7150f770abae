"""Linear probes on frozen features, all draws and folds as one batched problem.

Two probes: a linear layer trained for so many epochs (the *frozen* columns of Tables 1 and 2), and the best linear
layer in closed form (ridge), or at the minimum of its convex loss (logistic regression), beside it.

How a hundred models train at once. Every epoch shuffles *all* points and cuts them into minibatches; model p learns
from those members of a minibatch that are in its training fold and ignores the others. Its minibatches are then random
subsets of its own training fold, of nearly equal size, that go through the fold once an epoch: just what it would see
alone. The minibatch's features are multiplied once with the weights of all models. Each model standardises features
by the mean and deviation of its own training fold; this is folded into its weights, so that the product is shared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from tqdm import tqdm

from selm.errors import InputError
from selm.probes.folds import BufferedFolds, Collector, OutOfFold, Problems, problems

# Weights of the models trained in one go: about what stays in a core's second-level cache with Adam's two moments.
_WEIGHTS_AT_ONCE = {"cpu": 400_000, "cuda": 100_000_000}

# So many times fewer points than features: solving in the points' span saves more than the turning there costs.
_FAR_FEWER = 8

PENALTIES = tuple(float(10.0**power) for power in np.arange(-4.0, 3.5, 0.5))  # of ridge: 1e-4 to 1e3


def minibatches(n: int, batch: int, share: float, epochs: int, seed: int) -> Iterator[list[Tensor]]:
    """The minibatches of each epoch: lists of int64 index tensors that cover 0..n−1 in random order.

    They are so large that on average `batch` members are training points when a `share` of all points is, and of
    nearly equal size (a leftover minibatch of two points would take as large a step as one of 64).
    """
    generator = torch.Generator().manual_seed(seed)
    n_batches = max(1, round(n * share / batch))
    for _ in range(epochs):
        yield list(torch.randperm(n, generator=generator).tensor_split(n_batches))


def conditioned(features: ArrayLike | Tensor) -> Tensor:
    """Features shifted and scaled by their medians and quartile ranges, for float32's sake only.

    Standardising by the training fold undoes any such shift and scale exactly.
    """
    x = torch.as_tensor(features)
    if x.ndim != 2:
        raise InputError(f"features: expected an array (points, dimensions), got shape {tuple(x.shape)}")
    if not torch.isfinite(x).all():
        row = int((~torch.isfinite(x).all(dim=1)).nonzero()[0])
        raise InputError(f"features: row {row} holds NaN or infinity")
    x = x.double()
    low, middle, high = x.sort(dim=0).values[[round(q * (len(x) - 1)) for q in (0.25, 0.5, 0.75)]]
    spread = high - low
    spread = torch.where(spread > 0, spread, x.std(dim=0, correction=0))
    return (x - middle) / torch.where(spread > 0, spread, 1.0)


def _problems(
    features: ArrayLike | Tensor, targets: ArrayLike, folds: ArrayLike | BufferedFolds, task: str,
    test_folds: tuple[int, ...] | None, device: str | torch.device | None,
) -> tuple[Tensor, Problems]:  # fmt: skip
    x, layout = conditioned(features), problems(targets, folds, task, test_folds=test_folds)
    if len(x) != layout.n_points:
        raise InputError(f"features: {len(x)} rows, but folds are of {layout.n_points} points")
    return x if device is None else x.to(device), layout


def fold_statistics(x: Tensor, train: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the training points of each problem: (N, d), (P, N) → two (P, d).

    A feature that is constant over the training points gets deviation infinity, and so weight zero.
    """
    weights = torch.as_tensor(train, dtype=x.dtype, device=x.device)
    weights = weights / weights.sum(dim=1, keepdim=True)
    mean = weights @ x
    # from squares about the mean, two passes: E[x²] − E[x]² cancels for features with a large mean
    variance = torch.stack([row @ (x - centre).square() for row, centre in zip(weights, mean, strict=True)])
    deviation = variance.clamp_min(0).sqrt()
    return mean, torch.where(deviation > 1e-9, deviation, math.inf)


def frozen(
    features: ArrayLike | Tensor,
    targets: ArrayLike,
    folds: ArrayLike | BufferedFolds,
    *,
    task: str,
    epochs: tuple[int, ...] = (1, 25, 50),
    batch: int = 64,
    lr: float = 1e-2,
    weight_decay: float = 1e-2,
    seed: int = 0,
    test_folds: tuple[int, ...] | None = None,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> OutOfFold:
    """Train a linear layer on frozen features with AdamW and score it out of fold after each of `epochs`.

    features: (N, d).  targets, folds, test_folds: as in `selm.probes.folds.problems`.
    lr: the step is lr / sqrt(d), because every one of d standardised features moves the output by a step at once.
    Loss: squared error on targets centred by the training fold's mean, or cross-entropy; weights start at zero; the
    learning rate is constant, so that one run passes through every one of `epochs`.
    Deterministic for a seed on CPU. `device` is by default where the features are.
    """
    x64, layout = _problems(features, targets, folds, task, test_folds, device)
    if not epochs or min(epochs) < 1 or list(epochs) != sorted(set(epochs)):
        raise InputError(f"epochs: {epochs} is not a rising list of positive numbers")
    outputs = Collector(layout, epochs)
    size = max(1, _WEIGHTS_AT_ONCE["cuda" if x64.is_cuda else "cpu"] // (x64.shape[1] * layout.n_classes))
    groups = np.array_split(np.arange(len(layout.draw)), math.ceil(len(layout.draw) / size))
    with tqdm(total=len(groups) * epochs[-1], desc="linear probe", disable=not progress, leave=False) as bar:
        for group in groups:
            _train(x64, layout, group, outputs, batch, lr, weight_decay, seed, bar)
    return outputs.result()


def _train(
    x64: Tensor, layout: Problems, group: NDArray[np.int64], outputs: Collector,
    batch: int, lr: float, weight_decay: float, seed: int, bar: tqdm,
) -> None:  # fmt: skip
    """Train the problems of `group` (G of them) together; weights are kept as (d, G, c)."""
    where, (n, d), g, c = x64.device, x64.shape, len(group), layout.n_classes
    regression = layout.task == "regression"
    mean64, deviation64 = fold_statistics(x64, layout.train[group])
    x = x64.float()
    mean = mean64.float().T.contiguous().unsqueeze(2)  # (d, G, 1)
    inverse = deviation64.reciprocal().float().T.contiguous().unsqueeze(2)
    member = torch.as_tensor(layout.train[group].T, dtype=torch.float32, device=where).contiguous()  # (N, G)
    y64 = np.ascontiguousarray(np.where(layout.train[group], layout.targets[layout.draw[group]], 0).T)  # (N, G)
    centre = y64.sum(axis=0) / layout.train[group].sum(axis=1) if regression else np.zeros(g)
    y = torch.as_tensor(y64 - centre, dtype=torch.float32, device=where) if regression else None
    codes = None if regression else torch.as_tensor(y64, dtype=torch.int64, device=where).unsqueeze(2)

    weight = torch.zeros(d, g, c, device=where)
    bias = torch.zeros(g, c, device=where)
    optimizer = torch.optim.AdamW(
        [{"params": [weight], "weight_decay": weight_decay}, {"params": [bias], "weight_decay": 0.0}],
        lr=lr / math.sqrt(d),
        fused=True,
    )
    share = float(layout.train[group].mean())
    # one seed for all groups: the minibatches do not depend on how the problems are grouped
    for epoch, indices in enumerate(minibatches(n, batch, share, outputs.epochs[-1], seed), start=1):
        for index in indices:
            index = index.to(where)
            xb, wb = x[index], member[index]
            scaled = weight * inverse
            shift = bias - (mean * scaled).sum(dim=0)
            out = (xb @ scaled.view(d, g * c)).view(-1, g, c) + shift
            if y is not None:
                error = 2.0 * (out - y[index].unsqueeze(2))
            else:
                assert codes is not None
                error = out.softmax(dim=2)
                error.scatter_add_(2, codes[index], -torch.ones_like(error[:, :, :1]))
            error *= (wb / wb.sum(dim=0).clamp_min(1.0)).unsqueeze(2)
            total = error.sum(dim=0)
            gradient = (xb.T @ error.view(-1, g * c)).view(d, g, c)
            weight.grad = gradient.addcmul_(mean, total.unsqueeze(0), value=-1.0).mul_(inverse)
            bias.grad = total
            optimizer.step()
        if epoch in outputs.epochs:
            scaled = weight * inverse
            shift = bias - (mean * scaled).sum(dim=0)
            for i, problem in enumerate(group):
                test = torch.as_tensor(layout.test[problem].nonzero()[0], device=where)
                out = x[test] @ scaled[:, i] + shift[i]
                outputs.add(outputs.epochs.index(epoch), problem, out.cpu().double().numpy() + centre[i])
        bar.update()


def ridge(
    features: ArrayLike | Tensor,
    targets: ArrayLike,
    folds: ArrayLike | BufferedFolds,
    *,
    penalties: ArrayLike = PENALTIES,
    test_folds: tuple[int, ...] | None = None,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> OutOfFold:
    """Ridge regression on standardised features: the linear probe's closed form.

    Minimises mean squared error + penalty · ‖w‖²; of `penalties`, each training fold takes the one with the least
    leave-one-out error on itself, from the eigenvalues of its Gram matrix. Arguments otherwise as in `frozen`.
    """
    x, layout = _problems(features, targets, folds, "regression", test_folds, device)
    grid = torch.as_tensor(np.asarray(penalties, dtype=np.float64), device=x.device)
    outputs = Collector(layout, (0,))
    chosen = []
    mean, deviation = fold_statistics(x, layout.train)
    for p in tqdm(range(len(layout.draw)), desc="ridge", disable=not progress, leave=False):
        train = torch.as_tensor(layout.train[p], device=x.device)
        test = torch.as_tensor(layout.test[p], device=x.device)
        standardised = (x - mean[p]) / deviation[p]
        a, b = standardised[train], standardised[test]
        y = torch.as_tensor(layout.targets[layout.draw[p], layout.train[p]].copy(), device=x.device)
        centre = y.mean()
        predicted, penalty = _ridge_by_loo(a, y - centre, b, grid)
        outputs.add(0, p, (predicted + centre).cpu().numpy()[:, None])
        chosen.append(penalty)
    return outputs.result(penalty_median=float(np.median(chosen)))


def _ridge_by_loo(a: Tensor, y: Tensor, b: Tensor, penalties: Tensor) -> tuple[Tensor, float]:
    """Ridge of centred y (n,) on centred a (n, d): predictions at b (m, d), and the penalty chosen.

    The leave-one-out residual of a linear smoother is residual / (1 − leverage); the intercept adds 1/n to it.
    """
    n, d = a.shape
    if n <= d:  # eigenvectors u of a aᵀ
        values, u = torch.linalg.eigh(a @ a.T)
    else:  # of aᵀ a, then u = a v / s
        values, v = torch.linalg.eigh(a.T @ a)
        u = a @ v / values.clamp_min(1e-12 * values[-1]).sqrt()
    rank = values > 1e-10 * values[-1]
    values, u = values[rank], u[:, rank]
    along = u.T @ y
    shrink = values[:, None] / (values[:, None] + n * penalties)  # (r, number of penalties)
    residual = y[:, None] - u @ (shrink * along[:, None])
    leverage = u.square() @ shrink + 1.0 / n
    loo = (residual / (1.0 - leverage).clamp_min(1e-6)).square().mean(dim=0)
    best = int(loo.argmin())
    dual = u @ (along / (values + n * penalties[best]))
    return b @ (a.T @ dual), float(penalties[best])


def logistic(
    features: ArrayLike | Tensor,
    targets: ArrayLike,
    folds: ArrayLike | BufferedFolds,
    *,
    penalty: float = 1e-2,
    tolerance: float = 1e-5,
    max_iterations: int = 500,
    test_folds: tuple[int, ...] | None = None,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> OutOfFold:
    """Multinomial logistic regression at its minimum: mean cross-entropy + penalty / 2 · ‖W‖², free intercept.

    Newton's method with Böhning's bound in place of the Hessian (½ XᵀX/n for every class, 1992), which needs one
    factorisation a fold and never a line search, with Nesterov's momentum restarted when it turns uphill. It ends when
    no entry of the gradient is above `tolerance`. Arguments otherwise as in `frozen`.
    """
    x, layout = _problems(features, targets, folds, "classification", test_folds, device)
    outputs = Collector(layout, (0,))
    mean, deviation = fold_statistics(x, layout.train)
    iterations = []
    # folds share most points: a fit starts from the last one with the same classes and ends at its own minimum
    starts: dict[bytes, tuple[Tensor, Tensor]] = {}
    for p in tqdm(range(len(layout.draw)), desc="logistic", disable=not progress, leave=False):
        train = torch.as_tensor(layout.train[p], device=x.device)
        test = torch.as_tensor(layout.test[p], device=x.device)
        standardised = (x - mean[p]) / deviation[p]
        # unseen classes are left out of the fit: their intercepts would run to −infinity
        seen, codes = np.unique(layout.targets[layout.draw[p], layout.train[p]], return_inverse=True)
        labels = torch.as_tensor(codes, device=x.device)
        weight, bias, n_iterations = fit_logistic(
            standardised[train].float(), labels, len(seen), penalty, tolerance, max_iterations,
            starts.get(seen.tobytes()),
        )  # fmt: skip
        starts[seen.tobytes()] = (weight, bias)
        scores = np.full((int(test.sum()), layout.n_classes), -np.inf)
        scores[:, seen] = (standardised[test].float() @ weight + bias).cpu().numpy()
        outputs.add(0, p, scores)
        iterations.append(n_iterations)
    return outputs.result(penalty=penalty, iterations_max=max(iterations))


def fit_logistic(
    a: Tensor, labels: Tensor, n_classes: int, penalty: float, tolerance: float, max_iterations: int,
    start: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, int]:  # fmt: skip
    """Weights (d, c), intercepts (c,) and the iterations taken; a: (n, d) centred features."""
    n, d = a.shape
    if _FAR_FEWER * n < d:  # weights lie in the span of the rows: the same problem in at most n dimensions
        values, u = torch.linalg.eigh(a.double() @ a.double().T)
        kept = values > 1e-10 * values[-1]
        along, lengths = u[:, kept], values[kept].sqrt()
        turn = (a.double().T @ along / lengths).to(a.dtype)  # (d, r), orthonormal columns
        at = None if start is None else (turn.T @ start[0], start[1])
        small = (along * lengths).to(a.dtype)
        weight, bias, iterations = fit_logistic(small, labels, n_classes, penalty, tolerance, max_iterations, at)
        return turn @ weight, bias, iterations
    one_hot = a.new_zeros(n, n_classes).scatter_(1, labels[:, None], 1.0)
    rows = torch.cat([a, a.new_ones(n, 1)], dim=1)  # the last column is the intercept's
    columns, decay = rows.T / n, torch.cat([a.new_full((d, 1), penalty), a.new_zeros(1, 1)])
    # the training fold's mean is zero, so the intercept's block of the bound is ½ and stands alone
    bound = (a.T @ a * (0.5 / n)).double() + penalty * torch.eye(d, dtype=torch.float64, device=a.device)
    inverse = torch.block_diag(torch.cholesky_inverse(torch.linalg.cholesky(bound)), 2 * bound.new_ones(1, 1))
    inverse = inverse.to(a.dtype)
    weight, bias = start or (a.new_zeros(d, n_classes), one_hot.mean(dim=0).log())
    both = torch.cat([weight, bias[None]])  # (d + 1, c)
    before, momentum = both, 1.0
    for iteration in range(1, max_iterations + 1):
        following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        ahead = both + (momentum - 1) / following * (both - before)
        gradient = torch.addmm(decay * ahead, columns, (rows @ ahead).softmax(dim=1) - one_hot)
        before, momentum = both, following
        both = torch.addmm(ahead, inverse, gradient, alpha=-1)
        if float(gradient.abs().max()) < tolerance:
            return both[:-1], both[-1], iteration
        if float((gradient * (both - before)).sum()) > 0:
            before, momentum = both, 1.0
    return both[:-1], both[-1], max_iterations

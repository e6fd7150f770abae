"""Fine-tuning against a loop written out by hand, and what must not leak or drift."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reproduction.experiments.finetune import EncoderWithHead, finetune, flips
from selm.errors import InputError
from selm.probes.folds import random_folds
from selm.probes.frozen import minibatches

DIM = 6


def make_encoder(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, DIM, 3, stride=2), nn.BatchNorm2d(DIM), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(60, 3, 8, 8, generator=generator) + torch.randn(60, 3, 1, 1, generator=generator)


def prices(pictures: Tensor) -> np.ndarray:
    return 2.0 * pictures[:, 0].mean(dim=(1, 2)).numpy().astype(np.float64) - 0.5


def test_equals_a_loop_by_hand(pictures: Tensor) -> None:
    targets, folds = prices(pictures), random_folds(60, range(2))
    targets[3] = np.nan
    result = finetune(
        make_encoder, DIM, lambda index: pictures[index], targets, folds, task="regression", epochs=(1, 3),
        batch=16, lr=1e-3, head_lr=0.02, weight_decay=0.1, warmup_steps=4, clip=0.5, augment="none", seeds=[5, 9],
    )  # fmt: skip
    for draw, seed in enumerate([5, 9]):
        usable = np.isfinite(targets)
        train = np.flatnonzero(usable & (folds[draw] > 1))
        test = np.flatnonzero(usable & (folds[draw] <= 1))
        centre = targets[train].mean()
        encoder, norm, head = make_encoder(seed), nn.BatchNorm1d(DIM, affine=False), nn.Linear(DIM, 1)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        decay = {encoder[0].weight: (1e-3, 0.1), head.weight: (0.02 / math.sqrt(DIM), 0.1)}
        others = dict.fromkeys((encoder[0].bias, encoder[1].weight, encoder[1].bias), (0.001, 0.0))
        others[head.bias] = (0.02 / math.sqrt(DIM), 0.0)
        groups = [{"params": [p], "lr": a, "weight_decay": b} for p, (a, b) in (decay | others).items()]
        base = [group["lr"] for group in groups]
        optimizer = torch.optim.AdamW(groups)
        step = 0
        for epoch, cuts in enumerate(minibatches(len(train), 16, 1.0, 3, seed), start=1):
            encoder.train(), norm.train()
            for cut in cuts:
                rows = train[cut.numpy()]
                out = head(norm(encoder(pictures[rows])))[:, 0]
                loss = (out - torch.tensor(targets[rows] - centre, dtype=torch.float32)).square().mean()
                optimizer.zero_grad()
                loss.backward()
                parameters = [p for group in groups for p in group["params"]]
                norm_all = torch.sqrt(sum(p.grad.square().sum() for p in parameters))
                for p in parameters:
                    p.grad *= min(1.0, 0.5 / (float(norm_all) + 1e-6))
                step += 1
                for group, rate in zip(optimizer.param_groups, base, strict=True):
                    group["lr"] = rate * min(1.0, step / 4)
                optimizer.step()
            if epoch in (1, 3):
                encoder.eval(), norm.eval()
                expected = head(norm(encoder(pictures[test])))[:, 0].detach().double().numpy() + centre
                found = result.predictions[(1, 3).index(epoch), draw, test]
                np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert result.n_train.tolist() == [int((np.isfinite(targets) & (row > 1)).sum()) for row in folds]
    assert np.isnan(result.predictions[:, 0, folds[0] > 1]).all()


def test_learns_deterministically_and_leaves_the_original_alone(pictures: Tensor) -> None:
    import copy

    pretrained = make_encoder(0)
    before = copy.deepcopy(pretrained.state_dict())
    folds = random_folds(60, [0])
    runs = [
        finetune(
            lambda seed: copy.deepcopy(pretrained), DIM, lambda index: pictures[index], prices(pictures), folds,
            task="regression", epochs=(1, 30), batch=16, lr=3e-3, head_lr=0.1,
        )
        for _ in range(2)
    ]  # fmt: skip
    np.testing.assert_array_equal(runs[0].predictions, runs[1].predictions)
    values = runs[0].values("mse")[:, 0]
    assert values[1] < 0.5 * values[0]
    assert all(torch.equal(before[name], tensor) for name, tensor in pretrained.state_dict().items())


def test_tested_labels_and_images_do_not_reach_training(pictures: Tensor) -> None:
    folds = random_folds(60, [0])
    tested = np.flatnonzero(folds[0] <= 1)
    victim = int(tested[0])

    def predictions(images: Tensor, targets: np.ndarray) -> np.ndarray:
        return finetune(
            make_encoder, DIM, lambda index: images[index], targets, folds, task="regression", epochs=(2,), batch=16
        ).predictions[0, 0]

    targets, altered = prices(pictures), pictures.clone()
    first = predictions(pictures, targets)
    altered[victim] += 10.0
    targets[victim] += 100.0
    second = predictions(altered, targets)
    others = tested[tested != victim]
    np.testing.assert_allclose(second[others], first[others], rtol=1e-5)
    assert abs(second[victim] - first[victim]) > 1e-4


def test_classification_counts_unseen_classes_as_errors(pictures: Tensor) -> None:
    codes = (prices(pictures) > -0.5).astype(np.int64)
    folds = random_folds(60, [0])
    alone = int(np.flatnonzero(folds[0] == 0)[0])
    codes[alone] = 7
    codes[np.flatnonzero(folds[0] > 1)[0]] = -1
    result = finetune(
        make_encoder, DIM, lambda index: pictures[index], codes, folds, task="classification", epochs=(1, 20), batch=16,
        lr=3e-3, head_lr=0.1,
    )  # fmt: skip
    assert result.scores["top5"][1, 0, alone] == 0.0
    assert result.values("top1")[1, 0] > 0.7
    assert result.notes["tested_of_unseen_class"] == 1


def test_flips_are_the_squares_eight_symmetries() -> None:
    image = torch.arange(9.0).view(1, 1, 3, 3).expand(400, 3, 3, 3)
    out = flips(image, torch.Generator().manual_seed(0))
    assert len({tuple(x.flatten().tolist()) for x in out}) == 8
    for x in out:
        assert sorted(x[0].flatten().tolist()) == list(range(9))
        assert float(x[0, 1, 1]) == 4.0  # the centre stays
    assert torch.equal(out, flips(image, torch.Generator().manual_seed(0)))


def test_bfloat16_stays_close(pictures: Tensor) -> None:
    folds = random_folds(60, [0])
    full, half = (
        finetune(
            make_encoder, DIM, lambda index: pictures[index], prices(pictures), folds, task="regression", epochs=(3,),
            batch=16, bf16=bf16,
        )
        for bf16 in (False, True)
    )  # fmt: skip
    tested = folds[0] <= 1
    np.testing.assert_allclose(half.predictions[0, 0, tested], full.predictions[0, 0, tested], atol=0.1)
    assert (half.predictions[0, 0, tested] != full.predictions[0, 0, tested]).any()


def test_head_starts_at_zero_and_takes_any_feature_scale() -> None:
    model = EncoderWithHead(nn.Flatten(), 4, 2)
    assert torch.equal(model(torch.randn(8, 4) * 1e4), torch.zeros(8, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"augment": "rotate"}, "unknown augmentation 'rotate'"),
        ({"epochs": (0, 2)}, "epochs"),
        ({"seeds": [1, 2, 3]}, "3 for 1 draws"),
    ],
)
def test_bad_arguments_are_named(pictures: Tensor, change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        finetune(
            make_encoder, DIM, lambda index: pictures[index], prices(pictures), random_folds(60, [0]),
            **({"task": "regression"} | change),
        )  # fmt: skip

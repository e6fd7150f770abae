"""End-to-end fine-tuning of an encoder with a linear head (the *finetune* columns of Tables 1 and 2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor, nn
from tqdm import tqdm

from selm.encoder import channels_last, laid
from selm.errors import InputError
from selm.probes.folds import BufferedFolds, Collector, OutOfFold, problems
from selm.probes.frozen import minibatches

AUGMENTATIONS = ("none", "flips")


def flips(images: Tensor, generator: torch.Generator) -> Tensor:
    """One of the eight symmetries of the square for each image, (B, 3, s, s): streets have no preferred direction."""
    kinds = torch.randint(8, (len(images),), generator=generator)
    out = torch.empty_like(images)
    for kind in range(8):
        chosen = (kinds == kind).nonzero()[:, 0].to(images.device)
        if len(chosen):
            out[chosen] = laid(images[chosen], kind)
    return out


class EncoderWithHead(nn.Module):
    """An encoder, its features standardised by running statistics (no free parameters), and a linear layer from zero.

    Standardising makes the head's learning rate mean the same for every encoder, as in the frozen probe.
    """

    def __init__(self, encoder: nn.Module, dim: int, n_outputs: int):
        super().__init__()
        self.encoder = encoder
        self.standardise = nn.BatchNorm1d(dim, affine=False)
        self.head = nn.Linear(dim, n_outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) → (B, n_outputs) float32."""
        features = self.encoder(images)
        with torch.autocast(features.device.type, enabled=False):
            return self.head(self.standardise(features.float()))


def finetune(
    make_encoder: Callable[[int], nn.Module],
    dim: int,
    images: Callable[[Tensor], Tensor],
    targets: ArrayLike,
    folds: ArrayLike | BufferedFolds,
    *,
    task: str,
    epochs: tuple[int, ...] = (1, 25, 50),
    batch: int = 64,
    lr: float = 3e-4,
    head_lr: float = 1e-2,
    weight_decay: float = 1e-2,
    warmup_steps: int = 20,
    clip: float = 3.0,
    augment: str = "flips",
    test_folds: tuple[int, ...] | None = (0, 1),
    seeds: Sequence[int] | None = None,
    device: str | torch.device = "cpu",
    bf16: bool | None = None,
    progress: bool = False,
) -> OutOfFold:
    """Fine-tune an encoder from its weights for each draw and score it on the points held out, at each of `epochs`.

    make_encoder: seed → a module (B, 3, h, w) → (B, dim), fresh for each trial: a copy of a pretrained encoder, or a
        newly initialised one (the row *Random Init*; the seed is the trial's).
    images: int64 point numbers (B,) on CPU → their standardised images, float (B, 3, h, w), on `device`.
    targets, folds, task: as in `selm.probes.folds.problems`.  test_folds: by default the folds 0 and 1 of ten, one
        80:20 split a draw; None trains one model a fold.
    lr: of the encoder; head_lr / sqrt(dim): of the linear layer, as in the frozen probe. Both warm up linearly over
        `warmup_steps`, then stay: one run passes through every one of `epochs`.
    seeds: of each draw (shuffling, flips, `make_encoder`), by default 0, 1, ….
    bf16: autocast; by default on CUDA only, where it pays (on CPU most convolutions of small encoders gain nothing).
    """
    layout = problems(targets, folds, task, test_folds=test_folds)
    if augment not in AUGMENTATIONS:
        raise InputError(f"unknown augmentation '{augment}' (there are: {', '.join(AUGMENTATIONS)})")
    if not epochs or min(epochs) < 1 or list(epochs) != sorted(set(epochs)):
        raise InputError(f"epochs: {epochs} is not a rising list of positive numbers")
    seeds = list(range(layout.n_draws)) if seeds is None else list(seeds)
    if len(seeds) != layout.n_draws:
        raise InputError(f"seeds: {len(seeds)} for {layout.n_draws} draws")
    where = torch.device(device)
    autocast = _autocast(where, where.type == "cuda" if bf16 is None else bf16)
    collected = Collector(layout, epochs)
    steps_a_fit = [max(1, round(int(train.sum()) / batch)) for train in layout.train]
    total = sum(steps_a_fit) * epochs[-1]
    with tqdm(total=total, desc="fine-tuning", unit="step", disable=not progress, leave=False) as bar:
        for p, draw in enumerate(layout.draw):
            seed = seeds[draw]
            rows = torch.as_tensor(layout.train[p].nonzero()[0])
            test = torch.as_tensor(layout.test[p].nonzero()[0])
            truth = layout.targets[draw]
            centre = float(truth[rows.numpy()].mean()) if task == "regression" else 0.0
            labels = (
                torch.as_tensor(truth - centre, dtype=torch.float32)
                if task == "regression"
                else torch.as_tensor(truth.copy(), dtype=torch.int64)
            ).to(where)
            model, optimizer, warmup = _start(
                make_encoder(seed), dim, layout.n_classes, where, lr, head_lr, weight_decay, warmup_steps
            )
            generator = torch.Generator().manual_seed(seed)
            for epoch, cuts in enumerate(minibatches(len(rows), batch, 1.0, epochs[-1], seed), start=1):
                model.train()
                for cut in cuts:
                    if len(cut) < 2:  # a single point has no batch statistics
                        continue
                    index = rows[cut]
                    pixels = images(index).to(where, memory_format=torch.channels_last)
                    if augment == "flips":
                        pixels = flips(pixels, generator)
                    with autocast():
                        out = model(pixels)
                    y = labels[index.to(where)]
                    loss = F.mse_loss(out[:, 0], y) if task == "regression" else F.cross_entropy(out, y)
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    nn.utils.clip_grad_norm_(model.parameters(), clip)
                    optimizer.step()
                    warmup.step()
                    bar.update()
                if epoch in epochs:
                    outputs = _evaluate(model, images, test, where, autocast, batch)
                    collected.add(epochs.index(epoch), p, outputs + centre)
    return collected.result(augment=augment)


def _autocast(where: torch.device, bf16: bool) -> Callable[[], AbstractContextManager[None]]:
    if bf16:
        return lambda: torch.autocast(where.type, dtype=torch.bfloat16)
    return nullcontext


def _start(
    encoder: nn.Module, dim: int, n_outputs: int, where: torch.device,
    lr: float, head_lr: float, weight_decay: float, warmup_steps: int,
) -> tuple[EncoderWithHead, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:  # fmt: skip
    model = channels_last(EncoderWithHead(encoder, dim, n_outputs).to(where))
    parameters = [p for p in model.encoder.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "lr": lr, "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "lr": lr, "weight_decay": 0.0},
            {"params": [model.head.weight], "lr": head_lr / math.sqrt(dim), "weight_decay": weight_decay},
            {"params": [model.head.bias], "lr": head_lr / math.sqrt(dim), "weight_decay": 0.0},
        ]
    )
    warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / max(1, warmup_steps)))
    return model, optimizer, warmup


@torch.inference_mode()
def _evaluate(
    model: nn.Module, images: Callable[[Tensor], Tensor], test: Tensor, where: torch.device,
    autocast: Callable[[], AbstractContextManager[None]], batch: int,
) -> np.ndarray:  # fmt: skip
    """(n_test, outputs) float64, without augmentation, with running statistics."""
    model.eval()
    parts = []
    for index in test.split(4 * batch):
        with autocast():
            parts.append(model(images(index).to(where, memory_format=torch.channels_last)).double().cpu())
    return torch.cat(parts).numpy()

"""Training with one global batch split among several processes, one for each GPU (or CPU).

`torchrun --nproc-per-node N -m selm pretrain …` starts the processes; `joined` makes them find each other. The rules
that make N processes compute what one would: every process draws the same places and the same windows for the whole
batch and takes its own rows of them; whatever is a statistic of the batch (BatchNorm, the centres, the spread of
features, the number of known prices) is one of the whole batch; gradients are averaged. What is left is rounding.

In a single process every function here returns what it was given.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from selm.errors import InputError, first_line

# The main process may draw maps for hours while the others wait for it; torchrun ends them all when one dies.
_PATIENCE = datetime.timedelta(hours=12)


def device(asked: str | torch.device | None = None) -> torch.device:
    """The device that is asked for, by default that of `SELM_DEVICE`, else the GPU where there is one.

    Raises InputError, in one line, where `asked` is not here, and for a name that is none.
    """
    named = asked or os.environ.get("SELM_DEVICE", "").replace("onnx", "cpu")  # ONNX Runtime: for embeddings alone
    try:
        torch.empty(0, device=asked)
        return torch.device(named or ("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"device '{named}' cannot be used here ({first_line(error)})") from None


def launched() -> bool:
    """Whether this process is one of several that torchrun (or Slurm through it) started."""
    return dist.is_available() and int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


@contextmanager
def joined() -> Iterator[None]:
    """Join the processes that torchrun started: NCCL between GPUs, gloo between CPUs. Alone, it does nothing.

    Raises InputError where there are fewer GPUs than processes on this machine.
    """
    if not launched() or dist.is_initialized():
        yield
        return
    on_gpu = device().type == "cuda"
    if on_gpu:
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise InputError(f"process {local + 1} of this machine has no GPU ({torch.cuda.device_count()} here)")
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=_PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def size() -> int:
    """How many processes share the batch."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if size() > 1 else 0


def is_main() -> bool:
    """Whether this is the process that writes files and shows progress."""
    return rank() == 0


@contextmanager
def main_first() -> Iterator[None]:
    """The main process runs the block first, then the others: what it computed and kept is there for them."""
    if not is_main():
        dist.barrier()
    yield
    if size() > 1 and is_main():
        dist.barrier()


def part(n: int) -> slice:
    """This process's rows of a global batch of n; raises InputError where n cannot be split evenly."""
    if n % size():
        raise InputError(f"a batch of {n} cannot be split evenly among {size()} processes")
    share = n // size()
    return slice(rank() * share, (rank() + 1) * share)


@torch.no_grad()
def mean(values: Tensor) -> Tensor:
    """The mean of a tensor over the processes, not differentiated."""
    if size() == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total / size()


def batch_mean(values: Tensor) -> Tensor:
    """(…, d) values of this process's share → something of the same mean over all but the last dimension, for all.

    Alone: the values themselves. Otherwise (1, d), the mean over the global batch.
    """
    return values if size() == 1 else mean(values.detach().float().flatten(0, -2).mean(dim=0))[None]


@torch.no_grad()
def gather(values: Tensor) -> Tensor:
    """(n, …) rows of each process → (N n, …) rows of all in the order of their ranks, not differentiated."""
    if size() == 1:
        return values
    if values.dtype == torch.bool:  # which gloo does not send
        return gather(values.to(torch.uint8)).bool()
    parts = [torch.empty_like(values, memory_format=torch.contiguous_format) for _ in range(size())]
    dist.all_gather(parts, values.detach().contiguous())
    return torch.cat(parts)


def masked_share(mask: Tensor) -> Tensor | float:
    """What a mean over this process's True entries is multiplied by, so that the processes' mean is that over all.

    1 where this is the only process. A mean over none counts as 0.
    """
    if size() == 1:
        return 1.0
    own = mask.sum().float()
    return own / mean(own).clamp(min=1 / size())


class _SumOfAll(torch.autograd.Function):
    """Sum over processes; every process's loss depends on everyone's input, so the gradient is summed as well."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        out = values.clone()
        dist.all_reduce(out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        out = gradient.contiguous().clone()
        dist.all_reduce(out)
        return out


class GlobalBatchNorm(_BatchNorm):
    """BatchNorm over the global batch on any device; torch's own SyncBatchNorm refuses CPU tensors."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected (N, C, …), got {input.ndim} dimensions")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or size() == 1:
            return super().forward(input)
        dims = [0, *range(2, input.ndim)]
        shape = (-1, *[1] * (input.ndim - 2))
        count = input.numel() // input.shape[1] * size()
        x = input.float()
        centre = _SumOfAll.apply(x.sum(dim=dims)) / count
        shifted = x - centre.view(shape)
        variance = _SumOfAll.apply(shifted.square().sum(dim=dims)) / count
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            assert self.momentum is not None
            with torch.no_grad():
                self.num_batches_tracked += 1
                self.running_mean.lerp_(centre.detach(), self.momentum)
                self.running_var.lerp_(variance.detach() * (count / (count - 1)), self.momentum)
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return (shifted * scale.view(shape) + self.bias.view(shape)).to(input.dtype)


def synchronise_norms(module: nn.Module, device: torch.device) -> nn.Module:
    """Every plain BatchNorm inside `module` takes its statistics from the global batch; parameters and names stay.

    Subclasses (a norm that is split on purpose) are left as they are.
    """
    if size() == 1:
        return module
    kind = nn.SyncBatchNorm if device.type == "cuda" else GlobalBatchNorm
    for name, child in module.named_children():
        if type(child) in (nn.BatchNorm1d, nn.BatchNorm2d):
            assert isinstance(child, _BatchNorm)
            twin = kind(child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats)
            twin.weight, twin.bias = child.weight, child.bias
            for buffer in ("running_mean", "running_var", "num_batches_tracked"):
                setattr(twin, buffer, getattr(child, buffer))
            setattr(module, name, twin.train(child.training))
        else:
            synchronise_norms(child, device)
    return module

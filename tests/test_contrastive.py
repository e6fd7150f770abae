"""The other rows' losses against slow versions: loops in Python floats, written from their papers' equations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from selm import contrastive

DTYPES = {torch.float64: 1e-5, torch.float32: 1e-5, torch.bfloat16: 1e-5}
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0, scale: float = 1.0) -> Tensor:
    return (scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).to(dtype)


def unit(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    values = random(*shape, dtype=torch.float64, seed=seed)
    return (values / values.norm(dim=-1, keepdim=True)).to(dtype)


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def slow_info_nce(q: list[float], k: list[float], queue: list[list[float]], temperature: float) -> float:
    """MoCo's eq. 1 for one query: its key against the K entries of the queue."""
    positive = math.exp(dot(q, k) / temperature)
    return -math.log(positive / (positive + sum(math.exp(dot(q, n) / temperature) for n in queue)))


# ------------------------------------------------------------------------------------------------------- InfoNCE


@dtypes
@pytest.mark.parametrize(("n", "d", "length"), [(1, 2, 1), (5, 8, 3), (7, 16, 40)])
@pytest.mark.parametrize("temperature", [0.02, 0.2, 1.0])
def test_info_nce_is_mocos_equation_1(dtype, n, d, length, temperature):
    q, k, queue = unit(n, d, dtype=dtype), unit(n, d, dtype=dtype, seed=1), unit(length, d, dtype=dtype, seed=2)
    out = contrastive.info_nce(q, k, queue, temperature)
    expected = [slow_info_nce(q[i].tolist(), k[i].tolist(), queue.tolist(), temperature) for i in range(n)]
    assert out.dtype == torch.float32
    assert out.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_info_nce_of_many_views_is_that_of_each_pair():
    q, k, queue = unit(1, 4, 5, 8), unit(2, 1, 5, 8, seed=1), unit(9, 8, seed=2)
    out = contrastive.info_nce(q, k, queue, 0.2)
    assert out.shape == (2, 4, 5)
    for g in range(2):
        for v in range(4):
            torch.testing.assert_close(out[g, v], contrastive.info_nce(q[0, v], k[g, 0], queue, 0.2))


def test_info_nce_pulls_a_query_to_its_key_and_away_from_the_queue():
    q = unit(1, 4).requires_grad_()
    k, queue = unit(1, 4, seed=1), unit(3, 4, seed=2)
    contrastive.info_nce(q, k, queue, 0.2).sum().backward()
    # the gradient of a softmax's cross-entropy: Σ p_i n_i + (p_k − 1) k, over τ
    logits = torch.cat([q @ k.T, q @ queue.T], dim=1).detach()[0] / 0.2
    p = torch.softmax(logits, 0)
    torch.testing.assert_close(q.grad[0], ((p[0] - 1) * k[0] + p[1:] @ queue) / 0.2)


@pytest.mark.parametrize("cosine", [1.0, -1.0])
def test_info_nce_is_finite_at_its_ends(cosine):
    q = torch.tensor([[1.0, 0.0]], requires_grad=True)
    queue = torch.tensor([[-cosine, 0.0]])
    out = contrastive.info_nce(q, cosine * q.detach(), queue, 0.02)
    out.sum().backward()
    assert out.item() == pytest.approx(0.0 if cosine > 0 else 100.0, abs=1e-5)
    assert q.grad.isfinite().all()


def test_info_nce_under_autocast_keeps_float32():
    q, k, queue = unit(6, 32), unit(6, 32, seed=1), unit(50, 32, seed=2)
    plain = contrastive.info_nce(q, k, queue, 0.02)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = contrastive.info_nce(q, k, queue, 0.02)
    assert torch.equal(plain, mixed)


# --------------------------------------------------------------------------------------------------------- queues


@pytest.mark.parametrize(("length", "n"), [(7, 3), (8, 4), (5, 5), (4, 6), (3, 10), (1, 2), (10, 1)])
def test_a_queue_holds_the_last_entries_in_the_order_they_came(length, n):
    """Against a ring that is written entry by entry."""
    queue, pointer = -torch.ones(length, 2), torch.zeros((), dtype=torch.int64)
    ring, at, value = [-1.0] * length, 0, 0.0
    for _ in range(9):
        values = value + torch.arange(n, dtype=torch.float32)
        contrastive.push(queue, pointer, values[:, None].expand(n, 2))
        for entry in values.tolist():
            ring[at] = entry
            at = (at + 1) % length
        value += n
        assert queue[:, 0].tolist() == ring
        assert torch.equal(queue[:, 0], queue[:, 1])
        assert pointer.item() == at

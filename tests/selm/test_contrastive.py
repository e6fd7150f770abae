"""The other rows' losses against slow versions: loops in Python floats, written from their papers' equations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from selm import losses
from selm.methods.base import push

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
    out = losses.info_nce(q, k, queue, temperature)
    expected = [slow_info_nce(q[i].tolist(), k[i].tolist(), queue.tolist(), temperature) for i in range(n)]
    assert out.dtype == torch.float32
    assert out.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_info_nce_of_many_views_is_that_of_each_pair():
    q, k, queue = unit(1, 4, 5, 8), unit(2, 1, 5, 8, seed=1), unit(9, 8, seed=2)
    out = losses.info_nce(q, k, queue, 0.2)
    assert out.shape == (2, 4, 5)
    for g in range(2):
        for v in range(4):
            torch.testing.assert_close(out[g, v], losses.info_nce(q[0, v], k[g, 0], queue, 0.2))


def test_info_nce_pulls_a_query_to_its_key_and_away_from_the_queue():
    q = unit(1, 4).requires_grad_()
    k, queue = unit(1, 4, seed=1), unit(3, 4, seed=2)
    losses.info_nce(q, k, queue, 0.2).sum().backward()
    # the gradient of a softmax's cross-entropy: Σ p_i n_i + (p_k − 1) k, over τ
    logits = torch.cat([q @ k.T, q @ queue.T], dim=1).detach()[0] / 0.2
    p = torch.softmax(logits, 0)
    torch.testing.assert_close(q.grad[0], ((p[0] - 1) * k[0] + p[1:] @ queue) / 0.2)


@pytest.mark.parametrize("cosine", [1.0, -1.0])
def test_info_nce_is_finite_at_its_ends(cosine):
    q = torch.tensor([[1.0, 0.0]], requires_grad=True)
    queue = torch.tensor([[-cosine, 0.0]])
    out = losses.info_nce(q, cosine * q.detach(), queue, 0.02)
    out.sum().backward()
    assert out.item() == pytest.approx(0.0 if cosine > 0 else 100.0, abs=1e-5)
    assert q.grad.isfinite().all()


def test_info_nce_under_autocast_keeps_float32():
    q, k, queue = unit(6, 32), unit(6, 32, seed=1), unit(50, 32, seed=2)
    plain = losses.info_nce(q, k, queue, 0.02)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = losses.info_nce(q, k, queue, 0.02)
    assert torch.equal(plain, mixed)


# --------------------------------------------------------------------------------------------------------- queues


@pytest.mark.parametrize(("length", "n"), [(7, 3), (8, 4), (5, 5), (4, 6), (3, 10), (1, 2), (10, 1)])
def test_a_queue_holds_the_last_entries_in_the_order_they_came(length, n):
    """Against a ring that is written entry by entry."""
    queue, pointer = -torch.ones(length, 2), torch.zeros((), dtype=torch.int64)
    ring, at, value = [-1.0] * length, 0, 0.0
    for _ in range(9):
        values = value + torch.arange(n, dtype=torch.float32)
        push(queue, pointer, values[:, None].expand(n, 2))
        for entry in values.tolist():
            ring[at] = entry
            at = (at + 1) % length
        value += n
        assert queue[:, 0].tolist() == ring
        assert torch.equal(queue[:, 0], queue[:, 1])
        assert pointer.item() == at


@pytest.mark.parametrize(("length", "n"), [(7, 3), (8, 8), (4, 6), (20, 5)])
def test_a_queue_takes_only_the_chosen(length, n):
    generator = torch.Generator().manual_seed(0)
    queue, pointer = -torch.ones(length, 2), torch.zeros((), dtype=torch.int64)
    ring, at = [-1.0] * length, 0
    for step in range(12):
        values = 100 * step + torch.arange(n, dtype=torch.float32)
        chosen = torch.rand(n, generator=generator) < 0.5 if step != 3 else torch.zeros(n, dtype=torch.bool)
        push(queue, pointer, values[:, None].expand(n, 2), chosen)
        for value, take in list(zip(values.tolist(), chosen.tolist(), strict=True))[-length:]:
            if take:
                ring[at] = value
                at = (at + 1) % length
        assert queue[:, 0].tolist() == ring
        assert pointer.item() == at


# ----------------------------------------------------------------------------------------------------- MUGS's means


@pytest.mark.parametrize(("n_global", "n_views"), [(2, 8), (2, 2), (2, 3), (3, 5)])
def test_half_of_the_loss_is_from_large_crops_and_half_from_small_ones(n_global, n_views):
    pairs = random(n_global, n_views)
    large = [pairs[g, v].item() for g in range(n_global) for v in range(n_global) if g != v]
    small = [pairs[g, v].item() for g in range(n_global) for v in range(n_global, n_views)]
    expected = sum(large) / len(large)
    if small:
        expected = 0.5 * expected + 0.5 * sum(small) / len(small)
    assert losses.by_crop_size(pairs).item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


@dtypes
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_cross_entropies_of_all_pairs_of_views(dtype, temperature):
    student = random(4, 3, 6, dtype=dtype)
    teacher = torch.softmax(random(2, 3, 6, seed=1), dim=-1)
    out = losses.cross_entropies(student, teacher, temperature)
    for g in range(2):
        for v in range(4):
            total = 0.0
            for b in range(3):
                exps = [math.exp(x / temperature) for x in student[v, b].tolist()]
                total -= sum(t * math.log(e / sum(exps)) for t, e in zip(teacher[g, b].tolist(), exps, strict=True))
            assert out[g, v].item() == pytest.approx(total / 3, rel=1e-4)


# --------------------------------------------------------------------------------------------------------- triplets


@dtypes
@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize(("margin", "l2"), [(0.1, 0.0), (1.0, 0.01), (10.0, 0.1)])
def test_triplet_is_tile2vecs_equations_1_and_2(dtype, n, margin, l2):
    a, b, c = (random(n, 6, dtype=dtype, seed=seed) for seed in range(3))

    def length(values: list[float]) -> float:
        return math.sqrt(sum(v * v for v in values))

    def distance(x: list[float], y: list[float]) -> float:
        return length([p - q for p, q in zip(x, y, strict=True)])

    total = 0.0
    for x, y, z in zip(a.tolist(), b.tolist(), c.tolist(), strict=True):
        total += max(0.0, distance(x, y) - distance(x, z) + margin) + l2 * (length(x) + length(y) + length(z))
    assert losses.triplet(a, b, c, margin, l2).item() == pytest.approx(total / n, rel=1e-4)

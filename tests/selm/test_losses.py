"""Every loss against a slow version: loops over the paper's indices, in Python floats, written from the equation."""

from __future__ import annotations

import math

import pytest
import torch

from selm import losses

# inputs in bfloat16 are exact for the loops, which see the same rounded numbers; float32 sums are what is compared
DTYPES = {torch.float64: 1e-6, torch.float32: 1e-5, torch.bfloat16: 1e-5}
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return (scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).to(dtype)


def close(value: torch.Tensor, expected: float, dtype: torch.dtype) -> None:
    assert value.item() == pytest.approx(expected, rel=DTYPES[dtype], abs=DTYPES[dtype])


def slow_softmax(values: list[float], temperature: float) -> list[float]:
    """Eq. 2 for one input."""
    total = sum(math.exp(v / temperature) for v in values)
    return [math.exp(v / temperature) / total for v in values]


def slow_entropy(a: list[float], b: list[float]) -> float:
    """Eq. 3's H(a, b) = −a log b."""
    return -sum(x * math.log(y) for x, y in zip(a, b, strict=True))


def slow_normalised(values: list[float]) -> list[float]:
    norm = math.sqrt(sum(v * v for v in values))
    return [v / norm for v in values]


@dtypes
@pytest.mark.parametrize("temperature", [0.04, 0.1, 1.0])
def test_soft_assignment_is_equation_2(dtype, temperature):
    logits = random(3, 5, 7, dtype=dtype)
    out = losses.soft_assignment(logits, temperature)
    for v in range(3):
        for b in range(5):
            expected = slow_softmax(logits[v, b].tolist(), temperature)
            assert out[v, b].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-7)
    assert out.dtype == (torch.float32)  # whatever came in: bfloat16 sums over K outputs would not do


@dtypes
def test_the_teacher_is_centred_before_its_temperature(dtype):
    logits, centre = random(4, 6, dtype=dtype), random(6, seed=1)
    out = losses.soft_assignment(logits, 0.07, centre)
    for b in range(4):
        shifted = [x - c for x, c in zip(logits[b].tolist(), centre.tolist(), strict=True)]
        assert out[b].tolist() == pytest.approx(slow_softmax(shifted, 0.07), rel=2e-4, abs=1e-7)


def test_soft_assignment_survives_large_logits():
    out = losses.soft_assignment(torch.tensor([[3e4, -3e4, 0.0]]), 0.04)
    assert out.tolist() == [[1.0, 0.0, 0.0]]


@dtypes
@pytest.mark.parametrize(
    ("views", "globals_", "batch", "outputs"), [(2, 2, 1, 2), (3, 2, 4, 5), (8, 2, 3, 16), (5, 1, 2, 3)]
)
def test_distillation_is_equation_4_as_a_mean_over_pairs(dtype, views, globals_, batch, outputs):
    student = random(views, batch, outputs, dtype=dtype)
    teacher = torch.softmax(random(globals_, batch, outputs, seed=1, scale=3), dim=-1)
    terms = [
        slow_entropy(teacher[m, b].tolist(), slow_softmax(student[other, b].tolist(), 0.1))
        for b in range(batch)
        for m in range(globals_)
        for other in range(views)
        if other != m
    ]
    assert len(terms) == batch * globals_ * (views - 1)
    close(losses.distillation(student, teacher, 0.1), sum(terms) / len(terms), dtype)


def test_one_pair_repeated_is_that_pair_whatever_the_number_of_crops():
    student, teacher = random(1, 3, 6), torch.softmax(random(1, 3, 6, seed=1), dim=-1)
    expected = losses.cross_entropy(teacher[0], torch.log_softmax(student[0] / 0.1, dim=-1)).mean()
    for views in (2, 3, 8):
        value = losses.distillation(student.expand(views, -1, -1), teacher.expand(2, -1, -1), 0.1)
        torch.testing.assert_close(value, expected)


def test_distillation_gives_the_student_eq_4s_gradient_and_the_teacher_none():
    student, logits = random(4, 3, 5, dtype=torch.float64), random(2, 3, 5, dtype=torch.float64, seed=1)
    student.requires_grad_()
    logits.requires_grad_()
    losses.distillation(student, torch.softmax(logits, -1), 0.1).backward()
    assert logits.grad is None
    # d/ds of −Σ t log softmax(s/τ) is (softmax(s/τ) − t)/τ for each pair
    p, t = torch.softmax(student.detach() / 0.1, -1), torch.softmax(logits.detach(), -1)
    expected = torch.zeros_like(p)
    for v in range(4):
        for g in range(2):
            if g != v:
                expected[v] += (p[v] - t[g]) / 0.1 / (2 * 3 * 3)
    torch.testing.assert_close(student.grad, expected, rtol=1e-5, atol=1e-6)


@dtypes
def test_land_price_is_equation_5(dtype):
    predicted, target = random(7, dtype=dtype), random(7, seed=1)
    expected = sum((y - p) ** 2 for y, p in zip(target.tolist(), predicted.tolist(), strict=True)) / 7
    close(losses.land_price(predicted, target), expected, dtype)


@pytest.mark.parametrize("unknown", [float("nan"), float("inf")])
def test_places_without_a_price_count_neither_in_the_loss_nor_in_its_gradient(unknown):
    predicted = random(5).requires_grad_()
    target = torch.tensor([0.5, unknown, -1.0, unknown, 2.0])
    value = losses.land_price(predicted, target)
    known = [0, 2, 4]
    close(value, sum((target[i].item() - predicted[i].item()) ** 2 for i in known) / 3, torch.float32)
    value.backward()
    for i in range(5):
        expected = 2 * (predicted[i] - target[i]).item() / 3 if i in known else 0.0
        assert predicted.grad[i].item() == pytest.approx(expected, rel=1e-5)


@dtypes
@pytest.mark.parametrize("classes", [2, 30])
def test_density_is_the_cross_entropy_of_equation_6(dtype, classes):
    logits = random(6, classes, dtype=dtype)
    target = torch.tensor([0, 1, classes - 1, -1, 1, -1])
    terms = []
    for j in range(6):
        if target[j] >= 0:
            p = slow_softmax(logits[j].tolist(), 1.0)
            terms.append(sum(-(1.0 if k == target[j] else 0.0) * math.log(p[k]) for k in range(classes)))
    assert len(terms) == 4
    close(losses.density(logits, target), sum(terms) / 4, dtype)


def test_places_without_a_density_class_get_no_gradient():
    logits = random(3, 4).requires_grad_()
    losses.density(logits, torch.tensor([2, -1, 0])).backward()
    assert (logits.grad[1] == 0).all()
    assert (logits.grad[[0, 2]].abs().sum(dim=1) > 0.1).all()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("batch", [1, 4])
def test_a_batch_without_a_single_label_is_a_loss_of_zero_and_a_gradient_of_zero(batch):
    price, logits = random(batch).requires_grad_(), random(batch, 3).requires_grad_()
    value = losses.land_price(price, torch.full((batch,), float("nan")))
    value = value + losses.density(logits, torch.full((batch,), -1))
    value.backward()
    assert value.item() == 0.0
    assert (price.grad == 0).all()
    assert (logits.grad == 0).all()


@dtypes
def test_coordinates_is_equation_7(dtype):
    predicted, target = random(5, 2, dtype=dtype), random(5, 2, seed=1)
    expected = 0.0
    for (lat, lon), (lat_hat, lon_hat) in zip(target.tolist(), predicted.tolist(), strict=True):
        expected += (lat - lat_hat) ** 2 + (lon - lon_hat) ** 2
    close(losses.coordinates(predicted, target), expected / 5, dtype)


def test_geo_is_equation_8():
    assert losses.geo(torch.tensor(3.0), torch.tensor(6.0), torch.tensor(30.0)).item() == pytest.approx(13.0)


@dtypes
@pytest.mark.parametrize(("batch", "px", "border"), [(1, 4, 1), (3, 8, 3), (2, 6, 2)])
def test_reconstruction_is_equation_9_over_the_number_of_masked_values(dtype, batch, px, border):
    predicted, parent = random(batch, 3, px, px, dtype=dtype), random(batch, 3, px, px, seed=1, dtype=dtype)
    mask = torch.zeros(px, px)
    mask[border:-border, border:-border] = 1
    total, counted = 0.0, 0
    for j in range(batch):
        norm = 0.0  # ‖(m* − f_r) ⊙ M̂‖²
        for c in range(3):
            for y in range(px):
                for x in range(px):
                    inside = border <= y < px - border and border <= x < px - border
                    difference = parent[j, c, y, x].item() - predicted[j, c, y, x].item()
                    norm += (difference * (1.0 if inside else 0.0)) ** 2
                    counted += inside
        total += norm
    value = losses.reconstruction(losses.pixel_error(predicted, parent), mask)
    close(value, total / counted, dtype)
    # eq. 9 as printed is a mean over the N images of a sum over pixels
    close(value * (counted / batch), total / batch, dtype)


@dtypes
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize(("batch", "prototypes", "dim"), [(1, 2, 3), (5, 7, 4)])
def test_cluster_assignments_are_equations_10_and_11(dtype, batch, prototypes, dim, centred):
    features, c = random(batch, dim, dtype=dtype, scale=4), random(prototypes, dim, seed=1, scale=3, dtype=dtype)
    p_div = random(dim, seed=2, scale=0.3) if centred else None
    out = losses.soft_assignment(losses.cluster_logits(features, c, p_div), 0.1)
    for b in range(batch):
        f = slow_normalised(features[b].tolist())
        centre = p_div.tolist() if centred else [0.0] * dim
        exponents = []
        for i in range(prototypes):
            direction = slow_normalised(c[i].tolist())
            exponents.append(sum((f[k] - centre[k]) * direction[k] for k in range(dim)))
        assert out[b].tolist() == pytest.approx(slow_softmax(exponents, 0.1), rel=1e-4)


@dtypes
def test_clustering_is_equation_12(dtype):
    teacher = torch.softmax(random(3, 6, dtype=torch.float64), -1)
    student = torch.softmax(random(3, 6, seed=1, dtype=torch.float64), -1)
    value = losses.cross_entropy(teacher.to(dtype).double(), student.to(dtype).double().log())
    for row in range(3):
        p_t, p_s = teacher[row].to(dtype).tolist(), student[row].to(dtype).tolist()
        assert value[row].item() == pytest.approx(-sum(t * math.log(s) for t, s in zip(p_t, p_s, strict=True)))


def test_clustering_reaches_the_prototypes_and_the_features():
    features, c, p_div = random(4, 3).requires_grad_(), random(5, 3, seed=1).requires_grad_(), random(3, seed=2)
    teacher = torch.softmax(random(2, 2, 5, seed=3), -1)
    student = losses.cluster_logits(features, c, p_div).view(2, 2, 5)
    losses.distillation(student, teacher, 0.1).backward()
    assert features.grad.abs().sum() > 0
    assert (c.grad.abs().sum(dim=1) > 0).all()


@dtypes
def test_p_div_moves_by_the_mean_over_the_batch(dtype):
    values, p_div = random(2, 4, 3, dtype=dtype), random(3, seed=1)
    out = losses.moving_average(p_div, values, 0.9)
    for k in range(3):
        mean = sum(values[v, b, k].item() for v in range(2) for b in range(4)) / 8
        assert out[k].item() == pytest.approx(0.9 * p_div[k].item() + (1 - 0.9) * mean, rel=1e-5, abs=1e-6)
    assert not losses.moving_average(p_div, values.requires_grad_(), 0.9).requires_grad


def test_the_total_is_equation_13():
    cl, geo, rec, clust = (torch.tensor(v) for v in (5.0, 2.0, 0.5, 4.0))
    assert losses.total(cl, geo, rec, clust, 0.3, 0.3, 0.4).item() == pytest.approx(5.0 + 0.6 + 0.15 + 1.6)

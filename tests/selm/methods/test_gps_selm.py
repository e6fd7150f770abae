"""GPS-SELM and DINO: who learns from what, what moves when, and what is absent when a term is off."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from synthetic import SETTINGS, VIEWS, method, sampler, trainer
from torch import Tensor, nn

from selm import methods
from selm.errors import InputError
from selm.methods.gps_selm import GPSSELM
from selm.views import Batch

TEACHERS = ("teacher_encoder", "teacher_head", "teacher_cluster_head")


@pytest.fixture(scope="module")
def batch() -> Batch:
    return sampler().batch(torch.arange(6), torch.Generator().manual_seed(0))


def student_of(teacher: str) -> str:
    return teacher.removeprefix("teacher_")


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


# ------------------------------------------------------------------------------------------------ gradient flow


@pytest.mark.parametrize("name", [name for name, recipe in methods.METHODS.items() if recipe.builder is GPSSELM])
def test_gradients_reach_all_of_the_student_and_none_of_the_teacher(name, batch):
    made = method(name)
    made.loss(batch, 0.5)["loss"].backward()
    for key, parameter in made.named_parameters():
        if key.startswith("teacher"):
            assert not parameter.requires_grad, key
            assert parameter.grad is None, key
        else:
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
            # nothing but exactly dead units may be without gradient
            assert parameter.grad.abs().sum() > 0, key
    for buffer in made.buffers():
        assert not buffer.requires_grad


def test_a_teacher_with_moving_statistics_follows_the_students(batch):
    settings = dataclasses.replace(SETTINGS, teacher_batch_statistics=False, teacher_momentum=(0.9, 0.9))
    made = method("dino", settings).train()
    assert not any(m.training for m in made.teacher_encoder.modules()) and made.encoder.training
    before = {k: v.clone() for k, v in made.teacher_encoder.state_dict().items() if "running" in k}
    made.loss(batch, 0.5)["loss"].backward()
    for key, value in made.teacher_encoder.state_dict().items():
        if "running" in key:
            assert torch.equal(value, before[key]), key  # looking does not change them
    made.after_step(0.5)
    student = made.encoder.state_dict()
    for key, value in made.teacher_encoder.state_dict().items():
        if "running" in key:
            torch.testing.assert_close(value, 0.9 * before[key] + 0.1 * student[key])
        elif "batches" in key:
            assert value == student[key] > 0
    one = made.teacher_encoder(batch.global_views[:1])  # no batch behind it
    torch.testing.assert_close(one, made.teacher_encoder(batch.global_views)[:1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("term", "head"),
    [
        ("distillation", "head"), ("price", "price_head"), ("density", "density_head"),
        ("coordinates", "coordinate_head"), ("reconstruction", "reconstruction_head"), ("clustering", "cluster_head"),
    ],
)  # fmt: skip
def test_each_loss_alone_trains_the_encoder_and_its_own_head(term, head, batch):
    made = method("gps_selm")
    out = made.loss(batch, 0.5)
    entry = {"distillation": "cl", "reconstruction": "rec", "clustering": "clust"}.get(term, term)
    out[entry].backward()
    grads = {key: 0.0 if p.grad is None else p.grad.abs().sum().item() for key, p in made.named_parameters()}
    assert all(value > 0 for key, value in grads.items() if key.startswith(("encoder.", f"{head}.")))
    heads = {"head", "price_head", "density_head", "coordinate_head", "reconstruction_head", "cluster_head"} - {head}
    assert all(value == 0 for key, value in grads.items() if key.startswith(tuple(f"{other}." for other in heads)))
    assert (grads["cluster_prototypes"] > 0) == (term == "clustering")


# ------------------------------------------------------------------------------------------------------- losses


def test_the_loss_is_equation_13_of_its_parts(batch):
    out = method("gps_selm").loss(batch, 0.2)
    s = SETTINGS
    assert out["geo"].item() == pytest.approx((out["price"] + out["density"] + out["coordinates"]).item() / 3, rel=1e-6)
    expected = out["cl"] + s.alpha * out["geo"] + s.beta * out["rec"] + s.gamma * out["clust"]
    assert out["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert all(value.ndim == 0 for value in out.values())


def test_distillation_pairs_the_students_views_with_the_teachers_other_view(batch):
    """L_cl again, view by view: loops over places and pairs, from the method's own networks in a copy."""
    made = method("dino")
    centre = 0.1 * torch.randn(SETTINGS.out_dim, generator=torch.Generator().manual_seed(1))
    made.centre.copy_(centre)
    twin = copy.deepcopy(made)
    progress = 0.15  # half of the warm-up of τt: 0.055
    value = made.loss(batch, progress)["cl"].item()
    n = batch.size
    with torch.no_grad():
        wide = twin.encoder(batch.global_views)
        student = twin.head(torch.cat([wide, twin.encoder(batch.local_views)]))
        teacher = twin.teacher_head(twin.teacher_encoder(batch.global_views))
    total, pairs = 0.0, 0
    for place in range(n):
        for g in range(2):
            t = torch.softmax((teacher[g * n + place] - centre) / 0.055, dim=0)
            for v in range(2 + VIEWS.n_local):
                if v != g:
                    s = torch.log_softmax(student[v * n + place] / 0.1, dim=0)
                    total -= (t * s).sum().item()
                    pairs += 1
    assert pairs == n * 2 * (1 + VIEWS.n_local)
    assert value == pytest.approx(total / pairs, rel=1e-5)


def test_targets_meet_the_features_of_both_views_of_their_own_place(batch):
    """z is the pooled feature of both global views, and eqs. 5-7 are means over them."""
    made = method("gps_selm_geo")
    twin = copy.deepcopy(made)
    out = made.loss(batch, 0.5)
    with torch.no_grad():
        z = twin.encoder(batch.global_views).view(2, batch.size, -1)
    price, density, where = [], [], []
    for view in range(2):
        for j in range(batch.size):
            if batch.price[j].isfinite():
                price.append((batch.price[j] - twin.price_head(z[view, j])[0]).item() ** 2)
            if batch.density_class[j] >= 0:
                log = torch.log_softmax(twin.density_head(z[view, j]), 0)
                density.append(-log[batch.density_class[j]].item())
            where.append((batch.coordinates[j] - twin.coordinate_head(z[view, j])).square().sum().item())
    assert 0 < len(price) < len(where)
    assert 0 < len(density) < len(where)
    for key, terms in (("price", price), ("density", density), ("coordinates", where)):
        assert out[key].item() == pytest.approx(sum(terms) / len(terms), rel=1e-4), key


def test_reconstruction_sees_the_border_alone_and_is_scored_inside(batch):
    made = method("gps_selm_geo_rec")
    made.eval()  # running statistics: the same features whatever else is in the batch
    first = made.loss(batch, 0.5)["rec"]
    inside = torch.zeros_like(batch.parents)
    inside[:, :, 3:-3, 3:-3] = 1
    # what the head is given does not change with the inside of the parent …
    seen = []
    made.reconstruction_head.register_forward_pre_hook(lambda module, given: seen.append(given[1].clone()))
    moved = dataclasses.replace(batch, parents=batch.parents + inside)
    made.loss(batch, 0.5)
    second = made.loss(moved, 0.5)["rec"]
    torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=0)
    assert (seen[0][:, :, 3:-3, 3:-3] == 0).all()
    torch.testing.assert_close(seen[0][:, :, :3], batch.parents[:, :, :3])
    assert first != second
    # … and what is scored does not change with a border that the head would not see
    predicted = made.reconstruction_head(made.encoder(batch.global_views), batch.parents * (1 - inside))
    expected = ((predicted - batch.parents)[:, :, 3:-3, 3:-3] ** 2).mean()
    torch.testing.assert_close(first, expected, rtol=1e-5, atol=1e-6)


def test_reconstruction_of_some_places_pairs_each_parent_with_its_own_view(batch):
    made = method("gps_selm_geo_rec")
    made.eval()
    n, some = batch.size, 3
    assert some < n
    parents = batch.parents.view(2, n, *batch.parents.shape[1:])[:, :some].flatten(0, 1)
    value = made.loss(dataclasses.replace(batch, parents=parents), 0.5)["rec"].item()
    errors = []
    with torch.no_grad():
        z = made.encoder(batch.global_views)
        for view in range(2):
            for place in range(some):
                parent = batch.parents[view * n + place]
                border = parent.clone()
                border[:, 3:-3, 3:-3] = 0
                rebuilt = made.reconstruction_head(z[view * n + place][None], border[None])[0]
                errors.append((rebuilt - parent)[:, 3:-3, 3:-3].square().mean().item())
    assert value == pytest.approx(sum(errors) / len(errors), rel=1e-5)


def test_rec_outer_leaves_out_the_ground_that_the_view_shows(batch):
    made = method("gps_selm_geo_rec")
    assert made.border.sum() == 26 * 26
    assert made.outer.sum() == 26 * 26 - 16 * 16
    assert made.outer[8:24, 8:24].sum() == 0
    assert "border" not in made.state_dict()


def test_clustering_centres_both_branches_and_only_the_teacher_if_told(batch):
    p_div = 0.2 * torch.randn(SETTINGS.cluster_out, generator=torch.Generator().manual_seed(2))
    values = {}
    for both in (True, False):
        made = method("gps_selm", dataclasses.replace(SETTINGS, cluster_centre_student=both))
        made.p_div.copy_(p_div)
        twin = copy.deepcopy(made)
        values[both] = made.loss(batch, 0.9)["clust"].item()
        n = batch.size
        with torch.no_grad():
            wide = twin.encoder(batch.global_views)
            student = twin.cluster_head(torch.cat([wide, twin.encoder(batch.local_views)]))
            teacher = twin.teacher_cluster_head(twin.teacher_encoder(batch.global_views))
        c = nn.functional.normalize(twin.cluster_prototypes.detach(), dim=-1)
        terms = []
        for place in range(n):
            for g in range(2):
                f_t = nn.functional.normalize(teacher[g * n + place], dim=0)
                p_t = torch.softmax(((f_t - p_div) @ c.T) / 0.07, dim=0)
                for v in range(2 + VIEWS.n_local):
                    if v != g:
                        f_s = nn.functional.normalize(student[v * n + place], dim=0)
                        p_s = torch.softmax(((f_s - (p_div if both else 0)) @ c.T) / 0.1, dim=0)
                        terms.append(-(p_t * p_s.log()).sum().item())
        assert values[both] == pytest.approx(sum(terms) / len(terms), rel=1e-5)
    assert values[True] != values[False]


@pytest.mark.parametrize("progress", [0.0, 0.15, 0.3, 1.0])
def test_a_batch_without_labels_gives_finite_losses_and_gradients(batch, progress):
    unknown = dataclasses.replace(
        batch, price=torch.full_like(batch.price, float("nan")), density_class=torch.full_like(batch.density_class, -1)
    )
    made = method("gps_selm")
    out = made.loss(unknown, progress)
    assert out["price"] == 0
    assert out["density"] == 0
    out["loss"].backward()
    assert all(p.grad.isfinite().all() for p in made.parameters() if p.requires_grad)
    assert (made.price_head[0].weight.grad == 0).all()


# ---------------------------------------------------------------------------------------------------- one step


@pytest.mark.parametrize("name", ["dino", "gps_selm"])
def test_the_teacher_is_the_moving_average_of_the_student(name):
    run = trainer(name, dataclasses.replace(SETTINGS, lr_warmup=0.0, teacher_momentum=(0.9, 1.0)))
    before = snapshot(run.method)
    for key in TEACHERS:
        if hasattr(run.method, key):
            for t, s in zip(getattr(run.method, key).parameters(), getattr(run.method, student_of(key)).parameters(),
                            strict=True):  # fmt: skip
                assert torch.equal(t, s)  # they start as one
    run.train_step()
    moved = 0
    for key, teacher in run.method.named_parameters():
        if key.startswith("teacher"):
            student = run.method.get_parameter(student_of(key))
            expected = 0.9 * before[key] + (1 - 0.9) * student
            torch.testing.assert_close(teacher.detach(), expected.detach(), rtol=1e-6, atol=1e-7)
            moved += not torch.equal(teacher, student)
    students = [key for key, p in run.method.named_parameters() if f"teacher_{key}" in before]
    # all but the prototypes that the first epoch holds still
    assert moved == len(students) - 1
    assert torch.equal(run.method.head.prototypes, before["head.prototypes"])


def test_the_teachers_momentum_rises_to_one():
    run = trainer("dino", dataclasses.replace(SETTINGS, lr_warmup=0.0))
    with torch.no_grad():
        for parameter in run.method.encoder.parameters():
            parameter.add_(1.0)
    before = snapshot(run.method.teacher_encoder)
    run.method._next_centre = torch.zeros(2, 1, SETTINGS.out_dim)
    run.method.after_step(1.0)  # λ = 1 at the end
    after = run.method.teacher_encoder.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    run.method.after_step(0.5)  # halfway along the cosine from 0.99: 0.995
    key = "network.conv1.weight"
    student = run.method.encoder.state_dict()[key]
    torch.testing.assert_close(run.method.teacher_encoder.state_dict()[key], 0.995 * before[key] + 0.005 * student)


def test_batchnorm_statistics_of_the_teacher_are_its_own():
    run = trainer("dino", dataclasses.replace(SETTINGS, lr_warmup=0.0))
    teacher, student = run.method.teacher_encoder.network.bn1, run.method.encoder.network.bn1
    run.train_step()
    # one forward of the global views for the teacher, two (global, local) for the student
    assert (teacher.num_batches_tracked, student.num_batches_tracked) == (1, 2)
    before = snapshot(teacher)
    run.method.after_step(0.0)
    after = teacher.state_dict()
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(before[name], after[name])
        assert not torch.equal(after[name], student.state_dict()[name])
    assert run.method.teacher_encoder.training


def test_the_centre_follows_the_teachers_logits_after_the_step_and_only_then(batch):
    made = method("dino")
    logits = []
    made.teacher_head.register_forward_hook(lambda module, given, out: logits.append(out.detach()))
    made.loss(batch, 0.1)
    assert (made.centre == 0).all()
    made.after_step(0.1)
    torch.testing.assert_close(made.centre, 0.1 * logits[0].mean(dim=0))
    made.loss(batch, 0.1)
    made.after_step(0.1)
    expected = 0.9 * 0.1 * logits[0].mean(dim=0) + 0.1 * logits[1].mean(dim=0)
    torch.testing.assert_close(made.centre, expected)


def test_p_div_follows_the_mean_of_the_teachers_unit_features_after_the_step_and_only_then(batch):
    made = method("gps_selm")
    features = []
    made.teacher_cluster_head.register_forward_hook(lambda module, given, out: features.append(out.detach()))
    made.loss(batch, 0.1)
    assert (made.p_div == 0).all()
    made.after_step(0.1)
    mean = torch.zeros(SETTINGS.cluster_out)
    for row in features[0]:
        mean += row / row.norm() / len(features[0])
    torch.testing.assert_close(made.p_div, 0.1 * mean)


def test_centring_can_be_switched_off(batch):
    made = method("dino", dataclasses.replace(SETTINGS, centre_momentum=None))
    made.loss(batch, 0.1)
    made.after_step(0.1)
    assert (made.centre == 0).all()


def test_the_last_layer_is_still_in_the_first_epoch_and_moves_after_it():
    settings = dataclasses.replace(SETTINGS, lr_warmup=0.0, freeze_last_layer=0.2)  # 12 steps: the first three
    run = trainer("gps_selm", settings)
    first, mlp = run.method.head.prototypes.clone(), run.method.head.mlp[0].weight.clone()
    clusters = run.method.cluster_prototypes.clone()
    for step in range(5):
        run.train_step()
        assert torch.equal(run.method.head.prototypes, first) == (step < 3), step
    assert not torch.equal(run.method.head.mlp[0].weight, mlp)
    assert not torch.equal(run.method.cluster_prototypes, clusters)


# ---------------------------------------------------------------------------------------------- terms switched off


def test_terms_that_are_off_are_absent():
    parts = {key.split(".")[0] for key in method("dino").state_dict()}
    assert parts == {"encoder", "head", "centre", "teacher_encoder", "teacher_head"}
    assert {"price_head", "density_head", "coordinate_head"} < {
        key.split(".")[0] for key in method("gps_selm_geo").state_dict()
    }
    no_price = {key.split(".")[0] for key in method("gps_selm_no_price").state_dict()}
    assert "price_head" not in no_price
    assert "density_head" in no_price
    geo = {key.split(".")[0] for key in method("geo_only").state_dict()}
    assert geo == {"encoder", "price_head", "density_head", "coordinate_head"}
    assert method("dino").parent_share == method("gps_selm_geo").parent_share == 0
    assert method("gps_selm_geo_rec").parent_share == 1
    assert method("gps_selm", dataclasses.replace(SETTINGS, rec_share=0.25)).parent_share == 0.25


@pytest.mark.parametrize(
    ("name", "present"),
    [
        ("dino", {"cl"}), ("gps_selm_geo", {"cl", "geo", "price", "density", "coordinates"}),
        ("gps_selm_geo_rec", {"cl", "geo", "price", "density", "coordinates", "rec", "rec_outer"}),
        ("gps_selm", {"cl", "geo", "price", "density", "coordinates", "rec", "rec_outer", "clust"}),
        ("geo_only", {"geo", "price", "density", "coordinates"}),
        ("gps_selm_no_price", {"cl", "geo", "density", "coordinates", "rec", "rec_outer", "clust"}),
    ],
)  # fmt: skip
def test_each_row_has_the_losses_of_its_name(name, present, batch):
    out = method(name).loss(batch, 0.1)
    diagnostics = {"teacher_entropy", "mean_teacher_entropy", "mean_cluster_entropy"}
    assert set(out) - diagnostics - {"loss", "feature_spread"} == present


def test_gps_selm_without_its_auxiliary_terms_is_dino_to_the_last_bit(monkeypatch):
    dino = trainer("dino")
    off = dict.fromkeys(("price", "density", "coordinates", "reconstruction", "clustering"), False)
    recipe = methods.METHODS["gps_selm"]
    changed = dataclasses.replace(recipe, settings=dataclasses.replace(recipe.settings, **off))
    monkeypatch.setitem(methods.METHODS, "gps_selm", changed)
    plain = trainer("gps_selm")
    for _ in range(4):
        one, two = dino.train_step(), plain.train_step()
        assert {k: v.item() for k, v in one.items()} == {k: v.item() for k, v in two.items()}
    for key, value in dino.method.state_dict().items():
        assert torch.equal(value, plain.method.state_dict()[key]), key


def test_auxiliary_terms_of_weight_zero_leave_dinos_numbers_as_they_are():
    """The full method with α = β = γ = 0 takes DINO's steps: nothing of the auxiliary tasks leaks into them."""
    settings = dataclasses.replace(SETTINGS, alpha=0.0, beta=0.0, gamma=0.0)
    dino, full = trainer("dino", settings), trainer("gps_selm", settings)
    for key, value in dino.method.state_dict().items():
        full.method.state_dict()[key].copy_(value)
    for _ in range(4):
        assert dino.train_step()["cl"].item() == full.train_step()["cl"].item()
    for key, value in dino.method.state_dict().items():
        assert torch.equal(value, full.method.state_dict()[key]), key


# --------------------------------------------------------------------------------------------------- diagnostics


def test_diagnostics_are_what_they_say(batch):
    made = method("gps_selm")
    probabilities, wide = [], []
    made.teacher_head.register_forward_hook(
        lambda module, given, out: probabilities.append(torch.softmax(out.detach() / 0.04, -1))
    )
    made.encoder.register_forward_hook(lambda module, given, out: wide.append(out.detach()))
    out = made.loss(batch, 0.0)
    p = probabilities[0]
    each = [-sum(v * math.log(v) for v in row if v > 0) for row in p.tolist()]
    assert out["teacher_entropy"].item() == pytest.approx(sum(each) / len(each), rel=1e-4)
    mean = p.mean(dim=0)
    assert out["mean_teacher_entropy"].item() == pytest.approx(-(mean * mean.log()).sum().item(), rel=1e-4)
    assert out["mean_teacher_entropy"] >= out["teacher_entropy"]
    unit = nn.functional.normalize(wide[0], dim=-1)
    spread = math.sqrt((unit - unit.mean(dim=0)).square().sum().item() / (len(unit) - 1))
    assert out["feature_spread"].item() == pytest.approx(spread, rel=1e-5)
    assert not any(out[key].requires_grad for key in ("feature_spread", "teacher_entropy", "rec_outer"))


def test_collapse_is_named():
    made = method("dino")
    limit = math.log(SETTINGS.out_dim)
    healthy = {"mean_teacher_entropy": 0.9 * limit, "teacher_entropy": 0.5 * limit, "feature_spread": 0.5}
    assert made.collapse(healthy) == ""
    assert "one output" in made.collapse(healthy | {"mean_teacher_entropy": 0.01, "teacher_entropy": 0.01})
    assert "uniform" in made.collapse(healthy | {"mean_teacher_entropy": limit, "teacher_entropy": 0.999 * limit})
    assert "alike" in made.collapse(healthy | {"feature_spread": 0.01})
    assert method("geo_only").collapse({"feature_spread": 0.5}) == ""


def test_an_encoder_whose_features_are_all_one_is_seen_to_have_collapsed(batch):
    made = method("dino")
    nn.init.zeros_(made.encoder.network.bn1.weight)
    for block in made.encoder.network.modules():
        if isinstance(block, nn.BatchNorm2d):
            nn.init.zeros_(block.weight)
            nn.init.ones_(block.bias)
    out = made.loss(batch, 0.5)
    assert out["feature_spread"] < 1e-3
    assert made.collapse({key: value.item() for key, value in out.items()})


# ------------------------------------------------------------------------------------------------- rows by name


def test_unknown_methods_get_the_nearest_name():
    with pytest.raises(InputError, match=r"unknown method 'gps_selm_geo_rect'; did you mean 'gps_selm_geo_rec'\?"):
        methods.get_method("gps_selm_geo_rect")
    with pytest.raises(InputError, match="there are: mugs, moco_v2, "):
        methods.get_method("zzzz")


def test_the_papers_variants_add_one_task_after_another():
    on = [
        {field for field, value in dataclasses.asdict(methods.METHODS[name].settings).items() if value}
        for name in ("dino", "gps_selm_geo", "gps_selm_geo_rec", "gps_selm")
    ]
    assert on[0] == {"distillation"}
    assert on[1] - on[0] == {"price", "density", "coordinates"}
    assert on[2] - on[1] == {"reconstruction"}
    assert on[3] - on[2] == {"clustering"}

"""MUGS: its three losses from the paper's equations, its memories and queues, who learns from what, that it learns."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from synthetic import SETTINGS, VIEWS, SyntheticAtlas, method, sampler, trainer
from torch import nn

from selm.heads import RelationBlock
from selm.methods.mugs import Mugs, nearest_in_memory
from selm.pretrain import Trainer
from selm.views import ViewSampler, erased

TEACHERS = {
    "teacher_encoder": "encoder", "teacher_relation": "relation", "teacher_group_head": "group_head",
    "teacher_instance_projector": "instance_head.projector",
    "teacher_local_group_projector": "local_group_head.projector",
}  # fmt: skip


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def made():
    return method("mugs")


@pytest.fixture(scope="module")
def batch(made):
    return made.draw(sampler(), 6, generator())


def test_views_of_teacher_and_student(made, batch):
    assert batch.global_views.shape == (24, 3, VIEWS.global_px, VIEWS.global_px)
    assert batch.local_views.shape == (6 * VIEWS.n_local, 3, VIEWS.local_px, VIEWS.local_px)
    assert batch.weak.shape == (6,)
    # the teacher's are plain crops of the areas asked for
    own = dataclasses.replace(VIEWS, global_area=(0.25, 1.0), local_area=(0.05, 0.25), n_local=0)
    source, same = sampler(views=own), generator()
    expected = source.batch(source.draw_rows(6, same), same)
    assert torch.equal(batch.global_views[:12], expected.global_views)
    assert not torch.equal(batch.global_views[12:], expected.global_views)  # the student sees others


def test_half_of_the_students_views_are_strong_and_a_quarter_of_those_erased(monkeypatch):
    made, source = method("mugs"), sampler()
    plain = copy.deepcopy(made)
    plain.settings = dataclasses.replace(plain.settings, erase_share=0.0)
    one, two = (m.draw(source, 400, generator(1)) for m in (made, plain))
    assert torch.equal(one.global_views[:800], two.global_views[:800])
    touched = (one.global_views[800:] != two.global_views[800:]).flatten(1).any(dim=1).view(2, 400)
    assert one.weak.float().mean().item() == pytest.approx(0.5, abs=0.1)
    assert not touched[:, one.weak].any()
    assert touched[:, ~one.weak].float().mean().item() == pytest.approx(0.25, abs=0.08)
    local = (one.local_views != two.local_views).flatten(1).any(dim=1).float().mean().item()
    assert local == pytest.approx(0.125, abs=0.05)


def test_erasing_replaces_one_rectangle_of_the_chosen_images():
    images, noise = torch.zeros(200, 3, 24, 24), torch.ones(3, 24, 24)
    chosen = torch.arange(200) % 2 == 0
    out = erased(images, chosen, torch.rand(200, 4, generator=generator()), noise)
    assert (out[~chosen] == 0).all()
    shares = []
    for image in out[chosen]:
        rows, columns = image[0].nonzero().unbind(1)
        if len(rows):  # one filled rectangle, in all three colours
            height, width = rows.max() - rows.min() + 1, columns.max() - columns.min() + 1
            assert image.sum() == 3 * height * width
            assert 0.2 < height / width < 5
        shares.append(image[0].mean().item())
    assert 0.01 < min(shares) < 0.05
    assert 0.25 < max(shares) < 0.38


def test_gradients_reach_all_of_the_student_and_none_of_the_teacher(batch):
    made = method("mugs")
    batch = dataclasses.replace(batch, global_views=batch.global_views.clone().requires_grad_())
    made.loss(batch, 0.5)["loss"].backward()
    for key, parameter in made.named_parameters():
        if key.startswith("teacher"):
            assert not parameter.requires_grad, key
            assert parameter.grad is None, key
        else:
            assert parameter.grad.isfinite().all(), key
            # a constant added to all keys leaves attention as it is
            assert key == "relation.key.bias" or parameter.grad.abs().sum() > 0, key
    assert (batch.global_views.grad[:12] == 0).all()
    assert batch.global_views.grad[12:].abs().sum() > 0
    assert not any(buffer.requires_grad for buffer in made.buffers())


def test_the_three_losses_are_the_papers(batch):
    """Eqs. 1 to 6 of the paper by loops over places and pairs of views, from the networks' outputs in a copy."""
    made = method("mugs")
    made.centre.copy_(0.1 * torch.randn(SETTINGS.out_dim, generator=generator(1)))
    twin = copy.deepcopy(made)
    out = made.loss(batch, 0.3)
    n, views = batch.size, 2 + VIEWS.n_local
    with torch.no_grad():
        taught = twin.teacher_encoder(batch.global_views[: 2 * n])
        wide = twin.encoder(batch.global_views[2 * n :])
        features = torch.cat([wide, twin.encoder(batch.local_views)])
        near = twin.relation(features, nearest_in_memory(features, twin.memory, 8))
        taught_near = twin.teacher_relation(taught, nearest_in_memory(taught, twin.teacher_memory, 8))
        student = {"instance": twin.instance_head(features), "local_group": twin.local_group_head(near)}
        teacher = {
            "instance": F.normalize(twin.teacher_instance_projector(taught), dim=-1),
            "local_group": F.normalize(twin.teacher_local_group_projector(taught_near), dim=-1),
        }
        group_student, group_teacher = twin.group_head(features), twin.teacher_group_head(taught)
    queues = {"instance": twin.instance_queue, "local_group": twin.group_queue}

    def halves(pair_loss):
        large = [pair_loss(g, v) for g in range(2) for v in range(2) if g != v]
        small = [pair_loss(g, v) for g in range(2) for v in range(2, views)]
        return 0.5 * (sum(large) / len(large) + sum(small) / len(small))

    for name, queue in queues.items():

        def nce(g, v, name=name, queue=queue):
            total = 0.0
            for i in range(n):
                q, k = student[name][v * n + i], teacher[name][g * n + i]
                total -= torch.log_softmax(torch.cat([(q @ k)[None], queue @ q]) / 0.2, 0)[0].item()
            return total / n

        assert out[name].item() == pytest.approx(halves(nce), rel=1e-4)

    def cluster(g, v):
        total = 0.0
        for i in range(n):
            t = torch.softmax((group_teacher[g * n + i] - twin.centre) / 0.04, 0)
            total -= (t * torch.log_softmax(group_student[v * n + i] / 0.1, 0)).sum().item()
        return total / n

    assert out["group"].item() == pytest.approx(halves(cluster), rel=1e-4)
    mean = (out["instance"] + out["local_group"] + out["group"]).item() / 3
    assert out["loss"].item() == pytest.approx(mean, rel=1e-6)


def test_weights_multiply(batch):
    """The authors' code divides by their sum and does not multiply: with 3, 0, 0 it would give a third."""
    values = {}
    for weights in ((3.0, 0.0, 0.0), (1.0, 2.0, 1.0)):
        made = method("mugs")
        made.settings = dataclasses.replace(made.settings, weights=weights)
        values[weights] = made.loss(batch, 0.0)
    first = values[3.0, 0.0, 0.0]
    assert first["loss"].item() == pytest.approx(first["instance"].item(), rel=1e-6)
    second = values[1.0, 2.0, 1.0]
    mean = (second["instance"] + 2 * second["local_group"] + second["group"]).item() / 4
    assert second["loss"].item() == pytest.approx(mean, rel=1e-6)


def test_a_local_group_is_what_a_transformer_block_makes_of_a_feature_and_its_neighbours():
    """Against torch's own layer over all tokens, of which the first comes out."""
    block = RelationBlock(128)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.1)
    layer = nn.TransformerEncoderLayer(128, 2, 512, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True)
    linears = (block.query, block.key, block.value)
    layer.self_attn.in_proj_weight.data = torch.cat([linear.weight.data for linear in linears])
    layer.self_attn.in_proj_bias.data = torch.cat([linear.bias.data for linear in linears])
    for name in ("norm1", "norm2"):
        getattr(layer, name).load_state_dict(getattr(block, name).state_dict())
    pairs = zip((layer.self_attn.out_proj, layer.linear1, layer.linear2), (block.out, *block.mlp[::2]), strict=True)
    for own, other in pairs:
        own.load_state_dict(other.state_dict())
    feature, neighbours = torch.randn(5, 128), torch.randn(5, 8, 128)
    expected = block.norm(layer(torch.cat([feature[:, None], neighbours], dim=1))[:, 0])
    torch.testing.assert_close(block(feature, neighbours), expected, rtol=1e-4, atol=1e-4)


def test_neighbours_are_those_of_largest_cosine():
    features, memory = torch.randn(4, 6, generator=generator()), 3 * torch.randn(20, 6, generator=generator(1))
    found = nearest_in_memory(features, memory, 3)
    for i in range(4):
        cosines = [(features[i] @ entry / features[i].norm() / entry.norm()).item() for entry in memory]
        best = sorted(range(20), key=lambda j: -cosines[j])[:3]
        assert torch.equal(found[i], memory[best])
    assert nearest_in_memory(features, memory[:2], 8).shape == (4, 2, 6)


def test_the_step_moves_teacher_queues_memories_and_centre():
    run = trainer("mugs", dataclasses.replace(SETTINGS, teacher_momentum=(0.9, 1.0)))
    before = {key: value.clone() for key, value in run.method.state_dict().items()}
    run.step = 2  # behind the warm-up's first step, which has a learning rate of 0
    run.train_step()
    made, n = run.method, SETTINGS.batch
    keep = 1 + (0.9 - 1) * 0.5 * (1 + math.cos(math.pi * 2 / 12))
    moved = 0
    for slow, fast in TEACHERS.items():
        for key, value in made.get_submodule(slow).named_parameters():
            student = made.get_submodule(fast).get_parameter(key)
            torch.testing.assert_close(
                value, keep * before[f"{slow}.{key}"] + (1 - keep) * student, rtol=1e-5, atol=1e-6
            )
            moved += not torch.equal(value, student)
    assert moved > 50
    instance, local, logits, first, weak, taught = made._next
    length = len(made.instance_queue)
    assert length == 24
    assert torch.equal(made.instance_queue[: 2 * n], instance.flatten(0, 1))
    assert torch.equal(made.group_queue[: 2 * n], local.flatten(0, 1))
    assert torch.equal(made.instance_queue[2 * n :], before["instance_queue"][2 * n :])
    assert made.instance_pointer == made.group_pointer == 2 * n
    # the student remembers weak first views only; each pointer moves once
    assert 0 < weak.sum() < n
    assert made.memory_pointer == weak.sum()
    assert torch.equal(made.memory[: weak.sum()], first[weak])
    assert torch.equal(made.memory[weak.sum() :], before["memory"][weak.sum() :])
    assert made.teacher_memory_pointer == n
    assert torch.equal(made.teacher_memory[:n], taught)
    torch.testing.assert_close(made.centre, 0.1 * logits.flatten(0, 1).mean(dim=0))


def test_the_group_heads_last_layer_is_still_at_first_and_rates_are_mugss():
    run = trainer("mugs", dataclasses.replace(SETTINGS, images=8 * 200))
    before = run.method.group_head.prototypes.clone()
    run.train_step()
    assert isinstance(run.optimizer, torch.optim.AdamW)
    assert torch.equal(run.method.group_head.prototypes, before)
    run.step = 20  # the end of the warm-up
    run.train_step()
    assert not torch.equal(run.method.group_head.prototypes, before)
    decays, still = run.optimizer.param_groups
    assert decays["lr"] == still["lr"] == pytest.approx(8e-4)
    assert 0.04 < decays["weight_decay"] < 0.2
    assert still["weight_decay"] == 0


@torch.no_grad()
def losses_now(made: Mugs, places: ViewSampler) -> dict[str, float]:
    """The losses of fresh views against queues and memories of fresh entries: the same yardstick at any time."""
    twin, values = copy.deepcopy(made), []
    twin.pretraining = dataclasses.replace(twin.pretraining, teacher_momentum=(1.0, 1.0))  # the teacher stays
    for seed in range(6):
        values.append(twin.loss(twin.draw(places, 16, generator(1000 + seed)), 0.5))
        twin.after_step(0.5)
    return {key: sum(value[key].item() for value in values[-3:]) / 3 for key in values[0]}


def test_it_learns_and_does_not_collapse():
    settings = dataclasses.replace(SETTINGS, images=80 * 16, batch=16)
    places = sampler(atlas=SyntheticAtlas(grain=32))  # places differ in what a crop of them keeps
    run = Trainer(method("mugs", settings), places, settings, 0, torch.device("cpu"))
    before = losses_now(run.method, places)
    rows = [{k: v.item() for k, v in run.train_step().items()} for _ in range(run.steps)]
    after = losses_now(run.method, places)
    for key in ("loss", "instance", "local_group", "group"):
        assert after[key] < 0.95 * before[key], key
    assert max(after["instance"], after["local_group"]) < 0.985 * math.log(1 + len(run.method.instance_queue))  # chance
    assert min(row["feature_spread"] for row in rows) > 0.3
    assert after["mean_teacher_entropy"] > 0.5 * math.log(SETTINGS.out_dim)
    assert run.method.collapse(rows[-1]) == ""
    assert run.method.collapse({"mean_teacher_entropy": 0.01, "feature_spread": 0.5}) == "one output takes all"
    assert "alike" in run.method.collapse({"mean_teacher_entropy": 3.0, "feature_spread": 0.01})

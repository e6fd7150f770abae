"""MoCo-v2: who gets gradients, what moves when, what the queue and the BatchNorms hold, and that it learns."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from synthetic import SETTINGS, VIEWS, SyntheticAtlas, method, sampler, trainer
from torch import nn

from reproduction.profiles import PROFILES
from selm.errors import InputError
from selm.methods import METHODS
from selm.methods.base import Method, momentum_of_run, push, queue_length
from selm.methods.moco import MoCoSettings, SplitBatchNorm2d, cluster_coordinates, deal
from selm.pretrain import Trainer
from selm.views import ViewSampler

KEYS = {"key_encoder": "encoder", "key_head": "head"}
NAMES = ("moco_v2", "moco_geo_tp")


def batch_for(made, n=6, seed=0):
    source = sampler()
    made.prepare(source)
    return made.draw(source, n, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_the_query_side_and_never_the_keys(name):
    made = method(name)
    batch = batch_for(made, 8)
    batch = dataclasses.replace(batch, global_views=batch.global_views.clone().requires_grad_())
    made.loss(batch, 0.5)["loss"].backward()
    for key, parameter in made.named_parameters():
        if key.startswith("key_"):
            assert not parameter.requires_grad, key
            assert parameter.grad is None, key
        else:
            assert parameter.grad.isfinite().all(), key
            assert parameter.grad.abs().sum() > 0, key
    assert batch.global_views.grad[:8].abs().sum() > 0
    assert (batch.global_views.grad[8:] == 0).all()
    assert not any(buffer.requires_grad for buffer in made.buffers())


@pytest.mark.parametrize("name", NAMES)
def test_the_key_encoder_is_the_moving_average_of_the_query_encoder(name):
    run = trainer(name)
    before = {key: value.clone() for key, value in run.method.state_dict().items()}
    run.train_step()
    m = run.method.momentum
    moved = 0
    for key, twin in KEYS.items():
        for parameter, value in getattr(run.method, key).named_parameters():
            old, query = before[f"{key}.{parameter}"], run.method.get_parameter(f"{twin}.{parameter}")
            torch.testing.assert_close(value, m * old + (1 - m) * query, rtol=1e-5, atol=1e-7)
            moved += not torch.equal(value, query)
            assert torch.equal(old, before[f"{twin}.{parameter}"])  # they start as one
    assert moved == len([*run.method.encoder.parameters(), *run.method.head.parameters()])


def test_the_loss_is_info_nce_of_each_place_against_the_queue_before_this_step():
    """Loops over places, from copies of the networks; BatchNorm group by group."""
    made = method("moco_v2")
    batch = batch_for(made, 8)
    twin, queue = copy.deepcopy(made), made.queue.clone()
    value = made.loss(batch, 0.0)["loss"].item()
    assert torch.equal(made.queue, queue)  # not before the step
    with torch.no_grad():
        first, second = batch.global_views[:8], batch.global_views[8:]
        q = torch.cat([F.normalize(twin.head(run_plain(twin.encoder, first[i : i + 4])), dim=-1) for i in (0, 4)])
        # the authors' shuffle, here: even places in one group of keys, odd ones in the other
        even, odd = (F.normalize(twin.key_head(run_plain(twin.key_encoder, second[i::2])), dim=-1) for i in (0, 1))
    keys = [even[i // 2] if i % 2 == 0 else odd[i // 2] for i in range(8)]
    total = 0.0
    for i in range(8):
        logits = torch.cat([(q[i] @ keys[i])[None], queue @ q[i]]) / made.settings.temperature
        total -= torch.log_softmax(logits, 0)[0].item()
    assert value == pytest.approx(total / 8, rel=1e-4)
    made.after_step(0.0)
    torch.testing.assert_close(made.queue[:8], torch.stack(keys), rtol=1e-4, atol=1e-5)
    assert torch.equal(made.queue[8:], queue[8:])
    assert made.pointer == 8


def run_plain(encoder: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The encoder with one BatchNorm group, on these images alone."""
    encoder = copy.deepcopy(encoder)
    for module in encoder.modules():
        if isinstance(module, SplitBatchNorm2d):
            module.forward = lambda x, bn=module: F.batch_norm(x, None, None, bn.weight, bn.bias, True, 0.0, bn.eps)
    return encoder(images)


@pytest.mark.parametrize(("n", "group"), [(8, 32), (64, 32), (256, 32), (12, 4), (10, 3)])
def test_keys_are_dealt_evenly_from_the_queries_groups(n, group):
    groups = max(2, n // group)
    order = deal(n, group, torch.device("cpu"))
    assert sorted(order.tolist()) == list(range(n))
    of_query = torch.empty(n, dtype=torch.int64)
    for g, part in enumerate(torch.arange(n).tensor_split(groups)):
        of_query[part] = g
    shares = [torch.bincount(of_query[part], minlength=groups) for part in order.tensor_split(groups)]
    for share in shares:
        assert share.max() - share.min() <= 1


def test_each_group_of_a_split_batchnorm_is_normalised_alone():
    made = method("moco_v2")
    norm = made.encoder.network.bn1
    assert isinstance(norm, SplitBatchNorm2d)
    x = torch.randn(8, norm.num_features, 4, 4)
    out = norm.train()(x)
    for part in (slice(0, 4), slice(4, 8)):
        expected = F.batch_norm(x[part], None, None, norm.weight, norm.bias, True, 0.0, norm.eps)
        torch.testing.assert_close(out[part], expected)
    plain = nn.BatchNorm2d(norm.num_features)
    plain.load_state_dict(norm.state_dict())
    torch.testing.assert_close(norm.eval()(x), plain.eval()(x))
    assert all(isinstance(m, SplitBatchNorm2d) for m in made.encoder.modules() if isinstance(m, nn.BatchNorm2d))


def test_queue_and_momentum_follow_the_run():
    paper, cpu = PROFILES["paper"].pretraining, PROFILES["japan-cpu"].pretraining
    s = MoCoSettings()
    assert queue_length(s.queue, s.queue_share, paper) == 65_536
    assert queue_length(s.queue, s.queue_share, cpu) == 5_000
    assert momentum_of_run(s.momentum, s.memory_share, paper) == 0.999
    assert momentum_of_run(s.momentum, s.memory_share, cpu) == pytest.approx(1 - 1 / 312.5)
    assert momentum_of_run(s.momentum, s.memory_share, SETTINGS) == pytest.approx(0.9)
    assert momentum_of_run(s.momentum, s.memory_share, PROFILES["japan"].pretraining) == 0.999


def test_two_crops_of_the_areas_asked_for_and_no_local_views():
    made = method("moco_v2")
    batch = batch_for(made, 6)
    assert batch.global_views.shape == (12, 3, VIEWS.global_px, VIEWS.global_px)
    assert len(batch.local_views) == 0
    assert batch.parents is None
    own = dataclasses.replace(VIEWS, global_area=(0.2, 1.0), n_local=0)
    source, generator = sampler(views=own), torch.Generator().manual_seed(0)
    expected = source.batch(source.draw_rows(6, generator), generator)
    assert torch.equal(batch.global_views, expected.global_views)


def test_sgd_decays_everything_on_a_cosine_without_warm_up():
    run = trainer("moco_v2")
    assert isinstance(run.optimizer, torch.optim.SGD)
    rates = []
    for _ in range(run.steps):
        run.train_step()
        rates.append(run.optimizer.param_groups[0]["lr"])
        assert all(group["weight_decay"] == 1e-4 for group in run.optimizer.param_groups)
        assert all(group["momentum"] == 0.9 for group in run.optimizer.param_groups)
    assert rates[0] == 0.03
    assert rates[run.steps // 2] == pytest.approx(0.015)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.001


@torch.no_grad()
def contrast_now(made: Method, places: ViewSampler) -> dict[str, float]:
    """The losses of fresh views against a queue of fresh keys: the same yardstick before and after training.

    During training the queue goes from random vectors to keys, so that the logged loss alone says little at first.
    """
    twin, values = copy.deepcopy(made), []
    for seed in range(6):
        values.append(twin.contrast(twin.draw(places, 16, torch.Generator().manual_seed(1000 + seed)))[1])
        push(twin.queue, twin.pointer, twin._next_keys)
    return {key: sum(value[key].item() for value in values[-4:]) / 4 for key in values[0]}


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_and_does_not_collapse(name):
    settings = dataclasses.replace(SETTINGS, images=100 * 16, batch=16)
    places = sampler(atlas=SyntheticAtlas(grain=32))  # places differ in what a crop of them keeps
    run = Trainer(method(name, settings), places, settings, 0, torch.device("cpu"))
    before = contrast_now(run.method, places)
    rows = [{k: v.item() for k, v in run.train_step().items()} for _ in range(run.steps)]
    after = contrast_now(run.method, places)
    assert after["nce"] < 0.9 * before["nce"]
    # what chance would give; processors round differently, and after so many steps runs differ by some percent
    assert after["nce"] < 0.95 * math.log(1 + len(run.method.queue))
    assert min(row["feature_spread"] for row in rows) > 0.3
    assert run.method.collapse(rows[-1]) == ""
    if "geo" in rows[0]:
        assert sum(row["geo"] for row in rows[-10:]) < 0.95 * sum(row["geo"] for row in rows[:10])


# ------------------------------------------------------------------------------------------------------- Geo + TP


def test_places_near_each_other_share_a_geo_class():
    rng = np.random.default_rng(0)
    towns = np.array([[35.0, 135.0], [35.0, 139.0], [43.0, 141.0]])
    places = np.repeat(towns, 20, axis=0) + rng.normal(0, 0.01, (60, 2))
    found = cluster_coordinates(places, 3)
    assert found.dtype == np.int64
    assert len(set(found)) == 3
    assert all(len(set(found[i : i + 20])) == 1 for i in (0, 20, 40))
    assert (found == cluster_coordinates(places, 3)).all()
    with pytest.raises(InputError, match="2 places cannot make 3 geographic classes"):
        cluster_coordinates(places[:2], 3)


def test_geo_classes_are_those_of_the_batchs_places_and_their_cross_entropy_is_added():
    made = method("moco_geo_tp")
    batch = batch_for(made, 8)
    assert made.classes == 24  # a quarter of 96 places
    assert torch.equal(made.geo_class, torch.from_numpy(cluster_coordinates(sampler().places, 24)))
    seen = []
    made.head.register_forward_hook(lambda module, given, out: seen.append(out.detach()))
    out = made.loss(batch, 0.0)
    weight, bias = made.geo_head[1].weight.detach(), made.geo_head[1].bias.detach()
    total = 0.0
    for i in range(8):
        logits = weight @ seen[0][i].clamp(min=0) + bias  # of the projection as it is, not of its direction
        total -= torch.log_softmax(logits, 0)[made.geo_class[batch.rows[i]]].item()
    assert out["geo"].item() == pytest.approx(total / 8, rel=1e-5)
    assert out["loss"].item() == pytest.approx(out["nce"].item() + out["geo"].item(), rel=1e-6)


def test_the_key_can_be_the_map_one_zoom_out(monkeypatch):
    row = METHODS["moco_geo_tp"]
    zoom = dataclasses.replace(row, settings=dataclasses.replace(row.settings, positive="zoom"))
    monkeypatch.setitem(METHODS, "moco_geo_tp", zoom)
    made = method("moco_geo_tp")
    batch = batch_for(made, 6)
    assert torch.equal(made.key_images(batch), batch.parents[6:])
    plain = method("moco_v2")
    batch = batch_for(plain, 6)
    assert torch.equal(plain.key_images(batch), batch.global_views[6:])
    assert made.loss(batch_for(made, 6), 0.0)["loss"].isfinite()

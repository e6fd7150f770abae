"""Tile2Vec: where its tiles lie, how they are turned, who is trained, and that it learns."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from synthetic import SETTINGS, VIEWS, SyntheticAtlas, method, sampler, trainer

from selm import losses
from selm.pretrain import Trainer
from selm.views import turned

PX = VIEWS.global_px


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Watched:
    """An atlas that notes where it is asked to cut."""

    def __init__(self, source):
        self.source, self.patches_of = source, source.atlas.patches
        self.centres = []
        source.atlas.patches = self.patches

    def patches(self, centres, zoom, size):
        self.centres.append(centres)
        return self.patches_of(centres, zoom, size)


def test_neighbours_lie_within_the_square_and_distant_tiles_outside_it():
    source = sampler(400, atlas=SyntheticAtlas(layout=("####",) * 4))
    watched = Watched(source)
    rows = torch.arange(400)
    batch = source.triplets(rows, 2.0, generator())
    anchor, neighbour, distant = watched.centres[0].view(3, 400, 2)
    assert batch.global_views.shape == (1200, 3, PX, PX)
    assert torch.equal(anchor, source.centres[rows])
    offset = (neighbour - anchor) / PX
    assert offset.abs().max() <= 2
    # all over the square: each quarter of it, and beyond its middle
    assert ((offset > 0).float().mean(dim=0) - 0.5).abs().max() < 0.1
    assert ((offset.abs() > 1).float().mean(dim=0) - 0.5).abs().max() < 0.1
    assert ((distant - anchor).abs().amax(dim=1) > 2 * PX).all()
    # distant tiles are places of the table
    assert (torch.cdist(distant, source.centres).amin(dim=1) < 0.1).all()


def test_distant_tiles_are_drawn_alike_from_all_places_outside():
    """The first of the draws that lies outside, not the farthest."""
    source = sampler(5, atlas=SyntheticAtlas(layout=("####",) * 4), seed=3)
    watched = Watched(source)
    source.triplets(torch.zeros(4000, dtype=torch.int64), 0.5, generator(1))
    distant = watched.centres[0].view(3, 4000, 2)[2]
    drawn = torch.cdist(distant, source.centres).argmin(dim=1).bincount(minlength=5) / 4000
    outside = (source.centres - source.centres[0]).abs().amax(dim=1) > 0.5 * PX
    assert 2 <= outside.sum() <= 4
    assert (drawn[~outside] == 0).all()
    torch.testing.assert_close(drawn[outside], torch.full_like(drawn[outside], 1 / outside.sum()), atol=0.04, rtol=0)


def test_where_all_places_are_near_the_farthest_draw_is_taken():
    source = sampler(4, atlas=SyntheticAtlas(layout=("#",)))
    batch = source.triplets(torch.arange(4), 100.0, generator())
    assert batch.global_views.isfinite().all()


def test_tiles_are_whole_images_turned_in_eight_ways():
    source = sampler(40)
    batch = source.triplets(torch.arange(40), 2.0, generator())
    indices, _ = source.atlas.patches(source.centres, 17, PX)
    ways = set()
    for got, image in zip(batch.global_views[:40], indices, strict=True):
        plain = source.palette[image.long()][..., 0]
        eight = [torch.rot90(side, k) for side in (plain, plain.flip(0)) for k in range(4)]
        found = [way for way, turned_ in enumerate(eight) if torch.equal(got[0], turned_)]
        assert found
        ways.add(found[0])
    assert ways == set(range(8))


def test_the_three_bits_are_the_eight_ways_to_lay_a_square():
    image = torch.arange(9, dtype=torch.uint8).view(1, 3, 3)
    bits = torch.tensor([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)], dtype=torch.bool)
    out = {tuple(turned(image, row[None])[0].flatten().tolist()) for row in bits}
    expected = {tuple(torch.rot90(side, k).flatten().tolist()) for side in (image[0], image[0].T) for k in range(4)}
    assert out == expected
    assert len(out) == 8


def test_parts_of_a_batch_are_what_the_whole_has():
    made, source = method("tile2vec"), sampler()
    whole = made.draw(source, 8, generator(1))
    half = made.draw(source, 8, generator(1), slice(4, 8))
    assert torch.equal(half.global_views, whole.global_views.view(3, 8, 3, PX, PX)[:, 4:].flatten(0, 1))
    assert torch.equal(half.rows, whole.rows[4:])


def test_all_of_the_encoder_is_trained_by_all_three_tiles():
    made = method("tile2vec")
    batch = made.draw(sampler(), 6, generator())
    batch = dataclasses.replace(batch, global_views=batch.global_views.clone().requires_grad_())
    out = made.loss(batch, 0.0)
    out["loss"].backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in made.parameters())
    for tiles in batch.global_views.grad.split(6):
        assert tiles.abs().sum() > 0
    assert {key.split(".")[0] for key in made.state_dict()} == {"encoder"}
    assert not any(value.requires_grad for key, value in out.items() if key != "loss")


def test_the_loss_is_the_triplets_of_separate_forwards():
    made, twin = method("tile2vec"), method("tile2vec")
    batch = made.draw(sampler(), 6, generator())
    out = made.loss(batch, 0.0)
    with torch.no_grad():
        z = [twin.encoder(part) for part in batch.global_views.split(6)]
    s = made.settings
    torch.testing.assert_close(out["loss"].detach(), losses.triplet(*z, s.margin, s.l2))
    torch.testing.assert_close(out["triplet"], losses.triplet(*z, s.margin, 0.0))


def test_adam_at_a_constant_rate_without_decay():
    run = trainer("tile2vec")
    assert type(run.optimizer) is torch.optim.Adam
    for step in (0, 5, 11):
        run.step = step
        run.train_step()
        for group in run.optimizer.param_groups:
            assert (group["lr"], group["betas"], group["weight_decay"]) == (1e-3, (0.5, 0.999), 0)


def test_two_equal_tiles_do_not_break_the_gradient():
    z = torch.ones(2, 4, requires_grad=True)
    losses.triplet(z, z, z.detach() + 1, 10.0, 0.01).backward()
    assert z.grad.isfinite().all()


def test_it_learns_and_does_not_collapse():
    settings = dataclasses.replace(SETTINGS, images=40 * 16, batch=16)
    # patches of one grey several images wide: what is near is alike
    places = sampler(200, atlas=SyntheticAtlas(layout=("####",) * 4, grain=128))
    run = Trainer(method("tile2vec", settings), places, settings, 0, torch.device("cpu"))
    rows = [{k: v.item() for k, v in run.train_step().items()} for _ in range(run.steps)]

    def mean(part, key):
        return sum(row[key] for row in part) / len(part)

    early, late = rows[:10], rows[-10:]
    assert mean(late, "loss") < 0.9 * mean(early, "loss")
    ratio = [mean(part, "distant_distance") / mean(part, "neighbour_distance") for part in (early, late)]
    assert ratio[1] > 1.1 * ratio[0]
    assert mean(late, "feature_spread") > 0.2
    assert run.method.collapse(rows[-1]) == ""


@pytest.mark.parametrize("margin", [0.1, 10.0])
def test_a_triplet_far_enough_apart_gives_no_gradient_but_that_of_its_length(margin):
    a = torch.tensor([[3.0, 4.0]], requires_grad=True)
    losses.triplet(a, a.detach().clone(), a.detach() + 100, margin, 0.01).backward()
    torch.testing.assert_close(a.grad, 0.01 * torch.tensor([[0.6, 0.8]]))

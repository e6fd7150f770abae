"""Views at several zooms: where they are cut, that all losses run on them, and that a share of a batch is a share."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from synthetic import SETTINGS, VIEWS, SyntheticAtlas, method

from selm.encoder import EncoderConfig, MapEncoder
from selm.errors import InputError
from selm.methods import METHODS
from selm.methods.gps_selm import Terms
from selm.methods.multi_zoom import MultiZoom, MultiZoomSettings
from selm.pretrain import step_generator
from selm.settings import Recolouring
from selm.views import DeviceAtlas, ViewSampler

CPU = torch.device("cpu")


class Painted(SyntheticAtlas):
    """A map that is of one colour at each zoom: 17 → index 17, 16 → index 16."""

    def __init__(self) -> None:
        super().__init__()
        self.mosaic = {zoom: np.full_like(mosaic, zoom) for zoom, mosaic in self.mosaic.items()}


def sampler(n: int = 40) -> ViewSampler:
    atlas = Painted()
    rng = np.random.default_rng(0)
    xy = np.array([1, 1]) * atlas.side(17) * (1.2 + 0.6 * rng.random((n, 2)))
    lat, lon = atlas.place(xy[:, 0], xy[:, 1])
    return ViewSampler(
        DeviceAtlas([atlas], (17, 16)), lat, lon, VIEWS, zoom=17, parent_zoom=16, price=np.zeros(n),
        density_class=np.zeros(n, int), coordinates=np.zeros((n, 2)), priorities=np.full(n, 1 / n),
        pixel_mean=(0.0, 0.0, 0.0), pixel_std=(1 / 255, 1 / 255, 1 / 255),
    )  # fmt: skip


def made(across: bool = True, **terms: bool) -> MultiZoom:
    torch.manual_seed(0)
    encoder = MapEncoder(EncoderConfig("resnet18", 0.125, image_px=VIEWS.global_px))
    own = MultiZoomSettings(Terms(**({"price": True, "coordinates": True} | terms)), (17, 16), across)
    return MultiZoom(encoder, SETTINGS, own, VIEWS.global_px)


def zooms_of(views: torch.Tensor) -> np.ndarray:
    """The zoom that each view was cut at: its colour."""
    flat = views.flatten(1)
    assert (flat.max(1).values - flat.min(1).values).max() < 0.01
    return flat.mean(1).round().int().numpy()


def test_views_are_cut_at_all_zooms_evenly_and_meet_across_zooms() -> None:
    places, run = sampler(), made()
    run.prepare(places)
    met = set()
    for step in range(4):
        batch = run.draw(places, 12, step_generator(0, step, CPU))
        wide = zooms_of(batch.global_views).reshape(2, 12)
        narrow = zooms_of(batch.local_views).reshape(VIEWS.n_local, 12)
        assert np.bincount(wide[0])[16:].tolist() == [6, 6]
        assert np.bincount(wide[1])[16:].tolist() == [6, 6]
        for view in range(VIEWS.n_local):  # local views lie at the zooms of the global ones, by turns
            assert np.array_equal(narrow[view], wide[view % 2])
        met.add(bool((wide[0] == wide[1]).all()))
        assert met <= {True, False} and ((wide[0] == wide[1]).all() or (wide[0] != wide[1]).all())
    assert met == {True, False}


def test_without_crossing_all_views_of_a_place_lie_at_one_zoom() -> None:
    places, run = sampler(), made(across=False)
    run.prepare(places)
    for step in range(3):
        batch = run.draw(places, 8, step_generator(0, step, CPU))
        wide = zooms_of(batch.global_views).reshape(2, 8)
        assert np.array_equal(wide[0], wide[1])
        assert set(wide[0]) == {16, 17}


def test_at_one_zoom_the_views_are_those_of_the_plain_method() -> None:
    from synthetic import sampler as plain

    places = plain()
    encoder = MapEncoder(EncoderConfig("resnet18", 0.125, image_px=VIEWS.global_px))
    run = MultiZoom(encoder, SETTINGS, MultiZoomSettings(zooms=(17,)), VIEWS.global_px)
    run.prepare(places)
    one = run.draw(places, 6, step_generator(3, 1, CPU))
    other = method("gps_selm_geo").draw(places, 6, step_generator(3, 1, CPU))
    assert torch.equal(one.rows, other.rows)
    torch.testing.assert_close(one.global_views, other.global_views)
    torch.testing.assert_close(one.local_views, other.local_views)
    assert one.global_views.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("part", [slice(0, 6), slice(6, 12), slice(3, 7)])
def test_a_share_of_a_batch_is_that_share_of_the_whole(part: slice) -> None:
    places, run = sampler(), made()
    run.prepare(places)
    whole = run.draw(places, 12, step_generator(0, 5, CPU))
    share = run.draw(places, 12, step_generator(0, 5, CPU), part)
    assert torch.equal(share.rows, whole.rows[part])
    for got, all_ in ((share.global_views, whole.global_views), (share.local_views, whole.local_views)):
        expected = all_.unflatten(0, (-1, 12))[:, part].flatten(0, 1)
        torch.testing.assert_close(got, expected)


def test_the_losses_run_and_reach_the_encoder() -> None:
    places, run = sampler(), made(clustering=True)
    run.prepare(places)
    out = run.loss(run.draw(places, 8, step_generator(0, 0, CPU)), 0.5)
    assert {"cl", "price", "coordinates", "clust"} <= out.keys()
    out["loss"].backward()
    assert all(p.grad is not None for p in run.encoder.parameters())
    assert all(p.grad is None for p in run.teacher_encoder.parameters())


def test_reconstruction_is_refused() -> None:
    with pytest.raises(InputError, match="no parent image to reconstruct at every zoom"):
        MultiZoomSettings(Terms(reconstruction=True))


def test_the_two_that_there_are() -> None:
    assert METHODS["multi_zoom"].zooms == (17, 16, 15, 14)
    assert METHODS["multi_zoom_wide"].zooms == tuple(range(17, 9, -1))
    assert dataclasses.replace(METHODS["multi_zoom"].settings, across=False).terms.price


def test_views_of_several_zooms_have_colours_of_their_own() -> None:
    """The map is of colour 17 at zoom 17 and of 16 at 16; where a colour is left out the view is the background's."""
    places, run = sampler(), made()
    places.recolouring, places.mixtures = Recolouring(dropped=0.5), torch.eye(256)
    run.prepare(places)
    found = []
    for step in range(20):
        generator = step_generator(0, step, CPU)
        batch = run.draw(places, 8, generator)
        part = run.draw(places, 8, step_generator(0, step, CPU), slice(2, 6))
        wide, narrow = (zooms_of(views).reshape(-1, 8) for views in (batch.global_views, batch.local_views))
        assert (zooms_of(part.global_views).reshape(-1, 4) == wide[:, 2:6]).all()
        assert (zooms_of(part.local_views).reshape(-1, 4) == narrow[:, 2:6]).all()
        found += [*wide.ravel(), *narrow.ravel()]
    assert set(found) == {0, 16, 17}
    assert np.mean(np.array(found) == 0) == pytest.approx(0.5, abs=0.08)

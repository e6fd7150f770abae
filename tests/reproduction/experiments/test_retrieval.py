"""Recall against a slow loop; what a query is, against the map it is cut from; ties count against the embedding."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from synthetic import CORNER, TILE_PX, SyntheticAtlas

from reproduction.experiments import retrieval
from reproduction.settings import Query
from selm.errors import InputError
from selm.maps.mercator import metres_per_pixel, to_tile
from selm.views import DeviceAtlas

SIZE = 16


def places(n: int, seed: int = 0) -> tuple[SyntheticAtlas, DeviceAtlas, np.ndarray, np.ndarray]:
    """n places well inside the middle block of a made-up map."""
    atlas = SyntheticAtlas(layout=("###", "###", "###"))
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(1.2, 1.8, (2, n)) * atlas.side(17)
    lat, lon = atlas.place(x, y)
    return atlas, DeviceAtlas([atlas], (17,)), lat, lon


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_ranks_equal_a_slow_loop() -> None:
    rng = np.random.default_rng(0)
    gallery = rng.normal(size=(50, 6)).astype(np.float32)
    queries = (gallery + rng.normal(0, 1.0, gallery.shape)).astype(np.float32)
    expected = []
    for i, query in enumerate(queries):
        distances = [float(((query - place) ** 2).sum()) for place in gallery]
        expected.append(sum(d <= distances[i] for d in distances))
    np.testing.assert_array_equal(retrieval.ranks(gallery, queries), expected)


def test_an_identity_query_finds_every_place_first() -> None:
    _, atlas, lat, lon = places(40)
    own = retrieval.gallery_images(atlas, lat, lon, 17, SIZE)
    asked = retrieval.query_images(atlas, lat, lon, 17, SIZE, Query("identity"), generator())
    torch.testing.assert_close(asked, own, atol=1e-5, rtol=0)
    rank = retrieval.ranks(own.flatten(1).numpy(), asked.flatten(1).numpy())
    assert (rank == 1).all()
    assert retrieval.recall(rank, [0.1, 100.0], 40).tolist() == [1.0, 1.0]


def test_an_embedding_that_says_the_same_of_all_places_finds_none() -> None:
    same = np.ones((30, 4), np.float32)
    rank = retrieval.ranks(same, same)
    assert (rank == 30).all()
    assert retrieval.recall(rank, [1.0, 50.0, 96.0, 100.0], 30).tolist() == [0.0, 0.0, 0.0, 1.0]


def test_a_shift_is_so_many_metres_whatever_its_direction() -> None:
    """On a map whose red is the column and whose green is the row, a picture says where it was taken."""
    atlas, _, lat, lon = places(60)
    metres = 20.0
    scale = float(metres_per_pixel(float(lat[0]), 17, TILE_PX))
    side = atlas.side(17)
    columns = np.arange(3 * side) % 256
    middle = []
    for axis in (0, 1):
        ramp = SyntheticAtlas(layout=("###", "###", "###"))
        flat = np.broadcast_to(columns, (3 * side, 3 * side)).astype(np.uint8)
        ramp.mosaic[17] = np.ascontiguousarray(flat if axis == 0 else flat.T)
        on = DeviceAtlas([ramp], (17,))
        own = retrieval.gallery_images(on, lat, lon, 17, SIZE)
        moved = retrieval.query_images(on, lat, lon, 17, SIZE, Query("shifted", shift_m=metres), generator(5))
        middle.append(255 * (moved - own)[:, 0].mean(dim=(1, 2)).numpy())
    distance = np.hypot(*middle) * scale
    inside = np.abs(np.stack(middle)).max(axis=0) < 64  # no wrap of the ramp from 255 to 0 within the picture
    assert inside.sum() > 20
    np.testing.assert_allclose(distance[inside], metres, rtol=0.02)
    bearings = np.degrees(np.arctan2(*middle))[inside]
    assert np.histogram(bearings, bins=4, range=(-180, 180))[0].min() > 0  # in every direction


def test_rotation_keeps_the_middle_and_the_mean_of_a_round_picture() -> None:
    _, atlas, lat, lon = places(30)
    own = retrieval.gallery_images(atlas, lat, lon, 17, 64)
    turned = retrieval.query_images(atlas, lat, lon, 17, 64, Query("r", rotation_degrees=180.0), generator(1))
    x = (torch.arange(64) + 0.5 - 32) / 32
    disc = (x[:, None] ** 2 + x[None] ** 2 < 0.9)[None, None]
    means = [(images * disc).sum(dim=(1, 2, 3)) / disc.sum() / 3 for images in (own, turned)]
    np.testing.assert_allclose(means[0], means[1], atol=0.02)
    assert (own - turned).abs().mean() > 0.02  # and yet they are other pictures


def test_queries_are_the_same_for_the_same_seed_and_refuse_nonsense() -> None:
    _, atlas, lat, lon = places(5)
    query = Query("all", rotation_degrees=90.0, zoom=1.25, shift_m=10.0)
    first, second = (retrieval.query_images(atlas, lat, lon, 17, SIZE, query, generator(2)) for _ in range(2))
    torch.testing.assert_close(first, second, atol=0, rtol=0)
    assert not torch.equal(first, retrieval.query_images(atlas, lat, lon, 17, SIZE, query, generator(3)))
    with pytest.raises(InputError, match="zoom is 1 or more"):
        retrieval.query_images(atlas, lat, lon, 17, SIZE, Query("bad", zoom=0.5), generator())


def test_k_percent_is_rounded_and_at_least_one() -> None:
    assert retrieval.found_within([0.1, 1.0, 50.0, 100.0], 5000).tolist() == [5, 50, 2500, 5000]
    assert retrieval.found_within([0.1, 1.0], 40).tolist() == [1, 1]


def test_the_interval_equals_a_slow_bootstrap_over_blocks() -> None:
    rng = np.random.default_rng(0)
    blocks = np.repeat(np.arange(8), rng.integers(3, 20, 8))
    rank = rng.integers(1, 100, len(blocks))
    low, high = retrieval.bootstrap(rank, blocks, [5.0, 20.0], 100, n_boot=400, seed=3)
    times = np.random.default_rng(3).multinomial(8, [1 / 8] * 8, size=400)
    drawn = []
    for row in times:
        chosen = np.concatenate([np.repeat(rank[blocks == b], n) for b, n in enumerate(row)])
        drawn.append([(chosen <= 5).mean(), (chosen <= 20).mean()])
    np.testing.assert_allclose(low, np.quantile(drawn, 0.025, axis=0))
    np.testing.assert_allclose(high, np.quantile(drawn, 0.975, axis=0))
    with pytest.raises(InputError, match="two of them"):
        retrieval.bootstrap(rank, np.zeros(len(rank)), [5.0], 100)


def test_shapes_and_values_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="one shape"):
        retrieval.ranks(np.ones((3, 2)), np.ones((4, 2)))
    with pytest.raises(InputError, match="not finite"):
        retrieval.ranks(np.ones((3, 2)), np.full((3, 2), math.nan))


def test_the_made_up_map_lies_where_the_tests_think() -> None:
    atlas, _, lat, lon = places(3)
    x, _ = to_tile(lat, lon, 13)
    assert ((x > CORNER[0] + 1) & (x < CORNER[0] + 2)).all() and atlas.tile_px == TILE_PX

"""The geometry of views: patches against slices of a mosaic, windows against rotations and means worked out by hand."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import made_up
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from synthetic import VIEWS, SyntheticAtlas, sampler

from selm import settings
from selm.errors import InputError
from selm.views import (
    DeviceAtlas,
    Windows,
    blocks_near,
    colour,
    cut,
    pixel_statistics,
    random_windows,
    reach,
    recoloured,
)


@pytest.fixture(scope="module")
def atlas() -> SyntheticAtlas:
    return SyntheticAtlas()


@pytest.fixture(scope="module")
def loaded(atlas) -> DeviceAtlas:
    return DeviceAtlas([atlas], (17, 16))


def window(centre=(0.0, 0.0), side=8.0, degrees=0.0) -> Windows:
    return Windows(torch.tensor([[centre]]), torch.tensor([[side]]), torch.tensor([[math.radians(degrees)]]))


def grey(indices: np.ndarray) -> torch.Tensor:
    """(h, w) indices → (1, 3, h, w) as `colour` gives them with a grey palette."""
    return torch.from_numpy(np.asarray(indices, np.float32) / 255).expand(1, 3, -1, -1)


# ---------------------------------------------------------------------------------------------------- patches


@pytest.mark.parametrize("zoom", [17, 16])
@pytest.mark.parametrize("size", [2, 9, 32])
@pytest.mark.parametrize(
    ("x", "y"),
    [(40, 50), (128, 64), (127.5, 128.5), (200, 129), (256, 256), (0, 0), (3.2, 380), (384, 384), (300, 20), (70, 300)],
)
def test_a_patch_is_a_slice_of_the_map_also_across_borders_of_blocks_and_of_the_atlas(atlas, loaded, x, y, size, zoom):
    scale = 1 if zoom == 17 else 0.5
    x, y = x * scale, y * scale
    centre = torch.tensor([[x, y]], dtype=torch.float64) + torch.from_numpy(atlas.origin(zoom))
    indices, offset = loaded.patches(centre, zoom, size)
    left, top = (math.floor(v - size / 2 + 0.5) for v in (x, y))
    np.testing.assert_array_equal(indices[0].numpy(), atlas.slice(zoom, left, top, size))
    assert offset[0].tolist() == pytest.approx([x - (left + size / 2), y - (top + size / 2)], abs=1e-6)
    assert offset.abs().max() <= 0.5
    assert indices.dtype == torch.uint8


def test_patches_far_from_the_map_are_empty(atlas, loaded):
    far = torch.tensor([[0.0, 0.0], [1e9, 10.0]], dtype=torch.float64)
    assert (loaded.patches(far, 17, 16)[0] == 0).all()
    # in the table's rows, left of its columns
    west = torch.from_numpy(atlas.origin(17) - np.array([10_000, -64])).double()[None]
    assert (loaded.patches(west, 17, 16)[0] == 0).all()


def test_several_atlases_lie_side_by_side_and_show_each_other_across_the_border(atlas):
    west = SyntheticAtlas(("#",), seed=1)
    east = SyntheticAtlas(("#",), seed=2, corner=(west.corner[0] + 1, west.corner[1]))
    both = DeviceAtlas([west, east], (17,))
    centre = torch.from_numpy(east.origin(17) + np.array([0, 64])).double()[None]
    indices = both.patches(centre, 17, 20)[0][0].numpy()
    np.testing.assert_array_equal(indices[:, :10], west.mosaic[17][54:74, -10:])
    np.testing.assert_array_equal(indices[:, 10:], east.mosaic[17][54:74, :10])


def test_near_keeps_the_blocks_of_the_places_and_their_neighbours(atlas):
    lat, lon = atlas.place(64.0, 64.0)
    part = DeviceAtlas([atlas], (17,), near=([float(lat)], [float(lon)]))
    assert len(part.blocks[17]) - 1 == 4  # of 7: the block itself and the drawn three around it
    whole = DeviceAtlas([atlas], (17,))
    for size in (16, 100):
        torch.testing.assert_close(part.images([lat], [lon], 17, size), whole.images([lat], [lon], 17, size))


def test_images_wider_than_a_tile_reach_further():
    keys = np.array([(x, y) for x in range(4000, 4021) for y in range(3000, 3021)], np.int32)
    lon, lat = (4010.5 / 2**13 * 360 - 180), np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * 3010.5 / 2**13))))
    for tiles, zoom, margin in ((1.0, 14, 1), (1.0, 11, 4), (4.0, 11, 10), (4.0, 12, 8)):  # 14.4 is cut off by the map
        near = blocks_near(keys, [lat], [lon], (zoom,), tiles)
        assert len(near) == (2 * margin + 1) ** 2, (tiles, zoom)


def test_atlases_that_do_not_go_together_are_refused(atlas):
    other = SyntheticAtlas(tile_px=16)
    with pytest.raises(InputError, match="different tile sizes"):
        DeviceAtlas([atlas, other], (17,))
    with pytest.raises(InputError, match="no zoom 15"):
        DeviceAtlas([atlas], (17, 15))
    with pytest.raises(InputError, match="no atlas"):
        DeviceAtlas([], (17,))
    with pytest.raises(InputError, match="none of the coordinates"):
        DeviceAtlas([atlas], (17,), near=([0.0], [0.0]))


def test_plain_images_are_centred_on_their_coordinates(atlas, loaded):
    lat, lon = atlas.place(np.array([100.0, 31.0]), np.array([60.0, 128.0]))
    images = loaded.images(lat, lon, 17, 16)
    assert images.shape == (2, 3, 16, 16)
    for image, (x, y) in zip(images, [(100, 60), (31, 128)], strict=True):
        torch.testing.assert_close(image, grey(atlas.slice(17, x - 8, y - 8, 16))[0])
    assert loaded.images(lat, lon).shape[-1] == atlas.tile_px


def test_colour_looks_the_palette_up():
    palette = torch.rand(256, 3)
    indices = torch.tensor([[[0, 255], [7, 0]]], dtype=torch.uint8)
    out = colour(indices, palette)
    assert out.shape == (1, 3, 2, 2)
    torch.testing.assert_close(out[0, :, 0, 1], palette[255])
    torch.testing.assert_close(out[0, :, 1, 0], palette[7])


# ------------------------------------------------------------------------------------------------------- cut


@pytest.fixture(scope="module")
def patch() -> torch.Tensor:
    return torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))


def test_the_whole_window_without_rotation_is_the_patchs_centre(patch):
    out = cut(patch, torch.zeros(1, 2), window(side=10), 10)
    torch.testing.assert_close(out, patch[:, :, 7:17, 7:17], rtol=0, atol=2e-6)


def test_windows_and_offsets_move_right_and_down(patch):
    for centre, offset in (((3.0, -2.0), (0.0, 0.0)), ((0.0, 0.0), (3.0, -2.0)), ((2.0, -1.0), (1.0, -1.0))):
        out = cut(patch, torch.tensor([offset]), window(centre, 10), 10)
        torch.testing.assert_close(out, patch[:, :, 5:15, 10:20], rtol=0, atol=2e-6)


def test_half_a_pixel_of_offset_is_the_mean_of_two_neighbours(patch):
    out = cut(patch, torch.tensor([[0.5, 0.0]]), window(side=10), 10)
    expected = (patch[:, :, 7:17, 7:17] + patch[:, :, 7:17, 8:18]) / 2
    torch.testing.assert_close(out, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_positive_angles_turn_the_picture_counter_clockwise_as_rot90_does(patch, quarters):
    out = cut(patch, torch.zeros(1, 2), window((2.0, 1.0), 10, 90 * quarters), 10)
    expected = torch.rot90(patch[:, :, 8:18, 9:19], quarters, (-2, -1))
    torch.testing.assert_close(out, expected, rtol=0, atol=5e-6)


def test_a_rotated_window_turns_about_its_own_middle():
    # a white dot 3 px to the right of the window's middle; turned by 90° it stands 3 px above it
    patch = torch.zeros(1, 3, 25, 25)
    patch[:, :, 12 - 2, 12 + 4 + 3] = 1
    middle = (4.0, -2.0)
    plain = cut(patch, torch.zeros(1, 2), window(middle, 9), 9)
    assert plain[0, 0].nonzero().tolist() == [[4, 7]]
    turned = cut(patch, torch.zeros(1, 2), window(middle, 9, 90), 9)
    assert (turned[0, 0] > 0.99).nonzero().tolist() == [[1, 4]]


def test_a_window_of_twice_the_side_is_the_mean_of_four_pixels(patch):
    out = cut(patch, torch.zeros(1, 2), window(side=20), 10)
    torch.testing.assert_close(out, F.avg_pool2d(patch[:, :, 2:22, 2:22], 2), rtol=0, atol=2e-6)


def test_a_window_of_half_the_side_is_bilinear(patch):
    out = cut(patch, torch.zeros(1, 2), window(side=5), 10)
    expected = F.interpolate(patch, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(out, expected[:, :, 19:29, 19:29], rtol=0, atol=2e-6)


def test_views_come_view_by_view_and_each_from_its_own_patch():
    patches = torch.arange(3.0)[:, None, None, None].expand(3, 3, 8, 8).contiguous()  # patch b is all b
    patches[:, :, :4] += 10  # its upper half
    windows = Windows(
        torch.tensor([[0.0, -2.0], [0.0, 2.0]]).expand(3, 2, 2), torch.full((3, 2), 2.0), torch.zeros(3, 2)
    )
    out = cut(patches, torch.zeros(3, 2), windows, 2)
    assert out.shape == (6, 3, 2, 2)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert out.mean(dim=(1, 2, 3)).tolist() == [10, 11, 12, 0, 1, 2]


# ------------------------------------------------------------------------------------------------ random windows

RANGES = [
    ((0.4, 1.0), (0.8, 1.25)), ((0.05, 0.4), (0.8, 1.25)), ((1.0, 1.0), (1.0, 1.0)), ((0.05, 1.0), (0.5, 0.6)),
    ((0.3, 0.9), (1.0, 2.0)),
]  # fmt: skip


def corners(windows: Windows) -> torch.Tensor:
    """(B, V, 4, 2) corners in pixels from the image's middle."""
    unit = torch.tensor([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    local = unit * windows.side[..., None, None]
    cos, sin = torch.cos(windows.angle)[..., None], torch.sin(windows.angle)[..., None]
    x = cos * local[..., 0] - sin * local[..., 1]
    y = sin * local[..., 0] + cos * local[..., 1]
    return torch.stack([x, y], -1) + windows.centre[..., None, :]


@pytest.mark.parametrize(("area", "zoom"), RANGES)
@pytest.mark.parametrize("px", [32, 64, 128])
def test_every_window_lies_inside_the_patch_that_reach_asks_for(area, zoom, px):
    generator = torch.Generator().manual_seed(px)
    size = reach(px, area, zoom)
    assert size % 2 == 0
    half = size / 2 - 0.5  # the place is up to half a pixel beside the patch's middle
    drawn = random_windows(20_000, 2, px, area, zoom, 180, generator)
    assert corners(drawn).abs().max() <= half
    assert (drawn.side >= px * math.sqrt(area[0]) * zoom[0] - 1e-3).all()
    assert (drawn.side <= px * math.sqrt(area[1]) * zoom[1] + 1e-3).all()
    # the extremes themselves: largest zoom, in the image's corner, at 45°
    sides = px * torch.sqrt(torch.linspace(*area, 50))
    extreme = Windows(
        ((px - sides) / 2)[None, :, None].expand(1, -1, 2), sides[None] * zoom[1], torch.full((1, 50), math.pi / 4)
    )
    far = corners(extreme).abs().max().item()
    turned = dataclasses.replace(extreme, angle=torch.zeros(1, 50))
    assert max(far, corners(turned).abs().max().item()) <= half
    # and not needlessly large: a corner of some window can come within 2 px of the edge of the disc that it allows
    assert corners(extreme).norm(dim=-1).max().item() <= half
    assert corners(turned).norm(dim=-1).max().item() >= size / 2 - 2.01


def test_crops_are_uniform_in_area_and_place_log_uniform_in_zoom_and_uniform_in_angle():
    area, px = (0.4, 1.0), 128
    plain = random_windows(20_000, 1, px, area, (1.0, 1.0), 180, torch.Generator().manual_seed(0))
    share = (plain.side.flatten() / px).square().numpy()
    assert stats.kstest(share, stats.uniform(0.4, 0.6).cdf).pvalue > 1e-3
    room = (px - plain.side)[..., None]
    assert stats.kstest((plain.centre / room).flatten().numpy(), stats.uniform(-0.5, 1).cdf).pvalue > 1e-3
    assert stats.kstest(plain.angle.flatten().numpy(), stats.uniform(-math.pi, 2 * math.pi).cdf).pvalue > 1e-3
    zoomed = random_windows(20_000, 1, px, (1.0, 1.0), (0.8, 1.25), 0, torch.Generator().manual_seed(1))
    assert (zoomed.angle == 0).all()
    log = (zoomed.side / px).log().flatten().numpy()
    assert stats.kstest(log, stats.uniform(math.log(0.8), math.log(1.25 / 0.8)).cdf).pvalue > 1e-3


# ------------------------------------------------------------------------------------------------------ sampler


def test_rows_are_drawn_with_the_priorities_of_equation_1():
    p = np.array([0.05, 0.3, 0.0, 0.15, 0.5])
    drawn = sampler(5, priorities=p).draw_rows(20_000, torch.Generator().manual_seed(0))
    counts = np.bincount(drawn.numpy(), minlength=5)
    assert counts[2] == 0
    assert stats.chisquare(counts[p > 0], 20_000 * p[p > 0]).pvalue > 1e-3
    # priorities need not be normalised
    again = sampler(5, priorities=10 * p).draw_rows(20_000, torch.Generator().manual_seed(0))
    assert (np.bincount(again.numpy(), minlength=5) == counts).mean() > 0.5
    assert stats.chisquare(np.bincount(again.numpy(), minlength=5)[p > 0], 20_000 * p[p > 0]).pvalue > 1e-3


def test_the_same_generator_gives_the_same_batch_and_another_gives_another():
    source, rows = sampler(), torch.arange(6)
    one, two, other = (source.batch(rows, torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    for field in dataclasses.fields(one):
        torch.testing.assert_close(getattr(one, field.name), getattr(two, field.name), rtol=0, atol=0, equal_nan=True)
    assert not torch.equal(one.global_views, other.global_views)


def test_a_batch_stacks_view_by_view_with_the_labels_of_its_rows():
    plain = settings.Views(
        global_px=16, local_px=16, n_local=3, global_area=(1, 1), local_area=(1, 1), zoom=(1, 1), rotation_degrees=0
    )
    source, rows = sampler(views=plain), torch.tensor([7, 0, 7, 12])
    batch = source.batch(rows, torch.Generator().manual_seed(0))
    assert batch.size == 4
    assert batch.global_views.shape == (8, 3, 16, 16)
    assert batch.local_views.shape == (12, 3, 16, 16)
    # nothing is random: all views of a place are the same picture, and row 7's are the same twice
    views = torch.cat([batch.global_views, batch.local_views]).view(5, 4, 3, 16, 16)
    for view in views:
        torch.testing.assert_close(view, views[0])
    torch.testing.assert_close(views[:, 0], views[:, 2])
    assert (views[0, 0] - views[0, 1]).abs().max() > 0.1
    torch.testing.assert_close(batch.price, source.price[rows], equal_nan=True)
    assert batch.price[1].isnan()
    assert batch.density_class.tolist() == [3, -1, 3, -1]
    torch.testing.assert_close(batch.coordinates, source.coordinates[rows])


def test_views_are_standardised_with_the_statistics_they_are_given():
    plain = settings.Views(32, 16, 2, (1, 1), (1, 1), (1, 1), 0)
    rows, generator = torch.arange(4), torch.Generator().manual_seed(0)
    raw = sampler(views=plain, pixel_mean=(0, 0, 0), pixel_std=(1, 1, 1)).batch(rows, generator)
    out = sampler(views=plain, pixel_mean=(0.1, 0.5, 0.2), pixel_std=(1, 0.5, 2)).batch(rows, generator)
    mean, std = torch.tensor([0.1, 0.5, 0.2])[:, None, None], torch.tensor([1, 0.5, 2])[:, None, None]
    torch.testing.assert_close(out.global_views, (raw.global_views - mean) / std)
    torch.testing.assert_close(out.parents, (raw.parents - mean) / std)
    assert 0 <= raw.global_views.min() < raw.global_views.max() <= 1


@pytest.mark.parametrize("at", [(100, 60), (128, 128), (254, 130)])
def test_the_parents_central_quarter_is_the_ground_of_the_view(atlas, loaded, at):
    """Zoom 16 is the 2 × 2 mean of zoom 17 here, so the un-zoomed view, averaged, is the middle of its parent."""
    plain = settings.Views(32, 16, 0, (1, 1), (1, 1), (1, 1), 0)
    lat, lon = atlas.place(*at)
    source = sampler(1, views=plain, pixel_mean=(0, 0, 0), pixel_std=(1, 1, 1))
    source.centres = torch.round(loaded.locate([lat], [lon], 17))
    source.parent_centres = source.centres / 2
    batch = source.batch(torch.tensor([0]), torch.Generator().manual_seed(0))
    ground = grey(atlas.slice(17, at[0] - 16, at[1] - 16, 32))
    torch.testing.assert_close(batch.global_views[:1], ground, atol=1e-5, rtol=0)
    expected = F.avg_pool2d(batch.global_views, 2)
    torch.testing.assert_close(batch.parents[:, :, 8:24, 8:24], expected, atol=1e-5, rtol=0)
    assert len(batch.local_views) == 0


def test_parent_centres_are_the_same_places_one_zoom_out():
    source = sampler()
    torch.testing.assert_close(source.parent_centres * 2, source.centres, rtol=0, atol=1e-6)


def test_a_parent_is_turned_as_its_view_is(atlas):
    smooth = SyntheticAtlas(("###", "###", "###"), grain=16, seed=3)
    turned = settings.Views(32, 16, 0, (1, 1), (1, 1), (1, 1), 180)
    source = sampler(32, atlas=smooth, views=turned)
    batch = source.batch(torch.arange(32), torch.Generator().manual_seed(0))
    middle = batch.parents[:, :, 8:24, 8:24]
    small = F.avg_pool2d(batch.global_views, 2)
    difference = (middle - small).abs().mean()
    spread = small.std()
    assert difference < 0.1 * spread
    # the other global view of the place has another angle: its parent is another picture
    assert (middle - small.roll(32, 0)).abs().mean() > 0.4 * spread


def test_crops_and_zooms_keep_the_place_a_bigger_crop_would_show(atlas, loaded):
    """A view of a random window is what `cut` gives on a far larger patch: the sampler's patch is large enough."""
    source = sampler(16, views=VIEWS, pixel_mean=(0, 0, 0), pixel_std=(1, 1, 1))
    rows = torch.arange(16)
    batch = source.batch(rows, torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    wide = random_windows(16, 2, 32, VIEWS.global_area, VIEWS.zoom, VIEWS.rotation_degrees, generator)
    narrow = random_windows(16, 2, 32, VIEWS.local_area, VIEWS.zoom, VIEWS.rotation_degrees, generator)
    indices, offset = source.atlas.patches(source.centres[rows], 17, 128)
    patches = colour(indices, source.palette)
    torch.testing.assert_close(batch.global_views, cut(patches, offset, wide, 32), rtol=0, atol=1e-4)
    torch.testing.assert_close(batch.local_views, cut(patches, offset, narrow, 16), rtol=0, atol=1e-4)


def test_the_first_places_alone_have_parents_where_a_share_is_asked_for():
    rows, draws = torch.arange(5), (lambda: torch.Generator().manual_seed(0))
    whole, some = sampler().batch(rows, draws()), sampler().batch(rows, draws(), parent_share=0.3)
    torch.testing.assert_close(some.global_views, whole.global_views, rtol=0, atol=0)
    of_view = whole.parents.view(2, 5, *whole.parents.shape[1:])
    torch.testing.assert_close(some.parents, of_view[:, :2].flatten(0, 1), rtol=0, atol=0)  # 1.5, rounded up
    assert sampler().batch(rows, draws(), parent_share=0.0).parents is None


def test_without_a_parent_zoom_there_are_no_parents():
    assert sampler(parent_zoom=None).batch(torch.arange(2), torch.Generator().manual_seed(0)).parents is None


def test_pixel_statistics_are_those_of_the_images(atlas):
    palette = np.random.default_rng(0).integers(0, 256, (256, 3)).astype(np.uint8)
    coloured = SyntheticAtlas()
    coloured.palette = palette
    loaded = DeviceAtlas([coloured], (17,))
    lat, lon = coloured.place(np.array([30.0, 100, 140]), np.array([30.0, 70, 200]))
    indices, _ = loaded.patches(loaded.locate(lat, lon, 17), 17, 20)
    mean, std = pixel_statistics(indices, loaded.palette)
    images = loaded.images(lat, lon, 17, 20).double()
    assert mean == pytest.approx(images.mean(dim=(0, 2, 3)).tolist(), rel=1e-5)
    assert std == pytest.approx(images.std(dim=(0, 2, 3), correction=0).tolist(), rel=1e-5)


@pytest.mark.parametrize("zoom", [17, 13, 11, 10])
def test_patches_at_far_zooms_span_many_blocks(tmp_path: Path, zoom: int) -> None:
    """A block is 128 px at zoom 17, 8 at 13 and 1 at 10; patches are 20 px."""
    atlas = made_up.atlas(tmp_path, 9, 8, without=((3, 3),), zooms=(zoom,))
    rng = np.random.default_rng(zoom)
    lat, lon = made_up.place(*(rng.random((2, 12)) * 7))
    near = DeviceAtlas([atlas], (zoom,), near=(lat[:1], lon[:1]))
    every = DeviceAtlas([atlas], (zoom,))
    indices, offset = every.patches(every.locate(lat, lon, zoom), zoom, 20)
    np.testing.assert_array_equal(indices.numpy(), atlas.indices(lat, lon, zoom, 20))
    assert offset.abs().max() <= 0.5
    # what is kept near one place is all that its patch shows
    one, _ = near.patches(near.locate(lat[:1], lon[:1], zoom), zoom, 13)
    whole, _ = every.patches(every.locate(lat[:1], lon[:1], zoom), zoom, 13)
    assert torch.equal(one, whole)


# ---------------------------------------------------------------------------------------------------- other colours

# five flat colours, the background first, and a blend of each pair of neighbours; the rest is background
FLAT = torch.tensor([[0.9, 0.9, 0.9], [0.1, 0.2, 0.3], [0.5, 0.1, 0.9], [0.7, 0.7, 0.1], [0.0, 0.0, 0.0]])
MIXTURES = torch.zeros(256, 5)
MIXTURES[:5] = torch.eye(5)
MIXTURES[5:9] = 0.75 * torch.eye(5)[:4] + 0.25 * torch.eye(5)[1:]
MIXTURES[9:, 0] = 1
PALETTE = MIXTURES @ FLAT + 0.01 * (torch.arange(256) == 6)[:, None]  # one is not quite the blend that it is nearest to


def recolour(dropped: float, swapped: float, n: int, views: int = 1) -> torch.Tensor:
    change = settings.Recolouring(dropped, swapped)
    return recoloured(PALETTE, MIXTURES, change, n, views, torch.Generator().manual_seed(0))


def test_blends_change_with_the_flat_colours_that_they_are_of():
    torch.testing.assert_close(recolour(0, 0, 3, 2), PALETTE.expand(3, 2, 256, 3))
    gone = recolour(1, 0, 2)[0, 0]
    torch.testing.assert_close(gone[:6], FLAT[:1].expand(6, 3))  # all are the background
    torch.testing.assert_close(gone[6], FLAT[0] + 0.01)  # what the blend was off by stays
    for one in recolour(0.3, 0.3, 50)[:, 0]:
        torch.testing.assert_close(one[0], FLAT[0])
        flat = one[:5]
        assert all(any(torch.allclose(found, own) for own in FLAT) for found in flat)
        for i in range(4):  # 5 … 8 are of i and i + 1
            off = 0.01 if i == 1 else 0.0
            torch.testing.assert_close(one[5 + i], 0.75 * flat[i] + 0.25 * flat[i + 1] + off)


def test_colours_are_dropped_and_swapped_as_often_as_asked():
    many = recolour(0.2, 0.3, 4000)[:, 0, 1:5]
    as_it_was = torch.isclose(many, FLAT[1:]).all(-1)
    background = torch.isclose(many, FLAT[0]).all(-1)
    # swapped for one of all five, its own and the background among them
    assert as_it_was.float().mean() == pytest.approx(0.5 + 0.3 / 5, abs=0.01)
    assert background.float().mean() == pytest.approx(0.2 + 0.3 / 5, abs=0.01)
    # colours and views change on their own
    assert torch.corrcoef(background.float().T).fill_diagonal_(0).abs().max() < 0.06
    two = torch.isclose(recolour(0.5, 0, 4000, 2)[:, :, 1], FLAT[0]).all(-1).float()
    assert torch.corrcoef(two.T)[0, 1].abs() < 0.06


class Flat(SyntheticAtlas):
    """A map of the first five colours of a palette and their blends."""

    palette = (255 * PALETTE).byte().numpy()

    def __init__(self):
        super().__init__()
        self.mosaic = {zoom: np.minimum(mosaic // 32, 8).astype(np.uint8) for zoom, mosaic in self.mosaic.items()}


def test_each_view_has_colours_of_its_own_and_parents_have_the_maps():
    plain = settings.Views(16, 16, 2, (1, 1), (1, 1), (1, 1), 0)  # nothing else is random
    rows, generator = torch.arange(6), torch.Generator()
    as_drawn = sampler(atlas=Flat(), views=plain).batch(rows, generator.manual_seed(1))
    change = {"recolouring": settings.Recolouring(0.5), "mixtures": MIXTURES}
    source = sampler(atlas=Flat(), views=plain, **change)
    changed = source.batch(rows, generator.manual_seed(1))
    torch.testing.assert_close(changed.parents, as_drawn.parents)
    views = torch.cat([changed.global_views, changed.local_views]).view(4, 6, 3, 16, 16)
    differ = [(views[i] - views[j]).abs().amax((1, 2, 3)) > 0.05 for i in range(4) for j in range(i)]
    assert torch.stack(differ).float().mean() > 0.5
    # with the palettes that the generator gives after the windows, one view after the other
    generator.manual_seed(1)
    for n in (2, 2):
        random_windows(6, n, 16, (1, 1), (1, 1), 0, generator)
    palettes = source.colours(6, 4, generator)
    patch_px = reach(16, (1, 1), (1, 1))
    indices, offset = source.atlas.patches(source.centres[rows], 17, patch_px)
    whole_image = Windows(torch.zeros(1, 1, 2), torch.full((1, 1), 16.0), torch.zeros(1, 1))
    for v in range(4):
        for i in range(6):
            expected = cut(colour(indices[i : i + 1], palettes[i, v]), offset[i : i + 1], whole_image, 16)
            torch.testing.assert_close(views[v, i], expected[0], rtol=1e-4, atol=1e-4)
    # a share of a batch is what the whole batch has there
    part = source.batch(rows, generator.manual_seed(1), part=slice(2, 5))
    whole = changed.global_views.view(2, 6, 3, 16, 16)[:, 2:5]
    torch.testing.assert_close(part.global_views.view(2, 3, 3, 16, 16), whole)
    torch.testing.assert_close(part.local_views.view(2, 3, 3, 16, 16), views[2:, 2:5])


def test_tiles_of_a_triplet_have_colours_of_their_own():
    source = sampler(atlas=Flat(), recolouring=settings.Recolouring(1.0), mixtures=MIXTURES)
    rows, generator = torch.arange(6), torch.Generator().manual_seed(2)
    tiles = source.triplets(rows, 0.5, generator).global_views
    background = (FLAT[0, 0] - 0.5) / 0.3
    assert tiles.shape[0] == 18 and (tiles - background).abs().max() < 0.06  # nothing is left of the map
    some = sampler(atlas=Flat(), recolouring=settings.Recolouring(0.5), mixtures=MIXTURES)
    whole = some.triplets(rows, 0.5, generator.manual_seed(2)).global_views.unflatten(0, (3, 6))
    part = some.triplets(rows, 0.5, generator.manual_seed(2), part=slice(1, 4)).global_views.unflatten(0, (3, 3))
    torch.testing.assert_close(part, whole[:, 1:4])

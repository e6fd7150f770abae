"""The numbers that pretraining depends on, as frozen dataclasses, each with its source.

Comments give it: a page or equation of the paper (Bougie et al., ACML 2023), its baselines' code, or "ours". What only
one method has is beside it: `selm.methods.moco.MoCoSettings`, `selm.methods.mugs.MugsSettings` and so on.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from selm.errors import InputError
from selm.files import read_json

ORIENTATIONS = (1, 8)  # of an image, that a feature can be the mean of
STAGES = (1, 2, 3, 4)  # of a ResNet, fine to coarse
STEMS = (3, 7)  # pixels of the first convolution's kernel
_LATER = {"codes": 0, "stem": 7}  # fields of `EncoderConfig` that encoders published before them lack
# of torchvision's ResNets: how many blocks a stage, and the kernels of a block's convolutions
RESNETS = {
    "resnet18": ((2, 2, 2, 2), (3, 3)),
    "resnet34": ((3, 4, 6, 3), (3, 3)),
    "resnet50": ((3, 4, 6, 3), (1, 3, 1)),
}


@dataclass(frozen=True)
class Views:
    """Random views of a place (section 3.2: rotations, zooming, crops); the numbers are ours and DINO's."""

    global_px: int = 128
    local_px: int = 64
    n_local: int = 6
    global_area: tuple[float, float] = (0.4, 1.0)  # share of the image's area, DINO
    local_area: tuple[float, float] = (0.05, 0.4)  # DINO
    zoom: tuple[float, float] = (0.8, 1.25)  # ours: log-uniform
    rotation_degrees: float = 180.0  # ours: uniform in ± this


@dataclass(frozen=True)
class Recolouring:
    """Views whose map is drawn in other colours at random, so that an encoder does not lean on how completely a place
    is mapped, or on how it is drawn; ours. In each view each flat colour except the background, and its blends, becomes
    """

    dropped: float = 0.0  # with this chance the background
    swapped: float = 0.0  # with this chance another flat colour

    def __post_init__(self) -> None:
        if not (self.dropped >= 0 <= self.swapped and self.dropped + self.swapped <= 1):
            raise InputError(f"recolouring: chances of {self.dropped:g} and {self.swapped:g}, of 0 to 1 together")


@dataclass(frozen=True)
class Pretraining:
    """How long and how fast, and the numbers of DINO and GPS-SELM."""

    n_places: int = 200_000
    images: int = 20_000_000  # images seen; steps = images // batch
    batch: int = 256  # section 4
    lr: float = 5e-4  # section 4; scaled by batch / 256 as in DINO
    lr_min: float = 1e-6  # DINO
    lr_warmup: float = 0.10  # share of the run: 10 of 100 epochs, section 4
    weight_decay: tuple[float, float] = (0.04, 0.4)  # section 4
    clip: float = 3.0  # DINO: per parameter tensor
    freeze_last_layer: float = 0.01  # DINO: the first of 100 epochs
    teacher_momentum: tuple[float, float] = (0.996, 1.0)  # section 3.2
    # DINO: the teacher's BatchNorm takes the batch's statistics. False: moving ones, which follow the student's
    teacher_batch_statistics: bool = True
    student_temp: float = 0.1  # section 4, tau_s
    teacher_temp: tuple[float, float] = (0.04, 0.07)  # section 4, tau_t
    teacher_temp_warmup: float = 0.30  # 30 of 100 epochs, section 4
    out_dim: int = 256  # section 4, K
    head_hidden: int = 2048  # DINO
    head_bottleneck: int = 256  # DINO
    centre_momentum: float | None = 0.9  # DINO; None: no centring, as eqs. 2-4 are printed
    alpha_priority: float = 1.0  # eq. 1, no value in the paper; ours
    epsilon_priority: float = 0.01  # eq. 1, no value in the paper; ours
    alpha: float = 0.3  # eq. 13
    beta: float = 0.3  # eq. 13
    gamma: float = 0.4  # eq. 13
    geo_hidden: int = 256  # section 4
    density_classes: int = 30  # section 4
    rec_border_px: int = 3  # section 4
    rec_channels: int = 128  # ours: width of the reconstruction head's first layer
    rec_share: float = 1.0  # ours: of a batch's places, those whose parents are rebuilt; eq. 9 is the mean over these
    cluster_hidden: int = 512  # section 4
    cluster_out: int = 256  # section 4
    prototypes: int = 256  # m of eq. 10, no value in the paper; ours
    cluster_student_temp: float = 0.1  # section 4, tau'_c
    cluster_teacher_temp: tuple[float, float] = (0.04, 0.07)  # section 4, tau_c
    cluster_eta: float = 0.9  # section 4
    cluster_centre_student: bool = True  # eq. 10 centres both branches; False: the teacher only
    checkpoint_every: int = 500  # steps
    log_every: int = 25  # steps


# A short run of a small encoder on a CPU would never feel the paper's absolute momentum: ours.
SMALL = Pretraining(
    n_places=20_000,
    images=200_000,
    batch=64,
    lr=2e-3,  # times batch / 256
    teacher_momentum=(0.99, 1.0),
    head_hidden=512,
    head_bottleneck=128,
    rec_channels=64,
    rec_share=0.25,  # as good as all of them (benchmarks.fewer_parents), for a quarter of what they cost
    cluster_hidden=256,
    cluster_out=128,
)


@dataclass(frozen=True)
class EncoderConfig:
    """What an encoder is and which images it wants.

    `image_px` pixels a side, cut at web zoom `zoom` from an atlas with `tile_px` pixels a web tile, drawn in `style`;
    RGB in [0, 1], standardised with `pixel_mean` and `pixel_std`, or, where `codes` is not 0, so many numbers a pixel
    that stand for what is drawn there (`selm.maps.style.Style.codes`). `stem` is the side of the first convolution's
    kernel. Where `context_zooms` names further zooms, a
    coordinate's embedding is the features of its images at `zoom` and at each of these, side by side. With 8
    `orientations` a feature is the mean over the eight ways to lay the image (turned by quarters, mirrored or not).
    `stages` names those of the ResNet's four whose outputs, each averaged over the image, are the features of an image,
    side by side: the last alone, as the paper has it, or earlier ones too, which know less of shapes and more of
    texture and colour.
    """

    arch: str = "resnet50"
    width: float = 1.0
    zoom: int = 17
    image_px: int = 128
    tile_px: int = 128
    style: str = "selm"
    pixel_mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    pixel_std: tuple[float, ...] = (1.0, 1.0, 1.0)
    context_zooms: tuple[int, ...] = ()
    orientations: int = 1
    stages: tuple[int, ...] = (4,)
    codes: int = _LATER["codes"]
    stem: int = _LATER["stem"]

    def __post_init__(self) -> None:
        numbers = (self.image_px, self.tile_px, 64 * self.width, *(zoom + 1 for zoom in self.zooms))
        colours = (*self.pixel_mean, *self.pixel_std)
        fit = len(self.pixel_mean) == len(self.pixel_std) == 3 and all(map(math.isfinite, colours))
        if not (fit and min(self.pixel_std) > 0 and all(1 <= number <= 8192 for number in numbers)):
            raise InputError(
                "width, pixels, zooms or the three pixel_mean and pixel_std are none that an encoder can have"
            )
        if self.orientations not in ORIENTATIONS:
            raise InputError(f"orientations must be {' or '.join(map(str, ORIENTATIONS))}, not {self.orientations}")
        if not 0 <= self.codes <= 256 or self.stem not in STEMS:
            raise InputError(
                f"codes must be 0 to 256, stem {' or '.join(map(str, STEMS))}, not {self.codes}, {self.stem}"
            )
        if not self.stages or self.stages != tuple(n for n in STAGES if n in self.stages):
            raise InputError(f"stages must be some of {', '.join(map(str, STAGES))}, in this order, not {self.stages}")

    @property
    def other_palette(self) -> str:
        """What is wrong with a map whose palette is not the one that the codes stand for."""
        return f"the map is not drawn in today's colours of style {self.style}, which the encoder's codes stand for"

    @property
    def zooms(self) -> tuple[int, ...]:
        """All zooms of an embedding."""
        return (self.zoom, *self.context_zooms)

    def as_dict(self) -> dict[str, Any]:
        """All fields; those that came after encoders were published only where they are not as these had them."""
        return {name: value for name, value in asdict(self).items() if (name, value) not in _LATER.items()}

    @classmethod
    def read(cls, path: Path) -> EncoderConfig:
        """Of a published encoder's config.json; raises InputError that names the file, and the field at fault."""
        raw = read_json(path)
        known = {field.name for field in fields(cls)}
        if isinstance(raw, dict):
            raw = _LATER | raw
        if not isinstance(raw, dict) or not known <= set(raw):
            missing = sorted(known - set(raw)) if isinstance(raw, dict) else ["everything"]
            raise InputError(f"{path}: not an encoder's configuration (lacks {', '.join(missing)})")
        values: dict[str, Any] = {n: tuple(raw[n]) if isinstance(raw[n], list) else raw[n] for n in known}
        for field in fields(cls):
            found, several = values[field.name], field.type.startswith("tuple")
            kind = str if "str" in field.type else int if "int" in field.type else (int, float)
            fits = isinstance(found, tuple) == several
            if not fits or not all(
                isinstance(one, kind) and one is not True for one in (found if several else (found,))
            ):
                raise InputError(f"{path}: {field.name} is {json.dumps(raw[field.name])}, not of type {field.type}")
        try:
            return cls(**values)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

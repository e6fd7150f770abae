"""Image2GPS's Tables 2, 3 and 4, on map images that stand in for its photographs, or on photographs.

The stand-in: map images of an area of campus size. Each place is seen turned to eight headings, as its eight
photographs are. As in the source, training and validation images are a random 80/20 split, so that most validation
places were seen from another heading; the test images are of other places.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from reproduction import paths
from reproduction.beyond.image2gps import networks
from reproduction.beyond.image2gps import training as training_
from reproduction.beyond.image2gps.networks import Img2GPS
from reproduction.beyond.image2gps.photographs import Photos, inside, random_split, without_lone_points
from reproduction.beyond.image2gps.training import (
    Labelled,
    Trained,
    average_distance_m,
    embed,
    haversine_m,
    mean_predictor,
    nearest_images,
    predict,
    shape_features,
)
from reproduction.computed import store
from reproduction.results import Kept, origin, read_csv, write_csv
from reproduction.settings import Profile, Region
from selm import checkpoints, distributed
from selm.errors import InputError
from selm.maps.atlas import Atlas
from selm.views import DeviceAtlas, Windows, cut

VERSION = 1  # raise it when the numbers change
TILE_PX = 128
SPLITS = ("training", "validation", "test")
RECIPES = {
    "vit": "frozen ViT",
    "regression": "features of the regression",
    "contrast": "features shaped by the contrastive loss",
}


@dataclass(frozen=True)
class Images:
    """The three splits. `key` is a hash of all that they depend on, `stand_in` whether they are map images."""

    training: Labelled
    validation: Labelled
    test: Labelled
    key: str
    stand_in: bool


# -- images ------------------------------------------------------------------------------------------------------------


def campus_atlas(profile: Profile) -> Atlas:
    """The map of the stand-in's area and a margin, drawn once."""
    from reproduction.places.regions import source_of
    from selm.maps.draw import draw_atlas
    from selm.maps.sources import open_source
    from selm.maps.style import Style

    s, maps = profile.image_to_gps, profile.maps
    parts = {
        "source": s.area.source, "bbox": s.area.bbox, "zoom": s.zoom, "style": Style.named(maps.style).hash,
        "px": TILE_PX,
    }  # fmt: skip
    folder = store.address("atlases", f"campus-{s.area.name}-z{s.zoom}", parts)
    if (folder / "atlas.json").exists():
        return Atlas(folder)
    west, south, east, north = s.area.bbox
    box = (west - 0.002, south - 0.0015, east + 0.002, north + 0.0015)  # some 165 m
    source = open_source(source_of(Region(s.area.name, s.area.source, "test")))
    return draw_atlas(source, folder, zooms=(s.zoom,), tile_px=TILE_PX, bbox=box, style=maps.style)


def _map_images(profile: Profile, lat: NDArray[np.float64], lon: NDArray[np.float64], px: int) -> torch.Tensor:
    """uint8 (N · headings, 3, px, px): each place turned to each heading, place by place."""
    s = profile.image_to_gps
    atlas = DeviceAtlas([campus_atlas(profile)], (s.zoom,), "cpu")
    size = 2 * (math.ceil(TILE_PX / math.sqrt(2)) + 1)  # holds the tile at any angle
    indices, offset = atlas.patches(atlas.locate(lat, lon, s.zoom), s.zoom, size)
    angles = 2 * math.pi * torch.arange(s.headings) / s.headings
    out = []
    for start in range(0, len(lat), 64):
        part = slice(start, start + 64)
        n = len(indices[part])
        colours = torch.nn.functional.embedding(indices[part].int(), atlas.palette).permute(0, 3, 1, 2)
        windows = Windows(
            torch.zeros(n, s.headings, 2), torch.full((n, s.headings), float(TILE_PX)), angles.expand(n, -1)
        )
        views = cut(colours, offset[part], windows, px).view(s.headings, n, 3, px, px)
        out.append((views.transpose(0, 1).flatten(0, 1) * 255).round().to(torch.uint8))
    return torch.cat(out)


@store.remembered(maxsize=2)
def images(profile: Profile) -> Images:
    """The profile's images: photographs where it names them, else map images of its area."""
    return _photographs(profile) if profile.image_to_gps.photos else _stand_in(profile)


def _stand_in(profile: Profile) -> Images:
    s = profile.image_to_gps
    west, south, east, north = s.area.bbox
    rng = np.random.default_rng(42)
    n = s.n_places + -(-s.n_test // s.headings)
    lat, lon = rng.uniform(south, north, n), rng.uniform(west, east, n)
    coordinates = torch.as_tensor(np.stack([lat, lon], axis=1)).repeat_interleave(s.headings, dim=0)
    whole = Labelled(_map_images(profile, lat, lon, s.px), coordinates)
    seen = s.n_places * s.headings
    train, validation = random_split(seen)
    test = np.arange(seen, min(seen + s.n_test, len(whole)))
    parts = {
        "atlas": campus_atlas(profile).fingerprint, "n": [s.n_places, s.headings, s.n_test], "px": s.px,
        "bbox": s.area.bbox, "version": VERSION,
    }  # fmt: skip
    key = store.key(parts)
    return Images(whole.some(train), whole.some(validation), whole.some(test), key, True)


def _photographs(profile: Profile) -> Images:
    """The source's curation of photographs: box filter, no lone points, 80/20; of the rest, `n_test` images of places
    of their own."""
    from reproduction.places.regions import data_file

    s = profile.image_to_gps
    found = Photos(data_file(s.photos))
    table = found.table if s.bbox is None else inside(found.table, s.bbox)
    table = without_lone_points(table)
    stands = table.groupby(["lat", "lon"], sort=True).ngroup().to_numpy()
    order = np.random.default_rng(42).permutation(stands.max() + 1 if len(stands) else 0)
    held_out: list[int] = []
    for stand in order:
        if len(held_out) >= s.n_test or len(held_out) + np.sum(stands == stand) > len(table) // 4:
            break
        held_out += np.flatnonzero(stands == stand).tolist()
    rest = np.setdiff1d(np.arange(len(table)), held_out)
    if len(rest) < 10 or not held_out:
        raise InputError(f"{s.photos}: {len(table)} photographs of {len(order)} stands are too few to split")
    whole = Labelled(
        found.images(table["file"].tolist(), s.px), torch.tensor(table[["lat", "lon"]].to_numpy(np.float64))
    )
    train, validation = random_split(len(rest))
    parts = {
        "photos": store.table_fingerprint(table), "bbox": s.bbox, "n": s.n_test, "px": s.px, "version": VERSION
    }  # fmt: skip
    key = store.key(parts)
    return Images(whole.some(rest[train]), whole.some(rest[validation]), whole.some(held_out), key, False)


# -- networks ----------------------------------------------------------------------------------------------------------


def initialisation(profile: Profile, backbone: str) -> str:
    """The name of the weights file that `backbone` starts from, or ``random``."""
    file = networks.weights_file(backbone, profile.image_to_gps.pretrained)
    return "random" if file is None else file.name


def _network(profile: Profile, backbone: str, pooling: str, seed: int) -> Img2GPS:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = Img2GPS(backbone, pooling)
    file = networks.weights_file(backbone, profile.image_to_gps.pretrained)
    if file is not None:
        networks.load_efficientnet(made, file)
    return made


def _vit(profile: Profile, seed: int) -> tuple[torch.nn.Module, str]:
    """The frozen ViT and what it starts from: DINO's ViT-S/8 where its file is here, else random weights."""
    s = profile.image_to_gps
    file = networks.weights_file("dino_deitsmall8", s.pretrained)
    if file is not None:
        made = networks.vit(s.px)
        networks.load_dino_vit(made, file)
        return made.eval(), file.name
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return networks.vit(s.px, dim=s.vit_dim, layers=s.vit_layers, heads=s.vit_heads).eval(), "random"


# -- results -----------------------------------------------------------------------------------------------------------


def _names(profile: Profile, *names: str) -> dict[str, Any]:
    values = dataclasses.asdict(profile.image_to_gps)
    return {name: values[name] for name in names}


def _kept(profile: Profile, label: str, more: dict[str, Any]) -> Kept:
    settings = _names(profile, "epochs", "shaping_epochs", "batch", "lr", "tau_m", "vit_layers", "vit_dim", "vit_heads")
    start = {name: initialisation(profile, name) for name in (*profile.image_to_gps.backbones, "dino_deitsmall8")}
    parts = {"label": label, "images": images(profile).key, "settings": settings, "start": start, "version": VERSION}
    return Kept(store.address("images-to-gps", f"{profile.name}-{label}", {**parts, **more}))


def _origin(profile: Profile, kept: Kept) -> dict[str, Any]:
    data = images(profile)
    return origin(profile, data.key, stand_in=data.stand_in, run_id=store.id_of(kept.base))


def _trained(profile: Profile, backbone: str, pooling: str, loss: str, share: float, seed: int) -> Kept:
    return _kept(profile, f"{backbone}-{pooling}-{loss}-{share:g}-s{seed}", {"seed": seed})


def _regression(
    profile: Profile, backbone: str, pooling: str, share: float, seed: int, loss: str = "mse", *, progress: bool
) -> tuple[Kept, pd.DataFrame]:
    """A trained regression, computed once with its weights and its curve: where it is kept, and its row of results."""
    kept = _trained(profile, backbone, pooling, loss, share, seed)
    if not kept.is_there():
        s, data = profile.image_to_gps, images(profile)
        rows = np.sort(np.random.default_rng(42).permutation(len(data.training))[: round(share * len(data.training))])
        chosen = data.training.some(rows)
        done = training_.train(
            _network(profile, backbone, pooling, seed), chosen, data.validation, epochs=s.epochs, batch=s.batch,
            lr=s.lr, loss=loss, seed=seed, device=distributed.device(), progress=progress,
        )  # fmt: skip
        best = done.curve[done.best_epoch - 1]
        predicted = predict(done, data.test.images)
        row = {
            "backbone": backbone, "pooling": pooling, "loss": loss, "share": share, "seed": seed,
            "parameters": sum(p.numel() for p in done.network.parameters()), "n_training": len(chosen),
            "n_validation": len(data.validation), "n_test": len(data.test), "train_loss": best["train_loss"],
            "val_loss": best["val_loss"], "val_ahd_m": best["val_ahd_m"],
            "test_ahd_m": average_distance_m(predicted, data.test.coordinates),
            "best_epoch": done.best_epoch, "epochs": s.epochs, "start": initialisation(profile, backbone),
            **_origin(profile, kept),
        }  # fmt: skip
        write_csv(_curve_file(kept), pd.DataFrame(done.curve))
        kept.keep(pd.DataFrame([row]), {**_weights(done), "predicted": predicted})
    return kept, kept.rows()


def _curve_file(kept: Kept) -> Path:
    return kept.base.with_name(f"{kept.base.name}-curve.csv")


def _weights(done: Trained) -> dict[str, torch.Tensor]:
    own = {f"network.{name}": value for name, value in done.network.state_dict().items()}
    return {**own, "mean": done.scale.mean, "std": done.scale.std}


def _saved(kept: Kept, network: Img2GPS) -> Img2GPS:
    own = {
        name.removeprefix("network."): value for name, value in kept.tensors().items() if name.startswith("network.")
    }
    checkpoints.load_into(network, own, kept.safetensors)
    return network.eval()


def _seeds(profile: Profile) -> range:
    return range(42, 42 + profile.image_to_gps.seeds)  # the source's seed, and further ones


def backbones(profile: Profile, *, progress: bool = True) -> pd.DataFrame:
    """Backbones with a linear head, the smallest with attention pooling, and with the distance itself as its loss."""
    rows = [
        _regression(profile, backbone, pooling, 1.0, seed, loss, progress=progress)[1]
        for seed in _seeds(profile)
        for backbone, pooling, loss in _kinds(profile)
    ]
    return pd.concat(rows, ignore_index=True)


def _kinds(profile: Profile) -> list[tuple[str, str, str]]:
    """(backbone, pooling, loss) of the rows of Table 2."""
    s = profile.image_to_gps
    averages = [(name, "average", "mse") for name in s.backbones]
    return [*averages, (s.pooled, "attention", "mse"), (s.pooled, "average", "haversine")]


def training_sizes(profile: Profile, *, progress: bool = True) -> pd.DataFrame:
    """The smallest backbone on shares of the training images."""
    s = profile.image_to_gps
    rows = [
        _regression(profile, s.pooled, "average", share, seed, progress=progress)[1]
        for share in s.sizes
        for seed in _seeds(profile)
    ]
    return pd.concat(rows, ignore_index=True)


def photograph_retrieval(profile: Profile, *, progress: bool = True) -> pd.DataFrame:
    """k-NN retrieval on each recipe's features, beside the mean coordinate (recipe ``mean``, k 0)."""
    s = profile.image_to_gps
    parts = [_retrieval(profile, recipe, seed, progress=progress) for recipe in RECIPES for seed in _seeds(profile)]
    kept = _kept(profile, "mean", {})
    data = images(profile)
    guess = [average_distance_m(mean_predictor(data.training, len(part)), part.coordinates)
             for part in (data.validation, data.test)]  # fmt: skip
    mean = {
        "recipe": "mean", "k": 0, "seed": 42, "val_ahd_m": guess[0], "test_ahd_m": guess[1],
        "n_training": len(data.training), "n_validation": len(data.validation), "n_test": len(data.test), "start": "",
    }  # fmt: skip
    known = [part[part["k"].isin(s.k)] for part in parts]
    return pd.concat([*known, pd.DataFrame([{**mean, **_origin(profile, kept)}])], ignore_index=True)


def _retrieved(profile: Profile, recipe: str, seed: int) -> Kept:
    s = profile.image_to_gps
    return _kept(profile, f"knn-{recipe}-s{seed}", {"k": s.k, "backbone": s.pooled})


def _retrieval(profile: Profile, recipe: str, seed: int, *, progress: bool) -> pd.DataFrame:
    s, data = profile.image_to_gps, images(profile)
    kept = _retrieved(profile, recipe, seed)

    def make() -> tuple[pd.DataFrame, dict[str, torch.Tensor]]:
        network, start = _features(profile, recipe, seed, progress=progress)
        x, val, test = (embed(network, part.images) for part in (data.training, data.validation, data.test))
        at = data.training.coordinates.numpy()
        rows, predicted = [], {}
        for k in s.k:
            found = [nearest_images(x, at, query, k) for query in (val, test)]
            predicted[f"predicted_{k}"] = torch.as_tensor(found[1])
            rows.append(
                {
                    "recipe": recipe, "k": k, "seed": seed,
                    "val_ahd_m": average_distance_m(found[0], data.validation.coordinates),
                    "test_ahd_m": average_distance_m(found[1], data.test.coordinates),
                    "n_training": len(data.training), "n_validation": len(data.validation), "n_test": len(data.test),
                    "start": start, **_origin(profile, kept),
                }
            )  # fmt: skip
        return pd.DataFrame(rows), predicted

    return kept.once(make)


def _features(profile: Profile, recipe: str, seed: int, *, progress: bool) -> tuple[torch.nn.Module, str]:
    """The network whose features are searched, and what it started from."""
    s = profile.image_to_gps
    if recipe == "vit":
        return _vit(profile, seed)
    regressed, _ = _regression(profile, s.pooled, "average", 1.0, seed, progress=progress)
    network = _saved(regressed, _network(profile, s.pooled, "average", seed))
    start = initialisation(profile, s.pooled)
    if recipe == "regression":
        return network, start
    shaped = _kept(profile, f"shaped-s{seed}", {"seed": seed, "backbone": s.pooled})
    if not shaped.is_there():
        data = images(profile)
        done = shape_features(
            network, data.training, data.validation, tau_m=s.tau_m, epochs=s.shaping_epochs, batch=s.batch, lr=s.lr,
            seed=seed, device=distributed.device(), progress=progress,
        )  # fmt: skip
        shaped.keep(pd.DataFrame(done.curve), _weights(done))
    return _saved(shaped, _network(profile, s.pooled, "average", seed)), start


def curves(profile: Profile, *, progress: bool = True) -> pd.DataFrame:
    """Losses by epoch of every row of `table2` with the source's loss: columns backbone, pooling, epoch and losses."""
    s, seed = profile.image_to_gps, _seeds(profile)[0]
    parts = []
    for backbone, pooling in [*((name, "average") for name in s.backbones), (s.pooled, "attention")]:
        kept, _ = _regression(profile, backbone, pooling, 1.0, seed, progress=progress)
        curve = read_csv(_curve_file(kept))
        parts.append(curve.assign(backbone=backbone, pooling=pooling))
    return pd.concat(parts, ignore_index=True)


def predictions(profile: Profile, *, progress: bool = True) -> pd.DataFrame:
    """True and predicted coordinates of the test images by each backbone and by retrieval with the middle k.

    Columns: way, lat, lon, predicted_lat, predicted_lon, error_m.
    """
    s, seed = profile.image_to_gps, _seeds(profile)[0]
    test = images(profile).test.coordinates.numpy()
    found: dict[str, NDArray[np.float64]] = {}
    for backbone in s.backbones:
        kept, _ = _regression(profile, backbone, "average", 1.0, seed, progress=progress)
        found[backbone] = kept.tensors()["predicted"].numpy()
    k = s.k[len(s.k) // 2]
    for recipe in ("regression", "contrast"):
        _retrieval(profile, recipe, seed, progress=progress)
        tensors = _retrieved(profile, recipe, seed).tensors()
        found[f"{k}-NN, {RECIPES[recipe]}"] = tensors[f"predicted_{k}"].numpy()
    parts = []
    for way, at in found.items():
        table = pd.DataFrame(np.hstack([test, at]), columns=["lat", "lon", "predicted_lat", "predicted_lon"])
        error = haversine_m(test[:, 0], test[:, 1], at[:, 0], at[:, 1])
        parts.append(table.assign(way=way, error_m=error))
    return pd.concat(parts, ignore_index=True)


def chapter(profile: Profile) -> pd.DataFrame:
    """All three tables' rows under each other, with `table`."""
    tables = {"2": backbones(profile), "3": photograph_retrieval(profile), "4": training_sizes(profile)}
    return pd.concat([rows.assign(table=number) for number, rows in tables.items()], ignore_index=True)


def finished(profile: Profile) -> dict[str, pd.DataFrame]:
    """What is there to publish: the three tables, where they have been computed; trains nothing."""
    folder = paths.runs() / "images-to-gps"
    if not folder.is_dir() or not any(folder.glob(f"{profile.name}-knn-contrast-*.csv")):
        return {}
    out: dict[str, pd.DataFrame] = {}
    s, seeds = profile.image_to_gps, _seeds(profile)
    if all(_trained(profile, *kind, 1.0, seed).is_there() for kind in _kinds(profile) for seed in seeds):
        out["img2gps-table2.csv"] = backbones(profile, progress=False)
    if all(
        _trained(profile, s.pooled, "average", "mse", share, seed).is_there() for share in s.sizes for seed in seeds
    ):
        out["img2gps-table4.csv"] = training_sizes(profile, progress=False)
    if all(_retrieved(profile, recipe, seed).is_there() for recipe in RECIPES for seed in seeds):
        out["img2gps-table3.csv"] = photograph_retrieval(profile, progress=False)
    return out

"""The stages before the tables, each computed once: maps → locations → pretraining → features.

Every result has an address under `SELM_RUNS`: a name for people and the hash of all that it depends on (settings, data
fingerprints, and the version of the code that makes it, raised when its numbers change). What is there is reused; what
is missing is computed; nothing is ever overwritten by something else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from selm import checkpoints, distributed, methods, paths, splits
from selm.errors import InputError
from selm.maps.atlas import Atlas
from selm.maps.entropy import priorities
from selm.networks import EncoderConfig, MapEncoder
from selm.pretrain import Trainer, pretrain
from selm.probes.practitioner import colour_histogram
from selm.settings import Profile, Region
from selm.views import DeviceAtlas, ViewSampler, colour, pixel_statistics

# Raise a stage's version when its numbers change for the same settings and data.
VERSIONS = {"locations": 1, "pretraining": 1, "features": 1}
DEVICES = ("cuda", "cpu")  # kinds that runs are made on
PARENT_STEP = 1  # the parent image is one zoom out (section 4: zooms 17 and 16)


def address(kind: str, label: str, parts: dict[str, Any]) -> Path:
    """`SELM_RUNS`/kind/label-hash, where the hash covers `parts` (JSON-like)."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return paths.runs() / kind / f"{label}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def device() -> torch.device:
    """The GPU where there is one (`SELM_DEVICE` overrides), else the CPU."""
    return torch.device(os.environ.get("SELM_DEVICE", "cuda" if torch.cuda.is_available() else "cpu"))


def profile_zooms(profile: Profile) -> tuple[int, ...]:
    """The zooms of the profile's atlases, closest first."""
    return tuple(sorted(set(profile.maps.zooms) | set(profile.maps.context_zooms), reverse=True))


def atlas_folder(profile: Profile, region: str, style: str | None = None, zoom: int | None = None) -> Path:
    """Where the atlas of a region is kept: by style (its content), pixels a tile and zooms (or one further zoom)."""
    from selm.maps.draw import Style

    maps = profile.maps
    name = style or maps.style
    drawn = "-".join(map(str, (zoom,) if zoom else profile_zooms(profile)))
    return paths.runs() / "atlases" / f"{region}-{name}-{Style.named(name).hash[:12]}-{maps.tile_px}px-z{drawn}"


@lru_cache(maxsize=32)
def _atlas(root: Path, profile: Profile, region: Region, style: str | None, zoom: int | None, progress: bool) -> Atlas:
    folder = atlas_folder(profile, region.name, style, zoom)
    if (folder / "atlas.json").exists():
        return Atlas(folder)
    from selm.maps.draw import draw_atlas  # drawing needs mapnik; reading an atlas does not
    from selm.regions import open_region

    source = open_region(region)
    return draw_atlas(
        source, folder, zooms=(zoom,) if zoom else profile_zooms(profile), tile_px=profile.maps.tile_px,
        bbox=region.bbox, style=style or profile.maps.style,
        blocks=None if zoom else drawn_blocks(profile, region, source.fingerprint), progress=progress,
    )  # fmt: skip


def drawn_blocks(profile: Profile, region: Region, fingerprint: str) -> NDArray[np.int32] | None:
    """`selm.regions.drawn_blocks`, computed once: a machine that only draws needs no reader of official files."""
    if profile.stand_ins or region.role == "pretrain":
        return None
    parts = {"labels": splits.label_fingerprint(profile), "region": dataclasses.asdict(region), "map": fingerprint,
             "version": VERSIONS["locations"]}  # fmt: skip

    def make() -> pd.DataFrame:
        from selm import regions

        return pd.DataFrame(regions.drawn_blocks(profile, region), columns=["x", "y"])

    return _cached_table("blocks", f"{profile.name}-{region.name}", parts, make).to_numpy(np.int32)


def atlases(
    profile: Profile, role: str | None = None, *, style: str | None = None, zoom: int | None = None,
    progress: bool = True,
) -> dict[str, Atlas]:  # fmt: skip
    """The drawn maps of the profile's regions (of one role, or all), in its style or another, by name of region.

    With `zoom`, one that those maps have not: then all of a region is drawn, for an image may show much of it.
    """
    regions = profile.regions if role is None else profile.regions_for(role)
    return {region.name: _atlas(paths.runs(), profile, region, style, zoom, progress) for region in regions}


def atlases_at(profile: Profile, zoom: int, role: str | None = None) -> dict[str, Atlas]:
    """`atlases` that have a zoom: the profile's own where they do, else those of this zoom alone."""
    return atlases(profile, role, zoom=None if zoom in profile_zooms(profile) else zoom)


def map_fingerprint(profile: Profile, role: str | None = None, zoom: int | None = None) -> str:
    """One hash over the profile's atlases (of one role, or all), or over those of a further zoom."""
    prints = {name: atlas.fingerprint for name, atlas in atlases(profile, role, zoom=zoom).items()}
    return hashlib.sha256(json.dumps(prints, sort_keys=True).encode()).hexdigest()


def _cached_table(kind: str, label: str, parts: dict[str, Any], make: Any) -> pd.DataFrame:
    file = address(kind, label, parts).with_suffix(".parquet")
    if not file.exists():
        table = make()
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
        table.to_parquet(temporary, index=False)
        checkpoints.replace_atomically(temporary, file)
    return pd.read_parquet(file)


def _data_parts(profile: Profile, role: str | None = None) -> dict[str, Any]:
    return {
        "maps": map_fingerprint(profile, role),
        "labels": splits.label_fingerprint(profile),
        "regions": [dataclasses.asdict(region) for region in profile.regions],
        "settings": dataclasses.asdict(profile.maps),
        "version": VERSIONS["locations"],
    }


def locations(profile: Profile) -> pd.DataFrame:
    """The table of places to pretrain on (`selm.locations.build_locations`), computed once."""
    from selm.locations import build_locations

    parts = _data_parts(profile, "pretrain") | {
        "n": profile.pretraining.n_locations, "density_classes": profile.pretraining.density_classes,
    }  # fmt: skip
    return _cached_table(
        "locations", profile.name, parts, lambda: build_locations(profile, atlases(profile, "pretrain"))
    )


def _points_parts(profile: Profile) -> dict[str, Any]:
    return _data_parts(profile) | {"area_types": profile.probing.area_types, "n": profile.probing.n_interpolated}


def points(profile: Profile) -> pd.DataFrame:
    """The labelled places that probes learn from and are tested on (`locations.probe_points`), computed once."""
    from selm.locations import probe_points

    return _cached_table(
        "points", profile.name, _points_parts(profile), lambda: probe_points(profile, atlases(profile))
    )


def interpolated(profile: Profile) -> pd.DataFrame:
    """Places of the test region with prices from points nearby (`locations.interpolated_points`), computed once."""
    from selm.locations import interpolated_points

    def make() -> pd.DataFrame:
        (region,) = profile.regions_for("test")
        table = points(profile)
        known = table[table["target_set"] == region.name].reset_index(drop=True)
        return interpolated_points(profile, atlases(profile, "test"), known)

    return _cached_table("interpolated", profile.name, _points_parts(profile), make)


def points_key(profile: Profile) -> str:
    """Hash of all that the probe's places and labels depend on."""
    return address("points", "", _points_parts(profile)).name.lstrip("-")


def table_fingerprint(table: pd.DataFrame) -> str:
    """Hash of a table's values."""
    return hashlib.sha256(pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes()).hexdigest()


def pretraining_places(profile: Profile) -> pd.DataFrame:
    """The rows of `locations` that are pretrained on; raises InputError where there is none."""
    table = locations(profile)
    table = table[table["split"] == "pretrain"].reset_index(drop=True)
    if not len(table):
        raise InputError(f"profile '{profile.name}': no location to pretrain on")
    return table


def encoder_config(profile: Profile) -> EncoderConfig:
    """What an encoder of the profile is; its pixel statistics are those of (the first 20,000) pretraining places."""
    places = pretraining_places(profile).iloc[:20_000]
    parts = {
        "places": table_fingerprint(places[["region", "lat", "lon"]]),
        "maps": map_fingerprint(profile, "pretrain"),
        "px": profile.views.global_px,
    }
    file = address("pixels", profile.name, parts).with_suffix(".json")
    if not file.exists():
        mean, std = pixel_statistics(point_images(profile, places), palette(profile))
        # rounded: their last digits differ from one processor to another, and they are part of every run's address
        checkpoints.write_json(file, {"mean": [round(m, 6) for m in mean], "std": [round(s, 6) for s in std]})
    pixels = checkpoints.read_json(file)
    return EncoderConfig(
        arch=profile.encoder.arch, width=profile.encoder.width, zoom=profile.maps.zooms[0],
        image_px=profile.views.global_px, tile_px=profile.maps.tile_px, style=profile.maps.style,
        pixel_mean=tuple(pixels["mean"]), pixel_std=tuple(pixels["std"]),
    )  # fmt: skip


@lru_cache(maxsize=1)
def _sampler(profile: Profile, fingerprint: str, on: str, more_zooms: tuple[int, ...]) -> ViewSampler:
    table, config = pretraining_places(profile), encoder_config(profile)
    lat, lon = table["lat"].to_numpy(), table["lon"].to_numpy()
    zoom = profile.maps.zooms[0]
    parent = zoom - PARENT_STEP
    s = profile.pretraining
    own = profile_zooms(profile)
    near = tuple(dict.fromkeys(z for z in (zoom, parent, *more_zooms) if z in own))
    further = {
        z: DeviceAtlas(list(atlases_at(profile, z, "pretrain").values()), (z,), on, near=(lat, lon))
        for z in more_zooms if z not in own
    }  # fmt: skip
    return ViewSampler(
        DeviceAtlas(list(atlases(profile, "pretrain").values()), near, on, near=(lat, lon)),
        lat, lon, profile.views, zoom=zoom, parent_zoom=parent,
        price=table["price"], density_class=table["density_class"], coordinates=scaled_coordinates(lat, lon),
        priorities=priorities(table["entropy"].to_numpy(), s.alpha_priority, s.epsilon_priority),
        pixel_mean=config.pixel_mean, pixel_std=config.pixel_std, further=further,
    )  # fmt: skip


def sampler(profile: Profile, more_zooms: tuple[int, ...] = ()) -> ViewSampler:
    """Views of the pretraining places, on the device; the last one made is kept in memory.

    The atlas holds the profile's zoom and its parent's, and `more_zooms`.
    """
    return _sampler(profile, table_fingerprint(locations(profile)), str(device()), more_zooms)


def scaled_coordinates(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.float64]:
    """Latitude and longitude (N, 2), each scaled to −1 … 1 over the locations (the paper gives no units for eq. 7)."""
    both = np.stack([lat, lon], axis=1)
    low, high = both.min(axis=0), both.max(axis=0)
    return 2 * (both - low) / np.maximum(high - low, 1e-9) - 1


def new_encoder(config: EncoderConfig, seed: int) -> MapEncoder:
    """A randomly initialised encoder; the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MapEncoder(config)


def pretraining_config(profile: Profile, method: str, seed: int) -> dict[str, Any]:
    """All that a pretraining run depends on.

    Kinds of device differ by rounding, so the one it is trained on counts. Where a run has been finished on another
    kind and none on this one, it is that run: what a GPU trained can be probed and drawn anywhere.
    """
    row = methods.get_row(method)
    own = {} if row.settings is None or row.terms is not None else {"settings": dataclasses.asdict(row.settings)}
    config = {
        "method": method,
        **own,
        "version": [VERSIONS["pretraining"], row.version],
        "terms": None if row.terms is None else dataclasses.asdict(row.terms),
        "profile": profile.name,
        "seed": seed,
        "encoder": encoder_config(profile).settings(),
        "views": dataclasses.asdict(profile.views),
        "pretraining": profile.pretraining.settings(),
        "data": table_fingerprint(locations(profile)),
        "maps": map_fingerprint(profile, "pretrain"),
        **further_maps(profile, row.zooms, "pretrain"),
        "device": device().type,
    }
    for kind in dict.fromkeys((device().type, *DEVICES)):
        if is_complete(_run_folder(profile, method, seed, config | {"device": kind})):
            return config | {"device": kind}
    return config


def is_complete(folder: Path) -> bool:
    """Whether a run directory holds a pretraining that has been run to its end."""
    file = folder / "run.json"
    return file.exists() and bool(checkpoints.read_json(file).get("complete"))


def _run_folder(profile: Profile, method: str, seed: int, config: dict[str, Any]) -> Path:
    return address("pretraining", f"{profile.name}-{method}-s{seed}", config)


def further_maps(profile: Profile, zooms: Iterable[int], role: str | None = None) -> dict[str, Any]:
    """What an address says of maps at zooms that the profile's atlases have not; nothing where there are none."""
    further = [zoom for zoom in zooms if zoom not in profile_zooms(profile)]
    return {"further maps": [map_fingerprint(profile, role, zoom) for zoom in further]} if further else {}


def pretraining_folder(profile: Profile, method: str, seed: int = 0) -> Path:
    """The run directory of a pretraining, whether or not it has been run."""
    return _run_folder(profile, method, seed, pretraining_config(profile, method, seed))


def pretrained(
    profile: Profile, method: str, seed: int = 0, *, progress: bool = True, compiled: str | None = None
) -> Path:
    """The run directory of `method` pretrained with `seed`; trains, or goes on training, what is not finished.

    An encoder that comes with the code (`paths.encoders`) and is what would be trained is taken in its place; a line on
    standard error says so.

    `compiled`: see `Trainer`. Processes that have joined (`selm.distributed`) train together.
    """
    with distributed.main_first():  # maps and places are made once
        config = pretraining_config(profile, method, seed)
    folder = _run_folder(profile, method, seed, config)
    if is_complete(folder):
        return folder
    if not (folder / "run.json").exists():
        for kind in dict.fromkeys((config["device"], *DEVICES)):
            also = config | {"device": kind}
            if _fetch_published(profile, also, found := _run_folder(profile, method, seed, also)):
                return found
    zooms = methods.get_row(method).zooms
    made = new_encoder(dataclasses.replace(encoder_config(profile), context_zooms=zooms[1:]), seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # for the heads
        method_ = methods.build(method, made, profile.pretraining, profile.views.global_px)
    trainer = Trainer(method_, sampler(profile, zooms), profile.pretraining, seed, device(), compiled=compiled)
    with torch.enable_grad():  # also where whoever wants the encoder is not differentiating
        return pretrain(trainer, folder, config, progress=progress, title=f"{method} (seed {seed})")


def _fetch_published(profile: Profile, config: dict[str, Any], folder: Path) -> bool:
    """Whether an encoder that comes with the code is what this run would make; then its folder is filled with it."""
    config = json.loads(json.dumps(config))
    with distributed.main_first():
        for run in sorted((paths.encoders() / profile.name).glob("*/run.json")):
            if not (folder / "run.json").exists() and checkpoints.read_json(run).get("config") == config:
                shutil.copytree(run.parent, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("run.json"))
                shutil.copyfile(run, folder / "run.json")  # last: a run without it is not there
                print(f"{folder.name}: taken from {run.parent}, not trained", file=sys.stderr)
    return (folder / "run.json").exists()


def encoder(profile: Profile, method: str, seed: int = 0, *, progress: bool = True) -> MapEncoder:
    """A method's encoder, pretrained where the method is pretrained."""
    if method == "random_init":
        return new_encoder(encoder_config(profile), seed).eval()
    return MapEncoder.from_pretrained(str(pretrained(profile, method, seed, progress=progress)))


def point_images(profile: Profile, table: pd.DataFrame, zoom: int | None = None) -> torch.Tensor:
    """uint8 palette indices (N, px, px) of the images centred on the places of `table`, by their `region`."""
    size = profile.views.global_px
    zoom = zoom or profile.maps.zooms[0]
    maps = atlases_at(profile, zoom)
    out = np.zeros((len(table), size, size), np.uint8)
    regions = table["region"].to_numpy(str)
    for name in np.unique(regions):
        rows = np.flatnonzero(regions == name)
        out[rows] = maps[name].indices(table["lat"].to_numpy()[rows], table["lon"].to_numpy()[rows], zoom, size)
    return torch.from_numpy(out)


def histograms(profile: Profile, table: pd.DataFrame, zoom: int) -> NDArray[np.float32]:
    """(N, 64) colour histograms of the images at `zoom` centred on the places of `table`, computed once."""
    parts = {
        "places": table_fingerprint(table[["region", "lat", "lon"]]),
        "maps": map_fingerprint(profile),
        "zoom": zoom,
        "version": VERSIONS["features"],
        **further_maps(profile, (zoom,)),
    }
    file = address("histograms", f"{profile.name}-z{zoom}", parts).with_suffix(".safetensors")
    if not file.exists():
        colours = next(iter(atlases(profile, "pretrain").values())).palette
        out = colour_histogram(point_images(profile, table, zoom).numpy(), colours)
        checkpoints.save_tensors(file, {"histograms": torch.from_numpy(out)})
    return checkpoints.load_tensors(file)[0]["histograms"].numpy()


def palette(profile: Profile) -> torch.Tensor:
    """(256, 3) float32 colours in [0, 1]."""
    first = next(iter(atlases(profile, "pretrain").values()))
    return torch.tensor(first.palette, dtype=torch.float32) / 255


@torch.no_grad()
def encode(network: MapEncoder, indices: torch.Tensor, colours: torch.Tensor, batch: int = 256) -> torch.Tensor:
    """(N, px, px) palette indices → (N, embedding_dim) float32 embeddings on the CPU."""
    on = device()
    network = network.to(on).eval()
    parts = [
        network.embed(network.standardise(colour(part.to(on), colours.to(on)))).float().cpu()
        for part in indices.split(batch)
    ]
    return torch.cat(parts) if parts else torch.zeros(0, network.embedding_dim)


def features(profile: Profile, method: str, seed: int, table: pd.DataFrame, label: str) -> NDArray[np.float32]:
    """(N, dim) frozen features of the places of `table`, computed once; `label` names the table.

    For an encoder of several zooms, those of all zooms side by side.
    """
    source = (
        {"random": encoder_config(profile).settings(), "seed": seed}
        if method == "random_init"
        else {"run": pretrained(profile, method, seed).name}
    )
    places = table_fingerprint(table[["region", "lat", "lon"]])
    parts = {**source, "places": places, "maps": map_fingerprint(profile), "version": VERSIONS["features"]}
    parts |= further_maps(profile, methods.get_row(method).zooms)
    file = address("features", f"{profile.name}-{method}-s{seed}-{label}", parts).with_suffix(".safetensors")
    if not file.exists():
        network = encoder(profile, method, seed)
        images = (point_images(profile, table, zoom) for zoom in network.config.zooms)
        out = torch.cat([encode(network, image, palette(profile)) for image in images], dim=1)
        checkpoints.save_tensors(file, {"features": out})
    return checkpoints.load_tensors(file)[0]["features"].numpy()

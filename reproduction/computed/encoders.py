"""The pretrainings of a profile, each run once."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from reproduction import paths, rows
from reproduction.computed.drawn_maps import (
    atlases,
    atlases_at,
    further_maps,
    map_fingerprint,
    palette,
    point_images,
    profile_zooms,
)
from reproduction.computed.place_tables import pretraining_places, sampled_key, sampled_places
from reproduction.computed.store import address, id_of, remembered, table_fingerprint
from reproduction.settings import Profile
from selm import distributed, files, methods
from selm.distributed import device
from selm.encoder import EncoderConfig, MapEncoder, new_encoder
from selm.pretrain import PARENT_STEP, make_trainer, pretrain, view_sampler
from selm.settings import Pretraining, Recolouring, Views
from selm.views import DeviceAtlas, ViewSampler, pixel_statistics

VERSION = 2  # of pretraining, for all methods
DEVICES = ("cuda", "cpu")  # kinds that runs are made on


def config_of(profile: Profile, method: str) -> EncoderConfig:
    """What a method's encoder is."""
    return profile.recipe_of(method).of_encoder(encoder_config(profile))


@remembered(maxsize=8)
def encoder_config(profile: Profile) -> EncoderConfig:
    """What an encoder of the profile is, but for a method's own `Change`; its pixel statistics are those of (the first
    20,000) pretraining places."""
    places = pretraining_places(profile).iloc[:20_000]
    parts = {
        "places": table_fingerprint(places[["region", "lat", "lon"]]),
        "maps": map_fingerprint(profile, "pretrain"),
        "px": profile.views.global_px,
    }
    file = address("pixels", profile.name, parts, ".json")
    if not file.exists():
        mean, std = pixel_statistics(point_images(profile, places), palette(profile))
        # rounded: their last digits differ from one processor to another, and they are part of every run's address
        files.write_json(file, {"mean": [round(m, 6) for m in mean], "std": [round(s, 6) for s in std]})
    pixels = files.read_json(file)
    return EncoderConfig(
        arch=profile.encoder.arch, width=profile.encoder.width, zoom=profile.maps.zooms[0],
        image_px=profile.views.global_px, tile_px=profile.maps.tile_px, style=profile.maps.style,
        pixel_mean=tuple(pixels["mean"]), pixel_std=tuple(pixels["std"]),
    )  # fmt: skip


def sampler(
    profile: Profile, more_zooms: tuple[int, ...] = (), recolouring: Recolouring | None = None,
    config: EncoderConfig | None = None,
) -> ViewSampler:  # fmt: skip
    """Views of the pretraining places, on the device, for encoders of `config`, by default the profile's.

    The atlas holds the profile's zoom and its parent's, and `more_zooms`; the last one loaded is kept in memory.
    """
    s = profile.pretraining
    # what the places and maps depend on, and nothing else: rows that are trained otherwise share them
    like = dataclasses.replace(
        profile, recipes=(), views=Views(global_px=profile.views.global_px),
        pretraining=Pretraining(n_places=s.n_places, density_classes=s.density_classes),
    )  # fmt: skip
    atlas, further = _maps_on_device(like, more_zooms)
    places = pretraining_places(profile)
    config = config or encoder_config(profile)
    return view_sampler(atlas, places, config, profile.views, s, further, recolouring)


@remembered(maxsize=1)
def _maps_on_device(profile: Profile, more_zooms: tuple[int, ...]) -> tuple[DeviceAtlas, dict[int, DeviceAtlas]]:
    on = str(device())
    table, zoom = pretraining_places(profile), profile.maps.zooms[0]
    near_places = table["lat"].to_numpy(), table["lon"].to_numpy()
    own = profile_zooms(profile)
    zooms = tuple(dict.fromkeys(z for z in (zoom, zoom - PARENT_STEP, *more_zooms) if z in own))
    further = {
        z: DeviceAtlas(list(atlases_at(profile, z, "pretrain").values()), (z,), on, near=near_places)
        for z in more_zooms if z not in own
    }  # fmt: skip
    return DeviceAtlas(list(atlases(profile, "pretrain").values()), zooms, on, near=near_places), further


@remembered(maxsize=16)
def _places_key(profile: Profile) -> str:
    return table_fingerprint(sampled_places(profile))


def pretraining_config(profile: Profile, method: str, seed: int) -> dict[str, Any]:
    """All that a pretraining run depends on.

    Kinds of device differ by rounding, so the one it is trained on counts. Where a run has been finished on another
    kind and none on this one, it is that run: what a GPU trained can be probed and drawn anywhere. So it is with an
    encoder that comes with the code, whose places' numbers may have other last digits, from another processor.
    """
    recipe, change = methods.get_method(method), profile.recipe_of(method)
    own = change.of(profile)
    config = {
        "method": method,
        "settings": dataclasses.asdict(change.of_settings(recipe.settings)),
        "version": [VERSION, recipe.version],
        "profile": profile.name,
        "seed": seed,
        "encoder": config_of(profile, method).as_dict(),
        "views": dataclasses.asdict(own.views),
        "pretraining": _set(own.pretraining),
        "data": _places_key(profile),
        "maps": map_fingerprint(profile, "pretrain"),
        **further_maps(profile, recipe.zooms, "pretrain"),
        **({} if change.recolouring is None else {"recolouring": dataclasses.asdict(change.recolouring)}),
        "device": device().type,
    }
    for kind in dict.fromkeys((device().type, *DEVICES)):
        if is_complete(_run_folder(profile, method, seed, config | {"device": kind})):
            return config | {"device": kind}
    return config | _as_published(profile, config)


def _set(settings: Pretraining) -> dict[str, Any]:
    """The settings; those that came after runs were published only where they are not as these runs had them."""
    return {name: value for name, value in dataclasses.asdict(settings).items() if (name, value) != ("rec_share", 1.0)}


def _as_published(profile: Profile, config: dict[str, Any]) -> dict[str, Any]:
    """The kind of device and the places of the encoder that comes with the code and is this run's, if there is one."""
    folder = paths.encoders() / profile.name
    wanted = json.loads(json.dumps(config))
    for about in _coming_along(folder, folder.stat().st_mtime_ns) if folder.is_dir() else ():
        theirs = about.get("config", {})
        same = {name: theirs.get(name) for name in ("device", "data")}
        if wanted | same == theirs and (
            theirs["data"] == wanted["data"] or about.get("places") == sampled_key(profile)
        ):  # fmt: skip
            return same
    return {}


@functools.lru_cache(maxsize=8)
def _coming_along(folder: Path, changed: int) -> tuple[dict[str, Any], ...]:
    return tuple(files.read_json(run) for run in sorted(folder.glob("*/run.json")))


def is_complete(folder: Path) -> bool:
    """Whether a run directory holds a pretraining that has been run to its end."""
    file = folder / "run.json"
    return file.exists() and bool(files.read_json(file).get("complete"))


def _run_folder(profile: Profile, method: str, seed: int, config: dict[str, Any]) -> Path:
    return address("pretraining", f"{profile.name}-{method}-s{seed}", config)


def pretraining_folder(profile: Profile, method: str, seed: int = 0) -> Path:
    """The run directory of a pretraining, whether or not it has been run."""
    return _run_folder(profile, method, seed, pretraining_config(profile, method, seed))


def run_id(profile: Profile, method: str, seed: int = 0) -> str:
    """What rows of results call a pretraining by."""
    return id_of(pretraining_folder(profile, method, seed))


def encoder_key(profile: Profile, method: str, seed: int) -> dict[str, Any]:
    """What a method's embeddings depend on, besides the images: the random weights, or the pretraining run."""
    if method == "random_init":
        return {"random": encoder_config(profile).as_dict(), "seed": seed}
    return {"run": pretraining_folder(profile, method, seed).name}


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
    if found := _finished(profile, method, seed, config):
        return found
    folder = _run_folder(profile, method, seed, config)
    zooms = rows.zooms_of(method)
    change = profile.recipe_of(method)
    trained = change.of(profile)
    encoded = config_of(profile, method)
    trainer = make_trainer(
        method, encoded, sampler(trained, zooms, change.recolouring, encoded),
        trained.pretraining, seed, device(),
        own=change.of_settings(methods.get_method(method).settings), compiled=compiled,
    )  # fmt: skip
    with torch.enable_grad():  # also where whoever wants the encoder is not differentiating
        return pretrain(trainer, folder, config, progress=progress, title=f"{method} (seed {seed})")


def is_pretrained(profile: Profile, method: str, seed: int = 0) -> bool:
    """Whether `pretrained` would train nothing: the run is finished, or comes with the code (and is then taken)."""
    return _finished(profile, method, seed, pretraining_config(profile, method, seed)) is not None


def _finished(profile: Profile, method: str, seed: int, config: dict[str, Any]) -> Path | None:
    """The run directory of a pretraining that need not be trained; a published one is copied there."""
    folder = _run_folder(profile, method, seed, config)
    if is_complete(folder):
        return folder
    begun = (folder / "run.json").exists()
    return None if begun or not _fetch_published(profile, config, folder) else folder


def _fetch_published(profile: Profile, config: dict[str, Any], folder: Path) -> bool:
    """Whether an encoder that comes with the code is what this run would make; then its folder is filled with it."""
    config = json.loads(json.dumps(config))
    with distributed.main_first():
        for run in sorted((paths.encoders() / profile.name).glob("*/run.json")):
            if not (folder / "run.json").exists() and files.read_json(run).get("config") == config:
                shutil.copytree(run.parent, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("run.json"))
                shutil.copyfile(run, folder / "run.json")  # last: a run without it is not there
                print(f"{folder.name}: taken from {run.parent}, not trained", file=sys.stderr)
    return (folder / "run.json").exists()


def encoder(profile: Profile, method: str, seed: int = 0, *, progress: bool = True) -> MapEncoder:
    """A method's encoder, pretrained where the method is pretrained."""
    if method == "random_init":
        return new_encoder(encoder_config(profile), seed).eval()
    return MapEncoder.from_pretrained(str(pretrained(profile, method, seed, progress=progress)))

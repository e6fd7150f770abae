"""The maps of a profile, drawn once, and images and colours at places on them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from reproduction import paths
from reproduction.computed.store import cached_array, cached_table, remembered, table_fingerprint
from reproduction.places import splits
from reproduction.settings import Profile, Region
from selm.maps.atlas import Atlas
from selm.maps.colours import colour_histogram

VERSION = 2  # of drawn blocks and histograms


def profile_zooms(profile: Profile) -> tuple[int, ...]:
    """The zooms of the profile's atlases, closest first."""
    return tuple(sorted(set(profile.maps.zooms) | set(profile.maps.context_zooms), reverse=True))


def atlas_folder(profile: Profile, region: str, style: str | None = None, zoom: int | None = None) -> Path:
    """Where the atlas of a region is kept: by style (its content), pixels a tile and zooms (or one further zoom)."""
    from selm.maps.style import Style

    maps = profile.maps
    name = style or maps.style
    drawn = "-".join(map(str, (zoom,) if zoom else profile_zooms(profile)))
    return paths.runs() / "atlases" / f"{region}-{name}-{Style.named(name).hash[:12]}-{maps.tile_px}px-z{drawn}"


@remembered(maxsize=32)
def _atlas(profile: Profile, region: Region, style: str | None, zoom: int | None, progress: bool) -> Atlas:
    folder = atlas_folder(profile, region.name, style, zoom)
    if (folder / "atlas.json").exists():
        return Atlas(folder)
    from reproduction.places.regions import open_region
    from selm.maps.draw import draw_atlas  # drawing needs mapnik; reading an atlas does not

    source = open_region(region)
    return draw_atlas(
        source, folder, zooms=(zoom,) if zoom else profile_zooms(profile), tile_px=profile.maps.tile_px,
        bbox=region.bbox, style=style or profile.maps.style,
        blocks=None if zoom else drawn_blocks(profile, region, source.fingerprint), progress=progress,
    )  # fmt: skip


def drawn_blocks(profile: Profile, region: Region, fingerprint: str) -> NDArray[np.int32] | None:
    """`regions.blocks_with_points`, computed once: who only draws needs no reader of official files."""
    if profile.stand_ins or region.role == "pretrain" or region.name == profile.held_out:
        return None
    parts = {"labels": splits.label_fingerprint(profile), "region": dataclasses.asdict(region), "map": fingerprint,
             "version": VERSION}  # fmt: skip

    def make() -> pd.DataFrame:
        from reproduction.places import regions

        return pd.DataFrame(regions.blocks_with_points(profile, region), columns=["x", "y"])

    return cached_table("blocks", f"{profile.name}-{region.name}", parts, make).to_numpy(np.int32)


def atlases(
    profile: Profile, role: str | None = None, *, style: str | None = None, zoom: int | None = None,
    progress: bool = True,
) -> dict[str, Atlas]:  # fmt: skip
    """The drawn maps of the profile's regions (of one role, or all), in its style or another, by name of region.

    With `zoom`, one that those maps have not: then all of a region is drawn, for an image may show much of it.
    """
    regions = profile.regions if role is None else profile.regions_for(role)
    return {region.name: _atlas(profile, region, style, zoom, progress) for region in regions}


def atlases_at(profile: Profile, zoom: int, role: str | None = None) -> dict[str, Atlas]:
    """`atlases` that have a zoom: the profile's own where they do, else those of this zoom alone."""
    return atlases(profile, role, zoom=None if zoom in profile_zooms(profile) else zoom)


def map_fingerprint(profile: Profile, role: str | None = None, zoom: int | None = None) -> str:
    """One hash over the profile's atlases (of one role, or all), or over those of a further zoom."""
    prints = {name: atlas.fingerprint for name, atlas in atlases(profile, role, zoom=zoom).items()}
    return hashlib.sha256(json.dumps(prints, sort_keys=True).encode()).hexdigest()


def further_maps(profile: Profile, zooms: Iterable[int], role: str | None = None) -> dict[str, Any]:
    """What an address says of maps at zooms that the profile's atlases have not; nothing where there are none."""
    further = [zoom for zoom in zooms if zoom not in profile_zooms(profile)]
    return {"further maps": [map_fingerprint(profile, role, zoom) for zoom in further]} if further else {}


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
        "version": VERSION,
        **further_maps(profile, (zoom,)),
    }

    def make() -> NDArray[np.float32]:
        colours = next(iter(atlases(profile, "pretrain").values())).palette
        return colour_histogram(point_images(profile, table, zoom).numpy(), colours)

    return cached_array("histograms", f"{profile.name}-z{zoom}", parts, make)


def palette(profile: Profile) -> torch.Tensor:
    """(256, 3) float32 colours in [0, 1]."""
    first = next(iter(atlases(profile, "pretrain").values()))
    return torch.tensor(first.palette, dtype=torch.float32) / 255

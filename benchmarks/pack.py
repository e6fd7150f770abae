"""Everything that pretraining and embedding need of a profile, in one small folder for a machine that has neither map
libraries nor a network.

    python -m benchmarks.pack OUT [--profile japan] [--max-mib 60] [--seed 0]      write it (where the maps are drawn)
    python -m benchmarks.pack OUT --check                                          open it and say what is in it

The folder holds the blocks of the drawn maps as 8-bit palette PNG (an ordinary atlas, `atlas/`), the places with their
labels (`places.parquet`), the labelled places of the test region with their own blocks (`test/`), and `pack.json`.
Where all of it would be larger than `--max-mib`, whole blocks are left out at random (and with them their places),
and `pack.json` says how many of how many were kept. Reading it imports neither mapnik nor geopandas.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import sparse

from selm import checkpoints, stages
from selm.errors import InputError
from selm.experiments.grid import SPLITS, task
from selm.maps.atlas import BLOCK_ZOOM, Atlas, block_path
from selm.maps.entropy import priorities
from selm.maps.mercator import to_tile
from selm.networks import EncoderConfig
from selm.probes.folds import BufferedFolds
from selm.profiles import get_profile
from selm.settings import Profile
from selm.views import DeviceAtlas, ViewSampler

FORMAT = 1
COLUMNS = ("lat", "lon", "region", "entropy", "price", "density_class", "cell")


@dataclass(frozen=True)
class Pack:
    """An opened folder."""

    path: Path
    about: dict[str, Any]
    places: pd.DataFrame
    atlas: Atlas

    def encoder_config(self, profile: Profile) -> EncoderConfig:
        """What an encoder for these places is, with their pixel statistics."""
        maps, pixels = self.about["maps"], self.about["pixels"]
        return EncoderConfig(
            arch=profile.encoder.arch, width=profile.encoder.width, zoom=maps["zoom"],
            image_px=profile.views.global_px, tile_px=maps["tile_px"], style=maps["style"],
            pixel_mean=tuple(pixels["mean"]), pixel_std=tuple(pixels["std"]),
        )  # fmt: skip

    def sampler(self, profile: Profile, device: torch.device) -> ViewSampler:
        """Views of the places, as `stages.sampler` makes them."""
        table, config, s = self.places, self.encoder_config(profile), profile.pretraining
        lat, lon = table["lat"].to_numpy(), table["lon"].to_numpy()
        zoom, parent = config.zoom, config.zoom - stages.PARENT_STEP
        return ViewSampler(
            DeviceAtlas([self.atlas], (zoom, parent), device), lat, lon, profile.views, zoom=zoom, parent_zoom=parent,
            price=table["price"], density_class=table["density_class"],
            coordinates=stages.scaled_coordinates(lat, lon),
            priorities=priorities(table["entropy"].to_numpy(), s.alpha_priority, s.epsilon_priority),
            pixel_mean=config.pixel_mean, pixel_std=config.pixel_std,
        )  # fmt: skip

    def test(self) -> tuple[pd.DataFrame, Atlas, dict[str, BufferedFolds]] | None:
        """The labelled places of the test region, their map, and table 1's folds by way to split, if they are there."""
        folder = self.path / "test"
        if not (folder / "points.parquet").exists():
            return None
        points = pd.read_parquet(folder / "points.parquet")
        folds = {}
        for split in SPLITS:
            with np.load(folder / f"folds-{split}.npz") as held:
                rows, columns = held["near"]
                near = sparse.csr_array((np.ones(len(rows), bool), (rows, columns)), shape=(len(points), len(points)))
                folds[split] = BufferedFolds(held["fold"].astype(np.int64), near)
        return points, Atlas(folder / "atlas"), folds


def open_pack(path: str | Path) -> Pack:
    """Open a folder that `write` made; raises InputError where it is none, or of another format."""
    path = Path(path)
    about = checkpoints.read_json(path / "pack.json")
    if about.get("format") != FORMAT:
        raise InputError(f"{path}: pack format {about.get('format')}, this version reads {FORMAT}")
    places = pd.read_parquet(path / "places.parquet")
    return Pack(path, about, places, Atlas(path / "atlas"))


def blocks_of(table: pd.DataFrame) -> NDArray[np.int32]:
    """The block (zoom-13 tile) that holds each place: (N, 2)."""
    x, y = to_tile(table["lat"].to_numpy(), table["lon"].to_numpy(), BLOCK_ZOOM)
    return np.floor(np.stack([x, y], axis=1)).astype(np.int32)


def copy_blocks(atlases: list[Atlas], keys: NDArray[np.int32], zooms: tuple[int, ...], out: Path, source: str) -> int:
    """An atlas of some blocks of several atlases of one style, byte for byte; returns its size in bytes."""
    first, size = atlases[0], 0
    kept = []
    wanted = set(map(tuple, keys.tolist()))
    for atlas in atlases:
        for x, y in atlas.keys.tolist():
            if (x, y) in wanted and (x, y) not in kept:
                kept.append((x, y))
                for zoom in zooms:
                    content = block_path(atlas.path, x, y, zoom).read_bytes()
                    target = block_path(out, x, y, zoom)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(content)
                    size += len(content)
    description = dict(first.description, zooms=list(zooms), keys=[list(key) for key in sorted(kept)], source=source)
    description["source_fingerprint"] = "+".join(sorted(atlas.fingerprint[:16] for atlas in atlases))
    checkpoints.write_text(out / "atlas.json", json.dumps(description, ensure_ascii=False))
    return size


def _size(atlases: list[Atlas], keys: NDArray[np.int32], zooms: tuple[int, ...]) -> NDArray[np.int64]:
    """Bytes of each block, over all zooms: (N,)."""
    where = {(x, y): atlas.path for atlas in atlases for x, y in atlas.keys.tolist()}
    return np.array([
        sum(block_path(where[x, y], x, y, zoom).stat().st_size for zoom in zooms) if (x, y) in where else 0
        for x, y in keys.tolist()
    ])  # fmt: skip


def write(profile: Profile, out: Path, max_mib: float, seed: int) -> dict[str, Any]:
    """Make the folder; returns what `pack.json` says."""
    zoom = profile.maps.zooms[0]
    zooms = (zoom, zoom - stages.PARENT_STEP)
    table = stages.pretraining_places(profile)
    limit = max_mib * 2**20
    maps = list(stages.atlases(profile, "pretrain").values())

    (region,) = (one.name for one in profile.regions_for("test"))
    tasks = {split: task(profile, "table1", "l01", split) for split in SPLITS}
    tested = tasks["random"].places
    test_maps = [stages.atlases(profile)[region]]
    test_keys = np.unique(blocks_of(tested), axis=0)
    test_bytes = int(_size(test_maps, test_keys, zooms[:1]).sum())
    if test_bytes < 0.3 * limit:
        limit -= copy_blocks(test_maps, test_keys, zooms[:1], out / "test" / "atlas", region)
        for split, todo in tasks.items():
            near = np.stack(todo.folds.near.nonzero()).astype(np.int32)
            np.savez_compressed(out / "test" / f"folds-{split}.npz", fold=todo.folds.fold.astype(np.int8), near=near)
        tested.to_parquet(out / "test" / "points.parquet", index=False)

    own = blocks_of(table)
    keys = np.unique(own, axis=0)
    order = np.random.default_rng(seed).permutation(len(keys))
    sizes = _size(maps, keys[order], zooms)
    rows = 64 * len(table) / len(keys)  # about the bytes of a block's places in the table
    kept = keys[order][np.cumsum(sizes + rows) <= limit]
    if not len(kept):
        raise InputError(f"--max-mib {max_mib:g}: not even one block fits (the smallest has {sizes.min()} bytes)")
    members = set(map(tuple, kept.tolist()))
    places = table[[tuple(key) in members for key in own.tolist()]].reset_index(drop=True)
    copy_blocks(maps, kept, zooms, out / "atlas", "+".join(sorted(stages.atlases(profile, "pretrain"))))
    places[[name for name in COLUMNS if name in places]].to_parquet(out / "places.parquet", index=False)
    config = stages.encoder_config(profile)
    about = {
        "format": FORMAT, "profile": profile.name, "stand_ins": profile.stand_ins, "seed": seed,
        "places": len(places), "of_places": len(table), "blocks": len(kept), "of_blocks": len(keys),
        "maps": {"zoom": zoom, "tile_px": profile.maps.tile_px, "style": profile.maps.style,
                 "fingerprint": stages.map_fingerprint(profile, "pretrain")},
        "pixels": {"mean": list(config.pixel_mean), "std": list(config.pixel_std)},
        "test_points": len(tested) if (out / "test").exists() else 0,
        "attribution": maps[0].attribution,
    }  # fmt: skip
    checkpoints.write_json(out / "pack.json", about)
    return about


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--profile", default="japan")
    parser.add_argument("--max-mib", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", action="store_true")
    chosen = parser.parse_args(arguments)
    try:
        if not chosen.check:
            if (chosen.out / "pack.json").exists():
                raise InputError(f"{chosen.out}: holds a pack already; choose another folder")
            write(get_profile(chosen.profile), chosen.out, chosen.max_mib, chosen.seed)
        pack = open_pack(chosen.out)
    except InputError as error:
        print(f"pack: {error}", file=sys.stderr)
        return 2
    size = sum(file.stat().st_size for file in chosen.out.rglob("*") if file.is_file())
    about = pack.about
    print(
        f"{chosen.out}: {about['places']} of {about['of_places']} places, {about['blocks']} of {about['of_blocks']} "
        f"blocks, {about['test_points']} test points, {size / 2**20:.1f} MiB"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

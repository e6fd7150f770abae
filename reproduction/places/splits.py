"""Geographic splits: square cells of latitude and longitude, cells set aside before pretraining, folds, and buffers.

Neighbouring places look and cost alike, so a random split tests what was nearly seen in training. Here places are held
out by whole cells; training places within a buffer of a held-out place or cell are left out. Which cells are set aside
and which fold a cell is in is drawn once, with a fixed seed, and committed in ``data/folds``:

    python -m reproduction.places.splits          # makes data/folds/embedded.csv and, with the real data, japan*.csv
    python -m reproduction.places.splits --check  # compares instead of writing
"""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from reproduction import paths
from reproduction.places.regions import label_files, official_points, open_region
from reproduction.profiles import get_profile
from reproduction.settings import Profile
from selm.errors import InputError
from selm.files import write_text
from selm.maps.mercator import BBox, haversine_m

DRAWS = 10
FOLDS = 10
SEED = 0
SPLITS = ("pretrain", "buffer", "set-aside", "validation", "test")


# Cells


def cell_of(lat: ArrayLike, lon: ArrayLike, cell_degrees: float) -> NDArray[np.str_]:
    """Name of the cell that holds each of N coordinates: the latitude and longitude of its south-west corner.

    ``cell_of([43.06], [141.35], 0.25)`` is ``["43.00_141.25"]``. Cells start at multiples of `cell_degrees`.
    """
    lat, lon = np.atleast_1d(np.asarray(lat, np.float64)), np.atleast_1d(np.asarray(lon, np.float64))
    digits = _digits(cell_degrees)
    south, west = np.floor(lat / cell_degrees), np.floor(lon / cell_degrees)
    rows, row_of = np.unique(np.stack([south, west], 1), axis=0, return_inverse=True)
    names = [f"{a * cell_degrees:.{digits}f}_{b * cell_degrees:.{digits}f}" for a, b in rows]
    return np.array(names, dtype=np.str_)[row_of.ravel()]


def cell_bounds(cell: str, cell_degrees: float) -> BBox:
    """(west, south, east, north) of a cell by its name, degrees."""
    try:
        south, west = (float(part) for part in cell.split("_"))
    except ValueError:
        raise InputError(f"'{cell}' is not the name of a cell (SOUTH_WEST, as 43.00_141.25)") from None
    return west, south, west + cell_degrees, south + cell_degrees


def _digits(cell_degrees: float) -> int:
    text = f"{cell_degrees:.6f}".rstrip("0")
    return len(text.split(".")[1])


def metres_to_cells(lat: ArrayLike, lon: ArrayLike, cells: Iterable[str], cell_degrees: float) -> NDArray[np.float64]:
    """Metres from each of N coordinates to the nearest of `cells`, 0 inside; infinite if there are none."""
    lat, lon = np.atleast_1d(np.asarray(lat, np.float64)), np.atleast_1d(np.asarray(lon, np.float64))
    out = np.full(len(lat), np.inf)
    for cell in cells:
        west, south, east, north = cell_bounds(cell, cell_degrees)
        # The nearest place of the cell; exact but for the bulge of great circles, under a millimetre at such distances.
        out = np.minimum(out, haversine_m(lat, lon, np.clip(lat, south, north), np.clip(lon, west, east)))
    return out


# The fold file


def fold_file(profile: Profile) -> Path:
    """The profile's own fold file, or the committed one of its data set."""
    if profile.folds:
        return Path(profile.folds)
    name = "embedded" if profile.stand_ins else f"japan-{profile.held_out}" if profile.held_out else "japan"
    return paths.repository() / "data" / "folds" / f"{name}.csv"


def read_folds(profile: Profile) -> pd.DataFrame:
    """The fold file of the profile's data set, one row a cell.

    Columns: `cell`, `region`, `points` (locations the cell was listed for), `set_aside` (0/1) and `draw_0` … `draw_9`:
    the cell's fold 0..9 in each draw, -1 for a cell that is pretrained on. Folds are drawn apart for the test
    regions, the validation regions and the set-aside cells.
    """
    return _read_folds(fold_file(profile)).copy()


@lru_cache(maxsize=8)
def _read_folds(path: Path) -> pd.DataFrame:
    try:
        folds = pd.read_csv(path, dtype={"cell": str, "region": str})
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; 'python -m reproduction.places.splits' makes it") from None
    missing = {"cell", "region", "points", "set_aside", *(f"draw_{d}" for d in range(DRAWS))} - set(folds.columns)
    if missing:
        raise InputError(f"{path}: column {min(missing)} is missing")
    return folds


def label_fingerprint(profile: Profile) -> str:
    """sha256 over the files that the profile's labels are read from and its fold file."""
    files = (*label_files(profile), fold_file(profile))
    return _digest(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files))


@lru_cache(maxsize=16)
def _digest(files: tuple[tuple[Path, int, int], ...]) -> str:
    """sha256 over files, read again only where size or time have changed: it is part of every result's address."""
    state = hashlib.sha256()
    for path, _, _ in files:
        state.update(path.read_bytes())
    return state.hexdigest()


def make_folds(
    cells: Sequence[str], regions: Sequence[str], roles: dict[str, str], share: float, seed: int = SEED
) -> pd.DataFrame:
    """A fold table (see `read_folds`) from the cell and region of every location of a data set.

    `roles` maps a region to ``pretrain``, ``validation`` or ``test``. In each pretraining region `share` of the cells
    (rounded, at least one) is set aside. In each draw the cells of a set are shuffled and cut into ten folds of equal
    numbers of cells (to within one). Deterministic by `seed`, whatever the order of the locations.
    """
    table = pd.DataFrame({"cell": cells, "region": regions}).groupby(["region", "cell"]).size().rename("points")
    folds = table.reset_index().sort_values(["region", "cell"], ignore_index=True)[["cell", "region", "points"]]
    if folds["cell"].duplicated().any():
        shared = folds.loc[folds["cell"].duplicated(), "cell"].iloc[0]
        raise InputError(f"cell {shared} lies in two regions; regions must not share cells")
    rng = np.random.default_rng(seed)
    role = folds["region"].map(roles)
    set_aside = np.zeros(len(folds), np.int64)
    for region in sorted(name for name, of in roles.items() if of == "pretrain"):
        rows = np.flatnonzero(folds["region"] == region)
        set_aside[rng.choice(rows, max(1, round(share * len(rows))), replace=False)] = 1
    folds["set_aside"] = set_aside
    draws = np.full((len(folds), DRAWS), -1, np.int64)
    for members in (role == "test", role == "validation", folds["set_aside"] == 1):
        rows = np.flatnonzero(members)
        for draw in range(DRAWS):
            for fold, part in enumerate(np.array_split(rng.permutation(rows), FOLDS)):
                draws[part, draw] = fold
    return folds.join(pd.DataFrame(draws, columns=[f"draw_{d}" for d in range(DRAWS)]))


def rotated_folds(folds: pd.DataFrame, regions: Iterable[str], held_out: str, seed: int = SEED) -> pd.DataFrame:
    """The fold table of a rotation from that of its base: its `regions` alone, of which `held_out` is tested on.

    The cells of that region get ten folds in each draw and none is set aside; all others stay as they are.
    Deterministic by `seed`.
    """
    out = folds[folds["region"].isin(list(regions))].reset_index(drop=True)
    rows = np.flatnonzero(out["region"] == held_out)
    rng = np.random.default_rng([seed, *held_out.encode()])
    draws = np.empty((len(rows), DRAWS), np.int64)
    for draw in range(DRAWS):
        for fold, part in enumerate(np.array_split(rng.permutation(len(rows)), FOLDS)):
            draws[part, draw] = fold
    out.loc[rows, "set_aside"] = 0
    out.loc[rows, [f"draw_{d}" for d in range(DRAWS)]] = draws
    return out


def fold_of(cells: Sequence[str] | NDArray[np.str_], folds: pd.DataFrame, draw: int) -> NDArray[np.int64]:
    """int64 fold of each cell in draw `draw` of a fold table; -1 for a cell that has none or is not in the table."""
    if not 0 <= draw < DRAWS:
        raise InputError(f"draw {draw}: the fold file has draws 0 to {DRAWS - 1}")
    of = dict(zip(folds["cell"], folds[f"draw_{draw}"], strict=True))
    return np.array([of.get(cell, -1) for cell in cells], np.int64)


# Splits


def split_of(lat: ArrayLike, lon: ArrayLike, role: str, profile: Profile, folds: pd.DataFrame) -> NDArray[np.str_]:
    """The split of each of N coordinates in a region of this role.

    In ``validation`` and ``test`` regions it is the role. In a pretraining region: ``set-aside`` in a set-aside cell,
    ``buffer`` (used for nothing) within `profile.maps.buffer_m` metres of one or of another held-out cell (of a test
    region next door, in a site or a rotation), else ``pretrain``.
    """
    lat, lon = np.atleast_1d(np.asarray(lat, np.float64)), np.atleast_1d(np.asarray(lon, np.float64))
    if role != "pretrain":
        return np.full(len(lat), role)
    cell_degrees = profile.maps.cell_degrees
    set_aside = folds.loc[folds["set_aside"] == 1, "cell"].to_numpy(str)
    held_out = folds.loc[folds["draw_0"] >= 0, "cell"].to_numpy(str) if profile.folds or profile.held_out else set_aside
    split = np.full(len(lat), "pretrain", dtype="<U10")
    split[metres_to_cells(lat, lon, held_out, cell_degrees) <= profile.maps.buffer_m] = "buffer"
    split[np.isin(cell_of(lat, lon, cell_degrees), set_aside)] = "set-aside"
    return split


# The command


def japan_folds() -> pd.DataFrame:
    profile = get_profile("japan")
    points = official_points(profile)
    roles = {region.name: region.role for region in profile.regions}
    cells = cell_of(points["lat"], points["lon"], profile.maps.cell_degrees)
    return make_folds(cells.tolist(), points["region"].tolist(), roles, profile.maps.set_aside_share)


def embedded_folds() -> pd.DataFrame:
    profile = get_profile("demo")
    size = profile.maps.cell_degrees
    cells: list[str] = []
    regions: list[str] = []
    for region in profile.regions:
        west, south, east, north = open_region(region).bounds
        lat = np.arange(np.floor(south / size) + 0.5, np.ceil(north / size)) * size
        lon = np.arange(np.floor(west / size) + 0.5, np.ceil(east / size)) * size
        grid = np.meshgrid(lat, lon, indexing="ij")
        names = cell_of(grid[0].ravel(), grid[1].ravel(), size).tolist()
        cells += names
        regions += [region.name] * len(names)
    roles = {region.name: region.role for region in profile.regions}
    return make_folds(cells, regions, roles, profile.maps.set_aside_share)


def rotation_folds(profile: Profile) -> pd.DataFrame:
    """The fold table of a rotation, from the committed one of Japan."""
    names = [region.name for region in profile.regions]
    return rotated_folds(read_folds(get_profile("japan")), names, profile.held_out)


def to_csv(folds: pd.DataFrame) -> str:
    """The text of a fold file."""
    out = io.StringIO()
    folds.to_csv(out, index=False, lineterminator="\n")
    return out.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reproduction.places.splits", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the committed files instead of writing")
    check = parser.parse_args(arguments).check
    status = 0
    files: list[tuple[Profile, Callable[[], pd.DataFrame]]] = [
        (get_profile("demo"), embedded_folds),
        (get_profile("japan"), japan_folds),
    ]
    for region in get_profile("japan").rotations:  # of the file as it is then
        rotation = get_profile(f"japan-{region}")
        files.append((rotation, partial(rotation_folds, rotation)))
    for profile, make in files:
        path = fold_file(profile)
        try:
            text = to_csv(make())
        except InputError as error:
            print(f"{path.name}: not made ({error})", file=sys.stderr)
            status = 2
            continue
        if not check:
            write_text(path, text)
        elif not path.exists() or path.read_text() != text:
            print(f"{path.name}: differs from what this command makes", file=sys.stderr)
            status = 1
            continue
        print(f"{path.name}: {len(text.splitlines()) - 1} cells", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())

"""The data of the reference runs, made again from its public sources: OpenStreetMap of October 2017 as vector tiles,
land prices of 2013, and the census of 2015.

Each source is a public git repository at one commit; GitHub sends such a commit as one archive. Tiles are packed region
by region as MBTiles, their content unchanged; census areas are decoded from vector tiles and the pieces of one area
joined. What comes out is checked against digests of what the reference runs used: of the tiles' content, of the price
file's bytes, and of the census table's keys and numbers (outlines depend on the geometry library in their last metres,
so they are not part of it).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sqlite3
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from reproduction import paths
from reproduction.data.download import download
from selm.errors import InputError
from selm.files import written
from selm.maps import mercator

if TYPE_CHECKING:
    import pandas as pd

TILES_ZOOM, AREAS_ZOOM = 13, 12
_SMALLEST_TILE = 1000  # bytes; smaller ones of Hokkaido, mostly empty mountains, were left out


@dataclass(frozen=True)
class Repository:
    """A public repository on GitHub at one commit."""

    name: str
    commit: str

    @property
    def archive(self) -> str:
        return f"https://codeload.github.com/{self.name}/tar.gz/{self.commit}"

    def raw(self, path: str) -> str:
        return f"https://raw.githubusercontent.com/{self.name}/{self.commit}/{path}"


@dataclass(frozen=True)
class TileFile:
    """A file of the map's tiles: `title` in its metadata, `bounds` (west, south, east, north), digest of its tiles."""

    title: str
    bounds: mercator.BBox
    tiles: str
    smallest: int = 0


MAP = Repository("hfu/jp1710_13", "2ecd564a4318f8163e5060dd177d53da9211a077")
CENSUS = Repository("hfu/chome-vt", "76f9b983624cf0f6517572baa05e298af7a51914")
PRICES = Repository("Noriaki1980/land-price-map", "7d6b57949308e46e42e24945c0008cb9132775cf")
PRICES_PATH = "data/raw/L01-2013.zip"
PRICES_SHA256 = "e248dbc4d8716615147af9f421f384dce1b97561ac373323dbd760bcd8795e61"
TILE_FILES: dict[str, TileFile] = {
    "kanto": TileFile(
        "kanto", (138.867188, 34.885931, 140.932617, 36.914764),
        "afa6e4dcc3443312cc0675cf16c3de6cbce4bacce795fdc795ddf14812b47aba",
    ),
    "kansai": TileFile(
        "kansai", (135.000000, 34.198173, 136.142578, 35.317366),
        "7e6aca54dade8679f15f88c9cfbb69f7b9eb8073efcc1646c92a0e1745e5db16",
    ),
    "nagoya": TileFile(
        "nagoya", (136.669922, 34.885931, 137.241211, 35.424868),
        "3cae3184b9b0da9610f2262382d102dd83e825c87b25a77264760d4c3b9ca181",
    ),
    "fukuoka": TileFile(
        "fukuoka", (130.166016, 33.394759, 130.737305, 33.833920),
        "b9e77a43f60ecd4db7da7e3a22c62c23c9c656205b2b2d7f53680ce4298fde6f",
    ),
    "hiroshima": TileFile(
        "hiroshima", (132.187500, 34.198173, 132.714844, 34.633208),
        "910b0065e9cad0848dfb09b281fc1b1930b83b1899addaed282a8674f906a031",
    ),
    "hokkaido": TileFile(
        "Hokkaido", (139.306641, 41.277806, 145.942383, 45.521744),
        "217ba5ca98091126c59909e72a0b2223ccaa1310d463e7deb958edee123e450d", _SMALLEST_TILE,
    ),
    "tochigi_north": TileFile(
        "tochigi_north", (139.262695, 36.914764, 140.317383, 37.160317),
        "0bf2946b47eeed46ba127740475158b92c7d39ae098b64dddf0460be73fe5e44",
    ),
}  # fmt: skip
CENSUS_TABLE = "a3724cc0b974b78c543ee1cf2c9dc450b713b329597c8c12c3a6cfcf5abe680a"
# Zoom-12 tiles (x from, x to, y from, y to; the last not included) that the census areas of each region come from.
CENSUS_TILES = {
    "kanto": (3628, 3652, 1592, 1624),
    "kansai": (3584, 3597, 1618, 1634),
    "nagoya": (3603, 3610, 1616, 1624),
    "fukuoka": (3529, 3536, 1638, 1645),
    "sapporo": (3653, 3660, 1501, 1507),
    "hiroshima": (3552, 3558, 1627, 1634),
}
_COLUMNS = ("KEN_NAME", "GST_NAME", "CSS_NAME", "MOJI", "JINKO", "SETAI", "AREA", "X_CODE", "Y_CODE")
DIGEST_COLUMNS = ("KEY_CODE", "JINKO", "SETAI", "AREA", "X_CODE", "Y_CODE", "region")
_SIMPLIFY_DEGREES = 4e-5  # about 4 m
MAP_FILE, PRICE_FILE, CENSUS_FILE = "osm-japan/{}.mbtiles", "mlit/L01-2013.zip", "population-estat-2015.parquet"
_FIELDS = {
    "transportation": ("class", "brunnel", "oneway#", "ramp#"), "building": (), "landuse": ("class",),
    "landcover": ("class", "subclass"), "water": ("class",), "waterway": ("class", "name"), "park": ("class",),
    "aeroway": ("class",), "boundary": ("admin_level#",), "place": ("class", "name"),
    "transportation_name": ("class", "name"),
}  # fmt: skip
FILES = (*(MAP_FILE.format(name) for name in TILE_FILES), PRICE_FILE, CENSUS_FILE)


def build_files(*, clones: Path | None = None, progress: bool = True) -> list[Path]:
    """Make what is missing of `FILES` below `SELM_DATA`; returns all of them.

    `clones` is a folder of local git clones, ``OWNER+NAME`` or ``NAME`` each, used instead of downloads. Raises
    InputError where a source cannot be had or what is made differs from what the reference runs used; then nothing of
    that file is left. Archives (about 450 MB) are kept below ``SELM_DATA/archives`` until everything is made.
    """
    root = paths.sources()
    missing = [name for name in TILE_FILES if not (root / MAP_FILE.format(name)).exists()]
    if missing:
        with archive_members(MAP, clones, progress) as members:
            pack_tiles(members, missing, root, progress=progress)
    prices = root / PRICE_FILE
    if not prices.exists():
        _fetch_prices(prices, clones, progress)
    areas = root / CENSUS_FILE
    if not areas.exists():
        with archive_members(CENSUS, clones, progress) as members:
            pack_areas(members, areas, progress=progress)
    for repository in (MAP, CENSUS):
        _archive_file(repository).unlink(missing_ok=True)
    return [root / name for name in FILES]


# Repositories


def _clone(repository: Repository, clones: Path) -> Path:
    owner_name = repository.name.replace("/", "+")
    for name in (owner_name, repository.name.split("/")[1]):
        for path in (clones / name / "repo", clones / name, clones / f"{name}.git"):
            if (path / "HEAD").exists() or (path / ".git").exists():
                return path
    raise InputError(f"{clones}: no clone of {repository.name} here (expected a folder {owner_name})")


def _archive_file(repository: Repository) -> Path:
    return paths.sources() / "archives" / f"{repository.name.replace('/', '+')}-{repository.commit[:12]}.tar.gz"


@contextmanager
def archive_members(
    repository: Repository, clones: Path | None, progress: bool
) -> Iterator[Iterator[tuple[str, bytes]]]:
    """The files of a repository at its commit, as (path, content) in the order of their paths."""
    if clones is not None:
        command = ["git", "-C", str(_clone(repository, clones)), "archive", "--format=tar", repository.commit]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as git:
            assert git.stdout and git.stderr
            try:
                with tarfile.open(fileobj=git.stdout, mode="r|") as tar:
                    yield _members(tar, 0)
            except tarfile.TarError:
                reason = git.stderr.read().decode(errors="replace").strip().splitlines() or ["unknown"]
                raise InputError(f"{repository.name}: git has no commit {repository.commit} ({reason[-1]})") from None
            finally:
                git.stdout.close()  # git ends with the reader
        return
    file = download(repository.archive, _archive_file(repository), progress=progress)
    try:
        with tarfile.open(file, mode="r|gz") as tar:
            yield _members(tar, 1)  # GitHub puts everything into a folder of its own
    except (tarfile.TarError, EOFError, OSError) as error:
        file.unlink(missing_ok=True)
        raise InputError(f"{file}: not a whole archive ({error}); it was deleted, fetch again") from None


def _members(tar: tarfile.TarFile, folders: int) -> Iterator[tuple[str, bytes]]:
    for member in tar:
        if member.isfile() and (stream := tar.extractfile(member)) is not None:
            yield member.name.split("/", folders)[folders], stream.read()


# Maps


def tile_range(bounds: mercator.BBox) -> tuple[int, int, int, int]:
    """(x from, x to, y from, y to; the last not included) of the tiles that fill `bounds`, whose edges are theirs."""
    west, south, east, north = bounds
    x0, y0 = (round(float(v)) for v in mercator.to_tile(north, west, TILES_ZOOM))
    x1, y1 = (round(float(v)) for v in mercator.to_tile(south, east, TILES_ZOOM))
    return x0, x1, y0, y1


def pack_tiles(members: Iterator[tuple[str, bytes]], names: list[str], root: Path, *, progress: bool = True) -> None:
    """Pack the tiles ``x/y.mvt`` among `members` into the MBTiles called `names`, below `root`.

    Raises InputError, leaving no file, if its tiles are not those of the reference runs.
    """
    ranges = {name: tile_range(TILE_FILES[name].bounds) for name in names}
    tiles: dict[str, list[tuple[int, int, bytes]]] = {name: [] for name in names}
    for path, content in tqdm(members, desc="read the map's tiles", unit="tile", disable=not progress):
        if not path.endswith(".mvt"):
            continue
        x, y = (int(part) for part in path[: -len(".mvt")].split("/"))
        for name, (x0, x1, y0, y1) in ranges.items():
            if x0 <= x < x1 and y0 <= y < y1 and len(content) >= TILE_FILES[name].smallest:
                tiles[name].append((x, 2**TILES_ZOOM - 1 - y, content))  # MBTiles counts rows from the south
    for name in names:
        tile_file, found = TILE_FILES[name], sorted(tiles.pop(name), key=lambda tile: (tile[0], -tile[1]))
        digest = tiles_digest((x, row, content) for x, row, content in found)
        if digest != tile_file.tiles:
            raise InputError(
                f"{name}: the {len(found)} tiles are not those of the reference runs (digest {digest[:12]}, "
                f"expected {tile_file.tiles[:12]})"
            )
        with written(root / MAP_FILE.format(name)) as file:
            _write_mbtiles(file, tile_file, found)


def tiles_digest(tiles: Any) -> str:
    """SHA-256 (hex) over (column, row, content) of tiles, whatever their order; content not compressed."""
    lines = sorted((x, row, hashlib.sha256(content).hexdigest()) for x, row, content in tiles)
    return hashlib.sha256("".join(f"{x}/{row} {sha}\n" for x, row, sha in lines).encode()).hexdigest()


def read_tiles(file: Path) -> Iterator[tuple[int, int, bytes]]:
    """(column, row, content not compressed) of the tiles of an MBTiles file."""
    database = sqlite3.connect(f"file:{file.resolve()}?mode=ro", uri=True)
    try:
        for x, row, data in database.execute("SELECT tile_column, tile_row, tile_data FROM tiles"):
            yield x, row, gzip.decompress(data)
    finally:
        database.close()


def _write_mbtiles(file: Path, tile_file: TileFile, tiles: list[tuple[int, int, bytes]]) -> None:
    """As the reference runs' files were written: with the same SQLite (3.40.1) and zlib the bytes are the same."""
    west, south, east, north = tile_file.bounds
    x0, x1, y0, y1 = tile_range(tile_file.bounds)
    edges = mercator.from_tile([x0, x1], [y0, y1], TILES_ZOOM)
    centre = [f"{(a + b) / 2:.6f}" for a, b in edges]  # latitude, longitude
    kinds = {"#": "Number"}
    layers = [
        {"id": layer, "minzoom": TILES_ZOOM, "maxzoom": TILES_ZOOM,
         "fields": {field.rstrip("#"): kinds.get(field[-1], "String") for field in fields}}
        for layer, fields in _FIELDS.items()
    ]  # fmt: skip
    left_out = f"; tiles of under {tile_file.smallest:,} bytes left out" if tile_file.smallest else ""
    metadata = {
        "name": f"OpenStreetMap Japan 2017-10: {tile_file.title}", "format": "pbf", "type": "baselayer", "version": "1",
        "minzoom": str(TILES_ZOOM), "maxzoom": str(TILES_ZOOM),
        "bounds": f"{west:.6f},{south:.6f},{east:.6f},{north:.6f}",
        "center": f"{centre[1]},{centre[0]},{TILES_ZOOM}",
        "attribution": "(c) OpenMapTiles (c) OpenStreetMap contributors",
        "description": f"OpenMapTiles schema, zoom {TILES_ZOOM} only{left_out}",
        "json": json.dumps({"vector_layers": layers}),
    }  # fmt: skip
    database = sqlite3.connect(file)
    try:
        database.executescript(
            "BEGIN;CREATE TABLE metadata(name text,value text);"
            "CREATE TABLE tiles(zoom_level integer,tile_column integer,tile_row integer,tile_data blob);"
            "CREATE UNIQUE INDEX tile_index on tiles(zoom_level,tile_column,tile_row);COMMIT;"
        )
        with database:
            database.executemany("INSERT INTO metadata VALUES (?, ?)", metadata.items())
        with database:
            database.executemany(
                "INSERT INTO tiles VALUES (?, ?, ?, ?)",
                ((TILES_ZOOM, x, row, gzip.compress(content, 9, mtime=0)) for x, row, content in tiles),
            )
        database.execute("VACUUM")
    finally:
        database.close()


# Prices


def _fetch_prices(target: Path, clones: Path | None, progress: bool) -> None:
    from reproduction.data.download import Expected

    if clones is None:
        download(PRICES.raw(PRICES_PATH), target, Expected(sha256=PRICES_SHA256), progress=progress)
        return
    command = ["git", "-C", str(_clone(PRICES, clones)), "show", f"{PRICES.commit}:{PRICES_PATH}"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode or hashlib.sha256(done.stdout).hexdigest() != PRICES_SHA256:
        raise InputError(f"{clones}: {PRICES_PATH} of {PRICES.name} at {PRICES.commit} is not there or differs")
    with written(target) as file:
        file.write_bytes(done.stdout)


# Census areas


def pack_areas(members: Iterator[tuple[str, bytes]], target: Path, *, progress: bool = True) -> None:
    """Make the table of census areas from the vector tiles ``12/x/y.mvt`` among `members`.

    The pieces of an area that several tiles hold are joined by its KEY_CODE, outlines simplified to 4e-5 degrees
    (about 4 m) and rounded to 1e-6. Raises InputError, leaving no file, if keys or numbers are not those of the
    reference runs.
    """
    import geopandas as gpd
    import pandas as pd
    import pyogrio
    import shapely

    parts: dict[str, list[Any]] = {name: [] for name in CENSUS_TILES}
    for path, content in tqdm(members, desc="read the census tiles", unit="tile", disable=not progress):
        if not (path.startswith(f"{AREAS_ZOOM}/") and path.endswith(".mvt")):
            continue
        x, y = (int(part) for part in path[: -len(".mvt")].split("/")[1:])
        for name, (x0, x1, y0, y1) in CENSUS_TILES.items():
            if x0 <= x < x1 and y0 <= y < y1:
                tile = pyogrio.read_dataframe(content, X=str(x), Y=str(y), Z=str(AREAS_ZOOM), CLIP="NO")
                parts[name].append(tile[["KEY_CODE", *_COLUMNS, "geometry"]])
    tables = []
    for name, pieces in tqdm(parts.items(), desc="join the areas", unit="region", disable=not progress):
        if not pieces:
            raise InputError(f"{CENSUS.name}: no tiles of {name} in the archive")
        table = pd.concat(pieces, ignore_index=True).to_crs("EPSG:4326")
        table["geometry"] = shapely.make_valid(table.geometry.to_numpy())
        joined = table.dissolve("KEY_CODE").sort_index().reset_index()
        outlines = shapely.simplify(joined.geometry.to_numpy(), _SIMPLIFY_DEGREES)
        joined["geometry"] = shapely.transform(outlines, lambda corners: np.round(corners, 6))
        for column in ("KEN_NAME", "GST_NAME", "CSS_NAME", "MOJI"):
            joined[column] = joined[column].fillna("")
        tables.append(joined[["KEY_CODE", "geometry", *_COLUMNS]].assign(region=name))
    areas = pd.concat(tables, ignore_index=True).astype({"JINKO": "int64", "SETAI": "int64"})
    digest = areas_digest(areas)
    if digest != CENSUS_TABLE:
        raise InputError(
            f"{CENSUS.name}: the {len(areas)} census areas are not those of the reference runs (digest {digest[:12]}, "
            f"expected {CENSUS_TABLE[:12]})"
        )
    with written(target) as file:
        gpd.GeoDataFrame(areas, crs="EPSG:4326").set_crs("EPSG:6668", allow_override=True).to_parquet(file)


def areas_digest(areas: pd.DataFrame) -> str:
    """SHA-256 (hex) over the keys and numbers of a table of census areas, in its order; outlines are not part of it."""
    text = areas[list(DIGEST_COLUMNS)].to_csv(index=False, lineterminator="\n", float_format="%.6f")
    return hashlib.sha256(text.encode()).hexdigest()

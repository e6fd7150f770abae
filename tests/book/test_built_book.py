"""The built pages load nothing from the network.

`make test` builds the book strictly before the tests and names the result in `SELM_BOOK`; alone, this file builds it.
"""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reproduction import notebooks, paths

ROOT = paths.repository()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if "SELM_BOOK" in os.environ:
        return ROOT / os.environ["SELM_BOOK"]
    pytest.importorskip("jupyter_book")
    out = tmp_path_factory.mktemp("built")
    jupyter_book = str(Path(sys.executable).with_name("jupyter-book"))
    command = [jupyter_book, "build", "--quiet", "--all", "-n", "-W", "--keep-going", "book"]
    done = subprocess.run([*command, "--path-output", str(out)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out / "_build" / "html"


def loads(text: str) -> list[str]:
    """What a browser would fetch from elsewhere when it opens the page: not links, which a reader may follow."""
    address = r"[\"']?((?:https?:)?//[^\"' >)]+)"
    found = re.findall(r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\ssrc=" + address, text)
    found += re.findall(r"<link\b[^>]*\shref=" + address, text)
    found += re.findall(r"(?:url\(|@import\s)" + address, text)
    return found + re.findall(r"https?://(?:[\w.-]*\.)?(?:unpkg|jsdelivr|cdnjs|googleapis|gstatic)\.[^\"' ]+", text)


def test_every_page_is_there(pages: Path) -> None:
    for name in notebooks.chapters(ROOT / "_toc.yml"):
        assert (pages / f"{name}.html").exists(), name


def test_no_page_loads_anything_from_the_network(pages: Path) -> None:
    files = [*pages.glob("*.html"), *(pages / "_static").rglob("*.css")]
    assert len(files) > 8
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert loads(text) == [], path.name
        for inside in re.findall(r'srcdoc="([^"]*)"', text):
            assert loads(html.unescape(inside)) == [], f"{path.name}, in a frame"


def test_every_page_says_whose_maps_prices_and_census_it_shows(pages: Path) -> None:
    for name in notebooks.chapters(ROOT / "_toc.yml"):
        text = html.unescape((pages / f"{name}.html").read_text(encoding="utf-8"))
        for owner in ("© OpenStreetMap contributors", "© OpenMapTiles", "国土交通省 国土数値情報", "e-Stat"):
            assert owner in text, f"{name}: {owner}"


def test_files_that_pages_name_exist(pages: Path) -> None:
    for path in pages.glob("*.html"):
        for name in re.findall(r"<(?:script|img)\b[^>]*\ssrc=\"([^\"#?:]+)", path.read_text(encoding="utf-8")):
            assert (pages / name).exists(), f"{path.name}: {name}"


def test_mathjax_is_on_board_with_its_fonts(pages: Path) -> None:
    assert 'src="_static/mathjax/tex-chtml-full.js' in (pages / "method.html").read_text(encoding="utf-8")
    assert len(list((pages / "_static/mathjax/output/chtml/fonts/woff-v2").glob("*.woff"))) > 15


def test_no_page_shows_a_folder_of_this_machine(pages: Path) -> None:
    for path in pages.glob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert str(ROOT) not in text and str(Path.home()) + "/" not in text, path.name

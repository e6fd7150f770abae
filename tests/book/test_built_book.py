"""The built pages load nothing from the network, and every picture in them has a text in its place."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import numpy as np
from sphinx.search.en import SearchEnglish

from reproduction import notebooks, paths

ROOT = paths.repository()


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
        for name in re.findall(r"<(?:script|img)\b[^>]*\ssrc=\"(?!data:)([^\"#?:]+)", path.read_text(encoding="utf-8")):
            assert (pages / name).exists(), f"{path.name}: {name}"


def test_mathjax_is_on_board_with_its_fonts(pages: Path) -> None:
    assert 'src="_static/mathjax/tex-chtml-full.js' in (pages / "method.html").read_text(encoding="utf-8")
    assert len(list((pages / "_static/mathjax/output/chtml/fonts/woff-v2").glob("*.woff"))) > 15


def test_no_page_shows_a_folder_of_this_machine(pages: Path) -> None:
    for path in pages.glob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert str(ROOT) not in text and str(Path.home()) + "/" not in text, path.name


def test_every_picture_has_a_text_in_its_place(pages: Path) -> None:
    """No image without words for those who do not see it; the name of its file is none."""
    for path in pages.glob("*.html"):
        for image in re.findall(r"<img\b[^>]*>", path.read_text(encoding="utf-8")):
            said = re.search(r'\salt="([^"]*)"', image)
            assert said and said[1].strip() and not said[1].endswith((".png", ".svg")), f"{path.name}: {image[:80]}"


def test_every_picture_of_ours_has_a_caption(pages: Path) -> None:
    for name in notebooks.chapters(ROOT / "_toc.yml"):
        text = (pages / f"{name}.html").read_text(encoding="utf-8")
        for figure in re.findall(r"<figure\b.*?</figure>", text, flags=re.S):
            caption = re.search(r"<figcaption>(.*?)</figcaption>", figure, flags=re.S)
            assert caption and len(re.sub(r"<[^>]+>", "", caption[1]).strip()) > 10, f"{name}: {figure[:80]}"


def test_search_finds_what_tables_and_folded_parts_say(pages: Path) -> None:
    """Words of our tables, folded ones too, lead to their page in the index that the book's search reads."""
    text = (pages / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text[text.index("{") : text.rindex("}") + 1])
    stem = SearchEnglish({}).stem
    for name in ("what-it-knows", "findings", "more-context"):
        number = index["docnames"].index(name)
        page = (pages / f"{name}.html").read_text(encoding="utf-8")
        folds = re.findall(r'<details class="selm-fold.*?</details>', page, flags=re.S)
        cells = re.findall(r"<td[^>]*>(.*?)</td>", "".join(folds), flags=re.S)
        words = set(re.findall(r"\b[a-z]{5,}\b", re.sub(r"<[^>]+>", " ", " ".join(cells)).lower()))
        words = {word for word in words if word not in SearchEnglish({}).stopwords}
        known = {word: [index[part].get(stem(word), []) for part in ("terms", "titleterms")] for word in words}
        lost = [word for word, where in known.items() if number not in np.hstack(where).tolist()]
        assert len(words) > 10 and not lost, f"{name}: {lost}"


def test_a_page_is_light(pages: Path) -> None:
    for name in notebooks.chapters(ROOT / "_toc.yml"):
        text = (pages / f"{name}.html").read_text(encoding="utf-8")
        beside = set(re.findall(r'<img\b[^>]*\ssrc="([^"#?:]+)"', text))
        weight = len(text.encode()) + sum((pages / file).stat().st_size for file in beside)
        assert weight < 1.5 * 2**20, f"{name}: {weight / 2**20:.2f} MB"

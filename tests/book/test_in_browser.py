"""The built pages as a reader has them, in headless Chromium: nothing is wider than the page, no request leaves it,
maps and clouds answer to a click, and words can be read on dark pages too.

Skipped, with one line, where Playwright or a Chromium is missing.
"""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reproduction import notebooks, paths

PAGES = notebooks.chapters(paths.repository() / "_toc.yml")
# What sticks out of the page to the right, and is not inside something that scrolls.
WIDER = """() => [...document.querySelectorAll("body *")].filter((one) => {
  const box = one.getBoundingClientRect();
  if (!box.width || box.right <= document.documentElement.clientWidth + 1) return false;
  for (let up = one; up; up = up.parentElement) {
    const style = getComputedStyle(up);
    if (style.position === "fixed" || style.visibility === "hidden") return false;
    if (up !== one && /auto|scroll|hidden|clip/.test(style.overflowX) && up !== document.body) return false;
  }
  return true;
}).map((one) => one.tagName + "." + one.className)"""
# The least contrast (WCAG) of our words with what is behind them.
CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((c) => c / 255).map((c) => c <= 0.03928 ? c / 12.92
    : ((c + 0.055) / 1.055) ** 2.4).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (one) => {
    for (let up = one; up; up = up.parentElement) {
      const colour = parse(getComputedStyle(up).backgroundColor);
      if (colour.length < 4 || colour[3] > 0.5) return colour;
    }
    return [255, 255, 255];
  };
  const worst = {};
  const ours = "table.selm td, table.selm th, .selm-tag, .selm-answer, .selm-foot, figcaption, .selm-fold > summary, p";
  for (const one of document.querySelectorAll(ours)) {
    if (!one.textContent.trim() || !one.getBoundingClientRect().width) continue;
    const [a, b] = [light(parse(getComputedStyle(one).color)), light(behind(one))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) worst[one.tagName + "." + one.className] = ratio;
  }
  return worst;
}"""


# Our tables that do not fit, but for folded ones.
SCROLLING = """() => [...document.querySelectorAll(".selm-scroll")]
  .filter((one) => !one.closest("details") && one.scrollWidth > one.clientWidth + 1)
  .map((one) => one.textContent.trim().slice(0, 40))"""
# Pictures with a pale frame around their paper.
FRAMED = """() => [...document.querySelectorAll(".bd-article figure img")]
  .filter((one) => parseFloat(getComputedStyle(one).paddingTop) > 0).map((one) => one.alt)"""
# Formulas whose left end cannot be reached: they begin left of what they scroll in.
CUT = """() => [...document.querySelectorAll(".bd-article div.math")].filter((one) => {
  const inside = one.querySelector("mjx-container");
  return inside && inside.getBoundingClientRect().left + one.scrollLeft < one.getBoundingClientRect().left - 1;
}).map((one) => one.textContent.slice(0, 40))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed (pip install playwright)"
    )
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with playwright.sync_playwright() as started:
        try:
            opened = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        except playwright.Error:
            pytest.skip("no Chromium is installed (playwright install chromium, or apt install chromium)")
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def address(pages: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(pages)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def opened(browser: Any, address: str, name: str) -> tuple[Any, list[str]]:
    """A page with all its folds open, and what it has asked for."""
    page = browser.new_page(viewport={"width": 1000, "height": 900}, color_scheme="light")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}/{name}.html", wait_until="load")
    page.evaluate("() => document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    return page, asked


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_asks_nothing_of_others_and_can_be_read(browser: Any, address: str, name: str) -> None:
    page, asked = opened(browser, address, name)
    for scheme in ("light", "dark"):
        page.evaluate(f"() => {{ document.documentElement.dataset.theme = '{scheme}'; }}")
        assert page.evaluate(CONTRAST) == {}, f"{name}, {scheme}: contrast below 4.5"
        assert page.evaluate(FRAMED) == [], f"{name}, {scheme}: pictures in a pale frame"
    for width in (1000, 390):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate(WIDER) == [], f"{name}, {width} px"
        assert width < 1000 or page.evaluate(SCROLLING) == [], f"{name}, {width} px: tables that have to be scrolled"
        assert page.evaluate(CUT) == [], f"{name}, {width} px: formulas cut at their left"
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width, f"{name}, {width} px"
    outside = [url for url in asked if not url.startswith((address, "data:", "blob:", "about:"))]
    assert outside == [], name
    page.close()


def test_a_place_on_the_map_shows_its_image_at_a_click(browser: Any, address: str) -> None:
    page, _ = opened(browser, address, "maps")
    frame = page.frame_locator("iframe[title=map]")
    place = frame.locator("path.leaflet-interactive").first
    place.scroll_into_view_if_needed()
    place.dispatch_event("click")
    assert "bits" in frame.locator(".leaflet-popup-content").inner_text(timeout=5000)
    page.close()


def test_the_cloud_turns_and_hides_a_class_at_a_click(browser: Any, address: str) -> None:
    page, _ = opened(browser, address, "figure2-tsne")
    cloud = page.locator(".selm-cloud").first
    cloud.scroll_into_view_if_needed()
    picture = "(one) => one.querySelector('canvas').toDataURL()"
    page.wait_for_timeout(300)
    before = cloud.evaluate(picture)
    cloud.locator(".legend span").first.click()
    page.wait_for_timeout(300)
    without = cloud.evaluate(picture)
    assert without != before and cloud.locator(".legend .off").count() == 1
    box = cloud.locator("canvas").bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 320, box["y"] + 240)
    page.mouse.up()
    page.wait_for_timeout(300)
    assert cloud.evaluate(picture) != without
    page.close()


def test_formulas_are_set_before_a_reader_reaches_them(browser: Any, address: str) -> None:
    """MathJax sets what is near the window, the rest as the reader comes near it."""
    page, _ = opened(browser, address, "method")
    page.wait_for_function("() => window.MathJax && MathJax.startup && MathJax.startup.promise")
    page.evaluate("() => MathJax.startup.promise")
    last = page.locator("div.math").last
    last.scroll_into_view_if_needed()
    page.wait_for_function(
        "() => [...document.querySelectorAll('div.math')].at(-1).querySelector('mjx-math mjx-mo')", timeout=5000
    )
    page.close()

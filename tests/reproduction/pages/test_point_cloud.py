"""The cloud to turn: what is sent to the page is what was given, and the page asks nothing of the network."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from reproduction.pages import point_cloud
from reproduction.pages.html import Html
from selm.errors import InputError


def made(n: int = 50) -> tuple[np.ndarray, dict[str, point_cloud.Colouring], Html]:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(n, 3)) * [1, 5, 2] + 100
    codes = rng.integers(-1, 3, n)
    colourings = {
        "kind": point_cloud.classes(codes, ["wood", "</script>", "water"]),
        "price": point_cloud.levels(np.where(codes < 0, np.nan, np.arange(n)), "yen", 4),
    }
    clouds = {"DINO": points, "other": points * 2}
    return points, colourings, point_cloud.cloud(clouds, colourings, [f"p{i}" for i in range(n)])


def sent(cloud: Html) -> dict:
    text = re.search(r"data = (\{.*?\});\n", cloud.text, re.S)
    assert text is not None
    return json.loads(text.group(1).replace("<\\/", "</"))


def test_points_and_codes_arrive() -> None:
    points, colourings, cloud = made()
    data = sent(cloud)
    got = np.frombuffer(base64.b64decode(data["clouds"]["DINO"]), "<i2").reshape(-1, 3).astype(float)
    for axis in range(3):  # centred and scaled by one factor: the shape is kept
        slope = np.polyfit(points[:, axis], got[:, axis], 1)
        np.testing.assert_allclose(np.polyval(slope, points[:, axis]), got[:, axis], atol=300)
    extents = np.ptp(got, axis=0) / np.ptp(points, axis=0)
    np.testing.assert_allclose(extents, extents[0], rtol=0.15)
    codes = np.frombuffer(base64.b64decode(data["colours"]["kind"]["codes"]), np.int8)
    np.testing.assert_array_equal(codes, colourings["kind"].codes)
    assert data["colours"]["kind"]["names"] == ["wood", "</script>", "water"]
    assert len(data["hover"]) == 50 and data["clouds"]["DINO"] != ""


def test_only_classes_that_occur_are_listed() -> None:
    few = point_cloud.classes([2, 2, -1, 5], ["a", "b", "c", "d", "e", "f"])
    assert list(few.names) == ["c", "f"] and few.codes.tolist() == [0, 0, -1, 1]
    assert len(set(few.colours)) == 2
    empty = point_cloud.levels([np.nan, np.nan], "yen")
    assert list(empty.names) == [] and empty.codes.tolist() == [-1, -1]


def test_the_page_asks_nothing_of_the_network_and_closes_its_script_once() -> None:
    _, _, cloud = made()
    assert not re.search(r"https?:|@import|url\(|\ssrc=", cloud.text)
    assert cloud.text.count("</script>") == 1
    assert cloud.text == made()[2].text  # the same points are the same page
    assert all(word not in cloud.text for word in ("KEY", "MENUS", "UNKNOWN"))


def test_the_script_is_javascript(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not here to read the script")
    script = re.search(r"<script>(.*)</script>", made()[2].text, re.S)
    assert script is not None
    (tmp_path / "cloud.js").write_text(STAGE + script.group(1) + "\nif (drawn < 40) throw new Error(`drawn ${drawn}`);")
    done = subprocess.run([node, str(tmp_path / "cloud.js")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


STAGE = """
let drawn = 0;
const pen = new Proxy({}, {get: (_, name) => name === "arc" ? () => { drawn += 1; } : () => {}, set: () => true});
const element = () => ({
  style: {}, classList: {toggle() {}}, append() {}, replaceChildren() {}, addEventListener() {}, value: "",
  clientWidth: 600, clientHeight: 400, offsetWidth: 10, offsetTop: 0, getContext: () => pen,
});
const menus = {cloud: {...element(), value: "DINO"}, colour: {...element(), value: "kind"}};
const menu = (s) => menus[s.includes("cloud") ? "cloud" : "colour"];
const root = {querySelector: (s) => s.startsWith("select") ? menu(s) : element()};
globalThis.document = {getElementById: () => root, createElement: element};
globalThis.window = {devicePixelRatio: 1};
globalThis.requestAnimationFrame = (f) => f();
globalThis.ResizeObserver = class { observe() {} };
"""


def test_clouds_of_other_places_are_refused() -> None:
    points, colourings, _ = made()
    with pytest.raises(InputError, match="same places"):
        point_cloud.cloud({"a": points, "b": points[:-1]}, colourings)
    with pytest.raises(InputError, match="same places"):
        point_cloud.cloud({"a": points[:, :2]}, colourings)

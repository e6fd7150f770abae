"""A cloud of points that a reader turns in the page: one canvas and a page of JavaScript, nothing from the network."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reproduction.pages.html import Html
from selm.errors import InputError

_RANGE = 32767  # coordinates are sent as 16-bit integers: far finer than a pixel
_LEAST = "#9a9a9a"  # colour of what is not known


@dataclass(frozen=True)
class Colouring:
    """One way to colour N points: `codes` int (N,) into `names`, with one colour each (#rrggbb); -1 is not known."""

    names: Sequence[str]
    colours: Sequence[str]
    codes: NDArray[np.integer[Any]]


def classes(codes: ArrayLike, names: Sequence[str]) -> Colouring:
    """Colours told apart by their class; only the classes that occur are kept."""
    import seaborn as sns

    code = np.asarray(codes)
    present = np.unique(code[code >= 0])
    palette = sns.color_palette("colorblind", 10).as_hex() + sns.color_palette("dark", 10).as_hex()
    renumbered = np.where(code >= 0, np.searchsorted(present, np.maximum(code, 0)), -1)
    colours = [palette[i % len(palette)] for i in range(len(present))]
    return Colouring([names[c] for c in present], colours, renumbered)


def levels(values: ArrayLike, unit: str, bins: int = 5) -> Colouring:
    """Colours from dark to bright by groups of equal number, named by their range."""
    import seaborn as sns

    from reproduction.experiments.neighbour_purity import groups_of_equal_number

    v = np.asarray(values, np.float64)
    code = groups_of_equal_number(v, bins)
    n = int(code.max()) + 1 if len(code) else 0
    names = []
    for group in range(n):
        inside = v[code == group]
        names.append(f"{inside.min():,.0f} – {inside.max():,.0f} {unit}")
    return Colouring(names, sns.color_palette("viridis", max(n, 1)).as_hex()[:n], code)


def cloud(
    points: Mapping[str, ArrayLike],
    colourings: Mapping[str, Colouring],
    hover: Sequence[str] = (),
) -> Html:
    """Points to turn (drag), zoom (wheel) and read (pointer), with a menu of clouds and one of colourings.

    points: name → (N, 3), the same N places in each; axes have no unit and are scaled to a common cube.
    hover: a text a place.  The page works without a network, on light and dark themes, by mouse and by touch; without
        JavaScript it says so. Raises InputError where the numbers of points differ.
    """
    clouds = {name: np.asarray(where, np.float64) for name, where in points.items()}
    counts = {len(where) for where in clouds.values()} | {len(c.codes) for c in colourings.values()}
    if len(counts) != 1 or any(where.shape[1:] != (3,) for where in clouds.values()) or not colourings:
        raise InputError("cloud: clouds (N, 3) and colourings (N,) must be of the same places, one of each at least")
    data = {
        "clouds": {name: _packed(where) for name, where in clouds.items()},
        "colours": {
            name: {
                "names": list(c.names), "colours": list(c.colours),
                "codes": base64.b64encode(np.asarray(c.codes, np.int8).tobytes()).decode(),
            }
            for name, c in colourings.items()
        },
        "hover": list(hover),
    }  # fmt: skip
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    key = "cloud-" + hashlib.sha256(text.encode()).hexdigest()[:10]
    menus = "".join(
        f'<label>{label} <select data-role="{role}">'
        + "".join(f"<option>{html.escape(name)}</option>" for name in names)
        + "</select></label> "
        for label, role, names in (("embedding", "cloud", clouds), ("colour", "colour", colourings))
    )
    page = _PAGE.replace("KEY", key).replace("MENUS", menus)
    return Html(page.replace("UNKNOWN", _LEAST).replace("DATA", text))


def _packed(where: NDArray[np.float64]) -> str:
    """Base64 of little-endian int16: the points, centred and scaled so that 98 % of them fill a cube."""
    centred = where - np.median(where, axis=0)
    extent = float(np.quantile(np.abs(centred), 0.995)) or 1.0
    scaled = np.clip(centred / extent, -1.5, 1.5) / 1.5
    return base64.b64encode(np.rint(scaled * _RANGE).astype("<i2").tobytes()).decode()


_PAGE = """<div id="KEY" class="selm-cloud">
<style>
.selm-cloud {position: relative; margin: 1em 0; font-size: .85em}
.selm-cloud canvas {width: 100%; height: 460px; touch-action: none; cursor: grab; display: block}
.selm-cloud .legend span {white-space: nowrap; margin-right: 1em; cursor: pointer}
.selm-cloud .legend i {display: inline-block; width: .8em; height: .8em; border-radius: 50%; margin-right: .35em}
.selm-cloud .off {opacity: .35}
.selm-cloud .tip {position: absolute; pointer-events: none; padding: .15em .5em; border-radius: .3em; display: none}
.selm-cloud .tip {background: #222; color: #fff; font-size: .9em; white-space: nowrap; z-index: 2}
</style>
<div>MENUS<small>drag to turn, wheel to zoom, click a class to hide it</small></div>
<canvas></canvas><div class="tip"></div><div class="legend"></div>
<noscript>This figure needs JavaScript; the print below shows the same points.</noscript>
<script>
(function () {
  const root = document.getElementById("KEY"), data = DATA;
  const canvas = root.querySelector("canvas"), tip = root.querySelector(".tip"), legend = root.querySelector(".legend");
  const menu = (role) => root.querySelector(`select[data-role="${role}"]`);
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  const clouds = {}, codes = {};
  for (const name in data.clouds) clouds[name] = new Int16Array(bytes(data.clouds[name]));
  for (const name in data.colours) codes[name] = new Int8Array(bytes(data.colours[name].codes));
  let turn = [1, 0, 0, 0, 1, 0, 0, 0, 1], zoom = 1, hidden = new Set(), screen = [], dirty = false;
  const entry = (a, b, i) => [0, 1, 2].reduce((sum, k) => sum + a[3 * (i / 3 | 0) + k] * b[3 * k + i % 3], 0);
  const multiply = (a, b) => a.map((_, i) => entry(a, b, i));
  const about = (axis, angle) => {
    const c = Math.cos(angle), s = Math.sin(angle);
    return axis ? [c, 0, s, 0, 1, 0, -s, 0, c] : [1, 0, 0, 0, c, -s, 0, s, c];
  };
  turn = multiply(about(0, -0.4), about(1, 0.6));
  function draw() {
    dirty = false;
    const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
    if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const xyz = clouds[menu("cloud").value], colour = data.colours[menu("colour").value];
    const code = codes[menu("colour").value], scale = 0.62 * zoom * Math.min(width, height) / 32767;
    screen = [];
    for (let i = 0; i < code.length; i++) {
      if (hidden.has(code[i])) continue;
      const [x, y, z] = [xyz[3 * i], xyz[3 * i + 1], xyz[3 * i + 2]];
      const a = turn[0] * x + turn[1] * y + turn[2] * z, b = turn[3] * x + turn[4] * y + turn[5] * z;
      const c = (turn[6] * x + turn[7] * y + turn[8] * z) / 32767;
      const near = 2.6 / (2.6 - 0.8 * c);
      screen.push([width / 2 + a * scale * near, height / 2 - b * scale * near, c, i, near]);
    }
    screen.sort((p, q) => p[2] - q[2]);
    for (const [x, y, c, i, near] of screen) {
      pen.globalAlpha = code[i] < 0 ? 0.25 : Math.max(0.3, Math.min(1, 0.75 + 0.35 * c));
      pen.fillStyle = code[i] < 0 ? "UNKNOWN" : colour.colours[code[i]];
      pen.beginPath();
      pen.arc(x, y, 2.6 * near * Math.sqrt(zoom), 0, 7);
      pen.fill();
    }
  }
  const ask = () => { if (!dirty) { dirty = true; requestAnimationFrame(draw); } };
  function describe() {
    const colour = data.colours[menu("colour").value], code = codes[menu("colour").value];
    const count = {};
    for (const c of code) count[c] = (count[c] || 0) + 1;
    legend.replaceChildren();
    const entries = colour.names.map((name, c) => [c, name, colour.colours[c]]);
    if (count[-1]) entries.push([-1, "not known", "UNKNOWN"]);
    for (const [c, name, ink] of entries) {
      const item = document.createElement("span"), dot = document.createElement("i");
      dot.style.background = ink;
      item.append(dot, `${name} (${count[c] || 0})`);
      item.onclick = () => {
        if (hidden.has(c)) hidden.delete(c); else hidden.add(c);
        item.classList.toggle("off", hidden.has(c));
        ask();
      };
      legend.append(item);
    }
  }
  menu("cloud").onchange = ask;
  menu("colour").onchange = () => { hidden = new Set(); describe(); ask(); };
  const held = new Map();
  canvas.onpointerdown = (e) => {
    canvas.setPointerCapture(e.pointerId);
    held.set(e.pointerId, [e.clientX, e.clientY]);
  };
  canvas.onpointerup = canvas.onpointercancel = (e) => held.delete(e.pointerId);
  canvas.onpointermove = (e) => {
    const before = held.get(e.pointerId), box = canvas.getBoundingClientRect();
    if (before) {
      if (held.size === 1) {
        const [right, down] = [(e.clientX - before[0]) / 150, (e.clientY - before[1]) / 150];
        turn = multiply(multiply(about(1, right), about(0, down)), turn);
      } else {
        const other = [...held].find(([id]) => id !== e.pointerId)[1];
        const far = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]);
        zoom = Math.max(0.4, Math.min(12, zoom * far([e.clientX, e.clientY]) / Math.max(far(before), 1)));
      }
      held.set(e.pointerId, [e.clientX, e.clientY]);
      tip.style.display = "none";
      return ask();
    }
    const x = e.clientX - box.left, y = e.clientY - box.top;
    let best = null, least = 64;
    for (const p of screen) {
      const d = (p[0] - x) ** 2 + (p[1] - y) ** 2;
      if (d <= least) { least = d; best = p; }
    }
    if (!best || !data.hover.length) { tip.style.display = "none"; return; }
    tip.textContent = data.hover[best[3]];
    tip.style.display = "block";
    tip.style.left = `${Math.min(x + 12, box.width - tip.offsetWidth)}px`;
    tip.style.top = `${y + canvas.offsetTop + 12}px`;
  };
  canvas.onpointerleave = () => { tip.style.display = "none"; };
  canvas.addEventListener("wheel", (e) => {
    e.preventDefault();
    zoom = Math.max(0.4, Math.min(12, zoom * Math.exp(-e.deltaY / 500)));
    ask();
  }, {passive: false});
  new ResizeObserver(ask).observe(canvas);
  describe();
  ask();
})();
</script>
</div>"""

"""A map style: Mapnik XML, and its fixed palette of 256 colours.

A map style uses a few dozen flat colours; antialiasing adds blends of two of them along edges. The palette is a pure
function of the style's colours: the background is index 0, the flat colours follow in the style's order, and the rest
stands for all blends of pairs as well as it can (measured on Tokyo at zoom 17: off by 0.3 of 255 on average).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from selm.errors import InputError, first_line
from selm.maps.sources import MapSource

DRAWING = 1  # raised when the same style and data give other pixels
STYLES = Path(__file__).parent / "styles"

# Classes of the style `land_cover`, whose palette index is the class (none: nothing is drawn; water includes the sea).
LAND_COVER_CLASSES: tuple[str, ...] = (
    "none", "built_up", "residential", "commercial", "industrial", "farmland", "grass", "wood", "park", "wetland",
    "sand", "water", "transport",
)  # fmt: skip

_BITS = 6  # a channel in the lookup table: 2^18 entries, small enough to stay in the processor's cache


@dataclass(frozen=True)
class Style:
    """A map style: Mapnik XML whose datasources name only a layer of the OpenMapTiles schema."""

    name: str
    xml: str

    @classmethod
    def named(cls, name: str | Path) -> Style:
        """One of `selm/maps/styles`, or any file ending in .xml; InputError if there is none or it is not XML."""
        file = Path(name) if str(name).endswith(".xml") else STYLES / f"{name}.xml"
        try:
            return _read(file, file.stat().st_mtime_ns)
        except FileNotFoundError:
            known = ", ".join(sorted(f.stem for f in STYLES.glob("*.xml")))
            raise InputError(f"no map style '{name}' (there are: {known}, or a path to an .xml file)") from None
        except (ElementTree.ParseError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: not a readable Mapnik style ({error})") from None

    @cached_property
    def tree(self) -> ElementTree.Element:
        return ElementTree.fromstring(self.xml)

    @cached_property
    def hash(self) -> str:
        """sha256 of everything in the style but comments and white space."""
        content = ElementTree.canonicalize(self.xml, strip_text=True)
        return hashlib.sha256(f"{DRAWING}\n{content}".encode()).hexdigest()

    @cached_property
    def palette(self) -> NDArray[np.uint8]:
        """uint8 (256, 3), see the module; flat colours alone where nothing is antialiased."""
        gammas = [(s.get("gamma-method"), s.get("stroke-gamma-method")) for s in self._symbolizers()]
        return make_palette(self.colours, any("threshold" not in gamma for gamma in gammas))

    @cached_property
    def colours(self) -> list[tuple[int, int, int]]:
        """The flat colours, each once: the background, then in the style's order."""
        drawn = (_rgb(s.get("fill") or s.get("stroke") or "#000000") for s in self._symbolizers())
        return list(dict.fromkeys([_rgb(self.tree.get("background-color", "#ffffff")), *drawn]))

    @cached_property
    def mixtures(self) -> NDArray[np.float32]:
        """float32 (256, number of flat colours): each palette colour as shares of the two flat colours, in eighths,
        that come nearest to it."""
        flat = np.array(self.colours, np.float32)
        first, second = np.triu_indices(len(flat))  # also each with itself
        share = np.arange(9, dtype=np.float32)[:, None] / 8
        mixes = (flat[first] * (1 - share[..., None]) + flat[second] * share[..., None]).reshape(-1, 3)  # 9 of a pair
        nearest = np.array([((mixes - colour) ** 2).sum(1).argmin() for colour in self.palette.astype(np.float32)])
        eighth, pair = np.divmod(nearest, len(first))
        alone = np.eye(len(flat), dtype=np.float32)
        return (alone[first[pair]] * (1 - share[eighth]) + alone[second[pair]] * share[eighth]).astype(np.float32)

    def codes(self, n: int) -> NDArray[np.float32]:
        """float32 (256, n): in place of RGB, what a palette colour stands for. Each flat colour has n numbers, drawn at
        random with a mean square of 1 and then centred; a blend has the same blend of its two flat colours' numbers.

        Flat colours that are alike to the eye, as two kinds of land often are, are as far apart as any others.
        """
        flat = np.random.default_rng(0).standard_normal((self.mixtures.shape[1], n))
        flat *= np.sqrt(n) / np.linalg.norm(flat, axis=1, keepdims=True)
        return (self.mixtures @ (flat - flat.mean(axis=0))).astype(np.float32)

    def _symbolizers(self) -> list[ElementTree.Element]:
        return [s for s in self.tree.iter() if s.tag in ("PolygonSymbolizer", "LineSymbolizer")]

    @cached_property
    def table(self) -> NDArray[np.uint8]:
        """`lookup` of the palette."""
        return lookup(self.palette)

    def map_for(self, source: MapSource, size: int) -> Any:
        """A mapnik.Map of `size` pixels with the source's layers; layers that the source lacks are left out."""
        import mapnik

        root = ElementTree.fromstring(self.xml)
        for layer in list(root.iter("Layer")):
            datasource = layer.find("Datasource")
            name = next((p.text for p in layer.iter("Parameter") if p.get("name") == "layer"), None)
            if datasource is None or name not in source.layers:
                root.remove(layer)
                continue
            for child in list(datasource):
                datasource.remove(child)
            for key, value in source.layers[name].items():
                ElementTree.SubElement(datasource, "Parameter", name=key).text = value
        canvas = mapnik.Map(size, size)
        try:
            mapnik.load_map_from_string(canvas, ElementTree.tostring(root, encoding="unicode"), True)  # strict
        except RuntimeError as error:
            raise InputError(f"style {self.name} cannot be loaded with {source.name}: {first_line(error)}") from None
        return canvas


@lru_cache(maxsize=16)
def _read(file: Path, changed_ns: int) -> Style:
    """The style in a file as it was at a time; asked for often, for its hash is part of every result's address."""
    root = ElementTree.fromstring(file.read_text(encoding="utf-8"))
    if "base" in root.attrib:  # another style without some of its layers
        without = set(root.get("without", "").split())
        root = ElementTree.fromstring(file.with_name(root.attrib["base"]).read_text(encoding="utf-8"))
        for layer in [layer for layer in root.iter("Layer") if layer.get("name") in without]:
            root.remove(layer)
            without.discard(layer.get("name", ""))
        if without:
            raise InputError(f"{file}: its base has no layer '{min(without)}' to leave out")
    return Style(file.stem, ElementTree.tostring(root, encoding="unicode"))


def _rgb(colour: str) -> tuple[int, int, int]:
    if not re.fullmatch("#[0-9a-fA-F]{6}", colour):
        raise InputError(f"map style: colours are written #rrggbb, not '{colour}'")
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def make_palette(colours: Sequence[tuple[int, int, int]], blends: bool = True) -> NDArray[np.uint8]:
    """uint8 (256, 3): `colours` in their order (the background first), then blends of pairs.

    Without `blends` (styles drawn without antialiasing) the remaining entries repeat the background.
    """
    base = list(dict.fromkeys(tuple(map(int, colour)) for colour in colours))
    if len(base) > 256:
        raise InputError(f"a palette holds 256 colours, the style uses {len(base)}")
    out = np.tile(np.array(base[0], np.int64), (256, 1))
    out[: len(base)] = base
    if not blends or len(base) == 1:
        return out.astype(np.uint8)
    flat = np.array(base, np.int64)
    first, second = np.triu_indices(len(base), 1)
    mixes = [(flat[first] * (8 - k) + flat[second] * k + 4) // 8 for k in range(1, 8)]
    candidates = np.unique(np.concatenate(mixes), axis=0)
    distance = ((candidates[:, None] - flat[None]) ** 2).sum(-1).min(1)
    for index in range(len(base), 256):
        best = int(distance.argmax())  # the first of equals: `candidates` is sorted, so the choice is deterministic
        if distance[best] == 0:
            break
        out[index] = candidates[best]  # at first the one furthest from all chosen so far
        distance = np.minimum(distance, ((candidates - candidates[best]) ** 2).sum(-1))
    # k-means from there, the flat colours held fixed; in integers, so that every machine finds the same palette.
    every = np.concatenate(mixes)
    doubled = 2 * every.astype(np.float32)
    for _ in range(12):
        centres = out.astype(np.float32)  # whole numbers below 2^24: exact
        nearest = ((centres**2).sum(1) - doubled @ centres.T).argmin(1)
        counts = np.bincount(nearest, minlength=256)
        sums = np.stack([np.bincount(nearest, every[:, i], 256) for i in range(3)], 1).astype(np.int64)
        moved = counts > 0
        moved[: len(base)] = False
        out[moved] = sums[moved] // counts[moved, None]
    return out.astype(np.uint8)


def lookup(palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (2^18,) nearest palette index for every colour at 6 bits a channel, addressed r | g << 6 | b << 12.

    The palette's own colours map to themselves as long as they differ in their upper 6 bits.
    """
    levels = np.arange(2**_BITS, dtype=np.float32) * 4 + 1.5  # centres of the cells
    b, g, r = np.meshgrid(levels, levels, levels, indexing="ij")
    cells = np.stack([r.ravel(), g.ravel(), b.ravel()], 1)
    colours, index = np.unique(palette, axis=0, return_index=True)  # repeated colours: their first index
    order = np.argsort(index)
    colours, index = colours[order].astype(np.float32), index[order].astype(np.uint8)
    norms = (colours**2).sum(1)
    out = np.empty(len(cells), np.uint8)
    for start in range(0, len(cells), 512):  # few enough to stay in the cache
        chunk = cells[start : start + 512]
        out[start : start + 512] = index[(norms - 2 * chunk @ colours.T).argmin(1)]
    for i, colour in zip(index[::-1], colours[::-1].astype(np.int64), strict=True):
        out[(colour[0] >> 2) | (colour[1] >> 2) << 6 | (colour[2] >> 2) << 12] = i
    return out


def to_indices(rgba: NDArray[np.uint8], table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (h, w) palette indices of opaque uint8 (h, w, 4) pixels, by a table of `lookup`."""
    pixels = np.ascontiguousarray(rgba).view("<u4")[..., 0]
    out = np.empty(pixels.shape, np.uint8)
    for start in range(0, len(pixels), 32):  # a few rows at a time stay in the cache: three times as fast
        rows = pixels[start : start + 32]
        address = (rows >> 2) & 0x3F
        address |= (rows >> 4) & 0xFC0
        address |= (rows >> 6) & 0x3F000
        np.take(table, address, out=out[start : start + 32], mode="clip")
    return out

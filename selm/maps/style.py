"""A map style: Mapnik XML, its layers and its fixed palette."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from selm.errors import InputError
from selm.maps.palette import make_palette
from selm.maps.sources import MapSource

DRAWING = 1  # raised when the same style and data give other pixels
STYLES = Path(__file__).parent / "styles"


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
            root = ElementTree.fromstring(file.read_text(encoding="utf-8"))
            if "base" in root.attrib:  # another style without some of its layers
                without = set(root.get("without", "").split())
                root = ElementTree.fromstring(file.with_name(root.attrib["base"]).read_text(encoding="utf-8"))
                for layer in [layer for layer in root.iter("Layer") if layer.get("name") in without]:
                    root.remove(layer)
                    without.discard(layer.get("name", ""))
                if without:
                    raise InputError(f"{file}: its base has no layer '{min(without)}' to leave out")
            style = cls(file.stem, ElementTree.tostring(root, encoding="unicode"))
        except FileNotFoundError:
            known = ", ".join(sorted(f.stem for f in STYLES.glob("*.xml")))
            raise InputError(f"no map style '{name}' (there are: {known}, or a path to an .xml file)") from None
        except (ElementTree.ParseError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: not a readable Mapnik style ({error})") from None
        return style

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
        """uint8 (256, 3), see `selm.maps.palette`; flat colours alone where nothing is antialiased."""
        colours = [_rgb(self.tree.get("background-color", "#ffffff"))]
        blends = False
        for symbolizer in self.tree.iter():
            if symbolizer.tag in ("PolygonSymbolizer", "LineSymbolizer"):
                colours.append(_rgb(symbolizer.get("fill") or symbolizer.get("stroke") or "#000000"))
                blends |= "threshold" not in (symbolizer.get("gamma-method"), symbolizer.get("stroke-gamma-method"))
        return make_palette(colours, blends)

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
            reason = str(error).splitlines()[0]
            raise InputError(f"style {self.name} cannot be loaded with {source.name}: {reason}") from None
        return canvas


def _rgb(colour: str) -> tuple[int, int, int]:
    if len(colour) != 7 or colour[0] != "#":
        raise InputError(f"map style: colours are written #rrggbb, not '{colour}'")
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)

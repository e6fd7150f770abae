"""Interactive maps that need no network: a folium map as one HTML document with Leaflet inside it."""

from __future__ import annotations

import base64
import html
import re
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np

from selm.errors import InputError

if TYPE_CHECKING:
    import folium
    from IPython.display import HTML

_FETCHED = re.compile(r"""<script[^>]*\ssrc=["'][^"']*["'][^>]*>\s*</script>|<link[^>]*\shref=["'][^"']*["'][^>]*/?>""")
_LOADED = re.compile(r"""(\ssrc\s*=\s*|url\(\s*|L\.imageOverlay\(\s*)["']?(https?:)?//""")
# folium makes its popups with one call of jQuery, $("<div>…</div>")[0]: this is all of it that a map needs
_ELEMENTS = """function $(text) {
  const holder = document.createElement("template");
  holder.innerHTML = text.trim();
  return holder.content.children;
}"""
_RANDOM_ID = re.compile(r"(?<=_)[0-9a-f]{32}\b")


def image_layer(
    image: np.ndarray, bbox: tuple[float, float, float, float], name: str, attribution: str = ""
) -> folium.raster_layers.ImageOverlay:
    """A drawn image, uint8 (h, w, 3), as a map layer that fills `bbox` (west, south, east, north, degrees).

    The image must be in Web Mercator, as an Atlas's blocks are: the layer stretches it linearly between the corners.
    The map shows `attribution` in its corner.
    """
    import folium

    west, south, east, north = bbox
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(f"image: expected uint8 (h, w, 3), got {image.dtype} {image.shape}")
    corners = [[south, west], [north, east]]
    return folium.raster_layers.ImageOverlay(_png_url(image), bounds=corners, name=name, attribution=attribution)


def picture(image: np.ndarray, px: int) -> str:
    """An image, uint8 (h, w, 3), as an HTML tag `px` pixels wide, for a popup."""
    return f'<img src="{_png_url(image)}" width="{px}" alt="map image">'


def document(figure: folium.Map) -> str:
    """`figure` as one HTML document that loads nothing; its ids are counted, so the same map is the same text.

    Raises InputError when the map asks for tiles or images from a server (create it with ``tiles=None``).
    """
    page = _FETCHED.sub("", figure.get_root().render())
    if "L.tileLayer(" in page or _LOADED.search(page):
        raise InputError("map: it loads from a server; create it with folium.Map(tiles=None) and image_layer(...)")
    ids: dict[str, str] = {}
    page = _RANDOM_ID.sub(lambda found: ids.setdefault(found[0], f"{len(ids):032x}"), page)
    inside = f"<style>{_leaflet_css()}</style>\n<script>{_leaflet_js()}\n{_ELEMENTS}</script>\n"
    return page.replace("<head>", f"<head>\n{inside}", 1)


def show(figure: folium.Map, height: int = 480) -> HTML:
    """`figure` in a notebook, as an iframe that holds the whole document and is `height` pixels high."""
    from IPython.display import HTML

    return HTML(
        f'<div><iframe srcdoc="{html.escape(document(figure), quote=True)}" title="map" width="100%" height="{height}" '
        f'style="border: 1px solid #ccc" loading="lazy"></iframe></div>'
    )


def _png_url(image: np.ndarray) -> str:
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image).quantize(256, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _leaflet(name: str) -> bytes:
    return resources.files("reproduction.pages").joinpath("leaflet", *name.split("/")).read_bytes()


def _leaflet_css() -> str:
    def inline(found: re.Match[str]) -> str:
        return f"url(data:image/png;base64,{base64.b64encode(_leaflet(found[1])).decode()})"

    return re.sub(r"url\((images/[\w-]+\.png)\)", inline, _leaflet("leaflet.css").decode())


def _leaflet_js() -> str:
    return _leaflet("leaflet.js").decode().replace("//# sourceMappingURL=leaflet.js.map", "")

"""Interactive maps that load nothing."""

from __future__ import annotations

import re

import numpy as np
import pytest

from reproduction.pages import offline_map
from selm.errors import InputError

folium = pytest.importorskip("folium")

BBOX = (24.93, 60.165, 24.95, 60.175)


def example() -> folium.Map:
    figure = folium.Map((60.17, 24.94), tiles=None, zoom_start=15)
    image = np.zeros((8, 8, 3), np.uint8)
    image[2:4] = (200, 10, 30)
    offline_map.image_layer(image, BBOX, "map", "© OpenStreetMap contributors").add_to(figure)
    text = offline_map.picture(image, 64) + '<a href="https://www.openstreetmap.org/copyright">OpenStreetMap</a>'
    folium.CircleMarker((60.17, 24.94), popup=text).add_to(figure)
    return figure


def test_document_loads_nothing() -> None:
    page = offline_map.document(example())
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=[\"']?(https?:)?//", page)
    assert "L.imageOverlay(" in page and "data:image/png;base64," in page
    assert "\\u00a9 OpenStreetMap contributors" in page or "© OpenStreetMap contributors" in page
    assert "url(images/" not in page and "sourceMappingURL" not in page
    assert page.index("leaflet-pane") < page.index("L.map(")  # Leaflet comes before the map that needs it


def test_same_map_is_same_text() -> None:
    assert offline_map.document(example()) == offline_map.document(example())


def test_tiles_from_a_server_are_refused() -> None:
    with pytest.raises(InputError, match="tiles=None"):
        offline_map.document(folium.Map((60.17, 24.94)))
    figure = folium.Map((60.17, 24.94), tiles=None)
    folium.raster_layers.ImageOverlay("https://example.org/x.png", bounds=[[60, 24], [61, 25]]).add_to(figure)
    with pytest.raises(InputError, match="server"):
        offline_map.document(figure)


def test_show_is_an_iframe_with_the_document_escaped() -> None:
    shown = offline_map.show(example(), 300).data
    assert shown.startswith("<div><iframe srcdoc=") and 'height="300"' in shown and "<script" not in shown


def test_image_layer_wants_bytes_in_three_colours() -> None:
    with pytest.raises(InputError, match="uint8"):
        offline_map.image_layer(np.zeros((4, 4)), BBOX, "map")

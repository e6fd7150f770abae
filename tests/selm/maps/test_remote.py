"""Maps from servers, against a server on this machine that is busy, fails, or sends something else."""

from __future__ import annotations

import dataclasses
import gzip
import json
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tile_files import to_pmtiles

from selm.errors import InputError, MapWarning
from selm.maps import draw, remote
from selm.maps.sources import open_source
from selm.maps.tiles import MBTiles, rectangle

pytest.importorskip("mapnik")
LAT, LON = 35.69300, 139.76807  # the middle of tile 13/7276/3225
TILE = (13, 7276, 3225)
ABOUT = {
    "tilejson": "3.0.0", "minzoom": 0, "maxzoom": 14, "tiles": ["{here}/v1/{z}/{x}/{y}.pbf"],
    "attribution": '<a href="x">Here</a> &copy; <b>Everyone</b>',
    "vector_layers": [{"id": "water", "fields": {"class": "String"}}, {"id": "transportation"}],
}  # fmt: skip


class Server:
    """Serves an .mbtiles file: `about` at /planet, its tiles, and `archive` by ranges; remembers what was asked.

    `answers(path, n)`, n counting how often a path was asked for from 1, may give another answer: (status, headers,
    body, length that is said).
    """

    def __init__(self, file: Path) -> None:
        self.tiles = MBTiles(file)
        self.about = dict(ABOUT)
        self.archive = b""
        self.answers: Callable[[str, int], tuple[int, dict[str, str], bytes, int | None] | None] = lambda path, n: None
        self.asked: Counter[str] = Counter()
        self.agents: set[str] = set()
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with outer._lock:
                    outer.at_once += 1
                    outer.most_at_once = max(outer.most_at_once, outer.at_once)
                    outer.asked[self.path] += 1
                    outer.agents.add(self.headers["User-Agent"])
                    n = outer.asked[self.path]
                try:
                    status, headers, body, length = outer.answers(self.path, n) or outer.usual(self.path, self.headers)
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(body) if length is None else length))
                    self.end_headers()
                    self.wfile.write(body)
                finally:
                    with outer._lock:
                        outer.at_once -= 1

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *arguments: None  # of those who leave
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def usual(self, path: str, headers: object) -> tuple[int, dict[str, str], bytes, int | None]:
        if path == "/planet":
            return 200, {}, json.dumps(self.about).replace("{here}", self.address).encode(), None
        if path.startswith("/planet.pmtiles"):
            first, last = map(int, re.findall(r"\d+", headers["Range"]))  # type: ignore[index]
            return 206, {"ETag": '"1"'}, self.archive[first : last + 1], None
        z, x, y = map(int, re.findall(r"\d+", path.removeprefix("/v1")))
        data = self.tiles.tile(z, x, y)
        return (404, {}, b"", None) if data is None else (200, {"Content-Encoding": "gzip"}, data, None)

    def tiles_asked(self) -> list[str]:
        asked = self.asked.copy()  # other threads go on counting
        return sorted(path for path in asked.elements() if "planet" not in path)

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def server(make_mbtiles: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("SELM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "BACKOFF_S", 0.01)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    tiles = tuple((z, x << z - 13, y << z - 13) for z in (13, 14) for x in range(7270, 7290) for y in range(3220, 3230))
    server = Server(make_mbtiles("served.mbtiles", tiles=tiles))
    yield server
    server.stop()


def image(source: object) -> np.ndarray:
    return draw.draw_image(source, LAT, LON, zoom=14, size=64, tile_px=64)


def failing(*answers: tuple[int, dict[str, str], bytes, int | None]) -> Callable[[str, int], object]:
    """These answers for each tile, one after the other; then the usual ones."""
    return lambda path, n: answers[n - 1] if n <= len(answers) and "planet" not in path else None


def test_a_proxy_that_is_no_address_is_said(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "not a proxy")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(InputError, match=r"/planet: not an address, or the proxy's is none .*'not a proxy'"):
        open_source(f"{server.address}/planet")


def test_only_what_is_needed_is_fetched_once(server: Server, make_mbtiles: Callable[..., Path]) -> None:
    source = open_source(f"{server.address}/planet")
    assert source.kind == "remote" and source.attribution == "Here © Everyone" and len(source.fingerprint) == 64
    np.testing.assert_array_equal(image(source), image(make_mbtiles("same.mbtiles")))
    assert server.tiles_asked() == ["/v1/13/7276/3225.pbf"]  # zoom 13, though there are closer ones
    assert all(re.fullmatch(r"selm/\d+\.\d+.*", agent) for agent in server.agents)
    again = open_source(f"{server.address}/planet")
    image(again)
    assert again.fingerprint == source.fingerprint and sum(server.asked.values()) == 2
    server.stop()  # what was fetched is drawn without a network
    image(open_source(f"{server.address}/planet"))


def test_an_atlas_of_a_box_and_a_template(server: Server, tmp_path: Path) -> None:
    source = open_source(server.address + "/v1/{z}/{x}/{y}.pbf")
    box = (139.70, 35.66, 139.84, 35.72)
    atlas = draw.draw_atlas(source, tmp_path / "a", zooms=(14, 13), tile_px=32, bbox=box, workers=2, progress=False)
    assert len(atlas.keys) == len(server.tiles_asked()) > 8 and server.most_at_once <= remote.CONNECTIONS
    assert all(np.unique(atlas.block(x, y, 14)).size > 1 for x, y in atlas.keys.tolist())
    with pytest.raises(InputError, match="what a server has is not listed; name a part of it"):
        source.blocks()
    with pytest.raises(InputError, match="more than should be asked of a server"):
        source.blocks((-170, -80, 170, 80))


def test_empty_sea_is_remembered(server: Server) -> None:
    source = open_source(f"{server.address}/planet")
    sea = np.array([[100, 3000], [101, 3000], [7276, 3225], [-1, 0], [8192, 3]])
    server.answers = lambda path, n: (204, {}, b"", None) if "/101/" in path else None
    assert source.tiles.has(sea).tolist() == [False, False, True, False, False]
    assert source.tiles.has(sea).tolist() == [False, False, True, False, False]
    assert len(server.tiles_asked()) == 3


def test_a_busy_server_is_asked_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    web = remote.Web()
    monkeypatch.setattr(web.stop, "wait", waits.append)
    busy = [(429, {"Retry-After": "7"}, b"", None), (503, {}, b"", None), (500, {}, b"", None)]
    server.answers = lambda path, n: busy[n - 1] if n <= len(busy) else None
    assert web.get(f"{server.address}/planet", "here")[0]
    assert waits[0] == 7.0 and 0 < waits[1] < waits[2] * 3 < 0.2  # what it asks for, then longer and longer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((500, {}, b"", None), r"127.0.0.1:\d+: tile 13/7276/3225: the server answers 500 .*; what has come is kept"),
        ((429, {"Retry-After": "86400"}, b"", None), "asks to come back in 86400 seconds"),
        ((403, {}, b"", None), r"tile 13/7276/3225: the server answers 403 Forbidden"),
        ((200, {}, b"half of it", 1000), r"tile 13/7276/3225: its answer is cut short"),
        ((200, {}, b"<html>Sign in</html>", None), r"tile 13/7276/3225: its answer is damaged: "),
        ((200, {}, gzip.compress(b"\x1a\x05\x0a\x03abc")[:-4], None), r"tile 13/7276/3225: its answer is damaged: cut"),
        ((200, {}, b"\x1a\x09\x0a\x05roads\x12\x00", None), r"tile 13/7276/3225: vector tiles of another schema"),
    ],
)
def test_bad_answers_are_one_line(
    server: Server, answer: tuple[int, dict[str, str], bytes, int | None], message: str
) -> None:
    source = open_source(f"{server.address}/planet")
    server.answers = failing(*[answer] * 20)
    with pytest.raises(InputError, match=message) as caught:
        image(source)
    assert "\n" not in str(caught.value)
    assert max(server.asked.values()) <= remote.TRIES
    server.answers = failing(*[answer] * max(server.asked.values()))  # and when it has recovered
    assert len(np.unique(image(source))) > 1


def test_a_server_that_dies_in_the_middle(server: Server, tmp_path: Path) -> None:
    source = open_source(f"{server.address}/planet")
    keys = rectangle(7270, 3220, 7279, 3229)
    server.answers = lambda path, n: (500, {}, b"", None) if len(server.tiles_asked()) > 40 else None
    with pytest.raises(InputError, match=r"tile 13/\d+/\d+: the server answers 500"):
        source.tiles.has(keys)
    kept = 100 - len(source.tiles.cache.unknown([(13, x, y) for x, y in keys.tolist()]))
    assert kept >= 36
    server.answers = lambda path, n: None
    before = len(server.tiles_asked())
    assert source.tiles.has(keys).all()
    assert len(server.tiles_asked()) - before <= 100 - kept + remote.CONNECTIONS  # some were under way


def test_no_server_and_no_network(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(f"{server.address}/planet")
    server.stop()
    with pytest.raises(InputError, match=r"tile 13/7276/3225: no answer \(Connection refused\); is there a network\?"):
        image(source)
    with pytest.raises(InputError, match=r"/other: no answer \(Connection refused\)"):
        open_source(f"{server.address}/other")
    monkeypatch.setattr(remote, "FRESH_S", -1.0)  # its description is old, but all there is
    assert open_source(f"{server.address}/planet").fingerprint == source.fingerprint


def test_addresses_of_something_else(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FRESH_S", -1.0)
    server.answers = lambda path, n: (200, {}, b"<html></html>", None) if path == "/planet" else None
    with pytest.raises(InputError, match="not a TileJSON address, a template"):
        open_source(f"{server.address}/planet")
    server.answers = lambda path, n: (404, {}, b"", None)
    with pytest.raises(InputError, match="the server has nothing there"):
        open_source(f"{server.address}/planet")
    server.answers = lambda path, n: None
    for more, message in (
        ({"tiles": ["{here}/v1/{quadkey}"]}, "not a TileJSON address, a template"),
        ({"tiles": []}, "not a TileJSON address, a template"),
        ({"maxzoom": 10}, "its tiles end at zoom 10"),
        ({"vector_layers": [{"id": "streets"}, {"id": "ocean"}, {"id": "land"}]}, "of the Shortbread schema"),
    ):
        server.about = ABOUT | more
        with pytest.raises(InputError, match=message):
            open_source(f"{server.address}/planet")


def test_sources_of_another_kind_say_so(server: Server) -> None:
    server.about = ABOUT | {"minzoom": 14, "scheme": "xyz"}
    source = open_source(f"{server.address}/planet")
    assert source.richer == "tiles of zoom 14"
    assert source.tiles.has(np.array([[7276, 3225]])).all()
    assert len(server.tiles_asked()) == 4


def test_an_encoder_that_comes_along_says_so(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from selm.bundled import shelf
    from selm.embedding import inference

    name = shelf().encoders[0].name
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inference.Opened.open(name, f"{server.address}/planet", "cpu", None, None, None, None, None)
    server.about = ABOUT | {"minzoom": 14}
    monkeypatch.setattr(remote, "FRESH_S", -1.0)
    message = rf"/planet: tiles of zoom 14, which shows more than the tiles of zoom 13 that {name} has learned on"
    with pytest.warns(MapWarning, match=message):
        inference.Opened.open(name, f"{server.address}/planet", "cpu", None, None, None, None, None)


def test_rows_from_the_south(server: Server) -> None:
    server.about = ABOUT | {"scheme": "tms"}
    server.answers = lambda path, n: (404, {}, b"", None) if path == "/v1/13/7276/3225.pbf" else None
    source = open_source(f"{server.address}/planet")
    source.tiles.has(np.array([[7276, 3225]]))
    assert server.tiles_asked() == [f"/v1/13/7276/{8191 - 3225}.pbf"]


def test_an_archive_by_ranges(
    server: Server, make_mbtiles: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "FIRST_READ", 256)
    tiles = tuple((13, x, y) for x in range(7200, 7300) for y in range(3200, 3260))
    small = make_mbtiles("many.mbtiles", tiles=tiles)
    server.archive = to_pmtiles(small, tmp_path / "many.pmtiles").read_bytes()
    source = open_source(f"{server.address}/planet.pmtiles")
    assert source.tiles.has(np.array([[7276, 3225], [7000, 3225]])).tolist() == [True, False]
    np.testing.assert_array_equal(image(source), image(make_mbtiles("same.mbtiles")))
    asked = sum(server.asked.values())
    assert asked <= 4
    image(open_source(f"{server.address}/planet.pmtiles"))
    assert sum(server.asked.values()) == asked
    server.answers = lambda path, n: (206, {"ETag": '"2"'}, server.archive[:1], None)
    with pytest.raises(InputError, match=r"bytes \d+-\d+: its answer is damaged: cut short"):
        source.tiles.has(np.array([[7290, 3230]]))
    server.answers = lambda path, n: (200, {}, server.archive, None)
    with pytest.raises(InputError, match="gives no ranges of bytes"):
        open_source(f"{server.address}/planet.pmtiles?other")


def test_two_processes_at_once(server: Server) -> None:
    script = (
        "import sys, numpy as np; from selm.maps.tiles import rectangle; from selm.maps.sources import open_source\n"
        "keys = rectangle(7270, 3220, 7289, 3229)\n"
        "print(open_source(sys.argv[1]).tiles.has(keys).sum())"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", script, f"{server.address}/planet"], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=120)[0].strip() for process in processes] == ["200", "200"]
    tiles = open_source(f"{server.address}/planet").tiles
    assert tiles.cache.one("PRAGMA integrity_check")[0] == "ok"
    assert tiles.cache.one("SELECT count(*) FROM tiles")[0] == 200


def test_a_process_that_is_killed_leaves_a_cache_that_is_whole(server: Server) -> None:
    script = (
        "import sys; from selm.maps.tiles import rectangle; from selm.maps.sources import open_source\n"
        "open_source(sys.argv[1]).tiles.has(rectangle(7270, 3220, 7289, 3229))"
    )
    for least in (1, 40, 90, 150):
        process = subprocess.Popen([sys.executable, "-c", script, f"{server.address}/planet"])
        while len(server.tiles_asked()) < least and process.poll() is None:
            time.sleep(0.001)
        process.kill()
        process.wait()
    tiles = open_source(f"{server.address}/planet").tiles
    assert tiles.cache.one("PRAGMA integrity_check")[0] == "ok"
    assert tiles.has(rectangle(7270, 3220, 7289, 3229)).all()
    assert len(server.tiles_asked()) <= 200 + 4 * remote.CONNECTIONS  # those under way when it was killed
    left = {path.suffix for path in tiles.cache.file.parent.iterdir()}
    assert left <= {".mbtiles", ".json", ".mbtiles-shm", ".mbtiles-wal"}


def test_interrupted(server: Server, tmp_path: Path) -> None:
    held = threading.Event()
    server.answers = lambda path, n: path != "/planet" and held.wait(60) and None
    arguments = ["map", f"{server.address}/planet", "--lat", str(LAT), "--lon", str(LON), "-o", str(tmp_path / "m.png")]
    old = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background of a shell ignore it
    process = subprocess.Popen([sys.executable, "-m", "selm", *arguments], stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, old)
    while not server.tiles_asked() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    held.set()
    assert process.returncode == 130 and said.splitlines()[-1] == "selm: interrupted" and "Traceback" not in said
    assert not (tmp_path / "m.png").exists()


def test_whom_to_name(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    import made_up
    import pyarrow.parquet as pq

    from selm.cli import main
    from selm.embedding.embedder import Embedder
    from selm.embedding.tables import embed_file
    from selm.maps import sources

    monkeypatch.setattr(sources, "OPENFREEMAP", f"{server.address}/planet")  # where no map is named
    encoder = made_up.encoder()
    encoder.config = dataclasses.replace(encoder.config, style="selm")
    table = tmp_path / "places.csv"
    table.write_text(f"lat,lon\n{LAT},{LON}\n{LAT},{LON + 0.01}\n{LAT},20.0\n")
    with pytest.warns(UserWarning, match="1 of 3 coordinates lie outside"):
        served = embed_file(table, Embedder(encoder, device="cpu"), tmp_path / "out.parquet", progress=False)
    assert served == 2
    origin = json.loads(pq.read_schema(tmp_path / "out.parquet").metadata[b"selm"])
    assert origin["attribution"] == "Here © Everyone" and origin["map"] == f"{server.address}/planet"
    assert len(server.tiles_asked()) <= 6  # the places' tiles and those that their images reach into
    with pytest.raises(SystemExit):
        main(["map", f"{server.address}/planet", "--lat", str(LAT), "--lon", str(LON), "-o", str(tmp_path / "m.png")])
    with Image.open(tmp_path / "m.png") as drawn:
        assert drawn.text["Copyright"] == "Here © Everyone"


def test_drawing_begins_while_tiles_are_fetched(server: Server, tmp_path: Path) -> None:
    drawn = threading.Event()
    server.answers = lambda path, n: None if len(server.tiles_asked()) < 150 or drawn.wait(60) else (500, {}, b"", None)
    source = open_source(f"{server.address}/planet")
    there: list[bool] = []

    def on_block(x: int, y: int, is_there: bool) -> None:
        there.append(is_there)
        drawn.set()

    keys = np.concatenate([rectangle(7270, 3220, 7289, 3229), rectangle(100, 100, 101, 101)])
    atlas = draw.draw_atlas(source, tmp_path / "a", zooms=(13,), tile_px=16, blocks=keys, workers=2, on_block=on_block,
                            progress=False)  # fmt: skip
    assert len(atlas.keys) == sum(there) == 200 and there.count(False) == 4
    assert all(atlas.block(x, y, 13).any() for x, y in atlas.keys.tolist())


def test_a_block_is_drawn_alike_whatever_else_was_fetched(server: Server, tmp_path: Path) -> None:
    source = open_source(f"{server.address}/planet")
    alone = draw.draw_atlas(source, tmp_path / "a", zooms=(15, 12), tile_px=64, blocks=[TILE[1:]], progress=False)
    x, y = TILE[1:]
    keys = rectangle(x - 2, y - 2, x + 2, y + 2)
    many = draw.draw_atlas(source, tmp_path / "b", zooms=(15, 12), tile_px=64, blocks=keys, workers=1, progress=False)
    for zoom in (15, 12):
        np.testing.assert_array_equal(alone.block(*TILE[1:], zoom), many.block(*TILE[1:], zoom))


def test_shards_of_a_server(server: Server, tmp_path: Path) -> None:
    source = open_source(f"{server.address}/planet")
    box = (139.47, 35.66, 139.84, 35.72)  # its western blocks are not on the server
    left = [draw.draw_shard(source, tmp_path / "a", (i, 2), zooms=(13,), tile_px=16, bbox=box, progress=False)
            for i in (1, 2)]  # fmt: skip
    assert left[0] > 0 and left[1] == 0
    assert source.tiles.has(draw.Atlas(tmp_path / "a").keys).all()

"""Drawing maps with Mapnik: one image, or a whole atlas over several processes.

A block (a zoom-13 tile) is drawn as one picture, which costs little more than one of its 256 zoom-17 tiles would.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import queue
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from selm.errors import DISK_FULL, InputError
from selm.files import clear_leftovers, parsed, write_text, written
from selm.maps import mercator
from selm.maps.atlas import BLOCK_ZOOM, FORMAT, Atlas, block_path, block_px, encode_png, shard_of
from selm.maps.sources import MapSource, open_source, tiles_in
from selm.maps.style import Style, to_indices
from selm.maps.tiles import Listed, tiles_of
from selm.maps.vector_tiles import Tile, check_tile

_SQUARE_PX = 1024  # side of what is drawn at once where blocks are smaller than a map tile
_BLANKS = 4  # images of nothing that are looked into, of one source
_INSET = 1e-7  # of a square's side: less than a thousandth of a pixel
_FETCHED = 32  # jobs whose tiles are fetched together, while those before are drawn
HALF_M = mercator.EQUATOR_M / 2  # half the side of the Web Mercator square


class Pen:
    """Draws squares of one source in one style; keeps a loaded map and its canvas for each image size.

    A canvas made anew for every block, and copied out of Mapnik as a whole, takes 16 MB of fresh memory each time,
    which the system has to find and clear: measured at a tenth to a quarter of the time.
    """

    def __init__(self, source: MapSource, style: Style, tile_px: int) -> None:
        self.source, self.style, self.tile_px = source, style, tile_px
        self._maps: dict[int, tuple[Any, Any]] = {}
        self._looks = _BLANKS

    def _rendered(self, x: float, y: float, zoom: int, size: int) -> Any:
        import mapnik

        if size not in self._maps:
            self._maps[size] = self.style.map_for(self.source, size), mapnik.Image(size, size)
        canvas, image = self._maps[size]
        tile = 2 * HALF_M / 2**zoom
        side = tile * size / self.tile_px
        west, north = -HALF_M + x * tile, HALF_M - y * tile
        # A square that ends where a tile does touches the next tiles. Where these may be there or not, it ends before.
        inset = side * _INSET if self.source.alone else 0.0
        box = mapnik.Box2d(west + inset, north - side + inset, west + side - inset, north - inset)
        canvas.zoom_to_box(box)
        image.clear()
        # Widths and scale denominators are those of a 256-px tile at this zoom. Further out than where a source's tiles
        # begin Mapnik would find none and draw nothing: there the map is that of their first zoom, made smaller.
        shrunk = 2.0 ** min(0, zoom - self.source.min_zoom)
        try:
            mapnik.render(canvas, image, self.tile_px / 256 * shrunk)
        except RuntimeError as error:
            for _ in self._tiles_below(x, y, zoom, size):
                pass  # names a damaged tile
            reason = " ".join(str(error).split())
            raise InputError(f"style {self.style.name} cannot draw {self.source.name}: {reason}") from None
        return image

    def _tiles_below(self, x: float, y: float, zoom: int, size: int) -> Iterator[tuple[Tile, dict[str, Any]]]:
        """The tiles of a square, the closest first, and what their layers hold; InputError for the first damaged."""
        tiles = tiles_in(self.source.layers)
        if tiles is None:
            return
        for column, row in blocks_below(x, y, zoom, size / self.tile_px).tolist():
            for tile_zoom in range(tiles.last, tiles.first - 1, -1):
                for tile in tiles_of(column, row, tile_zoom):
                    yield tile, check_tile(tiles.tile(*tile) or b"", tile, self.source.name)

    def _look_again(self, x: float, y: float, zoom: int, size: int) -> None:
        """Raise InputError where nothing was drawn though tiles have features there, and Mapnik finds none of them.

        A style may leave out all that there is: then Mapnik has found it.
        """
        import mapnik

        canvas, _ = self._maps[size]
        seen: dict[str, Any] = {layer.datasource.parameters()["layer"]: layer.datasource for layer in canvas.layers
                                if layer.datasource.parameters()["type"] == "tiles"}  # fmt: skip
        scale = canvas.scale_denominator() * self.tile_px / 256 * 2.0 ** min(0, zoom - self.source.min_zoom)
        for (z, column, row), layers in self._tiles_below(x, y, zoom, size):
            side = 2 * HALF_M / 2**z
            west, north = column * side - HALF_M, HALF_M - row * side
            box = mapnik.Box2d(west - side / 8, north - side * 9 / 8, west + side * 9 / 8, north + side / 8)
            for name, (features, _) in layers.items():
                if features and name in seen:
                    if not any(True for _ in seen[name].features(mapnik.Query(box, (1.0, 1.0), scale)) or ()):
                        raise InputError(
                            f"{self.source.name}: tile {z}/{column}/{row} has {features} features in its layer "
                            f"'{name}', but none can be drawn: its header does not fit its tiles"
                        )
                    return

    def rgba(self, x: float, y: float, zoom: int, size: int) -> NDArray[np.uint8]:
        """uint8 (size, size, 4) whose north-west corner is at fractional tile coordinates (x, y) of `zoom`."""
        return np.frombuffer(self._rendered(x, y, zoom, size).to_string(), np.uint8).reshape(size, size, 4)

    def indices(self, x: float, y: float, zoom: int, size: int) -> NDArray[np.uint8]:
        """As `rgba`, as uint8 (size, size) palette indices; at the 180th meridian the map goes on."""
        out = self._indices(x, y, zoom, size)
        world, side = 2**zoom, size / self.tile_px
        if x < 0:
            west = min(size, round(-x * self.tile_px))
            out[:, :west] = self._indices(x + world, y, zoom, size)[:, :west]
        if x + side > world:
            east = max(0, round((world - x) * self.tile_px))
            out[:, east:] = self._indices(x - world, y, zoom, size)[:, east:]
        return out

    def _indices(self, x: float, y: float, zoom: int, size: int) -> NDArray[np.uint8]:
        image = self._rendered(x, y, zoom, size)
        out = np.empty((size, size), np.uint8)
        for top in range(0, size, 32):  # a few rows at a time stay in the cache
            rows = out[top : top + 32]
            strip = np.frombuffer(image.view(0, top, size, len(rows)).to_string(), np.uint8)
            rows[:] = to_indices(strip.reshape(len(rows), size, 4), self.style.table)
        if self._looks and not out.any():
            self._looks -= 1
            self._look_again(x, y, zoom, size)
        return out

    def block(self, x: int, y: int, zoom: int, across: int = 1) -> NDArray[np.uint8]:
        """uint8 (S, S) palette indices of `across` by `across` zoom-13 tiles from (x, y) on, drawn at `zoom`."""
        scale = 2.0 ** (zoom - BLOCK_ZOOM)
        return self.indices(x * scale, y * scale, zoom, across * block_px(zoom, self.tile_px))


def blocks_below(x: float, y: float, zoom: int, side: float) -> NDArray[np.int64]:
    """(N, 2): the zoom-13 tiles that a square of `side` tiles of `zoom`, from (x, y) on, lies on."""
    scale, n = 2.0 ** (BLOCK_ZOOM - zoom), 2**BLOCK_ZOOM
    x0, y0 = (int(np.floor(v * scale)) for v in (x, y))
    x1, y1 = (int(np.ceil((v + side) * scale)) for v in (x, y))
    columns, rows = np.arange(x0, min(x1, x0 + n)) % n, np.arange(max(0, y0), min(n, y1))
    across, down = np.meshgrid(columns, rows, indexing="ij")
    return np.stack([across.ravel(), down.ravel()], 1)


def draw_image(
    source: str | Path | MapSource | None,
    lat: float,
    lon: float,
    *,
    zoom: int = 17,
    size: int = 128,
    tile_px: int = 128,
    style: str | Path = "selm",
) -> NDArray[np.uint8]:
    """uint8 (size, size, 3) RGB map image centred on one coordinate, in the atlas's colours, drawn on its own.

    `source` is what `selm.maps.sources.open_source` takes, or what it gave; `lon` may run to 360. Raises InputError
    where it has nothing.
    """
    lon = lon - 360 if 180 <= lon <= 360 else lon
    mercator.check_coordinates(lat, lon)
    block_px(zoom, tile_px)
    source = source if isinstance(source, MapSource) else open_source(source)
    block = np.floor(np.stack(mercator.to_tile(lat, lon, BLOCK_ZOOM))).astype(np.int64)
    if abs(lat) > mercator.LAT_MAX or not source.tiles.has(block[None])[0]:
        bounds = " ".join(f"{v:.3f}" for v in source.bounds)
        raise InputError(f"lat {lat:g}, lon {lon:g} is outside {source.name}, which covers {bounds} (W S E N)")
    pen = Pen(source, Style.named(style), tile_px)
    x, y = mercator.to_tile(lat, lon, zoom)
    # On whole pixels of the zoom's grid, as a crop from an atlas is.
    left, top = (np.rint(v * tile_px - size / 2) / tile_px for v in (x, y))
    source.prepare(blocks_below(float(left), float(top), zoom, size / tile_px))
    return pen.style.palette[pen.indices(float(left), float(top), zoom, size)]


def draw_atlas(
    source: str | Path | MapSource | None,
    out: str | Path,
    *,
    zooms: Sequence[int] = (17, 16),
    tile_px: int = 128,
    bbox: mercator.BBox | None = None,
    style: str | Path = "selm",
    blocks: ArrayLike | None = None,
    workers: int | None = None,
    progress: bool = True,
    on_block: Callable[[int, int, bool], None] | None = None,
) -> Atlas:
    """Draw a region into the folder `out` and return its Atlas.

    `blocks` (N, 2) zoom-13 tiles restricts what is drawn, as `bbox` (west, south, east, north) does, and gives the
    order; by default the whole source. `workers` processes share the work (default: the processors at hand).
    `on_block(x, y, there)` is called in this thread as soon as a block is there at all zooms, or found to be nowhere on
    a server. A block that is already there is kept, so that a run that was killed goes on where it stopped; the result
    does not depend on how it was reached. What comes from a server is drawn while more is fetched.
    Raises InputError for a bad source, an empty region, a folder that holds another atlas, or a full disk; finished
    blocks stay, nothing half-written does.
    """
    _draw(source, out, zooms, tile_px, bbox, style, blocks, workers, progress, on_block, (1, 1))
    return Atlas(out)


def draw_shard(
    source: str | Path | MapSource | None,
    out: str | Path,
    shard: tuple[int, int],
    *,
    zooms: Sequence[int] = (17, 16),
    tile_px: int = 128,
    bbox: mercator.BBox | None = None,
    style: str | Path = "selm",
    workers: int | None = None,
    progress: bool = True,
) -> int:
    """Draw one part of a region's blocks into the folder `out`, that other processes or machines draw into as well.

    `shard` is (i, n): the i-th of n parts of the sorted blocks, i from 1. Everything else is as in `draw_atlas` and
    must be the same for all parts. Returns how many images of the other parts are missing; the one that finds none
    finishes the atlas. Raises InputError as `draw_atlas` does.
    """
    number, of = shard
    if not 1 <= number <= of:
        raise InputError(f"shard {number}/{of}: the first is 1/{of}, the last {of}/{of}")
    return _draw(source, out, zooms, tile_px, bbox, style, None, workers, progress, None, shard)


def _draw(
    source: str | Path | MapSource | None, out: str | Path, zooms: Sequence[int], tile_px: int,
    bbox: mercator.BBox | None, style: str | Path, blocks: ArrayLike | None, workers: int | None, progress: bool,
    on_block: Callable[[int, int, bool], None] | None, shard: tuple[int, int],
) -> int:  # fmt: skip
    """`draw_atlas`, or one part of it; returns the number of images missing elsewhere."""
    source = source if isinstance(source, MapSource) else open_source(source)
    chosen = Style.named(style)
    zooms = tuple(sorted({int(zoom) for zoom in zooms}, reverse=True))
    for zoom in zooms:
        block_px(zoom, tile_px)
    if blocks is None:
        keys = source.blocks(bbox)
        order: list[tuple[int, ...]] = list(map(tuple, keys.tolist()))
    else:
        asked = np.asarray(blocks, np.int64).reshape(-1, 2)
        possible = source.tiles.may_have(asked)
        if bbox is not None:
            possible &= Listed(source.blocks(bbox)).has(asked)
        order = list(dict.fromkeys(map(tuple, asked[possible].tolist())))
        if not order:
            raise InputError(f"{source.name}: none of the {len(asked)} blocks asked for is in the source")
        keys = np.array(sorted(order), np.int32)
    description = _describe(source, chosen, zooms, tile_px, keys)
    folder = Path(out)
    alone = shard == (1, 1)
    if not alone:
        order = shard_of(order, shard)
    try:
        _begin(folder, description, clear=alone)
        missing = [
            (x, y, zoom)
            for x, y in order
            for zoom in zooms
            if not _is_whole(block_path(folder, x, y, zoom), block_px(zoom, tile_px))
        ]
        jobs = group_jobs(missing, tile_px, alone=source.alone)
        count = max(1, min(workers or os.cpu_count() or 1, (len(jobs) + 7) // 8))
        done = _draw_here if count == 1 else _draw_in_processes
        bar = tqdm(total=len(missing), desc=f"draw {source.name}", unit="block", disable=not progress)
        left = Counter((x, y) for x, y, _ in missing)
        absent: set[tuple[int, ...]] = set()  # blocks of which a server has nothing
        with bar:
            for x, y in order:
                if on_block and not left[x, y]:
                    on_block(x, y, True)
            for job, there in done(source, chosen, tile_px, folder, jobs, count):
                bar.update(len(job.blocks))
                for x, y in job.blocks:
                    left[x, y] -= 1
                    if not there:
                        absent.add((x, y))
                    if on_block and not left[x, y]:
                        on_block(x, y, there)
        elsewhere = 0
        if not alone:  # parts that are drawn elsewhere
            waited = np.array([
                (x, y) for x, y in set(map(tuple, keys.tolist())) - set(order)
                for zoom in zooms if not _is_whole(block_path(folder, x, y, zoom), block_px(zoom, tile_px))
            ]).reshape(-1, 2)  # fmt: skip
            is_there = source.tiles.has(waited)
            elsewhere = int(is_there.sum())
            absent |= set(map(tuple, waited[~is_there].tolist()))
        if not elsewhere:
            description["keys"] = [key for key in description["keys"] if tuple(key) not in absent]
            if not description["keys"]:
                raise InputError(f"{source.name}: none of the {len(keys)} blocks asked for is in the source")
            write_text(folder / "atlas.json", json.dumps(description, ensure_ascii=False))
            (folder / "drawing.json").unlink(missing_ok=True)
    except OSError as error:
        raise _disk_error(folder, error) from None
    return elsewhere


def _describe(
    source: MapSource, style: Style, zooms: tuple[int, ...], tile_px: int, keys: NDArray[np.int32]
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "source": source.name,
        "source_fingerprint": source.fingerprint,
        "attribution": source.attribution,
        "style": style.name,
        "style_hash": style.hash,
        "zooms": list(zooms),
        "tile_px": tile_px,
        "palette": ["#" + bytes(colour).hex() for colour in style.palette],
        "keys": keys.tolist(),
    }


def _begin(folder: Path, description: dict[str, Any], *, clear: bool) -> None:
    """Note in ``drawing.json`` what the folder is going to hold; InputError if it holds something else.

    `clear` removes what killed processes left: not where processes of other machines may be writing.
    """
    same = ("format", "source_fingerprint", "style_hash", "tile_px")
    for name in ("atlas.json", "drawing.json"):
        file = folder / name
        if not file.exists():
            continue
        try:
            old = parsed(file.read_text())
            other = [key for key in same if old[key] != description[key]]
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{file}: not a readable atlas description; draw into another folder") from None
        if other:
            raise InputError(f"{folder}: holds an atlas of another {other[0]}; draw into another folder")
        if name == "atlas.json" and (lost := set(old.get("zooms", ())) - set(description["zooms"])):
            raise InputError(f"{folder}: has zoom {min(lost)}, too; name all zooms, or draw into another folder")
    folder.mkdir(parents=True, exist_ok=True)
    if clear:
        clear_leftovers(folder.rglob(".*.part"))
    write_text(folder / "drawing.json", json.dumps(description, ensure_ascii=False))


def _is_whole(file: Path, side: int) -> bool:
    try:
        with file.open("rb") as stream:
            head = stream.read(24)
            stream.seek(-12, os.SEEK_END)
            tail = stream.read()
    except OSError:
        return False
    size = side.to_bytes(4, "big")
    return head[:4] == b"\x89PNG" and head[16:24] == size * 2 and tail[4:8] == b"IEND"


def _disk_error(folder: Path, error: OSError) -> InputError:
    if error.errno in DISK_FULL:
        return InputError(f"{folder}: the disk is full; make room and draw again, finished blocks are kept")
    return InputError(f"{folder}: {error.strerror or error}")


class Job(NamedTuple):
    """Blocks (zoom-13 x, y) to draw at a zoom, all in one square of `_across` blocks a side."""

    zoom: int
    blocks: list[tuple[int, int]]


def _across(zoom: int, tile_px: int) -> int:
    """How many blocks a side are drawn at once: several where a block is tiny, for reading its tiles takes longest.

    Always the whole square is drawn, whichever of its blocks are wanted: the same blocks come out every time.
    """
    return max(1, _SQUARE_PX // block_px(zoom, tile_px)) if zoom <= BLOCK_ZOOM else 1


def group_jobs(missing: list[tuple[int, int, int]], tile_px: int, *, alone: bool = False) -> list[Job]:
    """Blocks (x, y, zoom), in their order, as jobs: those of one square together, where the first of them stands.

    `alone`: each is a job, for what lies around it may not be there.
    """
    jobs: dict[tuple[int, int, int], Job] = {}
    for x, y, zoom in missing:
        n = 1 if alone else _across(zoom, tile_px)
        jobs.setdefault((x // n, y // n, zoom), Job(zoom, [])).blocks.append((x, y))
    return list(jobs.values())


def draw_blocks(pen: Pen, folder: Path, job: Job) -> None:
    n, side = 1 if pen.source.alone else _across(job.zoom, pen.tile_px), block_px(job.zoom, pen.tile_px)
    x0, y0 = (value // n * n for value in job.blocks[0])
    square = pen.block(x0, y0, job.zoom, n)
    for x, y in job.blocks:
        file = block_path(folder, x, y, job.zoom)
        top, left = (y - y0) * side, (x - x0) * side
        with written(file, durable=False) as temporary:  # a block that is cut short is drawn again
            temporary.write_bytes(encode_png(square[top : top + side, left : left + side], pen.style.palette))


def _ready(source: MapSource, jobs: list[Job]) -> Iterator[tuple[Job, bool]]:
    """Each job as soon as Mapnik can draw it, and whether there is anything; meanwhile the next ones are made so."""
    parts = [jobs[start : start + _FETCHED] for start in range(0, len(jobs), _FETCHED)]
    if not source.gradual:
        yield from ((job, True) for job in jobs)
        return

    def prepare(part: list[Job]) -> list[bool]:
        return source.prepare(np.array([job.blocks[0] for job in part])).tolist()  # of such a source a job is one block

    with ThreadPool(1) as pool:
        coming = pool.map_async(prepare, parts[:1])
        for number, part in enumerate(parts, 1):
            (there,) = coming.get()
            coming = pool.map_async(prepare, parts[number : number + 1])
            yield from zip(part, there, strict=True)


def _draw_here(
    source: MapSource, style: Style, tile_px: int, folder: Path, jobs: list[Job], count: int
) -> Iterator[tuple[Job, bool]]:
    pen = Pen(source, style, tile_px)
    for job, there in _ready(source, jobs):
        if there:
            draw_blocks(pen, folder, job)
        yield job, there


def _draw_in_processes(
    source: MapSource, style: Style, tile_px: int, folder: Path, jobs: list[Job], count: int
) -> Iterator[tuple[Job, bool]]:
    """Draw in `count` processes of ``python -m selm.maps.draw``, each fed a few jobs ahead through a pipe.

    Plain processes rather than multiprocessing: they need no guarded main module in the caller's script, do not inherit
    its threads, and end with it, since their input then closes.
    """
    setup = json.dumps(
        {
            "layers": source.layers,
            "min_zoom": source.min_zoom,
            "alone": source.alone,
            "name": source.name,
            "style": style.name,
            "xml": style.xml,
            "tile_px": tile_px,
            "folder": str(folder.resolve()),
        }
    )
    waiting: queue.Queue[list[Job] | None] = queue.Queue(2 * count)
    finished: queue.SimpleQueue[tuple[Job, bool] | Exception | None] = queue.SimpleQueue()
    stop = threading.Event()

    def put(some: list[Job] | None) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                return waiting.put(some, timeout=0.2)

    def fill() -> None:
        some: list[Job] = []
        try:
            for number, (job, there) in enumerate(_ready(source, jobs), 1):
                if stop.is_set():
                    return
                if there:
                    some.append(job)
                else:
                    finished.put((job, False))
                # a few jobs at a time, but the last ones singly: no process waits long for another
                if len(some) >= (4 if len(jobs) - number > 8 * count else 1):
                    put(some)
                    some = []
            put(some)
        except Exception as error:  # handed to the caller's thread
            finished.put(error)
        for _ in range(count):
            put(None)

    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "selm.maps.draw"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )
        for _ in range(count)
    ]  # fmt: skip

    def feed(process: subprocess.Popen[str]) -> None:
        assert process.stdin and process.stdout and process.stderr
        sent: deque[list[Job]] = deque()
        ended = False
        try:
            process.stdin.write(setup + "\n")
            while not stop.is_set() and not (ended and not sent):
                with contextlib.suppress(queue.Empty):
                    while len(sent) < 2 and not ended:  # one lies ready while another is drawn
                        some = waiting.get(block=not sent, timeout=0.2)
                        if ended := some is None:
                            break
                        sent.append(some)
                        process.stdin.write(json.dumps(some) + "\n")
                        process.stdin.flush()
                for job in sent.popleft() if sent else ():
                    answer = json.loads(process.stdout.readline() or '{"died": true}')
                    if "errno" in answer:
                        raise OSError(answer["errno"], os.strerror(answer["errno"]))
                    if "error" in answer:
                        raise InputError(answer["error"])
                    if "died" in answer:
                        reason = (process.stderr.read().strip().splitlines() or ["killed"])[-1]
                        raise InputError(
                            f"block {job.blocks[0][0]}/{job.blocks[0][1]}: a drawing process ended early ({reason})"
                        )
                    finished.put((job, True))
        except Exception as error:  # handed to the caller's thread
            finished.put(error)
        finished.put(None)

    threads = [threading.Thread(target=feed, args=(process,), daemon=True) for process in processes]
    try:
        for thread in (threading.Thread(target=fill, daemon=True), *threads):
            thread.start()
        running = count
        while running:
            result = finished.get()
            if result is None:
                running -= 1
            elif isinstance(result, Exception):
                raise result
            else:
                yield result
    finally:
        stop.set()
        for process in processes:
            if process.stdin:
                with contextlib.suppress(OSError):
                    process.stdin.close()
        for process, thread in zip(processes, threads, strict=True):
            process.wait()
            thread.join()
            for pipe in (process.stdout, process.stderr):
                if pipe:
                    pipe.close()


def _worker() -> None:
    """The other end of `_draw_in_processes`: reads the set-up and jobs as JSON lines, answers one line a job."""
    setup = json.loads(sys.stdin.readline())
    nowhere = Listed(np.zeros((0, 2)))
    source = MapSource(setup["name"], "", "", "", setup["layers"], nowhere, setup["min_zoom"], setup["alone"])
    pen = Pen(source, Style(setup["style"], setup["xml"]), setup["tile_px"])
    for line in sys.stdin:
        for job in json.loads(line):
            answer: dict[str, Any] = {}
            try:
                draw_blocks(pen, Path(setup["folder"]), Job(*job))
            except OSError as error:
                answer = {"errno": error.errno or errno.EIO}
            except InputError as error:
                answer = {"error": str(error)}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _worker()

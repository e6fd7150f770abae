"""``python -m reproduction VERB``: the paper's tables and figures, the chapters, the data, and a book of any place.

Libraries are imported inside the verbs, so that ``--help`` answers at once. The reproduction needs a checkout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from selm.cli import run
from selm.errors import InputError

app = typer.Typer(
    name="reproduction",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="GPS-SELM's tables and figures, and the chapters beyond them.",
)

ProfileName = Annotated[str, typer.Option("--profile", "-p", help="see `python -m reproduction profiles`")]
ImageryName = Annotated[
    str | None, typer.Option(metavar="NAME", help="other photographs than the profile's: naip, xview, sustainbench, …")
]
Publish = Annotated[bool, typer.Option("--publish", help="write data/results/PROFILE too")]


@app.command()
def places(profile: ProfileName) -> None:
    """Draw a profile's maps and make its tables of places."""
    from reproduction.computed import place_tables

    chosen = _profile(profile)
    sampled, labelled = place_tables.sampled_places(chosen), place_tables.points(chosen)
    typer.echo(f"{len(sampled)} places to pretrain on, {len(labelled)} with labels")


@app.command()
def pretrain(
    profile: ProfileName,
    method: Annotated[str, typer.Option("--method", "-m", help="see `python -m reproduction methods`")],
    seed: Annotated[int, typer.Option(min=0)] = 0,
    times: Annotated[int, typer.Option(min=1, help="so many times the profile's places and images")] = 1,
    compiled: Annotated[str | None, typer.Option("--compile", metavar="MODE", help="torch.compile: default, …")] = None,
) -> None:
    """Pretrain a method, or go on where it was stopped; prints the run's folder.

    On several GPUs: torchrun --nproc-per-node N -m reproduction pretrain …
    """
    from reproduction import rows
    from reproduction.computed import encoders
    from selm import distributed

    chosen = _profile(profile)
    rows.get_row(method)
    with distributed.joined():
        folder = encoders.pretrained(chosen.times(times), method, seed, compiled=compiled)
        if distributed.is_main():
            typer.echo(folder)


@app.command()
def table(
    number: Annotated[
        int, typer.Argument(min=1, max=4, help="1: land price, 2: area type, 3: land cover, 4: object detection")
    ],
    profile: ProfileName,
    imagery: ImageryName = None,
    publish: Publish = False,
) -> None:
    """Compute what is missing of a table and print it."""
    from reproduction import contents, report

    chosen = _profile(profile)
    results = contents.table(chosen, f"table{number}", photographs=imagery)
    typer.echo(report.summarise(results).to_string(index=False))
    if publish:
        _publish(chosen)


@app.command()
def chapter(
    name: Annotated[str, typer.Argument(help="knowledge, …: a chapter beyond the paper")],
    profile: ProfileName,
    which: Annotated[
        str | None,
        typer.Option(metavar="METHODS", help="knowledge: these rows, with commas between, trained if need be"),
    ] = None,
    regions: Annotated[str | None, typer.Option(help="knowledge: these regions, with commas between")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="knowledge: at most so many of each row")] = None,
    publish: Publish = False,
) -> None:
    """Compute what is missing of a chapter beyond the paper and print it."""
    from reproduction import contents, report

    chosen = _profile(profile)
    results = contents.chapter(chosen, name, _names(which), regions=_names(regions), seeds=seeds)
    shown = report.summarise(results) if "experiment" in results else results
    typer.echo(shown.to_string(index=False))
    if publish:
        _publish(chosen)


@app.command()
def figure(
    number: Annotated[int, typer.Argument(help="of the paper: 2, 3, …")],
    profile: ProfileName,
    imagery: ImageryName = None,
    publish: Publish = False,
) -> None:
    """Compute what is missing of a figure and print its numbers."""
    from reproduction import contents, report

    chosen = _profile(profile)
    results = contents.figure(chosen, number, photographs=imagery)
    shown = [column for column in results if column not in report.PROVENANCE]
    typer.echo(results[shown].to_string(index=False))
    if publish:
        _publish(chosen)


@app.command()
def publish(
    profile: ProfileName,
    encoder: Annotated[
        list[str] | None, typer.Option(metavar="ROW", help="put this row's weights into data/encoders, and no more")
    ] = None,
) -> None:
    """Write what is finished of a profile to data/results/PROFILE, computing no result; or the weights of some rows."""
    from reproduction import publishing

    chosen = _profile(profile)
    if encoder:
        for path in publishing.publish_encoders(chosen, encoder):
            typer.echo(path)
    else:
        _publish(chosen)


@app.command("encoders")
def encoders_() -> None:
    """Write the cards and the list of the encoders in data/encoders anew, from what is published."""
    from reproduction import cards

    for path in cards.write():
        typer.echo(path)


@app.command()
def reproduce(
    place: Annotated[str | None, typer.Option(metavar="NAME", help='a city or region, as "Tokyo"')] = None,
    map: Annotated[str | None, typer.Option("--map", metavar="SOURCE", help=".osm.pbf, .mbtiles, .pmtiles")] = None,
    bbox: Annotated[
        tuple[float, float, float, float] | None, typer.Option(metavar="W S E N", help="degrees; all by default")
    ] = None,
    title: Annotated[str | None, typer.Option(help="what the book calls the place")] = None,
    profile: Annotated[
        str, typer.Option("--profile", "-p", help="whose scale: see `python -m reproduction profiles`")
    ] = "demo",
    labels: Annotated[str | None, typer.Option(help="official or stand-ins; by default what covers the place")] = None,
    methods: Annotated[str | None, typer.Option(help="rows to compute, with commas between; no book then")] = None,
    publish: Annotated[bool, typer.Option("--publish", help="write data/results/places too")] = False,
) -> None:
    """Run Tables 1 and 2 on any place, and fill a book that names it."""
    from reproduction.any_place import book

    made = book.make_site_profile(place=place, source=map, title=title, bbox=bbox, scale=profile, labels=labels)
    typer.echo(f"profile {made.name}")
    results = book.tables(made, _names(methods))
    typer.echo(book.summary_text(made, results))
    if publish:
        typer.echo(book.publish_site(made, results))
    if methods is None:
        typer.echo(book.make_book(made))


data_verbs = typer.Typer(help="The data sets: what they are, fetching and reading them.", rich_markup_mode=None)
app.add_typer(data_verbs, name="data")


@data_verbs.callback(invoke_without_command=True)
def data(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="one record a data set")] = False,
) -> None:
    """List the data sets: what they are, licence, size, how to cite and to get them, and whether they are here."""
    if context.invoked_subcommand is not None:
        return
    from reproduction.data import registry

    if as_json:
        import json

        records = [registry.record_of(data_set) for data_set in registry.DATA_SETS.values()]
        typer.echo(json.dumps(records, indent=1, ensure_ascii=False))
    else:
        typer.echo(registry.listing())


@data_verbs.command("get")
def data_get(
    name: Annotated[str, typer.Argument(metavar="NAME", help="see `python -m reproduction data`")],
    year: Annotated[int | None, typer.Option(help="the edition, where there are several")] = None,
    area: Annotated[str | None, typer.Option(help="the piece: a prefecture, a mesh, a place")] = None,
    clones: Annotated[
        Path | None, typer.Option(metavar="DIR", help="japan-2017: git clones OWNER+NAME to use instead of downloads")
    ] = None,
) -> None:
    """Fetch a data set to below SELM_DATA; goes on where a download broke off, checks what came."""
    from reproduction.data import japan_2017, registry

    if name == "japan-2017":
        if year or area:
            raise InputError("japan-2017: comes in one edition and one piece; leave --year and --area out")
        for path in japan_2017.build_files(clones=clones):
            typer.echo(path)
    elif clones:
        raise InputError(f"{name}: --clones is for japan-2017 only")
    else:
        typer.echo(registry.fetch(name, year, area))


@data_verbs.command("read")
def data_read(
    name: Annotated[str, typer.Argument(metavar="NAME", help="a data set that is a table: l01, a29, l03-b, …")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="the file as it was downloaded")],
) -> None:
    """Read a file of a data set, check every row, and print how many there are, where, and the first ones."""
    from reproduction.data import tables

    typer.echo(tables.summary(tables.read(name, file)))


@app.command()
def profiles() -> None:
    """List the profiles: how much of the reproduction is run."""
    from reproduction.profiles import PROFILES

    for name, profile in PROFILES.items():
        typer.echo(f"{name:10}  {profile.purpose}")


@app.command("methods")
def methods_() -> None:
    """List the rows of the tables."""
    from reproduction.rows import ROWS
    from reproduction.titles import title_of

    for name, row in ROWS.items():
        typer.echo(f"{name:18}  {title_of(name)}{'' if row.in_paper else ' (a control of ours)'}")


def _names(text: str | None) -> list[str] | None:
    """What is written with commas between; None where nothing is."""
    return None if text is None else [name.strip() for name in text.split(",")]


def _profile(name: str) -> Any:
    from reproduction.profiles import get_profile

    return get_profile(name)


def _publish(profile: Any) -> None:
    from reproduction import publishing

    for path in publishing.publish(profile):
        typer.echo(path)


def main(arguments: list[str] | None = None) -> None:
    """The command ``python -m reproduction``."""
    run(app, arguments)

"""Finished results → data/results/PROFILE/, for the book to show: CSV, and sheets of small map images as PNG.

What is published already and has not been computed here stays (`reproduction.merging`). Verdicts do not: they follow
from the published rows and are computed again whenever anything is published.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from reproduction import cards, paths
from reproduction.beyond.location_encoders import distilled
from reproduction.computed import compact, encoders, place_tables
from reproduction.contents import FINISHED_CHAPTERS, FINISHED_FIGURES, FINISHED_TABLES
from reproduction.experiments import table1_table2, verdicts
from reproduction.experiments.paper_claims import claim_verdicts_on, read_files
from reproduction.experiments.pretrainings import complete, curves, pretrainings, runs
from reproduction.merging import gone, merged
from reproduction.results import read_csv, write_csv
from reproduction.rows import LONGER, PRETRAINED
from reproduction.settings import Profile
from selm import checkpoints
from selm.bundled import LOCATIONS, REDUCTION
from selm.errors import InputError, unknown
from selm.files import read_json, write_json, written, written_folder
from selm.location_encoder import ABOUT, WEIGHTS

COORDINATES = "coordinates"
_ROUNDED = ("knowledge-blocks.csv",)  # files whose numbers have so many significant digits already, not decimals


def publish(profile: Profile) -> list[Path]:
    """Write what is finished to data/results/PROFILE/, for the book to show; computes no entry and no run.

    Draws the profile's maps where they are missing, for they are part of every result's address.
    """
    folder = paths.repository() / "data" / "results" / profile.name
    out: dict[str, pd.DataFrame | bytes] = {}
    done = [run for run in pretrainings(profile) if complete(profile, *run)]
    if done:
        out["curves.csv"] = curves(profile, done)
        out["runs.csv"] = runs(profile, done)
    for name in table1_table2.TABLES:
        rows = table1_table2.finished(profile, name)
        if len(rows):
            out[f"{name}.csv"] = rows
            out[f"{name}-blocks.csv"] = table1_table2.finished_blocks(profile, name)
            if name == "table2":
                out["table2-classes.csv"] = table1_table2.class_counts(profile)
    for of_table in FINISHED_TABLES.values():
        out.update(of_table(profile))
    for of_figure in FINISHED_FIGURES.values():
        out.update(of_figure(profile))
    for of_chapter in FINISHED_CHAPTERS.values():
        out.update(of_chapter(profile))
    out = {name: content for name, content in out.items() if isinstance(content, bytes) or len(content)}
    for name, content in out.items():  # all before any is written: a file that does not fit stops everything
        if not isinstance(content, bytes):
            before = _published(folder / name)
            table = out[name] = merged(name, content, before)
            if lost := gone(name, table, before):
                print(f"{name}: {lost} entries go, of other data or of another pretraining", file=sys.stderr)
    for name, content in out.items():
        if isinstance(content, bytes):
            with written(folder / name) as temporary:
                temporary.write_bytes(content)
        else:
            write_csv(folder / name, content if name in _ROUNDED else content.round(6))
    published = [folder / name for name in out] + publish_verdicts(folder)
    cards.write()
    return published


def publish_verdicts(folder: Path) -> list[Path]:
    """Write the verdicts that follow from what is published in a folder of `data/results`, in place of any that are
    there: on the paper's claims, ours on Tables 1 and 2, and the questions of `reproduction.experiments.verdicts`."""
    out = verdicts_of(folder)
    for name, table in out.items():
        write_csv(folder / name, table.round(6))
    return [folder / name for name in out]


def verdicts_of(folder: Path) -> dict[str, pd.DataFrame]:
    """All verdicts on what is published in a folder, by file name; a function of its files alone."""
    files = read_files(folder)
    tables = [name for name in table1_table2.TABLES if name in files]
    out = {
        f"claims-{name}.csv": table1_table2.claims_on(name, files[name], files.get(f"{name}-blocks")) for name in tables
    }
    if tables:
        out["claims.csv"] = claim_verdicts_on(files, folder.name)
    if (folder / verdicts.BLOCKS).exists():
        out["verdicts.csv"] = verdicts.verdicts(folder)
    return out


def publish_encoders(profile: Profile, which: Iterable[str]) -> list[Path]:
    """Put the weights of finished pretrainings into data/encoders/PROFILE, each with its configuration, training curve,
    provenance and a card; returns their folders.

    `which` names rows ("multi_zoom_wide_x4" is one that was trained four times as long; with it comes the reduction of
    what is recommended), of which the first seed is taken, and ``coordinates`` the location encoder of the chapter
    "distilled". Raises InputError for one that is not
    finished, or that the collapse watch marked at its end.
    """
    longer = profile.surroundings.longer
    rows = {method: (profile, method) for method in PRETRAINED}
    if longer > 1:
        rows[f"{LONGER}_x{longer}"] = (profile.times(longer), LONGER)
    done = {name: encoders.pretraining_folder(*row) for name, row in rows.items() if complete(*row, 0)}
    which = list(dict.fromkeys(which))
    alone = COORDINATES in which
    which = [name for name in which if name != COORDINATES]
    for name in which:
        if name not in done:
            raise unknown("finished pretraining", name, done)
        word = read_csv(done[name] / "metrics.csv")["collapse"].iloc[-1]
        if isinstance(word, str) and word:
            raise InputError(f"{name}: {word}, says the collapse watch, so it is not a reference run")
    out = [_publish_coordinates(profile)] if alone else []
    for name in which:
        run, target = done[name], paths.encoders() / profile.name / name
        with written_folder(target) as temporary:
            for file in ("config.json", "model.safetensors", "metrics.csv"):
                shutil.copyfile(run / file, temporary / file)
            further: dict[str, Any] = {"places": place_tables.sampled_key(rows[name][0])}
            if longer > 1 and name == f"{LONGER}_x{longer}" and profile.surroundings.compact:
                reduced = compact.learned(profile)
                reduced.save(temporary / REDUCTION)
                further["reduction"] = compact.about(profile, reduced)
            write_json(temporary / "run.json", read_json(run / "run.json") | further)
        out.append(target)
    cards.write()
    return out


def _publish_coordinates(profile: Profile) -> Path:
    """The location encoder for use of a profile, with its card."""
    about, tensors = distilled.exported(profile)
    target = paths.encoders() / LOCATIONS / cards.location_name(profile)
    with written_folder(target) as temporary:
        checkpoints.save_tensors(temporary / WEIGHTS, tensors)
        write_json(temporary / ABOUT, about)
        size = (temporary / WEIGHTS).stat().st_size
        (temporary / "README.md").write_text(cards.location_card(profile, about, size), encoding="utf-8")
    return target


def _published(file: Path) -> pd.DataFrame | None:
    return read_csv(file) if file.exists() else None

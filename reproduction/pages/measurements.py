"""What was measured of speed and memory, as tables and figures of the book.

The scripts in `benchmarks/` write ``data/results/benchmarks/NAME.csv``; every row there says on which device, under
which load, from which commit and by which command. What has not been measured yet is said to be so.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from reproduction.pages import published
from reproduction.pages.html import Html, html_table, prose, td
from reproduction.pages.style import row_label
from selm.errors import unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Measured:
    """A file of measurements: what it is called, the columns to show (name, heading, format) and how to make it."""

    title: str
    columns: tuple[tuple[str, str, str], ...]
    command: str
    section: str = ""  # the column whose values are headings


_RATES = (("images_per_s", "images/s", "n"), ("images_per_cpu_s", "per core-second", "n"))
MEASURED: dict[str, Measured] = {
    "pretraining": Measured(
        "Pretraining, images a second",
        (("way", "", "s"), *_RATES, ("cpu_ratio", "ratio", "x"), ("rounds", "in the rounds", "s"),
         ("share_of_limit", "share of the limit", "%")),
        "python -m benchmarks.pretraining --reference DINO",
    ),
    "pretraining-japan": Measured(
        "ResNet-50, 128 and 64 px, as in the paper: what the five auxiliary losses cost",
        (("way", "", "s"), *_RATES, ("cpu_ratio", "ratio", "x"),
         ("gflop_an_image", "GFLOP an image", "n"), ("share_of_limit", "share of the limit", "%")),
        "python -m benchmarks.pretraining --like japan --batch 4 --no-peers",
    ),
    "fewer_parents": Measured(
        "Parents of all places rebuilt, or of some: GPS-SELM's step over DINO's, and what short runs are worth in the "
        "validation regions (reduced scale: small encoder, Japan)",
        (("share", "places", "%"), ("step_over_dino", "step", "x"), ("price", "price error", "n"),
         ("price_seeds", "seeds", "s"), ("recall", "found again", "%"), ("recall_seeds", "seeds", "s")),
        "python -m benchmarks.fewer_parents",
    ),
    "profile_step": Measured(
        "Where the time of a step goes",
        (("name", "", "s"), ("ms", "ms a step", "n"), ("share", "share", "%"), ("calls", "calls", "n")),
        "python -m benchmarks.profile_step", section="kind",
    ),
    "ablation": Measured(
        "A step with one thing done the plain way",
        (("way", "", "s"), *_RATES, ("cpu_ratio", "ratio", "x"), ("rounds", "in the rounds", "s")),
        "python -m benchmarks.profile_step",
    ),
    "drawing": Measured(
        "Drawing maps, zoom-17 images a second",
        (("way", "", "s"), ("processes", "processes", "n"), *_RATES, ("ratio", "ratio", "x")),
        "python -m benchmarks.drawing", section="where",
    ),
    "embedding": Measured(
        "Embedding coordinates",
        (("places", "places", "n"), ("seconds", "seconds", "n"),
         ("places_per_s", "places/s", "n"), ("places_per_cpu_s", "per core-second", "n"),
         ("peak_mib", "peak memory, MiB", "n")),
        "python -m benchmarks.embedding --model RUN --map SOURCE", section="map",
    ),
    "coordinates": Measured(
        "Coordinates in, features out: the default encoder beside GeoCLIP's location encoder",
        (("what", "", "s"), ("threads_used", "threads", "n"), ("places_per_s", "places/s", "n"),
         ("places_per_cpu_s", "per core-second", "n"), ("cpu_ratio", "ratio", "x"), ("seconds", "seconds", "n"),
         ("cpu_seconds", "core-seconds", "n")),
        "python -m benchmarks.coordinates",
    ),
    "first_result": Measured(
        "From nothing to the first embedding",
        (("step", "", "s"), ("seconds", "seconds", "n"), ("cpu_seconds", "core-seconds", "n"),
         ("mib_installed", "installed, MiB", "n")),
        "python -m benchmarks.first_result",
    ),
    "large_sources": Measured(
        "Opening a map of ten million tiles, and one image from it",
        (("step", "", "s"), ("tiles", "tiles", "n"), ("cpu_seconds", "core-seconds", "n"),
         ("peak_mib", "peak memory, MiB", "n")),
        "python -m benchmarks.large_sources", section="kind",
    ),
    "fetching": Measured(
        "A map from a slow server: drawing while tiles come, and what is fetched for a place",
        (("what", "", "s"), ("delay_ms", "a tile takes, ms", "n"), ("blocks_per_s", "blocks/s", "n"),
         ("wall_ratio", "ratio", "x"), ("tiles_a_place", "tiles a place", "n"), ("kb_a_place", "kB a place", "n")),
        "python -m benchmarks.fetching",
    ),
    "encoder_share": Measured(
        "How much of the time the encoder takes",
        (("encoder", "encoder", "s"), ("px", "pixels", "n"), ("places_per_s", "places/s", "n"),
         ("places_per_cpu_s", "per core-second", "n"), ("share", "in the encoder", "%")),
        "python -m benchmarks.encoder_share ATLAS",
    ),
    "search": Measured(
        "Finding the nearest embeddings",
        (("way", "", "s"), ("places", "places", "n"), ("build_s", "to build, s", "n"),
         ("ms", "ms a question", "n"), ("recall", "of the true 10", "%"),
         ("mib", "memory, MiB", "n")),
        "python -m benchmarks.search",
    ),
    "probes": Measured(
        "Table 1's frozen column at the scale of ResNet-50, Japan",
        (("probe", "", "s"), ("points", "points", "n"),
         ("cpu_seconds_a_draw", "core-seconds a draw", "n"), ("cells", "rows x splits", "n"),
         ("column_cpu_seconds", "core-seconds, all", "n")),
        "python -m benchmarks.probes",
    ),
    "growth": Measured(
        "How cost grows",
        (("what", "", "s"), ("grows", "with", "s"), ("slope", "exponent", "n"), ("why", "", "s")),
        "python -m benchmarks.growth",
    ),
    "kills": Measured(
        "Killed at random moments, and gone on: what was found wrong",
        (("work", "", "s"), ("seconds", "undisturbed, s", "n"), ("kills", "kills", "n"),
         ("wrong", "faults after kills", "n"), ("two_at_once_wrong", "faults of two at once", "n")),
        "python -m benchmarks.kills",
    ),
    "fuzz": Measured(
        "Damaged files: what was found wrong",
        (("file", "", "s"), ("inputs", "inputs", "n"), ("failed", "faults", "n"), ("longest_s", "longest, s", "n")),
        "python -m benchmarks.fuzz",
    ),
    "scale": Measured(
        "What very many coordinates would take: core hours of drawing and encoding, hours of one machine and of a "
        "cluster (computed from rates measured for it)",
        (("what", "", "s"), ("way", "", "s"), ("drawing_core_hours", "drawing", "n"),
         ("encoding_core_hours", "encoding", "n"), ("machine_hours", "machine", "n"), ("cluster_hours", "cluster", "n"),
         ("usd", "USD", "n")),
        "python -m benchmarks.scale",
    ),
    "cost": Measured(
        "What the paper's own scale would take (computed)",
        (("item", "", "s"), ("value", "", "n"), ("unit", "", "s"), ("how", "", "s")),
        "python -m benchmarks.cost",
    ),
}  # fmt: skip


def measurement(name: str) -> pd.DataFrame | None:
    """The rows of a measurement, None where it has not been made; raises InputError for a name that is none."""
    if name not in MEASURED:
        raise unknown("measurement", name, MEASURED)
    return published.results(name, published.MEASUREMENTS)


def _text(value: object, form: str) -> str:
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return "–"
    if form == "s":
        return html.escape(_words(str(value)))
    number = float(str(value))
    if form == "%":
        return f"{100 * number:.1f} %"
    text = f"{number:,.0f}" if abs(number) >= 1000 or number == int(number) else f"{number:.3g}"
    return f"{text} ×" if form == "x" else text


# What the scripts call things, in the book's words.
_NAMES = {
    "ridge (frozen-closed)": "ridge probe", "linear layer, 50 epochs (frozen)": "linear layer, 50 epochs",
    "image_px": "side of an image", "part": "parts of a step", "operator": "operators",
    "drawn in the call": "map drawn in the call", "ready": "map ready",
}  # fmt: skip


def _words(name: str) -> str:
    kind, _, method = name.partition(" ")
    if kind == "pretraining" and method:
        return f"pretraining {row_label(method)}"
    return re.sub(r"^resnet(\d+) x([\d.]+)$", r"ResNet-\1, width × \2", _NAMES.get(name, name))


def _cell(text: str, form: str) -> str:
    return f'<td class="words">{text}</td>' if form == "s" else td(text)


def measurement_table(name: str) -> Html:
    """A measurement for a page, with the devices, loads, commits and dates it comes from and its command."""
    about, rows = MEASURED[name], measurement(name)
    if rows is None:
        return Html(f'<p class="selm-foot">{about.title}: not measured yet (<code>{about.command}</code>).</p>')
    shown = rows.drop_duplicates(["grows", "what"]) if name == "growth" else rows
    if {"least", "greatest"} <= set(rows):
        shown = shown.assign(rounds=[f"{a:.3g} to {b:.3g}" for a, b in shown[["least", "greatest"]].to_numpy()])
    columns = [column for column in about.columns if column[0] in shown]
    head = "<tr>" + "".join(f"<th>{heading}</th>" for _, heading, _ in columns) + "</tr>"
    body, section = "", None
    for row in shown.to_dict("records"):
        if about.section in row and row[about.section] != section:
            section = row[about.section]
            body += f'<tr class="section"><td colspan="{len(columns)}">{_text(section, "s")}</td></tr>'
        body += f"<tr>{''.join(_cell(_text(row[column], form), form) for column, _, form in columns)}</tr>"
    facts = []
    for column, word in (("device", ""), ("threads", "threads"), ("load", "load"), ("commit", "commit"), ("date", "")):
        if column in rows:
            values = ", ".join(dict.fromkeys(str(value) for value in rows[column].dropna()))
            facts.append(f"{word} {values}".strip())
    commands = rows["command"].drop_duplicates() if "command" in rows else [about.command]
    again = ", ".join(f"<code>{html.escape(str(command))}</code>" for command in commands)
    foot = f'<p class="selm-foot">{html.escape("; ".join(facts))}. Again: {again}</p>'
    return Html(html_table(about.title, head, body) + foot)


def answer() -> Html:
    """The page in a few numbers: a step beside its peers, drawing beside tile by tile, and a place's cost; what has not
    been measured is left out."""
    said = []
    steps, drawn, places = (measurement(name) for name in ("pretraining", "drawing", "coordinates"))
    if steps is not None:
        peers = [row for row in steps.to_dict("records") if not str(row["way"]).startswith("ours")]
        ratios = "; ".join(f"**{1 / row['cpu_ratio']:.1f} ×** as fast as {row['way']}" for row in peers)
        said.append(f"Our pretraining step (DINO) is {ratios}.")
    if drawn is not None:
        best = drawn[drawn["way"] == "block by block"]
        said.append(f"Maps drawn block by block come at least **{best['ratio'].min():.0f} ×** as fast as tile by tile.")
    if places is not None:
        first = places.iloc[0]
        said.append(f"The default encoder embeds **{first['places_per_cpu_s']:.0f} places** a second of one core.")
    return prose(" ".join(said), "selm-answer") if said else prose("Nothing has been measured yet.", "selm-answer")


_AXES = {
    "places": "number of places", "blocks": "blocks of map drawn", "image_px": "side of a global view, px",
    "classes": "number of classes", "trials": "number of trials",
}  # fmt: skip


def growth_figure(rows: pd.DataFrame) -> Figure:
    """Processor time (left, logarithmic; grey: linear growth) and the memory that the work added (right), a row a
    size."""
    import matplotlib.pyplot as plt
    import numpy as np

    from reproduction.pages.style import COLOURS, MARKERS, WIDTH, use_style

    use_style()
    kinds = [kind for kind in _AXES if (rows["grows"] == kind).any()]
    figure, axes = plt.subplots(len(kinds), 2, figsize=(WIDTH, 0.3 + 2.0 * len(kinds)), squeeze=False)
    for (left, right), kind in zip(axes, kinds, strict=True):
        part = rows[rows["grows"] == kind]
        jobs = list(part.groupby("what", sort=False))
        for i, (what, one) in enumerate(jobs):
            one = one.sort_values("size")
            ink = {"marker": MARKERS[i % 8], "markersize": 4, "color": COLOURS[i % 8]}
            left.plot(one["size"], one["seconds"], **ink)
            right.plot(one["size"], one["mib_added"], label=str(what), **ink)
        sizes = np.array(sorted(set(part["size"])), float)
        top = part.loc[part["size"] == sizes[-1], "seconds"].max()
        left.plot(
            sizes, top * (sizes / sizes[-1]) ** (2 if kind == "image_px" else 1), color="0.75", linewidth=1, zorder=0
        )
        left.set(xscale="log", yscale="log", ylabel="processor seconds")
        right.set(xscale="log", ylim=(0, None), ylabel="memory added, MiB")
        for axis in (left, right):
            names = [f"10$^{round(np.log10(size))}$" if size >= 1000 else f"{size:g}" for size in sizes]
            axis.set_xticks(sizes, names)
            axis.minorticks_off()
            axis.set_xlabel(_AXES[kind])
        right.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=7)
    return figure

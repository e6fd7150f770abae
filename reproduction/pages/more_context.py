"""The page on more context: which zooms the validation regions chose, what they add, and the error by zoom."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from reproduction.pages.html import PROFILE_WORDS, Html, fixed, picture, prose, simple_table
from reproduction.pages.style import SPLIT_LABELS
from reproduction.report import records, summarise
from reproduction.titles import COMPACT, HEAD, LAST_STAGE, ONE_ORIENTATION, REGIONS, km_of, title_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPLITS = ("random", "blocks")  # those of Table 1; wider buffers are named in the split


def chosen_zooms(rows: pd.DataFrame) -> pd.DataFrame:
    """Of the rows of the chapter on more context, those of each row's best number of zooms in the validation regions.

    With the coordinates and without are two choices, and so is each wider buffer. Rows that chose nothing (trees as
    they come) are kept; asides (one orientation, the last stage) and rows with a head (`head_table`) are left out.
    """
    rows = without_heads(rows)
    rows = rows[~rows["setting"].str.contains(f"{ONE_ORIENTATION}|{LAST_STAGE}")]
    beside = rows["setting"].str.endswith("coordinates")
    wider = rows["split"].where(~rows["split"].isin(SPLITS), "")
    best = rows.groupby([rows["method"], beside, wider])["validation"].transform("min")
    return rows[rows["validation"].isna() | (rows["validation"] == best)]


def without_heads(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows without a head that other regions teach."""
    return rows[~rows["method"].str.endswith(HEAD)]


def by_buffer(rows: pd.DataFrame) -> pd.DataFrame:
    """The chapter on more context under blocks, a row for each encoder, with the coordinates or without: its error at
    the zooms that were chosen under each buffer; best first under the widest.

    Columns: method, coordinates (bool), a column a buffer by its split ("blocks", "blocks, 5 km", …; mean squared
    error, NaN where it has no row), "regions" where some were asked so (at all zooms), zooms (those chosen under the
    widest buffer that it has).
    """
    some = chosen_zooms(rows[rows["split"] != "random"])
    table = summarise(some)
    table["coordinates"] = table["setting"].str.endswith("coordinates")
    blocks = table[table["split"] != REGIONS]
    splits = sorted(blocks["split"].unique(), key=km_of)
    far = [REGIONS] if REGIONS in set(table["split"]) else []
    wide = table.pivot(index=["method", "coordinates"], columns="split", values="mean")[[*splits, *far]]
    nearest_first = blocks.sort_values("split", key=lambda column: column.map(km_of))
    wide["zooms"] = nearest_first.groupby(["method", "coordinates"])["setting"].last().map(zooms_title)
    order = [*reversed(splits), "method"]
    return wide.reset_index().sort_values(order, ignore_index=True).rename_axis(columns=None)


def headline(rows: pd.DataFrame) -> str:
    """The split that the chapter's answer is given under: blocks with the widest buffer that was asked."""
    return max((str(split) for split in rows["split"].unique() if split.startswith("blocks")), key=km_of)


def split_title(split: str) -> str:
    """ "blocks, 15 km" → "spatial blocks, 15 km away"."""
    return f"spatial blocks, {km_of(split):g} km away" if km_of(split) else SPLIT_LABELS.get(split, split)


def zooms_title(setting: str) -> str:
    """ "zooms 17-16-15-14, coordinates" → "zooms 17-14"."""
    return re.sub(r"(\d+)(?:-\d+)*-(\d+)", r"\1-\2", setting.removesuffix(", coordinates"))


def what_it_adds(rows: pd.DataFrame, aside: str) -> pd.DataFrame:
    """For the chapter on more context: its rows at all zooms beside their `aside` (of `reproduction.titles`), which
    lacks what they have.

    Columns: method, coordinates (bool), split, without, with (mean squared errors); a row where both are there.
    """
    table = summarise(rows[rows["validation"].notna()])
    table["coordinates"] = table["setting"].str.endswith("coordinates")
    table["seen"] = np.where(table["setting"].str.contains(aside), "without", "with")
    table["setting"] = table["setting"].str.replace(aside, "")
    keys = ["method", "coordinates", "split", "setting"]
    table["order"] = table["method"].map({name: place for place, name in enumerate(dict.fromkeys(rows["method"]))})
    wide = table.pivot(index=["order", *keys], columns="seen", values="mean").reindex(columns=["without", "with"])
    wide = wide.dropna().reset_index().sort_values(["coordinates", "order", "split"], ascending=[True, True, False])
    return wide[["method", "coordinates", "split", "without", "with"]].rename_axis(columns=None).reset_index(drop=True)


def wider_context(rows: pd.DataFrame) -> pd.DataFrame:
    """The chapter on more context, a row for each encoder, with the coordinates or without, at its `chosen_zooms`.

    Columns: method, coordinates (bool), zooms, validation (mean squared error there), random and blocks ("mean ± sd").
    """
    some = chosen_zooms(rows[rows["split"].isin(SPLITS)])
    table = summarise(some)
    table["text"] = [f"{mean:.3f} ± {sd:.3f}" for mean, sd in zip(table["mean"], table["sd"], strict=True)]
    wide = table.pivot(index=["method", "setting"], columns="split", values="text").reset_index()
    validation = some.groupby(["method", "setting"])["validation"].first()
    out = wide.assign(
        validation=[validation[key] for key in zip(wide["method"], wide["setting"], strict=True)],
        coordinates=wide["setting"].str.endswith("coordinates"),
        zooms=wide["setting"].map(zooms_title),
    )
    order = out["method"].map({name: place for place, name in enumerate(dict.fromkeys(rows["method"]))})
    out = out.assign(order=order).sort_values(["coordinates", "order"]).reset_index(drop=True)
    splits = [name for name in SPLITS if name in out]
    return out[["method", "coordinates", "zooms", "validation", *splits]]


def answer(rows: pd.DataFrame | None) -> Html:
    """The answer in two sentences: what the best encoder gains by several zooms, and what needs none."""
    if rows is None:
        return prose("No reference run of this question has been published yet.", "selm-answer")
    split = headline(rows)
    chosen = _by_blocks(chosen_zooms(rows), split)
    without, beside = (chosen[chosen["coordinates"] == known] for known in (False, True))
    ours = without[without["kind"] == "encoder"]
    if not len(ours):
        return prose("The reference run has no encoder that learned at several zooms yet.", "selm-answer")
    best = next(records(ours))
    one = _by_blocks(rows[(rows["method"] == best.method) & (rows["setting"] == "zooms 17")], split)
    near = _by_blocks(chosen_zooms(rows), "blocks").query("method == @best.method and not coordinates")
    profile = str(rows["profile"].iloc[0])
    first = f"{title_of(best.method)} at {best.zooms} reaches a mean squared error of **{best.mean:.3f}** (land price, "
    first += f"{split_title(split)}; {PROFILE_WORDS.get(profile, profile)})"
    first += f"; at zoom 17 alone it reaches {one['mean'].iloc[0]:.3f}" if len(one) else ""
    if split != "blocks" and len(near):
        first += f"; next door, where images overlap, {near['mean'].iloc[0]:.3f} at {near['zooms'].iloc[0]}"
    others = {"random": "which has learned nothing", "colours": "which needs no encoder"}
    parts = [
        f"{title_of(row.method)}, {words}, reaches {row.mean:.3f}"
        for kind, words in others.items()
        for row in records(without[without["kind"] == kind].head(1))
    ]
    known = beside[beside["method"] == best.method]
    parts += [f"with the coordinates beside it the same encoder is at {row.mean:.3f}" for row in records(known.head(1))]
    second = "; ".join(parts)
    return prose(" ".join(f"{one[:1].upper()}{one[1:]}." for one in (first, second)), "selm-answer")


def _by_blocks(rows: pd.DataFrame, split: str = "blocks") -> pd.DataFrame:
    """Rows under a split, the best first: method, zooms, coordinates, kind (what it is made of), mean, sd."""
    table = summarise(rows[rows["split"] == split])
    table["coordinates"] = table["setting"].str.endswith("coordinates")
    table["zooms"] = table["setting"].map(zooms_title)
    table["kind"] = "one zoom"
    kinds = {"encoder": ("multi_zoom", COMPACT), "random": ("random_init",), "colours": ("colours", "histogram")}
    for kind, start in kinds.items():
        table.loc[table["method"].str.startswith(start), "kind"] = kind
    return table.sort_values("mean", kind="stable", ignore_index=True)


def zoom_picture(rows: pd.DataFrame, practitioner: Mapping[str, float] | None = None) -> Html:
    """`error_by_zoom` with its caption."""
    caption = (
        "**Error against the zooms in the embedding**, without the coordinates (left) and beside them (right). Dotted: "
        "the best row of Table 1 without an embedding."
    )
    split = headline(rows)
    chosen = records(_by_blocks(chosen_zooms(rows), split))
    said = "; ".join(f"{title_of(row.method)}, {row.zooms}, {row.mean:.3f}" for row in chosen)
    figure = error_by_zoom(rows, practitioner=practitioner)
    alt = f"Lines of mean squared error against zooms. As chosen, {split_title(split)}: {said}."
    return picture(figure, caption, alt, profile=str(rows["profile"].iloc[0]))


def chosen_table(rows: pd.DataFrame) -> Html:
    """A row an encoder, the best first: its error in the `headline`, at the zooms that the validation regions chose."""
    split = headline(rows)
    table = _by_blocks(chosen_zooms(rows), split)
    body = []
    for method in dict.fromkeys(table.sort_values("coordinates", kind="stable")["method"]):
        cells = [title_of(str(method))]
        for known in (False, True):
            one = next(records(table[(table["method"] == method) & (table["coordinates"] == known)]), None)
            error = "–" if one is None else f"{one.mean:.3f}<small> ± {fixed(one.sd, 3)}</small>"
            cells += ["–" if one is None else one.zooms.removeprefix("zooms "), error]
        body.append(cells)
    head = ["row", "zooms", "without coordinates", "zooms", "with the coordinates"]
    return simple_table(head, {"": body}, f"Mean squared error: {split_title(split)}")


def buffer_table(rows: pd.DataFrame) -> Html:
    """`by_buffer` as a table, the widest buffer first; rows of trees, which chose nothing, are left out."""
    table = by_buffer(rows[rows["validation"].notna()])
    splits = sorted((str(column) for column in table if str(column).startswith("blocks")), key=km_of, reverse=True)
    names = [split.removeprefix("blocks, ") if "," in split else "1 km" for split in splits]
    if REGIONS in table:
        splits, names = [REGIONS, *splits], ["other regions", *names]
    parts = {}
    for beside, words in ((False, "Without the coordinates"), (True, "With the coordinates")):
        parts[words] = [
            [title_of(row["method"]), *(fixed(row[split], 3) for split in splits), row["zooms"].removeprefix("zooms ")]
            for row in table[table["coordinates"] == beside].to_dict("records")
        ]
    caption = "Mean squared error by the buffer between training and test points; zooms as chosen under the widest"
    caption += ", but all of them where the probe learned from other regions" if REGIONS in table else ""
    return simple_table(["row", *names, "zooms"], {key: body for key, body in parts.items() if body}, caption)


def best_head(rows: pd.DataFrame | None, split: str) -> float:
    """The least error of a row with a head under a split; NaN where there is none."""
    if rows is None:
        return float("nan")
    some = rows[rows["method"].str.endswith(HEAD) & (rows["split"] == split)]
    return float(some.groupby(["method", "setting"])["value"].mean().min())


def head_table(rows: pd.DataFrame) -> Html:
    """Rows of all zooms without and with a head of other regions, by buffer; nothing where no head was asked."""
    with_head = rows[rows["method"].str.endswith(HEAD)]
    if not len(with_head):
        return Html("")
    whole = set(with_head["setting"])
    pairs = rows[rows["setting"].isin(whole)].assign(base=lambda some: some["method"].str.removesuffix(HEAD))
    taught = {COMPACT, *with_head["method"].str.removesuffix(HEAD)}
    pairs = pairs[pairs["base"].isin(taught) & (pairs["split"] != REGIONS)]
    means = pairs.groupby(["setting", "method", "split"])["value"].mean().unstack()
    splits = sorted((s for s in map(str, means) if s.startswith("blocks")), key=km_of, reverse=True)
    names = [f"{km_of(split) or 1:g} km" for split in splits]
    splits, names = [*splits, "random"], [*names, "random folds"]
    sections = {}
    for setting in sorted(whole, key=len):
        words = "With the coordinates" if setting.endswith("coordinates") else "Without the coordinates"
        of = means.loc[setting].sort_values(splits[0])
        sections[words] = [
            [title_of(str(method)), *(fixed(float(row[split]), 3) for split in splits)] for method, row in of.iterrows()
        ]
    return simple_table(["row, zooms 17-10", *names], sections, "Mean squared error by the buffer")


def validation_table(rows: pd.DataFrame) -> Html:
    """The same with random folds and the validation regions' own error."""
    wide = wider_context(rows)
    splits = {
        split: words for split, words in (("blocks", "spatial blocks"), ("random", "random folds")) if split in wide
    }
    sections: dict[str, list[list[str]]] = {}
    for row in wide.to_dict("records"):
        heading = "With the coordinates" if row["coordinates"] else "Without the coordinates"
        cells = [
            title_of(str(row["method"])),
            str(row["zooms"]).removeprefix("zooms "),
            *(str(row[split]) for split in splits),
        ]
        sections.setdefault(heading, []).append([*cells, fixed(float(row["validation"]), 3)])
    return simple_table(["row", "zooms", *splits.values(), "validation"], sections, "Mean squared error")


def every_zoom_table(rows: pd.DataFrame) -> Html:
    """Mean squared error under spatial blocks: a row an encoder, a column a number of zooms."""
    rows = without_heads(rows)
    rows = rows[rows["validation"].notna() & ~rows["setting"].str.contains(f"{ONE_ORIENTATION}|{LAST_STAGE}")]
    table = _by_blocks(rows)
    table["row"] = table["method"].map(title_of) + table["coordinates"].map({True: " + coordinates", False: ""})
    wide = table.pivot(index="row", columns="zooms", values="mean")
    zooms = sorted(wide.columns, key=lambda text: -int(text[-2:]))
    wide = wide.loc[list(dict.fromkeys(table["row"])), zooms]
    body = [[str(title), *(fixed(float(value), 3) for value in row)] for title, row in wide.iterrows()]
    return simple_table(["row", *(name.removeprefix("zooms ") for name in zooms)], {"": body})


def asides_table(rows: pd.DataFrame, aside: str, names: tuple[str, str]) -> Html:
    """What an aside lacks, without and with it (`names`): a row an encoder, with `what_it_adds` at all zooms."""
    ways = what_it_adds(rows, aside)
    ways["row"] = ways["method"].map(title_of) + ways["coordinates"].map({True: ", with coordinates", False: ""})
    wide = ways.pivot(index="row", columns="split", values=["without", "with"]).loc[list(dict.fromkeys(ways["row"]))]
    levels = (wide.columns.get_level_values(level) for level in (0, 1))
    head = [f"{names[way == 'with']}, {split}" for way, split in zip(*levels, strict=True)]
    body = [[str(title), *(fixed(float(value), 3) for value in row)] for title, row in wide.iterrows()]
    return simple_table(["row", *head], {"": body})


def goal_table(rows: pd.DataFrame, goals: Mapping[bool, float]) -> Html:
    """What a goal (coordinates or not → error) is reached by, and how much of it needs no such encoder."""
    table = _by_blocks(chosen_zooms(rows))
    sections: dict[str, list[list[str]]] = {}
    others = {"colours": "colours of the same images", "random": "random weights", "one zoom": "one zoom in training"}
    for known, goal in goals.items():
        some = table[table["coordinates"] == known]
        lines = [
            ["goal reached" if row.mean <= goal else "not reached", row]
            for row in records(some[some["kind"] == "encoder"])
        ]
        lines += [[words, row] for kind, words in others.items() for row in records(some[some["kind"] == kind].head(1))]
        body = [
            [title_of(row.method), row.zooms.removeprefix("zooms "), f"{row.mean:.3f}", words] for words, row in lines
        ]
        sections[f"{goal:.2f} {'with the coordinates' if known else 'without coordinates'}"] = body
    return simple_table(["row", "zooms", "error", ""], sections)


def error_by_zoom(results: pd.DataFrame, *, practitioner: Mapping[str, float] | None = None) -> Figure:
    """Error against the zooms that an embedding is made of, without and beside the coordinates: a row for blocks and
    one for the `headline`, or for random folds where that is blocks.

    results: rows of `reproduction.beyond.more_context.experiment`.  practitioner: split → the error of the best row
    without an embedding, drawn as a line across.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, ScalarFormatter

    from reproduction.pages.style import (
        MARKERS,
        METRIC_LABELS,
        WIDTH,
        look,
        row_label,
        use_style,
    )

    use_style()
    results = without_heads(results)
    shown = ("blocks", headline(results)) if headline(results) != "blocks" else SPLITS
    table = summarise(results[results["split"].isin(shown)])
    named = table["setting"].str.extract(r"^zooms ([\d-]+)(, coordinates)?$")  # asides are left out
    table = table.assign(zooms=named[0], beside=named[1].notna()).dropna(subset="zooms")
    splits_ = [split for split in shown if split in set(table["split"])]
    methods = list(dict.fromkeys(table["method"]))
    zooms = sorted(table["zooms"].unique(), key=lambda text: text.count("-"))
    height = 1.2 + 2.4 * len(splits_) + 0.1 * len(methods)  # the legend has a line for two of them
    figure, axes = plt.subplots(len(splits_), 2, figsize=(WIDTH, height), sharey="row", sharex=True, squeeze=False)
    for (split, beside), axis in zip(itertools.product(splits_, (False, True)), axes.flat, strict=True):
        for m, method in enumerate(methods):
            rows = table[(table["split"] == split) & (table["method"] == method) & (table["beside"] == beside)]
            at = [zooms.index(one) for one in rows["zooms"]]
            rows = rows.assign(at=at).sort_values("at")  # a row may be seen at some of the zooms only
            axis.errorbar(
                rows["at"], rows["mean"], yerr=rows["sd"].fillna(0.0), marker=MARKERS[m % len(MARKERS)], markersize=4,
                markerfacecolor=None if m < len(MARKERS) else "white",
                capsize=2, label=row_label(method), **look(method).line(),
            )  # fmt: skip
        if practitioner and split in practitioner:
            axis.axhline(
                practitioner[split], color="0.45", linestyle=":", linewidth=1.2,
                label="best of Table 1 without an embedding",
            )  # fmt: skip
        axis.set_yscale("log")  # what the last zooms add is small beside what the first ones lack
        low, high = table.loc[table["split"] == split, "mean"].agg(["min", "max"])
        axis.set_ylim(0.85 * low, 1.2 * high)  # bars of the worst rows may leave the picture
        axis.yaxis.set_major_formatter(ScalarFormatter())
        axis.yaxis.set_minor_formatter(FuncFormatter(lambda tick, _: f"{tick:g}" if f"{tick:g}"[-1] in "235" else ""))
        axis.set_xticks(range(len(zooms)), [text if text.count("-") == 0 else f"17-{text[-2:]}" for text in zooms])
        axis.set_title(f"{split_title(split)}, {'beside' if beside else 'without'} the coordinates")
        axis.grid(axis="y", which="both", color="0.9", linewidth=0.6)
    for axis in axes[-1]:
        axis.set_xlabel("zooms in the embedding")
    for axis in axes[:, 0]:
        axis.set_ylabel(f"{METRIC_LABELS['mse']} (lower is better)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure

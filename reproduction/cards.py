"""The cards of the encoders that come along, and the list of them that `selm.bundled` reads: computed from their runs
and from published results, never typed in.

``python -m reproduction encoders`` writes both anew: after an encoder or a result has been published, so that names,
scores, the order, how each is used and which is taken where none is named follow from `data/`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import textwrap
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from reproduction import paths
from reproduction.profiles import get_profile
from reproduction.report import FULL_SCALE
from reproduction.results import read_csv
from reproduction.rows import LONGER
from reproduction.settings import Profile
from reproduction.titles import COMPACT, HEAD, LAST_STAGE, ONE_ORIENTATION, km_of, title_of
from selm.bundled import LIST, REDUCTION, Bundled, described
from selm.errors import InputError
from selm.files import read_json, write_text
from selm.methods import METHODS

# what needs no encoder: its name in the list, and its rows in Table 1 and in the chapter on what an embedding knows
FREE = {
    "trees on the colours, zooms 17-14": "histogram_17_14",
    "5 nearest by coordinates": "knn_coordinates",
    "the mean of the others": "prior",
}
_MARKS = ("<!-- written by python -m reproduction encoders -->", "<!-- until here -->")  # in the README
SAME_COLOURS = "the same images' colours"
_COLUMNS = ["method", "km", "probe", "zooms", "orientations", "stages", "beside", "validation", "error", "date"]
_LEARNED = {
    "price": "land prices", "density": "population densities", "coordinates": "coordinates",
    "geo_classes": "coordinates",
}  # fmt: skip


def scores(profile: Profile, results: Path) -> pd.DataFrame:
    """Published errors on land prices of the test region under spatial blocks, the first pretraining run's.

    A row a method, distance `km` between training and tested places, and way of use; `validation` is the error in the
    validation regions, where ways were chosen by it. Zooms, orientations and stages are empty where a method is used as
    it was trained. Mean squared errors, over all trials.
    """
    parts = [pd.DataFrame(columns=_COLUMNS)]
    if (file := results / "surroundings.csv").exists():
        rows = read_csv(file)
        rows = rows[(rows["target"] == "l01") & (rows["split"].str.startswith("blocks")) & (rows["seed"] == 0)]
        rows = rows[rows["validation"].notna() & ~rows["setting"].str.contains("coordinates")]
        rows = rows[~rows["method"].str.endswith(HEAD)]  # a way of use that encoders do not have by themselves
        ways = rows.groupby(["split", "method", "setting"], sort=False).agg(
            error=("value", "mean"),
            validation=("validation", "first"),
            stages=("stages", "first"),
            date=("date", "max"),
        )
        for way in ways.reset_index().to_dict("records"):
            method, setting = str(way["method"]), str(way["setting"])
            zooms = re.fullmatch(rf"zooms ([\d-]+)({ONE_ORIENTATION}|{LAST_STAGE})?", setting)
            assert zooms, setting
            name, _, beside = method.partition("+")
            parts.append(pd.DataFrame([{
                "method": name, "km": km_of(way["split"]) or profile.maps.buffer_m / 1000, "probe": "kernel ridge",
                "zooms": tuple(map(int, zooms[1].split("-"))),
                "orientations": 1 if zooms[2] == ONE_ORIENTATION else profile.surroundings.orientations,
                "stages": tuple(map(int, way["stages"].split("-"))) if "-" in str(way["stages"]) else (4,),
                "beside": (beside,) if beside else (), "validation": way["validation"], "error": way["error"],
                "date": way["date"],
            }]))  # fmt: skip
    closed = {"frozen-closed": "ridge", "closed": "ridge", "practitioner": "as it comes"}
    region = profile.regions_for("test")[0].name
    for name, query in (
        ("table1.csv", "target == 'l01' and split == 'blocks'"),
        ("knowledge.csv", f"target == 'price' and region == '{region}' and buffer_km > 1"),
    ):
        if (results / name).exists():
            rows = read_csv(results / name).query(query)
            rows = rows[(rows["metric"] == "mse") & (rows["seed"] == 0) & rows["setting"].isin(list(closed))]
            rows = rows.assign(km=rows["buffer_km"] if "buffer_km" in rows else profile.maps.buffer_m / 1000)
            means = (
                rows.groupby(["method", "km", "setting"], sort=False)
                .agg(error=("value", "mean"), date=("date", "max"))
                .reset_index()
            )
            parts.append(means.assign(probe=means["setting"].map(closed)))
    table = pd.concat([part for part in parts if len(part)] or parts, ignore_index=True).reindex(columns=_COLUMNS)
    return table.astype({"km": float, "validation": float, "error": float})


def _short(profile: str, row: str) -> str:
    """An encoder's name: its profile's (japan-cpu is japan) and its row's."""
    row = re.sub(r"multi_zoom_wide(_x\d+)?", "wide", row)
    return f"{profile.removesuffix('-cpu')}-{row.replace('_', '-')}"


@dataclasses.dataclass(frozen=True)
class Described:
    """An encoder of `data/encoders` with what its card says of it."""

    bundled: Bundled
    profile: Profile
    run: dict[str, Any]
    config: dict[str, Any]
    scores: pd.DataFrame  # its own rows of `scores`, and those of what is free
    whole_errors: dict[str, float]  # where it comes with a reduction: those of all its numbers
    validation: float  # the error by which its way of use was chosen; infinite where none was

    @property
    def learned_prices(self) -> bool:
        return "land prices" in self.bundled.trained_on

    def free(self, km: str) -> dict[str, float]:
        """The errors of what needs no encoder: the colours of the same images, where they were scored, and the rest."""
        at = self.scores[self.scores["km"] == float(km)]
        same = at[(at["method"] == "colours") & (at["zooms"] == self.bundled.zooms)]
        found = {SAME_COLOURS: float(same["error"].iloc[0])} if len(same) else {}
        for name, method in FREE.items():
            rows = at.loc[at["method"] == method, "error"]
            found |= {name: float(rows.iloc[0])} if len(rows) else {}
        return found


def describe(folder: Path, results: Path) -> Described:
    """An encoder in ``PROFILE/ROW``, by its run and what is published in `results`/PROFILE."""
    profile, row = get_profile(folder.parent.name), folder.name
    run, config = read_json(folder / "run.json"), read_json(folder / "config.json")
    all_scores = scores(profile, results / profile.name)
    # rows from before it was trained are of another training of the same row
    own = all_scores[(all_scores["method"] == row) & (all_scores["date"] >= run["date"])]
    ways = own[own["validation"].notna() & (own["km"] == profile.maps.buffer_m / 1000)]
    zooms = tuple(METHODS[run["config"]["method"]].zooms) or (config["zoom"], *config["context_zooms"])
    use: dict[str, Any] = {"zooms": zooms, "orientations": 1, "stages": (4,), "beside": ()}
    chosen = ways.nsmallest(1, "validation")
    for way in chosen.to_dict("records"):
        use = {name: way[name] for name in use} | {"orientations": int(way["orientations"])}
    same = [way for way in own.to_dict("records") if all(way[name] == use[name] for name in use)]
    whole = _by_km(pd.DataFrame(same, columns=_COLUMNS))
    reduction: dict[str, Any] = run.get("reduction", {})
    kernels = all_scores[(all_scores["method"] == COMPACT) & (all_scores["probe"] == "kernel ridge")]
    reduced = kernels[kernels["date"] >= reduction.get("date", "")]
    if reduction and len(reduced):
        chosen, same = reduced[reduced["km"] == profile.maps.buffer_m / 1000], reduced.to_dict("records")
    else:
        reduction = {}  # one that is not scored is not used
    learned = _learned(run["config"].get("settings", {}))
    regions = ", ".join(region.name.capitalize() for region in profile.regions_for("pretrain"))
    trained_on = f"{run['config']['pretraining']['n_places']:,} places in {regions}" + (
        f"; with {', '.join(learned)}" if learned else "; images alone"
    )
    bundled = Bundled(
        name=_short(profile.name, row), folder=f"{profile.name}/{row}", title=title_of(row),
        encoder=f"{config['arch']} x{config['width']:g}, {config['image_px']} px",
        bytes=sum(file.stat().st_size for file in folder.glob("*.safetensors")), trained_on=trained_on,
        reduction=f"{profile.name}/{row}/{REDUCTION}" if reduction else "", numbers=reduction.get("numbers", 0),
        errors=_by_km(pd.DataFrame(same, columns=_COLUMNS)),
        trained_errors=_by_km(own[own["zooms"].isna()]), **use,
    )  # fmt: skip
    validation = float(chosen["validation"].min()) if len(chosen) else math.inf
    return Described(bundled, profile, run, config, all_scores, whole if reduction else {}, validation)


def _learned(settings: dict[str, Any]) -> list[str]:
    """What an encoder learned from besides images, by its method's settings."""
    terms = settings.get("terms", settings)
    return [words for term, words in _LEARNED.items() if terms.get(term)]


def _by_km(rows: pd.DataFrame) -> dict[str, float]:
    ordered = rows.sort_values("km")
    return {f"{km:g}": round(float(error), 4) for km, error in zip(ordered["km"], ordered["error"], strict=True)}


def written(encoders: Path | None = None, results: Path | None = None) -> dict[Path, str]:
    """What the cards and the list must be, by file.

    encoders, results: folders, those of the repository by default. The list has the best first: by the error in the
    validation regions, where that chose the way of use, then by the published error. The first is the default.
    """
    encoders = encoders or paths.encoders()
    results = results or paths.repository() / "data" / "results"
    found = [describe(file.parent, results) for file in sorted(encoders.glob("*/*/config.json"))]
    if not found:
        return {}

    def rank(one: Described) -> tuple[float, float]:
        errors = {**one.bundled.trained_errors, **one.bundled.errors}
        return one.validation, errors[min(errors, key=float)] if errors else math.inf

    found.sort(key=rank)
    names = [one.bundled.name for one in found]
    if len(set(names)) < len(names):
        raise InputError(f"{encoders}: two encoders would have one name ({', '.join(sorted(names))})")
    out = {encoders / one.bundled.folder / "README.md": card(one) for one in found}
    first = found[0]
    free: dict[str, dict[str, float]] = {}
    for km in sorted({f"{km:g}" for km in first.scores["km"].dropna()}, key=float):
        for name, error in first.free(km).items():
            free.setdefault(f"free: {name}", {})[km] = round(error, 4)
    whole = {
        "default": first.bundled.name, "measure": measure(first.profile), "limits": limits(first.profile), "free": free,
        "encoders": [dataclasses.asdict(one.bundled) for one in found],
    }  # fmt: skip
    out[encoders / LIST] = json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
    readme = paths.repository() / "README.md"
    # of no other encoders than the repository's own does the README speak
    if encoders == paths.encoders() and paths.repository() in encoders.parents and readme.exists():
        text = readme.read_text(encoding="utf-8")
        before, _, rest = text.partition(_MARKS[0])
        _, _, after = rest.partition(_MARKS[1])
        out[readme] = f"{before}{_MARKS[0]}\n{sentence(first)}\n{_MARKS[1]}{after}"
    return out


def sentence(best: Described) -> str:
    """What the README says of the default encoder, wrapped."""
    errors = best.bundled.errors or best.bundled.trained_errors
    if not errors:
        return "No encoder has been scored yet."
    near, far = (end(errors, key=float) for end in (min, max))
    test = ", ".join(region.name.capitalize() for region in best.profile.regions_for("test"))
    closer = f", {errors[near]:.3f} at {near} km" if near != far else ""
    free = []
    for name, error in best.free(far).items():
        at_near = best.free(near).get(name)
        free.append(f"{name}, {error:.3f}" + (f" ({at_near:.3f})" if closer and at_near is not None else ""))
    text = (
        f"What to expect: on land prices of {test}, {far} km and more from the places that the probe has learned from, "
        f"the default encoder ({best.bundled.name}, {described(best.bundled)}) leaves a squared error of "
        f"**{errors[far]:.3f}** in the standardised logarithm{closer}. Without any encoder: {'; '.join(free)}. "
        "`selm encoders` lists all."
    )
    return textwrap.fill(text, 118, break_long_words=False, break_on_hyphens=False)


def write(encoders: Path | None = None, results: Path | None = None) -> list[Path]:
    """Write the cards and the list; returns the files that changed."""
    changed = []
    for file, text in written(encoders, results).items():
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            write_text(file, text)
            changed.append(file)
    return changed


def measure(profile: Profile) -> str:
    """What an error is."""
    of = "stand-in for land prices, computed from the map," if profile.stand_ins else "logarithm of land prices"
    test = ", ".join(region.name.capitalize() for region in profile.regions_for("test"))
    return (
        f"Numbers are mean squared errors of the standardised {of} in {test}, which no encoder has seen, at least so "
        "many kilometres from the nearest place that the probe has learned from; less is better. Where zooms, "
        "orientations or stages were chosen, other regions chose them."
    )


def limits(profile: Profile) -> str:
    """Where none of these encoders should be used."""
    regions = ", ".join(region.name.capitalize() for region in profile.regions_for("pretrain"))
    return (
        f"All have seen maps of {regions} alone, in one style: elsewhere try one on data of your own first (selm try). "
        "An empty map means little where few people map. Nothing here is fit to judge a person or a single property."
    )


def card(one: Described) -> str:
    """A card as the Hugging Face Hub reads it: front matter, then what a person must know before using the encoder."""
    b, profile, run = one.bundled, one.profile, one.run
    errors = {**b.trained_errors, **b.errors}
    front: dict[str, Any] = {
        "license": "mit", "library_name": "selm", "pipeline_tag": "image-feature-extraction",
        "tags": ["geospatial", "openstreetmap", "location-encoder", "self-supervised-learning"],
    }  # fmt: skip
    if errors:
        results = [
            {"task": {"type": "tabular-regression", "name": "land price"},
             "dataset": {"type": profile.name, "name": f"{profile.name}, spatial blocks, {km} km"},
             "metrics": [{"type": "mse", "value": error}]}
            for km, error in errors.items()
        ]  # fmt: skip
        front["model-index"] = [{"name": b.name, "results": results}]
    every = described(dataclasses.replace(b, reduction=""))
    own = {f"**{b.name}**, used with {described(b)}": ("kernel ridge", b.errors),
           f"**{b.name}**, used with {every}: all numbers": ("kernel ridge", one.whole_errors),
           f"**{b.name}**, as it was trained": ("ridge", b.trained_errors)}  # fmt: skip
    kms = sorted(errors, key=float)
    free: dict[str, tuple[str, dict[str, float]]] = {}
    for km in kms:
        for name, error in one.free(km).items():
            probe = "kernel ridge" if name == SAME_COLOURS else "as it comes"
            free.setdefault(name, (probe, {}))[1][km] = error
    lines = ["| | probe | " + " | ".join(f"{km} km" for km in kms) + " |", "|---|---|" + "---|" * len(kms)]
    for name, (probe, of) in {**own, **{f"free: {name}": row for name, row in free.items()}}.items():
        cells = [f"{of[km]:.3f}" if km in of else "–" for km in kms]
        lines += [f"| {name} | {probe} | " + " | ".join(cells) + " |"] if of else []
    worse = [
        f"At {km} km it is no better than {name}, which needs no encoder."
        for km, error in errors.items()
        for name, (_, of) in free.items()
        if km in of and error >= of[km]
    ]
    scale = "" if profile.name in FULL_SCALE else ", a reduced scale and not the paper's"
    stand_in = profile.stand_ins
    maps = _maps(profile)
    labels = "stand-ins computed from the map" if stand_in else "国土交通省 国土数値情報（地価公示）, e-Stat"
    prices = (
        ["- Land prices of those regions were among its training targets: its score on land prices is not one of "
         "self-supervision."]
        if one.learned_prices and not stand_in else []
    )  # fmt: skip
    return "\n".join([
        "---", yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip(), "---",
        f"# {b.name}: {b.title}",
        "",
        "The map around a coordinate → an embedding:",
        "",
        f"    selm embed coords.csv --model {b.name} --map SOURCE -o out.parquet",
        "",
        f"By this name it is used with {described(b)}.",
        "",
        "## What it is",
        "",
        f"- {run['config']['encoder']['arch']}, {one.config['width']:g} times as wide, images of "
        f"{one.config['image_px']} px{scale}; {b.bytes / 1e6:.1f} MB",
        f"- trained on {b.trained_on}; {run['images']:,} images seen (profile {profile.name})",
        f"- commit {run['commit']}, {run['date']}, {run['device']}, torch {run['torch']}",
        "- `config.json`, `model.safetensors`, `metrics.csv` and `run.json` are as the training loop wrote them",
        *_reduced(one),
        "",
        "## Scores, beside what is free",
        "",
        *([measure(profile), "", *lines] if errors else ["Not scored yet."]),
        "",
        "## Where it should not be used",
        "",
        f"- {limits(profile)}",
        *prices,
        *[f"- {text}" for text in worse],
        "",
        "## Licence",
        "",
        f"Weights: MIT, as the code. Maps: {maps} (ODbL). Labels: {labels}.",
        "",
    ])  # fmt: skip


def _reduced(one: Described) -> list[str]:
    """What the card says of a reduction."""
    if not one.bundled.reduction:
        return []
    about = one.run["reduction"]
    regions = ", ".join(name.capitalize() for name in about["regions"])
    return [
        f"- `{REDUCTION}`: its embedding as {about['numbers']} numbers, learned at {about['places']:,} official points "
        f"of {regions}: the components of the embedding and of a head that says, linearly in it, what is known there "
        f"(land price, density, area type, zone; {about['outputs']} outputs), each with a part of the variance. "
        "`selm embed --all-numbers` (`reduced=False`) goes without",
        f"- of the reduction: commit {about['commit']}, {about['date']}, {about['device']}, torch {about['torch']}",
    ]


def _maps(profile: Profile) -> str:
    return "© OpenStreetMap contributors" if profile.stand_ins else "© OpenMapTiles © OpenStreetMap contributors"


def location_name(profile: Profile) -> str:
    """What the location encoder of a profile is called: that of japan-cpu is japan-coordinates."""
    return f"{profile.name.removesuffix('-cpu')}-coordinates"


def location_card(profile: Profile, about: dict[str, Any], size: int) -> str:
    """The card of a location encoder: what it is, how it scored beside the map, and where it has nothing to say."""
    name, kms = location_name(profile), sorted(about["errors"], key=float)
    teacher, scale = _short(profile.name, LONGER), "" if profile.name in FULL_SCALE else ", a reduced scale"
    front = {"license": "mit", "library_name": "selm", "tags": ["geospatial", "openstreetmap", "location-encoder"]}
    lines = ["| | " + " | ".join(f"{km} km" for km in kms) + " |", "|---|" + "---|" * len(kms)]
    for title, errors in ((f"**{name}**", about["errors"]), ("the map's embedding", about["map_errors"])):
        lines.append(f"| {title} | " + " | ".join(f"{errors[km]:.3f}" for km in kms) + " |")
    test = ", ".join(region.name.capitalize() for region in profile.regions_for("test"))
    stand_in = "stand-ins for land prices, computed from the map," if profile.stand_ins else "land prices"
    return "\n".join([
        "---", yaml.safe_dump(front, sort_keys=False).strip(), "---",
        f"# {name}: an embedding from coordinates alone",
        "",
        "Latitude and longitude → what the map shows there and around, without a map:",
        "",
        "    import selm",
        "",
        f"    selm.LocationEncoder.from_pretrained({name!r})(lat, lon)",
        "",
        f"- feature tables of {len(about['cells'])} resolutions and a perceptron, {size / 1e6:.1f} MB",
        f"- learned, from the map alone, what `{teacher}` and the colours of its images give at {about['places']:,} "
        f"places in {', '.join(about['regions'])} ({about['setting']}; profile {profile.name}{scale}); "
        f"`{teacher}` itself was taught land prices and population densities of the pretraining regions, too",
        f"- commit {about['commit']}, {about['date']}, {about['device']}, torch {about['torch']}",
        "",
        f"Mean squared errors on {stand_in} of {test} (standardised logarithm; kernel ridge), by the distance from the "
        "places that the probe has learned from; it has seen maps of this region, never a label of it:",
        "",
        *lines,
        "",
        "Where it has seen no map its answer is missing (NaN). It cannot follow single streets, and it does not know "
        "what has changed since its map was made. Nothing here is fit to judge a person or a single property.",
        "",
        f"Weights: MIT, as the code. Maps: {_maps(profile)} (ODbL).",
        "",
    ])  # fmt: skip

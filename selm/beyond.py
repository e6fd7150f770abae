"""Tables and figures of the chapters beyond the paper: location encoders, semivariogram, images to GPS.

Each takes tables of results and returns something to show; nothing here computes a result.
"""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from selm import paths
from selm.errors import InputError
from selm.report import records
from selm.tables import PLUMBING_CHECKS, Html, _td, _wrap
from selm.titles import title_of

if TYPE_CHECKING:
    import folium
    from matplotlib.figure import Figure

    from selm.maps.atlas import Atlas
    from selm.semivariogram import Fit

OBJECTIVES = {"contrast": "by contrast with the map image", "distillation": "by distilling GPS-SELM"}
_PERCENT = ("top1", "top5")


def published(profiles: Sequence[str], name: str, folder: Path | None = None) -> pd.DataFrame | None:
    """The committed results ``NAME.csv`` of the first of these profiles that has them, or None."""
    where = paths.repository() / "data" / "results" if folder is None else folder
    for profile in profiles:
        file = where / profile / f"{name}.csv"
        if file.exists():
            return pd.read_csv(file, dtype={"run_id": str, "commit": str, "data": str})
    return None


def printed(name: str, folder: Path | None = None) -> pd.DataFrame:
    """A table of another paper as printed, from ``data/paper/NAME.csv``."""
    file = (paths.repository() / "data" / "paper" if folder is None else folder) / f"{name}.csv"
    if not file.exists():
        raise InputError(f"{file}: no such table")
    return pd.read_csv(file)


def simple_table(head: Sequence[str], sections: Mapping[str, Sequence[Sequence[str]]], caption: str = "") -> Html:
    """Rows of ready cells under headings; a section named "" has no heading. Cells may hold HTML."""
    top = "<tr>" + "".join(f"<th>{name}</th>" for name in head) + "</tr>"
    body = ""
    for section, rows in sections.items():
        if section and rows:
            body += f'<tr class="section"><td colspan="{len(head)}">{html.escape(section)}</td></tr>'
        for row in rows:
            body += "<tr>" + f"<td>{row[0]}</td>" + "".join(_td(cell) for cell in row[1:]) + "</tr>"
    return Html(_wrap(caption, top, body))


def _text(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-", "−") if math.isfinite(value) else "–"


def spread(values: pd.Series[float], digits: int, scale: float = 1.0) -> str:
    """mean ± sd of some trials as HTML; the mean alone for one trial, "–" for none."""
    numbers = values.dropna().to_numpy(np.float64) * scale
    if not len(numbers):
        return "–"
    text = _text(float(numbers.mean()), digits)
    return text + (f"<small> ± {_text(float(numbers.std(ddof=1)), digits)}</small>" if len(numbers) > 1 else "")


def _heading(profile: str) -> str:
    return f"{profile}: plumbing check, it runs, no result" if profile in PLUMBING_CHECKS else profile


# -- location encoders -------------------------------------------------------------------------------------------------


def location_table(
    probes: pd.DataFrame, beside: pd.DataFrame | None, table: str, setting: str = "frozen-closed", epochs: int = 0
) -> Html:
    """Rows of `selm.experiments.location_encoders.probes` for Table 1 or 2, random folds and spatial blocks.

    beside: rows of the table itself: what needs a map, and what needs no embedding.
    """
    from selm.experiments.location_encoders import COVERAGES, POSITIONS, UNTRAINED

    metric = "mse" if table == "table1" else "top1"
    digits, scale = (3, 1.0) if metric == "mse" else (1, 100.0)
    unit = "MSE" if metric == "mse" else "top-1, %"

    def pair(rows: pd.DataFrame) -> list[str]:
        return [spread(rows.loc[rows["split"] == split, "value"], digits, scale) for split in ("random", "blocks")]

    def of(rows: pd.DataFrame, wanted: str, after: int) -> pd.DataFrame:
        return rows[(rows["setting"] == wanted) & (rows["epochs"] == after) & (rows["metric"] == metric)]

    chosen = of(probes[probes["table"] == table], setting, epochs)
    sections: dict[str, list[list[str]]] = {"Without an embedding, or with a map": []}
    if beside is not None and len(beside):
        rows = beside[(beside["experiment"] == table) & (beside["metric"] == metric)]
        for name in dict.fromkeys(rows["method"]):
            mine = rows[(rows["method"] == name) & rows["epochs"].isin([0, epochs]) & (rows["seed"] == 0)]
            mine = mine[mine["setting"].isin(["practitioner", setting])]
            if not len(mine):
                continue
            more = " (map image)" if name in ("random_init", "gps_selm") else ""
            sections["Without an embedding, or with a map"].append([html.escape(title_of(name) + more), *pair(mine)])
    untrained = [(UNTRAINED, "", "Location encoder with random weights")]
    untrained += [(c, "", f"Without a network: {said}") for c, said in COVERAGES.items() if c != UNTRAINED]
    for coverage, objective, section in untrained + [
        (coverage, objective, f"Location encoder {how}: {said}")
        for coverage, said in COVERAGES.items()
        if coverage != UNTRAINED
        for objective, how in OBJECTIVES.items()
    ]:
        sections[section] = []
        for position, title in POSITIONS.items():
            keys = (chosen["position"] == position) & (chosen["objective"].fillna("") == objective)
            rows = chosen[keys & (chosen["coverage"] == coverage)]
            if len(rows):
                sections[section].append([html.escape(title), *pair(rows)])
    name = "Table 1, land price" if table == "table1" else "Table 2, area type"
    probe = "closed-form probe" if setting == "frozen-closed" else f"linear layer after {epochs} epochs"
    trials = int(chosen["trial"].nunique()) if len(chosen) else 0
    profile = str(chosen["profile"].iloc[0]) if len(chosen) else "not run"
    return simple_table(
        [f"{unit}<br><small>n = {trials} fold draws</small>", "random folds", "spatial blocks"], sections,
        f"{name}, {probe} ({_heading(profile)})",
    )  # fmt: skip


def probe_tables(probes: pd.DataFrame, beside: pd.DataFrame | None) -> list[Html]:
    """`location_table` for every table and setting in the results; of probes trained by epochs, the last."""
    out = []
    for table in sorted(probes["table"].unique()):
        rows = probes[probes["table"] == table]
        for setting in dict.fromkeys(rows["setting"]):
            epochs = int(rows.loc[rows["setting"] == setting, "epochs"].max())
            out.append(location_table(probes, beside, str(table), str(setting), epochs))
    return out


def rows_beside(profile: str) -> pd.DataFrame | None:
    """The committed rows of Tables 1 and 2 that stand beside the location encoders of a reference profile, or None."""
    from selm.experiments.location_encoders import BESIDE, TARGETS
    from selm.profiles import get_profile
    from selm.report import reference_results

    rows = reference_results(profile)
    if rows is None:
        return None
    wanted = (*BESIDE, get_profile(profile).location_encoders.teacher)
    kept = rows["method"].isin(list(wanted)) & rows["setting"].isin(["practitioner", "frozen-closed"])
    return rows[kept & (rows["target"] == rows["experiment"].map(TARGETS))]


def what_is_lost(probes: pd.DataFrame, beside: pd.DataFrame | None) -> Html:
    """In words, for each table: a map's embedding, the best location encoder of each coverage, and neither.

    "The best" is chosen on the test places themselves, which flatters it.
    """
    from selm.experiments.location_encoders import COVERAGES, NEIGHBOURS, POSITIONS

    lines = []
    for table in dict.fromkeys(probes["table"]):
        metric, better = ("mse", min) if table == "table1" else ("top1", max)
        digits, scale = (3, 1.0) if metric == "mse" else (1, 100.0)
        unit = "MSE" if metric == "mse" else "% top-1"
        for split, said in (("random", "random folds"), ("blocks", "spatial blocks")):
            rows = probes[(probes["table"] == table) & (probes["split"] == split) & (probes["metric"] == metric)]
            rows = rows[(rows["setting"] == "frozen-closed") & (rows["epochs"] == 0)]
            facts = []
            for coverage, maps in COVERAGES.items():
                mine = rows[(rows["coverage"] == coverage) & (rows["position"] != NEIGHBOURS)]
                mine = mine.fillna({"objective": ""})
                by_kind = {key: float(group.mean()) for key, group in mine.groupby(["position", "objective"])["value"]}
                if by_kind:
                    position, objective = better(by_kind, key=by_kind.__getitem__)
                    best = _text(by_kind[position, objective] * scale, digits)
                    how = f"{POSITIONS[position]}, {objective}" if objective else POSITIONS[position]
                    facts.append(f"<strong>{best}</strong> from {maps} ({how})")
            means = rows.loc[(rows["coverage"] == "everywhere") & (rows["position"] == NEIGHBOURS), "value"]
            if len(means):
                mean = _text(float(means.mean()) * scale, digits)
                facts.append(f"<strong>{mean}</strong> from the mean of the nearest maps' embeddings, no network")
            if beside is not None and len(beside):
                others = beside[(beside["experiment"] == table) & (beside["split"] == split)]
                others = others[(others["metric"] == metric) & (others["seed"] == 0)]
                for name, title in (("gps_selm", "with a map"), ("trees_coordinates", "from trees on coordinates")):
                    values = others.loc[others["method"] == name, "value"]
                    if len(values):
                        facts.append(f"<strong>{_text(float(values.mean()) * scale, digits)}</strong> {title}")
            number = table.removeprefix("table")
            lines.append(f"<li>Table {number}, {said}, {unit}: {'; '.join(facts)}.</li>")
    profile = str(probes["profile"].iloc[0])
    note = f"<p>The best location encoder of each coverage, chosen on the test places ({_heading(profile)}):</p>"
    return Html(f"{note}<ul>{''.join(lines)}</ul>")


def claims_table(claims: pd.DataFrame, table: str) -> Html:
    """Verdicts of `selm.experiments.location_encoders.claims` for one table; none for profiles that check plumbing."""
    from selm.experiments.location_encoders import POSITIONS
    from selm.tables import _correction, _tag

    rows_ = claims[claims["table"] == table]

    def name(of: str) -> str:
        position, _, weights = of.partition(" (")
        if position in POSITIONS:
            return POSITIONS[position] + (f" ({weights}" if weights else "")
        return title_of(of) + (" (map image)" if of == "gps_selm" else "")

    digits, scale = (3, 1.0) if table == "table1" else (1, 100.0)
    unit = "MSE" if table == "table1" else "top-1, points"
    plumbing_check = str(rows_["profile"].iloc[0]) in PLUMBING_CHECKS
    body = []
    for row in records(rows_):
        gain, low, high = (_text(float(v) * scale, digits) for v in (row.gain, row.low, row.high))
        p = f"{row.p_holm:.3f}" if row.p_holm >= 0.001 else "&lt; 0.001"
        said = html.escape(f"{name(row.a)} beats {name(row.b)}")
        body.append([said, gain, f"{low} to {high}", p, "" if plumbing_check else _tag(str(row.verdict))])
    blocks = int(rows_["n_blocks"].max())
    caption = f"Table {table.removeprefix('table')}, spatial blocks ({_heading(str(rows_['profile'].iloc[0]))})"
    made = simple_table(["claim", f"gain ({unit})", "interval", "p, Holm", ""], {"": body}, caption)
    note = (
        f'<p class="selm-foot">Paired bootstrap over {blocks} blocks; {_correction(rows_)}; distilled encoders that '
        "saw maps of all regions; conditional on one training each.</p>"
    )
    return Html(made.text + note)


def speed_table(speed: pd.DataFrame) -> Html:
    """Coordinates embedded a second, and how many times as many as from map images."""
    from selm.experiments.location_encoders import POSITIONS

    base = float(speed.loc[speed["way"] == "map", "coordinates_per_s"].iloc[0])
    rows = []
    for row in records(speed):
        title = POSITIONS.get(row.way, "map image cut from a drawn atlas, and GPS-SELM")
        rate = float(f"{row.coordinates_per_s:.2g}")
        rows.append([html.escape(title), f"{rate:,.0f}", f"{row.coordinates_per_s / base:,.1f} ×"])
    return simple_table(
        ["", "coordinates/s", "against the map"],
        {"": rows},
        f"Speed: a second of processor time on {speed['device'].iloc[0]}",
    )


def _way(name: str) -> str:
    from selm.experiments.image_to_location import WAYS
    from selm.experiments.location_encoders import POSITIONS

    return WAYS[name] if name in WAYS else f"location encoder: {POSITIONS[name]}"


def accuracy_table(found: pd.DataFrame) -> Html:
    """Accuracy within distances and the median distance of every way of finding an image."""
    rows_ = found[found["quantity"] == "accuracy"]
    distances = sorted(rows_["at"].unique())
    rows = []
    for way in dict.fromkeys(found["way"]):
        mine = found[found["way"] == way]
        hits = [float(mine.loc[(mine["quantity"] == "accuracy") & (mine["at"] == km), "value"].iloc[0]) * 100
                for km in distances]  # fmt: skip
        median = float(mine.loc[mine["quantity"] == "median_km", "value"].iloc[0])
        rows.append([html.escape(_way(way)), *(_text(hit, 1) for hit in hits), _text(median, 2 if median < 10 else 0)])
    profile = str(found["profile"].iloc[0])
    return simple_table(
        ["share of images within, %", *(f"{km:g} km" for km in distances), "median, km"], {"": rows},
        f"{int(found['n'].iloc[0])} images, {int(found['cells'].iloc[0])} geocells ({_heading(profile)})",
    )  # fmt: skip


def recall_against_area(found: pd.DataFrame) -> Figure:
    """Recall against the area searched, best guess first, on a logarithmic axis."""
    import matplotlib.pyplot as plt

    from selm.plots import _DASHES, COLOURS, WIDTH, use_style

    use_style()
    figure, axis = plt.subplots(figsize=(WIDTH, 3.0))
    rows = found[found["quantity"] == "recall"]
    for i, (way, curve) in enumerate(rows.groupby("way", sort=False)):
        axis.plot(curve["at"], 100 * curve["value"], color=COLOURS[i % 8], linestyle=_DASHES[i % 8], linewidth=1.3,
                  label=_way(str(way)))  # fmt: skip
    nothing = rows.groupby("at")["value"].max() == 0  # areas below the smallest cell
    left = float(nothing.index[nothing].max()) if nothing.any() else float(rows["at"].min())
    right = float(rows["at"].max())
    axis.set(xscale="log", xlabel="area searched, km²", ylabel="images found, %", ylim=(0, 100), xlim=(left, right))
    figure.legend(loc="outside lower center", ncols=2)
    return figure


# -- semivariogram -----------------------------------------------------------------------------------------------------


def fit_of(row: Any) -> Fit:
    """A row of ``semivariogram-fits.csv`` as a fit."""
    from selm.semivariogram import Fit

    return Fit(str(row.model), float(row.nugget), float(row.partial_sill), float(row.range_km), float(row.r2))


def variogram_figure(bins: pd.DataFrame, fits: pd.DataFrame) -> Figure:
    """The empirical semivariogram (dots as large as their pairs are many) and the fitted models with their ranges."""
    import matplotlib.pyplot as plt
    import torch

    from selm.plots import _DASHES, COLOURS, WIDTH, use_style

    use_style()
    figure, axis = plt.subplots(figsize=(WIDTH, 3.0))
    size = 6 + 40 * np.sqrt(bins["pairs"] / bins["pairs"].max())
    axis.scatter(bins["distance_km"], bins["gamma"], s=size, color="0.55", linewidths=0, label="measured", zorder=3)
    line = torch.linspace(1e-3, float(bins["distance_km"].max()), 400)
    for i, row in enumerate(records(fits)):
        curve = fit_of(row).expected(line)
        axis.plot(line, curve, color=COLOURS[i], linestyle=_DASHES[i], linewidth=1.4,
                  label=f"{row.model}: range {row.range_km:.3g} km, R² {row.r2:.2f}")  # fmt: skip
        if row.range_km < float(line[-1]):
            axis.axvline(row.range_km, color=COLOURS[i], linestyle=":", linewidth=0.8)
    axis.set(xlabel="distance, km", ylabel="1 − cosine of the embeddings", ylim=(0, 1.08 * float(bins["gamma"].max())))
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def fits_table(fits: pd.DataFrame) -> Html:
    """The fitted models, and which share of a batch's pairs each calls hard or false negatives."""
    rows = [
        [str(row.model), *(_text(v, 3) for v in (row.nugget, row.sill)), _text(row.range_km, 2), _text(row.r2, 3),
         _text(100 * row.hard, 1), _text(100 * row.false, 2)]
        for row in records(fits)
    ]  # fmt: skip
    head = ["model", "nugget", "sill", "range, km", "R²", "hard negatives, %", "false negatives, %"]
    return simple_table(head, {"": rows}, f"Fitted semivariograms ({_heading(str(fits['profile'].iloc[0]))})")


def weights_table(found: pd.DataFrame) -> Html:
    """Accuracy at several distances, with and without the pair weights, mean ± sd over seeds."""
    names = {"plain": "every other place a negative", "weighted": "weighted by the semivariogram"}
    distances = sorted(found.loc[found["quantity"] == "accuracy", "at"].unique())
    rows = []
    for negatives, title in names.items():
        mine = found[found["negatives"] == negatives]
        cells = [spread(mine.loc[(mine["quantity"] == "accuracy") & (mine["at"] == km), "value"], 1, 100)
                 for km in distances]  # fmt: skip
        rows.append([title, *cells, spread(mine.loc[mine["quantity"] == "median_km", "value"], 2)])
    head = ["share of images within, %", *(f"{km:g} km" for km in distances), "median, km"]
    seeds, n = found["seed"].nunique(), int(found["n"].iloc[0])
    caption = f"{n} images, {seeds} seeds each ({_heading(str(found['profile'].iloc[0]))})"
    return simple_table(head, {"": rows}, caption)


# -- images to GPS -----------------------------------------------------------------------------------------------------


def _start(results: pd.DataFrame) -> str:
    starts = sorted({str(start) for start in results["start"].dropna()} - {"", "nan"})
    return "random initial weights" if starts == ["random"] else f"initial weights: {', '.join(starts)}"


def img2gps_table2(results: pd.DataFrame | None) -> Html:
    """The source's Table 2 beside a run: backbones, then the smallest with attention pooling and the distance loss."""
    paper = printed("img2gps-table2").set_index("backbone")
    head = ["backbone", "parameters", "train loss", "val loss", "val AHD, m", "test AHD, m"]
    ours: dict[str, list[list[str]]] = {}
    source = [
        [name, f"{row.parameters_millions:.2f} M", *(_text(v, 4) for v in (row.train_loss, row.val_loss)),
         *(_text(v, 2) for v in (row.val_ahd_m, row.test_ahd_m))]
        for name, row in ((str(name), row) for name, row in paper.iterrows())
    ]  # fmt: skip
    if results is not None:
        rows = []
        for (backbone, pooling, loss), group in results.groupby(["backbone", "pooling", "loss"], sort=False):
            extra: list[str] = []
            if (pooling, loss) != ("average", "mse"):
                extra = [str(pooling) if loss == "mse" else "distance as loss"]
            rows.append(
                [", ".join([str(backbone), *extra]), f"{group['parameters'].iloc[0] / 1e6:.2f} M",
                 spread(group["train_loss"], 3), spread(group["val_loss"], 3), spread(group["val_ahd_m"], 1),
                 spread(group["test_ahd_m"], 1)]
            )  # fmt: skip
        ours[f"{_described(results)}, {_start(results)}"] = rows
    return simple_table(head, {"the source, as printed: photographs, pretrained": source, **ours}, "Backbones")


def img2gps_table3(results: pd.DataFrame | None) -> Html:
    """The source's Table 3 beside a run: k-NN retrieval."""
    from selm.experiments.images_to_gps import RECIPES

    paper = printed("img2gps-table3")
    names = {**RECIPES, "mean": "mean coordinate"}
    source = [[f"{names[row.recipe]}", str(row.k or "–"), _text(row.val_ahd_m, 2), "–"] for row in records(paper)]
    sections: dict[str, Sequence[Sequence[str]]] = {"the source, as printed: photographs, pretrained": source}
    if results is not None:
        rows = [
            [str(names[str(recipe)]), str(k or "–"), spread(group["val_ahd_m"], 1), spread(group["test_ahd_m"], 1)]
            for (recipe, k), group in results.groupby(["recipe", "k"], sort=False)
        ]
        sections[f"{_described(results)}, {_start(results)}"] = rows
    return simple_table(["features", "k", "val AHD, m", "test AHD, m"], sections, "k-NN retrieval")


def img2gps_table4(results: pd.DataFrame | None) -> Html:
    """The source's Table 4 beside a run: the number of training images."""
    paper = printed("img2gps-table4")
    head = ["training images", "train loss", "val loss", "val AHD, m", "test AHD, m"]
    source = [
        [f"{row.n_training:,}", _text(row.train_loss, 4), _text(row.val_loss, 4), _text(row.val_ahd_m, 2),
         _text(row.test_ahd_m, 2)]
        for row in records(paper)
    ]  # fmt: skip
    sections: dict[str, Sequence[Sequence[str]]] = {"the source, as printed: photographs, pretrained": source}
    if results is not None:
        sections[f"{_described(results)}, {_start(results)}"] = [
            [f"{n:,}", spread(group["train_loss"], 3), spread(group["val_loss"], 3), spread(group["val_ahd_m"], 1),
             spread(group["test_ahd_m"], 1)]
            for n, group in results.groupby("n_training", sort=True)
        ]  # fmt: skip
    return simple_table(head, sections, "Number of training images, EfficientNet-B0")


def _described(results: pd.DataFrame) -> str:
    what = "map images as stand-in" if bool(results["stand_in"].iloc[0]) else "photographs"
    return f"{_heading(str(results['profile'].iloc[0]))} ({what})"


def loss_curves(curves: pd.DataFrame) -> Figure:
    """Training (dashed) and validation loss by epoch, and the validation distance, of every network."""
    import matplotlib.pyplot as plt

    from selm.plots import COLOURS, WIDTH, use_style

    use_style()
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.7))
    for i, ((backbone, pooling), curve) in enumerate(curves.groupby(["backbone", "pooling"], sort=False)):
        name = str(backbone) + (", attention" if pooling == "attention" else "")
        axes[0].plot(curve["epoch"], curve["train_loss"], color=COLOURS[i], linestyle="--", linewidth=1.0)
        axes[0].plot(curve["epoch"], curve["val_loss"], color=COLOURS[i], linewidth=1.3, label=name)
        axes[1].plot(curve["epoch"], curve["val_ahd_m"], color=COLOURS[i], linewidth=1.3)
    axes[0].set(xlabel="epoch", ylabel="loss (dashed: training)")
    axes[1].set(xlabel="epoch", ylabel="validation AHD, m")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def error_lines(predictions: pd.DataFrame, columns: int = 3) -> Figure:
    """True (dots) and predicted (crosses) coordinates joined by error lines, one panel a way; the source's figure 4."""
    import matplotlib.pyplot as plt

    from selm.plots import COLOURS, WIDTH, use_style

    use_style()
    ways = list(dict.fromkeys(predictions["way"]))
    columns = min(columns, len(ways))
    n_rows = -(-len(ways) // columns)
    figure, axes = plt.subplots(n_rows, columns, figsize=(WIDTH, 2.6 * n_rows), squeeze=False, sharex=True, sharey=True)
    for axis, way in zip(axes.flat, ways, strict=False):
        rows = predictions[predictions["way"] == way]
        x, y = rows[["lon", "predicted_lon"]].to_numpy().T, rows[["lat", "predicted_lat"]].to_numpy().T
        axis.plot(x, y, color="0.7", linewidth=0.6, zorder=1)
        axis.scatter(x[0], y[0], s=9, color=COLOURS[0], linewidths=0, label="true", zorder=2)
        axis.scatter(x[1], y[1], s=12, color=COLOURS[1], marker="x", linewidths=0.9, label="predicted", zorder=3)
        title = textwrap.fill(str(way), 30)
        axis.set_title(f"{title}\nAHD {rows['error_m'].mean():.0f} m", loc="left", fontsize=8)
        axis.set_aspect(1 / math.cos(math.radians(float(rows["lat"].mean()))))
        axis.ticklabel_format(useOffset=False)
        axis.locator_params(nbins=3)
        axis.tick_params(labelsize=6)
    for axis in axes.flat[len(ways) :]:
        axis.set_axis_off()
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def error_map(predictions: pd.DataFrame, way: str, atlas: Atlas | None, zoom: int) -> folium.Map:
    """The same as an interactive map that loads nothing, on the drawn map (`atlas` at `zoom`) where there is one."""
    import folium

    from selm.offline_map import image_layer

    rows = predictions[predictions["way"] == way]
    if not len(rows):
        raise InputError(f"error map: no predictions by '{way}' (there are: {', '.join(predictions['way'].unique())})")
    figure = folium.Map(
        location=[float(rows["lat"].mean()), float(rows["lon"].mean())], tiles=None, zoom_start=16, max_zoom=20
    )
    if atlas is not None:
        image, bbox = _ground(atlas, zoom, rows)
        image_layer(image, bbox, "map", atlas.attribution).add_to(figure)
    for row in records(rows):
        ends = [(row.lat, row.lon), (row.predicted_lat, row.predicted_lon)]
        folium.PolyLine(ends, color="#555", weight=1).add_to(figure)
        folium.CircleMarker(ends[0], radius=3, color="#0072B2", fill=True, popup=f"true, {row.error_m:.0f} m").add_to(
            figure
        )
        folium.CircleMarker(ends[1], radius=3, color="#D55E00", fill=True, popup="predicted").add_to(figure)
    south, north = float(rows["lat"].min()), float(rows["lat"].max())
    figure.fit_bounds([[south, float(rows["lon"].min())], [north, float(rows["lon"].max())]])
    return figure


def _ground(
    atlas: Atlas, zoom: int, rows: pd.DataFrame, most: int = 1_400
) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """The drawn map around the true coordinates, at most `most` pixels a side, and the bbox that it fills."""
    from selm.maps.mercator import from_tile, to_tile

    x, y = (v * atlas.tile_px for v in to_tile(rows["lat"].to_numpy(), rows["lon"].to_numpy(), zoom))
    size = int(min(most, max(np.ptp(x), np.ptp(y)) + atlas.tile_px)) // 2 * 2
    left, top = (round(float(v.min() + v.max()) / 2) - size // 2 for v in (x, y))
    lat, lon = from_tile((left + size / 2) / atlas.tile_px, (top + size / 2) / atlas.tile_px, zoom)
    north, west = from_tile(left / atlas.tile_px, top / atlas.tile_px, zoom)
    south, east = from_tile((left + size) / atlas.tile_px, (top + size) / atlas.tile_px, zoom)
    image = atlas.crop(float(lat), float(lon), zoom, size)
    return image, (float(west), float(south), float(east), float(north))

"""Answer, figure and tables of the page on location encoders."""

from __future__ import annotations

import html
from collections.abc import Iterator

import numpy as np
import pandas as pd

from reproduction.pages.claim_tables import correction_note
from reproduction.pages.html import PLUMBING_CHECKS, Html, fixed, profile_heading, prose, simple_table, spread, tag
from reproduction.pages.result_page import Result
from reproduction.pages.style import kind_of
from reproduction.report import records
from reproduction.titles import PEERS, row_title, title_of

OBJECTIVES = {"contrast": "by contrast with the map image", "distillation": "by distilling GPS-SELM"}


def location_probe_table(
    probes: pd.DataFrame, beside: pd.DataFrame | None, table: str, setting: str = "frozen-closed", epochs: int = 0
) -> Html:
    """Rows of `reproduction.beyond.location_encoders.experiment.probes` for Table 1 or 2, random folds and spatial
    blocks.

    beside: rows of the table itself: what needs a map, and what needs no embedding.
    """
    from reproduction.beyond.location_encoders.experiment import COVERAGES, POSITIONS, UNTRAINED

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
            title = html.escape(row_title(name, metric) + more)
            sections["Without an embedding, or with a map"].append([title, *pair(mine)])
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
    probe = "ridge probe" if setting == "frozen-closed" else f"linear layer after {epochs} epochs"
    trials = int(chosen["trial"].nunique()) if len(chosen) else 0
    profile = str(chosen["profile"].iloc[0]) if len(chosen) else "not run"
    draws = "one draw" if trials == 1 else f"{trials} draws"
    return simple_table(
        [f"{unit}<br><small>{draws} of folds</small>", "random folds", "spatial blocks"], sections,
        f"{name}, {probe} ({profile_heading(profile)})",
    )  # fmt: skip


def result(probes: pd.DataFrame, beside: pd.DataFrame, table: str) -> Result:
    """The ridge probe's rows of a table under spatial blocks: of each way for a coordinate to enter, random weights and
    the two coverages (the better objective), and what needs a map or no embedding."""
    from reproduction.beyond.location_encoders.experiment import COVERAGES, NEIGHBOURS, POSITIONS

    metric = "mse" if table == "table1" else "top1"
    scale = 1.0 if metric == "mse" else 100.0
    rows = []
    for (coverage, position), best in _best_objectives(probes, table):
        title = "mean of the nearest maps" if position == NEIGHBOURS else POSITIONS[str(position)]
        rows.append((f"{coverage} {position}", f"{title}: {COVERAGES[str(coverage)]}", "method", best["value"]))
    keep = (beside["experiment"] == table) & (beside["split"] == "blocks") & (beside["metric"] == metric)
    for method, group in beside[keep & (beside["seed"] == 0) & (beside["epochs"] == 0)].groupby("method", sort=False):
        more = " (map image)" if method in ("random_init", "gps_selm") else ""
        rows.append((str(method), row_title(str(method), metric) + more, kind_of(str(method)), group["value"]))
    made = pd.DataFrame(
        [
            {"method": method, "title": title, "kind": kind, "mean": scale * values.mean(), "sd": scale * values.std(),
             "n": len(values), "paper": np.nan, "verdict": ""}
            for method, title, kind, values in rows
        ]
    )  # fmt: skip
    made["low"], made["high"] = made["mean"] - made["sd"], made["mean"] + made["sd"]
    made = made.sort_values("mean", ascending=metric == "mse", kind="stable").reset_index(drop=True)
    constant = made.loc[made["method"] == "prior", "mean"]
    return Result(
        made, task="land price, spatial blocks" if metric == "mse" else "area type, spatial blocks",
        measure="mean squared error" if metric == "mse" else "top-1 accuracy", digits=3 if metric == "mse" else 1,
        higher=metric != "mse", bars=f"± one standard deviation over {int(made['n'].max())} draws of folds",
        profile=str(probes["profile"].iloc[0]), unit="" if metric == "mse" else " %",
        constant=float(constant.iloc[0]) if len(constant) else np.nan,
        constant_title="the mean predictor" if metric == "mse" else "naming the most frequent class",
    )  # fmt: skip


def _best_objectives(probes: pd.DataFrame, table: str) -> Iterator[tuple[tuple[str, str], pd.DataFrame]]:
    """(coverage, position) and the ridge probe's rows of its better objective, under spatial blocks."""
    metric = "mse" if table == "table1" else "top1"
    keep = (probes["table"] == table) & (probes["split"] == "blocks") & (probes["metric"] == metric)
    own = probes[keep & (probes["setting"] == "frozen-closed") & (probes["epochs"] == 0)].fillna({"objective": ""})
    for (coverage, position), group in own.groupby(["coverage", "position"], sort=False):
        means = group.groupby("objective")["value"].mean()
        best = means.idxmin() if metric == "mse" else means.idxmax()
        yield (str(coverage), str(position)), group[group["objective"] == best]


def answer(probes: pd.DataFrame, beside: pd.DataFrame, claims: pd.DataFrame | None) -> Html:
    """In words: the best location encoder that has seen the maps of all regions, and that has not, beside the map's
    embedding and trees on coordinates; with the verdict where there is one."""
    said = []
    for table in sorted(probes["table"].unique()):
        found = result(probes, beside, str(table))
        networks = found.rows[(found.rows["kind"] == "method") & ~found.rows["method"].str.endswith(" neighbours")]
        seen, unseen = (
            next(records(networks[networks["method"].str.startswith(f"{coverage} ")].head(1)), None)
            for coverage in ("everywhere", "pretraining")
        )
        own, trees = found.row("gps_selm"), found.row("trees_coordinates")
        if seen is None or own is None:
            continue
        words = f"{found.task.split(',')[0].capitalize()}, {found.measure} under spatial blocks: "
        words += f"**{found.number(seen.mean)}** by the best location encoder that has seen the maps of all regions"
        words += f" ({seen.title.partition(':')[0]}); {found.number(own.mean)} by the map's embedding"
        coverage, position = seen.method.split()
        trained = dict(_best_objectives(probes, str(table)))[coverage, position]["objective"].iloc[0]
        verdict = _verdict(claims, str(table), position) if trained == "distillation" else ""  # what was tested
        words += f", which against it is **{verdict}**" if verdict else ""
        words += f"; {found.number(trees.mean)} by trees on coordinates" if trees is not None else ""
        words += f"; {found.number(unseen.mean)} by the best that has not seen them" if unseen is not None else ""
        said.append(words + ".")
    return prose(f"{' '.join(said)} ({profile_heading(str(probes['profile'].iloc[0]))}.)", "selm-answer")


def _verdict(claims: pd.DataFrame | None, table: str, position: str) -> str:
    """The published verdict of the map's embedding against a location encoder, "" where there is none."""
    if claims is None:
        return ""
    found = claims[(claims["table"] == table) & (claims["a"] == "gps_selm") & (claims["b"] == position)]
    return str(found["verdict"].iloc[0]) if len(found) else ""


def short_table(found: Result) -> Html:
    """Eight rows: the best location encoders, and all that stands beside them."""
    others = found.rows[found.rows["kind"] != "method"]
    chosen = pd.concat([found.rows[found.rows["kind"] == "method"].head(max(1, 8 - len(others))), others])
    chosen = chosen.sort_values("mean", ascending=not found.higher, kind="stable")
    body = []
    for row in records(chosen):
        name = f"<strong>{html.escape(row.title)}</strong>" if row.kind == "own" else html.escape(row.title)
        spread_ = f"<small> ± {fixed(row.sd, found.digits)}</small>" if np.isfinite(row.sd) else ""
        body.append([name, found.number(row.mean) + spread_])
    return simple_table(["row", found.measure], {"": body}, f"{found.task[:1].upper()}{found.task[1:]}")


def probe_tables(probes: pd.DataFrame, beside: pd.DataFrame | None) -> list[Html]:
    """`location_probe_table` for every table and setting in the results; of probes trained by epochs, the last."""
    out = []
    for table in sorted(probes["table"].unique()):
        rows = probes[probes["table"] == table]
        for setting in dict.fromkeys(rows["setting"]):
            epochs = int(rows.loc[rows["setting"] == setting, "epochs"].max())
            out.append(location_probe_table(probes, beside, str(table), str(setting), epochs))
    return out


def rows_beside(profile: str) -> pd.DataFrame | None:
    """The committed rows of Tables 1 and 2 that stand beside the location encoders of a reference profile, or None."""
    from reproduction.beyond.location_encoders.experiment import BESIDE, TARGETS
    from reproduction.profiles import get_profile
    from reproduction.report import reference_results

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
    from reproduction.beyond.location_encoders.experiment import COVERAGES, NEIGHBOURS, POSITIONS

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
                    best = fixed(by_kind[position, objective] * scale, digits)
                    how = f"{POSITIONS[position]}, {objective}" if objective else POSITIONS[position]
                    facts.append(f"<strong>{best}</strong> from {maps} ({how})")
            means = rows.loc[(rows["coverage"] == "everywhere") & (rows["position"] == NEIGHBOURS), "value"]
            if len(means):
                mean = fixed(float(means.mean()) * scale, digits)
                facts.append(f"<strong>{mean}</strong> from the mean of the nearest maps' embeddings, no network")
            if beside is not None and len(beside):
                others = beside[(beside["experiment"] == table) & (beside["split"] == split)]
                others = others[(others["metric"] == metric) & (others["seed"] == 0)]
                for name, title in (("gps_selm", "with a map"), ("trees_coordinates", "from trees on coordinates")):
                    values = others.loc[others["method"] == name, "value"]
                    if len(values):
                        facts.append(f"<strong>{fixed(float(values.mean()) * scale, digits)}</strong> {title}")
            number = table.removeprefix("table")
            lines.append(f"<li>Table {number}, {said}, {unit}: {'; '.join(facts)}.</li>")
    profile = str(probes["profile"].iloc[0])
    note = f"<p>The best location encoder of each coverage, chosen on the test places ({profile_heading(profile)}):</p>"
    return Html(f"{note}<ul>{''.join(lines)}</ul>")


def location_claims_table(claims: pd.DataFrame, table: str) -> Html:
    """Verdicts of `reproduction.beyond.location_encoders.experiment.claims` for one table; none for profiles that
    check plumbing."""
    from reproduction.beyond.location_encoders.experiment import POSITIONS

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
        gain, low, high = (fixed(float(v) * scale, digits) for v in (row.gain, row.low, row.high))
        p = f"{row.p_holm:.3f}" if row.p_holm >= 0.001 else "&lt; 0.001"
        said = html.escape(f"{name(row.a)} beats {name(row.b)}")
        body.append([said, gain, f"{low} to {high}", p, "" if plumbing_check else tag(str(row.verdict))])
    blocks = int(rows_["n_blocks"].max())
    caption = f"Table {table.removeprefix('table')}, spatial blocks ({profile_heading(str(rows_['profile'].iloc[0]))})"
    made = simple_table(["claim", f"gain ({unit})", "interval", "p, Holm", ""], {"": body}, caption)
    note = (
        f'<p class="selm-foot">Paired bootstrap over {blocks} blocks; {correction_note(rows_)}; distilled encoders '
        "that saw maps of all regions; conditional on one training each.</p>"
    )
    return Html(made.text + note)


def speed_table(speed: pd.DataFrame) -> Html:
    """Coordinates embedded a second, and how many times as many as from map images."""
    from reproduction.beyond.location_encoders.experiment import POSITIONS

    base = float(speed.loc[speed["way"] == "map", "coordinates_per_s"].iloc[0])
    named = {**POSITIONS, **{name: title_of(name) for name in PEERS}}
    rows = []
    for row in records(speed):
        title = named.get(row.way, "map image cut from a drawn atlas, and GPS-SELM")
        rate = float(f"{row.coordinates_per_s:.2g}")
        rows.append([html.escape(title), f"{rate:,.0f}", f"{row.coordinates_per_s / base:,.1f} ×"])
    return simple_table(
        ["", "coordinates/s", "against the map"],
        {"": rows},
        f"Speed: a second of processor time on {speed['device'].iloc[0]}",
    )


def distilled_table(rows: pd.DataFrame) -> Html:
    """Errors of the map's embedding and of what is distilled from it, a column a buffer, with sizes and speeds."""
    from reproduction.beyond.location_encoders.distilled import MAP, chosen
    from reproduction.beyond.location_encoders.experiment import NEIGHBOURS, POSITIONS

    own = chosen(rows)
    buffers = sorted(own["buffer_km"].unique())
    body = []
    for position, of in own.groupby("position", sort=False):
        errors = [spread(of.loc[of["buffer_km"] == km, "value"], 3, 1.0) for km in buffers]
        first = of.iloc[0]
        title = "the map's embedding" if position == MAP else POSITIONS[str(position)]
        if position not in (MAP, NEIGHBOURS):
            title += f", {first['setting']}"
        kept = ["–", "–"]
        if position != MAP:
            rate = float(f"{of['coordinates_per_s'].max():.2g}")
            kept = [f"{first['megabytes']:.0f}", f"{rate:,.0f}"]
        body.append([html.escape(title), *errors, *kept])
    head = ["MSE", *(f"{km:g} km" for km in buffers), "MB", "coordinates/s"]
    heading = f"Land price, kernel ridge ({profile_heading(str(rows['profile'].iloc[0]))}); less is better"
    return simple_table(head, {"": body}, heading)


def distilled_answer(rows: pd.DataFrame) -> Html:
    """What is lost without a map, and what it costs; the encoder is the one that the validation regions choose."""
    from reproduction.beyond.location_encoders.distilled import MAP, chosen
    from reproduction.beyond.location_encoders.experiment import NEIGHBOURS, POSITIONS

    own = chosen(rows)
    networks = own[~own["position"].isin([MAP, NEIGHBOURS])]
    best = str(networks.groupby("position")["validation"].mean().idxmin())

    def error(position: str, km: float) -> str:
        return fixed(float(own.loc[(own["position"] == position) & (own["buffer_km"] == km), "value"].mean()), 3)

    said = [
        f"at {km:g} km {error(best, km)} (the map {error(MAP, km)}, the mean of the nearest maps "
        f"{error(NEIGHBOURS, km)})"
        for km in sorted(own["buffer_km"].unique())
    ]
    facts = networks[networks["position"] == best]
    rate = float(f"{facts['coordinates_per_s'].max():.2g}")
    title = POSITIONS[best][:1].upper() + POSITIONS[best][1:]
    return prose(
        f"**{title}** are the encoding that the validation regions choose, with "
        f"{facts['setting'].iloc[0]}. Its error in Hokkaido, by the distance from known prices: {'; '.join(said)}. It "
        f"takes {facts['megabytes'].iloc[0]:.0f} MB and a second of processor time for {rate:,.0f} coordinates."
    )

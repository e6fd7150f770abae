"""What the reference run says about the paper, in the words and numbers of one page. Everything is read from
`data/results`; nothing is computed anew and no number is written here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from reproduction.beyond.location_encoders import distilled
from reproduction.experiments.row_claims import MARGINS
from reproduction.experiments.verdicts import BUFFERS, scores_of
from reproduction.pages import knowledge, more_context, published, result_figures, result_page
from reproduction.pages.claim_tables import printed_values
from reproduction.pages.html import PROFILE_WORDS, Html, picture
from reproduction.profiles import get_profile
from reproduction.report import HIGHER_IS_BETTER, PERCENT, records, summarise
from reproduction.titles import AS_IT_IS, PEERS, WHITENED, km_of, title_of
from selm.errors import InputError

_BASELINES = ("mugs", "moco_v2", "moco_geo_tp", "tile2vec")
_OURS = ("gps_selm",)
DECIDED = ("better", "worse", "equivalent")
_UNITS = {"mse": "", "top1": "points", "top5": "points", "ap50": "points", "recall1": "points"}


@dataclass(frozen=True)
class Group:
    """Claims that a reader thinks of as one: those of `where` with a in `a` and b in `b`."""

    section: str
    claim: str
    where: str
    a: tuple[str, ...]
    b: tuple[str, ...]
    metric: str = ""


_MAP_ROWS = ("random_init", *_BASELINES, "dino", "gps_selm_geo", "gps_selm_geo_rec")
_PRICE, _TYPE = "Land price (Table 1)", "Area type (Table 2)"
_OTHER = "Other tasks (Tables 3 and 4, Figures 4 and 5)"
GROUPS = (
    Group(_PRICE, "GPS-SELM beats DINO", "table1", _OURS, ("dino",)),
    Group(_PRICE, "GPS-SELM beats MUGS, MoCo-V2, MoCo-V2+Geo+TP and Tile2Vec", "table1", _OURS, _BASELINES),
    Group(_PRICE, "GPS-SELM beats no pretraining at all", "table1", _OURS, ("random_init",)),
    Group(_PRICE, "reconstruction and clustering add to geo alone", "table1", _OURS, ("gps_selm_geo",)),
    Group(_PRICE, "clustering adds to geo and reconstruction", "table1", _OURS, ("gps_selm_geo_rec",)),
    Group(_PRICE, "raw GPS loses to every method that sees the map", "table1", (*_OURS, *_MAP_ROWS), ("raw_gps",)),
    Group(
        _PRICE, "MoCo-V2+Geo+TP and Tile2Vec beat DINO and MoCo-V2", "table1", ("moco_geo_tp", "tile2vec"),
        ("dino", "moco_v2"),
    ),
    *(
        Group(f"{_TYPE}, {name}", claim, "table2", _OURS, b, metric)
        for metric, name in (("top1", "top-1"), ("top5", "top-5"))
        for claim, b in (
            ("GPS-SELM beats DINO", ("dino",)),
            ("GPS-SELM beats MUGS, MoCo-V2, MoCo-V2+Geo+TP and Tile2Vec", _BASELINES),
            ("GPS-SELM beats no pretraining, and raw GPS", ("random_init", "raw_gps")),
            ("reconstruction and clustering add to geo alone", ("gps_selm_geo",)),
            ("clustering adds to geo and reconstruction", ("gps_selm_geo_rec",)),
        )
    ),
    Group(_OTHER, "GPS-SELM classifies land cover best", "table3", (), ()),
    Group(_OTHER, "GPS-SELM detects objects best", "table4", (), ()),
    Group(_OTHER, "GPS-SELM predicts the water index best", "figure4", (), ()),
    Group(_OTHER, "Wall Street is harder to find one's way in", "figure5", (), ()),
)  # fmt: skip


def _of(claims: pd.DataFrame, group: Group) -> pd.DataFrame:
    chosen = claims[claims["where"] == group.where]
    for column in ("a", "b"):
        wanted = getattr(group, column)
        if wanted:
            chosen = chosen[chosen[column].isin(wanted)]
    return chosen[chosen["metric"] == group.metric] if group.metric else chosen


def _span(values: Iterable[float], metric: str, scale: float) -> str:
    """The range of some gains with its unit: "+0.08 to +0.21", or one number."""
    found = sorted(scale * value for value in values if np.isfinite(value))
    if not found:
        return ""
    digits = 3 if metric == "mse" else 1
    ends = [f"{value:+.{digits}f}".replace("-", "−") for value in (found[0], found[-1])]
    unit = f" {_UNITS[metric]}" if _UNITS[metric] else ""
    return (ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}") + unit


def _paper_gain(claim: Any) -> float:
    """The paper's gain of a over b, in its own unit (percent points for accuracies)."""
    printed = printed_values(claim.where)
    metric, epochs = str(claim.metric), 0 if pd.isna(claim.epochs) else int(claim.epochs)
    a, b = (printed.get((row, claim.setting, epochs, metric, claim.target), np.nan) for row in (claim.a, claim.b))
    return b - a if metric == "mse" else a - b


def group_verdict(counts: dict[str, int]) -> str:
    """One word for a group of claims, by those that were tested: ``better``, ``worse`` or ``equivalent``, ``… in part``
    (the rest undecided), ``mixed`` (several of them), ``undecided``; ``not run`` where none was."""
    found = [name for name in DECIDED if counts.get(name)]
    open_ = bool(counts.get("undecided"))
    if len(found) > 1:
        return "mixed"
    if found:
        return found[0] + (" in part" if open_ else "")
    return "undecided" if open_ else "not run"


def verdicts_by_group(claims: pd.DataFrame) -> pd.DataFrame:
    """One row a group of claims: section, claim, verdict, how many are better, equivalent, undecided, worse or not run,
    and the range of the gains, ours and the paper's, as text. claims: `reproduction.experiments.claim_verdicts`, as
    published."""
    rows = []
    for group in GROUPS:
        chosen = _of(claims, group)
        if not len(chosen):
            raise InputError(f"claims: none of {group.where} with {group.a or 'any'} before {group.b or 'any'}")
        counts = {str(name): int(n) for name, n in chosen["verdict"].value_counts().items()}
        metric = str(chosen["metric"].iloc[0])
        scale = 100.0 if metric in (*PERCENT, "recall1") else 1.0
        tested = chosen[chosen["verdict"] != "not run"]
        rows.append(
            {
                "section": group.section, "claim": group.claim, "where": group.where, "verdict": group_verdict(counts),
                **{name: counts.get(name, 0) for name in (*DECIDED, "undecided")}, "not_run": counts.get("not run", 0),
                "gain": _span(tested["gain"], metric, scale),
                "paper": _span([_paper_gain(claim) for claim in records(tested if len(tested) else chosen)], metric, 1),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def headline(claims: pd.DataFrame) -> str:
    """The count of verdicts as a sentence."""
    counts = claims["verdict"].value_counts()
    tested = len(claims) - int(counts.get("not run", 0))
    better, worse, same, undecided = (int(counts.get(verdict, 0)) for verdict in (*DECIDED, "undecided"))
    return (
        f"Of the paper's {len(claims)} claims that one method beats another, {tested} could be tested: "
        f"**{better} {'holds' if better == 1 else 'hold'} (better), {worse} {_are(worse)} reversed (worse), "
        f"in {same} the two are equivalent, {undecided} {_are(undecided)} undecided** at this size of test."
    )


# The questions of the page, in order: section, question, file of verdicts, table, a, b, target, metric.
_LAND, _AREA, _COVER = "Land price", "Area type", "Land cover (without fills)"
QUESTIONS = (
    (_LAND, "better than DINO?", "claims-table1", "table1", "gps_selm", "dino"),
    (_LAND, "better than random weights?", "claims-table1", "table1", "gps_selm", "random_init"),
    (_LAND, "does reconstruction add?", "claims-table1", "table1", "gps_selm_geo_rec", "gps_selm_geo"),
    (_LAND, "does clustering add?", "claims-table1", "table1", "gps_selm", "gps_selm_geo_rec"),
    (_LAND, "does self-supervision add to geo losses?", "claims-table1", "table1", "gps_selm", "geo_only"),
    (_LAND, "better than trees on coordinates?", "claims-table1", "table1", "gps_selm", "trees_coordinates"),
    (_LAND, "better than the image's colours?", "claims-table1", "table1", "gps_selm", "histogram_17"),
    (_LAND, "better than the colours of four zooms?", "claims-table1", "table1", "gps_selm", "histogram_17_14"),
    (_AREA, "better than DINO?", "claims-table2", "table2", "gps_selm", "dino"),
    (_AREA, "better than random weights?", "claims-table2", "table2", "gps_selm", "random_init"),
    (_AREA, "does self-supervision add to geo losses?", "claims-table2", "table2", "gps_selm", "geo_only"),
    (_AREA, "better than the image's colours?", "claims-table2", "table2", "gps_selm", "histogram_17"),
    (_AREA, "better than the colours of four zooms?", "claims-table2", "table2", "gps_selm", "histogram_17_14"),
    (_COVER, "better than DINO?", "claims", "table3", "gps_selm", "dino"),
    (_COVER, "better than random weights?", "claims", "table3", "gps_selm", "random_init"),
)
_TARGETS = {"table1": ("l01", "mse"), "table2": ("area_type", "top1"), "table3": ("osm_no_fills", "top1")}
# The same far from what the probe has learned from, where that is published: target, its paper's table, questions.
_SAME = ("dino", "mugs", "random-init", "self-supervision", "colours")
FAR = (
    ("price", "table1", (*_SAME, "more-colours", "reconstruction", "clustering")),
    ("density", "", _SAME),
    ("area_type", "table2", _SAME),
)


def scorecard(profile: str) -> pd.DataFrame:
    """The questions that matter, one row each: section, question, gain, low and high in per cent of what b reaches,
    the paper's gain likewise, and the verdict. Questions that nothing is published on are left out.

    Far from what the probe has learned from, in all regions, where that is published; else by the tables' claims."""
    far = _far_rows(profile)
    asked = [one for one in QUESTIONS if not far or one[0] == _COVER]
    columns = ["section", "question", "gain", "low", "high", "paper", "verdict"]
    return pd.DataFrame(far + _claimed_rows(profile, asked), columns=columns)


def _far_rows(profile: str) -> list[dict[str, Any]]:
    """Rows of `scorecard` by the verdicts at the widest buffer; a gain is set against the mean error of b, or its
    accuracy, on the same points."""
    questions, blocks = knowledge.asked(profile), published.results("knowledge-blocks", profile)
    questions = questions[questions["verdict"] != "not run"]
    if blocks is None or not len(questions):
        return []
    blocks, out = blocks[blocks["buffer_km"] == knowledge.HEADLINE], []
    for target, where, ids in FAR:
        of_target = blocks[(blocks["target"] == target) & (blocks["metric"] == knowledge.METRIC[target])]
        found = {row.question: row for row in records(questions[questions["target"] == target])}
        for row in (found[name] for name in ids if name in found):
            of_b = scores_of(of_target, row.b, row.setting)
            of_b = of_b[of_b["region"].isin(knowledge.regions_of(of_target, row.a, row.b, row.setting))]
            level = float(np.average(of_b["score"], weights=of_b["points"]))
            word, text = knowledge.WORDS[target], result_figures.short_question(row.text)
            text = text.replace("no pretraining", "random weights")  # as the table on land cover has it
            out.append(
                {"section": word[:1].upper() + word[1:], "verdict": row.verdict,
                 "question": text[:1].lower() + text[1:],
                 "paper": _printed_gain(where, row.a, row.b) if where else np.nan,
                 **{name: 100 * getattr(row, name) / level for name in ("gain", "low", "high")}}
            )  # fmt: skip
    return out


def _claimed_rows(profile: str, questions: Iterable[tuple[str, ...]]) -> list[dict[str, Any]]:
    """Rows of `scorecard` by the claims of the tables, in the paper's test region."""
    out = []
    for section, question, file, where, a, b in questions:
        claims, rows = published.results(file, profile), published.results(where, profile)
        if claims is None or rows is None:
            continue
        target, metric = _TARGETS[where]
        asked = claims[(claims["a"] == a) & (claims["b"] == b) & (claims["metric"] == metric)]
        if file == "claims":
            asked = asked[(asked["where"] == where) & asked["target"].isin([target, "osm"])]
        if not len(asked):
            continue
        claim = next(records(asked.tail(1)))
        of_b = rows[(rows["target"] == target) & (rows["split"] == "blocks") & (rows["metric"] == metric)]
        settings = ["frozen"] if file == "claims" else ["frozen-closed", "practitioner"]
        of_b = of_b[(of_b["method"] == b) & of_b["setting"].isin(settings)]
        level = float(of_b.loc[of_b["epochs"] == of_b["epochs"].max(), "value"].mean())
        out.append(
            {"section": section, "question": question, "verdict": claim.verdict, "paper": _printed_gain(where, a, b),
             **{name: 100 * getattr(claim, name) / level for name in ("gain", "low", "high")}}
        )  # fmt: skip
    return out


def card(profile: str) -> Html:
    """`scorecard` as a picture, with what was asked where."""
    questions, far = scorecard(profile), knowledge.pooled_regions(profile)
    said = "; ".join(
        f"{row.section}, {row.question} " + (f"{row.gain:+.0f} %, " if np.isfinite(row.gain) else "") + row.verdict
        for row in records(questions)
    )
    where = (
        f"{knowledge.HEADLINE:g} km and more from what the probe has learned from, in {far} or those of them where "
        "both rows were tested (land cover: spatial blocks in Hokkaido, by a linear layer)"
        if far else "under spatial blocks"
    )  # fmt: skip
    caption = (
        f"**The questions, {PROFILE_WORDS.get(profile, profile)}.** Filled: our gain and its interval {where}, "
        "corrected for the number of questions. Hollow: the paper's gain, on its own data and random split. Better and "
        f"worse: the interval leaves out 0. Equivalent: it lies within {MARGINS['mse']:g} of MSE or "
        f"{100 * MARGINS['top1']:g} point."
    )
    return picture(result_figures.scorecard(questions), caption, f"Scorecard. {said}.")


def _printed_gain(where: str, a: str, b: str) -> float:
    """The paper's gain of a over b in per cent of b, after its last epoch, frozen; NaN where it has no such rows."""
    printed, (_, metric) = printed_values(where), _TARGETS[where]
    found = {}
    for (method, setting, epochs, of, target), value in printed.items():
        if of == metric and setting != "finetune" and target in ("l01", "area_type", "osm"):
            found[method, epochs] = value
    last = max((epochs for _, epochs in found), default=0)
    one, other = found.get((a, last), np.nan), found.get((b, last), np.nan)
    return 100 * (one - other if HIGHER_IS_BETTER[metric] else other - one) / other


def sentences(profile: str) -> list[str]:
    """What a reader with one minute should know: five sentences with their numbers, fewer where rows lack."""
    out = []
    claims = published.results("claims", profile)
    if claims is not None:
        out.append(headline(claims))
    land = result_page.published_table("table1", "l01", profile=profile)
    if land is not None and (own := land.row("gps_selm")) is not None and (dino := land.row("dino")) is not None:
        far = far_price(profile)
        printed = f"the paper prints {own.paper:.2f} and {dino.paper:.2f} on a random split."
        out.append(
            f"{far} In Hokkaido's spatial blocks it is {own.mean:.2f} against {dino.mean:.2f}; {printed}"
            if far else
            f"For land price where the neighbourhood is unknown, GPS-SELM's error is **{own.mean:.2f}**, DINO's "
            f"{dino.mean:.2f}, that of random weights {_mean_of(land, 'random_init')} and the mean predictor's "
            f"{land.constant:.2f} ({PROFILE_WORDS.get(profile, profile)}); {printed}"
        )  # fmt: skip
        plain = next(records(land.rows[land.rows["kind"] == "baseline"]))
        word = "more" if own.mean < plain.mean else "less"
        out.append(
            f"An encoder of one map image is worth **{word}** than the best row of Table 1 that needs no training "
            f"(*{plain.title}*: {plain.mean:.2f})."
        )
    if (best := _with_several_zooms(practice(profile))) is not None:
        beside = ", with the coordinates" if best["coordinates"] else ""
        away = f"{km_of(best['split']) or min(BUFFERS):g} km and more from known prices"
        text = f"With several zooms the error is **{best['mean']:.2f}**, {away} in Hokkaido (*{best['title']}*{beside})"
        nearby = practice(profile, "blocks") if km_of(best["split"]) else None
        alike = None if nearby is None else nearby[nearby["coordinates"] == best["coordinates"]]
        near = _with_several_zooms(alike)
        text += "" if near is None else f"; {near['mean']:.2f} next door, where wide images overlap with theirs"
        taught = more_context.best_head(published.results("surroundings", profile), best["split"])
        text += f"; {taught:.2f} with what other regions teach beside it" if taught < best["mean"] else ""
        out.append(f"{text}.")
    found = top_recall(profile)
    if found is not None and "gps_selm" in found.index:
        area = str(found.columns[0])
        of = {str(method): float(share) for method, share in found[area].items()}
        white = of.get(f"gps_selm{WHITENED}", np.nan)
        more = f", {white:.0f} % once its embeddings are whitened" if np.isfinite(white) else ""
        out.append(
            f"A place is found again among the nearest 1 % from a turned and zoomed picture in "
            f"**{of['gps_selm']:.0f} %** of cases in {area.replace('-', ' ').title()}{more}; random weights "
            f"reach {of['random_init']:.0f} %."
        )
    return out


def _with_several_zooms(rows: pd.DataFrame | None) -> pd.Series | None:
    """The best embedding of several zooms among the rows of `practice`."""
    if rows is None:
        return None
    some = rows[rows["title"].str.contains("zooms") & (rows["kind"] != "no embedding")]
    return some.iloc[0] if len(some) else None


def far_price(profile: str) -> str:
    """Errors of land price at the widest buffer, all of the same points, as a sentence; "" where rows lack."""
    rows = published.results("knowledge", profile)
    if rows is None:
        return ""
    table, pooled = knowledge.errors(rows, "price")
    split = f"blocks, {knowledge.HEADLINE:g} km"
    named = {"gps_selm": "GPS-SELM", "dino": "DINO", "random_init": "random weights", "prior": "the mean predictor"}
    values = table.set_index("method")[split].reindex(list(named)) if split in table else pd.Series([np.nan])
    if values.isna().any():
        return ""
    own, dino, weights, mean = values
    regions = knowledge.joined([knowledge.region_title(region) for region in pooled[split]])
    return (
        f"For land price {knowledge.HEADLINE:g} km and more from known prices, in {regions}, GPS-SELM's error is "
        f"**{own:.2f}**, DINO's {dino:.2f}, that of random weights {weights:.2f} and the mean predictor's {mean:.2f} "
        f"({PROFILE_WORDS.get(profile, profile)})."
    )


def far_away(profile: str) -> str:
    """What is known of places far from those that the probe has learned from: the count of verdicts, and whether
    self-supervision adds to supervision, with its interval in every target; "" where nothing is published."""
    questions = knowledge.asked(profile)
    if not len(questions):
        return ""
    return (
        f"**Far from what the probe has learned from ({knowledge.HEADLINE:g} km).** {knowledge.counts(questions)} "
        f"{knowledge.what_explains(profile)} [What does an embedding know?](what-it-knows.html) shows them."
    )


def _mean_of(result: result_page.Result, method: str) -> str:
    row = result.row(method)
    return "–" if row is None else f"{row.mean:.2f}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _claims(count: int) -> str:
    return "1 claim" if count == 1 else f"{count} claims"


def basis(claims: pd.DataFrame) -> str:
    """On what data, as a sentence for each table that was tested."""
    names = {
        "table1": "land price: official points of Hokkaido, never pretrained on",
        "table2": "area type: official points in cells set aside before pretraining",
        "table3": "land cover: map images without fills",
        "figure5": "recall: places of two areas",
    }
    out = []
    for where, name in names.items():
        run = claims[(claims["where"] == where) & (claims["verdict"] != "not run")]
        if len(run):
            blocks = "" if run["n_blocks"].isna().all() else f" in {int(run['n_blocks'].max())} blocks"
            out.append(f"{name} ({int(run['n_points'].max()):,} places{blocks})")
    runs = int(claims[["seeds_a", "seeds_b"]].to_numpy().max())
    return "; ".join(out) + f". Pretraining runs of a method: at most {runs}."


def open_questions(claims: pd.DataFrame) -> list[str]:
    """What would settle the rest, a sentence each."""
    out = []
    missing = claims[claims["reason"].fillna("").str.startswith("no finished row of ")]
    names = sorted({name for reason in missing["reason"] for name in reason.split("row of ")[1].split(" and ")})
    tuned = int((missing["setting"] == "finetune").sum())
    if names:
        of = ", ".join(map(title_of, names)) + (f"; {tuned} of them fine-tuned" if tuned else "")
        out.append(
            f"**{_claims(len(missing))} {'waits' if len(missing) == 1 else 'wait'} for rows that are not computed "
            f"yet** (of {of}): finish the pretrainings and the cells of the tables."
        )
    for reason, rows in claims[claims["reason"].fillna("").str.startswith("needs ")].groupby("reason"):
        need = str(reason) if len(rows) == 1 else str(reason).replace("needs", "need")
        out.append(f"**{_claims(len(rows))} {need}**, which could not be had; the reader is ready.")
    undecided = claims[claims["verdict"] == "undecided"]
    lost = undecided["low"].isna()
    if lost.any():
        out.append(
            f"**{_claims(int(lost.sum()))} {_are(int(lost.sum()))} undecided because the scores of a row were not "
            "kept**: compute and publish it again."
        )
    undecided = undecided[~lost]
    if len(undecided):
        width = (undecided["high"] - undecided["low"]) / 2
        parts = []
        for key, rows in undecided.groupby("where"):
            where = str(key)
            scale = 1.0 if where == "table1" else 100.0
            unit = "in MSE" if where == "table1" else "points"
            parts.append(
                f"{len(rows)} of {where.replace('table', 'Table ').replace('figure', 'Figure ')}, whose intervals are "
                f"± {scale * width[rows.index].median():.3g} {unit} wide (median)"
            )
        out.append(
            f"**{_claims(len(undecided))} {_are(len(undecided))} undecided** ({'; '.join(parts)}): more test places, "
            "more pretraining runs, or a larger encoder, whose differences may be larger."
        )
    return out


_KINDS = {
    "frozen-closed": "embedding", "with-coordinates": "embedding and coordinates", "practitioner": "no embedding",
}  # fmt: skip


_PEER = "a peer's embedding of coordinates"
_NO_MAP = "embedding of coordinates, no map"


def practice(profile: str, split: str = "") -> pd.DataFrame | None:
    """Land price in the test region, least error first: title, kind, coordinates (whether it knows them), mean, sd,
    split.

    `split` is by default the one with the widest buffer that the chapter on more context asked, "blocks" without it.
    An encoder of coordinates that others have published (a *peer*) is a kind of its own.
    By the best linear layer on an embedding, trees on an embedding with the coordinates, without any embedding, and,
    where the chapter on more context has been run, on embeddings of so many zooms as the validation regions chose; and
    the feature tables that were distilled from such embeddings and need no map.
    """
    wider = published.results("surroundings", profile)
    split = split or ("blocks" if wider is None else more_context.headline(wider))
    rows = _of_one_zoom(profile, split)
    if rows is None:
        return None
    parts = [rows[rows["setting"].isin(list(_KINDS))], _without_map(profile, split)]
    if wider is not None:
        parts.append(more_context.chosen_zooms(wider))
    table = pd.concat([part for part in parts if part is not None])
    table = table[(table["target"] == "l01") & (table["split"] == split)]
    if not len(table):
        return None
    table = summarise(table)
    alone = table["method"] == distilled.GRID_TABLES
    zooms = ~table["setting"].isin(list(_KINDS)) & ~alone
    beside = table["setting"].str.endswith("coordinates") | table["method"].str.endswith("coordinates")
    table["title"] = table["method"].map(title_of)
    table.loc[zooms, "title"] += ", " + table.loc[zooms, "setting"].map(more_context.zooms_title)
    table["kind"] = table["setting"].map(_KINDS).fillna("embedding")
    table.loc[zooms & beside, "kind"] = _KINDS["with-coordinates"]
    table.loc[zooms & table["method"].isin(["colours", "histogram"]), "kind"] = _KINDS["practitioner"]
    of_peers = table["method"].isin(list(PEERS))
    table.loc[of_peers, "kind"] = _PEER
    table.loc[alone, "kind"] = _NO_MAP
    table["coordinates"] = beside | of_peers | alone
    return table.sort_values("mean")[["title", "kind", "coordinates", "mean", "sd", "split"]].reset_index(drop=True)


def _without_map(profile: str, split: str) -> pd.DataFrame | None:
    """The rows of the distilled feature tables under a split, if they are published."""
    rows = published.results("distilled", profile)
    if rows is None:
        return None
    asked = split if km_of(split) else f"{split}, {get_profile(profile).maps.buffer_m / 1000:g} km"
    own = distilled.chosen(rows, [distilled.GRID_TABLES])
    return own[own["split"] == asked].assign(split=split)


def _of_one_zoom(profile: str, split: str) -> pd.DataFrame | None:
    """The rows of Table 1; under a wider buffer, those of "what an embedding knows" in the same region, named alike."""
    if not km_of(split):
        return published.results("table1", profile)
    rows = published.results("knowledge", profile)
    if rows is None:
        return None
    region = get_profile(profile).regions_for("test")[0].name
    rows = rows[(rows["target"] == "price") & (rows["region"] == region)]
    return rows.assign(target="l01", setting=rows["setting"].replace(knowledge.CLOSED, "frozen-closed"))


def worth(rows: pd.DataFrame) -> list[str]:
    """What `practice` says, a sentence each: the best embedding against the best row without one, by what they know."""
    out = []
    km = km_of(rows["split"].iloc[0])
    away = f", {km:g} km and more from known prices" if km else ""
    for known, when in ((False, "Without coordinates"), (True, "With coordinates")):
        some = rows[(rows["coordinates"] == known) & (rows["kind"] != _PEER)]
        ours, others = (some[(some["kind"] == "no embedding") == none] for none in (False, True))
        if not len(ours) or not len(others):
            continue
        a, b = ours.iloc[0], others.iloc[0]
        ahead = "ahead of" if a["mean"] < b["mean"] else "behind"
        out.append(
            f"{when}{away}, the best embedding ({a['title']}, {a['mean']:.3f}) is **{ahead}** the best row that needs "
            f"none ({b['title']}, {b['mean']:.3f})."
        )
    return out


def best_tries(profile: str) -> list[str]:
    """A sentence for each method of the sweep: its error in the test region as it is and by the try that was chosen in
    the validation regions (`reproduction.experiments.ablations.tuned`)."""
    rows, sweep = published.results("tuned", profile), published.results("ablations", profile)
    if rows is None or sweep is None:
        return []
    tries = sweep[sweep["variant"] != AS_IT_IS].groupby("method")["variant"].nunique()
    out = []
    for method, part in rows.groupby("method", sort=False):
        means = part.groupby("variant", sort=False)["value"].mean()
        own, tried = means[AS_IT_IS], means.drop(AS_IT_IS)
        best = [f", {value:.3f} by the best of {tries[method]} ({name})" for name, value in tried.items()]
        none = f"; none of {tries[method]} tries gained more than chance" if not best else ""
        out.append(f"**{title_of(str(method))}**: {own:.3f} {AS_IT_IS}{''.join(best)}{none}.")
    return out


def top_recall(profile: str) -> pd.DataFrame | None:
    """Top-1 % recall (%) of views that are turned and zoomed: a row a representation, a column an area."""
    rows = published.results("figure5", profile)
    if rows is None:
        return None
    chosen = rows[(rows["query"] == "d0") & (rows["share"] == 1)]
    return 100 * chosen.pivot_table(index="method", columns="area", values="recall", sort=False)

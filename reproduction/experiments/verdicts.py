"""The few questions that a reader has, with a verdict each: a function of the published scores by block.

The questions are of one kind each (`KINDS`): the paper's, what explains the gain, and what a practitioner asks. A
family of questions, corrected together, is one kind for one target, one setting (how the embedding is probed) and one
buffer between training and test points. What is compared is pooled over all regions that both sides were tested in.

Read from ``data/results/PROFILE/knowledge-blocks.csv``: a row a (region, target, metric, buffer_km, setting, method,
seed, block), with the block's `points` and their mean `score`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from reproduction import paths
from reproduction.experiments.row_claims import MARGINS
from reproduction.report import HIGHER_IS_BETTER
from reproduction.results import by_category, read_csv
from selm.errors import InputError
from selm.probes.claims import N_BOOT, Draws, gain, judge

BLOCKS = "knowledge-blocks.csv"
BUFFERS = (1.0, 5.0, 15.0)  # km
KEY = ("region", "target", "metric", "buffer_km", "setting", "method", "seed", "block")
BESIDE = "with-coordinates"  # the setting of embeddings probed together with the coordinates
NO_EMBEDDING = "practitioner"  # the setting of rows that have none
COLUMNS = (
    "family", "question", "text", "a", "b", "target", "metric", "setting", "buffer_km", "gain", "low", "high", "level",
    "p", "p_beyond", "p_holm", "verdict", "n_points", "n_blocks", "n_regions", "seeds_a", "seeds_b", "margin",
    "n_family", "reason",
)  # fmt: skip


@dataclass(frozen=True)
class Question:
    """Does a beat b? Rows of `reproduction.titles`; "+coordinates": with the coordinates beside it."""

    id: str
    text: str
    a: str
    b: str


PAPER = (
    Question("dino", "Does GPS-SELM beat DINO?", "gps_selm", "dino"),
    Question("mugs", "Does GPS-SELM beat MUGS?", "gps_selm", "mugs"),
    Question("moco-v2", "Does GPS-SELM beat MoCo-V2?", "gps_selm", "moco_v2"),
    Question("moco-geo-tp", "Does GPS-SELM beat MoCo-V2+Geo+TP?", "gps_selm", "moco_geo_tp"),
    Question("tile2vec", "Does GPS-SELM beat Tile2Vec?", "gps_selm", "tile2vec"),
    Question("random-init", "Does GPS-SELM beat no pretraining?", "gps_selm", "random_init"),
    Question("geo", "Do the geographic losses add to DINO?", "gps_selm_geo", "dino"),
    Question("reconstruction", "Does reconstruction add to geo?", "gps_selm_geo_rec", "gps_selm_geo"),
    Question("clustering", "Does clustering add to geo and reconstruction?", "gps_selm", "gps_selm_geo_rec"),
)
EXPLAINS = (
    Question("self-supervision", "Does self-supervision add to the geographic losses?", "gps_selm", "geo_only"),
    Question("price", "Does land price in pretraining add?", "gps_selm", "gps_selm_no_price"),
)
PRACTICE = (
    Question("geoclip", "Does GPS-SELM beat GeoCLIP's own weights?", "gps_selm", "geoclip"),
    Question("knn", "Does GPS-SELM beat k-NN on coordinates?", "gps_selm", "knn_coordinates"),
    Question("trees", "Does GPS-SELM beat trees on coordinates?", "gps_selm", "trees_coordinates"),
    Question("colours", "Does GPS-SELM beat the colours of zoom 17?", "gps_selm", "histogram_17"),
    Question("more-colours", "Does GPS-SELM beat the colours of zooms 17-14?", "gps_selm", "histogram_17_14"),
    Question("with-knn", "… with the coordinates, k-NN on them?", "gps_selm+coordinates", "knn_coordinates"),
    Question("with-trees", "… with the coordinates, trees on them?", "gps_selm+coordinates", "trees_coordinates"),
    Question(
        "with-colours", "… with the coordinates, the colours of zoom 17 with them?", "gps_selm+coordinates",
        "histogram_17+coordinates",
    ),
    Question(
        "with-more-colours", "… with the coordinates, the colours of zooms 17-14 with them?", "gps_selm+coordinates",
        "histogram_17_14+coordinates",
    ),
)  # fmt: skip
KINDS = {"paper": PAPER, "explains": EXPLAINS, "practice": PRACTICE}
# Questions that are not asked for a target: images without fills, for land cover, are drawn at zoom 17 alone.
NOT_ASKED = {"land_cover": ("more-colours", "with-more-colours")}


def verdicts(
    where: str | Path, *, buffers: tuple[float, ...] = BUFFERS, level: float = 0.95, n_boot: int = N_BOOT
) -> pd.DataFrame:
    """A verdict on every question in every family, by what is published in a folder or of a profile (its name).

    Columns `COLUMNS`; a row a question, target, setting and buffer: a page's columns are `buffer_km`. Gains are
    positive where a is better, in units of the metric (shares for accuracies). `seeds_a seeds_b`: the pretraining runs
    behind each side; with 1 the spread over runs is unknown and not in the interval. `n_regions` are those that both
    were tested in.
    Raises InputError for a file that is not there or lacks a column.
    """
    folder = where if isinstance(where, Path) else paths.repository() / "data" / "results" / where
    if not (folder / BLOCKS).exists():
        raise InputError(f"{folder / BLOCKS}: no such file")
    return verdicts_on(read_csv(folder / BLOCKS), buffers=buffers, level=level, n_boot=n_boot)


def verdicts_on(
    blocks: pd.DataFrame, *, buffers: tuple[float, ...] = BUFFERS, level: float = 0.95, n_boot: int = N_BOOT
) -> pd.DataFrame:
    """The same on a table of blocks."""
    absent = [column for column in (*KEY, "points", "score") if column not in blocks]
    if absent:
        raise InputError(f"{BLOCKS}: column '{absent[0]}' is missing")
    blocks = by_category(blocks)
    parts = []
    for buffer in buffers:
        near = blocks[blocks["buffer_km"] == buffer]
        for (target, metric), of_target in near.groupby(["target", "metric"], sort=False):
            if metric not in MARGINS:
                raise InputError(f"{BLOCKS}: unknown metric '{metric}'")
            for kind, setting in _families(of_target):
                family = _family(of_target, kind, setting, level=level, n_boot=n_boot)
                parts.append(family.assign(target=str(target), metric=str(metric), buffer_km=buffer))
    if not parts:
        return pd.DataFrame(columns=list(COLUMNS))
    table = pd.concat(parts, ignore_index=True)
    return table.rename(columns={"interval_level": "level"})[list(COLUMNS)]


def _families(blocks: pd.DataFrame) -> list[tuple[str, str]]:
    """The kinds of questions, and the settings in which there are embeddings to ask about.

    `BESIDE` is none: what embeddings give with the coordinates beside them is asked where they are probed alone.
    """
    settings = list(dict.fromkeys(blocks.loc[blocks["method"].isin(["gps_selm", "dino"]), "setting"]))
    settings = [setting for setting in settings if setting != BESIDE]
    out = [(kind, setting) for kind in ("paper", "explains") for setting in settings]
    return out + [("practice", setting) for setting in settings if setting != "finetune"]


def _family(blocks: pd.DataFrame, kind: str, setting: str, *, level: float, n_boot: int) -> pd.DataFrame:
    metric = str(blocks["metric"].iloc[0])
    found: list[dict[str, Any]] = []
    draws: list[Draws | None] = []
    skipped = NOT_ASKED.get(str(blocks["target"].iloc[0]), ())
    for question in (one for one in KINDS[kind] if one.id not in skipped):
        a, b = (scores_of(blocks, method, setting) for method in (question.a, question.b))
        reason, one = "", None
        lacking = [name for name, rows in ((question.a, a), (question.b, b)) if not len(rows)]
        common = sorted(set(a["region"]) & set(b["region"]))
        if lacking:
            reason = f"no row of {' and '.join(lacking)}"
        elif not common:
            reason = "no region that both were tested in"
        else:
            a, b = (rows[rows["region"].isin(common)] for rows in (a, b))
            try:
                one = gain(a, b, higher_is_better=HIGHER_IS_BETTER.get(metric, True), n_boot=n_boot)
            except InputError as error:
                reason = str(error)
        draws.append(one)
        found.append(
            {
                "family": f"{kind}: {blocks['target'].iloc[0]}, {setting}, {blocks['buffer_km'].iloc[0]:g} km",
                "question": question.id, "text": question.text, "a": question.a, "b": question.b, "setting": setting,
                "seeds_a": _seeds(a), "seeds_b": _seeds(b), "margin": MARGINS[metric], "reason": reason,
            }
        )  # fmt: skip
    table = pd.concat([pd.DataFrame(found), judge(draws, level, margin=MARGINS[metric])], axis=1)
    return table.astype(dict.fromkeys(("n_points", "n_blocks", "n_regions"), "Int64"))


def _seeds(rows: pd.DataFrame) -> int:
    """The pretraining runs behind a side: the fewest of any region."""
    return int(rows.groupby("region")["seed"].nunique().min()) if len(rows) else 0


def scores_of(blocks: pd.DataFrame, method: str, setting: str) -> pd.DataFrame:
    """A row's scores by block: an embedding's in this setting, with the coordinates in `BESIDE`, others' in theirs."""
    tries = [(method, setting), (method, NO_EMBEDDING)]
    if method.endswith("+coordinates"):
        tries.append((method.removesuffix("+coordinates"), BESIDE))
    for name, of in tries:
        rows = blocks[(blocks["method"] == name) & (blocks["setting"] == of)]
        if len(rows):
            return rows
    return blocks.iloc[:0]

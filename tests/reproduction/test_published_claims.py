"""Every published gain is that of the published rows: claims and verdicts are never older than what they are about."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from reproduction import paths, publishing
from reproduction.experiments import verdicts
from reproduction.report import HIGHER_IS_BETTER, records

RESULTS = paths.repository() / "data" / "results"
ROUNDING = 3e-6  # of six digits behind the point, of means and of their difference


def folders(name: str) -> list[Path]:
    return sorted(file.parent for file in RESULTS.glob(f"*/{name}"))


def mean(rows: pd.DataFrame, column: str = "value") -> float:
    """Over trials, then over pretraining runs; NaN for none."""
    return float(rows.groupby("seed")[column].mean().mean()) if len(rows) else math.nan


def gain_of(claim: Any, rows: pd.DataFrame) -> float:
    """A claim's gain by the rows of its table, worked out anew."""
    values = []
    for method in (claim.a, claim.b):
        if claim.where == "figure5":
            found = rows[(rows["area"] == method) & (rows["query"] == "d0") & (rows["share"] == 1)]
            values.append(mean(found[found["method"] == "gps_selm"], "recall"))
            continue
        of_table3 = claim.where == "table3"
        setting = ("finetune" if method == "raw_gps" else "frozen") if of_table3 else claim.setting
        found = rows[
            (rows["target"] == ("osm_no_fills" if of_table3 else claim.target)) & (rows["split"] == "blocks")
            & (rows["method"] == method) & (rows["setting"] == setting) & (rows["metric"] == claim.metric)
        ]  # fmt: skip
        last = found["epochs"].max()
        values.append(mean(found[found["epochs"] == (last if pd.isna(claim.epochs) else claim.epochs)]))
    a, b = values
    return a - b if HIGHER_IS_BETTER.get(claim.metric, True) else b - a


@pytest.mark.parametrize("folder", folders("claims.csv"), ids=lambda folder: folder.name)
def test_gains_of_the_papers_claims_are_those_of_the_published_rows(folder: Path) -> None:
    claims = pd.read_csv(folder / "claims.csv")
    tables = {where: pd.read_csv(file) for where in set(claims["where"]) if (file := folder / f"{where}.csv").exists()}
    wrong, tested = [], 0
    for claim in records(claims):
        if claim.target in ("naip", "xview", "water"):
            assert claim.verdict == "not run"
            continue
        gain = gain_of(claim, tables[claim.where]) if claim.where in tables else math.nan
        tested += math.isfinite(gain)
        if math.isfinite(gain) == (claim.verdict == "not run") or abs(gain - claim.gain) > ROUNDING:
            wrong.append(f"{claim.id}: {claim.gain} is published, the rows say {gain:.6f}")
    assert not wrong, "\n".join(wrong)
    assert tested


PUBLISHED = sorted({*folders("claims.csv"), *folders(verdicts.BLOCKS)})


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_verdicts_are_what_the_published_files_give(folder: Path) -> None:
    """The whole tables, intervals and verdicts included; and all that there should be is there."""
    for name, made in publishing.verdicts_of(folder).items():
        texts = {"commit": str, "data": str}
        published = pd.read_csv(folder / name, dtype=texts)
        again = pd.read_csv(io.StringIO(made.round(6).to_csv(index=False)), dtype=texts)
        pd.testing.assert_frame_equal(again, published, check_dtype=False, obj=f"{folder.name}/{name}")


@pytest.mark.parametrize("folder", folders("verdicts.csv"), ids=lambda folder: folder.name)
def test_gains_of_the_questions_are_those_of_the_published_blocks(folder: Path) -> None:
    published = pd.read_csv(folder / verdicts.BLOCKS)
    blocks = dict(tuple(published.groupby(["target", "metric", "buffer_km", "method", "setting"])))

    def of(row: Any, method: str, *settings: str) -> pd.DataFrame:
        keys = ((row.target, row.metric, row.buffer_km, method, setting) for setting in settings)
        return pd.concat([published[:0], *(blocks[key] for key in keys if key in blocks)])

    for row in records(pd.read_csv(folder / "verdicts.csv").dropna(subset="gain")):
        sides = []
        for method in (row.a, row.b):
            own = of(row, method, row.setting, "practitioner")
            if not len(own):
                base = method.removesuffix("+coordinates")
                own = of(row, base, "with-coordinates")
            sides.append(own)
        common = set(sides[0]["region"]) & set(sides[1]["region"])
        a, b = (_pooled(side[side["region"].isin(common)]) for side in sides)
        gain = a - b if HIGHER_IS_BETTER.get(row.metric, True) else b - a
        assert gain == pytest.approx(row.gain, abs=ROUNDING), (row.family, row.question)


def _pooled(blocks: pd.DataFrame) -> float:
    """The mean over points, of the mean over the seeds of each region."""
    runs = blocks.assign(sum=blocks["score"] * blocks["points"]).groupby(["region", "seed"])[["sum", "points"]].sum()
    means, sizes = (column.groupby("region") for column in (runs["sum"] / runs["points"], runs["points"]))
    return float(np.average(means.mean(), weights=sizes.first()))

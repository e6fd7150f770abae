"""Tables of claims: every verdict with its numbers, and none where a run is a plumbing check."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from reproduction.experiments.score_claims import compare_claims
from reproduction.pages import claim_tables


def claims(profile: str = "japan-cpu") -> pd.DataFrame:
    rng = np.random.default_rng(0)
    blocks = np.repeat(np.arange(30), 8)
    base = rng.gamma(2, 0.3, len(blocks))
    scores = {"dino": base + 0.3, "gps_selm": base, "gps_selm_geo": base + 0.3 + rng.normal(0, 0.2, len(blocks))}
    pairs = [("gps_selm", "dino"), ("gps_selm_geo", "dino"), ("gps_selm", "random_init"), ("gps_selm", "geo_only")]
    table = compare_claims(scores, pairs, blocks, higher_is_better=False, n_boot=500)
    return table.assign(metric="mse", profile=profile, seeds_a=3, seeds_b=1)


def test_claims_on_a_page() -> None:
    page = claim_tables.ranking_claims_table(claims())
    rows = [re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", row)).strip() for row in page.text.split("<tr>")[2:]]
    assert rows[0].startswith("GPS-SELM (geo+rec+int) beats DINO paper +0.300 +0.300 to +0.300")
    assert rows[0].endswith("3 / 1 better")
    assert rows[1].endswith("undecided")
    assert rows[2] == "GPS-SELM (geo+rec+int) beats Random Init paper – – – – not run"
    assert "ours" in rows[3]
    assert "30 spatial blocks with 240 points" in page.text
    assert "for all 4 claims, run or not" in page.text and "98.33 %" in page.text
    quiet = re.sub(r"<[^>]+>", " ", claim_tables.ranking_claims_table(claims("demo")).text.split("</style>")[1])
    assert "undecided" not in quiet and "better </td>" not in quiet and "no verdict" in quiet
    assert not re.search(r"https?:|<script|@import|url\(", page.text)

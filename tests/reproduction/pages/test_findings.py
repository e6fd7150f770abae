"""What we found: every count and number on the page is that of the published claims."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reproduction.experiments.paper_claims import read_claims
from reproduction.pages import claim_tables, findings, more_context, tables


def made_up_claims() -> pd.DataFrame:
    """The list of claims with verdicts as they might be."""
    claims = read_claims()
    claims = claims.assign(verdict="not run", reason="no finished row of mugs", gain=np.nan, low=np.nan, high=np.nan,
                           n_points=np.nan, n_blocks=np.nan, seeds_a=0, seeds_b=0, profile="japan-cpu")  # fmt: skip
    dino = (claims["where"] == "table1") & (claims["a"] == "gps_selm") & (claims["b"] == "dino")
    values = {"gain": 0.2, "low": 0.1, "high": 0.3, "n_points": 1371, "n_blocks": 75, "seeds_a": 3, "seeds_b": 1}
    claims.loc[dino, list(values)] = list(values.values())
    claims.loc[dino, ["verdict", "reason"]] = ["better", ""]
    last = claims[dino & (claims["setting"] == "finetune")].index[-1]
    claims.loc[last, ["verdict", "gain", "low", "high"]] = ["undecided", 0.05, -0.1, 0.2]
    top1 = (claims["where"] == "table2") & (claims["b"] == "dino") & (claims["metric"] == "top1")
    claims.loc[top1, ["verdict", "reason"]] = ["worse", ""]
    claims.loc[top1, ["gain", "low", "high", "n_points", "n_blocks"]] = [-0.02, -0.03, -0.01, 2655, 30]
    claims.loc[claims["target"] == "naip", "reason"] = "needs NAIP/CDL"
    return claims


def test_every_claim_on_tables_1_and_2_is_in_one_line() -> None:
    claims = made_up_claims()
    table = findings.verdicts_by_group(claims)
    counted = table[["better", "equivalent", "undecided", "worse", "not_run"]].sum(axis=1)
    per_table = counted.groupby(table["where"]).sum()
    assert per_table.to_dict() == claims["where"].value_counts().to_dict()
    first = table.iloc[0]
    assert first["claim"] == "GPS-SELM beats DINO" and first["verdict"] == "better in part"
    assert (first["better"], first["undecided"], first["not_run"]) == (5, 1, 0)
    assert first["gain"] == "+0.050 to +0.200"
    assert first["paper"] == "+0.160 to +0.390"  # 0.29 − 0.13 … 0.65 − 0.26 (frozen), 0.61 − 0.22 fine-tuned
    area = table[(table["where"] == "table2") & (table["claim"] == "GPS-SELM beats DINO")].iloc[0]
    assert area["verdict"] == "worse" and area["gain"] == "−2.0 points"
    assert "GPS-SELM beats DINO" in claim_tables.findings_table(table).text


def test_one_word_for_a_group() -> None:
    words = {
        (3, 0, 0, 0): "better", (3, 0, 0, 1): "better in part", (0, 2, 0, 0): "worse", (0, 2, 0, 1): "worse in part",
        (0, 0, 3, 0): "equivalent", (1, 1, 0, 5): "mixed", (1, 0, 1, 0): "mixed", (0, 0, 0, 4): "undecided",
        (0, 0, 0, 0): "not run",
    }  # fmt: skip
    for counts, word in words.items():
        assert findings.group_verdict(dict(zip((*findings.DECIDED, "undecided"), counts, strict=True))) == word


def test_sentences_are_computed() -> None:
    claims = made_up_claims()
    assert "190 claims" in findings.headline(claims) and "12 could be tested" in findings.headline(claims)
    counted = "**5 hold (better), 6 are reversed (worse), in 0 the two are equivalent, 1 is undecided**"
    assert counted in findings.headline(claims)
    basis = findings.basis(claims)
    assert "1,371 places in 75 blocks" in basis and "at most 3" in basis
    lines = "\n".join(findings.open_questions(claims))
    assert "8 claims need NAIP/CDL" in lines and "(of MUGS; 94 of them fine-tuned)" in lines
    assert "1 claim is undecided" in lines and "± 0.15 in MSE" in lines
    lost = claims.assign(low=np.nan, high=np.nan, n_blocks=np.nan)
    line = findings.open_questions(lost)[-1]
    assert "**1 claim is undecided because the scores of a row were not kept**" in line
    assert "1,371 places)" in findings.basis(lost)
    settled = claims.assign(verdict="better", reason="")
    assert findings.open_questions(settled) == []


def test_what_a_practitioner_asks_is_read_off_the_published_tables(results_folder: Path) -> None:
    def rows(experiment: str, method: str, setting: str, *values: float, split: str = "blocks"):  # type: ignore[no-untyped-def]
        same = {"experiment": experiment, "target": "l01", "split": split, "method": method, "setting": setting,
                "epochs": 0, "metric": "mse", "n_train": 900, "n_test": 100, "seed": 0, "profile": "japan-cpu",
                "stand_in": False}  # fmt: skip
        return [{**same, "trial": trial, "value": value} for trial, value in enumerate(values)]

    assert findings.practice("japan-cpu") is None
    folder = results_folder / "japan-cpu"
    folder.mkdir()
    table = [
        *rows("table1", "gps_selm", "frozen-closed", 0.80, 0.82),
        *rows("table1", "gps_selm", "with-coordinates", 0.60, 0.62),
        *rows("table1", "gps_selm", "frozen", 0.1, 0.1),  # epochs of training: not among them
        *rows("table1", "histogram_17_14", "practitioner", 0.50, 0.52),
        *rows("table1", "histogram_17_14+coordinates", "practitioner", 0.45, 0.47),
        *rows("table1", "trees_coordinates", "practitioner", 0.01, 0.01, split="random"),
        *rows("table1", "geoclip", "frozen-closed", 0.30, 0.32),  # a peer: in the table, in neither side of a sentence
    ]
    pd.DataFrame(table).to_csv(folder / "table1.csv", index=False)
    shown = findings.practice("japan-cpu")
    assert shown is not None and shown["title"].iloc[0] == "GeoCLIP (its own weights)" and shown["coordinates"].iloc[0]
    assert shown["kind"].iloc[0] == "a peer's embedding of coordinates"
    first, second = findings.worth(shown)
    assert "GeoCLIP" not in first + second
    shown = shown.iloc[1:]
    assert shown["mean"].tolist() == pytest.approx([0.46, 0.51, 0.61, 0.81])
    assert shown["coordinates"].tolist() == [True, False, True, False]
    assert shown["kind"].tolist() == ["no embedding", "no embedding", "embedding and coordinates", "embedding"]
    first, second = findings.worth(shown)
    assert "GPS-SELM (geo+rec+int), 0.810) is **behind**" in first and "zooms 17-14, 0.510" in first
    assert first.startswith("Without coordinates") and "0.610) is **behind**" in second
    wider = [
        *({**row, "validation": 0.5} for row in rows("surroundings", "gps_selm_geo", "zooms 17", 0.1, 0.1)),
        *({**row, "validation": 0.3} for row in rows("surroundings", "gps_selm_geo", "zooms 17-16", 0.40, 0.42)),
        *({**row, "validation": 0.4} for row in rows("surroundings", "gps_selm_geo", "zooms 17-16-15", 0.1, 0.1)),
        *(
            {**row, "validation": 0.2}
            for row in rows("surroundings", "gps_selm_geo", "zooms 17-16, coordinates", 0.3, 0.3)
        ),
        *rows("surroundings", "histogram", "zooms 17-16-15", 0.48, 0.48),  # trees: nothing to choose
    ]
    aside = "zooms 17-16-15, one orientation"  # an aside, however good
    wider += [{**row, "validation": 0.1} for row in rows("surroundings", "gps_selm_geo", aside, 0.2, 0.3)]
    aside = "zooms 17-16-15, last stage"
    wider += [{**row, "validation": 0.05} for row in rows("surroundings", "gps_selm_geo", aside, 0.4, 0.4)]
    for name, without in ((", one orientation", 0.25), (", last stage", 0.4)):
        assert more_context.what_it_adds(pd.DataFrame(wider), name).to_dict("list") == {
            "method": ["gps_selm_geo"], "coordinates": [False], "split": ["blocks"],
            "without": [pytest.approx(without)], "with": [pytest.approx(0.1)],
        }  # fmt: skip
    pd.DataFrame(wider).to_csv(folder / "surroundings.csv", index=False)
    context = more_context.wider_context(pd.DataFrame(wider))
    assert context["method"].tolist() == ["gps_selm_geo", "histogram", "gps_selm_geo"]
    assert context["coordinates"].tolist() == [False, False, True]
    assert context["zooms"].tolist() == ["zooms 17-16", "zooms 17-15", "zooms 17-16"]
    assert context["blocks"].iloc[0] == "0.410 ± 0.014" and context["validation"].tolist()[::2] == [0.3, 0.2]
    shown = findings.practice("japan-cpu")
    assert shown is not None
    shown = shown[~shown["title"].str.startswith("GeoCLIP")].reset_index(drop=True)
    assert shown["title"].tolist()[:2] == ["GPS-SELM (geo), zooms 17-16"] * 2
    assert shown["kind"].tolist()[:2] == ["embedding and coordinates", "embedding"]
    colours = shown[shown["title"] == "trees on colours, zooms 17-15"]
    assert colours["kind"].tolist() == ["no embedding"] and not colours["coordinates"].any()
    assert all("**ahead of**" in line for line in findings.worth(shown))
    text = tables.practice_table(shown, "Hokkaido").text
    assert text.count("<tr>") == 1 + len(shown) and "0.300" in text and "Hokkaido, spatial blocks<" in text

    far = "blocks, 15 km"
    wider += [
        {**row, "validation": 0.9}
        for method, value in (("gps_selm_geo", 0.6), ("colours", 0.7))
        for row in rows("surroundings", method, "zooms 17-16", value, value, split=far)
    ]
    pd.DataFrame(wider).to_csv(folder / "surroundings.csv", index=False)
    assert findings.practice("japan-cpu") is None  # what is known of one zoom is not published yet
    known = [
        {**row, "target": "price", "region": region}
        for region, values in (("hokkaido", (0.8, 0.8)), ("kanto", (0.1, 0.1)))
        for method, setting in (("gps_selm", "closed"), ("prior", "practitioner"))
        for split in ("blocks, 5 km", far)
        for row in rows("knowledge", method, setting, *values, split=split)
    ]
    pd.DataFrame(known).to_csv(folder / "knowledge.csv", index=False)
    shown = findings.practice("japan-cpu")
    assert shown is not None and set(shown["split"]) == {far}
    assert shown["title"].tolist()[:2] == ["GPS-SELM (geo), zooms 17-16", "colours, kernel ridge, zooms 17-16"]
    assert shown["mean"].tolist() == pytest.approx([0.6, 0.7, 0.8, 0.8])
    (line,) = findings.worth(shown)
    assert line.startswith("Without coordinates, 15 km and more from known prices, the best embedding")
    assert "spatial blocks, 15 km away" in tables.practice_table(shown, "Hokkaido").text
    assert findings.practice("japan-cpu", "blocks")["mean"].iloc[0] == pytest.approx(0.3)

    # what was distilled from such embeddings needs no map, and knows where a place is
    alone = [
        {**row, "buffer_km": km, "position": "grid", "jitter_m": jitter, "validation": known}
        for km, split in ((1.0, "blocks, 1 km"), (15.0, far))
        for jitter, known, value in ((0.0, 0.4, 0.2), (300.0, 0.3, 0.65))
        for row in rows("distilled", "grid", "no jitter", value, value, split=split)
    ]
    pd.DataFrame(alone).to_csv(folder / "distilled.csv", index=False)
    shown = findings.practice("japan-cpu")
    assert shown is not None
    (own,) = shown[shown["title"] == "feature tables, distilled: no map"].itertuples()
    assert own.mean == pytest.approx(0.65) and own.kind == "embedding of coordinates, no map" and own.coordinates
    assert "feature tables, distilled: no map" in tables.practice_table(shown, "Hokkaido").text
    near = findings.practice("japan-cpu", "blocks")
    assert near is not None and (near["title"] == "feature tables, distilled: no map").sum() == 1


def test_the_best_try_of_each_method_is_put_in_a_sentence(results_folder: Path) -> None:
    assert findings.best_tries("japan-cpu") == []
    (results_folder / "japan-cpu").mkdir()
    made = [("dino", "as it is", 1.0), ("gps_selm", "as it is", 0.8), ("gps_selm", "K = 1024", 0.7)]
    rows = [{"method": m, "variant": v, "value": x + d} for m, v, x in made for d in (-0.1, 0.1)]
    pd.DataFrame(rows).to_csv(results_folder / "japan-cpu" / "tuned.csv", index=False)
    sweep = [{"method": m, "variant": f"try {n}"} for m, count in (("dino", 5), ("gps_selm", 4)) for n in range(count)]
    pd.DataFrame(sweep).to_csv(results_folder / "japan-cpu" / "ablations.csv", index=False)
    assert findings.best_tries("japan-cpu") == [
        "**DINO**: 1.000 as it is; none of 5 tries gained more than chance.",
        "**GPS-SELM (geo+rec+int)**: 0.800 as it is, 0.700 by the best of 4 (K = 1024).",
    ]

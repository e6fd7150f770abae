"""Tables of the page on location encoders, from small tables of results."""

from __future__ import annotations

import numpy as np
import pandas as pd

from reproduction.beyond.location_encoders import page

COMMON = {"profile": "japan-cpu", "stand_in": False}


def probes() -> pd.DataFrame:
    rows = []
    for split, add in (("random", 0.0), ("blocks", 0.4)):
        for coverage, objective, value in (
            ("none", np.nan, 0.9), ("pretraining", "contrast", 0.8), ("everywhere", "contrast", 0.5),
            ("everywhere", "distillation", 0.3),
        ):  # fmt: skip
            for trial in range(2):
                rows.append(
                    {"table": "table1", "target": "l01", "split": split, "position": "fourier", "network": "relu",
                     "objective": objective, "coverage": coverage, "setting": "frozen-closed", "epochs": 0,
                     "metric": "mse", "trial": trial, "value": value + add + 0.02 * trial, **COMMON}
                )  # fmt: skip
    return pd.DataFrame(rows)


def beside() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"experiment": "table1", "target": "l01", "split": split, "method": method, "setting": "frozen-closed",
             "epochs": 0, "metric": "mse", "trial": 0, "value": value, "seed": 0, **COMMON}
            for split in ("random", "blocks")
            for method, value in (("gps_selm", 0.6), ("trees_coordinates", 0.75))
        ]
    )  # fmt: skip


def test_location_table_and_what_is_lost() -> None:
    text = page.location_probe_table(probes(), beside(), "table1").text
    assert "0.310<small> ± 0.014</small>" in text and "1.210" in text and "GPS-SELM (geo+rec+int) (map image)" in text
    assert text.count("random Fourier hierarchy (GeoCLIP)") == 4 and "2 draws of folds" in text
    said = page.what_is_lost(probes(), beside()).text
    blocks = said[said.index("spatial blocks") :]
    assert "<strong>0.710</strong> from maps of all regions" in blocks and "distillation" in blocks
    assert "<strong>1.310</strong> from random weights" in blocks and "<strong>0.600</strong> with a map" in blocks


def test_the_answer_and_its_figure() -> None:
    found = page.result(probes(), beside(), "table1")
    assert list(found.rows["title"]) == [
        "GPS-SELM (geo+rec+int) (map image)",
        "random Fourier hierarchy (GeoCLIP): maps of all regions, without labels",  # the better of two objectives
        "trees on coordinates",
        "random Fourier hierarchy (GeoCLIP): maps of the pretraining regions",
        "random Fourier hierarchy (GeoCLIP): random weights",
    ]
    claims = pd.DataFrame([{"a": "gps_selm", "b": "fourier", "table": "table1", "verdict": "better"}])
    said = page.answer(probes(), beside(), claims).text
    assert "<strong>0.710</strong> by the best location encoder" in said and "0.600 by the map" in said
    assert "which against it is <strong>better</strong>" in said and "1.210 by the best that has not seen them" in said
    assert "against it" not in page.answer(probes(), beside(), None).text
    assert page.short_table(found).text.count("<tr>") == 6


def test_claims_table() -> None:
    claims = pd.DataFrame(
        [{"a": "gps_selm", "b": "fourier", "gain": 0.1234, "low": 0.05, "high": 0.2, "p_holm": 0.0004,
          "verdict": "better", "interval_level": 0.99, "n_family": 12,
          "n_blocks": 70, "table": "table1", **COMMON},
         {"a": "fourier", "b": "fourier (random weights)", "gain": -0.1, "low": -0.2, "high": 0.1, "p_holm": 0.5,
          "verdict": "undecided", "interval_level": 0.99, "n_family": 12, "n_blocks": 70, "table": "table1", **COMMON}]
    )  # fmt: skip
    text = page.location_claims_table(claims, "table1").text
    assert "0.123" in text and "0.050 to 0.200" in text and "&lt; 0.001" in text and "−0.100" in text
    assert "beats random Fourier hierarchy (GeoCLIP) (random weights)" in text and ">better<" in text
    assert ">better</span" not in page.location_claims_table(claims.assign(profile="smoke"), "table1").text


def test_plumbing_checks_are_said_to_be_such() -> None:
    assert "its numbers mean nothing" in page.location_probe_table(probes().assign(profile="demo"), None, "table1").text


def test_speed_table() -> None:
    speed = pd.DataFrame(
        {"way": ["raw", "geoclip", "map"], "coordinates_per_s": [123456.0, 5e4, 1000.0], "device": "cpu"}
    )
    text = page.speed_table(speed).text
    assert "GeoCLIP (its own weights)" in text and "50.0 ×" in text
    assert "120,000" in text and "123.5 ×" in text and "1.0 ×" in text

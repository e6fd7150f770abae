"""The rows of the tables: their order, their table of settings, and what a run's address depends on."""

from __future__ import annotations

import csv
import dataclasses

import pytest
import torch

from reproduction import paths, report, rows
from reproduction.computed import encoders
from reproduction.profiles import get_profile
from reproduction.titles import title_of
from selm.encoder import EncoderConfig
from selm.errors import InputError
from selm.methods import METHODS


def test_the_papers_rows_are_in_the_papers_order_and_under_its_titles():
    with open(paths.repository() / "data" / "paper" / "table1.csv", newline="") as handle:
        printed = list(dict.fromkeys((row["method"], row["title"]) for row in csv.DictReader(handle)))
    assert printed == [(name, title_of(name)) for name, row in rows.ROWS.items() if row.in_paper]


def test_every_row_of_the_papers_tables_is_called_as_the_paper_calls_it():
    for number in range(1, 5):
        printed = report.paper_table(number)
        assert list(printed["title"]) == [title_of(method) for method in printed["method"]]


@pytest.mark.parametrize("name", ["smoke", "japan-cpu"])
def test_the_table_of_settings_has_a_full_row_for_each_pretrained_one(name):
    profile = get_profile(name)
    before = torch.get_rng_state()
    table = rows.settings_table(profile)
    assert torch.equal(before, torch.get_rng_state())
    expected = [title_of(m) for m in rows.PRETRAINED if rows.ROWS[m].in_paper]
    assert list(table.index) == expected
    assert (table != "").all(axis=None)
    assert (table["images seen"] == f"{profile.pretraining.images:,}").all()
    assert table["tuning runs"].nunique() == 1  # the same for all
    assert len(rows.settings_table(profile, controls=True)) == len(rows.PRETRAINED)


def test_the_table_of_settings_says_what_a_run_under_paper_would_do():
    table = rows.settings_table(get_profile("paper"))
    moco, geo, tile = (table.loc[title] for title in ("MoCo-V2", "MoCo-V2+Geo+TP", "Tile2Vec"))
    assert (moco["optimizer"], moco["learning rate"], moco["weight decay"]) == ("SGD (0.9)", "0.03 → 0", "0.0001")
    assert (moco["momentum"], moco["temperatures"], moco["queue"]) == ("0.999", "0.2", "65,536")
    assert (moco["heads"], moco["views"]) == ("2048-128", "2 × 128 px of 20–100 %")
    assert (geo["temperatures"], geo["heads"]) == ("0.02", "2048-128; geo: 100 classes")
    assert (tile["optimizer"], tile["learning rate"]) == ("Adam (0.5, 0.999)", "0.001")
    assert table.loc["DINO", "learning rate"] == "0.0005 → 1e-06, warm-up 10 %"
    assert table.loc["MUGS", "heads"] == "2 × 2048-2048-256, predictor 4096; 2048-2048-256, K = 256"
    assert rows.settings_table(get_profile("japan-cpu")).loc["MoCo-V2", ["queue", "momentum"]].tolist() == [
        "512", "0.9968"
    ]  # fmt: skip


def test_a_rows_own_settings_are_in_its_runs_address_and_in_no_other(monkeypatch):
    monkeypatch.setattr(encoders, "encoder_config", lambda profile: EncoderConfig())
    for name in ("sampled_places", "table_fingerprint", "map_fingerprint"):
        monkeypatch.setattr(encoders, name, lambda *_: "the same")
    # a profile of its own: what is remembered of `smoke` must stay true for the tests and pages that come later
    profile = dataclasses.replace(get_profile("smoke"), name="with-patched-keys")
    before = {name: encoders.pretraining_config(profile, name, 0) for name in rows.PRETRAINED}
    assert before["moco_v2"]["settings"]["queue"] == 65_536
    recipe = METHODS["moco_v2"]
    changed = dataclasses.replace(recipe, settings=dataclasses.replace(recipe.settings, temperature=0.1))
    monkeypatch.setitem(METHODS, "moco_v2", changed)
    after = {name: encoders.pretraining_config(profile, name, 0) for name in rows.PRETRAINED}
    assert [name for name in before if before[name] != after[name]] == ["moco_v2"]


def test_rows_and_methods_belong_together():
    assert set(rows.PRETRAINED) == set(METHODS)  # no method without a row
    assert not rows.ROWS["multi_zoom"].in_paper and "multi_zoom" in rows.IN_TABLES
    assert "multi_zoom_wide" not in rows.IN_TABLES
    with pytest.raises(InputError, match="there are: random_init, raw_gps, "):
        rows.get_row("zzzz")

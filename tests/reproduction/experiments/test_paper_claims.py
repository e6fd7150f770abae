"""The list of the paper's claims against the paper's own numbers; verdicts family by family."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from reproduction import report
from reproduction.computed import place_tables
from reproduction.experiments import figure5_recall, paper_claims, table1_table2
from reproduction.pages import claim_tables
from reproduction.profiles import get_profile
from reproduction.results import Kept
from selm.errors import InputError

SMOKE = get_profile("smoke")
JAPAN = get_profile("japan-cpu")


def test_every_claim_is_what_the_papers_numbers_say() -> None:
    """Each claim on a table is of two printed numbers, the first of them better."""
    claims = paper_claims.read_claims()
    on_tables = claims[claims["where"].str.startswith("table")]
    assert len(on_tables) > 150
    for claim in report.records(on_tables):
        printed = claim_tables.printed_values(claim.where)
        epochs = 0 if pd.isna(claim.epochs) else int(claim.epochs)
        a, b = (printed[row, claim.setting, epochs, claim.metric, claim.target] for row in (claim.a, claim.b))
        assert (a > b) == report.HIGHER_IS_BETTER[claim.metric] and a != b, claim.id


def test_no_best_number_of_a_column_is_left_out() -> None:
    """In every column of every table the best row beats all other rows: one claim each."""
    claims = paper_claims.read_claims()
    expected = set()
    for number in range(1, 5):
        for key, value in (printed := claim_tables.printed_values(f"table{number}")).items():
            method, *column = key
            rest = {row: other for (row, *at), other in printed.items() if at == column}
            best = max if report.HIGHER_IS_BETTER[column[2]] else min
            # Table 2's setting is not stated: its numbers stand for frozen and fine-tuned rows, but those of the two
            # methods that are only ever trained
            settings = {2: ("frozen", "finetune"), 3: ("unstated",)}.get(number, ("frozen", "finetune"))
            if column[0] not in settings or value != best(rest.values()):
                continue
            left_out = {"random_init", "raw_gps"} if (number, column[0]) == (2, "frozen") else set()
            expected |= {(f"table{number}", method, row, *column) for row in set(rest) - {method} - left_out}
    listed = {
        (c.where, c.a, c.b, c.setting, 0 if pd.isna(c.epochs) else int(c.epochs), c.metric, c.target)
        for c in report.records(claims)
    }
    assert expected <= listed


def test_a_bad_list_is_named(tmp_path: Path) -> None:
    good = paper_claims.read_claims().head(2)
    file = tmp_path / "claims.csv"
    good.drop(columns="setting").to_csv(file, index=False)
    with pytest.raises(InputError, match=r"claims\.csv: column 'setting'"):
        paper_claims.read_claims(file)
    pd.concat([good, good]).to_csv(file, index=False)
    with pytest.raises(InputError, match="row 3, field id"):
        paper_claims.read_claims(file)


@pytest.fixture
def some_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores for three rows of Table 1, by method: gps_selm is much better than dino, geo just as good."""
    rng = np.random.default_rng(0)
    blocks = np.repeat([f"b{i}" for i in range(40)], 10)
    base = rng.gamma(2, 0.3, len(blocks))
    errors = {"gps_selm": base, "dino": base + 0.3, "gps_selm_geo": base + rng.normal(0, 0.2, len(blocks))}

    def values(profile: object, claim: object, method: str) -> tuple[NDArray[np.float64], int] | None:
        return (errors[method], 2) if claim.where == "table1" and method in errors else None  # type: ignore[attr-defined]

    monkeypatch.setattr(paper_claims, "scores_of", values)
    monkeypatch.setattr(paper_claims, "blocks_of", lambda *_: blocks)
    monkeypatch.setattr(paper_claims, "between_areas", lambda *_: (None, 0, 0, "no finished recall in tokyo"))
    monkeypatch.setattr(place_tables, "points_key", lambda profile: "0" * 12)


@pytest.mark.usefixtures("some_rows")
def test_verdicts_count_the_whole_family() -> None:
    verdicts = paper_claims.claim_verdicts(JAPAN, n_boot=4000)
    assert verdicts["id"].tolist() == paper_claims.read_claims()["id"].tolist()
    by = verdicts.set_index("id")
    assert by.loc["T1-best-frozen-50-dino", "verdict"] == "holds"
    assert by.loc["T1-best-frozen-50-dino", "low"] > 0
    assert by.loc["T1-best-frozen-50-dino", ["seeds_a", "seeds_b"]].tolist() == [2, 2]
    assert by.loc["T1-best-frozen-50-gps_selm_geo", "verdict"] == "undecided"
    assert by.loc["T1-best-frozen-50-mugs", "verdict"] == "not run"
    assert by.loc["T1-best-frozen-50-mugs", "reason"] == "no finished row of mugs"
    assert by.loc["T3-best-naip-dino", "reason"] == "needs NAIP/CDL"
    for _, family in verdicts.groupby("where"):
        assert (family["n_family"] == len(family)).all()
    assert verdicts["profile"].unique().tolist() == ["japan-cpu"]


@pytest.mark.usefixtures("some_rows")
def test_claims_on_a_page() -> None:
    verdicts = paper_claims.claim_verdicts(JAPAN, n_boot=4000)
    table1 = verdicts[verdicts["where"] == "table1"]
    text = claim_tables.paper_claims_table(table1, caption="Table 1").text
    assert "for all 64 claims, run or not" in text and "holds" in text and "not run" in text
    assert "paper +0.16" in text  # 0.29 − 0.13: DINO less GPS-SELM, frozen, 50 epochs
    with pytest.raises(InputError, match="one table or figure at a time"):
        claim_tables.paper_claims_table(verdicts)
    quiet = claim_tables.paper_claims_table(table1.assign(profile="demo")).text
    assert "holds" not in quiet and "undecided" not in quiet


def test_fine_tuned_scores_come_back_to_the_places_they_are_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that was fine-tuned on some places gives scores at those rows of all places, in their order."""
    places = pd.DataFrame({"cell": [f"c{i % 5}" for i in range(200)]})
    folds = SimpleNamespace(near=None)
    task = table1_table2.Task("regression", places, np.zeros(200), folds)  # type: ignore[arg-type]
    rows = task.rows_of(SMOKE.probing.max_finetune)
    assert len(rows) == SMOKE.probing.max_finetune and (np.diff(rows) > 0).all()
    scores = np.full((3, 2, len(rows)), np.nan)  # evaluations, trials, places
    scores[:, 0, ::2] = np.arange(len(rows))[::2]
    scores[:, 1, ::2] = np.arange(len(rows))[::2] + 2.0
    kept = Kept(tmp_path / "entry")
    kept.keep(
        pd.DataFrame({"epochs": [1, 1, 2, 2, 3, 3]}),
        {"mse": torch.from_numpy(scores), "predictions": torch.from_numpy(scores)},
    )
    monkeypatch.setenv("SELM_RUNS", str(tmp_path))  # where nothing is remembered
    monkeypatch.setattr(table1_table2, "GRID", SimpleNamespace(kept=lambda profile, entry: kept))
    monkeypatch.setattr(table1_table2, "task", lambda *_: task)
    found = paper_claims.entry_scores(SMOKE, "table1", "l01", "finetune", "dino", 0)
    assert set(found) == {("mse", 1), ("mse", 2), ("mse", 3)}
    values = found["mse", 3]
    np.testing.assert_allclose(values[rows[::2]], np.arange(len(rows))[::2] + 1.0)
    assert np.isnan(np.delete(values, rows[::2])).all()


def test_areas_are_compared_by_two_bootstraps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """80 % found in Tokyo against 40 % around Wall Street: the gain, and an interval wider than either area's."""
    rng = np.random.default_rng(0)
    shares = {"tokyo": 0.8, "wall-street": 0.4}
    blocks = np.repeat([f"b{i}" for i in range(25)], 20)

    def kept(profile: object, area: SimpleNamespace, method: str, seed: int) -> Kept:
        return Kept(tmp_path / area.name)

    for name, share in shares.items():
        rank = torch.from_numpy(np.where(rng.permutation(500) < 500 * share, 5, 400))
        Kept(tmp_path / name).keep(pd.DataFrame({"share": [1.0]}), {"d0": rank})
    monkeypatch.setattr(figure5_recall, "kept", kept)
    monkeypatch.setattr(figure5_recall, "is_drawn", lambda profile, area: True)
    monkeypatch.setattr(figure5_recall, "gallery", lambda profile, area: pd.DataFrame({"block": blocks}))
    monkeypatch.setattr(paper_claims.representations, "complete_ones", lambda profile: [("gps_selm", 0)])
    claim = SimpleNamespace(where="figure5", a="tokyo", b="wall-street")
    draws, seeds_a, seeds_b, reason = paper_claims.between_areas(JAPAN, claim, 2000)
    assert draws is not None and (seeds_a, seeds_b, reason) == (1, 1, "")
    assert draws.gain == pytest.approx(0.4)
    low, high = draws.interval(0.05)
    expected = 1.96 * math.sqrt((0.8 * 0.2 + 0.4 * 0.6) / 500)
    assert 0.4 - 2 * expected < low < 0.4 - 0.5 * expected and 0.4 + 0.5 * expected < high < 0.4 + 2 * expected
    absent = SimpleNamespace(where="figure5", a="union-square", b="wall-street")
    assert paper_claims.between_areas(JAPAN, absent, 2000)[3] == "no finished recall in union-square"
    assert "no such area" in paper_claims.between_areas(SMOKE, claim, 2000)[3]

"""The list of the paper's claims against the paper's own numbers; verdicts family by family."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from reproduction import report
from reproduction.experiments import figure5_recall, paper_claims, row_claims, table1_table2
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


def files() -> dict[str, pd.DataFrame]:
    """Rows and scores of three rows of Table 1, frozen: gps_selm is much better than dino, geo just as good."""
    rng = np.random.default_rng(0)
    cells = np.repeat([f"b{i}" for i in range(40)], 10)
    base = rng.gamma(2, 0.3, len(cells))
    errors = {"gps_selm": base, "dino": base + 0.3, "gps_selm_geo": base + rng.normal(0, 0.2, len(cells))}
    rows, blocks = [], []
    for method, seed, epochs in itertools.product(errors, (0, 1), (1, 2, 4)):
        scores = errors[method][None, :] + np.array([[0.01], [-0.01]]) + seed / 100
        same = {"target": "l01", "setting": "frozen", "method": method, "metric": "mse", "epochs": epochs, "data": "d"}
        blocks.append(row_claims.blocks_of(scores, cells, "hokkaido", seed=seed, buffer_km=1.0, **same))
        rows += [
            {**same, "seed": seed, "split": "blocks", "trial": trial, "value": value, "n_test": len(cells),
             "profile": "japan-cpu", "stand_in": False, "commit": "c", "device": "cpu", "torch": "2",
             "date": "2026-11-28"}
            for trial, value in enumerate(scores.mean(axis=1))
        ]  # fmt: skip
    return {"table1": pd.DataFrame(rows), "table1-blocks": pd.concat(blocks, ignore_index=True)}


def test_verdicts_count_the_whole_family() -> None:
    verdicts = paper_claims.claim_verdicts_on(files(), "japan-cpu", n_boot=4000)
    assert verdicts["id"].tolist() == paper_claims.read_claims()["id"].tolist()
    by = verdicts.set_index("id")
    assert by.loc["T1-best-frozen-50-dino", "verdict"] == "better"
    assert by.loc["T1-best-frozen-50-dino", "low"] > 0
    assert by.loc["T1-best-frozen-50-dino", ["seeds_a", "seeds_b"]].tolist() == [2, 2]
    assert by.loc["T1-best-frozen-50-gps_selm_geo", "verdict"] == "undecided"
    assert by.loc["T1-best-frozen-50-mugs", "verdict"] == "not run"
    assert by.loc["T1-best-frozen-50-mugs", "reason"] == "no finished row of mugs"
    assert by.loc["T3-best-naip-dino", "reason"] == "needs NAIP/CDL"
    assert by.loc["F5-tokyo", "reason"] == "no finished recall in tokyo and wall-street"
    for _, family in verdicts.groupby(paper_claims.FAMILY, dropna=False):
        assert (family["n_family"] == len(family)).all()
    assert verdicts["profile"].unique().tolist() == ["japan-cpu"]


def test_claims_on_a_page() -> None:
    verdicts = paper_claims.claim_verdicts_on(files(), "japan-cpu", n_boot=4000)
    table1 = verdicts[verdicts["where"] == "table1"]
    text = claim_tables.paper_claims_table(table1, caption="Table 1").text
    assert "no finished row of" in text and "MUGS" in text.split("no finished row of")[1] and "mugs" not in text
    assert "claims of a column, run or not" in text and ">better</span>" in text and "not run" in text
    assert "paper +0.16" in text  # 0.29 − 0.13: DINO less GPS-SELM, frozen, 50 epochs
    with pytest.raises(InputError, match="one table or figure at a time"):
        claim_tables.paper_claims_table(verdicts)
    quiet = claim_tables.paper_claims_table(table1.assign(profile="demo")).text
    assert ">better</span>" not in quiet and ">undecided</span>" not in quiet


def test_fine_tuned_scores_are_of_the_blocks_of_their_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that was fine-tuned on some places, of which a trial tests some: the blocks' mean is its rows'."""
    cells = [f"c{i % 5}" for i in range(200)]
    places = pd.DataFrame({"cell": cells, "region": "north"})
    task = table1_table2.Task("regression", places, np.zeros(200), SimpleNamespace(near=None))  # type: ignore[arg-type]
    rows = task.rows_of(SMOKE.probing.max_finetune)
    assert len(rows) == SMOKE.probing.max_finetune and (np.diff(rows) > 0).all()
    scores = np.full((3, 2, len(rows)), np.nan)  # evaluations, trials, places
    scores[:, 0, ::2] = np.arange(len(rows))[::2]
    scores[:, 1, ::3] = np.arange(len(rows))[::3] + 2.0
    kept = Kept(tmp_path / "entry")
    made = pd.DataFrame({"epochs": [1, 1, 2, 2, 3, 3], "data": "d"})
    kept.keep(made, {"mse": torch.from_numpy(scores), "predictions": torch.from_numpy(scores)})
    monkeypatch.setenv("SELM_RUNS", str(tmp_path))  # where nothing is remembered
    entry = table1_table2.Entry("table1", "l01", "blocks", "dino", "finetune")
    others = [dataclasses.replace(entry, split="random"), dataclasses.replace(entry, target="interpolated")]
    monkeypatch.setattr(table1_table2, "entries", lambda *_: [entry, *others])
    monkeypatch.setattr(table1_table2, "GRID", SimpleNamespace(kept=lambda profile, entry: kept))
    monkeypatch.setattr(table1_table2, "task", lambda *_: task)
    found = table1_table2.finished_blocks(SMOKE, "table1")
    assert list(found) == list(row_claims.COLUMNS) and set(found["epochs"]) == {1, 2, 3}
    last = found[found["epochs"] == 3].set_index("block")
    assert set(last.index) == {cells[row] for at, row in enumerate(rows) if at % 2 == 0 or at % 3 == 0}
    expected = np.nanmean(scores[2], axis=1).mean()
    assert np.average(last["score"], weights=last["points"]) == pytest.approx(expected)
    assert set(found["buffer_km"]) == {SMOKE.maps.buffer_m / 1000} and set(found["metric"]) == {"mse"}


def test_areas_are_compared_by_two_bootstraps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """80 % found in Tokyo against 40 % around Wall Street: the gain, and an interval wider than either area's."""
    rng = np.random.default_rng(0)
    shares = {"tokyo": 0.8, "wall-street": 0.4}
    blocks = np.repeat([f"b{i}" for i in range(25)], 20)

    def kept(profile: object, area: SimpleNamespace, method: str, seed: int) -> Kept:
        return Kept(tmp_path / area.name)

    for name, share in shares.items():
        rank = torch.from_numpy(np.where(rng.permutation(500) < 500 * share, 5, 400))
        rows = pd.DataFrame(
            {"area": name, "query": "d0", "method": "gps_selm", "seed": 0, "share": [0.5, 1.0], "recall": [0.1, share],
             "gallery": 500, "data": name, "date": "2026-11-28"}
        )  # fmt: skip
        Kept(tmp_path / name).keep(rows, {"d0": rank})
    monkeypatch.setattr(figure5_recall, "kept", kept)
    monkeypatch.setattr(figure5_recall, "is_drawn", lambda profile, area: True)
    monkeypatch.setattr(figure5_recall, "gallery", lambda profile, area: pd.DataFrame({"block": blocks}))
    monkeypatch.setattr(figure5_recall.representations, "complete_ones", lambda profile: [("gps_selm", 0)])
    published = {name.removesuffix(".csv"): table for name, table in figure5_recall.finished(JAPAN).items()}
    by = paper_claims.claim_verdicts_on(published, "japan-cpu", n_boot=2000).set_index("id")  # type: ignore[arg-type]
    one = by.loc["F5-tokyo"]
    assert one["gain"] == pytest.approx(0.4) and one["verdict"] == "better"
    assert one[["seeds_a", "seeds_b", "n_points", "n_blocks"]].tolist() == [1, 1, 1000, 50]
    expected = 2.24 * math.sqrt((0.8 * 0.2 + 0.4 * 0.6) / 500)  # at 97.5 %: of a family of two
    assert 0.4 - 2 * expected < one["low"] < 0.4 - 0.5 * expected
    assert 0.4 + 0.5 * expected < one["high"] < 0.4 + 2 * expected
    assert by.loc["F5-union-square", "reason"] == "no finished recall in union-square"

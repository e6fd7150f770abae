"""Results on disk: what is written is what is read, and a result is computed once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from reproduction import results
from reproduction.profiles import get_profile

SMOKE = get_profile("smoke")
TABLE = pd.DataFrame({"value": [0.5, 0.25], "run_id": ["000000012345", "00000001e345"]})


def test_hashes_that_look_like_numbers_stay_text(tmp_path: Path) -> None:
    results.write_csv(tmp_path / "a" / "b.csv", TABLE)
    pd.testing.assert_frame_equal(results.read_csv(tmp_path / "a" / "b.csv"), TABLE)
    assert (tmp_path / "a" / "b.csv").read_bytes().count(b"\r") == 0


def test_a_result_is_computed_once(tmp_path: Path) -> None:
    rows = results.computed_once(tmp_path / "a.csv", lambda: TABLE)
    again = results.computed_once(tmp_path / "a.csv", lambda: pytest.fail("computed again"))
    pd.testing.assert_frame_equal(rows, again)


def test_rows_and_tensors_are_kept_together_under_a_name_with_dots(tmp_path: Path) -> None:
    half, third = (results.Kept(tmp_path / f"share-{share}-abc") for share in ("0.5", "0.33"))
    tensors = {"scores": torch.arange(3.0)}
    pd.testing.assert_frame_equal(half.once(lambda: (TABLE, tensors)), TABLE)
    assert half.is_there() and not third.is_there()
    assert torch.equal(half.tensors()["scores"], tensors["scores"])
    half.once(lambda: pytest.fail("computed again"))
    half.safetensors.unlink()
    assert not half.is_there()


def test_rows_say_where_they_come_from() -> None:
    found = results.origin(SMOKE, "0123456789abcdef", run_id="run")
    assert found["profile"] == "smoke" and found["data"] == "0123456789ab" and found["run_id"] == "run"
    assert found["stand_in"] is True and {"commit", "device", "torch", "date"} < set(found)
    assert "run_id" not in results.origin(SMOKE, "0") and not results.origin(SMOKE, "0", stand_in=False)["stand_in"]


def test_a_points_score_is_the_mean_over_the_trials_that_tested_it(tmp_path: Path) -> None:
    score = torch.full((2, 2, 4), torch.nan)
    score[0, 0] = torch.tensor([1.0, 2, 3, 6])
    score[0, 1, :2] = torch.tensor([4.0, 8])
    score[1, :, 0] = torch.tensor([5.0, 7])
    kept = results.Kept(tmp_path / "a")
    kept.keep(TABLE, {"mse": score})
    np.testing.assert_allclose(kept.point_scores("mse"), [2.5, 5, 3, 6])
    np.testing.assert_allclose(kept.point_scores("mse", 1)[:1], [6])
    assert np.isnan(kept.point_scores("mse", 1)[1:]).all()

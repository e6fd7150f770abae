"""Committed results are found by the name of their table, in the first profile that has it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reproduction.experiments.figure2_tsne import sheet
from reproduction.pages import published
from selm.errors import InputError


def test_the_first_profile_that_has_a_table_counts_and_none_is_none(results_folder: Path) -> None:
    assert published.profile_with("claims") is None and published.results("claims") is None
    for name in ("japan-gpu", "japan-cpu", "japan"):  # from the last to the best
        (results_folder / name).mkdir()
        (results_folder / name / "claims.csv").write_text(f"run_id,commit,value\n00012,1e5,{len(name)}\n")
        assert published.profile_with("claims") == name
        table = published.results("claims")
        assert table is not None and table["value"].tolist() == [len(name)]
        assert table[["run_id", "commit"]].to_numpy().tolist() == [["00012", "1e5"]]  # no numbers
    assert published.profile_with("claims", "japan-cpu", "japan") == "japan-cpu"
    assert published.results("table1", "japan") is None


def test_a_published_sheet_is_cut_as_it_was_laid(results_folder: Path) -> None:
    palette = np.random.default_rng(0).integers(0, 256, (256, 3)).astype(np.uint8)
    images = np.random.default_rng(1).integers(0, 256, (23, 8, 8)).astype(np.uint8)
    (results_folder / "japan").mkdir()
    (results_folder / "japan" / "s.png").write_bytes(sheet(images, palette))
    np.testing.assert_array_equal(published.sheet_images("s", "japan", 23), palette[images])
    with pytest.raises(InputError, match="30 images, 31 are asked for"):
        published.sheet_images("s", "japan", 31)
    assert published.sheet_images("t", "japan", 1) is None


def test_a_table_that_no_paper_has_is_named() -> None:
    assert len(published.other_paper("img2gps-table2"))
    with pytest.raises(InputError, match="no such table"):
        published.other_paper("img2gps-table9")

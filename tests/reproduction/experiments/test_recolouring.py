"""Views in other colours: what a try changes, the choice by three numbers, and what is published of both."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from reproduction import paths
from reproduction.computed import encoders
from reproduction.experiments import recolouring
from reproduction.profiles import get_profile
from reproduction.results import read_csv
from reproduction.settings import AS_IT_IS
from selm.errors import InputError

JAPAN, SMOKE = get_profile("japan-cpu"), get_profile("smoke")
PUBLISHED = paths.repository() / "data" / "results" / "japan-cpu"


@pytest.mark.parametrize("method", recolouring.METHODS)
def test_a_try_is_the_rows_recipe_with_other_colours_and_nothing_else(method: str) -> None:
    recipe = JAPAN.recipe_of(method)
    for change in recolouring.CHANGES:
        profile = recolouring.whole(JAPAN, method, change)
        own = profile.recipe_of(method)
        assert (own.of(profile).views, own.of(profile).pretraining) == (recipe.of(JAPAN).views,
                                                                        recipe.of(JAPAN).pretraining)  # fmt: skip
        assert own.settings == recipe.settings and own.recolouring == change.recolouring
    assert len({change.name for change in recolouring.CHANGES}) == len(recolouring.CHANGES)


def test_a_runs_address_tells_colours_apart_and_stays_where_none_change() -> None:
    changed = recolouring.whole(SMOKE, "moco_v2", recolouring.CHANGES[1])
    as_it_is = recolouring.whole(SMOKE, "moco_v2", AS_IT_IS)
    assert encoders.run_id(as_it_is, "moco_v2") == encoders.run_id(SMOKE, "moco_v2")
    assert encoders.run_id(changed, "moco_v2") != encoders.run_id(SMOKE, "moco_v2")
    assert encoders.pretraining_config(changed, "moco_v2", 0)["recolouring"] == {"dropped": 0.1, "swapped": 0.0}


def made(method: str, *tries: tuple[float, float, float, str]) -> pd.DataFrame:
    return pd.DataFrame([
        {"method": method, "change": change.name, "price": price, "recall": recall, "redrawn": redrawn,
         "collapse": collapse or np.nan, "seed": 0, "processor_seconds": 1.0, "teacher_entropy": np.nan}
        for change, (price, recall, redrawn, collapse) in zip(recolouring.CHANGES, tries, strict=True)
    ])  # fmt: skip


def test_the_choice_is_the_lowest_sum_of_three_ranks_among_healthy_runs() -> None:
    first = made("gps_selm", (0.9, 0.5, 0.1, ""), (1.0, 0.4, 0.3, ""), (1.1, 0.3, 0.2, ""), (0.8, 0.9, 0.9, "all one"))
    second = made("moco_v2", (1.0, 0.5, 0.1, ""), (0.9, 0.1, 0.2, ""), (1.2, 0.4, 0.3, ""), (1.1, 0.3, 0.0, ""))
    rows = pd.concat([first, second], ignore_index=True)
    # by hand: ranks of price (least first), recall and redrawn (most first) among the four of a method
    assert recolouring.ranked(rows)["rank_sum"].tolist() == [8, 8, 11, 3, 6, 7, 7, 10]
    best = recolouring.chosen(rows)
    assert best["gps_selm"] is AS_IT_IS  # of equals the one with the lower error; the best one had collapsed
    assert best["moco_v2"] is AS_IT_IS
    rows.loc[rows["method"] == "moco_v2", "redrawn"] = [0.1, 0.9, 0.3, 0.0]
    rows.loc[rows["method"] == "moco_v2", "recall"] = [0.3, 0.5, 0.4, 0.2]
    assert recolouring.chosen(rows)["moco_v2"] is recolouring.CHANGES[1]


def test_a_whole_run_is_asked_in_every_area() -> None:
    pytest.importorskip("mapnik")
    rows = recolouring.asked(SMOKE, "moco_v2", recolouring.CHANGES[2], progress=False)
    assert set(rows["area"]) == {area.name for area in SMOKE.retrieval.areas}
    assert set(rows["query"]) == {query.name for query in SMOKE.retrieval.queries}
    assert rows["change"].eq(recolouring.CHANGES[2].name).all() and rows["recall"].between(0, 1).all()
    changed = recolouring.whole(SMOKE, "moco_v2", recolouring.CHANGES[2])
    assert rows["run_id"].eq(encoders.run_id(changed, "moco_v2")).all()


def test_without_validation_regions_there_is_nothing_to_choose_by() -> None:
    assert recolouring.finished(SMOKE) == {}
    with pytest.raises(InputError, match="no validation region"):
        recolouring.chapter(SMOKE)


def test_what_is_published_are_the_rows_as_they_are_and_those_that_the_tries_chose() -> None:
    tries, rows = (read_csv(PUBLISHED / name) for name in ("recolouring-tries.csv", "recolouring.csv"))
    assert tries.groupby("method")["change"].nunique().eq(len(recolouring.CHANGES)).all()
    best = recolouring.chosen(tries)
    assert set(best) == set(rows["method"])
    for method, part in rows.groupby("method"):
        assert set(part["change"]) == {AS_IT_IS.name, best[str(method)].name}
        assert part.groupby("change").size().nunique() == 1

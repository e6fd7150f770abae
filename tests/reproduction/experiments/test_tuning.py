"""Tuning: as many tries for every row, each a change that there is, and the choice by two numbers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from reproduction import paths, recipes
from reproduction.experiments import tuning
from reproduction.profiles import get_profile
from reproduction.results import read_csv
from reproduction.rows import PRETRAINED
from reproduction.settings import AS_IT_IS, Change
from selm.errors import InputError
from selm.methods import METHODS

JAPAN = get_profile("japan-cpu")


def test_every_pretrained_row_has_the_same_number_of_tries() -> None:
    tuned = [name for name in PRETRAINED if name not in recipes.UNTUNED]
    assert {len(tuning.tries(name)) for name in tuned} == {4} and len(tuned) == len(PRETRAINED) - 2
    for name in tuned:
        assert len({change.name for change in tuning.tries(name)}) == 4
    with pytest.raises(InputError, match="tuned row 'raw_gps'"):
        tuning.tries("raw_gps")


@pytest.mark.parametrize("name", tuning.TRIES)
def test_a_try_changes_what_it_names_and_nothing_else(name: str) -> None:
    own = METHODS[name].settings
    for change in tuning.tries(name):
        profile = tuning.tried(JAPAN, name, change)
        assert profile.recipe_of(name) == change and profile.pretraining.images == tuning.IMAGES
        trained = change.of(profile)
        for part, fields in (("pretraining", change.pretraining), ("views", change.views)):
            before, after = dataclasses.asdict(getattr(profile, part)), dataclasses.asdict(getattr(trained, part))
            differs = {field for field in before if before[field] != after[field]} - {"lr"}
            assert differs == {field for field, _ in fields}
        settings = change.of_settings(own)
        assert {f.name for f in dataclasses.fields(own) if getattr(own, f.name) != getattr(settings, f.name)} == {
            field for field, _ in change.settings
        }


def test_a_recipe_belongs_to_its_row() -> None:
    change = Change("short queue", settings=(("queue", 7),))
    profile = JAPAN.with_recipe("moco_v2", change)
    assert profile.recipe_of("moco_v2") == change and profile.recipe_of("dino") == JAPAN.recipe_of("dino")
    more = Change("more", (("alpha", 1.0),), lr=2.0).after(Change("first", (("alpha", 0.5), ("beta", 0.1)), lr=3.0))
    trained = more.of(JAPAN)
    assert (trained.pretraining.alpha, trained.pretraining.beta) == (1.0, 0.1)
    assert trained.pretraining.lr == pytest.approx(6 * JAPAN.pretraining.lr)
    with pytest.raises(InputError, match="unknown field of Pretraining 'alhpa'; did you mean 'alpha'"):
        JAPAN.with_recipe("dino", Change("typo", (("alhpa", 1.0),)))
    with pytest.raises(InputError, match="unknown field of Terms"):
        Change("typo", settings=(("queue", 3),)).of_settings(METHODS["dino"].settings)


def made(method: str, *tries: tuple[str, float, float, str]) -> pd.DataFrame:
    rows = [
        {"method": method, "change": name, "seed": 0, "price": price, "recall": recall, "collapse": collapse or np.nan,
         "processor_seconds": 1.0, "teacher_entropy": np.nan}
        for name, price, recall, collapse in tries
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_choice_is_the_lowest_sum_of_ranks_among_healthy_runs() -> None:
    rows = pd.concat([
        made("dino", ("as it is", 1.0, 0.1, ""), ("a", 0.9, 0.3, ""), ("b", 0.8, 0.4, "one output takes all")),
        made("mugs", ("as it is", 0.7, 0.2, ""), ("a", 0.8, 0.3, "")),  # equal sums: the lower error
    ])  # fmt: skip
    table = tuning.ranked(rows)
    chosen = table[table["chosen"]].set_index("method")["change"].to_dict()
    assert chosen == {"dino": "a", "mugs": "as it is"}
    assert table.set_index(["method", "change"]).loc[("dino", "b"), "rank_sum"] == 2


def test_the_recipes_are_what_the_published_tries_choose() -> None:
    table = tuning.ranked(read_csv(paths.repository() / "data" / "results" / "japan-cpu" / "tuning.csv"))
    assert {name: list(table.loc[table["method"] == name, "change"]) for name in recipes.TRIES} == {
        name: [change.name for change in changes] for name, changes in recipes.TRIES.items()
    }
    assert table[table["chosen"]].set_index("method")["change"].to_dict() == recipes.CHOSEN
    for name in PRETRAINED:
        like = recipes.LIKE.get(name, name)
        assert JAPAN.recipe_of(name).name == recipes.CHOSEN.get(like, AS_IT_IS.name)
        assert (like in recipes.CHOSEN) != (name in recipes.UNTUNED)


def test_a_profile_without_validation_regions_is_refused() -> None:
    with pytest.raises(InputError, match="has no validation region"):
        tuning.price_error(dataclasses.replace(get_profile("smoke"), retrieval=get_profile("smoke").retrieval), None)  # type: ignore[arg-type]
    assert tuning.finished(get_profile("smoke")) == {}
    assert tuning.tries("dino")[0] is AS_IT_IS

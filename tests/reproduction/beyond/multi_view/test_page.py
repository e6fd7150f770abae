"""The page on several views, from small tables of results."""

from __future__ import annotations

import numpy as np
import pandas as pd

from reproduction.beyond.multi_view import page

COMMON = {"profile": "japan-cpu", "stand_in": False}


def rows(models: tuple[str, ...] = ("glm", "gam")) -> pd.DataFrame:
    values = {"coordinates": 0.9, "views": 0.5, "map": 0.7}
    out = [
        {"split": split, "model": model, "features": name, "dim": 16, "trial": trial, "value": value + trial / 10}
        for split in page.SPLITS
        for model in models
        for name, value in values.items()
        for trial in range(2 if split != "unseen" else 1)
    ]
    return pd.DataFrame(out).assign(**COMMON)


def claims() -> pd.DataFrame:
    common = {"gain": 0.4, "low": 0.2, "high": 0.6, "p_holm": 0.0002, "n_blocks": 75, "n_family": 4, "n_points": 1371,
              "interval_level": 0.95, "n_regions": 1, **COMMON}  # fmt: skip
    out = [
        {"split": split, "a": f"views, {model}", "b": f"{name}, {model}", "verdict": verdict, **common}
        for split in ("blocks", "unseen")
        for model in ("glm", "gam")
        for name, verdict in (("coordinates", "better"), ("map", "undecided"))
    ]
    return pd.DataFrame(out)


def test_the_answer_is_read_off_the_results() -> None:
    text = page.answer(rows(), claims()).text
    assert "<strong>better</strong> with GLM (0.550 against 0.950)" in text
    assert "In a region without known prices" in text
    assert "The least error there, 0.550, is that of embedding of coordinates, both views with GAM" in text
    better = rows().assign(value=lambda t: t["value"].where(t["features"] != "map", 0.1))
    assert "0.100, is that of map image's embedding with GAM" in page.answer(better, claims()).text


def test_tables() -> None:
    text = page.models_table(rows()).text
    assert "0.550<small> ± 0.071</small>" in text and "2 fold draws" in text and "pyGAM" not in text
    assert "in a region without known prices" in text and "map objects in numbers" not in text
    assert "random folds" not in page.models_table(rows(), ("blocks",)).text
    assert "pip install '.[gam]'" in page.models_table(rows(("glm",))).text
    text = page.claims_table(claims()).text
    assert "GAM: ahead of coordinates" in text and "&lt; 0.001" in text and "75 blocks" in text and "undecided" in text
    assert "undecided" not in page.claims_table(claims().assign(profile="demo")).text


def test_effects_are_drawn_in_the_same_colours() -> None:
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.linspace(42, 44, 5), np.linspace(141, 144, 6)), -1).reshape(-1, 2)
    at = pd.DataFrame(np.concatenate([rng.uniform([42, 141], [44, 144], (10, 2)), grid]), columns=["lat", "lon"])
    official, given = np.full(40, np.nan), rng.normal(size=40)
    official[:10], given[:10] = np.arange(10.0), np.nan
    found = at.assign(**{"official": official, "views, glm": given, "coordinates, boosting": given})
    figure = page.effects_figure(found)
    drawn = [axis for axis in figure.axes if axis.collections and axis.get_title()]
    assert [axis.get_title() for axis in drawn] == [
        "official points", "GLM: embedding of coordinates, both views", "boosting: coordinates"
    ]  # fmt: skip
    assert len(drawn[0].collections[0].get_offsets()) == 10
    values = found["views, glm"].dropna().to_numpy()
    assert sorted(np.ravel(drawn[1].collections[0].get_array())) == sorted(values)
    assert len({axis.collections[0].get_clim() for axis in drawn}) == 1

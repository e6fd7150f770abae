"""The sweep: every try changes what it says and no more, both methods get as many, gradients equal a slow way."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from synthetic import SETTINGS, VIEWS, method, sampler

from reproduction import settings
from reproduction.computed import encoders, frozen_features, place_tables
from reproduction.experiments import ablations
from reproduction.places import splits
from reproduction.profiles import get_profile
from selm.errors import InputError
from selm.pretrain import step_generator

JAPAN = get_profile("japan-cpu")


def changed(profile: settings.Profile) -> dict[str, object]:
    """Fields of a profile that differ from japan-cpu's, without what every try shares."""
    out = {}
    for part in ("pretraining", "views", "maps", "encoder", "probing"):
        old, new = getattr(JAPAN, part), getattr(profile, part)
        for field in dataclasses.fields(old):
            if getattr(old, field.name) != getattr(new, field.name) and field.name != "images":
                out[field.name] = getattr(new, field.name)
    return out


def test_both_methods_get_as_many_tries_and_each_changes_one_field() -> None:
    counts = {name: len(ablations.tries(name)) for name in ablations.SWEPT}
    assert len(set(counts.values())) == 1
    with pytest.raises(InputError, match="swept method"):
        ablations.tries("gps_selm_geo")
    seen = set()
    for name in ablations.SWEPT:
        for variant in ablations.tries(name):
            profile = variant.of(ablations.tried(JAPAN, "dino", ablations.AS_IT_IS, JAPAN.ablations.share))
            fields = changed(profile)
            assert len(fields) == (0 if variant is ablations.AS_IT_IS else 1), variant.name
            assert profile.pretraining.images == 50_000
            seen.add((name, tuple(fields.items())))
    assert len(seen) == 2 * counts["dino"]  # no try twice
    (halved,) = (variant for variant in ablations.COMMON if variant.name == "learning rate × ½")
    assert halved.of(JAPAN).pretraining.lr == JAPAN.pretraining.lr / 2


def test_the_methods_take_turns_and_are_repeated_as_they_are() -> None:
    plan = ablations.planned(JAPAN)
    assert len(plan) == len({(m, v.name, s) for m, v, s in plan}) == 2 * (len(ablations.tries("dino")) + 2)
    assert [(m, v.name, s) for m, v, s in plan[:6]] == [(m, "as it is", s) for s in range(3) for m in ablations.SWEPT]
    assert [m for m, _, _ in plan] == list(ablations.SWEPT) * (len(plan) // 2)
    assert [v in ablations.COMMON for _, v, _ in plan[6:10]] == [False, False, True, True]  # its own, then a common one


def test_a_gain_is_told_from_chance() -> None:
    made = [("as it is", 0, 0.8), ("as it is", 1, 0.9), ("as it is", 2, 1.0), ("K = 64", 0, 0.7)]
    rows = pd.DataFrame(
        [
            {"method": "dino", "variant": v, "seed": s, "value": x, "collapse": np.nan}  # "" as a file gives it back
            for v, s, x in made
            for _ in range(2)
        ]
    )
    table = ablations.summary(rows).set_index("variant")
    assert table["gain"].round(9).to_dict() == {"as it is": 0.0, "K = 64": 0.2}
    assert table["chance"].round(9).tolist() == [0.1, 0.1] and table["seeds"].tolist() == [3, 1]
    assert table["collapse"].tolist() == ["", ""]
    assert ablations.summary(rows[rows["seed"] == 0])["chance"].isna().all()
    (line,) = ablations.said(ablations.summary(rows))
    assert "as it is: 0.900" in line and "within ± 0.100" in line
    assert "Of 1 tries 1 gain more than that (K = 64 (+0.200)), 0 lose more" in line


def as_leaf(leaves: list[torch.Tensor], module: object, inputs: object, output: torch.Tensor) -> torch.Tensor:
    leaves.append(output.detach().requires_grad_())
    return leaves[-1]


def test_a_field_that_there_is_not_is_named() -> None:
    with pytest.raises(InputError, match="out_dim"):
        ablations.Change("typo", (("outdim", 3),)).of(JAPAN)


def test_gradient_norms_are_those_of_the_features() -> None:
    made, places = method("gps_selm"), sampler()
    generator = step_generator(0, 0, torch.device("cpu"))
    batch = made.draw(places, SETTINGS.batch, generator)
    with torch.random.fork_rng(devices=[]):
        norms = ablations.gradient_norms(made, batch, 0.5)
    assert set(norms) == set(ablations.LOSSES)
    assert all(np.isfinite(value) and value > 0 for value in norms.values())

    # the slow way: the same pass with its features as leaves, each loss differentiated by itself
    for name in ("price", "clust"):
        leaves: list[torch.Tensor] = []
        hook = made.encoder.register_forward_hook(functools.partial(as_leaf, leaves))
        out = made.loss(batch, 0.5)
        hook.remove()
        out[name].backward()
        slow = torch.sqrt(sum(leaf.grad.square().sum() for leaf in leaves if leaf.grad is not None))
        assert norms[name] == pytest.approx(float(slow), rel=1e-4)
    plain = ablations.gradient_norms(method("dino"), batch, 0.5)
    assert set(plain) == {"cl"}


def test_loudness_weighs_losses_as_training_does(monkeypatch: pytest.MonkeyPatch) -> None:
    places = sampler()
    monkeypatch.setattr(encoders, "sampler", lambda profile: places)
    monkeypatch.setattr(encoders, "encoder_config", lambda profile: method("dino").encoder.config)
    profile = dataclasses.replace(JAPAN, pretraining=SETTINGS, views=VIEWS)
    table = ablations.loudness(profile, after=(0, 3), batches=2)
    assert table["after"].tolist() == [0] * 6 + [3] * 6
    first = table[table["after"] == 0].set_index("loss")
    assert first.loc["price", "weight"] == pytest.approx(SETTINGS.alpha / 3)
    np.testing.assert_allclose(table["felt"], table["norm"] * table["weight"])
    later = table[table["after"] == 3].set_index("loss")
    assert not np.allclose(first["norm"], later["norm"])


def test_a_try_is_judged_on_the_validation_regions_alone_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELM_RUNS", str(tmp_path))
    rng = np.random.default_rng(0)
    cells = [f"{34 + i * 0.25:.2f}_132.00" for i in range(20)]
    points = pd.DataFrame(
        {
            "lat": 34 + rng.random(200), "lon": 132 + rng.random(200), "cell": rng.choice(cells, 200),
            "target_set": np.where(np.arange(200) < 150, "validation", "hokkaido"), "price": rng.normal(size=200),
        }
    )  # fmt: skip
    folds = pd.DataFrame({"cell": cells, **{f"draw_{d}": rng.integers(0, 10, 20) for d in range(10)}})
    trained: list[tuple[int, float]] = []

    def pretrained(profile: settings.Profile, name: str, seed: int, *, progress: bool = True) -> Path:
        trained.append((profile.pretraining.images, profile.recipe_of(name).of(profile).pretraining.gamma))
        folder = tmp_path / f"run-{len(trained)}"
        folder.mkdir()
        pd.DataFrame({"feature_spread": [0.5], "collapse": [""]}).to_csv(folder / "metrics.csv", index=False)
        return folder

    def features(profile: settings.Profile, name: str, seed: int, table: pd.DataFrame, label: str) -> np.ndarray:
        tuned = profile.pretraining.images == 200_000
        assert (table["target_set"] == ("hokkaido" if tuned else "validation")).all()
        assert len(table) == (50 if tuned else 150)
        noise = np.random.default_rng(1).normal(size=(len(table), 4))
        return np.column_stack(
            [table["price"] * (2.0 if profile.recipe_of(name).of(profile).pretraining.gamma == 1.0 else 0.0), noise]
        )

    monkeypatch.setattr(place_tables, "points", lambda profile: points)
    monkeypatch.setattr(place_tables, "points_key", lambda profile: "0" * 12)
    monkeypatch.setattr(encoders, "pretraining_config", lambda profile, name, seed: {"method": name})
    monkeypatch.setattr(encoders, "pretrained", pretrained)
    monkeypatch.setattr(frozen_features, "features", features)
    monkeypatch.setattr(splits, "read_folds", lambda profile: folds)
    louder = next(variant for variant in ablations.tries("gps_selm") if variant.name.startswith("γ = 1"))
    rows = pd.concat([ablations.run(JAPAN, variant, "gps_selm") for variant in (ablations.AS_IT_IS, louder)])
    assert trained == [(50_000, 0.4), (50_000, 1.0)] and (rows["n"] == 150).all()
    assert len(ablations.run(JAPAN, louder, "gps_selm")) == 10 and len(trained) == 2  # not again
    table = ablations.summary(rows).set_index("variant")
    assert table.loc["as it is", "gain"] == 0 and table.loc["as it is", "mean"] > 0.8
    assert table.loc[louder.name, "gain"] > 0.5
    (published,) = ablations.finished(JAPAN).values()
    assert len(published) == 20

    # the best try is trained as the table's rows are, and alone beside the method as it is scored in the test region
    again = rows.assign(seed=1)[rows["variant"] == "as it is"]
    assert ablations.chosen(rows) == {"gps_selm": ablations.AS_IT_IS}  # one seed: chance is not known
    both = pd.concat([rows, again])
    assert ablations.chosen(both) == {"gps_selm": louder}
    scores = ablations.tuned(JAPAN, both)
    assert trained[2:] == [(200_000, 0.4), (200_000, 1.0)] and (scores["n"] == 50).all()
    means = scores.groupby("variant")["value"].mean()
    assert means[louder.name] < 0.5 < means["as it is"]
    published = ablations.finished(JAPAN)
    assert len(published["ablations.csv"]) == 20 and len(published["tuned.csv"]) == 20

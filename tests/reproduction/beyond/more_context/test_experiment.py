"""The chapter on more context: its grid, and how stages and probe are chosen."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from reproduction.beyond.more_context import experiment as more_context
from reproduction.beyond.more_context.experiment import Entry
from reproduction.beyond.more_context.kernel_ridge import KernelRidge, kernel_ridge, kernel_ridges
from reproduction.computed import drawn_maps, head
from reproduction.experiments import table1_table2
from reproduction.profiles import PROFILES
from reproduction.settings import Profile, Surroundings
from selm.maps.mercator import haversine_m
from selm.maps.sphere import pairs_within
from selm.methods.multi_zoom import WIDE
from selm.probes.folds import BufferedFolds, problems

SMOKE = dataclasses.replace(
    PROFILES["smoke"], surroundings=Surroundings(widths=(0.0, 1.0), penalties=(0.1, 1.0), fields=((0.5, 10.0),))
)

_EXTRA = dataclasses.replace(SMOKE.regions[0], name="extra", role="validation")
VALIDATED = dataclasses.replace(SMOKE, regions=(*SMOKE.regions, _EXTRA))


def test_every_entry_has_a_name_of_its_own() -> None:
    for profile in PROFILES.values():
        entries = more_context.entries(profile)
        assert len({entry.label for entry in entries}) == len(entries)
        settings = Counter(
            (
                entry.row,
                entry.asked,
                more_context.setting(entry.zooms, entry.coordinates, more_context.aside(profile, entry)),
            )
            for entry in entries
        )
        assert max(settings.values()) == 1  # what a published row is known by
        for method in (*more_context.ROWS, more_context.COLOURS, more_context.TREES):
            splits = {entry.split for entry in entries if entry.method == method and entry.zooms == WIDE}
            assert splits - {more_context.REGIONS} == set(table1_table2.SPLITS)


def test_asides_are_named() -> None:
    entry = Entry("dino", 0, WIDE[:2], True, "blocks", 1, 8, SMOKE.surroundings.stages)
    assert more_context.aside(SMOKE, entry) == ""
    one, last = dataclasses.replace(entry, orientations=1), dataclasses.replace(entry, stages=((4,),))
    assert more_context.setting(one.zooms, True, more_context.aside(SMOKE, one)) == (
        "zooms 17-16, one orientation, coordinates"
    )
    assert more_context.setting(last.zooms, False, more_context.aside(SMOKE, last)) == "zooms 17-16, last stage"
    assert more_context.aside(SMOKE, Entry(more_context.COLOURS, 0, WIDE, True, "blocks")) == ""


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, table1_table2.Task]:
    """Validation and test places whose targets only the second stage tells, at the second zoom."""
    rng = np.random.default_rng(3)
    tasks, known = {}, {}
    for of, n in (("validation", 60), ("test", 80)):
        features = {(zoom, stage): rng.normal(size=(n, 3)).astype(np.float32) for zoom in WIDE for stage in range(5)}
        table = pd.DataFrame({"lat": 43 + rng.random(n), "lon": 141 + rng.random(n)})
        folds = BufferedFolds(
            np.stack([rng.permutation(n) % 5 for _ in range(2)]), pairs_within(table["lat"], table["lon"], 1.0)
        )
        told = features[16, 2] @ np.array([1.0, -2.0, 0.5])
        tasks[of] = table1_table2.Task("regression", table, (told / told.std()).astype(float), folds)
        known[of] = features
    monkeypatch.setattr(more_context, "validation", lambda profile, km: tasks["validation"])
    monkeypatch.setattr(more_context, "tested", lambda profile, split, km=0.0: tasks["test"])
    monkeypatch.setattr(more_context, "features", lambda profile, method, seed, orientations, of: known[of])
    monkeypatch.setenv("SELM_RUNS", str(tmp_path))  # where nothing is remembered
    return tasks


def test_blocks_are_asked_under_wider_buffers_too(runs: Path) -> None:
    wider = dataclasses.replace(SMOKE, surroundings=dataclasses.replace(SMOKE.surroundings, buffers_km=(0.2, 0.4)))
    assert [e for e in more_context.entries(wider) if not e.buffer_km] == more_context.entries(SMOKE)
    asked = [entry for entry in more_context.entries(wider) if entry.buffer_km]
    plain = [e for e in more_context.entries(SMOKE) if e.split == "blocks" and not more_context.aside(SMOKE, e)]
    assert asked == [dataclasses.replace(entry, buffer_km=km) for km in (0.2, 0.4) for entry in plain]
    assert {entry.asked for entry in asked} == {"blocks, 0.2 km", "blocks, 0.4 km"}
    for km in (0.2, 0.4):
        for todo in (more_context.tested(wider, "blocks", km), more_context.validation(wider, km)):
            lat, lon = todo.places["lat"].to_numpy(), todo.places["lon"].to_numpy()
            layout = problems(todo.targets, todo.folds, todo.kind)
            for train, test in zip(layout.train, layout.test, strict=True):
                assert haversine_m(lat[test][:, None], lon[test][:, None], lat[train], lon[train]).min() > 1000 * km
    entry = next(entry for entry in asked if entry.method == more_context.COLOURS)
    rows, _ = more_context.compute(wider, entry)
    assert {row["split"] for row in rows} == {"blocks, 0.2 km"}
    # addresses of the plain rows are what they were
    assert more_context.GRID.kept(wider, plain[0]).base == more_context.GRID.kept(SMOKE, plain[0]).base


def test_a_probe_learns_from_other_regions_by_what_the_widest_buffer_chose(runs: Path) -> None:
    s = dataclasses.replace(SMOKE.surroundings, buffers_km=(0.2,), other_regions=True)
    far = dataclasses.replace(SMOKE, surroundings=s)
    without = dataclasses.replace(far, surroundings=dataclasses.replace(s, other_regions=False))
    asked = [entry for entry in more_context.entries(far) if entry.split == more_context.REGIONS]
    others = [e for e in more_context.entries(far) if e not in asked and not e.head]
    assert others == more_context.entries(without)
    assert {entry.zooms for entry in asked} == {WIDE} and not any(entry.coordinates for entry in asked)
    assert {entry.method for entry in asked} == {*more_context.ROWS, more_context.COLOURS, more_context.TREES}

    plain, todo = more_context.tested(far, "blocks"), more_context.tested(far, more_context.REGIONS)
    n = len(plain.places)
    assert (todo.places["lat"][:n] == plain.places["lat"]).all() and len(todo.places) > n
    layout = problems(todo.targets, todo.folds, todo.kind, test_folds=todo.test_folds)
    own = np.arange(len(todo.places)) < n
    assert len(layout.test) == 1 and (layout.test[0] == own).all()
    assert layout.train[0].any() and not layout.train[0][own].any()

    entry = next(entry for entry in asked if entry.method == more_context.COLOURS)
    rows, tensors = more_context.compute(far, entry)
    assert {row["split"] for row in rows} == {"regions"}
    under = dataclasses.replace(entry, split="blocks", buffer_km=0.2)
    probe = more_context.validated(far, under)[-1]
    assert rows[0]["penalty"] == probe.penalty and rows[0]["width"] == probe.width
    x = np.hstack([drawn_maps.histograms(far, todo.places, zoom) for zoom in WIDE])
    want = kernel_ridge(x, todo.places["lat"], todo.places["lon"], todo.targets, todo.folds, probe,
                        test_folds=todo.test_folds)  # fmt: skip
    np.testing.assert_allclose(tensors["mse"].numpy(), want.scores["mse"])
    (trees,) = {row["value"] for row in more_context.compute(far, dataclasses.replace(entry, method="histogram"))[0]}
    assert np.isfinite(trees)


def test_a_head_is_taught_by_regions_that_are_neither_tested_nor_validated(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = dataclasses.replace(SMOKE, surroundings=dataclasses.replace(SMOKE.surroundings, other_regions=True))
    asked = [entry for entry in more_context.entries(far) if entry.head]
    assert {entry.row for entry in asked} == {"colours+head", "multi_zoom_wide+colours+head"}
    assert {(entry.split, entry.coordinates) for entry in asked} == set(
        itertools.product(table1_table2.SPLITS, (False, True))
    )
    assert not any(entry.head for entry in more_context.entries(SMOKE))
    entry = next(e for e in asked if (e.method, e.split, e.coordinates) == (more_context.COLOURS, "blocks", False))
    taught: list[pd.DataFrame] = []
    known = head.known
    monkeypatch.setattr(head, "known", lambda places: taught.append(places) or known(places))
    rows, tensors = more_context.compute(far, entry)
    assert rows[0]["tries"] == 3 * 4 and rows[0]["head"] in more_context.HEADS and len(taught) == 1  # kept
    own, all_of = more_context.tested(far, "blocks").places, more_context.tested(far, more_context.REGIONS).places
    for places in taught:  # the smoke profile has no validation region
        pd.testing.assert_frame_equal(places, all_of.iloc[len(own) :])

    # by hand: the head's outputs, so often beside the features that they have their part of the kernel
    x = np.hstack([drawn_maps.histograms(far, all_of, zoom) for zoom in WIDE])
    outputs = head.outputs(x, x[len(own) :], known(all_of.iloc[len(own) :]))
    part = rows[0]["head"]
    probe = KernelRidge(rows[0]["penalty"], rows[0]["width"], head=part)
    todo = more_context.tested(far, "blocks")
    (want,) = kernel_ridges(
        x[: len(own)], own["lat"], own["lon"], todo.targets, todo.folds, [probe], head=outputs[: len(own)]
    )
    np.testing.assert_allclose(tensors["mse"].numpy(), want.scores["mse"], rtol=1e-6)


def test_the_validation_regions_do_not_teach_the_head_that_is_chosen_in_them(
    places: dict[str, table1_table2.Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    test, validation = places["test"].places, places["validation"].places
    other = pd.concat([validation.assign(region="extra"), test.head(30).assign(region="far")])
    everything = pd.concat([test.assign(region="helsinki"), other], ignore_index=True)
    plain = more_context.tested

    def tested(profile: Profile, split: str, km: float = 0.0) -> object:
        return SimpleNamespace(places=everything) if split == "regions" else plain(profile, split)

    monkeypatch.setattr(more_context, "tested", tested)
    of = more_context.features

    def features(
        profile: Profile, method: str, seed: int, orientations: int, name: str
    ) -> dict[tuple[int, int], object]:
        rng = np.random.default_rng(5)
        if name == "regions":
            return {(z, s): rng.normal(size=(len(everything), 3)).astype(np.float32) for z in WIDE for s in range(5)}
        return of(profile, method, seed, orientations, name)

    monkeypatch.setattr(more_context, "features", features)
    taught: list[set[str]] = []

    def known(places: pd.DataFrame) -> np.ndarray:
        taught.append(set(places["region"]))
        return np.zeros((len(places), 2)) + np.arange(len(places))[:, None]

    monkeypatch.setattr(head, "known", known)
    entry = Entry(more_context.COLOURS, 0, WIDE[:1], False, "blocks", head=True)
    more_context.compute(VALIDATED, entry)
    assert taught == [{"far"}, {"far", "extra"}]  # chosen by the first, scored by the second


def test_stages_and_probe_are_those_with_the_least_error_in_validation(places: dict[str, table1_table2.Task]) -> None:
    stages = ((4,), (1, 2, 3, 4))
    entry = Entry("dino", 0, WIDE[:2], False, "blocks", 1, 8, stages)
    rows, tensors = more_context.compute(VALIDATED, entry)
    first = rows[0]
    assert first["stages"] == "1-2-3-4" and first["tries"] == 2 * 4 and first["setting"] == "zooms 17-16"
    # by hand, one try after the other
    known, validation, test = more_context.features, places["validation"], places["test"]
    best = {}
    for some in stages:
        of = known(VALIDATED, "dino", 0, 8, "validation")
        x = np.hstack([of[zoom, stage] for zoom in WIDE[:2] for stage in some])
        for penalty in (0.1, 1.0):
            for width in (0.0, 1.0):
                probe = KernelRidge(penalty, width, 0.0, 1.0)
                out = kernel_ridge(x, validation.places["lat"], validation.places["lon"], validation.targets,
                                   validation.folds, probe)  # fmt: skip
                best[some, probe] = out.values("mse").mean()
    (some, probe), error = min(best.items(), key=lambda item: item[1])
    assert (first["penalty"], first["width"]) == (probe.penalty, probe.width)
    assert first["validation"] == pytest.approx(error)
    of = known(VALIDATED, "dino", 0, 8, "test")
    x = np.hstack([of[zoom, stage] for zoom in WIDE[:2] for stage in some])
    want = kernel_ridge(x, test.places["lat"], test.places["lon"], test.targets, test.folds, probe)
    np.testing.assert_allclose(tensors["mse"].numpy(), want.scores["mse"])
    assert want.values("mse").mean() < 0.5

    (last, *_), _ = more_context.compute(VALIDATED, dataclasses.replace(entry, stages=((4,),)))
    assert last["stages"] == "last" and last["tries"] == 4 and last["setting"] == "zooms 17-16, last stage"
    assert last["value"] > 0.7  # the last stage knows nothing


def test_features_of_the_recommended_embedding_are_those_that_are_kept(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile, of = dataclasses.replace(SMOKE, surroundings=dataclasses.replace(SMOKE.surroundings, longer=2)), "test"
    s = profile.surroundings
    asked = []
    kept = more_context.frozen_features.recommended
    monkeypatch.setattr(
        more_context.frozen_features, "recommended", lambda *some: asked.append(len(some[1])) or kept(*some)
    )
    entry = Entry(more_context.LONGER, 0, WIDE[:2], False, "random", 2, s.orientations, s.stages)
    for some in ((4,), (1, 2, 3, 4)):
        plain = more_context.features(profile.times(2), more_context.LONGER, 0, s.orientations, of)
        want = np.hstack([plain[zoom, stage] for zoom in WIDE[:2] for stage in some])
        np.testing.assert_allclose(more_context.numbers(profile, entry, of, some), want, atol=1e-5)
    assert asked == [len(more_context.tested(profile, "blocks").places)]


def test_colours_have_the_probe_of_encoders(places: dict[str, table1_table2.Task]) -> None:
    rows, _ = more_context.compute(VALIDATED, Entry(more_context.COLOURS, 0, WIDE[:1], True, "random"))
    assert rows[0]["tries"] == 4 and rows[0]["share"] == 0.5 and rows[0]["stages"] == ""


def test_colours_beside_the_features_of_an_encoder(places: dict[str, table1_table2.Task]) -> None:
    entry = Entry("random_init", 0, WIDE[:2], False, "blocks", 1, 8, ((4,),), colours=True)
    assert entry.row == "random_init+colours" and entry in [
        dataclasses.replace(c, zooms=WIDE[:2], stages=((4,),), orientations=8) for c in more_context.entries(VALIDATED)
    ]
    rows, tensors = more_context.compute(VALIDATED, entry)
    of, test = more_context.features(VALIDATED, "", 0, 1, "test"), places["test"]
    x = np.hstack([of[17, 4], of[16, 4], of[17, 0], of[16, 0]])
    probe = KernelRidge(rows[0]["penalty"], rows[0]["width"], 0.0, 1.0)
    want = kernel_ridge(x, test.places["lat"], test.places["lon"], test.targets, test.folds, probe)
    np.testing.assert_allclose(tensors["mse"].numpy(), want.scores["mse"])


def test_an_encoders_features_are_computed_once_and_rows_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[tuple[str, int]] = []

    def run(profile: Profile, entry: Entry) -> pd.DataFrame:
        computed.append((entry.method, entry.times))
        return pd.DataFrame({"label": [entry.label]})

    monkeypatch.setattr(more_context, "GRID", SimpleNamespace(rows=run))
    out = more_context.surroundings(PROFILES["demo"], progress=False)
    assert out["label"].tolist() == [entry.label for entry in more_context.entries(PROFILES["demo"])]
    changes = sum(before != after for before, after in itertools.pairwise(computed))
    assert changes == len(set(computed)) - 1 > 3


def test_a_profile_without_validation_regions_computes_features_of_its_places_once(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    features = more_context.features
    monkeypatch.setattr(more_context, "features", lambda *of: asked.append(of[-1]) or features(*of))
    more_context.GRID.rows(SMOKE, Entry(more_context.COLOURS, 0, WIDE[:2], False, "random"))
    assert set(asked) == {"test"}

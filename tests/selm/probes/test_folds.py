from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from selm.errors import InputError
from selm.maps.mercator import haversine_m
from selm.maps.sphere import Neighbourhood, pairs_within
from selm.probes.folds import BufferedFolds, problems, random_folds


def test_random_folds_are_even_seeded_and_differ_between_draws() -> None:
    folds = random_folds(53, range(4))
    assert folds.shape == (4, 53)
    for row in folds:
        sizes = np.bincount(row, minlength=10)
        assert sizes.max() - sizes.min() <= 1
    np.testing.assert_array_equal(folds, random_folds(53, range(4)))
    assert (folds[0] != folds[1]).any()
    np.testing.assert_array_equal(random_folds(53, [2])[0], folds[2])


def test_each_usable_point_is_tested_once_a_draw_and_never_trained_on_then() -> None:
    targets = np.arange(20.0)
    targets[3] = np.nan
    folds = random_folds(20, range(3), n_folds=4)
    folds[1, 7] = -1
    layout = problems(targets, folds, "regression")
    assert not (layout.train & layout.test).any()
    for draw in range(3):
        tested = layout.test[layout.draw == draw].sum(axis=0)
        expected = np.ones(20, dtype=int)
        expected[3] = 0
        if draw == 1:
            expected[7] = 0
        np.testing.assert_array_equal(tested, expected)
        union = layout.train[layout.draw == draw] | layout.test[layout.draw == draw]
        np.testing.assert_array_equal(union, np.broadcast_to(expected.astype(bool), union.shape))
    n_train, n_test = layout.sizes()
    assert n_test.tolist() == [19, 18, 19]
    assert n_train[0] == round(19 * 3 / 4)


def test_test_folds_make_one_model_a_draw() -> None:
    folds = random_folds(40, range(2))
    layout = problems(np.arange(40.0), folds, "regression", test_folds=(0, 1))
    assert layout.draw.tolist() == [0, 1]
    np.testing.assert_array_equal(layout.test, folds <= 1)
    np.testing.assert_array_equal(layout.train, folds > 1)


def test_unseen_classes_and_their_points_are_counted() -> None:
    codes = np.array([0, 0, 0, 2, 2, 5, -1, 0])
    folds = np.array([[0, 1, 0, 1, 0, 1, 0, 1]])
    layout = problems(codes, folds, "classification")
    assert layout.n_classes == 6
    notes = layout.notes()
    assert notes["classes_present"] == 3  # 0, 2 and 5
    assert notes["tested_of_unseen_class"] == 1  # the only 5, when its fold is tested
    assert notes["tested"] == 7
    assert layout.seen().tolist() == [[True, False, True, False, False, True], [True, False, True, False, False, False]]


@pytest.mark.parametrize(
    ("targets", "folds", "task", "message"),
    [
        ([1.0, 2.0], [[0, 0]], "regression", "no points to train on"),
        ([1.0, 2.0, 3.0], [[0, 1]], "regression", "does not fit"),
        ([1.0, 2.0], [0, 1], "regression", r"expected an array \(draws, points\)"),
        ([1.0, 2.0], [[0, 1]], "classification", "integer class codes"),
        ([1.0, 2.0], [[0, 1]], "ranking", "unknown task"),
        ([np.nan, np.nan], [[0, 1]], "regression", "no points to test on"),
    ],
)
def test_bad_input_is_named(targets: list, folds: list, task: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        problems(targets, folds, task)


def test_a_buffer_keeps_neighbours_of_tested_points_out_of_training() -> None:
    near = np.eye(6, dtype=bool)
    near[0, 1] = near[1, 0] = True  # 0 and 1 are neighbours across the folds, 2 and 3 within one
    near[2, 3] = near[3, 2] = True
    folds = np.array([[0, 1, 1, 1, 0, 0]])
    plain = problems(np.arange(6.0), folds, "regression")
    buffered = problems(np.arange(6.0), BufferedFolds(folds, sparse.csr_array(near)), "regression")
    np.testing.assert_array_equal(buffered.test, plain.test)
    lost = plain.train & ~buffered.train
    assert lost.tolist() == [
        [False, True, False, False, False, False],  # 1 is near the tested 0
        [True, False, False, False, False, False],
    ]
    assert not (buffered.train & ~plain.train).any()


@pytest.mark.parametrize("metres", [0.0, 1_000.0, 5_000.0, 15_000.0])
def test_no_training_point_is_nearer_than_the_buffer(metres: float) -> None:
    """Both kinds of buffer, against a slow loop over all pairs."""
    rng = np.random.default_rng(0)
    lat, lon = 43 + rng.random(120), 141 + rng.random(120)
    fold = random_folds(120, range(2))
    layouts = [
        problems(np.zeros(120), BufferedFolds(fold, near), "regression")
        for near in (pairs_within(lat, lon, metres), Neighbourhood(lat, lon, metres))
    ]
    for layout in layouts:
        for draw, number, train, test in zip(layout.draw, layout.fold, layout.train, layout.test, strict=True):
            tested = np.flatnonzero(fold[draw] == number)
            np.testing.assert_array_equal(np.flatnonzero(test), tested)
            kept = [
                point
                for point in range(120)
                if fold[draw, point] != number
                and all(haversine_m(lat[point], lon[point], lat[other], lon[other]) > metres for other in tested)
            ]
            np.testing.assert_array_equal(np.flatnonzero(train), kept)


def test_a_buffer_that_leaves_nothing_to_train_on_is_refused_in_one_line() -> None:
    lat, lon = np.linspace(43.0, 43.01, 20), np.full(20, 141.0)
    folds = BufferedFolds(random_folds(20, range(1)), Neighbourhood(lat, lon, 15_000.0))
    with pytest.raises(InputError, match="draw 0, fold 0: no points to train on: all others lie within") as caught:
        problems(np.zeros(20), folds, "regression")
    assert "\n" not in str(caught.value)

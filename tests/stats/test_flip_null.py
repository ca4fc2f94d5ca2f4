"""Flips without any loss: seeds in the base's place, and scores that are shares of right answers."""

import numpy as np
import pytest

from capgap.stats import Design, answers_per_item, expected_chance_flips, flips_beyond_seeds


def test_stand_ins_by_hand():
    # Right answers of three seeds to four items; the base is right on all but the last.
    students = np.array([[1, 0, 0, 1], [0, 0, 1, 1], [0, 0, 0, 1]])
    base = np.array([1, 1, 1, 0])
    # Both others wrong where the stand-in is right: item 0 of seed 0, item 2 of seed 1; 2 of the 5 right answers.
    assert expected_chance_flips(base, students, 3) == pytest.approx(2 / 5 * 3)
    # One other wrong is enough: the same two, since on item 3 nobody is wrong.
    assert expected_chance_flips(base, students, 1) == pytest.approx(2 / 5 * 3)
    # Gained: both others right where the stand-in is wrong: nowhere.
    assert expected_chance_flips(base, students, 3, direction="gained") == 0


def test_lost_and_gained_swap_when_right_and_wrong_do():
    rng = np.random.default_rng(0)
    base, students = rng.integers(0, 2, 80), rng.integers(0, 2, (5, 80))
    lost = expected_chance_flips(base, students, 4)
    assert lost == pytest.approx(expected_chance_flips(1 - base, 1 - students, 4, direction="gained"))


def test_a_base_that_is_one_more_seed_loses_what_its_stand_ins_do():
    rng = np.random.default_rng(1)
    lost, expected = [], []
    for _ in range(60):
        y = (rng.random((7, 400)) < rng.beta(0.5, 0.5, 400)).astype(float)
        lost.append(((y[0] == 1) & (y[1:] == 0).all(axis=0)).sum())
        expected.append(expected_chance_flips(y[0], y[1:], 6))
    # Against five others it is a little easier than against six: the null errs on the high side.
    assert np.mean(lost) <= np.mean(expected) <= 2 * np.mean(lost) + 1


@pytest.mark.parametrize(
    ("scores", "n"), [([0, 1, np.nan], 1), ([0.25, 0.5], 4), ([1 / 3, 0.5], 6), ([0.123456], None), ([1.5], None)]
)
def test_shares_of_right_answers_are_known_by_their_values(scores, n):
    assert answers_per_item(np.array(scores, dtype=float)) == n


def test_shares_over_repeats_estimate_the_excess_of_one_answer():
    rng = np.random.default_rng(2)
    p_base, p_student = np.full(3000, 0.7), np.full(3000, 0.5)
    base, students = rng.binomial(4, p_base) / 4, rng.binomial(4, p_student, (5, 3000)) / 4
    found = flips_beyond_seeds(base, students, Design.of(np.zeros(3000), np.arange(3000)))
    assert found.lost_share.estimate == pytest.approx(0.7 * 0.5 - 0.5 * 0.5, abs=0.01)
    assert found.seed_flip_share == pytest.approx(0.25, abs=0.01)

"""The shift of a mean by what is missing, by hand and against a bootstrap."""

import numpy as np
import pytest

from capgap.errors import EstimationError
from capgap.stats import Design, subset_shift


def test_the_shift_is_the_mean_of_the_subset_minus_that_of_all_by_stratum():
    scores = np.array([1, 1, 0, 0, 1, 0, 0, 0, 0, 1.0])
    member = np.array([1, 1, 1, 0, 1, 1, 0, 0, 0, 1], dtype=bool)
    strata = np.repeat([0, 1], 5)
    by_hand = ((3 / 4 - 3 / 5) + (1 / 2 - 1 / 5)) / 2
    assert subset_shift(scores, member, Design.of(strata, np.arange(10))).estimate == pytest.approx(by_hand)


def test_a_subset_of_all_items_shifts_nothing():
    scores = np.array([1, 0, 1, 1, 0, 1.0])
    assert subset_shift(scores, np.ones(6), Design.of(np.zeros(6), np.arange(6))).estimate == 0


def test_a_stratum_without_a_member_is_refused():
    with pytest.raises(EstimationError):
        subset_shift(np.ones(4), np.array([1, 1, 0, 0]), Design.of([0, 0, 1, 1], np.arange(4)))


def test_the_standard_error_is_that_of_a_bootstrap():
    rng = np.random.default_rng(0)
    n = 400
    scores = (rng.random(n) < 0.5).astype(float)
    member = rng.random(n) < 0.5 + 0.4 * scores
    estimate = subset_shift(scores, member, Design.of(np.zeros(n), np.arange(n)))
    draws = rng.integers(0, n, (2000, n))
    y, m = scores[draws], member[draws]
    bootstrap = ((y * m).sum(1) / m.sum(1) - y.mean(1)).std(ddof=1)
    assert estimate.std_error == pytest.approx(bootstrap, rel=0.06)

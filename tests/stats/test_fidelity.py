import numpy as np
import pytest

from capgap.stats import Design, collision_rate, expected_agreement, fidelity


def test_expected_agreement_by_hand():
    # Both right .8 * .6, both wrong .2 * .4 on one of three wrong choices.
    assert expected_agreement(0.8, 0.6, 1 / 3) == pytest.approx(0.48 + 0.08 / 3)


def test_collision_rate_counts_pairs():
    first, second = np.array([1, 1, 2]), np.array([1, 3])
    assert collision_rate(first, second) == pytest.approx(np.mean([[a == b for b in second] for a in first]))
    assert np.isnan(collision_rate([], second))


def test_independent_models_show_no_fidelity_and_copies_show_all():
    rng = np.random.default_rng(0)
    n, k = 6000, 4
    right = rng.random((2, n)) < np.array([[0.8], [0.6]])
    answers = np.where(right, 0, rng.integers(1, k, (2, n)))
    design = Design.of(np.arange(n) % 3, np.arange(n))
    agreement, excess = fidelity(right[0], right[1], answers[0] == answers[1], np.full(n, 1 / 3), design)
    assert excess.conf_low < 0 < excess.conf_high
    assert agreement.null_value == pytest.approx(0.48 + 0.08 / 3, abs=0.01)
    assert agreement.estimate - agreement.null_value == pytest.approx(excess.estimate, abs=1e-12)
    same, surplus = fidelity(right[0], right[0], np.ones(n), np.full(n, 1 / 3), design)
    assert same.estimate == 1
    assert same.conf_low < 1
    assert surplus.estimate == pytest.approx(1 - (0.64 + 0.04 / 3), abs=0.02)


def test_the_error_of_the_excess_counts_that_accuracies_are_estimated():
    rng = np.random.default_rng(1)
    estimates, errors = [], []
    for _ in range(400):
        skill = rng.random(150)
        t, s = rng.random(150) < skill, rng.random(150) < skill
        same = (t & s) | (~t & ~s & (rng.random(150) < 0.5))
        _, excess = fidelity(t, s, same, np.full(150, 0.5), Design.of(np.zeros(150), np.arange(150)))
        estimates.append(excess.estimate)
        errors.append(excess.std_error)
    # The ratio of two spreads over 400 replicates has a Monte-Carlo standard error of 3.5 %.
    assert np.mean(errors) == pytest.approx(np.std(estimates), rel=0.12)


def test_roles_may_swap_in_agreement():
    rng = np.random.default_rng(2)
    t, s = rng.random((2, 100)) < 0.7
    design = Design.of(np.zeros(100), np.arange(100) // 2)
    one, two = (fidelity(a, b, t == s, np.full(100, 0.2), design) for a, b in ((t, s), (s, t)))
    assert one[0].estimate == two[0].estimate
    assert one[1].estimate == pytest.approx(two[1].estimate)
    assert one[1].std_error == pytest.approx(two[1].std_error)

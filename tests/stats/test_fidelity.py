import numpy as np
import pytest

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason
from capgap.stats import Design, collision_rate, error_inheritance, expected_agreement, fidelity


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


def _errors(n, seed, extra):
    """Four choices, the teacher wrong on half of the items; the student repeats `extra` of its errors beyond chance."""
    rng = np.random.default_rng(seed)
    teacher, student, control = rng.integers(0, 3, (3, n))
    student = np.where(rng.random(n) < extra, teacher, student)
    return teacher, student, control, rng.random(n) < 0.5


def test_inheritance_by_hand():
    teacher = np.array([1, 1, 1, 1, 1, 1, 2, 2, -1])
    student = np.array([1, 1, 1, 0, 0, 0, 2, 2, -1])
    control = np.array([1, 0, 0, 0, 0, 0, 2, 2, -1])
    wrong = np.array([1, 1, 1, 1, 1, 1, 0, 0, 1])
    found = error_inheritance(teacher, student, control, wrong, np.arange(9))
    assert (found.student.estimate, found.control.estimate) == pytest.approx((3 / 6, 1 / 6))
    assert found.difference.estimate == pytest.approx(2 / 6)
    assert found.difference.n_items == 6
    assert found.difference.p_value == pytest.approx(0.5)  # exact McNemar of 2 and 0
    assert [row["contrast"] for row in found.tidy()] == ["student", "control", "student - control"]
    assert "student - control: 0.333" in found.summary()


def test_inheritance_changes_sign_when_student_and_control_swap():
    teacher, student, control, wrong = _errors(300, 0, 0.5)
    one, other = (
        error_inheritance(teacher, a, b, wrong, np.arange(300) // 3)
        for a, b in ((student, control), (control, student))
    )
    assert one.difference.estimate == pytest.approx(-other.difference.estimate)
    assert one.difference.conf_low == pytest.approx(-other.difference.conf_high)
    assert one.difference.p_value < 0.001


def test_a_student_that_knows_nothing_of_the_teacher_inherits_nothing():
    # Binomial standard error at 300 runs: 1.3 points.
    rejected = [
        error_inheritance(*_errors(120, seed, 0.0), np.arange(120)).difference.p_value < 0.05 for seed in range(300)
    ]
    assert np.mean(rejected) < 0.05 + 3 * 0.013


def test_inheritance_by_task_leaves_tasks_without_errors_out():
    teacher, student, control, wrong = _errors(90, 1, 0.5)
    task = np.repeat(["a", "b", "c"], 30)
    wrong = wrong & (task != "c")
    found = error_inheritance(teacher, student, control, wrong, np.arange(90), tasks=task)
    shares = [np.mean((student == teacher)[wrong & (task == name)]) for name in "ab"]
    assert found.student.estimate == pytest.approx(np.mean(shares))


def test_inheritance_without_control_or_errors_is_refused():
    teacher, student, _, wrong = _errors(50, 2, 0.5)
    found = error_inheritance(teacher, student, None, wrong, np.arange(50))
    assert (found.student.status, found.difference.reason) == ("ok", Reason.NO_CONTROL)
    none = error_inheritance(teacher, student, student, np.zeros(50), np.arange(50))
    assert none.difference.reason == Reason.FEW_TEACHER_ERRORS
    assert "student - control: refused, 0 wrong answers of the teacher are too few" in none.summary()
    assert error_inheritance([], [], [], [], [], tasks=[]).student.status == "refused"
    with pytest.raises(EstimationError, match="one shape"):
        error_inheritance(teacher, student[:9], None, wrong, np.arange(50))


def test_two_good_models_that_answer_independently_rarely_seem_to_agree_less():
    rng = np.random.default_rng(0)
    design, called = Design.of(np.zeros(100), np.arange(100)), 0
    for _ in range(300):
        right = rng.random((2, 100)) < 0.9
        wrong = rng.integers(1, 4, (2, 100))
        same = right.all(axis=0) | (~right.any(axis=0) & (wrong[0] == wrong[1]))
        _, excess = fidelity(*right.astype(float), same, np.full(100, 1 / 3), design)
        called += excess.p_value < 0.05
    assert called / 300 < 0.05 + 2 * 0.0126  # 29 % by the variance that was seen

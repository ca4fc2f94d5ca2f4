"""Fidelity of a student to its teacher: agreement beyond chance, and inheritance of the teacher's errors."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason, remark
from capgap.stats.estimate import Estimate, EstimateSet, refused, t_critical, t_p_value
from capgap.stats.means import accuracy, mean_estimate, paired_difference
from capgap.stats.stratified import Design

Floats = NDArray[np.float64]

MIN_ERRORS = 5
"""With fewer wrong answers of the teacher nothing is said about their inheritance."""


@dataclass(frozen=True)
class ErrorInheritance(EstimateSet):
    """How often wrong answers of the teacher are repeated, on the same items."""

    student: Estimate
    """P(student gives the teacher's wrong answer | the teacher is wrong)."""
    control: Estimate
    """The same of the control; refused where there is none."""
    difference: Estimate
    """Student minus control, item by item; refused where there is no control."""
    used: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    """Positions of the items behind it: the teacher's wrong answers, in tasks with enough of them."""

    @property
    def heading(self) -> str:
        """What is shown."""
        return "Share of the teacher's wrong answers that are repeated"

    def estimates(self) -> Iterator[tuple[dict[str, Any], Estimate]]:
        """Student, control, and their difference."""
        yield {"contrast": "student"}, self.student
        yield {"contrast": "control"}, self.control
        yield {"contrast": "student - control"}, self.difference


def collision_rate(first_wrong_answers: ArrayLike, second_wrong_answers: ArrayLike) -> float:
    """The chance that two independent draws of wrong answers, one from each model, are the same text.

    Parameters
    ----------
    first_wrong_answers, second_wrong_answers
        Wrong answers of the two models to the items of one task, as integer codes, shapes (n,) and (m,).

    Returns
    -------
    float
        ``sum_w share_first(w) share_second(w)``; NaN where a model has no wrong answer.
    """
    a, b = np.asarray(first_wrong_answers), np.asarray(second_wrong_answers)
    if not len(a) or not len(b):
        return math.nan
    words_a, answer_counts_a = np.unique(a, return_counts=True)
    words_b, answer_counts_b = np.unique(b, return_counts=True)
    _, i, j = np.intersect1d(words_a, words_b, assume_unique=True, return_indices=True)
    return float((answer_counts_a[i] / len(a)) @ (answer_counts_b[j] / len(b)))


def expected_agreement(first_accuracy: ArrayLike, second_accuracy: ArrayLike, collision: ArrayLike) -> Floats:
    """The agreement of two models that are right independently of each other, given their accuracies.

    Parameters
    ----------
    first_accuracy, second_accuracy
        Accuracies of the two models, of any shape.
    collision
        Chance that two wrong answers are the same: 1 / (choices - 1), or `collision_rate` for open answers.

    Notes
    -----
    ``p q + (1 - p)(1 - q) collision``. Difficulty that both models share raises agreement too: compare with a control.
    """
    p, q = np.asarray(first_accuracy, dtype=float), np.asarray(second_accuracy, dtype=float)
    return np.asarray(p * q + (1 - p) * (1 - q) * np.asarray(collision, dtype=float))


def fidelity(
    teacher: ArrayLike,
    student: ArrayLike,
    same_answer: ArrayLike,
    collision: ArrayLike,
    design: Design,
    *,
    conf_level: float = 0.95,
) -> tuple[Estimate, Estimate]:
    """Agreement of two models, and agreement minus what independent answers of equal accuracy would give.

    Parameters
    ----------
    teacher, student
        Scores in [0, 1], shape (n,).
    same_answer
        Whether both gave the same answer, right or wrong, shape (n,).
    collision
        Chance that wrong answers coincide, shape (n,).
    design
        Strata, clusters and weights of the items; accuracies are taken within each stratum.
    conf_level
        Of both intervals.

    Returns
    -------
    tuple of Estimate
        Agreement (`null_value` is the expected agreement, the p-value that of the excess) and the excess.

    Notes
    -----
    The variance of the excess counts that the accuracies were estimated from the same items: the stratum mean of
    ``same - (q - (1-q) c) teacher - (p - (1-p) c) student`` has, to first order, the same error (delta method). It is
    never less than independent answers of these accuracies would have, ``(1-p)(1-q) ((1+c)² p q + c (1-c)) / n``: where
    hardly an item is wrong in both, those that happen to be none show no variance, and the excess of two independent
    models that are right on 90 of 100 items was called real in 29 %.
    """
    t, s = np.asarray(teacher, dtype=float), np.asarray(student, dtype=float)
    agreed, c = np.asarray(same_answer, dtype=float), np.asarray(collision, dtype=float)
    is_complete = np.isfinite(t) & np.isfinite(s) & np.isfinite(agreed)
    t, s, agreed, c = t[is_complete], s[is_complete], agreed[is_complete], c[is_complete]
    design = design.subset(is_complete)
    agreement = accuracy(agreed, design, conf_level=conf_level)
    k = design.stratum
    p, q, mean_collision = ((np.bincount(k, x) / design.counts)[k] for x in (t, s, c))
    # Accuracies and collision rates of each item's stratum, shape (n,).
    expected = expected_agreement(p, q, mean_collision)
    linear = agreed - (q - (1 - q) * mean_collision) * (t - p) - (p - (1 - p) * mean_collision) * (s - q) - expected
    excess = mean_estimate(design.fit(linear), bounds=(-1.0, 1.0), conf_level=conf_level)
    min_variances = (1 - p) * (1 - q) * ((1 + mean_collision) ** 2 * p * q + mean_collision * (1 - mean_collision))
    excess = _with_min_variance(excess, design.mean(min_variances * (design.weights / design.counts)[k]), conf_level)
    return replace(agreement, null_value=design.mean(expected), p_value=excess.p_value), excess


def _with_min_variance(e: Estimate, variance: float, conf_level: float) -> Estimate:
    """The same number with at least this variance; an exact bound stays as it is."""
    if not e.std_error**2 < variance:
        return e
    error = math.sqrt(variance)
    half_width = t_critical(e.df, conf_level) * error
    low, high = max(-1.0, e.estimate - half_width), min(1.0, e.estimate + half_width)
    p_value = t_p_value(e.estimate / error, e.df)
    return replace(e, std_error=error, conf_low=low, conf_high=high, p_value=p_value)


def error_inheritance(
    teacher: ArrayLike,
    student: ArrayLike,
    control: ArrayLike | None,
    teacher_wrong: ArrayLike,
    clusters: ArrayLike,
    *,
    tasks: ArrayLike | None = None,
    conf_level: float = 0.95,
) -> ErrorInheritance:
    """Whether the student repeats its teacher's wrong answers more than a control does that never saw the teacher.

    Parameters
    ----------
    teacher, student, control
        Answers as integer codes, shape (n,): equal codes are equal answers, negative ones none (unparsed, not
        recorded). The control is None where there is none.
    teacher_wrong
        Whether the teacher's answer is wrong, shape (n,).
    clusters
        Cluster of each item, shape (n,).
    tasks
        Task of each item; tasks with wrong answers in two clusters or more then count equally. Default: all items in
        which the teacher errs count equally.
    conf_level
        Of the intervals.

    Raises
    ------
    EstimationError
        Shapes disagree.

    Notes
    -----
    Only items count that the teacher answers wrongly; the population is the teacher's errors. Student and control
    are compared on the same items, so that errors which any model makes there cancel: a paired difference (CR2 with
    Bell-McCaffrey t, or Tango and McNemar where few items differ).
    """
    t, s = np.asarray(teacher), np.asarray(student)
    c = None if control is None else np.asarray(control)
    group = np.asarray(clusters)
    teacher_erred = np.asarray(teacher_wrong, dtype=bool)  # of the teacher
    shapes = {t.shape, s.shape, teacher_erred.shape, group.shape} | (set() if c is None else {c.shape})
    shapes |= set() if tasks is None else {np.asarray(tasks).shape}
    if len(shapes) > 1 or t.ndim != 1:
        raise EstimationError(f"answers, wrong, clusters and tasks need one shape (n,), found {sorted(shapes)}.")
    errors = np.flatnonzero(teacher_erred & (t >= 0))
    stratum = np.zeros(len(t), dtype=np.intp)
    if tasks is not None:
        stratum = np.unique(np.asarray(tasks), return_inverse=True)[1]
        # Tasks whose wrong answers stand in one cluster have no variance and are left out.
        pairs = np.unique(np.column_stack([stratum[errors], group[errors]]), axis=0)
        has_enough_clusters = np.bincount(pairs[:, 0].astype(np.intp), minlength=int(stratum.max(initial=0)) + 1) > 1
        errors = errors[has_enough_clusters[stratum[errors]]]
    no_control_refusal = refused(remark(Reason.NO_CONTROL))
    if len(errors) < MIN_ERRORS:
        few_errors = refused(remark(Reason.FEW_TEACHER_ERRORS, n=len(errors), least=MIN_ERRORS), n_items=len(errors))
        refused_control = no_control_refusal if c is None else few_errors
        return ErrorInheritance(few_errors, refused_control, refused_control, errors)
    design = Design.of(stratum[errors], np.unique(group[errors], return_inverse=True)[1])
    student_repeats = (s[errors] == t[errors]).astype(float)
    student_share = accuracy(student_repeats, design, conf_level=conf_level)
    if c is None:
        return ErrorInheritance(student_share, no_control_refusal, no_control_refusal, errors)
    control_repeats_error = (c[errors] == t[errors]).astype(float)
    return ErrorInheritance(
        student_share,
        accuracy(control_repeats_error, design, conf_level=conf_level),
        paired_difference(student_repeats - control_repeats_error, design, conf_level=conf_level),
        errors,
    )

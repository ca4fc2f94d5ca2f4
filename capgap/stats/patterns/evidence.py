"""Number of failure patterns by cross-validation over students, and their replication in split halves."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.optimize import linear_sum_assignment

from capgap.stats.patterns.mixture import AnswerGrid, ItemMixture, fit_mixture, predicted_scores

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

N_FOLDS = 5
"""Parts of the students, each predicted from the others."""


@dataclass(frozen=True)
class PatternCountTest:
    """Held-out evidence for one more pattern."""

    n_patterns: int
    """K that was tried against K - 1."""
    gain: float
    """Mean gain in log-probability per held-out answer, nats."""
    std_error: float
    """Its standard error over students."""
    p_value: float
    """One-sided: K does not predict new students better than K - 1."""
    n_students: int
    """Held-out students behind it."""


@dataclass(frozen=True)
class PatternReplication:
    """What a pattern that one half of the students showed is worth for the other half."""

    gain: float
    """Mean gain over a single surface, nats per answer to the pattern's items; the mean of both directions."""
    p_value: float
    """One-sided, twice the smaller of the two directions' p-values."""
    overlap: float
    """Correlation of the item memberships that the two halves gave, matched as well as they go."""


def deal_students(design: Floats, n_parts: int, rng: np.random.Generator) -> Ints:
    """A part for each student, shape (S,), so that every part spreads over the design.

    Parameters
    ----------
    design
        Constant and standardised covariates, shape (S, p).
    n_parts
        Number of parts.
    rng
        Deals neighbours in the design at random.
    """
    tie_break_noise = rng.normal(0, 1e-6, len(design))
    # Neighbours along the design's longest axis that are not yet told apart by it are shuffled.
    axis = np.linalg.svd(design[:, 1:], full_matrices=False)[0][:, 0] if design.shape[1] > 1 else tie_break_noise
    order = np.argsort(axis + tie_break_noise, kind="stable")
    student_part_codes = np.empty(len(design), dtype=np.intp)
    for start in range(0, len(order), n_parts):
        block = order[start : start + n_parts]
        student_part_codes[block] = rng.permutation(n_parts)[: len(block)]
    return student_part_codes


def choose_n_patterns(
    answers: AnswerGrid,
    rng: np.random.Generator,
    *,
    max_patterns: int,
    level: float,
) -> tuple[int, list[PatternCountTest]]:
    """K: one more pattern as long as it predicts held-out students better, and the evidence at each step.

    Parameters
    ----------
    answers
        S students x n items.
    rng
        Deals the folds and draws starts.
    max_patterns
        Where to stop at the latest.
    level
        Of the one-sided t-test over students at each step; since the steps end at the first that fails, this is also
        the chance of a second pattern where there is one.

    Notes
    -----
    A student's gain is its mean log-probability under K patterns minus that under K - 1, both learnt from the other
    folds (items' patterns and ease included), its level fitted under both. Students are the units: the items that they
    share are what the patterns are made of.
    """
    fold = deal_students(answers.design, N_FOLDS, rng)
    previous_scores = _score_held_out(answers, fold, 1, rng)
    steps: list[PatternCountTest] = []
    chosen = 1
    for k in range(2, max_patterns + 1):
        current_scores = _score_held_out(answers, fold, k, rng)
        gain, error, p_value = _t_test_gains(current_scores - previous_scores)
        steps.append(PatternCountTest(k, gain, error, p_value, len(current_scores)))
        if not p_value < level:
            break
        chosen, previous_scores = k, current_scores
    return chosen, steps


def replicate_halves(answers: AnswerGrid, memberships: Floats, rng: np.random.Generator) -> list[PatternReplication]:
    """What each pattern of a mixture, found again in each half of the students, is worth for the other half.

    Parameters
    ----------
    answers
        S students x n items.
    memberships
        Of the items in the patterns that all students show, shape (n, K); says in which order they are reported.
    rng
        Draws the halves and starts.

    Notes
    -----
    A half's mixture of K surfaces is matched to the full one by memberships. Student by student of the other half, the
    log-probability of the answers to the pattern's items (weighted by membership) under the mixture is compared with
    that under a single surface, both fitted to the same half.
    """
    halves = deal_students(answers.design, 2, rng)
    k = memberships.shape[1]
    gains, p_values, members = np.empty((2, k)), np.empty((2, k)), []
    for h in (0, 1):  # each half fits, the other is predicted
        fitted, held_out = answers.students(np.flatnonzero(halves == h)), answers.students(np.flatnonzero(halves != h))
        mixture, baseline = fit_mixture(fitted, k, rng), fit_mixture(fitted, 1, rng)
        order = _match_patterns(memberships, mixture.memberships)
        members.append(mixture.memberships[:, order])
        gains[h], p_values[h] = np.array(_pattern_gain(mixture, baseline, held_out))[order].T
    return [
        PatternReplication(
            float(gains[:, j].mean()), min(1.0, 2 * float(p_values[:, j].min())), _correlate_halves(members, j)
        )
        for j in range(k)
    ]


def _score_held_out(answers: AnswerGrid, fold: Ints, k: int, rng: np.random.Generator) -> Floats:
    """Each student's mean held-out log-probability under k patterns, shape (S,); NaN where it answered nothing."""
    score = np.full(len(fold), np.nan)
    for held_fold in np.unique(fold):
        held_out = answers.students(np.flatnonzero(fold == held_fold))
        mixture = fit_mixture(answers.students(np.flatnonzero(fold != held_fold)), k, rng, n_starts=3, tolerance=1.5e-4)
        log_p = predicted_scores(mixture, held_out)
        with np.errstate(invalid="ignore"):
            score[fold == held_fold] = log_p.sum(axis=1) / held_out.seen.sum(axis=1)
    return score


def _t_test_gains(gains: Floats) -> tuple[float, float, float]:
    """Mean, standard error, and the t-test's p-value that the mean is not above zero."""
    finite_gains = gains[np.isfinite(gains)]
    if len(finite_gains) < 2:
        return math.nan, math.nan, 1.0
    mean, error = float(finite_gains.mean()), float(finite_gains.std(ddof=1) / math.sqrt(len(finite_gains)))
    if not error > 0:
        return mean, math.nan, 1.0
    return mean, error, float(special.stdtr(len(finite_gains) - 1, -mean / error))


def _match_patterns(all_student_memberships: Floats, half_student_memberships: Floats) -> Ints:
    """For each pattern of the full mixture the half's pattern that shares most of its items."""
    return np.asarray(linear_sum_assignment(-(all_student_memberships.T @ half_student_memberships))[1], dtype=np.intp)


def _pattern_gain(mixture: ItemMixture, baseline: ItemMixture, held_out: AnswerGrid) -> list[tuple[float, float]]:
    """For each pattern: gain per answer of the mixture over one surface on its items, and the one-sided p-value."""
    gain = predicted_scores(mixture, held_out) - predicted_scores(baseline, held_out)
    weight = held_out.seen @ mixture.memberships
    with np.errstate(invalid="ignore", divide="ignore"):
        student_pattern_gains = np.where(weight > 0, (gain @ mixture.memberships) / weight, np.nan)
    return [(mean, p_value) for mean, _, p_value in map(_t_test_gains, student_pattern_gains.T)]


def _correlate_halves(members: list[Floats], pattern: int) -> float:
    first_half_members, second_half_members = (m[:, pattern] for m in members)
    if not (first_half_members.std() > 1e-9 and second_half_members.std() > 1e-9):
        return math.nan
    return float(np.corrcoef(first_half_members, second_half_members)[0, 1])

"""Number of failure patterns by cross-validation over students, and their replication in split halves."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.optimize import linear_sum_assignment

from capgap.stats.patterns.mixture import PatternData, SurfaceMixture, fit_mixture, predicted_scores

__all__ = ["PatternCountTest", "PatternReplication", "choose_number", "compare_halves", "deal_students"]

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


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
    jitter = rng.normal(0, 1e-6, len(design))
    # Neighbours along the design's longest axis that are not yet told apart by it are shuffled.
    axis = np.linalg.svd(design[:, 1:], full_matrices=False)[0][:, 0] if design.shape[1] > 1 else jitter
    order = np.argsort(axis + jitter, kind="stable")
    part = np.empty(len(design), dtype=np.intp)
    for start in range(0, len(order), n_parts):
        block = order[start : start + n_parts]
        part[block] = rng.permutation(n_parts)[: len(block)]
    return part


def choose_number(
    answers: PatternData,
    rng: np.random.Generator,
    *,
    max_patterns: int,
    n_folds: int = 5,
    level: float = 0.05,
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
    n_folds
        Parts of the students, each predicted from the others.
    level
        Of the one-sided t-test over students at each step; since the steps end at the first that fails, this is also
        the chance of a second pattern where there is one.

    Notes
    -----
    A student's gain is its mean log-probability under K patterns minus that under K - 1, both learnt from the other
    folds (items' patterns and ease included), its level fitted under both. Students are the units: the items that they
    share are what the patterns are made of.
    """
    fold = deal_students(answers.design, n_folds, rng)
    before = _held_out(answers, fold, 1, rng)
    steps: list[PatternCountTest] = []
    chosen = 1
    for k in range(2, max_patterns + 1):
        after = _held_out(answers, fold, k, rng)
        gain, error, p_value = _one_sided(after - before)
        steps.append(PatternCountTest(k, gain, error, p_value, len(after)))
        if not p_value < level:
            break
        chosen, before = k, after
    return chosen, steps


def compare_halves(answers: PatternData, memberships: Floats, rng: np.random.Generator) -> list[PatternReplication]:
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
    half = deal_students(answers.design, 2, rng)
    k = memberships.shape[1]
    gains, p_values, members = np.empty((2, k)), np.empty((2, k)), []
    for h in (0, 1):
        fitted, tested = answers.students(np.flatnonzero(half == h)), answers.students(np.flatnonzero(half != h))
        many, single = fit_mixture(fitted, k, rng), fit_mixture(fitted, 1, rng)
        order = _matched(memberships, many.memberships)
        members.append(many.memberships[:, order])
        gains[h], p_values[h] = np.array(_pattern_gain(many, single, tested))[order].T
    return [
        PatternReplication(
            float(gains[:, j].mean()), min(1.0, 2 * float(p_values[:, j].min())), _correlation(members, j)
        )
        for j in range(k)
    ]


def _held_out(answers: PatternData, fold: Ints, k: int, rng: np.random.Generator) -> Floats:
    """Each student's mean held-out log-probability under k patterns, shape (S,); NaN where it answered nothing."""
    score = np.full(len(fold), np.nan)
    for part in np.unique(fold):
        held = answers.students(np.flatnonzero(fold == part))
        mixture = fit_mixture(answers.students(np.flatnonzero(fold != part)), k, rng, n_starts=3, tolerance=1.5e-4)
        log_p = predicted_scores(mixture, held)
        with np.errstate(invalid="ignore"):
            score[fold == part] = log_p.sum(axis=1) / held.seen.sum(axis=1)
    return score


def _one_sided(gains: Floats) -> tuple[float, float, float]:
    """Mean, standard error, and the t-test's p-value that the mean is not above zero."""
    known = gains[np.isfinite(gains)]
    if len(known) < 2:
        return math.nan, math.nan, 1.0
    mean, error = float(known.mean()), float(known.std(ddof=1) / math.sqrt(len(known)))
    if not error > 0:
        return mean, math.nan, 1.0
    return mean, error, float(special.stdtr(len(known) - 1, -mean / error))


def _matched(full: Floats, half: Floats) -> Ints:
    """For each pattern of the full mixture the half's pattern that shares most of its items."""
    return np.asarray(linear_sum_assignment(-(full.T @ half))[1], dtype=np.intp)


def _pattern_gain(many: SurfaceMixture, single: SurfaceMixture, tested: PatternData) -> list[tuple[float, float]]:
    """For each pattern: gain per answer of the mixture over one surface on its items, and the one-sided p-value."""
    gain = predicted_scores(many, tested) - predicted_scores(single, tested)
    weight = tested.seen @ many.memberships
    with np.errstate(invalid="ignore", divide="ignore"):
        per_student = np.where(weight > 0, (gain @ many.memberships) / weight, np.nan)
    return [(mean, p_value) for mean, _, p_value in map(_one_sided, per_student.T)]


def _correlation(members: list[Floats], pattern: int) -> float:
    first, second = (m[:, pattern] for m in members)
    if not (first.std() > 1e-9 and second.std() > 1e-9):
        return math.nan
    return float(np.corrcoef(first, second)[0, 1])

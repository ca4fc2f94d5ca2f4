"""How faithfully a student repeats its teacher: agreement, what chance would give, inherited errors."""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from capgap.stats.estimate import Estimate
from capgap.stats.means import accuracy, mean_estimate
from capgap.stats.stratified import Design

__all__ = ["collision_rate", "expected_agreement", "fidelity"]

Floats = NDArray[np.float64]


def collision_rate(first: ArrayLike, second: ArrayLike) -> float:
    """The chance that two independent draws of wrong answers, one from each model, are the same text.

    Parameters
    ----------
    first, second
        Wrong answers of the two models to the items of one task, as integer codes, shapes (n,) and (m,).

    Returns
    -------
    float
        ``sum_w share_first(w) share_second(w)``; NaN where a model has no wrong answer.
    """
    a, b = np.asarray(first), np.asarray(second)
    if not len(a) or not len(b):
        return math.nan
    words_a, counts_a = np.unique(a, return_counts=True)
    words_b, counts_b = np.unique(b, return_counts=True)
    _, i, j = np.intersect1d(words_a, words_b, assume_unique=True, return_indices=True)
    return float((counts_a[i] / len(a)) @ (counts_b[j] / len(b)))


def expected_agreement(first: ArrayLike, second: ArrayLike, collision: ArrayLike) -> Floats:
    """The agreement of two models that are right independently of each other, given their accuracies.

    Parameters
    ----------
    first, second
        Accuracies of the two models, of any shape.
    collision
        Chance that two wrong answers are the same: 1 / (choices - 1), or `collision_rate` for open answers.

    Notes
    -----
    ``p q + (1 - p)(1 - q) collision``. Difficulty that both models share raises agreement too: compare with a control.
    """
    p, q = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    return np.asarray(p * q + (1 - p) * (1 - q) * np.asarray(collision, dtype=float))


def fidelity(
    teacher: ArrayLike,
    student: ArrayLike,
    same: ArrayLike,
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
    same
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
    ``same - (q - (1-q) c) teacher - (p - (1-p) c) student`` has, to first order, the same error (delta method).
    """
    t, s = np.asarray(teacher, dtype=float), np.asarray(student, dtype=float)
    agree, c = np.asarray(same, dtype=float), np.asarray(collision, dtype=float)
    keep = np.isfinite(t) & np.isfinite(s) & np.isfinite(agree)
    t, s, agree, c = t[keep], s[keep], agree[keep], c[keep]
    design = design.kept(keep)
    agreement = accuracy(agree, design, conf_level=conf_level)
    k = design.stratum
    p, q, mean_c = ((np.bincount(k, x) / design.counts)[k] for x in (t, s, c))
    expected = expected_agreement(p, q, mean_c)
    linear = agree - (q - (1 - q) * mean_c) * (t - p) - (p - (1 - p) * mean_c) * (s - q) - expected
    excess = mean_estimate(design.fit(linear), bounds=(-1.0, 1.0), conf_level=conf_level)
    return replace(agreement, null_value=design.mean(expected), p_value=excess.p_value), excess

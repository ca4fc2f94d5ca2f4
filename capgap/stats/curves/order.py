"""Inference without a curve form: monotonicity of the means (chi-bar-square) and a bracket of a target's crossing."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

__all__ = ["Monotonicity", "crossing_bracket", "check_monotonicity"]

Floats = NDArray[np.float64]

N_DRAWS = 400
"""Draws behind the weights of the chi-bar-square distribution."""


@dataclass(frozen=True)
class Monotonicity:
    """Test of means that never fall against any means."""

    statistic: float
    """Squared distance of the means from the nearest rising ones, in their covariance."""
    p_value: float
    """At all means equal, where it is largest."""
    rising_means: Floats
    """The nearest rising means, shape (K,)."""


def check_monotonicity(means: Floats, covariance: Floats, df: float) -> Monotonicity:
    """Test that means never fall with size.

    Parameters
    ----------
    means, covariance
        In order of size, shapes (K,) and (K, K).
    df
        Degrees of freedom of the variance between seeds; zero where it is not known apart.

    Notes
    -----
    Under equal means the distance is a mixture of chi-squares with j degrees of freedom, j the number of steps that the
    projection sets to zero (Robertson, Wright & Dykstra 1988, chapter 2). The weights come from `N_DRAWS` projections
    of normal draws with a fixed seed; each chi-square becomes j times an F with `df` in the denominator.
    """
    root = np.linalg.cholesky(covariance)
    statistic, rising_means, _ = _fit_rising_means(np.linalg.solve(root, np.eye(len(means))), means)
    if statistic <= 1e-12:
        return Monotonicity(0.0, 1.0, rising_means)
    # Weights of the chi-bar-square: how many steps the projection of pure noise sets to zero.
    whiten = np.linalg.inv(root)
    draws = root @ np.random.default_rng(0).standard_normal((len(means), N_DRAWS))
    zeros = np.array([_fit_rising_means(whiten, draw)[2] for draw in draws.T])
    p_value = 0.0
    for j in range(1, len(means)):
        tail = stats.f.sf(statistic / j, j, df) if df else stats.chi2.sf(statistic, j)
        p_value += float((zeros == j).mean() * tail)
    return Monotonicity(statistic, p_value, rising_means)


def _fit_rising_means(whiten: Floats, means: Floats) -> tuple[float, Floats, int]:
    """Squared distance to the nearest rising means, these means, and how many of their steps are zero."""
    k = len(means)
    # A free level as the difference of two that are not negative, then steps of zero or more.
    steps = np.tril(np.ones((k, k)))
    design = np.column_stack([steps, -steps[:, 0]])
    solution, distance = optimize.nnls(whiten @ design, whiten @ means)
    return float(distance**2), design @ solution, int((solution[1:k] == 0).sum())


def crossing_bracket(
    sizes: Floats, gap_above_target: Floats, errors: Floats, df: float, conf_level: float
) -> tuple[float, float]:
    """Between which observed sizes a curve that never falls crosses zero, without any law.

    Parameters
    ----------
    sizes
        Ascending, shape (K,).
    gap_above_target, errors
        Mean minus target at each size and its standard error.
    df
        Degrees of freedom of the errors; zero for the normal.
    conf_level
        That the bracket holds the crossing, at least.

    Returns
    -------
    tuple
        The largest size that lies below the target beyond doubt (0 where none does), and the smallest one that lies
        above it (infinite where none does).

    Notes
    -----
    Every size is tested on both sides, Bonferroni over sizes: conservative.
    """
    tail = (1 - conf_level) / 2 / len(sizes)
    critical = float(stats.t.isf(tail, df)) if df else float(stats.norm.isf(tail))
    sizes_below, sizes_above = sizes[gap_above_target < -critical * errors], sizes[gap_above_target > critical * errors]
    return float(sizes_below.max(initial=0.0)), float(sizes_above.min(initial=np.inf))

"""Scales of a curve's points: accuracy, accuracy per step, log-probability of the target."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capgap.stats.curves.solve import CurveBounds

__all__ = ["SCORE_SCALES", "find_step_accuracy", "per_step_slope"]

Floats = NDArray[np.float64]

MIN_SLOPE_ACCURACY = 0.02
"""Accuracies nearer to 0 or 1 than this have the seeds' spread of this one: a spread of zero would be too sure."""


@dataclass(frozen=True)
class _ScoreScaleSpec:
    """Possible values of a score, bounds of a curve, and how far a seed's effect on the logit moves a mean."""

    values: tuple[float, float]
    bounds: CurveBounds
    spread: Callable[[Floats], Floats]


def _logit_slope(accuracy: Floats) -> Floats:
    p = np.clip(accuracy, MIN_SLOPE_ACCURACY, 1 - MIN_SLOPE_ACCURACY)
    return np.asarray(p * (1 - p))


def _log_slope(mean: Floats) -> Floats:
    """A shift of the logit moves log p by 1 - p; p here the geometric mean probability."""
    return np.asarray(np.maximum(-np.expm1(mean), MIN_SLOPE_ACCURACY))


SCORE_SCALES: dict[str, _ScoreScaleSpec] = {
    "accuracy": _ScoreScaleSpec((0.0, 1.0), CurveBounds(0.0, 1.0), _logit_slope),
    "per_step": _ScoreScaleSpec((0.0, 1.0), CurveBounds(0.0, 1.0), _logit_slope),
    "log_probability": _ScoreScaleSpec((-np.inf, 0.0), CurveBounds(-np.inf, 0.0), _log_slope),
}


def find_step_accuracy(accuracy: Floats, steps: Floats, weights: Floats) -> Floats:
    """The accuracy q of one step for which items of k steps, each right with q^k, have the given mean accuracies.

    With one k for all items this is ``accuracy^(1/k)``; else the root of ``sum of w q^k = accuracy``, by bisection
    (the sum rises in q, from 0 to 1).
    """
    lengths, share = _weigh_step_counts(steps, weights)
    low, high = np.zeros_like(accuracy), np.ones_like(accuracy)
    for _ in range(60):
        step_accuracy = (low + high) / 2
        is_step_too_high = (step_accuracy[:, None] ** lengths) @ share > accuracy
        low, high = np.where(is_step_too_high, low, step_accuracy), np.where(is_step_too_high, step_accuracy, high)
    return np.where(np.isnan(accuracy), np.nan, (low + high) / 2)


def per_step_slope(accuracy: Floats, steps: Floats, weights: Floats) -> Floats:
    """``dq / d accuracy`` at accuracies above zero."""
    lengths, share = _weigh_step_counts(steps, weights)
    q = find_step_accuracy(accuracy, steps, weights)
    return np.asarray(1 / ((q[:, None] ** (lengths - 1)) @ (share * lengths)))


def _weigh_step_counts(steps: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """The distinct numbers of steps and the weight of the items that have each."""
    lengths, length_index = np.unique(steps, return_inverse=True)
    return lengths, np.asarray(np.bincount(length_index, weights), dtype=np.float64)

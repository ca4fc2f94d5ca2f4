"""Profile likelihood of a data cost by one form: the least residual where the curve meets its target at a size."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from capgap.stats.curves.data import CurveData
from capgap.stats.curves.fit import FormFit
from capgap.stats.curves.forms import HORIZON_FACTOR

__all__ = ["CostProfile", "CurveTarget", "compute_cost_profile"]

Floats = NDArray[np.float64]

PROFILE_LOW_DIVISOR = 30.0
"""A profile runs from the smallest size above zero divided by this to the horizon."""
N_SIZE_GRID = 120
"""Sizes of a profile, equally apart in their logarithm."""


@dataclass(frozen=True)
class CurveTarget:
    """A level of the curve that is linear in f, c and T, so that meeting it is one linear condition.

    On the retention scale ``level = chance + x (T - chance)``, on the closure scale ``level = f + x (T - f)``.
    """

    share: float
    """The x of the target."""
    kind: Literal["retention", "closure"] = "retention"
    """The scale."""

    def __str__(self) -> str:
        return f"{100 * self.share:g} % {self.kind}"

    def target_row(self) -> Floats:
        """The part of ``curve - level`` that does not hang on size: a row on (drop, ceiling, teacher)."""
        if self.kind == "retention":
            return np.array([0.0, 1.0, -self.share])
        return np.array([1 - self.share, self.share, -self.share])

    def value(self, chance: float) -> float:
        """What ``row @ (drop, ceiling, teacher)`` is where the curve meets the target."""
        return (1 - self.share) * chance if self.kind == "retention" else 0.0


@dataclass(frozen=True)
class CostProfile:
    """The profile of the data cost of one form, up to the horizon (`HORIZON_FACTOR` times the largest size)."""

    estimate: float
    """Where the best fit meets the target; infinite where it does not up to the horizon, 0 where its base is above."""
    sizes: Floats
    """Ascending, above zero, shape (N_SIZES,)."""
    rss_rise: Floats
    """How far the least residual lies above the free one where the target is met at each size, shape (N_SIZES,)."""
    base_rss_rise: float
    """The same where the base meets the target already."""
    rss_rise_beyond: float
    """The same where the curve at the horizon is at the target or below."""
    largest_surplus_root: float
    """Signed root of the statistic of the curve at the largest size against the target: above zero where it is above.

    It asks for no law beyond the sizes that were tried."""
    low: float
    """Lower end of the interval, 0 where the base may meet the target."""
    high: float
    """Upper end; infinite where the curve may stay below the target up to the horizon."""


def compute_cost_profile(fit: FormFit, data: CurveData, target: CurveTarget) -> CostProfile:
    """The profile of the size at which a form meets a target."""
    positive = data.sizes[data.sizes > 0]
    sizes = np.geomspace(positive.min() / PROFILE_LOW_DIVISOR, positive.max() * HORIZON_FACTOR, N_SIZE_GRID)
    room_left = fit.form.room_left(sizes, fit.solutions.shapes)
    value = target.value(data.chance)
    # Two columns more: the largest size tried, and size zero with all room left. The last size is the horizon.
    at_largest = fit.form.room_left(positive.max(keepdims=True), fit.solutions.shapes)
    room_left = np.column_stack([room_left, at_largest, np.ones(len(room_left))])
    rss_rise = np.maximum(_target_rss(fit, data, target, room_left, value) - fit.solutions.min_rss, 0.0)
    rss_rise, touching_at_largest, base_rise = rss_rise[:-2], float(rss_rise[-2]), float(rss_rise[-1])
    best_idx = fit.solutions.best_idx
    surplus = fit.solutions.beta @ target.target_row() - value  # of the ceiling
    largest_surplus, horizon_surplus = (surplus - fit.solutions.beta[:, 0] * room_left[:, k] for k in (-2, -3))
    # One-sided: the least residual with the curve at a size below (above) the target, or touching it.
    rise_beyond = min(float(rss_rise[-1]), _masked_rise(fit, horizon_surplus <= 0))
    if largest_surplus[best_idx] > 0:
        root = math.sqrt(min(touching_at_largest, _masked_rise(fit, largest_surplus <= 0)))
    else:
        root = -math.sqrt(min(touching_at_largest, _masked_rise(fit, largest_surplus >= 0)))
    base_rise = min(base_rise, _masked_rise(fit, surplus >= fit.solutions.beta[:, 0]))
    estimate = math.inf
    if horizon_surplus[best_idx] > 0:
        estimate = _size_at_target(fit, best_idx, float(surplus[best_idx]))
    low, high = _profile_interval(sizes, rss_rise, fit.cutoff, estimate)
    low = 0.0 if base_rise <= fit.cutoff else low
    high = math.inf if rise_beyond <= fit.cutoff else high
    return CostProfile(estimate, sizes, rss_rise, base_rise, rise_beyond, root, low, high)


def _size_at_target(fit: FormFit, solution_index: int, surplus: float) -> float:
    """Where one solution meets the target, `surplus` being how far its ceiling lies above."""
    base_to_ceiling = float(fit.solutions.beta[solution_index, 0])
    if surplus <= 0:
        return math.inf
    if surplus >= base_to_ceiling:
        return 0.0
    return float(fit.form.size_at(np.array([surplus / base_to_ceiling]), fit.solutions.shapes[[solution_index]])[0])


def _masked_rise(fit: FormFit, mask: NDArray[np.bool_]) -> float:
    """How far the best feasible solution on one side lies above the best of all."""
    ok = fit.solutions.feasible & mask
    return max(float(np.where(ok, fit.solutions.rss, np.inf).min() - fit.solutions.min_rss), 0.0)


def _target_rss(fit: FormFit, data: CurveData, target: CurveTarget, room_left: Floats, value: float) -> Floats:
    """Least residual with the target met at given shares of room left (n_solutions, n), over all solutions: (n,).

    The condition's row is ``fixed - left * (1, 0, 0)``, so that everything is a polynomial in `room_left`.
    """
    s, target_row = fit.solutions, target.target_row()
    target_direction, drop_direction = s.inverse @ target_row, s.inverse[:, :, 0]
    # For each solution and share: how far the condition is missed, and the variance of what is missed.
    target_violation = (s.beta @ target_row - value)[:, None] - room_left * s.beta[:, :1]
    constant, drop_covariance, drop_variance = target_direction @ target_row, target_direction[:, 0], s.inverse[:, 0, 0]
    spread = constant[:, None] - 2 * room_left * drop_covariance[:, None] + room_left**2 * drop_variance[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        step = target_violation / spread
        base_to_ceiling = s.beta[:, :1] - (target_direction[:, :1] - room_left * drop_direction[:, :1]) * step
        ceiling = s.beta[:, 1:2] - (target_direction[:, 1:2] - room_left * drop_direction[:, 1:2]) * step
        ok = data.bounds.is_within_bounds(base_to_ceiling, ceiling) & (spread > 1e-18)
        return np.asarray(np.where(ok, s.rss[:, None] + target_violation * step, np.inf).min(axis=0))


def _profile_interval(sizes: Floats, rss_rise: Floats, cutoff: float, estimate: float) -> tuple[float, float]:
    """Where the profile crosses the cut-off, by interpolation in log size; 0 and infinity at its ends."""
    interval_indices = np.flatnonzero(rss_rise <= cutoff)
    if not len(interval_indices):
        if math.isinf(estimate):
            return float(sizes[-1]), math.inf
        # Narrower than one step of the profile.
        near = int(np.searchsorted(sizes, estimate))
        return (float(sizes[near - 1]) if near else 0.0), (float(sizes[near]) if near < len(sizes) else math.inf)
    first_interval_idx, last_interval_idx = int(interval_indices[0]), int(interval_indices[-1])
    log = np.log(sizes)

    def find_end_size(interval_idx: int, outer_idx: int) -> float:
        # In the root of the profile, which is nearly linear in log size where the profile itself is nearly a parabola.
        a, b, c = (math.sqrt(min(v, 1e12)) for v in (rss_rise[interval_idx], rss_rise[outer_idx], cutoff))
        share = (c - a) / max(b - a, 1e-12)
        return math.exp(log[interval_idx] + share * (log[outer_idx] - log[interval_idx]))

    low = find_end_size(first_interval_idx, first_interval_idx - 1) if first_interval_idx else 0.0
    high = find_end_size(last_interval_idx, last_interval_idx + 1) if last_interval_idx < len(sizes) - 1 else math.inf
    return low, high

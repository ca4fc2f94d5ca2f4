"""Profiles of one form: how much the residual rises where the curve meets its target at a given size."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from capgap.stats.curves.data import CurveData
from capgap.stats.curves.fit import FormFit

__all__ = ["CostProfile", "CurveTarget", "profile"]

Floats = NDArray[np.float64]

FINEST, FARTHEST = 30.0, 100.0
"""A profile runs from the smallest size above zero divided by the first to the largest times the second."""
N_SIZES = 120
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

    def fixed(self) -> Floats:
        """The part of ``curve - level`` that does not hang on size: a row on (drop, ceiling, teacher)."""
        if self.kind == "retention":
            return np.array([0.0, 1.0, -self.share])
        return np.array([1 - self.share, self.share, -self.share])

    def value(self, chance: float) -> float:
        """What ``row @ (drop, ceiling, teacher)`` is where the curve meets the target."""
        return (1 - self.share) * chance if self.kind == "retention" else 0.0


@dataclass(frozen=True)
class CostProfile:
    """The profile of the data cost of one form."""

    estimate: float
    """Where the best fit meets the target; infinite where its ceiling is below, 0 where its base is above."""
    sizes: Floats
    """Ascending, above zero, shape (N_SIZES,)."""
    rise: Floats
    """How far the least residual lies above the free one where the target is met at each size, shape (N_SIZES,)."""
    at_zero: float
    """The same where the base meets the target already."""
    never: float
    """The same where the ceiling is at the target or below."""
    surplus_root: float
    """Signed root of the statistic of ceiling against target: above zero where the ceiling is above."""
    low: float
    """Lower end of the interval, 0 where the base may meet the target."""
    high: float
    """Upper end; infinite where the ceiling may be below the target or the profile runs out of sizes."""


def profile(fit: FormFit, data: CurveData, target: CurveTarget) -> CostProfile:
    """The profile of the size at which a form meets a target."""
    positive = data.sizes[data.sizes > 0]
    sizes = np.geomspace(positive.min() / FINEST, positive.max() * FARTHEST, N_SIZES)
    left = fit.form.room_left(sizes, fit.solutions.shapes)
    value = target.value(data.chance)
    ends = np.broadcast_to([1.0, 0.0], (len(left), 2))
    rise = _least_on(fit, data, target, np.concatenate([left, ends], axis=1), value) - fit.solutions.least
    rise, at_zero, touching = np.maximum(rise[:-2], 0.0), max(float(rise[-2]), 0.0), float(rise[-1])
    best = fit.solutions.best
    surplus = fit.solutions.beta @ target.fixed() - value
    never, reached = (max(min(touching, _least_where(fit, side)), 0.0) for side in (surplus <= 0, surplus >= 0))
    root = math.sqrt(never) if surplus[best] > 0 else -math.sqrt(reached)
    at_zero = min(at_zero, max(_least_where(fit, surplus >= fit.solutions.beta[:, 0]), 0.0))
    estimate = _crossing(fit, best, float(surplus[best]))
    low, high = _ends(sizes, rise, fit.cutoff, estimate)
    low = 0.0 if at_zero <= fit.cutoff else low
    high = math.inf if never <= fit.cutoff else high
    return CostProfile(estimate, sizes, rise, at_zero, never, root, low, high)


def _crossing(fit: FormFit, which: int, surplus: float) -> float:
    """Where one solution meets the target, `surplus` being how far its ceiling lies above."""
    drop = float(fit.solutions.beta[which, 0])
    if surplus <= 0:
        return math.inf
    if surplus >= drop:
        return 0.0
    return float(fit.form.size_at(np.array([surplus / drop]), fit.solutions.shapes[[which]])[0])


def _least_where(fit: FormFit, side: NDArray[np.bool_]) -> float:
    """How far the best feasible solution on one side lies above the best of all."""
    ok = fit.solutions.feasible & side
    return float(np.where(ok, fit.solutions.rss, np.inf).min() - fit.solutions.least)


def _least_on(fit: FormFit, data: CurveData, target: CurveTarget, left: Floats, value: float) -> Floats:
    """Least residual with the target met at given shares of room left (n_solutions, n), over all solutions: (n,).

    The condition's row is ``fixed - left * (1, 0, 0)``, so that everything is a polynomial in `left`.
    """
    s, fixed = fit.solutions, target.fixed()
    along_fixed, along_drop = s.inverse @ fixed, s.inverse[:, :, 0]
    miss = (s.beta @ fixed - value)[:, None] - left * s.beta[:, :1]
    constant, cross, square = along_fixed @ fixed, along_fixed[:, 0], s.inverse[:, 0, 0]
    spread = constant[:, None] - 2 * left * cross[:, None] + left**2 * square[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        step = miss / spread
        drop = s.beta[:, :1] - (along_fixed[:, :1] - left * along_drop[:, :1]) * step
        ceiling = s.beta[:, 1:2] - (along_fixed[:, 1:2] - left * along_drop[:, 1:2]) * step
        ok = data.bounds.hold(drop, ceiling) & (spread > 1e-18)
        return np.asarray(np.where(ok, s.rss[:, None] + miss * step, np.inf).min(axis=0))


def _ends(sizes: Floats, rise: Floats, cutoff: float, estimate: float) -> tuple[float, float]:
    """Where the profile crosses the cut-off, by interpolation in log size; 0 and infinity at its ends."""
    inside = np.flatnonzero(rise <= cutoff)
    if not len(inside):
        if math.isinf(estimate):
            return float(sizes[-1]), math.inf
        # Narrower than one step of the profile.
        near = int(np.searchsorted(sizes, estimate))
        return (float(sizes[near - 1]) if near else 0.0), (float(sizes[near]) if near < len(sizes) else math.inf)
    first, last = int(inside[0]), int(inside[-1])
    log = np.log(sizes)

    def cross(within: int, beyond: int) -> float:
        # In the root of the profile, which is nearly linear in log size where the profile itself is nearly a parabola.
        a, b, c = (math.sqrt(min(v, 1e12)) for v in (rise[within], rise[beyond], cutoff))
        share = (c - a) / max(b - a, 1e-12)
        return math.exp(log[within] + share * (log[beyond] - log[within]))

    low = cross(first, first - 1) if first else 0.0
    high = cross(last, last + 1) if last < len(sizes) - 1 else math.inf
    return low, high

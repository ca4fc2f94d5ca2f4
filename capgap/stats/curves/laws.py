"""What a linear function of a curve is by each law that the data do not reject, and the union of their intervals.

The gain of a batch, the expected score at a size and the score that a new student will show there are, for a given
shape of the curve, linear in its three coefficients; their profile intervals are in closed form.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats.curves.fit import CurveFit, FormFit
from capgap.stats.curves.forms import HORIZON_FACTOR
from capgap.stats.curves.solve import CurveBounds
from capgap.stats.estimate import Estimate, EstimateSet

__all__ = ["LawUnion", "describe_laws", "find_horizon_refusal", "profile_linear"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LawUnion(Estimate, EstimateSet):
    """A number by the average of the accepted laws, with the union of their intervals."""

    form_estimates: tuple[tuple[str, Estimate], ...] = ()
    """Name of each accepted law, and the number by it."""
    scale: str
    """``accuracy``, ``per_step`` or ``log_probability``."""
    conf_level: float
    """Of the interval."""

    def labels(self) -> dict[str, Any]:
        """What tells the number from others of its kind."""
        raise NotImplementedError

    def estimates(self) -> Iterator[tuple[dict[str, Any], Estimate]]:
        """The union of the laws, then each accepted law."""
        for form, estimate in (("union", self), *self.form_estimates):
            yield {**self.labels(), "form": form}, estimate


def profile_linear(
    fit: FormFit, bounds: CurveBounds, rows: Floats, *, offsets: Floats | float = 0.0, variance: float = 0.0
) -> Estimate:
    """A linear function of one form's coefficients with its profile interval.

    Parameters
    ----------
    fit
        The form.
    bounds
        Of the curve.
    rows
        On (drop, ceiling, teacher), one for each solution of the fit, shape (n, 3).
    offsets
        What is added to each, shape (n,).
    variance
        Of an independent normal error that is added: above zero for a prediction.

    Notes
    -----
    With the function held at a value, the residual sum of squares rises by ``(value - estimate)² / (variance + row A⁻¹
    row)``; the interval is where it stays within the cut-off for some shape, the coefficients within their bounds.
    """
    s = fit.solutions
    direction = (s.inverse @ rows[:, :, None])[:, :, 0]
    values = (s.beta * rows).sum(axis=1) + offsets
    spread = np.maximum((direction * rows).sum(axis=1), 0.0) + variance
    slack = s.min_rss + fit.cutoff - s.rss  # how far each solution's residual may still rise
    allowed = slack >= 0
    step = np.sqrt(np.maximum(slack, 0.0) / np.where(spread > 1e-24, spread, np.inf))
    ends = []
    for sign in (-1.0, 1.0):
        # The least-squares solution moved along the function until the residual meets the cut-off.
        moved = s.beta + sign * direction * step[:, None]
        ok = allowed & bounds.is_within_bounds(moved[:, 0], moved[:, 1])
        ends.append(np.concatenate([(values + sign * spread * step)[ok], values[allowed & s.feasible]]))
    return Estimate(
        float(values[s.best_idx]), conf_low=float(ends[0].min()), conf_high=float(ends[1].max()), method="GLS profile"
    )


def find_horizon_refusal(fit: CurveFit, size: float) -> Remark | None:
    """Why nothing is said at a size: it lies beyond the horizon, or there is no law; None where something is."""
    if size > fit.horizon * (1 + 1e-9):
        largest = float(fit.data.sizes.max())
        return remark(Reason.BEYOND_HORIZON, size=size, times=HORIZON_FACTOR, largest=largest)
    return fit.no_fit_reason


def describe_laws(fit: CurveFit) -> tuple[Remark, ...]:
    """The accepted laws with their weights in the average, and whether one of them does not level off."""
    weights = fit.law_weights
    if not weights:
        return ()
    grows = "logarithmic" in weights
    return (
        remark(Reason.LAWS, weights={name: round(weight, 2) for name, weight in weights.items()}),
        remark(Reason.ONE_LAW_GROWS if grows else Reason.ALL_LAWS_SATURATE),
    )

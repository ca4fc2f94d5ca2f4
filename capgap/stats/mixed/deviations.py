"""Standard deviations of the random terms with intervals.

Where a variance is well known its logarithm is nearly normal. Where it is not, the interval holds what the likelihood
does not reject; and whether zero is in it is decided with all other variances estimated anew, since a variance that is
held at zero leaves its share to the others.
"""

import math

import numpy as np
from numpy.typing import NDArray

from capgap.schema.remarks import Reason, remark
from capgap.stats.estimate import Estimate, t_critical
from capgap.stats.mixed.inference import AT_ZERO, HIGHEST, LOWEST, FixedEffectsInference, RemlOptimum, optimise
from capgap.stats.mixed.model import MixedModel

__all__ = ["standard_deviations"]

Floats = NDArray[np.float64]

WIDE = 0.25
"""A log sigma less certain than this gets its interval from the likelihood itself."""
SURE = 0.1
"""A log sigma more certain than this is five standard errors of its variance away from zero."""
CLEAR = 4.0
"""So much further down than the end of an interval, zero is not looked at again."""
LIFTED = math.log(0.1)
"""Where variances that were zero begin when another one is held there."""
FINE = 0.03
"""Of log sigma: how exact the ends are."""


def standard_deviations(
    model: MixedModel, inference: FixedEffectsInference, optimum: RemlOptimum, conf_level: float
) -> dict[str, Estimate]:
    """Each sigma, per unit of its covariate, with its interval; the objective is left at the optimum."""
    deviations, z = {}, t_critical(math.inf, conf_level)
    ends = _ProfileEnds(model, inference, optimum, z * z / 2)
    errors = dict(zip(inference.curvature.free.tolist(), np.sqrt(np.diag(inference.curvature.inverse)), strict=True))
    for g, term in enumerate(model.plan.random):
        log_sigma, error = float(optimum.theta[g]), float(errors.get(g, math.inf))
        at_zero = log_sigma < AT_ZERO
        zero = at_zero or (error > SURE and ends.holds_zero(g))
        if error < WIDE and not zero:
            low, high = log_sigma - z * error, log_sigma + z * error
            method = f"{model.laplace.method}, Wald on log sigma"
        else:
            low, high = (LOWEST if zero else ends.lower(g)), ends.upper(g)
            method = f"{model.laplace.method}, likelihood ratio"
        sigma = math.exp(log_sigma) / term.scale
        deviations[term.name] = Estimate(
            estimate=0.0 if at_zero else sigma,
            std_error=math.nan if at_zero else sigma * error,
            conf_low=0.0 if low <= LOWEST else math.exp(low) / term.scale,
            conf_high=math.exp(high) / term.scale,
            n_items=model.outcomes.n_items,
            n_clusters=model.outcomes.n_students,
            method=method,
            remarks=(remark(Reason.AT_BOUNDARY),) if at_zero else (),
        )
    model.laplace.value(optimum.theta)
    return deviations


class _ProfileEnds:
    """Where the objective, highest over the other variances, has fallen by `fall`."""

    def __init__(self, model: MixedModel, inference: FixedEffectsInference, optimum: RemlOptimum, fall: float):
        self.laplace, self.theta, self.top, self.fall = model.laplace, optimum.theta, optimum.evaluation.value, fall
        self.free = inference.curvature.free
        self.hessian = np.linalg.inv(inference.curvature.inverse) if len(self.free) else np.zeros((0, 0))

    def holds_zero(self, g: int) -> bool:
        """Whether no variance at all is within the interval."""
        trial = self.theta.copy()
        trial[g] = LOWEST
        below = self.top - self.laplace.value(trial) - self.fall
        if below <= 0 or below > CLEAR:
            return below <= 0
        trial = np.maximum(trial, LIFTED)
        trial[g] = LOWEST
        return self.top - optimise(self.laplace, trial, held=g).evaluation.value <= self.fall

    def lower(self, g: int) -> float:
        """The lower end, where zero is not in the interval."""
        return self._between(g, float(self.theta[g]), LOWEST)

    def upper(self, g: int) -> float:
        """The upper end; infinite where the data set none."""
        inner = outer = max(float(self.theta[g]), math.log(0.05))
        while self._short(g, outer) <= 0:
            if outer >= HIGHEST:
                return math.inf
            inner, outer = outer, min(outer + 0.5, HIGHEST)
        return self._between(g, inner if inner < outer else float(self.theta[g]), outer)

    def _between(self, g: int, inner: float, outer: float) -> float:
        while abs(outer - inner) > FINE:
            middle = (inner + outer) / 2
            inner, outer = (inner, middle) if self._short(g, middle) > 0 else (middle, outer)
        return (inner + outer) / 2

    def _short(self, g: int, at: float) -> float:
        """How far below the interval's end the objective lies, the others moved by one Newton step."""
        trial = self.theta.copy()
        trial[g] = at
        there = self.laplace.evaluate(trial)
        others = self.free != g
        if not others.any():
            return self.top - there.value - self.fall
        slope = there.gradient[self.free[others]]
        step = np.linalg.solve(self.hessian[np.ix_(others, others)], slope)
        size = 1.0 / max(1.0, float(np.abs(step).max()))
        gain = (size - size**2 / 2) * float(slope @ step)
        return self.top - there.value - gain - self.fall

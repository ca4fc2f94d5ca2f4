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
from capgap.stats.mixed.inference import MAX_THETA, MIN_THETA, ZERO_THETA, FixedEffectsInference, RemlOptimum, fit_theta
from capgap.stats.mixed.model import MixedModel

__all__ = ["standard_deviations"]

Floats = NDArray[np.float64]

MAX_WALD_STD_ERROR = 0.25
"""A log sigma less certain than this gets its interval from the likelihood itself."""
ZERO_CHECK_ERROR = 0.1
"""A log sigma more certain than this is five standard errors of its variance away from zero."""
MAX_REFIT_SHORTFALL = 4.0
"""So much further down than the end of an interval, zero is not looked at again."""
RESTART_LOG_SIGMA = math.log(0.1)
"""Where variances that were zero begin when another one is held there."""
LOG_SIGMA_TOLERANCE = 0.03
"""Of log sigma: how exact the ends are."""


def standard_deviations(
    model: MixedModel, inference: FixedEffectsInference, optimum: RemlOptimum, conf_level: float
) -> dict[str, Estimate]:
    """Each sigma, per unit of its covariate, with its interval; the objective is left at the optimum."""
    deviations, z = {}, t_critical(math.inf, conf_level)
    sigma_profile = _SigmaProfile(model, inference, optimum, z * z / 2)
    errors = dict(zip(inference.curvature.free.tolist(), np.sqrt(np.diag(inference.curvature.inverse)), strict=True))
    for g, term in enumerate(model.plan.random):
        log_sigma, error = float(optimum.theta[g]), float(errors.get(g, math.inf))
        is_at_boundary = log_sigma < ZERO_THETA
        # Zero needs a look only where sigma is within reach of it.
        zero = is_at_boundary or (error > ZERO_CHECK_ERROR and sigma_profile.holds_zero(g))
        if error < MAX_WALD_STD_ERROR and not zero:
            low, high = log_sigma - z * error, log_sigma + z * error
            method = f"{model.laplace.method}, Wald on log sigma"
        else:
            low, high = (MIN_THETA if zero else sigma_profile.lower(g)), sigma_profile.upper(g)
            method = f"{model.laplace.method}, likelihood ratio"
        sigma = math.exp(log_sigma) / term.scale
        deviations[term.name] = Estimate(
            estimate=0.0 if is_at_boundary else sigma,
            std_error=math.nan if is_at_boundary else sigma * error,
            conf_low=0.0 if low <= MIN_THETA else math.exp(low) / term.scale,
            conf_high=math.exp(high) / term.scale,
            n_items=model.outcomes.n_items,
            n_clusters=model.outcomes.n_students,
            method=method,
            remarks=(remark(Reason.AT_BOUNDARY),) if is_at_boundary else (),
        )
    model.laplace.value(optimum.theta)
    return deviations


class _SigmaProfile:
    """Where the objective, highest over the other variances, has fallen by `fall`."""

    def __init__(self, model: MixedModel, inference: FixedEffectsInference, optimum: RemlOptimum, max_drop: float):
        self.laplace, self.theta, self.top, self.fall = model.laplace, optimum.theta, optimum.evaluation.value, max_drop
        self.free = inference.curvature.free
        self.hessian = np.linalg.inv(inference.curvature.inverse) if len(self.free) else np.zeros((0, 0))

    def holds_zero(self, g: int) -> bool:
        """Whether no variance at all is within the interval."""
        trial = self.theta.copy()
        trial[g] = MIN_THETA
        objective_shortfall = self.top - self.laplace.value(trial) - self.fall
        if objective_shortfall <= 0 or objective_shortfall > MAX_REFIT_SHORTFALL:
            return objective_shortfall <= 0
        # Refitted from above zero: variances at the bound would have no slope to leave it by.
        trial = np.maximum(trial, RESTART_LOG_SIGMA)
        trial[g] = MIN_THETA
        return self.top - fit_theta(self.laplace, trial, held_index=g).evaluation.value <= self.fall

    def lower(self, g: int) -> float:
        """The lower end, where zero is not in the interval."""
        return self._bisect(g, float(self.theta[g]), MIN_THETA)

    def upper(self, g: int) -> float:
        """The upper end; infinite where the data set none."""
        inner_end = outer_end = max(float(self.theta[g]), math.log(0.05))
        while self._shortfall(g, outer_end) <= 0:
            if outer_end >= MAX_THETA:
                return math.inf
            inner_end, outer_end = outer_end, min(outer_end + 0.5, MAX_THETA)
        return self._bisect(g, inner_end if inner_end < outer_end else float(self.theta[g]), outer_end)

    def _bisect(self, g: int, inner_end: float, outer_end: float) -> float:
        while abs(outer_end - inner_end) > LOG_SIGMA_TOLERANCE:
            midpoint = (inner_end + outer_end) / 2
            inner_end, outer_end = (inner_end, midpoint) if self._shortfall(g, midpoint) > 0 else (midpoint, outer_end)
        return (inner_end + outer_end) / 2

    def _shortfall(self, g: int, log_sigma: float) -> float:
        """How far below the interval's end the objective lies, the others moved by one Newton step."""
        trial = self.theta.copy()
        trial[g] = log_sigma
        evaluation = self.laplace.evaluate(trial)
        other_variances = self.free != g
        if not other_variances.any():
            return self.top - evaluation.value - self.fall
        # One Newton step of the other variances at the optimum's curvature, shortened to one unit of log sigma.
        slope = evaluation.gradient[self.free[other_variances]]
        step = np.linalg.solve(self.hessian[np.ix_(other_variances, other_variances)], slope)
        size = 1.0 / max(1.0, float(np.abs(step).max()))
        gain = (size - size**2 / 2) * float(slope @ step)
        return self.top - evaluation.value - gain - self.fall

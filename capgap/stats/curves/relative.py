"""Ratio of two capabilities' data costs, by a joint profile."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.linalg import cho_factor, cho_solve

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason, remark
from capgap.stats.curves.cost import DataCost, estimate_data_cost
from capgap.stats.curves.data import CurveData
from capgap.stats.curves.fit import CurveFit, FormFit
from capgap.stats.curves.profile import CostProfile, CurveTarget
from capgap.stats.estimate import Estimate, EstimateSet

__all__ = ["RelativeCost", "relative_data_cost"]

Floats = NDArray[np.float64]

N_RATIO_GRID = 241
"""Ratios of a joint profile, equally apart in their logarithm."""
MAX_CORRELATION = 0.95
"""The largest correlation that is believed: beyond it the joint profile would hang on rounding."""
DERIVATIVE_STEP = 1e-4
"""Of the numerical derivatives by the logarithms of the shape."""


@dataclass(frozen=True, kw_only=True)
class RelativeCost(Estimate, EstimateSet):
    """Data cost of the first capability divided by that of the second.

    The estimate is the ratio of the two costs, each by the average of its laws: infinite where the first is not reached
    within the horizon, 0 where the second is not. The interval and the p-value (that both cost the same) are the widest
    and the largest over pairs of accepted forms. An end that would rest on sizes larger than those that were tried is
    open (0 or infinite), or rests on the largest one that was.
    """

    target: CurveTarget
    """Of both."""
    correlation: float = math.nan
    """Of the two logarithms through seeds and clusters that both share, for the likeliest forms."""
    costs: tuple[DataCost, DataCost]
    """The two."""
    names: tuple[str, str]
    """Their names."""

    @property
    def heading(self) -> str:
        """The question."""
        return f"Examples that {self.names[0]} needs for each that {self.names[1]} needs, to {self.target}"

    def estimates(self) -> Iterator[tuple[dict[str, Any], Estimate]]:
        """The ratio."""
        yield {"contrast": " / ".join(self.names), "target": str(self.target)}, self


def relative_data_cost(
    fit_a: CurveFit, fit_b: CurveFit, target: CurveTarget, *, names: tuple[str, str] = ("first", "second")
) -> RelativeCost:
    """The ratio of two data costs.

    Parameters
    ----------
    fit_a, fit_b
        Fits of the two capabilities from `fit_curves`, at one confidence level. Rows of the two outcome matrices with
        the same number are the same student. Items are shared where both curves were given clusters and a code occurs
        in both; else the two sets of items are disjoint.
    target
        Of both curves.
    names
        Of the two, for the sentences.

    Returns
    -------
    RelativeCost
        Refused where either cost is, or where both capabilities may never get there.

    Raises
    ------
    EstimationError
        The confidence levels differ.

    Notes
    -----
    With z the signed roots of the two profiles, ``(z1² - 2 r z1 z2 + z2²) / (1 - r²)`` is the joint profile where the
    two estimates correlate by r (exactly the sum of the profiles for r = 0, to first order else); a ratio gets the
    least of it over all pairs of sizes in that ratio. r comes from the derivatives of the two logarithms by the
    observed means, the covariance of the items through shared clusters, and that of the seeds, which is estimated from
    the two curves' residuals of the same students. Cut-off F(1, the smaller degrees of freedom).
    """
    if fit_a.conf_level != fit_b.conf_level:
        raise EstimationError(
            f"two fits at one confidence level are needed, found {fit_a.conf_level}, {fit_b.conf_level}."
        )
    costs = estimate_data_cost(fit_a, target), estimate_data_cost(fit_b, target)
    blank = RelativeCost(
        null_value=1.0,
        n_items=sum(cost.n_items for cost in costs),
        n_clusters=sum(cost.n_clusters for cost in costs),
        method="joint GLS profile, union of forms",
        status="refused",
        target=target,
        costs=costs,
        names=names,
    )
    name_cost_pairs = tuple(zip(names, costs, strict=True))
    reasons = [caveat.of(name) for name, cost in name_cost_pairs if cost.status == "refused" for caveat in cost.remarks]
    if reasons:
        return blank.noting(*reasons)
    if all(math.isinf(cost.estimate) for cost in costs):
        return blank.noting(remark(Reason.NEVER_REACHED))
    pairs = _ratios((fit_a, fit_b), costs, target)
    low, high = _censored((min(pair.low for pair in pairs), max(pair.high for pair in pairs)), costs)
    if low == 0 and math.isinf(high):
        ends = {f"{end}{k}": getattr(cost, f"conf_{end}") for k, cost in enumerate(costs, 1) for end in ("low", "high")}
        return blank.noting(remark(Reason.RATIO_OPEN, first=names[0], second=names[1], **ends))
    return replace(
        blank,
        estimate=_divide_costs(costs[0].estimate, costs[1].estimate),
        conf_low=low,
        conf_high=high,
        p_value=max(pair.p_value for pair in pairs),
        status="open" if low == 0 or math.isinf(high) else "ok",
        remarks=tuple(caveat.of(name) for name, cost in name_cost_pairs for caveat in cost.remarks),
        correlation=next(pair.correlation for pair in pairs if pair.is_likeliest),
    )


class _FormRatio(NamedTuple):
    """The ratio by one accepted form of each curve."""

    is_likeliest: bool
    correlation: float
    low: float
    high: float
    p_value: float


def _ratios(fits: tuple[CurveFit, CurveFit], costs: tuple[DataCost, DataCost], target: CurveTarget) -> list[_FormRatio]:
    """The ratio by each pair of accepted forms."""
    pairs = []
    for fit1, cost1 in zip(fits[0].form_fits, costs[0].form_estimates, strict=True):
        for fit2, cost2 in zip(fits[1].form_fits, costs[1].form_estimates, strict=True):
            if not (cost1.is_rejected or cost2.is_rejected):
                r = _correlation((fit1, fits[0].data), (fit2, fits[1].data), target)
                is_likeliest = (cost1.form, cost2.form) == (fits[0].likeliest_form, fits[1].likeliest_form)
                cutoff, df = max(fit1.cutoff, fit2.cutoff), min(fit1.df, fit2.df)
                pairs.append(_FormRatio(is_likeliest, r, *_ratio_interval(cost1.profile, cost2.profile, r, cutoff, df)))
    return pairs


def _censored(ends: tuple[float, float], costs: tuple[DataCost, DataCost]) -> tuple[float, float]:
    """The ends of a ratio as far as they rest on sizes that were tried.

    The lower end is a small first cost over a large second one. Where the second may lie beyond its largest size, no
    lower end is known; where the first does, it is at least its largest size. The upper end likewise.
    """
    first, second = costs
    low, high = ends
    if second.conf_high > second.largest_size:
        low = 0.0
    elif first.conf_low > first.largest_size:
        low = min(low, first.largest_size / second.conf_high)
    if first.conf_high > first.largest_size:
        high = math.inf
    elif second.conf_low > second.largest_size:
        high = max(high, first.conf_high / second.largest_size)
    return low, high


def _divide_costs(a: float, b: float) -> float:
    """A ratio of costs; 0 where the second is infinite, infinite where it is zero."""
    if math.isinf(b):
        return 0.0
    return math.inf if b == 0 else a / b


def _signed_root(p: CostProfile) -> tuple[Floats, Floats]:
    """Log sizes and signed roots of a profile, below zero under the estimate."""
    is_above_estimate = p.sizes >= p.estimate
    return np.log(p.sizes), np.where(is_above_estimate, 1.0, -1.0) * np.sqrt(np.minimum(p.rss_rise, 1e6))


def _ratio_interval(
    profile_a: CostProfile, profile_b: CostProfile, r: float, cutoff: float, df: int
) -> tuple[float, float, float]:
    """Lower end, upper end and p-value against 1 of the ratio of two costs."""
    x1, signed_roots1 = _signed_root(profile_a)
    x2, signed_roots2 = _signed_root(profile_b)
    span = max(x1[-1] - x2[0], x2[-1] - x1[0])
    logs = np.linspace(-span, span, N_RATIO_GRID)
    if 0 < profile_a.estimate < math.inf and 0 < profile_b.estimate < math.inf:
        logs = np.sort(np.append(logs, math.log(profile_a.estimate / profile_b.estimate)))
    # Rows are ratios, columns sizes of the second cost; the first cost is at log size + log ratio.
    grid = np.linspace(x2[0], x2[-1], 4 * len(x2))
    grid_roots2 = np.interp(grid, x2, signed_roots2)
    log_sizes_a = grid[None] + np.append(logs, 0.0)[:, None]
    root1 = np.interp(log_sizes_a, x1, signed_roots1)
    joint_profile = (root1**2 - 2 * r * root1 * grid_roots2 + grid_roots2**2) / (1 - r**2)
    # Beyond the ends of the first profile nothing is known: never counts as an open end, not as a size.
    rss_rise = np.where((log_sizes_a < x1[0]) | (log_sizes_a > x1[-1]), np.inf, joint_profile).min(axis=1)
    p_value = float(stats.f.sf(rss_rise[-1], 1, df))
    rss_rise = rss_rise[:-1]
    is_high_open = (
        profile_a.rss_rise_beyond <= cutoff or profile_b.base_rss_rise <= cutoff or math.isinf(profile_a.high)
    )
    is_low_open = profile_b.rss_rise_beyond <= cutoff or profile_a.base_rss_rise <= cutoff or math.isinf(profile_b.high)
    inside = np.flatnonzero(rss_rise <= cutoff)
    if not len(inside):
        # No size of the profiles is within reach of one of them: what is known is how far off it lies.
        if math.isinf(profile_a.estimate):
            return _divide_costs(profile_a.low, profile_b.high), math.inf, p_value
        return 0.0, _divide_costs(profile_a.high, profile_b.low), p_value
    ends = [_end_ratio(logs, rss_rise, int(index), step, cutoff) for index, step in ((inside[0], -1), (inside[-1], 1))]
    return (0.0 if is_low_open else ends[0]), (math.inf if is_high_open else ends[1]), p_value


def _end_ratio(logs: Floats, rss_rise: Floats, inside_index: int, step: int, cutoff: float) -> float:
    """The ratio at which a profile crosses the cut-off behind its last point within; open at the profile's own end."""
    outside_index = inside_index + step
    if not 0 <= outside_index < len(logs):
        return 0.0 if step < 0 else math.inf
    a, b, c = (math.sqrt(min(float(v), 1e6)) for v in (rss_rise[inside_index], rss_rise[outside_index], cutoff))
    return math.exp(logs[inside_index] + (c - a) / max(b - a, 1e-12) * (logs[outside_index] - logs[inside_index]))


def _correlation(curve_a: tuple[FormFit, CurveData], curve_b: tuple[FormFit, CurveData], target: CurveTarget) -> float:
    """Of the logarithms of two data costs, by their derivatives with respect to the observed means."""
    slopes = [_differentiate_cost(fit, data, target) for fit, data in (curve_a, curve_b)]
    variances = [g @ fit.covariance @ g for g, (fit, _) in zip(slopes, (curve_a, curve_b), strict=True)]
    if not min(variances) > 0:
        return 0.0
    covariance = slopes[0] @ _cross_covariance(curve_a, curve_b) @ slopes[1]
    return float(np.clip(covariance / math.sqrt(variances[0] * variances[1]), -MAX_CORRELATION, MAX_CORRELATION))


def _differentiate_cost(fit: FormFit, data: CurveData, target: CurveTarget) -> Floats:
    """Derivative of the log cost by the observed means, up to a positive factor, shape (m + 1,).

    The cost is where ``ceiling - drop h - level`` is zero, so that it rises where a coefficient lowers that.
    """
    s = fit.solutions
    beta, shape = s.beta[s.best_idx], s.shapes[s.best_idx]
    ceiling_surplus, base_to_ceiling = float(beta @ target.target_row() - target.value(data.chance)), float(beta[0])
    room_at_target = np.array([min(max(ceiling_surplus / base_to_ceiling, 0.0), 1.0) if base_to_ceiling > 0 else 0.0])
    size = fit.form.size_at(room_at_target, shape[None]) if room_at_target[0] > 0 else np.array([np.inf])
    axes = range(2 if fit.form.n_parameters == 4 else 1)
    shape_increments = [np.eye(2)[axis] * DERIVATIVE_STEP for axis in axes]

    def shape_derivative(sizes: Floats, shape_step: Floats) -> Floats:
        room_plus, room_minus = (fit.form.room_left(sizes, (shape + sign * shape_step)[None])[0] for sign in (1, -1))
        return np.asarray(-base_to_ceiling * (room_plus - room_minus) / (2 * DERIVATIVE_STEP))

    m = len(data.sizes)
    jacobian = np.zeros((m + 1, 3 + len(shape_increments)))
    jacobian[:m, 0] = -fit.form.room_left(data.sizes, shape[None])[0]
    jacobian[:m, 1], jacobian[m, 2] = 1.0, 1.0
    for axis, shape_step in enumerate(shape_increments):
        jacobian[:m, 3 + axis] = shape_derivative(data.sizes, shape_step)
    # Gauss-Newton: coefficients move by (J' V⁻¹ J)⁻¹ J' V⁻¹ per unit of the observed means.
    weighted = cho_solve(cho_factor(fit.covariance), jacobian)
    influence = np.linalg.pinv(jacobian.T @ weighted) @ weighted.T
    # Derivative of the condition ceiling - drop h - level by drop, ceiling, teacher and the shape.
    target_gradient = np.zeros(3 + len(shape_increments))
    target_gradient[:3] = target.target_row() - np.array([room_at_target[0], 0.0, 0.0])
    if np.isfinite(size[0]) and size[0] > 0:
        target_gradient[3:] = [shape_derivative(size, shape_step)[0] for shape_step in shape_increments]
    return np.asarray(-target_gradient @ influence)


def _cross_covariance(curve_a: tuple[FormFit, CurveData], curve_b: tuple[FormFit, CurveData]) -> Floats:
    """Covariance of two curves' means: clusters of items and seeds that both share, shape (m1 + 1, m2 + 1)."""
    (fit1, a), (fit2, b) = curve_a, curve_b
    _, i, j = np.intersect1d(a.clusters, b.clusters, assume_unique=True, return_indices=True)
    cross_covariance = np.zeros((len(a.means), len(b.means)))
    if a.has_named_clusters and b.has_named_clusters:  # else equal codes are not known to mean equal items
        cross_covariance += a.influence[i].T @ b.influence[j]
    _, i, j = np.intersect1d(a.students, b.students, assume_unique=True, return_indices=True)
    has_seed_spread = (a.spread[i] > 0) & (b.spread[j] > 0)
    i, j = i[has_seed_spread], j[has_seed_spread]
    residual_df = len(i) - max(fit1.form.n_parameters, fit2.form.n_parameters)
    if residual_df < 1:
        return cross_covariance
    # What both curves leave of the same student is its seed, and items that they do not share.
    residuals = [(d.means[:-1] - fit.predict(d.sizes))[k] / d.spread[k] for fit, d, k in ((fit1, a, i), (fit2, b, j))]
    max_covariance = fit1.seed_sd * fit2.seed_sd
    seed_covariance = float(np.clip(residuals[0] @ residuals[1] / residual_df, -max_covariance, max_covariance))
    seed_correlation = np.sqrt(a.seed_correlation[np.ix_(i, i)] * b.seed_correlation[np.ix_(j, j)])
    cross_covariance[np.ix_(i, j)] += seed_covariance * np.outer(a.spread[i], b.spread[j]) * seed_correlation
    return cross_covariance

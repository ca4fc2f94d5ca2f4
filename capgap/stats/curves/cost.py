"""Data cost: unique training examples to a given retention or closure, by profiles of all forms that fit."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, stats

from capgap.errors import EstimationError, suggestion
from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats.curves.fit import CurveFit, FormFit
from capgap.stats.curves.forms import HORIZON_FACTOR
from capgap.stats.curves.laws import describe_laws
from capgap.stats.curves.order import crossing_bracket
from capgap.stats.curves.profile import CostProfile, CurveTarget, compute_cost_profile
from capgap.stats.estimate import Estimate, EstimateSet

__all__ = ["DataCost", "CurveFormDataCost", "estimate_data_cost", "remark_extrapolation", "find_target_refusal"]

CURVE_TARGET_KINDS = ("retention", "closure")


@dataclass(frozen=True, kw_only=True)
class CurveFormDataCost(Estimate):
    """The data cost by one form, infinite where it lies beyond the horizon; `p_value` as of `DataCost`."""

    form: str
    """Which."""
    p_unreached: float
    """That the curve at the largest size is at the target or below: small means that it is reached. One-sided."""
    p_lack_of_fit: float
    """That the form fits."""
    is_rejected: bool
    """Whether it does not, so that it has no part in the union."""
    profile: CostProfile
    """The whole profile."""


@dataclass(frozen=True, kw_only=True)
class DataCost(Estimate, EstimateSet):
    """Unique examples to a target, over all forms that the data do not reject.

    The estimate is where the average of the accepted forms, weighted by their likelihood, meets the target: infinite
    where it does not up to the horizon (four times the largest size), NaN where refused. The interval runs from the
    lowest of the forms' lower ends (0 where the base may meet the target) to the highest of their upper ends (infinite
    where the curve may not meet it up to the horizon); either makes it ``open``. `p_value` is one-sided and the largest
    over the forms: that the curve at the largest size is at the target or above, so that a small one means that the
    target costs more than was tried, whichever form holds. How much more is no matter of evidence, least of all a
    fitted ceiling.
    """

    target: CurveTarget
    """The share x and its scale."""
    p_unreached: float
    """Likewise that it is at the target or below: small means that the target is reached whichever form holds."""
    size_bracket: tuple[float, float]
    """Observed sizes around the crossing of a rising curve, without a law; NaN where the means do not rise."""
    form_estimates: tuple[CurveFormDataCost, ...]
    """Every form, rejected ones too."""
    law_weights: dict[str, float]
    """The accepted forms and their weights in the average; empty where refused."""
    largest_size: float
    """Of the data."""
    n_students: int
    """Points of the curve."""
    conf_level: float
    """Of the interval and the bracket."""

    @property
    def heading(self) -> str:
        """The target and the level of the interval."""
        return f"Unique examples to {self.target}" + (f" ({self.conf_level:.0%} interval)" if self.law_weights else "")

    def estimates(self) -> Iterator[tuple[dict[str, Any], Estimate]]:
        """The union of the forms, then each form."""
        p_lack_of_fit = max((f.p_lack_of_fit for f in self.form_estimates), default=math.nan)
        yield {"target": str(self.target), "form": "union", "p_reached": self.p_unreached, "p_fit": p_lack_of_fit}, self
        for f in self.form_estimates:
            yield {"target": str(self.target), "form": f.form, "p_reached": f.p_unreached, "p_fit": f.p_lack_of_fit}, f


def estimate_data_cost(fit: CurveFit, target: CurveTarget) -> DataCost:
    """How many unique examples bring a student to a target, with the union of the forms' profile intervals.

    Parameters
    ----------
    fit
        From `fit_curves`, whose `conf_level` it takes.
    target
        ``CurveTarget(0.9)``: 90 % retention, ``(accuracy - chance) / (T - chance)``; ``CurveTarget(0.9, "closure")``:
        90 % of the way from base to teacher.

    Returns
    -------
    DataCost
        Refused where there is no curve, where no law fits (the bracket remains if the means rise), where the teacher is
        not clearly above chance or base, or where chance is unknown.

    Raises
    ------
    EstimationError
        The share is not above zero, or the scale is unknown.

    Notes
    -----
    For each shape the condition "the curve meets the target at D" is linear in f, c and T, so that its residual sum of
    squares is ``RSS + (a'b)² / (a' A^-1 a)`` in closed form; the profile takes the least over shapes and bounds. D is
    in the interval where the profile rises by no more than F(1, m - p).
    """
    if target.kind not in CURVE_TARGET_KINDS:
        raise EstimationError(f"target: found the scale {target.kind!r}.{suggestion(target.kind, CURVE_TARGET_KINDS)}")
    if not target.share > 0:
        raise EstimationError(f"the target is a share above zero, found {target.share:g}.")
    refusal = find_target_refusal(fit, target)
    form_costs = () if refusal else tuple(_build_form_cost(fit, number, target) for number in range(len(fit.form_fits)))
    accepted_form_costs = [f for f in form_costs if not f.is_rejected]
    size_bracket = (math.nan, math.nan) if refusal else _bracket_crossing(fit, target)
    estimate = _average_cost(fit, target) if accepted_form_costs else math.nan
    low = min((f.conf_low for f in accepted_form_costs), default=math.nan)
    high = max((f.conf_high for f in accepted_form_costs), default=math.nan)
    if accepted_form_costs:
        remarks = (*fit.remarks, *_collect_cost_remarks(fit, form_costs, estimate, low, high))
    else:
        remarks = (refusal,) if refusal else _explain_no_fit(fit, size_bracket)
    is_open_interval = low == 0 < estimate or math.isinf(high)
    return DataCost(
        estimate=estimate,
        conf_low=low,
        conf_high=high,
        p_value=max((f.p_value for f in accepted_form_costs), default=math.nan),
        n_items=fit.data.n_items,
        n_clusters=len(fit.data.clusters),
        method="GLS profile, union of forms",
        status="refused" if not accepted_form_costs else "open" if is_open_interval else "ok",
        remarks=remarks,
        target=target,
        p_unreached=max((f.p_unreached for f in accepted_form_costs), default=math.nan),
        size_bracket=size_bracket,
        form_estimates=form_costs,
        law_weights=fit.law_weights if accepted_form_costs else {},
        largest_size=float(fit.data.sizes.max()),
        n_students=len(fit.data.sizes),
        conf_level=fit.conf_level,
    )


def find_target_refusal(fit: CurveFit, target: CurveTarget) -> Remark | None:
    """Why a target is no level that the data know; None where it is one."""
    data, size_means = fit.data, fit.by_size
    if size_means is None:
        return fit.refusal
    teacher, base = size_means.means[-1], size_means.means[0]
    if target.kind == "retention":
        if not math.isfinite(data.chance):
            return remark(Reason.CHANCE_UNKNOWN)
        floor_name, level, variance = "chance", data.chance, size_means.covariance[-1, -1]
    else:
        if size_means.sizes[0] > 0:
            return remark(Reason.NO_CLOSURE_SCALE)
        c = size_means.covariance
        floor_name, level, variance = "base", float(base), c[-1, -1] + c[0, 0] - 2 * c[0, -1]
    teacher_lead = float(teacher) - level
    half_width = float(stats.norm.isf((1 - fit.conf_level) / 2)) * math.sqrt(variance)
    if teacher_lead - half_width > 0:
        return None
    figures = {"teacher": float(teacher), "floor": floor_name, "level": level, "room": teacher_lead, "half": half_width}
    return remark(Reason.TEACHER_NOT_ABOVE, **figures)


def _build_form_cost(fit: CurveFit, number: int, target: CurveTarget) -> CurveFormDataCost:
    """One form's data cost."""
    form = fit.form_fits[number]
    p = compute_cost_profile(form, fit.data, target)
    is_open_interval = math.isinf(p.high) or p.low == 0 < p.estimate
    return CurveFormDataCost(
        estimate=p.estimate,
        conf_low=p.low,
        conf_high=p.high,
        p_value=float(stats.t.cdf(p.largest_surplus_root, form.df)),
        n_items=fit.data.n_items,
        n_clusters=len(fit.data.clusters),
        method="GLS profile",
        status="refused" if form.is_rejected else "open" if is_open_interval else "ok",
        remarks=(remark(Reason.FORM_REJECTED, p=form.p_value),) if form.is_rejected else (),
        form=form.form.name,
        p_unreached=float(stats.t.sf(p.largest_surplus_root, form.df)),
        p_lack_of_fit=form.p_value,
        is_rejected=form.is_rejected,
        profile=p,
    )


def _average_cost(fit: CurveFit, target: CurveTarget) -> float:
    """Where the average curve meets the average target for good; infinite beyond the horizon, 0 before the base.

    Every form has its own base and teacher, and so its own level of the target; the average of what each curve lacks
    to its level rises with size, as each of them does.
    """
    weights = fit.law_weights

    def excess(form_fit: FormFit, size: float) -> float:
        base, ceiling, teacher = form_fit.coefficients[:3]
        level = target.target_row() @ np.array([ceiling - base, ceiling, teacher]) - target.value(fit.data.chance)
        # target_row holds the ceiling: of it, the room that is left at the size is still lacking.
        return float(level - (ceiling - float(form_fit.predict([size])[0])))

    def average_excess(size: float) -> float:
        return sum(weights[f.form.name] * excess(f, size) for f in fit.accepted_fits)

    if average_excess(0.0) >= 0:
        return 0.0
    if average_excess(fit.horizon) < 0:
        return math.inf
    smallest = float(fit.data.sizes[fit.data.sizes > 0].min())

    def at_log_size(log_size: float) -> float:
        return average_excess(smallest * math.expm1(log_size))

    root = optimize.brentq(at_log_size, 0.0, math.log1p(fit.horizon / smallest), xtol=1e-9)
    return smallest * math.expm1(float(root))


def _bracket_crossing(fit: CurveFit, target: CurveTarget) -> tuple[float, float]:
    """The observed sizes around the crossing, if the means rise."""
    if fit.by_size is None or fit.order is None or fit.order.p_value < 0.05:
        return math.nan, math.nan
    size_means, k = fit.by_size, len(fit.by_size.sizes)
    rows = np.zeros((k, k + 1))
    rows[:, :k] = np.eye(k)
    rows[:, -1] = -target.share
    if target.kind == "closure":
        rows[:, 0] -= 1 - target.share
    gap_above_target = rows @ size_means.means - target.value(fit.data.chance)
    errors = np.sqrt(np.maximum(np.diag(rows @ size_means.covariance @ rows.T), 1e-18))
    return crossing_bracket(size_means.sizes, gap_above_target, errors, size_means.df, fit.conf_level)


def _explain_no_fit(fit: CurveFit, size_bracket: tuple[float, float]) -> tuple[Remark, ...]:
    """Why no form gives a cost, and what is known without one."""
    (low, high), no_fit_reason = size_bracket, fit.no_fit_reason
    assert no_fit_reason is not None  # no form was accepted
    if math.isnan(low):
        return no_fit_reason, remark(Reason.NOT_MONOTONE, p=fit.order.p_value if fit.order else math.nan)
    if math.isinf(high):
        return no_fit_reason, remark(Reason.BRACKETED_BELOW, low=low)
    return no_fit_reason, remark(Reason.BRACKETED, low=low, high=high)


def _collect_cost_remarks(
    fit: CurveFit, form_costs: tuple[CurveFormDataCost, ...], estimate: float, low: float, high: float
) -> Iterator[Remark]:
    """What qualifies a data cost, then the laws that it rests on."""
    horizon = {"times": HORIZON_FACTOR, "largest": float(fit.data.sizes.max())}
    if math.isinf(estimate):
        yield remark(Reason.NOT_WITHIN_HORIZON, **horizon)
    elif math.isinf(high):
        yield remark(Reason.MAY_LIE_BEYOND_HORIZON, **horizon)
    if estimate == 0:
        yield remark(Reason.BASE_MEETS_TARGET)
    elif low == 0:
        yield remark(Reason.BASE_MAY_MEET_TARGET)
    for number_name, size in (("lower end", low), ("estimate", estimate), ("upper end", high)):
        yield from remark_extrapolation(number_name, size, float(fit.data.sizes.max()))
    rejected_forms = [f.form for f in form_costs if f.is_rejected]
    if rejected_forms:
        yield remark(Reason.FORMS_REJECTED, forms=rejected_forms)
    if fit.order and fit.order.p_value < 0.05:
        yield remark(Reason.NOT_MONOTONE, p=fit.order.p_value)
    yield from describe_laws(fit)


def remark_extrapolation(number_name: str, size: float, largest_size: float) -> tuple[Remark, ...]:
    """A remark where a finite size lies beyond the largest one of the data; else none."""
    if not largest_size < size < math.inf:
        return ()
    return (remark(Reason.EXTRAPOLATED, what=number_name, largest=largest_size),)

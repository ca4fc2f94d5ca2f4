"""Data cost: how many examples a student needs to keep a given share of what its teacher can do."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from capgap.errors import EstimationError, suggestion
from capgap.stats.curves.fit import CurveFit
from capgap.stats.curves.order import crossing_bracket
from capgap.stats.curves.profile import CostProfile, CurveTarget, profile
from capgap.stats.estimate import Status

__all__ = ["DataCost", "FormCost", "data_cost", "examples", "unresolved"]

KINDS = ("retention", "closure")
TENFOLD = 10.0
"""Beyond so many times the largest size a number is an extrapolation that must be called so."""


@dataclass(frozen=True)
class FormCost:
    """The data cost by one form."""

    form: str
    """Which."""
    estimate: float
    """Examples; infinite where the ceiling lies below the target."""
    conf_low: float
    """Lower end, 0 where the base may meet the target."""
    conf_high: float
    """Upper end, infinite where the ceiling may lie below the target."""
    p_never: float
    """That the ceiling is at the target or above: small means *never*. One-sided."""
    p_reached: float
    """That the ceiling is at the target or below: small means that it is reached. One-sided."""
    p_fit: float
    """That the form fits."""
    rejected: bool
    """Whether it does not, so that it has no part in the union."""
    profile: CostProfile
    """The whole profile."""


@dataclass(frozen=True)
class DataCost:
    """Unique examples to a target, over all forms that the data do not reject."""

    target: CurveTarget
    """The share x and its scale."""
    estimate: float
    """By the leading form; infinite for *never*, NaN where refused."""
    conf_low: float
    """Lowest of the forms' lower ends."""
    conf_high: float
    """Highest of their upper ends."""
    p_never: float
    """Largest over the forms: small means that the ceiling is below the target whichever form holds."""
    p_reached: float
    """Likewise: small means that the target is reached whichever form holds."""
    bracket: tuple[float, float]
    """Observed sizes around the crossing of a rising curve, without a law; NaN where the means do not rise."""
    by_form: tuple[FormCost, ...]
    """Every form, rejected ones too."""
    leading: str
    """The form of the estimate; empty where refused."""
    p_monotone: float
    """That the means rise with size."""
    largest_size: float
    """Of the data."""
    n_items: int
    """Items."""
    n_clusters: int
    """Clusters that they stand in."""
    n_students: int
    """Points of the curve."""
    conf_level: float
    """Of the interval and the bracket."""
    status: Status
    """``ok``, ``open`` (an end is 0 or infinite) or ``refused``."""
    note: str
    """What a reader must know; the reason, where refused."""

    def tidy(self) -> list[dict[str, object]]:
        """The union as one row and one row for each form."""
        shared: dict[str, object] = {
            "quantity": "data_cost",
            "scale": "examples",
            "target": f"{self.target.kind} {self.target.share:g}",
            "n_items": self.n_items,
            "n_clusters": self.n_clusters,
            "n_students": self.n_students,
        }
        union: dict[str, object] = {
            "form": "union",
            "estimate": self.estimate,
            "conf_low": self.conf_low,
            "conf_high": self.conf_high,
            "p_value": self.p_never,
            "p_reached": self.p_reached,
            "p_fit": max((f.p_fit for f in self.by_form), default=math.nan),
            "method": "GLS profile, union of forms",
            "status": self.status,
            "note": self.note,
        }
        rows = [shared | union]
        for f in self.by_form:
            ends: tuple[str, str] = ("rejected: does not fit", "refused") if f.rejected else ("", _status(f))
            rows.append(
                shared
                | {
                    "form": f.form,
                    "estimate": f.estimate,
                    "conf_low": f.conf_low,
                    "conf_high": f.conf_high,
                    "p_value": f.p_never,
                    "p_reached": f.p_reached,
                    "p_fit": f.p_fit,
                    "method": "GLS profile",
                    "status": ends[1],
                    "note": ends[0],
                }
            )
        return rows

    def summary(self) -> str:
        """A few plain sentences."""
        what = f"{self.target.share:.0%} {self.target.kind}"
        if self.status == "refused":
            return f"Data cost of {what}: no number. {self.note}."
        lines = [
            f"Data cost of {what}: {examples(self.estimate)} [{examples(self.conf_low)}, {examples(self.conf_high)}] "
            f"unique examples ({self.conf_level:.0%} interval, {self.leading} leads)."
        ]
        for f in self.by_form:
            told = f"{examples(f.estimate)} [{examples(f.conf_low)}, {examples(f.conf_high)}]"
            lines.append(f"  {f.form}: {told}" + (f", rejected (p = {f.p_fit:.2g})" if f.rejected else ""))
        lines.append(
            f"p = {self.p_never:.2g} that the ceiling is at the target or above (small: never), "
            f"p = {self.p_reached:.2g} that it is below (small: reached)."
        )
        return "\n".join(lines + ([f"Note: {self.note}."] if self.note else []))


def data_cost(fit: CurveFit, target: CurveTarget) -> DataCost:
    """How many unique examples bring a student to a target, with the union of the forms' profile intervals.

    Parameters
    ----------
    fit
        From `fit_curves`, whose `conf_level` it takes.
    target
        ``Target(0.9)``: 90 % retention, ``(accuracy - chance) / (T - chance)``; ``Target(0.9, "closure")``: 90 % of the
        way from base to teacher.

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
    if target.kind not in KINDS:
        raise EstimationError(f"target: found the scale {target.kind!r}.{suggestion(target.kind, KINDS)}")
    if not target.share > 0:
        raise EstimationError(f"the target is a share above zero, found {target.share:g}.")
    unclear = unresolved(fit, target)
    by_form = () if unclear else tuple(_form_cost(fit, number, target) for number in range(len(fit.forms)))
    used = [f for f in by_form if not f.rejected]
    bracket = (math.nan, math.nan) if unclear else _bracket(fit, target)
    if not used:
        return _made(fit, target, by_form, bracket, reason=_refusal(fit, unclear, bracket))
    low, high = min(f.conf_low for f in used), max(f.conf_high for f in used)
    return _made(fit, target, by_form, bracket, low=low, high=high)


def unresolved(fit: CurveFit, target: CurveTarget) -> str:
    """Why a target is no level that the data know; empty where it is one."""
    data, by_size = fit.data, fit.by_size
    if by_size is None:
        return fit.reason
    teacher, base = by_size.means[-1], by_size.means[0]
    if target.kind == "retention":
        if not math.isfinite(data.chance):
            return "chance is unknown: no retention scale"
        room, variance, floor = teacher - data.chance, by_size.covariance[-1, -1], f"chance ({data.chance:.3f})"
    else:
        if by_size.sizes[0] > 0:
            return "no student of size zero: no closure scale"
        c = by_size.covariance
        room, variance, floor = teacher - base, c[-1, -1] + c[0, 0] - 2 * c[0, -1], f"base ({base:.3f})"
    half = float(stats.norm.isf((1 - fit.conf_level) / 2)) * math.sqrt(variance)
    if room - half > 0:
        return ""
    return f"the teacher ({teacher:.3f}) is not clearly above {floor}: difference {room:.3f} ± {half:.3f}"


def _form_cost(fit: CurveFit, number: int, target: CurveTarget) -> FormCost:
    """One form's data cost."""
    form = fit.forms[number]
    p = profile(form, fit.data, target)
    return FormCost(
        form=form.form.name,
        estimate=p.estimate,
        conf_low=p.low,
        conf_high=p.high,
        p_never=float(stats.t.cdf(p.surplus_root, form.df)),
        p_reached=float(stats.t.sf(p.surplus_root, form.df)),
        p_fit=form.p_value,
        rejected=form.rejected,
        profile=p,
    )


def _bracket(fit: CurveFit, target: CurveTarget) -> tuple[float, float]:
    """The observed sizes around the crossing, if the means rise."""
    if fit.by_size is None or fit.order is None or fit.order.p_value < 0.05:
        return math.nan, math.nan
    by_size, k = fit.by_size, len(fit.by_size.sizes)
    rows = np.zeros((k, k + 1))
    rows[:, :k] = np.eye(k)
    rows[:, -1] = -target.share
    if target.kind == "closure":
        rows[:, 0] -= 1 - target.share
    excess = rows @ by_size.means - target.value(fit.data.chance)
    errors = np.sqrt(np.maximum(np.diag(rows @ by_size.covariance @ rows.T), 1e-18))
    return crossing_bracket(by_size.sizes, excess, errors, by_size.df, fit.conf_level)


def _refusal(fit: CurveFit, unclear: str, bracket: tuple[float, float]) -> str:
    """The reason of a refusal, and what is known without a law."""
    if unclear:
        return unclear
    if math.isnan(bracket[0]):
        p = fit.order.p_value if fit.order else math.nan
        return f"{fit.no_law}; nor do the means rise with size (p = {p:.2g})"
    return f"{fit.no_law}; if accuracy rises with data, the target lies {_between(bracket)}"


def _made(
    fit: CurveFit,
    target: CurveTarget,
    by_form: tuple[FormCost, ...],
    bracket: tuple[float, float],
    *,
    low: float = math.nan,
    high: float = math.nan,
    reason: str = "",
) -> DataCost:
    """The union with its notes, or the refusal."""
    data, leading = fit.data, fit.leading
    used = [f for f in by_form if not f.rejected]
    name = "" if reason or leading is None else leading.form.name
    estimate = next((f.estimate for f in used if f.form == name), math.nan)
    largest = float(data.sizes.max())
    notes = [reason] if reason else [*fit.notes, *_warnings(fit, by_form, estimate, low, high, largest)]
    is_open = low == 0 < estimate or math.isinf(high)
    return DataCost(
        target=target,
        estimate=estimate,
        conf_low=low,
        conf_high=high,
        p_never=max((f.p_never for f in used), default=math.nan),
        p_reached=max((f.p_reached for f in used), default=math.nan),
        bracket=bracket,
        by_form=by_form,
        leading=name,
        p_monotone=fit.order.p_value if fit.order else math.nan,
        largest_size=largest,
        n_items=data.n_items,
        n_clusters=len(data.clusters),
        n_students=len(data.sizes),
        conf_level=fit.conf_level,
        status="refused" if reason else "open" if is_open else "ok",
        note="; ".join(n for n in notes if n),
    )


def _warnings(
    fit: CurveFit, by_form: tuple[FormCost, ...], estimate: float, low: float, high: float, largest: float
) -> list[str]:
    """What a reader must know of a data cost."""
    told = []
    if math.isinf(estimate):
        told.append(f"the ceiling lies below the target: never, or beyond {examples(low)} examples")
    elif math.isinf(high):
        told.append("the ceiling may lie below the target: no upper end")
    if estimate == 0:
        told.append("the base already meets the target")
    elif low == 0:
        told.append("the base may meet the target already: no lower end")
    for name, value in (("estimate", estimate), ("upper end", high)):
        if largest < value < math.inf:
            far = f", more than tenfold ({value / largest:.0f} times)" if value > TENFOLD * largest else ""
            told.append(f"the {name} is extrapolated beyond the largest size, {examples(largest)}{far}")
    rejected = [f.form for f in by_form if f.rejected]
    told += [f"rejected as not fitting: {', '.join(rejected)}"] if rejected else []
    if fit.order and fit.order.p_value < 0.05:
        told.append(f"the means do not rise with size (p = {fit.order.p_value:.2g})")
    return told


def _between(bracket: tuple[float, float]) -> str:
    low, high = bracket
    if math.isinf(high):
        return f"above {examples(low)} examples" if low else "at any size"
    return f"between {examples(low)} and {examples(high)} examples"


def _status(cost: FormCost) -> Status:
    return "open" if math.isinf(cost.conf_high) or cost.conf_low == 0 < cost.estimate else "ok"


def examples(size: float) -> str:
    """A number of examples to three digits, for sentences."""
    if math.isinf(size):
        return "never"
    return f"{float(f'{size:.3g}'):,.0f}" if size >= 1 or size == 0 else f"{size:.2g}"

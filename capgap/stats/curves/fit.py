"""Each form fitted to the points of a curve, its misfit tested against the seeds, and the points' order."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from capgap.errors import EstimationError, suggestion
from capgap.stats.curves.data import CurveData
from capgap.stats.curves.forms import FORMS, CurveForm, logarithmic
from capgap.stats.curves.order import Monotonicity, monotonicity
from capgap.stats.curves.solve import CurveSolutions, WhitenedMeans, explore, least

__all__ = ["CurveFit", "FormFit", "SizeMeans", "fit_curves", "fit_growth"]

Floats = NDArray[np.float64]

LEAST_SIZES, ENOUGH_SIZES = 5, 7
"""Distinct sizes below which a curve is refused, and below which its coverage was never measured."""
LEAST_CLUSTERS, ENOUGH_CLUSTERS = 10, 100
"""Likewise for the clusters of items."""
LACK_OF_FIT_LEVEL = 0.05
"""A form whose misfit has a smaller p-value is rejected."""


@dataclass(frozen=True)
class SizeMeans:
    """What the points say without any law: one mean per size."""

    sizes: Floats
    """Distinct sizes, ascending, shape (K,)."""
    means: Floats
    """Shape (K + 1,), the teacher last."""
    covariance: Floats
    """Through items and seeds, shape (K + 1, K + 1)."""
    seed_sd: float
    """Standard deviation between seeds on the logit, from students of equal size alone."""
    rss: float
    """Residual sum of squares around the means."""
    df: int
    """Students minus sizes; zero where no size has two students."""


@dataclass(frozen=True)
class FormFit:
    """One form's least-squares fit."""

    form: CurveForm
    """Which."""
    solutions: CurveSolutions
    """All that a profile can rest on."""
    seed_sd: float
    """Standard deviation between seeds on the logit, what the form does not fit included."""
    df: int
    """Students minus parameters."""
    cutoff: float
    """How far a profile may rise above its least value, F(1, df)."""
    p_value: float
    """That the form fits as well as one mean per size; NaN where seeds cannot tell."""
    rejected: bool
    """Whether that is below the level of the test."""
    covariance: Floats
    """Of the means, items and seeds, shape (m + 1, m + 1)."""

    @property
    def coefficients(self) -> tuple[float, float, float, float, float]:
        """Base's accuracy f, ceiling c, teacher's T, D0 and exponent of the best fit."""
        drop, ceiling, teacher = self.solutions.beta[self.solutions.best]
        scale, exponent = np.exp(self.solutions.shapes[self.solutions.best])
        return float(ceiling - drop), float(ceiling), float(teacher), float(scale), float(exponent)

    def predict(self, sizes: Sequence[float] | Floats) -> Floats:
        """The best fit's values at some sizes."""
        base, ceiling = self.coefficients[:2]
        left = self.form.room_left(np.asarray(sizes, dtype=float), self.solutions.shapes[[self.solutions.best]])[0]
        return np.asarray(ceiling - (ceiling - base) * left)


@dataclass(frozen=True)
class CurveFit:
    """All forms fitted to one curve."""

    data: CurveData
    """The points."""
    forms: tuple[FormFit, ...]
    """Every form, rejected ones too; empty where the fit is refused."""
    by_size: SizeMeans | None
    """The means per size; None where the items allow no covariance."""
    order: Monotonicity | None
    """Whether the means rise with size."""
    conf_level: float
    """Of all intervals that come from this fit."""
    reason: str = ""
    """Why no form was fitted; empty where they were."""
    notes: tuple[str, ...] = ()
    """What a reader must know of every number from this fit."""

    @property
    def accepted(self) -> tuple[FormFit, ...]:
        """The forms that the data do not reject."""
        return tuple(f for f in self.forms if not f.rejected)

    @property
    def leading(self) -> FormFit | None:
        """The accepted form with the smallest Akaike criterion; it gives the point estimates."""
        return min(self.accepted, key=lambda f: f.solutions.least + 2 * f.form.n_parameters, default=None)

    @property
    def no_law(self) -> str:
        """The reason where no form fits; empty otherwise."""
        if self.reason or self.accepted:
            return self.reason
        worst = ", ".join(f"{f.form.name} p = {f.p_value:.2g}" for f in self.forms)
        return f"no law fits ({worst})"

    def tidy(self) -> list[dict[str, object]]:
        """One row for each form: coefficients of the best fit, misfit, variance between seeds."""
        rows: list[dict[str, object]] = []
        for f in self.forms:
            base, ceiling, teacher, scale, exponent = f.coefficients
            rows.append(
                {
                    "quantity": "data_curve",
                    "scale": self.data.scale,
                    "form": f.form.name,
                    "base": base,
                    "ceiling": ceiling,
                    "teacher": teacher,
                    "size_scale": scale,
                    "exponent": exponent if f.form.n_parameters == 4 else math.nan,
                    "seed_sd": f.seed_sd,
                    "rss": f.solutions.least,
                    "df": f.df,
                    "p_value": f.p_value,
                    "status": "refused" if f.rejected else "ok",
                    "note": "rejected: does not fit" if f.rejected else "",
                }
            )
        return rows

    def summary(self) -> str:
        """A few plain sentences."""
        d = self.data
        lines = [f"{len(d.sizes)} students at {d.n_sizes} sizes, {d.n_items} items, scale {d.scale}."]
        if self.by_size is not None and self.by_size.df:
            lines.append(f"Seeds of one size differ by {self.by_size.seed_sd:.2f} on the logit (standard deviation).")
        if self.order is not None:
            lines.append(f"The means rise with size: p = {self.order.p_value:.2g}.")
        for f in self.forms:
            base, ceiling = f.coefficients[:2]
            verdict = "rejected" if f.rejected else "not rejected"
            lines.append(f"  {f.form.name}: from {base:.3f} to {ceiling:.3f}, {verdict} (p = {f.p_value:.2g})")
        if self.no_law:
            lines.append(f"No curve: {self.no_law}.")
        return "\n".join(lines + [f"Note: {note}." for note in self.notes])


def fit_curves(
    data: CurveData,
    *,
    forms: Sequence[str] = tuple(FORMS),
    conf_level: float = 0.95,
    fit_level: float = LACK_OF_FIT_LEVEL,
) -> CurveFit:
    """Fit saturating curves to the points by generalised least squares.

    Parameters
    ----------
    data
        From `curve_data`.
    forms
        Which forms: ``power``, ``exponential``, ``logistic``.
    conf_level
        Of every interval that is later taken from the fit.
    fit_level
        A form is rejected where the p-value of its misfit is below this.

    Returns
    -------
    CurveFit
        With a `reason` and no forms where sizes, students or items are too few.

    Notes
    -----
    The covariance of the means is that of the shared items (CR2) plus ``tau² s s' * nesting`` between seeds, s the
    slope of the mean in the seed's effect on the logit (``p (1 - p)`` for accuracy). tau² is the smallest one at which
    the residual sum of squares is no larger than its degrees of freedom (Paule & Mandel 1982), once per form.

    Misfit: tau² from students of equal size alone, then ``(RSS of the form - RSS of one mean per size) / (K - p)``
    against F(K - p, m - K). Here, and for the order of the means, the seeds' effects count as independent: if nested
    subsets make them alike, sizes differ by less than assumed, and a form is kept rather than rejected. Without two
    students of one size nothing tells misfit from seeds, and no form is rejected.

    References
    ----------
    Golub, G. H. & Pereyra, V. (1973). The differentiation of pseudo-inverses and nonlinear least squares problems whose
    variables separate. SIAM J. Numer. Anal. 10, 413-432; Paule, R. C. & Mandel, J. (1982). Consensus values and
    weighting factors. J. Res. NBS 87, 377-385.
    """
    unknown = next((name for name in forms if name not in FORMS), None)
    if unknown is not None or not forms:
        raise EstimationError(f"forms: found {unknown!r}.{suggestion(str(unknown), FORMS)}")
    if not 0 < conf_level < 1:
        raise EstimationError(f"conf_level lies between 0 and 1, found {conf_level:g}.")
    notes = list(data.notes)
    reason = _reason(data)
    if not np.isfinite(data.covariance).all():
        return CurveFit(data, (), None, None, conf_level, reason, tuple(notes))
    by_size = _size_means(data)
    order = monotonicity(by_size.means[:-1], by_size.covariance[:-1, :-1], by_size.df)
    if reason:
        return CurveFit(data, (), by_size, order, conf_level, reason, tuple(notes))
    notes += _cautions(data, by_size)
    fits = tuple(_fit_form(FORMS[name], data, by_size, conf_level, fit_level) for name in forms)
    return CurveFit(data, fits, by_size, order, conf_level, "", tuple(notes))


def fit_growth(fit: CurveFit, *, fit_level: float = LACK_OF_FIT_LEVEL) -> FormFit | None:
    """The logarithmic law fitted to the points of a curve, for what lies just beyond them.

    Returns
    -------
    FormFit or None
        None where the curve itself was refused for its points.
    """
    if fit.by_size is None or fit.reason:
        return None
    return _fit_form(logarithmic(float(fit.data.sizes.max())), fit.data, fit.by_size, fit.conf_level, fit_level)


def _reason(data: CurveData) -> str:
    """Why these points allow no curve; empty where they do."""
    n_clusters, m = len(data.clusters), len(data.sizes)
    if not np.isfinite(data.covariance).all():
        return "all items of a task stand in one cluster: no covariance, no curve"
    if n_clusters < LEAST_CLUSTERS:
        return f"{n_clusters} independent items or clusters, a curve needs {LEAST_CLUSTERS} or more"
    if data.n_sizes < LEAST_SIZES:
        return (
            f"{data.n_sizes} distinct sizes: a curve with four parameters needs {ENOUGH_SIZES}, at least {LEAST_SIZES}"
        )
    if m < LEAST_SIZES:
        return f"{m} students, a curve with four parameters needs {LEAST_SIZES} or more"
    return ""


def _cautions(data: CurveData, by_size: SizeMeans) -> list[str]:
    """What to say of points that allow a curve but not all that was tested."""
    notes = []
    if data.n_sizes < ENOUGH_SIZES:
        notes.append(f"{data.n_sizes} distinct sizes: coverage of the intervals is untested below {ENOUGH_SIZES}")
    if data.sizes.min() > 0:
        notes.append("no student of size zero: the base's level is extrapolated")
    if not by_size.df:
        notes.append("one seed per size: misfit cannot be told from seeds, no form is rejected")
    if len(data.clusters) < ENOUGH_CLUSTERS:
        notes.append(f"{len(data.clusters)} clusters of items: coverage is untested below {ENOUGH_CLUSTERS}")
    return notes


def _fit_form(form: CurveForm, data: CurveData, by_size: SizeMeans, conf_level: float, fit_level: float) -> FormFit:
    """One form: its variance between seeds, its solutions, its misfit."""
    df = len(data.sizes) - form.n_parameters

    def residual(variance: float) -> float:
        total = data.covariance + variance * data.between()
        return least(form, WhitenedMeans.of(data.sizes, data.means, total), data.bounds)

    variance = paule_mandel(residual, df)
    covariance = data.covariance + variance * data.between()
    cutoff = float(stats.f.ppf(conf_level, 1, df))
    solutions = explore(form, WhitenedMeans.of(data.sizes, data.means, covariance), data.bounds, margin=cutoff)
    p_value, k = math.nan, data.n_sizes
    if by_size.df and k > form.n_parameters:
        pure = WhitenedMeans.of(
            data.sizes, data.means, data.covariance + by_size.seed_sd**2 * data.between(nested=False)
        )
        misfit = least(form, pure, data.bounds) - by_size.rss
        extra = k - form.n_parameters
        p_value = float(stats.f.sf(max(misfit, 0.0) / extra, extra, by_size.df))
    return FormFit(form, solutions, math.sqrt(variance), df, cutoff, p_value, p_value < fit_level, covariance)


def _size_means(data: CurveData) -> SizeMeans:
    """One mean per size, weighted by the covariance, and what students of equal size differ by."""
    sizes, which = np.unique(data.sizes, return_inverse=True)
    m, k = len(which), len(sizes)
    design = np.zeros((m + 1, k + 1))
    design[np.arange(m), which] = 1.0
    design[m, k] = 1.0

    def solve(variance: float) -> tuple[Floats, Floats, float]:
        total = np.linalg.inv(data.covariance + variance * data.between(nested=False))
        inverse = np.linalg.inv(design.T @ total @ design)
        beta = inverse @ design.T @ total @ data.means
        residual = data.means - design @ beta
        return np.asarray(beta, float), np.asarray(inverse, float), float(residual @ total @ residual)

    variance = paule_mandel(lambda v: solve(v)[2], m - k) if m > k else 0.0
    beta, covariance, rss = solve(variance)
    return SizeMeans(sizes, beta, covariance, math.sqrt(variance), rss, m - k)


def paule_mandel(rss: Callable[[float], float], df: int, *, largest: float = 25.0) -> float:
    """The smallest variance at which a residual sum of squares that falls with it is no larger than `df`."""
    if rss(0.0) <= df:
        return 0.0
    low, high = 0.0, 1e-3
    while rss(high) > df:
        low, high = high, high * 4
        if high > largest:
            return largest
    return float(optimize.brentq(lambda v: rss(v) - df, low, high, xtol=1e-6, rtol=1e-4))

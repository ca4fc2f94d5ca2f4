"""Generalised least squares of each form, its likelihood, its lack of fit against the seeds, and monotonicity."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from capgap.errors import EstimationError, suggestion
from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats.curves.data import CurveData
from capgap.stats.curves.forms import FORM_NAMES, HORIZON_FACTOR, CurveForm, curve_form
from capgap.stats.curves.order import Monotonicity, check_monotonicity
from capgap.stats.curves.solve import CurveSolutions, WhitenedMeans, explore_shapes, minimise_rss
from capgap.stats.estimate import Estimate, EstimateSet, few_clusters

__all__ = ["CurveFit", "FormFit", "SizeMeans", "fit_curves"]

Floats = NDArray[np.float64]

MIN_CURVE_SIZES, ENOUGH_CURVE_SIZES = 5, 7
"""Distinct sizes below which a curve is refused, and below which its coverage was never measured."""
MIN_CURVE_CLUSTERS, ENOUGH_CLUSTERS = 10, 100
"""Likewise for the clusters of items."""
LACK_OF_FIT_LEVEL = 0.05
"""A form whose misfit has a smaller p-value is rejected."""
LEAST_SEARCHED_SD, SEARCH_TOLERANCE = 0.1, 0.01
"""Up to where the seeds' standard deviation is sought where moments see none; the search's tolerance, of its range."""


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
    is_rejected: bool
    """Whether that is below the level of the test."""
    log_likelihood: float
    """Largest over the coefficients and the variance between seeds, up to a constant that all forms share."""
    covariance: Floats
    """Of the means, items and seeds, shape (m + 1, m + 1)."""

    @property
    def coefficients(self) -> tuple[float, float, float, float, float]:
        """Base's accuracy f, ceiling c, teacher's T, D0 and exponent of the best fit."""
        base_to_ceiling, ceiling, teacher = self.solutions.beta[self.solutions.best_idx]
        scale, exponent = np.exp(self.solutions.shapes[self.solutions.best_idx])
        return float(ceiling - base_to_ceiling), float(ceiling), float(teacher), float(scale), float(exponent)

    def predict(self, sizes: Sequence[float] | Floats) -> Floats:
        """The best fit's values at some sizes."""
        base, ceiling = self.coefficients[:2]
        room = self.form.room_left(np.asarray(sizes, dtype=float), self.solutions.shapes[[self.solutions.best_idx]])[0]
        return np.asarray(ceiling - (ceiling - base) * room)


@dataclass(frozen=True)
class CurveFit(EstimateSet):
    """All forms fitted to one curve; its remarks hold for every number from this fit."""

    data: CurveData
    """The points."""
    form_fits: tuple[FormFit, ...]
    """Every form, rejected ones too; empty where the fit is refused."""
    by_size: SizeMeans | None
    """The means per size; None where the items allow no covariance."""
    order: Monotonicity | None
    """Whether the means rise with size."""
    conf_level: float
    """Of all intervals that come from this fit."""
    refusal: Remark | None = None
    """Why no form was fitted; None where they were."""

    @property
    def accepted_fits(self) -> tuple[FormFit, ...]:
        """The forms that the data do not reject."""
        return tuple(f for f in self.form_fits if not f.is_rejected)

    @property
    def horizon(self) -> float:
        """The largest number of examples of which anything is said."""
        return HORIZON_FACTOR * float(self.data.sizes.max())

    @property
    def law_weights(self) -> dict[str, float]:
        """Each accepted form's share of their likelihood, by name; the shares sum to 1."""
        accepted = self.accepted_fits
        best = max((f.log_likelihood for f in accepted), default=0.0)
        likelihoods = {f.form.name: math.exp(f.log_likelihood - best) for f in accepted}
        total = sum(likelihoods.values())
        return {name: likelihood / total for name, likelihood in likelihoods.items()}

    @property
    def likeliest_form(self) -> str:
        """The accepted form with the largest likelihood; empty where none is accepted."""
        return max(self.law_weights, key=self.law_weights.__getitem__, default="")

    def predict(self, sizes: Sequence[float] | Floats) -> Floats:
        """The curve at some sizes: the accepted forms' values, averaged by their likelihood."""
        weights = self.law_weights
        return np.asarray(sum(weights[f.form.name] * f.predict(sizes) for f in self.accepted_fits))

    @property
    def no_fit_reason(self) -> Remark | None:
        """The reason where no form fits; None otherwise."""
        if self.refusal or self.accepted_fits:
            return self.refusal
        return remark(Reason.NO_FORM_FITS, p_values={f.form.name: f.p_value for f in self.form_fits})

    @property
    def heading(self) -> str:
        """The data, how much seeds differ, whether the means rise; why there is no curve."""
        d = self.data
        lines = [f"{len(d.sizes)} students at {d.n_sizes} sizes, {d.n_items} items, scale {d.scale}."]
        if self.by_size is not None and self.by_size.df:
            lines.append(f"Seeds of one size differ by {self.by_size.seed_sd:.2f} on the logit (standard deviation).")
        if self.order is not None:
            lines.append(f"The means rise with size: p = {self.order.p_value:.2g}.")
        lines.append(
            f"No curve: {self.no_fit_reason}."
            if self.no_fit_reason
            else "Ceiling (logarithmic: what four times the examples give), p of the fit:"
        )
        return "\n".join(lines)

    def estimates(self) -> Iterator[tuple[dict[str, Any], Estimate]]:
        """Each form's ceiling with the p-value of its fit; its other coefficients are labels."""
        weights = self.law_weights
        for f in self.form_fits:
            base, ceiling, teacher, scale, exponent = f.coefficients
            labels = {
                "form": f.form.name,
                "base": base,
                "teacher": teacher,
                "size_scale": scale,
                "exponent": exponent if f.form.n_parameters == 4 else math.nan,
                "seed_sd": f.seed_sd,
                "rss": f.solutions.min_rss,
                "log_likelihood": f.log_likelihood,
                "weight": weights.get(f.form.name, 0.0),
            }
            fitted = Estimate(ceiling, df=f.df, p_value=f.p_value)
            rejection_remark = remark(Reason.FORM_REJECTED, p=f.p_value)
            yield labels, replace(fitted, status="refused", remarks=(rejection_remark,)) if f.is_rejected else fitted


def fit_curves(
    data: CurveData,
    *,
    form_names: Sequence[str] = FORM_NAMES,
    conf_level: float = 0.95,
    fit_alpha: float = LACK_OF_FIT_LEVEL,
) -> CurveFit:
    """Fit curves to the points by generalised least squares, and weigh them by their likelihood.

    Parameters
    ----------
    data
        From `curve_data`.
    form_names
        Which forms: ``power``, ``exponential``, ``logistic``, ``logarithmic``.
    conf_level
        Of every interval that is later taken from the fit.
    fit_alpha
        A form is rejected where the p-value of its misfit is below this.

    Returns
    -------
    CurveFit
        With a `refusal` and no forms where sizes, students or items are too few.

    Notes
    -----
    The covariance of the means is that of the shared items (CR2) plus ``tau² s s' * nesting`` between seeds, s the
    slope of the mean in the seed's effect on the logit (``p (1 - p)`` for accuracy). tau² is the smallest one at which
    the residual sum of squares is no larger than its degrees of freedom (Paule & Mandel 1982), once per form.

    Misfit: tau² from students of equal size alone, then ``(RSS of the form - RSS of one mean per size) / (K - p)``
    against F(K - p, m - K). Here, and for the order of the means, the seeds' effects count as independent: if nested
    subsets make them alike, sizes differ by less than assumed, and a form is kept rather than rejected. Without two
    students of one size nothing tells misfit from seeds, and no form is rejected.

    Weights: every form's likelihood, the determinant of the covariance in it and tau² at its own maximum. A criterion
    of residuals alone would not do: tau² grows until the residual sum of squares is its degrees of freedom, whatever
    the fit. Maximum likelihood, not restricted: the restricted one of another design matrix is no likelihood of the
    same data.

    References
    ----------
    Golub, G. H. & Pereyra, V. (1973). The differentiation of pseudo-inverses and nonlinear least squares problems whose
    variables separate. SIAM J. Numer. Anal. 10, 413-432; Paule, R. C. & Mandel, J. (1982). Consensus values and
    weighting factors. J. Res. NBS 87, 377-385.
    """
    unknown = next((name for name in form_names if name not in FORM_NAMES), None)
    if unknown is not None or not form_names:
        raise EstimationError(f"forms: found {unknown!r}.{suggestion(str(unknown), FORM_NAMES)}")
    if not 0 < conf_level < 1:
        raise EstimationError(f"conf_level lies between 0 and 1, found {conf_level:g}.")
    refusal = _find_fit_refusal(data)
    if not np.isfinite(data.covariance).all():
        return CurveFit(data, (), None, None, conf_level, refusal, remarks=data.remarks)
    size_means = _size_means(data)
    order = check_monotonicity(size_means.means[:-1], size_means.covariance[:-1, :-1], size_means.df)
    if refusal:
        return CurveFit(data, (), size_means, order, conf_level, refusal, remarks=data.remarks)
    forms = [curve_form(name, data.sizes) for name in form_names]
    fits = tuple(_fit_form(form, data, size_means, conf_level, fit_alpha) for form in forms)
    remarks = (*data.remarks, *_list_fit_cautions(data, size_means))
    return CurveFit(data, fits, size_means, order, conf_level, remarks=remarks)


def _find_fit_refusal(data: CurveData) -> Remark | None:
    """Why these points allow no curve; None where they do."""
    n_clusters = len(data.clusters)
    if not np.isfinite(data.covariance).all():
        return remark(Reason.NO_COVARIANCE)
    if n_clusters < MIN_CURVE_CLUSTERS:
        return remark(Reason.FEW_ITEMS, n=n_clusters, least=MIN_CURVE_CLUSTERS)
    if data.n_sizes < MIN_CURVE_SIZES:  # fewer students have fewer sizes
        return remark(Reason.FEW_SIZES, n=data.n_sizes, enough=ENOUGH_CURVE_SIZES, least=MIN_CURVE_SIZES)
    return None


def _list_fit_cautions(data: CurveData, size_means: SizeMeans) -> Iterator[Remark]:
    """What qualifies points that allow a curve but not all that was tested."""
    if data.n_sizes < ENOUGH_CURVE_SIZES:
        yield remark(Reason.FEW_SIZES_UNTESTED, n=data.n_sizes, least=ENOUGH_CURVE_SIZES)
    if data.sizes.min() > 0:
        yield remark(Reason.NO_SIZE_ZERO)
    if not size_means.df:
        yield remark(Reason.ONE_SEED_PER_SIZE)
    yield from few_clusters(len(data.clusters), ENOUGH_CLUSTERS)


def _fit_form(form: CurveForm, data: CurveData, size_means: SizeMeans, conf_level: float, fit_alpha: float) -> FormFit:
    """One form: its variance between seeds, its solutions, its misfit."""
    df = len(data.sizes) - form.n_parameters

    between = data.between()

    def whiten(variance: float) -> WhitenedMeans:
        return WhitenedMeans.of(data.sizes, data.means, data.covariance + variance * between)

    def residual(variance: float) -> float:
        return minimise_rss(form, whiten(variance), data.bounds)

    def deviance(sd: float) -> float:
        whitened = whiten(sd**2)
        return minimise_rss(form, whitened, data.bounds) + 2 * float(np.log(np.diag(whitened.root)).sum())

    # tau² by the form itself, misfit included: where a form fits badly its intervals widen.
    variance = paule_mandel(residual, df)
    covariance = data.covariance + variance * between
    cutoff = float(stats.f.ppf(conf_level, 1, df))
    solutions = explore_shapes(form, whiten(variance), data.bounds, margin=cutoff)
    p_value, k = math.nan, data.n_sizes
    if size_means.df and k > form.n_parameters:
        # The test has tau² from students of equal size alone, which no form can influence.
        pure_error_means = WhitenedMeans.of(
            data.sizes, data.means, data.covariance + size_means.seed_sd**2 * data.between(nested=False)
        )
        lack_of_fit_rss = minimise_rss(form, pure_error_means, data.bounds) - size_means.rss
        lack_of_fit_df = k - form.n_parameters
        p_value = float(stats.f.sf(max(lack_of_fit_rss, 0.0) / lack_of_fit_df, lack_of_fit_df, size_means.df))
    log_likelihood = _max_log_likelihood(deviance, math.sqrt(variance))
    is_rejected = p_value < fit_alpha
    return FormFit(form, solutions, math.sqrt(variance), df, cutoff, p_value, is_rejected, log_likelihood, covariance)


def _max_log_likelihood(deviance: Callable[[float], float], moment_sd: float) -> float:
    """Log-likelihood at its maximum over the standard deviation between seeds, near the moments' estimate of it.

    At the maximum the likelihood is flat in the standard deviation, so that no tolerance of the search is felt.
    """
    upper = max(1.5 * moment_sd, LEAST_SEARCHED_SD)
    search = optimize.minimize_scalar(
        deviance, bounds=(0.0, upper), method="bounded", options={"xatol": SEARCH_TOLERANCE * upper}
    )
    return -0.5 * min(float(search.fun), deviance(0.0))


def _size_means(data: CurveData) -> SizeMeans:
    """One mean per size, weighted by the covariance, and what students of equal size differ by."""
    sizes, size_index = np.unique(data.sizes, return_inverse=True)
    m, k = len(size_index), len(sizes)
    design = np.zeros((m + 1, k + 1))  # of students and teacher on one mean per size and the teacher's
    design[np.arange(m), size_index] = 1.0
    design[m, k] = 1.0

    def fit_size_means(variance: float) -> tuple[Floats, Floats, float]:
        total = np.linalg.inv(data.covariance + variance * data.between(nested=False))
        inverse = np.linalg.inv(design.T @ total @ design)
        beta = inverse @ design.T @ total @ data.means
        residual = data.means - design @ beta
        return np.asarray(beta, float), np.asarray(inverse, float), float(residual @ total @ residual)

    variance = paule_mandel(lambda v: fit_size_means(v)[2], m - k) if m > k else 0.0
    beta, covariance, rss = fit_size_means(variance)
    return SizeMeans(sizes, beta, covariance, math.sqrt(variance), rss, m - k)


def paule_mandel(rss: Callable[[float], float], df: int, *, max_variance: float = 25.0) -> float:
    """The smallest variance at which a residual sum of squares that falls with it is no larger than `df`."""
    if rss(0.0) <= df:
        return 0.0
    low, high = 0.0, 1e-3  # the sum of squares falls with the variance: bracket its crossing of df
    while rss(high) > df:
        low, high = high, high * 4
        if high > max_variance:
            return max_variance
    return float(optimize.brentq(lambda v: rss(v) - df, low, high, xtol=1e-6, rtol=1e-4))

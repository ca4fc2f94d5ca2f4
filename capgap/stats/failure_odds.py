"""Odds ratios of failure: a logistic regression on covariates of the items, with a cluster jackknife."""

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg, optimize

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats.estimate import Estimate, EstimateSet, EstimateStatus, few_clusters, refused, t_critical, t_p_value

__all__ = ["FailureRegression", "OddsRatio", "failure_regression"]

Floats = NDArray[np.float64]

MIN_OUTCOMES_PER_TERM = 5
"""Failures, and successes, that a regression needs for each coefficient."""
SEPARATION_THRESHOLD = 6.0
"""A coefficient per standard deviation beyond this is looked at for separation."""
ODDS_METHOD = "logistic regression, cluster jackknife t"


@dataclass(frozen=True)
class OddsRatio:
    """The odds ratio of one covariate."""

    name: str
    """The covariate; for words ``name = level``, against the most frequent level."""
    odds_ratio: Estimate
    """Odds of failure per unit, the other covariates held; against 1. Its `std_error` is that of the logarithm."""
    odds_ratio_per_sd: float
    """The same per standard deviation, for comparing covariates; NaN where it is refused."""


@dataclass(frozen=True)
class FailureRegression(EstimateSet):
    """Odds ratios of failure."""

    terms: tuple[OddsRatio, ...]
    """Covariates in the order given."""
    n: int
    """Responses."""
    n_failures: int
    """Those that failed."""
    n_clusters: int
    """Clusters."""
    status: EstimateStatus = "ok"
    """``ok`` or ``refused``."""

    @property
    def heading(self) -> str:
        """Failures, responses and clusters."""
        heading_text = f"Odds ratios of failure: {self.n_failures} failures of {self.n} in {self.n_clusters} clusters"
        return heading_text + (", refused" if self.status == "refused" else "")

    def estimates(self) -> Iterator[tuple[dict[str, Any], Estimate]]:
        """The odds ratio of each covariate; `std_error` is that of its logarithm."""
        for term in self.terms:
            yield {"term": term.name, "odds_ratio_per_sd": term.odds_ratio_per_sd}, term.odds_ratio


def failure_regression(
    is_failure: ArrayLike,
    covariates: Mapping[str, ArrayLike],
    clusters: ArrayLike,
    *,
    conf_level: float = 0.95,
) -> FailureRegression:
    """How failure goes with depth, length, frequency, format and the like.

    Parameters
    ----------
    is_failure
        1 failed, 0 did not, shape (n,): one model's items, or responses of several models.
    covariates
        By name: numbers, shape (n,), which enter as they are (take logarithms before), or words, of which the most
        frequent one is the reference. Rows with a NaN (or a None among words) are left out.
    clusters
        What stands or falls together, shape (n,): the item where several models answered it, its passage or template.
    conf_level
        Of the intervals.

    Returns
    -------
    FailureRegression
        A covariate that does not vary, repeats others or separates failures from successes is refused by name, and
        the rest is estimated without it.

    Raises
    ------
    EstimationError
        Shapes disagree or an outcome is neither 0 nor 1.

    Notes
    -----
    Fitted by maximum likelihood (statsmodels). Variance: ``(G-1)/G sum_g d_g d_g'`` with ``d_g = (H - H_g)^-1 s_g``,
    the one-step delete-one-cluster jackknife, and t with G - p degrees of freedom. Odds ratios are those of a mean
    over items (marginal), nearer to 1 than those within an item. Separation is found by a linear programme.

    References
    ----------
    Konis, K. (2007). Linear programming algorithms for detecting separated data in binary logistic regression models.
    DPhil thesis, Oxford; Pregibon, D. (1981). Logistic regression diagnostics. Ann. Statist. 9, 705-724.
    """
    y = np.asarray(is_failure, dtype=float)
    group = np.asarray(clusters)
    if y.ndim != 1 or group.shape != y.shape:
        raise EstimationError(f"failure and clusters need one shape (n,), found {y.shape} and {group.shape}.")
    if (np.isfinite(y) & (y != 0) & (y != 1)).any():
        raise EstimationError("failure is 1 or 0; other scores have no odds.")
    columns, is_complete = _columns(covariates, len(y))
    is_complete &= np.isfinite(y)
    y, code = y[is_complete], np.unique(group[is_complete], return_inverse=True)[1]
    columns = {name: values[is_complete] for name, values in columns.items()}
    n_left_out = int((~is_complete).sum())
    incomplete_row_remarks = [remark(Reason.INCOMPLETE_ROWS, n=n_left_out, of=len(is_complete))] if n_left_out else []
    n, n_failures, n_clusters = len(y), int(y.sum()), int(code.max(initial=-1)) + 1
    reason = None
    if min(n_failures, n - n_failures) < MIN_OUTCOMES_PER_TERM:
        n_rarer_outcome, kind = (n_failures, "failures") if 2 * n_failures <= n else (n - n_failures, "successes")
        reason = remark(Reason.FEW_OUTCOMES, n=n_rarer_outcome, kind=kind, of=n, least=MIN_OUTCOMES_PER_TERM)
    elif not columns:
        reason = remark(Reason.NO_COVARIATE)
    if reason is not None:
        return FailureRegression((), n, n_failures, n_clusters, "refused", remarks=(reason,))
    dropped_terms = _find_inestimable_terms(columns, min(n_failures, n - n_failures))
    terms: dict[str, OddsRatio] = {}
    while True:
        names = [name for name in columns if name not in dropped_terms]
        if not names:
            break
        x = np.column_stack([columns[name] for name in names])
        beta, covariance, separating_columns = _fit_logistic(x, y, code)
        if not separating_columns:
            terms = _compute_odds_ratios(names, x, beta, covariance, (n, n_clusters), conf_level)
            break
        separating_names = [names[j] for j in separating_columns]
        dropped_terms |= dict.fromkeys(separating_names, remark(Reason.SEPARATION, names=separating_names))
    for name, refusal in dropped_terms.items():
        terms[name] = OddsRatio(name, refused(refusal, n_items=n, n_clusters=n_clusters, method=ODDS_METHOD), math.nan)
    ordered_odds_ratios = tuple(terms[name] for name in columns)
    return FailureRegression(ordered_odds_ratios, n, n_failures, n_clusters, remarks=tuple(incomplete_row_remarks))


def _columns(covariates: Mapping[str, ArrayLike], n: int) -> tuple[dict[str, Floats], NDArray[np.bool_]]:
    """Numbers and indicators by name, and the rows in which all are known."""
    columns: dict[str, Floats] = {}
    is_complete = np.ones(n, dtype=bool)
    for name, raw in covariates.items():
        values = np.asarray(raw)
        if values.shape != (n,):
            raise EstimationError(f"covariate {name!r}: {n} responses need as many values, found shape {values.shape}.")
        if values.dtype.kind in "biuf":
            columns[name] = values.astype(float)
            is_complete &= np.isfinite(columns[name])
            continue
        missing = np.array([v is None or v != v for v in values], dtype=bool)
        is_complete &= ~missing
        words, counts = np.unique(values[~missing].astype(str), return_counts=True)
        reference = words[np.argmax(counts)] if len(words) else ""
        text = np.where(missing, "", values.astype(str))
        if len(words) < 2:
            columns[name] = np.zeros(n)  # one word: refused as a constant
        columns |= {f"{name} = {word}": (text == word).astype(float) for word in words if word != reference}
    return columns, is_complete


def _find_inestimable_terms(columns: dict[str, Floats], n_rarer_outcome: int) -> dict[str, Remark]:
    """Covariates that do not vary, repeat those before them, or are too many, with the reason."""
    dropped_terms: dict[str, Remark] = {}
    design = np.ones((len(next(iter(columns.values()))), 1))
    for name, values in columns.items():
        spread = values.std()
        if not spread > 1e-9 * (1 + abs(values.mean())):
            dropped_terms[name] = remark(Reason.CONSTANT_COVARIATE, name=name)
            continue
        scaled = (values - values.mean()) / spread
        residual = scaled - design @ linalg.lstsq(design, scaled)[0]
        if residual.std() < 1e-6:
            kept_names = [other for other in columns if other not in dropped_terms]
            dropped_terms[name] = remark(Reason.ALIASED_TERM, name=name, others=kept_names[: kept_names.index(name)])
        elif design.shape[1] > n_rarer_outcome / MIN_OUTCOMES_PER_TERM:
            dropped_terms[name] = remark(Reason.TOO_MANY_COVARIATES, n=n_rarer_outcome, least=MIN_OUTCOMES_PER_TERM)
        else:
            design = np.column_stack([design, scaled])
    return dropped_terms


def _fit_logistic(x: Floats, y: Floats, code: NDArray[np.intp]) -> tuple[Floats, Floats, list[int]]:
    """Coefficients without the constant, their covariance (NaN for one cluster), and columns that separate."""
    import statsmodels.api as sm  # slow to import, and few need it

    scale = x.std(axis=0)
    z = np.column_stack([np.ones(len(x)), (x - x.mean(axis=0)) / scale])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # separation is looked for below
        fit = sm.GLM(y, z, family=sm.families.Binomial()).fit(maxiter=50)
    beta = np.asarray(fit.params, dtype=float)
    nan_covariance = np.full((x.shape[1],) * 2, np.nan)
    if not fit.converged or not np.abs(beta[1:]).max() < SEPARATION_THRESHOLD:
        separating_columns = _find_separation(z, y)
        if separating_columns:
            return beta[1:], nan_covariance, separating_columns
    p = np.asarray(fit.fittedvalues, dtype=float)
    n_clusters = int(code.max()) + 1
    if n_clusters <= z.shape[1]:
        return beta[1:] / scale, nan_covariance, []
    weight, width = p * (1 - p), range(z.shape[1])
    score = np.column_stack([np.bincount(code, z[:, i] * (y - p)) for i in width]).astype(float)
    cluster_hessians = np.array([[np.bincount(code, weight * z[:, i] * z[:, j]) for j in width] for i in width])
    # H - H_g of every cluster g at once, shape (p, p, G): a step without the cluster, from the fit to all.
    jackknife_hessians = (z.T @ (weight[:, None] * z))[:, :, None] - cluster_hessians
    jackknife_steps = _solve_systems(np.moveaxis(jackknife_hessians, 2, 0), score)
    covariance = (n_clusters - 1) / n_clusters * (jackknife_steps.T @ jackknife_steps)
    return beta[1:] / scale, covariance[1:, 1:] / np.outer(scale, scale), []


def _solve_systems(matrices: Floats, vectors: Floats) -> Floats:
    """The solution of each system; the shortest where a cluster alone carries a covariate and the rest is singular."""
    try:
        return np.asarray(np.linalg.solve(matrices, vectors[:, :, None])[:, :, 0])
    except np.linalg.LinAlgError:
        return np.asarray(np.einsum("gij,gj->gi", np.linalg.pinv(matrices, rcond=1e-10, hermitian=True), vectors))


def _find_separation(z: Floats, y: Floats) -> list[int]:
    """Columns (the constant not counted) that separate the outcomes: alone where any does, else together."""
    direction = _separating_direction(z, y)
    if direction is None:
        return []
    nonzero_columns = [j for j in range(1, z.shape[1]) if abs(direction[j]) > 1e-7]
    lone_separating_columns = [j for j in nonzero_columns if _separating_direction(z[:, [0, j]], y) is not None]
    return [j - 1 for j in lone_separating_columns or nonzero_columns]


def _separating_direction(z: Floats, y: Floats) -> Floats | None:
    """A direction of the coefficients that contradicts no outcome and agrees with some; None where there is none."""
    signed_z = np.unique(np.round(z * (2 * y - 1)[:, None], 9), axis=0)
    optimum = optimize.linprog(-signed_z.sum(axis=0), A_ub=-signed_z, b_ub=np.zeros(len(signed_z)), bounds=(-1, 1))
    if not optimum.success:
        return None
    direction = np.asarray(optimum.x, dtype=float)
    return direction if (signed_z @ direction).sum() > 1e-6 * len(signed_z) else None


def _compute_odds_ratios(
    names: list[str], x: Floats, beta: Floats, covariance: Floats, size: tuple[int, int], conf_level: float
) -> dict[str, OddsRatio]:
    n, n_clusters = size
    df = float(n_clusters - x.shape[1] - 1)
    terms = {}
    for j, name in enumerate(names):
        ratio = math.exp(beta[j])
        if math.isnan(covariance[j, j]):
            reason = remark(Reason.TOO_FEW_CLUSTERS, n=n_clusters, n_coefficients=x.shape[1] + 1)
            estimate = Estimate(
                ratio, n_items=n, n_clusters=n_clusters, method=ODDS_METHOD, status="open", remarks=(reason,)
            )
        else:
            error = math.sqrt(covariance[j, j])
            half_width = t_critical(df, conf_level) * error
            ci_limits = _exp_or_infinity(beta[j] - half_width), _exp_or_infinity(beta[j] + half_width)
            p_value = t_p_value(beta[j] / error, df) if error > 0 else math.nan
            estimate = Estimate(
                ratio, error, df, *ci_limits, p_value, 1.0, n, n_clusters, ODDS_METHOD, remarks=few_clusters(n_clusters)
            )
        terms[name] = OddsRatio(name, estimate, math.exp(beta[j] * x[:, j].std()))
    return terms


def _exp_or_infinity(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf

"""Multiple imputation of doubtful labels: joint draws per task, refits, pooling by Rubin's rules."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason, remark
from capgap.stats.estimate import Estimate, EstimateSet, refused, t_critical, t_estimate

__all__ = ["PooledEstimate", "combine_draws", "sample_labels", "pool_over_labels", "apply_rubin"]

MAX_REFUSED_SHARE = 0.2
"""A number that more of the draws refuse is refused."""


@dataclass(frozen=True)
class PooledEstimate(EstimateSet):
    """One number over draws of the labels."""

    estimate: Estimate
    """The pooled number; its interval counts sampling and labels."""
    within: float
    """Mean squared standard error of the draws."""
    between: float
    """Variance of the draws' estimates: what the labels leave open."""
    n_draws: int
    """Draws behind it, those that were refused not counted."""
    n_refused: int = 0
    """Draws that gave no number."""

    @property
    def label_share(self) -> float:
        """Share of the variance that comes from the labels; NaN where there is no variance."""
        label_variance = (1 + 1 / self.n_draws) * self.between if self.n_draws else math.nan
        total = self.within + label_variance
        return label_variance / total if total > 0 else math.nan

    @property
    def heading(self) -> str:
        """How many draws, and how much of the variance is theirs."""
        share = f", labels make {100 * self.label_share:.0f} % of the variance" if self.label_share >= 0 else ""
        return f"Pooled over {self.n_draws} draws of the labels{share}"

    def estimates(self) -> Iterator[tuple[dict[str, Any], Estimate]]:
        """The pooled number."""
        yield {"n_draws": self.n_draws, "label_share": self.label_share}, self.estimate


def sample_labels(
    p_reasoning: ArrayLike, tasks: ArrayLike, *, n_draws: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Labels (reasoning or not) of the items, drawn jointly within each task.

    Parameters
    ----------
    p_reasoning
        Probability that each item asks for reasoning, shape (n,).
    tasks
        Task of each item, shape (n,).
    n_draws
        Number of draws, m.
    rng
        Draws one uniform number per task and draw.

    Returns
    -------
    ndarray
        True for reasoning, shape (m, n). Items of one task with one probability always share a label; where the
        probabilities differ within a task, the item with the larger one is reasoning whenever the other is. Each item
        by itself is reasoning with its own probability.

    Raises
    ------
    EstimationError
        A probability lies outside [0, 1], or shapes disagree.
    """
    p, task = np.asarray(p_reasoning, dtype=float), np.asarray(tasks)
    if p.ndim != 1 or task.shape != p.shape:
        raise EstimationError(f"p_reasoning and tasks need one shape (n,), found {p.shape} and {task.shape}.")
    if not ((p >= 0) & (p <= 1)).all():
        raise EstimationError("a probability of reasoning lies between 0 and 1; leave items without a label out.")
    if n_draws < 1:
        raise EstimationError(f"one draw at least is needed, found {n_draws}.")
    names, code = np.unique(task, return_inverse=True)
    # One uniform number per task and draw, compared with each item's probability: comonotone labels within a task.
    return np.asarray(rng.random((n_draws, len(names)))[:, code] < p)


def pool_over_labels(
    refit: Callable[[NDArray[np.bool_]], Mapping[str, Estimate]],
    p_reasoning: ArrayLike,
    tasks: ArrayLike,
    *,
    rng: np.random.Generator,
    n_draws: int = 20,
    conf_level: float = 0.95,
) -> dict[str, PooledEstimate]:
    """Every number of a fit, with the uncertainty of the labels in its interval.

    Parameters
    ----------
    refit
        Labels (True for reasoning, shape (n,)) to named estimates, as if the labels were certain. A draw for which
        it raises `EstimationError` counts as refused. It is called once for each distinct draw.
    p_reasoning, tasks
        As for `sample_labels`.
    rng
        Draws the labels.
    n_draws
        Number of draws, m; 20 leaves little to chance where labels make up to a third of the variance.
    conf_level
        Of the intervals.

    Notes
    -----
    The labels are drawn without a look at the outcomes. Where the labels are doubtful a difference between
    capabilities is therefore pulled towards none: the intervals are for a contrast of what is *called* reasoning. They
    are wide: where there is no difference they covered zero in all of 500 replicates with 10 % or more of them wrong.
    """
    draws = sample_labels(p_reasoning, tasks, n_draws=n_draws, rng=rng)
    fits_by_draw: dict[bytes, Mapping[str, Estimate] | EstimationError] = {}  # equal draws are fitted once
    for labels in draws:
        if labels.tobytes() not in fits_by_draw:
            try:
                fits_by_draw[labels.tobytes()] = refit(labels)
            except EstimationError as error:
                fits_by_draw[labels.tobytes()] = error
    fits = [fits_by_draw[labels.tobytes()] for labels in draws]
    names = dict.fromkeys(name for fit in fits if not isinstance(fit, EstimationError) for name in fit)
    if not names:
        raise EstimationError(f"no draw of the labels gave a number: {fits[0]}")
    absent_estimate = refused(remark(Reason.NOT_IN_DRAW))

    def estimate_of_draw(fit: Mapping[str, Estimate] | EstimationError, name: str) -> Estimate:
        if isinstance(fit, EstimationError):
            return refused(remark(Reason.ESTIMATION_FAILED, error=str(fit)))
        return fit.get(name, absent_estimate)

    return {name: combine_draws([estimate_of_draw(fit, name) for fit in fits], conf_level=conf_level) for name in names}


def combine_draws(estimates: Sequence[Estimate], *, conf_level: float = 0.95) -> PooledEstimate:
    """The same number from m draws, by Rubin's rules.

    Parameters
    ----------
    estimates
        One per draw. Each enters with its standard error, or with the one that its interval's width implies where that
        is larger: exact, score, Fieller's and MOVER intervals are wider than their standard errors say.
    conf_level
        Of the estimates' intervals and of the result's.

    Returns
    -------
    PooledEstimate
        Refused where more than a fifth of the draws gave no interval.
    """
    usable_draws = [e for e in estimates if e.status == "ok"]
    n_refused = len(estimates) - len(usable_draws)
    if not usable_draws or n_refused > MAX_REFUSED_SHARE * len(estimates):
        reasons = (draw_remark for e in estimates if e.status != "ok" for draw_remark in e.remarks)
        first_reason = next(reasons, remark(Reason.NO_ESTIMATE))
        refusal_remark = remark(Reason.DRAWS_REFUSED, n=n_refused, of=len(estimates), why=first_reason)
        return PooledEstimate(refused(refusal_remark), math.nan, math.nan, len(usable_draws), n_refused)
    if all(e == usable_draws[0] for e in usable_draws) and not n_refused:
        return PooledEstimate(usable_draws[0], _std_error(usable_draws[0], conf_level) ** 2, 0.0, len(usable_draws))
    q = np.array([e.estimate for e in usable_draws])
    u = np.array([_std_error(e, conf_level) ** 2 for e in usable_draws])
    df = _df_of_mean(u, np.array([e.df for e in usable_draws]))
    null_values = {e.null_value for e in usable_draws if not math.isnan(e.null_value)}
    null = null_values.pop() if len(null_values) == 1 else math.nan
    pooled_estimate = apply_rubin(q, u, df_complete=df, null=null, conf_level=conf_level)
    # What one odd draw remarks is not true of the whole.
    counts = Counter(draw_remark for e in usable_draws for draw_remark in dict.fromkeys(e.remarks))
    remarks = [draw_remark for draw_remark, n in counts.items() if n > len(usable_draws) / 2]
    remarks += [remark(Reason.SOME_DRAWS_REFUSED, n=n_refused, of=len(estimates))] if n_refused else []
    estimate = replace(
        pooled_estimate.estimate,
        n_items=int(np.median([e.n_items for e in usable_draws])),
        n_clusters=int(np.median([e.n_clusters for e in usable_draws])),
        method=f"{usable_draws[0].method}; {pooled_estimate.estimate.method}",
        remarks=tuple(remarks),
    )
    return replace(pooled_estimate, estimate=estimate, n_refused=n_refused)


def _df_of_mean(variances: NDArray[np.float64], df: NDArray[np.float64]) -> float:
    """Degrees of freedom of the mean of variance estimates that all rise and fall together.

    An estimate with k degrees of freedom has the coefficient of variation sqrt(2 / k). Draws share their data, so those
    of the draws add up as they do without independence; the least of the draws' degrees would let one odd draw decide.
    """
    df_or_infinity = np.where(np.isnan(df), math.inf, df)
    spread = float((variances / np.sqrt(df_or_infinity)).sum())
    return (float(variances.sum()) / spread) ** 2 if spread > 0 else math.inf


def apply_rubin(
    estimates: ArrayLike,
    variances: ArrayLike,
    *,
    df_complete: float = math.inf,
    null: float = 0.0,
    conf_level: float = 0.95,
) -> PooledEstimate:
    """Rubin's rules with the degrees of freedom of Barnard and Rubin.

    Parameters
    ----------
    estimates, variances
        Estimates and squared standard errors of the draws, shape (m,).
    df_complete
        Degrees of freedom that one draw has by itself.
    null
        Value to test against; NaN for no test.
    conf_level
        Of the interval.

    Notes
    -----
    ``T = U + (1 + 1/m) B``; with ``l = (1 + 1/m) B / T``, ``1/df = l²/(m - 1) + 1/df_obs``,
    ``df_obs = (1 - l) df_complete (df_complete + 1)/(df_complete + 3)``.

    References
    ----------
    Rubin, D. B. (1987). Multiple Imputation for Nonresponse in Surveys; Barnard, J. & Rubin, D. B. (1999).
    Small-sample degrees of freedom with multiple imputation. Biometrika 86, 948-955.
    """
    q, u = np.asarray(estimates, dtype=float), np.asarray(variances, dtype=float)
    if q.ndim != 1 or q.shape != u.shape or not len(q):
        raise EstimationError(f"estimates and variances need one shape (m,), m > 0, found {q.shape} and {u.shape}.")
    if not (np.isfinite(q).all() and np.isfinite(u).all() and (u >= 0).all()):
        raise EstimationError("a draw has no finite estimate and variance: leave refused draws out and count them.")
    m = len(q)
    mean_draw_variance = float(u.mean())
    between_variance = float(q.var(ddof=1)) if m > 1 else 0.0
    label_variance = (1 + 1 / m) * between_variance
    total = mean_draw_variance + label_variance
    mean = float(q.mean())
    method = f"Rubin's rules over {m} draws of the labels"
    if not total > 0:
        reason = remark(Reason.NO_DRAW_VARIANCE)
        point = Estimate(mean, null_value=null, method=method, status="open", remarks=(reason,))
        return PooledEstimate(point, mean_draw_variance, between_variance, m)
    share = label_variance / total
    df_shrink_factor = 1.0 if math.isinf(df_complete) else (df_complete + 1) / (df_complete + 3)
    observed = math.inf if math.isinf(df_complete) else df_complete * df_shrink_factor * (1 - share)
    # Without a difference between the draws the first term is zero and the draws' own degrees of freedom stay.
    inverse = (share**2 / (m - 1) if m > 1 else 0.0) + (1 / observed if observed > 0 else math.inf)
    df = max(1 / inverse, 1.0) if inverse > 0 else math.inf
    if share == 0:
        df = df_complete
    estimate = t_estimate(mean, math.sqrt(total), df, conf_level, null=null, method=method)
    return PooledEstimate(estimate, mean_draw_variance, between_variance, m)


def _std_error(e: Estimate, conf_level: float) -> float:
    """The standard error, or the one that the interval's width implies where that is larger."""
    df = e.df if math.isfinite(e.df) else math.inf
    implied_std_error = (e.conf_high - e.conf_low) / (2 * t_critical(df, conf_level))
    return float(np.nanmax([e.std_error, implied_std_error]))

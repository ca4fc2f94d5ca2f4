"""Accuracies and paired differences with intervals that never have zero width."""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from capgap.schema.remarks import Reason, remark
from capgap.stats.binary import mcnemar_exact, tango_interval, tango_p_value, wilson_interval
from capgap.stats.estimate import Estimate, few_clusters, no_variation_bound, t_critical, t_estimate
from capgap.stats.stratified import Design, StratifiedMean

Floats = NDArray[np.float64]

SMALL_SAMPLE = 30
"""Below so many independent items a paired difference of right and wrong gets a score interval instead of t."""
FEW_DISCORDANT = 10
"""Likewise below so many items on which the two models differ."""
VARIANCE_TOLERANCE = 1e-16
"""A variance below this is rounding: one differing item among ten million has more."""


def accuracy(
    scores: ArrayLike, design: Design, *, chance: ArrayLike | None = None, conf_level: float = 0.95
) -> Estimate:
    """A mean score with an interval inside [0, 1].

    Parameters
    ----------
    scores
        Scores in [0, 1], shape (n,).
    design
        Strata, clusters and weights of the items; the weights sum to 1.
    chance
        Expected score of a guess, shape (n,) or one number, NaN where unknown; becomes `null_value`.
    conf_level
        Of the interval.

    Notes
    -----
    Right or wrong answers of items that stand alone, in one stratum: Wilson's interval. Anything else: Wilson's formula
    with t in place of z and the effective number of items p (1 - p) / V in place of n, V the CR2 variance, so that it
    stays inside [0, 1] (Korn & Graubard 1998 with Wilson's interval, see Franco et al. 2019). Without any variation the
    bound of `no_variation_bound`.
    """
    y = np.asarray(scores, dtype=float)
    fit = design.fit(y)
    design = fit.design
    n, g = design.n_items, design.n_clusters
    null = _chance_of(y, design, chance)
    p = float(np.clip(fit.theta[0], 0.0, 1.0))
    if design.is_simple_random and _has_only_allowed(y, (0.0, 1.0)):
        low, high = wilson_interval(p, n, critical=t_critical(math.inf, conf_level))
        error = math.sqrt(p * (1 - p) / (n - 1)) if n > 1 and 0 < p < 1 else math.nan
        return Estimate(p, error, math.nan, low, high, _score_p_value(p, null, n), null, n, g, "Wilson")
    t_based_estimate = mean_estimate(fit, null=null, bounds=(0.0, 1.0), conf_level=conf_level)
    if t_based_estimate.status != "ok" or not t_based_estimate.std_error > 0:
        return t_based_estimate
    n_effective = max(p * (1 - p), 1e-12) / t_based_estimate.std_error**2
    low, high = wilson_interval(p, n_effective, critical=t_critical(fit.df, conf_level))
    method = "Wilson with effective n (CR2, Bell-McCaffrey t)"
    return replace(t_based_estimate, estimate=p, df=fit.df, conf_low=low, conf_high=high, method=method)


def paired_difference(differences: ArrayLike, design: Design, *, conf_level: float = 0.95) -> Estimate:
    """The mean difference of two models' scores on the same items.

    Parameters
    ----------
    differences
        First minus second score, item by item, shape (n,).
    design
        Strata, clusters and weights of the items; negative weights give a contrast.
    conf_level
        Of the interval.

    Notes
    -----
    CR2 with Bell-McCaffrey t. Where right and wrong answers of items that stand alone are few (`SMALL_SAMPLE`) or
    hardly differ (`FEW_DISCORDANT`): Tango's score interval and the exact McNemar p-value. Several tasks enter it with
    their weighted shares of discordant items and the effective number of items (see `discordant_table`); the exact
    p-value counts the discordant items of all tasks, whose sign is a coin's where no task has a gap, and the score
    test's stands where it is larger: tasks that weigh alike may differ most where they are small. In clusters, few of
    which hold any discordant item: Tango's interval and the score test with the effective number of items.
    """
    d = np.asarray(differences, dtype=float)
    fit = design.fit(d)
    table = discordant_table(d, fit)
    if table is not None:
        n, g = fit.design.n_items, fit.design.n_clusters
        low, high = tango_interval(*table, conf_level=conf_level)
        error = math.sqrt(fit.covariance[0, 0]) if fit.covariance[0, 0] > VARIANCE_TOLERANCE else math.nan
        score = tango_p_value(*table)
        if g < n:
            method, p_value = "Tango score interval and test, effective items", score
        else:
            method, p_value = "Tango score interval, exact McNemar", mcnemar_exact(*_count_signs(d))
            p_value = max(p_value, score) if len(fit.design.counts) > 1 else p_value
        remarks = few_clusters(g) if g < n else ()
        return Estimate(float(fit.theta[0]), error, math.nan, low, high, p_value, 0.0, n, g, method, remarks=remarks)
    max_difference = float(np.abs(fit.design.weights).sum())
    return mean_estimate(fit, bounds=(-max_difference, max_difference), conf_level=conf_level)


def has_few_discordant(differences: Floats, design: Design) -> bool:
    """Whether finite differences are those of right and wrong answers, and few or hardly any of them are not zero.

    In clusters: fewer than `FEW_DISCORDANT` clusters, and at most half of them all, hold any that is not.
    """
    if not design.is_weighted_mean:
        return False
    nonzero = np.count_nonzero(differences)
    if design.has_independent_items and design.n_items >= SMALL_SAMPLE and nonzero >= FEW_DISCORDANT:
        return False
    if not _has_only_allowed(differences, (-1.0, 0.0, 1.0)):
        return False
    if design.has_independent_items:
        return True
    n_hit_clusters = len(np.unique(design.cluster[differences != 0])) if nonzero else 0
    return design.refusal is None and 0 < n_hit_clusters < FEW_DISCORDANT and 2 * n_hit_clusters <= design.n_clusters


def discordant_table(differences: Floats, fit: StratifiedMean) -> tuple[float, float, float] | None:
    """Gained, lost and all items, effective numbers, where a score interval is due; None where t is.

    Notes
    -----
    Of several tasks the effective number is `Design.effective_items`, which is right where models differ alike in all
    of them, or fewer, where the variance says so: with most discordant items in a small task the former alone covered
    69 to 87 %. In clusters it is what the variance says, less what its degrees of freedom leave open (Korn & Graubard
    1998): where some of 100 or 200 clusters hold the few discordant items, t covered 83 to 90 %.
    """
    finite_differences, design = differences[np.isfinite(differences)], fit.design
    if not has_few_discordant(finite_differences, design):
        return None
    # Weighted shares of the items on which the first, and the second, model alone is right.
    gained_share, lost_share = (design.mean((finite_differences == sign).astype(float)) for sign in (1, -1))
    size, variance = design.effective_items, float(fit.covariance[0, 0])
    items_independent = design.has_independent_items
    if variance > VARIANCE_TOLERANCE and not (items_independent and len(design.counts) == 1):
        variance_implied_n = (gained_share + lost_share - (gained_share - lost_share) ** 2) / variance
        if not items_independent:
            variance_implied_n *= (t_critical(math.inf, 0.95) / t_critical(design.df, 0.95)) ** 2
        size = min(size, variance_implied_n)
    elif not items_independent:
        return None
    return gained_share * size, lost_share * size, size


def mean_estimate(
    fit: StratifiedMean,
    *,
    column: int = 0,
    null: float = 0.0,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    conf_level: float = 0.95,
) -> Estimate:
    """One estimate of a fit with its t interval, cut at the values that are possible.

    Parameters
    ----------
    fit
        From `stratified_mean`.
    column
        Which of its p estimates.
    null
        Value to test against; NaN for no test.
    bounds
        The possible values of the estimate.
    conf_level
        Of the interval.
    """
    estimate, design = float(fit.theta[column]), fit.design
    n, g = design.n_items, design.n_clusters
    if design.refusal is not None:
        return Estimate(
            estimate, null_value=null, n_items=n, n_clusters=g, method="none", status="open", remarks=(design.refusal,)
        )
    variance = float(fit.covariance[column, column])
    if variance <= VARIANCE_TOLERANCE:
        return _exact_bound_estimate(design, estimate, null, bounds, conf_level)
    return t_estimate(
        estimate,
        math.sqrt(variance),
        fit.df,
        conf_level,
        null=null,
        bounds=bounds,
        n_items=n,
        n_clusters=g,
        method="CR2, Bell-McCaffrey t",
        remarks=(*few_clusters(g), *fit.variance_remarks(column)),
    )


def _exact_bound_estimate(
    design: Design, estimate: float, null: float, bounds: tuple[float, float], conf_level: float
) -> Estimate:
    """The estimate of a sample in which nothing varies: an exact bound instead of a false certainty."""
    max_deviation = no_variation_bound(design.n_effective, conf_level)
    # From a constant above zero a difference may move by more than 1 before it meets its lowest value.
    scale = float(np.abs(design.weights).sum())
    down, up = (max(1.0, d / scale) if math.isfinite(d) else 1.0 for d in (estimate - bounds[0], bounds[1] - estimate))
    p_value = math.nan
    if math.isfinite(null):
        # The bound solved for its level; n agreeing signs alone cannot be rarer than 2^(1 - n)
        span = down if estimate > null else up
        bound_p_value = 2 * max(0.0, 1 - abs(estimate - null) / span) ** design.n_effective
        p_value = min(1.0, max(bound_p_value, 2.0 ** (1 - min(design.n_clusters, 1000))))
    return Estimate(
        estimate=estimate,
        conf_low=max(bounds[0], estimate - max_deviation * down),
        conf_high=min(bounds[1], estimate + max_deviation * up),
        p_value=p_value,
        null_value=null,
        n_items=design.n_items,
        n_clusters=design.n_clusters,
        method="exact bound",
        remarks=(remark(Reason.NO_VARIATION_EXACT_BOUND), *few_clusters(design.n_clusters)),
    )


def _count_signs(differences: Floats) -> tuple[int, int]:
    return int((differences == 1).sum()), int((differences == -1).sum())


def _has_only_allowed(values: Floats, allowed_values: tuple[float, ...]) -> bool:
    """Whether the finite values are all among the allowed ones."""
    return bool((np.isin(values, allowed_values) | ~np.isfinite(values)).all())


def _chance_of(y: Floats, design: Design, chance: ArrayLike | None) -> float:
    """The chance level of the mean; NaN where chance is unknown for any of the items that count."""
    if chance is None:
        return math.nan
    level = np.broadcast_to(np.asarray(chance, dtype=float), y.shape)
    return design.mean(level[np.isfinite(y)])


def _score_p_value(share: float, null: float, n: int) -> float:
    """The test that Wilson's interval inverts; NaN where the null allows no variation."""
    if not 0 < null < 1:
        return math.nan
    return float(2 * special.ndtr(-abs(share - null) / math.sqrt(null * (1 - null) / n)))

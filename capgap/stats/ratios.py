"""Ratios of differences (gap closure, retention) and the difference of two of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats.binary import tango_interval, tango_p_value
from capgap.stats.estimate import Estimate, few_clusters, no_variation_bound, refused, t_critical, t_p_value
from capgap.stats.means import VARIANCE_TOLERANCE, discordant_table, has_few_discordant
from capgap.stats.seed_noise import MIN_SEEDS, cochran_cox_df, seed_noise
from capgap.stats.stratified import Design, StratifiedMean, cross_covariance


@dataclass(frozen=True)
class _RatioFit:
    """Numerator and denominator with their covariance."""

    numerator: float
    denominator: float
    v_nn: float
    v_nd: float
    v_dd: float
    df: float
    is_degenerate: bool
    tango_tables: tuple[tuple[float, tuple[float, float, float]], ...] = ()
    """Of a ratio near 0 or 1 (a copy of base or teacher but for few items): which, and gained, lost and all items."""

    @property
    def value(self) -> float:
        return self.numerator / self.denominator

    @property
    def variance(self) -> float:
        """By the delta method."""
        return (self.v_nn - 2 * self.value * self.v_nd + self.value**2 * self.v_dd) / self.denominator**2

    def interval(self, conf_level: float) -> tuple[float, float] | None:
        """Fieller's interval; None where it is not bounded, the denominator not being clearly unlike zero.

        Where numerator minus denominator (or the numerator) is not zero on few items only, it reaches at least as far
        as Tango's interval of that difference over the denominator.
        """
        t_squared = t_critical(self.df, conf_level) ** 2
        # Fieller: the roots of a r² - 2 b r + c; bounded where the denominator is clear of zero, a > 0.
        a = self.denominator**2 - t_squared * self.v_dd
        if not a > 0:
            return None
        b = self.numerator * self.denominator - t_squared * self.v_nd
        c = self.numerator**2 - t_squared * self.v_nn
        root = math.sqrt(max(b * b - a * c, 0.0))
        low, high = (b - root) / a, (b + root) / a
        for anchor, table in self.tango_tables:  # N - near D as a difference of few discordant items, over D
            ends = tango_interval(*table, conf_level=conf_level)
            low, high = min(low, anchor + ends[0] / self.denominator), max(high, anchor + ends[1] / self.denominator)
        return low, high

    @property
    def p_value(self) -> float:
        """That the ratio is zero; NaN where nothing tells."""
        if not self.v_nn > 0:
            return math.nan
        p_value = t_p_value(self.numerator / math.sqrt(self.v_nn), self.df)
        for anchor, table in self.tango_tables:
            if anchor == 0 and table[0] + table[1] > 0:
                p_value = max(p_value, tango_p_value(*table))
        return p_value


def ratio_of_means(fit: StratifiedMean, *, denominator: str = "the denominator", conf_level: float = 0.95) -> Estimate:
    """The ratio of the first to the second estimate of a fit with Fieller's interval; never clipped.

    Parameters
    ----------
    fit
        Two columns: numerator and denominator on the same items, from `stratified_mean`.
    denominator
        What the denominator is called in the reason of a refusal.
    conf_level
        Of the interval.

    Returns
    -------
    Estimate
        Refused where the denominator is not clearly above zero: its own t interval reaches zero.

    Notes
    -----
    The interval holds the ratios r for which ``(N - r D)² <= t² (V_NN - 2 r V_ND + r² V_DD)``, t with the
    Bell-McCaffrey degrees of freedom; the p-value (is the ratio 0?) is the same test at r = 0. Where no item tells
    numerator and r times denominator apart (a copy of the teacher, or of the base), the numerator gets the variance
    whose half-width is `no_variation_bound`. Where they differ on few items that stand alone, the interval reaches at
    least as far as Tango's for that difference over D: Fieller's alone covered 89 to 93 %, one-sidedly.

    References
    ----------
    Fieller, E. C. (1954). Some problems in interval estimation. JRSS B 16, 175-185. Here with CR2 covariances.
    """
    return _fieller_estimate(fit, _estimate_ratio(fit, denominator, conf_level), conf_level)


def seed_ratio(
    numerators: ArrayLike,
    denominators: ArrayLike,
    design: Design,
    *,
    denominator: str = "the denominator",
    conf_level: float = 0.95,
) -> Estimate:
    """The ratio of means of a recipe over its seeds with Fieller's interval, which counts items and seeds.

    Parameters
    ----------
    numerators
        Numerator of each seed on each item, shape (seeds, items).
    denominators
        Denominator on each item, the same for all seeds, shape (items,). Items with a value that is not finite, here or
        there, are left out.
    design
        Strata, clusters and weights of the items.
    denominator
        What the denominator is called in the reason of a refusal.
    conf_level
        Of the interval.

    Returns
    -------
    Estimate
        Refused with fewer than three seeds, and as `ratio_of_means`.

    Notes
    -----
    Fieller's interval of the mean over seeds, in which the numerator has the seeds' variance too and the critical value
    is the mean of t with Bell-McCaffrey's and with S - 1 degrees of freedom, weighted by the variances of N - r D over
    items and of the seeds (Cochran & Cox 1950), as in `seed_difference`.
    """
    values, d = np.asarray(numerators, dtype=float), np.asarray(denominators, dtype=float)
    if len(values) < MIN_SEEDS:
        return refused(remark(Reason.FEW_SEEDS, n=len(values), least=MIN_SEEDS), n_items=design.n_items)
    finite = np.isfinite(values).all(axis=0) & np.isfinite(d)
    values, d, design = values[:, finite], d[finite], design.subset(finite)
    fit = design.fit(np.column_stack([values.mean(axis=0), d]))
    terms = _estimate_ratio(fit, denominator, conf_level)
    if isinstance(terms, Remark):
        return _fieller_estimate(fit, terms, conf_level)
    noise = seed_noise(values, design)
    v_seeds = max(noise.between_seed_variance, noise.variance - terms.v_nn)
    if not v_seeds > 0:
        return _fieller_estimate(fit, terms, conf_level)
    over_items = max(terms.variance * terms.denominator**2, 0.0)
    df = cochran_cox_df((over_items, terms.df), (v_seeds, len(values) - 1.0), conf_level)
    with_seeds = replace(terms, v_nn=terms.v_nn + v_seeds, df=df, is_degenerate=False)
    if with_seeds.interval(conf_level) is None:  # the seeds' wider critical value reaches zero below
        half = t_critical(df, conf_level) * math.sqrt(terms.v_dd)
        ends = {"low": terms.denominator - half, "high": terms.denominator + half}
        return refused(
            remark(Reason.DENOMINATOR_NEAR_ZERO, denominator=denominator, value=terms.denominator, **ends),
            n_items=design.n_items,
            n_clusters=design.n_clusters,
        )
    return replace(_fieller_estimate(fit, with_seeds, conf_level), method="Fieller (items CR2, seeds), Cochran-Cox t")


def _fieller_estimate(fit: StratifiedMean, ratio: _RatioFit | Remark, conf_level: float) -> Estimate:
    """The ratio with its interval, or its refusal."""
    n_items, n_clusters = fit.design.n_items, fit.design.n_clusters
    if isinstance(ratio, Remark):
        return refused(ratio, n_items=n_items, n_clusters=n_clusters)
    interval = ratio.interval(conf_level)
    assert interval is not None  # refused otherwise
    exact_remarks = [remark(Reason.EXACT_RATIO)] if ratio.is_degenerate else []
    return Estimate(
        ratio.value,
        math.nan if ratio.is_degenerate else math.sqrt(ratio.variance),
        ratio.df,
        *interval,
        ratio.p_value,
        0.0,
        n_items,
        n_clusters,
        "Fieller (CR2, Bell-McCaffrey t)",
        remarks=(*exact_remarks, *few_clusters(n_clusters), *(fit.variance_remarks() or fit.variance_remarks(1))),
    )


def ratio_difference(
    fit_a: StratifiedMean,
    fit_b: StratifiedMean,
    *,
    names: tuple[str, str] = ("first", "second"),
    denominator: str = "the denominator",
    conf_level: float = 0.95,
) -> Estimate:
    """The difference of two ratios, first minus second, by MOVER from their Fieller intervals.

    Parameters
    ----------
    fit_a, fit_b
        Two-column fits (numerator, denominator) whose cluster codes mean the same clusters.
    names
        What the two are called in the reason of a refusal.
    denominator
        What the denominator is called there.
    conf_level
        Of the interval.

    Returns
    -------
    Estimate
        `p_value` is the level at which the interval first touches 0; refused where either ratio is.

    Notes
    -----
    With ratios r and intervals (l, u): lower end ``r1 - r2 - sqrt((r1-l1)² + (u2-r2)² - 2 rho (r1-l1)(u2-r2))``, the
    upper one likewise. rho is the correlation of the two ratios (delta method) through shared clusters: zero where no
    cluster spans both.

    References
    ----------
    Zou, G. Y. & Donner, A. (2008). Construction of confidence limits about effect measures. Statistics in Medicine 27,
    1693-1702; Zou, G. Y. (2007). Toward using confidence intervals to compare correlations. Psychological Methods 12,
    399-413 (for the dependent case).
    """
    n_items = fit_a.design.n_items + fit_b.design.n_items
    n_clusters = len(np.union1d(fit_a.design.clusters, fit_b.design.clusters))
    ratio_a, ratio_b = (_estimate_ratio(fit, denominator, conf_level) for fit in (fit_a, fit_b))
    for ratio, name in ((ratio_a, names[0]), (ratio_b, names[1])):
        if isinstance(ratio, Remark):
            return refused(ratio.of(name), n_items=n_items, n_clusters=n_clusters)
    assert isinstance(ratio_a, _RatioFit)
    assert isinstance(ratio_b, _RatioFit)
    rho = _correlate_ratios(fit_a, fit_b, ratio_a, ratio_b)

    def interval(level: float) -> tuple[float, float] | None:
        ci_a, ci_b = ratio_a.interval(level), ratio_b.interval(level)
        return None if ci_a is None or ci_b is None else _mover(ratio_a.value, ci_a, ratio_b.value, ci_b, rho)

    ci_limits = interval(conf_level)
    assert ci_limits is not None  # both were bounded at this level
    is_degenerate = ratio_a.is_degenerate or ratio_b.is_degenerate
    cluster_remarks = [
        cluster_remark.of(name)
        for fit, name in zip((fit_a, fit_b), names, strict=True)
        for cluster_remark in few_clusters(fit.design.n_clusters)
    ]
    exact_ratio_remarks = [
        remark(Reason.EXACT_RATIO).of(name)
        for ratio, name in zip((ratio_a, ratio_b), names, strict=True)
        if ratio.is_degenerate
    ]
    return Estimate(
        estimate=ratio_a.value - ratio_b.value,
        std_error=math.nan if is_degenerate else _combine_std_errors(ratio_a, ratio_b, rho),
        conf_low=ci_limits[0],
        conf_high=ci_limits[1],
        p_value=_inverted_p_value(interval),
        null_value=0.0,
        n_items=n_items,
        n_clusters=n_clusters,
        method="MOVER of two Fieller intervals" + (", dependent" if rho else ""),
        remarks=(*cluster_remarks, *exact_ratio_remarks),
    )


def _estimate_ratio(fit: StratifiedMean, denominator: str, conf_level: float) -> _RatioFit | Remark:
    """The ratio of a fit, or the reason why there is none."""
    if fit.theta.shape != (2,):
        raise EstimationError(f"a ratio needs numerator and denominator, found {fit.theta.shape[0]} columns.")
    if fit.design.refusal is not None:
        return fit.design.refusal
    n, d = map(float, fit.theta)
    v_nn, v_nd, v_dd = float(fit.covariance[0, 0]), float(fit.covariance[0, 1]), float(fit.covariance[1, 1])
    critical = t_critical(fit.df, conf_level)
    # The variance whose t half-width is the exact bound of a sample without variation.
    floor = (no_variation_bound(fit.design.n_effective, conf_level) / critical) ** 2
    if v_dd <= VARIANCE_TOLERANCE:
        v_dd = floor
    half_ci = critical * math.sqrt(v_dd)
    if not d - half_ci > 0:
        return remark(Reason.DENOMINATOR_NEAR_ZERO, denominator=denominator, value=d, low=d - half_ci, high=d + half_ci)
    r = n / d
    # Var(N - r D) is zero where every item says the same ratio: a copy of the teacher, or of the base.
    degenerate = float(fit.covariance[0, 0]) - 2 * r * v_nd + r**2 * float(fit.covariance[1, 1]) <= VARIANCE_TOLERANCE
    tango_tables = []
    for anchor in (0.0, 1.0):
        difference = fit.values[:, 0] - anchor * fit.values[:, 1]
        if has_few_discordant(difference, fit.design):
            table = discordant_table(difference, fit.design.fit(difference))
            tango_tables += [(anchor, table)] if table is not None else []
    return _RatioFit(n, d, v_nn + (floor if degenerate else 0.0), v_nd, v_dd, fit.df, degenerate, tuple(tango_tables))


def _correlate_ratios(fit_a: StratifiedMean, fit_b: StratifiedMean, ratio_a: _RatioFit, ratio_b: _RatioFit) -> float:
    """Correlation of two ratios through the clusters that their items share."""
    if not (ratio_a.variance > 0 and ratio_b.variance > 0):
        return 0.0
    # Delta method: the gradient of N / D in (N, D) is (1, -r) / D.
    gradient1 = np.array([1.0, -ratio_a.value]) / ratio_a.denominator
    gradient2 = np.array([1.0, -ratio_b.value]) / ratio_b.denominator
    covariance = float(gradient1 @ cross_covariance(fit_a, fit_b) @ gradient2)
    return max(-1.0, min(1.0, covariance / math.sqrt(ratio_a.variance * ratio_b.variance)))


def _combine_std_errors(ratio_a: _RatioFit, ratio_b: _RatioFit, rho: float) -> float:
    covariance = rho * math.sqrt(ratio_a.variance * ratio_b.variance)
    return math.sqrt(max(ratio_a.variance + ratio_b.variance - 2 * covariance, 0.0))


def _mover(r1: float, ci1: tuple[float, float], r2: float, ci2: tuple[float, float], rho: float) -> tuple[float, float]:
    """Limits of r1 - r2 from the limits of both."""
    lower_margin1, upper_margin1 = r1 - ci1[0], ci1[1] - r1
    lower_margin2, upper_margin2 = r2 - ci2[0], ci2[1] - r2
    lower_width = math.sqrt(max(lower_margin1**2 + upper_margin2**2 - 2 * rho * lower_margin1 * upper_margin2, 0.0))
    upper_width = math.sqrt(max(upper_margin1**2 + lower_margin2**2 - 2 * rho * upper_margin1 * lower_margin2, 0.0))
    return r1 - r2 - lower_width, r1 - r2 + upper_width


def _inverted_p_value(interval: Callable[[float], tuple[float, float] | None]) -> float:
    """1 minus the largest level at which the interval leaves out 0; an unbounded interval leaves nothing out."""

    def excludes_zero(alpha: float) -> bool:
        ci_limits = interval(1 - alpha)
        return ci_limits is not None and not ci_limits[0] <= 0 <= ci_limits[1]

    # Bisection on log alpha: zero is inside the interval at `inside`, outside of it at `outside`.
    log_alpha_with_zero, log_alpha_without_zero = math.log(1e-12), math.log(1.0 - 1e-12)
    if not excludes_zero(math.exp(log_alpha_without_zero)):
        return 1.0
    if excludes_zero(math.exp(log_alpha_with_zero)):
        return math.exp(log_alpha_with_zero)
    for _ in range(50):
        midpoint_log_alpha = (log_alpha_with_zero + log_alpha_without_zero) / 2
        if excludes_zero(math.exp(midpoint_log_alpha)):
            log_alpha_without_zero = midpoint_log_alpha
        else:
            log_alpha_with_zero = midpoint_log_alpha
    return math.exp(log_alpha_without_zero)

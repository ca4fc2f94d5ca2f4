"""Intervals and tests for binary scores of independent items: Wilson, Clopper-Pearson, Tango, exact McNemar."""

import math
from functools import lru_cache

from scipy import special
from statsmodels.stats.contingency_tables import mcnemar

from capgap.errors import EstimationError


def wilson_interval(share: float, n: float, *, critical: float) -> tuple[float, float]:
    """The score interval of a share of `n` independent items.

    Parameters
    ----------
    share
        The observed share, 0 to 1.
    n
        Number of items; an effective number where items are dependent or weighted.
    critical
        Critical value of the normal, or of t where the variance behind `n` was estimated.

    References
    ----------
    Wilson, E. B. (1927). Probable inference, the law of succession, and statistical inference. JASA 22, 209-212.
    """
    if not n > 0:
        raise EstimationError("a share of no item has no interval.")
    # Not statsmodels' `proportion_confint`, which knows no critical value but the normal's; a test holds both together.
    z_squared = critical**2
    centre = (share + z_squared / (2 * n)) / (1 + z_squared / n)
    half_width = critical / (1 + z_squared / n) * math.sqrt(max(share * (1 - share), 0.0) / n + z_squared / (4 * n**2))
    return max(0.0, centre - half_width), min(1.0, centre + half_width)


def clopper_pearson_lower(n_events: float, n: float, *, level: float = 0.95) -> float:
    """The exact lower bound of a share, one-sided at `level`; 0 where no event was seen.

    Parameters
    ----------
    n_events, n
        Events and trials; fractions of events where trials are averages.

    References
    ----------
    Clopper, C. J. & Pearson, E. S. (1934). The use of confidence or fiducial limits. Biometrika 26, 404-413.
    """
    return float(special.betaincinv(n_events, n - n_events + 1, 1 - level)) if n_events > 0 else 0.0


def tango_statistic(n_gained: float, n_lost: float, n: float, null_difference: float) -> float:
    """Tango's score statistic, standard normal where the true difference of the two shares is `null_difference`.

    Parameters
    ----------
    n_gained, n_lost, n
        As for `tango_interval`.
    null_difference
        The difference that is tested; positive statistics say that the observed one is larger.
    """
    b = (2 * n - n_gained + n_lost) * null_difference - n_gained - n_lost
    root = math.sqrt(max(b * b + 8 * n * n_lost * null_difference * (1 - null_difference), 0.0))
    q = (root - b) / (4 * n)
    variance = n * (2 * q + null_difference * (1 - null_difference))
    distance = n_gained - n_lost - n * null_difference
    return math.copysign(math.inf, distance) if variance <= 0 else distance / math.sqrt(variance)


def tango_p_value(n_gained: float, n_lost: float, n: float) -> float:
    """The two-sided p-value of Tango's test that the two shares are equal; arguments as for `tango_interval`."""
    return float(2 * special.ndtr(-abs(tango_statistic(n_gained, n_lost, n, 0.0)))) if n_gained + n_lost > 0 else 1.0


@lru_cache(maxsize=4096)
def tango_interval(n_gained: float, n_lost: float, n: float, *, conf_level: float = 0.95) -> tuple[float, float]:
    """The score interval of ``(gained - lost) / n``, the difference of two shares on the same items.

    Parameters
    ----------
    n_gained, n_lost
        Items that the first model alone, and the second model alone, answers rightly; effective numbers where tasks
        are weighted.
    n
        All items, those where both agree included.

    Notes
    -----
    The ends are the differences D at which ``(gained - lost - n D) / sqrt(n (2 q + D (1 - D)))`` is the critical
    value, q being the maximum-likelihood share of lost items under D. Never of zero width: with no discordant item it
    is ``± z² / (n + z²)``.

    References
    ----------
    Tango, T. (1998). Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design. Statistics in Medicine 17, 891-908.
    """
    if not n > 0 or n_gained < 0 or n_lost < 0 or n_gained + n_lost > n * (1 + 1e-9):
        raise EstimationError(f"{n_gained:g} and {n_lost:g} discordant items of {n:g} make no table.")
    z = float(special.ndtri(0.5 + conf_level / 2))
    point = (n_gained - n_lost) / n

    def end(excluded_difference: float) -> float:
        included_difference = point
        for _ in range(50):
            midpoint_difference = (included_difference + excluded_difference) / 2
            if abs(tango_statistic(n_gained, n_lost, n, midpoint_difference)) > z:
                excluded_difference = midpoint_difference
            else:
                included_difference = midpoint_difference
        return (included_difference + excluded_difference) / 2

    low = -1.0 if n_lost >= n else end(-1.0)
    high = 1.0 if n_gained >= n else end(1.0)
    return low, high


def mcnemar_exact(n_gained: int, n_lost: int) -> float:
    """The exact two-sided p-value that gained and lost items are equally likely; 1 where there is neither.

    References
    ----------
    McNemar, Q. (1947). Note on the sampling error of the difference between correlated proportions or percentages.
    Psychometrika 12, 153-157. Here by the binomial tail, doubled.
    """
    return float(mcnemar([[0, n_gained], [n_lost, 0]], exact=True).pvalue)

import numpy as np
import pytest
from scipy import special, stats
from statsmodels.stats.proportion import proportion_confint

from capgap.errors import EstimationError
from capgap.stats import mcnemar_exact, tango_interval, wilson_interval
from tests.stats.references import tango_statistic

Z = 1.959963984540054


@pytest.mark.parametrize(
    ("gained", "lost", "n", "level", "low", "high", "digits"),
    [
        # Bentur et al. 2009 in Fagerland, Lydersen & Laake, Statistical Analysis of Contingency Tables, chapter 8.
        (1, 7, 21, 0.95, -0.517, -0.026, 3),
        # Newcombe 1998 (Statistics in Medicine 17, 2635): 12 and 2 discordant of 50.
        (12, 2, 50, 0.95, 0.0611, 0.3447, 4),
        # R, PropCIs::scoreci.mp(25, 28, 618, 0.90), whose difference is second minus first.
        (28, 25, 618, 0.90, -0.0148, 0.0247, 4),
    ],
)
def test_tango_gives_published_values(gained, lost, n, level, low, high, digits):
    found = tango_interval(gained, lost, n, conf_level=level)
    assert np.round(found, digits) == pytest.approx((low, high))


@pytest.mark.parametrize(("gained", "lost", "n"), [(3, 1, 12), (0, 4, 20), (9, 9, 40), (1, 0, 5), (15, 3, 80)])
def test_tango_ends_solve_the_score_equation(gained, lost, n):
    low, high = tango_interval(gained, lost, n)
    assert tango_statistic(low, gained, lost, n) == pytest.approx(Z, abs=1e-4)
    assert tango_statistic(high, gained, lost, n) == pytest.approx(-Z, abs=1e-4)


@pytest.mark.parametrize("n", [1, 5, 100])
def test_tango_without_discordant_items_has_a_known_width(n):
    assert tango_interval(0, 0, n) == pytest.approx((-(Z**2) / (n + Z**2), Z**2 / (n + Z**2)), abs=1e-6)


@pytest.mark.parametrize(("gained", "lost", "n"), [(12, 2, 50), (0, 0, 9), (6, 0, 6), (0, 1, 1)])
def test_tango_mirrors_when_roles_swap(gained, lost, n):
    low, high = tango_interval(gained, lost, n)
    assert tango_interval(lost, gained, n) == pytest.approx((-high, -low), abs=1e-9)
    assert -1 <= low < high <= 1


@pytest.mark.parametrize(("right", "n"), [(81, 263), (15, 148), (0, 20), (1, 29), (29, 29)])
def test_wilson_is_that_of_statsmodels(right, n):
    assert wilson_interval(right / n, n, critical=Z) == pytest.approx(
        proportion_confint(right, n, method="wilson"), abs=1e-12
    )


def test_wilson_gives_the_published_value():
    # Newcombe 1998 (Statistics in Medicine 17, 857), 81 of 263.
    assert np.round(wilson_interval(81 / 263, 263, critical=Z), 4) == pytest.approx((0.2553, 0.3662))


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (5, 0), (0, 1), (3, 8), (10, 10), (40, 21), (900, 1000)])
def test_mcnemar_is_the_doubled_binomial_tail(gained, lost):
    found = mcnemar_exact(gained, lost)
    assert found == pytest.approx(min(1.0, 2 * special.bdtr(min(gained, lost), gained + lost, 0.5)), abs=1e-12)
    if gained + lost:
        assert found == pytest.approx(stats.binomtest(gained, gained + lost).pvalue)


@pytest.mark.parametrize(("gained", "lost", "n"), [(-1, 0, 5), (3, 3, 5), (0, 0, 0)])
def test_impossible_tables_are_refused(gained, lost, n):
    with pytest.raises(EstimationError, match="make no table"):
        tango_interval(gained, lost, n)

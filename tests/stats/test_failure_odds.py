import time

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason
from capgap.stats import failure_regression


def world(n=600, seed=0, slope=0.5, n_clusters=None, cluster_sd=0.0):
    rng = np.random.default_rng(seed)
    cluster = np.arange(n) if n_clusters is None else np.arange(n) % n_clusters
    depth = rng.integers(1, 6, n).astype(float)
    form = np.where(rng.random(n) < 0.6, "choose", "generate")
    logit = -1.5 + slope * depth + 0.8 * (form == "generate") + rng.normal(0, cluster_sd, n)[cluster]
    return (rng.random(n) < expit(logit)).astype(float), {"depth": depth, "format": form}, cluster


def term(found, name):
    return next(t for t in found.terms if t.name == name)


def test_a_two_by_two_table_by_hand():
    # 30 of 40 fail with it, 20 of 60 without: odds ratio (30/10) / (20/40) = 6.
    x, y = np.repeat([1.0, 0.0], [40, 60]), np.r_[np.ones(30), np.zeros(10), np.ones(20), np.zeros(40)]
    found = failure_regression(y, {"x": x}, np.arange(100))
    e = term(found, "x").odds_ratio
    assert e.estimate == pytest.approx(6.0)
    # The one-step jackknife of a saturated table: the variance of each cell's logit times (n / (n - 1))², and 99/100.
    by_hand = 0.99 * sum(1 / (n * p * (1 - p)) * (n / (n - 1)) ** 2 for n, p in ((40, 0.75), (60, 1 / 3)))
    assert e.std_error == pytest.approx(np.sqrt(by_hand), rel=1e-3)
    assert term(found, "x").odds_ratio_per_sd == pytest.approx(6 ** x.std())


def test_coefficients_and_clustered_errors_are_those_of_statsmodels():
    y, covariates, cluster = world(4000, 1, n_clusters=400, cluster_sd=0.7)
    found = failure_regression(y, covariates, cluster)
    x = sm.add_constant(np.column_stack([covariates["depth"], covariates["format"] == "generate"]).astype(float))
    reference = sm.GLM(y, x, family=sm.families.Binomial()).fit(cov_type="cluster", cov_kwds={"groups": cluster})
    assert np.log([t.odds_ratio.estimate for t in found.terms]) == pytest.approx(reference.params[1:], rel=1e-6)
    assert [t.odds_ratio.std_error for t in found.terms] == pytest.approx(reference.bse[1:], rel=0.01)
    assert found.n_clusters == 400
    assert [row["term"] for row in found.tidy()] == ["depth", "format = generate"]
    assert found.summary().startswith("Odds ratios of failure: ")


def test_units_and_order_do_not_change_what_is_said():
    y, covariates, cluster = world(500, 2, n_clusters=50)
    i = np.random.default_rng(0).permutation(500)
    one = failure_regression(y, covariates, cluster)
    other = failure_regression(
        y[i], {"depth": 1000 * covariates["depth"][i] + 7, "format": covariates["format"][i]}, cluster[i]
    )
    assert other.terms[0].odds_ratio_per_sd == pytest.approx(one.terms[0].odds_ratio_per_sd)
    assert other.terms[0].odds_ratio.p_value == pytest.approx(one.terms[0].odds_ratio.p_value)
    mirrored = failure_regression(1 - y, covariates, cluster)
    assert mirrored.terms[0].odds_ratio.estimate == pytest.approx(1 / one.terms[0].odds_ratio.estimate)


def test_constants_copies_and_separation_are_told_by_name_and_the_rest_is_estimated():
    y, covariates, cluster = world(400, 3)
    covariates |= {
        "same": np.full(400, 3.0),
        "one word": np.full(400, "x"),
        "copy": 2 * covariates["depth"] + 1,
        "oracle": y,
        "leak": np.where(y == 1, (np.arange(400) % 5 == 0).astype(float), 0.0),
    }
    found = failure_regression(y, covariates, cluster)
    refused = {t.name: t.odds_ratio for t in found.terms if t.odds_ratio.status == "refused"}
    assert {name: estimate.reason for name, estimate in refused.items()} == {
        "same": Reason.CONSTANT_COVARIATE,
        "one word": Reason.CONSTANT_COVARIATE,
        "copy": Reason.ALIASED_TERM,
        "oracle": Reason.SEPARATION,
        "leak": Reason.SEPARATION,
    }
    assert "copy cannot be told apart from depth" in refused["copy"].note
    clean = failure_regression(y, {k: covariates[k] for k in ("depth", "format")}, cluster)
    assert term(found, "depth").odds_ratio.estimate == pytest.approx(term(clean, "depth").odds_ratio.estimate)
    assert "separation" in found.summary()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_right_and_all_wrong_are_refused(value):
    found = failure_regression(np.full(50, value), {"x": np.arange(50)}, np.arange(50))
    assert (found.status, found.reason) == ("refused", Reason.FEW_OUTCOMES)
    assert "0 " in found.note
    assert found.tidy() == []
    assert "refused" in found.summary()


def test_too_many_covariates_for_the_failures_are_refused():
    rng = np.random.default_rng(4)
    y = np.r_[np.ones(12), np.zeros(88)]
    found = failure_regression(y, {f"x{j}": rng.normal(size=100) for j in range(5)}, np.arange(100))
    assert [t.odds_ratio.status for t in found.terms] == ["ok", "ok", "refused", "refused", "refused"]


def test_few_clusters_and_one_cluster_are_told():
    y, covariates, _ = world(300, 5)
    one = failure_regression(y, covariates, np.zeros(300))
    assert {t.odds_ratio.status for t in one.terms} == {"open"}
    assert one.terms[0].odds_ratio.reason == Reason.TOO_FEW_CLUSTERS
    five = failure_regression(y, covariates, np.arange(300) % 5)
    assert five.terms[0].odds_ratio.reason == Reason.FEW_CLUSTERS


def test_what_is_missing_is_left_out_and_counted():
    y, covariates, cluster = world(300, 6)
    holes = {"depth": covariates["depth"].copy(), "format": covariates["format"].astype(object)}
    holes["depth"][:3], holes["format"][3:5], y[5] = np.nan, None, np.nan
    found = failure_regression(y, holes, cluster)
    assert found.n == 294
    assert found.remark_codes == (Reason.INCOMPLETE_ROWS,)
    assert "6 of 300 rows" in found.note
    with pytest.raises(EstimationError, match="1 or 0"):
        failure_regression(y + 0.5, covariates, cluster)
    with pytest.raises(EstimationError, match="shape"):
        failure_regression(y, covariates, cluster[:5])
    with pytest.raises(EstimationError, match="'depth'"):
        failure_regression(y, {"depth": [1.0]}, cluster)
    assert failure_regression(world()[0], {}, np.arange(600)).reason == Reason.NO_COVARIATE


def size(n_clusters, n_runs, seed, *, items=6):
    """How often a covariate of the cluster that means nothing is called significant at 5 %."""
    rng = np.random.default_rng(seed)
    called = 0
    for _ in range(n_runs):
        cluster = np.repeat(np.arange(n_clusters), items)
        logit = -0.3 + rng.normal(0, 0.8, n_clusters)[cluster]
        y = (rng.random(len(logit)) < expit(logit)).astype(float)
        found = failure_regression(y, {"x": rng.normal(size=n_clusters)[cluster]}, cluster)
        called += found.terms[0].odds_ratio.p_value < 0.05
    return called / n_runs


@pytest.mark.parametrize("n_clusters", [12, 40])
def test_a_covariate_of_clusters_that_means_nothing_is_rarely_called(n_clusters):
    # Binomial standard error at 200 runs: 1.5 points.
    assert size(n_clusters, 200, n_clusters) < 0.05 + 3 * 0.015


@pytest.mark.slow
@pytest.mark.parametrize("n_clusters", [8, 12, 40, 100])
def test_a_covariate_of_clusters_that_means_nothing_is_rarely_called_in_long_runs(n_clusters):
    assert size(n_clusters, 2000, n_clusters) < 0.05 + 2.3 * 0.005


def test_a_large_table_takes_seconds():
    y, covariates, cluster = world(200_000, 7, n_clusters=20_000)
    started = time.perf_counter()
    failure_regression(y, covariates, cluster)
    assert time.perf_counter() - started < 15

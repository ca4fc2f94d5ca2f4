import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason, remark
from capgap.stats import Design, cross_covariance, stratified_mean
from tests.stats.references import dense_cr2, prototype_cr2

EXACT = 1e-10
"""Both sides are float64 linear algebra on well-conditioned matrices of a few dozen rows."""


def _random(seed, n=60, n_strata=4, n_clusters=15, nested=False):
    rng = np.random.default_rng(seed)
    strata = np.r_[np.arange(n_strata).repeat(3), rng.integers(0, n_strata, n - 3 * n_strata)]
    clusters = rng.integers(0, n_clusters, n)
    if nested:
        clusters = clusters + 100 * strata
    return rng.normal(size=n), strata, clusters, rng


def test_two_clusters_by_hand():
    # y = 0, 2 | 4: mean 2; residual sums -2 and 2; 1 - m/n = 1/3 and 2/3; V = (4 * 3 + 4 * 1.5) / 9 = 2.
    fit = stratified_mean([0.0, 2.0, 4.0], [0, 0, 0], [7, 7, 9])
    assert fit.theta[0] == pytest.approx(2.0)
    assert fit.cov[0, 0] == pytest.approx(2.0)


def test_two_strata_by_hand():
    # Means 1 and 5, weights 1/2. Singleton clusters: V = 1/4 (s1^2 / 2 + s2^2 / 2) with sample variances 2 and 8.
    fit = stratified_mean([0.0, 2.0, 3.0, 7.0], [0, 0, 1, 1], [0, 1, 2, 3])
    assert fit.theta[0] == pytest.approx(3.0)
    assert fit.cov[0, 0] == pytest.approx((2 / 2 + 8 / 2) / 4)


@pytest.mark.parametrize("nested", [True, False], ids=["nested", "spanning"])
@pytest.mark.parametrize("contrast", [None, "items", "contrast"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_closed_form_is_dense_cr2(seed, contrast, nested):
    y, strata, clusters, rng = _random(seed, nested=nested)
    k = 4
    weights = {None: np.full(k, 1 / k), "items": np.bincount(strata) / len(y), "contrast": rng.normal(size=k)}[contrast]
    theta, variance, df = dense_cr2(y, strata, clusters, weights)
    fit = stratified_mean(y, strata, clusters, weights=None if contrast is None else weights)
    assert fit.theta[0] == pytest.approx(theta, rel=EXACT)
    assert fit.cov[0, 0] == pytest.approx(variance, rel=EXACT)
    assert fit.df == pytest.approx(df, rel=EXACT)


@pytest.mark.parametrize("seed", [3, 4])
def test_one_stratum_is_the_prototype(seed):
    y, _, clusters, _ = _random(seed)
    mean, error, df = prototype_cr2(y, clusters)
    fit = stratified_mean(y, np.zeros(len(y)), clusters)
    assert fit.theta[0] == pytest.approx(mean, rel=EXACT)
    assert np.sqrt(fit.cov[0, 0]) == pytest.approx(error, rel=EXACT)
    assert fit.df == pytest.approx(df, rel=EXACT)


def test_items_that_stand_alone_give_the_t_interval_of_scipy():
    y = np.random.default_rng(5).normal(size=40)
    fit = stratified_mean(y, np.zeros(40), np.arange(40))
    reference = stats.ttest_1samp(y, 0.0)
    assert fit.theta[0] / np.sqrt(fit.cov[0, 0]) == pytest.approx(reference.statistic)
    assert fit.df == pytest.approx(39)


def test_equal_clusters_give_cr1_times_a_known_factor():
    # With G equal clusters CR2 is the variance of cluster means over G; statsmodels' CR0 lacks the factor G / (G - 1).
    rng = np.random.default_rng(6)
    clusters = np.arange(8).repeat(5)
    y = rng.normal(size=40) + rng.normal(size=8)[clusters]
    fit = stratified_mean(y, np.zeros(40), clusters)
    ols = sm.OLS(y, np.ones((40, 1))).fit(
        cov_type="cluster", cov_kwds={"groups": clusters, "use_correction": False}, use_t=True
    )
    assert np.sqrt(fit.cov[0, 0]) == pytest.approx(ols.bse[0] * np.sqrt(8 / 7))
    assert fit.df == pytest.approx(7)


def test_joint_covariance_agrees_with_the_variance_of_a_sum():
    y, strata, clusters, rng = _random(7)
    z = rng.normal(size=len(y))
    joint = stratified_mean(np.column_stack([y, z]), strata, clusters)
    total = stratified_mean(y - 3 * z, strata, clusters)
    assert total.cov[0, 0] == pytest.approx(np.array([1, -3]) @ joint.cov @ np.array([1, -3]), rel=EXACT)


def test_cross_covariance_agrees_with_a_contrast_over_both_parts():
    y, strata, clusters, _ = _random(8)
    left = strata < 2
    first = stratified_mean(y[left], strata[left], clusters[left])
    second = stratified_mean(y[~left], strata[~left], clusters[~left])
    whole = stratified_mean(y, strata, clusters, weights=[0.5, 0.5, -0.5, -0.5])
    variance = first.cov[0, 0] + second.cov[0, 0] - 2 * cross_covariance(first, second)[0, 0]
    assert whole.cov[0, 0] == pytest.approx(variance, rel=EXACT)
    assert cross_covariance(first, second)[0, 0] != 0


@pytest.mark.parametrize("change", ["rows", "labels", "strata"])
def test_order_and_names_change_nothing(change):
    y, strata, clusters, rng = _random(9)
    before = stratified_mean(y, strata, clusters)
    if change == "rows":
        order = rng.permutation(len(y))
        y, strata, clusters = y[order], strata[order], clusters[order]
    elif change == "labels":
        clusters = rng.permutation(1000)[clusters]
    else:
        strata = np.array(["d", "a", "c", "b"])[strata]
    after = stratified_mean(y, strata, clusters)
    assert after.theta == pytest.approx(before.theta, rel=EXACT)
    assert after.cov == pytest.approx(before.cov, rel=EXACT)
    assert after.df == pytest.approx(before.df, rel=EXACT)


def test_duplicated_items_in_their_clusters_add_no_certainty():
    y, _, clusters, _ = _random(10)
    once = stratified_mean(y, np.zeros(60), clusters)
    twice = stratified_mean(np.tile(y, 2), np.zeros(120), np.tile(clusters, 2))
    assert twice.cov == pytest.approx(once.cov, rel=EXACT)


def test_values_that_are_not_finite_leave():
    y, strata, clusters, _ = _random(11)
    holed = y.copy()
    holed[[3, 17]] = np.nan
    keep = np.isfinite(holed)
    fit, direct = stratified_mean(holed, strata, clusters), stratified_mean(y[keep], strata[keep], clusters[keep])
    assert fit.theta == direct.theta
    assert fit.cov == direct.cov
    assert fit.design.n_items == 58


def test_a_stratum_in_one_cluster_has_no_variance_and_says_so():
    fit = stratified_mean([1.0, 0.0, 1.0, 1.0], [0, 0, 1, 1], [0, 1, 2, 2])
    assert np.isnan(fit.cov).all()
    assert np.isnan(fit.df)
    assert fit.design.refusal == remark(Reason.ONE_CLUSTER_IN_TASK, n=1, of=2)


def test_a_stratum_without_weight_does_not_matter():
    fit = stratified_mean([1.0, 0.0, 5.0], [0, 0, 1], [0, 1, 2], weights=[1.0, 0.0])
    assert fit.theta[0] == 0.5
    assert np.isfinite(fit.cov).all()


@pytest.mark.parametrize(
    ("values", "strata", "clusters", "weights", "match"),
    [
        ([], [], [], None, "no item"),
        ([1.0], [0, 1], [0], None, "differ in length"),
        ([1.0, 2.0], [0, 0], [0, 1], [0.5, 0.5], "1 strata need 1 weights"),
        ([1.0, np.nan], [0, 1], [0, 1], None, "no finite value"),
        ([1.0, 2.0, 3.0], [0, 0], [0, 1], None, "as many values"),
    ],
)
def test_what_cannot_be_computed_is_named(values, strata, clusters, weights, match):
    with pytest.raises(EstimationError, match=match):
        stratified_mean(values, strata, clusters, weights=weights)


def test_many_clusters_need_no_square_matrix():
    n = 200_000
    design = Design.of(np.arange(n) % 20, np.arange(n))
    assert design.df == pytest.approx(n - 20, rel=1e-6)


def test_a_few_items_that_agree_do_not_hide_the_variance_of_their_task():
    task = np.repeat(["small", "large"], [5, 500])
    right = np.concatenate([np.ones(5), np.tile([0.0, 1.0], 250)])
    fit = stratified_mean(right, task, np.arange(505))
    large, small = 125 / 499, 0.0  # of one item, within each task
    average = 500 * large / 505
    shrunk = [(n * own + 5 * average) / (n + 5) for n, own in ((5, small), (500, large))]
    assert fit.cov[0, 0] == pytest.approx(large / 500 / 4)
    assert fit.covariance[0, 0] == pytest.approx((shrunk[0] / 5 + shrunk[1] / 500) / 4)
    assert fit.variance_remarks() == (remark(Reason.BORROWED_VARIANCE),)


def test_tasks_of_one_size_have_the_variance_of_cr2_alone():
    rng = np.random.default_rng(0)
    values, task = rng.normal(size=(90, 2)), np.repeat([0, 1, 2], 30)
    fit = stratified_mean(values, task, np.arange(90))
    assert fit.covariance == pytest.approx(fit.cov, rel=EXACT)
    assert not fit.variance_remarks()
    assert not stratified_mean(values, np.zeros(90), np.arange(90)).extra_cov.any()

import math
from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.imputation.mice import MICE

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason, remark
from capgap.stats import (
    Design,
    Estimate,
    apply_rubin,
    combine_draws,
    paired_difference,
    pool_over_labels,
    ratio_difference,
    ratio_of_means,
    refused,
    sample_labels,
    stratified_mean,
)


def test_rubins_rules_by_hand():
    # U = 0.04, B = 0.01, T = 0.04 + 4/3 * 0.01 = 0.16/3; l = 1/4, df = 2 * 16 = 32.
    found = apply_rubin([0.1, 0.2, 0.3], [0.03, 0.04, 0.05])
    assert (found.within, found.between) == pytest.approx((0.04, 0.01))
    assert found.label_share == pytest.approx(0.25)
    e = found.estimate
    assert (e.estimate, e.std_error, e.df) == pytest.approx((0.2, math.sqrt(0.16 / 3), 32.0))
    assert e.p_value == pytest.approx(2 * stats.t.sf(0.2 / e.std_error, 32))
    assert (e.conf_low, e.conf_high) == pytest.approx(stats.t.interval(0.95, 32, 0.2, e.std_error))


def test_barnard_and_rubins_degrees_of_freedom_by_hand():
    # df_obs = 0.75 * 20 * 21/23 = 315/23; 1/df = 1/32 + 23/315.
    found = apply_rubin([0.1, 0.2, 0.3], [0.03, 0.04, 0.05], df_complete=20)
    assert found.estimate.df == pytest.approx(1 / (1 / 32 + 23 / 315))


def test_pooled_numbers_are_those_of_statsmodels():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 40))
    fits = [sm.OLS(y + rng.normal(0, 0.3, 40), sm.add_constant(x)).fit() for _ in range(7)]
    pool = MICE.__new__(MICE)
    pool.results_list, pool.exog_names, pool.endog_names, pool.model_class = fits, ["const", "x"], "y", sm.OLS
    reference = pool.combine()
    found = apply_rubin([f.params[1] for f in fits], [f.bse[1] ** 2 for f in fits])
    scale = np.mean([f.scale for f in fits])
    assert found.estimate.estimate == pytest.approx(reference.params[1])
    assert found.estimate.std_error**2 == pytest.approx(reference.normalized_cov_params[1, 1] * scale)
    assert found.label_share == pytest.approx(reference.frac_miss_info[1])


def test_draws_that_agree_leave_the_draws_own_interval():
    found = apply_rubin([0.2] * 5, [0.01] * 5, df_complete=12)
    assert found.estimate.df == 12
    assert found.label_share == 0
    assert apply_rubin([0.2], [0.01]).estimate.std_error == pytest.approx(0.1)
    one = Estimate(0.2, conf_low=0.1, conf_high=0.35, method="exact")
    assert combine_draws([one] * 4).estimate == one


def test_the_order_of_draws_does_not_count():
    q, u = np.random.default_rng(1).random((2, 9))
    assert apply_rubin(q, u).estimate.conf_low == pytest.approx(apply_rubin(q[::-1], u[::-1]).estimate.conf_low)


def test_items_of_a_task_share_their_label_and_each_has_its_probability():
    p = np.array([0.3, 0.3, 0.8, 0.5, 1.0, 0.0])
    tasks = np.array(["a", "a", "a", "b", "c", "c"])
    draws = sample_labels(p, tasks, n_draws=20_000, rng=np.random.default_rng(0))
    # Binomial standard error 0.35 points.
    assert draws.mean(axis=0) == pytest.approx(p, abs=0.015)
    assert (draws[:, 0] == draws[:, 1]).all()
    assert (draws[:, 2] >= draws[:, 0]).all()
    assert abs(np.corrcoef(draws[:, 0], draws[:, 3])[0, 1]) < 0.03
    assert draws[:, 4].all()
    assert not draws[:, 5].any()


def difference_of_labels(values, tasks):
    """Mean of tasks called reasoning minus that of the others, tasks as units."""
    names, code = np.unique(tasks, return_inverse=True)
    means = np.bincount(code, values) / np.bincount(code)

    def refit(labels):
        reasoning = np.bincount(code, labels) > 0
        if min(reasoning.sum(), (~reasoning).sum()) < 2:
            raise EstimationError("one capability has fewer than two tasks")
        fit = Design.of(reasoning, np.arange(len(names)), weights=[-1.0, 1.0])
        return {"contrast": paired_difference(means + 1e-12, fit)}

    return refit


def test_certain_labels_are_fitted_once_and_change_nothing():
    rng = np.random.default_rng(2)
    tasks = np.repeat(np.arange(10), 20)
    values, calls = rng.random(200), []
    refit = difference_of_labels(values, tasks)

    def counting(labels):
        calls.append(labels)
        return refit(labels)

    p = (tasks < 5).astype(float)
    found = pool_over_labels(counting, p, tasks, rng=rng)["contrast"]
    assert len(calls) == 1
    assert found.estimate == refit(p > 0)["contrast"]
    assert found.between == 0


def test_doubtful_labels_widen_the_interval():
    rng = np.random.default_rng(3)
    tasks = np.repeat(np.arange(20), 10)
    values = rng.random(200) + 0.5 * (tasks < 10)
    refit = difference_of_labels(values, tasks)
    sure = (tasks < 10).astype(float)
    firm = pool_over_labels(refit, sure, tasks, rng=rng)["contrast"]
    loose = pool_over_labels(refit, 0.15 + 0.7 * sure, tasks, rng=rng)["contrast"]
    assert loose.estimate.std_error > 1.3 * firm.estimate.std_error
    assert 0.2 < loose.label_share < 1
    # Labels that are drawn without a look at the outcomes pull a difference towards none; this is documented.
    assert 0 < loose.estimate.estimate < firm.estimate.estimate
    assert "draws of the labels" in loose.summary()
    assert loose.tidy()[0]["n_draws"] == 20


NO_TASK = refused(remark(Reason.NO_OUTCOME))


def test_refused_draws_are_counted_and_too_many_refuse():
    ok = [Estimate(0.1 * i, 0.1, 10.0, 0, 1, 0.5, 0.0, 50, 50, "t") for i in range(9)]
    found = combine_draws([*ok, NO_TASK])
    assert (found.n_draws, found.n_refused) == (9, 1)
    assert found.estimate.remarks == (remark(Reason.SOME_DRAWS_REFUSED, n=1, of=10),)
    none = combine_draws([*ok[:3], *[NO_TASK] * 7])
    assert none.estimate.status == "refused"
    assert none.estimate.reason == Reason.DRAWS_REFUSED
    assert "7 of 10" in none.estimate.note
    assert "the first because there is no outcome" in none.summary()
    assert combine_draws([]).estimate.status == "refused"


def test_intervals_without_a_standard_error_enter_by_their_width():
    wide = [Estimate(q, conf_low=q - 0.196, conf_high=q + 0.196, method="exact") for q in (0.1, 0.2)]
    assert combine_draws(wide).within == pytest.approx(0.01, rel=1e-3)


def test_nonsense_is_told():
    with pytest.raises(EstimationError, match="between 0 and 1"):
        sample_labels([0.5, np.nan], [0, 1], n_draws=2, rng=np.random.default_rng(0))
    with pytest.raises(EstimationError, match="one shape"):
        sample_labels([0.5], [0, 1], n_draws=2, rng=np.random.default_rng(0))
    with pytest.raises(EstimationError, match="finite"):
        apply_rubin([0.1, np.nan], [0.1, 0.1])
    with pytest.raises(EstimationError, match="no draw"):
        pool_over_labels(
            difference_of_labels(np.ones(4), np.arange(4)), np.zeros(4), np.arange(4), rng=np.random.default_rng(0)
        )
    assert apply_rubin([0.1, 0.1], [0.0, 0.0]).estimate.status == "open"


def coverage_without_a_difference(n_runs, seed, doubt):
    """Coverage of zero where reasoning tasks are as hard as the others and the labels are doubtful."""
    rng = np.random.default_rng(seed)
    tasks = np.arange(24)
    p = np.where(tasks < 12, 1 - doubt, doubt)
    covered = 0
    for _ in range(n_runs):
        found = pool_over_labels(difference_of_labels(rng.normal(0, 0.1, 24), tasks), p, tasks, rng=rng, n_draws=15)
        covered += found["contrast"].estimate.conf_low <= 0 <= found["contrast"].estimate.conf_high
    return covered / n_runs


def test_no_difference_is_covered():
    # Binomial standard error at 150 runs: 1.8 points.
    assert coverage_without_a_difference(150, 0, 0.2) > 0.95 - 3 * 0.018


@pytest.mark.slow
@pytest.mark.parametrize("doubt", [0.0, 0.1, 0.3, 0.5])
def test_no_difference_is_covered_in_long_runs(doubt):
    assert (
        stats.binomtest(
            round(1500 * coverage_without_a_difference(1500, 1, doubt)), 1500, 0.94, alternative="less"
        ).pvalue
        > 0.01
    )


def test_one_odd_draw_does_not_decide_the_degrees_of_freedom():
    plain = Estimate(0.3, 0.04, 300.0, 0.22, 0.38, status="ok")
    odd = Estimate(0.3, 0.07, 2.4, 0.04, 0.56, status="ok")
    same = combine_draws([replace(plain, estimate=0.3 + 0.001 * i) for i in range(20)]).estimate
    one = combine_draws([odd, *(replace(plain, estimate=0.3 + 0.001 * i) for i in range(19))]).estimate
    assert same.df == pytest.approx(300, rel=0.05)
    # By hand: 19 * 0.04² + 0.07² over 19 * 0.04² / sqrt(300) + 0.07² / sqrt(2.4), squared.
    assert one.df == pytest.approx(
        ((19 * 0.0016 + 0.0049) / (19 * 0.0016 / 300**0.5 + 0.0049 / 2.4**0.5)) ** 2, rel=0.1
    )
    assert 20 < one.df < 300


def test_doubt_about_labels_never_narrows_an_interval():
    rng = np.random.default_rng(0)
    fits = [
        stratified_mean(rng.normal((0.4, 0.8), 0.4, (70, 2)), np.zeros(70), 100 * k + np.repeat(np.arange(7), 10))
        for k in (0, 1)
    ]
    few = np.r_[np.ones(3), np.zeros(17)]
    alone = Design.of(np.zeros(20), np.arange(20))
    for plain in (ratio_difference(*fits), ratio_of_means(fits[0]), paired_difference(few, alone)):
        drawn = [replace(plain, estimate=plain.estimate + shift) for shift in (0, 1e-6) * 10]
        pooled = combine_draws(drawn).estimate
        assert pooled.conf_high - pooled.conf_low >= (plain.conf_high - plain.conf_low) * (1 - 1e-9)


def test_what_one_odd_draw_says_is_not_said_of_the_whole():
    few = remark(Reason.FEW_CLUSTERS, n=3, least=6)
    plain = Estimate(0.1, 0.05, 20.0, 0.0, 0.2, 0.06, 0.0, 100, 100, "t", remarks=(few,))
    odd = replace(plain, estimate=0.2, n_items=900).noting(remark(Reason.BORROWED_VARIANCE))
    found = combine_draws([odd, plain, plain]).estimate
    assert found.remarks == (few,)
    assert found.n_items == 100

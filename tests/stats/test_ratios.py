import numpy as np
import pytest
from scipy import optimize, stats

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason
from capgap.stats import (
    Design,
    ratio_difference,
    ratio_of_means,
    seed_difference,
    seed_ratio,
    stratified_mean,
    tango_interval,
)
from tests.stats.references import bootstrap_ratio_difference


def _sample(seed, n=150, closure=0.6, gap=0.5, spread=0.4, n_clusters=None, n_strata=3):
    rng = np.random.default_rng(seed)
    denominator = gap + spread * rng.normal(size=n)
    numerator = closure * denominator + spread * rng.normal(size=n)
    clusters = np.arange(n) if n_clusters is None else rng.integers(0, n_clusters, n)
    return np.column_stack([numerator, denominator]), np.arange(n) % n_strata, clusters


def test_fieller_by_hand():
    # N = 1, D = 2, V = diag(0.04, 0.01), t = 2: (1 - 2r)^2 = 4 (0.04 + 0.01 r^2), a root pair of 3.96 r^2 - 4 r + 0.84.
    from capgap.stats.ratios import _RatioFit

    t = stats.t.ppf(0.975, 7)
    low, high = _RatioFit(1.0, 2.0, 0.04 * 4 / t**2, 0.0, 0.01 * 4 / t**2, 7.0, False).interval(0.95)
    root = np.sqrt(16 - 4 * 3.96 * 0.84)
    assert (low, high) == pytest.approx(((4 - root) / 7.92, (4 + root) / 7.92))


@pytest.mark.parametrize("n_clusters", [None, 12])
@pytest.mark.parametrize("seed", [0, 1])
def test_fieller_inverts_the_t_test_of_each_ratio(seed, n_clusters):
    values, strata, clusters = _sample(seed, n_clusters=n_clusters)
    found = ratio_of_means(stratified_mean(values, strata, clusters))

    def p_value(ratio):
        fit = stratified_mean(values[:, 0] - ratio * values[:, 1], strata, clusters)
        return 2 * stats.t.sf(abs(fit.theta[0]) / np.sqrt(fit.covariance[0, 0]), fit.df) - 0.05

    assert found.conf_low == pytest.approx(optimize.brentq(p_value, found.estimate - 3, found.estimate), abs=1e-8)
    assert found.conf_high == pytest.approx(optimize.brentq(p_value, found.estimate, found.estimate + 3), abs=1e-8)
    numerator = stratified_mean(values[:, 0], strata, clusters)
    t = numerator.theta[0] / np.sqrt(numerator.covariance[0, 0])
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(t), numerator.df))


def test_a_ratio_is_free_of_scale_and_not_clipped():
    values, strata, clusters = _sample(2, closure=1.4)
    one = ratio_of_means(stratified_mean(values, strata, clusters))
    ten = ratio_of_means(stratified_mean(10 * values, strata, clusters))
    assert one.estimate > 1
    assert (ten.estimate, ten.conf_low, ten.conf_high) == pytest.approx((one.estimate, one.conf_low, one.conf_high))


@pytest.mark.parametrize("gap", [0.0, -0.5])
def test_a_denominator_that_is_not_clearly_positive_is_refused(gap):
    values, strata, clusters = _sample(3, gap=gap)
    found = ratio_of_means(stratified_mean(values, strata, clusters), denominator="teacher − base")
    assert (found.status, found.reason) == ("refused", Reason.DENOMINATOR_NEAR_ZERO)
    assert np.isnan([found.estimate, found.conf_low, found.conf_high, found.p_value]).all()
    assert "teacher − base is" in found.note


@pytest.mark.parametrize("copy", ["teacher", "base"])
def test_a_copy_of_teacher_or_base_is_not_certain(copy):
    values, strata, clusters = _sample(4)
    values[:, 0] = values[:, 1] if copy == "teacher" else 0.0
    found = ratio_of_means(stratified_mean(values, strata, clusters))
    assert found.estimate == pytest.approx(1.0 if copy == "teacher" else 0.0)
    assert found.conf_low < found.estimate < found.conf_high
    assert np.isnan(found.std_error)
    assert found.reason == Reason.EXACT_RATIO


def test_a_perfect_teacher_over_a_base_that_knows_nothing():
    rng = np.random.default_rng(5)
    student = (rng.random(80) < 0.7).astype(float)
    values = np.column_stack([student, np.ones(80)])
    found = ratio_of_means(stratified_mean(values, np.zeros(80), np.arange(80)))
    assert found.estimate == pytest.approx(student.mean())
    assert found.conf_high > found.conf_low


def test_one_cluster_is_refused():
    values, _, _ = _sample(6)
    assert ratio_of_means(stratified_mean(values, np.zeros(150), np.zeros(150))).reason == Reason.ONE_CLUSTER


def test_a_ratio_needs_two_columns():
    with pytest.raises(EstimationError, match="numerator and denominator"):
        ratio_of_means(stratified_mean(np.zeros(5), np.zeros(5), np.arange(5)))


def _pair(seed, shared, n=240, closures=(0.8, 0.5)):
    rng = np.random.default_rng(seed)
    effect = rng.normal(size=60)
    fits, data = [], []
    for side, closure in enumerate(closures):
        clusters = rng.integers(0, 60, n) + (0 if shared else 100 * side)
        common = effect[clusters % 100] if shared else rng.normal(size=60)[clusters % 100]
        d = 0.6 + 0.3 * rng.normal(size=n)
        values = np.column_stack([closure * d + 0.25 * common + 0.2 * rng.normal(size=n), d])
        strata = np.arange(n) % 3
        fits.append(stratified_mean(values, strata, clusters))
        data.append((values, strata, clusters))
    return fits, data


def test_mover_of_symmetric_intervals_adds_squares():
    fits, _ = _pair(0, shared=False)
    one, two = map(ratio_of_means, fits)
    both = ratio_difference(*fits)
    assert both.estimate == pytest.approx(one.estimate - two.estimate)
    below = np.hypot(one.estimate - one.conf_low, two.conf_high - two.estimate)
    above = np.hypot(one.conf_high - one.estimate, two.estimate - two.conf_low)
    assert (both.conf_low, both.conf_high) == pytest.approx((both.estimate - below, both.estimate + above))
    assert both.method == "MOVER of two Fieller intervals"


@pytest.mark.parametrize("shared", [False, True])
def test_mover_agrees_with_the_bootstrap(shared):
    fits, data = _pair(1, shared)
    both = ratio_difference(*fits)
    low, high = bootstrap_ratio_difference(
        data[0][:2], data[1][:2], (data[0][2], data[1][2]), rng=np.random.default_rng(0), n_resamples=4000
    )
    width = both.conf_high - both.conf_low
    # A percentile bootstrap over 60 clusters is a little narrow, and its ends carry 2 % of Monte-Carlo error.
    assert (both.conf_low, both.conf_high) == pytest.approx((low, high), abs=0.1 * width)


def test_shared_clusters_narrow_the_difference():
    fits, _ = _pair(2, shared=True)
    apart = [stratified_mean(*_pair(2, shared=True)[1][0]), None]
    values, strata, clusters = _pair(2, shared=True)[1][1]
    apart[1] = stratified_mean(values, strata, clusters + 1000)
    together, separate = ratio_difference(*fits), ratio_difference(*apart)
    assert together.std_error < separate.std_error
    assert together.method.endswith("dependent")


def test_difference_changes_sign_when_sides_swap_and_its_p_value_inverts_the_interval():
    fits, _ = _pair(3, shared=False, closures=(0.8, 0.7))
    one, two = ratio_difference(*fits), ratio_difference(*fits[::-1])
    assert (two.estimate, two.conf_low, two.conf_high) == pytest.approx((-one.estimate, -one.conf_high, -one.conf_low))
    assert two.p_value == pytest.approx(one.p_value)
    at_p = ratio_difference(*fits, conf_level=1 - one.p_value)
    assert min(abs(at_p.conf_low), abs(at_p.conf_high)) == pytest.approx(0, abs=1e-6)


def test_equal_ratios_give_a_p_value_of_one():
    fits, _ = _pair(4, shared=False)
    assert ratio_difference(fits[0], fits[0]).p_value == pytest.approx(1.0)


def test_the_side_that_cannot_be_divided_is_named():
    fits, _ = _pair(5, shared=False)
    values, strata, clusters = _sample(6, gap=0.0)
    found = ratio_difference(fits[0], stratified_mean(values, strata, clusters), names=("knowledge", "reasoning"))
    assert (found.status, found.reason) == ("refused", Reason.DENOMINATOR_NEAR_ZERO)
    assert found.remarks[0].part_name == "reasoning"
    assert found.note.startswith("reasoning: the denominator is ")


def test_a_student_that_differs_from_its_teacher_on_few_items_is_covered():
    rng, design, hits, n = np.random.default_rng(0), Design.of(np.zeros(200), np.arange(200)), 0, 500
    for _ in range(n):
        teacher = rng.random(200) < 0.9
        base, student = teacher & (rng.random(200) < 1 / 3), teacher & (rng.random(200) < 0.98)
        columns = np.column_stack([student.astype(float) - base, teacher.astype(float) - base])
        found = ratio_of_means(design.fit(columns))
        hits += found.conf_low <= (0.9 * 0.98 - 0.3) / 0.6 <= found.conf_high
    assert hits / n > 0.94  # 89 % by Fieller alone


def test_few_items_gained_over_the_base_are_no_surer_as_a_closure_than_as_a_gain():
    columns = np.zeros((100, 2))
    columns[:60, 1], columns[:5, 0] = 1, 1
    found = ratio_of_means(Design.of(np.zeros(100), np.arange(100)).fit(columns))
    low, high = tango_interval(5, 0, 100)
    assert found.conf_high >= high / 0.6
    assert found.conf_low <= low / 0.6
    assert found.p_value >= 2 * stats.norm.sf(np.sqrt(5)) * (1 - 1e-9)


def test_a_ratio_over_seeds_that_agree_is_the_ratio_of_one():
    values, strata, clusters = _sample(0)
    design = Design.of(strata, clusters)
    found = seed_ratio(np.tile(values[:, 0], (4, 1)), values[:, 1], design)
    plain = ratio_of_means(design.fit(values))
    assert (found.estimate, found.conf_low) == pytest.approx((plain.estimate, plain.conf_low))


def test_a_ratio_over_seeds_with_a_fixed_denominator_is_the_seed_difference_over_it():
    rng = np.random.default_rng(1)
    numerators = rng.choice([-1.0, 0.0, 1.0], (5, 120), p=[0.1, 0.4, 0.5]) + rng.normal(0, 0.1, (5, 1))
    design = Design.of(np.zeros(120), np.arange(120))
    ratio, difference = seed_ratio(numerators, np.full(120, 0.5), design), seed_difference(numerators, design)
    assert ratio.estimate == pytest.approx(2 * difference.estimate)
    # the denominator has no variance, so that its exact bound is all that is wider
    assert ratio.conf_low <= 2 * difference.conf_low + 1e-9
    assert ratio.conf_high >= 2 * difference.conf_high - 1e-9


def test_a_ratio_over_two_seeds_or_of_nothing_to_close_is_refused():
    assert seed_ratio(np.ones((2, 9)), np.ones(9), Design.of(np.zeros(9), np.arange(9))).reason == Reason.FEW_SEEDS
    noise = np.random.default_rng(2).normal(size=(4, 50))
    nothing = seed_ratio(noise[:3], noise[3], Design.of(np.zeros(50), np.arange(50)), denominator="room")
    assert nothing.reason == Reason.DENOMINATOR_NEAR_ZERO

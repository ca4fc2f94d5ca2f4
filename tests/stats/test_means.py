import numpy as np
import pytest
from scipy import stats

from capgap.schema.remarks import Reason
from capgap.stats import (
    Design,
    accuracy,
    mcnemar_exact,
    no_variation_bound,
    paired_difference,
    stratified_mean,
    tango_interval,
)
from capgap.stats.means import mean_estimate

ALONE = {n: Design.of(np.zeros(n, dtype=int), np.arange(n)) for n in (1, 2, 20, 50, 200)}


def _right(share, n):
    return (np.arange(n) < round(share * n)).astype(float)


def test_accuracy_of_lone_items_is_wilson_with_the_score_test():
    found = accuracy(_right(0.7, 200), ALONE[200], chance=0.5)
    assert (found.estimate, found.method) == (pytest.approx(0.7), "Wilson")
    assert (found.conf_low, found.conf_high) == pytest.approx(stats.binomtest(140, 200).proportion_ci(method="wilson"))
    assert found.p_value == pytest.approx(2 * stats.norm.sf(0.2 / np.sqrt(0.25 / 200)))


def test_accuracy_over_clusters_stays_inside_zero_and_one_and_widens_with_dependence():
    scores = np.r_[np.ones(48), 0.0, 0.0]
    alone, clustered = (accuracy(scores, Design.of(np.zeros(50), c)) for c in (np.arange(50), np.arange(50) // 5))
    assert clustered.conf_high <= 1
    assert clustered.conf_high - clustered.conf_low > alone.conf_high - alone.conf_low


def test_effective_wilson_meets_wilson_in_large_samples():
    rng = np.random.default_rng(0)
    scores = (rng.random(4000) < 0.8).astype(float)
    one = accuracy(scores, Design.of(np.zeros(4000), np.arange(4000)))
    two = accuracy(scores, Design.of(np.zeros(4000), np.arange(4000), weights=[1.0]))
    partial = accuracy(scores * (1 - 1e-9), Design.of(np.zeros(4000), np.arange(4000)))
    assert one == two
    assert partial.method.startswith("Wilson with effective n")
    assert (partial.conf_low, partial.conf_high) == pytest.approx((one.conf_low, one.conf_high), abs=2e-5)


def test_many_lone_items_give_the_paired_t_test():
    rng = np.random.default_rng(1)
    teacher, student = (rng.random(200) < p for p in (0.8, 0.6))
    d = teacher.astype(float) - student
    found = paired_difference(d, ALONE[200])
    reference = stats.ttest_rel(teacher.astype(float), student.astype(float))
    assert found.p_value == pytest.approx(reference.pvalue)
    assert (found.conf_low, found.conf_high) == pytest.approx(tuple(reference.confidence_interval(0.95)))


@pytest.mark.parametrize("seed", range(3))
def test_gap_changes_sign_when_roles_swap(seed):
    rng = np.random.default_rng(seed)
    d = rng.integers(-1, 2, 50).astype(float)
    for design in (ALONE[50], Design.of(np.arange(50) % 3, np.arange(50) // 4)):
        one, two = paired_difference(d, design), paired_difference(-d, design)
        assert two.estimate == pytest.approx(-one.estimate)
        assert (two.conf_low, two.conf_high) == pytest.approx((-one.conf_high, -one.conf_low), abs=1e-9)
        assert two.p_value == pytest.approx(one.p_value)


def test_few_discordant_items_get_score_interval_and_exact_p_value():
    d = np.zeros(200)
    d[:4] = 1
    found = paired_difference(d, ALONE[200])
    assert found.method == "Tango score interval, exact McNemar"
    assert found.p_value == mcnemar_exact(4, 0)
    assert found.std_error > 0


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 0.5])
@pytest.mark.parametrize(
    "design",
    [ALONE[20], Design.of(np.arange(20) % 2, np.arange(20)), Design.of(np.zeros(20), np.arange(20) // 5)],
    ids=["alone", "strata", "clusters"],
)
def test_no_variation_never_means_no_width(value, design):
    found = paired_difference(np.full(20, value), design)
    assert found.estimate == value
    assert found.conf_high > found.conf_low
    assert found.conf_low <= value <= found.conf_high
    assert found.std_error != 0
    assert 0 < found.p_value <= 1


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_all_right_or_all_wrong_has_an_interval(right):
    for design in (ALONE[20], Design.of(np.arange(20) % 2, np.arange(20))):
        found = accuracy(np.full(20, right), design, chance=0.25)
        assert found.estimate == right
        assert found.conf_high - found.conf_low > 0.05
        assert 0 <= found.conf_low < found.conf_high <= 1


def test_degenerate_reach_is_the_clopper_pearson_bound():
    assert no_variation_bound(30, 0.95) == pytest.approx(stats.binomtest(0, 30).proportion_ci(0.95, "exact").high)


def test_one_item_answers_with_its_limits():
    found = accuracy([1.0], ALONE[1])
    assert (found.n_items, found.status) == (1, "ok")
    assert found.conf_high - found.conf_low > 0.7
    gap = paired_difference([1.0], ALONE[1])
    assert gap.p_value == 1.0
    assert gap.conf_low < 0 < gap.conf_high


def test_one_cluster_has_an_estimate_but_no_interval():
    for found in (
        accuracy(_right(0.5, 20), Design.of(np.zeros(20), np.zeros(20))),
        paired_difference(_right(0.5, 20), Design.of(np.zeros(20), np.zeros(20))),
    ):
        assert found.status == "open"
        assert found.estimate == 0.5
        assert np.isnan([found.conf_low, found.conf_high, found.std_error, found.p_value]).all()
        assert found.reason == Reason.ONE_CLUSTER


@pytest.mark.parametrize(("n_clusters", "warned"), [(2, True), (5, True), (6, False)])
def test_few_clusters_are_said(n_clusters, warned):
    rng = np.random.default_rng(2)
    fit = stratified_mean(rng.normal(size=60), np.zeros(60), np.arange(60) % n_clusters)
    assert mean_estimate(fit).reason == (Reason.FEW_CLUSTERS if warned else None)


def test_unknown_chance_is_unknown():
    found = accuracy(_right(0.5, 20), ALONE[20], chance=np.r_[np.nan, np.full(19, 0.25)])
    assert np.isnan(found.null_value)
    assert np.isnan(found.p_value)


def test_confidence_widens_the_interval():
    d = np.random.default_rng(3).normal(size=50)
    widths = [
        e.conf_high - e.conf_low for e in (paired_difference(d, ALONE[50], conf_level=c) for c in (0.8, 0.95, 0.99))
    ]
    assert widths == sorted(widths)


@pytest.mark.parametrize(
    ("sizes", "shares"),
    [((10, *[50] * 9), (0.15, *[0.0025] * 9)), ((20, 200), (0.15, 0.005)), ((5, 500), (0.15, 0.0025))],
)
def test_a_small_task_that_counts_as_much_as_large_ones_is_covered(sizes, shares):
    rng = np.random.default_rng(7)
    task = np.repeat(np.arange(len(sizes)), sizes)
    design, share = Design.of(task, np.arange(len(task))), np.array(shares)[task]
    hits, n = 0, 600
    for _ in range(n):
        u = rng.random(len(task))
        found = paired_difference(np.where(u < share, 1.0, np.where(u < 2 * share, -1.0, 0.0)), design)
        hits += found.conf_low <= 0 <= found.conf_high
    assert hits / n > 0.92  # 70, 90 and 83 % with the variance of each task by itself


def test_a_gap_of_tasks_is_no_more_certain_by_its_p_value_than_by_its_interval():
    # One of five gained in the small task, eight of a thousand lost in the large one: the gap of tasks is above zero.
    task = np.repeat([0, 1], [5, 1000])
    d = np.zeros(1005)
    d[0], d[5:13] = 1, -1
    found = paired_difference(d, Design.of(task, np.arange(1005)))
    assert found.estimate > 0 > found.conf_low
    assert mcnemar_exact(1, 8) < 0.05 < found.p_value


def test_items_that_nearly_all_stand_in_one_cluster_have_no_interval():
    values = np.random.default_rng(0).normal(size=205)
    found = paired_difference(values, Design.of(np.zeros(205), np.r_[np.zeros(200, int), 1:6]))
    assert (found.status, found.reason) == ("open", Reason.DOMINANT_CLUSTER)
    assert "98 %" in found.note
    assert paired_difference(values, Design.of(np.zeros(205), np.r_[np.zeros(150, int), 1:56])).status == "ok"


def test_a_constant_above_zero_may_fall_to_its_lowest_value():
    found = paired_difference(np.full(40, 0.5), Design.of(np.zeros(40), np.arange(40)))
    assert found.conf_low == pytest.approx(0.5 - 1.5 * no_variation_bound(40, 0.95))
    # items at one half are two thirds at most where the mean is zero, the others being at -1
    assert found.p_value == pytest.approx(2 * (2 / 3) ** 40)


def test_few_discordant_items_in_few_of_many_clusters_get_a_score_interval_that_knows_the_clusters():
    cluster = np.repeat(np.arange(100), 3)
    d = np.where(cluster < 3, 1.0, 0.0)
    design = Design.of(np.zeros(300), cluster)
    found = paired_difference(d, design)
    assert found.method == "Tango score interval and test, effective items"
    # three clusters that stand as one: as three of a hundred items, a little wider for the degrees of freedom
    low, high = tango_interval(3, 0, 100)
    assert found.conf_low == pytest.approx(low, abs=0.003)
    assert found.conf_high == pytest.approx(high, abs=0.003)
    assert found.p_value > mcnemar_exact(9, 0)
    assert paired_difference(np.where(cluster < 60, 1.0, 0.0), design).method.startswith("CR2")
    assert paired_difference(np.zeros(300), design).method == "exact bound"
    six = Design.of(np.zeros(60), np.repeat(np.arange(6), 10))
    assert paired_difference(np.tile([1.0, 0, 0, 0, 0], 12), six).method != found.method

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.weightstats import ttost_paired

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason
from capgap.stats import Design, paired_difference, run_equivalence_test, seed_difference, tango_interval
from tests.stats.coverage import simulate
from tests.stats.seeds_coverage import CELLS, false_equivalence


def alone(n):
    return Design.of(np.zeros(n), np.arange(n))


def test_equivalence_of_lone_items_is_that_of_statsmodels():
    rng = np.random.default_rng(0)
    teacher, student = (rng.random(200) < 0.8).astype(float), (rng.random(200) < 0.77).astype(float)
    found = run_equivalence_test(teacher - student, alone(200), 0.1)
    p, below, above = ttost_paired(teacher, student, -0.1, 0.1)
    assert (found.p_value, found.p_below, found.p_above) == pytest.approx((p, below[1], above[1]))


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("n", [24, 240])
def test_equivalent_is_the_same_as_an_interval_within_the_margin(n, clustered):
    rng = np.random.default_rng(n)
    design = Design.of(np.zeros(n), np.arange(n) // (3 if clustered else 1))
    for _ in range(25):
        d = rng.choice([-1.0, 0.0, 1.0], n, p=[0.06, 0.9, 0.04])
        found = run_equivalence_test(d, design, 0.1)
        inside = found.estimate.conf_low > -0.1 and found.estimate.conf_high < 0.1
        assert found.is_equivalent == inside


def test_equivalence_of_few_items_is_tangos_test():
    # Tango's own interval at 90 % touches the margin exactly where the test is at 5 %.
    d = np.r_[np.ones(3), -np.ones(1), np.zeros(21)]
    _, high = tango_interval(3, 1, 25, conf_level=0.9)
    found = run_equivalence_test(d, alone(25), high)
    assert "Tango" in found.estimate.method
    assert found.p_above == pytest.approx(0.05, abs=1e-6)
    assert found.p_above > found.p_below


def test_equivalence_mirrors_when_roles_swap():
    rng = np.random.default_rng(1)
    for n in (20, 100):
        d = rng.choice([-1.0, 0.0, 1.0], n)
        one, other = run_equivalence_test(d, alone(n), 0.3), run_equivalence_test(-d, alone(n), 0.3)
        assert (one.p_below, one.p_above) == pytest.approx((other.p_above, other.p_below))


def test_a_wider_margin_is_easier():
    d = np.random.default_rng(2).normal(0.01, 0.3, 300)
    p = [run_equivalence_test(d, alone(300), m).p_value for m in (0.01, 0.03, 0.06, 0.2)]
    assert p == sorted(p, reverse=True)
    verdict = run_equivalence_test(d, alone(300), 0.2)
    assert verdict.is_equivalent
    assert verdict.not_inferior
    assert verdict.summary().startswith("Within 0.2: equivalent\n")
    assert verdict.tidy()[0]["conf_level"] == pytest.approx(0.9)


def test_copies_are_equivalent_only_where_items_suffice():
    # 40 agreeing items say that fewer than 1 - 0.05^(1/40) = 7.2 % differ.
    d = np.zeros(40)
    design = Design.of(np.zeros(40), np.arange(40) // 1, weights=[1.0])
    half_scores = np.full(40, 1e-300)  # not right or wrong: the exact bound, not Tango's table
    assert run_equivalence_test(half_scores, design, 0.08).is_equivalent
    assert not run_equivalence_test(half_scores, design, 0.07).is_equivalent
    assert run_equivalence_test(d, design, 0.08).is_equivalent


def test_one_cluster_is_not_tested_and_nonsense_is_told():
    found = run_equivalence_test(np.zeros(9), Design.of(np.zeros(9), np.zeros(9)), 0.1)
    assert not found.is_equivalent
    assert np.isnan(found.p_value)
    assert "not tested" in found.summary()
    with pytest.raises(EstimationError, match="above zero"):
        run_equivalence_test(np.zeros(9), alone(9), 0)
    with pytest.raises(EstimationError, match="alpha"):
        run_equivalence_test(np.zeros(9), alone(9), 0.1, alpha=0.5)


def test_models_that_differ_by_the_margin_are_rarely_called_equivalent():
    # Binomial standard error at 300 runs: 1.3 points.
    assert false_equivalence(200, 0.3, 300, 0) < 0.05 + 3 * 0.013
    assert false_equivalence(25, 0.4, 300, 1) < 0.05 + 3 * 0.013


def test_seed_variance_by_hand():
    # Two items, three seeds, every item its own cluster: means of items 0.5 and 0, of seeds 0.5, 0.25, 0.
    d = np.array([[1.0, 0.0], [0.5, 0.0], [0.0, 0.0]])
    found = seed_difference(d, alone(2))
    v_items, v_seeds = np.var([0.5, 0.0], ddof=1) / 2, np.var([0.5, 0.25, 0.0], ddof=1) / 3
    deviations = d - d.mean(axis=0)
    v_both = sum(np.var(row, ddof=1) / 2 for row in deviations) / 6
    assert found.std_error == pytest.approx(np.sqrt(v_items + v_seeds - v_both))
    assert found.estimate == pytest.approx(0.25)


def test_seeds_that_agree_leave_the_interval_of_items():
    rng = np.random.default_rng(3)
    d = rng.choice([-1.0, 0.0, 1.0], 100)
    found, plain = seed_difference(np.tile(d, (4, 1)), alone(100)), paired_difference(d, alone(100))
    assert (found.conf_low, found.conf_high) == pytest.approx((plain.conf_low, plain.conf_high), abs=1e-6)


def test_seeds_that_differ_alone_leave_the_t_of_their_means():
    means = np.array([0.1, 0.2, 0.35, 0.4])
    found = seed_difference(np.tile(means[:, None], (1, 50)), alone(50))
    reference = stats.ttest_1samp(means, 0.0)
    assert found.p_value == pytest.approx(reference.pvalue, rel=1e-6)
    assert (found.conf_low, found.conf_high) == pytest.approx(tuple(reference.confidence_interval(0.95)), rel=1e-6)


def test_seed_difference_ignores_order_and_items_that_a_seed_missed():
    rng = np.random.default_rng(4)
    d = rng.choice([-1.0, 0.0, 1.0], (4, 60))
    i = rng.permutation(60)
    one, other = seed_difference(d, alone(60)), seed_difference(d[::-1][:, i], alone(60))
    assert one.conf_low == pytest.approx(other.conf_low)
    holes = np.column_stack([d, np.array([np.nan, 1, 1, 1])])
    assert seed_difference(holes, alone(61)).conf_low == pytest.approx(one.conf_low)


def test_two_seeds_are_refused():
    found = seed_difference(np.zeros((2, 9)), alone(9))
    assert found.status == "refused"
    assert found.reason == Reason.FEW_SEEDS
    with pytest.raises(EstimationError, match="seeds, items"):
        seed_difference(np.zeros(9), alone(9))
    assert seed_difference(np.zeros((3, 9)), Design.of(np.zeros(9), np.zeros(9))).status == "open"


def test_tasks_and_items_that_weigh_equally_by_hand():
    d, task = np.r_[np.ones(10), np.zeros(30)], np.repeat(["a", "b"], [10, 30])
    found = [paired_difference(d, Design.of(task, np.arange(40), weights=w)) for w in (None, [0.25, 0.75])]
    assert [e.estimate for e in found] == pytest.approx([0.5, 0.25])
    # tasks stay strata: how they differ is no error of either mean
    assert [e.reason for e in found] == [Reason.NO_VARIATION_EXACT_BOUND] * 2


@pytest.mark.parametrize("cell", [CELLS[2], CELLS[4]], ids=lambda cell: cell.name)
def test_the_interval_for_a_recipe_covers(cell):
    assert simulate(cell, 300, 0).p_value > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_the_interval_for_a_recipe_covers_in_long_runs(cell):
    assert simulate(cell, 2000, 7).p_value > 0.05 / len(CELLS)

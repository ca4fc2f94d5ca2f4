import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from capgap.errors import EstimationError
from capgap.stats import Estimate, benjamini_hochberg, change_conf_level, holm, run_tree_test, simes


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("ours", "theirs"), [(holm, "holm"), (benjamini_hochberg, "fdr_bh")])
def test_adjusted_p_values_are_those_of_statsmodels(seed, ours, theirs):
    p = np.random.default_rng(seed).random(12) ** 3
    p[3], p[5] = p[0], 0.0  # a tie, and one beyond doubt
    assert ours(p) == pytest.approx(multipletests(p, method=theirs)[1], abs=1e-12)


@pytest.mark.parametrize("ours", [holm, benjamini_hochberg])
def test_refused_numbers_are_no_members(ours):
    with_nan = ours([0.02, np.nan, 0.03])
    assert with_nan == pytest.approx([*ours([0.02, 0.03])[:1], np.nan, ours([0.02, 0.03])[1]], nan_ok=True)
    assert len(ours([])) == 0


def test_simes_by_hand_and_by_scipy():
    assert simes([0.01, 0.04, 0.5]) == pytest.approx(0.03)
    assert simes([0.01, 0.04, 0.5]) == pytest.approx(min(stats.false_discovery_control([0.01, 0.04, 0.5])))
    assert np.isnan(simes([np.nan]))


# Two capabilities of four at the top are selected; below the first three tasks, below the second two.
PARENTS = np.array([-1, -1, -1, -1, 0, 0, 0, 1, 1, 2])
P = np.array([0.001, 0.02, 0.5, 0.9, 0.004, 0.03, 0.7, 0.026, 0.6, 0.0001])


def test_the_tree_by_hand():
    found = run_tree_test(P, PARENTS, level=0.05)
    # Top: BH of four gives 0.004, 0.04, 0.667, 0.9; two of four pass at 0.05. Families below: level 0.025.
    assert found.is_selected[:4].tolist() == [True, True, False, False]
    assert found.family_test_level[[4, 7]] == pytest.approx([0.025, 0.025])
    # First family: BH gives 0.012, 0.045, 0.7; the first passes. Second family: 0.052: none.
    assert found.is_selected[4:9].tolist() == [True, False, False, False, False]
    assert found.p_adjusted[4:7] == pytest.approx([0.024, 0.09, 1.0])
    # A child of a node that was not selected is never looked at, however small its p-value.
    assert not found.is_selected[9]
    assert np.isnan(found.p_adjusted[9])
    assert np.isnan(found.family_test_level[9])
    assert found.conf_level[[0, 1]] == pytest.approx([0.975, 0.975])
    assert found.conf_level[4] == pytest.approx(1 - 0.025 / 3)
    assert np.isnan(found.conf_level[5])
    assert (found.is_selected.sum(), np.isfinite(found.family_test_level).sum()) == (3, 9)


def test_a_node_is_selected_where_its_adjusted_p_value_is_small():
    rng = np.random.default_rng(0)
    for _ in range(50):
        p, parents = rng.random(30) ** 4, np.r_[np.full(5, -1), np.arange(15) % 5, 5 + np.arange(10) % 15]
        found = run_tree_test(p, parents, level=0.1)
        reached = np.isfinite(found.p_adjusted)
        assert ((found.p_adjusted <= 0.1) == found.is_selected)[reached].all()
        assert not found.is_selected[~reached].any()


def test_one_family_is_benjamini_hochberg():
    p = np.random.default_rng(1).random(20) ** 2
    assert run_tree_test(p, np.full(20, -1)).p_adjusted == pytest.approx(benjamini_hochberg(p))


def test_the_order_of_nodes_does_not_count():
    rng = np.random.default_rng(2)
    order = rng.permutation(len(P))
    place = np.argsort(order)
    moved = run_tree_test(P[order], np.where(PARENTS[order] < 0, -1, place[PARENTS[order]]))
    assert moved.p_adjusted == pytest.approx(run_tree_test(P, PARENTS).p_adjusted[order], nan_ok=True)


def test_an_inner_node_without_a_p_value_gets_that_of_its_children():
    p = np.array([np.nan, np.nan, 0.01, 0.04, 0.2, 0.3])
    found = run_tree_test(p, [-1, -1, 0, 0, 1, 1])
    assert found.p_values[:2] == pytest.approx([simes([0.01, 0.04]), simes([0.2, 0.3])])


def test_nothing_and_nan_are_no_trouble_and_circles_are_told():
    assert not len(run_tree_test([], []).is_selected)
    assert not run_tree_test([np.nan, np.nan], [-1, 0]).is_selected.any()
    with pytest.raises(EstimationError, match="circle"):
        run_tree_test([0.1, 0.1, 0.1], [-1, 2, 1])
    with pytest.raises(EstimationError, match="position"):
        run_tree_test([0.1], [0])
    with pytest.raises(EstimationError, match="between 0 and 1"):
        run_tree_test([1.1], [-1])
    with pytest.raises(EstimationError, match="level"):
        run_tree_test([0.1], [-1], level=0)


def test_an_interval_at_another_level_is_that_of_t():
    e = change_conf_level(Estimate(0.2, 0.1, 9.0, 0.0, 0.4), 0.99)
    assert (e.conf_low, e.conf_high) == pytest.approx(stats.t.interval(0.99, 9, 0.2, 0.1))
    with pytest.raises(EstimationError, match="no standard error"):
        change_conf_level(Estimate(0.2, conf_low=0.1, conf_high=0.3), 0.99)


def false_shares(n_runs, seed, q=0.1):
    """Mean share of false ones over selected families, and of selected intervals that miss, two levels of ten."""
    rng = np.random.default_rng(seed)
    parents = np.r_[np.full(10, -1), np.repeat(np.arange(10), 10)]
    false, missed = [], []
    for _ in range(n_runs):
        # Half of the families hold nothing, the others four real effects of ten.
        effect = np.zeros((10, 10))
        effect[:5, :4] = 2.5
        z = effect + rng.normal(size=(10, 10))
        leaves = 2 * stats.norm.sf(np.abs(z)).ravel()
        found = run_tree_test(np.r_[np.full(10, np.nan), leaves], parents, level=q)
        families = [
            (chosen := found.is_selected[10 + 10 * f : 20 + 10 * f]) @ (effect[f] == 0) / max(1, chosen.sum())
            for f in np.flatnonzero(found.is_selected[:10])
        ]
        false.append(np.mean(families) if families else 0.0)
        picked = np.flatnonzero(found.is_selected[10:])
        reach = stats.norm.ppf(0.5 + found.conf_level[10 + picked] / 2)
        off = np.abs(z.ravel()[picked] - effect.ravel()[picked]) > reach
        missed.append(off.mean() if len(picked) else 0.0)
    return np.mean(false), np.std(false) / np.sqrt(n_runs), np.mean(missed)


def test_false_discoveries_and_missed_intervals_stay_below_the_level():
    false, error, missed = false_shares(400, 0)
    assert false <= 0.1 + 2 * error
    assert missed <= 0.1 + 0.02


@pytest.mark.slow
def test_false_discoveries_stay_below_the_level_in_long_runs():
    false, error, missed = false_shares(5000, 1)
    assert false <= 0.1 + 2 * error
    assert missed <= 0.1

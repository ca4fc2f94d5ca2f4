"""Recipe contrasts: differences of seed means, simultaneous intervals, signal against seeds."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason
from capgap.stats import Design, answer_variance, holm, recipe_contrasts, seed_signal
from capgap.stats.recipe_contrasts import equal_seed_noise
from capgap.stats.seed_noise import SeedNoise
from tests.stats.recipe_contrasts_coverage import CELLS, RecipeCell, run_cell

PAIRS = list(combinations(range(3), 2))


def alone(n):
    return Design.of(np.zeros(n), np.arange(n))


def drawn(n_recipes=3, n_seeds=4, n_items=200, seed=0):
    return RecipeCell(n_recipes, n_seeds, n_items, 0.2).draw(np.random.default_rng(seed))


def test_a_contrast_agrees_with_the_prototype():
    # Balanced recipes: the two variances of a difference by hand, item × seed counted once.
    scores = [*drawn(2, 5, 300)]
    y = np.array(scores)
    (found,) = recipe_contrasts(scores, alone(300), [(0, 1)])
    difference = y[0].mean(axis=0) - y[1].mean(axis=0)
    v_items = difference.var(ddof=1) / 300
    v_seeds = 2 * y.mean(axis=2).var(axis=1, ddof=1).mean() / 5
    deviations = y - y.mean(axis=1, keepdims=True)
    residual = sum(d.var(axis=1, ddof=1).sum() / (5 * 4) / 300 for d in deviations)
    variance = max(v_items + v_seeds - residual, v_items, v_seeds)
    df = variance**2 / (v_seeds**2 / 8 + v_items**2 / 299)
    half = stats.t.ppf(0.975, df) * np.sqrt(variance)
    assert found.estimate.estimate == pytest.approx(difference.mean())
    assert (found.estimate.conf_low, found.estimate.conf_high) == pytest.approx(
        (difference.mean() - half, difference.mean() + half)
    )


def test_seeds_that_differ_alone_leave_the_t_test_of_two_samples():
    means = np.array([[0.1, 0.2, 0.35, 0.4], [0.3, 0.5, 0.52, 0.7]])
    scores = [np.tile(recipe[:, None], (1, 50)) for recipe in means]
    (found,) = recipe_contrasts(scores, alone(50), [(0, 1)])
    reference = stats.ttest_ind(*means)
    assert found.estimate.p_value == pytest.approx(reference.pvalue, rel=1e-6)
    assert found.estimate.conf_low == pytest.approx(reference.confidence_interval(0.95).low, rel=1e-6)


def test_seeds_of_unlike_spread_leave_welchs_t_and_it_is_told():
    means = np.array([[0.1, 0.3, 0.5, 0.7, 0.2], [0.50, 0.51, 0.52, 0.5, 0.505]])
    scores = [np.tile(recipe[:, None], (1, 50)) for recipe in means]
    (found,) = recipe_contrasts(scores, alone(50), [(0, 1)])
    reference = stats.ttest_ind(*means, equal_var=False)
    assert stats.bartlett(*means).pvalue < 0.1
    assert found.estimate.reason == Reason.UNEQUAL_SEED_NOISE
    assert found.estimate.p_value == pytest.approx(reference.pvalue, rel=1e-6)


def test_bartletts_decision_is_scipys():
    rng = np.random.default_rng(0)
    for _ in range(200):
        groups = [rng.normal(0, scale, n) for scale, n in zip(rng.uniform(0.5, 2, 4), (3, 4, 5, 3), strict=True)]
        noises = [SeedNoise(group, float(group.var(ddof=1)), 0.0) for group in groups]
        assert equal_seed_noise(noises) == (stats.bartlett(*groups).pvalue >= 0.1)


def test_swapped_recipes_change_the_sign_and_order_changes_nothing():
    scores = drawn()
    rng = np.random.default_rng(1)
    plain = recipe_contrasts(scores, alone(200), PAIRS)
    swapped = recipe_contrasts(scores, alone(200), [(j, i) for i, j in PAIRS])
    items = rng.permutation(200)
    shuffled = recipe_contrasts([s[::-1][:, items] for s in scores], alone(200), PAIRS)
    for one, other, same in zip(plain, swapped, shuffled, strict=True):
        assert one.estimate.conf_low == pytest.approx(-other.estimate.conf_high)
        assert one.estimate.conf_low == pytest.approx(same.estimate.conf_low)
        assert one.p_adjusted == pytest.approx(other.p_adjusted)


def test_intervals_pay_for_all_comparisons_and_p_values_are_holms():
    scores = drawn()
    together = recipe_contrasts(scores, alone(200), PAIRS)
    by_itself = recipe_contrasts(scores, alone(200), PAIRS, n_comparisons=1, conf_level=1 - 0.05 / 3)
    assert [c.estimate.conf_low for c in together] == pytest.approx([c.estimate.conf_low for c in by_itself])
    assert [c.p_adjusted for c in together] == pytest.approx(holm([c.estimate.p_value for c in together]))
    of_ten = recipe_contrasts(scores, alone(200), PAIRS, n_comparisons=10)
    assert all(wide.p_adjusted >= c.p_adjusted for wide, c in zip(of_ten, together, strict=True))
    assert all(wide.estimate.conf_low < c.estimate.conf_low for wide, c in zip(of_ten, together, strict=True))


def test_equal_answers_have_an_exact_bound_and_one_cluster_has_no_interval():
    same = [np.tile(np.arange(40) % 2, (3, 1)).astype(float)] * 2
    (found,) = recipe_contrasts(same, alone(40), [(0, 1)])
    assert found.estimate.conf_low < 0 < found.estimate.conf_high
    assert Reason.NO_VARIATION_EXACT_BOUND in found.estimate.remark_codes
    (open_one,) = recipe_contrasts(drawn(2), Design.of(np.zeros(200), np.zeros(200)), [(0, 1)])
    assert open_one.estimate.status == "open"


def test_the_signal_is_the_analysis_of_variance_of_seed_means():
    scores = drawn(4, 5, 100)
    found = seed_signal(scores, alone(100))
    reference = stats.f_oneway(*[recipe.mean(axis=1) for recipe in scores])
    assert found.ratio.p_value == pytest.approx(reference.pvalue)
    assert found.ratio.estimate == pytest.approx(np.sqrt(max(reference.statistic - 1, 0) / 5))
    assert (found.ratio.conf_low > 0) == (stats.f.sf(reference.statistic, 3, 16) < 0.025)


def test_a_task_that_cannot_tell_recipes_apart_says_so():
    means = np.array([[0.4, 0.5, 0.6], [0.41, 0.5, 0.59]])
    same = seed_signal([np.tile(recipe[:, None], (1, 20)) for recipe in means], alone(20))
    assert same.ratio.reason == Reason.NO_SIGNAL
    assert same.spread_recipes == 0
    apart = seed_signal([np.tile(recipe[:, None], (1, 20)) for recipe in means + np.array([[0], [0.4]])], alone(20))
    assert apart.ratio.reason is None
    still = seed_signal([np.ones((3, 20)), np.zeros((3, 20))], alone(20))
    assert (still.ratio.status, still.ratio.reason) == ("refused", Reason.NO_SEED_NOISE)


def test_the_luck_of_answers_over_repeats_is_the_variance_of_their_mean():
    rng = np.random.default_rng(0)
    p, design = rng.uniform(0.2, 0.8, 40), Design.of(np.repeat([0, 1], [10, 30]), np.arange(40))
    weights = np.repeat([0.5 / 10, 0.5 / 30], [10, 30])
    truth = (weights**2 * p * (1 - p) / 4).sum() / 3  # four answers an item, three seeds
    found = [answer_variance(rng.binomial(4, p, (3, 40)) / 4, design, 4) for _ in range(400)]
    assert np.mean(found) == pytest.approx(truth, rel=0.02)


def test_a_single_seed_or_other_items_are_told():
    with pytest.raises(EstimationError, match="two seeds"):
        recipe_contrasts([np.zeros((1, 9)), np.zeros((3, 9))], alone(9), [(0, 1)])
    with pytest.raises(EstimationError, match="shape"):
        seed_signal([np.zeros((3, 8)), np.zeros((3, 9))], alone(9))


@pytest.mark.parametrize("cell", [RecipeCell(5, 3, 200, 0.1), RecipeCell(2, 3, 200, 0.3)], ids=str)
def test_contrasts_cover_together(cell):
    result = run_cell(cell, 150, 0)
    assert stats.binomtest(round(result.simultaneous * 150), 150, 0.94, alternative="less").pvalue > 0.01
    assert result.printed >= result.simultaneous


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_contrasts_cover_together_in_long_runs(cell):
    result = run_cell(cell, 2000, 7)
    assert result.simultaneous > (0.88 if cell.unequal_noise else 0.922)

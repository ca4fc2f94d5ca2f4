import math
from dataclasses import replace

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason
from capgap.stats import Design, GapDesign, paired_difference, seed_difference, size_for_gap, smallest_visible_gap


def test_one_task_by_hand():
    # (1.95996 + 0.84162)^2 = 7.84888; 7.84888 * 0.3 / 100 / (1 + 7.84888 / 100) = 0.021833.
    assert smallest_visible_gap([100]) == pytest.approx(math.sqrt(7.84888 * 0.003 / 1.0784888), rel=1e-5)


def test_tasks_weigh_equally_and_empty_ones_leave():
    assert smallest_visible_gap({"a": 50, "b": 50}) == pytest.approx(smallest_visible_gap([100]), rel=0.02)
    assert smallest_visible_gap([20, 500]) > smallest_visible_gap([260, 260])
    assert smallest_visible_gap([100, 0]) == smallest_visible_gap([100])
    assert math.isnan(smallest_visible_gap([]))


def test_the_gap_is_found_with_the_promised_power():
    n, gap, disagreement = 200, smallest_visible_gap([200]), 0.3
    rng = np.random.default_rng(0)
    design = Design.of(np.zeros(n), np.arange(n))
    probabilities = [(disagreement - gap) / 2, 1 - disagreement, (disagreement + gap) / 2]
    found = [paired_difference(rng.choice([-1.0, 0, 1], n, p=probabilities), design).p_value < 0.05 for _ in range(800)]
    # Monte-Carlo standard error 1.4 points.
    assert np.mean(found) == pytest.approx(0.8, abs=3 * 0.0142)


def test_power_of_one_task_is_that_of_the_t_test_in_statsmodels():
    design = GapDesign(n_tasks=1, items_per_task=120, disagreement=0.25)
    for gap in (0.02, 0.08, 0.15):
        effect = gap / math.sqrt(0.25 - gap**2)
        assert design.power(gap) == pytest.approx(TTestPower().power(effect, 120, 0.05), abs=1e-6)


def test_the_design_effect_by_hand():
    assert GapDesign(cluster_size=5, icc=0.2).design_effect == pytest.approx(1.8)
    assert GapDesign(cluster_size=5, icc=0.2, cluster_cv=0.5).design_effect == pytest.approx(1 + 5.25 * 0.2)
    # 0.3 * 1.8 / 200 + 0.03² / 2 + 0.02² / 4, without a gap.
    design = GapDesign(2, 100, cluster_size=5, icc=0.2, task_sd=0.03, n_seeds=4, seed_sd=0.02)
    assert design.std_error(0.0) ** 2 == pytest.approx(0.0027 + 0.00045 + 0.0001)


def test_smallest_gap_and_power_are_inverse_and_meet_the_formula_for_many_items():
    design = GapDesign(4, 250, cluster_size=4, icc=0.1, n_seeds=3, seed_sd=0.01)
    assert design.power(design.smallest_gap(0.9)) == pytest.approx(0.9)
    plain = GapDesign(3, 4000)
    assert plain.smallest_gap() == pytest.approx(smallest_visible_gap([4000] * 3), rel=1e-3)


def test_needed_numbers_are_the_smallest_that_reach_the_power():
    design = GapDesign(4, 50, cluster_size=5, icc=0.1, task_sd=0.02, n_seeds=5, seed_sd=0.01)
    for what, field in (("items", "items_per_task"), ("tasks", "n_tasks")):
        found = size_for_gap(0.06, design, what)
        assert replace(design, **{field: found.n}).power(0.06) == pytest.approx(found.power)
        assert found.power >= 0.8 > replace(design, **{field: found.n - 1}).power(0.06)
    clusters = size_for_gap(0.06, design, "clusters")
    assert clusters.n == pytest.approx(size_for_gap(0.06, design, "items").n / 5, abs=1)


def test_where_seeds_or_tasks_hide_a_gap_items_do_not_help():
    found = size_for_gap(0.03, GapDesign(2, 100, n_seeds=3, seed_sd=0.05), "items")
    assert found.n is None
    assert found.power < 0.8
    assert (found.n, found.reason) == (None, Reason.POWER_OUT_OF_REACH)
    assert size_for_gap(0.1, GapDesign(2, 2000, n_seeds=3, seed_sd=0.05), "seeds").n >= 3


def test_more_of_anything_never_sees_less():
    small = GapDesign(3, 40, cluster_size=4, icc=0.2, task_sd=0.02, n_seeds=3, seed_sd=0.02)
    for change in ({"items_per_task": 80}, {"n_tasks": 6}, {"n_seeds": 6}, {"icc": 0.0}, {"task_sd": 0.0}):
        assert replace(small, **change).power(0.05) > small.power(0.05)
    assert small.power(0.05) == small.power(-0.05)
    assert small.power(0.0) == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize(
    "design", [GapDesign(2, 60, cluster_size=6, icc=0.2), GapDesign(1, 200, n_seeds=4, seed_sd=0.03)], ids=str
)
def test_the_promised_power_is_what_estimators_reach(design):
    reached = simulated_gap_power(design, 0.1, 400, 0)
    # Monte-Carlo standard error 2.5 points; seeds' critical value is on the wide side.
    assert reached == pytest.approx(design.power(0.1), abs=0.12 if design.seed_sd else 0.08)


def simulated_gap_power(design, gap, n, seed):
    rng = np.random.default_rng(seed)
    items = int(design.n_tasks * design.items_per_task)
    cluster = np.arange(items) // int(design.cluster_size)
    task = cluster % design.n_tasks
    found = 0
    for _ in range(n):
        # A cluster that is all of one mind with this probability has this correlation.
        copy = rng.random(items) < math.sqrt(design.icc)
        chances = [(design.disagreement - gap) / 2, 1 - design.disagreement, (design.disagreement + gap) / 2]
        own, common = (rng.choice([-1.0, 0.0, 1.0], items, p=chances) for _ in range(2))
        d = np.where(copy, common[cluster], own)
        strata = Design.of(task, cluster)
        if design.seed_sd:
            shifts = rng.normal(0, design.seed_sd, design.n_seeds)
            e = seed_difference(d + shifts[:, None], strata)
        else:
            e = paired_difference(d, strata)
        found += not e.conf_low <= 0 <= e.conf_high
    return found / n


@pytest.mark.parametrize(
    "nonsense",
    [
        lambda: GapDesign(items_per_task=0),
        lambda: GapDesign(icc=2),
        lambda: GapDesign(seed_sd=0.1),
        lambda: GapDesign().power(0.5),
        lambda: GapDesign().smallest_gap(1.5),
        lambda: size_for_gap(0.1, GapDesign(), "wishes"),
        lambda: size_for_gap(0.0, GapDesign(), "items"),
        lambda: size_for_gap(0.1, GapDesign(), "items", power=1.0),
    ],
)
def test_nonsense_is_told(nonsense):
    with pytest.raises(EstimationError):
        nonsense()


def test_a_design_that_sees_nothing_says_so():
    assert math.isnan(GapDesign(1, 3, disagreement=0.2).smallest_gap())


def test_numbers_of_items_that_an_exact_test_will_judge_come_with_a_warning():
    few = size_for_gap(0.3, GapDesign(disagreement=0.4), "items")
    assert few.n <= 30
    assert few.reason == Reason.EXACT_TEST_DESIGN
    assert not size_for_gap(0.1, GapDesign(disagreement=0.3), "items").remarks
    # half as many again is what the exact p-value needs
    rng, n = np.random.default_rng(0), round(1.5 * few.n)
    design = Design.of(np.zeros(n), np.arange(n))
    draws = rng.choice([-1.0, 0, 1], (400, n), p=[0.05, 0.6, 0.35])
    assert np.mean([paired_difference(d, design).p_value < 0.05 for d in draws]) > 0.8

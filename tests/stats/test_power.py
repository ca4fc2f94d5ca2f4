import math

import numpy as np
import pytest

from capgap.stats import Design, paired_difference, smallest_visible_gap


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

"""Bounds against every completion of the unknown answers."""

import itertools
import math

import numpy as np
import pytest

from capgap.schema.remarks import Reason, remark
from capgap.stats import (
    Design,
    Estimate,
    contrast_bounds,
    corner_bounds,
    has_both_signs,
    paired_difference,
    ratio_of_means,
    refused,
    score_corners,
)


def _hand(point, low, high):
    return Estimate(point, conf_low=low, conf_high=high)


def test_bounds_reach_from_the_lowest_to_the_highest_end_of_any_corner():
    bounds = corner_bounds(_hand(0.2, 0.1, 0.3), [_hand(0.05, -0.02, 0.12), _hand(0.4, 0.31, 0.49)])
    assert (bounds.estimate, bounds.conf_low, bounds.conf_high) == (0.2, -0.02, 0.49)
    assert math.isnan(bounds.p_value)
    assert has_both_signs(bounds)


def test_bounds_are_refused_where_a_corner_is():
    no_room = refused(remark(Reason.DENOMINATOR_NEAR_ZERO, denominator="d", value=0.0, low=-1.0, high=1.0))
    bounds = corner_bounds(_hand(0.2, 0.1, 0.3), [no_room])
    assert (bounds.status, bounds.reason) == ("refused", Reason.DENOMINATOR_NEAR_ZERO)


def test_bounds_of_a_difference_are_refused_by_the_name_of_the_side_that_has_none():
    side = refused(remark(Reason.NO_ITEMS))
    bounds = contrast_bounds(_hand(0.2, 0.1, 0.3), _hand(0.2, 0.1, 0.3), side, ("knowledge", "reasoning"))
    assert bounds.status == "refused"
    assert bounds.remarks[0].part_name == "reasoning"


def test_bounds_of_a_difference_hold_every_pair_of_its_sides():
    bounds = contrast_bounds(_hand(0.2, 0.0, 0.4), _hand(0.5, 0.3, 0.9), _hand(0.3, 0.1, 0.4), ("a", "b"))
    assert (bounds.conf_low, bounds.conf_high) == pytest.approx((0.3 - 0.4, 0.9 - 0.1))


def test_a_model_without_unknown_answers_has_one_case():
    known, unknown = np.ones(3), (np.zeros(3), np.ones(3))
    assert len(list(score_corners({"teacher": (known, known), "student": unknown, "base": unknown}))) == 4


@pytest.mark.parametrize("seed", range(4))
def test_no_completion_of_unknown_answers_leaves_the_bounds(seed):
    rng = np.random.default_rng(seed)
    design = Design.of(np.repeat([0, 1], [24, 36]), np.arange(60))
    scores = {
        role: (rng.random(60) < p).astype(float) for role, p in (("teacher", 0.9), ("student", 0.6), ("base", 0.2))
    }
    unknown = {role: rng.choice(60, 3, replace=False) for role in scores}

    def closure(s):
        return ratio_of_means(design.fit(np.column_stack([s["student"] - s["base"], s["teacher"] - s["base"]])))

    def gap(s):
        return paired_difference(s["teacher"] - s["student"], design)

    extremes = {}
    for role, values in scores.items():
        worst, best = values.copy(), values.copy()
        worst[unknown[role]], best[unknown[role]] = 0, 1
        extremes[role] = worst, best
    bounds = {f: corner_bounds(f(scores), map(f, score_corners(extremes))) for f in (gap, closure)}
    for bits in itertools.islice(itertools.product((0.0, 1.0), repeat=9), 0, None, 7):
        completed = {role: values.copy() for role, values in scores.items()}
        for k, role in enumerate(scores):
            completed[role][unknown[role]] = bits[3 * k : 3 * k + 3]
        for measure, bound in bounds.items():
            point = measure(completed).estimate
            assert bound.conf_low <= point <= bound.conf_high
            without_sampling = bound.remarks[-1].values
            assert without_sampling["low"] - 1e-12 <= point <= without_sampling["high"] + 1e-12

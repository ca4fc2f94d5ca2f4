import numpy as np
import pytest

from capgap.errors import EstimationError
from capgap.stats.curves import AssumedCurve, CurveTarget, data_cost_ratio_power

SIZES = (125, 250, 500, 1000, 2000, 4000)


def test_a_supposed_curve_meets_its_target_at_its_cost():
    curve = AssumedCurve(0.3, 0.9, 0.9, 700)
    at = curve.accuracy(np.array([0.0, 700.0, 1e9]), CurveTarget(0.9), 0.25)
    assert at == pytest.approx([0.3, 0.25 + 0.9 * 0.65, 0.9])
    closed = curve.accuracy(np.array([700.0]), CurveTarget(0.5, "closure"), 0.25)
    assert closed == pytest.approx(0.6)


def test_costs_that_differ_much_are_told_apart_and_equal_ones_seldom():
    def power(cost: float, seed: int = 0) -> float:
        first, second = AssumedCurve(0.3, 0.85, 0.85, cost), AssumedCurve(0.3, 0.85, 0.85, 300)
        found = data_cost_ratio_power(
            first, second, sizes=SIZES, n_seeds=2, n_items=400, rng=np.random.default_rng(seed), n_replicates=20
        )
        assert found.n_replicates == 20
        return found.power

    assert power(1500) > 0.7
    assert power(300) < 0.2


@pytest.mark.parametrize(
    ("curve", "changes", "message"),
    [
        (AssumedCurve(0.9, 0.95, 0.95, 10), {}, "has no cost"),
        (AssumedCurve(0.3, 0.6, 0.9, 10), {}, "has no cost"),
        (AssumedCurve(0.3, 0.9, 0.9, 10), {"n_seeds": 0}, "lie above zero"),
        (AssumedCurve(0.3, 0.9, 0.9, 10), {"sizes": (0, 10)}, "lie above zero"),
    ],
)
def test_what_is_no_design_is_refused(curve, changes, message):
    options = {"sizes": SIZES, "n_seeds": 2, "n_items": 50} | changes
    with pytest.raises(EstimationError, match=message):
        data_cost_ratio_power(curve, curve, rng=np.random.default_rng(0), n_replicates=2, **options)

import math
from itertools import pairwise

import numpy as np
import pytest

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason
from capgap.stats.curves import CurveTarget, curve_data, fit_curves, next_batch, relative_data_cost
from tests.stats.curves.coverage import slow_logarithm
from tests.stats.curves.test_fit import noiseless
from tests.stats.curves.world import CurveWorld, exponential, power


def fitted(draw, *, offset=0, **options):
    scores, teacher, sizes, *seeds = draw
    codes = offset + np.arange(len(teacher))
    data = curve_data(scores, teacher, sizes, seeds=seeds[0] if seeds else None, chance=0.0, clusters=codes)
    return fit_curves(data, **options)


def test_without_noise_the_gain_is_the_curves():
    gain = next_batch(fitted(noiseless(power()), form_names=("power",)))
    curve = power()
    assert gain.estimate == pytest.approx(curve(121500.0) - curve(60750.0), abs=3e-4)
    assert gain.conf_low <= gain.estimate <= gain.conf_high
    inside = next_batch(fitted(noiseless(power()), form_names=("power",)), size_before=2000, n_new_examples=1000)
    assert inside.estimate == pytest.approx(curve(3000.0) - curve(2000.0), abs=3e-4)


def test_the_gain_spans_the_accepted_forms_and_says_that_it_is_extrapolated():
    fit = fitted(CurveWorld().draw(np.random.default_rng(3), 2000))
    gain = next_batch(fit)
    names = [f.form.name for f in fit.accepted_fits]
    assert [name for name, _ in gain.form_estimates] == names
    assert gain.conf_low == min(part.conf_low for _, part in gain.form_estimates) >= 0
    assert gain.conf_high == max(part.conf_high for _, part in gain.form_estimates)
    assert Reason.EXTRAPOLATED in gain.remark_codes
    assert "the gain is extrapolated beyond the largest size, 60,800" in gain.note
    far = next_batch(fit, growth_factor=4.1)
    assert (far.status, far.reason) == ("refused", Reason.BEYOND_HORIZON)
    assert next_batch(fit, growth_factor=4).status == "ok"
    assert len(gain.tidy()) == 1 + len(gain.form_estimates)
    assert "examples" in gain.summary()


def test_what_rises_alike_with_every_doubling_is_promised_as_much_again():
    world = CurveWorld(curve=slow_logarithm)
    gain = next_batch(fitted(world.draw(np.random.default_rng(0), 2000)))
    largest = max(world.sizes)
    truth = float(np.diff(slow_logarithm(np.array([largest, 2.0 * largest])))[0])
    growing = dict(gain.form_estimates)["logarithmic"]
    assert growing.conf_low <= truth <= growing.conf_high
    assert gain.conf_high >= truth
    assert gain.remark_codes[-1] == Reason.ONE_LAW_GROWS


def test_growth_without_a_ceiling_ends_where_everything_is_right():
    fit = fitted(CurveWorld(curve=slow_logarithm).draw(np.random.default_rng(0), 2000))
    assert fit.predict([max(fit.data.sizes)])[0] + next_batch(fit, growth_factor=4).conf_high <= 1.02


def test_a_curve_that_has_levelled_off_is_not_called_growing():
    fit = fitted(CurveWorld(curve=exponential(scale=2000.0)).draw(np.random.default_rng(1), 2000))
    gain = next_batch(fit)
    assert "logarithmic" not in {name for name, *_ in gain.form_estimates}
    assert gain.conf_high < 0.02


def test_more_examples_never_promise_less():
    fit = fitted(CurveWorld().draw(np.random.default_rng(3), 500))
    gains = [next_batch(fit, growth_factor=factor) for factor in (1.5, 2, 4)]
    for less, more in pairwise(gains):
        assert less.estimate <= more.estimate
        assert less.conf_high <= more.conf_high + 1e-9


def test_a_gain_without_a_law_is_refused_and_a_batch_of_nothing_is_an_error():
    def falling(d):
        return 0.7 - 0.3 * (1 - (1 + d / 1500) ** -0.8)

    gain = next_batch(fitted(CurveWorld(curve=falling).draw(np.random.default_rng(0), 2000)))
    assert (gain.status, gain.remark_codes) == ("refused", (Reason.NO_FORM_FITS,))
    assert "no law fits" in gain.summary()
    assert math.isnan(gain.estimate)
    with pytest.raises(EstimationError, match="must add examples"):
        next_batch(fitted(noiseless(power(), n=500)), n_new_examples=0)


def test_without_noise_the_ratio_is_that_of_the_curves_scales():
    one, two = fitted(noiseless(power(scale=3000))), fitted(noiseless(power(scale=600)), offset=10**6)
    ratio = relative_data_cost(one, two, CurveTarget(0.9), names=("reasoning", "knowledge"))
    assert ratio.estimate == pytest.approx(5, rel=0.05)
    assert ratio.conf_low < 5 < ratio.conf_high
    assert ratio.p_value < 0.01
    assert "reasoning" in ratio.summary()
    assert ratio.tidy()[0]["contrast"] == "reasoning / knowledge"


def test_swapping_the_capabilities_inverts_the_ratio():
    rng = np.random.default_rng(4)
    one = fitted(CurveWorld(curve=power(c=0.79)).draw(rng, 2000))
    two = fitted(CurveWorld(curve=power(c=0.79, scale=500)).draw(rng, 2000), offset=10**6)
    a, b = relative_data_cost(one, two, CurveTarget(0.8)), relative_data_cost(two, one, CurveTarget(0.8))
    assert a.estimate == pytest.approx(1 / b.estimate)
    assert a.conf_low == pytest.approx(1 / b.conf_high, rel=0.03)
    assert a.conf_high == pytest.approx(1 / b.conf_low, rel=0.03)
    assert a.p_value == pytest.approx(b.p_value, rel=0.1, abs=0.01)
    assert a.correlation == pytest.approx(b.correlation)


def test_one_curve_against_itself_is_one():
    fit = fitted(CurveWorld().draw(np.random.default_rng(6), 2000))
    ratio = relative_data_cost(fit, fit, CurveTarget(0.8))
    assert ratio.estimate == 1
    assert ratio.conf_low < 1 < ratio.conf_high
    assert ratio.p_value > 0.9
    # The same items and the same seeds: what is wrong with one is wrong with the other, as far as it is believed.
    assert ratio.correlation > 0.8


def test_shared_items_narrow_the_ratio():
    draw = CurveWorld().draw(np.random.default_rng(6), 2000)
    shared = relative_data_cost(fitted(draw), fitted(draw), CurveTarget(0.8))
    apart = relative_data_cost(fitted(draw), fitted(draw, offset=10**6), CurveTarget(0.8))
    assert shared.conf_high / shared.conf_low < apart.conf_high / apart.conf_low


def test_items_of_curves_without_named_clusters_are_disjoint():
    scores, teacher, sizes, _ = CurveWorld().draw(np.random.default_rng(6), 500)
    unnamed = fit_curves(curve_data(scores, teacher, sizes, chance=0.0))
    named = fit_curves(curve_data(scores, teacher, sizes, chance=0.0, clusters=np.arange(500)))
    apart, shared = (relative_data_cost(fit, fit, CurveTarget(0.8)).correlation for fit in (unnamed, named))
    assert apart < shared


def test_where_one_is_never_reached_the_ratio_is_open_and_where_both_are_it_is_refused():
    rng = np.random.default_rng(0)
    never = fitted(CurveWorld(curve=power(c=0.6, exponent=1.5), seed_sd=0.0).draw(rng, 2000))
    reached = fitted(CurveWorld(curve=power(c=0.79, exponent=1.5), seed_sd=0.0).draw(rng, 2000), offset=10**6)
    up, down = (
        relative_data_cost(never, reached, CurveTarget(0.9)),
        relative_data_cost(reached, never, CurveTarget(0.9)),
    )
    assert math.isinf(up.conf_high)
    assert up.conf_low > 5
    assert up.status == down.status == "open"
    assert down.conf_low == 0
    assert down.conf_high == pytest.approx(1 / up.conf_low, rel=0.03)
    both = relative_data_cost(never, never, CurveTarget(0.9))
    assert (both.status, both.reason) == ("refused", Reason.NEVER_REACHED)
    assert "neither" in both.summary()


def test_a_refused_cost_refuses_the_ratio_and_levels_must_agree():
    good = fitted(CurveWorld().draw(np.random.default_rng(0), 300))
    small = fitted(CurveWorld(sizes=(0, 100, 1000)).draw(np.random.default_rng(0), 300))
    ratio = relative_data_cost(small, good, CurveTarget(0.9), names=("reasoning", "knowledge"))
    assert (ratio.status, ratio.reason) == ("refused", Reason.FEW_SIZES)
    assert "reasoning: 3 distinct sizes" in ratio.note
    with pytest.raises(EstimationError, match="one confidence level"):
        relative_data_cost(good, fitted(noiseless(power(), n=300), conf_level=0.9), CurveTarget(0.9))

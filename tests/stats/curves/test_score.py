import numpy as np
import pytest

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason
from capgap.stats.curves import curve_data, doubling_rise, expected_score, fit_curves, new_student_score, next_batch
from tests.stats.curves.laws_coverage import cells, simulate, smallest_p, summarise
from tests.stats.curves.test_fit import noiseless
from tests.stats.curves.world import SIZES, CurveWorld, power


def fitted(world, n_items=600, seed=0, **options):
    scores, teacher, sizes, seeds = world.draw(np.random.default_rng(seed), n_items)
    return fit_curves(curve_data(scores, teacher, sizes, seeds=seeds, chance=0.0), **options)


FIT = fitted(CurveWorld())


def test_without_noise_the_score_at_a_size_is_the_curves():
    fit = fit_curves(curve_data(*noiseless(power())), form_names=("power",))
    for size in (0.0, 1000.0, 121500.0):
        score = expected_score(fit, size)
        assert score.estimate == pytest.approx(float(power()(size)), abs=2e-3)
        assert score.conf_low <= score.estimate <= score.conf_high


def test_gain_score_and_rise_are_differences_of_one_curve():
    gain, at_double, at_largest = next_batch(FIT), expected_score(FIT, 121500.0), expected_score(FIT, 60750.0)
    assert gain.estimate == pytest.approx(at_double.estimate - at_largest.estimate)
    rise = doubling_rise(FIT)
    by_hand = (at_largest.estimate - expected_score(FIT, 250.0).estimate) / np.log2(60750 / 250)
    assert rise.estimate == pytest.approx(by_hand)
    assert rise.conf_low < rise.estimate < rise.conf_high
    assert (
        gain.remark_codes[-2:] == (Reason.LAWS, Reason.ONE_LAW_GROWS)
        or gain.remark_codes[-1] == Reason.ALL_LAWS_SATURATE
    )


def test_the_interval_spans_the_accepted_laws_and_stays_within_the_scale():
    for score in (expected_score(FIT, 121500.0), new_student_score(FIT, 121500.0)):
        assert [name for name, _ in score.form_estimates] == list(FIT.law_weights)
        assert score.conf_low == min(part.conf_low for _, part in score.form_estimates)
        assert 0 <= score.conf_low <= score.estimate <= score.conf_high <= 1
        assert "121,000" in score.summary() or "122,000" in score.summary()


def test_a_new_student_is_less_certain_than_the_curve_and_more_so_where_seeds_differ():
    widths = []
    for seed_sd in (0.02, 0.4):
        fit = fitted(CurveWorld(seed_sd=seed_sd))
        curve, student = expected_score(fit, 60750.0), new_student_score(fit, 60750.0)
        widths.append(student.conf_high - student.conf_low)
        assert widths[-1] > curve.conf_high - curve.conf_low
    assert widths[1] > 1.5 * widths[0]


def test_beyond_four_times_the_largest_size_nothing_is_said():
    for function in (expected_score, new_student_score):
        assert function(FIT, 4 * SIZES[-1]).status == "ok"
        score = function(FIT, 4.01 * SIZES[-1])
        assert (score.status, score.reason) == ("refused", Reason.BEYOND_HORIZON)
        assert np.isnan(score.estimate)
        with pytest.raises(EstimationError, match="zero or more"):
            function(FIT, -1.0)


def test_without_a_law_there_is_no_score():
    def falling(d):
        return 0.7 - 0.3 * (1 - (1 + d / 1500) ** -0.8)

    fit = fitted(CurveWorld(curve=falling), 2000)
    for estimate in (expected_score(fit, 100.0), new_student_score(fit, 100.0), doubling_rise(fit)):
        assert (estimate.status, estimate.reason) == ("refused", Reason.NO_FORM_FITS)


def test_a_simulation_that_was_ended_goes_on_where_it_stood(tmp_path):
    path, cell = tmp_path / "laws.csv", "logistic, 1 seeds, SD 0.1, 300 items"
    simulate(path, 1, cell)
    first = path.read_text()
    simulate(path, 2, cell)
    assert path.read_text().startswith(first)
    assert len(path.read_text().splitlines()) == 3
    assert len(cells()) == 48


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_gains_scores_and_predictions_cover_and_the_line_is_near_the_best_law(tmp_path):
    from tests.stats.curves import laws_coverage

    path = tmp_path / "laws.csv"
    simulate(path, 60)
    summary = summarise(laws_coverage.read(path))
    assert min(smallest_p(summary).values()) > 0.05
    assert max(cell["error_ratio"] for cell in summary.values()) <= 2

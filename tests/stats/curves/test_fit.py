import numpy as np
import pytest
from scipy import optimize, stats

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason, remark
from capgap.stats.curves import curve_data, fit_curves
from capgap.stats.curves.fit import paule_mandel
from capgap.stats.curves.order import check_monotonicity, crossing_bracket
from tests.stats.curves.world import SIZES, CurveWorld, exponential, logistic, power


def noiseless(curve, *, n=40000, n_seeds=3, teacher=0.8):
    """Students whose means lie on the curve: each is right on the first items of a list of its own."""
    sizes = np.array([0.0] + list(SIZES[1:]) * n_seeds)
    rng = np.random.default_rng(0)
    rows = [rng.permutation(np.arange(n) < round(p * n)) for p in [*curve(sizes), teacher]]
    return np.array(rows[:-1], dtype=float), np.array(rows[-1], dtype=float), sizes


@pytest.mark.parametrize(
    ("name", "curve", "start"),
    [
        ("power", power(), (0.7, 0.3, 1000, 1.0)),
        ("exponential", exponential(), (0.7, 0.3, 1000)),
        ("logistic", logistic(), (0.7, 0.3, 1000, 1.0)),
    ],
)
def test_without_noise_each_form_finds_its_parameters_as_curve_fit_does(name, curve, start):
    makers = {"power": power, "exponential": exponential, "logistic": logistic}
    scores, teacher, sizes = noiseless(curve)
    fit = fit_curves(curve_data(scores, teacher, sizes), form_names=(name,)).form_fits[0]
    reference, _ = optimize.curve_fit(
        lambda d, *p: makers[name](*p)(d),
        sizes,
        scores.mean(axis=1),
        p0=start,
        bounds=(0, [1, 1, 1e6, 5][: len(start)]),
    )
    base, ceiling, t, scale, exponent = fit.coefficients
    np.testing.assert_allclose([ceiling, base], reference[:2], atol=1e-3)
    np.testing.assert_allclose(scale, reference[2], rtol=0.03)
    assert t == pytest.approx(0.8, abs=1e-3)
    if len(start) == 4:
        assert exponent == pytest.approx(reference[3], rel=0.02)
    np.testing.assert_allclose(fit.predict([1000.0, 1e5]), curve(np.array([1000.0, 1e5])), atol=2e-3)
    assert fit.seed_sd == 0
    assert not fit.is_rejected


def test_paule_mandel_is_the_anova_estimate_in_a_balanced_design():
    groups, within = np.array([1.0, 2.0, 4.0, 7.0]), 0.5
    variance = paule_mandel(lambda v: ((groups - groups.mean()) ** 2).sum() / (within + v), 3)
    assert variance == pytest.approx(groups.var(ddof=1) - within, rel=1e-3)
    assert paule_mandel(lambda v: 1 / (1 + v), 3) == 0


def test_a_form_is_rejected_where_another_made_the_data_and_kept_where_it_did():
    scores, teacher, sizes, seeds = CurveWorld(curve=power(exponent=0.4), seed_sd=0.05).draw(
        np.random.default_rng(0), 8000
    )
    fit = fit_curves(curve_data(scores, teacher, sizes, seeds=seeds))
    verdict = {f.form.name: f.is_rejected for f in fit.form_fits}
    assert verdict["exponential"]
    assert not verdict["power"]
    assert "exponential" not in fit.law_weights
    assert fit.likeliest_form in fit.law_weights


def test_the_likelihood_is_the_normal_density_at_its_maximum_over_the_variance_between_seeds():
    """scipy's multivariate normal at the fitted means, over a grid of seed SDs; up to the constant it is the same."""
    scores, teacher, sizes, seeds = CurveWorld(seed_sd=0.2).draw(np.random.default_rng(2), 1000)
    data = curve_data(scores, teacher, sizes, seeds=seeds)
    fit = fit_curves(data, form_names=("exponential", "logistic"), fit_alpha=0.0)  # no form is rejected

    def best_density(form):
        def curve(d, scale, exponent):
            return np.exp(-d / scale) if form == "exponential" else 1 / (1 + (d / scale) ** exponent)

        def loss(theta):
            ceiling, base, level, log_scale, log_exponent, sd = theta
            means = ceiling - (ceiling - base) * curve(sizes, np.exp(log_scale), np.exp(log_exponent))
            total = data.covariance + sd**2 * data.between()
            return -stats.multivariate_normal.logpdf(data.means, np.append(means, level), total)

        options = {"maxiter": 4000, "maxfev": 4000, "xatol": 1e-5, "fatol": 1e-6}
        start = [0.75, 0.35, 0.8, np.log(2500), 0.0, 0.1]
        return -optimize.minimize(loss, start, method="Nelder-Mead", options=options).fun

    ours = [f.log_likelihood for f in fit.form_fits]
    reference = [best_density(f.form.name) for f in fit.form_fits]
    assert ours[0] - ours[1] == pytest.approx(reference[0] - reference[1], abs=0.05)
    constant = -0.5 * len(data.means) * np.log(2 * np.pi)
    assert ours[1] + constant == pytest.approx(reference[1], abs=0.05)
    shares = np.exp(np.array(ours) - max(ours))
    np.testing.assert_allclose(list(fit.law_weights.values()), shares / shares.sum())


def test_a_worse_fit_weighs_less():
    """Where the variance between seeds takes all misfit up, residuals alone weigh a bad law like a good one."""
    scores, teacher, sizes, seeds = CurveWorld(curve=power(exponent=0.4), n_seeds=1).draw(
        np.random.default_rng(0), 4000
    )
    fit = fit_curves(curve_data(scores, teacher, sizes, seeds=seeds))
    by_name = {f.form.name: f for f in fit.form_fits}
    assert by_name["exponential"].solutions.min_rss <= by_name["exponential"].df + 1e-2
    assert fit.law_weights["exponential"] < 0.05 < fit.law_weights["power"]


def test_the_drawn_curve_is_the_average_of_the_accepted_laws():
    scores, teacher, sizes, seeds = CurveWorld().draw(np.random.default_rng(1), 300)
    fit = fit_curves(curve_data(scores, teacher, sizes, seeds=seeds))
    at = np.array([0.0, 300.0, 1e5])
    by_hand = sum(fit.law_weights[f.form.name] * f.predict(at) for f in fit.form_fits if not f.is_rejected)
    np.testing.assert_allclose(fit.predict(at), by_hand)
    assert fit.horizon == 4 * 60750


def test_the_order_of_students_and_the_names_of_seeds_change_nothing():
    scores, teacher, sizes, seeds = CurveWorld().draw(np.random.default_rng(1), 400)
    order = np.random.default_rng(2).permutation(len(sizes))
    renamed = [f"{seeds[i]}!" for i in order]
    a = fit_curves(curve_data(scores, teacher, sizes, seeds=seeds))
    b = fit_curves(curve_data(scores[order], teacher, sizes[order], seeds=renamed))
    for one, two in zip(a.form_fits, b.form_fits, strict=True):
        np.testing.assert_allclose(one.coefficients, two.coefficients, rtol=1e-6)
        assert one.p_value == pytest.approx(two.p_value, rel=1e-4)
    assert a.order.p_value == pytest.approx(b.order.p_value, rel=1e-6)


def test_sizes_in_thousands_give_the_same_curve():
    scores, teacher, sizes, seeds = CurveWorld().draw(np.random.default_rng(1), 400)
    a = fit_curves(curve_data(scores, teacher, sizes, seeds=seeds)).form_fits[0].coefficients
    b = fit_curves(curve_data(scores, teacher, sizes / 1000, seeds=seeds)).form_fits[0].coefficients
    np.testing.assert_allclose(a, np.array(b) * [1, 1, 1, 1000, 1], rtol=1e-6)


def test_the_variance_between_seeds_is_found():
    found = []
    for seed in range(8):
        draw = CurveWorld(seed_sd=0.3).draw(np.random.default_rng(seed), 3000)
        found.append(fit_curves(curve_data(*draw[:3], seeds=draw[3]), form_names=("power",)).form_fits[0].seed_sd)
    # The slope p (1 - p) of a mean over items is larger than that of items that differ by 1.2: a little less comes out.
    assert 0.2 < np.mean(found) < 0.32


def test_two_means_that_fall_have_half_a_chi_square():
    covariance = np.diag([1.0, 2.0])
    result = check_monotonicity(np.array([1.0, -1.0]), covariance, 0)
    assert result.statistic == pytest.approx(4 / 3)
    # The weight of one half is simulated from 400 draws.
    assert result.p_value == pytest.approx(stats.chi2.sf(4 / 3, 1) / 2, rel=0.15)
    np.testing.assert_allclose(result.rising_means, [1 / 3, 1 / 3], atol=1e-9)
    assert check_monotonicity(np.array([1.0, 2.0]), covariance, 0).p_value == 1


def test_isotonic_means_are_those_of_pool_adjacent_violators():
    from sklearn.isotonic import IsotonicRegression

    means, variance = np.array([0.1, 0.4, 0.3, 0.35, 0.6, 0.5]), np.array([1, 2, 1, 0.5, 1, 3]) * 1e-3
    reference = IsotonicRegression().fit_transform(np.arange(6), means, sample_weight=1 / variance)
    np.testing.assert_allclose(check_monotonicity(means, np.diag(variance), 0).rising_means, reference, atol=1e-9)


def test_the_monotonicity_test_keeps_its_level_where_all_means_are_equal():
    rng = np.random.default_rng(0)
    covariance = 1e-4 * (0.5 + 0.5 * np.eye(6))
    draws = rng.multivariate_normal(np.full(6, 0.5), covariance, 120)
    rejected = np.mean([check_monotonicity(d, covariance, 0).p_value < 0.05 for d in draws])
    assert rejected < 0.11  # 3 Monte-Carlo standard errors of 0.02


def test_the_bracket_lies_between_sizes_that_are_beyond_doubt():
    sizes, excess, errors = np.array([0.0, 10, 100, 1000]), np.array([-0.3, -0.1, 0.0, 0.2]), np.full(4, 0.05)
    critical = stats.norm.isf(0.025 / 4)
    assert 2 < critical < 0.2 / 0.05
    assert crossing_bracket(sizes, excess, errors, 0, 0.95) == (0.0, 1000.0)
    assert crossing_bracket(sizes, excess, errors / 2, 0, 0.95) == (10.0, 1000.0)
    assert crossing_bracket(sizes, excess, errors * 9, 0, 0.95) == (0.0, np.inf)


def test_few_sizes_are_refused_and_some_are_noted():
    scores, teacher, sizes, seeds = CurveWorld(sizes=(0, 100, 1000, 10000)).draw(np.random.default_rng(0), 300)
    fit = fit_curves(curve_data(scores, teacher, sizes, seeds=seeds))
    assert not fit.form_fits
    assert fit.refusal == remark(Reason.FEW_SIZES, n=4, enough=7, least=5)
    assert fit.order.p_value > 0.05
    scores, teacher, sizes, seeds = CurveWorld(sizes=SIZES[1:]).draw(np.random.default_rng(0), 300)
    fit = fit_curves(curve_data(scores, teacher, sizes, seeds=seeds, has_redrawn_subsets=False))
    assert fit.remark_codes == (Reason.SUBSETS_NOT_REDRAWN, Reason.FEW_SIZES_UNTESTED, Reason.NO_SIZE_ZERO)


def test_with_one_seed_no_form_is_rejected_and_the_fit_says_why():
    scores, teacher, sizes, seeds = CurveWorld(n_seeds=1).draw(np.random.default_rng(0), 300)
    fit = fit_curves(curve_data(scores, teacher, sizes, seeds=seeds))
    assert len(fit.accepted_fits) == 4
    assert all(np.isnan(f.p_value) for f in fit.form_fits)
    assert Reason.ONE_SEED_PER_SIZE in fit.remark_codes


def test_arguments_that_make_no_sense_are_errors():
    draw = CurveWorld().draw(np.random.default_rng(0), 50)
    data = curve_data(*draw[:3])
    with pytest.raises(EstimationError, match="Did you mean 'power'"):
        fit_curves(data, form_names=("powr",))
    with pytest.raises(EstimationError, match="forms"):
        fit_curves(data, form_names=())
    with pytest.raises(EstimationError, match="conf_level"):
        fit_curves(data, conf_level=95)


def test_tidy_and_summary_tell_each_form():
    draw = CurveWorld().draw(np.random.default_rng(0), 300)
    fit = fit_curves(curve_data(*draw[:3], seeds=draw[3]))
    rows = fit.tidy()
    assert [row["form"] for row in rows] == ["power", "exponential", "logistic", "logarithmic"]
    assert np.isnan(rows[1]["exponent"])
    for name in ("19 students at 7 sizes", "power", "logistic", "logit"):
        assert name in fit.summary()

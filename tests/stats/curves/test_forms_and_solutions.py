import numpy as np
import pytest
from scipy import optimize

from capgap.stats.curves.forms import CURVE_FORMS
from capgap.stats.curves.solve import CurveBounds, WhitenedMeans, explore_shapes, minimise_rss, solve_on_grid

SIZES = np.array([0.0, 100, 100, 400, 1600, 6400, 25600])
BOUNDS = CurveBounds(0.0, 1.0)


def covariance(n, rng):
    a = rng.normal(size=(n, 3 * n)) * 0.01
    return a @ a.T / n


@pytest.mark.parametrize(
    ("name", "size", "left"), [("power", 1500, 0.5), ("exponential", 1500, np.exp(-1)), ("logistic", 1500, 0.5)]
)
def test_each_form_leaves_all_room_at_zero_and_a_known_share_at_its_scale(name, size, left):
    shape = np.log([[1500.0, 1.0]])
    found = CURVE_FORMS[name].room_left(np.array([0.0, size, 1e12]), shape)[0]
    np.testing.assert_allclose(found, [1.0, left, 0.0], atol=1e-8)


@pytest.mark.parametrize("name", CURVE_FORMS)
def test_size_at_inverts_room_left(name):
    form, sizes = CURVE_FORMS[name], np.array([3.0, 500.0, 4000.0])
    for exponent in (0.5, 2.0):
        shape = np.log([[1500.0, exponent]])
        left = form.room_left(sizes, shape)[0]
        np.testing.assert_allclose(form.size_at(left, np.repeat(shape, 3, axis=0)), sizes, rtol=1e-9)


def test_given_a_shape_the_coefficients_are_those_of_generalised_least_squares():
    import statsmodels.api as sm

    rng = np.random.default_rng(0)
    v = covariance(8, rng)
    means = np.append(0.4 + 0.3 * (1 - 1 / (1 + SIZES / 900)), 0.8) + rng.multivariate_normal(np.zeros(8), v)
    shape = np.log([[1000.0, 0.7]])
    found = solve_on_grid(CURVE_FORMS["power"], WhitenedMeans.of(SIZES, means, v), BOUNDS, shape)
    design = np.zeros((8, 3))
    design[:7, 0] = -CURVE_FORMS["power"].room_left(SIZES, shape)[0]
    design[:7, 1], design[7, 2] = 1, 1
    reference = sm.GLS(means, design, sigma=v).fit()
    np.testing.assert_allclose(found.beta[0], reference.params, rtol=1e-6)
    np.testing.assert_allclose(found.inverse[0], reference.normalized_cov_params, rtol=1e-6, atol=1e-12)
    residual = means - design @ reference.params
    assert found.rss[0] == pytest.approx(residual @ np.linalg.solve(v, residual), rel=1e-6)


@pytest.mark.parametrize("level", [0.985, 0.02, 0.5])
def test_under_bounds_the_least_residual_is_that_of_a_quadratic_programme(level):
    rng = np.random.default_rng(3)
    v = covariance(8, rng)
    shape = np.log([[1000.0, 0.7]])
    means = np.append(level + 0.02 * np.sin(np.arange(7)), 0.8)  # wiggles around a flat line near a bound
    data = WhitenedMeans.of(SIZES, means, v)
    found = solve_on_grid(CURVE_FORMS["power"], data, BOUNDS, shape)
    drop = data.regressors(CURVE_FORMS["power"], shape)[0]
    x = np.column_stack([drop, data.level, data.teacher])
    rows = [
        {"type": "ineq", "fun": lambda b: b[0]},
        {"type": "ineq", "fun": lambda b: 1 - b[1]},
        {"type": "ineq", "fun": lambda b: b[1] - b[0]},
    ]
    reference = optimize.minimize(
        lambda b: ((data.observed - x @ b) ** 2).sum() / 100, [0.1, 0.5, 0.8], constraints=rows, options={"ftol": 1e-14}
    )
    assert found.min_rss == pytest.approx(100 * reference.fun, rel=1e-4)


@pytest.mark.parametrize("name", CURVE_FORMS)
def test_the_least_residual_is_that_of_a_direct_search_over_all_parameters(name):
    rng = np.random.default_rng(5)
    v = covariance(8, rng)
    means = np.append(0.75 - 0.4 * (1 + SIZES / 900) ** -0.8, 0.8) + rng.multivariate_normal(np.zeros(8), v)
    data, form = WhitenedMeans.of(SIZES, means, v), CURVE_FORMS[name]
    box = form.box(SIZES)

    def residual(theta):
        return solve_on_grid(form, data, BOUNDS, theta[None]).min_rss

    starts = np.random.default_rng(0).uniform(*box, size=(12, 2))
    runs = [
        optimize.minimize(residual, start, method="Nelder-Mead", bounds=list(zip(*box, strict=True)))
        for start in starts
    ]
    reference = min(run.fun for run in runs)
    assert explore_shapes(form, data, BOUNDS, margin=4.0).min_rss == pytest.approx(reference, abs=0.02)
    assert minimise_rss(form, data, BOUNDS) == pytest.approx(reference, abs=0.02)

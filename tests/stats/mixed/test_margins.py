import numpy as np
import pytest
from scipy import integrate
from scipy.special import expit
from scipy.stats import norm

from capgap.stats.mixed import fit_mixed
from tests.stats.mixed.world import ADAPTATION, CAPABILITY, FORMULA, Study, columns_of

GRID = Study(12, 12, 12).draw(2)


@pytest.fixture(scope="module")
def fitted():
    return fit_mixed(FORMULA, GRID)


def _margin(fit, effect, where):
    return next(m for m in fit.margins if (m.effect, m.where) == (effect, where))


def _cells():
    """Centred covariates and capability of every student x task cell."""
    students = GRID.students
    x = np.column_stack(
        [np.log(students["n_examples"]), students["adaptation"] == "lora", np.log(students["n_params"])]
    )
    x = x - x.mean(axis=0)
    cap = np.repeat([-0.5, 0.5], 6)
    return np.tile(x, (12, 1)), np.repeat(cap, len(x))


def _spread(fit, x):
    s = {name: e.estimate for name, e in fit.standard_deviations.items()}
    steady = sum(s[n] ** 2 for n in ("item", "task", "student", "student x task")) + s["student x capability"] ** 2 / 4
    slopes = sum(
        s[f"task x {n}"] ** 2 * x[:, j] ** 2 for j, n in enumerate(("log(n_examples)", "adaptation", "log(n_params)"))
    )
    return np.sqrt(steady + slopes)


def _expected(fit, x, cap, sd):
    b = np.array([e.estimate for e in fit.coefficients.values()])
    eta = b[0] + cap * b[1] + x @ b[2:5] + cap * (x @ b[5:])
    z = np.linspace(-9, 9, 2001)
    return integrate.trapezoid(expit(eta[:, None] + sd[:, None] * z) * norm.pdf(z), z)


def test_effects_are_differences_of_expected_scores_integrated_over_the_random_effects(fitted):
    x, cap = _cells()
    sd = _spread(fitted, x)
    both = [_expected(fitted, np.column_stack([x[:, 0], np.full(len(x), v), x[:, 2]]), cap, sd) for v in (0.5, -0.5)]
    for where, level in (("knowledge", -0.5), ("reasoning", 0.5)):
        expected = (both[0] - both[1])[cap == level].mean()
        assert _margin(fitted, ADAPTATION, where).estimate.estimate == pytest.approx(expected, abs=1e-6)
    swapped = [_expected(fitted, x, np.full(len(x), v), sd).mean() for v in (0.5, -0.5)]
    assert _margin(fitted, CAPABILITY, "all").estimate.estimate == pytest.approx(swapped[0] - swapped[1], abs=1e-6)


def test_the_effect_of_a_number_is_the_slope_of_the_expected_score(fitted):
    x, cap = _cells()
    sd, step = _spread(fitted, x), 1e-4
    ends = [_expected(fitted, x + sign * step * np.array([1.0, 0, 0]), cap, sd) for sign in (1, -1)]
    slope = (ends[0] - ends[1]) / (2 * step)
    found = [_margin(fitted, "log(n_examples)", w).estimate.estimate for w in ("knowledge", "reasoning")]
    assert found == pytest.approx([slope[cap < 0].mean(), slope[cap > 0].mean()], abs=1e-6)
    difference = _margin(fitted, "log(n_examples)", "reasoning - knowledge").estimate.estimate
    assert difference == pytest.approx(found[1] - found[0])


def test_the_derivative_in_the_coefficients_is_that_of_the_effect(fitted):
    inference = fitted._beta_inference
    for margin in fitted.margins:
        assert margin.slope.beta.shape == inference.beta.shape
        assert margin.estimate.std_error**2 >= margin.slope.beta @ inference.covariance @ margin.slope.beta


def test_a_unit_of_another_size_changes_the_effect_by_its_factor():
    data = columns_of(GRID)
    data = dict(data, thousands=np.log(data["n_examples"]) * 10, log_n=np.log(data["n_examples"]))
    one, ten = (fit_mixed(f"score ~ capability * {name}", data) for name in ("log_n", "thousands"))
    for a, b in zip(one.margins, ten.margins, strict=True):
        factor = 1.0 if "capability" in a.effect else 10.0
        assert a.estimate.estimate == pytest.approx(factor * b.estimate.estimate, abs=1e-5)
        assert a.estimate.std_error == pytest.approx(factor * b.estimate.std_error, rel=1e-3)


@pytest.mark.slow
def test_the_standard_error_is_that_of_repeated_studies():
    """A sketch of the coverage simulation: the spread of the effect over studies meets its standard errors."""
    fits = [fit_mixed("score ~ capability * adaptation", Study(12, 12, 10).draw(s)) for s in range(60)]
    effects = [_margin(f, ADAPTATION, "reasoning - knowledge").estimate for f in fits]
    spread = np.std([e.estimate for e in effects], ddof=1)
    assert 0.75 < spread / np.mean([e.std_error for e in effects]) < 1.25

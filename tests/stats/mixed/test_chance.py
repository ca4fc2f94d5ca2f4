import dataclasses

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason
from capgap.stats.mixed import OutcomeGrid, fit_mixed, laplace
from capgap.stats.mixed.chance import ChanceLinkKernel
from capgap.stats.mixed.kernels import GridLogitKernel
from tests.stats.mixed.test_laplace import _model, _theta
from tests.stats.mixed.test_margins import _cells, _expected, _margin, _spread
from tests.stats.mixed.world import CAPABILITY, FORMULA, TRUTH, Study, columns_of

GUESSED = Study(24, 12, 30, chance=0.25)


def _kernel(trials, seed=0):
    rng = np.random.default_rng(seed)
    chance = rng.choice([0.0, 0.1, 0.25, 0.5], 7)
    n = rng.integers(0, 3, (5, 7)) if trials else np.ones((5, 7), dtype=int)
    y = rng.binomial(n, 0.5)
    return y, n, chance, ChanceLinkKernel(y, n if trials else None, chance), rng.normal(0, 2, 5), rng.normal(0, 2, 7)


@pytest.mark.parametrize("trials", [False, True])
def test_the_likelihood_is_scipys_binomial_but_for_its_constant(trials):
    y, n, chance, kernel, z, u = _kernel(trials)
    p = chance + (1 - chance) * expit(z[:, None] + u)
    constant = stats.binom.logpmf(y, n, 0.5) - n * np.log(0.5)
    assert kernel.at(z, u).log_likelihood == pytest.approx((stats.binom.logpmf(y, n, p) - constant).sum(), abs=1e-10)


@pytest.mark.parametrize("trials", [False, True])
def test_slopes_are_differences_of_the_likelihood(trials):
    *_, kernel, z, u = _kernel(trials)
    found, step = kernel.at(z, u), 1e-5
    for s, unit in enumerate(np.eye(5) * step):
        up, down = kernel.at(z + unit, u), kernel.at(z - unit, u)
        assert found.score[s] == pytest.approx((up.log_likelihood - down.log_likelihood) / (2 * step), abs=1e-7)
        assert found.weights[s].sum() == pytest.approx(-(up.score[s] - down.score[s]) / (2 * step), abs=1e-7)
    for i, unit in enumerate(np.eye(7) * step):
        up, down = kernel.at(z, u + unit), kernel.at(z, u - unit)
        assert found.item_score[i] == pytest.approx((up.log_likelihood - down.log_likelihood) / (2 * step), abs=1e-7)
        assert found.item_weight[i] == pytest.approx(-(up.item_score[i] - down.item_score[i]) / (2 * step), abs=1e-7)


def test_expected_weights_are_the_mean_of_the_weights_over_the_outcomes():
    *_, chance, kernel, z, u = _kernel(False)
    p = chance + (1 - chance) * expit(z[:, None] + u)
    right, wrong = (ChanceLinkKernel(np.full((5, 7), y), None, chance).at(z, u).weights for y in (1, 0))
    assert kernel.expected(kernel.at(z, u), z, u).weights == pytest.approx(p * right + (1 - p) * wrong, abs=1e-12)
    assert (right < 0).any()  # a right answer may say less than nothing


def test_no_chance_is_the_plain_logit():
    y, n, _, _, z, u = _kernel(True)
    plain, guessed = GridLogitKernel(y, n), ChanceLinkKernel(y, n, np.zeros(7))
    a, b = plain.at(z, u), guessed.at(z, u)
    for one, two in zip(dataclasses.astuple(a), dataclasses.astuple(b), strict=True):
        assert one == pytest.approx(two, abs=1e-12)
    spread = np.cov(np.random.default_rng(1).normal(size=(5, 9)))
    shrink = np.linspace(0.1, 1.0, 7)
    for one, two in zip(
        plain.skewness(a, z, u, spread, shrink), guessed.skewness(b, z, u, spread, shrink), strict=True
    ):
        assert one == pytest.approx(two, abs=1e-12)
    for one, two in zip(
        dataclasses.astuple(plain.without(a, z, u, 2))[1:],
        dataclasses.astuple(guessed.without(b, z, u, 2))[1:],
        strict=True,
    ):
        assert one == pytest.approx(two, abs=1e-12)


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("restricted", [True, False])
def test_the_gradient_is_that_of_the_objective(monkeypatch, missing, restricted):
    monkeypatch.setattr(laplace, "NEWTON_TOLERANCE", 1e-18)
    model = _model(Study(12, 12, 8, missing=missing, chance=0.25).draw(1), chance=True, restricted=restricted)
    theta, step = _theta(model), 1e-3
    found = model.laplace.evaluate(theta).gradient
    assert np.isfinite(found).all()
    for g, unit in enumerate(np.eye(len(theta))):
        up, down = (model.laplace.value(theta + sign * step * unit) for sign in (1, -1))
        up2, down2 = (model.laplace.value(theta + sign * 2 * step * unit) for sign in (1, -1))
        assert found[g] == pytest.approx((8 * (up - down) - (up2 - down2)) / (12 * step), abs=5e-5), g


def test_the_link_finds_the_logits_that_the_plain_one_flattens():
    fits = {link: fit_mixed(FORMULA, GUESSED.draw(3), link=link, alternatives=False) for link in ("logit", "chance")}
    slopes = {link: fit.coefficients["log(n_examples)"] for link, fit in fits.items()}
    gaps = {link: fit.coefficients[CAPABILITY] for link, fit in fits.items()}
    assert fits["chance"].converged
    assert slopes["logit"].estimate < slopes["chance"].estimate
    for found, name in ((slopes["chance"], "log(n_examples)"), (gaps["chance"], CAPABILITY)):
        assert found.conf_low <= TRUTH[name] <= found.conf_high
        assert "link with chance" in found.method
    # Guessing lifts reasoning, so that the plain logit sees a smaller gap than there is.
    assert gaps["logit"].estimate > gaps["chance"].estimate + 0.1


def test_effects_in_score_points_are_those_of_scores_with_guesses():
    fit = fit_mixed(FORMULA, Study(12, 12, 12, chance=0.25).draw(2), link="chance", margins=True, alternatives=False)
    x, cap = _cells()
    sd = _spread(fit, x)
    knowledge, reasoning = _expected(fit, x, np.full(len(x), -0.5), sd), _expected(fit, x, np.full(len(x), 0.5), sd)
    gap = np.mean(0.25 + 0.75 * reasoning - knowledge)
    assert _margin(fit, CAPABILITY, "all").estimate.estimate == pytest.approx(gap, abs=1e-6)
    here, step = cap > 0, np.array([1e-4, 0, 0])
    moved = _expected(fit, x[here] + step, cap[here], sd[here]) - _expected(fit, x[here] - step, cap[here], sd[here])
    slope = _margin(fit, "log(n_examples)", "reasoning").estimate.estimate
    assert slope == pytest.approx(0.75 * np.mean(moved) / 2e-4, abs=1e-6)


def test_a_table_and_a_grid_give_the_same():
    grid = Study(12, 12, 6, chance=0.25).draw(1)
    one = fit_mixed(FORMULA, grid, link="chance", alternatives=False)
    two = fit_mixed(FORMULA, columns_of(grid), chance="chance", link="chance", alternatives=False)
    assert one.criterion == pytest.approx(two.criterion, abs=1e-6)
    assert {n: e.estimate for n, e in one.coefficients.items()} == pytest.approx(
        {n: e.estimate for n, e in two.coefficients.items()}, abs=1e-5
    )


def test_the_link_with_chance_is_an_alternative_where_chance_is_known_and_not_where_it_is_none():
    grid = Study(12, 12, 8, chance=0.25).draw(4)
    for agreement in fit_mixed(FORMULA, grid).agreement:
        by_estimator = {a.estimator: a.estimate for a in agreement.alternatives}
        with_chance = by_estimator["link_with_chance"]
        assert with_chance.status == "ok"
        assert with_chance.estimate == pytest.approx(by_estimator["mixed_model"].estimate, abs=0.1)
    for chance in (None, np.zeros(96)):
        fit = fit_mixed(FORMULA, dataclasses.replace(grid, chance=chance))
        assert all(a.estimator != "link_with_chance" for both in fit.agreement for a in both.alternatives)


def test_students_below_what_guessing_gives_refuse_the_link_and_are_named():
    grid = Study(12, 12, 40).draw(0)
    successes = np.array(grid.successes)
    successes[5, -40:] = 0  # of 40 items at a chance of one quarter
    students = {**grid.students, "student": np.array([f"s{n}" for n in range(12)])}
    grid = dataclasses.replace(grid, successes=successes, students=students, chance=np.full(480, 0.25))
    fit = fit_mixed(FORMULA, grid, link="chance")
    assert (fit.status, fit.reason) == ("refused", Reason.BELOW_CHANCE)
    assert "s5 is right on 0 % of task 011, significantly less than guessing gives (25 %)" in fit.note
    last = fit_mixed(FORMULA, grid).agreement[0].alternatives[-1]
    assert (last.estimator, last.estimate.remarks) == ("link_with_chance", fit.remarks)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chance": np.full(95, 0.25)}, "expected 96 values"),
        ({"chance": np.full(96, 1.0)}, "from 0 to below 1"),
        ({"chance": np.full(96, np.nan)}, "from 0 to below 1"),
    ],
)
def test_a_wrong_chance_says_what_was_expected(change, message):
    grid = Study(12, 12, 8).draw(0)
    with pytest.raises(EstimationError, match=message):
        OutcomeGrid(grid.successes, grid.task, students=grid.students, tasks=grid.tasks, **change)


def test_a_chance_that_varies_within_an_item_or_is_missing_is_told():
    data = columns_of(Study(12, 12, 4).draw(0))
    data["chance"] = np.linspace(0, 0.5, len(data["score"]))
    with pytest.raises(EstimationError, match="one number from 0 to below 1 for each item"):
        fit_mixed(FORMULA, data, chance="chance", link="chance")
    del data["chance"]
    with pytest.raises(EstimationError, match="chance"):
        fit_mixed(FORMULA, data, chance="chance")
    assert fit_mixed(FORMULA, data, link="chance").reason == Reason.CHANCE_UNKNOWN
    with pytest.raises(EstimationError, match="link"):
        fit_mixed(FORMULA, data, link="probit")

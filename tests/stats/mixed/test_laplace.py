import dataclasses

import numpy as np
import pytest

from capgap.stats.mixed import laplace
from capgap.stats.mixed.coding import code_covariates
from capgap.stats.mixed.formula import parse_formula
from capgap.stats.mixed.kernels import GridLogitKernel
from capgap.stats.mixed.model import build_model
from capgap.stats.mixed.outcomes import convert_columns, convert_grid
from tests.stats.mixed.references import SEED, STUDY
from tests.stats.mixed.world import FORMULA, Study, columns_of

COVARIATES = ("n_examples", "adaptation", "n_params", "capability")


def _model(data, *, formula=FORMULA, names=COVARIATES, path="auto", task_slopes=True, base=None, **options):
    parsed = parse_formula(formula)
    if isinstance(data, dict):
        places = {"student": "student", "item": "item", "task": "task", "trials": None}
        outcomes = convert_columns(data, score="score", covariates=names, path=path, **places)
    else:
        outcomes = convert_grid(data, names)
    coding = code_covariates(parsed, outcomes.columns, outcomes.weight, outcomes.student, "capability")
    return build_model(outcomes, coding, base, "like these", task_slopes, **options)


def _theta(model, seed=0):
    return np.random.default_rng(seed).uniform(-1.8, 0.2, len(model.plan.random))


@pytest.fixture
def exact_modes(monkeypatch):
    """Differences of the objective need its mode to more digits than a fit does."""
    monkeypatch.setattr(laplace, "NEWTON_TOLERANCE", 1e-18)


SMALL = Study(12, 12, 8, missing=0.2)


@pytest.mark.parametrize("path", ["grid", "sparse"])
@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("restricted", [True, False])
@pytest.mark.usefixtures("exact_modes")
def test_the_gradient_is_that_of_the_objective(path, missing, restricted):
    study = dataclasses.replace(SMALL, missing=missing)
    model = _model(columns_of(study.draw(1)), path=path, restricted=restricted)
    theta, step = _theta(model), 1e-3
    found = model.laplace.evaluate(theta).gradient
    for g, unit in enumerate(np.eye(len(theta))):
        up, down = (model.laplace.value(theta + sign * step * unit) for sign in (1, -1))
        up2, down2 = (model.laplace.value(theta + sign * 2 * step * unit) for sign in (1, -1))
        assert found[g] == pytest.approx((8 * (up - down) - (up2 - down2)) / (12 * step), abs=2e-5), g


def test_the_prototypes_objective_gradient_and_estimates_come_out():
    # python -m tests.stats.mixed.references prototype FOLDER
    model = _model(STUDY.draw(SEED), task_slopes=False)
    order = [
        [t.name for t in model.plan.random].index(n)
        for n in ("item", "task", "student", "student x capability", "student x task")
    ]
    scale = np.array([t.scale for t in model.plan.random])
    theta = np.zeros(5)
    theta[order] = np.log([1.0, 0.4, 0.3, 0.2, 0.2])
    found = model.laplace.evaluate(theta + np.log(scale))
    assert found.value + model.log_jacobian == pytest.approx(-4997.18018584023, abs=1e-6)
    gradient = [87.74064676381704, -0.02320494183521049, -1.940907639636972, -0.8743295830885671, -3.9705289424017565]
    assert found.gradient[order] == pytest.approx(gradient, abs=1e-6)


def test_glmm_and_mixedlm_give_the_same_fixed_effects_at_the_same_variances():
    # python -m tests.stats.mixed.references glmm; mixedlm's numbers differ in the seventh digit.
    theirs = [0.143263, -0.919240, 0.266984, -0.228661, 0.327388, 0.126608, -0.105029, 0.228890]
    variances = {"item": 1.4640393505575224, "task": 0.12325686704958114, "student x task": 0.025402716158419446}
    student, pair = 0.06317168085855114, 0.009659510488785923  # (1|student) + (1|student:capability)
    variances |= {"student": student + pair / 2, "student x capability": 2 * pair}
    model = _model(STUDY.draw(SEED), task_slopes=False)
    theta = np.array([0.5 * np.log(variances[t.name]) + np.log(t.scale) for t in model.plan.random])
    found = model.laplace.evaluate(theta)
    assert model.transform @ (found.beta + found.shift) == pytest.approx(theirs, abs=5e-4)


@pytest.mark.parametrize("seed", [1, 2])
def test_grid_and_rows_are_one_likelihood(seed):
    data = columns_of(SMALL.draw(seed))
    grid, rows = (_model(data, path=path) for path in ("grid", "sparse"))
    theta = _theta(grid, seed)
    a, b = grid.laplace.evaluate(theta), rows.laplace.evaluate(theta)
    assert a.value + grid.log_jacobian == pytest.approx(b.value + rows.log_jacobian, abs=1e-7)
    assert a.gradient == pytest.approx(b.gradient, abs=1e-6)
    for x, y in ((a.beta, b.beta), (a.shift, b.shift)):
        assert grid.transform @ x == pytest.approx(rows.transform @ y, abs=1e-8)


@pytest.mark.usefixtures("exact_modes")
def test_covariates_of_items_and_capabilities_within_tasks_have_the_right_gradient():
    data = columns_of(Study(12, 4, 10, missing=0.4).draw(3))
    rng = np.random.default_rng(0)
    data["depth"] = rng.integers(1, 5, 1000)[data["item"]]
    data["capability"] = np.array(["knowledge", "reasoning"])[data["item"] % 2]
    model = _model(
        data, formula="score ~ capability * log(n_examples) + depth", names=("n_examples", "depth", "capability")
    )
    theta, step = _theta(model), 1e-3
    found = model.laplace.evaluate(theta).gradient
    for g, unit in enumerate(np.eye(len(theta))):
        up, down = (model.laplace.value(theta + sign * step * unit) for sign in (1, -1))
        assert found[g] == pytest.approx((up - down) / (2 * step), abs=2e-4), model.plan.random[g].name


def test_relabelling_and_row_order_change_nothing():
    data = columns_of(SMALL.draw(4))
    rng = np.random.default_rng(0)
    order = rng.permutation(len(data["score"]))
    shuffled = {name: values[order] for name, values in data.items()}
    renamed = dict(
        data, item=rng.permutation(1000)[data["item"]], student=np.char.add("x", data["student"][:].astype(str))
    )
    one, *others = (_model(d) for d in (data, shuffled, renamed))
    theta = _theta(one)
    first = one.laplace.evaluate(theta)
    for other in others:
        found = other.laplace.evaluate(theta)
        assert found.value + other.log_jacobian == pytest.approx(first.value + one.log_jacobian, abs=1e-8)
        assert other.transform @ found.beta == pytest.approx(one.transform @ first.beta, abs=1e-9)


def test_right_and_wrong_swapped_change_the_sign_of_everything():
    grid = Study(12, 12, 8).draw(5)
    one, two = (_model(dataclasses.replace(grid, successes=y)) for y in (grid.successes, 1 - grid.successes))
    theta = _theta(one)
    a, b = one.laplace.evaluate(theta), two.laplace.evaluate(theta)
    assert a.value == pytest.approx(b.value, abs=1e-8)
    assert a.beta + a.shift == pytest.approx(-(b.beta + b.shift), abs=1e-9)


def test_a_variance_near_zero_stays_accurate():
    model = _model(SMALL.draw(6))
    theta = np.full(len(model.plan.random), np.log(1e-4))
    theta[0] = 0.0
    found = model.laplace.evaluate(theta)
    assert found.converged
    assert np.abs(found.gradient[1:]).max() < 1e-4  # the objective is even in sigma
    assert found.trace[1:] == pytest.approx(model.laplace.layout.sizes[1:], rel=1e-4)


def test_weights_of_certain_answers_do_not_cancel():
    kernel = GridLogitKernel(np.array([[1.0]]), None)
    for logit in (40.0, -40.0, 300.0):
        point = kernel.at(np.array([logit]), np.zeros(1))
        assert point.weights[0, 0] == pytest.approx(np.exp(-min(abs(logit), 150.0)), rel=1e-9)

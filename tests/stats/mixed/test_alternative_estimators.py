import numpy as np
import pytest
import statsmodels.api as sm

from capgap.schema.columns import ESTIMATORS
from capgap.stats.estimate import Estimate
from capgap.stats.mixed import alternative_estimators, fit_mixed
from capgap.stats.mixed.alternative_estimators import EffectByEstimator
from tests.stats.mixed.test_laplace import _model
from tests.stats.mixed.world import ADAPTATION, CAPABILITY, FORMULA, Study, columns_of

GRID = Study(12, 12, 20).draw(7)


@pytest.fixture(scope="module")
def fitted():
    return fit_mixed(FORMULA, GRID)


def _by(fit, effect, estimator):
    agreement = next(a for a in fit.agreement if a.effect == effect)
    return next(a.estimate for a in agreement.alternatives if a.estimator == estimator)


def _student_design():
    s = GRID.students
    x = np.column_stack([np.log(s["n_examples"]), s["adaptation"] == "lora", np.log(s["n_params"])])
    return sm.add_constant(x - x.mean(axis=0))


@pytest.mark.parametrize("scale", ["score", "logit"])
def test_two_stage_is_least_squares_of_the_students_gaps(fitted, scale):
    y = GRID.successes.astype(float)
    if scale == "score":
        gap = y[:, 120:].mean(axis=1) - y[:, :120].mean(axis=1)
        found = [_by(fitted, e, "two_stage") for e in (CAPABILITY, "log(n_examples)", ADAPTATION, "log(n_params)")]
    else:
        logits = [np.log((h + 0.5) / (120 - h + 0.5)) for h in (y[:, 120:].sum(axis=1), y[:, :120].sum(axis=1))]
        gap = logits[0] - logits[1]
        found = list(fitted.two_stage_estimates.values())
    theirs = sm.OLS(gap, _student_design()).fit()
    assert [e.estimate for e in found] == pytest.approx(theirs.params)
    assert [e.std_error for e in found] == pytest.approx(theirs.bse)
    assert [e.p_value for e in found] == pytest.approx(theirs.pvalues)
    assert [(e.conf_low, e.conf_high) for e in found] == [pytest.approx(tuple(i)) for i in theirs.conf_int()]


def test_leaving_one_out_by_one_step_meets_refitting_without_it():
    model = _model(GRID, task_slopes=False)
    theta = np.log([1.2, 0.5, 0.3, 0.3 * 0.5, 0.25])
    names = [t.name for t in model.plan.random]
    assert names == ["item", "task", "student", "student x capability", "student x task"]
    mode = model.transform @ model.laplace.evaluate(theta).beta
    found = alternative_estimators.jackknives(model)
    data = columns_of(GRID)
    students, tasks = np.unique(data["student"]), np.unique(data["task"])
    refitted = {"student": [], "task": []}
    for kind, groups in (("student", students), ("task", tasks)):
        for group in groups:
            rest = {k: v[data[kind] != group] for k, v in data.items()}
            other = _model(rest, task_slopes=False)
            beta = other.transform @ other.laplace.evaluate(theta).beta
            refitted[kind].append(beta - mode)
    # Interactions do not hang on where numbers are centred, which changes with a student.
    for kind, moves in (("student", found.student), ("task", found.task)):
        full = np.array(refitted[kind])[:, 5:]
        assert moves.shape == (12, 8)
        error = np.abs(moves[:, 5:] - full).max()
        assert error < 0.1 * np.abs(full).max(), kind
        spread = moves[:, 5:].std(axis=0) / full.std(axis=0)
        assert spread == pytest.approx(np.ones(3), abs=0.05)


def test_rows_and_grid_give_the_same_jackknives():
    data = columns_of(Study(12, 12, 6, missing=0.1).draw(1))
    found = []
    for path in ("grid", "sparse"):
        model = _model(data, path=path, task_slopes=False)
        model.laplace.evaluate(np.log([1.2, 0.5, 0.3, 0.15, 0.25]))
        found.append(alternative_estimators.jackknives(model))
    assert found[0].student == pytest.approx(found[1].student, abs=1e-6)
    assert found[0].task == pytest.approx(found[1].task, abs=1e-6)


def _interval(low, high):
    return Estimate((low + high) / 2, conf_low=low, conf_high=high)


@pytest.mark.parametrize(
    ("intervals", "verdict"),
    [
        ([(0.1, 0.5), (0.2, 0.6)], "agree"),
        ([(-0.1, 0.5), (-0.2, 0.6)], "agree"),
        ([(0.1, 0.5), (-0.2, 0.6)], "differ_in_certainty"),
        ([(0.1, 0.5), (-0.4, 0.2)], "disagree"),
        ([(0.1, 0.5), (0.6, 0.9)], "disagree"),
        ([(0.1, 0.5)], "not_judged"),
    ],
)
def test_the_verdict_follows_signs_and_intervals(intervals, verdict):
    ways = [
        EffectByEstimator(name, _interval(*i)) for name, i in zip(("mixed_model", "two_stage"), intervals, strict=False)
    ]
    assert alternative_estimators._judge_agreement(ways)[0] == verdict


def test_slopes_that_only_some_tasks_have_show_where_they_are_left_out():
    """Without task slopes the model is too sure of itself; the task jackknife shows it."""
    ratios = []
    for seed in range(4):
        fit = fit_mixed(
            "score ~ capability * log(n_examples)", Study(12, 12, 60, task_slope=0.3).draw(seed), task_slopes=False
        )
        mixed, task = (_by(fit, "log(n_examples)", name) for name in ("mixed_model", "task_jackknife"))
        ratios.append(task.std_error / mixed.std_error)
    assert np.median(ratios) > 1.3


def test_one_capability_has_no_difference_to_judge():
    data = columns_of(GRID)
    fit = fit_mixed("score ~ log(n_examples)", {k: v[data["capability"] == "knowledge"] for k, v in data.items()})
    assert fit.agreement == ()
    assert [m.where for m in fit.margins] == ["all"]


def test_an_estimator_that_does_not_see_tasks_vary_is_about_these_tasks(fitted):
    population = {
        row["estimator"]: (row["population_students"], row["population_tasks"])
        for row in fitted.tidy()
        if row["part"] == "marginal effect"
    }
    assert population == {
        "mixed_model": ("these_recipes", "tasks_like_these"),
        "two_stage": ("these_recipes", "these_tasks"),
        "student_jackknife": ("these_recipes", "these_tasks"),
        "task_jackknife": ("these_checkpoints", "tasks_like_these"),
    }
    assert set(population) <= set(ESTIMATORS)

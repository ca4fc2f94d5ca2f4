import dataclasses

import numpy as np
import pandas as pd
import pytest

from capgap.errors import EstimationError
from capgap.schema.remarks import Reason, remark
from capgap.stats.mixed import OutcomeGrid, fit_mixed
from tests.stats.mixed.references import SEED, STUDY
from tests.stats.mixed.world import ADAPTATION, CAPABILITY, FORMULA, TRUTH, Study, columns_of

SMALL = Study(12, 12, 12)
SIMPLE = "score ~ capability * log(n_examples)"


@pytest.fixture(scope="module")
def long():
    return columns_of(SMALL.draw(1))


@pytest.fixture(scope="module")
def fitted():
    return fit_mixed(FORMULA, SMALL.draw(1))


def test_the_prototypes_fit_comes_out():
    # python -m tests.stats.mixed.references prototype FOLDER
    beta = [0.143349, -0.921518, 0.267465, -0.229781, 0.327696, 0.127160, -0.105927, 0.228853]
    error = [0.146566, 0.271215, 0.041741, 0.129046, 0.081073, 0.042676, 0.130947, 0.082490]
    df = [13.5356, 10.1832, 19.7367, 19.5303, 19.6037, 19.9012, 19.0897, 19.3861]
    sigma = {"item": 0.193066, "task": -0.922262, "student": -1.246646, "student x capability": -1.695354,
             "student x task": -1.833757}  # fmt: skip
    fit = fit_mixed(FORMULA, STUDY.draw(SEED), task_slopes=False, alternatives=False)
    found = list(fit.coefficients.values())
    assert [e.estimate for e in found] == pytest.approx(beta, abs=2e-4)
    assert [e.std_error for e in found] == pytest.approx(error, rel=2e-3)
    limits = np.array([10, 10, *[20] * 6])  # residual ranks: the intercept and the main effect live between tasks
    assert [e.df for e in found] == pytest.approx(np.minimum(df, limits), rel=0.02)
    for name, log_sigma in sigma.items():
        assert np.log(fit.standard_deviations[name].estimate) == pytest.approx(log_sigma, abs=5e-3)


WITHOUT_SLOPES = {"task_slopes": False, "alternatives": False}
# python -m tests.stats.mixed.references glmm; mixedlm's numbers differ in the seventh digit.
OF_PACKAGES = [0.143263, -0.919240, 0.266984, -0.228661, 0.327388, 0.126608, -0.105029, 0.228890]


def test_whole_fits_of_independent_packages_come_out_by_full_likelihood():
    fit = fit_mixed(FORMULA, STUDY.draw(SEED), restricted=False, **WITHOUT_SLOPES)
    assert fit.converged
    assert [e.estimate for e in fit.coefficients.values()] == pytest.approx(OF_PACKAGES, abs=5e-4)
    assert fit.coefficients[CAPABILITY].method.startswith("ML Laplace")


@pytest.mark.oracle
@pytest.mark.parametrize("package", ["glmm", "mixedlm"])
def test_an_installed_package_agrees_in_its_own_run(package):
    from tests.stats.mixed import references

    theirs = references.with_glmm()[0] if package == "glmm" else references.with_mixedlm()
    fit = fit_mixed(FORMULA, STUDY.draw(SEED), restricted=False, **WITHOUT_SLOPES)
    assert [e.estimate for e in fit.coefficients.values()] == pytest.approx(list(theirs.values()), abs=1e-3)


def test_full_likelihood_makes_variances_between_few_tasks_smaller():
    restricted, full = (fit_mixed(FORMULA, STUDY.draw(SEED), restricted=r, **WITHOUT_SLOPES) for r in (True, False))
    for name in ("task", "student", "student x capability"):
        assert full.standard_deviations[name].estimate < restricted.standard_deviations[name].estimate
    assert full.coefficients[CAPABILITY].std_error < restricted.coefficients[CAPABILITY].std_error


def test_every_way_of_handing_over_data_gives_the_same(fitted, long):
    frame = fit_mixed(FORMULA, pd.DataFrame(long).sample(frac=1, random_state=1), alternatives=False)
    counts = (
        pd.DataFrame(long).groupby([c for c in long if c != "score"], as_index=False)["score"].agg(["mean", "size"])
    )
    shares = counts.rename(columns={"mean": "score", "size": "n"})
    for other in (frame, fit_mixed(FORMULA, shares, trials="n", alternatives=False)):
        assert other.path == "grid"
        for name, estimate in fitted.coefficients.items():
            assert other.coefficients[name].estimate == pytest.approx(estimate.estimate, abs=1e-6)


def test_both_paths_give_the_same_fit(long):
    grid, rows = (fit_mixed(SIMPLE, long, path=path) for path in ("grid", "sparse"))
    assert (grid.path, rows.path) == ("grid", "sparse")
    for a, b in zip(grid.tidy(), rows.tidy(), strict=True):
        assert a["term"] == b["term"]
        assert b["estimate"] == pytest.approx(a["estimate"], abs=1e-4)
        assert b["std_error"] == pytest.approx(a["std_error"], rel=1e-3, nan_ok=True)


def test_intervals_hold_the_truth_of_a_large_study():
    fit = fit_mixed(FORMULA, Study(60, 12, 60).draw(3), alternatives=False)
    assert fit.converged
    for name, truth in TRUTH.items():
        found = fit.coefficients[name]
        assert abs(found.estimate - truth) < 3.5 * found.std_error
    truth = {"item": 1.2, "task": 0.5, "student": 0.3, "student x capability": 0.3, "student x task": 0.25}
    for name, sigma in truth.items():
        assert fit.standard_deviations[name].conf_low < sigma < fit.standard_deviations[name].conf_high


def test_a_contrast_is_a_linear_combination(fitted):
    slope, cross = "log(n_examples)", f"{CAPABILITY}:log(n_examples)"
    reasoning = fitted.contrast({slope: 1.0, cross: 0.5})
    expected = fitted.coefficients[slope].estimate + 0.5 * fitted.coefficients[cross].estimate
    assert reasoning.estimate == pytest.approx(expected)
    assert fitted.contrast({slope: 1.0}) == fitted.coefficients[slope]
    twice = fitted.contrast({slope: 2.0}, null=1.0)
    assert (twice.std_error, twice.df) == pytest.approx(
        (2 * fitted.coefficients[slope].std_error, fitted.coefficients[slope].df)
    )
    with pytest.raises(EstimationError, match="Did you mean"):
        fitted.contrast({"log(n_example)": 1.0})


def test_degrees_of_freedom_know_tasks_students_and_bases(long):
    fit = fit_mixed(FORMULA, long, alternatives=False)
    assert fit.coefficients[CAPABILITY].df <= 10  # 12 tasks in two capabilities
    assert fit.coefficients[f"{CAPABILITY}:{ADAPTATION}"].df <= 8  # 12 students less 4 coefficients
    on_bases = dict(long, base=np.where(long["n_params"] == 1.0, "a", np.where(long["n_examples"] < 5e3, "b", "c")))
    assert fit_mixed(SIMPLE, on_bases, alternatives=False).coefficients["(Intercept)"].df <= 2  # three bases


def test_few_tasks_are_these_tasks_and_said_to_be(long):
    few = {k: v[np.isin(long["task"], ["task 000", "task 001", "task 006", "task 007"])] for k, v in long.items()}
    fit = fit_mixed(SIMPLE, few)
    assert fit.population == ("these_recipes", "these_tasks")
    assert "task" in {t.name for t in fit.left_out}
    assert fit.agreement[0].alternatives[-1].estimate.reason == Reason.TASKS_NO_SAMPLE
    sampled = fit_mixed(SIMPLE, few, tasks="like these", alternatives=False)
    assert sampled.coefficients[CAPABILITY].df <= 2 < fit.coefficients[CAPABILITY].df
    assert sampled.population.tasks == "tasks_like_these"


def test_terms_that_cannot_be_told_apart_are_left_out_with_a_reason(long):
    def left(data, formula=SIMPLE, **options):
        fit = fit_mixed(formula, data, alternatives=False, **options)
        assert fit.status == "ok"
        return {t.name: t.reason for t in fit.left_out}

    one_task_each = {k: v[np.isin(long["task"], ["task 000", "task 006"])] for k, v in long.items()}
    assert left(one_task_each)["student x task"] == Reason.ONE_TASK_IN_CAPABILITY
    assert left(one_task_each, tasks="like these")["task"] == Reason.EXPLAINED_BY_FIXED_EFFECTS
    assert left(dict(long, base=long["student"]))["base"] == Reason.NO_SHARED_BASE
    assert left(dict(long, base=np.full(len(long["score"]), "b")))["base"] == Reason.ONE_BASE
    by_task = dict(long, shots=np.unique(long["task"], return_inverse=True)[1] % 3)
    assert left(by_task, "score ~ capability * shots")["task x shots"] == Reason.CONSTANT_WITHIN_TASKS
    everyone = dict(long, who=np.unique(long["student"], return_inverse=True)[1].astype(str))
    assert left(everyone, "score ~ capability * who")["student"] == Reason.EXPLAINED_BY_FIXED_EFFECTS


def test_students_have_slopes_of_their_own_along_what_varies_within_them(long):
    data = dict(long, depth=np.random.default_rng(1).normal(size=200)[long["item"]])
    fit = fit_mixed("score ~ capability * depth", data, alternatives=False)
    assert fit.path == "sparse"
    assert {"student x depth", "task x depth"} <= set(fit.standard_deviations)
    assert "student x log(n_examples)" not in fit_mixed(SIMPLE, long, alternatives=False).standard_deviations


def test_units_of_a_covariate_do_not_matter(long):
    one, huge = (
        fit_mixed("score ~ capability * n_examples", dict(long, n_examples=long["n_examples"] * f)) for f in (1, 1e12)
    )
    assert one.left_out == huge.left_out
    for name, found in one.coefficients.items():
        assert huge.coefficients[name].p_value == pytest.approx(found.p_value, rel=1e-4)


def test_students_of_one_base_are_said_to_be_of_this_base(long):
    fit = fit_mixed(SIMPLE, dict(long, base=np.full(len(long["score"]), "b")), alternatives=False)
    assert fit.population.students == "these_recipes"
    assert Reason.ONE_BASE in fit.remark_codes


def test_students_of_unknown_base_share_it_with_nobody(long):
    known = np.where(long["n_params"] == 1.0, "small", "large").astype(object)
    some = np.where(long["student"] == "student 000", None, known)
    fit = fit_mixed(SIMPLE, dict(long, base=some), alternatives=False)
    assert fit.n_students == 12
    assert "base" in fit.standard_deviations
    assert fit.population.students == "these_recipes_bases_like_these"


def test_a_format_that_is_the_capability_is_flagged(long):
    data = dict(long, format=np.where(long["capability"] == "reasoning", "generate", "choose"))
    fit = fit_mixed("score ~ capability + format", data, alternatives=False)
    alias = "format[generate - choose]"
    assert fit.coefficients[alias].remarks == (remark(Reason.ALIASED_TERM, name=alias, others=[CAPABILITY]),)
    assert fit.coefficients[CAPABILITY].remark_codes == (Reason.STANDS_FOR,)
    assert f"{CAPABILITY} cannot be told apart from {alias}: it stands for both" in fit.note


def _only(data, keep):
    return {name: values[keep] for name, values in data.items()}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: dict(d, score=np.ones(len(d["score"]))), Reason.CONSTANT_OUTCOME),
        (lambda d: dict(d, score=np.zeros(len(d["score"]))), Reason.CONSTANT_OUTCOME),
        (lambda d: dict(d, score=np.full(len(d["score"]), np.nan)), Reason.NO_COMPLETE_ROW),
        (lambda d: dict(d, score=d["score"] * 0.5), Reason.NOT_BINARY),
        (lambda d: _only(d, d["student"] == "student 000"), Reason.ONE_STUDENT),
        (lambda d: _only(d, d["item"] == 0), Reason.ONE_ITEM),
        (lambda d: dict(d, score=np.where(d["capability"] == "reasoning", 1.0, d["score"])), Reason.SEPARATION),
        (lambda d: dict(d, score=np.where(d["n_examples"] > 5e4, 1.0, d["score"])), None),
    ],
)
def test_what_cannot_be_fitted_gives_a_reason(long, change, reason):
    fit = fit_mixed(SIMPLE, change(long))
    if not reason:  # a slope without an end is not separated where others are mixed
        assert fit.status == "ok"
        return
    assert (fit.status, fit.reason) == ("refused", reason)
    assert fit.note in fit.summary()
    assert all((e.status, e.reason) == ("refused", reason) for e in fit.coefficients.values())
    assert {row["status"] for row in fit.tidy()} == {"refused"}
    assert fit.contrast({"(Intercept)": 1.0}).status == "refused"


def test_missing_scores_and_repeats_are_counted(long):
    score = long["score"].copy()
    score[:7] = np.nan
    fit = fit_mixed(SIMPLE, dict(long, score=score), alternatives=False)
    assert fit.remarks[0] == remark(Reason.INCOMPLETE_ROWS, n=7, of=len(score))
    twice = {k: np.r_[v, v[:5]] for k, v in long.items()}
    assert fit_mixed(SIMPLE, twice, alternatives=False).remarks[0] == remark(Reason.REPEATED_OUTCOMES, n=5)


def test_a_constant_covariate_is_refused_and_the_rest_is_not(long):
    fit = fit_mixed("score ~ capability * log(n_examples)", dict(long, n_examples=np.full(len(long["score"]), 100)))
    assert fit.coefficients["log(n_examples)"].reason == Reason.CONSTANT_COVARIATE
    assert fit.coefficients[CAPABILITY].status == "ok"


def test_a_student_that_misses_half_its_items_is_named(long):
    keep = (long["student"] != "student 003") | (long["item"] % 3 == 0)
    fit = fit_mixed(SIMPLE, _only(long, keep), alternatives=False)
    assert fit.converged
    assert remark(Reason.SPARSE_STUDENTS, students=["student 003"]) in fit.remarks


def test_ten_thousand_tasks_with_one_item_are_items():
    study = Study(12, 10_000, 1, task=0.0)
    fit = fit_mixed(FORMULA, study.draw(1), alternatives=False)
    assert fit.converged
    assert {t.name for t in fit.left_out} == {"task", "student x task"}
    assert fit.left_out[0].reason == Reason.ONE_ITEM_PER_TASK


def test_a_table_of_model_task_item_and_score_gives_what_it_can(long):
    bare = {"model": long["student"], "task": long["task"], "item": long["item"], "score": long["score"]}
    fit = fit_mixed("score ~ 1", bare, student="model")
    assert fit.coefficients["(Intercept)"].status == "ok"
    assert set(fit.standard_deviations) == {"item", "task", "student", "student x task"}
    with pytest.raises(EstimationError, match="no column 'capability'"):
        fit_mixed(SIMPLE, bare, student="model")


def test_few_answers_per_item_are_warned_of(long):
    rng = np.random.default_rng(0)
    fit = fit_mixed(SIMPLE, _only(long, rng.random(len(long["score"])) < 0.3), alternatives=False)
    assert Reason.FEW_ANSWERS_PER_ITEM in fit.remark_codes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": "some"}, "tasks"),
        ({"path": "dense"}, "path"),
        ({"conf_level": 95}, "conf_level"),
        ({"student": "pupil"}, "pupil"),
        ({"trials": "n"}, "no column 'n'"),
    ],
)
def test_wrong_arguments_say_what_was_expected(long, arguments, message):
    with pytest.raises(EstimationError, match=message):
        fit_mixed(SIMPLE, long, **arguments)


def test_wrong_columns_say_what_is_wrong(long):
    with pytest.raises(EstimationError, match="equally long"):
        fit_mixed(SIMPLE, dict(long, item=long["item"][:5]))
    with pytest.raises(EstimationError, match="above zero"):
        fit_mixed(SIMPLE, dict(long, n_examples=np.zeros(len(long["score"]))))
    with pytest.raises(EstimationError, match="expected numbers"):
        fit_mixed(SIMPLE, dict(long, score=long["task"]))
    with pytest.raises(EstimationError, match="too many"):
        fit_mixed("score ~ item", dict(long, item=long["item"].astype(str)))
    with pytest.raises(EstimationError, match="constant within student and task"):
        fit_mixed("score ~ depth", dict(long, depth=long["item"] % 3), path="grid")


@pytest.mark.parametrize("wrong", ["task", "trials", "students", "tasks"])
def test_a_grid_checks_its_shapes(wrong):
    grid = SMALL.draw(1)
    bad = {
        "task": np.array(["a"]),
        "trials": np.ones((2, 2)),
        "students": {"n": [1]},
        "tasks": {"capability": ["knowledge"]},
    }
    with pytest.raises(EstimationError):
        dataclasses.replace(grid, **{wrong: bad[wrong]})
    with pytest.raises(EstimationError, match="more successes"):
        OutcomeGrid(np.ones((2, 2)), ["a", "b"], np.zeros((2, 2)))


def test_tidy_rows_carry_the_population_and_the_summary_every_number(fitted):
    rows = fitted.tidy()
    assert {r["part"] for r in rows} == {"coefficient", "standard deviation", "marginal effect", "student gaps"}
    of_model = [r for r in rows if r["estimator"] == "mixed_model"]
    assert {(r["population_students"], r["population_tasks"]) for r in of_model} == {fitted.population}
    text = fitted.summary()
    for name in (*fitted.coefficients, *fitted.standard_deviations, *(m.effect for m in fitted.margins)):
        assert name in text

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.proportion import proportion_confint

from capgap import schema
from capgap.analysis import estimate_table, next_step, sentence
from capgap.analysis.unreadable_answers import unreadable_tasks
from capgap.schema.columns import VARIANT_ESTIMATORS
from capgap.schema.remarks import Reason
from capgap.stats import clopper_pearson_lower
from tests.analysis import worlds
from tests.analysis.worlds import ROLES, one, plain

COARSE = ["battery", "capability", "domain"]
KEYS = ["quantity", "level", "group", "model", "contrast", "weighting", "population_tasks"]
OF_TEACHER = ["gap", "gap_closure", "retention", "agreement", "fidelity", "error_inheritance", "capability_contrast"]
OF_OTHERS = ["accuracy", "gain", "teacher_effect", "lost", "gained"]


def outcomes(**columns):
    """The default world without slices: this module analyses it often."""
    return worlds.outcomes(**columns).drop(columns="x_depth")


def _broken(model, share, how="cut_off", task="knowledge1"):
    world = outcomes(status="scored", stop_reason="end")
    rows = world.index[(world["model"] == model) & (world["task"] == task)]
    rows = rows[: int(np.ceil(share * len(rows)))]
    ending = ["scored", "limit"] if how == "cut_off" else ["unparsed", "end"]
    world.loc[rows, ["status", "stop_reason", "score"]] = [*ending, 0.0]
    return world


def _coarse(estimates, quantities):
    plain_rows = estimates[~estimates["estimator"].isin(VARIANT_ESTIMATORS)]
    rows = plain_rows[plain_rows["level"].isin(COARSE) & plain_rows["quantity"].isin(quantities)]
    return rows.set_index(KEYS)[["estimate", "conf_low", "conf_high"]].sort_index()


@pytest.mark.parametrize(("how", "advice"), [("cut_off", "max_tokens"), ("unparsed", "extract")])
def test_a_task_in_which_the_teacher_could_not_be_read_is_set_aside_and_counted_beside(how, advice):
    world = _broken("teacher", 0.2, how)
    estimates = estimate_table(world, ROLES)
    without = estimate_table(world[world["task"] != "knowledge1"], ROLES)
    beside = estimates["population_tasks"] == "with_unreadable_tasks"
    pd.testing.assert_frame_equal(_coarse(estimates[~beside], OF_TEACHER), _coarse(without, OF_TEACHER))
    # Beside it stands what would be said if the teacher's answers were as readable as any others.
    readable = estimate_table(world.assign(stop_reason="end", status="scored"), ROLES)
    for quantity in ("gap", "gap_closure", "retention"):
        counted = one(estimates[beside], quantity=quantity, level="battery")
        plainly = one(readable, quantity=quantity, level="battery")
        assert counted["estimate"] == plainly["estimate"]
        assert counted["reason"] == Reason.UNREADABLE_TASKS_COUNTED
        headline = one(estimates, quantity=quantity, level="battery", weighting="tasks", population_tasks="these_tasks")
        assert headline["reason"] == Reason.UNREADABLE_ANSWERS
        assert "knowledge1" in headline["note"]
    pd.testing.assert_frame_equal(_coarse(estimates, OF_OTHERS), _coarse(readable, OF_OTHERS))
    assert one(estimates, quantity="gap", level="task", group="knowledge1")["status"] == "ok"
    row = one(estimates, quantity=how, level="task", group="knowledge1", model="teacher")
    assert row["estimate"] == pytest.approx(np.ceil(0.2 * 47) / 47)
    assert row["reason"] == Reason.UNREADABLE_ANSWERS
    assert advice in row["note"]
    line = sentence(estimates, ROLES)
    assert "Set aside, the teacher's answers unreadable: knowledge1." in line
    assert "Unreadable answers: teacher 3.5 %." in line


@pytest.mark.parametrize(("model", "how"), [("student", "cut_off"), ("base", "unparsed")])
def test_what_a_student_writes_counts_in_every_number(model, how):
    world = _broken(model, 0.5, how)
    estimates = estimate_table(world, ROLES)
    readable = estimate_table(world.assign(status="scored", stop_reason="end"), ROLES)
    quantities = ["gap", "gap_closure", "retention", "capability_contrast", *OF_OTHERS]
    pd.testing.assert_frame_equal(_coarse(estimates, quantities), _coarse(readable, quantities))
    assert one(estimates, quantity="gap", level="battery")["n_tasks"] == 6
    row = one(estimates, quantity=how, level="task", group="knowledge1", model=model)
    assert row["estimate"] > 0.4
    assert row["reason"] == {"cut_off": Reason.CUT_OFF_OFTEN, "unparsed": Reason.UNPARSED_OFTEN}[how]
    assert ("Unreadable answers: student" in sentence(estimates, ROLES)) == (model == "student")


def test_without_a_teacher_nothing_is_set_aside():
    estimates = estimate_table(_broken("student", 0.9), schema.Roles(("student",), base={"student": "base"}))
    assert one(estimates, quantity="gain", level="battery")["n_tasks"] == 6
    assert not estimates["reason"].isin([Reason.UNREADABLE_ANSWERS]).any()


@pytest.mark.parametrize(("n", "is_set_aside"), [(4, False), (5, False), (6, True)])
def test_a_task_is_set_aside_where_the_lower_bound_is_over_five_percent(n, is_set_aside):
    low = proportion_confint(n, 47, alpha=0.1, method="beta")[0]
    assert clopper_pearson_lower(n, 47) == pytest.approx(low)
    assert (low > 0.05) == is_set_aside
    world = schema.validate(_broken("teacher", n / 47), schema.OUTCOMES)
    assert unreadable_tasks(world, "teacher") == ({"knowledge1"} if is_set_aside else set())


def test_every_model_and_task_has_its_share_where_the_table_tells():
    rows = plain()[plain()["quantity"] == "cut_off"]
    assert set(rows["group"]) == {"knowledge0", "knowledge2", "reasoning0", "reasoning2"}, (
        "who chooses is never cut off"
    )
    rows = estimate_table(outcomes(stop_reason="end"), ROLES).query("quantity == 'cut_off'")
    assert len(rows) == 6 * 4
    assert (rows["estimate"] == 0).all()
    assert (rows["conf_high"] > 0).all()


def test_an_answer_that_was_right_before_its_limit_is_not_cut_off():
    world = outcomes(stop_reason="limit")
    rows = estimate_table(world, ROLES).query("quantity == 'cut_off' and group == 'knowledge1' and model == 'student'")
    wrong = world[(world["model"] == "student") & (world["task"] == "knowledge1")]["score"].eq(0).mean()
    assert rows["estimate"].tolist() == [pytest.approx(wrong)]


def test_a_table_that_says_nothing_about_its_answers_gets_no_share():
    estimates = estimate_table(outcomes()[["model", "task", "item", "score"]], ROLES)
    assert not estimates["quantity"].isin(["cut_off", "unparsed"]).any()


def test_when_no_task_of_the_teacher_could_be_read_comparisons_are_refused_and_accuracies_are_not():
    world = outcomes(status="scored")
    world.loc[world["model"] == "teacher", "status"] = "unparsed"
    estimates = estimate_table(world, ROLES)
    mine = estimates[estimates["model"] == "student"]
    for quantity in ("gap", "gap_closure"):
        row = one(mine, quantity=quantity, level="capability", group="reasoning", population_tasks="these_tasks")
        assert (row["status"], row["reason"]) == ("refused", Reason.UNREADABLE_ANSWERS)
        assert "reasoning0, reasoning1, reasoning2" in row["note"]
    assert one(mine, quantity="accuracy", level="capability", group="reasoning")["status"] == "ok"
    assert one(mine, contrast="gap", population_tasks="these_tasks")["status"] == "refused"
    assert sentence(estimates, ROLES).startswith("No number")
    assert "answers of the teacher readable" in next_step(estimates, ROLES)


def test_an_older_table_of_truncated_answers_gives_the_same_numbers():
    world = _broken("teacher", 0.2)
    cut = world["stop_reason"] == "limit"
    older = world.assign(status=world["status"].mask(cut, "truncated"), stop_reason=np.where(cut, "length", "eos"))
    pd.testing.assert_frame_equal(estimate_table(older, ROLES), estimate_table(world, ROLES))

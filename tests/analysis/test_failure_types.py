"""Types of wrong answers, and what goes with failure."""

import numpy as np
import pytest

from capgap import schema
from capgap.analysis import estimate_table
from tests.analysis import worlds
from tests.analysis.cohorts import factors, rows


def test_types_of_wrong_answers_and_the_teachers_own_are_counted():
    world = worlds.outcomes()
    world["target"], world["response"] = "0", world["prediction"]
    generated = world["format"] == "generate"
    world.loc[generated & (world["prediction"] == "3"), ["prediction", "response"]] = [None, "no no no"]
    types = rows("error_type", estimate_table(world, worlds.ROLES))
    assert set(factors(types)["among"]) == {"wrong_answers"}
    of_student, of_teacher = (types[types["model"] == model] for model in ("student", "teacher"))
    assert np.allclose(of_student.groupby("group")["estimate"].sum(), 1)
    assert {"unparsed", "teacher_answer"} <= set(factors(of_student)["error_type"])
    assert "teacher_answer" not in set(factors(of_teacher)["error_type"])


def test_right_steps_with_wrong_answers_and_wrong_steps_with_right_ones_are_told_apart():
    world = worlds.outcomes()
    world["target"] = "42"
    right = world["score"] == 1
    written = world["format"] == "generate"
    good, bad = "6 + 6 = 12. 12 + 8 = 20.", "6 + 6 = 13. 13 + 8 = 2."
    even = world["item"].astype(int) % 2 == 0
    student = world["model"] == "student"
    world["prediction"] = np.where(right, "42", "17")
    world["response"] = np.where(even, good, bad) + " The answer is " + world["prediction"] + "."
    world.loc[world["model"] == "other", "response"] = "The answer is 42."  # no trace, hence nothing to judge
    items = world[["battery", "task", "item"]].drop_duplicates().assign(prompt="?", rationale=f"{good} 20 + 22 = 42.")
    estimates = estimate_table(world, schema.Roles(("student", "other"), "teacher", {}, {}), items=items)
    types = rows("error_type", estimates, group="reasoning")
    types = types.join(factors(types)).set_index(["model", "error_type", "among"])["estimate"]
    part = world[student & written & (world["capability"] == "reasoning")]
    of_right, of_wrong = part[part["score"] == 1], part[part["score"] == 0]
    teacher_right = world[(world["model"] == "teacher") & (world["score"] == 1)].set_index(["task", "item"]).index
    clean = of_wrong[of_wrong.set_index(["task", "item"]).index.isin(teacher_right)]
    wrong_steps = types["student", "wrong_steps_right_answer", "right_answers_with_trace"]
    assert wrong_steps == pytest.approx((of_right["item"].astype(int) % 2).mean())
    n_wrong = (world[student & (world["capability"] == "reasoning")]["score"] == 0).sum()
    right_steps = types["student", "right_steps_wrong_answer", "wrong_answers"]
    assert right_steps == pytest.approx((clean["item"].astype(int) % 2 == 0).sum() / n_wrong)
    assert "wrong_steps_right_answer" not in types["other"].index.get_level_values("error_type")


def test_a_covariate_that_goes_with_failure_has_its_odds_ratio():
    rng = np.random.default_rng(0)
    world = worlds.outcomes(n_items=150)
    depth = world["x_depth"].to_numpy()
    student = (world["model"] == "student").to_numpy()
    right = rng.random(len(world)) < 1 / (1 + np.exp(-(1.5 - 0.7 * depth)))
    world.loc[student, "score"] = right[student].astype(float)
    (row,) = rows("failure_odds", estimate_table(world, worlds.ROLES), term="x_depth").to_dict("records")
    assert row["conf_low"] < np.exp(0.7) < row["conf_high"]
    assert row["conf_low"] > 1.3
    assert row["estimator"] == "logistic_regression"

"""Poor tables end with a reason, never with a traceback, a false zero or an interval without width."""

import numpy as np
import pandas as pd
import pytest

from capgap import schema
from capgap.analysis import estimate_table, next_step, sentence
from capgap.errors import EstimationError, TableError
from tests.analysis import worlds
from tests.analysis.worlds import ROLES, one

SIMPLE = schema.Roles(("student",), "teacher", {"student": "base"})


def outcomes(n_tasks=2, n_items=30, **columns):
    """A small world: this module analyses it often."""
    return worlds.outcomes(n_tasks, n_items, **columns).drop(columns="x_depth")


def _honest(found):
    """What must hold of any estimates table."""
    told = found[found["status"] == "ok"]
    assert told["estimate"].notna().all()
    assert (told["conf_low"] < told["conf_high"]).all(), told[~(told["conf_low"] < told["conf_high"])]
    assert not (told["std_error"] == 0).any()
    silent = found[found["status"] != "ok"]
    assert silent["note"].fillna("").str.len().gt(0).all()
    assert found.loc[found["status"] == "refused", ["estimate", "conf_low", "conf_high", "p_value"]].isna().all().all()
    assert schema.validate(found, schema.ESTIMATES) is not None


def _one_item():
    return outcomes(n_tasks=1, n_items=1)


def _one_cluster():
    return outcomes(cluster="all")


def _score(value):
    return lambda: outcomes().assign(score=value)


def _teacher_is_base():
    world = outcomes()
    rows = world[world["model"] == "teacher"]
    return pd.concat([world[world["model"] != "base"], rows.assign(model="base")])


def _teacher_at_chance():
    world = outcomes()
    teacher = world["model"] == "teacher"
    world.loc[teacher, "score"] = (np.arange(teacher.sum()) % 4 == 0).astype(float)
    return world


def _nan_scores():
    world = outcomes(status="scored")
    world.loc[world.index[::7], ["score", "status"]] = [np.nan, "error"]
    return world


def _half_missing():
    world = outcomes()
    return world[(world["model"] != "student") | (world["item"].astype(int) % 2 == 0)]


def _unknown_chance():
    return outcomes().drop(columns="chance")


def _foreign():
    return outcomes()[["model", "task", "item", "score"]]


def _unlabelled():
    return outcomes().drop(columns=["capability", "domain"])


def _one_capability():
    world = outcomes()
    return world[world["capability"] == "knowledge"]


def _all_errors_of_one_model():
    world = outcomes()
    world.loc[world["model"] == "base", "score"] = np.nan
    return world


POOR = {
    "one item": _one_item,
    "one cluster": _one_cluster,
    "all right": _score(1.0),
    "all wrong": _score(0.0),
    "half credit": _score(0.5),
    "teacher is base": _teacher_is_base,
    "teacher at chance": _teacher_at_chance,
    "NaN scores": _nan_scores,
    "half missing": _half_missing,
    "unknown chance": _unknown_chance,
    "foreign": _foreign,
    "unlabelled": _unlabelled,
    "one capability": _one_capability,
    "base has only errors": _all_errors_of_one_model,
}


@pytest.mark.parametrize("poor", POOR)
def test_a_poor_table_gives_honest_rows_and_words(poor):
    for roles in (ROLES, schema.Roles(("student",), "teacher")):
        found = estimate_table(POOR[poor](), roles)
        _honest(found)
        said = sentence(found, roles)
        assert said.endswith(".")
        assert "nan" not in said.lower()
        assert "nan" not in next_step(found, roles, {}).lower()


def test_one_cluster_a_task_leaves_estimates_open():
    world = outcomes()
    found = estimate_table(world.assign(cluster="c" + world["task"]), SIMPLE)
    row = one(found, quantity="gap", level="capability", group="knowledge")
    assert row["status"] == "open"
    assert np.isfinite(row["estimate"])
    assert pd.isna(row["conf_low"])
    assert one(found, quantity="gap_closure", level="capability", group="knowledge")["status"] == "refused"


def test_a_closure_over_no_gap_is_refused_with_the_denominator():
    found = estimate_table(_teacher_is_base(), SIMPLE)
    row = one(found, quantity="gap_closure", level="battery")
    assert (row["status"], row["estimate"]) == ("refused", pytest.approx(np.nan, nan_ok=True))
    assert "teacher − base is 0.000" in row["note"]
    assert "no gap closure" in sentence(found, SIMPLE)


def test_retention_over_chance_is_refused():
    found = estimate_table(_teacher_at_chance(), SIMPLE)
    assert one(found, quantity="retention", level="battery")["status"] == "refused"


def test_below_sixty_percent_common_items_a_pair_is_refused():
    found = estimate_table(_half_missing(), SIMPLE)
    row = one(found, quantity="gap", level="battery")
    assert row["status"] == "refused"
    assert "% of the items were answered by all of teacher, student" in row["note"]
    assert one(found, quantity="base_gap", level="battery")["status"] == "ok"
    assert one(found, quantity="accuracy", level="battery", model="student")["status"] == "ok"


def test_a_copy_of_the_teacher_closes_everything_without_certainty():
    world = outcomes()
    copy = world[world["model"] == "teacher"].assign(model="student")
    found = estimate_table(pd.concat([world[world["model"] != "student"], copy]), SIMPLE)
    _honest(found)
    row = one(found, quantity="gap_closure", level="battery")
    assert row["estimate"] == pytest.approx(1.0)
    assert row["conf_low"] < 1 < row["conf_high"]
    assert one(found, quantity="gap", level="battery")["p_value"] == 1.0
    assert one(found, quantity="agreement", level="battery")["estimate"] == pytest.approx(1.0)


def test_unknown_answers_are_not_disagreement():
    world = outcomes()
    world.loc[world["model"] == "student", "prediction"] = None
    row = one(estimate_table(world, SIMPLE), quantity="agreement", level="battery")
    assert row["status"] == "refused"
    unread = world.assign(status=np.where(world["model"] == "student", "unparsed", "scored"))
    row = one(estimate_table(unread, SIMPLE), quantity="agreement", level="task", group="knowledge0")
    assert (row["status"], row["estimate"]) == ("ok", 0.0)


def test_numbers_and_case_do_not_make_answers_differ():
    world = outcomes()
    world["prediction"] = np.where(world["model"] == "student", " " + world["prediction"] + ".0 ", world["prediction"])
    world = world[world["model"].isin(["teacher", "student"])]
    roles = schema.Roles(("student",), "teacher")
    plain = one(estimate_table(outcomes(), roles), quantity="agreement", level="battery")
    assert one(estimate_table(world, roles), quantity="agreement", level="battery")["estimate"] == plain["estimate"]


@pytest.mark.parametrize(
    ("roles", "match"),
    [
        (schema.Roles(("studnt",), "teacher"), "Did you mean 'student'"),
        (schema.Roles(("student",), "techer"), "Did you mean 'teacher'"),
        (schema.Roles(("student",), "teacher", {"student": "bsae"}), "Did you mean 'base'"),
        (schema.Roles(()), "no student"),
    ],
)
def test_a_role_that_nobody_plays_is_named(roles, match):
    with pytest.raises(TableError, match=match):
        estimate_table(outcomes(n_tasks=1), roles)


def test_teacher_and_student_without_a_common_item_are_an_error():
    world = outcomes()
    world.loc[world["model"] == "student", "item"] = "s" + world["item"]
    with pytest.raises(TableError, match=r"no common item.*teacher was asked e\.g\. world / knowledge0 / 0"):
        estimate_table(world, SIMPLE)


def test_a_table_without_scores_names_the_column():
    with pytest.raises(TableError, match="'score' is missing"):
        estimate_table(outcomes().drop(columns="score"), SIMPLE)


@pytest.mark.parametrize("level", [0, 1, 95])
def test_a_confidence_level_is_a_probability(level):
    with pytest.raises(EstimationError, match="between 0 and 1"):
        estimate_table(outcomes(n_tasks=1), SIMPLE, conf_level=level)


def test_a_level_that_allows_no_equivalence_test_refuses_that_number_alone():
    found = estimate_table(outcomes(), ROLES, conf_level=0.5)
    assert set(found.loc[found["quantity"] == "equivalence", "status"]) == {"refused"}
    assert (found.loc[found["quantity"] == "gap", "status"] == "ok").all()


def test_a_capability_of_one_task_is_called_so_where_capabilities_are_compared():
    found = estimate_table(outcomes(n_tasks=1), ROLES)
    contrast = found[found["quantity"] == "capability_contrast"]
    assert contrast["note"].str.contains("reasoning is a single task").all()
    several = estimate_table(outcomes(), ROLES)
    notes = several.loc[several["quantity"] == "capability_contrast", "note"].fillna("")
    assert not notes.str.contains("single task").any()

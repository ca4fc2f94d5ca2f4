"""Poor tables end with a reason, never with a traceback, a false zero or an interval without width."""

import json
from functools import cache

import numpy as np
import pandas as pd
import pytest

from capgap import schema
from capgap.analysis import estimate_table, next_step, sentence
from capgap.errors import EstimationError, TableError
from capgap.schema.quantities import QUANTITIES
from capgap.schema.remarks import Reason
from tests.analysis import worlds
from tests.analysis.cohorts import analysed
from tests.analysis.worlds import ROLES, one, plain

SIMPLE = schema.Roles(("student",), "teacher", {"student": "base"})
BEHIND = schema.Roles(("student",), "teacher")


def outcomes(n_tasks=2, n_items=30, **columns):
    """A small world: this module analyses it often."""
    return worlds.outcomes(n_tasks, n_items, **columns).drop(columns="x_depth")


def _honest(estimates):
    """What must hold of any estimates table."""
    numbers = estimates[estimates["status"] == "ok"]
    assert numbers["estimate"].notna().all()
    assert (numbers["conf_low"] < numbers["conf_high"]).all(), numbers[~(numbers["conf_low"] < numbers["conf_high"])]
    assert not (numbers["std_error"] == 0).any()
    qualified = estimates[estimates["status"] != "ok"]
    assert qualified["reason"].notna().all()
    assert qualified["note"].fillna("").str.len().gt(0).all()
    assert (
        estimates.loc[estimates["status"] == "refused", ["estimate", "conf_low", "conf_high", "p_value"]]
        .isna()
        .all()
        .all()
    )
    assert schema.validate(estimates, schema.ESTIMATES) is not None


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
    return world[(world["model"] != "teacher") | (world["item"].astype(int) % 2 == 0)]


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


@cache
def poor_estimates(name, roles):
    """Estimates of a poor table, computed once."""
    return estimate_table(POOR[name](), ROLES if roles == "all" else BEHIND if roles == "behind" else SIMPLE)


@pytest.mark.parametrize("poor", POOR)
def test_a_poor_table_gives_honest_rows_and_words(poor):
    for name, roles in (("all", ROLES), ("behind", BEHIND)):
        estimates = poor_estimates(poor, name)
        _honest(estimates)
        text = sentence(estimates, roles)
        assert text.endswith(".")
        assert "nan" not in text.lower()
        assert "nan" not in next_step(estimates, roles, {}).lower()


def test_one_cluster_a_task_leaves_estimates_open():
    world = outcomes()
    estimates = estimate_table(world.assign(cluster="c" + world["task"]), SIMPLE)
    row = one(estimates, quantity="gap", level="capability", group="knowledge")
    assert (row["status"], row["reason"]) == ("open", Reason.ONE_CLUSTER_IN_TASK)
    assert np.isfinite(row["estimate"])
    assert pd.isna(row["conf_low"])
    assert one(estimates, quantity="gap_closure", level="capability", group="knowledge")["status"] == "refused"


def test_a_closure_over_no_gap_is_refused_with_the_denominator():
    estimates = poor_estimates("teacher is base", "simple")
    row = one(estimates, quantity="gap_closure", level="battery")
    assert (row["status"], row["reason"]) == ("refused", Reason.DENOMINATOR_NEAR_ZERO)
    assert np.isnan(row["estimate"])
    assert "teacher − base is 0.000" in row["note"]
    assert "no gap closure" in sentence(estimates, SIMPLE)


def test_retention_over_chance_is_refused():
    row = one(poor_estimates("teacher at chance", "simple"), quantity="retention", level="battery")
    assert (row["status"], row["reason"]) == ("refused", Reason.DENOMINATOR_NEAR_ZERO)


def test_below_sixty_percent_of_the_students_items_a_pair_is_refused():
    estimates = poor_estimates("half missing", "simple")
    row = one(estimates, quantity="gap", level="battery")
    assert (row["status"], row["reason"]) == ("refused", Reason.UNLIKE_ITEMS)
    assert "teacher, student" in row["note"]
    assert one(estimates, quantity="gain", level="battery")["status"] == "ok"
    assert one(estimates, quantity="accuracy", level="battery", model="student")["status"] == "ok"


def test_a_copy_of_the_teacher_closes_everything_without_certainty():
    world = outcomes()
    copy = world[world["model"] == "teacher"].assign(model="student")
    estimates = estimate_table(pd.concat([world[world["model"] != "student"], copy]), SIMPLE)
    _honest(estimates)
    row = one(estimates, quantity="gap_closure", level="battery")
    assert row["estimate"] == pytest.approx(1.0)
    assert row["conf_low"] < 1 < row["conf_high"]
    assert one(estimates, quantity="gap", level="battery")["p_value"] == 1.0
    assert one(estimates, quantity="agreement", level="battery")["estimate"] == pytest.approx(1.0)


def test_unknown_answers_are_not_disagreement():
    world = outcomes()
    world.loc[world["model"] == "student", "prediction"] = None
    row = one(estimate_table(world, SIMPLE), quantity="agreement", level="battery")
    assert (row["status"], row["reason"]) == ("refused", Reason.ANSWERS_NOT_RECORDED)
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
    estimates = estimate_table(outcomes(), ROLES, conf_level=0.5)
    assert set(estimates.loc[estimates["quantity"] == "equivalence", "reason"]) == {Reason.CONFIDENCE_TOO_LOW}
    assert (estimates.loc[estimates["quantity"] == "gap", "status"] == "ok").all()


def test_models_that_were_prompted_differently_are_flagged():
    models = pd.DataFrame({"model": ["teacher", "student", "base"], "prompting": ["chat", "plain", "plain"]})
    estimates = estimate_table(outcomes(), ROLES, models=models)
    assert one(estimates, quantity="gap", level="battery")["reason"] == Reason.PROMPTED_DIFFERENTLY
    assert pd.isna(one(estimates, quantity="gain", level="battery")["note"])


def test_roles_may_be_missing():
    estimates = estimate_table(worlds.outcomes(), schema.Roles(("student",)))
    assert set(estimates["quantity"]) == {"accuracy", "unparsed", "cut_off", "error_type", "failure_odds"}


def test_every_reason_is_one_that_the_quantity_declares():
    undeclared = set()
    for name in POOR:
        estimates = poor_estimates(name, "all")
        refused = estimates[estimates["status"] == "refused"]
        for quantity, reason in refused[["quantity", "reason"]].drop_duplicates().itertuples(index=False):
            if reason not in QUANTITIES[quantity].refusal_reasons:
                undeclared.add((quantity, reason))
    assert not undeclared


def test_every_row_stands_where_its_quantity_is_declared_to_stand():
    for estimates in (plain(), analysed()):
        for quantity, rows in estimates.groupby("quantity"):
            declared = QUANTITIES[quantity]
            assert set(rows["level"]) <= set(declared.levels), quantity
            roles = [set(json.loads(text)) for text in rows["roles"].dropna()]
            assert all(set(declared.roles) - {"student"} <= taken for taken in roles), quantity
            if declared.contrasts:
                assert set(rows["contrast"]) <= set(declared.contrasts)
            if declared.family == "none":
                assert rows["p_adjusted"].isna().all()

"""A task where the teacher is below the base is said at every level that holds it, with the number without it."""

import numpy as np
import pytest

from capgap.analysis import estimate_table, sentence
from capgap.schema import Roles
from capgap.schema.remarks import Reason
from tests.analysis.worlds import one, outcomes, plain

BASED = Roles(("student",), "teacher", {"student": "base"})


@pytest.fixture(scope="module")
def inverted():
    world = outcomes(n_tasks=3, n_items=100, models=("teacher", "student", "base"))
    swapped = world["task"] == "reasoning1"
    names = {"teacher": "base", "base": "teacher"}
    return world.assign(model=np.where(swapped, world["model"].replace(names), world["model"]))


@pytest.fixture(scope="module")
def estimates(inverted):
    return estimate_table(inverted, BASED)


@pytest.mark.parametrize(
    ("level", "group", "is_said"),
    [("battery", "world", True), ("capability", "reasoning", True), ("domain", "domain1", True),
     ("capability", "knowledge", False), ("domain", "domain0", False)],
)  # fmt: skip
def test_it_is_said_at_every_level_that_holds_the_task_and_nowhere_else(inverted, estimates, level, group, is_said):
    row = one(estimates, quantity="gap_closure", level=level, group=group)
    assert ("the teacher is below the base in reasoning1" in row["note"]) == is_said
    assert row["status"] == "refused" or (row["reason"] == Reason.TEACHER_BELOW_BASE) == is_said
    beside = estimates[
        (estimates["level"] == level)
        & (estimates["group"] == group)
        & (estimates["estimator"] == "without_inverted_tasks")
        & (estimates["weighting"] == "tasks")
    ]
    assert len(beside) == is_said
    if is_said:
        left = estimate_table(inverted[inverted["task"] != "reasoning1"], BASED)
        expected = one(left, quantity="gap_closure", level=level, group=group)
        assert beside.iloc[0]["estimate"] == pytest.approx(expected["estimate"], abs=1e-12)
        assert beside.iloc[0]["conf_high"] == pytest.approx(expected["conf_high"], abs=1e-12)
        assert f"without {expected['estimate']:.3f}" in row["note"]


def test_the_sentence_gives_the_closure_with_and_without_the_task(estimates):
    text = sentence(estimates, BASED)
    row = one(
        estimates, quantity="gap_closure", level="capability", group="reasoning", estimator="without_inverted_tasks"
    )
    without = f"{100 * row['estimate']:.0f} % [{100 * row['conf_low']:.0f}, {100 * row['conf_high']:.0f}]"
    assert f"{without} of the reasoning gap without reasoning1, where the teacher is below the base" in text
    assert text.count("below the base") == 1


def test_a_group_of_inverted_tasks_alone_has_no_number_without_them(inverted):
    alone = inverted.assign(domain=np.where(inverted["task"] == "reasoning1", "own", "other"))
    table = estimate_table(alone, BASED)
    row = table[(table["group"] == "own") & (table["estimator"] == "without_inverted_tasks")].iloc[0]
    assert (row["status"], row["reason"]) == ("refused", Reason.TEACHER_BELOW_BASE_ALONE)


def test_where_the_teacher_leads_everywhere_there_is_no_such_row():
    assert not (plain()["estimator"] == "without_inverted_tasks").any()

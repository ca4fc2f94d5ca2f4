"""Reservations and left-out numbers, told apart by codes."""

import pandas as pd
import pytest

from capgap.report.caveats import collect_caveats, collect_omitted_data
from capgap.report.tables import EstimateIndex
from capgap.schema import ESTIMATES, OUTCOMES, Roles, validate
from capgap.schema.quantities import QUANTITIES

ROLES = Roles(("s",), teacher="t", base={"s": "b"}, control={"s": "c"})
OUTCOMES_OF_ALL = validate(
    pd.DataFrame({"model": ["s", "t", "b", "c"], "task": "a", "item": "1", "score": 1.0}), OUTCOMES
)


def refused(quantity="gap_closure", group="knowledge", **columns):
    place = {"level": "capability", "model": "s", "status": "refused", "weighting": "tasks"}
    return {"quantity": quantity, "group": group} | place | columns


def left_out(*rows):
    book = EstimateIndex(validate(pd.DataFrame(list(rows)), ESTIMATES))
    return collect_omitted_data(book, ROLES, outcomes=OUTCOMES_OF_ALL)


def reservations(*rows):
    book = EstimateIndex(validate(pd.DataFrame(list(rows)), ESTIMATES))
    return collect_caveats(book, ROLES, outcomes=OUTCOMES_OF_ALL, models=None, excluded=set())


def test_refused_numbers_are_grouped_by_reason_whatever_their_notes():
    rows = [
        refused(reason="denominator_near_zero", note="room is 0.1 [-0.1, 0.3]"),
        refused("retention", "reasoning", reason="denominator_near_zero", note="room is 0.2 [-0.2, 0.4]"),
        refused(group="mixed", reason="few_clusters", note="room is 0.1 [-0.1, 0.3]"),
    ]
    first, second, *_ = left_out(*rows)
    assert first.what == "Gap closure and retention: 2 refused, denominator near zero"
    assert first.why == "For example: Room is 0.1 [-0.1, 0.3]."
    assert first.where == ("knowledge", "reasoning")
    assert second.what == "Gap closure: 1 refused, few clusters"
    assert second.why == "Room is 0.1 [-0.1, 0.3]."


def test_a_refusal_without_a_note_is_told_by_its_code():
    assert left_out(refused(reason="no_base"))[0].why == "No base."
    assert left_out(refused())[0].why == "No reason was recorded."


@pytest.mark.parametrize("quantity", [name for name, declared in QUANTITIES.items() if declared.needs])
def test_what_these_data_lack_is_what_the_declarations_need(quantity):
    declared = QUANTITIES[quantity]
    question = f"{declared.question} ({declared.needs})"
    assert question in left_out(refused())[-1].where
    assert question not in left_out(refused(), {"quantity": quantity, "level": "battery", "group": "all"})[-1].where


def test_seeds_that_were_compared_are_not_missing_where_no_item_could_be_listed():
    recipe = {"quantity": "gap", "level": "battery", "group": "all", "subject": "recipe", "estimate": 0.1}
    question = QUANTITIES["items_lost"].question
    assert not any(question in where for where in left_out(recipe)[-1].where)
    assert any(question in where for where in left_out(recipe | {"subject": "model", "model": "s"})[-1].where)


def test_a_headline_is_refused_once_and_its_variants_are_no_caveat():
    variants = [
        refused(reason="denominator_near_zero", weighting="items"),
        refused(reason="denominator_near_zero", population_tasks="tasks_like_these"),
    ]
    assert [each.what for each in reservations(refused(reason="denominator_near_zero"), *variants)] == [
        "No gap closure for knowledge."
    ]
    assert reservations(*variants) == []

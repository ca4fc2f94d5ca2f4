"""Tables that look wrong are told, by code; ordinary ones are not."""

import pandas as pd
import pytest

from capgap import schema
from capgap.analysis import estimate_table, next_step
from capgap.analysis.suspect_tables import suspect_remarks
from capgap.schema import Roles
from capgap.schema.remarks import Reason
from tests.analysis.worlds import one, outcomes

BASED = Roles(("student",), "teacher", {"student": "base"})


def _codes(world, roles=BASED, model="student"):
    table = schema.validate(world, schema.OUTCOMES, source="outcomes")
    return {suspicion.code for suspicion, _ in suspect_remarks(table, roles)[model]}


def _world():
    return outcomes(models=("teacher", "student", "base"), n_tasks=1)


def test_an_ordinary_table_is_not_suspect():
    world = _world()
    assert not any(_codes(world, model=model) for model in ("student", "teacher", "base"))


@pytest.mark.parametrize("spoil", [lambda x: x.zfill(3), lambda x: x + " ", lambda x: "Ａ" + x])
def test_items_that_match_but_for_zeros_blanks_or_width_are_told(spoil):
    world = _world()
    world["item"] = world["item"].where(world["task"] != "reasoning0", "a" + world["item"])
    mine = (world["model"] == "student") & (world["item"].str.len() == 1)
    if spoil("7").startswith("Ａ"):
        mine = (world["model"] == "student") & (world["task"] == "reasoning0")
        world.loc[mine, "item"] = world.loc[mine, "item"].str.replace("a", "Ａ")
    else:
        world.loc[mine, "item"] = world.loc[mine, "item"].map(spoil)
    assert Reason.NEARLY_MATCHING_ITEMS in _codes(world)
    row = one(estimate_table(world, BASED), quantity="gap", level="battery")
    assert row["reason"] in (Reason.NEARLY_MATCHING_ITEMS, Reason.UNLIKE_ITEMS)
    assert "case, blanks or leading zeros" in row["note"]


def test_items_that_stand_in_both_tables_are_no_near_match_of_others():
    world = _world()
    twins = world.assign(item="0" + world["item"])
    assert Reason.NEARLY_MATCHING_ITEMS not in _codes(pd.concat([world, twins]))


@pytest.mark.parametrize("twin", ["student ", "Student", "ｓtudent", " student"])
def test_names_of_models_that_look_alike_are_told(twin):
    world = _world()
    other = world[world["model"] == "student"].assign(model=twin)
    assert Reason.NAMES_LOOK_ALIKE in _codes(pd.concat([world, other]))


def test_a_student_that_answers_as_its_teacher_does_everywhere_is_told():
    world = _world()
    copy = world[world["model"] == "teacher"].assign(model="student")
    world = pd.concat([world[world["model"] != "student"], copy])
    assert Reason.ANSWERS_EQUAL_TEACHER in _codes(world)
    row = one(estimate_table(world, BASED), quantity="gap", level="battery")
    assert row["reason"] == Reason.ANSWERS_EQUAL_TEACHER
    other_mistakes = world.assign(
        prediction=world["prediction"] + (world["model"] == "student").astype(int).astype(str)
    )
    assert Reason.ANSWERS_EQUAL_TEACHER not in _codes(other_mistakes)


def test_two_models_that_are_right_everywhere_are_not_taken_for_one():
    assert Reason.ANSWERS_EQUAL_TEACHER not in _codes(_world().assign(score=1.0))


@pytest.mark.parametrize("model", ["student", "teacher"])
def test_a_table_of_right_answers_alone_is_told_of_whoever_lacks_the_wrong_ones(model):
    world = _world()
    kept = world[(world["model"] != model) | (world["score"] == 1)]
    assert Reason.WRONG_ANSWERS_DROPPED in _codes(kept)
    whole = world.assign(score=world["score"].where(world["model"] != model, 1.0))
    assert Reason.WRONG_ANSWERS_DROPPED not in _codes(whole)


def test_where_ids_nearly_match_the_next_step_is_to_mend_them():
    scores = [("t", "007", 1), ("t", "8", 0), ("s", "7", 1), ("s", "8", 0)]
    world = pd.DataFrame([{"model": m, "task": "a", "item": item, "score": score} for m, item, score in scores])
    roles = Roles(("s",), "t")
    assert next_step(estimate_table(world, roles), roles).startswith("Next: give the same items the same ids")

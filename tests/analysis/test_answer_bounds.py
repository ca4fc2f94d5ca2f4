"""Bounds over unreadable and missing answers, and what they make plain numbers say."""

import json

import numpy as np
import pandas as pd
import pytest

from capgap.analysis import estimate_table, sentence
from capgap.schema import Roles
from capgap.schema.remarks import Reason
from tests.analysis.worlds import TWO_STUDENTS, one, outcomes

BASED = Roles(("student",), "teacher", {"student": "base"})


def _world(n_tasks=1, n_items=60, models=("teacher", "student", "base")):
    return outcomes(n_tasks=n_tasks, n_items=n_items, models=models)


def _unparsed(world, model, n_each_task, score=0):
    """The first wrong answers of a model in each task could not be read."""
    wrong = world[(world["model"] == model) & (world["score"] == score)]
    rows = wrong.groupby("task").head(n_each_task).index
    return world.assign(status=np.where(world.index.isin(rows), "unparsed", "scored"))


def _bounds(estimates, quantity, level="battery", **where):
    return one(estimates, quantity=quantity, level=level, estimator="bounds", **where)


def test_bounds_of_a_gap_are_the_ends_with_the_students_unreadable_answers_right():
    world = _unparsed(_world(n_tasks=2), "student", 2)
    estimates = estimate_table(world, BASED)
    mended = world.assign(score=np.where(world["status"] == "unparsed", 1.0, world["score"]), status="scored")
    right = one(estimate_table(mended, BASED), quantity="gap", level="battery")
    plain, bounds = one(estimates, quantity="gap", level="battery"), _bounds(estimates, "gap")
    assert bounds["estimate"] == plain["estimate"]
    assert bounds["conf_low"] == pytest.approx(min(right["conf_low"], plain["conf_low"]), abs=1e-12)
    assert bounds["conf_high"] == pytest.approx(max(right["conf_high"], plain["conf_high"]), abs=1e-12)
    assert pd.isna(bounds["p_value"])
    shares = json.loads(bounds["factors"])
    assert shares["unreadable"]["student"] == pytest.approx((world["status"] == "unparsed").sum() / (len(world) / 3))
    assert set(shares["missing"].values()) == {0.0}


def test_bounds_stand_beside_gap_gain_closure_retention_and_their_contrasts():
    estimates = estimate_table(_unparsed(_world(n_tasks=2), "student", 1), BASED)
    for quantity in ("gap", "gain", "gap_closure", "retention"):
        for level, group in (("battery", "world"), ("capability", "knowledge"), ("capability", "reasoning")):
            where = {"quantity": quantity, "level": level, "group": group}
            plain, bounds = one(estimates, **where), one(estimates, **where, estimator="bounds")
            assert bounds["conf_low"] <= plain["conf_low"] < plain["conf_high"] <= bounds["conf_high"]
    contrast = _bounds(estimates, "capability_contrast", contrast="gap_closure")
    sides = [_bounds(estimates, "gap_closure", "capability", group=name) for name in ("knowledge", "reasoning")]
    assert contrast["conf_low"] == pytest.approx(sides[0]["conf_low"] - sides[1]["conf_high"])
    assert contrast["conf_high"] == pytest.approx(sides[0]["conf_high"] - sides[1]["conf_low"])


@pytest.mark.parametrize(("n_cut", "is_said"), [(2, False), (12, True)])
def test_a_sign_that_unreadable_answers_can_turn_is_said_on_the_plain_row(n_cut, is_said):
    # Of 300 items the teacher misses 30, the student these and 15 more, some of which were cut off.
    item = np.arange(300)
    tables = [
        pd.DataFrame({"model": model, "task": "t", "item": item.astype(str), "score": (item >= n_wrong).astype(float)})
        for model, n_wrong in (("teacher", 30), ("student", 45))
    ]
    world = pd.concat(tables)
    cut = (world["model"] == "student") & world["item"].astype(int).between(45 - n_cut, 44)
    estimates = estimate_table(world.assign(stop_reason=np.where(cut, "limit", "end")), Roles(("student",), "teacher"))
    plain, bounds = one(estimates, quantity="gap", level="battery"), _bounds(estimates, "gap")
    assert plain["conf_low"] > 0
    assert (bounds["conf_low"] < 0) == is_said
    assert (plain["reason"] == Reason.SIGN_RESTS_ON_ANSWERS) == is_said
    assert (bounds["reason"] == Reason.SIGN_RESTS_ON_ANSWERS) == is_said


def test_closure_has_no_bounds_where_teacher_minus_base_may_reach_zero():
    world = _world(n_items=150)
    unread = (world["model"] == "base") & (world["score"] == 0)
    estimates = estimate_table(world.assign(status=np.where(unread, "unparsed", "scored")), BASED)
    assert _bounds(estimates, "gap_closure")["status"] == "refused"
    plain = one(estimates, quantity="gap_closure", level="battery")
    assert plain["status"] == "ok"
    assert plain["reason"] == Reason.NUMBER_RESTS_ON_ANSWERS


@pytest.mark.parametrize(("share", "is_said"), [(0.1, False), (0.6, True)])
def test_closure_holds_format_learnt_where_the_base_could_not_be_read(share, is_said):
    world = _world(n_items=150)
    rng = np.random.default_rng(0)
    unread = (world["model"] == "base") & (world["score"] == 0) & (rng.random(len(world)) < share)
    estimates = estimate_table(world.assign(status=np.where(unread, "unparsed", "scored")), BASED)
    note = one(estimates, quantity="gap_closure", level="battery")["note"]
    assert ("format learnt" in note) == is_said
    assert ("(answers of the base that cannot be read)" in sentence(estimates, BASED)) == is_said
    factors = json.loads(_bounds(estimates, "gap_closure", weighting="tasks")["factors"])
    assert (factors.get("format_share", 0) > 0.2) == is_said


def test_bounds_wider_than_the_scale_are_no_numbers_in_the_sentence():
    world = _world(n_items=150)
    unread = (world["model"] == "base") & (world["score"] == 0)
    estimates = estimate_table(world.assign(status=np.where(unread, "unparsed", "scored")), BASED)
    line = sentence(estimates, BASED).splitlines()[-1]
    assert "wider than the scale (unreadable: base" in line
    assert " to " not in line


def test_what_bounds_say_of_a_student_does_not_hang_on_another_student():
    world = _unparsed(_world(models=("teacher", "student", "base", "other")), "student", 1)
    world.loc[(world["model"] == "other") & (world["score"] == 0), "stop_reason"] = "limit"
    alone, both = estimate_table(world, BASED), estimate_table(world, TWO_STUDENTS)
    names = ["quantity", "level", "group", "contrast", "weighting", "population_tasks", "estimator"]
    left, right = (
        e[(e["model"] == "student") & (e["estimator"].eq("bounds") | e["quantity"].eq("gap_part"))]
        .set_index(names)[["estimate", "conf_low", "conf_high", "reason", "note"]]
        .sort_index()
        for e in (alone, both)
    )
    left, right = (e[e.index.get_level_values("level") == "task"] for e in (left, right))
    pd.testing.assert_frame_equal(left, right)


def test_the_line_of_bounds_follows_the_sentence_of_its_student():
    world = _unparsed(_world(models=("teacher", "student", "base", "other")), "student", 2)
    lines = sentence(estimate_table(world, BASED), BASED).splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("Bounds")
    assert "unreadable: student" in lines[1]
    lines = sentence(estimate_table(world, TWO_STUDENTS), TWO_STUDENTS).splitlines()
    assert [line.split()[0].rstrip(":") for line in lines][:3] == ["student", "student", "other"]

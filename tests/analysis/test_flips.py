"""Equivalence with the teacher."""

import numpy as np
import pandas as pd
import pytest

from capgap import schema
from capgap.analysis import estimate_table
from capgap.schema.remarks import Reason
from tests.analysis import worlds


def test_equivalence_is_shown_for_a_copy_and_not_for_a_student_far_behind():
    world = worlds.outcomes()
    teacher = world[world["model"] == "teacher"]
    world = pd.concat([world, teacher.assign(model="copy")], ignore_index=True)
    estimates = estimate_table(world, schema.Roles(("student", "copy"), "teacher"))
    student, copy = (
        worlds.one(estimates, quantity="equivalence", level="battery", model=model) for model in ("student", "copy")
    )
    assert "more than 2 points short" in student["note"]
    assert copy["conf_level"] == pytest.approx(0.9)
    assert student["p_value"] > 0.9
    assert copy["p_value"] < student["p_value"]
    assert (student["null_value"], pd.isna(student["reason"])) == (0.02, True)


def _repeated(p_base, p_student, n_items=1500, n_repeats=4):
    rng = np.random.default_rng(1)
    tables = [
        pd.DataFrame(
            {
                "model": model,
                "task": "t",
                "item": np.repeat([str(i) for i in range(n_items)], n_repeats),
                "repeat": np.tile(range(n_repeats), n_items),
                "score": (rng.random(n_items * n_repeats) < p).astype(float),
            }
        )
        for model, p in (("base", p_base), ("student", p_student))
    ]
    return estimate_table(pd.concat(tables, ignore_index=True), schema.Roles(("student",), base={"student": "base"}))


def test_over_repeats_flips_are_those_beyond_two_answers_of_the_student():
    lost = worlds.one(_repeated(0.8, 0.5), quantity="lost", level="battery")
    assert lost["estimate"] == pytest.approx(0.8 * 0.5 - 0.25, abs=0.03)
    same = worlds.one(_repeated(0.5, 0.5), quantity="lost", level="battery")
    assert same["conf_low"] < 0 < same["conf_high"]


def test_parts_of_a_score_are_no_chance_of_a_right_answer():
    world = worlds.outcomes(models=("base", "student"))
    world["score"] = 0.9 * world["score"]
    estimates = estimate_table(world, schema.Roles(("student",), base={"student": "base"}))
    assert set(estimates.loc[estimates["quantity"] == "lost", "reason"]) == {Reason.FRACTIONAL_SCORES}

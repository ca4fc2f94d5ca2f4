"""Equivalence with the teacher."""

import pandas as pd
import pytest

from capgap import schema
from capgap.analysis import estimate_table
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

"""Knowledge against reasoning, and what stands in the way of comparing them."""

import numpy as np
import pandas as pd
import pytest

from capgap.analysis import estimate_table
from capgap.schema.remarks import Reason
from tests.analysis.worlds import ROLES, one, outcomes, plain

MEASURES = {"gap_closure": 1, "retention": 1, "gap": -1}
"""Contrast → the sign with which knowledge enters."""


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("weighting", ["tasks", "items"])
def test_contrasts_are_differences_of_the_capability_rows(measure, weighting):
    knowledge, reasoning = (
        one(plain(), quantity=measure, level="capability", group=group, weighting=weighting)["estimate"]
        for group in ("knowledge", "reasoning")
    )
    row = one(plain(), quantity="capability_contrast", contrast=measure, weighting=weighting)
    assert row["estimate"] == pytest.approx(MEASURES[measure] * (knowledge - reasoning))
    assert row["conf_low"] < row["estimate"] < row["conf_high"]
    assert 0 < row["p_value"] < 0.05
    assert pd.isna(row["reason"])


def test_aliased_formats_are_flagged():
    world = outcomes()
    world["format"] = np.where(world["capability"] == "knowledge", "choose", "generate")
    aliased = one(estimate_table(world, ROLES), contrast="gap_closure")
    assert aliased["reason"] == Reason.FORMAT_ALIASED
    one_format = one(estimate_table(outcomes().assign(format="choose"), ROLES), contrast="gap_closure")
    assert pd.isna(one_format["reason"]), "one format for both informs, it does not qualify"
    assert "choose" in one_format["note"]


def test_a_capability_of_one_task_is_called_so():
    estimates = estimate_table(outcomes(n_tasks=1), ROLES)
    contrast = estimates[estimates["quantity"] == "capability_contrast"]
    assert (contrast["reason"] == Reason.SINGLE_TASK).all()


def test_without_one_capability_there_is_no_contrast():
    world = outcomes()
    estimates = estimate_table(world[world["capability"] == "knowledge"], ROLES)
    contrast = estimates[estimates["quantity"] == "capability_contrast"]
    assert set(contrast["contrast"]) == set(MEASURES)
    assert set(zip(contrast["status"], contrast["reason"], strict=True)) == {("refused", Reason.NO_CAPABILITY)}

"""Cohorts: recipes, seeds, what varies, and which checkpoints count."""

import pandas as pd
import pytest

from capgap.analysis.cohort import make_cohort
from capgap.schema.remarks import Reason
from tests.analysis.cohorts import cohort


def test_a_cohort_knows_what_varies_and_counts_examples_by_capability():
    _, models, roles = cohort(sizes=(100, 200), seeds=2, n_tasks=1, n_items=2)
    students = make_cohort(models, roles.students)
    assert students.varies("n_examples")
    assert students.varies("adaptation")
    assert not students.varies("supervision")
    assert not students.varies("n_params")  # nobody said
    assert students.size("full-200-1") == 200
    assert students.size("full-200-1", "reasoning") == 100
    assert [recipe.factors for recipe in students.recipes()] == [(("adaptation", "full"),), (("adaptation", "lora"),)]
    assert [len(recipe.students) for recipe in students.recipes_with_size()] == [2, 2, 2, 2]
    assert make_cohort(None, roles.students).students == ()


@pytest.mark.parametrize("counts", ["[1]", "{", '{"knowledge": "many"}', None])
def test_examples_that_nobody_counted_by_capability_count_as_all(counts):
    models = pd.DataFrame({"model": ["a"], "n_examples": [70], "n_examples_by_capability": [counts]})
    assert make_cohort(models, ["a"]).size("a", "knowledge") == 70


def test_of_a_run_the_last_checkpoint_counts_and_the_others_are_counted():
    columns = {"seed": [0, 1, 2, 2], "n_examples": [100] * 4, "step": [300, 300, 100, 300]}
    students = make_cohort(pd.DataFrame({"model": list("abcd"), **columns}), list("abcd"))
    assert students.students == ("a", "b", "d")
    (remark,) = students.remarks
    assert (remark.code, remark.values) == (Reason.EARLIER_CHECKPOINTS, {"n": 1})

"""What a cohort's headline says."""

import json

import numpy as np
import pandas as pd

from capgap.analysis import sentence
from capgap.analysis.cohort_headline import write_cohort_sentences
from tests.analysis import worlds
from tests.analysis.cohorts import analysed, cohort

EXAMPLES = {"factor": "n_examples", "transform": "log"}
LORA = {"factor": "adaptation", "level": "lora", "reference": "full"}


def _row(quantity, group, factors, ends, **more):
    status = more.pop("status", "ok")
    return {
        "quantity": quantity,
        "group": group,
        "estimator": "mixed_model" if quantity == "effect" else "learning_curve",
        "estimate": ends[0],
        "conf_low": ends[1],
        "conf_high": ends[2],
        "status": status,
        "factors": json.dumps(factors),
        "n_students": 24,
        "n_tasks": 12,
        "population_students": "these_recipes",
        "population_tasks": "tasks_like_these",
        **more,
    }


def test_the_slope_of_a_logarithm_is_told_as_a_doubling():
    effect = 0.1 / np.log(2)
    table = pd.DataFrame(
        [
            _row("effect", "reasoning", EXAMPLES, (0.5 * effect, 0.2 * effect, 0.8 * effect)),
            _row("effect", "knowledge", EXAMPLES, (effect, 0.8 * effect, 1.2 * effect)),
        ]
    )
    assert write_cohort_sentences(table) == [
        "Twice the examples: 10 points [8, 12] in knowledge and 5 points [2, 8] in reasoning "
        "(24 students, 12 tasks; these recipes, tasks like these)."
    ]


def test_a_category_is_told_as_one_instead_of_the_other_and_what_was_not_trained_is_not():
    ends = (-0.04, -0.07, -0.01)
    table = pd.DataFrame(
        [
            _row("effect", "knowledge", LORA, ends),
            _row("effect", "knowledge", {"factor": "format", "level": "generate", "reference": "choose"}, ends),
            _row("effect", "all", {"factor": "capability", "level": "reasoning", "reference": "knowledge"}, ends),
            _row("effect", "reasoning", LORA, ends, status="refused"),
            _row("effect", "reasoning", EXAMPLES, ends, estimator="two_stage"),
            _row("effect", "reasoning", EXAMPLES, ends, estimator="multiple_imputation"),
        ]
    )
    (line,) = write_cohort_sentences(table)
    assert line.startswith("Lora instead of full: −4 points [−7, −1] in knowledge (")
    assert "format" not in line
    assert "reasoning" not in line


def test_an_open_ratio_is_told_by_its_lower_end_and_the_highest_target_that_can_be_told_is_taken():
    def ratio(target, ends, recipe, status):
        factors = {"adaptation": recipe, "target": target, "target_scale": "retention"}
        return _row("relative_data_cost", "reasoning / knowledge", factors, ends, status=status)

    table = pd.DataFrame(
        [
            ratio(0.5, (2.0, 1.2, 3.3), "full", "ok"),
            ratio(0.9, (np.nan, np.nan, np.nan), "full", "refused"),
        ]
    )
    assert write_cohort_sentences(table) == [
        "Reasoning costs 2.0 times [1.20, 3.3] (full) the examples that knowledge costs, for 50 % retention."
    ]
    higher = pd.DataFrame(
        [
            ratio(0.9, (np.nan, 7.5, np.nan), "lora", "open"),
            ratio(0.9, (np.nan, 0.0, np.nan), "full", "open"),
        ]
    )
    assert write_cohort_sentences(pd.concat([table, higher])) == [
        "Reasoning costs at least 7.5 times (lora) the examples that knowledge costs, for 90 % retention."
    ]


def test_a_ratio_that_rests_on_sizes_that_nobody_tried_is_no_sentence():
    factors = {"adaptation": "full", "target": 0.9, "target_scale": "retention", "laws": ["power"]}
    for ends in ((np.nan, 0.57, np.nan), (1.4, 0.0, 2.9), (1.4, 0.57, np.nan), (np.nan, np.nan, 2.0)):
        table = pd.DataFrame([_row("relative_data_cost", "reasoning / knowledge", factors, ends, status="open")])
        assert write_cohort_sentences(table) == []
    (line,) = write_cohort_sentences(pd.DataFrame([_row("relative_data_cost", "r", factors, (1.4, 0.9, 2.9))]))
    assert "power" not in line


def test_a_recipe_may_be_called_like_an_estimator():
    factors = {"adaptation": "two_stage", "target": 0.5, "target_scale": "retention"}
    table = pd.DataFrame([_row("relative_data_cost", "r", factors, (2.0, 1.2, 3.3))])
    assert "(two_stage)" in write_cohort_sentences(table)[0]


def test_a_hostile_recipe_breaks_no_line():
    hostile = LORA | {"level": "a\n\x1b[31mb"}
    table = pd.DataFrame([_row("effect", "knowledge", hostile, (0.1, 0.0, 0.2))])
    (line,) = write_cohort_sentences(table)
    assert "\n" not in line
    assert "\x1b" not in line


def test_recipes_come_first_then_the_cohort_and_many_students_stand_in_tables_only():
    _, _, roles = cohort()
    lines = sentence(analysed(), roles).splitlines()
    assert "12 recipes × 3 seeds" in lines[0]
    assert lines[1].startswith("Twice the examples: ")
    assert "lora instead of full: " in lines[1]
    assert lines[2].startswith("Reasoning costs ")
    assert len(lines) == 4
    assert str(len(roles.students)) in lines[3]


def test_two_students_are_no_cohort():
    assert write_cohort_sentences(worlds.of_two_students()) == []

import json

import numpy as np
import pandas as pd

from capgap.analysis import sentence
from capgap.analysis.cohort_headline import cohort_sentences
from tests.analysis import worlds
from tests.analysis.cohorts import analysed, cohort

POPULATION = "checkpoints trained by these recipes, tasks like these"


def _row(quantity, group, contrast, ends, **more):
    status = more.pop("status", "ok")
    return {
        "quantity": quantity,
        "group": group,
        "contrast": contrast,
        "estimate": ends[0],
        "conf_low": ends[1],
        "conf_high": ends[2],
        "status": status,
        "factors": None,
        "n_students": 24,
        "n_tasks": 12,
        "population": POPULATION,
        **more,
    }


def test_the_slope_of_a_logarithm_is_told_as_a_doubling():
    effect = 0.1 / np.log(2)
    table = pd.DataFrame(
        [
            _row("effect", "reasoning", "log(n_examples)", (0.5 * effect, 0.2 * effect, 0.8 * effect)),
            _row("effect", "knowledge", "log(n_examples)", (effect, 0.8 * effect, 1.2 * effect)),
        ]
    )
    assert cohort_sentences(table) == [
        "Twice the examples: 10 points [8, 12] in knowledge and 5 points [2, 8] in reasoning "
        "(24 students, 12 tasks; these recipes, tasks like these)."
    ]


def test_a_category_is_told_as_one_instead_of_the_other_and_what_was_not_trained_is_not():
    ends = (-0.04, -0.07, -0.01)
    table = pd.DataFrame(
        [
            _row("effect", "knowledge", "adaptation[lora - full]", ends),
            _row("effect", "knowledge", "format[generate - choose]", ends),
            _row("effect", "all", "capability[reasoning - knowledge]", ends),
            _row("effect", "reasoning", "adaptation[lora - full]", ends, status="refused"),
            _row("effect", "reasoning", "log(n_examples)", ends, factors='{"road": "two-stage"}'),
            _row("effect", "reasoning", "log(n_examples)", ends, factors='{"labels": "drawn"}'),
        ]
    )
    (line,) = cohort_sentences(table)
    assert line.startswith("Lora instead of full: −4 points [−7, −1] in knowledge (")
    assert "format" not in line
    assert "reasoning" not in line


def test_an_open_ratio_is_told_by_its_lower_end_and_the_highest_target_that_can_be_told_is_taken():
    def ratio(contrast, ends, recipe, status):
        made = json.dumps({"adaptation": recipe})
        return _row("relative_data_cost", "reasoning / knowledge", contrast, ends, factors=made, status=status)

    table = pd.DataFrame(
        [
            ratio("50 % retention", (2.0, 1.2, 3.3), "full", "ok"),
            ratio("90 % retention", (np.nan, np.nan, np.nan), "full", "refused"),
        ]
    )
    assert cohort_sentences(table) == [
        "Reasoning costs 2.0 times [1.20, 3.3] (full) the examples that knowledge costs, for 50 % retention."
    ]
    higher = pd.DataFrame(
        [
            ratio("90 % retention", (np.nan, 7.5, np.nan), "lora", "open"),
            ratio("90 % retention", (np.nan, 0.0, np.nan), "full", "open"),
        ]
    )
    assert cohort_sentences(pd.concat([table, higher])) == [
        "Reasoning costs at least 7.5 times (lora) the examples that knowledge costs, for 90 % retention."
    ]


def test_a_recipe_may_be_called_like_a_road():
    made = json.dumps({"adaptation": "by"})
    table = pd.DataFrame([_row("relative_data_cost", "r", "50 % retention", (2.0, 1.2, 3.3), factors=made)])
    assert "(by)" in cohort_sentences(table)[0]


def test_a_hostile_recipe_breaks_no_line():
    table = pd.DataFrame([_row("effect", "knowledge", "adaptation[a\n\x1b[31mb - full]", (0.1, 0.0, 0.2))])
    (line,) = cohort_sentences(table)
    assert "\n" not in line
    assert "\x1b" not in line


def test_the_cohorts_lines_come_first_and_every_student_keeps_its_own():
    _, _, roles = cohort()
    lines = sentence(analysed(), roles).splitlines()
    assert lines[0].startswith("Twice the examples: ")
    assert "lora instead of full: " in lines[0]
    assert lines[1].startswith("Reasoning costs ")
    assert len(lines) == 2 + len(roles.students)


def test_two_students_are_no_cohort():
    from capgap.analysis import estimate_table

    assert cohort_sentences(estimate_table(worlds.outcomes(n_items=30), worlds.ROLES)) == []

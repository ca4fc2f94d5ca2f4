"""The mixed model over a cohort, against a world whose law is known."""

import json

import numpy as np
import pandas as pd
import pytest

from capgap.analysis import estimate_table
from capgap.schema.remarks import Reason
from tests.analysis.cohorts import analysed, cohort, factors, rows

LAWS = {  # term of the mixed model → its coefficient in the world of `cohort`
    "capability[reasoning - knowledge]:log(n_examples)": -0.3 / np.log(2),
    "capability[reasoning - knowledge]:adaptation[lora - full]": -0.6,
    "log(n_examples)": 0.35 / np.log(2),
    "adaptation[lora - full]": -0.3,
}


@pytest.mark.parametrize("term", LAWS)
def test_the_mixed_model_finds_how_the_students_were_made(term):
    (row,) = rows("coefficient", term=term).to_dict("records")
    assert row["conf_low"] < LAWS[term] < row["conf_high"]
    assert row["conf_high"] - row["conf_low"] < 0.6
    assert row["n_students"] == 36
    assert row["subject"] == "cohort"
    assert pd.isna(row["model"])


def test_a_difference_of_capabilities_stands_with_alternative_estimators():
    several = rows("effect_difference", group="reasoning - knowledge", factor="n_examples").set_index("estimator")
    main = several.loc["mixed_model"]
    assert main["conf_high"] < 0
    assert "agree" in main["note"]
    assert set(several.index) == {"mixed_model", "two_stage", "student_jackknife", "task_jackknife"}
    population = several[["population_students", "population_tasks"]].apply(tuple, axis=1).to_dict()
    assert population == {
        "mixed_model": ("these_recipes", "tasks_like_these"),
        "two_stage": ("these_recipes", "these_tasks"),
        "student_jackknife": ("these_recipes", "these_tasks"),
        "task_jackknife": ("these_checkpoints", "tasks_like_these"),
    }


def test_an_effect_names_its_factor_by_codes():
    effects = rows("effect", group="knowledge")
    assert [json.loads(text) for text in effects["factors"]] == [
        {"factor": "n_examples", "transform": "log"},
        {"factor": "adaptation", "level": "lora", "reference": "full"},
        {"factor": "format", "level": "generate", "reference": "choose"},
    ]


def test_a_link_with_chance_is_a_further_estimator_where_items_can_be_guessed():
    outcomes, models, roles = cohort(sizes=(125, 1000), seeds=2, n_tasks=6, n_items=20, depth=False)
    outcomes["chance"] = np.where(outcomes["capability"] == "reasoning", 0.25, 0.0)
    rng = np.random.default_rng(1)
    outcomes["score"] = np.maximum(outcomes["score"], rng.random(len(outcomes)) < outcomes["chance"])
    estimates = estimate_table(outcomes, roles, models=models)
    linked = estimates[estimates["estimator"] == "link_with_chance"]
    assert {"n_examples", "adaptation"} <= set(factors(linked)["factor"])
    assert (linked["status"] == "ok").all()
    logits = rows("coefficient", estimates, status="ok")
    assert (logits["reason"] == Reason.GUESSES_COUNT_AS_ABILITY).all()


def test_a_student_without_an_example_or_of_unknown_making_stops_nothing_and_is_named():
    outcomes, models, roles = cohort(sizes=(125, 500, 2000), seeds=2, n_tasks=3, n_items=15)
    some = models["model"].isin(["full-125-0", "lora-500-1"])
    zero = models.assign(n_examples=models["n_examples"].where(~some, 0))
    estimates = estimate_table(outcomes, roles, models=zero)
    effects = rows("effect", estimates)
    assert "n_examples" in set(factors(effects)["factor"])
    assert (effects["n_students"] == 10).all()
    assert effects["reason"].iloc[0] == Reason.NO_LOGARITHM
    assert "full-125-0, lora-500-1" in effects["note"].iloc[0]
    assert len(rows("gap", estimates, model="full-125-0"))
    unknown = models.assign(n_examples=models["n_examples"].mask(some))
    effects = rows("effect", estimate_table(outcomes, roles, models=unknown))
    assert "n_examples" not in set(factors(effects)["factor"])
    assert effects["reason"].iloc[0] == Reason.FACTOR_UNKNOWN
    assert "unknown of full-125-0, lora-500-1" in effects["note"].iloc[0]


def test_students_of_unknown_making_give_no_number_about_their_making():
    outcomes, _, roles = cohort(sizes=(125, 1000), seeds=3, n_tasks=2, n_items=10)
    about = {"effect", "effect_difference", "coefficient", "data_cost", "curve", "n_patterns", "pattern"}
    assert not about & set(estimate_table(outcomes, roles)["quantity"])


def test_a_cohort_without_reasoning_has_no_effects():
    outcomes, models, roles = cohort(sizes=(125, 1000), seeds=3, n_tasks=2, n_items=10)
    outcomes = outcomes[outcomes["capability"] == "knowledge"]
    (row,) = rows("effect", estimate_table(outcomes, roles, models=models)).to_dict("records")
    assert (row["status"], row["reason"]) == ("refused", Reason.NO_COMPARABLE_ITEMS)


def test_every_effect_of_a_factor_that_stands_for_another_too_says_so():
    outcomes, models, roles = cohort(sizes=(125, 250, 500), seeds=2, n_tasks=2, n_items=25)
    models["n_params"] = np.where(models["adaptation"] == "lora", 2000, 1000)
    estimates = estimate_table(outcomes, roles, models=models)
    for quantity in ("effect", "effect_difference"):
        aliased = rows(quantity, estimates, factor="n_params", estimator="mixed_model")
        assert len(aliased)
        assert (aliased["reason"] == Reason.STANDS_FOR).all()


def test_all_numbers_about_the_cohort_have_no_model():
    cohort_rows = analysed()[analysed()["subject"] == "cohort"]
    assert set(cohort_rows["quantity"]) == {
        *("effect", "effect_difference", "coefficient", "spread", "n_patterns", "pattern", "pattern_excess"),
        "seed_signal",
    }
    assert pd.isna(cohort_rows["model"]).all()

"""What is true of a recipe, whichever seed."""

import pytest

from capgap.analysis import estimate_table
from capgap.schema.remarks import Reason
from capgap.stats import holm
from tests.analysis.cohorts import cohort, rows

_FULL_125 = {"subject": "recipe", "level": "battery", "adaptation": "full", "n_examples": "125"}


def test_three_seeds_speak_of_the_recipe():
    gaps = rows("gap", subject="recipe", level="battery", weighting="tasks")
    assert len(gaps) == 12  # six sizes, two adaptations
    assert (gaps["n_seeds"] == 3).all()
    assert (gaps["population_students"] == "this_recipe").all()
    assert gaps["model"].isna().all()
    checkpoints = rows("gap", subject="model", level="battery", weighting="tasks", population_tasks="these_tasks")
    seeds = checkpoints[checkpoints["model"].str.startswith("full-125-")]
    (same,) = rows("gap", **_FULL_125, weighting="tasks").to_dict("records")
    assert same["estimate"] == pytest.approx(seeds["estimate"].mean())


def test_closure_and_retention_of_a_recipe_are_those_of_its_mean_score():
    outcomes, _, _ = cohort()
    accuracy = outcomes.groupby(["model", "task"])["score"].mean().groupby("model").mean()
    recipe = accuracy[[f"full-125-{seed}" for seed in range(3)]].mean()
    (closure,) = rows("gap_closure", **_FULL_125, weighting="tasks").to_dict("records")
    assert closure["estimate"] == pytest.approx(
        (recipe - accuracy["base"]) / (accuracy["teacher"] - accuracy["base"]), abs=1e-12
    )
    (retention,) = rows("retention", **_FULL_125, weighting="tasks").to_dict("records")
    assert retention["estimate"] == pytest.approx(recipe / accuracy["teacher"], abs=1e-12)


def test_recipes_have_numbers_at_every_level_and_both_weightings_above_tasks():
    found = rows("gain", subject="recipe", n_examples="125", adaptation="full")
    assert set(found["level"]) == {"battery", "capability", "task", "slice"}
    above = found[found["level"].isin(["battery", "capability"])]
    assert above.groupby(["level", "group"])["weighting"].nunique().eq(2).all()
    assert set(found[found["level"] == "task"]["weighting"]) == {"items"}


def test_what_is_lost_is_held_against_what_seeds_lose_against_each_other():
    of_checkpoint = rows("lost", level="battery", model="full-125-0", weighting="items").iloc[0]
    beyond = rows("lost", subject="recipe", level="battery")
    assert len(beyond) == 12
    assert (beyond["estimate"] < of_checkpoint["estimate"]).all()
    assert not len(rows("items_lost"))  # three seeds make no list


@pytest.mark.parametrize(
    ("seeds", "reason"),
    [
        ({"seed": None, "data_seed": None}, Reason.SEEDS_UNKNOWN),
        ({"seed": 0, "data_seed": 0}, Reason.SEEDS_SHARED),
    ],
)
def test_students_that_are_not_known_to_differ_in_their_seeds_do_not_speak_of_a_recipe(seeds, reason):
    outcomes, models, roles = cohort(sizes=(1000,), seeds=5, adaptations=("full",), n_items=10)
    estimates = estimate_table(outcomes, roles, models=models.assign(**seeds))
    (row,) = estimates[estimates["subject"] == "recipe"].to_dict("records")
    assert (row["status"], row["reason"]) == ("refused", reason)
    assert row["n_items"] == 120


@pytest.mark.parametrize("column", ["step", "recipe"])
def test_checkpoints_of_one_run_or_of_several_recipes_are_no_seeds(column):
    outcomes, models, roles = cohort(sizes=(1000,), seeds=3, adaptations=("full",), n_items=10)
    apart = {"step": [100, 200, 300], "recipe": ["a", "b", "c"]}[column]
    models = models.assign(**{column: apart + [apart[0]] * (len(models) - 3)})
    assert "recipe" not in set(estimate_table(outcomes, roles, models=models)["subject"])


def test_five_seeds_make_a_list_of_items():
    outcomes, models, roles = cohort(sizes=(1000,), seeds=5, adaptations=("full",), n_items=30)
    listed = rows("items_gained", estimate_table(outcomes, roles, models=models)).set_index("group")
    assert set(listed.index) == {"world", "knowledge", "reasoning"}
    assert set(listed["population_items"]) == {"these_items"}
    assert listed.loc["world", "estimate"] > 0
    assert "/" in listed.loc["world", "note"], "items are named by task and item"


def test_several_recipes_asked_one_question_are_a_family():
    gaps = rows("gap", subject="recipe", level="battery", weighting="tasks")
    (family,) = set(gaps["family"])
    assert family.split("|")[:5] == ["holm", "gap", "battery", "world", "recipe"]
    assert family.endswith("|12")
    assert gaps["p_adjusted"].to_numpy() == pytest.approx(holm(gaps["p_value"]))
    assert rows("data_cost")["family"].isna().all()

"""What is true of a recipe, whichever seed."""

import pandas as pd
import pytest

from capgap.analysis import estimate_table
from capgap.analysis.cohort import cohort_of
from capgap.stats import holm
from tests.analysis.cohorts import analysed, cohort, rows


def test_three_seeds_speak_of_the_recipe():
    found = rows("gap", population="this recipe, these tasks", level="battery")
    assert len(found) == 12  # six sizes, two adaptations
    assert (found["n_seeds"] == 3).all()
    assert found["model"].isna().all()
    checkpoint = analysed()
    one = checkpoint[
        (checkpoint["quantity"] == "gap")
        & (checkpoint["level"] == "battery")
        & (checkpoint["weighting"] == "tasks")
        & (checkpoint["population"] == "these checkpoints, these tasks")
        & checkpoint["model"].str.startswith("full-125-").fillna(False)
    ]
    same = found[found["factors"] == '{"adaptation": "full", "n_examples": "125"}'].iloc[0]
    assert same["estimate"] == pytest.approx(one["estimate"].mean())


def test_what_is_lost_is_held_against_what_seeds_lose_against_each_other():
    own = rows("lost", level="battery", model="full-125-0", weighting="items").iloc[0]
    assert "one training seed: counts for this checkpoint" in own["note"]
    beyond = rows("lost", population="this recipe, these tasks", level="battery")
    assert len(beyond) == 12
    assert (beyond["estimate"] < own["estimate"]).all()
    assert beyond["note"].str.contains("two seeds differ by").all()
    assert not len(rows("items_lost"))  # three seeds make no list


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"seed": None, "data_seed": None}, "names no seed of each"),
        ({"seed": 0, "data_seed": 0}, "two of them have one seed"),
    ],
)
def test_students_that_are_not_known_to_differ_in_their_seeds_do_not_speak_of_a_recipe(told, why):
    outcomes, models, roles = cohort(sizes=(1000,), seeds=5, adaptations=("full",), n_items=10)
    found = estimate_table(outcomes, roles, models=models.assign(**told))
    of_recipe = found[found["population"] == "this recipe, these tasks"]
    (row,) = of_recipe.to_dict("records")
    assert row["status"] == "refused"
    assert why in row["note"]
    assert row["n_items"] == 120


@pytest.mark.parametrize("column", ["step", "recipe"])
def test_checkpoints_of_one_run_or_of_several_recipes_are_no_seeds(column):
    outcomes, models, roles = cohort(sizes=(1000,), seeds=3, adaptations=("full",), n_items=10)
    apart = {"step": [100, 200, 300], "recipe": ["a", "b", "c"]}[column]
    found = estimate_table(outcomes, roles, models=models.assign(**{column: apart + [apart[0]] * (len(models) - 3)}))
    assert not len(found[found["population"] == "this recipe, these tasks"])


def test_five_seeds_make_a_list_of_items():
    outcomes, models, roles = cohort(sizes=(1000,), seeds=5, adaptations=("full",), n_items=30)
    found = estimate_table(outcomes, roles, models=models)
    listed = found[found["quantity"] == "items_gained"]
    assert set(listed["group"]) == {"world", "knowledge", "reasoning"}
    whole = listed[listed["group"] == "world"].iloc[0]
    assert whole["estimate"] > 0
    assert "items: " in whole["note"]


def test_of_a_run_the_last_checkpoint_counts_and_the_others_are_told():
    columns = {"seed": [0, 1, 2, 2], "n_examples": [100] * 4, "step": [300, 300, 100, 300]}
    found = cohort_of(pd.DataFrame({"model": list("abcd"), **columns}), list("abcd"))
    assert found.students == ("a", "b", "d")
    assert "1 earlier left out" in found.note


def test_several_recipes_asked_one_question_are_a_family():
    gaps = rows("gap", population="this recipe, these tasks", level="battery")
    assert len(gaps) == 12
    assert set(gaps["family"]) == {"gap (teacher - student) in world: 12 recipes"}
    assert gaps["p_adjusted"].to_numpy() == pytest.approx(holm(gaps["p_value"]))
    assert rows("data_cost")["family"].isna().all()

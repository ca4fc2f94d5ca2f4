"""What is true of a recipe, whichever seed."""

import numpy as np
import pandas as pd
import pytest

from capgap import schema
from capgap.analysis import estimate_table, flipped_items
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


def test_five_seeds_answer_whether_there_is_a_list_and_a_gain_in_level_alone_makes_none():
    # Every item became easier: another base of this accuracy would have other items among the gained.
    outcomes, models, roles = cohort(sizes=(1000,), seeds=5, adaptations=("full",), n_items=30)
    answers = rows("items_gained", estimate_table(outcomes, roles, models=models)).set_index("group")
    assert set(answers.index) == {"world", "knowledge", "reasoning"}
    assert set(answers["population_items"]) == {"these_items"}
    assert (answers.loc["world", "status"], answers.loc["world", "reason"]) == ("refused", Reason.LIST_OF_CHANCE)


def test_several_recipes_asked_one_question_are_a_family():
    gaps = rows("gap", subject="recipe", level="battery", weighting="tasks")
    (family,) = set(gaps["family"])
    assert family.split("|")[:5] == ["holm", "gap", "battery", "world", "recipe"]
    assert family.endswith("|12")
    assert gaps["p_adjusted"].to_numpy() == pytest.approx(holm(gaps["p_value"]))
    assert rows("data_cost")["family"].isna().all()


def _one_recipe(right_of_seeds, right_of_base):
    """Five seeds and a base on one task; rows are seeds, columns items."""
    answers = {f"s{seed}": row for seed, row in enumerate(right_of_seeds)} | {"base": right_of_base}
    outcomes = pd.concat(
        pd.DataFrame({"model": name, "task": "t", "item": [f"i{n}" for n in range(len(row))], "score": row * 1.0})
        for name, row in answers.items()
    )
    students = tuple(name for name in answers if name != "base")
    models = pd.DataFrame({"model": students, "recipe": "r", "seed": range(len(students))})
    return estimate_table(outcomes, schema.Roles(students, base=dict.fromkeys(students, "base")), models=models)


def test_a_list_holds_all_items_in_order_and_says_what_a_seed_in_the_bases_place_would_lose():
    rng = np.random.default_rng(0)
    lost = np.arange(200) < 40
    estimates = _one_recipe((rng.random((5, 200)) < np.where(lost, 0.01, 0.995)), np.ones(200, dtype=bool))
    (row,) = rows("items_lost", estimates, level="battery").to_dict("records")
    assert row["status"] == "ok"
    table = flipped_items(estimates)
    battery = table[(table["level"] == "battery") & (table["direction"] == "lost")]
    assert len(battery) == row["estimate"] > 30  # more than a note names
    assert list(battery["rank"]) == list(range(1, len(battery) + 1))
    assert set(battery["item"]) <= {f"t/i{n}" for n in range(40)}
    assert set(battery["recipe"]) == {"r"}


def test_a_list_that_another_seed_in_the_bases_place_would_have_too_is_refused():
    # Items that every student gets right a quarter of the time: that the base did so too is its luck.
    rng = np.random.default_rng(1)
    p = np.repeat([0.25, 0.99], 400)
    estimates = _one_recipe(rng.random((5, 800)) < p, rng.random(800) < p)
    (row,) = rows("items_lost", estimates, level="battery").to_dict("records")
    assert (row["status"], row["reason"]) == ("refused", Reason.LIST_OF_CHANCE) or row["estimate"] == 0
    (excess,) = rows("lost", estimates, subject="recipe", level="battery").to_dict("records")
    assert excess["conf_low"] < 0 < excess["conf_high"]

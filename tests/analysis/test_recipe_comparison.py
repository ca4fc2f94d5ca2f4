"""Recipes against each other, and the sentence that speaks of them."""

import json
from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from capgap import schema
from capgap.analysis import estimate_table, sentence
from capgap.analysis.recipe_headline import MOST_CHARACTERS, recipe_sentences, student_sentences
from capgap.schema.remarks import Reason
from capgap.stats import MIN_SEEDS


def world(effects, *, seeds=3, n_items=60, n_tasks=4, named=True, prefix="", seed=0):
    """Recipes A, B, C … that are better in reasoning by these logits, in `n_tasks` tasks of both capabilities."""
    rng = np.random.default_rng(seed)
    ease = rng.normal(0, 1, (n_tasks, n_items))
    tables, models = [], []
    for recipe, effect in enumerate(effects):
        name = f"{prefix}{chr(65 + recipe)}"
        for s in range(seeds):
            models.append({"model": f"{name}-{s}", "seed": s} | ({"recipe": name} if named else {"lr": 0.1 * recipe}))
            for task in range(n_tasks):
                logit = ease[task] + effect * (task % 2) + rng.normal(0, 0.1)
                tables.append(
                    pd.DataFrame(
                        {
                            "model": f"{name}-{s}",
                            "task": f"task{task}",
                            "capability": ("knowledge", "reasoning")[task % 2],
                            "item": [str(i) for i in range(n_items)],
                            "score": (rng.random(n_items) < expit(logit)).astype(float),
                        }
                    )
                )
    return pd.concat(tables, ignore_index=True), pd.DataFrame(models), schema.Roles(tuple(m["model"] for m in models))


def analysed(effects, **options):
    outcomes, models, roles = world(effects, **options)
    return estimate_table(outcomes, roles, models=models), roles


@cache
def three_recipes():
    return analysed((0.0, 0.0, 2.0))


def contrasts(estimates, quantity="recipe_contrast", **where):
    table = estimates[estimates["quantity"] == quantity]
    for name, value in where.items():
        table = table[table[name] == value]
    return table


def test_a_contrast_is_the_difference_of_seed_means_with_tasks_or_items_weighing_alike():
    outcomes, _, _ = world((0.0, 0.0, 2.0))
    estimates, _ = three_recipes()
    outcomes["recipe"] = outcomes["model"].str[0]
    (row,) = contrasts(estimates, level="battery", weighting="tasks", contrast="A - C").to_dict("records")
    by_task = outcomes.groupby(["recipe", "task"])["score"].mean().groupby("recipe").mean()
    assert row["estimate"] == pytest.approx(by_task["A"] - by_task["C"])
    assert (row["subject"], row["population_students"], row["n_seeds"]) == ("recipe_contrast", "these_recipes", 6)
    noise = json.loads(row["factors"])
    assert row["std_error"] ** 2 >= noise["std_error_items"] ** 2 - 1e-12
    assert noise["n_comparisons"] == 3


def test_over_repeats_the_luck_of_single_answers_stands_beside_seeds_and_items():
    outcomes, models, roles = world((0.0, 1.0), n_items=40)
    again, _, _ = world((0.0, 1.0), n_items=40, seed=1)
    estimates = estimate_table(pd.concat([outcomes, again.assign(repeat=1)]), roles, models=models)
    (row,) = contrasts(estimates, level="battery", weighting="tasks").to_dict("records")
    noise = json.loads(row["factors"])
    assert 0 < noise["std_error_answers"] < 1.5 * noise["std_error_items"]
    assert "std_error_answers" not in contrasts(three_recipes()[0])["factors"].iloc[0]


def test_planned_levels_pay_for_all_pairs_and_finer_ones_are_exploratory():
    estimates, _ = three_recipes()
    capability = contrasts(estimates, level="capability", weighting="tasks")
    assert len(capability) == 6
    assert {json.loads(text)["n_comparisons"] for text in capability["factors"]} == {6}
    assert not capability["note"].str.contains("exploratory").any()
    finer = contrasts(estimates, level="task")
    assert set(finer["reason"]) == {Reason.EXPLORATORY}
    assert len(finer) == 8  # four tasks, the best against both others
    assert finer["contrast"].str.startswith("C - ").all()
    assert capability["p_adjusted"].ge(capability["p_value"]).all()


def test_a_task_of_no_difference_is_told_and_one_of_a_difference_is_not():
    signal = contrasts(three_recipes()[0], "seed_signal", level="capability").set_index("group")
    assert signal.loc["knowledge", "reason"] == Reason.NO_SIGNAL
    assert pd.isna(signal.loc["reasoning", "reason"])
    assert set(signal["population_items"]) == {"these_items"}


def test_the_first_sentence_speaks_of_the_recipe_that_is_ahead_by_its_simultaneous_interval():
    estimates, roles = three_recipes()
    first, *others = sentence(estimates, roles).splitlines()
    row = contrasts(estimates, level="battery", weighting="tasks")
    nearest = row[row["contrast"].isin(["A - C", "B - C"])].sort_values("estimate").iloc[-1]
    assert first.startswith(f"C is {-100 * nearest['estimate']:.0f} points [{-100 * nearest['conf_high']:.0f}, ")
    assert "equal" not in first
    assert len(first) <= MOST_CHARACTERS
    assert len(others) == 1  # nine students stand in tables


def test_what_cannot_be_told_apart_is_never_called_equal():
    estimates, _ = analysed((0.0, 0.0), seed=3)
    (text,) = recipe_sentences(estimates)
    assert "can't be told apart" in text
    assert "equal" not in text
    assert "equivalent" not in text
    assert "equivalence" not in set(estimates["quantity"])


def test_above_twelve_recipes_each_meets_the_best_and_pays_for_all_pairs():
    estimates, roles = analysed(np.linspace(0, 2, 14), n_items=20, n_tasks=2)
    battery = contrasts(estimates, level="battery", weighting="tasks")
    assert len(battery) == 13
    assert {json.loads(text)["n_comparisons"] for text in battery["factors"]} == {14 * 13 // 2}
    assert len(sentence(estimates, roles).splitlines()[0]) <= MOST_CHARACTERS


def test_recipes_without_a_name_are_known_by_what_differs_but_their_seeds():
    estimates, _ = analysed((0.0, 1.0), named=False)
    assert set(contrasts(estimates, level="battery")["contrast"]) == {"learning rate 0.0 - learning rate 0.1"}


def test_students_of_fewer_seeds_are_compared_one_by_one_and_exploratory():
    estimates, roles = analysed((0.0, 2.0), seeds=MIN_SEEDS - 1)
    assert not len(contrasts(estimates))
    pairs = contrasts(estimates, "student_contrast")
    assert set(pairs["subject"]) == {"model_contrast"}
    assert set(pairs["reason"]) == {Reason.EXPLORATORY}
    assert len(contrasts(pairs, "student_contrast", level="battery", weighting="tasks")) == 6
    assert len(sentence(estimates, roles).splitlines()) == len(roles.students)
    (text,) = student_sentences(estimates)
    assert "exploratory" in text


def test_long_and_hostile_names_stay_on_one_line_within_the_limit():
    estimates, roles = analysed((0.0, 2.0, 2.1, 2.2), n_items=30, prefix="a\n\x1b[31m" + 90 * "x")
    first = sentence(estimates, roles).splitlines()[0]
    assert len(first) <= MOST_CHARACTERS
    assert "\x1b" not in first


def test_students_that_are_taken_away_change_nothing_that_is_said_of_another():
    outcomes, models, roles = world((0.0, 1.0, 2.0), n_items=30)
    fewer = schema.Roles(roles.students[:6])
    everybody, some = (estimate_table(outcomes, r, models=models) for r in (roles, fewer))
    cohort_subjects = ["recipe_contrast", "model_contrast", "cohort"]
    for table in (everybody, some):
        table.drop(table[table["subject"].isin(cohort_subjects)].index, inplace=True)
    key = ["quantity", "level", "group", "model", "weighting", "population_tasks"]
    both = some.merge(everybody, on=key, suffixes=("", "_all"))
    assert len(both) == len(some)
    assert both["conf_low"].to_numpy() == pytest.approx(both["conf_low_all"].to_numpy(), nan_ok=True)

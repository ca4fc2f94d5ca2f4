"""What several students say together, against worlds whose law is known."""

import json

import numpy as np
import pandas as pd
import pytest

from capgap import schema
from capgap.analysis import estimate_table
from capgap.analysis.cohort import Recipe, cohort_of
from capgap.analysis.data_efficiency import _RecipeCurve, _relative
from capgap.stats.curves import curve_data, fit_curves
from tests.analysis import worlds
from tests.analysis.cohorts import cohort, rows


def single(quantity, **where):
    found = rows(quantity, **where)
    assert len(found) == 1, found[["group", "contrast", "factors"]]
    return found.iloc[0]


@pytest.mark.parametrize(
    ("contrast", "truth"),
    [
        ("capability[reasoning - knowledge]:log(n_examples)", -0.3 / np.log(2)),
        ("capability[reasoning - knowledge]:adaptation[lora - full]", -0.6),
        ("log(n_examples)", 0.35 / np.log(2)),
        ("adaptation[lora - full]", -0.3),
    ],
)
def test_the_mixed_model_finds_how_the_students_were_made(contrast, truth):
    row = single("coefficient", contrast=contrast)
    assert row["conf_low"] < truth < row["conf_high"]
    assert row["conf_high"] - row["conf_low"] < 0.6
    assert row["n_students"] == 36
    assert pd.isna(row["model"])


def test_a_difference_of_capabilities_is_told_in_points_with_the_verdict_of_several_roads():
    row = single(
        "effect_difference", contrast="log(n_examples)", group="reasoning - knowledge", factors=None, scale="score"
    )
    assert row["conf_high"] < 0
    assert "several roads: agree" in row["note"]
    roads = {json.loads(told)["road"] for told in rows("effect_difference")["factors"].dropna()}
    assert roads == {"two-stage", "student jackknife", "task jackknife"}
    assert row["population"].endswith("tasks like these")


def test_a_link_with_chance_is_a_further_road_where_items_can_be_guessed():
    outcomes, models, roles = cohort(sizes=(125, 1000), seeds=2, n_tasks=6, n_items=20, depth=False)
    outcomes["chance"] = np.where(outcomes["capability"] == "reasoning", 0.25, 0.0)
    rng = np.random.default_rng(1)
    outcomes["score"] = np.maximum(outcomes["score"], rng.random(len(outcomes)) < outcomes["chance"])
    found = estimate_table(outcomes, roles, models=models)
    roads = found[found["factors"].fillna("").str.contains("link with chance")]
    assert set(roads["contrast"]) >= {"log(n_examples)", "adaptation[lora - full]"}
    assert (roads["status"] == "ok").all()
    assert roads["method"].str.contains("link with chance").all()
    logits = found[(found["quantity"] == "coefficient") & (found["status"] == "ok")]
    assert logits["note"].str.contains("guesses").all()


def test_data_cost_is_priced_for_each_recipe_and_capability_with_open_ends_as_open():
    cost = rows("data_cost", contrast="50 % retention")
    plain = cost[~cost["factors"].str.contains('"by"')]
    assert sorted(zip(plain["group"], plain["factors"], strict=True)) == [
        (capability, f'{{"adaptation": "{adaptation}"}}')
        for capability in ("knowledge", "reasoning")
        for adaptation in ("full", "lora")
    ]
    # the base is at .2, the teacher near .85: knowledge passes the middle between 125 and 500 of its examples
    known = plain[(plain["group"] == "knowledge") & plain["factors"].str.contains("full")].iloc[0]
    assert 60 < known["conf_low"] < known["estimate"] < known["conf_high"] < 1000
    open_ended = rows("data_cost", contrast="90 % retention")
    told = open_ended[open_ended["status"] == "open"]
    assert len(told)
    assert told[["conf_low", "conf_high"]].isna().any(axis=1).all() or (told["conf_low"] == 0).any()
    assert "never reached" in " ".join(told["note"])


def test_the_curve_passes_through_its_points():
    points = rows("curve_point", group="knowledge")
    assert set(points["model"]) >= {"base", "full-125-0", "lora-4000-2"}
    curve = rows("curve", group="knowledge")
    curve = curve[curve["factors"].str.contains('"full"')]
    sizes = np.array([float(json.loads(told)["n_examples"]) for told in curve["factors"]])
    full = points[points["factors"].str.contains('"full"')]
    at = np.array([float(json.loads(told)["n_examples"]) for told in full["factors"]])
    order = np.argsort(sizes)
    fitted = np.interp(at, sizes[order], curve["estimate"].to_numpy()[order])
    assert np.abs(fitted - full["estimate"]).mean() < 0.05


def test_a_student_without_an_example_or_of_unknown_making_stops_nothing_and_is_told():
    outcomes, models, roles = cohort(sizes=(125, 500, 2000), seeds=2, n_tasks=3, n_items=15)
    zero = models["model"].isin(["full-125-0", "lora-500-1"])
    found = estimate_table(outcomes, roles, models=models.assign(n_examples=models["n_examples"].where(~zero, 0)))
    effects = found[found["quantity"] == "effect"]
    assert "log(n_examples)" in set(effects["contrast"])
    assert (effects["n_students"] == 10).all()
    assert "since zero has no logarithm: full-125-0, lora-500-1" in effects["note"].iloc[0]
    assert len(found[(found["quantity"] == "gap") & (found["model"] == "full-125-0")])
    found = estimate_table(outcomes, roles, models=models.assign(n_examples=models["n_examples"].mask(zero)))
    effects = found[found["quantity"] == "effect"]
    assert "log(n_examples)" not in set(effects["contrast"])
    assert "n_examples is no part of the model: unknown of full-125-0, lora-500-1" in effects["note"].iloc[0]


def test_patterns_are_the_capabilities_where_these_follow_laws_of_their_own():
    assert single("n_patterns")["estimate"] == 2
    labels = " ".join(rows("pattern")["contrast"])
    assert "capability = knowledge" in labels
    assert "capability = reasoning" in labels
    assert rows("pattern")["note"].str.contains("to read: ").all()


def test_students_of_unknown_making_give_no_number_about_their_making():
    outcomes, _, roles = cohort(sizes=(125, 1000), seeds=3, n_tasks=2, n_items=10)
    about = {"effect", "effect_difference", "coefficient", "data_cost", "curve", "n_patterns", "pattern"}
    assert not about & set(estimate_table(outcomes, roles)["quantity"])


def test_equivalence_is_shown_for_a_copy_and_not_for_a_student_far_behind():
    world = worlds.outcomes()
    teacher = world[world["model"] == "teacher"]
    world = pd.concat([world, teacher.assign(model="copy")], ignore_index=True)
    found = estimate_table(world, schema.Roles(("student", "copy"), "teacher"))
    told = found[(found["quantity"] == "equivalence") & (found["weighting"] == "tasks") & (found["level"] == "battery")]
    told = told[told["population"] == "these checkpoints, these tasks"].set_index("model")
    assert "more than 2 points short" in told.loc["student", "note"]
    assert told.loc["copy", "conf_level"] == pytest.approx(0.9)
    assert told.loc["student", "p_value"] > 0.9
    assert told.loc["copy", "p_value"] < told.loc["student", "p_value"]


def test_labels_in_doubt_widen_the_contrast_and_certain_ones_leave_it():
    world = worlds.outcomes().drop(columns="capability")
    items = world[["task", "item"]].drop_duplicates()
    reasons = items["task"].str.startswith("reasoning")

    def contrast(p):
        labels = items.assign(
            capability=np.where(reasons, "reasoning", "knowledge"),
            p_reasoning=np.where(reasons, p, 1 - p),
            source="text",
        )
        found = estimate_table(world, worlds.ROLES, labels=labels)
        found = found[(found["quantity"] == "capability_contrast") & (found["weighting"] == "tasks")]
        found = found[found["population"] == "these checkpoints, these tasks"]
        found = found[found["contrast"].str.startswith("gap")]
        return [found[found["factors"].str.contains("drawn") == drawn] for drawn in (True, False)]

    drawn, certain = contrast(1.0)
    assert not len(drawn)
    wide, narrow = contrast(0.9)[0].iloc[0], certain.iloc[0]
    assert wide["conf_high"] - wide["conf_low"] > narrow["conf_high"] - narrow["conf_low"]
    assert "labels make" in wide["note"]
    assert "20 draws" in wide["note"]


def test_what_made_students_better_is_fitted_anew_for_every_draw_of_the_labels():
    world, models, roles = cohort(seeds=1, n_tasks=6, n_items=20)
    items = world[["task", "item"]].drop_duplicates()
    reasons = items["task"].str.startswith("reasoning")
    world = world.drop(columns="capability")
    labels = items.assign(
        capability=np.where(reasons, "reasoning", "knowledge"),
        p_reasoning=np.where(reasons, 0.95, 0.02),
        source="text",
    )
    found = estimate_table(world, roles, models=models, labels=labels)
    drawn = found["factors"].fillna("").str.contains("drawn")
    effects = found[found["quantity"].isin(["effect", "effect_difference"])]
    again = effects[drawn[effects.index]]
    plain = effects[~effects["factors"].fillna("").str.contains("road") & ~drawn[effects.index]]
    pairs = [set(zip(rows["group"], rows["contrast"], strict=True)) for rows in (again, plain)]
    assert pairs[0] == pairs[1]
    assert len(pairs[0]) > 3
    assert again["note"].str.contains("20 draws of the labels").all()
    gaps = found[(found["quantity"] == "gap") & (found["level"] == "capability") & drawn]
    assert set(gaps["model"]) == set(roles.students)
    # Drawn rows ask again: they make no family, and no branch of the tree.
    assert found[drawn]["p_adjusted"].isna().all()
    families = found[found["quantity"] == "capability_contrast"]["family"].dropna()
    assert families.str.endswith(f"{len(roles.students)} students").all()


def test_types_of_wrong_answers_and_the_teachers_own_are_counted():
    world = worlds.outcomes()
    world["target"], world["response"] = "0", world["prediction"]
    generated = world["format"] == "generate"
    world.loc[generated & (world["prediction"] == "3"), ["prediction", "response"]] = [None, "no no no"]
    found = estimate_table(world, worlds.ROLES)
    types = found[(found["quantity"] == "error_type") & (found["model"] == "student")]
    shares = types.groupby("group")["estimate"].sum()
    assert np.allclose(shares, 1)
    assert {"unparsed", "teacher_answer"} <= set(types["contrast"])
    teachers = found[(found["quantity"] == "error_type") & (found["model"] == "teacher")]
    assert "teacher_answer" not in set(teachers["contrast"])


def test_right_steps_with_wrong_answers_and_wrong_steps_with_right_ones_are_told_apart():
    world = worlds.outcomes()
    world["target"] = "42"
    right = world["score"] == 1
    written = world["format"] == "generate"
    good, bad = "6 + 6 = 12. 12 + 8 = 20.", "6 + 6 = 13. 13 + 8 = 2."
    even = world["item"].astype(int) % 2 == 0
    student = world["model"] == "student"
    world["prediction"] = np.where(right, "42", "17")
    world["response"] = np.where(even, good, bad) + " The answer is " + world["prediction"] + "."
    world.loc[world["model"] == "other", "response"] = "The answer is 42."  # no trace, hence nothing to judge
    items = world[["battery", "task", "item"]].drop_duplicates().assign(prompt="?", rationale=f"{good} 20 + 22 = 42.")
    found = estimate_table(world, schema.Roles(("student", "other"), "teacher", {}, {}), items=items)
    types = found[(found["quantity"] == "error_type") & (found["group"] == "reasoning")].set_index("contrast")
    own = types[types["model"] == "student"]["estimate"]
    part = world[student & written & (world["capability"] == "reasoning")]
    of_right, of_wrong = part[part["score"] == 1], part[part["score"] == 0]
    teacher_right = world[(world["model"] == "teacher") & (world["score"] == 1)].set_index(["task", "item"]).index
    clean = of_wrong[of_wrong.set_index(["task", "item"]).index.isin(teacher_right)]
    assert own["wrong_steps_right_answer"] == pytest.approx((of_right["item"].astype(int) % 2).mean())
    n_wrong = (world[student & (world["capability"] == "reasoning")]["score"] == 0).sum()
    assert own["right_steps_wrong_answer"] == pytest.approx((clean["item"].astype(int) % 2 == 0).sum() / n_wrong)
    assert "wrong_steps_right_answer" not in set(types[types["model"] == "other"].index)


def test_a_covariate_that_goes_with_failure_has_its_odds_ratio():
    rng = np.random.default_rng(0)
    world = worlds.outcomes(n_items=150)
    depth = world["x_depth"].to_numpy()
    student = (world["model"] == "student").to_numpy()
    right = rng.random(len(world)) < 1 / (1 + np.exp(-(1.5 - 0.7 * depth)))
    world.loc[student, "score"] = right[student].astype(float)
    found = estimate_table(world, worlds.ROLES)
    row = found[(found["quantity"] == "failure_odds") & (found["contrast"] == "x_depth")].iloc[0]
    assert row["conf_low"] < np.exp(0.7) < row["conf_high"]
    assert row["conf_low"] > 1.3


def test_a_cohort_knows_what_varies_and_counts_examples_by_capability():
    _, models, roles = cohort(sizes=(100, 200), seeds=2, n_tasks=1, n_items=2)
    found = cohort_of(models, roles.students)
    assert found.varies("n_examples")
    assert found.varies("adaptation")
    assert not found.varies("supervision")
    assert not found.varies("n_params")  # nobody said
    assert found.size("full-200-1") == 200
    assert found.size("full-200-1", "reasoning") == 100
    assert [recipe.factors for recipe in found.recipes()] == [(("adaptation", "full"),), (("adaptation", "lora"),)]
    assert [len(recipe.students) for recipe in found.trainings()] == [2, 2, 2, 2]
    assert cohort_of(None, roles.students).students == ()


@pytest.mark.parametrize("told", ["[1]", "{", '{"knowledge": "many"}', None])
def test_examples_that_nobody_counted_by_capability_count_as_all(told):
    models = pd.DataFrame({"model": ["a"], "n_examples": [70], "n_examples_by_capability": [told]})
    assert cohort_of(models, ["a"]).size("a", "knowledge") == 70


def test_ten_thousand_tasks_of_one_item_are_one_number_a_capability():
    rng = np.random.default_rng(0)
    tasks = pd.DataFrame({"task": [f"t{n}" for n in range(2000)], "item": "0"})
    tasks["capability"] = np.where(np.arange(2000) % 2, "knowledge", "reasoning")
    answers = {"teacher": 0.8, "student": 0.5}
    world = pd.concat([tasks.assign(model=m, score=(rng.random(2000) < p).astype(float)) for m, p in answers.items()])
    found = estimate_table(world, schema.Roles(("student",), "teacher"))
    assert len(found) < 300
    gap = found[(found["quantity"] == "gap") & (found["level"] == "capability") & (found["weighting"] == "tasks")]
    assert set(gap["group"]) == {"knowledge", "reasoning"}
    assert np.allclose(gap["estimate"], 0.3, atol=0.06)


def test_a_relative_cost_of_what_is_never_reached_is_unknown_and_not_zero():
    rng = np.random.default_rng(1)
    sizes = np.repeat([0, 125, 250, 500, 1000, 2000, 4000], [1, 3, 3, 3, 3, 3, 3]).astype(float)

    def curve(name, ceiling, which):
        level = np.append(ceiling - (ceiling - 0.1) * np.exp(-sizes / 400), 0.9)
        right = (rng.random((len(level), 2000)) < level[:, None]).astype(float)
        data = curve_data(right[:-1], right[-1], sizes, chance=0.0, clusters=2 * np.arange(2000) + which)
        return _RecipeCurve(name, Recipe((), ()), (), frozenset({which}), fit_curves(data), ())

    knowledge, reasoning = curve("knowledge", 0.5, 0), curve("reasoning", 0.88, 1)
    for first, second in ((knowledge, reasoning), (reasoning, knowledge)):
        row = next(row for row in _relative(first, second) if row.contrast == "90 % retention")
        assert row.estimate.status == "open"
        assert np.isnan(row.estimate.estimate)
        assert "never" in row.estimate.note


def test_items_that_few_students_answered_speak_of_no_recipe_and_price_nothing():
    outcomes, models, roles = cohort(sizes=(125, 250, 500, 1000), seeds=3, adaptations=("full",), n_tasks=2, n_items=40)
    item = outcomes["item"].astype(int)
    of_one = outcomes["model"] == "full-125-0"
    some, few = outcomes[~of_one | (item < 32)], outcomes[~of_one | (item < 8)]
    for table, share, status in ((some, "80.0 %", "ok"), (few, "20.0 % (60 % are needed)", "refused")):
        found = estimate_table(table, roles, models=models)
        recipe = found[found["factors"].fillna("").str.contains('"125"') & found["model"].isna()]
        gaps = recipe[recipe["quantity"] == "gap"]
        assert set(gaps["status"]) == {status}
        assert gaps["note"].str.contains(share, regex=False).all()
        costs = found[found["quantity"] == "data_cost"]
        assert costs["note"].str.contains(share, regex=False).all()
        assert (set(costs["status"]) == {"refused"}) == (status == "refused")


def test_strays_are_no_tasks_of_a_recipe_or_a_curve():
    outcomes, models, roles = cohort(sizes=(125, 250, 500), seeds=3, adaptations=("full",), n_tasks=2, n_items=30)
    stray = (outcomes["capability"] == "knowledge") & (outcomes["item"] == "0")
    found = estimate_table(outcomes.assign(capability=outcomes["capability"].mask(stray, "reasoning")), roles, models=models)
    found = found[(found["level"] == "capability") & (found["group"] == "reasoning") & (found["weighting"] == "tasks")]
    for quantity in ("gap", "lost", "data_cost"):
        assert set(found.loc[found["quantity"] == quantity, "n_tasks"]) == {2}


def test_every_effect_of_a_factor_that_stands_for_another_too_says_so():
    outcomes, models, roles = cohort(sizes=(125, 250, 500), seeds=2, n_tasks=2, n_items=25)
    models["n_params"] = np.where(models["adaptation"] == "lora", 2000, 1000)
    found = estimate_table(outcomes, roles, models=models)
    for quantity in ("effect", "effect_difference"):
        told = found[(found["quantity"] == quantity) & (found["contrast"] == "log(n_params)") & found["factors"].isna()]
        assert len(told)
        assert told["note"].str.contains("stands for adaptation[lora - full] too", regex=False).all()

import itertools

import numpy as np
import pandas as pd
import pytest

from capgap import schema
from capgap.analyze import analyze
from capgap.analyze.prepare import binned
from tests.analyze.worlds import ROLES, one, outcomes, plain


def _slices(found, task):
    rows = found[(found["level"] == "slice") & (found["quantity"] == "accuracy") & (found["model"] == "student")]
    names = rows["group"][rows["group"].str.startswith(f"{task}: ")]
    return [name.removeprefix(f"{task}: ") for name in names]


def test_few_numbers_are_values_and_many_are_quarters():
    found = _slices(analyze(outcomes(lengths=True), ROLES), "knowledge0")
    assert [n for n in found if n.startswith("x_depth")] == ["x_depth=1", "x_depth=2", "x_depth=3"]
    quarters = [n for n in found if n.startswith("x_length")]
    assert len(quarters) == 4
    ends = [tuple(map(float, n.split("=")[1].split("–"))) for n in quarters]
    assert all(low <= high for low, high in ends)
    assert all(one[1] < two[0] for one, two in itertools.pairwise(ends))


def test_quarters_hold_a_quarter_each_and_do_not_move_with_the_models_asked():
    world = outcomes(n_items=100, lengths=True)
    few = binned(schema.validate(world[world["model"] == "student"], schema.OUTCOMES))
    every = binned(schema.validate(world, schema.OUTCOMES))
    counts = few[few["task"] == "knowledge0"]["x_length"].value_counts()
    assert counts.tolist() == pytest.approx([25] * 4, abs=1)
    student = every[every["model"] == "student"]
    assert student["x_length"].tolist() == few["x_length"].tolist()


def test_words_are_categories_and_rare_ones_stand_together():
    world = outcomes(n_tasks=1, n_items=100)
    world["x_topic"] = np.where(world["item"].astype(int) % 2 == 0, "even", "t" + world["item"])
    found = [n for n in _slices(analyze(world, ROLES), "knowledge0") if n.startswith("x_topic")]
    assert "x_topic=even" in found
    assert "x_topic=(all others)" in found
    assert len(found) == 20


def test_a_covariate_that_a_task_lacks_or_that_is_constant_makes_no_slice():
    world = outcomes(x_same=1)
    world.loc[world["task"] == "knowledge0", "x_depth"] = np.nan
    found = analyze(world, ROLES)
    assert not any(n.startswith(("x_depth", "x_same")) for n in _slices(found, "knowledge0"))
    assert any(n.startswith("x_depth") for n in _slices(found, "knowledge1"))


def test_what_a_student_saw_slices_its_own_numbers():
    world = outcomes()
    world["x_exposure"] = np.nan
    for model, seen in (("student", 0), ("other", 1)):
        mine = world["model"] == model
        world.loc[mine, "x_exposure"] = ((world["item"].astype(int) % 2) == seen).astype(float)[mine]
    roles = schema.Roles(("student", "other"), "teacher")
    found = analyze(world, roles)
    for model, seen in (("student", 0), ("other", 1)):
        wide = world[(world["task"] == "knowledge0") & (world["item"].astype(int) % 2 == seen)]
        means = wide.groupby("model")["score"].mean()
        row = one(found, quantity="gap", group="knowledge0: x_exposure=1", model=model)
        assert row["estimate"] == pytest.approx(means["teacher"] - means[model])


def test_a_task_name_in_two_batteries_is_qualified():
    found = analyze(pd.concat([outcomes(seed=1), outcomes(seed=2, battery="second")]), ROLES)
    assert {"world/knowledge0", "second/knowledge0"} <= set(found[found["level"] == "task"]["group"])
    assert one(found, quantity="gap", level="capability", group="knowledge")["n_tasks"] == 6
    assert set(found[found["quantity"] == "capability_contrast"]["group"]) == {"world", "second"}


def test_items_of_one_name_in_two_tasks_are_no_cluster_but_declared_clusters_span():
    found = plain()
    row = one(found, quantity="gap", level="battery")
    assert row["n_clusters"] == row["n_items"]
    world = outcomes()
    shared = analyze(world.assign(cluster="passage" + world["item"]), ROLES)
    assert one(shared, quantity="gap", level="battery")["n_clusters"] == world["item"].nunique()
    assert "dependent" in one(shared, contrast="closure: knowledge - reasoning")["method"]


def test_labels_fill_what_has_no_capability_and_nothing_else():
    world = outcomes()
    bare = world.assign(capability=world["capability"].where(world["task"] != "reasoning0"))
    labels = world[["task", "item"]].drop_duplicates().assign(capability="knowledge")
    found = analyze(bare, ROLES, labels=labels)
    assert one(found, quantity="gap", level="capability", group="knowledge")["n_tasks"] == 4
    assert one(found, quantity="gap", level="capability", group="reasoning")["n_tasks"] == 2


def test_a_task_may_hold_both_capabilities():
    world = outcomes(n_tasks=2)
    odd = world["item"].astype(int) % 2 == 1
    world["capability"] = np.where(odd, "knowledge", "reasoning")
    found = analyze(world, ROLES)
    wide = world.pivot_table("score", ["capability", "task"], "model")
    gap = (wide["teacher"] - wide["student"]).groupby("capability").mean()
    row = one(found, contrast="gap: reasoning - knowledge")
    assert row["estimate"] == pytest.approx(gap["reasoning"] - gap["knowledge"])
    assert row["n_tasks"] == 4

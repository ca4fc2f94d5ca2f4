"""Which cells make up a capability."""

import numpy as np
import pandas as pd

from capgap import schema
from capgap.analysis import estimate_table
from capgap.schema.remarks import Reason
from tests.analysis.worlds import ROLES, one, outcomes


def _with_strays(n):
    """A reasoning task of which `n` items are labelled knowledge."""
    world = outcomes(n_items=30)
    stray = world["task"].eq("reasoning0") & (world["item"].astype(int) < n)
    world.loc[stray, "capability"] = "knowledge"
    return world, stray


def test_a_few_items_of_another_kind_do_not_count_as_a_task():
    world, stray = _with_strays(4)
    estimates = estimate_table(world, ROLES)
    row = one(estimates, quantity="accuracy", level="capability", group="knowledge", model="student", weighting="tasks")
    mine = world[(world["model"] == "student") & ~stray & (world["capability"] == "knowledge")]
    assert np.isclose(row["estimate"], mine.groupby("task")["score"].mean().mean())
    assert row["n_tasks"] == 3
    contrast = estimates[(estimates["quantity"] == "capability_contrast") & (estimates["contrast"] == "gap")]
    assert (contrast["reason"] == Reason.STRAY_ITEMS).all()
    assert contrast["note"].str.contains("4 of knowledge").all()


def test_five_items_are_a_part_of_their_task():
    world, _ = _with_strays(5)
    row = one(estimate_table(world, ROLES), quantity="accuracy", level="capability", group="knowledge", model="student")
    assert row["n_tasks"] == 4


def test_a_small_task_of_one_kind_is_no_stray():
    world = outcomes(n_items=30)
    small = outcomes(n_tasks=1, n_items=3, seed=1)
    small = small[small["capability"] == "knowledge"].assign(task="tiny")
    row = one(
        estimate_table(pd.concat([world, small]), ROLES),
        quantity="accuracy",
        level="capability",
        group="knowledge",
        model="student",
    )
    assert row["n_tasks"] == 4


def test_ten_thousand_tasks_of_one_item_are_one_number_a_capability():
    rng = np.random.default_rng(0)
    tasks = pd.DataFrame({"task": [f"t{n}" for n in range(2000)], "item": "0"})
    tasks["capability"] = np.where(np.arange(2000) % 2, "knowledge", "reasoning")
    answers = {"teacher": 0.8, "student": 0.5}
    world = pd.concat([tasks.assign(model=m, score=(rng.random(2000) < p).astype(float)) for m, p in answers.items()])
    estimates = estimate_table(world, schema.Roles(("student",), "teacher"))
    assert len(estimates) < 300
    gap = estimates[(estimates["quantity"] == "gap") & (estimates["level"] == "capability")]
    gap = gap[gap["weighting"] == "tasks"]
    assert set(gap["group"]) == {"knowledge", "reasoning"}
    assert np.allclose(gap["estimate"], 0.3, atol=0.06)

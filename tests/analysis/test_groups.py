"""Which cells make up a capability."""

import numpy as np
import pandas as pd

from capgap.analysis import estimate_table
from tests.analysis.worlds import ROLES, one, outcomes


def _with_strays(n):
    """A reasoning task of which `n` items are labelled knowledge."""
    world = outcomes(n_items=30)
    stray = world["task"].eq("reasoning0") & (world["item"].astype(int) < n)
    world.loc[stray, "capability"] = "knowledge"
    return world, stray


def test_a_few_items_of_another_kind_do_not_count_as_a_task():
    world, stray = _with_strays(4)
    found = estimate_table(world, ROLES)
    row = one(found, quantity="accuracy", level="capability", group="knowledge", model="student", weighting="tasks")
    mine = world[(world["model"] == "student") & ~stray & (world["capability"] == "knowledge")]
    assert np.isclose(row["estimate"], mine.groupby("task")["score"].mean().mean())
    assert row["n_tasks"] == 3
    contrast = found[(found["quantity"] == "capability_contrast") & found["contrast"].str.startswith("gap")]
    assert contrast["note"].str.contains("left out as too few of their task: 4 of knowledge").all()


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

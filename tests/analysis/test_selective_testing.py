"""P-values down the tree of groups."""

import numpy as np
import pandas as pd
import pytest

from capgap.analysis import estimate_table
from capgap.stats import run_tree_test
from tests.analysis.worlds import ROLES, of_two_students, outcomes, plain


def _gaps(estimates, *, weighting=None):
    rows = estimates[
        (estimates["quantity"] == "gap")
        & (estimates["subject"] == "model")
        & (estimates["population_tasks"] == "these_tasks")
    ]
    return rows if weighting is None else rows[rows["weighting"] == weighting]


def test_the_tree_is_the_one_that_a_reader_climbs_down():
    rows = _gaps(plain())
    rows = rows[(rows["weighting"] == "tasks") | (rows["level"] == "task") | rows["group"].str.contains("x_")]
    names = list(zip(rows["level"], rows["group"], strict=True))

    def above(level, group):
        if level == "battery":
            return -1
        if level == "capability" or level == "domain":  # a domain of this world serves both capabilities
            return names.index(("battery", "world"))
        if level == "task":
            return names.index(("domain", f"domain{int(group[-1]) % 2}"))
        task = group.split(": ")[0]
        if "x_" in group:
            return names.index(("task", task))
        # Even tasks are chosen and even tasks are domain0: a format is a domain here, a capability's format as well.
        return names.index(("domain", "domain0" if "choose" in group else "domain1"))

    test = run_tree_test(rows["p_value"], [above(*name) for name in names], level=0.05)
    below = (rows["level"] != "battery").to_numpy()
    expected = np.where(np.isnan(test.p_adjusted), 1.0, test.p_adjusted)[below]
    assert rows["p_adjusted"][below].to_numpy() == pytest.approx(expected)
    assert rows["family"][below].nunique() == 1
    marked = rows["note"].fillna("").str.contains("selected down the tree").to_numpy()
    assert (marked == (test.is_selected & below)).all()


def test_nothing_counts_below_what_was_not_selected():
    world = outcomes(n_tasks=6, n_items=30, models=("teacher", "base", "control", "student"))
    teacher = world[world["model"] == "teacher"]
    student = teacher.assign(model="student")
    few = student["task"].eq("reasoning0") & (student["item"].astype(int) < 4)
    student.loc[few, "score"] = 0.0
    estimates = estimate_table(pd.concat([world[world["model"] != "student"], student]), ROLES)
    rows = _gaps(estimates, weighting="items")
    worst = rows[(rows["level"] == "task") & (rows["group"] == "reasoning0")].iloc[0]
    assert worst["estimate"] > 0
    assert worst["p_adjusted"] >= worst["p_value"]
    assert "selected" not in str(worst["note"])


def test_intervals_that_pay_for_selection_are_wider_and_only_of_the_same_kind():
    rows = _gaps(plain(), weighting="tasks")
    wide = rows["note"].str.extract(r"pays for it \(([\d.]+) %\): (-?[\d.]+) to (-?[\d.]+)").astype(float)
    some = wide[0].notna()
    assert some.any()
    assert (wide[0][some] > 95).all()
    assert (wide[1][some] < rows["conf_low"][some]).all()
    assert (wide[2][some] > rows["conf_high"][some]).all()


def test_batteries_of_several_students_keep_holm():
    rows = _gaps(of_two_students(), weighting="tasks")
    top = rows[rows["level"] == "battery"]
    assert top["family"].str.startswith("holm|gap|battery|").all()
    assert top["family"].str.endswith("|2").all()
    p = np.sort(top["p_value"])
    assert np.sort(top["p_adjusted"]) == pytest.approx(np.maximum.accumulate([2 * p[0], p[1]]))
    assert rows[rows["level"] == "task"]["family"].str.startswith("tree|gap|2|").all()


def test_a_task_that_leaves_the_headline_is_in_no_tree():
    world = outcomes()
    bad = world["task"].eq("reasoning0") & world["model"].eq("teacher") & (world["item"].astype(int) < 10)
    world["status"] = np.where(bad, "unparsed", "scored")
    world.loc[bad, "score"] = 0.0
    rows = _gaps(estimate_table(world, ROLES), weighting="items")
    left_out = rows[(rows["level"] == "task") & (rows["group"] == "reasoning0")].iloc[0]
    assert pd.isna(left_out["family"])
    assert pd.isna(left_out["p_adjusted"])

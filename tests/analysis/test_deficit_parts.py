"""Parts sum to the gap at every level; those that matter are in the sentence."""

import numpy as np
import pandas as pd
import pytest

from capgap.analysis import estimate_table, sentence
from capgap.schema import Roles
from tests.analysis.worlds import one, outcomes, plain

EXACT = 1e-12
BEHIND = Roles(("student",), "teacher")
STATUSES = np.array([("scored", "end"), ("scored", "stop_string"), ("scored", "limit"), ("unparsed", "end"),
                     ("unparsed", "stop_string"), ("unparsed", None)], dtype=object)  # fmt: skip


def _with_states(world, share, seed, models=("teacher", "student", "base")):
    """The world with some wrong answers in a random state, at most `share` of all answers."""
    rng = np.random.default_rng(seed)
    chosen = world["model"].isin(models) & (world["score"] < 1) & (rng.random(len(world)) < share)
    states = STATUSES[rng.integers(0, len(STATUSES), len(world))]
    return world.assign(
        status=np.where(chosen, states[:, 0], "scored"), stop_reason=np.where(chosen, states[:, 1], "end")
    )


@pytest.mark.parametrize("seed", range(3))
def test_parts_sum_to_the_gap_at_every_level_weight_and_population(seed):
    rng = np.random.default_rng(seed)
    world = outcomes(n_tasks=6 if seed == 0 else 2, n_items=20, models=("teacher", "student"), seed=seed)
    world["score"] = np.where(rng.random(len(world)) < 0.1, 0.5, world["score"])
    repeated = world.assign(repeat=1, score=rng.permutation(world["score"]))
    world = _with_states(world if seed else pd.concat([world, repeated]), 0.06, seed)
    estimates = estimate_table(world[rng.random(len(world)) > 0.03], BEHIND)
    key = ["level", "group", "weighting", "population_tasks"]
    parts = estimates[(estimates["quantity"] == "gap_part") & (estimates["status"] != "refused")]
    gaps = estimates[(estimates["quantity"] == "gap") & (estimates["estimator"] == "paired")].set_index(key)["estimate"]
    sums = parts.groupby(key)["estimate"].sum()
    assert len(sums) > 6
    assert set(parts["level"]) == {"battery", "capability", "task"}
    assert (sums - gaps.reindex(sums.index)).abs().max() < EXACT


def test_a_part_is_the_plain_difference_of_deficits_and_changes_sign_with_the_roles():
    world = _with_states(outcomes(n_tasks=1, n_items=120, models=("teacher", "student")), 0.3, 1)
    forth = estimate_table(world, BEHIND)
    back = estimate_table(world, Roles(("teacher",), "student"))
    task = forth[(forth["contrast"] == "cut_off") & (forth["level"] == "task")].iloc[0]["group"]
    rows = world[(world["task"] == task) & (world["score"] < 1) & (world["stop_reason"] == "limit")]
    n = (world["task"].eq(task) & world["model"].eq("student")).sum()
    expected = ((rows["model"] == "student").sum() - (rows["model"] == "teacher").sum()) / n
    where = {"quantity": "gap_part", "level": "task", "group": task, "contrast": "cut_off"}
    assert one(forth, **where)["estimate"] == pytest.approx(expected, abs=EXACT)
    assert one(back, **where)["estimate"] == pytest.approx(-expected, abs=EXACT)


def test_where_every_answer_is_readable_there_are_no_parts_and_no_bounds():
    estimates = plain()
    assert not estimates["quantity"].isin(["gap_part", "common_items_shift"]).any()
    assert not (estimates["estimator"] == "bounds").any()


def test_the_sentence_names_a_part_that_matters_and_no_other():
    world = outcomes(n_tasks=1, n_items=1000, models=("teacher", "student"))
    rng = np.random.default_rng(0)
    wrong = (world["model"] == "student") & (world["score"] == 0)
    cut = wrong & (world["capability"] == "reasoning") & (rng.random(len(world)) < 0.09)
    rare = wrong & ~cut & (rng.random(len(world)) < 0.005)
    told = world.assign(stop_reason=np.where(cut, "limit", "end"), status=np.where(rare, "unparsed", "scored"))
    text = sentence(estimate_table(told, BEHIND), BEHIND)
    assert text.count("answers cut off make") == 1
    assert "of the reasoning gap" in text
    assert "unreadable answers make" not in text

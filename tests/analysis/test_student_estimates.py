"""Every level's numbers against plain means over the same rows, and the truth of a simulated world."""

import json

import numpy as np
import pandas as pd
import pytest

from capgap import schema
from capgap.analysis import estimate_table
from tests.analysis.worlds import ACCURACY, ROLES, of_two_students, one, outcomes, plain

EXACT = 1e-12


@pytest.fixture(scope="module")
def world():
    return outcomes()


@pytest.fixture(scope="module")
def estimates(world):
    return plain()


def _mask(world, level, group):
    if level == "battery":
        return world["battery"] == group
    if level == "slice":
        task, _, covariate = group.rpartition(": ")
        name, value = covariate.split("=")
        inside = world["task"] == task if task.endswith(tuple("0123456789")) else world["capability"].eq(task)
        return (inside if task else True) & (world[name].astype(str) == value)
    return world[level] == group


def _mean(world, model, level, group, weighting, score="score"):
    rows = world[_mask(world, level, group) & (world["model"] == model)]
    return rows.groupby("task")[score].mean().mean() if weighting == "tasks" else rows[score].mean()


_GROUPS = [
    ("battery", "world"),
    ("capability", "knowledge"),
    ("capability", "reasoning"),
    ("domain", "domain0"),
    ("task", "reasoning2"),
    ("slice", "knowledge1: x_depth=2"),
    ("slice", "format=choose"),
    ("slice", "reasoning: format=generate"),
]


@pytest.mark.parametrize(("level", "group"), _GROUPS)
@pytest.mark.parametrize("weighting", ["tasks", "items"])
def test_every_level_is_the_plain_mean_of_its_rows(world, estimates, level, group, weighting):
    if (level == "task" or ": x_" in group) and weighting == "tasks":
        return
    mean = {m: _mean(world, m, level, group, weighting) for m in ACCURACY}
    expected = {
        "gap": mean["teacher"] - mean["student"],
        "base_gap": mean["teacher"] - mean["base"],
        "gain": mean["student"] - mean["base"],
        "teacher_effect": mean["student"] - mean["control"],
        "gap_closure": (mean["student"] - mean["base"]) / (mean["teacher"] - mean["base"]),
        "retention": (mean["student"] - 0.25) / (mean["teacher"] - 0.25),
    }
    at = {"level": level, "group": group, "weighting": weighting}
    for quantity, value in expected.items():
        row = one(estimates, quantity=quantity, model="student", **at)
        if row["status"] != "refused":
            assert row["estimate"] == pytest.approx(value, abs=EXACT), quantity
            assert row["conf_low"] < value < row["conf_high"]
    for model, value in mean.items():
        if model != "other":
            row = one(estimates, quantity="accuracy", model=model, **at)
            assert row["estimate"] == pytest.approx(value, abs=EXACT)
            assert row["null_value"] == pytest.approx(0.25)
    rows = world[_mask(world, level, group) & (world["model"] == "student")]
    assert one(estimates, quantity="gap", model="student", **at)["n_items"] == len(rows)
    assert one(estimates, quantity="gap", model="student", **at)["n_tasks"] == rows["task"].nunique()


def test_agreement_and_inherited_errors_are_plain_shares(world, estimates):
    rows = world[world["capability"] == "reasoning"]
    wide = rows.pivot(index=["task", "item"], columns="model", values=["prediction", "score"])
    p, s = wide["prediction"], wide["score"].astype(float)
    same = (p["teacher"] == p["student"]).mean()
    at = {"level": "capability", "group": "reasoning", "model": "student", "weighting": "items"}
    assert one(estimates, quantity="agreement", **at)["estimate"] == pytest.approx(same)
    expected = one(estimates, quantity="agreement", **at)["null_value"]
    assert one(estimates, quantity="fidelity", **at)["estimate"] == pytest.approx(same - expected)
    wrong = s["teacher"] == 0
    row = one(estimates, quantity="error_inheritance", **at)
    assert row["estimate"] == pytest.approx((p["student"] == p["teacher"])[wrong].mean())
    assert row["null_value"] == pytest.approx((p["control"] == p["teacher"])[wrong].mean())
    assert row["n_items"] == wrong.sum()


def test_expected_agreement_of_a_choice_task_is_the_formula(world, estimates):
    rows = world[world["task"] == "knowledge0"]
    t, s = (rows.loc[rows["model"] == m, "score"].mean() for m in ("teacher", "student"))
    row = one(estimates, quantity="agreement", level="task", group="knowledge0")
    assert row["null_value"] == pytest.approx(t * s + (1 - t) * (1 - s) / 3)


def test_the_truth_lies_inside_the_intervals_of_a_large_world():
    large = outcomes(n_tasks=4, n_items=1500, models=("teacher", "base", "student"), seed=3)
    estimates = estimate_table(large, schema.Roles(("student",), "teacher", {"student": "base"}))
    truth = {"knowledge": 0.45 / 0.5, "reasoning": 0.2 / 0.55}
    for capability, value in truth.items():
        row = one(estimates, quantity="gap_closure", level="capability", group=capability)
        # 99.99 %: a fixed seed should not sit on a lottery.
        assert abs(row["estimate"] - value) < 4 * row["std_error"]
        assert row["std_error"] < 0.02


def test_row_order_and_names_change_nothing(world, estimates):
    shuffled = world.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(estimate_table(shuffled, ROLES), estimates)


def test_swapped_roles_change_the_sign(world, estimates):
    swapped = estimate_table(world, schema.Roles(("teacher",), "student"))
    for level, group in _GROUPS:
        before, after = (
            one(e, quantity="gap", level=level, group=group, model=m, weighting="items")
            for e, m in ((estimates, "student"), (swapped, "teacher"))
        )
        assert after["estimate"] == pytest.approx(-before["estimate"])
        assert after["conf_low"] == pytest.approx(-before["conf_high"], abs=1e-9)


def test_the_frame_of_the_caller_is_untouched(world):
    before = world.copy()
    estimate_table(world, ROLES)
    pd.testing.assert_frame_equal(world, before)


def test_pairs_are_those_of_schema_pair():
    holed = outcomes(seed=5)
    drop = np.random.default_rng(0).random(len(holed)) < 0.1
    holed.loc[holed.index[::13], "score"] = np.nan
    holed = holed[~drop]
    table = schema.validate(holed, schema.OUTCOMES)
    pairs = schema.pair(table, ["teacher", "student"])
    row = one(estimate_table(holed, ROLES), quantity="gap", level="battery", weighting="items")
    assert row["n_items"] == len(pairs.cells)
    assert row["estimate"] == pytest.approx((pairs.scores[:, 0] - pairs.scores[:, 1]).mean())
    asked_of_student = (holed["model"] == "student").sum()
    assert f"{100 * len(pairs.cells) / asked_of_student:.1f} %" in row["note"]


def test_repeats_are_averaged_within_the_cell(world):
    again = world.assign(repeat=1, score=1 - world["score"])
    estimates = estimate_table(pd.concat([world, world[::2].assign(repeat=2), again]), ROLES)
    doubled = pd.concat([world, world[::2], again])
    cell = doubled.groupby(["model", "task", "item"], as_index=False)["score"].mean()
    expected = cell[cell["model"] == "student"].groupby("task")["score"].mean().mean()
    row = one(estimates, quantity="accuracy", level="battery", model="student")
    assert row["estimate"] == pytest.approx(expected)
    assert row["n_items"] == len(world[world["model"] == "student"])


def test_variants_share_their_items_cluster():
    plain, cot = outcomes(seed=1), outcomes(seed=2, variant="cot")
    cot["x_depth"] = plain["x_depth"]
    estimates = estimate_table(pd.concat([plain, cot]), ROLES)
    task = one(estimates, quantity="gap", level="task", group="knowledge0")
    assert (task["n_items"], task["n_clusters"]) == (40, 40)
    part = one(estimates, quantity="gap", level="slice", group="knowledge0: variant=cot")
    alone = one(estimate_table(cot, ROLES), quantity="gap", level="task", group="knowledge0")
    assert part["estimate"] == pytest.approx(alone["estimate"])


def test_rows_name_the_roles(estimates):
    row = one(estimates, quantity="gap_closure", level="battery")
    assert json.loads(row["roles"]) == {"teacher": "teacher", "student": "student", "base": "base"}
    assert pd.isna(row["factors"])


def test_several_students_form_families():
    estimates = of_two_students()
    rows = estimates[
        (estimates["quantity"] == "capability_contrast")
        & (estimates["contrast"] == "gap_closure")
        & (estimates["weighting"] == "tasks")
    ]
    (family,) = set(rows["family"])
    assert family.startswith("holm|capability_contrast|battery|world|")
    assert family.endswith("|gap_closure|2")
    p = np.sort(rows["p_value"])
    assert np.sort(rows["p_adjusted"]) == pytest.approx(np.maximum.accumulate([2 * p[0], p[1]]))
    assert plain()["family"].dropna().str.startswith("tree|").all()


@pytest.mark.parametrize(("n_tasks", "expected"), [(5, False), (6, True)])
def test_tasks_like_these_need_six(n_tasks, expected):
    world = outcomes(n_tasks=n_tasks, n_items=20)
    estimates = estimate_table(world, ROLES)
    like = estimates[estimates["population_tasks"] == "tasks_like_these"]
    assert bool(len(like)) == expected
    if expected:
        rows = world[(world["capability"] == "reasoning")].pivot_table("score", "task", "model")
        gap = rows["teacher"] - rows["student"]
        row = like[(like["quantity"] == "gap") & (like["group"] == "reasoning")].iloc[0]
        assert row["estimate"] == pytest.approx(gap.mean())
        assert row["std_error"] == pytest.approx(gap.sem())
        assert row["df"] == pytest.approx(5)
        assert set(like["quantity"]) >= {"gap_closure", "retention", "capability_contrast", "accuracy", "fidelity"}
        contrast = like[like["contrast"] == "gap"].iloc[0]
        assert contrast["n_tasks"] == 12

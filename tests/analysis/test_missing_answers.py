"""Missing answers: what counts as missing, and that no claim rests on them without a word."""

import numpy as np
import pandas as pd
import pytest

from capgap.analysis import estimate_table
from capgap.schema import Roles
from capgap.schema.remarks import Reason
from tests.analysis.worlds import one, outcomes

BASED = Roles(("student",), "teacher", {"student": "base"})
CAST = ("teacher", "student", "base")


def _world(**options):
    return outcomes(models=CAST, **options)


def test_a_base_that_answered_other_tasks_too_is_no_reason_to_refuse_and_nothing_is_missing():
    world = _world(n_tasks=2)
    few = world[(world["model"] == "base") | world["task"].isin(["knowledge0", "reasoning0"])]
    estimates = estimate_table(few, BASED)
    gain = one(estimates, quantity="gain", level="battery")
    assert gain["status"] == "ok"
    assert gain["n_items"] == few[few["model"] == "student"].shape[0]
    assert not (estimates["estimator"] == "bounds").any()
    assert not (estimates["quantity"] == "common_items_shift").any()


def test_items_that_nobody_was_asked_are_not_missing():
    world = _world(n_tasks=1)
    asked = world[world["item"].astype(int) % 3 == 0]
    assert not (estimate_table(asked, BASED)["estimator"] == "bounds").any()


def test_missing_answers_are_wrong_in_one_bound_and_right_in_the_other():
    world = _world(n_tasks=1, n_items=200)
    lost = (world["model"] == "student") & (world["item"].astype(int) % 10 == 0)
    estimates = estimate_table(world[~lost], BASED)
    for task in ("knowledge0", "reasoning0"):
        row = one(estimates, quantity="gap", level="task", group=task, estimator="bounds")
        scores = world[world["task"] == task].pivot(index="item", columns="model", values="score")
        gone = scores.index.astype(int) % 10 == 0
        ends = [(scores["teacher"] - scores["student"].where(~gone, fill)).mean() for fill in (1.0, 0.0)]
        assert row["conf_low"] < ends[0] < ends[1] < row["conf_high"]
        assert f"without sampling error between {ends[0]:.3f} and {ends[1]:.3f}" in row["note"]


def test_an_answer_that_ended_in_an_error_is_missing_like_one_that_is_absent():
    world = _world(n_tasks=1, n_items=100)
    lost = (world["model"] == "student") & (world["item"].astype(int) % 10 == 0)
    failed = world.assign(score=world["score"].mask(lost), status=np.where(lost, "error", "scored"))
    absent, failed = (
        one(estimate_table(table, BASED), quantity="gap", level="battery", estimator="bounds")
        for table in (world[~lost], failed)
    )
    assert (absent["conf_low"], absent["conf_high"]) == (failed["conf_low"], failed["conf_high"])


def test_the_shift_of_the_base_is_its_accuracy_on_common_items_minus_that_on_all():
    world = _world(n_tasks=2, n_items=50)
    base = world[world["model"] == "base"].set_index(["task", "item"])["score"]
    index = pd.MultiIndex.from_frame(world[["task", "item"]])
    lost = (world["model"] == "student") & (base.reindex(index).to_numpy() == 0) & (world["item"].astype(int) % 2 == 0)
    row = one(estimate_table(world[~lost], BASED), quantity="common_items_shift", level="battery", contrast="base")
    kept = world[(world["model"] == "student") & ~lost].set_index(["task", "item"]).index
    expected = (base[kept].groupby("task").mean() - base.groupby("task").mean()).mean()
    assert row["estimate"] == pytest.approx(expected, abs=1e-12)
    assert row["conf_low"] > 0


def _equal_students(seed):
    """Two students equal by construction; one lacks 31 % of its answers and more where the base was wrong."""
    world = outcomes(n_tasks=3, n_items=200, models=CAST, seed=seed)
    world = world[world["item"].astype(int) < 200]
    rng = np.random.default_rng(seed)
    other = outcomes(n_tasks=3, n_items=200, models=("student",), seed=10_000 + seed)
    other = other[other["item"].astype(int) < 200].assign(model="other")
    base = world[world["model"] == "base"].set_index(["task", "item"])["score"]
    base_wrong = base.reindex(pd.MultiIndex.from_frame(other[["task", "item"]])).to_numpy() == 0
    chance_of_loss = np.where(base_wrong, 0.45, 0.12)
    return pd.concat([world, other[rng.random(len(other)) > chance_of_loss * 0.31 / chance_of_loss.mean()]])


def _check_equal_students(n_draws):
    """How often bounds of the student that lacks answers leave out the numbers of its equal."""
    roles = Roles(("student", "other"), "teacher", {"student": "base", "other": "base"})
    n_apart = 0
    for seed in range(n_draws):
        estimates = estimate_table(_equal_students(seed), roles)
        bounds = estimates[(estimates["model"] == "other") & (estimates["estimator"] == "bounds")]
        key = ["quantity", "level", "group", "contrast", "weighting", "population_tasks"]
        plain = estimates[(estimates["estimator"] == "paired")].set_index([*key, "model"])
        for row in bounds.itertuples():
            number = tuple(getattr(row, name) for name in key)
            mine, peer = plain.loc[(*number, "other")], plain.loc[(*number, "student")]
            if row.status == "refused":
                assert mine["reason"] is not None or mine["status"] == "refused"
                continue
            # The peer is equal by construction: what was lost may not take its number out of the bounds.
            apart = row.conf_low > peer["estimate"] or row.conf_high < peer["estimate"]
            n_apart += row.level in ("battery", "capability") and apart
            assert "right or wrong between" in mine["note"]
            if row.conf_low < 0 < row.conf_high and (mine["conf_low"] > 0 or mine["conf_high"] < 0):
                assert Reason.SIGN_RESTS_ON_ANSWERS.sentence.split("{")[0] in mine["note"]
        assert len(bounds)
    return n_apart


def test_students_that_are_equal_are_not_told_apart_by_what_one_of_them_lacks():
    assert _check_equal_students(2) == 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_students_that_are_equal_are_not_told_apart_by_what_one_of_them_lacks_in_many_draws():
    assert _check_equal_students(300) == 0

import numpy as np
import pandas as pd
import pytest

from capgap.analysis import estimate_table, sentence
from capgap.schema.remarks import Reason
from tests.analysis.worlds import ROLES, one, outcomes, plain


def _broken(model, share, status="truncated", task="knowledge1"):
    world = outcomes(status="scored")
    rows = world.index[(world["model"] == model) & (world["task"] == task)]
    rows = rows[: int(np.ceil(share * len(rows)))]
    world.loc[rows, ["status", "score"]] = [status, 0.0]
    return world


@pytest.mark.parametrize(("status", "advice"), [("truncated", "max_tokens"), ("unparsed", "extract")])
@pytest.mark.parametrize("model", ["student", "teacher"])
def test_a_task_with_unreadable_answers_leaves_every_number_above_it(model, status, advice):
    world = _broken(model, 0.2, status)
    estimates = estimate_table(world, ROLES)
    without = estimate_table(world[world["task"] != "knowledge1"], ROLES)
    coarse = ["battery", "capability", "domain"]
    keys = ["quantity", "level", "group", "model", "contrast", "weighting"]
    left, right = (
        e[e["level"].isin(coarse)].set_index(keys)[["estimate", "conf_low"]].sort_index() for e in (estimates, without)
    )
    pd.testing.assert_frame_equal(left, right)
    for quantity in ("gap", "gap_closure", "agreement", "fidelity", "error_inheritance"):
        row = one(estimates, quantity=quantity, level="battery")
        assert row["reason"] == Reason.UNREADABLE_ANSWERS
        assert "knowledge1" in row["note"]
    assert one(estimates, quantity="gap", level="task", group="knowledge1")["status"] == "ok"
    row = one(estimates, quantity=status, level="task", group="knowledge1", model=model)
    assert row["estimate"] == pytest.approx(np.ceil(0.2 * 47) / 47)
    assert row["reason"] == Reason.UNREADABLE_ANSWERS
    assert advice in row["note"]
    assert "Left out, answers unreadable: knowledge1." in sentence(estimates, ROLES)


@pytest.mark.parametrize("model", ["base", "control"])
def test_the_base_never_excludes_a_task(model):
    estimates = estimate_table(_broken(model, 0.5), ROLES)
    assert one(estimates, quantity="gap", level="battery")["n_tasks"] == 6
    row = one(estimates, quantity="truncated", level="task", group="knowledge1", model=model)
    assert row["estimate"] > 0.4
    assert row["reason"] == Reason.TRUNCATED_OFTEN


def test_five_percent_stay():
    estimates = estimate_table(_broken("student", 0.04), ROLES)
    assert one(estimates, quantity="gap", level="battery")["n_tasks"] == 6


def test_every_model_and_task_has_its_share():
    estimates = plain()
    rows = estimates[estimates["quantity"] == "truncated"]
    assert len(rows) == 6 * 4
    assert (rows["estimate"] == 0).all()
    assert (rows["conf_high"] > 0).all()


def test_a_table_that_says_nothing_about_its_answers_gets_no_share():
    estimates = estimate_table(outcomes()[["model", "task", "item", "score"]], ROLES)
    assert not estimates["quantity"].isin(["truncated", "unparsed"]).any()


def test_when_every_task_is_out_the_headline_is_refused_with_the_tasks():
    world = outcomes(status="scored")
    world.loc[world["model"] == "student", "status"] = "unparsed"
    estimates = estimate_table(world, ROLES)
    for quantity in ("gap", "gap_closure", "accuracy"):
        row = one(estimates[estimates["model"] == "student"], quantity=quantity, level="capability", group="reasoning")
        assert (row["status"], row["reason"]) == ("refused", Reason.UNREADABLE_ANSWERS)
        assert "reasoning0, reasoning1, reasoning2" in row["note"]
    assert one(estimates, contrast="gap")["status"] == "refused"
    assert sentence(estimates, ROLES).startswith("No number")

import numpy as np
import pandas as pd
import pytest

from capgap import schema
from capgap.analysis import estimate_table, sentence
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
    found = estimate_table(world, ROLES)
    without = estimate_table(world[world["task"] != "knowledge1"], ROLES)
    coarse = ["battery", "capability", "domain"]
    keys = ["quantity", "level", "group", "model", "contrast", "weighting"]
    left, right = (
        e[e["level"].isin(coarse)].set_index(keys)[["estimate", "conf_low"]].sort_index() for e in (found, without)
    )
    pd.testing.assert_frame_equal(left, right)
    for quantity in ("gap", "gap_closure", "agreement", "fidelity", "error_inheritance"):
        assert "knowledge1" in one(found, quantity=quantity, level="battery")["note"]
    assert one(found, quantity="gap", level="task", group="knowledge1")["status"] == "ok"
    row = one(found, quantity=status, level="task", group="knowledge1", model=model)
    assert row["estimate"] == pytest.approx(np.ceil(0.2 * 47) / 47)
    assert row["note"].startswith("task left out")
    assert advice in row["note"]
    assert "Left out, answers unreadable: knowledge1." in sentence(found, ROLES)


@pytest.mark.parametrize("model", ["base", "control"])
def test_the_base_never_excludes_a_task(model):
    found = estimate_table(_broken(model, 0.5), ROLES)
    assert one(found, quantity="gap", level="battery")["n_tasks"] == 6
    row = one(found, quantity="truncated", level="task", group="knowledge1", model=model)
    assert row["estimate"] > 0.4
    assert "max_tokens" in row["note"]


def test_five_percent_stay():
    found = estimate_table(_broken("student", 0.04), ROLES)
    assert one(found, quantity="gap", level="battery")["n_tasks"] == 6


def test_every_model_and_task_has_its_share():
    found = plain()
    rows = found[found["quantity"] == "truncated"]
    assert len(rows) == 6 * 4
    assert (rows["estimate"] == 0).all()
    assert (rows["conf_high"] > 0).all()


def test_a_table_that_says_nothing_about_its_answers_gets_no_share():
    found = estimate_table(outcomes()[["model", "task", "item", "score"]], ROLES)
    assert not found["quantity"].isin(["truncated", "unparsed"]).any()


def test_when_every_task_is_out_the_headline_is_refused_with_the_tasks():
    world = outcomes(status="scored")
    world.loc[world["model"] == "student", "status"] = "unparsed"
    found = estimate_table(world, ROLES)
    for quantity in ("gap", "gap_closure", "accuracy"):
        row = one(found[found["model"] == "student"], quantity=quantity, level="capability", group="reasoning")
        assert row["status"] == "refused"
        assert "reasoning0, reasoning1, reasoning2" in row["note"]
    assert one(found, contrast="gap: reasoning - knowledge")["status"] == "refused"
    assert sentence(found, ROLES).startswith("No number")


def test_models_that_were_prompted_differently_are_flagged():
    models = pd.DataFrame({"model": ["teacher", "student", "base"], "prompting": ["chat", "plain", "plain"]})
    found = estimate_table(outcomes(), ROLES, models=models)
    assert "teacher and student were prompted differently" in one(found, quantity="gap", level="battery")["note"]
    assert pd.isna(one(found, quantity="gain", level="battery")["note"])


def test_aliased_formats_are_flagged():
    world = outcomes()
    world["format"] = np.where(world["capability"] == "knowledge", "choose", "generate")
    contrast = "closure: knowledge - reasoning"
    note = one(estimate_table(world, ROLES), contrast=contrast)["note"]
    assert "knowledge comes only as choose and reasoning comes only as generate" in note
    assert "aliased" in note
    assert pd.isna(one(plain(), contrast=contrast)["note"])
    assert one(estimate_table(outcomes().assign(format="choose"), ROLES), contrast=contrast)["note"].endswith("choose tasks")


def test_roles_may_be_missing():
    found = estimate_table(outcomes(), schema.Roles(("student",)))
    assert set(found["quantity"]) == {"accuracy", "unparsed", "truncated", "error_type", "failure_odds"}

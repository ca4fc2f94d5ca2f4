"""Labels that nobody declared, and numbers pooled over draws of them."""

import numpy as np
import pytest

from capgap.analysis import estimate_table
from capgap.schema.remarks import Reason
from tests.analysis import worlds
from tests.analysis.cohorts import cohort, factors, rows

PLACE = ["quantity", "group", "factor", "transform", "level", "reference"]


def labels_of(world, p_reasoning, p_knowledge):
    """A `labels` table that is right with these probabilities of reasoning."""
    items = world[["task", "item"]].drop_duplicates()
    reasoning = items["task"].str.startswith("reasoning")
    return items.assign(
        capability=np.where(reasoning, "reasoning", "knowledge"),
        p_reasoning=np.where(reasoning, p_reasoning, p_knowledge),
        source="text",
    )


@pytest.fixture(scope="module")
def of_cohort():
    """Estimates of a cohort whose items declare nothing, and its roles."""
    world, models, roles = cohort(seeds=1, n_tasks=6, n_items=20)
    world = world.drop(columns="capability")
    return estimate_table(world, roles, models=models, labels=labels_of(world, 0.95, 0.02)), roles


def test_labels_in_doubt_widen_the_contrast_and_certain_ones_leave_it():
    world = worlds.outcomes().drop(columns="capability")

    def contrast(p):
        estimates = estimate_table(world, worlds.ROLES, labels=labels_of(world, p, 1 - p))
        table = rows("capability_contrast", estimates, contrast="gap", weighting="tasks")
        return table.set_index("estimator")

    certain, doubtful = contrast(1.0), contrast(0.9)
    assert set(certain.index) == {"paired"}
    wide, narrow = doubtful.loc["multiple_imputation"], certain.loc["paired"]
    assert wide["conf_high"] - wide["conf_low"] > narrow["conf_high"] - narrow["conf_low"]
    (share,) = factors(doubtful.loc[["multiple_imputation"]])["label_variance_share"]
    assert 0 < share < 1
    assert (narrow["reason"], wide["reason"]) == (Reason.UNDECLARED_LABELS,) * 2


def test_what_made_students_better_is_fitted_anew_for_every_draw_of_the_labels(of_cohort):
    estimates, roles = of_cohort
    effects = estimates[estimates["quantity"].isin(["effect", "effect_difference"])]
    places = effects[["quantity", "group", "estimator"]].join(factors(effects)).fillna("")
    pooled, plain = (
        {tuple(row) for row in places.loc[places["estimator"] == name, PLACE].to_numpy()}
        for name in ("multiple_imputation", "mixed_model")
    )
    assert pooled == plain
    assert len(pooled) > 3
    gaps = rows("gap", estimates, level="capability", estimator="multiple_imputation")
    assert set(gaps["model"]) == set(roles.students)


def test_draws_make_no_family_and_no_branch_of_the_tree(of_cohort):
    estimates, roles = of_cohort
    pooled = estimates[estimates["estimator"] == "multiple_imputation"]
    assert pooled["p_adjusted"].isna().all()
    families = rows("capability_contrast", estimates)["family"].dropna()
    assert families.str.startswith("holm|").all()
    assert families.str.endswith(f"|{len(roles.students)}").all()


def test_numbers_by_capability_say_that_labels_were_not_declared(of_cohort):
    estimates, _ = of_cohort
    noted = estimates["note"].fillna("").str.contains("were not declared")
    by_capability = estimates["level"] == "capability"
    across = estimates["quantity"].isin(["capability_contrast", "effect_difference", "relative_data_cost"])
    assert noted[by_capability | across].all()
    assert not noted[~(by_capability | across)].any()

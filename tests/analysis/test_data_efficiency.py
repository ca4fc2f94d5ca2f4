"""Curves over examples, data costs, and the gain of the next batch."""

import numpy as np
import pandas as pd
import pytest

from capgap import schema
from capgap.analysis import estimate_table
from capgap.analysis.cohort import Recipe
from capgap.analysis.data_efficiency import _RecipeCurveFits, _relative_cost_rows
from capgap.schema.remarks import Reason
from capgap.stats.curves import curve_data, fit_curves
from tests.analysis.cohorts import cohort, factors, rows

SCALED = ("learning_curve", "learning_curve_per_step")


def test_data_cost_is_priced_for_each_recipe_and_capability():
    cost = rows("data_cost", target=0.5, estimator="learning_curve")
    assert sorted(zip(cost["group"], factors(cost)["adaptation"], strict=True)) == [
        (capability, adaptation) for capability in ("knowledge", "reasoning") for adaptation in ("full", "lora")
    ]
    assert (cost["subject"] == "recipe").all()
    assert (cost["population_students"] == "this_recipe").all()
    # the base is at .2, the teacher near .85: knowledge passes the middle between 125 and 500 of its examples
    known = cost[(cost["group"] == "knowledge") & (factors(cost)["adaptation"] == "full")].iloc[0]
    assert 60 < known["conf_low"] < known["estimate"] < known["conf_high"] < 1000


def test_a_cost_beyond_four_times_the_largest_size_is_open():
    costs = rows("data_cost", target=0.9, target_scale="retention", status="open")
    assert len(costs)
    assert costs[["conf_low", "conf_high"]].isna().any(axis=1).all() or (costs["conf_low"] == 0).any()
    beyond = costs[costs["estimate"].isna()]
    assert len(beyond)
    assert beyond["note"].str.contains("does not meet the target within 4 times the largest size", regex=False).all()
    ends = rows("data_cost")[["estimate", "conf_low", "conf_high"]].max().max()
    assert ends <= 4 * 2000


def test_every_number_of_a_curve_says_on_which_laws_it_rests():
    for quantity in ("data_cost", "next_batch_gain", "doubling_rise", "next_size_score", "new_student_score", "curve"):
        told = rows(quantity, estimator="learning_curve")
        told = told[told["status"] != "refused"]
        laws = factors(told)["laws"]
        assert laws.map(len).min() > 0
        assert set().union(*laws) <= {"power", "exponential", "logistic", "logarithmic"}


def test_the_gain_of_the_next_batch_is_that_of_the_drawn_curve():
    gain, score = (rows(name, group="knowledge", adaptation="full") for name in ("next_batch_gain", "next_size_score"))
    curve = rows("curve", group="knowledge", adaptation="full")
    sizes = factors(curve)["n_examples"].to_numpy(dtype=float)
    at_double = curve["estimate"].to_numpy()[np.argmax(sizes)]
    main = (table[table["estimator"] == "learning_curve"].iloc[0] for table in (gain, score))
    gain_row, score_row = main
    assert sizes.max() == 4000
    assert at_double == pytest.approx(score_row["estimate"], abs=1e-9)
    order = np.argsort(sizes)
    at_largest = np.interp(np.log(2000), np.log(np.maximum(sizes[order], 1)), curve["estimate"].to_numpy()[order])
    assert gain_row["estimate"] == pytest.approx(at_double - at_largest, abs=0.003)


def test_a_new_student_is_predicted_less_surely_than_the_curve_is_known():
    curve, student = (rows(q, estimator="learning_curve") for q in ("next_size_score", "new_student_score"))
    widths = [(table["conf_high"] - table["conf_low"]).to_numpy() for table in (curve, student)]
    assert (widths[1] > widths[0]).all()
    assert (curve["estimate"].to_numpy() == student["estimate"].to_numpy()).all()


DOUBLING_ACCURACIES = (0.174, 0.252, 0.287, 0.314, 0.337, 0.369, 0.414, 0.441)


@pytest.mark.parametrize("accuracies", [DOUBLING_ACCURACIES, (0.2, 0.23, 0.27, 0.3, 0.33, 0.37, 0.4, 0.43)])
def test_what_still_rises_gains_from_the_next_batch_as_from_the_last(accuracies):
    """Students of doubling sizes, three tasks of 600 items, one near the floor: 3.5 points a doubling by least squares,
    3.8 by the ends, and a criterion of residuals alone promised nothing."""
    rng, sizes = np.random.default_rng(0), 250 * 2 ** np.arange(8)
    models = {"base": 0.1, "teacher": 0.6} | {f"s{n}": a for n, a in zip(sizes, accuracies, strict=True)}
    outcomes = pd.DataFrame(
        [
            {"model": name, "battery": "b", "task": f"t{k}", "capability": "knowledge", "format": "generate"}
            | {"item": str(item), "score": float(right), "chance": 0.0}
            for name, accuracy in models.items()
            for k, share in enumerate((0.25, 1.2, 1.55))
            for item, right in enumerate(rng.permutation(np.arange(600) < round(600 * share * accuracy)))
        ]
    )
    students = tuple(f"s{n}" for n in sizes)
    facts = pd.DataFrame({"model": students, "n_examples": sizes, "base": "base"})
    roles = schema.Roles(students, "teacher", dict.fromkeys(students, "base"))
    estimates = estimate_table(outcomes, roles, models=facts)
    (gain,) = rows("next_batch_gain", estimates).to_dict("records")
    (rise,) = rows("doubling_rise", estimates).to_dict("records")
    assert gain["estimate"] > 0.01
    logs = np.arange(8)
    by_ends, by_least_squares = (accuracies[-1] - accuracies[0]) / 7, np.polyfit(logs, accuracies, 1)[0]
    assert rise["conf_low"] <= min(by_ends, by_least_squares)
    assert rise["conf_high"] >= max(by_ends, by_least_squares)
    assert rise["estimate"] == pytest.approx((by_ends + by_least_squares) / 2, abs=0.003)
    assert max(gain["conf_low"], rise["conf_low"]) <= min(gain["conf_high"], rise["conf_high"])


def test_other_scales_are_estimators_of_their_own():
    gains = rows("next_batch_gain", group="knowledge", adaptation="full")
    assert dict(zip(gains["estimator"], gains["scale"], strict=True)) == dict(
        zip(SCALED, ("score", "score per step"), strict=True)
    )
    assert factors(gains)[["n_examples_from", "n_examples_to"]].to_numpy().tolist() == [[2000, 4000]] * 2


def test_the_curve_passes_through_its_points():
    points = rows("curve_point", group="knowledge")
    assert set(points["model"]) >= {"base", "full-125-0", "lora-4000-2"}
    assert (points["subject"] == "model").all()
    curve, full = (rows(quantity, group="knowledge", adaptation="full") for quantity in ("curve", "curve_point"))
    sizes, at = (factors(table)["n_examples"].to_numpy(dtype=float) for table in (curve, full))
    order = np.argsort(sizes)
    fitted = np.interp(at, sizes[order], curve["estimate"].to_numpy()[order])
    assert np.abs(fitted - full["estimate"]).mean() < 0.05


def test_a_relative_cost_of_what_is_not_reached_is_unknown_and_not_zero():
    rng = np.random.default_rng(1)
    sizes = np.repeat([0, 125, 250, 500, 1000, 2000, 4000], [1, 3, 3, 3, 3, 3, 3]).astype(float)

    def curve(name, ceiling, which):
        level = np.append(ceiling - (ceiling - 0.1) * np.exp(-sizes / 400), 0.9)
        right = (rng.random((len(level), 2000)) < level[:, None]).astype(float)
        data = curve_data(right[:-1], right[-1], sizes, chance=0.0, clusters=2 * np.arange(2000) + which)
        return _RecipeCurveFits(name, Recipe((), ()), (), frozenset({which}), {"learning_curve": fit_curves(data)})

    knowledge, reasoning = curve("knowledge", 0.5, 0), curve("reasoning", 0.88, 1)
    for first, second in ((knowledge, reasoning), (reasoning, knowledge)):
        row = next(row for row in _relative_cost_rows(first, second) if dict(row.factors)["target"] == 0.9)
        assert row.estimate.status == "open"
        assert np.isnan(row.estimate.estimate)
        assert Reason.NOT_WITHIN_HORIZON in {remark.code for remark in row.estimate.remarks}


@pytest.fixture(scope="module")
def one_student_short():
    """Estimates where one student answered 80 % and 20 % of what the others did."""
    outcomes, models, roles = cohort(sizes=(125, 250, 500, 1000), seeds=3, adaptations=("full",), n_tasks=2, n_items=40)
    item, of_one = outcomes["item"].astype(int), outcomes["model"] == "full-125-0"
    return {n: estimate_table(outcomes[~of_one | (item < n)], roles, models=models) for n in (32, 8)}


def test_items_that_enough_students_answered_price_a_recipe_and_the_share_is_said(one_student_short):
    estimates = one_student_short[32]
    gaps = rows("gap", estimates, subject="recipe", n_examples="125")
    for table in (gaps, rows("data_cost", estimates)):
        assert len(table)
        assert "refused" not in set(table["status"])
        assert table["note"].str.contains("80.0 %", regex=False).all()


def test_items_that_few_students_answered_speak_of_no_recipe_and_price_nothing(one_student_short):
    estimates = one_student_short[8]
    gaps = rows("gap", estimates, subject="recipe", n_examples="125")
    for table in (gaps, rows("data_cost", estimates)):
        assert set(zip(table["status"], table["reason"], strict=True)) == {("refused", Reason.UNLIKE_ITEMS)}
        assert table["note"].str.contains("20 %", regex=False).all()


def test_strays_are_no_tasks_of_a_recipe_or_a_curve():
    outcomes, models, roles = cohort(sizes=(125, 250, 500), seeds=3, adaptations=("full",), n_tasks=2, n_items=30)
    stray = (outcomes["capability"] == "knowledge") & (outcomes["item"] == "0")
    labelled = outcomes.assign(capability=outcomes["capability"].mask(stray, "reasoning"))
    estimates = estimate_table(labelled, roles, models=models)
    for quantity in ("gap", "lost", "data_cost"):
        table = rows(quantity, estimates, level="capability", group="reasoning", weighting="tasks")
        assert set(table["n_tasks"]) == {2}

"""What the page says of several students, from estimates of a world whose law is known."""

import pandas as pd

from capgap.report.cohort_sections import gather_cohort_sections
from capgap.report.figures import CovariateSlices, ForestRow, compute_axis_limits, draw_slices
from capgap.report.tables import EstimateIndex, estimate_table
from capgap.schema import ESTIMATES, Roles, validate
from capgap.schema.remarks import Reason


def book(*rows):
    return EstimateIndex(validate(pd.DataFrame(list(rows)), ESTIMATES))


def number(quantity, **columns):
    place = {"level": "battery", "group": "battery", "model": "s", "estimate": 0.1, "conf_low": 0.0, "conf_high": 0.2}
    return {"quantity": quantity} | place | columns


def test_confidence_levels_that_differ_stay_a_column():
    rows = book(number("gap", conf_level=0.95), number("equivalence", conf_level=0.9)).rows
    shown = estimate_table(rows, caption="both")
    assert "confidence" in shown.columns
    assert "confidence" not in dict(shown.throughout)


def test_equivalence_stands_apart_so_that_many_flips_cannot_push_it_out():
    many = [number(quantity, model=f"s{n}") for quantity in ("lost", "gained") for n in range(300)]
    page = gather_cohort_sections(book(*many, number("equivalence", model="s0", conf_level=0.9)), Roles(("s0", "s1")))
    flips, equal = page.flips
    assert "lost" in flips.caption.lower()
    assert len(equal.rows) == 1
    assert dict(equal.throughout)["confidence"].startswith("90")


def test_alternative_estimators_stand_apart_from_the_declared_one():
    rows = [
        number("effect", estimator="mixed_model", subject="cohort", model=None),
        number("effect_difference", estimator="two_stage", subject="cohort", model=None),
        number("data_cost", estimator="learning_curve_per_step", subject="recipe", model=None),
    ]
    sections = gather_cohort_sections(book(*rows), Roles(("s",)))
    main, others = sections.effects
    assert len(main.rows) == len(others.rows) == 1
    assert dict(others.throughout)["estimator"] == "two-stage"
    (scales,) = sections.costs
    assert dict(scales.throughout)["estimator"] == "learning curve per step"


def test_recipes_are_known_by_their_subject():
    rows = [
        number("gap", subject=subject, model=None, factors='{"adaptation": "lora"}') for subject in ("recipe", "cohort")
    ]
    (table,) = gather_cohort_sections(book(*rows), Roles(("s",))).recipes
    assert len(table.rows) == 1
    assert dict(table.throughout)["made of"] == "adaptation lora"


def test_right_answers_with_a_trace_are_known_by_their_factor():
    rows = [
        number("error_type", factors=f'{{"among": "{name}"}}') for name in ("wrong_answers", "right_answers_with_trace")
    ]
    wrong, right = gather_cohort_sections(book(*rows), Roles(("s",))).failures
    assert "wrong answers" in wrong.caption
    assert right.caption.startswith("Right answers")


def test_p_of_a_data_cost_is_told_as_that_of_the_target_within_the_sizes_tried(cohort36):
    """A large p beside a data cost leaves the target within reach, and its sentence says so."""
    costs = cohort36.estimates.query("quantity == 'data_cost' and p_value > 0.5")
    assert len(costs)
    assert costs["note"].str.contains("that the target is met within the largest size", regex=False).all()
    assert costs["note"].str.contains(Reason.WITHIN_TRIED_SIZES.sentence.rpartition("} ")[2], regex=False).all()


def test_a_relative_cost_counts_the_tasks_of_both_capabilities(cohort36):
    rows = cohort36.estimates
    both = rows[rows["quantity"] == "relative_data_cost"]["n_tasks"]
    each = rows[rows["quantity"] == "data_cost"].drop_duplicates("group")["n_tasks"]
    assert set(both) == {each.sum()} == {12}


def test_figures_of_one_number_or_of_none_warn_of_nothing(recwarn):
    row = book(number("gap", conf_low=None, conf_high=None)).rows[0]
    low, high = compute_axis_limits([ForestRow("s", "knowledge", row)], ())
    assert low < high
    gone = book(number("accuracy", status="refused", estimate=None, conf_low=None, conf_high=None)).rows[0]
    empty = CovariateSlices("t", "x", "knowledge", ("1", "2"), {"s": (gone, None)})
    draw_slices(empty, prefix="p", teacher=None, bases=(), students=("s",))
    assert not [str(w.message) for w in recwarn if issubclass(w.category, UserWarning)]

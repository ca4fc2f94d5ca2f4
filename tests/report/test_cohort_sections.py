"""What the page says of several students, from estimates of a world whose law is known."""

import pandas as pd

from capgap.report.cohort_sections import cohort_sections
from capgap.report.figures import CovariateSlices, ForestRow, limits_of, slice_panel
from capgap.report.tables import EstimateIndex, estimate_table
from capgap.schema import ESTIMATES, Roles, validate
from tests.analysis.cohorts import analysed


def book(*rows):
    return EstimateIndex(validate(pd.DataFrame(list(rows)), ESTIMATES))


def number(quantity, **told):
    place = {"level": "battery", "group": "battery", "model": "s", "estimate": 0.1, "conf_low": 0.0, "conf_high": 0.2}
    return {"quantity": quantity} | place | told


def test_levels_of_confidence_that_differ_are_never_told_as_one():
    rows = book(number("gap", conf_level=0.95), number("equivalence", conf_level=0.9)).rows
    shown = estimate_table(rows, caption="both")
    assert "confidence" in shown.columns
    assert "confidence" not in dict(shown.throughout)


def test_equivalence_stands_apart_so_that_many_flips_cannot_push_it_out():
    many = [number(quantity, model=f"s{n}") for quantity in ("lost", "gained") for n in range(300)]
    page = cohort_sections(book(*many, number("equivalence", model="s0", conf_level=0.9)), Roles(("s0", "s1")))
    flips, equal = page.flips
    assert "lost" in flips.caption.lower()
    assert len(equal.rows) == 1
    assert dict(equal.throughout)["confidence"].startswith("90")


def test_p_of_never_is_not_told_as_the_probability_that_a_target_is_never_reached():
    found = analysed()
    notes = found[(found["quantity"] == "data_cost") & (found["p_value"] > 0.5)]["note"]
    assert len(notes)
    assert notes.str.contains("that the target is within reach (small: never)", regex=False).all()
    assert not notes.str.contains("p that it is never", regex=False).any()


def test_a_relative_cost_counts_the_tasks_of_both_capabilities():
    found = analysed()
    both = found[found["quantity"] == "relative_data_cost"]["n_tasks"]
    each = found[found["quantity"] == "data_cost"].drop_duplicates("group")["n_tasks"]
    assert set(both) == {each.sum()} == {12}


def test_figures_of_one_number_or_of_none_warn_of_nothing(recwarn):
    row = book(number("gap", conf_low=None, conf_high=None)).rows[0]
    low, high = limits_of([ForestRow("s", "knowledge", row)], ())
    assert low < high
    gone = book(number("accuracy", status="refused", estimate=None, conf_low=None, conf_high=None)).rows[0]
    empty = CovariateSlices("t", "x", "knowledge", ("1", "2"), {"s": (gone, None)})
    slice_panel(empty, prefix="p", teacher=None, bases=(), students=("s",))
    assert not [str(w.message) for w in recwarn if issubclass(w.category, UserWarning)]

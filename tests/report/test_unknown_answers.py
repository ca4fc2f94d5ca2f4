"""Bounds and parts on the page are those of the estimates."""

import numpy as np
import pytest

from capgap.analysis import estimate_table, sentence
from capgap.report.content import gather_report_content
from capgap.report.markdown import markdown_report
from capgap.report.render import html_report
from capgap.report.tables import EstimateIndex
from capgap.report.unknown_answers import unknown_answer_tables
from capgap.schema import Roles
from tests.analysis.worlds import one, outcomes, plain

ROLES = Roles(("student",), "teacher", {"student": "base"})


@pytest.fixture(scope="module")
def world():
    table = outcomes(n_tasks=1, models=("teacher", "student", "base"), n_items=100)
    rows = table[(table["model"] == "student") & (table["score"] == 0)].groupby("task").head(3).index
    return table.assign(stop_reason=np.where(table.index.isin(rows), "limit", "end"))


@pytest.fixture(scope="module")
def estimates(world):
    return estimate_table(world, ROLES)


def test_bounds_stand_beside_their_number_and_never_in_its_place(estimates):
    lookup = EstimateIndex(estimates)
    plain = lookup.find("gap_closure", "capability", "reasoning", "student")
    bounds = lookup.bounds_of(plain)
    row = one(estimates, quantity="gap_closure", level="capability", group="reasoning", estimator="bounds")
    assert plain.estimator == "paired"
    assert (bounds.low, bounds.high) == (row["conf_low"], row["conf_high"])
    assert all(view.estimator == "paired" for view in lookup.of("gap", "gain", "gap_closure", "retention"))
    assert lookup.bounds_of(lookup.find("accuracy", "capability", "reasoning", "student")) is None


def test_page_and_markdown_show_the_bounds(world, estimates):
    run = {"sentence": sentence(estimates, ROLES).splitlines()}
    page = html_report(gather_report_content(world, estimates, ROLES, run))
    bounds = EstimateIndex(estimates)
    shown = bounds.bounds_of(bounds.find("gap_closure", "capability", "reasoning", "student")).interval
    assert f"bounds {shown}" in page
    assert "Bounds, with all unreadable and missing answers right or wrong" in page
    assert "What became of the answers that make the gap?" in page
    text = markdown_report(outcomes=world, estimates=estimates, roles=ROLES, run=run)
    assert text.count(" bounds ") >= 6


def test_there_is_no_such_table_where_every_answer_is_known():
    assert unknown_answer_tables(EstimateIndex(plain()), ROLES) == ()


def test_a_number_that_rests_on_unknown_answers_is_a_caveat(world):
    unread = (world["model"] == "base") & (world["score"] == 0)
    table = world.assign(status=np.where(unread, "unparsed", "scored"))
    content = gather_report_content(table, estimate_table(table, ROLES), ROLES, {})
    assert any("number rests on answers" in caveat.what for caveat in content.caveats)

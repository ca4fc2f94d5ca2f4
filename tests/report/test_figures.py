import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from capgap.report.figures import ForestRow, draw_forest_plot, draw_slices, slices_of
from capgap.report.tables import EstimateView

ROW = EstimateView("gap", "capability", "knowledge", "s", estimate=0.2, low=0.1, high=0.3)
HOSTILE = "</svg><script>]]>&\x00 $\\frac{$"


def drawn(rows, prefix="p"):
    return draw_forest_plot(rows, prefix=prefix, title="Gap", unit="points")


def test_the_drawing_is_well_formed_themed_and_prefixed():
    svg = drawn([ForestRow("knowledge", "knowledge", ROW), ForestRow("reasoning", "reasoning", ROW)], prefix="one")
    root = ElementTree.fromstring(svg)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert ids
    assert all(name.startswith("one-") for name in ids)
    assert set(re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", svg))
    for pair in re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", svg):
        assert "".join(pair) in ids
    assert "var(--knowledge)" in svg
    assert "var(--reasoning)" in svg
    assert "#0a0b" not in svg
    assert "font-family" not in svg


def test_the_same_figure_is_the_same_bytes():
    rows = [ForestRow("knowledge", "knowledge", ROW)]
    assert drawn(rows) == drawn(rows)


def test_points_stand_where_their_numbers_say():
    """Three estimates at equal distances have marks at equal distances."""
    rows = [
        ForestRow(str(i), "mixed", replace(ROW, estimate=e, low=0.0, high=0.4)) for i, e in enumerate((0.1, 0.2, 0.3))
    ]
    marks = re.findall(r'<use[^>]* x="([\d.]+)" y="([\d.]+)"[^>]*var\(--mixed\)', drawn(rows))
    x = [float(mark[0]) for mark in marks][-3:]
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=1e-3)
    assert x[1] > x[0]


def test_a_refused_number_is_a_word_and_no_point():
    refused = replace(ROW, status="refused", estimate=None, low=None, high=None)
    svg = drawn([ForestRow("knowledge", "knowledge", ROW), ForestRow("reasoning", "reasoning", refused)])
    assert ">refused<" in svg
    assert "var(--reasoning)" not in svg
    assert drawn([ForestRow("reasoning", "reasoning", refused)]) is None


def test_an_open_or_endless_interval_is_drawn():
    rows = [
        ForestRow("open", "knowledge", replace(ROW, high=None)),
        ForestRow("wide", "knowledge", replace(ROW, low=-90.0, high=90.0)),
        ForestRow("none", "knowledge", replace(ROW, low=None, high=None)),
    ]
    ElementTree.fromstring(drawn(rows))


def test_hostile_labels_stay_text():
    svg = drawn([ForestRow(HOSTILE, "knowledge", ROW)])
    root = ElementTree.fromstring(svg)
    assert not [element for element in root.iter() if element.tag == "script"]
    assert "</svg><" in "".join(root.itertext())


def accuracies(bins, model="s", covariate="x_depth"):
    return [
        EstimateView("accuracy", "slice", f"a: b: {covariate}={name}", model, estimate=0.5, low=0.4, high=0.6)
        for name in bins
    ]


def test_slices_are_ordered_by_number():
    rows = accuracies(["10", "2", "1"]) + accuracies(["10", "2"], model="t")
    (slices,) = slices_of(rows, ["t", "s"], {"a: b": "reasoning"})
    assert slices.task == "a: b"
    assert slices.covariate == "depth"
    assert slices.bins == ("1", "2", "10")
    assert slices.capability == "reasoning"
    assert slices.accuracy["t"][0] is None
    panel = draw_slices(slices, prefix="p", teacher="t", bases=[], students=["s"])
    assert "var(--reasoning)" in panel
    assert "var(--ink)" in panel


def test_a_single_bin_is_no_slice():
    assert slices_of(accuracies(["1"]), ["s"], {}) == []

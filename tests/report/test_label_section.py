"""The section on labels: what it counts, what it shows of the classifier, what hostile text does to it."""

import json

import numpy as np
import pandas as pd
import pytest

from capgap.analysis import estimate_table
from capgap.report import write_report
from tests.analysis import worlds

RELIABILITY = {
    "auroc": 0.975,
    "ece": 0.031,
    "reliability": [{"p": 0.05, "share": 0.04, "n": 3.0}, {"p": 0.93, "share": 0.97, "n": 4.0}],
}


def _labels(items, **columns):
    reasons = items["task"].str.startswith("reasoning")
    evidence = {
        "reasons": [{"words": "4 quantities <b>&", "weight": 1.2}],
        "models": [],
        "task": {"low": 0.6, "high": 0.9},
    }
    return items.assign(
        capability=np.where(reasons, "reasoning", "knowledge"),
        p_reasoning=np.where(reasons, 0.9, 0.2),
        conf_low=0.1,
        conf_high=0.95,
        source="text",
        evidence=json.dumps(evidence),
        **columns,
    )


@pytest.fixture(scope="module")
def world():
    found = worlds.outcomes()
    return found.assign(capability=found["capability"].where(found["task"].str[-1] != "0", None))


def _page(world, labels, path, run=None):
    estimates = estimate_table(world, worlds.ROLES, labels=labels)
    page = write_report(
        path / "r.html", outcomes=world, estimates=estimates, roles=worlds.ROLES, run=run or {}, labels=labels
    )
    return estimates, page.read_text()


def test_what_nobody_declared_is_counted_shown_and_marked(world, tmp_path):
    items = world[["task", "item"]].drop_duplicates()
    estimates, page = _page(world, _labels(items), tmp_path, {"classifier": RELIABILITY})
    undeclared = items["task"].isin(["knowledge0", "reasoning0"]).sum()
    assert f"{undeclared:,} of {len(items):,} items declare no capability" in page
    assert 'id="labels"' in page
    assert "Reliability of the classifier: of 5 % belief 4 % are reasoning; of 93 % belief 97 % are reasoning" in page
    assert "Area under the ROC curve 0.975" in page
    assert "4 quantities &lt;b&gt;&amp;" in page
    assert "<b>&" not in page
    gaps = estimates[(estimates["quantity"] == "gap") & (estimates["level"] == "capability")]
    knowledge = items["task"].str.startswith("knowledge").sum()
    told = f"labels of 40 of {knowledge} items were not declared"
    assert gaps[gaps["group"] == "knowledge"]["note"].str.contains(told).all()
    contrast = estimates[estimates["quantity"] == "capability_contrast"]
    assert contrast["note"].str.contains(f"labels of 80 of {len(items)} items were not declared").all()
    tasks = estimates[estimates["level"] == "task"]
    assert not tasks["note"].fillna("").str.contains("classifier").any()


def test_a_battery_that_declares_everything_says_so_in_one_line(tmp_path):
    world = worlds.outcomes()
    items = world[["task", "item"]].drop_duplicates()
    estimates, page = _page(world, _labels(items), tmp_path)
    assert f"All {len(items):,} items declare what they ask for." in page
    assert not estimates["note"].fillna("").str.contains("classifier").any()


@pytest.mark.parametrize("evidence", ["{", "[1]", '{"reasons": 3, "models": "x", "task": {"low": "a"}}', None])
def test_evidence_of_any_form_leaves_a_page(world, tmp_path, evidence):
    items = world[["task", "item"]].drop_duplicates()
    labels = _labels(items).assign(evidence=evidence, p_reasoning=np.nan, conf_low=np.nan, source=None)
    _, page = _page(world, labels, tmp_path, {"classifier": {"reliability": [{"p": 7}, 3], "auroc": "high"}})
    assert "items declare no capability" in page
    assert "Reliability of the classifier" not in page


def test_drawn_labels_stand_beside_labels_as_they_are(world, tmp_path):
    items = world[["task", "item"]].drop_duplicates()
    _, page = _page(world, _labels(items), tmp_path)
    assert "With labels as they are, then with labels drawn by their doubt" in page
    assert "doubt of labels" in page


def test_no_labels_no_section(tmp_path):
    world = worlds.outcomes()
    estimates = estimate_table(world, worlds.ROLES)
    page = write_report(tmp_path / "r.html", outcomes=world, estimates=estimates, roles=worlds.ROLES, run={})
    assert 'id="labels"' not in page.read_text()
    assert isinstance(estimates, pd.DataFrame)

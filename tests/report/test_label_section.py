"""The section on labels: what it counts, what it shows of the classifier, what hostile text does to it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from capgap.schema import ESTIMATES, empty
from capgap.schema.remarks import Reason
from tests.analysis import worlds
from tests.report.conftest import analysed, labels_of, page_of
from tests.report.fixture import Comparison

RELIABILITY = {
    "auroc": 0.975,
    "ece": 0.031,
    "reliability": [{"p": 0.05, "share": 0.04, "n": 3.0}, {"p": 0.93, "share": 0.97, "n": 4.0}],
}


@pytest.fixture(scope="module")
def page(labelled, tmp_path_factory):
    return page_of(tmp_path_factory.mktemp("labelled"), labelled, run={"classifier": RELIABILITY})


def test_what_nobody_declared_is_counted_shown_and_marked(labelled, page):
    items = labelled.outcomes[["task", "item"]].drop_duplicates()
    n_undeclared = items["task"].isin(["knowledge0", "reasoning0"]).sum()
    assert f"{n_undeclared:,} of {len(items):,} items declare no capability" in page
    assert 'id="labels"' in page
    assert "Reliability of the classifier: of 5 % belief 4 % are reasoning; of 93 % belief 97 % are reasoning" in page
    assert "Area under the ROC curve 0.975" in page
    assert "4 quantities &lt;b&gt;&amp;" in page
    assert "<b>&" not in page


def test_numbers_that_rest_on_undeclared_labels_carry_the_code(labelled):
    marked = labelled.estimates[labelled.estimates["reason"] == Reason.UNDECLARED_LABELS]
    assert {"knowledge", "reasoning"} <= set(marked["group"])
    assert set(marked["level"]) == {"capability", "battery"}
    assert set(marked.loc[marked["level"] == "battery", "quantity"]) == {"capability_contrast"}


def test_a_battery_that_declares_everything_says_so_in_one_line(tmp_path):
    world = worlds.outcomes()
    labels = labels_of(world[["task", "item"]].drop_duplicates())
    case = analysed(Comparison(world, empty(ESTIMATES), worlds.ROLES, labels=labels))
    page = page_of(tmp_path, case)
    assert f"All {len(labels):,} items declare what they ask for." in page
    assert not (case.estimates["estimator"] == "multiple_imputation").any()


@pytest.mark.parametrize("evidence", ["{", "[1]", '{"reasons": 3, "models": "x", "task": {"low": "a"}}', None])
def test_evidence_of_any_form_leaves_a_page(labelled, tmp_path, evidence):
    labels = labelled.labels.assign(evidence=evidence, p_reasoning=np.nan, conf_low=np.nan, source=None)
    run = {"classifier": {"reliability": [{"p": 7}, 3], "auroc": "high"}}
    page = page_of(tmp_path, labelled, labels=labels, run=run)
    assert "items declare no capability" in page
    assert "Reliability of the classifier" not in page


def test_numbers_over_draws_of_the_labels_stand_beside_labels_as_they_are(labelled, page):
    imputed = labelled.estimates[labelled.estimates["estimator"] == "multiple_imputation"]
    shares = imputed["factors"].dropna()
    assert len(shares)
    assert "With labels as they are, then over draws of the labels" in page
    for factors in shares:
        assert f'<td class="n">{100 * json.loads(factors)["label_variance_share"]:.0f}\u202f%</td>' in page


def test_no_labels_no_section(labelled, tmp_path):
    assert 'id="labels"' not in page_of(tmp_path, replace(labelled, labels=None))

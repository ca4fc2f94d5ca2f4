"""Pages and analysed tables that several tests read; each is made once a session and never changed."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from capgap.analysis import estimate_table
from capgap.report import write_report
from capgap.schema import ESTIMATES, Roles, empty
from tests.analysis import worlds
from tests.analysis.cohorts import cohort
from tests.report.fixture import TASKS, Comparison, comparison
from tests.sharing import once_a_run

SMALL = (TASKS[0], TASKS[3], TASKS[6])


def page_of(path: Path, case: Comparison, **changes) -> str:
    """The page of a comparison, written into a folder."""
    return write_report(path / "report.html", **case.arguments(**changes)).read_text(encoding="utf-8")


def labels_of(items: pd.DataFrame, **columns) -> pd.DataFrame:
    """A labels table by text for every item, tasks of reasoning at 0.9."""
    reasoning = items["task"].str.startswith("reasoning")
    evidence = {
        "reasons": [{"words": "4 quantities <b>&", "weight": 1.2}],
        "models": [],
        "task": {"low": 0.6, "high": 0.9},
    }
    return items.assign(
        capability=np.where(reasoning, "reasoning", "knowledge"),
        p_reasoning=np.where(reasoning, 0.9, 0.2),
        conf_low=0.1,
        conf_high=0.95,
        source="text",
        evidence=json.dumps(evidence),
        **columns,
    )


def analysed(case: Comparison) -> Comparison:
    """The comparison with estimates by the analysis."""
    estimates = estimate_table(case.outcomes, case.roles, models=case.models, labels=case.labels, items=case.items)
    return replace(case, estimates=estimates)


def undeclared(outcomes: pd.DataFrame, roles: Roles, *tasks: str, models: pd.DataFrame | None = None) -> Comparison:
    """A comparison, analysed, in which some tasks declare no capability and every item has a label."""
    hidden = outcomes.assign(capability=outcomes["capability"].where(~outcomes["task"].isin(tasks), None))
    labels = labels_of(outcomes[["task", "item"]].drop_duplicates())
    return analysed(Comparison(hidden, empty(ESTIMATES), roles, models=models, labels=labels))


@pytest.fixture(scope="session")
def case() -> Comparison:
    """One student with teacher, base and control on three tasks; the estimates are invented."""
    return comparison(tasks=SMALL, n_items=24)


@pytest.fixture(scope="session")
def html(case, tmp_path_factory) -> str:
    """Its page."""
    return page_of(tmp_path_factory.mktemp("report"), case)


@pytest.fixture(scope="session")
def single() -> Comparison:
    """One student with every role on seven tasks, analysed."""
    return analysed(comparison(n_items=32))


@pytest.fixture(scope="session")
def labelled() -> Comparison:
    """One student in a world where two of six tasks declare no capability, analysed."""
    return undeclared(worlds.outcomes(), worlds.ROLES, "knowledge0", "reasoning0")


@pytest.fixture(scope="session")
def cohort36() -> Comparison:
    """Thirty-six students of twelve recipes with their models table, two of twelve tasks undeclared, analysed."""

    def case() -> Comparison:
        outcomes, models, roles = cohort(n_items=16, depth=False)
        return undeclared(outcomes, roles, "knowledge0", "reasoning1", models=models)

    return once_a_run("cohort36", case)

"""Labels that nobody declared: which numbers rest on them, and what their doubt does to these.

Labels are drawn, everything by capability is fitted anew, and Rubin's rules put the spread of the draws into intervals.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from capgap import schema
from capgap.analysis.analysis_sets import AnalysisSets
from capgap.analysis.capability_contrast import capability_contrast_rows
from capgap.analysis.cohort import Cohort
from capgap.analysis.effects import effect_rows
from capgap.analysis.estimate_rows import TASKS_LIKE_THESE, EstimateRow
from capgap.analysis.groups import groups_at
from capgap.analysis.score_matrix import ScoreMatrix
from capgap.analysis.student_estimates import RoleComparison, difference_rows, ratio_rows
from capgap.errors import EstimationError
from capgap.stats import Estimate, over_labels
from capgap.stats.estimate import free_text

__all__ = ["N_LABEL_DRAWS", "label_uncertainty_rows", "flag_undeclared_labels"]

N_LABEL_DRAWS = 20
"""Of the labels."""
_CONTRASTED = ("knowledge", "reasoning")
_ACROSS = ("capability_contrast", "effect_difference", "relative_data_cost")
"""Quantities that set one capability against the other."""


def flag_undeclared_labels(
    table: pd.DataFrame, outcomes: pd.DataFrame, undeclared: set[tuple[str, str]]
) -> pd.DataFrame:
    """The estimates, with a note on every number by capability that rests on labels which nobody declared.

    Parameters
    ----------
    table
        Estimates.
    outcomes
        With the labels joined and task names as they came.
    undeclared
        See `schema.undeclared_items`; of those only what the labels gave a capability is counted.
    """
    items = outcomes[outcomes["capability"].notna()].drop_duplicates(["task", "item"])
    keys = zip(items["task"].astype(str), items["item"].astype(str), strict=True)
    inferred = pd.Series([key in undeclared for key in keys], index=items.index, dtype=bool)
    if not inferred.any():
        return table
    counts = inferred.groupby(items["capability"].astype(str)).agg(["sum", "size"])
    told = {name: _undeclared(n, of) for name, n, of in counts.itertuples() if n}
    notes = table["group"].map(told).where(table["level"] == "capability")
    n, of = counts.loc[counts.index.isin(_CONTRASTED)].sum()
    if n:
        notes = notes.where(~table["quantity"].isin(_ACROSS), _undeclared(n, of))
    remarks = [
        (*old, *free_text(new)) if isinstance(new, str) else old
        for old, new in zip(table["remarks"], notes, strict=True)
    ]
    return table.assign(remarks=pd.Series(remarks, index=table.index, dtype=object))


def _undeclared(n: int, of: int) -> str:
    return f"labels of {n:,} of {of:,} items were not declared"


def label_uncertainty_rows(
    grid: ScoreMatrix,
    undeclared: set[tuple[str, str]],
    labels: pd.DataFrame | None,
    roles: schema.Roles,
    cohort: Cohort,
    excluded: frozenset[str],
    *,
    prompting: Mapping[str, str],
    conf_level: float,
) -> Iterator[EstimateRow]:
    """Numbers by capability with the doubt about the labels in their intervals; by multiple imputation.

    Of each student its numbers by capability and the contrasts; of several what made them better. Data costs are not
    drawn: their ends are open where a law says *never*, and Rubin's rules know no such interval.

    Parameters
    ----------
    grid
        Everybody's outcomes, labels taken as certain.
    undeclared
        Task and item of what declares no capability of its own.
    labels
        A `labels` table; where it has no `p_reasoning` between 0 and 1 there is no row.
    roles, cohort
        Who is who, and how students were made.
    excluded
        Tasks that the guard keeps out.
    prompting
        Model → how it was prompted.
    conf_level
        Of the intervals.
    """
    p = _uncertain_probabilities(grid, undeclared, labels)
    unsure = np.flatnonzero(np.isfinite(p))
    if not len(unsure):
        return

    def redrawn(drawn: NDArray[np.bool_]) -> ScoreMatrix:
        capability = grid.facts["capability"].copy()
        capability[unsure] = np.where(drawn, "reasoning", "knowledge")
        return replace(grid, facts={**grid.facts, "capability": capability})

    def of_student(drawn: NDArray[np.bool_], student: str) -> Iterator[EstimateRow]:
        again = redrawn(drawn)
        comparison = RoleComparison.of(AnalysisSets(again), student, roles, conf_level=conf_level, prompting=prompting)
        groups = list(groups_at(again, "capability", excluded))
        yield from capability_contrast_rows(comparison, excluded)
        yield from difference_rows(comparison, groups)
        yield from ratio_rows(comparison, groups)

    def of_cohort(drawn: NDArray[np.bool_]) -> Iterator[EstimateRow]:
        found = effect_rows(redrawn(drawn), cohort, excluded, conf_level=conf_level, roads=False)
        yield from (row for row in found if row.quantity in ("effect", "effect_difference"))

    asked: list[Callable[[NDArray[np.bool_]], Iterator[EstimateRow]]] = [
        partial(of_student, student=student) for student in roles.students
    ]
    for question in [*(asked if roles.teacher is not None else []), of_cohort]:
        yield from _over_draws(question, p[unsure], grid.task[unsure], conf_level)


def _over_draws(
    question: Callable[[NDArray[np.bool_]], Iterator[EstimateRow]],
    p: NDArray[np.float64],
    tasks: NDArray[np.int64],
    conf_level: float,
) -> Iterator[EstimateRow]:
    """The rows of a question, each number pooled over draws of the labels."""
    patterns: dict[str, EstimateRow] = {}

    def numbers(drawn: NDArray[np.bool_]) -> dict[str, Estimate]:
        found = {}
        for row in question(drawn):
            if row.weighting == "tasks" and row.population != TASKS_LIKE_THESE:
                name = str((row.quantity, row.level, row.group, row.contrast, row.factors))
                patterns[name], found[name] = row, row.estimate
        return found

    try:
        combined = over_labels(
            numbers, p, tasks, rng=np.random.default_rng(0), n_draws=N_LABEL_DRAWS, conf_level=conf_level
        )
    except EstimationError:
        return  # no draw gave any number: the plain rows say why
    for name, one in combined.items():
        share = f"labels make {100 * one.label_share:.0f} % of the variance" if one.label_share >= 0 else ""
        told = f"{N_LABEL_DRAWS} draws of the labels of {len(p)} items"
        row = patterns[name]
        share_of_variance = (("label_variance_share", round(one.label_share, 6)),) if one.label_share >= 0 else ()
        yield replace(
            row,
            estimate=one.estimate.noting(told, share),
            factors=(*row.factors, *share_of_variance),
            estimator="multiple_imputation",
        )


def _uncertain_probabilities(
    grid: ScoreMatrix, undeclared: set[tuple[str, str]], labels: pd.DataFrame | None
) -> NDArray[np.float64]:
    """The probability of reasoning of each cell whose label is in doubt; NaN for the others, shape (cells,)."""
    p = np.full(len(grid.task), np.nan)
    if labels is None or "p_reasoning" not in labels.columns:
        return p
    rows = zip(labels["task"].astype(str), labels["item"].astype(str), labels["p_reasoning"], strict=True)
    known = {(task, item): float(value) for task, item, value in rows if pd.notna(value) and 0 < value < 1}
    for cell, code in enumerate(grid.task):
        battery = str(grid.facts["battery"][cell])
        key = (grid.tasks[code].removeprefix(f"{battery}/"), str(grid.items[cell]))
        if key in undeclared:
            p[cell] = known.get(key, np.nan)
    return p

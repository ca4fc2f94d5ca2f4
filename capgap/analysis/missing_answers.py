"""Missing answers: which cells a comparison could rest on, what each model lacks of them, and what that shifts.

An answer is **missing** where one of the compared models was asked an item, another was not or has no score, and every
one of them answered something of the task. A task that one of them was not asked at all, and items that none of them
was asked (another limit, another seed for all), are left out by design: nobody is missing there. Whether a smaller
sample of one model alone was drawn or lost cannot be told from a table, and it counts as missing.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from capgap.analysis.analysis_sets import AnalysisSet
from capgap.analysis.estimate_rows import THESE_TASKS, EstimateRow
from capgap.analysis.groups import ItemGroup
from capgap.analysis.score_matrix import Ints, ScoreMatrix
from capgap.analysis.student_estimates import RoleComparison
from capgap.schema.quantities import QUANTITIES
from capgap.stats import subset_shift

__all__ = ["common_items_shift_rows", "comparable_cells"]


def comparable_cells(grid: ScoreMatrix, models: Sequence[str]) -> NDArray[np.bool_]:
    """Cells that any of some models was asked, in tasks of which each answered something, shape (cells,)."""
    columns = [grid.column(model) for model in models]
    is_asked = grid.is_asked[:, columns]
    answered = np.isfinite(grid.scores[:, columns])
    n_answered = np.column_stack([np.bincount(grid.task, column, len(grid.tasks)) for column in answered.T])
    is_answered_by_all: NDArray[np.bool_] = np.asarray((n_answered > 0).all(axis=1))
    return np.asarray(is_asked.any(axis=1) & is_answered_by_all[grid.task])


def common_items_shift_rows(comparison: RoleComparison, item_groups: Iterable[ItemGroup]) -> Iterator[EstimateRow]:
    """`common_items_shift` of teacher and base, where they answered items that not all of the compared models did."""
    references = [role for role in ("teacher", "base") if role in comparison.roles]
    models = [comparison.roles[role] for role in ("student", *references)]
    grid = comparison.grid
    comparable = comparable_cells(grid, models)
    scored_by_all = np.asarray(np.isfinite(np.column_stack([grid.of(model) for model in models])).all(axis=1))
    for group in item_groups:
        if group.level not in QUANTITIES["common_items_shift"].levels or not references:
            continue
        rows = group.rows[comparable[group.rows]]
        rows, common = _drop_tasks_without_common_cells(grid, rows, scored_by_all[rows])
        for role in references:
            scores = grid.of(comparison.roles[role])[rows]
            answered = np.isfinite(scores)
            if not common.any() or common[answered].all():
                continue
            subset = AnalysisSet.of(grid, rows[answered], "tasks", THESE_TASKS)
            shift = subset_shift(scores[answered], common[answered], subset.design, conf_level=comparison.conf_level)
            yield EstimateRow(
                "common_items_shift",
                group.level,
                group.name,
                comparison.student,
                replace(shift, n_items=subset.n_items),
                subset.n_tasks,
                contrast=role,
                roles=comparison.list_role_models("student", *references),
                weighting="tasks",
            )


def _drop_tasks_without_common_cells(
    grid: ScoreMatrix, rows: Ints, common: NDArray[np.bool_]
) -> tuple[Ints, NDArray[np.bool_]]:
    has_common = np.bincount(grid.task[rows], common, len(grid.tasks)) > 0
    in_common_task = has_common[grid.task[rows]]
    return rows[in_common_task], common[in_common_task]

"""Inverted tasks: where the teacher is below the base, closures of all that holds the task come out larger."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from capgap.analysis.estimate_rows import EstimateRow
from capgap.analysis.groups import ItemGroup
from capgap.analysis.student_estimates import CLOSURE, ROOM, RoleComparison
from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats import Estimate

__all__ = ["rows_without_inverted_tasks"]


def rows_without_inverted_tasks(comparison: RoleComparison, item_groups: Iterable[ItemGroup]) -> Iterator[EstimateRow]:
    """`gap_closure` without its inverted tasks, in every group over tasks that holds one.

    A task is inverted where the interval of teacher - base lies below zero. Its items subtract from what there was to
    learn, so that the closure of the others counts for more. Each row holds the remark that its plain row must have.
    """
    if not comparison.has_roles_for(CLOSURE.quantity):
        return
    groups = list(item_groups)
    inverted = _inverted_tasks(comparison, groups)
    if not inverted:
        return
    grid = comparison.grid
    is_inverted = np.array([task in inverted for task in grid.tasks])[grid.task]
    models = [comparison.roles[role] for role in CLOSURE.roles]
    for group in groups:
        tasks = [grid.tasks[code] for code in np.unique(grid.task[group.rows[is_inverted[group.rows]]])]
        if not group.spans_tasks or not tasks:
            continue
        common = comparison.subsets.select(group.rows, models, student=comparison.student)
        if common.refusal(CLOSURE.roles):
            continue
        rows = common.rows[~is_inverted[common.rows]]
        blank = EstimateRow(
            CLOSURE.quantity,
            group.level,
            group.name,
            comparison.student,
            Estimate(status="refused", remarks=(remark(Reason.TEACHER_BELOW_BASE_ALONE, tasks=tasks),)),
            0,
            contrast=CLOSURE.contrast,
            roles=comparison.list_role_models(*CLOSURE.roles),
            factors=(("inverted_tasks", tasks),),
            scale=CLOSURE.scale,
            weighting="tasks",
            estimator="without_inverted_tasks",
        )
        if not len(rows):
            yield blank
        for subset in comparison.subsets.of(group, rows):
            estimate = CLOSURE.estimate(comparison, subset)
            yield replace(
                blank,
                estimate=estimate.noting(_explain(estimate, tasks)),
                n_tasks=subset.n_tasks,
                weighting=subset.weighting,
                population=subset.population,
            )


def _inverted_tasks(comparison: RoleComparison, groups: Iterable[ItemGroup]) -> set[str]:
    models = [comparison.roles[role] for role in ROOM.roles]
    inverted = set()
    for group in groups:
        common = comparison.subsets.select(group.rows, models, student=comparison.student)
        if group.level != "task" or common.refusal(ROOM.roles):
            continue
        (subset,) = comparison.subsets.of(group, common.rows)
        if ROOM.estimate(comparison, subset).conf_high < 0:
            inverted.add(group.name)
    return inverted


def _explain(without: Estimate, tasks: list[str]) -> Remark:
    if without.status == "refused":
        return remark(Reason.TEACHER_BELOW_BASE_ALONE, tasks=tasks)
    figures = {"value": without.estimate, "low": without.conf_low, "high": without.conf_high}
    return remark(Reason.TEACHER_BELOW_BASE, tasks=tasks, **figures)

"""Agreement with the teacher, fidelity beyond chance, and inherited errors of one student."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from capgap.analysis.analysis_sets import MIN_COMMON_SHARE, AnalysisSet
from capgap.analysis.estimate_rows import EstimateRow
from capgap.analysis.groups import ItemGroup
from capgap.analysis.score_matrix import UNREADABLE_ANSWER, UNRECORDED_ANSWER, Floats, Ints
from capgap.analysis.student_estimates import RoleComparison, paired_rows
from capgap.schema.remarks import Reason, remark
from capgap.stats import (
    Estimate,
    accuracy,
    collision_rate,
    error_inheritance,
    expected_agreement,
    fidelity,
    paired_difference,
    refused,
)


def fidelity_rows(comparison: RoleComparison, item_groups: Iterable[ItemGroup]) -> Iterator[EstimateRow]:
    """`agreement`, `fidelity` and `error_inheritance` in every group, where there is a teacher."""
    if not comparison.has_roles_for("agreement"):
        return
    roles = ("teacher", "student")
    for group in item_groups:
        cache: dict[int, tuple[Estimate, Estimate]] = {}

        def estimator(subset: AnalysisSet, which: int, cache: dict[int, tuple[Estimate, Estimate]] = cache) -> Estimate:
            # Analysis sets live as long as the comparison: both quantities meet the same ones.
            if id(subset) not in cache:
                cache[id(subset)] = _estimate_agreement(comparison, subset)
            return cache[id(subset)][which]

        yield from paired_rows(comparison, group, "agreement", "student = teacher", roles, partial(estimator, which=0))
        yield from paired_rows(
            comparison, group, "fidelity", "agreement - expected", roles, partial(estimator, which=1)
        )
        yield from _error_inheritance_rows(comparison, group)


def _read_answer_codes(comparison: RoleComparison, role: str, rows: Ints) -> Ints:
    grid = comparison.grid
    return np.asarray(grid.predictions[rows, grid.column(comparison.roles[role])])


def _estimate_agreement(comparison: RoleComparison, subset: AnalysisSet) -> tuple[Estimate, Estimate]:
    """Agreement and its excess over what independent answers would give, on cells whose answers were recorded."""
    teacher, student = (_read_answer_codes(comparison, role, subset.rows) for role in ("teacher", "student"))
    is_answer_recorded = (teacher != UNRECORDED_ANSWER) & (student != UNRECORDED_ANSWER)
    if is_answer_recorded.mean() < MIN_COMMON_SHARE:
        return (_refuse_unrecorded(is_answer_recorded, subset),) * 2
    subset = subset.filter_rows(comparison.grid, is_answer_recorded)
    teacher, student = teacher[is_answer_recorded], student[is_answer_recorded]
    teacher_score, student_score = (comparison.score(role, subset) for role in ("teacher", "student"))
    match = ((teacher == student) & (teacher != UNREADABLE_ANSWER)).astype(float)
    collision = _estimate_collisions(comparison, subset, teacher, student, teacher_score, student_score)
    if subset.tasks_are_units:
        pair = _agreement_of_tasks(comparison, subset, match, collision, teacher_score, student_score)
    else:
        pair = fidelity(teacher_score, student_score, match, collision, subset.design, conf_level=comparison.conf_level)
    remarks = [remark(Reason.FIRST_REPEAT)] if comparison.grid.repeated else []
    if not is_answer_recorded.all():
        remarks.append(remark(Reason.RECORDED_SHARE, share=100 * is_answer_recorded.mean()))
    agreement, excess_agreement = (replace(estimate, n_items=subset.n_items).noting(*remarks) for estimate in pair)
    return agreement, excess_agreement


def _refuse_unrecorded(is_answer_recorded: NDArray[np.bool_], subset: AnalysisSet) -> Estimate:
    shares = {"share": 100 * is_answer_recorded.mean(), "least": 100 * MIN_COMMON_SHARE}
    return refused(remark(Reason.ANSWERS_NOT_RECORDED, **shares), n_items=subset.n_items)


def _agreement_of_tasks(
    comparison: RoleComparison, subset: AnalysisSet, match: Floats, collision: Floats, teacher: Floats, student: Floats
) -> tuple[Estimate, Estimate]:
    """The same with the tasks as units."""
    task_agreement, p, q, c = subset.units(np.column_stack([match, teacher, student, collision])).T
    expected = expected_agreement(p, q, c)
    agreement = accuracy(task_agreement, subset.design, conf_level=comparison.conf_level)
    excess_agreement = paired_difference(task_agreement - expected, subset.design, conf_level=comparison.conf_level)
    return replace(agreement, null_value=float(expected.mean()), p_value=excess_agreement.p_value), excess_agreement


def _estimate_collisions(
    comparison: RoleComparison,
    subset: AnalysisSet,
    teacher: Ints,
    student: Ints,
    teacher_score: Floats,
    student_score: Floats,
) -> Floats:
    """How likely two wrong answers coincide by chance: among k - 1 wrong choices, else as wrong answers were seen."""
    chance = comparison.grid.chance[subset.rows]
    chosen = (comparison.grid.facts["format"][subset.rows] != "generate") & (chance > 0) & (chance <= 0.5)
    # Of k choices chance is 1 / k: two wrong answers coincide with probability 1 / (k - 1).
    probability = np.where(chosen, chance / np.where(chosen, 1 - chance, 1.0), 0.0)
    for code in np.unique(subset.strata[~chosen]):
        is_generated_in_task = (subset.strata == code) & ~chosen
        wrong_answers = [
            answers[is_generated_in_task & (score < 0.5) & (answers >= 0)]
            for answers, score in ((teacher, teacher_score), (student, student_score))
        ]
        rate = collision_rate(wrong_answers[0], wrong_answers[1])
        probability[is_generated_in_task] = 0.0 if np.isnan(rate) else rate
    return probability


def _error_inheritance_rows(comparison: RoleComparison, group: ItemGroup) -> Iterator[EstimateRow]:
    roles = tuple(role for role in ("teacher", "student", "control") if role in comparison.roles)

    def estimator(subset: AnalysisSet) -> Estimate:
        answers = {role: _read_answer_codes(comparison, role, subset.rows) for role in roles}
        is_answer_recorded = np.logical_and.reduce([answer != UNRECORDED_ANSWER for answer in answers.values()])
        if is_answer_recorded.mean() < MIN_COMMON_SHARE:
            return _refuse_unrecorded(is_answer_recorded, subset)
        teacher_is_wrong = is_answer_recorded & (answers["teacher"] >= 0) & (comparison.score("teacher", subset) < 0.5)
        # Pooled over items where items count: a task in which the teacher errs once is no stratum of its own.
        inheritance = error_inheritance(
            answers["teacher"],
            answers["student"],
            answers.get("control"),
            teacher_is_wrong,
            subset.clusters,
            tasks=subset.strata if subset.weighting == "tasks" else None,
            conf_level=comparison.conf_level,
        )
        if inheritance.student.status == "refused":
            return inheritance.student
        used_rows = subset.rows[inheritance.used]
        estimate = replace(inheritance.student, n_items=len(np.unique(comparison.grid.item[used_rows])))
        n_tasks = len(np.unique(comparison.grid.task[used_rows]))
        if subset.weighting == "tasks" and n_tasks < subset.n_tasks:
            estimate = estimate.noting(remark(Reason.TASKS_WITH_ERRORS, n=n_tasks, of=subset.n_tasks))
        if "control" not in roles:
            return estimate
        return replace(estimate, null_value=inheritance.control.estimate, p_value=inheritance.difference.p_value)

    # Tasks like these are not spoken of: a task's share of inherited errors hangs on how often its teacher errs.
    group = group.of_these_tasks()
    contrast = "P(teacher's wrong answer | teacher wrong)"
    yield from paired_rows(comparison, group, "error_inheritance", contrast, roles, estimator)

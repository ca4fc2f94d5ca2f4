"""Does the student give the teacher's answers? Agreement, fidelity, inherited errors."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from capgap.analysis.analysis_sets import MIN_COMMON_SHARE, AnalysisSet
from capgap.analysis.estimate_rows import EstimateRow
from capgap.analysis.groups import ItemGroup
from capgap.analysis.score_matrix import NO_ANSWER, UNKNOWN
from capgap.analysis.student_estimates import RoleComparison, paired_rows
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

__all__ = ["fidelity_rows"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def fidelity_rows(comparison: RoleComparison, groups: Iterable[ItemGroup]) -> Iterator[EstimateRow]:
    """`agreement`, `fidelity` and `error_inheritance` in every group, where there is a teacher."""
    if not comparison.has("teacher"):
        return
    roles = ("teacher", "student")
    for group in groups:
        found: dict[int, tuple[Estimate, Estimate]] = {}

        def number(cut: AnalysisSet, which: int, found: dict[int, tuple[Estimate, Estimate]] = found) -> Estimate:
            if id(cut) not in found:  # cuts live as long as the comparison: both quantities meet the same ones
                found[id(cut)] = _agreement(comparison, cut)
            return found[id(cut)][which]

        yield from paired_rows(comparison, group, "agreement", "student = teacher", roles, partial(number, which=0))
        yield from paired_rows(comparison, group, "fidelity", "agreement - expected", roles, partial(number, which=1))
        yield from _inheritance(comparison, group)


def _answers(comparison: RoleComparison, role: str, rows: Ints) -> Ints:
    grid = comparison.grid
    return np.asarray(grid.predictions[rows, grid.column(comparison.roles[role])])


def _agreement(comparison: RoleComparison, cut: AnalysisSet) -> tuple[Estimate, Estimate]:
    """Agreement and its excess over what independent answers would give, on cells whose answers were recorded."""
    teacher, student = (_answers(comparison, role, cut.rows) for role in ("teacher", "student"))
    recorded = (teacher != UNKNOWN) & (student != UNKNOWN)
    if recorded.mean() < MIN_COMMON_SHARE:
        return (refused(_unrecorded(recorded), n_items=cut.n_items),) * 2
    cut = _narrow(comparison, cut, recorded)
    teacher, student = teacher[recorded], student[recorded]
    scores = [comparison.score(role, cut) for role in ("teacher", "student")]
    same = ((teacher == student) & (teacher != NO_ANSWER)).astype(float)
    collision = _collisions(comparison, cut, teacher, student, *scores)
    if cut.like_these:
        pair = _agreement_of_tasks(comparison, cut, same, collision, *scores)
    else:
        pair = fidelity(
            scores[0],
            scores[1],
            same,
            collision,
            cut.design,
            conf_level=comparison.conf_level,
        )
    notes = ["answers of the first repeat"] if comparison.grid.repeated else []
    if not recorded.all():
        notes.append(f"both answers recorded: {100 * recorded.mean():.1f} %")
    one, two = (replace(e, n_items=cut.n_items).noting(*notes) for e in pair)
    return one, two


def _unrecorded(recorded: NDArray[np.bool_]) -> str:
    return f"the answers were recorded for {100 * recorded.mean():.0f} % of the items only (60 % are needed)"


def _agreement_of_tasks(
    comparison: RoleComparison, cut: AnalysisSet, same: Floats, collision: Floats, teacher: Floats, student: Floats
) -> tuple[Estimate, Estimate]:
    """The same with the tasks as units."""
    agree, p, q, c = cut.units(np.column_stack([same, teacher, student, collision])).T
    expected = expected_agreement(p, q, c)
    agreement = accuracy(agree, cut.design, conf_level=comparison.conf_level)
    excess = paired_difference(agree - expected, cut.design, conf_level=comparison.conf_level)
    return replace(agreement, null_value=float(expected.mean()), p_value=excess.p_value), excess


def _collisions(
    comparison: RoleComparison,
    cut: AnalysisSet,
    teacher: Ints,
    student: Ints,
    teacher_score: Floats,
    student_score: Floats,
) -> Floats:
    """How likely two wrong answers coincide by chance: among k - 1 wrong choices, else as wrong answers were seen."""
    chance = comparison.grid.chance[cut.rows]
    chosen = (comparison.grid.facts["format"][cut.rows] != "generate") & (chance > 0) & (chance <= 0.5)
    out = np.where(chosen, chance / np.where(chosen, 1 - chance, 1.0), 0.0)
    for code in np.unique(cut.strata[~chosen]):
        inside = (cut.strata == code) & ~chosen
        wrong = [
            answers[inside & (score < 0.5) & (answers >= 0)]
            for answers, score in ((teacher, teacher_score), (student, student_score))
        ]
        rate = collision_rate(wrong[0], wrong[1])
        out[inside] = 0.0 if np.isnan(rate) else rate
    return out


def _inheritance(comparison: RoleComparison, group: ItemGroup) -> Iterator[EstimateRow]:
    roles = ("teacher", "student", "control") if comparison.has("control") else ("teacher", "student")

    def number(cut: AnalysisSet) -> Estimate:
        answers = {role: _answers(comparison, role, cut.rows) for role in roles}
        recorded = np.logical_and.reduce([answer != UNKNOWN for answer in answers.values()])
        if recorded.mean() < MIN_COMMON_SHARE:
            return refused(_unrecorded(recorded), n_items=cut.n_items)
        wrong = recorded & (answers["teacher"] >= 0) & (comparison.score("teacher", cut) < 0.5)
        # Pooled over items where items count: a task in which the teacher errs once is no stratum of its own.
        told = error_inheritance(
            answers["teacher"],
            answers["student"],
            answers.get("control"),
            wrong,
            cut.clusters,
            tasks=cut.strata if cut.weighting == "tasks" else None,
            conf_level=comparison.conf_level,
        )
        if told.student.status == "refused":
            return told.student
        n_items = len(np.unique(comparison.grid.item[cut.rows[told.used]]))
        found = replace(told.student, n_items=n_items).noting(_tasks_note(cut, told.used))
        if "control" not in roles:
            return found
        return replace(found, null_value=told.control.estimate, p_value=told.difference.p_value)

    # Tasks like these are not spoken of: a task's share of inherited errors hangs on how often its teacher errs.
    group = replace(group, generalizes=False)
    contrast = "P(teacher's wrong answer | teacher wrong)"
    yield from paired_rows(comparison, group, "error_inheritance", contrast, roles, number)


def _tasks_note(cut: AnalysisSet, used: Ints) -> str:
    n_used = len(np.unique(cut.strata[used]))
    if cut.weighting != "tasks" or n_used == cut.n_tasks:
        return ""
    return f"{n_used} of {cut.n_tasks} tasks have enough wrong answers of the teacher"


def _narrow(comparison: RoleComparison, cut: AnalysisSet, keep: NDArray[np.bool_]) -> AnalysisSet:
    """The cut without some of its rows."""
    if keep.all():
        return cut
    return AnalysisSet.of(comparison.grid, cut.rows[keep], cut.weighting, cut.population)

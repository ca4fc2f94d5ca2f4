"""Capability contrast: knowledge against reasoning in one number, as closures, gaps or retentions."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from capgap.analysis.analysis_sets import AnalysisSet
from capgap.analysis.estimate_rows import THESE_TASKS, WITH_UNREADABLE_TASKS, EstimateRow
from capgap.analysis.groups import CAPABILITY_DUO, ItemGroup, find_group
from capgap.analysis.score_matrix import Ints, ScoreMatrix
from capgap.analysis.student_estimates import (
    CLOSURE,
    RETENTION,
    RoleComparison,
    chance_unknown,
    stack_closure_terms,
    stack_retention_terms,
)
from capgap.schema.quantities import QUANTITIES
from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats import Design, Estimate, paired_difference, ratio_difference, refused

__all__ = ["capability_contrast_rows"]

_ContrastEstimator = Callable[[RoleComparison, AnalysisSet, AnalysisSet], Estimate]


def capability_contrast_rows(comparison: RoleComparison, excluded: frozenset[str]) -> Iterator[EstimateRow]:
    """`capability_contrast` of one student in every battery that holds knowledge or reasoning."""
    if not comparison.has_roles_for("capability_contrast"):
        return
    for battery in comparison.grid.members("battery"):
        groups = [find_group(comparison.grid, "capability", name, excluded, battery=battery) for name in CAPABILITY_DUO]
        if not any(len(group.rows) or group.set_aside for group in groups):
            continue
        tasks_set_aside = sorted({task for group in groups for task in group.set_aside})
        counted = remark(Reason.UNREADABLE_TASKS_COUNTED, tasks=tasks_set_aside)
        for measure, estimator in _CONTRAST_ESTIMATORS.items():
            if not comparison.has_roles_for(measure):
                continue
            yield from _contrast_rows(comparison, battery, groups, measure, estimator)
            if tasks_set_aside:
                whole_groups = [group.whole for group in groups]
                for row in _contrast_rows(comparison, battery, whole_groups, measure, estimator):
                    if row.weighting == "tasks" and row.population == THESE_TASKS:
                        yield replace(row, estimate=row.estimate.noting(counted), population=WITH_UNREADABLE_TASKS)


def _contrast_rows(
    comparison: RoleComparison, battery: str, groups: list[ItemGroup], measure: str, estimator: _ContrastEstimator
) -> Iterator[EstimateRow]:
    """Rows of one contrast in one battery, one for each weighting and population; `measure` is its code."""
    roles = tuple(role for role in ("teacher", "student", "base") if role in QUANTITIES[measure].roles)
    blank = EstimateRow(
        quantity="capability_contrast",
        level="battery",
        group=battery,
        model=comparison.student,
        estimate=refused(),
        n_tasks=0,
        contrast=measure,
        roles=comparison.list_role_models(*roles),
        scale="score" if measure == "gap" else "ratio",
        weighting="tasks",
    )
    models = [comparison.roles[role] for role in roles]
    selections = [comparison.subsets.select(group.rows, models, student=comparison.student) for group in groups]
    for group, common_cells in zip(groups, selections, strict=True):
        empty = group.remarks or (remark(Reason.NO_CAPABILITY),)
        if refusal := common_cells.refusal(roles) if len(group.rows) else empty:
            yield replace(blank, estimate=refused(*(reason.of(group.name) for reason in refusal)))
            return
    grid = comparison.grid
    remarks: list[Remark] = []
    for group, common_cells in zip(groups, selections, strict=True):
        remarks += [share_remark.of(group.name) for share_remark in common_cells.get_share_remarks(roles)]
    remarks += [exclusion_remark for group in groups for exclusion_remark in group.remarks]
    remarks += comparison.prompting_remarks(*roles)
    remarks += make_format_remarks(grid, *(common_cells.rows for common_cells in selections))
    for group, common_cells in zip(groups, selections, strict=True):
        if np.ptp(grid.task[common_cells.rows]) == 0:
            remarks.append(remark(Reason.SINGLE_TASK, capability=group.name))
    knowledge, reasoning = (
        {(subset.weighting, subset.population): subset for subset in comparison.subsets.of(group, common_cells.rows)}
        for group, common_cells in zip(groups, selections, strict=True)
    )
    for weighting, population in (kind for kind in knowledge if kind in reasoning):
        pair = knowledge[weighting, population], reasoning[weighting, population]
        n_items = sum(subset.n_items for subset in pair)
        yield replace(
            blank,
            estimate=replace(estimator(comparison, *pair), n_items=n_items).noting(*remarks),
            n_tasks=len(np.union1d(pair[0].strata, pair[1].strata)),
            weighting=weighting,
            population=population,
        )


def make_format_remarks(grid: ScoreMatrix, knowledge: Ints, reasoning: Ints) -> list[Remark]:
    """Warnings where format and capability cannot be told apart; none where both have both formats, or unknown ones."""
    format_lists = [sorted({f for f in grid.facts["format"][rows] if f is not None}) for rows in (knowledge, reasoning)]
    if not all(format_lists) or all(len(format_names) > 1 for format_names in format_lists):
        return []
    if format_lists[0] == format_lists[1]:
        return [remark(Reason.ONE_FORMAT, format=format_lists[0][0])]
    single_format_remarks = [
        remark(Reason.ONE_FORMAT_OF_CAPABILITY, format=format_names[0]).of(capability)
        for capability, format_names in zip(CAPABILITY_DUO, format_lists, strict=True)
        if len(format_names) == 1
    ]
    return [remark(Reason.FORMAT_ALIASED), *single_format_remarks]


def _gap_difference(comparison: RoleComparison, knowledge: AnalysisSet, reasoning: AnalysisSet) -> Estimate:
    """Mean gap of the reasoning tasks minus that of the knowledge tasks, one weighted sum over both."""
    values, strata, clusters, weights = [], [], [], []
    for capability_index, (subset, sign) in enumerate(((knowledge, -1.0), (reasoning, 1.0))):
        item_gaps = comparison.score("teacher", subset) - comparison.score("student", subset)
        tasks, k, counts = np.unique(subset.strata, return_inverse=True, return_counts=True)
        if subset.tasks_are_units:
            # The task is the unit; one that holds items of both capabilities is one cluster of two strata.
            values.append(np.bincount(k, item_gaps) / counts)
            strata.append(np.full(len(tasks), capability_index))
            clusters.append(tasks)
            weights.append(np.array([sign]))
        else:
            values.append(item_gaps)
            strata.append(2 * subset.strata + capability_index)  # a task of both capabilities is two strata
            clusters.append(subset.clusters)
            shares = counts / counts.sum() if subset.weighting == "items" else np.full(len(tasks), 1 / len(tasks))
            weights.append(sign * shares)
    # `Design.of` takes weights in the order of sorted stratum codes.
    stratum_codes = np.concatenate([np.unique(s) for s in strata])
    design = Design.of(
        np.concatenate(strata), np.concatenate(clusters), weights=np.concatenate(weights)[np.argsort(stratum_codes)]
    )
    return paired_difference(np.concatenate(values), design, conf_level=comparison.conf_level)


def _closure_difference(comparison: RoleComparison, knowledge: AnalysisSet, reasoning: AnalysisSet) -> Estimate:
    fits = (
        subset.fit(stack_closure_terms(comparison.scores(CLOSURE.roles, subset))) for subset in (knowledge, reasoning)
    )
    return ratio_difference(*fits, names=CAPABILITY_DUO, denominator="teacher − base", conf_level=comparison.conf_level)


def _retention_difference(comparison: RoleComparison, knowledge: AnalysisSet, reasoning: AnalysisSet) -> Estimate:
    fits = []
    for capability, subset in zip(CAPABILITY_DUO, (knowledge, reasoning), strict=True):
        columns = stack_retention_terms(comparison.scores(RETENTION.roles, subset), comparison.grid.chance[subset.rows])
        if refusal := chance_unknown(comparison.grid, subset, columns):
            return refused(*(reason.of(capability) for reason in refusal))
        fits.append(subset.fit(columns))
    return ratio_difference(
        fits[0], fits[1], names=CAPABILITY_DUO, denominator="teacher − chance", conf_level=comparison.conf_level
    )


_CONTRAST_ESTIMATORS: dict[str, _ContrastEstimator] = {
    "gap_closure": _closure_difference,
    "gap": _gap_difference,
    "retention": _retention_difference,
}
"""Code of the contrast → its estimator; the code is the quantity whose sides are contrasted."""

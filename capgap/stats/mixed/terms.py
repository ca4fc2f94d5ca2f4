"""Choice of the random terms: which the data identify, and which they do not, with the reason.

A term of G groups with columns V is identified where its residual rank is at least one: the rank of the group columns
plus the rank of the fixed design within groups, minus the rank of the design. The same number bounds the degrees of
freedom of every contrast that has no information within those groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats.estimate import RemarkedResult
from capgap.stats.mixed.coding import DesignCoding, slope_columns
from capgap.stats.mixed.outcomes import FitOutcomes

__all__ = ["MIN_TASK_COUNT", "OmittedTerm", "Population", "RandomTerm", "TermPlan", "plan_terms", "rank", "residualise"]

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
TaskPopulationCode = Literal["these_tasks", "tasks_like_these"]
StudentPopulation = Literal["these_checkpoints", "these_recipes", "these_recipes_bases_like_these"]

MIN_TASK_COUNT = 6
"""Below so many tasks in a capability, numbers are about these tasks and none else."""
TOLERANCE = 1e-8


class Population(NamedTuple):
    """Whom an interval is about, in the codes of the columns ``population_students`` and ``population_tasks``."""

    students: StudentPopulation
    tasks: TaskPopulationCode


@dataclass(frozen=True)
class RandomTerm:
    """One variance of the model."""

    name: str
    kind: Literal["item", "task", "student", "student x task", "base"]
    columns: Floats
    """What the group's effect is multiplied by, shape (D, m): ones for an intercept; m columns share the variance."""
    size: int
    """Effects that share the variance."""
    residual: int = 0
    """Residual rank: what is left of the groups to estimate a variance from; 0 where it is not needed."""
    scale: float = 1.0
    """Columns were divided by this; the sigma per unit of the covariate is sigma / scale."""
    within: Floats | None = None
    """The fixed design within groups, shape (D, p): a contrast outside its row space is limited by `residual`."""


@dataclass(frozen=True)
class OmittedTerm(RemarkedResult):
    """A term that the data cannot carry; its remark says why."""

    name: str


@dataclass(frozen=True)
class TermPlan:
    """Random terms, what was left out, and whether tasks are a sample."""

    random: tuple[RandomTerm, ...]
    left_out: tuple[OmittedTerm, ...]
    population: TaskPopulationCode
    fixed_task_columns: Floats
    """Nuisance columns where tasks are fixed, shape (D, f): tasks' deviations within what the formula says of them."""


def rank(matrix: Floats, norms: Floats | None = None) -> int:
    """The rank of a matrix whose columns are measured against `norms` (their own by default)."""
    norms = np.linalg.norm(matrix, axis=0) if norms is None else norms
    scaled = matrix[:, norms > 0] / norms[norms > 0]
    if not scaled.size:
        return 0
    qr_factor = np.linalg.qr(scaled, mode="r")
    return int((np.linalg.svd(qr_factor, compute_uv=False) > TOLERANCE * np.sqrt(len(norms))).sum())


def residualise(matrix: Floats, group_codes: Ints, columns: Floats) -> tuple[Floats, int]:
    """Residuals of a matrix (D, p) after regression on `columns` (D, m) within each group, and the ranks' sum."""
    n, m = int(group_codes.max()) + 1, columns.shape[1]
    columns = columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-300)  # so that units do not decide ranks
    joined_columns = np.hstack([columns, matrix])
    # Gram matrices of `columns` and their products with the matrix, group by group: (n, m, m) and (n, m, p).
    sums = np.empty((n, m, joined_columns.shape[1]))
    for i in range(m):
        for j in range(joined_columns.shape[1]):
            sums[:, i, j] = np.bincount(group_codes, columns[:, i] * joined_columns[:, j], n)
    gram, cross_products = sums[:, :, :m], sums[:, :, m:]
    # Pseudo-inverse by eigenvalues: a group may hold fewer rows than columns.
    values, vectors = np.linalg.eigh(gram)
    nonzero_eigenvalues = values > TOLERANCE * np.maximum(np.abs(gram).max(axis=(1, 2)), 1e-300)[:, None]
    inverse = np.where(nonzero_eigenvalues, 1 / np.where(nonzero_eigenvalues, values, 1.0), 0.0)
    coefficients = (vectors * inverse[:, None]) @ (vectors.swapaxes(1, 2) @ cross_products)
    return matrix - np.einsum("dm,dmp->dp", columns, coefficients[group_codes]), int(nonzero_eigenvalues.sum())


class _TermCollector:
    """Collects terms; rows without trials are out of sight."""

    def __init__(self, design: Floats, weight: Floats):
        self.used = weight > 0
        self.weight = weight / weight.sum()
        self.design = design
        self.norms = np.linalg.norm(design[self.used], axis=0)
        self.rank = rank(design[self.used])
        self.terms: list[RandomTerm] = []
        self.left_out: list[OmittedTerm] = []

    def record_omitted_term(self, name: str, code: Reason, **values: object) -> None:
        self.left_out.append(OmittedTerm(name, remarks=(Remark(code, values),)))

    def add(self, name: str, kind: str, groups: Ints, columns: Floats, below: Sequence[Floats], reason: Remark) -> bool:
        """Add a term with its columns over those `below` it, unless the fixed effects explain all its groups."""
        nonempty = self.used
        base = np.hstack(below) if below else np.zeros((len(groups), 0))
        lower = (self.rank, self.design) if not below else self._rank_within_groups(groups, base)
        upper = self._rank_within_groups(groups, np.hstack([base, columns]))
        # Rank that the groups add to the fixed design and to the terms below.
        residual = upper[0] - lower[0]
        if residual < 1:
            self.left_out.append(OmittedTerm(name, remarks=(reason,)))
            return False
        # Unit mean square, so that one range of log sigma serves all terms.
        scale = float(np.sqrt(self.weight @ np.square(columns).sum(axis=1)))
        size = len(np.unique(groups[nonempty])) * columns.shape[1]
        self.terms.append(
            RandomTerm(name, kind, columns / scale, size, residual, scale, upper[1])  # type: ignore[arg-type]
        )
        return True

    def _rank_within_groups(self, group_codes: Ints, columns: Floats) -> tuple[int, Floats]:
        nonempty = self.used
        residuals = np.zeros_like(self.design)
        residuals[nonempty], ranks = residualise(self.design[nonempty], group_codes[nonempty], columns[nonempty])
        return ranks + rank(residuals[nonempty], self.norms), residuals


def plan_terms(
    outcomes: FitOutcomes,
    predictors: DesignCoding,
    design: Floats,
    base: Ints | None,
    tasks: Literal["auto", "these", "like these"],
    task_slopes: bool,
) -> TermPlan:
    """Choose the random terms.

    Parameters
    ----------
    design
        The formula's columns that are not aliased, shape (D, p).
    base
        Code of the base of each design row; None where bases are unknown.
    tasks
        Whether tasks are a sample: by their number (`MIN_TASK_COUNT` in every capability), or as asked for.
    task_slopes
        Whether tasks have slopes of their own.
    """
    planner = _TermCollector(design, outcomes.weight)
    intercept = np.ones((len(design), 1))
    ability = predictors.capability_covariate.random_columns() if predictors.compares_capability else None
    counts = _tasks_per_capability(outcomes, predictors)
    sampled = tasks == "like these" or (tasks == "auto" and min(counts) >= MIN_TASK_COUNT)
    one_item_per_task = bool((outcomes.items_per_task == 1).all())
    _plan_items(planner, outcomes, intercept, one_item_per_task)
    fixed_task_columns = np.zeros((len(design), 0))
    if one_item_per_task:
        planner.record_omitted_term("task", Reason.ONE_ITEM_PER_TASK)
    elif sampled:
        _plan_tasks(planner, outcomes, predictors, intercept, task_slopes)
    else:
        planner.record_omitted_term("task", Reason.FEW_TASKS, least=MIN_TASK_COUNT)
        fixed_task_columns = _build_task_columns(outcomes, predictors, design)
    _plan_students(planner, outcomes, predictors, intercept, ability)
    _plan_cells(planner, outcomes, intercept, one_item_per_task, min(counts))
    _plan_base_terms(planner, outcomes, intercept, ability, base)
    population: TaskPopulationCode = "tasks_like_these" if sampled else "these_tasks"
    return TermPlan(tuple(planner.terms), tuple(planner.left_out), population, fixed_task_columns)


def _tasks_per_capability(outcomes: FitOutcomes, predictors: DesignCoding) -> tuple[int, ...]:
    if not predictors.compares_capability:
        return (outcomes.n_tasks,)
    nonempty = outcomes.weight > 0
    capability_codes = predictors.capability_covariate.values[nonempty].astype(np.intp)
    pairs = np.unique(capability_codes * outcomes.n_tasks + outcomes.task[nonempty])
    n_levels = len(predictors.capability_covariate.levels)
    return tuple(map(int, np.bincount(pairs // outcomes.n_tasks, minlength=n_levels)))


def _plan_items(planner: _TermCollector, outcomes: FitOutcomes, intercept: Floats, one_item_per_task: bool) -> None:
    if outcomes.answers_per_item < 2:
        planner.record_omitted_term("item", Reason.ITEMS_ANSWERED_ONCE)
    elif outcomes.n_items < 2 or (not one_item_per_task and outcomes.items_per_task.max() < 2):
        planner.record_omitted_term("item", Reason.NO_TASK_OF_TWO_ITEMS)
    else:
        planner.terms.append(RandomTerm("item", "item", intercept, outcomes.n_items))


def _plan_tasks(
    planner: _TermCollector, outcomes: FitOutcomes, predictors: DesignCoding, intercept: Floats, task_slopes: bool
) -> None:
    fixed_effects_remark = remark(Reason.EXPLAINED_BY_FIXED_EFFECTS, groups="tasks")
    if not planner.add("task", "task", outcomes.task, intercept, [], fixed_effects_remark):
        return
    for term in predictors.formula.list_crossed_terms(predictors.capability) if predictors.compares_capability else ():
        name = ":".join(map(str, term))
        if not task_slopes:
            planner.record_omitted_term(f"task x {name}", Reason.SLOPES_NOT_ASKED)
            continue
        columns = slope_columns(predictors, term)
        constant = remark(Reason.CONSTANT_WITHIN_TASKS, name=name)
        planner.add(f"task x {name}", "task", outcomes.task, columns, [intercept], constant)


def _plan_students(
    planner: _TermCollector, outcomes: FitOutcomes, predictors: DesignCoding, intercept: Floats, ability: Floats | None
) -> None:
    fixed_effects_remark = remark(Reason.EXPLAINED_BY_FIXED_EFFECTS, groups="students")
    planner.add("student", "student", outcomes.student, intercept, [], fixed_effects_remark)
    if ability is not None:
        planner.add("student x capability", "student", outcomes.student, ability, [intercept], fixed_effects_remark)
    nonempty = outcomes.weight > 0
    for term in predictors.formula.list_crossed_terms(predictors.capability) if predictors.compares_capability else ():
        columns = slope_columns(predictors, term)
        demeaned, _ = residualise(columns[nonempty], outcomes.student[nonempty], intercept[nonempty])
        if np.linalg.norm(demeaned) > TOLERANCE * np.linalg.norm(columns[nonempty]):
            name = ":".join(map(str, term))
            planner.add(f"student x {name}", "student", outcomes.student, columns, [intercept], fixed_effects_remark)


def _plan_cells(
    planner: _TermCollector, outcomes: FitOutcomes, intercept: Floats, one_item_per_task: bool, min_tasks: int
) -> None:
    cell = outcomes.task * outcomes.n_students + outcomes.student
    nonempty_cells = np.flatnonzero(np.bincount(cell, outcomes.weight))
    if one_item_per_task or np.bincount(cell, outcomes.weight).max() < 2:
        planner.record_omitted_term("student x task", Reason.ONE_OUTCOME_PER_CELL)
    elif outcomes.n_students < 2 or outcomes.n_tasks < 2:
        planner.record_omitted_term("student x task", Reason.NO_CROSSED_CELLS)
    elif min_tasks < 2:
        planner.record_omitted_term("student x task", Reason.ONE_TASK_IN_CAPABILITY)
    else:
        planner.terms.append(RandomTerm("student x task", "student x task", intercept, len(nonempty_cells)))


def _plan_base_terms(
    planner: _TermCollector, outcomes: FitOutcomes, intercept: Floats, ability: Floats | None, base: Ints | None
) -> None:
    if base is None:
        return
    nonempty = outcomes.weight > 0
    n_bases = len(np.unique(base[nonempty]))
    if n_bases == 1:
        planner.record_omitted_term("base", Reason.ONE_BASE)
    elif n_bases == len(np.unique(outcomes.student[nonempty])):
        planner.record_omitted_term("base", Reason.NO_SHARED_BASE)
    else:
        fixed_effects_remark = remark(Reason.EXPLAINED_BY_FIXED_EFFECTS, groups="bases")
        planner.add("base", "base", base, intercept, [], fixed_effects_remark)
        if ability is not None:
            planner.add("base x capability", "base", base, ability, [intercept], fixed_effects_remark)


def _build_task_columns(outcomes: FitOutcomes, predictors: DesignCoding, design: Floats) -> Floats:
    """Columns of tasks' deviations, from the formula's task-level columns, and of their slopes likewise.

    They are orthogonal to the task-level columns with equal weight on every task, so that the formula's coefficients
    stay what they are with equal task weights: the projection of the tasks' own effects.
    """
    nonempty, k = outcomes.weight > 0, outcomes.n_tasks
    demeaned, _ = residualise(design[nonempty], outcomes.task[nonempty], np.ones((int(nonempty.sum()), 1)))
    norms = np.maximum(np.linalg.norm(design[nonempty], axis=0), 1e-300)
    level = np.linalg.norm(demeaned, axis=0) <= TOLERANCE * norms
    task_first_rows = np.array([np.flatnonzero(nonempty & (outcomes.task == t))[0] for t in range(k)])
    u, values, _ = np.linalg.svd(design[task_first_rows][:, level], full_matrices=True)
    # An orthonormal basis of the task effects that the formula's task-level columns leave: (K, f).
    task_effect_basis = u[:, int((values > TOLERANCE * values.max(initial=1e-300)).sum()) :]
    blocks = [task_effect_basis[outcomes.task]]
    for term in predictors.formula.list_crossed_terms(predictors.capability) if predictors.compares_capability else ():
        slopes = (
            np.hstack([predictors.covariates[f].columns()[0] for f in term])
            if len(term) == 1
            else slope_columns(predictors, term)
        )
        demeaned_slopes, _ = residualise(slopes[nonempty], outcomes.task[nonempty], np.ones((int(nonempty.sum()), 1)))
        varies_in_task = np.linalg.norm(demeaned_slopes, axis=0) > TOLERANCE * np.linalg.norm(slopes[nonempty], axis=0)
        blocks.extend(task_effect_basis[outcomes.task] * column[:, None] for column in slopes[:, varies_in_task].T)
    return np.hstack(blocks)

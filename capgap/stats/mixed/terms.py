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
from capgap.stats.estimate import Remarked
from capgap.stats.mixed.coding import DesignCoding, slope_columns
from capgap.stats.mixed.outcomes import MixedData

__all__ = ["FEWEST_TASKS", "OmittedTerm", "Population", "RandomTerm", "TermPlan", "plan_terms", "rank", "within_groups"]

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
TaskPopulation = Literal["these_tasks", "tasks_like_these"]
StudentPopulation = Literal["these_checkpoints", "these_recipes", "these_recipes_bases_like_these"]

FEWEST_TASKS = 6
"""Below so many tasks in a capability, numbers are about these tasks and none else."""
TOLERANCE = 1e-8


class Population(NamedTuple):
    """Whom an interval is about, in the codes of the columns ``population_students`` and ``population_tasks``."""

    students: StudentPopulation
    tasks: TaskPopulation


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
class OmittedTerm(Remarked):
    """A term that the data cannot carry; its remark says why."""

    name: str


@dataclass(frozen=True)
class TermPlan:
    """Random terms, what was left out, and whether tasks are a sample."""

    random: tuple[RandomTerm, ...]
    left_out: tuple[OmittedTerm, ...]
    population: TaskPopulation
    fixed_tasks: Floats
    """Nuisance columns where tasks are fixed, shape (D, f): tasks' deviations within what the formula says of them."""
    tasks_per_capability: tuple[int, ...]


def rank(matrix: Floats, norms: Floats | None = None) -> int:
    """The rank of a matrix whose columns are measured against `norms` (their own by default)."""
    norms = np.linalg.norm(matrix, axis=0) if norms is None else norms
    scaled = matrix[:, norms > 0] / norms[norms > 0]
    if not scaled.size:
        return 0
    triangle = np.linalg.qr(scaled, mode="r")
    return int((np.linalg.svd(triangle, compute_uv=False) > TOLERANCE * np.sqrt(len(norms))).sum())


def within_groups(matrix: Floats, groups: Ints, columns: Floats) -> tuple[Floats, int]:
    """Residuals of a matrix (D, p) after regression on `columns` (D, m) within each group, and the ranks' sum."""
    n, m = int(groups.max()) + 1, columns.shape[1]
    columns = columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-300)  # so that units do not decide ranks
    both = np.hstack([columns, matrix])
    sums = np.empty((n, m, both.shape[1]))
    for i in range(m):
        for j in range(both.shape[1]):
            sums[:, i, j] = np.bincount(groups, columns[:, i] * both[:, j], n)
    gram, cross = sums[:, :, :m], sums[:, :, m:]
    values, vectors = np.linalg.eigh(gram)
    good = values > TOLERANCE * np.maximum(np.abs(gram).max(axis=(1, 2)), 1e-300)[:, None]
    inverse = np.where(good, 1 / np.where(good, values, 1.0), 0.0)
    coefficients = (vectors * inverse[:, None]) @ (vectors.swapaxes(1, 2) @ cross)
    return matrix - np.einsum("dm,dmp->dp", columns, coefficients[groups]), int(good.sum())


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

    def leave(self, name: str, code: Reason, **values: object) -> None:
        self.left_out.append(OmittedTerm(name, remarks=(Remark(code, values),)))

    def add(self, name: str, kind: str, groups: Ints, columns: Floats, below: Sequence[Floats], reason: Remark) -> bool:
        """Add a term with its columns over those `below` it, unless the fixed effects explain all its groups."""
        used = self.used
        base = np.hstack(below) if below else np.zeros((len(groups), 0))
        lower = (self.rank, self.design) if not below else self._within(groups, base)
        upper = self._within(groups, np.hstack([base, columns]))
        residual = upper[0] - lower[0]
        if residual < 1:
            self.left_out.append(OmittedTerm(name, remarks=(reason,)))
            return False
        scale = float(np.sqrt(self.weight @ np.square(columns).sum(axis=1)))
        size = len(np.unique(groups[used])) * columns.shape[1]
        self.terms.append(
            RandomTerm(name, kind, columns / scale, size, residual, scale, upper[1])  # type: ignore[arg-type]
        )
        return True

    def _within(self, groups: Ints, columns: Floats) -> tuple[int, Floats]:
        used = self.used
        inside = np.zeros_like(self.design)
        inside[used], ranks = within_groups(self.design[used], groups[used], columns[used])
        return ranks + rank(inside[used], self.norms), inside


def plan_terms(
    outcomes: MixedData,
    coding: DesignCoding,
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
        Whether tasks are a sample: by their number (`FEWEST_TASKS` in every capability), or as asked for.
    task_slopes
        Whether tasks have slopes of their own.
    """
    planner = _TermCollector(design, outcomes.weight)
    intercept = np.ones((len(design), 1))
    ability = coding.capability_covariate.random_columns() if coding.has_capability else None
    counts = _tasks_per_capability(outcomes, coding)
    sampled = tasks == "like these" or (tasks == "auto" and min(counts) >= FEWEST_TASKS)
    single_items = bool((outcomes.items_per_task == 1).all())
    _plan_items(planner, outcomes, intercept, single_items)
    fixed = np.zeros((len(design), 0))
    if single_items:
        planner.leave("task", Reason.ONE_ITEM_PER_TASK)
    elif sampled:
        _plan_tasks(planner, outcomes, coding, intercept, task_slopes)
    else:
        planner.leave("task", Reason.FEW_TASKS, least=FEWEST_TASKS)
        fixed = _fixed_tasks(outcomes, coding, design)
    _plan_students(planner, outcomes, coding, intercept, ability)
    _plan_cells(planner, outcomes, intercept, single_items, min(counts))
    _plan_bases(planner, outcomes, intercept, ability, base)
    population: TaskPopulation = "tasks_like_these" if sampled else "these_tasks"
    return TermPlan(tuple(planner.terms), tuple(planner.left_out), population, fixed, counts)


def _tasks_per_capability(outcomes: MixedData, coding: DesignCoding) -> tuple[int, ...]:
    if not coding.has_capability:
        return (outcomes.n_tasks,)
    used = outcomes.weight > 0
    codes = coding.capability_covariate.values[used].astype(np.intp)
    pairs = np.unique(codes * outcomes.n_tasks + outcomes.task[used])
    return tuple(
        int(n) for n in np.bincount(pairs // outcomes.n_tasks, minlength=len(coding.capability_covariate.levels))
    )


def _plan_items(planner: _TermCollector, outcomes: MixedData, intercept: Floats, single_items: bool) -> None:
    if outcomes.answers_per_item < 2:
        planner.leave("item", Reason.ITEMS_ANSWERED_ONCE)
    elif outcomes.n_items < 2 or (not single_items and outcomes.items_per_task.max() < 2):
        planner.leave("item", Reason.NO_TASK_OF_TWO_ITEMS)
    else:
        planner.terms.append(RandomTerm("item", "item", intercept, outcomes.n_items))


def _plan_tasks(
    planner: _TermCollector, outcomes: MixedData, coding: DesignCoding, intercept: Floats, task_slopes: bool
) -> None:
    explained = remark(Reason.EXPLAINED_BY_FIXED_EFFECTS, groups="tasks")
    if not planner.add("task", "task", outcomes.task, intercept, [], explained):
        return
    for term in coding.formula.crossed_with(coding.capability) if coding.has_capability else ():
        name = ":".join(map(str, term))
        if not task_slopes:
            planner.leave(f"task x {name}", Reason.SLOPES_NOT_ASKED)
            continue
        columns = slope_columns(coding, term)
        constant = remark(Reason.CONSTANT_WITHIN_TASKS, name=name)
        planner.add(f"task x {name}", "task", outcomes.task, columns, [intercept], constant)


def _plan_students(
    planner: _TermCollector, outcomes: MixedData, coding: DesignCoding, intercept: Floats, ability: Floats | None
) -> None:
    explained = remark(Reason.EXPLAINED_BY_FIXED_EFFECTS, groups="students")
    planner.add("student", "student", outcomes.student, intercept, [], explained)
    if ability is not None:
        planner.add("student x capability", "student", outcomes.student, ability, [intercept], explained)
    used = outcomes.weight > 0
    for term in coding.formula.crossed_with(coding.capability) if coding.has_capability else ():
        columns = slope_columns(coding, term)
        inside, _ = within_groups(columns[used], outcomes.student[used], intercept[used])
        if np.linalg.norm(inside) > TOLERANCE * np.linalg.norm(columns[used]):
            name = ":".join(map(str, term))
            planner.add(f"student x {name}", "student", outcomes.student, columns, [intercept], explained)


def _plan_cells(
    planner: _TermCollector, outcomes: MixedData, intercept: Floats, single_items: bool, fewest: int
) -> None:
    cell = outcomes.task * outcomes.n_students + outcomes.student
    used = np.flatnonzero(np.bincount(cell, outcomes.weight))
    if single_items or np.bincount(cell, outcomes.weight).max() < 2:
        planner.leave("student x task", Reason.ONE_OUTCOME_PER_CELL)
    elif outcomes.n_students < 2 or outcomes.n_tasks < 2:
        planner.leave("student x task", Reason.NO_CROSSED_CELLS)
    elif fewest < 2:
        planner.leave("student x task", Reason.ONE_TASK_IN_CAPABILITY)
    else:
        planner.terms.append(RandomTerm("student x task", "student x task", intercept, len(used)))


def _plan_bases(
    planner: _TermCollector, outcomes: MixedData, intercept: Floats, ability: Floats | None, base: Ints | None
) -> None:
    if base is None:
        return
    used = outcomes.weight > 0
    n_bases = len(np.unique(base[used]))
    if n_bases == 1:
        planner.leave("base", Reason.ONE_BASE)
    elif n_bases == len(np.unique(outcomes.student[used])):
        planner.leave("base", Reason.NO_SHARED_BASE)
    else:
        explained = remark(Reason.EXPLAINED_BY_FIXED_EFFECTS, groups="bases")
        planner.add("base", "base", base, intercept, [], explained)
        if ability is not None:
            planner.add("base x capability", "base", base, ability, [intercept], explained)


def _fixed_tasks(outcomes: MixedData, coding: DesignCoding, design: Floats) -> Floats:
    """Columns of tasks' deviations, from the formula's task-level columns, and of their slopes likewise.

    They are orthogonal to the task-level columns with equal weight on every task, so that the formula's coefficients
    stay what they are with equal task weights: the projection of the tasks' own effects.
    """
    used, k = outcomes.weight > 0, outcomes.n_tasks
    inside, _ = within_groups(design[used], outcomes.task[used], np.ones((int(used.sum()), 1)))
    norms = np.maximum(np.linalg.norm(design[used], axis=0), 1e-300)
    level = np.linalg.norm(inside, axis=0) <= TOLERANCE * norms
    first = np.array([np.flatnonzero(used & (outcomes.task == t))[0] for t in range(k)])
    u, values, _ = np.linalg.svd(design[first][:, level], full_matrices=True)
    free = u[:, int((values > TOLERANCE * values.max(initial=1e-300)).sum()) :]
    blocks = [free[outcomes.task]]
    for term in coding.formula.crossed_with(coding.capability) if coding.has_capability else ():
        slopes = (
            np.hstack([coding.covariates[f].columns()[0] for f in term])
            if len(term) == 1
            else slope_columns(coding, term)
        )
        varying, _ = within_groups(slopes[used], outcomes.task[used], np.ones((int(used.sum()), 1)))
        moving = np.linalg.norm(varying, axis=0) > TOLERANCE * np.linalg.norm(slopes[used], axis=0)
        blocks.extend(free[outcomes.task] * column[:, None] for column in slopes[:, moving].T)
    return np.hstack(blocks)

"""Model building: aliased columns out, random terms chosen, maps from the core to every block's coordinates."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import solve_triangular

from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats.mixed.chance import ChanceLinkKernel, cell_chances
from capgap.stats.mixed.coding import DesignCoding, design_matrix
from capgap.stats.mixed.evaluation import UnknownsLayout
from capgap.stats.mixed.formula import FormulaTerm
from capgap.stats.mixed.kernels import GridLogitKernel, LogitKernel, SparseLogitKernel
from capgap.stats.mixed.laplace import LaplaceLikelihood
from capgap.stats.mixed.outcomes import FitOutcomes, find_first_rows
from capgap.stats.mixed.terms import RandomTerm, TermPlan, plan_terms

__all__ = ["MixedModel", "build_model"]

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
ALIAS_TOLERANCE = 1e-7
_SparseColumn = tuple[Ints, Floats]


@dataclass(frozen=True)
class MixedModel:
    """Everything about a fit but its numbers."""

    outcomes: FitOutcomes
    predictors: DesignCoding
    plan: TermPlan
    names: tuple[str, ...]
    """Of the formula's columns, aliased ones included."""
    terms: tuple[FormulaTerm, ...]
    """The term of each column."""
    estimated: Ints
    """Indices of the columns that are estimated."""
    alias_remarks: Mapping[str, Remark]
    """Columns that are not, and why."""
    aliases_by_column: Mapping[str, tuple[str, ...]]
    """Estimated columns that hold for aliased ones too."""
    design: Floats
    """Estimated columns and then nuisance ones, shape (D, p)."""
    transform: Floats
    """Triangular: the objective's fixed effects times this are the coefficients; shape (p, p)."""
    log_jacobian: float
    """What the transform adds to the objective."""
    laplace: LaplaceLikelihood
    score_range: Floats
    """Of each design row: how much of the score the logit moves, 1 less the chance under a link with chance; (D,)."""

    @property
    def n_estimated(self) -> int:
        """Estimated columns of the formula, before the nuisance ones."""
        return len(self.estimated)

    @property
    def ignores_guessing(self) -> bool:
        """Whether items can be guessed and the link is the plain logit, which takes guesses for ability."""
        return bool((self.score_range == 1).all() and cell_chances(self.outcomes).any())

    @property
    def path(self) -> Literal["grid", "sparse"]:
        """How the outcomes are held."""
        return "sparse" if self.outcomes.grid is None else "grid"


def build_model(
    outcomes: FitOutcomes,
    predictors: DesignCoding,
    base: NDArray[Any] | None,
    tasks: Literal["auto", "these", "like these"],
    task_slopes: bool = True,
    restricted: bool = True,
    chance: bool = False,
) -> MixedModel:
    """Build the objective of a formula, with the plain logit or a link with chance."""
    columns, names, terms = design_matrix(predictors)
    estimated, alias_remarks, aliases_by_column = _separate_aliased(columns, names, outcomes.weight)
    base_codes = None if base is None else np.unique(base.astype(str), return_inverse=True)[1]
    design = columns[:, estimated]
    plan = plan_terms(outcomes, predictors, design, base_codes, tasks, task_slopes)
    nuisance_columns = _select_new_columns(design, plan.fixed_task_columns, outcomes.weight)
    design = np.hstack([design, nuisance_columns])
    nonempty = outcomes.weight > 0
    # Orthonormal columns condition the objective: beta = transform @ its fixed effects, and log_volume the Jacobian.
    root = np.sqrt(outcomes.weight[nonempty] / outcomes.weight.sum())[:, None]
    qr_factor = np.linalg.qr(design[nonempty] * root, mode="r")
    transform = solve_triangular(qr_factor, np.eye(len(qr_factor)))
    return MixedModel(
        outcomes=outcomes,
        predictors=predictors,
        plan=plan,
        names=names,
        terms=terms,
        estimated=estimated,
        alias_remarks=alias_remarks,
        aliases_by_column=aliases_by_column,
        design=design,
        transform=transform,
        log_jacobian=float(np.log(np.abs(np.diag(transform))).sum()) if restricted else 0.0,
        laplace=_build_likelihood(outcomes, plan, design @ transform, base_codes, restricted, chance),
        score_range=1.0 - cell_chances(outcomes) if chance else np.ones(len(design)),
    )


def _separate_aliased(
    columns: Floats, names: tuple[str, ...], weight: Floats
) -> tuple[Ints, dict[str, Remark], dict[str, tuple[str, ...]]]:
    """Columns that add something to those before them; the others with a reason."""
    nonempty_rows = columns[weight > 0]
    estimated: list[int] = []
    alias_remarks: dict[str, Remark] = {}
    aliases_by_column: dict[str, tuple[str, ...]] = {}
    for j, name in enumerate(names):
        column = nonempty_rows[:, j]
        norm = float(np.linalg.norm(column))
        if norm == 0:
            alias_remarks[name] = remark(Reason.CONSTANT_COVARIATE, name=name)
            continue
        # Aliased where least squares on the columns before leaves nothing; the columns it rests on stand for it.
        estimated_columns = nonempty_rows[:, estimated]
        coefficients = np.linalg.lstsq(estimated_columns, column, rcond=None)[0] if estimated else np.zeros(0)
        if estimated and np.linalg.norm(column - estimated_columns @ coefficients) <= ALIAS_TOLERANCE * norm:
            sizes = np.abs(coefficients) * np.linalg.norm(estimated_columns, axis=0)
            aliases = tuple(names[k] for k, size in zip(estimated, sizes, strict=True) if size > ALIAS_TOLERANCE * norm)
            covariate_aliases = [n for n in aliases if n != "(Intercept)"]
            alias_remarks[name] = remark(Reason.ALIASED_TERM, name=name, others=covariate_aliases or ["the intercept"])
            for other in covariate_aliases:
                aliases_by_column[other] = (*aliases_by_column.get(other, ()), name)
        else:
            estimated.append(j)
    return np.array(estimated, dtype=np.intp), alias_remarks, aliases_by_column


def _select_new_columns(design: Floats, nuisance_columns: Floats, weight: Floats) -> Floats:
    """The nuisance columns that the design does not hold already."""
    nonempty, kept_indices = weight > 0, []
    basis = np.linalg.qr(design[nonempty])[0]
    for j, column in enumerate(nuisance_columns.T):
        residual = column[nonempty] - basis @ (basis.T @ column[nonempty])
        # Gram-Schmidt twice: once leaves rounding that is as large as what is left.
        residual -= basis @ (basis.T @ residual)
        norm = float(np.linalg.norm(residual))
        if norm > 1e-6 * np.linalg.norm(column[nonempty]):
            kept_indices.append(j)
            basis = np.column_stack([basis, residual / norm])
    return nuisance_columns[:, kept_indices]


def _build_likelihood(
    outcomes: FitOutcomes, plan: TermPlan, design: Floats, base: Ints | None, restricted: bool, chance: bool
) -> LaplaceLikelihood:
    """The Laplace likelihood of a plan: its kernels, their maps from core and task effects, and the layout."""
    # Indices into the variances by where their effects live: in tasks, in the core, in cells, in items.
    terms = plan.random
    tasks = [(g, t) for g, t in enumerate(terms) if t.kind == "task"]
    cores = [(g, t) for g, t in enumerate(terms) if t.kind in {"student", "base"}]
    cell = next((g for g, t in enumerate(terms) if t.kind == "student x task"), None)
    item = next((g for g, t in enumerate(terms) if t.kind == "item"), None)
    n_bases = 0 if base is None else int(base.max()) + 1
    core_sigma_indices = [np.full(design.shape[1], -1)]
    for g, term in cores:
        n_groups = outcomes.n_students if term.kind == "student" else n_bases
        core_sigma_indices.append(np.full(n_groups * term.columns.shape[1], g))
    slopes = np.hstack([t.columns for _, t in tasks]) if tasks else np.zeros((len(design), 0))
    blocks = _BlockMapBuilder(outcomes, design, slopes, [t for _, t in cores], base, n_bases)
    merge = cell is None and not tasks  # then blocks differ in nothing but their items
    kernels, core_maps, task_maps = blocks.map_grid(merge, chance) if outcomes.grid is not None else blocks.map_sparse()
    layout = UnknownsLayout(
        sizes=_term_sizes(terms, kernels, outcomes, n_bases),
        core=np.concatenate(core_sigma_indices).astype(np.intp),
        task=np.concatenate([np.full(t.columns.shape[1], g) for g, t in tasks] or [np.zeros(0)]).astype(np.intp),
        cell=cell,
        item=item,
    )
    return LaplaceLikelihood(kernels, core_maps, task_maps, layout, restricted=restricted)


def _term_sizes(terms: tuple[RandomTerm, ...], kernels: list[LogitKernel], outcomes: FitOutcomes, n_bases: int) -> Ints:
    """Effects of each variance as the objective holds them, those without outcomes included."""
    n_groups_by_kind = {
        "item": outcomes.n_items,
        "task": outcomes.n_tasks,
        "student": outcomes.n_students,
        "base": n_bases,
        "student x task": len(kernels) * outcomes.n_students,
    }
    return np.array([n_groups_by_kind[t.kind] * t.columns.shape[1] for t in terms], dtype=np.intp)


@dataclass(frozen=True)
class _BlockMapBuilder:
    """Maps from core and task effects to the coordinates of every block."""

    outcomes: FitOutcomes
    design: Floats
    slopes: Floats
    cores: list[RandomTerm]
    base: Ints | None
    n_bases: int

    def _groups(self, term: RandomTerm) -> tuple[Ints, int]:
        if term.kind == "student" or self.base is None:
            return self.outcomes.student, self.outcomes.n_students
        return self.base, self.n_bases

    def map_grid(self, merge_blocks: bool, chance: bool) -> tuple[list[LogitKernel], Floats, Floats]:
        """One coordinate for each student; blocks that look alike become one where tasks have no effects."""
        outcomes = self.outcomes
        assert outcomes.grid is not None
        k, s = outcomes.n_tasks, outcomes.n_students
        # Rows of the grid path are cells, task by task: (K S, r) becomes (K, S, r), one coordinate a student.
        core_columns = [self.design]
        for term in self.cores:
            group_codes, n = self._groups(term)
            group_indicators = (group_codes[:, None] == np.arange(n)).astype(float)
            core_columns.extend(group_indicators * column[:, None] for column in term.columns.T)
        core_maps = np.hstack(core_columns).reshape(k, s, -1)
        slopes = self.slopes.reshape(k, s, -1)
        blocks, chances = list(outcomes.grid), list(outcomes.chance or ()) if chance else []
        if merge_blocks and k > 1:
            task_groups: dict[bytes, list[int]] = {}
            for t in range(k):
                task_groups.setdefault(np.round(core_maps[t], 9).tobytes(), []).append(t)
            blocks = [_concatenate_blocks([blocks[t] for t in group]) for group in task_groups.values()]
            chances = [np.concatenate([chances[t] for t in group]) for group in task_groups.values()] if chances else []
            representative_tasks = [group[0] for group in task_groups.values()]
            core_maps, slopes = core_maps[representative_tasks], slopes[representative_tasks]
        if chances:
            return [ChanceLinkKernel(y, n, c) for (y, n), c in zip(blocks, chances, strict=True)], core_maps, slopes
        return [GridLogitKernel(y, n) for y, n in blocks], core_maps, slopes

    def map_sparse(self) -> tuple[list[LogitKernel], Floats, Floats]:
        """One coordinate for each student, and one for each column that varies within student and task."""
        outcomes, rows = self.outcomes, self.outcomes.rows
        assert rows is not None
        s = outcomes.n_students
        cell = np.unique(outcomes.task * s + outcomes.student, return_inverse=True)[1]
        first_row_of_cell = find_first_rows(cell, int(cell.max()) + 1)
        column_sets = [self.design, self.slopes, *(t.columns for t in self.cores)]
        # What is constant within a cell hangs on the student's coordinate; the rest gets coordinates of its own.
        uniform = [np.abs(x - x[first_row_of_cell[cell]]).max(axis=0, initial=0.0) <= 1e-12 for x in column_sets]
        task_bounds = np.searchsorted(outcomes.task, np.arange(outcomes.n_tasks + 1))
        kernels: list[LogitKernel] = []
        block_maps: list[tuple[Floats, Floats]] = []
        for k in range(outcomes.n_tasks):
            task_rows = slice(task_bounds[k], task_bounds[k + 1])
            matrix, *pair = self._map_task_rows(task_rows, column_sets, uniform)
            data = rows.successes[task_rows], rows.trials[task_rows], outcomes.student[task_rows], rows.item[task_rows]
            kernels.append(SparseLogitKernel(*data, matrix, s))
            block_maps.append((pair[0], pair[1]))
        return kernels, np.stack([m[0] for m in block_maps]), np.stack([m[1] for m in block_maps])

    def _map_task_rows(
        self, task_rows: slice, column_sets: list[Floats], uniform: list[NDArray[np.bool_]]
    ) -> tuple[sparse.csr_array, Floats, Floats]:
        """M of a block with its maps from the core and from the task's effects."""
        s, student = self.outcomes.n_students, self.outcomes.student[task_rows]
        n = len(student)
        student_indicators = sparse.csr_array((np.ones(n), (np.arange(n), student)), shape=(n, s))
        row_of_student = np.full(s, -1)  # a row of each student in this block, -1 for none
        row_of_student[student[::-1]] = np.arange(n)[::-1]
        seen = row_of_student >= 0
        columns: list[Any] = [student_indicators]
        core_columns: list[_SparseColumn] = []
        slopes: list[_SparseColumn] = []
        width = s
        for x, is_uniform, target in ((column_sets[0], uniform[0], core_columns), (column_sets[1], uniform[1], slopes)):
            for j in range(x.shape[1]):
                if is_uniform[j]:
                    target.append((np.arange(s)[seen], x[task_rows, j][row_of_student[seen]]))
                else:
                    columns.append(sparse.csr_array(x[task_rows, j][:, None]))
                    target.append((np.array([width]), np.ones(1)))
                    width += 1
        for term, x, is_uniform in zip(self.cores, column_sets[2:], uniform[2:], strict=True):
            group_codes, n_groups = self._groups(term)
            group = np.zeros(s, dtype=np.intp)
            group[seen] = group_codes[task_rows][row_of_student[seen]]
            for j in range(x.shape[1]):
                start, values = 0, np.zeros(s)
                values[seen] = x[task_rows, j][row_of_student[seen]]
                if not is_uniform[j]:  # S coordinates more: the covariate's value in each student's rows
                    columns.append(sparse.csr_array((x[task_rows, j], (np.arange(n), student)), shape=(n, s)))
                    start, values, width = width, np.ones(s), width + s
                core_columns.extend(
                    (start + np.flatnonzero(seen & (group == g)), values[seen & (group == g)]) for g in range(n_groups)
                )
        return sparse.csr_array(sparse.hstack(columns)), _fill_matrix(core_columns, width), _fill_matrix(slopes, width)


def _concatenate_blocks(
    blocks: list[tuple[NDArray[Any], NDArray[Any] | None]],
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Blocks side by side."""
    all_answered_once = all(n is None for _, n in blocks)
    trials = None if all_answered_once else np.hstack([np.ones(y.shape) if n is None else n for y, n in blocks])
    return np.hstack([y for y, _ in blocks]), trials


def _fill_matrix(columns: list[_SparseColumn], width: int) -> Floats:
    """Columns given by their rows and values as a dense matrix, shape (width, columns)."""
    matrix = np.zeros((width, len(columns)))
    for j, (row_indices, values) in enumerate(columns):
        matrix[row_indices, j] = values
    return matrix

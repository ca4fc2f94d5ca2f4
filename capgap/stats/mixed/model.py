"""Model building: aliased columns out, random terms chosen, maps from the core to every block's coordinates."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import solve_triangular

from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats.mixed.chance import ChanceKernel, cell_chances
from capgap.stats.mixed.coding import DesignCoding, design_matrix
from capgap.stats.mixed.evaluation import UnknownsLayout
from capgap.stats.mixed.formula import Term
from capgap.stats.mixed.kernels import GridKernel, SparseKernel, TaskKernel
from capgap.stats.mixed.laplace import LaplaceLikelihood
from capgap.stats.mixed.outcomes import MixedData
from capgap.stats.mixed.terms import RandomTerm, TermPlan, plan_terms

__all__ = ["MixedModel", "build_model"]

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
SAME = 1e-7
_Column = tuple[Ints, Floats]


@dataclass(frozen=True)
class MixedModel:
    """Everything about a fit but its numbers."""

    outcomes: MixedData
    coding: DesignCoding
    plan: TermPlan
    names: tuple[str, ...]
    """Of the formula's columns, aliased ones included."""
    terms: tuple[Term, ...]
    """The term of each column."""
    estimated: Ints
    """Indices of the columns that are estimated."""
    aliased: Mapping[str, Remark]
    """Columns that are not, and why."""
    partners: Mapping[str, tuple[str, ...]]
    """Estimated columns that hold for aliased ones too."""
    design: Floats
    """Estimated columns and then nuisance ones, shape (D, p)."""
    transform: Floats
    """Triangular: the objective's fixed effects times this are the coefficients; shape (p, p)."""
    log_volume: float
    """What the transform adds to the objective."""
    laplace: LaplaceLikelihood
    above: Floats
    """Of each design row: how much of the score the logit moves, 1 less the chance under a link with chance; (D,)."""

    @property
    def n_formula(self) -> int:
        """Estimated columns of the formula, before the nuisance ones."""
        return len(self.estimated)

    @property
    def mistakes_guesses(self) -> bool:
        """Whether items can be guessed and the link is the plain logit, which takes guesses for ability."""
        return bool((self.above == 1).all() and cell_chances(self.outcomes).any())

    @property
    def path(self) -> Literal["grid", "sparse"]:
        """How the outcomes are held."""
        return "sparse" if self.outcomes.grid is None else "grid"


def build_model(
    outcomes: MixedData,
    coding: DesignCoding,
    base: NDArray[Any] | None,
    tasks: Literal["auto", "these", "like these"],
    task_slopes: bool = True,
    restricted: bool = True,
    chance: bool = False,
) -> MixedModel:
    """Build the objective of a formula, with the plain logit or a link with chance."""
    columns, names, terms = design_matrix(coding)
    estimated, aliased, partners = _independent(columns, names, outcomes.weight)
    codes = None if base is None else np.unique(base.astype(str), return_inverse=True)[1]
    design = columns[:, estimated]
    plan = plan_terms(outcomes, coding, design, codes, tasks, task_slopes)
    extra = _new_columns(design, plan.fixed_tasks, outcomes.weight)
    design = np.hstack([design, extra])
    used = outcomes.weight > 0
    root = np.sqrt(outcomes.weight[used] / outcomes.weight.sum())[:, None]
    triangle = np.linalg.qr(design[used] * root, mode="r")
    transform = solve_triangular(triangle, np.eye(len(triangle)))
    return MixedModel(
        outcomes=outcomes,
        coding=coding,
        plan=plan,
        names=names,
        terms=terms,
        estimated=estimated,
        aliased=aliased,
        partners=partners,
        design=design,
        transform=transform,
        log_volume=float(np.log(np.abs(np.diag(transform))).sum()) if restricted else 0.0,
        laplace=_objective(outcomes, plan, design @ transform, codes, restricted, chance),
        above=1.0 - cell_chances(outcomes) if chance else np.ones(len(design)),
    )


def _independent(
    columns: Floats, names: tuple[str, ...], weight: Floats
) -> tuple[Ints, dict[str, Remark], dict[str, tuple[str, ...]]]:
    """Columns that add something to those before them; the others with a reason."""
    used = columns[weight > 0]
    estimated: list[int] = []
    aliased: dict[str, Remark] = {}
    partners: dict[str, tuple[str, ...]] = {}
    for j, name in enumerate(names):
        column = used[:, j]
        norm = float(np.linalg.norm(column))
        if norm == 0:
            aliased[name] = remark(Reason.CONSTANT_COVARIATE, name=name)
            continue
        before = used[:, estimated]
        coefficients = np.linalg.lstsq(before, column, rcond=None)[0] if estimated else np.zeros(0)
        if estimated and np.linalg.norm(column - before @ coefficients) <= SAME * norm:
            sizes = np.abs(coefficients) * np.linalg.norm(before, axis=0)
            with_it = tuple(names[k] for k, size in zip(estimated, sizes, strict=True) if size > SAME * norm)
            others = [n for n in with_it if n != "(Intercept)"]
            aliased[name] = remark(Reason.ALIASED_TERM, name=name, others=others or ["the intercept"])
            for other in others:
                partners[other] = (*partners.get(other, ()), name)
        else:
            estimated.append(j)
    return np.array(estimated, dtype=np.intp), aliased, partners


def _new_columns(design: Floats, extra: Floats, weight: Floats) -> Floats:
    """The nuisance columns that the design does not hold already."""
    used, keep = weight > 0, []
    basis = np.linalg.qr(design[used])[0]
    for j, column in enumerate(extra.T):
        left = column[used] - basis @ (basis.T @ column[used])
        left -= basis @ (basis.T @ left)
        norm = float(np.linalg.norm(left))
        if norm > 1e-6 * np.linalg.norm(column[used]):
            keep.append(j)
            basis = np.column_stack([basis, left / norm])
    return extra[:, keep]


def _objective(
    outcomes: MixedData, plan: TermPlan, design: Floats, base: Ints | None, restricted: bool, chance: bool
) -> LaplaceLikelihood:
    terms = plan.random
    tasks = [(g, t) for g, t in enumerate(terms) if t.kind == "task"]
    cores = [(g, t) for g, t in enumerate(terms) if t.kind in {"student", "base"}]
    cell = next((g for g, t in enumerate(terms) if t.kind == "student x task"), None)
    item = next((g for g, t in enumerate(terms) if t.kind == "item"), None)
    n_bases = 0 if base is None else int(base.max()) + 1
    kinds = [np.full(design.shape[1], -1)]
    for g, term in cores:
        groups = outcomes.n_students if term.kind == "student" else n_bases
        kinds.append(np.full(groups * term.columns.shape[1], g))
    slopes = np.hstack([t.columns for _, t in tasks]) if tasks else np.zeros((len(design), 0))
    blocks = _BlockMaps(outcomes, design, slopes, [t for _, t in cores], base, n_bases)
    merge = cell is None and not tasks
    kernels, core, slope_maps = blocks.on_grid(merge, chance) if outcomes.grid is not None else blocks.in_rows()
    layout = UnknownsLayout(
        sizes=_sizes(terms, kernels, outcomes, n_bases),
        core=np.concatenate(kinds).astype(np.intp),
        task=np.concatenate([np.full(t.columns.shape[1], g) for g, t in tasks] or [np.zeros(0)]).astype(np.intp),
        cell=cell,
        item=item,
    )
    return LaplaceLikelihood(kernels, core, slope_maps, layout, restricted=restricted)


def _sizes(terms: tuple[RandomTerm, ...], kernels: list[TaskKernel], outcomes: MixedData, n_bases: int) -> Ints:
    """Effects of each variance as the objective holds them, those without outcomes included."""
    groups = {
        "item": outcomes.n_items,
        "task": outcomes.n_tasks,
        "student": outcomes.n_students,
        "base": n_bases,
        "student x task": len(kernels) * outcomes.n_students,
    }
    return np.array([groups[t.kind] * t.columns.shape[1] for t in terms], dtype=np.intp)


@dataclass(frozen=True)
class _BlockMaps:
    """Maps from core and task effects to the coordinates of every block."""

    outcomes: MixedData
    design: Floats
    slopes: Floats
    cores: list[RandomTerm]
    base: Ints | None
    n_bases: int

    def _groups(self, term: RandomTerm) -> tuple[Ints, int]:
        if term.kind == "student" or self.base is None:
            return self.outcomes.student, self.outcomes.n_students
        return self.base, self.n_bases

    def on_grid(self, merge: bool, chance: bool) -> tuple[list[TaskKernel], Floats, Floats]:
        """One coordinate for each student; blocks that look alike become one where tasks have no effects."""
        outcomes = self.outcomes
        assert outcomes.grid is not None
        k, s = outcomes.n_tasks, outcomes.n_students
        parts = [self.design]
        for term in self.cores:
            codes, n = self._groups(term)
            hot = (codes[:, None] == np.arange(n)).astype(float)
            parts.extend(hot * column[:, None] for column in term.columns.T)
        core = np.hstack(parts).reshape(k, s, -1)
        slopes = self.slopes.reshape(k, s, -1)
        blocks, chances = list(outcomes.grid), list(outcomes.chance or ()) if chance else []
        if merge and k > 1:
            alike: dict[bytes, list[int]] = {}
            for t in range(k):
                alike.setdefault(np.round(core[t], 9).tobytes(), []).append(t)
            blocks = [_together([blocks[t] for t in group]) for group in alike.values()]
            chances = [np.concatenate([chances[t] for t in group]) for group in alike.values()] if chances else []
            first = [group[0] for group in alike.values()]
            core, slopes = core[first], slopes[first]
        if chances:
            return [ChanceKernel(y, n, c) for (y, n), c in zip(blocks, chances, strict=True)], core, slopes
        return [GridKernel(y, n) for y, n in blocks], core, slopes

    def in_rows(self) -> tuple[list[TaskKernel], Floats, Floats]:
        """One coordinate for each student, and one for each column that varies within student and task."""
        outcomes, rows = self.outcomes, self.outcomes.rows
        assert rows is not None
        s = outcomes.n_students
        cell = np.unique(outcomes.task * s + outcomes.student, return_inverse=True)[1]
        first = np.zeros(int(cell.max()) + 1, dtype=np.intp)
        first[cell[::-1]] = np.arange(len(cell))[::-1]
        wide = [self.design, self.slopes, *(t.columns for t in self.cores)]
        steady = [np.abs(x - x[first[cell]]).max(axis=0, initial=0.0) <= 1e-12 for x in wide]
        ends = np.searchsorted(outcomes.task, np.arange(outcomes.n_tasks + 1))
        kernels: list[TaskKernel] = []
        maps: list[tuple[Floats, Floats]] = []
        for k in range(outcomes.n_tasks):
            part = slice(ends[k], ends[k + 1])
            matrix, *pair = self._row_block(part, wide, steady)
            data = rows.successes[part], rows.trials[part], outcomes.student[part], rows.item[part]
            kernels.append(SparseKernel(*data, matrix, s))
            maps.append((pair[0], pair[1]))
        return kernels, np.stack([m[0] for m in maps]), np.stack([m[1] for m in maps])

    def _row_block(
        self, part: slice, wide: list[Floats], steady: list[NDArray[np.bool_]]
    ) -> tuple[sparse.csr_array, Floats, Floats]:
        """M of a block with its maps from the core and from the task's effects."""
        s, student = self.outcomes.n_students, self.outcomes.student[part]
        n = len(student)
        hot = sparse.csr_array((np.ones(n), (np.arange(n), student)), shape=(n, s))
        at = np.full(s, -1)
        at[student[::-1]] = np.arange(n)[::-1]
        seen = at >= 0
        columns: list[Any] = [hot]
        core: list[_Column] = []
        slopes: list[_Column] = []
        width = s
        for x, same, target in ((wide[0], steady[0], core), (wide[1], steady[1], slopes)):
            for j in range(x.shape[1]):
                if same[j]:
                    target.append((np.arange(s)[seen], x[part, j][at[seen]]))
                else:
                    columns.append(sparse.csr_array(x[part, j][:, None]))
                    target.append((np.array([width]), np.ones(1)))
                    width += 1
        for term, x, same in zip(self.cores, wide[2:], steady[2:], strict=True):
            codes, groups = self._groups(term)
            group = np.zeros(s, dtype=np.intp)
            group[seen] = codes[part][at[seen]]
            for j in range(x.shape[1]):
                start, values = 0, np.zeros(s)
                values[seen] = x[part, j][at[seen]]
                if not same[j]:
                    columns.append(sparse.csr_array((x[part, j], (np.arange(n), student)), shape=(n, s)))
                    start, values, width = width, np.ones(s), width + s
                core.extend(
                    (start + np.flatnonzero(seen & (group == g)), values[seen & (group == g)]) for g in range(groups)
                )
        return sparse.csr_array(sparse.hstack(columns)), _matrix(core, width), _matrix(slopes, width)


def _together(
    blocks: list[tuple[NDArray[Any], NDArray[Any] | None]],
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Blocks side by side."""
    whole = all(n is None for _, n in blocks)
    trials = None if whole else np.hstack([np.ones(y.shape) if n is None else n for y, n in blocks])
    return np.hstack([y for y, _ in blocks]), trials


def _matrix(columns: list[_Column], width: int) -> Floats:
    """Columns given by their rows and values as a dense matrix, shape (width, columns)."""
    matrix = np.zeros((width, len(columns)))
    for j, (at, values) in enumerate(columns):
        matrix[at, j] = values
    return matrix

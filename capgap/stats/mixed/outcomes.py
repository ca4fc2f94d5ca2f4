"""Outcomes as a grid or a long table, brought into blocks (tasks) of design rows.

A design row is a student x task cell on the grid path, and a row of the table on the sparse path: what has one value of
every covariate.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from capgap.errors import EstimationError, suggestion
from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats.estimate import RemarkedResult

__all__ = ["OutcomeGrid", "FitOutcomes", "NotEstimable", "find_first_rows", "convert_columns", "convert_grid"]

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
ColumnValues = NDArray[Any]
Path = Literal["auto", "grid", "sparse"]

MIN_GRID_FILL_SHARE = 0.2
"""A grid is built where at least this share of it is filled."""


class NotEstimable(Exception):
    """The data cannot be fitted; its remark is the reason of a refused result."""

    def __init__(self, reason: Remark):
        super().__init__(reason.text)
        self.remark = reason


@dataclass(frozen=True)
class OutcomeGrid:
    """Students x items without a long table: what two million outcomes fit into.

    Raises
    ------
    EstimationError
        Shapes disagree, or there are more successes than trials.
    """

    successes: NDArray[Any]
    """Shape (S, I): 0 and 1, or counts where `trials` holds counts."""
    task: ArrayLike
    """The task of each item, shape (I,)."""
    trials: NDArray[Any] | None = None
    """Shape (S, I): 0 where an outcome is missing; None where every student answered every item once."""
    students: Mapping[str, ArrayLike] = field(default_factory=dict)
    """Columns of the students, each of shape (S,): names, covariates, the base."""
    tasks: Mapping[str, ArrayLike] = field(default_factory=dict)
    """Columns of the tasks, each of shape (K,), in the sorted order of their names: capability, format."""
    chance: ArrayLike | None = None
    """What guessing gives on each item, shape (I,), from 0 to below 1; None where it is not known."""

    def __post_init__(self) -> None:
        shape = np.shape(self.successes)
        if len(shape) != 2 or np.shape(self.task) != shape[1:]:
            raise EstimationError(f"a grid is students x items with a task for each item; found shape {shape}.")
        if self.trials is not None and np.shape(self.trials) != shape:
            raise EstimationError(f"trials: expected shape {shape}, found {np.shape(self.trials)}.")
        if self.chance is not None and np.shape(self.chance) != shape[1:]:
            raise EstimationError(f"chance: expected {shape[1]} values, found shape {np.shape(self.chance)}.")
        if self.chance is not None and not ((np.asarray(self.chance) >= 0) & (np.asarray(self.chance) < 1)).all():
            raise EstimationError("chance: expected numbers from 0 to below 1.")
        if self.trials is not None and (np.asarray(self.successes) > self.trials).any():
            raise EstimationError("a grid cannot have more successes than trials.")
        n_tasks = len(np.unique(np.asarray(self.task)))
        for axis, columns, n in (("students", self.students, shape[0]), ("tasks", self.tasks, n_tasks)):
            for name, values in columns.items():
                if np.shape(values) != (n,):
                    raise EstimationError(f"{axis}[{name!r}]: expected {n} values, found shape {np.shape(values)}.")


@dataclass(frozen=True)
class SparseOutcomeRows:
    """Outcomes of the sparse path, sorted by task; each of shape (R,)."""

    successes: Floats
    trials: Floats
    item: Ints
    """Items count from zero within each task."""


@dataclass(frozen=True)
class FitOutcomes(RemarkedResult):
    """All that a fit needs to know about the data; D design rows, sorted by task."""

    student_names: tuple[str, ...]
    task_names: tuple[str, ...]
    student: Ints
    """Of each design row, shape (D,)."""
    task: Ints
    weight: Floats
    """Trials of each design row; 0 where a cell is empty."""
    successes: Floats
    """Successes of each design row."""
    columns: Mapping[str, ColumnValues]
    """Covariates, each of shape (D,)."""
    grid: tuple[tuple[NDArray[Any], NDArray[Any] | None], ...] | None
    """Successes and trials of each task, (S, I) each, on the grid path."""
    rows: SparseOutcomeRows | None
    """The outcomes on the sparse path, where they are the design rows."""
    items_per_task: Ints
    answers_per_item: float
    """Median number of outcomes of an item."""
    chance: tuple[Floats, ...] | None = None
    """Of the items of each task, (I,) each, on the grid path; None where it is not known."""

    @property
    def n_students(self) -> int:
        """Students."""
        return len(self.student_names)

    @property
    def n_tasks(self) -> int:
        """Tasks."""
        return len(self.task_names)

    @property
    def n_items(self) -> int:
        """Items over all tasks."""
        return int(self.items_per_task.sum())

    @property
    def n_outcomes(self) -> int:
        """Scored answers, repeats included."""
        return int(self.weight.sum())


def convert_grid(grid: OutcomeGrid, names: tuple[str, ...]) -> FitOutcomes:
    """The blocks of a grid; columns are those of `names` that it has."""
    successes = np.asarray(grid.successes)
    n_students = len(successes)
    labels, task = np.unique(np.asarray(grid.task), return_inverse=True)  # numbers in the order of numbers
    order = np.argsort(task, kind="stable")
    counts = np.bincount(task, minlength=len(labels))
    items_by_task = np.split(order, np.cumsum(counts)[:-1])
    blocks, chance = [], None if grid.chance is None else np.asarray(grid.chance, dtype=float)
    for task_items in items_by_task:
        # Items of a task that stand together are a view of the grid, not a copy.
        is_contiguous = task_items[-1] - task_items[0] + 1 == len(task_items)
        item_index: Any = slice(task_items[0], task_items[-1] + 1) if is_contiguous else task_items
        trials = None if grid.trials is None else np.asarray(grid.trials)[:, item_index]
        blocks.append((successes[:, item_index], None if trials is None or (trials == 1).all() else trials))
    columns: dict[str, ColumnValues] = {}
    for name in names:
        if name in grid.students:
            columns[name] = np.tile(np.asarray(grid.students[name]), len(labels))
        elif name in grid.tasks:
            columns[name] = np.repeat(np.asarray(grid.tasks[name]), n_students)
    students = np.asarray(grid.students.get("student", np.arange(n_students))).astype(str)
    data = _build_grid_outcomes(tuple(students), tuple(map(str, labels)), tuple(blocks), columns)
    return data if chance is None else replace(data, chance=tuple(chance[task_items] for task_items in items_by_task))


def _build_grid_outcomes(
    students: tuple[str, ...],
    tasks: tuple[str, ...],
    blocks: tuple[tuple[NDArray[Any], NDArray[Any] | None], ...],
    columns: Mapping[str, ColumnValues],
) -> FitOutcomes:
    s, k = len(students), len(tasks)
    weight = np.concatenate([np.full(s, y.shape[1], dtype=float) if n is None else n.sum(axis=1) for y, n in blocks])
    answers = [np.full(y.shape[1], s) if n is None else n.sum(axis=0) for y, n in blocks]
    return FitOutcomes(
        student_names=students,
        task_names=tasks,
        student=np.tile(np.arange(s), k),
        task=np.repeat(np.arange(k), s),
        weight=np.asarray(weight, dtype=float),
        successes=np.concatenate([y.sum(axis=1) for y, _ in blocks]).astype(float),
        columns=columns,
        grid=blocks,
        rows=None,
        items_per_task=np.array([y.shape[1] for y, _ in blocks], dtype=np.intp),
        answers_per_item=float(np.median(np.concatenate(answers))),
    )


def convert_columns(
    data: Mapping[str, ArrayLike] | pd.DataFrame,
    *,
    score: str,
    covariates: tuple[str, ...],
    student: str,
    item: str,
    task: str,
    trials: str | None,
    path: Path,
    chance: str | None = None,
) -> FitOutcomes:
    """The blocks of a long table.

    Raises
    ------
    EstimationError
        A column is missing, or columns differ in length.
    NotEstimable
        No outcome is left, or scores are neither right nor wrong.
    """
    numbers = [name for name in (trials, chance) if name]
    table, remarks = _build_complete_table(data, [score, student, item, *numbers], [task, *covariates], trials)
    if task not in table:
        table[task] = "all"
    n = table[trials].to_numpy(dtype=float) if trials else np.ones(len(table))
    y = table[score].to_numpy(dtype=float) * n
    if ((y < 0) | (y > n) | (np.abs(y - np.round(y)) > 1e-9)).any():
        raise NotEstimable(remark(Reason.NOT_BINARY, score=score))
    tasks, k = np.unique(table[task].astype(str).to_numpy(), return_inverse=True)
    students, s = np.unique(table[student].astype(str).to_numpy(), return_inverse=True)
    # The same item id in two tasks is two items.
    items, pair = np.unique(k * (1 << 40) + pd.factorize(table[item].astype(str))[0], return_inverse=True)
    item_task = (items >> 40).astype(np.intp)
    columns = {name: table[name].to_numpy() for name in dict.fromkeys(covariates) if name in table}
    repeated = len(table) - len(np.unique(s * np.int64(len(items)) + pair))
    if repeated:
        remarks.append(remark(Reason.REPEATED_OUTCOMES, n=repeated))
    item_chances = _validate_item_chances(table[chance].to_numpy(dtype=float), pair, chance) if chance else None
    long_rows = _LongTableRows(np.round(y), n, s, k, pair, item_task, columns, item_chances)
    unit_names = dict(students=tuple(map(str, students)), tasks=tuple(map(str, tasks)))
    has_uniform_cells = _uniform_within_cells(long_rows, len(students))
    # The grid where covariates allow it and it is not mostly empty; rows else.
    grid_fill_share = (len(table) - repeated) / (len(students) * len(items))
    if path == "grid" and not has_uniform_cells:
        raise EstimationError("path='grid' needs covariates that are constant within student and task; use 'auto'.")
    if has_uniform_cells and (path == "grid" or (path == "auto" and grid_fill_share >= MIN_GRID_FILL_SHARE)):
        return _pivot_to_grid(long_rows, **unit_names).noting(*remarks)
    return _sorted_rows(long_rows, **unit_names).noting(*remarks)


@dataclass(frozen=True)
class _LongTableRows:
    y: Floats
    n: Floats
    student: Ints
    task: Ints
    item: Ints
    item_task: Ints
    columns: Mapping[str, ColumnValues]
    chance: Floats | None


def _validate_item_chances(values: Floats, item: Ints, name: str) -> Floats:
    """Of each item, shape (I,)."""
    item_chances = np.zeros(int(item.max()) + 1)
    item_chances[item] = values
    if not ((values >= 0) & (values < 1) & (values == item_chances[item])).all():
        raise EstimationError(f"{name}: expected one number from 0 to below 1 for each item.")
    return item_chances


def _build_complete_table(
    data: Mapping[str, ArrayLike] | pd.DataFrame, required: list[str], optional_columns: list[str], trials: str | None
) -> tuple[pd.DataFrame, list[Remark]]:
    """The columns that are needed, without rows that miss something, and what was left out."""
    available_columns = list(data)
    for name in required:
        if name not in available_columns:
            raise EstimationError(f"no column {name!r} in the data.{suggestion(name, map(str, available_columns))}")
    names = list(dict.fromkeys([*required, *(name for name in optional_columns if name in available_columns)]))
    arrays = {name: np.asarray(data[name]) for name in names}
    if len({a.shape for a in arrays.values()}) > 1 or any(a.ndim != 1 for a in arrays.values()):
        shapes = ", ".join(f"{name} {a.shape}" for name, a in arrays.items())
        raise EstimationError(f"columns must be equally long; found {shapes}.")
    table = pd.DataFrame(arrays)
    for name in (required[0], *required[3:]):
        try:
            table[name] = pd.to_numeric(table[name]).astype(float)
        except (TypeError, ValueError):
            raise EstimationError(f"{name}: expected numbers, found {arrays[name].dtype}.") from None
    with np.errstate(all="ignore"):
        numeric_columns = table.select_dtypes("number")
        complete_rows = table.notna().all(axis=1) & np.isfinite(numeric_columns.to_numpy(dtype=float)).all(axis=1)
    if trials:
        complete_rows &= table[trials] > 0
    n_incomplete = int((~complete_rows).sum())
    remarks = [remark(Reason.INCOMPLETE_ROWS, n=n_incomplete, of=len(table))] if n_incomplete else []
    table = table[complete_rows].reset_index(drop=True)
    if not len(table):
        raise NotEstimable(remark(Reason.NO_COMPLETE_ROW))
    return table, remarks


def find_first_rows(group_codes: Ints, n: int) -> Ints:
    """The first row with each code, shape (n,); 0 for codes that do not occur."""
    first_row = np.zeros(n, dtype=np.intp)
    first_row[group_codes[::-1]] = np.arange(len(group_codes))[::-1]  # of several writes to one place the last stays
    return first_row


def _uniform_within_cells(long_rows: _LongTableRows, n_students: int) -> bool:
    """Whether every covariate has one value within student and task."""
    cell = long_rows.task * n_students + long_rows.student
    first_row_of_cell = find_first_rows(cell, int(cell.max()) + 1)
    return all(bool((values == values[first_row_of_cell[cell]]).all()) for values in long_rows.columns.values())


def _pivot_to_grid(long_rows: _LongTableRows, *, students: tuple[str, ...], tasks: tuple[str, ...]) -> FitOutcomes:
    """The long rows as one grid of students x items for each task."""
    s, total = len(students), len(long_rows.item_task)
    flat_index = long_rows.student * total + long_rows.item
    y = np.bincount(flat_index, long_rows.y, s * total).reshape(s, total)
    n = np.bincount(flat_index, long_rows.n, s * total).reshape(s, total)
    task_bounds = np.searchsorted(long_rows.item_task, np.arange(len(tasks) + 1))
    blocks = []
    for k in range(len(tasks)):
        task_items = slice(task_bounds[k], task_bounds[k + 1])
        blocks.append((y[:, task_items], None if (n[:, task_items] == 1).all() else n[:, task_items]))
    first_row_of_cell = find_first_rows(long_rows.task * s + long_rows.student, len(tasks) * s)
    columns = {name: values[first_row_of_cell] for name, values in long_rows.columns.items()}
    data = _build_grid_outcomes(students, tasks, tuple(blocks), columns)
    if long_rows.chance is None:
        return data
    return replace(data, chance=tuple(np.split(long_rows.chance, task_bounds[1:-1])))


def _sorted_rows(long_rows: _LongTableRows, *, students: tuple[str, ...], tasks: tuple[str, ...]) -> FitOutcomes:
    """The long rows sorted by task, for the sparse path."""
    order = np.argsort(long_rows.task, kind="stable")
    task, item = long_rows.task[order], long_rows.item[order]
    starts = np.searchsorted(long_rows.item_task, np.arange(len(tasks)))
    counts = np.bincount(long_rows.item_task, minlength=len(tasks))
    y, n = long_rows.y[order], long_rows.n[order]
    return FitOutcomes(
        student_names=students,
        task_names=tasks,
        student=long_rows.student[order],
        task=task,
        weight=n,
        successes=y,
        columns={name: values[order] for name, values in long_rows.columns.items()},
        grid=None,
        rows=SparseOutcomeRows(y, n, item - starts[task]),
        items_per_task=counts.astype(np.intp),
        answers_per_item=float(np.median(np.bincount(item, n))),
    )

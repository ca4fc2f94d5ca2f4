"""Item groups at the levels of a battery: battery, capability, domain, task, slice."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from capgap.analysis.score_matrix import Ints, ScoreMatrix
from capgap.schema.columns import MAX_UNREADABLE_SHARE
from capgap.schema.quantities import AggregationLevel
from capgap.schema.remarks import Reason, Remark, remark

__all__ = ["CAPABILITY_DUO", "MIN_TASKS", "ItemGroup", "find_group", "groups_at", "groups_of"]


CAPABILITY_DUO = ("knowledge", "reasoning")
"""The two capabilities that numbers are told apart by, in the order of tables."""
_TASK_SPANNING_LEVELS: tuple[AggregationLevel, ...] = ("battery", "capability", "domain")
MIN_TASKS = 6
"""So many tasks a capability needs before numbers speak of *tasks like these*."""
MIN_ITEMS_OF_CAPABILITY = 5
"""Of a task whose items ask for different capabilities, so many make a part of it."""
MAX_TASKS_OF_ONE_ITEM = 500
"""Beyond so many tasks, those of a single item have no numbers of their own."""


@dataclass(frozen=True)
class ItemGroup:
    """Some cells under one name."""

    level: AggregationLevel
    """Its level."""
    name: str
    """Its name in the column ``group``."""
    rows: Ints
    """Its cells, row numbers in the grid, without those of tasks that are set aside."""
    spans_tasks: bool
    """Whether it spans tasks, which then count equally, the item-weighted number beside."""
    generalizes: bool = False
    """Whether its tasks are enough to speak of tasks like these."""
    set_aside: tuple[str, ...] = ()
    """Its tasks that are set aside, since the teacher's answers could not be read."""
    n_stray_cells: int = 0
    """Cells of its capability that are too few in their task to count as a part of it."""
    undivided: "ItemGroup | None" = None
    """The same with the tasks that are set aside; None where none is."""

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """Which of its tasks, and how many strays, no number of it counts."""
        unreadable_remark_values = {"most": 100 * MAX_UNREADABLE_SHARE, "tasks": self.set_aside}
        return (
            *([remark(Reason.UNREADABLE_ANSWERS, **unreadable_remark_values)] if self.set_aside else []),
            *([remark(Reason.STRAY_ITEMS, n=self.n_stray_cells, capability=self.name)] if self.n_stray_cells else []),
        )

    @property
    def whole(self) -> "ItemGroup":
        """The group of what does not rest on the teacher: no task is set aside."""
        return self.undivided or self

    def of_roles(self, roles: Collection[str]) -> "ItemGroup":
        """The group as a number of these roles has it: tasks are set aside where the teacher is among them."""
        return self if "teacher" in roles else self.whole

    def of_these_tasks(self) -> "ItemGroup":
        """The group for numbers that never speak of tasks like these."""
        undivided = None if self.undivided is None else self.undivided.of_these_tasks()
        return replace(self, generalizes=False, undivided=undivided)


def groups_of(grid: ScoreMatrix, model: str, excluded: frozenset[str] = frozenset()) -> Iterator[ItemGroup]:
    """Every group of every level, coarse to fine.

    Parameters
    ----------
    grid
        The cells.
    model
        Whose covariates make the slices (``x_exposure`` differs between students).
    excluded
        Tasks in which the teacher's answers could not be read: they are set aside above the level of a task.
    """
    for level in _TASK_SPANNING_LEVELS:
        yield from groups_at(grid, level, excluded)
    yield from _make_format_groups(grid, excluded)
    size = np.bincount(grid.task, minlength=len(grid.tasks))
    # Cells sorted by task, cut where the task changes.
    order = np.argsort(grid.task, kind="stable")
    for code, rows in enumerate(np.split(order, np.cumsum(size)[:-1])):
        if len(grid.tasks) > MAX_TASKS_OF_ONE_ITEM and size[code] < 2:
            continue  # one answer is no task; ten thousand of them would be millions of rows
        name = grid.tasks[code]
        yield ItemGroup("task", name, rows, False)
        yield from _make_slice_groups(grid, model, name, rows)


def groups_at(
    grid: ScoreMatrix, level: AggregationLevel, excluded: frozenset[str] = frozenset()
) -> Iterator[ItemGroup]:
    """Every group of one level over tasks: ``battery``, ``capability`` or ``domain``."""
    for name in grid.members(level):
        yield find_group(grid, level, name, excluded)


def find_group(
    grid: ScoreMatrix,
    level: AggregationLevel,
    name: str,
    excluded: frozenset[str] = frozenset(),
    *,
    battery: str | None = None,
) -> ItemGroup:
    """One group over tasks, of one battery or of all; without a row where the grid holds nothing of that name."""
    is_member = np.asarray(grid.facts[level] == name)
    if battery is not None:
        is_member = is_member & (grid.facts["battery"] == battery)
    return _divided_group(grid, level, name, is_member, excluded)


def _divided_group(
    grid: ScoreMatrix, level: AggregationLevel, name: str, is_member: NDArray[np.bool_], excluded: frozenset[str]
) -> ItemGroup:
    """The group of the member cells, and beside it the same with the tasks that are set aside."""

    def group_of(members: Ints) -> ItemGroup:
        rows = _drop_stray_cells(grid, members) if level == "capability" else members
        generalizes = level != "slice" and _has_enough_tasks(grid, rows)
        return ItemGroup(level, name, rows, True, generalizes, n_stray_cells=len(members) - len(rows))

    readable = _mask_readable_cells(grid, excluded)
    group = group_of(np.flatnonzero(is_member & readable))
    tasks_set_aside = tuple(sorted(grid.tasks[code] for code in np.unique(grid.task[is_member & ~readable])))
    if not tasks_set_aside:
        return group
    return replace(group, set_aside=tasks_set_aside, undivided=group_of(np.flatnonzero(is_member)))


def _mask_readable_cells(grid: ScoreMatrix, excluded: frozenset[str]) -> NDArray[np.bool_]:
    """Which cells are of no excluded task, shape (cells,)."""
    return np.array([task not in excluded for task in grid.tasks], dtype=bool)[grid.task]


def _drop_stray_cells(grid: ScoreMatrix, rows: Ints) -> Ints:
    """The cells of a capability without strays: fewer than `MIN_ITEMS_OF_CAPABILITY` in a task of several capabilities.

    A task counts as much as every other one, so one or two of its items that the classifier labels otherwise would
    count as much as whole tasks.
    """
    n_in_capability, in_task = (np.bincount(grid.task[r], minlength=len(grid.tasks)) for r in (rows, slice(None)))
    has_few_in_capability = (n_in_capability < MIN_ITEMS_OF_CAPABILITY) & (n_in_capability < in_task)
    return np.asarray(rows[~has_few_in_capability[grid.task[rows]]])


def _make_format_groups(grid: ScoreMatrix, excluded: frozenset[str]) -> Iterator[ItemGroup]:
    """One group a format, over all tasks and within each capability, where both formats occur."""
    form, capability = grid.facts["format"], grid.facts["capability"]
    row_scopes = [("", np.ones(len(form), dtype=bool))]
    row_scopes += [(f"{name}: ", np.asarray(capability == name)) for name in grid.members("capability")]
    for prefix, is_in_scope in row_scopes:
        names = sorted({name for name in form[is_in_scope] if name is not None})
        if len(names) > 1:
            for name in names:
                is_member = is_in_scope & np.asarray(form == name)
                yield _divided_group(grid, "slice", f"{prefix}format={name}", is_member, excluded)


def _make_slice_groups(grid: ScoreMatrix, model: str, task: str, rows: Ints) -> Iterator[ItemGroup]:
    """The bins of every covariate within a task, and its variants, where there are at least two."""
    column = grid.column(model)
    labels = {name: bins[rows, column] for name, bins in grid.covariates.items()}
    labels["variant"] = grid.facts["variant"][rows]
    for covariate, label in labels.items():
        names = sorted({str(x) for x in label if x is not None}, key=_natural_key)  # bins in the order of their numbers
        if len(names) < 2:
            continue
        text = np.array(["" if x is None else str(x) for x in label], dtype=object)
        has_label = np.array([x is not None for x in label])
        for name in names:
            yield ItemGroup("slice", f"{task}: {covariate}={name}", rows[has_label & (text == name)], False)


def _natural_key(label: str) -> tuple[float, str]:
    """Numbers and spans of numbers in their order, words after them."""
    bin_start_text = label.split("–")[0]
    try:
        return float(bin_start_text), label
    except ValueError:
        return float("inf"), label


def _has_enough_tasks(grid: ScoreMatrix, rows: Ints) -> bool:
    """Whether every capability of these cells (all of them, where nothing is labelled) has `MIN_TASKS`."""
    capability = grid.facts["capability"][rows]
    rows_by_capability = [rows[capability == name] for name in {c for c in capability if c is not None}] or [rows]
    return all(len(np.unique(grid.task[capability_rows])) >= MIN_TASKS for capability_rows in rows_by_capability)

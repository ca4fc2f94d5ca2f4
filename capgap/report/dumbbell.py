"""The dumbbell chart: one row per task, base to student to teacher, on a scale from 0 to 100 %."""

from dataclasses import dataclass

import pandas as pd

from capgap.report import text
from capgap.report.tables import CAPABILITY_ORDER, EstimateIndex, EstimateView, task_names
from capgap.schema import Roles


@dataclass(frozen=True)
class DumbbellRow:
    """One task; positions are per cent of the width, None where a role is missing or a number unknown."""

    task: str
    student: float | None
    low: float | None
    high: float | None
    teacher: float | None
    base: float | None
    control: float | None
    chance: float | None
    gap: EstimateView | None
    accuracy: EstimateView | None
    label: str
    """The row in words, for those who do not see it."""
    excluded: bool
    """Whether unreadable answers keep the task out of the numbers above it."""


@dataclass(frozen=True)
class DumbbellGroup:
    """The tasks of one capability, widest gap first."""

    capability: str
    rows: tuple[DumbbellRow, ...]


@dataclass(frozen=True)
class DumbbellPanel:
    """The chart of one student."""

    number: int
    student: str
    groups: tuple[DumbbellGroup, ...]

    @property
    def n_rows(self) -> int:
        """Tasks in it."""
        return sum(len(group.rows) for group in self.groups)


def single_capability(frame: pd.DataFrame, group_column: str) -> dict[str, str]:
    """The capability that all labelled rows of a group share; ``mixed`` where they have several.

    Parameters
    ----------
    frame
        With the columns `group_column` and ``capability``; a group without a capability is left out.
    group_column
        The column that groups.
    """
    capabilities = frame[[group_column, "capability"]].dropna().groupby(group_column)["capability"].unique()
    return {str(group): str(words[0]) if len(words) == 1 else "mixed" for group, words in capabilities.items()}


def task_capabilities(outcomes: pd.DataFrame) -> dict[str, str]:
    """Each task's capability by its outcomes; of several ``mixed``, of none ``unlabelled``."""
    frame = outcomes[["capability"]].assign(task=task_names(outcomes))
    capability_by_task = single_capability(frame, "task")
    return {str(task): capability_by_task.get(str(task), "unlabelled") for task in dict.fromkeys(frame["task"])}


def _clip_to_percent(value: float | None) -> float | None:
    """A share as per cent of the width, cut at both ends."""
    return None if value is None else round(min(100.0, max(0.0, 100 * value)), 2)


def _row(lookup: EstimateIndex, task: str, roles: Roles, student: str, excluded: bool) -> DumbbellRow:
    def accuracy(model: str | None) -> EstimateView | None:
        return None if model is None else lookup.find("accuracy", "task", task, model)

    cast = {
        "base": roles.base.get(student),
        "student": student,
        "control": roles.control.get(student),
        "teacher": roles.teacher,
    }
    accuracies = {role: accuracy(model) for role, model in cast.items()}
    share = {role: None if row is None or row.refused else row.estimate for role, row in accuracies.items()}
    student_accuracy = accuracies["student"]
    chance = next((row.null_value for row in accuracies.values() if row and row.null_value is not None), None)
    alt_text = ", ".join(f"{role} {text.percent(value)}" for role, value in share.items() if value is not None)
    return DumbbellRow(
        task=task,
        **{role: _clip_to_percent(value) for role, value in share.items()},
        low=_clip_to_percent(student_accuracy.low) if student_accuracy else None,
        high=_clip_to_percent(student_accuracy.high) if student_accuracy else None,
        chance=_clip_to_percent(chance),
        gap=lookup.find("gap", "task", task, student),
        accuracy=student_accuracy,
        label=f"{task}: {alt_text or 'no number'}" + (f"; chance {text.percent(chance)}" if chance else ""),
        excluded=excluded,
    )


def _gap_sort_key(row: DumbbellRow) -> tuple[bool, float, str]:
    if row.gap is not None and row.gap.estimate is not None:
        return False, -row.gap.estimate, row.task
    return True, -(row.student if row.student is not None else -1.0), row.task


def make_dumbbell_panels(
    lookup: EstimateIndex, roles: Roles, capabilities: dict[str, str], excluded: set[str]
) -> tuple[DumbbellPanel, ...]:
    """One panel per student: tasks grouped by capability, the widest gap first.

    Parameters
    ----------
    lookup
        The estimates.
    roles
        Who is who.
    capabilities
        Task → capability, see `task_capabilities`.
    excluded
        The tasks that unreadable answers keep out of every number above them.
    """
    panels = []
    for number, student in enumerate(roles.students, 1):
        capability_groups = []
        for capability in CAPABILITY_ORDER:
            rows = [
                _row(lookup, task, roles, student, task in excluded)
                for task in lookup.groups("task")
                if capabilities.get(task, "unlabelled") == capability
            ]
            rows = [row for row in rows if row.student is not None or row.teacher is not None]
            if rows:
                capability_groups.append(DumbbellGroup(capability, tuple(sorted(rows, key=_gap_sort_key))))
        panels.append(DumbbellPanel(number, student, tuple(capability_groups)))
    return tuple(panels)

"""Headline sentence of a comparison, and the next step: the command that would narrow its widest interval."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from capgap import schema
from capgap.analysis.cohort_headline import cohort_sentences
from capgap.analysis.groups import CONTRASTED
from capgap.analysis.number_format import one_line, short, with_interval
from capgap.schema.remarks import Reason

__all__ = ["next_step", "sentence"]

_UNLIKE = {Reason.UNLIKE_ITEMS, Reason.NO_COMMON_ITEMS}
_ONE_CLUSTER = {Reason.ONE_CLUSTER, Reason.ONE_CLUSTER_IN_TASK, Reason.DOMINANT_CLUSTER}
_FACTOR = 4
"""Next steps ask for so many times the items: half the width."""


@dataclass(frozen=True)
class _HeadlineNumber:
    """One estimate as the sentence needs it."""

    capability: str
    """Empty where the number is that of everything together."""
    value: float
    low: float
    high: float
    status: str
    note: str
    reason: str | None
    n_items: int
    n_tasks: int

    @property
    def exists(self) -> bool:
        """Whether there is a number."""
        return self.status != "refused" and math.isfinite(self.value)

    @property
    def half(self) -> float:
        """Half the width of its interval, NaN where an end is open."""
        return (self.high - self.low) / 2

    @property
    def subject(self) -> str:
        """``the knowledge gap`` or ``the gap``."""
        return f"the {self.capability} gap" if self.capability else "the gap"


def sentence(estimates: pd.DataFrame, roles: schema.Roles) -> str:
    """What was found: what several students say together, then one line a student.

    Parameters
    ----------
    estimates
        From `analyze`.
    roles
        The same as there.

    Returns
    -------
    str
        Lines of `cohort_sentences`, and as many as there are students. Gap closure where there is a base and the
        teacher leads it, else retention, else the gap in points; the accuracy of a lone model. What is refused or left
        out is said.
    """
    several = len(roles.students) > 1
    lines = [_line(estimates, roles, student, named=several) for student in roles.students]
    return "\n".join([*cohort_sentences(estimates), *lines])


def next_step(estimates: pd.DataFrame, roles: schema.Roles, run: Mapping[str, Any] | None = None) -> str:
    """The line that starts with ``Next:``: what would narrow the widest headline interval, and to about what.

    Parameters
    ----------
    estimates, roles
        As for `sentence`.
    run
        What run.json holds; ``limit``, ``batteries`` and ``command`` tell whether more items can be had.

    Returns
    -------
    str
        One line; empty where nothing is to be gained.
    """
    run = run or {}
    command = _command(run)
    if roles.teacher is None:
        return f"Next: {command} --teacher CKPT     (tells how much of a teacher's lead this student could still get)"
    bounded = [
        (student, measure, number)
        for student in roles.students
        for measure, number in _headline(estimates, roles, student)
        if number.exists and math.isfinite(number.half)
    ]
    if not bounded:
        if _left_out(estimates):
            return (
                "Next: mend the tasks whose answers could not be read (see `unparsed` and `truncated`), then run again"
            )
        return _without_numbers(estimates, roles, command)
    if any(student not in roles.base for student in roles.students):
        return f"Next: {command} --base CKPT     (the model before distillation: tells what distillation closed)"
    student, measure, widest = max(bounded, key=lambda t: (t[2].half, t[0], t[2].capability))
    what = f"{widest.capability or 'the number'}" + (f" of {one_line(student)}" if len(roles.students) > 1 else "")
    unit = " points" if measure == "gap" else ""
    now, then = (f"± {short(100 * half)}" for half in (widest.half, widest.half / math.sqrt(_FACTOR)))
    limit = _limit_that_binds(run)
    if limit is not None:
        larger = f"{command} --limit {_FACTOR * limit}"
        return f"Next: {larger}     (narrows {what} from {now} to about {then}{unit}, where tasks have so many items)"
    return (
        f"Next: {_FACTOR} times the items, from more tasks or another battery, would narrow {what} "
        f"from {now} to about {then}{unit}"
    )


def _without_numbers(estimates: pd.DataFrame, roles: schema.Roles, command: str) -> str:
    """What to do where no headline number has an interval, by the reasons that they give."""
    reasons = {n.reason for s in roles.students for q in ("gap_closure", "gap") for n in _numbers(estimates, q, s)}
    if reasons & _UNLIKE:
        return "Next: have teacher, base and students answer the same items: numbers are of items that all of them did"
    if reasons & _ONE_CLUSTER:
        return "Next: items of more clusters (passages, templates) in each task: one cluster tells nothing about luck"
    return f"Next: a teacher that is clearly better than its base on these tasks, or more items: {command}"


def _line(estimates: pd.DataFrame, roles: schema.Roles, student: str, *, named: bool) -> str:
    headline = _headline(estimates, roles, student)
    numbers = [number for _, number in headline if number.exists]
    missing = [number for _, number in headline if not number.exists]
    measure = headline[0][0] if headline else ""
    if numbers:
        text = _claims(measure, numbers, one_line(student) if named else "")
        text += f" {_extent(numbers, _n_tasks(estimates, measure, student))}"
    else:
        text = f"{one_line(student)}: no number" if named else "No number"
    if numbers and measure != "gap_closure" and student in roles.base:
        # Every closure was refused, or retention would not have been asked for: say why.
        reasons = [f"{n.capability}: {n.note}".removeprefix(": ") for n in _numbers(estimates, "gap_closure", student)]
        text += f"; no gap closure ({'; '.join(reasons)})" if reasons else ""
    if missing:
        text += "; " + "; ".join(_absence(estimates, student, number) for number in missing)
    text += "."
    if roles.teacher is None and numbers:
        text += " With a teacher (--teacher) capgap would say how much of its lead this model got."
    if left_out := _left_out(estimates):
        text += f" Left out, answers unreadable: {', '.join(left_out)}."
    return text


def _headline(estimates: pd.DataFrame, roles: schema.Roles, student: str) -> list[tuple[str, _HeadlineNumber]]:
    """Measure and number for each capability: the first measure that gives any number, or the first one's refusals."""
    if roles.teacher is None:
        measures = ["accuracy"]
    elif student in roles.base:
        measures = ["gap_closure", "retention", "gap"]
    else:
        measures = ["retention", "gap"]
    tried: list[list[tuple[str, _HeadlineNumber]]] = []
    for measure in measures:
        numbers = [(measure, number) for number in _numbers(estimates, measure, student)]
        if any(number.exists for _, number in numbers):
            return numbers
        tried.append(numbers)
    return next((numbers for numbers in tried if numbers), [])


def _numbers(estimates: pd.DataFrame, quantity: str, student: str) -> list[_HeadlineNumber]:
    """The capability rows of a quantity, or those of the batteries where no capability is known."""
    rows = estimates[
        (estimates["quantity"] == quantity)
        & (estimates["model"] == student)
        & (estimates["weighting"] == "tasks")
        & (estimates["population_tasks"] == "these_tasks")
        & (estimates["estimator"] == "paired")
    ]
    by_capability = rows[(rows["level"] == "capability") & rows["group"].isin(CONTRASTED)]
    chosen = by_capability if len(by_capability) else rows[rows["level"] == "battery"]
    return [
        _HeadlineNumber(
            capability=row["group"] if row["level"] == "capability" else "",
            value=row["estimate"],
            low=row["conf_low"],
            high=row["conf_high"],
            status=row["status"],
            note=row["note"] if isinstance(row["note"], str) else "",
            reason=row["reason"] if isinstance(row["reason"], str) else None,
            n_items=int(row["n_items"]) if pd.notna(row["n_items"]) else 0,
            n_tasks=int(row["n_tasks"]) if pd.notna(row["n_tasks"]) else 0,
        )
        for row in chosen.sort_values("group", kind="stable").to_dict("records")
    ]


def _claims(measure: str, numbers: list[_HeadlineNumber], name: str) -> str:
    if measure == "gap_closure":
        verb, parts = "closed", [f"{_percent(n)} of {n.subject}" for n in numbers]
    elif measure == "retention":
        verb = "kept"
        parts = [f"{_percent(n)} of the teacher's {n.capability or 'lead'} above chance" for n in numbers]
    elif measure == "gap":
        verb, parts = "is", [f"{_distance(n)}{f' in {n.capability}' if n.capability else ''}" for n in numbers]
    else:
        verb = "answered"
        parts = [f"{_percent(n)} of the {n.capability + ' ' if n.capability else ''}items" for n in numbers]
        parts[-1] += " rightly"
    text = f"{verb} {' and '.join(parts)}"
    if measure == "gap" and not name:
        name = "The student"
    return f"{name} {text}" if name else text[0].upper() + text[1:]


def _absence(estimates: pd.DataFrame, student: str, number: _HeadlineNumber) -> str:
    """Why there is no number, and the gap in points where that can be told."""
    text = f"no share of {number.subject} ({number.note})" if number.note else f"no share of {number.subject}"
    gaps = [n for n in _numbers(estimates, "gap", student) if n.capability == number.capability and n.exists]
    return f"{text}: {_distance(gaps[0])}" if gaps else text


def _distance(gap: _HeadlineNumber) -> str:
    """``3 points [1, 5] behind the teacher``."""
    if gap.value >= 0:
        return f"{_percent(gap, unit='points')} behind the teacher"
    ahead = replace(gap, value=-gap.value, low=-gap.high, high=-gap.low)
    return f"{_percent(ahead, unit='points')} ahead of the teacher"


def _percent(number: _HeadlineNumber, unit: str = "%") -> str:
    return with_interval(number.value, number.low, number.high, unit)


def _extent(numbers: list[_HeadlineNumber], most: int) -> str:
    """How much the numbers rest on; a task with items of several capabilities is one task."""
    tasks, items = min(sum(n.n_tasks for n in numbers), most), sum(n.n_items for n in numbers)
    return f"({tasks:,} task{'' if tasks == 1 else 's'}, {items:,} item{'' if items == 1 else 's'}, these checkpoints)"


def _n_tasks(estimates: pd.DataFrame, quantity: str, student: str) -> int:
    """The tasks of all batteries together."""
    rows = estimates[
        (estimates["quantity"] == quantity) & (estimates["model"] == student) & (estimates["level"] == "battery")
    ]
    return int(rows.groupby("group")["n_tasks"].max().sum())


def _left_out(estimates: pd.DataFrame) -> list[str]:
    """The tasks that leave the headline for unreadable answers."""
    rows = estimates[estimates["quantity"].isin(["unparsed", "truncated"])]
    return sorted(set(rows.loc[rows["reason"] == Reason.UNREADABLE_ANSWERS, "group"]))


def _command(run: Mapping[str, Any]) -> str:
    batteries = run.get("batteries")
    names = [f" --battery {name}" for name in batteries] if isinstance(batteries, Mapping) else []
    return "capgap evaluate …" + "".join(names)


def _limit_that_binds(run: Mapping[str, Any]) -> int | None:
    """The asked limit, where some task has that many items and may have more; None where none was asked or reached."""
    limit, batteries = run.get("limit"), run.get("batteries")
    if not isinstance(limit, int) or limit < 1:
        return None
    if not isinstance(batteries, Mapping):
        return limit
    sizes = [
        task.get("n_items")
        for battery in batteries.values()
        if isinstance(battery, Mapping) and isinstance(battery.get("tasks"), Mapping)
        for task in battery["tasks"].values()
        if isinstance(task, Mapping)
    ]
    return limit if not sizes or any(isinstance(n, int) and n >= limit for n in sizes) else None

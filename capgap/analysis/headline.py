"""Headline sentence of a comparison, and the next step: the command that would narrow its widest interval."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import pandas as pd

from capgap import schema
from capgap.analysis.answer_headline import bounds_line, format_learnt_clauses, gap_part_clauses, inverted_task_clauses
from capgap.analysis.cohort_headline import headline_lines
from capgap.analysis.groups import CAPABILITY_DUO
from capgap.analysis.number_format import format_points, format_with_interval
from capgap.printable_text import one_line
from capgap.schema.remarks import Reason

_ITEM_MISMATCH_REASONS = {Reason.UNLIKE_ITEMS, Reason.NO_COMMON_ITEMS}
_ONE_CLUSTER = {Reason.ONE_CLUSTER, Reason.ONE_CLUSTER_IN_TASK, Reason.DOMINANT_CLUSTER}
_UNREADABLE = ("unparsed", "cut_off")
"""Quantities that count answers which could not be read."""
_ITEM_FACTOR = 4
"""Next steps ask for so many times the items: half the width."""


@dataclass(frozen=True)
class _HeadlineNumber:
    """One estimate as the sentence needs it."""

    measure: str
    """Its quantity."""
    capability: str
    """Empty where the number is that of everything together."""
    estimate: float
    conf_low: float
    conf_high: float
    status: str
    note: str
    reason: str
    n_items: int
    n_tasks: int

    @property
    def exists(self) -> bool:
        """Whether there is a number."""
        return self.status != "refused" and math.isfinite(self.estimate)

    @property
    def half(self) -> float:
        """Half the width of its interval, NaN where an end is open."""
        return (self.conf_high - self.conf_low) / 2

    @property
    def subject(self) -> str:
        """``the knowledge gap`` or ``the gap``."""
        return f"the {self.capability} gap" if self.capability else "the gap"


_NUMBER_FIELDS = [field.name for field in fields(_HeadlineNumber)]


def sentence(estimates: pd.DataFrame, roles: schema.Roles) -> str:
    """What was found: what several students say together, then one line a student.

    Parameters
    ----------
    estimates
        From `capgap.analysis.estimate_table`.
    roles
        The same as there.

    Returns
    -------
    str
        Those of `headline_lines`, with a line a student where they are few, its bounds on the next where answers that
        are unreadable or missing make them wider than the interval. Gap closure where there is a base and the
        teacher leads it, else retention, else the gap in points; the accuracy of a lone model. What is refused or left
        out is said.
    """
    return "\n".join(headline_lines(estimates, student_lines(estimates, roles)))


def student_lines(estimates: pd.DataFrame, roles: schema.Roles) -> list[str]:
    """The line of every student, which the page holds even where the headline leaves them out."""
    rows = _headline_rows(estimates)
    has_several_students = len(roles.students) > 1
    return [_student_line(rows, roles, student, with_student_name=has_several_students) for student in roles.students]


def next_step(estimates: pd.DataFrame, roles: schema.Roles, run: Mapping[str, Any] | None = None) -> str:
    """The line that starts with ``Next:``: what would narrow the widest headline interval, and to about what.

    Parameters
    ----------
    estimates, roles
        As for `sentence`.
    run
        What run.json holds; ``limit`` and ``batteries`` tell whether more items can be had, ``declined_roles`` which
        roles the user wants nobody for.

    Returns
    -------
    str
        One line; empty where nothing is to be gained.
    """
    estimates, run = _headline_rows(estimates), run or {}
    command = _format_command(run)
    declined_roles = run.get("declined_roles") or ()
    if roles.teacher is None and "teacher" not in declined_roles:
        return f"Next: {command} --teacher CKPT     (tells how much of a teacher's lead this student could still get)"
    finite_intervals = [
        (student, number)
        for student in roles.students
        for number in _find_headline_numbers(estimates, roles, student)
        if number.exists and math.isfinite(number.half)
    ]
    if not finite_intervals:
        if tasks := _unreadable_tasks(estimates):
            return (
                f"Next: make the answers of the teacher readable in {', '.join(tasks)} "
                "(a higher max_tokens, another stop or extract), then run again"
            )
        return _without_numbers(estimates, roles, command)
    if roles.teacher and "base" not in declined_roles and any(student not in roles.base for student in roles.students):
        return f"Next: {command} --base CKPT     (the model before distillation: tells what distillation closed)"
    student, widest = max(finite_intervals, key=lambda pair: (pair[1].half, pair[0], pair[1].capability))
    subject = f"{widest.capability or 'the number'}" + (f" of {one_line(student)}" if len(roles.students) > 1 else "")
    unit = " points" if widest.measure == "gap" else ""
    now, then = (f"± {format_points(100 * margin)}" for margin in (widest.half, widest.half / math.sqrt(_ITEM_FACTOR)))
    limit = _limit_that_binds(run)
    if limit is not None:
        rerun = f"{command} --limit {_ITEM_FACTOR * limit}"
        return f"Next: {rerun}     (narrows {subject} from {now} to about {then}{unit}, where tasks have so many items)"
    return (
        f"Next: {_ITEM_FACTOR} times the items, from more tasks or another battery, would narrow {subject} "
        f"from {now} to about {then}{unit}"
    )


def _headline_rows(estimates: pd.DataFrame) -> pd.DataFrame:
    """The few rows that a headline may speak of: it asks for many of them, one student and measure at a time."""
    measures = estimates["quantity"].isin(["gap_closure", "retention", "gap", "accuracy", "gap_part"])
    return estimates[
        estimates["quantity"].isin(_UNREADABLE) | (measures & estimates["level"].isin(["battery", "capability"]))
    ]


def _without_numbers(estimates: pd.DataFrame, roles: schema.Roles, command: str) -> str:
    """What to do where no headline number has an interval, by the reasons that they give."""
    reasons = {n.reason for s in roles.students for q in ("gap_closure", "gap") for n in _numbers(estimates, q, s)}
    if reasons & _ITEM_MISMATCH_REASONS:
        return "Next: have teacher, base and students answer the same items: numbers are of items that all of them did"
    if Reason.NEARLY_MATCHING_ITEMS in reasons:
        return "Next: give the same items the same ids in every table (see the note), then run again"
    if reasons & _ONE_CLUSTER:
        return "Next: items of more clusters (passages, templates) in each task: one cluster tells nothing about luck"
    return f"Next: a teacher that is clearly better than its base on these tasks, or more items: {command}"


def _student_line(estimates: pd.DataFrame, roles: schema.Roles, student: str, *, with_student_name: bool) -> str:
    headline_numbers = _find_headline_numbers(estimates, roles, student)
    numbers = [number for number in headline_numbers if number.exists]
    missing = [number for number in headline_numbers if not number.exists]
    if numbers:
        text = _claim_sentence(numbers, one_line(student) if with_student_name else "")
        text += f" {_sample_size_text(numbers, _n_tasks(estimates, numbers[0].measure, student))}"
        for clauses_of in (format_learnt_clauses, gap_part_clauses, inverted_task_clauses):
            text += "".join(f"; {clause}" for clause in clauses_of(estimates, student, numbers))
    else:
        text = f"{one_line(student)}: no number" if with_student_name else "No number"
    if numbers and numbers[0].measure != "gap_closure" and student in roles.base:
        # Every closure was refused, or retention would not have been asked for: say why.
        reasons = [f"{n.capability}: {n.note}".removeprefix(": ") for n in _numbers(estimates, "gap_closure", student)]
        text += f"; no gap closure ({'; '.join(reasons)})" if reasons else ""
    if missing:
        text += "; " + "; ".join(_explain_missing(estimates, student, number) for number in missing)
    text += "."
    if roles.teacher is None and numbers:
        text += " With a teacher (--teacher) capgap would say how much of its lead this model got."
    shares = [
        f"{who} {format_points(100 * share)} %"
        for who, model in (("student", student), ("teacher", roles.teacher))
        if model is not None and (share := _unreadable_share(estimates, model)) > 0
    ]
    if shares:
        text += f" Unreadable answers: {', '.join(shares)}."
    if unreadable_tasks := _unreadable_tasks(estimates):
        text += f" Set aside, the teacher's answers unreadable: {', '.join(unreadable_tasks)}."
    if bounds := bounds_line(estimates, student, numbers):
        text += f"\n{one_line(student)}: {bounds}" if with_student_name else f"\n{bounds}"
    return text


def _find_headline_numbers(estimates: pd.DataFrame, roles: schema.Roles, student: str) -> list[_HeadlineNumber]:
    """A number for each capability: of the first measure that gives any, or the first one's refusals."""
    if roles.teacher is None:
        measures = ["accuracy"]
    elif student in roles.base:
        measures = ["gap_closure", "retention", "gap"]
    else:
        measures = ["retention", "gap"]
    number_lists = [_numbers(estimates, measure, student) for measure in measures]
    usable_number_lists = (numbers for numbers in number_lists if any(number.exists for number in numbers))
    return next(usable_number_lists, next((numbers for numbers in number_lists if numbers), []))


def _numbers(estimates: pd.DataFrame, quantity: str, student: str) -> list[_HeadlineNumber]:
    """The capability rows of a quantity, or those of the batteries where no capability is known."""
    rows = estimates[
        (estimates["quantity"] == quantity)
        & (estimates["model"] == student)
        & (estimates["weighting"] == "tasks")
        & (estimates["population_tasks"] == "these_tasks")
        & (estimates["estimator"] == "paired")
    ]
    by_capability = rows[(rows["level"] == "capability") & rows["group"].isin(CAPABILITY_DUO)]
    chosen = by_capability if len(by_capability) else rows[rows["level"] == "battery"]
    capabilities = chosen["group"].where(chosen["level"] == "capability", "")
    measure_rows = chosen.assign(measure=quantity, capability=capabilities).sort_values("group", kind="stable")
    measure_rows = measure_rows.fillna({"note": "", "reason": "", "n_items": 0, "n_tasks": 0})[_NUMBER_FIELDS]
    return [_HeadlineNumber(*row) for row in measure_rows.itertuples(index=False)]


def _claim_sentence(numbers: list[_HeadlineNumber], name: str) -> str:
    measure = numbers[0].measure
    if measure == "gap_closure":
        verb, claim_phrases = "closed", [f"{_percent(n)} of {n.subject}" for n in numbers]
    elif measure == "retention":
        verb = "kept"
        claim_phrases = [f"{_percent(n)} of the teacher's {n.capability or 'lead'} above chance" for n in numbers]
    elif measure == "gap":
        verb, claim_phrases = "is", [f"{_distance(n)}{f' in {n.capability}' if n.capability else ''}" for n in numbers]
    else:
        verb = "answered"
        claim_phrases = [f"{_percent(n)} of the {n.capability + ' ' if n.capability else ''}items" for n in numbers]
        claim_phrases[-1] += " rightly"
    text = f"{verb} {' and '.join(claim_phrases)}"
    if measure == "gap" and not name:
        name = "The student"
    return f"{name} {text}" if name else text[0].upper() + text[1:]


def _explain_missing(estimates: pd.DataFrame, student: str, number: _HeadlineNumber) -> str:
    """Why there is no number, and the gap in points where that can be told."""
    text = f"no share of {number.subject} ({number.note})" if number.note else f"no share of {number.subject}"
    gaps = [n for n in _numbers(estimates, "gap", student) if n.capability == number.capability and n.exists]
    return f"{text}: {_distance(gaps[0])}" if gaps else text


def _distance(gap: _HeadlineNumber) -> str:
    """``3 points [1, 5] behind the teacher``."""
    if gap.estimate >= 0:
        return f"{_percent(gap, unit='points')} behind the teacher"
    negated_gap = replace(gap, estimate=-gap.estimate, conf_low=-gap.conf_high, conf_high=-gap.conf_low)
    return f"{_percent(negated_gap, unit='points')} ahead of the teacher"


def _percent(number: _HeadlineNumber, unit: str = "%") -> str:
    return format_with_interval(number.estimate, number.conf_low, number.conf_high, unit)


def _sample_size_text(numbers: list[_HeadlineNumber], max_tasks: int) -> str:
    """How much the numbers rest on; a task with items of several capabilities is one task."""
    tasks, items = min(sum(n.n_tasks for n in numbers), max_tasks), sum(n.n_items for n in numbers)
    return f"({tasks:,} task{'' if tasks == 1 else 's'}, {items:,} item{'' if items == 1 else 's'}, these checkpoints)"


def _n_tasks(estimates: pd.DataFrame, quantity: str, student: str) -> int:
    """The tasks of all batteries together."""
    rows = estimates[
        (estimates["quantity"] == quantity) & (estimates["model"] == student) & (estimates["level"] == "battery")
    ]
    return int(rows.groupby("group")["n_tasks"].max().sum())


def _unreadable_tasks(estimates: pd.DataFrame) -> list[str]:
    """The tasks that are set aside, since the teacher's answers could not be read."""
    rows = estimates[estimates["quantity"].isin(_UNREADABLE)]
    return sorted(set(rows.loc[rows["reason"] == Reason.UNREADABLE_ANSWERS, "group"]))


def _unreadable_share(estimates: pd.DataFrame, model: str) -> float:
    """The share of a model's answers that could not be read, of all tasks that tell; 0 where none does."""
    rows = estimates[estimates["quantity"].isin(_UNREADABLE) & (estimates["model"] == model)]
    n_items = rows.groupby("group")["n_items"].max().sum()
    return float((rows["estimate"] * rows["n_items"]).sum() / n_items) if n_items else 0.0


def _format_command(run: Mapping[str, Any]) -> str:
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

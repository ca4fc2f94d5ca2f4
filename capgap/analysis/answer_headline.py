"""What a headline says of what its numbers rest on: parts of the gap, inverted tasks, and the line of bounds."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pandas as pd

from capgap.analysis.answer_states import UNREADABLE_STATES
from capgap.analysis.number_format import format_share_hundredths, format_with_interval
from capgap.printable_text import one_line

__all__ = ["bounds_line", "format_learnt_clauses", "gap_part_clauses", "inverted_task_clauses"]

MIN_PART = 0.02
"""A smaller part of the gap is in the tables alone."""
_STATE_WORDS = {
    "cut_off": "answers cut off",
    "stopped_early": "answers stopped early",
    "unreadable": "unreadable answers",
}
_MIN_SHARE = 0.005
"""A share of answers below this is not told in the line of bounds."""


class HeadlineFigure(Protocol):
    """What is read of a number in the headline."""

    @property
    def measure(self) -> str:
        """Its quantity."""

    @property
    def capability(self) -> str:
        """Empty where the number is that of everything together."""

    @property
    def subject(self) -> str:
        """``the knowledge gap`` or ``the gap``."""

    @property
    def conf_low(self) -> float:
        """Lower end of its interval."""

    @property
    def conf_high(self) -> float:
        """Upper end of its interval."""


def gap_part_clauses(estimates: pd.DataFrame, student: str, numbers: Sequence[HeadlineFigure]) -> list[str]:
    """One clause for each unreadable part of a headline gap that is two points or more and clear of zero."""
    clauses = []
    for number in numbers:
        rows = _rows_of(estimates, student, number, "gap_part", "paired")
        parts = rows[["contrast", "estimate", "conf_low", "conf_high"]].sort_values("contrast")
        for state, value, low, high in parts[parts["contrast"].isin(UNREADABLE_STATES)].itertuples(index=False):
            if (low > 0 or high < 0) and abs(value) >= MIN_PART:
                points = format_with_interval(value, low, high, "points")
                clauses.append(f"{_STATE_WORDS[state]} make {points} of {number.subject}")
    return clauses


def inverted_task_clauses(estimates: pd.DataFrame, student: str, numbers: Sequence[HeadlineFigure]) -> list[str]:
    """One clause for each headline closure that a task makes larger in which the teacher is below the base."""
    clauses = []
    for number in numbers:
        rows = _rows_of(estimates, student, number, number.measure, "without_inverted_tasks")
        if len(rows):
            row = rows.iloc[0]
            tasks = json.loads(row["factors"])["inverted_tasks"]
            named = f"{one_line(tasks[0])}{f' and {len(tasks) - 1} more' if len(tasks) > 1 else ''}"
            value, low, high = (float(row[name]) for name in ("estimate", "conf_low", "conf_high"))
            share = format_with_interval(value, low, high) if math.isfinite(value) else "no number"
            clauses.append(f"{share} of {number.subject} without {named}, where the teacher is below the base")
    return clauses


def format_learnt_clauses(estimates: pd.DataFrame, student: str, numbers: Sequence[HeadlineFigure]) -> list[str]:
    """A clause on the headline closures that hold format learnt, since the base could not be read; or none."""
    shares = []
    for number in numbers:
        for factors in _rows_of(estimates, student, number, number.measure, "bounds")["factors"][:1]:
            if share := json.loads(factors).get("format_share"):
                shares.append(f"{format_share_hundredths(min(share, 1.0), 0)} % of {number.subject}")
    return [f"format makes {' and '.join(shares)} (answers of the base that cannot be read)"] if shares else []


def bounds_line(estimates: pd.DataFrame, student: str, numbers: Sequence[HeadlineFigure]) -> str:
    """The bounds of headline numbers that unreadable or missing answers make wider than their interval, or nothing."""
    texts = []
    for number in numbers:
        rows = _rows_of(estimates, student, number, number.measure, "bounds")
        if len(rows):
            row = rows.iloc[0]
            prefix = f"{number.capability} " if number.capability else ""
            shares = _shares_text(json.loads(row["factors"]))
            width = row["conf_high"] - row["conf_low"]
            if not width <= (2.0 if number.measure == "gap" else 1.0):  # also where an end is open
                texts.append(f"{prefix}wider than the scale ({shares})")
                continue
            ends = [format_share_hundredths(end, 0) for end in (row["conf_low"], row["conf_high"])]
            if ends != [format_share_hundredths(end, 0) for end in (number.conf_low, number.conf_high)]:
                unit = "points" if number.measure == "gap" else "%"
                texts.append(f"{prefix}{ends[0]} to {ends[1]} {unit} ({shares})")
    return f"Bounds, with all unreadable and missing answers right or wrong: {'; '.join(texts)}." if texts else ""


def _rows_of(
    estimates: pd.DataFrame, student: str, number: HeadlineFigure, quantity: str, estimator: str
) -> pd.DataFrame:
    """The rows of these tasks, each counting alike, that stand where the number does."""
    rows = estimates[
        (estimates["quantity"] == quantity)
        & (estimates["model"] == student)
        & (estimates["estimator"] == estimator)
        & (estimates["weighting"] == "tasks")
        & (estimates["population_tasks"] == "these_tasks")
        & (estimates["level"] == ("capability" if number.capability else "battery"))
    ]
    return rows[rows["group"] == number.capability] if number.capability else rows.drop_duplicates("contrast")


def _shares_text(shares: Mapping[str, Mapping[str, Any]]) -> str:
    """``unreadable: student 12 %, base 30 %; missing: student 5 %``."""
    texts = []
    for cause in ("unreadable", "missing"):
        listed = [
            f"{role} {format_share_hundredths(share, 0)} %"
            for role, share in shares[cause].items()
            if share >= _MIN_SHARE
        ]
        if listed:
            texts.append(f"{cause}: {', '.join(listed)}")
    return "; ".join(texts) or "under 0.5 % of the answers"

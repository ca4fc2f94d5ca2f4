"""The estimates as objects that can be looked up, and as tables to show."""

import json
import math
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from capgap.report import text

__all__ = [
    "CAPABILITY_ORDER",
    "EstimateIndex",
    "TableCell",
    "EstimateView",
    "ShownTable",
    "estimate_table",
    "task_names",
]

CAPABILITY_ORDER = ("knowledge", "reasoning", "mixed", "unlabelled")
"""The order, and the only words, in which capabilities are grouped and coloured."""

_QUANTITIES = {
    "accuracy": "accuracy",
    "gap": "gap",
    "base_gap": "room (teacher \u2212 base)",
    "gain": "gain over base",
    "gap_closure": "gap closure",
    "retention": "retention",
    "teacher_effect": "teacher effect",
    "agreement": "agreement",
    "fidelity": "fidelity",
    "error_inheritance": "error inheritance",
    "capability_contrast": "knowledge against reasoning",
    "unparsed": "unparsed",
    "truncated": "truncated",
    "lost": "lost",
    "gained": "gained",
    "effect": "effect",
    "effect_difference": "effect, difference of capabilities",
    "data_cost": "data cost",
    "relative_data_cost": "relative data cost",
    "next_batch_gain": "gain of the next batch",
    "error_type": "type of wrong answer",
    "failure_odds": "odds of failure",
    "n_patterns": "patterns",
    "pattern": "pattern",
    "pattern_excess": "excess failure over the base",
    "items_lost": "items lost",
    "items_gained": "items gained",
}
_PLAIN = {
    "examples": ",.0f",
    "logit": ".2f",
    "odds ratio": ".2f",
    "nats": ".3f",
    "items": ",.0f",
    "patterns": ".0f",
}
"""Scales that are no share, and how they are written."""
_DIFFERENCES = frozenset(
    {
        "gap", "base_gap", "gain", "teacher_effect", "fidelity", "capability_contrast", "effect", "effect_difference",
        "next_batch_gain", "pattern_excess", "equivalence",
    }
)  # fmt: skip
_ROW_LIMIT = 400
_WORDS = ("quantity", "level", "group", "model", "contrast", "scale", "weighting", "population")
_NUMBERS = ("estimate", "conf_level", "null_value", "p_value", "p_adjusted")
_COUNTS = ("n_items", "n_clusters", "n_tasks")


@dataclass(frozen=True)
class EstimateView:
    """One row of the estimates table; what is unknown is None."""

    quantity: str
    level: str
    group: str
    model: str
    contrast: str = ""
    factors: dict[str, Any] = field(default_factory=dict)
    scale: str = ""
    weighting: str = ""
    population: str = ""
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    conf_level: float | None = None
    null_value: float | None = None
    p_value: float | None = None
    p_adjusted: float | None = None
    n_items: int | None = None
    n_clusters: int | None = None
    n_tasks: int | None = None
    method: str = ""
    status: str = "ok"
    note: str = ""

    @property
    def refused(self) -> bool:
        """Whether there is no number; the note says why."""
        return self.status == "refused" or (self.estimate is None and self.low is None and self.high is None)

    @property
    def _format(self) -> str:
        """How its numbers are written, where they are no shares."""
        return ".2f" if self.quantity == "relative_data_cost" else _PLAIN.get(self.scale, "")

    @property
    def shown(self) -> str:
        """The number in the unit of its quantity: points for differences, per cent for shares and ratios."""
        if self.refused:
            return "refused" if self.status == "refused" else text.NOTHING
        if self.estimate is None:
            return "∞"  # never by the leading law
        if self._format:
            return text.number(self.estimate, self._format)
        return text.points(self.estimate) if self.quantity in _DIFFERENCES else text.percent(self.estimate)

    @property
    def interval(self) -> str:
        """Its interval, in the same unit."""
        if self.refused:
            return ""
        return text.interval(self.low, self.high, form=self._format)

    @property
    def name(self) -> str:
        """The quantity in words."""
        return _QUANTITIES.get(self.quantity, self.quantity.replace("_", " "))


def _number(value: Any) -> float | None:
    if value is None or pd.isna(value):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def _word(value: Any) -> str:
    return "" if value is None or pd.isna(value) else str(value)


def _factors(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    try:
        found = json.loads(value) if isinstance(value, str) else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _estimate(row: Mapping[Hashable, Any]) -> EstimateView:
    fields: dict[str, Any] = {name: _word(row.get(name)) for name in _WORDS}
    fields |= {name: _number(row.get(name)) for name in _NUMBERS}
    fields |= {name: _whole(row.get(name)) for name in _COUNTS}
    return EstimateView(
        **fields,
        factors=_factors(row.get("factors")),
        low=_number(row.get("conf_low")),
        high=_number(row.get("conf_high")),
        method=_word(row.get("method")),
        status=_word(row.get("status")) or "ok",
        note=_word(row.get("note")),
    )


class EstimateIndex:
    """All estimates of a report, in the order of their table, found by quantity, level, group and model."""

    def __init__(self, estimates: pd.DataFrame) -> None:
        every = [_estimate(row) for row in estimates.to_dict("records")]
        self.drawn = tuple(row for row in every if "labels" in row.factors)
        """Numbers over draws of the labels; nothing below finds them."""
        self.rows = tuple(row for row in every if "labels" not in row.factors)
        self._found: dict[tuple[str, str], list[EstimateView]] = {}
        for row in self.rows:
            self._found.setdefault((row.quantity, row.level), []).append(row)

    def select(
        self, quantity: str, level: str, *, model: str | None = None, weighting: str | None = None
    ) -> Iterator[EstimateView]:
        """The rows of one quantity at one level, in table order."""
        for row in self._found.get((quantity, level), ()):
            if (model is None or row.model == model) and (weighting is None or row.weighting == weighting):
                yield row

    def find(self, quantity: str, level: str, group: str, model: str) -> EstimateView | None:
        """The row with tasks weighted equally, of these tasks, where there is a choice; None where there is none."""
        found = [row for row in self.select(quantity, level, model=model) if row.group == group]
        return min(
            found, key=lambda row: (row.weighting == "items", "tasks like these" in row.population), default=None
        )

    def groups(self, level: str) -> tuple[str, ...]:
        """The groups of a level, in table order."""
        return tuple(dict.fromkeys(row.group for row in self.rows if row.level == level))


def task_names(outcomes: pd.DataFrame) -> pd.Series:
    """The task of every outcome as the estimates name it: ``battery/task`` where two batteries share the name."""
    shared = outcomes.groupby("task")["battery"].nunique()
    double = outcomes["task"].map(shared).fillna(1) > 1
    return outcomes["task"].where(~double, outcomes["battery"] + "/" + outcomes["task"])


@dataclass(frozen=True)
class TableCell:
    """One cell of a shown table."""

    text: str
    value: float | None = None
    """The exact number behind the text."""
    numeric: bool = False
    """Whether it is set flush right."""
    muted: bool = False


@dataclass(frozen=True)
class ShownTable:
    """A table ready to be set; what is the same in every row stands once, in `throughout`."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[TableCell, ...], ...]
    throughout: tuple[tuple[str, str], ...] = ()
    left_out: int = 0
    """Rows that the report does not hold."""


def _cells(row: EstimateView, models: dict[str, str]) -> dict[str, TableCell]:
    level = "" if row.conf_level is None else f"{100 * row.conf_level:g}\u202f%"
    null = text.NOTHING if row.null_value is None else text.percent(row.null_value)
    return {
        "quantity": TableCell(row.name),
        "group": TableCell(row.group),
        "model": TableCell(models.get(row.model, row.model)),
        "contrast": TableCell(row.contrast),
        "made of": TableCell(_told(row)),
        "estimate": TableCell(row.shown, None if row.refused else row.estimate, numeric=True, muted=row.refused),
        "interval": TableCell(row.interval, numeric=True),
        "confidence": TableCell(level),
        "null": TableCell(null, row.null_value, numeric=True),
        "p": TableCell(text.p_value(row.p_value), row.p_value, numeric=True),
        "p, adjusted": TableCell(text.p_value(row.p_adjusted), row.p_adjusted, numeric=True),
        "items": TableCell(text.count(row.n_items), numeric=True),
        "clusters": TableCell(text.count(row.n_clusters), numeric=True),
        "tasks": TableCell(text.count(row.n_tasks), numeric=True),
        "weighting": TableCell(row.weighting),
        "method": TableCell(row.method),
        "population": TableCell(row.population),
        "note": TableCell(row.note),
    }


def _told(row: EstimateView) -> str:
    """The factors of a number that is about no single model."""
    if row.model:
        return ""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in row.factors.items())


_NULL_NAMES = {"accuracy": "chance", "agreement": "expected", "error_inheritance": "control"}
_KEPT = frozenset({"group", "estimate"})


def estimate_table(
    rows: Iterable[EstimateView], *, caption: str, models: Sequence[str] = (), without: Collection[str] = ()
) -> ShownTable:
    """The rows as a table; constant columns move into one line above it, empty ones vanish.

    Parameters
    ----------
    rows
        What to show, in order.
    caption
        What the table holds.
    models
        Where models are numbered in the report (several students): their names in the order of their numbers.
    without
        Columns that say nothing here.
    """
    every = list(rows)
    named = {name: f"{i} {name}" for i, name in enumerate(models, 1)} if len(models) > 1 else {}
    cells = [_cells(row, named) for row in every[:_ROW_LIMIT]]
    kept, throughout = [], []
    for column in (name for name in (cells[0] if cells else ()) if name not in without):
        values = {row[column].text for row in cells}
        if column in _KEPT or (column == "interval" and values != {""}) or len(values) > 1:
            kept.append(column)
        elif column != "null" and values not in ({""}, {text.NOTHING}):
            throughout.append((column, cells[0][column].text))
    null_names = {_NULL_NAMES.get(row.quantity, "null") for row in every}
    heads = {"null": null_names.pop() if len(null_names) == 1 else "compared with"}
    return ShownTable(
        caption,
        tuple(heads.get(column, column) for column in kept),
        tuple(tuple(row[column] for column in kept) for row in cells),
        tuple(throughout),
        max(0, len(every) - _ROW_LIMIT),
    )

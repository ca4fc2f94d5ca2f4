"""The estimates as objects that can be looked up by code, and as tables to show."""

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import pandas as pd

from capgap.report import text
from capgap.report.display_labels import declaration, describe_code, population_label
from capgap.schema import MODELS
from capgap.schema.columns import VARIANT_ESTIMATORS
from capgap.schema.quantities import Quantity

CAPABILITY_ORDER = ("knowledge", "reasoning", "mixed", "unlabelled")
"""The order, and the only words, in which capabilities are grouped and coloured."""
LABEL_VARIANCE_FACTOR = "label_variance_share"
"""The factor that holds the share of a number's variance which the uncertainty of labels makes."""

POPULATION_ORDER = {"tasks_like_these": 1, "with_unreadable_tasks": 2}
"""Populations of tasks other than *these tasks*, which come first, in their order."""

_UNIT_FORMS = {"ratio": ".2f", "examples": ",.0f", "logit": ".2f", "odds ratio": ".2f", "count": ",.0f", "nats": ".3f"}
"""Unit → how its numbers are written; per cent and points are written in hundredths."""
_MAX_TABLE_ROWS = 400


@dataclass(frozen=True)
class EstimateView:
    """One row of the estimates table; what is unknown is None, a missing code or text is empty."""

    quantity: str
    level: str
    group: str
    model: str
    contrast: str = ""
    factors: dict[str, Any] = field(default_factory=dict)
    """How students were made, and what else tells rows of one quantity apart."""
    scale: str = ""
    weighting: str = ""
    subject: str = "model"
    estimator: str = ""
    population_students: str = ""
    population_tasks: str = ""
    population_items: str = ""
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
    status: str = "ok"
    reason: str = ""
    method: str = ""
    note: str = ""

    @property
    def refused(self) -> bool:
        """Whether there is no number; `reason` and `note` tell why."""
        return self.status == "refused" or (self.estimate is None and self.low is None and self.high is None)

    @property
    def declaration(self) -> Quantity:
        """The declaration of its quantity."""
        return declaration(self.quantity)

    @property
    def is_headline(self) -> bool:
        """Whether it weights tasks equally and speaks of these tasks; the variants of it stand in tables."""
        return self.weighting != "items" and self.population_tasks not in POPULATION_ORDER

    @property
    def is_sensitivity_analysis(self) -> bool:
        """Whether its estimator is another than the one that the declaration names."""
        return bool(self.estimator and self.declaration.estimator) and self.estimator != self.declaration.estimator

    @property
    def _number_format(self) -> str:
        """How its numbers are written; empty for hundredths."""
        return _UNIT_FORMS.get("nats" if self.scale == "nats" else self.declaration.unit, "")

    @property
    def shown(self) -> str:
        """The number in the unit of its quantity: points for differences, per cent for shares and ratios."""
        if self.refused:
            return "refused" if self.status == "refused" else text.UNKNOWN_VALUE_MARK
        if self.estimate is None:
            return "∞"  # never by the leading form
        if self._number_format:
            return text.number(self.estimate, self._number_format)
        return text.points(self.estimate) if self.declaration.unit == "points" else text.percent(self.estimate)

    @property
    def interval(self) -> str:
        """Its interval, in the same unit."""
        if self.refused:
            return ""
        return text.interval(self.low, self.high, form=self._number_format)

    @property
    def shown_with_interval(self) -> str:
        """The number and its interval behind it, where there is one."""
        return f"{self.shown} {self.interval}".strip()

    @property
    def contrast_label(self) -> str:
        """The contrast in the words of the declaration, or as the table has it."""
        return self.declaration.contrasts.get(self.contrast, self.contrast)

    @property
    def recipe(self) -> dict[str, str]:
        """How the students were made: those of its factors that are columns of the models table."""
        return {name: str(value) for name, value in self.factors.items() if name in MODELS.names}


def json_object(value: Any) -> dict[str, Any]:
    """A JSON object as a dictionary; anything else is an empty one."""
    try:
        parsed = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _estimate_views(estimates: pd.DataFrame) -> list[EstimateView]:
    """The rows of a validated table; NaN, null and infinity are None, and empty where the field is a text."""
    frame = estimates.rename(columns={"conf_low": "low", "conf_high": "high"})
    frame = frame[[column_field.name for column_field in fields(EstimateView)]].replace([math.inf, -math.inf], math.nan)
    texts = [column_field.name for column_field in fields(EstimateView) if column_field.type is str]
    frame = frame.assign(factors=frame["factors"].map(json_object), **frame[texts].fillna(""))
    frame = frame.astype(object)
    records: Any = frame.where(frame.notna(), None).to_dict("records")
    return [EstimateView(**record) for record in records]


def _number_key(view: EstimateView) -> tuple[str, ...]:
    """What a number and its variants share."""
    names = (view.quantity, view.level, view.group, view.model, view.contrast)
    return (*names, view.weighting, view.population_tasks, view.population_students)


class EstimateIndex:
    """All estimates of a report, in the order of their table, looked up by quantity, level, group and model."""

    def __init__(self, estimates: pd.DataFrame) -> None:
        estimate_views = _estimate_views(estimates)
        # They ask again what other rows ask: found by a look-up they would stand beside, or instead of, the plain ones.
        self.imputed = tuple(view for view in estimate_views if view.estimator == "multiple_imputation")
        """Numbers over draws of the labels; they repeat `rows`, and no look-up returns them."""
        self.variants = tuple(view for view in estimate_views if view.estimator in ("bounds", "without_inverted_tasks"))
        """Bounds and closures without inverted tasks, each beside a plain number; no look-up returns them as such."""
        self.rows = tuple(view for view in estimate_views if view.estimator not in VARIANT_ESTIMATORS)
        self._bounds = {_number_key(view): view for view in self.variants if view.estimator == "bounds"}
        self._by_quantity: dict[str, list[EstimateView]] = {}
        self._by_level: dict[tuple[str, str], list[EstimateView]] = {}
        self._groups: dict[str, dict[str, None]] = {}
        for view in self.rows:
            self._by_quantity.setdefault(view.quantity, []).append(view)
            self._by_level.setdefault((view.quantity, view.level), []).append(view)
            self._groups.setdefault(view.level, {})[view.group] = None

    def of(self, *quantities: str) -> list[EstimateView]:
        """All rows of one quantity after the other."""
        return [view for quantity in quantities for view in self._by_quantity.get(quantity, ())]

    def select(self, quantity: str, level: str, *, model: str | None = None) -> Iterator[EstimateView]:
        """The rows of one quantity at one level, in table order."""
        for view in self._by_level.get((quantity, level), ()):
            if model is None or view.model == model:
                yield view

    def find(self, quantity: str, level: str, group: str, model: str) -> EstimateView | None:
        """The row with tasks weighted equally, of these tasks, where there is a choice; None where there is none."""
        candidates = [view for view in self.select(quantity, level, model=model) if view.group == group]
        return min(
            candidates,
            key=lambda view: (view.weighting == "items", POPULATION_ORDER.get(view.population_tasks, 0)),
            default=None,
        )

    def bounds_of(self, view: EstimateView | None) -> EstimateView | None:
        """The bounds of a number over unreadable and missing answers; None where it has none."""
        return None if view is None or view.refused else self._bounds.get(_number_key(view))

    def groups(self, level: str) -> tuple[str, ...]:
        """The groups of a level, in table order."""
        return tuple(self._groups.get(level, ()))


def order_capabilities(group_names: Sequence[str]) -> list[str]:
    """Capabilities in the order of the page, unknown ones last in table order."""
    return sorted(group_names, key=lambda name: CAPABILITY_ORDER.index(name) if name in CAPABILITY_ORDER else 99)


def capability_colour(group: str) -> str:
    """The name of the colour of a capability."""
    return group if group in CAPABILITY_ORDER else "unlabelled"


def task_names(outcomes: pd.DataFrame) -> pd.Series:
    """The task of every outcome as the estimates name it: ``battery/task`` where two batteries share the name."""
    n_batteries = outcomes["task"].map(outcomes.groupby("task")["battery"].nunique())
    is_ambiguous = n_batteries.fillna(1) > 1
    return outcomes["task"].where(~is_ambiguous, outcomes["battery"] + "/" + outcomes["task"])


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


def numbered_models(models: Sequence[str]) -> dict[str, str]:
    """Several students with their numbers in the report before their names; nothing for a single one."""
    return {name: f"{i} {name}" for i, name in enumerate(models, 1)} if len(models) > 1 else {}


def _make_row_cells(row: EstimateView, models: Mapping[str, str]) -> dict[str, TableCell]:
    level = "" if row.conf_level is None else f"{100 * row.conf_level:g}\u202f%"
    population = population_label(row.population_students, row.population_tasks, row.population_items)
    return {
        "quantity": TableCell(row.declaration.title),
        "group": TableCell(row.group),
        "model": TableCell(models.get(row.model, row.model)),
        "contrast": TableCell(row.contrast_label),
        "made of": TableCell(", ".join(f"{describe_code(name)} {value}" for name, value in row.recipe.items())),
        "estimator": TableCell(describe_code(row.estimator) if row.is_sensitivity_analysis else ""),
        "estimate": TableCell(row.shown, None if row.refused else row.estimate, numeric=True, muted=row.refused),
        "interval": TableCell(row.interval, numeric=True),
        "confidence": TableCell(level),
        "null": TableCell(text.percent(row.null_value), row.null_value, numeric=True),
        "p": TableCell(text.p_value(row.p_value), row.p_value, numeric=True),
        "p, adjusted": TableCell(text.p_value(row.p_adjusted), row.p_adjusted, numeric=True),
        "items": TableCell(text.count(row.n_items), numeric=True),
        "clusters": TableCell(text.count(row.n_clusters), numeric=True),
        "tasks": TableCell(text.count(row.n_tasks), numeric=True),
        "weighting": TableCell(row.weighting),
        "method": TableCell(row.method),
        "population": TableCell(population),
        "note": TableCell(row.note),
    }


def make_collapsed_table(
    caption: str, cells: Sequence[Mapping[str, TableCell]], *, forced_columns: Collection[str], n_left_out: int = 0
) -> ShownTable:
    """A table whose constant columns stand in one line above it, and whose empty columns vanish.

    Parameters
    ----------
    caption
        What the table holds.
    cells
        One mapping a row, from column to cell, with the same columns in the same order.
    forced_columns
        Columns that stay, whatever they hold.
    n_left_out
        Rows that are not shown.
    """
    columns, constant_columns = [], []
    for column in cells[0] if cells else ():
        values = {row[column].text for row in cells}
        if column in forced_columns or len(values) > 1:
            columns.append(column)
        elif values not in ({""}, {text.UNKNOWN_VALUE_MARK}):
            constant_columns.append((column, cells[0][column].text))
    rows = tuple(tuple(row[column] for column in columns) for row in cells)
    return ShownTable(caption, tuple(columns), rows, tuple(constant_columns), n_left_out)


def estimate_table(
    rows: Iterable[EstimateView], *, caption: str, models: Sequence[str] = (), omitted: Collection[str] = ()
) -> ShownTable:
    """The rows as a `make_collapsed_table`, with all that the estimates say of each.

    Parameters
    ----------
    rows
        What to show, in order.
    caption
        What the table holds.
    models
        Where models are numbered in the report (several students): their names in the order of their numbers.
    omitted
        Columns that say nothing here.
    """
    estimate_views = list(rows)
    null_value_names = {view.declaration.null_value_name or "null" for view in estimate_views}
    null_column = null_value_names.pop() if len(null_value_names) == 1 else "compared with"
    if len({view.null_value for view in estimate_views}) < 2:
        omitted = {*omitted, "null"}  # one value for all, mostly zero, tells nothing
    numbered_names = numbered_models(models)
    cells = [
        {
            null_column if name == "null" else name: cell
            for name, cell in _make_row_cells(view, numbered_names).items()
            if name not in omitted
        }
        for view in estimate_views[:_MAX_TABLE_ROWS]
    ]
    # A group and its number stand in every row, even where there is one group; an interval wherever one is known.
    forced_columns = {"group", "estimate"} | ({"interval"} if any(view.interval for view in estimate_views) else set())
    return make_collapsed_table(
        caption, cells, forced_columns=forced_columns, n_left_out=len(estimate_views) - len(cells)
    )

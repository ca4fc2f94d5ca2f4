"""Rows of the `estimates` table: one number with whose it is, how it was made and whom its interval speaks of."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from capgap import schema
from capgap.schema.columns import VARIANT_ESTIMATORS
from capgap.schema.quantities import QUANTITIES
from capgap.schema.remarks import Remark, first_limiting_reason, render
from capgap.stats import Estimate, holm

KeyValuePairs = tuple[tuple[str, Any], ...]
"""A JSON object as names and values."""

_FAMILY_COLUMNS = (
    *("quantity", "level", "group", "subject", "scale", "weighting", "estimator"),
    *("population_items", "population_tasks", "population_students", "contrast"),
)
"""Codes that the rows of one question share, whoever is asked; the contrast where the quantity declares codes of it."""
_COPIED_COLUMNS = (
    *("quantity", "level", "group", "model", "contrast", "scale", "weighting", "subject", "estimator"),
    *("n_tasks", "n_students", "n_seeds", "p_adjusted", "family"),
)


_ESTIMATE_FIELDS = tuple(column.name for column in fields(Estimate))


class TargetPopulation(NamedTuple):
    """Whom an interval speaks of, by the codes of `capgap.schema.columns`."""

    items: str = "items_like_these"
    """One of `POPULATION_ITEMS`."""
    tasks: str = "these_tasks"
    """One of `POPULATION_TASKS`."""
    students: str = "these_checkpoints"
    """One of `POPULATION_STUDENTS`."""


THESE_TASKS = TargetPopulation()
TASKS_LIKE_THESE = TargetPopulation(tasks="tasks_like_these")
WITH_UNREADABLE_TASKS = TargetPopulation(tasks="with_unreadable_tasks")
THIS_RECIPE_POPULATION = TargetPopulation(students="this_recipe")


@dataclass(frozen=True)
class EstimateRow:
    """One number, where it stands, and whose it is."""

    quantity: str
    """A name of `schema.quantities.QUANTITIES`."""
    level: str
    group: str
    model: str | None
    """The model, or None where the number is about several."""
    estimate: Estimate
    n_tasks: int
    contrast: str | None = None
    """A code that the quantity declares, else a label for people."""
    roles: KeyValuePairs = ()
    """Role and model of those that take part."""
    factors: KeyValuePairs = ()
    """How students were made, and what else tells rows of one quantity apart: codes and numbers."""
    scale: str = "score"
    weighting: str = "items"
    subject: str = "model"
    """One of `schema.columns.SUBJECTS`."""
    estimator: str = "paired"
    """One of `schema.columns.ESTIMATORS`."""
    population: TargetPopulation = THESE_TASKS
    n_students: int = 1
    n_seeds: int | None = None
    """Training seeds that it speaks of; None where they are no part of it."""
    conf_level: float | None = None
    """Where it is not that of all other numbers."""
    alternative: str = "two-sided"
    p_adjusted: float = np.nan
    """Where the estimator adjusted it itself (over pairs); NaN where `adjust_over_students` does."""
    family: str | None = None
    """Of that adjustment."""

    def record(self, conf_level: float) -> dict[str, object]:
        """The row as columns of the table, with ``remarks`` in place of ``reason`` and ``note``."""
        e = self.estimate
        return {
            **{name: getattr(self, name) for name in _COPIED_COLUMNS},
            **{f"population_{axis}": code for axis, code in self.population._asdict().items()},
            **{name: getattr(e, name) for name in _ESTIMATE_FIELDS},
            "roles": _as_json(self.roles),
            "factors": _as_json(self.factors),
            # What is unknown is null: infinite degrees of freedom are those of a normal reference.
            "df": e.df if np.isfinite(e.df) else np.nan,
            "conf_level": self.conf_level or conf_level,
            "alternative": self.alternative if np.isfinite(e.p_value) else None,
            "n_clusters": e.n_clusters or None,  # a refusal counted none, and zero never stands for unknown
            "method": e.method or None,
        }


def _as_json(pairs: KeyValuePairs) -> str | None:
    return json.dumps(dict(pairs), ensure_ascii=False) if pairs else None


def as_frame(rows: Iterable[EstimateRow], *, conf_level: float) -> pd.DataFrame:
    """The rows as a draft of the table: a column ``remarks`` of codes, no note; no column where there is no row."""
    return pd.DataFrame([row.record(conf_level) for row in rows])


def add_remarks(frame: pd.DataFrame, remarks: Iterable[tuple[Remark, ...]]) -> pd.DataFrame:
    """A draft of the table with further remarks, a tuple for each row."""
    merged = [(*old_remarks, *new_remarks) for old_remarks, new_remarks in zip(frame["remarks"], remarks, strict=True)]
    return frame.assign(remarks=pd.Series(merged, index=frame.index, dtype=object))


def as_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The validated `estimates` table of a draft; only here do remarks become prose."""
    if not len(frame):
        return schema.empty(schema.ESTIMATES)
    remarks = frame["remarks"]
    table = frame.drop(columns="remarks").assign(reason=remarks.map(first_limiting_reason), note=remarks.map(render))
    table["note"] = table["note"].where(table["note"] != "", None)
    return schema.validate(table, schema.ESTIMATES, source="estimates")


def is_tested(frame: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows ask a question of the students that multiplicity counts; variants of a number ask none anew."""
    is_adjusted_quantity = {name: quantity.family == "students" for name, quantity in QUANTITIES.items()}
    return frame["quantity"].map(is_adjusted_quantity).astype(bool) & ~frame["estimator"].isin(VARIANT_ESTIMATORS)


def adjust_over_students(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with Holm's p-values where several students or recipes were asked one question.

    ``family_labels`` becomes ``holm|quantity|level|group|…|members``: the codes of `_FAMILY_COLUMNS` and the number
    of p-values.
    """
    adjusted_p_values = frame["p_adjusted"].to_numpy(dtype=float, copy=True)
    family_labels = frame["family"].to_numpy(dtype=object, copy=True)
    has_contrast_codes = {name: bool(quantity.contrasts) for name, quantity in QUANTITIES.items()}
    contrast_codes = frame["contrast"].where(frame["quantity"].map(has_contrast_codes).astype(bool), "")
    p_values = frame["p_value"].to_numpy(dtype=float)
    # Positions, not labels: groupby's indices count within `questions`.
    tested_positions = np.flatnonzero(is_tested(frame) & np.isfinite(p_values))
    questions = frame.assign(contrast=contrast_codes).iloc[tested_positions].groupby(list(_FAMILY_COLUMNS))
    for question, positions in questions.indices.items():
        members = tested_positions[positions]
        if len(members) > 1:
            adjusted_p_values[members] = holm(p_values[members])
            family_labels[members] = f"holm|{'|'.join(question)}|{len(members)}"  # type: ignore[arg-type]
    return frame.assign(p_adjusted=adjusted_p_values, family=family_labels)

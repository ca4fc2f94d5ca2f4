"""Rows of the `estimates` table: one number with whose it is, how it was made and whom its interval speaks of."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from capgap import schema
from capgap.schema.quantities import QUANTITIES
from capgap.schema.remarks import reason_of, render
from capgap.stats import Estimate, holm

__all__ = [
    "TASKS_LIKE_THESE",
    "THESE_TASKS",
    "THIS_RECIPE",
    "EstimateRow",
    "Population",
    "adjust_over_students",
    "as_frame",
    "as_table",
    "is_tested",
]

_FAMILY = [
    *("quantity", "level", "group", "subject", "scale", "weighting", "estimator"),
    *("population_items", "population_tasks", "population_students"),
]
"""Codes that rows of one question share, whoever is asked; of `capability_contrast` its contrast too."""


@dataclass(frozen=True)
class Population:
    """Whom an interval speaks of, by the codes of the schema."""

    items: str = "items_like_these"
    """One of `schema.columns.POPULATION_ITEMS`."""
    tasks: str = "these_tasks"
    """One of `schema.columns.POPULATION_TASKS`."""
    students: str = "these_checkpoints"
    """One of `schema.columns.POPULATION_STUDENTS`."""


THESE_TASKS = Population()
TASKS_LIKE_THESE = Population(tasks="tasks_like_these")
THIS_RECIPE = Population(students="this_recipe")


@dataclass(frozen=True)
class EstimateRow:
    """One number, where it stands, and whose it is."""

    quantity: str
    """A name of `schema.QUANTITIES`."""
    level: str
    group: str
    model: str | None
    """The model, or None where the number is about several."""
    estimate: Estimate
    n_tasks: int
    contrast: str | None = None
    """A code that the quantity declares, else a label for people."""
    roles: tuple[tuple[str, str], ...] = ()
    """Role and model of those that take part."""
    factors: tuple[tuple[str, Any], ...] = ()
    """How students were made, and what else tells rows of one quantity apart: codes and numbers."""
    scale: str = "score"
    weighting: str = "items"
    subject: str = "model"
    """One of `schema.columns.SUBJECTS`."""
    estimator: str = "paired"
    """One of `schema.columns.ESTIMATORS`."""
    population: Population = THESE_TASKS
    n_students: int = 1
    n_seeds: int | None = None
    """Training seeds that it speaks of; None where they are no part of it."""
    conf_level: float | None = None
    """Where it is not that of all other numbers."""
    alternative: str = "two-sided"

    def record(self, conf_level: float) -> dict[str, object]:
        """The row as columns of the table, with ``remarks`` in place of ``reason`` and ``note``."""
        e = self.estimate
        return {
            "quantity": self.quantity,
            "level": self.level,
            "group": self.group,
            "model": self.model,
            "contrast": self.contrast,
            "roles": _object(self.roles),
            "factors": _object(self.factors),
            "scale": self.scale,
            "weighting": self.weighting,
            "subject": self.subject,
            "estimator": self.estimator,
            "population_items": self.population.items,
            "population_tasks": self.population.tasks,
            "population_students": self.population.students,
            "estimate": e.estimate,
            "std_error": e.std_error,
            "df": e.df if np.isfinite(e.df) else np.nan,
            "conf_low": e.conf_low,
            "conf_high": e.conf_high,
            "conf_level": self.conf_level or conf_level,
            "null_value": e.null_value,
            "alternative": self.alternative if np.isfinite(e.p_value) else None,
            "p_value": e.p_value,
            "n_items": e.n_items,
            "n_clusters": e.n_clusters or None,  # a refusal counted none, and zero never stands for unknown
            "n_tasks": self.n_tasks,
            "n_students": self.n_students,
            "n_seeds": self.n_seeds,
            "method": e.method or None,
            "status": e.status,
            "remarks": e.remarks,
        }


def _object(pairs: tuple[tuple[str, Any], ...]) -> str | None:
    return json.dumps(dict(pairs), ensure_ascii=False) if pairs else None


def as_frame(rows: Iterable[EstimateRow], *, conf_level: float) -> pd.DataFrame:
    """The rows as a frame in the making, remarks as codes; it has no column where there is no row."""
    return pd.DataFrame([row.record(conf_level) for row in rows])


def as_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The validated `estimates` table of a frame in the making: the one place where remarks become prose."""
    if not len(frame):
        return schema.empty(schema.ESTIMATES)
    prose = {
        "reason": [reason_of(remarks) for remarks in frame["remarks"]],
        "note": [render(remarks) or None for remarks in frame["remarks"]],
    }
    return schema.validate(frame.drop(columns="remarks").assign(**prose), schema.ESTIMATES, source="estimates")


def is_tested(frame: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows ask a question of the students that multiplicity counts; draws of labels ask none anew."""
    families = {name: quantity.family == "students" for name, quantity in QUANTITIES.items()}
    return frame["quantity"].map(families).astype(bool) & (frame["estimator"] != "multiple_imputation")


def adjust_over_students(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with Holm's p-values where several students or recipes were asked one question.

    ``family`` becomes ``holm|quantity|level|group|…|members``: `_FAMILY`, the contrast and how many p-values.
    """
    adjusted = np.full(len(frame), np.nan)
    family = np.full(len(frame), None, dtype=object)
    codes = frame["contrast"].where(frame["quantity"] == "capability_contrast", "")
    p_values = frame["p_value"].to_numpy(dtype=float)
    tested = np.flatnonzero(is_tested(frame) & frame["p_value"].notna())
    questions = frame.assign(contrast=codes).iloc[tested]
    for question, rows in questions.groupby([*_FAMILY, "contrast"]).indices.items():
        if len(rows) > 1:
            members = tested[rows]
            adjusted[members] = holm(p_values[members])
            family[members] = "|".join(("holm", *map(str, question), str(len(members))))
    return frame.assign(p_adjusted=adjusted, family=family)

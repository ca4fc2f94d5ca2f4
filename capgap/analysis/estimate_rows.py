"""Estimates as rows of the `estimates` table."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from capgap import schema
from capgap.stats import Estimate, holm

__all__ = [
    "DRAWN",
    "NO_FAMILY",
    "THESE_TASKS",
    "TASKS_LIKE_THESE",
    "THIS_RECIPE",
    "EstimateRow",
    "is_sensitivity_analysis",
    "to_table",
]

THESE_TASKS = "these checkpoints, these tasks"
TASKS_LIKE_THESE = "these checkpoints, tasks like these"
THIS_RECIPE = "this recipe, these tasks"

NO_FAMILY = ("base_gap", "error_type", "failure_odds")
"""What the base lacked is no question about the students; what goes with failure is looked at, not tested."""
DRAWN = ("labels", "drawn")
"""The factor of a number over draws of the labels; it asks again what a number without it asks."""
_OF_RECIPES = ("gap", "gain", "lost", "gained")
_FAMILY = ["quantity", "level", "group", "contrast", "scale", "weighting", "population"]


@dataclass(frozen=True)
class EstimateRow:
    """One number, where it stands, and whose it is."""

    quantity: str
    level: str
    group: str
    model: str | None
    """The model, or None where the number is about several."""
    estimate: Estimate
    n_tasks: int
    contrast: str | None = None
    factors: tuple[tuple[str, str], ...] = ()
    """Role and model for the roles that take part, or factor and level."""
    scale: str = "score"
    weighting: str = "items"
    population: str = THESE_TASKS
    n_students: int = 1
    n_seeds: int | None = None
    """Training seeds that it speaks of; None where they are no part of it."""
    conf_level: float | None = None
    """Where it is not that of all other numbers."""
    alternative: str = "two-sided"

    def record(self, conf_level: float) -> dict[str, object]:
        """The row as columns of the table."""
        e = self.estimate
        return {
            "quantity": self.quantity,
            "level": self.level,
            "group": self.group,
            "model": self.model,
            "contrast": self.contrast,
            "factors": json.dumps(dict(self.factors), ensure_ascii=False) if self.factors else None,
            "scale": self.scale,
            "weighting": self.weighting,
            "population": self.population,
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
            "note": e.note or None,
        }


def is_sensitivity_analysis(table: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows repeat a question over draws of the labels: no family counts them."""
    told = json.dumps(dict([DRAWN]))[1:-1]
    return table["factors"].fillna("").astype(str).str.contains(told, regex=False)


def to_table(rows: Iterable[EstimateRow], *, conf_level: float) -> pd.DataFrame:
    """The validated `estimates` table of the rows, p-values of several students adjusted by Holm."""
    records = [row.record(conf_level) for row in rows]
    if not records:
        return schema.empty(schema.ESTIMATES)
    return schema.validate(_with_families(pd.DataFrame(records)), schema.ESTIMATES, source="estimates")


def _with_families(table: pd.DataFrame) -> pd.DataFrame:
    """Several students or recipes asked one question are a family; a profile is none, nor what the base lacked."""
    adjusted = np.full(len(table), np.nan)
    family = np.full(len(table), None, dtype=object)
    recipe = table["model"].isna() & table["quantity"].isin(_OF_RECIPES) & (table["population"] == THIS_RECIPE)
    question = table["contrast"].notna() & (table["model"].notna() | recipe) & ~table["quantity"].isin(NO_FAMILY)
    question &= ~is_sensitivity_analysis(table)
    asked = table[question & table["p_value"].notna()]
    quantity, contrast, group = (table[name].to_numpy(dtype=object) for name in ("quantity", "contrast", "group"))
    p_values = table["p_value"].to_numpy(dtype=float)
    for rows in asked.groupby(_FAMILY, dropna=False).indices.values():
        members = asked.index.to_numpy()[rows]
        if len(members) > 1:
            adjusted[members] = holm(p_values[members])
            one = members[0]
            who = "recipes" if recipe[one] else "students"
            family[members] = f"{quantity[one]} ({contrast[one]}) in {group[one]}: {len(members)} {who}"
    return table.assign(p_adjusted=adjusted, family=family)

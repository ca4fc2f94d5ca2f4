"""Preparation of outcomes: roles checked, gaps filled with defaults, task names qualified, covariates binned."""

import numpy as np
import pandas as pd

from capgap import schema
from capgap.errors import TableError, suggestion

MAX_VALUES = 8
"""A numeric covariate with at most so many values is sliced by value, otherwise into quarters."""
MAX_CATEGORIES = 20
"""Of a covariate of words the most frequent are slices of their own, the rest stands together."""


def check_roles(outcomes: pd.DataFrame, roles: schema.Roles) -> None:
    """Refuse names that the table does not hold, and a teacher and student without a common item.

    Raises
    ------
    TableError
        With the nearest name, or with what both sides were asked.
    """
    if not roles.students:
        raise TableError("no student: name at least one model to compare.")
    known = set(outcomes["model"])
    for name in roles.names:
        if name not in known:
            raise TableError(f"model {name!r} has no outcomes.{suggestion(name, known)}")
    if roles.teacher is None:
        return
    columns = ["battery", "task", "item"]
    item = outcomes.groupby(columns, sort=True).ngroup().to_numpy()
    items_of = {name: item[(outcomes["model"] == name).to_numpy()] for name in (roles.teacher, *roles.students)}
    for student in roles.students:
        if not np.isin(items_of[student], items_of[roles.teacher]).any():
            teacher_row, student_row = (
                " / ".join(map(str, outcomes[columns].iloc[int(np.flatnonzero(item == items_of[name].min())[0])]))
                for name in (roles.teacher, student)
            )
            raise TableError(
                f"teacher {roles.teacher!r} and student {student!r} have no common item: the teacher was asked e.g. "
                f"{teacher_row}, the student {student_row}. Evaluate both on the same battery, limit and seed."
            )


def fill_defaults(outcomes: pd.DataFrame) -> pd.DataFrame:
    """The outcomes with the defaults of the schema also where a column that names cells is there but has gaps."""
    keys = {"battery", "variant", "repeat", "primary", "status"}
    gaps = {c.name: c.default for c in schema.OUTCOMES.columns if c.name in keys and outcomes[c.name].isna().any()}
    return outcomes.fillna(gaps) if gaps else outcomes


def qualify_task_names(outcomes: pd.DataFrame) -> pd.DataFrame:
    """The outcomes with task names that stand in two batteries written ``battery/task``."""
    pairs = outcomes[["battery", "task"]].drop_duplicates()
    shared = pairs["task"][pairs["task"].duplicated()].unique()
    if not len(shared):
        return outcomes
    ambiguous = outcomes["task"].isin(shared)
    return outcomes.assign(task=outcomes["task"].where(~ambiguous, outcomes["battery"] + "/" + outcomes["task"]))


def bin_covariates(outcomes: pd.DataFrame) -> pd.DataFrame:
    """The outcomes with every covariate replaced by the label of its bin, the same for all models; None is unknown."""
    binned = {}
    for name in schema.covariate_names(outcomes):
        label = pd.Series(None, index=outcomes.index, dtype=object)
        for _, rows in outcomes.groupby("task").indices.items():
            label.iloc[rows] = _bin_labels(outcomes[name].iloc[rows], outcomes["item"].iloc[rows])
        binned[name] = label
    return outcomes.assign(**binned)


def _bin_labels(values: pd.Series, items: pd.Series) -> np.ndarray:
    """The bin label of each value of one covariate in one task, None where unknown, shape (rows,)."""
    labels = np.full(len(values), None, dtype=object)
    known = values.notna().to_numpy()
    if not known.any():
        return labels
    number = pd.to_numeric(values[known], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    if pd.api.types.is_bool_dtype(values.dtype) or not np.isfinite(number).all():
        words = values[known].astype(str).to_numpy(dtype=object)
        names, counts = np.unique(words.astype(str), return_counts=True)
        if len(names) > MAX_CATEGORIES:
            frequent = set(names[np.argsort(-counts, kind="stable")[: MAX_CATEGORIES - 1]])
            words = np.array([w if w in frequent else "(all others)" for w in words], dtype=object)
        labels[known] = words
        return labels
    distinct = np.unique(number)
    if len(distinct) <= MAX_VALUES:
        labels[known] = [f"{x:g}" for x in number]
        return labels
    # Quarters of the items, not of the rows: models that were asked more often would move the edges.
    per_item = pd.Series(number).groupby(items[known].to_numpy(dtype=object)).mean().to_numpy()
    edges = np.unique(np.quantile(per_item, [0.25, 0.5, 0.75]))
    quarter = np.searchsorted(edges, number, side="left")
    for q in np.unique(quarter):
        inside = number[quarter == q]
        span = f"{inside.min():.4g}" if inside.min() == inside.max() else f"{inside.min():.4g}–{inside.max():.4g}"
        labels[np.flatnonzero(known)[quarter == q]] = span
    return labels

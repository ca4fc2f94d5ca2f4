"""Preparation of outcomes: roles checked, gaps filled with defaults, task names qualified, covariates binned."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from capgap import schema
from capgap.errors import TableError, suggestion

MAX_DISTINCT_VALUES = 8
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
    known_models = set(outcomes["model"])
    for name in roles.names:
        if name not in known_models:
            raise TableError(f"model {name!r} has no outcomes.{suggestion(name, known_models)}")
    if roles.teacher is None:
        return
    columns = ["battery", "task", "item"]
    item = outcomes.groupby(columns, sort=True).ngroup().to_numpy()
    model_items = {name: item[(outcomes["model"] == name).to_numpy()] for name in (roles.teacher, *roles.students)}
    for student in roles.students:
        if not np.isin(model_items[student], model_items[roles.teacher]).any():
            teacher_row, student_row = (
                " / ".join(map(str, outcomes[columns].iloc[int(np.flatnonzero(item == model_items[name].min())[0])]))
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
    shared_task_names = pairs["task"][pairs["task"].duplicated()].unique()
    if not len(shared_task_names):
        return outcomes
    has_shared_name = outcomes["task"].isin(shared_task_names)
    return outcomes.assign(task=outcomes["task"].where(~has_shared_name, outcomes["battery"] + "/" + outcomes["task"]))


def bin_covariates(outcomes: pd.DataFrame) -> pd.DataFrame:
    """The outcomes with every covariate replaced by the label of its bin; None is unknown.

    Bins are those of a model's own items in a task, whoever else is in the table: models that were asked the same items
    have the same bins, unless the covariate (``x_exposure``) is one of the model.
    """
    covariates = schema.covariate_names(outcomes)
    if not covariates:
        return outcomes
    items = pd.factorize(outcomes["item"])[0]
    groups = [np.asarray(rows) for rows in outcomes.groupby(["model", "task"], sort=False).indices.values()]
    return outcomes.assign(**{name: _binned_column(outcomes[name], items, groups) for name in covariates})


def holds_booleans(values: "pd.Series[Any]") -> bool:
    """Whether all that is known in a column is true or false, whatever the type of the column."""
    return all(isinstance(value, bool | np.bool_) for value in values.dropna().unique())


def _binned_column(values: "pd.Series[Any]", items: NDArray[Any], groups: list[NDArray[Any]]) -> NDArray[Any]:
    """The bin labels of one covariate, group by group; groups with the same items and values are binned once."""
    labels = np.full(len(values), None, dtype=object)
    value_codes = pd.factorize(values)[0]
    labels_by_content: dict[tuple[bytes, bytes], NDArray[Any]] = {}
    for rows in groups:
        content = items[rows].tobytes(), value_codes[rows].tobytes()
        if content not in labels_by_content:
            labels_by_content[content] = _bin_labels(values.iloc[rows], items[rows])
        labels[rows] = labels_by_content[content]
    return labels


def _bin_labels(values: "pd.Series[Any]", items: NDArray[Any]) -> NDArray[Any]:
    """The bin label of each value of one covariate of one model in one task, None where unknown, shape (rows,)."""
    labels = np.full(len(values), None, dtype=object)
    is_known = values.notna().to_numpy()
    if not is_known.any():
        return labels
    number = pd.to_numeric(values[is_known], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    if holds_booleans(values) or not np.isfinite(number).all():
        words = values[is_known].astype(str).to_numpy(dtype=object)
        names, counts = np.unique(words.astype(str), return_counts=True)
        if len(names) > MAX_CATEGORIES:
            frequent_words = set(names[np.argsort(-counts, kind="stable")[: MAX_CATEGORIES - 1]])
            words = np.array([w if w in frequent_words else "(all others)" for w in words], dtype=object)
        labels[is_known] = words
        return labels
    distinct = np.unique(number)
    if len(distinct) <= MAX_DISTINCT_VALUES:
        labels[is_known] = [f"{x:g}" for x in number]
        return labels
    # Quarters of the items, not of the rows: an item that was asked more often would move the edges.
    per_item = pd.DataFrame({"item": items[is_known], "number": number}).drop_duplicates()["number"].to_numpy()
    edges = np.unique(np.quantile(per_item, [0.25, 0.5, 0.75]))
    quartile_indices = np.searchsorted(edges, number, side="left")
    for q in np.unique(quartile_indices):
        in_bin = number[quartile_indices == q]
        span = f"{in_bin.min():.4g}" if in_bin.min() == in_bin.max() else f"{in_bin.min():.4g}–{in_bin.max():.4g}"
        labels[np.flatnonzero(is_known)[quartile_indices == q]] = span
    return labels

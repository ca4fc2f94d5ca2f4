"""Shares of answers that could not be read, and the tasks that are set aside because the teacher's could not.

What a student, a base or a control writes is its own: it keeps its score and counts in every number. Where a teacher's
answers could not be read, what it can do is unknown: such tasks are set aside from comparisons with the teacher, which
show both numbers, without and with them.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from capgap import schema
from capgap.analysis.estimate_rows import EstimateRow
from capgap.schema.remarks import Reason, Remark, remark
from capgap.stats import Design, accuracy, clopper_pearson_lower

_REASON_BY_STATUS = {"unparsed": Reason.UNPARSED_OFTEN, "cut_off": Reason.CUT_OFF_OFTEN}
"""Quantity → what to change where it is frequent."""
_BOUND_LEVEL = 0.95
"""Of the one-sided lower bound that sets a task aside, whatever level the intervals have."""


def unreadable_tasks(outcomes: pd.DataFrame, teacher: str | None) -> frozenset[str]:
    """The tasks in which surely more than `MAX_UNREADABLE_SHARE` of the teacher's answers could not be read.

    Parameters
    ----------
    outcomes
        Validated, task names unambiguous.
    teacher
        None: nothing is set aside.

    Notes
    -----
    One-sided lower 95 % bound of Clopper and Pearson over items, repeats of an item averaged.
    """
    if teacher is None:
        return frozenset()
    rows = _primary_rows(outcomes, (teacher,))
    by_item = schema.is_unreadable(rows).groupby([rows["task"].astype(str), rows["item"]]).mean()
    totals = by_item.groupby(level=0).agg(["sum", "size"])
    return frozenset(
        str(task)
        for task, n_unreadable, n_items in totals.itertuples()
        if clopper_pearson_lower(n_unreadable, n_items, level=_BOUND_LEVEL) > schema.MAX_UNREADABLE_SHARE
    )


def unreadable_share_rows(
    outcomes: pd.DataFrame, roles: schema.Roles, set_aside: frozenset[str], *, conf_level: float
) -> Iterator[EstimateRow]:
    """`unparsed` and `cut_off` of every model and task, as far as the table tells; `set_aside` are the teacher's."""
    primary = _primary_rows(outcomes, roles.names)
    cut_off = schema.is_cut_off(primary)
    primary = primary[["task", "model", "format", "stop_reason"]].assign(
        cluster=pd.factorize(primary["item"])[0],
        cut_off=cut_off.astype(float),
        unparsed=(schema.is_unreadable(primary) & ~cut_off).astype(float),
    )
    for (task, model), answer_rows in primary.groupby(["task", "model"], sort=True):
        is_set_aside = model == roles.teacher and task in set_aside
        design = Design.of(np.zeros(len(answer_rows)), answer_rows["cluster"].to_numpy())
        for quantity, frequent_reason in _REASON_BY_STATUS.items():
            if not answer_rows[quantity].any() and not _is_told(answer_rows, quantity):
                continue  # unknown, not zero
            share = accuracy(answer_rows[quantity].to_numpy(), design, conf_level=conf_level)
            share = replace(share, p_value=math.nan, null_value=math.nan)
            remarks: list[Remark] = []
            if is_set_aside and share.estimate > 0:
                remarks.append(
                    remark(Reason.UNREADABLE_ANSWERS, most=100 * schema.MAX_UNREADABLE_SHARE, tasks=(str(task),))
                )
            if remarks or share.estimate > schema.MAX_UNREADABLE_SHARE:
                remarks.append(remark(frequent_reason))
            yield EstimateRow(quantity, "task", str(task), str(model), share.noting(*remarks), 1)


def _primary_rows(outcomes: pd.DataFrame, models: tuple[str, ...]) -> pd.DataFrame:
    return outcomes[outcomes["primary"].fillna(False).astype(bool) & outcomes["model"].isin(models)]


def _is_told(answer_rows: pd.DataFrame, quantity: str) -> bool:
    """Whether a table that holds no such answer of a model and task says that there is none."""
    if quantity == "cut_off" and not (answer_rows["format"] == "choose").all():
        return bool(answer_rows["stop_reason"].notna().any())
    return bool(answer_rows["format"].notna().any())
